//! Fetches one topic as a consumer does: one request in flight, with a fetch session (KIP-227).

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse,
    fetch_request::{FetchPartition, FetchTopic},
};
use weir::protocol::records::{BatchHeader, LOG_OVERHEAD};

use super::{
    connection::{Connection, check},
    topic::Topic,
};

const FETCH_VERSION: i16 = 17;

/// Limits of a fetch; the defaults are the Java consumer's.
#[derive(Args, Clone)]
pub(super) struct Limits {
    #[arg(long, default_value_t = 52_428_800)]
    pub(super) max_bytes: i32,
    #[arg(long, default_value_t = 1_048_576)]
    pub(super) partition_max_bytes: i32,
    #[arg(long, default_value_t = 1)]
    pub(super) min_bytes: i32,
    #[arg(long, default_value_t = 500)]
    pub(super) max_wait_ms: i32,
}

pub(super) struct Fetcher {
    connection: Connection,
    topic: uuid::Uuid,
    limits: Limits,
    /// The next offset of each partition, and whether the session does not know it yet.
    positions: Vec<(i64, bool)>,
    session: (i32, i32),
}

/// A batch of an answer. `first_offset` is the first that was not read before.
pub(super) struct Seen {
    pub(super) partition: usize,
    pub(super) base_offset: i64,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Fetcher {
    pub(super) async fn open(address: SocketAddr, topic: &Topic, at_end: bool, limits: Limits) -> Result<Self> {
        let mut connection = Connection::open(address).await?;
        let mut positions = vec![(0, true); usize::try_from(topic.partitions)?];
        if at_end {
            for (position, end) in positions.iter_mut().zip(topic.ends(&mut connection).await?) {
                position.0 = end;
            }
        }
        Ok(Self { connection, topic: topic.id, limits, positions, session: (0, 0) })
    }

    pub(super) fn seek(&mut self, partition: usize, offset: i64) {
        self.positions[partition] = (offset, true);
    }

    pub(super) async fn send(&mut self) -> Result<()> {
        let mut partitions = Vec::new();
        for (index, (offset, is_new)) in self.positions.iter_mut().enumerate() {
            if std::mem::take(is_new) {
                let partition = FetchPartition::default()
                    .with_partition(i32::try_from(index)?)
                    .with_fetch_offset(*offset)
                    .with_partition_max_bytes(self.limits.partition_max_bytes);
                partitions.push(partition);
            }
        }
        let topics = match partitions.is_empty() {
            true => Vec::new(),
            false => vec![FetchTopic::default().with_topic_id(self.topic).with_partitions(partitions)],
        };
        let request = FetchRequest::default()
            .with_max_wait_ms(self.limits.max_wait_ms)
            .with_min_bytes(self.limits.min_bytes)
            .with_max_bytes(self.limits.max_bytes)
            .with_session_id(self.session.0)
            .with_session_epoch(self.session.1)
            .with_topics(topics);
        self.connection.send(FETCH_VERSION, &request).await
    }

    /// Awaits the answer and shows each batch in it. Cancel-safe until the answer is there.
    pub(super) async fn receive(&mut self, mut seen: impl FnMut(Seen)) -> Result<()> {
        let answer: FetchResponse = self.connection.receive(FETCH_VERSION).await?;
        check("Fetch", answer.error_code)?;
        match answer.session_id {
            // No session was given: the next request names all again.
            0 => {
                self.session = (0, 0);
                self.positions.iter_mut().for_each(|(_, is_new)| *is_new = true);
            }
            id => self.session = (id, self.session.1.checked_add(1).unwrap_or(1)),
        }
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            check("Fetch", partition.error_code)?;
            let index = usize::try_from(partition.partition_index)?;
            ensure!(index < self.positions.len(), "a partition that was not asked for");
            let (position, is_new) = &mut self.positions[index];
            let mut rest = partition.records.as_deref().unwrap_or_default();
            while let Ok(header) = BatchHeader::parse(rest) {
                let size = LOG_OVERHEAD + usize::try_from(header.batch_length)?;
                // The last one may be cut.
                let Some(behind) = rest.get(size..) else { break };
                let end = header.base_offset + i64::from(header.last_offset_delta) + 1;
                // The first one may begin before the position.
                if end > *position {
                    ensure!(
                        header.base_offset <= *position,
                        "offsets {position} to {} are missing",
                        header.base_offset
                    );
                    let records = u64::try_from(end - *position)?;
                    *position = end;
                    *is_new = true;
                    let bytes = u64::try_from(size)?;
                    seen(Seen { partition: index, base_offset: header.base_offset, records, bytes });
                }
                rest = behind;
            }
        }
        Ok(())
    }

    /// The longest that an answer may take beyond the data.
    pub(super) fn max_wait(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.limits.max_wait_ms).unwrap_or(0))
    }
}
