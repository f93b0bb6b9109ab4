//! Every domain error to its Kafka code, exhaustively.

use kafka_protocol::ResponseError;

use crate::{
    coordinator::CoordinatorError,
    groups::GroupError,
    log::{
        AppendError, FetchError,
        session::SessionError,
        store::{AppendRefusal, StoreError},
        tiered::SeekError,
    },
    protocol::records::InvalidBatch,
    topics::{ChangeError, CreateError},
};

/// What a change of a partition answers when the storage fails.
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
        CoordinatorError::NotCoordinator => ResponseError::NotCoordinator,
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
        CreateError::TooManyPartitions | CreateError::TooManyChanges => ResponseError::PolicyViolation,
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
        CreateError::TooManyPartitions | CreateError::TooManyChanges => ResponseError::PolicyViolation,
        // Somebody else was faster, or the storage fails: the client asks again.
        CreateError::Exists(_) | CreateError::Store(_) => ResponseError::LeaderNotAvailable,
    }
}

/// What a request that only reads answers when the storage fails: consumers give up on what they do not expect there, so
/// lost and slow answers read as a storage that is not well for now.
pub fn reading(error: &StoreError) -> ResponseError {
    match error {
        StoreError::NotSent(_)
        | StoreError::OutcomeUnknown(_)
        | StoreError::OutOfMemory
        | StoreError::NotReady(_)
        | StoreError::Refused(_)
        | StoreError::Quarantined(_) => ResponseError::KafkaStorageError,
        StoreError::NoSuchPartition => ResponseError::UnknownTopicOrPartition,
        StoreError::FencedLeader(_) => ResponseError::NotLeaderOrFollower,
    }
}

/// What a partition of a Produce answers when its batch is not known to be in the log.
pub fn append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::Store(error) => storage(error),
        AppendError::Refused { refusal, .. } => match refusal {
            AppendRefusal::OutOfOrderSequence => ResponseError::OutOfOrderSequenceNumber,
            AppendRefusal::DuplicateSequence => ResponseError::DuplicateSequenceNumber,
            AppendRefusal::FencedProducer => ResponseError::InvalidProducerEpoch,
            AppendRefusal::UnknownProducer => ResponseError::UnknownProducerId,
            AppendRefusal::NotJson { .. } => ResponseError::InvalidRecord,
            AppendRefusal::TooLarge => ResponseError::MessageTooLarge,
        },
        AppendError::NotEnoughReplicas => ResponseError::NotEnoughReplicas,
        AppendError::NotEnoughReplicasAfterAppend => ResponseError::NotEnoughReplicasAfterAppend,
        AppendError::NotSentInTime | AppendError::CannotPromise(_) => ResponseError::KafkaStorageError,
        AppendError::NotAnsweredInTime | AppendError::Abandoned => ResponseError::RequestTimedOut,
    }
}

/// What a partition of a Produce answers when its batch is not taken as it is.
pub fn invalid_batch(invalid: &InvalidBatch) -> ResponseError {
    match invalid {
        InvalidBatch::UnknownMagic(_) | InvalidBatch::TooShort(_) | InvalidBatch::CrcMismatch { .. } => {
            ResponseError::CorruptMessage
        }
        InvalidBatch::TooLarge { .. }
        | InvalidBatch::TooManyRecords { .. }
        | InvalidBatch::DecompressedTooLarge { .. } => ResponseError::MessageTooLarge,
        InvalidBatch::ZstdNotAllowed | InvalidBatch::UnknownCodec(_) => ResponseError::UnsupportedCompressionType,
        InvalidBatch::Rejected(rejected) if rejected.any_timestamp => ResponseError::InvalidTimestamp,
        InvalidBatch::Missing
        | InvalidBatch::MoreThanOne
        | InvalidBatch::OldMagic(_)
        | InvalidBatch::BaseOffsetNotZero(_)
        | InvalidBatch::InvalidOffsetRange(_)
        | InvalidBatch::InvalidCount(_)
        | InvalidBatch::InconsistentCount { .. }
        | InvalidBatch::ControlBatch
        | InvalidBatch::InvalidSequence { .. }
        | InvalidBatch::Malformed { .. }
        | InvalidBatch::Rejected(_) => ResponseError::InvalidRecord,
    }
}

/// What a partition of a Fetch or of a question for offsets answers instead of records.
pub fn fetch(error: &FetchError) -> ResponseError {
    match error {
        FetchError::Store(error) => reading(error),
        FetchError::OffsetOutOfRange(_) => ResponseError::OffsetOutOfRange,
        FetchError::FencedLeaderEpoch(_) => ResponseError::FencedLeaderEpoch,
        FetchError::UnknownLeaderEpoch(_) => ResponseError::UnknownLeaderEpoch,
    }
}

/// What a question for the offset of a time answers.
pub fn seek(error: &SeekError) -> ResponseError {
    match error {
        SeekError::Store(error) => reading(error),
        SeekError::NotInTime => ResponseError::RequestTimedOut,
    }
}

/// What a Fetch answers whose session is not in order.
pub fn session(error: SessionError) -> ResponseError {
    match error {
        SessionError::NotFound => ResponseError::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ResponseError::InvalidFetchSessionEpoch,
        SessionError::TopicIds => ResponseError::FetchSessionTopicIdError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_storage_says_has_its_code() {
        use ResponseError::*;
        let text = String::new;
        for (error, changing, asking) in [
            (StoreError::NotSent(text()), KafkaStorageError, KafkaStorageError),
            (StoreError::OutcomeUnknown(text()), RequestTimedOut, KafkaStorageError),
            (StoreError::OutOfMemory, NotEnoughReplicas, KafkaStorageError),
            (StoreError::NotReady(text()), KafkaStorageError, KafkaStorageError),
            (StoreError::Refused(text()), KafkaStorageError, KafkaStorageError),
            (StoreError::NoSuchPartition, UnknownTopicOrPartition, UnknownTopicOrPartition),
            (StoreError::Quarantined(text()), KafkaStorageError, KafkaStorageError),
            (StoreError::FencedLeader(3), NotLeaderOrFollower, NotLeaderOrFollower),
        ] {
            assert_eq!((storage(&error), reading(&error)), (changing, asking), "{error:?}");
            assert_eq!(append(&AppendError::Store(error.clone())), changing);
            assert_eq!(fetch(&FetchError::Store(error.clone())), asking);
            assert!(changing.is_retriable() && asking.is_retriable(), "{error:?} passes");
        }
        for (error, code) in [
            (AppendError::NotEnoughReplicas, NotEnoughReplicas),
            (AppendError::NotEnoughReplicasAfterAppend, NotEnoughReplicasAfterAppend),
            (AppendError::CannotPromise(text()), KafkaStorageError),
            (AppendError::NotSentInTime, KafkaStorageError),
            (AppendError::NotAnsweredInTime, RequestTimedOut),
            (AppendError::Abandoned, RequestTimedOut),
        ] {
            assert_eq!(append(&error), code, "{error:?}");
            assert!(code.is_retriable(), "{error:?} passes");
        }
    }
}
