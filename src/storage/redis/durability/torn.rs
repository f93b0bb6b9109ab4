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
    if config.as_ref().and_then(|config| config.get("aof-load-truncated")).is_some_and(|value| value == "no") {
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
    number("loading") == Some(0)
        && number("aof_enabled") == Some(1)
        && number("aof_current_size") > number("aof_base_size")
        // None in this life.
        && number("aof_last_rewrite_time_sec") == Some(-1)
        && number("aof_rewrite_in_progress") == Some(0)
        && number("aof_rewrite_scheduled") == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_an_earlier_life_may_have_left_is_not_written_on() {
        let found = |changed: &[(&str, &str)]| {
            let told = [
                ("loading", "0"),
                ("aof_enabled", "1"),
                ("aof_rewrite_in_progress", "0"),
                ("aof_rewrite_scheduled", "0"),
                ("aof_last_rewrite_time_sec", "-1"),
                ("aof_current_size", "4096"),
                ("aof_base_size", "88"),
            ];
            let told = told.iter().chain(changed).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            may_be_torn(&told.collect())
        };
        assert!(found(&[]));
        assert!(!found(&[("aof_enabled", "0")]), "there is none");
        assert!(!found(&[("aof_current_size", "88")]), "nothing was written to it");
        assert!(!found(&[("aof_last_rewrite_time_sec", "0")]), "this life has begun another");
        assert!(!found(&[("aof_rewrite_in_progress", "1")]));
        assert!(!found(&[("aof_rewrite_scheduled", "1")]));
        assert!(!found(&[("loading", "1")]), "it takes no command yet");
        assert!(!may_be_torn(&HashMap::new()), "a server that does not tell");
    }
}
