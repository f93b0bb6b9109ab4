//! The durability dial: what an acknowledgement promises, who waits until it holds, and the port that keeps it.

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{AppendError, AppendedAt};
use crate::model::PartitionId;

/// Replicas that a level may ask for.
pub const MOST_REPLICAS: u16 = 100;

/// A value of `weir.durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The storage has it; any death of the storage may lose it.
    Memory,
    /// Survives the death of any process, not of the machine.
    Written,
    /// Survives the machine.
    Fsync,
    /// This many replicas of the storage have it.
    Replicas(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be memory, written, fsync or replicas:N with N from 1 to {MOST_REPLICAS}")]
pub struct NotALevel;

impl FromStr for Level {
    type Err = NotALevel;

    fn from_str(text: &str) -> Result<Self, NotALevel> {
        match text {
            "memory" => Ok(Level::Memory),
            "written" => Ok(Level::Written),
            "fsync" => Ok(Level::Fsync),
            _ => {
                let count = text.strip_prefix("replicas:").ok_or(NotALevel)?;
                let is_plain = count.bytes().all(|byte| byte.is_ascii_digit()) && !count.starts_with('0');
                let count: u16 = count.parse().ok().filter(|_| is_plain).ok_or(NotALevel)?;
                if (1..=MOST_REPLICAS).contains(&count) { Ok(Level::Replicas(count)) } else { Err(NotALevel) }
            }
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Memory => f.write_str("memory"),
            Level::Written => f.write_str("written"),
            Level::Fsync => f.write_str("fsync"),
            Level::Replicas(count) => write!(f, "replicas:{count}"),
        }
    }
}

/// How far a record is on its way to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disk {
    #[default]
    Memory,
    Written,
    Fsync,
}

/// All that must hold before `acks=all` is answered: several levels together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Promise {
    pub disk: Disk,
    /// Replicas of the storage, besides itself.
    pub replicas: u16,
}

impl Promise {
    pub const MEMORY: Self = Self { disk: Disk::Memory, replicas: 0 };

    pub fn and(self, other: Self) -> Self {
        Self { disk: self.disk.max(other.disk), replicas: self.replicas.max(other.replicas) }
    }
}

impl From<Level> for Promise {
    fn from(level: Level) -> Self {
        let (disk, replicas) = match level {
            Level::Memory => (Disk::Memory, 0),
            Level::Written => (Disk::Written, 0),
            Level::Fsync => (Disk::Fsync, 0),
            Level::Replicas(count) => (Disk::Memory, count),
        };
        Self { disk, replicas }
    }
}

/// A life of the storage: from when a process of it began to take writes until another took its place, perhaps with less.
/// What is promised of one life says nothing of what was written in another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Life(Arc<str>);

impl Life {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Why a promise does not hold.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unkept {
    /// The storage can't keep it as it is set up; the text says what mends it.
    #[error("{0}")]
    Impossible(String),
    #[error("{connected} of {promised} replicas are connected")]
    TooFewReplicas { connected: u16, promised: u16 },
    /// Not yet: it may be asked again.
    #[error("{0}")]
    NotYet(String),
    /// The storage was replaced: what was written before may be lost.
    #[error("the storage was replaced meanwhile")]
    OtherLife,
}

/// How a storage keeps promises.
#[async_trait]
pub trait Durability: Send + Sync + 'static {
    /// Whether appends that promise this may be taken now: by a partition, or by any. Asks nothing of the storage.
    fn check(&self, promise: Promise, partition: Option<&PartitionId>) -> Result<(), Unkept>;

    /// Whether the promise holds as soon as the storage has answered. Called for each append; asks nothing of the storage.
    fn holds_at_once(&self, promise: Promise, partition: &PartitionId) -> bool;

    /// The life in which the partition's storage answers now.
    fn life(&self, partition: &PartitionId) -> Life;

    /// Waits until the promise holds for all that the partition's storage answered before this call in `life`. Calls share what
    /// is waited for. Ends in bounded time. Cancel-safe.
    async fn barrier(&self, promise: Promise, partition: &PartitionId, life: &Life) -> Result<(), Unkept>;
}

/// A storage whose answer is all that is ever promised.
struct AtOnce;

#[async_trait]
impl Durability for AtOnce {
    fn check(&self, _promise: Promise, _partition: Option<&PartitionId>) -> Result<(), Unkept> {
        Ok(())
    }

