//! A member of a classic group, as a consumer's coordinator client.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    ResponseError,
    messages::{
        FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol, sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};

use super::connection::{Connection, check};

const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
const PROTOCOL_TYPE: StrBytes = StrBytes::from_static_str("consumer");
const PROTOCOL: StrBytes = StrBytes::from_static_str("range");

pub(super) struct Member {
    pub(super) connection: Connection,
    pub(super) group: GroupId,
    pub(super) id: StrBytes,
    pub(super) generation: i32,
    /// Members of the generation, which only its leader knows.
    pub(super) members: Option<usize>,
    topic: String,
}

impl Member {
    pub(super) async fn new(address: SocketAddr, group: &str, topic: &str) -> Result<Self> {
        let mut connection = Connection::open(address).await?;
        find_coordinator(&mut connection, group).await?;
        let group = GroupId(StrBytes::from_string(group.to_owned()));
        Ok(Self { connection, group, id: StrBytes::default(), generation: -1, members: None, topic: topic.to_owned() })
    }

    /// Joins and syncs until it is in a generation.
    pub(super) async fn join(&mut self) -> Result<()> {
        loop {
            let answer = self.join_once().await?;
            match ResponseError::try_from_code(answer.error_code) {
                None => {}
                Some(ResponseError::MemberIdRequired) => {
                    self.id = answer.member_id;
                    continue;
                }
                Some(ResponseError::RebalanceInProgress) => continue,
                // Kafka names a coordinator that is not ready yet.
                Some(ResponseError::NotCoordinator | ResponseError::CoordinatorLoadInProgress)
                    if self.id.is_empty() =>
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Some(error) => bail!("JoinGroup: {error:?}"),
            }
            self.id = answer.member_id.clone();
            self.generation = answer.generation_id;
            let assignments: Vec<_> = answer
                .members
                .iter()
                .map(|member| {
                    SyncGroupRequestAssignment::default()
                        .with_member_id(member.member_id.clone())
                        .with_assignment(nothing_assigned())
                })
                .collect();
            self.members = (answer.leader == answer.member_id).then_some(assignments.len());
            let request = SyncGroupRequest::default()
                .with_group_id(self.group.clone())
                .with_generation_id(self.generation)
                .with_member_id(self.id.clone())
                .with_protocol_type(Some(PROTOCOL_TYPE))
                .with_protocol_name(Some(PROTOCOL))
                .with_assignments(assignments);
            let synced = self.connection.call(5, &request).await?;
            match ResponseError::try_from_code(synced.error_code) {
                None => return Ok(()),
                Some(ResponseError::RebalanceInProgress) => {}
                Some(error) => bail!("SyncGroup: {error:?}"),
            }
        }
    }

    async fn join_once(&mut self) -> Result<JoinGroupResponse> {
        let protocol = JoinGroupRequestProtocol::default().with_name(PROTOCOL).with_metadata(subscription(&self.topic));
        let request = JoinGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_session_timeout_ms(SESSION_TIMEOUT_MS)
            .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
            .with_member_id(self.id.clone())
            .with_protocol_type(PROTOCOL_TYPE)
            .with_protocols(vec![protocol]);
        self.connection.call(9, &request).await
    }

    /// False when the group rebalances.
    pub(super) async fn heartbeat(&mut self) -> Result<bool> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        let answer = self.connection.call(4, &request).await?;
        match ResponseError::try_from_code(answer.error_code) {
            None => Ok(true),
            Some(ResponseError::RebalanceInProgress) => Ok(false),
            Some(error) => bail!("Heartbeat: {error:?}"),
        }
    }
}

/// Kafka makes the topic of its groups when the first one is looked for.
async fn find_coordinator(connection: &mut Connection, group: &str) -> Result<()> {
    const RETRIES: u32 = 200;
    let request = FindCoordinatorRequest::default()
        .with_coordinator_keys(vec![StrBytes::from_string(group.to_owned())])
        .with_key_type(0);
    for retry in 1.. {
        let answer = connection.call(4, &request).await?;
        let error = answer.coordinators.first().map_or(-1, |coordinator| coordinator.error_code);
        match check("FindCoordinator", error) {
            Ok(()) => return Ok(()),
            Err(_) if retry < RETRIES => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop returns")
}

/// ConsumerProtocolSubscription, version 0.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(i16::try_from(topic.len()).unwrap_or(i16::MAX));
    bytes.put_slice(topic.as_bytes());
    bytes.put_i32(-1);
    bytes.freeze()
}

/// ConsumerProtocolAssignment, version 0: who owns what does not matter here.
fn nothing_assigned() -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(0);
    bytes.put_i32(-1);
    bytes.freeze()
}
