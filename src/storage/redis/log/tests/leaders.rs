//! Who leads a partition: decided by Redis, whatever brokers believe.

use super::*;
use crate::log::store::Claim;

fn claim(epoch: i32, leader: &str) -> Claim {
    Claim { epoch, leader: leader.to_owned() }
}

#[tokio::test]
async fn a_claim_raises_the_epoch_once_and_fences_the_leader_before() {
    for layout in LAYOUTS {
        let mut world = World::new().await;
        let other = world.other_broker().await;
        world.log.claim(&world.id, &claim(0, "1 a")).await.expect("nobody leads");
        for count in [1, 100] {
            world.append(layout, vec![batch(count, "a")]).await;
        }
        let led = other.claim(&world.id, &claim(4, "2 b")).await.expect("a newer epoch");
        assert_eq!((led.leader_epoch, led.next_offset), (4, 101));
        let again = other.claim(&world.id, &claim(4, "2 b")).await.expect("it leads");
        assert_eq!(again, led);
        for count in [1, 100] {
            let late = append(layout, vec![batch(count, "late")]);
            assert_eq!(world.log.append(&world.id, late).await.err(), Some(StoreError::FencedLeader(4)));
        }
        assert_eq!(world.load().await.next_offset, 101, "nothing of the earlier leader is stored");
        let request = Append { leader_epoch: 4, ..append(layout, vec![batch(1, "b")]) };
        let outcome = other.append(&world.id, request).await.expect("it leads");
        assert_eq!(outcome.next_offset, 102);
        assert_eq!(world.load().await.epoch_starts, [(0, 0), (4, 101)]);
    }
}

#[tokio::test]
async fn an_older_claim_is_refused_and_so_is_another_leader_of_one_epoch() {
    let mut world = World::new().await;
    let other = world.other_broker().await;
    world.log.claim(&world.id, &claim(7, "1 a")).await.expect("nobody leads");
    for (epoch, leader) in [(6, "1 a"), (0, "2 b"), (7, "2 b"), (7, "1 another-life")] {
        let refused = other.claim(&world.id, &claim(epoch, leader)).await;
        assert_eq!(refused, Err(StoreError::FencedLeader(7)), "{epoch} {leader}");
    }
    assert_eq!(world.load().await.leader_epoch, 7);
}

#[tokio::test]
async fn of_many_that_claim_at_once_each_epoch_has_one_leader() {
    let world = World::new().await;
    let claims = (0..32).map(|number| {
        let (log, id) = (world.log.clone(), world.id.clone());
        async move { log.claim(&id, &claim(1 + number % 4, &format!("{number} x"))).await.ok().map(|_| 1 + number % 4) }
    });
    let mut won: Vec<i32> = futures::future::join_all(claims).await.into_iter().flatten().collect();
    let all = won.len();
    won.dedup();
    assert_eq!(won.len(), all, "{won:?}");
    assert!(won.is_sorted() && won.last() == Some(&4), "{won:?}");
}

#[tokio::test]
async fn epochs_without_records_are_not_remembered_and_their_number_is_bounded() {
    let world = World::new().await;
    world.log.claim(&world.id, &claim(2, "1 a")).await.expect("newer");
    world.log.claim(&world.id, &claim(3, "1 b")).await.expect("newer");
    assert_eq!(world.load().await.epoch_starts, []);
    for epoch in 4..150 {
        world.log.claim(&world.id, &claim(epoch, &format!("1 {epoch}"))).await.expect("newer");
        let request = Append { leader_epoch: epoch, ..append(Layout::Batch, vec![batch(1, "x")]) };
        world.log.append(&world.id, request).await.expect("it leads");
    }
    let starts = world.load().await.epoch_starts;
    assert_eq!((starts.len(), starts.last()), (100, Some(&(149, 145))));
    world.log.delete_records(&world.id, 140).await.expect("deleted");
    world.log.claim(&world.id, &claim(150, "1 z")).await.expect("newer");
    let starts = world.load().await.epoch_starts;
    assert_eq!(starts.first(), Some(&(144, 140)), "of what is gone nothing is kept: {starts:?}");
}

#[tokio::test]
async fn a_lead_is_taken_when_memory_has_run_out() {
    let world = World::new().await;
    world.redis.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let led = world.log.claim(&world.id, &claim(3, "1 a")).await.expect("consumers must be able to go on");
    assert_eq!(led.leader_epoch, 3);
}
