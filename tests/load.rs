//! The load generator of the benches, each subcommand for a moment against a real Weir: so that it can't rot.

mod support;

#[path = "../benches/load/commands/mod.rs"]
mod commands;

use clap::Parser;

use commands::{Arguments, Outcome};
use support::Weir;

async fn load(words: &[&str]) -> Outcome {
    let arguments = Arguments::try_parse_from(["load"].iter().chain(words)).expect("words that it knows");
    let outcome = commands::run(arguments).await.unwrap_or_else(|error| panic!("{words:?}: {error:#}"));
    assert!(outcome.is_clean(), "{words:?}: {}", outcome.json());
    outcome
}

struct World {
    weir: Weir,
    bootstrap: String,
}

impl World {
    fn start() -> Self {
        let weir = Weir::start(&["--override", "group.initial.rebalance.delay.ms=0"]);
        let bootstrap = weir.address.to_string();
        World { weir, bootstrap }
    }

    async fn load(&self, command: &str, words: &[&str]) -> Outcome {
        load(&[&[command, "--bootstrap", &self.bootstrap], words].concat()).await
    }

    async fn topic(&self, name: &str, partitions: &str, layout: &str) {
        let config = format!("weir.layout={layout}");
        self.load("create", &["--topic", name, "--partitions", partitions, "--config", &config]).await;
    }
}

#[tokio::test]
async fn what_is_produced_is_consumed_in_both_layouts() {
    let world = World::start();
    for layout in ["record", "batch"] {
        world.topic(layout, "3", layout).await;
        let some = ["--topic", layout, "--records", "3000", "--record-size", "100", "--records-per-batch", "10"];
        world.load("produce", &some).await;
        world.load("produce", &[&some[..], &["--idempotent", "--connections", "3", "--acks", "1"]].concat()).await;
        let json = ["--payload", "json", "--compression", "lz4", "--rate", "20000"];
        let produced = world.load("produce", &[&some[..], &json].concat()).await;
        assert_eq!(produced.count("records"), 3_000);
        let consumed = world
            .load("consume", &["--topic", layout, "--consumers", "2", "--records", "9000", "--seconds", "20"])
            .await;
        assert_eq!(consumed.count("records"), 18_000, "{}", consumed.json());
    }
    world.topic("orders", "1", "record").await;
    let orders = ["--topic", "orders", "--records", "1000", "--records-per-batch", "10", "--payload", "orders"];
    world.load("produce", &orders).await;
    let sought = world.load("seek", &["--topic", "orders", "--seeks", "10", "--below", "1000"]).await;
    assert_eq!(sought.count("seeks"), 10);
}

#[tokio::test]
async fn what_is_produced_at_the_tail_reaches_every_group() {
    let world = World::start();
    for layout in ["record", "batch"] {
        world.topic(layout, "3", layout).await;
        let some = ["--records-per-batch", "10", "--rate", "10000", "--seconds", "0.2", "--groups", "3"];
        let outcome = world.load("tail", &[&["--topic", layout][..], &some].concat()).await;
        assert_eq!(outcome.count("records"), 2_000);
        assert_eq!(outcome.count("received"), 6_000);
    }
    world.topic("single", "1", "record").await;
    let outcome = world.load("end-to-end", &["--topic", "single", "--records", "50"]).await;
    assert_eq!(outcome.count("records"), 50);
}

#[tokio::test]
async fn members_join_and_commit() {
    let world = World::start();
    world.topic("topic", "4", "record").await;
    let joined =
        world.load("join", &["--topic", "topic", "--group", "a", "--members", "10", "--heartbeat-ms", "5"]).await;
    assert_eq!(joined.count("members"), 10);
    let committed = world
        .load("commits", &["--topic", "topic", "--group", "b", "--groups", "2", "--members", "3", "--seconds", "0.2"])
        .await;
    assert!(committed.count("commits") > 6);
}

#[tokio::test]
async fn redis_alone_takes_the_same_entries() {
    let world = World::start();
    let socket = world.weir.data_dir().join("redis.sock");
    let socket = socket.to_str().expect("a path in UTF-8");
    for layout in ["record", "batch"] {
        let some = ["--records", "1000", "--records-per-batch", "10", "--record-size", "100"];
        let outcome =
            load(&[&["redis", "--socket", socket, "--key", layout, "--layout", layout][..], &some].concat()).await;
        assert_eq!(outcome.count("records"), 1_000);
    }
}

#[tokio::test]
async fn topics_come_and_go_and_connections_are_held() {
    let world = World::start();
    world.load("create", &["--topic", "many", "--count", "20"]).await;
    world.load("delete", &["--topic", "many", "--count", "20"]).await;
    let outcome = world.load("idle", &["--connections", "20"]).await;
    assert_eq!(outcome.count("connections"), 20);
}

#[tokio::test]
async fn what_the_sink_takes_it_answers_and_forgets() {
    let listen = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    let listen = listen.to_string();
    let serving = tokio::spawn({
        let listen = listen.clone();
        async move { load(&["sink", "--listen", &listen, "--seconds", "60"]).await }
    });
    while tokio::net::TcpStream::connect(&listen).await.is_err() {
        tokio::task::yield_now().await;
    }
    let words = ["produce", "--bootstrap", &listen, "--topic", "any", "--records", "3000", "--records-per-batch", "10"];
    for more in [&[][..], &["--idempotent", "--connections", "3"]] {
        assert_eq!(load(&[&words[..], more].concat()).await.count("records"), 3_000);
    }
    serving.abort();
}
