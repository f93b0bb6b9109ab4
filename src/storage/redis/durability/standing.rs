//! What a server is set up for, and which promises it can keep with that.

use std::collections::HashMap;

use crate::log::durability::{Disk, Life, Promise, Unkept};

/// A replica that was silent for longer than this (s) does not count, as with Redis' `min-replicas-max-lag`.
const LONGEST_LAG: u64 = 10;

/// The first version with `WAITAOF`.
const WAITAOF_SINCE: (u32, u32) = (7, 2);

/// When the append-only file is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFsync {
    No,
    EverySecond,
    Always,
}

/// How a record gets as far on its way to the disk as is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// It is there before Redis answers.
    Answer,
    /// Weir syncs the embedded server's file itself.
    OwnSync,
    WaitAof,
}

/// A server at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Weir's own private server.
    pub embedded: bool,
    /// Whether there is an append-only file; none where the server does not tell.
    pub aof: Option<bool>,
    pub appendfsync: Option<AppendFsync>,
    pub has_waitaof: bool,
    /// Replicas that are connected and keep up.
    pub replicas: u16,
    pub life: Life,
}

impl Standing {
    /// From the fields of `INFO` and the value of `appendfsync`, which some users may not ask for.
    pub fn of(info: &HashMap<String, String>, appendfsync: Option<&str>, embedded: bool) -> Self {
        let field = |name: &str| info.get(name).map(String::as_str);
        let version = field("redis_version").and_then(number_pair);
        let replicas = (0..).map_while(|index| info.get(&format!("slave{index}"))).filter(|replica| keeps_up(replica));
        Self {
            embedded,
            aof: field("aof_enabled").map(|enabled| enabled == "1"),
            appendfsync: match appendfsync {
                Some("no") => Some(AppendFsync::No),
                Some("everysec") => Some(AppendFsync::EverySecond),
                Some("always") => Some(AppendFsync::Always),
                _ => None,
            },
            has_waitaof: version.is_some_and(|version| version >= WAITAOF_SINCE),
            replicas: u16::try_from(replicas.count()).unwrap_or(u16::MAX),
            life: life(info),
        }
    }

    pub(super) fn means(&self, disk: Disk) -> Result<Means, String> {
        if disk == Disk::Memory {
            return Ok(Means::Answer);
        }
        let mend = match disk {
            Disk::Fsync => "set `appendonly yes` and `appendfsync always` there (CONFIG SET, and in redis.conf)",
            _ => "set `appendonly yes` and `appendfsync no` or `always` there (CONFIG SET, and in redis.conf)",
        };
        if self.aof == Some(false) {
            return Err(format!("Redis keeps no append-only file: {mend}"));
        }
        if self.aof.is_none() {
            return Err(format!(
                "Redis does not tell whether it keeps an append-only file: let Weir's user ask INFO, and {mend}"
            ));
        }
        match (disk, self.appendfsync) {
            (_, Some(AppendFsync::Always)) | (Disk::Written, Some(AppendFsync::No)) => Ok(Means::Answer),
            (Disk::Fsync, Some(AppendFsync::No)) if self.embedded => Ok(Means::OwnSync),
            (_, Some(AppendFsync::No)) => Err(format!("Redis leaves syncing to the system (appendfsync no): {mend}")),
            (_, _) if self.has_waitaof => Ok(Means::WaitAof),
            (_, Some(AppendFsync::EverySecond)) => Err(format!(
                "Redis may answer before it has written (appendfsync everysec), and is too old to be waited for (WAITAOF, Redis \
                 7.2): {mend}"
            )),
            (_, None) => Err(format!(
                "Redis does not tell its appendfsync, and is too old to be waited for (WAITAOF, Redis 7.2): let Weir's user ask \
                 `CONFIG GET`, and {mend}"
            )),
        }
    }

    /// Whether the promise can be kept now.
    pub fn check(&self, promise: Promise) -> Result<(), Unkept> {
        self.means(promise.disk).map_err(Unkept::Impossible)?;
        if promise.replicas > 0 && self.embedded {
            return Err(Unkept::Impossible(
                "the embedded Redis has no replicas: give a Redis that has with --redis-url".to_owned(),
            ));
        }
        if promise.replicas > self.replicas {
            return Err(Unkept::TooFewReplicas { connected: self.replicas, promised: promise.replicas });
        }
        Ok(())
    }

    /// Whether the promise holds as soon as Redis has answered.
    pub fn holds_at_once(&self, promise: Promise) -> bool {
        promise.replicas == 0 && self.means(promise.disk) == Ok(Means::Answer)
    }

