use std::collections::VecDeque;

use uuid::Uuid;

use super::*;

const NODE: NodeId = NodeId(1);

/// Answers what a test says, then that all is well.
#[derive(Default)]
struct Fake {
    answers: Mutex<VecDeque<Result<Renewed, RegistryError>>>,
    renewals: Mutex<Vec<Renewal>>,
    view: Mutex<View>,
    left: AtomicU64,
}

#[async_trait]
impl Registry for Fake {
    async fn renew(&self, renewal: Renewal) -> Result<Renewed, RegistryError> {
        self.renewals.lock().push(renewal);
        let next = self.answers.lock().pop_front();
        next.unwrap_or_else(|| Ok(registered(self.view.lock().clone(), false)))
    }

    async fn leave(&self) -> Result<View, RegistryError> {
        self.left.fetch_add(1, Ordering::Relaxed);
        let mut view = self.view.lock().clone();
        view.live.retain(|broker| broker.node != NODE);
        Ok(view)
    }
}

fn registered(view: View, had_lapsed: bool) -> Renewed {
    Renewed::Registered { view, next_expiry: None, had_lapsed }
}

fn view(generation: i32, nodes: &[(i32, i32)]) -> View {
    let broker = |&(node, joined): &(i32, i32)| Broker {
        node: NodeId(node),
        incarnation: node.to_string(),
        joined,
        rack: None,
        endpoints: Vec::new(),
    };
    View { generation, live: nodes.iter().map(broker).collect(), ..View::default() }
}

struct World {
    cluster: Arc<Cluster>,
    registry: Arc<Fake>,
    leaving: CancellationToken,
    kept: tokio::task::JoinHandle<bool>,
}

/// A broker that keeps itself registered, from the first view on.
async fn world(answers: Vec<Result<Renewed, RegistryError>>) -> World {
    let options =
        Options { node: NODE, session_timeout: Duration::from_secs(2), heartbeat_interval: Duration::from_millis(500) };
    let (cluster, leaving) = (Arc::new(Cluster::new(options)), CancellationToken::new());
    let registry = Arc::new(Fake::default());
    *registry.view.lock() = view(0, &[(1, 0)]);
    registry.answers.lock().extend(answers);
    let kept = tokio::spawn({
        let (cluster, registry, leaving) = (cluster.clone(), registry.clone(), leaving.clone());
        async move { cluster.keep_registered(&*registry, &leaving).await }
    });
    World { cluster, registry, leaving, kept }
}

fn topic() -> TopicId {
    TopicId(Uuid::from_u128(5))
}

#[tokio::test(start_paused = true)]
async fn a_broker_leads_once_it_is_registered_and_no_more_once_it_has_left() {
    let World { cluster, registry, leaving, kept } = world(Vec::new()).await;
    assert_eq!(cluster.leads(topic(), 0), Err(-1));
    cluster.refreshed().await;
    assert_eq!(cluster.leads(topic(), 0), Ok(0));
    assert!(cluster.is_registered());
    leaving.cancel();
    assert!(kept.await.expect("no panic"));
    assert_eq!(registry.left.load(Ordering::Relaxed), 1);
    assert_eq!(cluster.leads(topic(), 0), Err(-1));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_can_not_renew_knows_that_others_may_have_taken_over() {
    let World { cluster, registry, .. } = world(Vec::new()).await;
    cluster.refreshed().await;
    let lost = || Err(RegistryError::Unreachable);
    registry.answers.lock().extend(std::iter::repeat_with(lost).take(1_000));
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert!(cluster.is_registered(), "for as long as the others wait");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(!cluster.is_registered());
    registry.answers.lock().clear();
    cluster.refreshed().await;
    assert!(cluster.is_registered());
}

#[tokio::test(start_paused = true)]
async fn after_a_stand_still_the_others_get_the_time_to_come_back() {
    let lapsed = Ok(registered(view(0, &[(1, 0)]), true));
    let World { registry, .. } = world(vec![Ok(registered(view(0, &[(1, 0)]), false)), lapsed]).await;
    tokio::time::sleep(Duration::from_millis(4_100)).await;
    let may: Vec<bool> = registry.renewals.lock().iter().map(|renewal| renewal.may_declare_gone).collect();
    // At 0 and 500 ms; then not before 2,500 ms.
    assert_eq!(may, [true, true, false, false, false, true, true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn generations_that_redis_has_lost_are_not_given_again() {
    let World { cluster, registry, .. } = world(Vec::new()).await;
    *registry.view.lock() = view(3, &[(1, 3)]);
    cluster.refreshed().await;
    cluster.refused(topic(), 0, 7);
    cluster.refreshed().await;
    cluster.refreshed().await;
    let renewals = registry.renewals.lock();
    assert!(renewals.iter().any(|renewal| renewal.anew_above == Some(7)), "{renewals:?}");
    assert_eq!(renewals.last().map(|renewal| (renewal.anew_above, renewal.known_generation)), Some((None, 3)));
}

#[tokio::test(start_paused = true)]
async fn a_group_is_coordinated_above_every_epoch_that_it_was_claimed_with() {
    let World { cluster, registry, .. } = world(Vec::new()).await;
    *registry.view.lock() = view(3, &[(1, 3)]);
    cluster.refreshed().await;
    cluster.refused_group(&GroupId::new("orders"), 7);
    cluster.refreshed().await;
    cluster.refreshed().await;
    let renewals = registry.renewals.lock();
    assert!(renewals.iter().any(|renewal| renewal.anew_above == Some(7)), "{renewals:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_a_newer_view_explains_changes_nothing() {
    let group = GroupId::new("orders");
    let refusals: [&dyn Fn(&Cluster); 2] =
        [&|cluster| cluster.refused(topic(), 0, 6), &|cluster| cluster.refused_group(&group, 6)];
    for refuse in refusals {
        let World { cluster, registry, .. } = world(Vec::new()).await;
        cluster.refreshed().await;
        *registry.view.lock() = View { left: vec![(NODE, 6)], ..view(6, &[(2, 4)]) };
        refuse(&cluster);
        cluster.refreshed().await;
        cluster.refreshed().await;
        assert!(registry.renewals.lock().iter().all(|renewal| renewal.anew_above.is_none()));
        assert!(cluster.leads(topic(), 0).is_err() && cluster.coordinates(&group).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_whose_node_id_was_taken_stops() {
    let World { kept, registry, .. } = world(vec![Ok(Renewed::Replaced)]).await;
    assert!(!kept.await.expect("no panic"));
    assert_eq!(registry.left.load(Ordering::Relaxed), 0);
}
