//! Accepts connections and counts them.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::{Admission, Caller, Limits, Service, connection};
use crate::{tasks::Tasks, telemetry::metrics::NetworkMetrics};

/// Counts the connections of all listeners, against `max.connections` and `max.connections.per.ip`.
#[derive(Debug)]
pub struct ConnectionCounts {
    max: AtomicUsize,
    max_per_ip: AtomicUsize,
    open: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
    next_id: AtomicU64,
}

impl ConnectionCounts {
    pub fn new(max: usize, max_per_ip: usize) -> Self {
        Self {
            max: AtomicUsize::new(max),
            max_per_ip: AtomicUsize::new(max_per_ip),
            open: AtomicUsize::new(0),
            by_ip: Mutex::new(HashMap::new()),
            next_id: AtomicU64::new(0),
        }
    }

    /// Other limits from now on; connections that are open stay.
    pub fn limit(&self, max: usize, max_per_ip: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.max_per_ip.store(max_per_ip, Ordering::Relaxed);
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Counted> {
        let mut by_ip = self.by_ip.lock();
        let mine = by_ip.get(&ip).copied().unwrap_or(0);
        if self.open() >= self.max.load(Ordering::Relaxed) || mine >= self.max_per_ip.load(Ordering::Relaxed) {
            return None;
        }
        by_ip.insert(ip, mine + 1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Counted { counts: self.clone(), ip })
    }
}

/// One counted connection; uncounted when dropped.
pub(super) struct Counted {
    counts: Arc<ConnectionCounts>,
    ip: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by_ip = self.counts.by_ip.lock();
        if let Some(mine) = by_ip.get_mut(&self.ip) {
            *mine -= 1;
            if *mine == 0 {
                by_ip.remove(&self.ip);
            }
        }
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What every listener of the broker shares.
#[derive(Clone)]
pub struct Shared {
    pub service: Arc<dyn Service>,
    pub admission: Admission,
    pub limits: Limits,
    pub counts: Arc<ConnectionCounts>,
    pub metrics: NetworkMetrics,
    pub tasks: Tasks,
}

impl Shared {
    fn show_open_connections(&self) {
        self.metrics.connections.set(i64::try_from(self.counts.open()).unwrap_or(i64::MAX));
    }
}

/// Binds with a long backlog and, for `[::]`, for IPv4 too.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the broker stops.
pub async fn accept(listener: TcpListener, index: usize, shared: Shared) {
    loop {
        let accepted = tokio::select! {
            () = shared.tasks.stopping().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => start(stream, peer, index, &shared),
            Err(error) => {
                // Out of file descriptors, or the peer is gone already: the next one may do better.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn start(stream: TcpStream, peer: SocketAddr, listener: usize, shared: &Shared) {
    let Some(counted) = shared.counts.enter(peer.ip().to_canonical()) else {
        shared.metrics.connections_refused.inc();
        debug!(%peer, "too many connections (max.connections, max.connections.per.ip)");
        return;
    };
    shared.metrics.connections_opened.inc();
    shared.show_open_connections();
    let connection_id = shared.counts.next_id.fetch_add(1, Ordering::Relaxed);
    let caller = Arc::new(Caller { listener, peer, connection_id });
    let _ = stream.set_nodelay(true);
    let shared_by_connection = shared.clone();
    shared.tasks.spawn("connection", async move {
        connection::run(stream, caller, shared_by_connection.clone()).await;
        drop(counted);
        shared_by_connection.show_open_connections();
    });
}