    /// What acknowledged records survive with all that this server does before it answers.
    pub fn survives(&self) -> &'static str {
        let at_once = |disk| self.holds_at_once(Promise { disk, replicas: 0 });
        match () {
            () if at_once(Disk::Fsync) => "the death of the machine",
            () if at_once(Disk::Written) => "the death of any process",
            () if self.aof.is_none() || (self.aof == Some(true) && self.appendfsync.is_none()) => "what is not known",
            () => "nothing that ends Redis",
        }
    }
}

/// The life that `INFO` tells of: of this process, with this replication history.
pub(in crate::storage::redis) fn life(info: &HashMap<String, String>) -> Life {
    let field = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();
    Life::new(&format!("{} {}", field("run_id"), field("master_replid")))
}

/// `ip=127.0.0.1,port=6380,state=online,offset=42,lag=1`
fn keeps_up(replica: &str) -> bool {
    let field = |name: &str| replica.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    field("state") == Some("online")
        && field("lag").and_then(|lag| lag.parse().ok()).is_some_and(|lag: u64| lag <= LONGEST_LAG)
}

/// The first two numbers of a version.
pub(in crate::storage::redis) fn number_pair(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(aof: &str, appendfsync: Option<&str>, version: &str, embedded: bool) -> Standing {
        let fields = [("aof_enabled", aof), ("redis_version", version), ("run_id", "r"), ("master_replid", "m")];
        let info = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        Standing::of(&info, appendfsync, embedded)
    }

    #[test]
    fn each_level_is_kept_by_the_cheapest_means_or_refused_with_the_remedy() {
        use Disk::{Fsync, Written};
        use Means::{Answer, OwnSync, WaitAof};
        for (appendfsync, version, embedded, disk, expected) in [
            (Some("no"), "7.0.15", false, Written, Ok(Answer)),
            (Some("no"), "7.0.15", true, Written, Ok(Answer)),
            (Some("always"), "7.0.15", false, Written, Ok(Answer)),
            (Some("always"), "7.0.15", false, Fsync, Ok(Answer)),
            (Some("no"), "7.0.15", true, Fsync, Ok(OwnSync)),
            (Some("no"), "8.2.3", true, Fsync, Ok(OwnSync)),
            // With appendfsync no, WAITAOF waits for nothing that ever comes.
            (Some("no"), "8.2.3", false, Fsync, Err("appendfsync always")),
            (Some("everysec"), "8.2.3", false, Fsync, Ok(WaitAof)),
            (Some("everysec"), "8.2.3", false, Written, Ok(WaitAof)),
            (Some("everysec"), "7.0.15", false, Written, Err("`appendfsync no` or `always`")),
            (None, "8.2.3", false, Fsync, Ok(WaitAof)),
            (None, "7.0.15", false, Written, Err("CONFIG GET")),
        ] {
            let means = standing("1", appendfsync, version, embedded).means(disk);
            match expected {
                Ok(expected) => assert_eq!(means, Ok(expected), "{appendfsync:?} {version} {disk:?}"),
                Err(remedy) => assert!(means.as_ref().is_err_and(|told| told.contains(remedy)), "{means:?}"),
            }
        }
        let without = standing("0", Some("no"), "8.2.3", false);
        assert!(without.means(Written).is_err_and(|told| told.contains("set `appendonly yes`")));
        assert!(without.holds_at_once(Promise::MEMORY));
    }

    #[test]
    fn replicas_count_while_they_keep_up() {
        let replica = |state: &str, lag: &str| format!("ip=127.0.0.1,port=1,state={state},offset=42,lag={lag}");
        let mut info = HashMap::from([("redis_version".to_owned(), "7.0.15".to_owned())]);
        for (index, (state, lag)) in
            [("online", "0"), ("wait_bgsave", "0"), ("online", "11"), ("online", "10")].iter().enumerate()
        {
            info.insert(format!("slave{index}"), replica(state, lag));
        }
        let standing = Standing::of(&info, None, false);
        assert_eq!(standing.replicas, 2);
        assert_eq!(standing.check(Promise { disk: Disk::Memory, replicas: 2 }), Ok(()));
        let three = standing.check(Promise { disk: Disk::Memory, replicas: 3 });
        assert_eq!(three, Err(Unkept::TooFewReplicas { connected: 2, promised: 3 }));
        let embedded = Standing { embedded: true, ..standing };
        assert!(matches!(embedded.check(Promise { disk: Disk::Memory, replicas: 1 }), Err(Unkept::Impossible(_))));
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(number_pair("7.0.15"), Some((7, 0)));
        assert!(number_pair("10.2.0") > Some((7, 2)));
        assert!(number_pair("6.2.14") < Some((7, 0)));
        assert_eq!(number_pair("unknown"), None);
    }
}
