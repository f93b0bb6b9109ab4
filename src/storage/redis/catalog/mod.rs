//! The catalog in Redis, by the Functions of `scripts/catalog.lua`.

mod encoding;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, streams::StreamRangeReply};
use tracing::error;

use super::{
    connection::Request,
    durability::RedisDurability,
    keys::Keyspace,
    nodes::{At, Nodes},
};
use crate::{
    log::{durability::Promise, store::StoreError},
    model::TopicName,
    topics::{
        configs::Values,
        store::{
            Applied, CatalogStore, CatalogVersion, Change, Changed, Changes, Newer, Resource, StoredCatalog,
            StoredTopic, Unfinished,
        },
    },
};

/// The catalog in Redis.
pub struct RedisCatalogStore {
    nodes: Nodes,
    keyspace: Keyspace,
    /// Keeps what changes promise.
    durability: Option<Arc<RedisDurability>>,
}

impl RedisCatalogStore {
    pub fn new(nodes: impl Into<Nodes>) -> Self {
        let nodes = nodes.into();
        let keyspace = nodes.keyspace().clone();
        Self { nodes, keyspace, durability: None }
    }

    /// Changes are answered when what is promised of them holds.
    pub fn kept_by(self, durability: Arc<RedisDurability>) -> Self {
        Self { durability: Some(durability), ..self }
    }

    fn at(&self) -> At<'_> {
        self.nodes.of(&self.keyspace.topics())
    }

    fn call(&self, function: &str) -> Cmd {
        let keyspace = &self.keyspace;
        let mut call = redis::cmd("FCALL");
        call.arg(function)
            .arg(6)
            .arg(keyspace.topics())
            .arg(keyspace.topic_ids())
            .arg(keyspace.configs())
            .arg(keyspace.catalog_version())
            .arg(keyspace.catalog_unfinished())
            .arg(keyspace.catalog_changes());
        call
    }
}

fn unreadable() -> StoreError {
    StoreError::Refused("the catalog's Function gave an answer that can't be read".to_owned())
}

/// The next of an answer's parts.
fn next(parts: &mut impl Iterator<Item = String>) -> Result<String, StoreError> {
    parts.next().ok_or_else(unreadable)
}

fn next_version(parts: &mut impl Iterator<Item = String>) -> Result<CatalogVersion, StoreError> {
    let mut number = || next(parts)?.parse().map_err(|_| unreadable());
    Ok(CatalogVersion { number: number()?, mark: number()? })
}

/// A topic that can't be read is left out.
fn topic(name: &str, text: &str) -> Option<StoredTopic> {
    encoding::decode_topic(name, text)
        .inspect_err(|reason| {
            error!(topic = name, %reason, "the catalog holds a topic that can't be read; it is left out");
        })
        .ok()
}

fn configs(name: &str, text: &str) -> Option<(Resource, Values)> {
    encoding::decode_resource(name)
        .and_then(|resource| Ok((resource, encoding::decode_values(text)?)))
        .inspect_err(|reason| error!(resource = name, %reason, "the catalog holds configs that can't be read"))
        .ok()
}

#[async_trait]
impl CatalogStore for RedisCatalogStore {
    async fn load(&self) -> Result<StoredCatalog, StoreError> {
        type Hash = Vec<(String, String)>;
        let at = self.at();
        let version = redis::cmd("GET").arg(self.keyspace.catalog_version()).to_owned();
        let last =
            redis::cmd("XREVRANGE").arg(self.keyspace.catalog_changes()).arg(&["+", "-", "COUNT", "1"]).to_owned();
        let all = |key: String| Request::command(redis::cmd("HGETALL").arg(key));
        // Not as a transaction: when memory has run out, Redis takes nothing into one.
        let (number, last, all_topics, all_configs) = loop {
            let number: Option<u64> = at.query(&version).await?;
            let last: StreamRangeReply = at.query(&last).await?;
            let topics: Hash = at.query_aside(all(self.keyspace.topics())).await?;
            let configs: Hash = at.query_aside(all(self.keyspace.configs())).await?;
            // Every change raises it: nothing has changed while all was read.
            if at.query::<Option<u64>>(&version).await? == number {
                break (number, last, topics, configs);
            }
        };
        let number = number.unwrap_or(0);
        // The last change's mark, if the last change is that of this version.
        let mark = last.ids.first().and_then(|last| {
            let (changed, mark) = last.id.split_once('-')?;
            mark.parse().ok().filter(|_| changed == number.to_string())
        });
        Ok(StoredCatalog {
            version: CatalogVersion { number, mark: mark.unwrap_or(0) },
            topics: all_topics.iter().filter_map(|(name, text)| topic(name, text)).collect(),
            configs: all_configs.iter().filter_map(|(name, text)| configs(name, text)).collect(),
        })
    }

