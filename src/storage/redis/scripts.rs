//! The Function libraries that Weir loads into Redis. A Function's name carries a version and never changes meaning.

use redis::{RedisError, ServerError};

use super::connection::Connection;

/// One library a file, `scripts/*.lua`.
const LIBRARIES: &[&str] = &[
    include_str!("scripts/brokers.lua"),
    include_str!("scripts/catalog.lua"),
    include_str!("scripts/groups.lua"),
    include_str!("scripts/log.lua"),
];

/// Loads every library, replacing one of the same name.
pub(super) async fn load(connection: &Connection) -> Result<(), RedisError> {
    for source in LIBRARIES {
        connection.command(redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(*source)).await?;
    }
    Ok(())
}

/// Whether a call failed because the server has no such Function, so nothing ran.
pub(super) fn is_missing(error: &ServerError) -> bool {
    error.to_string().contains("Function not found")
}