    fn holds_at_once(&self, _promise: Promise, _partition: &PartitionId) -> bool {
        true
    }

    fn life(&self, _partition: &PartitionId) -> Life {
        Life::new("")
    }

    async fn barrier(&self, _promise: Promise, _partition: &PartitionId, _life: &Life) -> Result<(), Unkept> {
        Ok(())
    }
}

/// What is promised for each partition, and how it is kept.
#[derive(Clone)]
pub struct Dial {
    pub durability: Arc<dyn Durability>,
    pub promised: Arc<dyn Fn(&PartitionId) -> Promise + Send + Sync>,
}

impl Default for Dial {
    fn default() -> Self {
        Self { durability: Arc::new(AtOnce), promised: Arc::new(|_| Promise::MEMORY) }
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

pub(super) type Reply = oneshot::Sender<Result<AppendedAt, AppendError>>;

/// Answers that wait until the log is safe up to an offset. Bounded by the requests that wait for them.
#[derive(Debug, Default)]
pub(super) struct Acks(Vec<Ack>);

#[derive(Debug)]
struct Ack {
    /// Exclusive.
    end: i64,
    life: Life,
    at: AppendedAt,
    reply: Reply,
}

impl Acks {
    /// `end` is the end of the log that the append left behind, in `life`.
    pub(super) fn push(&mut self, end: i64, life: Life, at: AppendedAt, reply: Reply) {
        self.0.push(Ack { end, life, at, reply });
    }

    /// The log is safe up to `end` (exclusive), as far as it was written in `life`.
    pub(super) fn release(&mut self, end: i64, life: &Life) {
        for ack in self.0.extract_if(.., |ack| ack.end <= end && ack.life == *life) {
            let _ = ack.reply.send(Ok(ack.at));
        }
        self.forget_abandoned();
    }

    /// Forgets those who have given up. A producer that times out again and again leaves nothing behind.
    pub(super) fn forget_abandoned(&mut self) {
        self.0.retain(|ack| !ack.reply.is_closed());
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn fail(&mut self, error: &AppendError) {
        for ack in std::mem::take(&mut self.0) {
            let _ = ack.reply.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_they_are_written() {
        for text in ["memory", "written", "fsync", "replicas:1", "replicas:100"] {
            assert_eq!(text.parse::<Level>().map(|level| level.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "Memory", "replicas", "replicas:", "replicas:0", "replicas:01", "replicas:+1", "replicas:101"]
        {
            assert_eq!(text.parse::<Level>(), Err(NotALevel), "{text}");
        }
    }

    #[test]
    fn a_floor_adds_to_a_level_and_takes_nothing_from_it() {
        let promise = |text: &str| Promise::from(text.parse::<Level>().expect("a level"));
        assert_eq!(promise("memory").and(promise("fsync")), promise("fsync"));
        assert_eq!(promise("fsync").and(promise("written")), promise("fsync"));
        let both = promise("replicas:2").and(promise("written"));
        assert_eq!(both, Promise { disk: Disk::Written, replicas: 2 });
    }

    fn ack(acks: &mut Acks, end: i64, life: &str) -> oneshot::Receiver<Result<AppendedAt, AppendError>> {
        let (reply, receiver) = oneshot::channel();
        let at = AppendedAt { base_offset: end - 1, log_append_time_ms: -1, log_start_offset: 0 };
        acks.push(end, Life::new(life), at, reply);
        receiver
    }

    #[test]
    fn what_is_safe_in_one_life_answers_nothing_of_another() {
        let mut acks = Acks::default();
        let (mut old, mut new, mut later) = (ack(&mut acks, 5, "a"), ack(&mut acks, 5, "b"), ack(&mut acks, 6, "b"));
        acks.release(5, &Life::new("b"));
        assert!(new.try_recv().is_ok_and(|answer| answer.is_ok()));
        assert!(old.try_recv().is_err() && later.try_recv().is_err());
        acks.fail(&AppendError::Abandoned);
        assert_eq!(old.try_recv(), Ok(Err(AppendError::Abandoned)));
    }

    #[test]
    fn those_who_gave_up_are_forgotten() {
        let mut acks = Acks::default();
        drop(ack(&mut acks, 5, "a"));
        let _waiting = ack(&mut acks, 5, "a");
        acks.forget_abandoned();
        assert_eq!(acks.0.len(), 1);
    }
}
