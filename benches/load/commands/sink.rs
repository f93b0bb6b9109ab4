//! A broker that answers Produce and keeps nothing: what the clients alone, and the sockets, let anybody reach.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use clap::Args;
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsResponse, BrokerId, InitProducerIdResponse, MetadataRequest, MetadataResponse,
        ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
        api_versions_response::ApiVersion,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        produce_request::PartitionProduceData,
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

use super::{Outcome, until_input_ends};

const SERVED: [(ApiKey, i16, i16); 4] =
    [(ApiKey::Produce, 0, 13), (ApiKey::Metadata, 0, 12), (ApiKey::ApiVersions, 0, 4), (ApiKey::InitProducerId, 0, 5)];
const LONGEST_FRAME: usize = 100 << 20;

#[derive(Args)]
pub(super) struct Options {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Every topic that is asked for has so many.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// How long it serves; until standard input ends where this is not given.
    #[arg(long)]
    seconds: Option<f64>,
}

/// Prints a line with its address, and serves.
pub(super) async fn run(options: Options) -> Result<Outcome> {
    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("can't bind {}", options.listen))?;
    let address = listener.local_addr()?;
    let broker = Arc::new(Broker { address, partitions: options.partitions, taken: AtomicI64::new(0) });
    let outcome = Outcome::new("sink").with("address", address.to_string()).with("errors", 0);
    println!("{}", outcome.json());
    let serving = async {
        while let Ok((stream, _)) = listener.accept().await {
            let broker = broker.clone();
            tokio::spawn(async move {
                if let Err(error) = broker.serve(stream).await {
                    eprintln!("load: sink: {error:#}");
                }
            });
        }
    };
    let until_the_end = async {
        match options.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
            None => until_input_ends().await,
        }
    };
    tokio::select! {
        () = serving => bail!("the listener failed"),
        () = until_the_end => Ok(outcome),
    }
}

struct Broker {
    address: SocketAddr,
    partitions: i32,
    /// Records of all partitions: each next offset is a new one.
    taken: AtomicI64,
}

impl Broker {
    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut received = BytesMut::new();
        loop {
            while received.len() < 4 {
                received.reserve(64 << 10);
                if stream.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
            }
            let length = usize::try_from(received.get_i32()).context("a frame of negative length")?;
            if length > LONGEST_FRAME {
                bail!("a frame of {length} bytes");
            }
            received.reserve(length.saturating_sub(received.len()));
            while received.len() < length {
                if stream.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
            }
            if let Some(answer) = self.answer(received.split_to(length).freeze())? {
                stream.write_all(&answer).await?;
            }
        }
    }

    fn answer(&self, mut frame: Bytes) -> Result<Option<Bytes>> {
        let mut head = frame.as_ref();
        if head.len() < 4 {
            bail!("a frame without a header");
        }
        let key = ApiKey::try_from(head.get_i16()).ok().context("an API that nobody knows")?;
        let version = head.get_i16();
        let header = RequestHeader::decode(&mut frame, key.request_header_version(version))?;
        let mut answer = BytesMut::with_capacity(512);
        answer.put_i32(0);
        let id = ResponseHeader::default().with_correlation_id(header.correlation_id);
        id.encode(&mut answer, key.response_header_version(version))?;
        match key {
            ApiKey::ApiVersions => {
                let versions = |(key, least, most)| {
                    ApiVersion::default().with_api_key(key as i16).with_min_version(least).with_max_version(most)
                };
                let answered = ApiVersionsResponse::default().with_api_keys(SERVED.map(versions).to_vec());
                answered.encode(&mut answer, version)?;
            }
            ApiKey::InitProducerId => InitProducerIdResponse::default()
                .with_producer_id(1.into())
                .with_producer_epoch(0)
                .encode(&mut answer, version)?,
            ApiKey::Metadata => {
                self.metadata(&MetadataRequest::decode(&mut frame, version)?).encode(&mut answer, version)?
            }
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut frame, version)?;
                if request.acks == 0 {
                    return Ok(None);
                }
                self.taken(&request).encode(&mut answer, version)?;
            }
            other => bail!("{other:?} is not served"),
        }
        let length = i32::try_from(answer.len() - 4)?;
        answer[..4].copy_from_slice(&length.to_be_bytes());
        Ok(Some(answer.freeze()))
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        const NODE: BrokerId = BrokerId(0);
        let partition = |index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(NODE)
                .with_leader_epoch(0)
                .with_replica_nodes(vec![NODE])
                .with_isr_nodes(vec![NODE])
        };
        let topics = request.topics.iter().flatten().map(|topic| {
            MetadataResponseTopic::default()
                .with_topic_id(topic.name.as_ref().map_or(topic.topic_id, |name| id_of(name)))
                .with_name(topic.name.clone())
                .with_partitions((0..self.partitions).map(partition).collect())
        });
        let this = MetadataResponseBroker::default()
            .with_node_id(NODE)
            .with_host(StrBytes::from_string(self.address.ip().to_string()))
            .with_port(i32::from(self.address.port()));
        MetadataResponse::default()
            .with_brokers(vec![this])
            .with_cluster_id(Some(StrBytes::from_static_str("sink")))
            .with_controller_id(NODE)
            .with_topics(topics.collect())
    }

    fn taken(&self, request: &ProduceRequest) -> ProduceResponse {
        let partition = |data: &PartitionProduceData| {
            let records = data.records.as_ref().map_or(0, record_count);
            PartitionProduceResponse::default()
                .with_index(data.index)
                .with_base_offset(self.taken.fetch_add(records, Ordering::Relaxed))
                .with_log_append_time_ms(-1)
        };
        let topics = request.topic_data.iter().map(|topic| {
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
                .with_partition_responses(topic.partition_data.iter().map(partition).collect())
        });
        ProduceResponse::default().with_responses(topics.collect())
    }
}

/// As the header of the only batch says it.
fn record_count(batch: &Bytes) -> i64 {
    const PLACE: usize = 57;
    batch.get(PLACE..).and_then(|rest| rest.first_chunk()).map_or(0, |count| i64::from(i32::from_be_bytes(*count)))
}

fn id_of(name: &str) -> Uuid {
    Uuid::from_u64_pair(u64::from(crc32c::crc32c(name.as_bytes())), 1)
}
