//! A storage that came back with less than the archive has: the log goes on behind the archive's end, so that no offset is given to
//! two records (docs/adr/0024).

use std::{sync::Arc, time::Duration};

use tracing::{debug, warn};

use super::{Inner, Partition};
use crate::log::{
    archive::{Cold, ColdBounds},
    config::LogConfig,
    durability::Life,
    store::{LogState, StoreError},
};

/// In which epoch, and in which life of the storage, the log was compared with the archive.
pub(super) type Compared = (i32, Life);

/// An append, or whoever takes the lead, waits this long for the archive.
const PATIENCE: Duration = Duration::from_secs(5);

impl Partition {
    /// Before an append of a topic that is archived: it must not be given offsets that the archive has.
    ///
    /// # Errors
    /// [`StoreError::NotReady`] while the storage is not known to be the one that was there before, and the archive does not tell.
    pub(super) async fn check_archived_end(self: &Arc<Self>, config: &LogConfig) -> Result<(), StoreError> {
        if config.tier.is_none() { Ok(()) } else { self.compare_with_archive().await }
    }

    /// Sees to it that the log ends where the archive does, or behind it. Asks the storage once for each epoch, and the archive only
    /// where the storage is another than when it was last asked.
    ///
    /// # Errors
    /// As [`Partition::check_archived_end`].
    pub(in crate::log) async fn compare_with_archive(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.cold_tier().is_none() || self.is_compared() {
            return Ok(());
        }
        let compared = async {
            let epoch = self.leader_epoch().await?;
            if !self.is_compared() {
                let state = self.store().load(&self.id).await?;
                self.take_state(self.behind_archive(epoch, state).await?);
            }
            Ok(())
        };
        compared.await.map_err(|error| match error {
            // Whatever became of the question, nothing of an append was sent.
            StoreError::OutcomeUnknown(text) => StoreError::NotSent(text),
            error => error,
        })
    }

    /// As [`Partition::compare_with_archive`], of a log that was just claimed. Readers need not wait for an archive that does not
    /// answer: the next append asks again.
    pub(super) async fn claimed_behind_archive(&self, epoch: i32, claimed: LogState) -> LogState {
        if claimed.cold.is_none() || self.cold_tier().is_none() {
            return claimed;
        }
        let compared = self.behind_archive(epoch, claimed.clone()).await;
        compared.unwrap_or_else(|error| {
            debug!(partition = %self.id, %error, "the log is not compared with the archive yet");
            claimed
        })
    }

    async fn behind_archive(&self, epoch: i32, state: LogState) -> Result<LogState, StoreError> {
        let Some(tier) = self.cold_tier() else { return Ok(state) };
        let life = self.durability().life(&self.id);
        if tier.notes.is_compared(&self.id, &life).await? {
            self.inner.lock().compared = Some((epoch, life));
            return Ok(state);
        }
        let unknown = |text: String| {
            StoreError::NotReady(format!("Redis was started again, and where the archive ends is not known: {text}"))
        };
        let asked = tokio::time::timeout(PATIENCE, tier.archive.bounds(&self.id)).await;
        let found = asked.map_err(|_| unknown("it does not answer".to_owned()))?;
        let found = found.map_err(|error| unknown(error.to_string()))?;
        let noted = state.cold.map(|cold| cold.bounds);
        let nothing = ColdBounds { start_offset: 0, end_offset: 0, max_timestamp: -1, size_bytes: 0 };
        let start_offset = noted.map_or(0, |noted| noted.start_offset);
        let bounds =
            found.map_or(nothing, |found| ColdBounds { start_offset: start_offset.max(found.start_offset), ..found });
        let cold = Cold { bounds, holds_back: state.cold.is_none_or(|cold| cold.holds_back) };
        let after = tier.notes.follow_archive(&self.id, cold, epoch, &life).await?;
        if bounds.end_offset > state.next_offset {
            warn!(
                partition = %self.id, redis = state.next_offset, archive = bounds.end_offset,
                "Redis came back without records that are archived: the log goes on behind them"
            );
        }
        self.inner.lock().compared = Some((epoch, life));
        Ok(after)
    }

    fn is_compared(&self) -> bool {
        let life = self.durability().life(&self.id);
        let inner = self.inner.lock();
        inner.compared.as_ref().is_some_and(|(epoch, at)| inner.claimed == Some(*epoch) && *at == life)
    }
}

impl Inner {
    /// What is archived is not lost with the storage.
    pub(super) fn learn_archived(&mut self) {
        if let (Some(known), Some(state)) = (&mut self.known, &self.state) {
            let archived = state.cold.map_or(0, |cold| cold.bounds.end_offset);
            known.archived = known.archived.max(archived);
        }
    }
}
