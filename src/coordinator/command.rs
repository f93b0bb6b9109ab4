use tokio::sync::oneshot;

use super::CoordinatorError;
use crate::{
    groups::{
        CommitRequest, CommittedOffset, GroupError, Overview, TopicPartition,
        classic::{Description, JoinAnswer, JoinRequest, LeaveRequest, SyncAnswer, SyncRequest},
    },
    model::{GroupInstanceId, MemberId, TopicId, TopicName},
};

pub(super) type Reply<T> = oneshot::Sender<Result<T, CoordinatorError>>;

pub(super) fn give<T>(reply: oneshot::Sender<T>, answer: T) {
    // Who no longer waits for the answer does not miss it.
    let _ = reply.send(answer);
}

/// One result for each item of the request, in order.
pub type Results = Vec<Result<(), GroupError>>;

/// The offsets that a fetch found.
pub type Fetched = Vec<(TopicPartition, Option<CommittedOffset>)>;

/// A member shows life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub member_id: MemberId,
    pub instance_id: Option<GroupInstanceId>,
    pub generation: i32,
}

/// Which offsets to look up.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// `None`: all that the group has.
    pub partitions: Option<Vec<TopicPartition>>,
    /// Wait for commits that are on their way to the storage.
    pub stable: bool,
}

/// What a group's task is asked to do.
pub(super) enum Command {
    Join(Box<JoinRequest>, Reply<JoinAnswer>),
    Sync(Box<SyncRequest>, Reply<SyncAnswer>),
    Heartbeat(Box<Heartbeat>, Reply<()>),
    Leave(LeaveRequest, Reply<Results>),
    Commit(Box<CommitRequest>, Reply<Results>),
    Fetch(Fetch, Reply<Fetched>),
    DeleteOffsets(Vec<(TopicName, TopicPartition)>, Reply<Results>),
    Describe(Reply<Option<Description>>),
    Overview(Reply<Option<Overview>>),
    Delete(Reply<()>),
    TopicDeleted(TopicId, Reply<()>),
    Expire(Reply<()>),
    /// Another broker may coordinate the group now, or may have since it was loaded.
    Reconsider,
    /// The storage may have lost what is known of the group.
    LoadAgain,
}

/// A command on its way to the group's task.
pub(super) struct Asked {
    pub(super) command: Command,
    /// The epoch that this broker coordinated the group with. The command is not carried out under another: its client went on
    /// elsewhere meanwhile, and a commit would take newer ones back.
    pub(super) under: Option<i32>,
}

impl Command {
    pub(super) fn under(self, epoch: Option<i32>) -> Asked {
        Asked { command: self, under: epoch }
    }

    /// Whether it must wait until nothing of the group is on its way to the storage. What only reads, renews a session or
    /// adds to the next write need not.
    pub(super) fn needs_rest(&self) -> bool {
        match self {
            Command::Heartbeat(..) | Command::Commit(..) | Command::Describe(_) | Command::Overview(_) => false,
            Command::Fetch(fetch, _) => fetch.stable,
            Command::Join(..)
            | Command::Sync(..)
            | Command::Leave(..)
            | Command::DeleteOffsets(..)
            | Command::Delete(_)
            | Command::TopicDeleted(..)
            | Command::Expire(_)
            | Command::Reconsider
            | Command::LoadAgain => true,
        }
    }

    pub(super) fn refuse(self, error: CoordinatorError) {
        match self {
            Command::Join(_, reply) => give(reply, Err(error)),
            Command::Sync(_, reply) => give(reply, Err(error)),
            Command::Heartbeat(_, reply) => give(reply, Err(error)),
            Command::Leave(_, reply) | Command::Commit(_, reply) | Command::DeleteOffsets(_, reply) => {
                give(reply, Err(error));
            }
            Command::Fetch(_, reply) => give(reply, Err(error)),
            Command::Describe(reply) => give(reply, Err(error)),
            Command::Overview(reply) => give(reply, Err(error)),
            Command::Delete(reply) | Command::TopicDeleted(_, reply) | Command::Expire(reply) => {
                give(reply, Err(error));
            }
            Command::Reconsider | Command::LoadAgain => {}
        }
    }
}
