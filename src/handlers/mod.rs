//! One file per Kafka API: wire types in, domain calls, wire types out.

mod acls;
mod alter_configs;
mod alter_partition_reassignments;
mod api_versions;
mod assignments;
mod cluster;
mod config_resource;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod elect_leaders;
mod error_codes;
pub mod errors;
mod fetch;
mod find_coordinator;
mod group_wire;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod partitions;
mod produce;
mod sync_group;

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use kafka_protocol::{
    messages::{ApiKey, DescribeAclsRequest, ListPartitionReassignmentsRequest},
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};

use self::error_codes::ErrorCodes;
use crate::{
    cluster::Cluster,
    coordinator, log,
    model::NodeId,
    net::{Caller, Close, Frame, FrameLimit, Reply, Service},
    protocol::{api, codec},
    telemetry::{Metrics, metrics::RequestMetrics},
    topics,
};

/// The domain as the handlers see it. Built once by `broker`.
pub struct Services {
    pub identity: Identity,
    pub cluster: Arc<Cluster>,
    pub limits: RequestLimits,
    pub metrics: Arc<Metrics>,
    pub topics: Arc<topics::Catalog>,
    pub log: Arc<log::Log>,
    /// Where the older part of topics with a cold tier is.
    pub archive_url: Option<String>,
    pub groups: Arc<coordinator::Coordinator>,
    pub producer_ids: Arc<log::producer_ids::ProducerIds>,
}

/// Who this broker is.
pub struct Identity {
    pub node: NodeId,
    pub cluster_id: String,
    /// In the order of the configuration; [`Caller::listener`] is a place in it.
    pub listeners: Vec<Listener>,
}

/// A listener as clients are told to reach it.
#[derive(Clone, Debug)]
pub struct Listener {
    pub name: String,
    pub advertised_host: String,
    pub advertised_port: u16,
}

/// Bounds of requests in bytes.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// `socket.request.max.bytes`: bounds requests that carry record batches.
    pub max_bytes: usize,
    /// Bounds all others, whose decoded form can be much larger than their bytes.
    pub max_structured_bytes: usize,
}

impl RequestLimits {
    /// Bytes of memory that one request may come to take.
    pub fn longest(&self) -> usize {
        self.max_bytes.max(self.max_structured_bytes.saturating_mul(1 + STRUCTURED_DECODE_FACTOR))
    }
}

/// A decoded request.
pub struct Request<T> {
    pub body: T,
    pub version: i16,
    pub client_id: Option<StrBytes>,
    pub caller: Arc<Caller>,
    /// Bytes that stay in memory for as long as any slice of the request does.
    pub frame_bytes: usize,
}

