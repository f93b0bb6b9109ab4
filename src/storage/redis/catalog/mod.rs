//! The catalog in Redis, by the Functions of `scripts/catalog.lua`.

mod encoding;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use redis::Cmd;
use tracing::error;

use super::{
    client::{Client, store_error},
    keys::Keyspace,
};
use crate::{
    log::store::StoreError,
    topics::store::{Applied, CatalogStore, Change, Changed, StoredCatalog, Unfinished},
};

/// The catalog in Redis.
pub struct RedisCatalogStore {
    client: Arc<Client>,
    keyspace: Keyspace,
}

impl RedisCatalogStore {
    pub fn new(client: Arc<Client>) -> Self {
        let keyspace = client.keyspace().clone();
        Self { client, keyspace }
    }

    fn call(&self, function: &str) -> Cmd {
        let keyspace = &self.keyspace;
        let mut call = redis::cmd("FCALL");
        call.arg(function)
            .arg(5)
            .arg(keyspace.topics())
            .arg(keyspace.topic_ids())
            .arg(keyspace.configs())
            .arg(keyspace.catalog_version())
            .arg(keyspace.catalog_unfinished());
        call
    }

    async fn version(&self) -> Result<u64, StoreError> {
        let version: Option<u64> = self.client.query(redis::cmd("GET").arg(self.keyspace.catalog_version())).await?;
        Ok(version.unwrap_or(0))
    }
}

#[async_trait]
impl CatalogStore for RedisCatalogStore {
    async fn load(&self, known: Option<u64>) -> Result<Option<StoredCatalog>, StoreError> {
        if known.is_some() && known == Some(self.version().await?) {
            return Ok(None);
        }
        let mut connection = self.client.exclusive().await?;
        let mut pipeline = redis::pipe();
        pipeline
            .atomic()
            .cmd("GET")
            .arg(self.keyspace.catalog_version())
            .cmd("HGETALL")
            .arg(self.keyspace.topics())
            .cmd("HGETALL")
            .arg(self.keyspace.configs());
        let (version, topics, configs): (Option<u64>, Vec<(String, String)>, Vec<(String, String)>) =
            pipeline.query_async(&mut connection).await.map_err(|error| store_error(&error))?;
        let mut stored = StoredCatalog { version: version.unwrap_or(0), ..StoredCatalog::default() };
        for (name, text) in topics {
            match encoding::decode_topic(&name, &text) {
                Ok(topic) => stored.topics.push(topic),
                Err(reason) => {
                    error!(topic = name, %reason, "the catalog holds a topic that can't be read; it is left out")
                }
            }
        }
        for (name, text) in configs {
            match encoding::decode_resource(&name).and_then(|name| Ok((name, encoding::decode_values(&text)?))) {
                Ok(configured) => stored.configs.push(configured),
                Err(reason) => error!(resource = name, %reason, "the catalog holds configs that can't be read"),
            }
        }
        Ok(Some(stored))
    }

    async fn apply(&self, changes: &[Change]) -> Result<Applied, StoreError> {
        let mut call = self.call("weir_catalog_apply_v1");
        for change in changes {
            encoding::encode_change(&mut call, change);
        }
        let mut answer: Vec<String> = self.client.query(&call).await?;
        let unreadable = || StoreError::Refused("the catalog's Function gave an answer that can't be read".to_owned());
        if answer.len() != changes.len() + 2 {
            return Err(unreadable());
        }
        let results = answer.split_off(2);
        let mut versions = answer.iter().map(|version| version.parse().map_err(|_| unreadable()));
        Ok(Applied {
            version_before: versions.next().ok_or_else(unreadable)??,
            version: versions.next().ok_or_else(unreadable)??,
            changes: results
                .iter()
                .map(|result| match result.as_str() {
                    "done" => Ok(Changed::Done),
                    "exists" => Ok(Changed::Exists),
                    "missing" => Ok(Changed::Missing),
                    "stale" => Ok(Changed::Stale),
                    _ => Err(unreadable()),
                })
                .collect::<Result<_, _>>()?,
        })
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        let all: Vec<(String, String)> =
            self.client.query(redis::cmd("HGETALL").arg(self.keyspace.catalog_unfinished())).await?;
        let mut unfinished = Vec::with_capacity(all.len());
        for (id, text) in all {
            match encoding::decode_unfinished(&id, &text) {
                Ok(work) => unfinished.push(work),
                Err(reason) => error!(id, %reason, "the catalog holds unfinished work that can't be read"),
            }
        }
        Ok(unfinished)
    }

    async fn finish(&self, done: &Unfinished) -> Result<bool, StoreError> {
        let mut call = self.call("weir_catalog_finish_v1");
        call.arg(done.id.to_string()).arg(encoding::work_name(done.work)).arg(done.partitions);
        self.client.query(&call).await
    }
}