    async fn newer(&self, known: CatalogVersion) -> Result<Option<Newer>, StoreError> {
        let mut call = self.call("weir_catalog_changes_v1");
        call.arg(known.number).arg(known.mark);
        let answer: Vec<String> = self.at().query(&call).await?;
        let mut parts = answer.into_iter();
        match next(&mut parts)?.as_str() {
            "same" => return Ok(None),
            "whole" => return Ok(Some(Newer::Whole(self.load().await?))),
            "changes" => {}
            _ => return Err(unreadable()),
        }
        let mut changes = Changes { version: next_version(&mut parts)?, ..Changes::default() };
        while let Some(kind) = parts.next() {
            let (name, text) = (next(&mut parts)?, next(&mut parts)?);
            match kind.as_str() {
                "topic" => {
                    let stored = if text.is_empty() { None } else { topic(&name, &text) };
                    changes.topics.push((TopicName::new(&name), stored));
                }
                "configs" => changes.configs.extend(configs(&name, &text)),
                _ => return Err(unreadable()),
            }
        }
        Ok(Some(Newer::Changes(changes)))
    }

    async fn apply(&self, changes: &[Change], promise: Promise) -> Result<Applied, StoreError> {
        let creates = changes.iter().any(|change| matches!(change, Change::Create(_)));
        let slot = self.nodes.slot_of(&self.keyspace.topics());
        if let Some(durability) = self.durability.as_ref().filter(|_| creates) {
            // What lowers a promise that can't be kept any more must be possible; a new topic can wait.
            durability.check_at(promise, slot).map_err(|unkept| StoreError::NotReady(unkept.to_string()))?;
        }
        let held = self.durability.as_ref().map(|durability| durability.expect(promise, slot));
        let mut call = self.call(if creates { "weir_catalog_apply_v2" } else { "weir_catalog_change_v1" });
        for change in changes {
            encoding::encode_change(&mut call, change);
        }
        let answer: Vec<String> = self.at().query(&call).await?;
        let mut parts = answer.into_iter();
        let applied = Applied {
            version_before: next_version(&mut parts)?,
            version: next_version(&mut parts)?,
            changes: parts
                .map(|result| match result.as_str() {
                    "done" => Ok(Changed::Done),
                    "exists" => Ok(Changed::Exists),
                    "missing" => Ok(Changed::Missing),
                    "stale" => Ok(Changed::Stale),
                    _ => Err(unreadable()),
                })
                .collect::<Result<_, _>>()?,
        };
        if applied.changes.len() != changes.len() {
            return Err(unreadable());
        }
        if let Some(held) = held.filter(|_| applied.changes.contains(&Changed::Done)) {
            held.await.map_err(|unkept| StoreError::OutcomeUnknown(unkept.to_string()))?;
        }
        Ok(applied)
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        let all: Vec<(String, String)> =
            self.at().query(redis::cmd("HGETALL").arg(self.keyspace.catalog_unfinished())).await?;
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
        let mut call = self.call("weir_catalog_finish_v2");
        call.arg(done.id.to_string()).arg(encoding::work_name(done.work)).arg(done.partitions);
        self.at().query(&call).await
    }
}