/// What a handler gives back.
pub enum Outcome<T> {
    Ready(T),
    /// The ordered part is done; the answer follows.
    Later(BoxFuture<'static, T>),
    /// As `Later`, with the answer encoded by the handler: for those that carry record batches, or none at all.
    Encoded(BoxFuture<'static, Result<Frame, Close>>),
    Close(Close),
}

impl<T> From<T> for Outcome<T> {
    fn from(response: T) -> Self {
        Outcome::Ready(response)
    }
}

#[async_trait]
impl Service for Arc<Services> {
    fn frame_limit(&self, start: &[u8; 8]) -> Result<FrameLimit, Close> {
        let start = codec::request_start(start).map_err(|error| Close(error.to_string()))?;
        served(start)?;
        let structured = |decode_factor| FrameLimit { max_bytes: self.limits.max_structured_bytes, decode_factor };
        Ok(match start.api_key {
            key if key == ApiKey::Produce as i16 => FrameLimit { max_bytes: self.limits.max_bytes, decode_factor: 0 },
            key if key == ApiKey::Fetch as i16 && start.api_version >= fetch::TOPIC_IDS => {
                structured(FETCH_BY_ID_DECODE_FACTOR)
            }
            _ => structured(STRUCTURED_DECODE_FACTOR),
        })
    }

    async fn serve(&self, caller: &Arc<Caller>, frame: Bytes) -> Result<Reply, Close> {
        dispatch(self, caller, frame).await
    }
}

/// The wire's smallest array element takes three bytes, its decoded struct about a hundred.
const STRUCTURED_DECODE_FACTOR: usize = 32;

/// A Fetch may wait for long, and there is one for each consumer. With topic ids its smallest element takes eighteen bytes.
const FETCH_BY_ID_DECODE_FACTOR: usize = 8;

/// Whether a request is one of [`api::SERVED`]; a newer ApiVersions is answered too (KIP-511).
fn served(start: codec::RequestStart) -> Result<&'static api::Api, Close> {
    api::served(start.api_key)
        .filter(|api| api.versions().contains(&start.api_version) || api.key == ApiKey::ApiVersions)
        .ok_or_else(|| Close(format!("API {} version {} is not served", start.api_key, start.api_version)))
}

async fn dispatch(services: &Arc<Services>, caller: &Arc<Caller>, frame: Bytes) -> Result<Reply, Close> {
    let start = codec::request_start(&frame).map_err(|error| Close(error.to_string()))?;
    let api = served(start)?;
    if !api.versions().contains(&start.api_version) {
        return api_versions::unsupported(start.correlation_id);
    }
    let counted = Counted { metrics: services.metrics.request(start.api_key).cloned(), started: Instant::now() };
    let call = Call { start, caller, frame, counted };
    match api.key {
        ApiKey::Produce => call.answer(|request| produce::handle(services, request)).await,
        ApiKey::Fetch => {
            call.answer(|request| async move { fetch::handle(services, start.correlation_id, request) }).await
        }
        ApiKey::ListOffsets => call.later(|request| list_offsets::handle(services.clone(), request)),
        ApiKey::Metadata => {
            call.answer(|request| async move { metadata::handle(services, &request).await.into() }).await
        }
        ApiKey::FindCoordinator => call.now(|request| find_coordinator::handle(services, &request)),
        ApiKey::ApiVersions => call.now(|request| api_versions::handle(&request)),
        ApiKey::DeleteRecords => call.later(|request| delete_records::handle(services.clone(), request)),
        ApiKey::InitProducerId => call.later(|request| init_producer_id::handle(services.clone(), request)),
        ApiKey::OffsetForLeaderEpoch => {
            call.later(|request| offset_for_leader_epoch::handle(services.clone(), request))
        }
        ApiKey::DescribeAcls => call.now(|_: Request<DescribeAclsRequest>| acls::describe()),
        ApiKey::CreateAcls => call.now(|request| acls::create(&request.body)),
        ApiKey::DeleteAcls => call.now(|request| acls::delete(&request.body)),
        ApiKey::DescribeLogDirs => call.later(|request| describe_log_dirs::handle(services.clone(), request)),
        ApiKey::DescribeCluster => call.now(|request| describe_cluster::handle(services, &request)),
        ApiKey::OffsetCommit => call.answer(|request| offset_commit::handle(services, request)).await,
        ApiKey::OffsetFetch => call.answer(|request| offset_fetch::handle(services, request)).await,
        ApiKey::JoinGroup => call.answer(|request| join_group::handle(services, request)).await,
        ApiKey::Heartbeat => call.answer(|request| heartbeat::handle(services, request)).await,
        ApiKey::LeaveGroup => call.answer(|request| leave_group::handle(services, request)).await,
        ApiKey::SyncGroup => call.answer(|request| sync_group::handle(services, request)).await,
        ApiKey::DescribeGroups => call.answer(|request| describe_groups::handle(services, request)).await,
        ApiKey::ListGroups => call.answer(|request| list_groups::handle(services, request)).await,
        ApiKey::DeleteGroups => call.answer(|request| delete_groups::handle(services, request)).await,
        ApiKey::OffsetDelete => call.answer(|request| offset_delete::handle(services, request)).await,
        ApiKey::DescribeProducers => call.later(|request| describe_producers::handle(services.clone(), request)),
        ApiKey::CreateTopics => {
            call.answer(|request| async move {
                create_topics::handle(&services.topics, &services.broker_ids(), &request).await.into()
            })
            .await
        }
        ApiKey::DeleteTopics => {
            call.answer(|request| async move { delete_topics::handle(&services.topics, &request).await.into() }).await
        }
        ApiKey::CreatePartitions => {
            call.answer(|request| async move {
                create_partitions::handle(&services.topics, &services.broker_ids(), &request).await.into()
            })
            .await
        }
        ApiKey::DescribeConfigs => {
            call.answer(|request| async move {
                describe_configs::handle(&services.topics, services.identity.node, &request).await.into()
            })
            .await
        }
        ApiKey::AlterConfigs => {
            call.answer(|request| async move {
                alter_configs::handle(&services.topics, services.identity.node, &request).await.into()
            })
            .await
        }
        ApiKey::IncrementalAlterConfigs => {
            call.answer(|request| async move {
                incremental_alter_configs::handle(&services.topics, services.identity.node, &request).await.into()
            })
            .await
        }
        ApiKey::ListConfigResources => {
            call.now(|request| list_config_resources::handle(&services.topics, &services.broker_ids(), &request))
        }
        ApiKey::DescribeTopicPartitions => {
            call.answer(|request| async move { describe_topic_partitions::handle(services, &request).await.into() })
                .await
        }
        ApiKey::ElectLeaders => {
            call.answer(|request| async move { elect_leaders::handle(&services.topics, &request).await.into() }).await
        }
        ApiKey::ListPartitionReassignments => {
            call.now(|_: Request<ListPartitionReassignmentsRequest>| list_partition_reassignments::handle())
        }
        ApiKey::AlterPartitionReassignments => {
            call.answer(|request| async move {
                alter_partition_reassignments::handle(&services.topics, &services.broker_ids(), &request).await.into()
            })
            .await
        }
        key => Err(Close(format!("{key:?} is in the table of served APIs and has no handler"))),
    }
}

/// A request on its way to its handler.
struct Call<'a> {
    start: codec::RequestStart,
    caller: &'a Arc<Caller>,
    frame: Bytes,
    counted: Counted,
}

