//! Every domain error to its Kafka code, exhaustively.

use kafka_protocol::ResponseError;

use crate::{
    coordinator::CoordinatorError,
    groups::GroupError,
    log::store::StoreError,
    topics::{ChangeError, CreateError},
};

/// What a Produce, Fetch or ListOffsets answers when the storage fails.
pub fn storage(error: &StoreError) -> ResponseError {
    match error {
        StoreError::NotSent(_) | StoreError::NotReady(_) | StoreError::Refused(_) | StoreError::Quarantined(_) => {
            ResponseError::KafkaStorageError
        }
        StoreError::OutcomeUnknown(_) => ResponseError::RequestTimedOut,
        StoreError::OutOfMemory => ResponseError::NotEnoughReplicas,
        StoreError::NoSuchPartition => ResponseError::UnknownTopicOrPartition,
        StoreError::FencedLeader(_) => ResponseError::NotLeaderOrFollower,
    }
}

/// What a request to a group answers.
pub fn coordinator(error: &CoordinatorError) -> ResponseError {
    match error {
        CoordinatorError::Group(error) => group(error),
        CoordinatorError::Loading => ResponseError::CoordinatorLoadInProgress,
        CoordinatorError::NotAvailable => ResponseError::CoordinatorNotAvailable,
    }
}

pub fn group(error: &GroupError) -> ResponseError {
    match error {
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::GroupNotFound => ResponseError::GroupIdNotFound,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::GroupFull => ResponseError::GroupMaxSizeReached,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::UnknownMember => ResponseError::UnknownMemberId,
        GroupError::FencedInstance => ResponseError::FencedInstanceId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::SubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
    }
}

/// What CreateTopics answers.
pub fn create_topic(error: &CreateError) -> ResponseError {
    match error {
        CreateError::InvalidName(_) => ResponseError::InvalidTopicException,
        CreateError::Exists(_) => ResponseError::TopicAlreadyExists,
        CreateError::InvalidPartitions => ResponseError::InvalidPartitions,
        CreateError::InvalidReplicationFactor => ResponseError::InvalidReplicationFactor,
        CreateError::InvalidConfig(_) => ResponseError::InvalidConfig,
        CreateError::TooManyPartitions => ResponseError::PolicyViolation,
        CreateError::Store(error) => storage(error),
    }
}

/// What a request to change or delete a topic, or to change configs, answers.
pub fn change_topic(error: &ChangeError) -> ResponseError {
    match error {
        ChangeError::Missing => ResponseError::UnknownTopicOrPartition,
        // Retriable, and nothing happened.
        ChangeError::Contended => ResponseError::KafkaStorageError,
        ChangeError::Store(error) => storage(error),
    }
}

/// What Metadata answers for a topic that could not be created on being asked for.
pub fn automatic_creation(error: &CreateError) -> ResponseError {
    match error {
        CreateError::InvalidName(_) => ResponseError::InvalidTopicException,
        CreateError::InvalidPartitions => ResponseError::InvalidPartitions,
        CreateError::InvalidReplicationFactor => ResponseError::InvalidReplicationFactor,
        CreateError::InvalidConfig(_) => ResponseError::InvalidConfig,
        CreateError::TooManyPartitions => ResponseError::PolicyViolation,
        // Somebody else was faster, or the storage fails: the client asks again.
        CreateError::Exists(_) | CreateError::Store(_) => ResponseError::LeaderNotAvailable,
    }
}
