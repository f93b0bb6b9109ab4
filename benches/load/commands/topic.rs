//! Topics: made, looked up, removed.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, DeleteTopicsRequest, ListOffsetsRequest, MetadataRequest, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    Outcome,
    connection::{Connection, PATIENCE, check},
};

/// Topics of one request, and the least that brokers take at once.
const AT_ONCE: usize = 500;
const TIMEOUT_MS: i32 = 60_000;

#[derive(Args)]
pub(super) struct Create {
    #[command(flatten)]
    names: Names,
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// As NAME=VALUE; may be repeated.
    #[arg(long = "config")]
    configs: Vec<String>,
}

#[derive(Args)]
pub(super) struct Delete {
    #[command(flatten)]
    names: Names,
}

/// A topic, and a broker that knows of it.
#[derive(Args, Clone)]
pub(super) struct Target {
    #[arg(long)]
    pub(super) bootstrap: SocketAddr,
    #[arg(long)]
    pub(super) topic: String,
}

impl Target {
    pub(super) async fn open(&self) -> Result<(Connection, Topic)> {
        let mut connection = Connection::open(self.bootstrap).await?;
        let topic = Topic::find(&mut connection, &self.topic).await?;
        Ok((connection, topic))
    }
}

#[derive(Args)]
struct Names {
    #[command(flatten)]
    target: Target,
    /// Many topics, each with its number behind the name.
    #[arg(long)]
    count: Option<usize>,
}

impl Names {
    fn all(&self) -> Vec<TopicName> {
        match self.count {
            None => vec![name(&self.target.topic)],
            Some(count) => (0..count).map(|number| name(&format!("{}-{number}", self.target.topic))).collect(),
        }
    }
}

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

/// A topic as a client knows it.
pub(super) struct Topic {
    pub(super) name: TopicName,
    pub(super) id: Uuid,
    pub(super) partitions: i32,
}

impl Topic {
    pub(super) async fn find(connection: &mut Connection, topic: &str) -> Result<Self> {
        let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
        let answer = connection.call(12, &request).await?;
        let found = answer.topics.into_iter().next().context("an answer without the topic")?;
        check(topic, found.error_code)?;
        ensure!(
            found.partitions.iter().all(|partition| partition.leader_id.0 >= 0),
            "{topic}: partitions without leader"
        );
        Ok(Topic { name: name(topic), id: found.topic_id, partitions: i32::try_from(found.partitions.len())? })
    }

    /// Where each partition ends. Its leader must be there.
    pub(super) async fn ends(&self, connection: &mut Connection) -> Result<Vec<i64>> {
        const LATEST: i64 = -1;
        let partitions = (0..self.partitions)
            .map(|index| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(LATEST));
        let asked = ListOffsetsTopic::default().with_name(self.name.clone()).with_partitions(partitions.collect());
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
        let answer = connection.call(8, &request).await?;
        let mut found: Vec<_> = answer.topics.into_iter().flat_map(|topic| topic.partitions).collect();
        found.sort_by_key(|partition| partition.partition_index);
        found.iter().map(|partition| check("ListOffsets", partition.error_code).map(|()| partition.offset)).collect()
    }
}

pub(super) async fn create(options: Create) -> Result<Outcome> {
    let configs: Vec<CreatableTopicConfig> = options
        .configs
        .iter()
        .map(|config| {
            let (name, value) = config.split_once('=').with_context(|| format!("{config} is not NAME=VALUE"))?;
            let (name, value) = (StrBytes::from_string(name.to_owned()), StrBytes::from_string(value.to_owned()));
            Ok(CreatableTopicConfig::default().with_name(name).with_value(Some(value)))
        })
        .collect::<Result<_>>()?;
    let mut connection = Connection::open(options.names.target.bootstrap).await?;
    let started = Instant::now();
    let names = options.names.all();
    for some in names.chunks(AT_ONCE) {
        let topics = some.iter().map(|name| {
            CreatableTopic::default()
                .with_name(name.clone())
                .with_num_partitions(options.partitions)
                .with_replication_factor(1)
                .with_configs(configs.clone())
        });
        let request = CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(TIMEOUT_MS);
        for created in connection.call(7, &request).await?.topics {
            check(&created.name.0, created.error_code)?;
        }
    }
    wait_until_served(&mut connection, names.last().context("no topic")?).await?;
    Ok(Outcome::new("create").with_rate("topics", u64::try_from(names.len())?, started.elapsed()))
}

/// Kafka answers before the topic's leaders serve.
async fn wait_until_served(connection: &mut Connection, name: &TopicName) -> Result<()> {
    async fn served(connection: &mut Connection, name: &TopicName) -> Result<Vec<i64>> {
        Topic::find(connection, &name.0).await?.ends(connection).await
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = served(connection, name).await {
        if Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(())
}

pub(super) async fn delete(options: Delete) -> Result<Outcome> {
    let mut connection = Connection::open(options.names.target.bootstrap).await?;
    let started = Instant::now();
    let names = options.names.all();
    for some in names.chunks(AT_ONCE) {
        let topics = some.iter().map(|name| DeleteTopicState::default().with_name(Some(name.clone())));
        let request = DeleteTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(TIMEOUT_MS);
        for deleted in connection.call(6, &request).await?.responses {
            check(deleted.name.as_ref().map_or("a topic", |name| &name.0), deleted.error_code)?;
        }
    }
    Ok(Outcome::new("delete").with_rate("topics", u64::try_from(names.len())?, started.elapsed()))
}
