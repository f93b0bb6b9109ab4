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
use redis::{Cmd, FromRedisValue, RedisResult};
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
/// Of the key that is written; each wait begins it anew.
const KEY_LIFETIME: Duration = Duration::from_secs(3_600);

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
        let key = self.nodes.barrier_key(&self.client, self.failures.load(Ordering::Relaxed));
        match self.kind {
            Kind::Replicas(count) => {
                let wait = redis::cmd("WAIT").arg(count).arg(milliseconds(WAIT)).take();
                let reached: i64 = write_and_wait(connection, &key, &wait).await.map_err(failed)?;
                if reached < i64::from(count) {
                    return Err(Unkept::NotYet(format!("{reached} of {count} replicas had it after {WAIT:?}")));
                }
            }
            Kind::Aof => {
                let wait = redis::cmd("WAITAOF").arg(1).arg(0).arg(milliseconds(WAIT_AOF)).take();
                let (synced, _replicas): (i64, i64) = write_and_wait(connection, &key, &wait).await.map_err(failed)?;
                if synced < 1 {
                    return Err(Unkept::NotYet(format!("Redis had not synced its file after {WAIT_AOF:?}")));
                }
            }
        }
        Ok(life.clone())
    }
}

/// A connection that has written nothing is told at once that all is well, so it writes first. Replication offsets are one sequence
/// for all connections: what was answered before this write lies before it.
///
/// `EXPIRE` is a write that Redis takes when it is out of memory too: groups go on then. Where there is no such key it writes nothing.
async fn write_and_wait<T: FromRedisValue>(connection: &mut Connection, key: &str, wait: &Cmd) -> RedisResult<T> {
    loop {
        let mut both = redis::pipe();
        both.cmd("EXPIRE").arg(key).arg(KEY_LIFETIME.as_secs()).add_command(wait.clone());
        let (has_written, waited): (bool, T) = both.query_async(connection).await?;
        if has_written {
            return Ok(waited);
        }
        redis::cmd("SET").arg(key).arg(1).exec_async(connection).await?;
    }
}

fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}
