//! A Redis of one's own that was killed in the middle of a write: when it starts again, it leaves the beginning of a transaction in its
//! append-only file, and what is written after it may be lost at the start after that (ADR 25).

use std::collections::HashMap;

use redis::{RedisError, from_redis_value};
use tracing::{info, warn};

use crate::storage::redis::connection::Connection;

/// Has a server go on in a new file, before Weir writes to one that may end in half a transaction. `told` is what it answered to
/// `INFO`.
pub(in crate::storage::redis) async fn leave(
    connection: &Connection,
    told: &HashMap<String, String>,
) -> Result<(), RedisError> {
    if !may_be_torn(told) {
        return Ok(());
    }
    let asked = connection.command(redis::cmd("CONFIG").arg("GET").arg("aof-load-truncated")).await;
    let config = asked.ok().and_then(|answer| from_redis_value::<HashMap<String, String>>(answer).ok());
    if config.is_some_and(|config| config.get("aof-load-truncated").is_some_and(|value| value == "no")) {
        // It does not start with such a file.
        return Ok(());
    }
    match connection.command(&redis::cmd("BGREWRITEAOF")).await {
        Ok(_) => info!(
            "Redis is asked to go on in a new file, since the one of its earlier life may end in half a transaction"
        ),
        Err(error) if error.is_io_error() => return Err(error),
        // Another broker has asked.
        Err(error) if error.to_string().contains("already in progress") => {}
        Err(error) => warn!(
            %error,
            "Redis does not go on in a new file: if its latest death cut a write short, its next may lose what is written from now on; \
             call BGREWRITEAOF, or let Weir's user do so"
        ),
    }
    Ok(())
}

/// Whether the file of an earlier life is written on.
fn may_be_torn(told: &HashMap<String, String>) -> bool {
    let number = |name: &str| told.get(name).and_then(|value| value.parse::<i64>().ok());
    number("aof_enabled") == Some(1)
        && number("aof_current_size") > number("aof_base_size")
        // None in this life.
        && number("aof_last_rewrite_time_sec") == Some(-1)
        && number("aof_rewrite_in_progress") == Some(0)
        && number("aof_rewrite_scheduled") == Some(0)
}
