//! A Redis Cluster on loopback.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use redis::Value;

use super::{
    process::eventually,
    servers::{OLD, Redis, free_port},
};

pub struct Cluster {
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub redis: Redis,
    bus: u16,
    pub id: String,
}

impl Node {
    fn run(program: &str, more: &[&str]) -> Self {
        let bus = free_port();
        let bus_text = bus.to_string();
        let mut arguments = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus_text,
            "--cluster-node-timeout",
            "1000",
            "--cluster-require-full-coverage",
            "no",
            "--cluster-allow-replica-migration",
            "no",
            "--cluster-replica-validity-factor",
            "0",
            "--appendonly",
            "yes",
            "--appendfsync",
            "no",
        ];
        arguments.extend(more);
        let redis = Redis::run(program, &arguments);
        let id = redis::cmd("CLUSTER").arg("MYID").query(&mut redis.connection()).expect("an id");
        Self { redis, bus, id }
    }

    pub fn cluster(&self, words: &[&str]) -> Value {
        self.try_cluster(words).unwrap_or_else(|error| panic!("CLUSTER {words:?}: {error}"))
    }

    fn try_cluster(&self, words: &[&str]) -> redis::RedisResult<Value> {
        redis::cmd("CLUSTER").arg(words).query(&mut self.redis.connection())
    }

    fn says(&self, section: &str, line: &str) -> bool {
        let text: redis::RedisResult<String> = redis::cmd("CLUSTER").arg(section).query(&mut self.redis.connection());
        text.is_ok_and(|text| text.contains(line))
    }

    pub fn keys(&self) -> Vec<String> {
        redis::cmd("KEYS").arg("*").query(&mut self.redis.connection()).expect("keys")
    }
}

impl Cluster {
    /// Three masters; where `replicas` is set, a replica for each, which come after them.
    pub fn start(replicas: bool) -> Self {
        Self::run(OLD, &[], replicas)
    }

    /// The same with arguments more for each node.
    pub fn run(program: &str, more: &[&str], replicas: bool) -> Self {
        const MASTERS: usize = 3;
        let count = if replicas { 2 * MASTERS } else { MASTERS };
        // On one thread: a program may be bound to the one that started it.
        let this = Self { nodes: (0..count).map(|_| Node::run(program, more)).collect() };
        for (index, node) in this.nodes.iter().enumerate() {
            node.cluster(&["SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for (index, range) in [(0, 5_460), (5_461, 10_922), (10_923, 16_383)].into_iter().enumerate() {
            this.nodes[index].cluster(&["ADDSLOTSRANGE", &range.0.to_string(), &range.1.to_string()]);
        }
        for node in &this.nodes[1..] {
            this.meet(node);
        }
        this.until_all_know_each_other();
        for index in MASTERS..count {
            this.nodes[index].cluster(&["REPLICATE", &this.nodes[index - MASTERS].id]);
        }
        for master in &this.nodes[..if replicas { MASTERS } else { 0 }] {
            let caught_up = || master.redis.info("replication").contains("state=online");
            assert!(eventually(caught_up), "a replica does not catch up");
        }
        let is_ok = |node: &Node| node.says("INFO", "cluster_state:ok") && node.says("INFO", "cluster_slots_ok:16384");
        assert!(eventually(|| this.nodes.iter().all(is_ok)), "the cluster does not get well");
        // A replica is promoted only by masters that know it as one.
        let replicas_known = |node: &Node| {
            let text: String =
                redis::cmd("CLUSTER").arg("NODES").query(&mut node.redis.connection()).expect("an answer");
            text.matches("slave").count() == count - MASTERS
        };
        assert!(eventually(|| this.nodes.iter().all(replicas_known)), "not all know the replicas");
        this
    }

    fn meet(&self, node: &Node) {
        let (port, bus) = (node.redis.port.to_string(), node.bus.to_string());
        self.nodes[0].cluster(&["MEET", "127.0.0.1", &port, &bus]);
    }

    fn until_all_know_each_other(&self) {
        let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
        let all_know = || {
            self.nodes.iter().all(|node| {
                let text: redis::RedisResult<String> =
                    redis::cmd("CLUSTER").arg("NODES").query(&mut node.redis.connection());
                node.says("INFO", &known) && text.is_ok_and(|text| !text.contains("handshake"))
            })
        };
        assert!(eventually(all_know), "the nodes do not know each other");
    }

    /// Another master, without slots; its place in `nodes`.
    pub fn add(&mut self) -> usize {
        let node = Node::run(OLD, &[]);
        self.meet(&node);
        self.nodes.push(node);
        self.until_all_know_each_other();
        let knows_slots =
            |node: &Node| node.says("INFO", "cluster_state:ok") && node.says("INFO", "cluster_slots_ok:16384");
        assert!(eventually(|| self.nodes.iter().all(knows_slots)), "a new node does not know who serves what");
        self.nodes.len() - 1
    }

    /// Of one node that takes writes.
    pub fn url(&self) -> String {
        self.nodes[0].redis.url()
    }

    /// The place in `nodes` of the master that serves a key.
    pub fn master_of(&self, key: &str) -> usize {
        let serves = |node: &Node| {
            let connected = redis::Client::open(node.redis.url()).and_then(|client| client.get_connection());
            connected.is_ok_and(|mut node| redis::cmd("EXISTS").arg(key).exec(&mut node).is_ok())
        };
        let mut found = None;
        assert!(
            eventually(|| {
                found = self.nodes.iter().position(&serves);
                found.is_some()
            }),
            "nobody serves {key}"
        );
        found.expect("it was found")
    }

    /// Moves a slot as `redis-cli --cluster reshard` does, one key at a time.
    pub fn move_slot(&self, slot: impl ToString, from: usize, to: usize) {
        self.try_move_slot(slot, from, to).expect("migrated");
    }

    /// Where it fails, the slot is between two nodes until this is done again.
    pub fn try_move_slot(&self, slot: impl ToString, from: usize, to: usize) -> redis::RedisResult<()> {
        let slot = slot.to_string();
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        to.try_cluster(&["SETSLOT", &slot, "IMPORTING", &from.id])?;
        from.try_cluster(&["SETSLOT", &slot, "MIGRATING", &to.id])?;
        loop {
            let keys: Vec<String> = redis::from_redis_value(from.try_cluster(&["GETKEYSINSLOT", &slot, "1"])?)?;
            let Some(key) = keys.first() else { break };
            let mut migrate = redis::cmd("MIGRATE");
            // A node that serves a key while it is moved has the only copy that counts.
            migrate.arg("127.0.0.1").arg(to.redis.port).arg(key).arg(0).arg(20_000).arg("REPLACE");
            migrate.exec(&mut from.redis.connection())?;
        }
        for node in [to, from] {
            node.try_cluster(&["SETSLOT", &slot, "NODE", &to.id])?;
        }
        Ok(())
    }
}
