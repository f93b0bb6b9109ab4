//! Which partitions can't be archived now: told for each when it begins and when it is over.

use std::collections::HashSet;

use parking_lot::Mutex;
use tracing::{debug, error, info};

use super::JobError;
use crate::model::PartitionId;

/// So many are named in a round: an archive that can't be reached is one cause for all partitions.
const MOST_NAMED: usize = 8;

#[derive(Default)]
pub(super) struct Failing(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    partitions: HashSet<PartitionId>,
    begun: usize,
    ended: usize,
}

impl Failing {
    pub(super) fn contains(&self, partition: &PartitionId) -> bool {
        self.0.lock().partitions.contains(partition)
    }

    /// Whether that is news.
    pub(super) fn fails(&self, partition: &PartitionId, error: &JobError) -> bool {
        let mut inner = self.0.lock();
        if !inner.partitions.insert(partition.clone()) {
            debug!(%partition, %error, "records still can't be archived");
            return false;
        }
        inner.begun += 1;
        if inner.begun <= MOST_NAMED {
            error!(%partition, %error, "records can't be archived, so Redis keeps them; it is tried again and again");
        }
        true
    }

    pub(super) fn works(&self, partition: &PartitionId) {
        let mut inner = self.0.lock();
        if inner.partitions.remove(partition) {
            inner.ended += 1;
            if inner.ended <= MOST_NAMED {
                info!(%partition, "records are archived again");
            }
        }
    }

    /// `seen`: the partitions of the round; what this process copies no more is forgotten.
    pub(super) fn end_round(&self, seen: &HashSet<PartitionId>) {
        let mut inner = self.0.lock();
        inner.partitions.retain(|partition| seen.contains(partition));
        let (begun, ended) = (std::mem::take(&mut inner.begun), std::mem::take(&mut inner.ended));
        if let Some(more @ 1..) = begun.checked_sub(MOST_NAMED) {
            error!(more, "records of more partitions can't be archived");
        }
        if let Some(more @ 1..) = ended.checked_sub(MOST_NAMED) {
            info!(more, "records of more partitions are archived again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::archive::ArchiveError,
        model::{TopicId, TopicName},
    };

    #[test]
    fn each_partition_that_fails_is_known_by_itself_until_it_works_or_goes() {
        let id = |index| PartitionId { topic: TopicName::new("orders"), topic_id: TopicId::random(), index };
        let (stuck, other, gone) = (id(0), id(1), id(2));
        let error = JobError::Archive(ArchiveError::Unavailable("down".to_owned()));
        let failing = Failing::default();
        let seen = HashSet::from([stuck.clone(), other.clone()]);
        for partition in [&stuck, &gone] {
            failing.fails(partition, &error);
        }
        failing.end_round(&seen);
        assert!(failing.contains(&stuck) && !failing.contains(&other) && !failing.contains(&gone));
        assert!(failing.fails(&other, &error), "it is told, though another fails already");
        assert!(!failing.fails(&stuck, &error), "this was told");
        failing.works(&other);
        assert!(failing.contains(&stuck) && !failing.contains(&other));
    }
}
