//! A copy of a partition's next records into its table.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::{
    actions::Action,
    snapshot::{Snapshot, bounds_actions},
    table::{RECENT, Table, WRITE},
    writing::{Encoder, Uploads, WriteError, remove_files},
};
use crate::log::{
    archive::{ArchiveError, ColdBounds, ColdCopy},
    store::StoredBatch,
};

/// Upkeep takes a file that no version names for abandoned after [`super::upkeep::ABANDONED`]: a copy must be done well before.
pub(super) const LONGEST_COPY: Duration = Duration::from_secs(6 * 3_600);

pub(super) struct Copy {
    table: Arc<Table>,
    partition: i32,
    /// Where the archive must end for this copy to follow; `None` while nothing of the partition is there.
    follows: Option<i64>,
    start: i64,
    begun: Instant,
    /// `None` once something failed: the copy is of no use then.
    work: Option<(Encoder, Uploads)>,
}

impl Copy {
    pub(super) async fn begin(uploads: Uploads, from: i64, zstd_level: i32) -> Result<Self, ArchiveError> {
        let (table, partition) = (uploads.table().clone(), uploads.partition());
        let snapshot = table.snapshot(RECENT).await?;
        let follows = end_of(&snapshot, partition);
        if let Some(end_offset) = follows.filter(|end| *end != from) {
            return Err(ArchiveError::Overtaken { end_offset });
        }
        let work = Some((Encoder::new(zstd_level, from), uploads));
        Ok(Self { table, partition, follows, start: from, begun: Instant::now(), work })
    }

    /// Encodes, then uploads.
    async fn run(
        &mut self,
        encode: impl FnOnce(&mut Encoder) -> Result<(), WriteError> + Send + 'static,
    ) -> Result<(), ArchiveError> {
        let failed = || ArchiveError::Unavailable("an earlier step of this copy failed".to_owned());
        let (encoder, mut uploads) = self.work.take().ok_or_else(failed)?;
        let done = async {
            let mut encoder = encoder.in_background(encode).await?;
            uploads.take(&mut encoder).await?;
            Ok(encoder)
        };
        match done.await {
            Ok(encoder) => {
                self.work = Some((encoder, uploads));
                Ok(())
            }
            Err(error) => {
                uploads.discard().await;
                Err(error)
            }
        }
    }
}

fn end_of(snapshot: &Snapshot, partition: i32) -> Option<i64> {
    snapshot.partition(partition).map(|partition| partition.end)
}

#[async_trait]
impl ColdCopy for Copy {
    async fn write(&mut self, batches: &[StoredBatch]) -> Result<(), ArchiveError> {
        // Where nothing is there yet the copy begins with a whole batch, which may begin below what was asked for.
        if let (None, Some(first), Some((encoder, _))) = (self.follows, batches.first(), &mut self.work)
            && encoder.next_offset() == self.start
            && first.base_offset < self.start
        {
            self.start = first.base_offset;
            encoder.begin_at(self.start);
        }
        let batches = batches.to_vec();
        self.run(move |encoder| batches.iter().try_for_each(|batch| encoder.push_batch(batch))).await
    }

    fn size_bytes(&self) -> u64 {
        self.work.as_ref().map_or(0, |(encoder, _)| encoder.size())
    }

    async fn commit(mut self: Box<Self>, leader_epoch: i32) -> Result<ColdBounds, ArchiveError> {
        self.run(Encoder::end_file).await?;
        let failed = || ArchiveError::Unavailable("an earlier step of this copy failed".to_owned());
        let (encoder, uploads) = self.work.take().ok_or_else(failed)?;
        let end = encoder.next_offset();
        let (partition, follows, copy_start, begun) = (self.partition, self.follows, self.start, self.begun);
        // Whoever is stopped in the middle of the commit does not know whether it happened: its files must stay.
        let files = uploads.kept();
        let mut is_decided = false;
        let decide = |snapshot: &Snapshot| {
            is_decided = false;
            let known = snapshot.partition(partition);
            if let Some(known) = known
                && (follows != Some(known.end) || known.epoch > leader_epoch)
            {
                return Err(ArchiveError::Overtaken { end_offset: known.end });
            }
            if known.is_none() && follows.is_some() {
                return Err(ArchiveError::Unavailable("the table was removed meanwhile".to_owned()));
            }
            if begun.elapsed() > LONGEST_COPY {
                return Err(ArchiveError::Unavailable("the copy took too long".to_owned()));
            }
            let start = known.map_or(copy_start, |known| known.start);
            let mut actions = bounds_actions(partition, start, end, leader_epoch);
            actions.extend(files.iter().map(|file| Action::add(file.add(true))));
            is_decided = true;
            Ok(Some(actions))
        };
        match self.table.commit(WRITE, decide).await {
            Ok(snapshot) => Ok(snapshot.partition(partition).map(|known| known.bounds()).unwrap_or_default()),
            Err(error) => {
                // Nor does whoever had no answer.
                if !is_decided {
                    remove_files(&self.table, &files).await;
                }
                Err(error)
            }
        }
    }
}