impl Services {
    /// Counts the errors of an answer that its handler encodes itself.
    fn count_errors(&self, api: ApiKey, response: &impl ErrorCodes) {
        if let Some(metrics) = self.metrics.request(api as i16) {
            response.count_errors(metrics);
        }
    }
}

/// Counts a request when its answer is there.
struct Counted {
    metrics: Option<Arc<RequestMetrics>>,
    started: Instant,
}

impl Counted {
    fn answered(&self, version: i16) {
        if let Some(metrics) = &self.metrics {
            metrics.served(version, self.started.elapsed());
        }
    }

    fn answered_with(&self, version: i16, response: &impl ErrorCodes) {
        self.answered(version);
        if let Some(metrics) = &self.metrics {
            response.count_errors(metrics);
        }
    }
}

impl Call<'_> {
    fn decode<R: Decodable + HeaderVersion>(self) -> Result<(Request<R>, Counted), Close> {
        let version = self.start.api_version;
        let frame_bytes = self.frame.len();
        let (header, body) =
            codec::decode_request::<R>(self.frame, version).map_err(|error| Close(error.to_string()))?;
        let request = Request { body, version, client_id: header.client_id, caller: self.caller.clone(), frame_bytes };
        Ok((request, self.counted))
    }

    /// For handlers that wait for nothing.
    fn now<R, A>(self, handle: impl FnOnce(Request<R>) -> A) -> Result<Reply, Close>
    where
        R: Decodable + HeaderVersion,
        A: Encodable + HeaderVersion + ErrorCodes,
    {
        let codec::RequestStart { api_version, correlation_id, .. } = self.start;
        let (request, counted) = self.decode()?;
        let response = handle(request);
        let frame = encode(correlation_id, api_version, &response)?;
        counted.answered_with(api_version, &response);
        Ok(Reply::Ready(frame))
    }

    /// For handlers whose work may be done while the next request is read.
    fn later<R, A, Fut>(self, handle: impl FnOnce(Request<R>) -> Fut) -> Result<Reply, Close>
    where
        R: Decodable + HeaderVersion,
        A: Encodable + HeaderVersion + ErrorCodes + Send + Sync + 'static,
        Fut: Future<Output = A> + Send + 'static,
    {
        let codec::RequestStart { api_version, correlation_id, .. } = self.start;
        let (request, counted) = self.decode()?;
        let response = handle(request);
        Ok(Reply::Later(Box::pin(async move {
            let response = response.await;
            let frame = encode(correlation_id, api_version, &response)?;
            counted.answered_with(api_version, &response);
            Ok(frame)
        })))
    }

    async fn answer<R, A, F, Fut>(self, handle: F) -> Result<Reply, Close>
    where
        R: Decodable + HeaderVersion,
        A: Encodable + HeaderVersion + ErrorCodes + Send + Sync + 'static,
        F: FnOnce(Request<R>) -> Fut,
        Fut: Future<Output = Outcome<A>>,
    {
        let codec::RequestStart { api_version: version, correlation_id, .. } = self.start;
        let (request, counted) = self.decode()?;
        match handle(request).await {
            Outcome::Ready(response) => {
                let frame = encode(correlation_id, version, &response)?;
                counted.answered_with(version, &response);
                Ok(Reply::Ready(frame))
            }
            Outcome::Later(response) => Ok(Reply::Later(Box::pin(async move {
                let response = response.await;
                let frame = encode(correlation_id, version, &response)?;
                counted.answered_with(version, &response);
                Ok(frame)
            }))),
            Outcome::Encoded(frame) => Ok(Reply::Later(Box::pin(async move {
                let frame = frame.await?;
                counted.answered(version);
                Ok(frame)
            }))),
            Outcome::Close(close) => Err(close),
        }
    }
}

/// An answer's frame. An answer that does not fit its version is a bug: the connection is closed and the log says so.
fn encode<A: Encodable + HeaderVersion>(correlation_id: i32, version: i16, response: &A) -> Result<Frame, Close> {
    match codec::encode_response(correlation_id, version, response) {
        Ok(bytes) => Ok(Frame { segments: vec![bytes], held: None }),
        Err(error) => {
            tracing::error!(%error, version, "an answer could not be encoded");
            Err(Close(error.to_string()))
        }
    }
}
