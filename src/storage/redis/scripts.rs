//! The Function libraries that Weir loads into Redis. A Function's name carries a version and never changes meaning.

use std::collections::HashMap;

use redis::{RedisError, ServerError, Value};

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
    for &source in LIBRARIES {
        #[cfg(feature = "planted-faults")]
        let source: &str = crate::faults::library(source).leak();
        let loaded = connection.command(redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(source)).await;
        match loaded {
            // A server that is out of memory, or can't write its files, loads nothing; what it has can do.
            Err(error) if !error.is_io_error() => {
                if !is_there(connection, source).await? {
                    return Err(error);
                }
            }
            loaded => drop(loaded?),
        }
    }
    Ok(())
}

/// Whether the server has this very library.
async fn is_there(connection: &Connection, source: &str) -> Result<bool, RedisError> {
    let name = source.lines().next().and_then(|line| line.split_once("name=")).map_or("", |(_, name)| name.trim());
    let list = redis::cmd("FUNCTION").arg("LIST").arg("LIBRARYNAME").arg(name).arg("WITHCODE").to_owned();
    let told: Vec<HashMap<String, Value>> = redis::from_redis_value(connection.command(&list).await?)?;
    Ok(told.iter().any(|library| {
        let code = library.get("library_code").cloned().map(redis::from_redis_value::<String>);
        code.is_some_and(|code| code.is_ok_and(|code| code == source))
    }))
}

/// Whether a call failed because the server has no such Function, so nothing ran.
pub(super) fn is_missing(error: &ServerError) -> bool {
    error.to_string().contains("Function not found")
}
