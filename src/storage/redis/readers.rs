//! Connections for long reads, which must delay neither writes nor small reads.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use redis::{ConnectionInfo, ErrorKind, RedisError};
use tokio_util::sync::CancellationToken;

use super::connection::{self, Connection};

/// Connections for long reads, made when they are first needed.
pub(super) struct Readers {
    slots: Vec<Slot>,
    next: AtomicUsize,
    aborted: CancellationToken,
}

#[derive(Default)]
struct Slot {
    link: tokio::sync::Mutex<Option<Arc<Connection>>>,
    /// How often it could not be made.
    failures: AtomicU64,
}

impl Readers {
    pub(super) fn new(count: usize) -> Self {
        Self {
            slots: std::iter::repeat_with(Default::default).take(count.max(1)).collect(),
            next: AtomicUsize::new(0),
            aborted: CancellationToken::new(),
        }
    }

    pub(super) async fn take(
        &self,
        info: &ConnectionInfo,
        options: connection::Options,
    ) -> Result<Arc<Connection>, RedisError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        let Some(slot) = self.slots.get(turn) else { return Err(unusable("there are no readers")) };
        let taken = self.aborted.run_until_cancelled(slot.take(info, options)).await;
        taken.unwrap_or_else(|| Err(unusable("the server is not used any more")))
    }

    /// One that is open already, for who must not hold up others by making one.
    pub(super) fn open(&self) -> Option<Arc<Connection>> {
        let turn = self.next.load(Ordering::Relaxed) % self.slots.len();
        let (before, after) = self.slots.split_at(turn);
        after.iter().chain(before).find_map(Slot::open)
    }

    /// Nobody waits any longer for an answer on them, or for one of them.
    pub(super) fn abort(&self) {
        self.aborted.cancel();
        for slot in &self.slots {
            // One that is being made is given up by who makes it.
            if let Ok(link) = slot.link.try_lock()
                && let Some(connection) = &*link
            {
                connection.abort();
            }
        }
    }

    pub(super) fn are_aborted(&self) -> bool {
        self.aborted.is_cancelled()
    }
}

impl Slot {
    fn open(&self) -> Option<Arc<Connection>> {
        let link = self.link.try_lock().ok()?;
        link.clone().filter(|connection| !connection.is_closed())
    }

    async fn take(&self, info: &ConnectionInfo, options: connection::Options) -> Result<Arc<Connection>, RedisError> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut link = self.link.lock().await;
        match &*link {
            Some(connection) if !connection.is_closed() => Ok(connection.clone()),
            // Many may wait for a server that hangs: not for as long each, one after the other.
            _ if self.failures.load(Ordering::Acquire) != failures => Err(unusable("it could not be connected")),
            _ => {
                let opened = Connection::open(info, options, |_| {}).await.inspect_err(|_| {
                    self.failures.fetch_add(1, Ordering::Release);
                })?;
                Ok(link.insert(Arc::new(opened)).clone())
            }
        }
    }
}

fn unusable(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, "no connection for reading", why.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use redis::IntoConnectionInfo;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_for_a_server_that_hangs_do_not_wait_one_after_the_other_and_not_once_it_is_given_up() {
        // Connections are taken by the system, and nobody answers on them.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", silent.local_addr().expect("an address"));
        let info = url.into_connection_info().expect("a legal URL");
        let within = |timeout| connection::Options { connect_timeout: timeout, response_timeout: timeout };
        let readers = Readers::new(1);
        let began = Instant::now();
        let waiting = (0..20).map(|_| readers.take(&info, within(Duration::from_millis(500))));
        let taken = futures::future::join_all(waiting).await;
        assert!(taken.iter().all(Result::is_err));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

        let patient = readers.take(&info, within(Duration::from_secs(60)));
        let (given_up, ()) = tokio::join!(patient, async { readers.abort() });
        assert!(given_up.is_err_and(|error| error.to_string().contains("not used any more")));
    }
}
