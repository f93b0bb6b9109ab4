//! One kind of wait, shared: a task with a connection of its own writes, waits, and answers all who asked before it wrote.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use deadpool_redis::Connection;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        client::{Client, LONGEST_BLOCK},
        nodes::Nodes,
    },
    standing,
};
use crate::log::durability::{Life, Unkept};

/// How long Redis is made to wait at a time; who asks meanwhile shares the next wait.
const WAIT: Duration = Duration::from_secs(1);
/// With `appendfsync everysec` a sync begins each second and takes as long as it takes.
const WAIT_AOF: Duration = LONGEST_BLOCK;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Until this many replicas have it.
    Replicas(u16),
    /// Until it is synced.
    Aof,
}

type Asked = oneshot::Sender<Result<Life, Unkept>>;

pub(super) struct Barrier {
    client: Arc<Client>,
    nodes: Nodes,
    kind: Kind,
    failures: AtomicU32,
    /// At most one for each partition that waits.
    asked: Mutex<Vec<Asked>>,
    wanted: Notify,
}

impl Barrier {
    pub(super) fn new(client: Arc<Client>, nodes: Nodes, kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            client,
            nodes,
            kind,
            failures: AtomicU32::new(0),
            asked: Mutex::default(),
            wanted: Notify::new(),
        })
    }

    /// Waits for all that Redis answered before this call; tells in which life. Cancel-safe.
    pub(super) async fn wait(&self) -> Result<Life, Unkept> {
        let (sender, answer) = oneshot::channel();
        self.asked.lock().push(sender);
        self.wanted.notify_one();
        answer.await.unwrap_or_else(|_| Err(Unkept::NotYet("the broker stops".to_owned())))
    }

    /// Serves those who ask until `stopping`.
    pub(super) async fn serve(self: Arc<Self>, stopping: CancellationToken) {
        let mut link = None;
        while stopping.run_until_cancelled(self.wanted.notified()).await.is_some() {
            let asked: Vec<Asked> = std::mem::take(&mut *self.asked.lock());
            if asked.iter().all(Asked::is_closed) {
                continue;
            }
            let Some(outcome) = stopping.run_until_cancelled(self.once_in_time(&mut link)).await else { break };
            if outcome.is_err() {
                // What it is good for is not known any more, and the key's slot may be on its way to another node.
                if let Some((connection, _)) = link.take() {
                    drop(Connection::take(connection));
                }
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            for sender in asked {
                let _ = sender.send(outcome.clone());
            }
        }
        self.asked.lock().clear();
    }

    /// As [`Barrier::once`], but does not outlast the shared connection: the server may be another one by now, and this one hang.
    async fn once_in_time(&self, link: &mut Option<(Connection, Life)>) -> Result<Life, Unkept> {
        let lost = || Unkept::NotYet("no connection to Redis".to_owned());
        let generation = self.client.generation().ok_or_else(lost)?;
        tokio::select! {
            outcome = self.once(link) => outcome,
            () = self.client.until_lost(generation) => Err(lost()),
        }
    }

    async fn once(&self, link: &mut Option<(Connection, Life)>) -> Result<Life, Unkept> {
        let failed = |error: redis::RedisError| Unkept::NotYet(error.to_string());
        let (connection, life) = match link {
            Some(link) => link,
            none => {
                let connected = self.client.exclusive().await;
                let mut connection = connected.map_err(|error| Unkept::NotYet(error.to_string()))?;
                let info = super::info(&mut connection).await.map_err(failed)?;
                none.insert((connection, standing::life(&info)))
            }
        };
        // A connection that has written nothing is told at once that all is well, so it writes first. Replication offsets are
        // one sequence for all connections: what was answered before this write lies before it.
        let mut pipeline = redis::pipe();
        let key = self.nodes.barrier_key(&self.client, self.failures.load(Ordering::Relaxed));
        pipeline.set(key, 1).ignore();
        match self.kind {
            Kind::Replicas(count) => {
                pipeline.cmd("WAIT").arg(count).arg(milliseconds(WAIT));
                let (reached,): (i64,) = pipeline.query_async(connection).await.map_err(failed)?;
                if reached < i64::from(count) {
                    return Err(Unkept::NotYet(format!("{reached} of {count} replicas had it after {WAIT:?}")));
                }
            }
            Kind::Aof => {
                pipeline.cmd("WAITAOF").arg(1).arg(0).arg(milliseconds(WAIT_AOF));
                let ((synced, _replicas),): ((i64, i64),) = pipeline.query_async(connection).await.map_err(failed)?;
                if synced < 1 {
                    return Err(Unkept::NotYet(format!("Redis had not synced its file after {WAIT_AOF:?}")));
                }
            }
        }
        Ok(life.clone())
    }
}

fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}
