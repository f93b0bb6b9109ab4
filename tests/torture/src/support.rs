//! What Weir's own tests use too.

use std::time::Duration;

#[path = "../../support/process.rs"]
pub mod process;
#[path = "../../support/proxy.rs"]
pub mod proxy;
#[path = "../../support/redis_cluster.rs"]
pub mod redis_cluster;
#[path = "../../support/servers.rs"]
pub mod servers;

pub const PATIENCE: Duration = Duration::from_secs(60);
