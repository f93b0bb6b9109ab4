/// Why a group does not do what it is asked.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GroupError {
    #[error("the group's id is empty")]
    InvalidGroupId,
    #[error("the group does not exist")]
    GroupNotFound,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("the session timeout is outside the allowed range")]
    InvalidSessionTimeout,
    #[error("the group has as many members as it may have")]
    GroupFull,
    #[error("the member must join again with the id it was given (KIP-394)")]
    MemberIdRequired,
    #[error("the group has no such member")]
    UnknownMember,
    #[error("another member has taken over this static member's place")]
    FencedInstance,
    #[error("the generation is not the group's")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the protocol type or the protocols do not fit the group's")]
    InconsistentProtocol,
    #[error("the group is subscribed to the topic")]
    SubscribedToTopic,
    #[error("the offset's metadata is too long")]
    OffsetMetadataTooLarge,
}
