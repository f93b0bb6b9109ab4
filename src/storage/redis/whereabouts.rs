//! Where the server is that takes writes: at the address that was given, or where the Sentinels say.

use std::time::Duration;

use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError, io::tcp::TcpSettings,
};

use super::{
    sentinel::{Nowhere, SentinelUrl, Sentinels},
    shards,
};

pub(super) enum Whereabouts {
    Given(Box<ConnectionInfo>),
    Sentinels(Box<Sentinels>),
}

/// Whether a URL is one that Weir takes.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), String> {
    match SentinelUrl::parse(url) {
        Some(parsed) => parsed.map(drop),
        None => shards::seeds(url).map(drop).map_err(|error| error.to_string()),
    }
}

impl Whereabouts {
    /// `connect_timeout`: how long a Sentinel may take to answer.
    pub(super) fn of(url: &str, connect_timeout: Duration) -> Result<Self, RedisError> {
        match SentinelUrl::parse(url) {
            Some(Ok(url)) => Ok(Self::Sentinels(Box::new(Sentinels::new(url, connect_timeout)))),
            Some(Err(text)) => Err(RedisError::from((ErrorKind::InvalidClientConfig, "the URL", text))),
            None => Ok(Self::Given(Box::new(with_settings(url.into_connection_info()?)))),
        }
    }

    /// The server to connect to, and how to log in. Whether it takes writes has to be asked there.
    pub(super) async fn find(&self) -> Result<ConnectionInfo, Nowhere> {
        match self {
            Self::Given(info) => Ok(ConnectionInfo::clone(info)),
            Self::Sentinels(sentinels) => sentinels.master().await,
        }
    }

    /// Replicas that Sentinels may promote, whether they are connected or not.
    pub(super) async fn promotable(&self) -> u16 {
        match self {
            Self::Given(_) => 0,
            Self::Sentinels(sentinels) => sentinels.promotable().await,
        }
    }

    /// Waits until another server than the one at `address` is to be used. Cancel-safe.
    pub(super) async fn moved_from(&self, address: &ConnectionAddr) {
        match self {
            Self::Given(_) => std::future::pending().await,
            Self::Sentinels(sentinels) => sentinels.moved_from(address).await,
        }
    }

    /// Waits until [`Whereabouts::find`] may tell something new. Cancel-safe.
    pub(super) async fn news(&self) {
        match self {
            Self::Given(_) => std::future::pending().await,
            Self::Sentinels(sentinels) => sentinels.news().await,
        }
    }
}

/// What all connections have in common.
pub(super) fn with_settings(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("weir", env!("CARGO_PKG_VERSION"));
    info.set_tcp_settings(TcpSettings::default().set_nodelay(true)).set_redis_settings(settings)
}
