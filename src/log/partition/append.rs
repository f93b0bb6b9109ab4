//! One append at a time: what waits is stored in groups, and answered when what its topic promises holds.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use tracing::debug;

use super::{Answer, Partition, passed_over::Sent};
use crate::{
    log::{
        AppendError, AppendedAt,
        config::LogConfig,
        durability::{Life, Promise, Reply},
        queue::Entry,
        store::{Append, AppendOutcome, AppendRefusal, StoreError, StoredBatch},
    },
    protocol::records::{BatchHeader, ValidatedBatch},
};

/// A batch on its way into the log.
pub struct Pending {
    partition: Arc<Partition>,
    ticket: u64,
    sent: Option<Sent>,
    reply: oneshot::Receiver<Result<AppendedAt, AppendError>>,
}

impl Pending {
    /// Where the batch landed. Dropping this does not take the batch back.
    pub async fn outcome(mut self, deadline: Instant) -> Result<AppendedAt, AppendError> {
        match tokio::time::timeout_at(deadline, &mut self.reply).await {
            Ok(reply) => reply.unwrap_or(Err(AppendError::Abandoned)),
            Err(_) => {
                let mut inner = self.partition.inner.lock();
                inner.passed_over.note(self.sent);
                let waiting = inner.queue.withdraw(self.ticket);
                Err(if waiting.is_some() { AppendError::NotSentInTime } else { AppendError::NotAnsweredInTime })
            }
        }
    }
}

impl Partition {
    /// Puts a batch behind those that wait; batches land in the order of these calls. `held` is the batch's memory.
    pub fn append(
        self: &Arc<Self>,
        batch: ValidatedBatch,
        config: Arc<LogConfig>,
        answer: Answer,
        held: OwnedSemaphorePermit,
    ) -> Pending {
        let (sender, reply) = oneshot::channel();
        let sent = Sent::of(batch.header());
        let mut inner = self.inner.lock();
        let ticket = inner.queue.push(batch, config, held, sender, answer);
        if inner.deleted {
            if let Some(entry) = inner.queue.withdraw(ticket) {
                let _ = entry.reply.send(Err(AppendError::Store(StoreError::NoSuchPartition)));
            }
        } else if !inner.appending {
            inner.appending = true;
            let partition = self.clone();
            self.shared.tasks.spawn("append", async move { partition.append_all().await });
        }
        drop(inner);
        Pending { partition: self.clone(), ticket, sent, reply }
    }

    /// A batch was refused, for a reason that passes, before it was put in the line.
    pub fn pass_over(&self, header: &BatchHeader) {
        self.inner.lock().passed_over.note(Sent::of(header));
    }

    /// Appends group after group until nothing waits.
    async fn append_all(self: Arc<Self>) {
        let turn = Turn(&self);
        loop {
            let group = {
                let mut inner = self.inner.lock();
                let group = inner.queue.take_group(&self.shared.options.group);
                if group.is_empty() {
                    inner.appending = false;
                    std::mem::forget(turn);
                    return;
                }
                group
            };
            self.append_group(group).await;
        }
    }

    async fn append_group(self: &Arc<Self>, group: Vec<Entry>) {
        let Some(config) = group.first().map(|entry| entry.config.clone()) else { return };
        let (batches, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|entry| (entry.batch, (entry.reply, entry.answer, entry.held))).unzip();
        let timestamps: Vec<i64> = batches.iter().map(ValidatedBatch::max_timestamp).collect();
        let sent: Vec<Option<Sent>> = batches.iter().map(|batch| Sent::of(batch.header())).collect();
        let pass_all_over = || {
            let mut inner = self.inner.lock();
            sent.iter().for_each(|sent| inner.passed_over.note(*sent));
        };
        let admitted = async {
            self.check_archived_end(&config).await?;
            self.check_room(&config).await
        };
        if let Err(error) = admitted.await {
            pass_all_over();
            for (reply, _, _held) in replies {
                let _ = reply.send(Err(AppendError::Store(error.clone())));
            }
            return;
        }
        // Asked for before the append: what another storage answers instead must not count as safe.
        let life = self.waited_for(config.promise);
        let behind = self.behind_passed_over(&sent);
        match self.store_group(&config, batches, behind.clone()).await {
            Ok((epoch, outcome)) => {
                let end = outcome.next_offset;
                let answers = self.take_outcome(epoch, outcome, &timestamps, (config.promise, life));
                let answers = self.told_no_worse(answers, &sent, &behind);
                for ((reply, when, _held), answer) in replies.into_iter().zip(answers) {
                    match answer {
                        Ok(at) if when == Answer::WhenPromised => {
                            self.answer_when_promised(config.promise, end, at, reply);
                        }
                        answer => drop(reply.send(answer)),
                    }
                }
            }
            Err(error) => {
                debug!(partition = %self.id, %error, batches = replies.len(), "an append failed");
                self.doubt_everything();
                pass_all_over();
                for (reply, _, _held) in replies {
                    let _ = reply.send(Err(AppendError::Store(error.clone())));
                }
            }
        }
    }

    fn behind_passed_over(&self, sent: &[Option<Sent>]) -> HashSet<usize> {
        let inner = self.inner.lock();
        sent.iter().enumerate().filter(|(_, sent)| inner.passed_over.explains(**sent)).map(|(place, _)| place).collect()
    }

    /// What is out of order only since a batch before it was not taken may come again, behind that one.
    fn told_no_worse(
        &self,
        mut answers: Vec<Result<AppendedAt, AppendError>>,
        sent: &[Option<Sent>],
        behind: &HashSet<usize>,
    ) -> Vec<Result<AppendedAt, AppendError>> {
        let mut inner = self.inner.lock();
        for (place, (answer, sent)) in answers.iter_mut().zip(sent).enumerate() {
            match answer {
                Ok(_) => inner.passed_over.forget(*sent),
                Err(AppendError::Refused { refusal: AppendRefusal::OutOfOrderSequence, .. })
                    if behind.contains(&place) || inner.passed_over.explains(*sent) =>
                {
                    *answer = Err(AppendError::NotSentInTime);
                }
                Err(_) => {}
            }
        }
        answers
    }

    /// Answers when the high watermark has reached `end`.
    fn answer_when_promised(&self, promise: Promise, end: i64, at: AppendedAt, reply: Reply) {
        let mut inner = self.inner.lock();
        match inner.life.clone() {
            // The lead was lost meanwhile, and nobody here hears of it when the promise holds.
            _ if inner.state.is_none() && !self.durability().holds_at_once(promise, &self.id) => {
                let _ = reply.send(Err(AppendError::Store(StoreError::FencedLeader(-1))));
            }
            Some(life) if inner.is_behind() => inner.acks.push(end, life, at, reply),
            _ => drop(reply.send(Ok(at))),
        }
    }

    /// Also the epoch that it was appended in.
    async fn store_group(
        self: &Arc<Self>,
        config: &LogConfig,
        batches: Vec<ValidatedBatch>,
        behind_passed_over: HashSet<usize>,
    ) -> Result<(i32, AppendOutcome), StoreError> {
        let now_ms = self.shared.clock.now_ms();
        let leader_epoch = self.leader_epoch().await.map_err(|error| match error {
            // Whatever became of the question, nothing of the batches was sent.
            StoreError::OutcomeUnknown(text) => StoreError::NotSent(text),
            error => error,
        })?;
        let append = Append {
            batches,
            layout: config.layout,
            timestamp_type: config.timestamp_type,
            now_ms,
            retention: config.retention(now_ms),
            leader_epoch,
            known_end: self.inner.lock().known.map_or(0, |known| known.end),
            producers_expire_before_ms: now_ms
                .saturating_sub(self.shared.options.producer_id_expiration_ms.load(Ordering::Relaxed)),
            behind_passed_over,
        };
        match self.shared.store.append(&self.id, append).await {
            Err(StoreError::FencedLeader(stored)) => Err(self.fenced(stored)),
            outcome => Ok((leader_epoch, outcome?)),
        }
    }

    /// The epoch is all that must be known for an append; the storage judges the rest.
    pub(super) async fn leader_epoch(self: &Arc<Self>) -> Result<i32, StoreError> {
        let epoch = self.leads()?;
        let is_known = {
            let inner = self.inner.lock();
            inner.claimed == Some(epoch) && inner.state.is_some() && !inner.leadership_doubted
        };
        if !is_known {
            self.load().await?;
        }
        Ok(epoch)
    }

    /// `timestamps` has the largest of each batch.
    fn take_outcome(
        self: &Arc<Self>,
        epoch: i32,
        outcome: AppendOutcome,
        timestamps: &[i64],
        (promise, life): (Promise, Option<Life>),
    ) -> Vec<Result<AppendedAt, AppendError>> {
        let log_start_offset = outcome.log_start_offset;
        let mut stored: Vec<StoredBatch> = Vec::new();
        let answers = outcome
            .batches
            .into_iter()
            .zip(timestamps)
            .map(|(batch, timestamp)| {
                let batch = batch.map_err(|refusal| AppendError::Refused { refusal, log_start_offset })?;
                stored.extend(batch.stored);
                // As Kafka: a repetition is told the time that its batch has, of whatever type.
                let untold = batch.duplicate && batch.log_append_time_ms == -1;
                Ok(AppendedAt {
                    base_offset: batch.base_offset,
                    log_append_time_ms: if untold { *timestamp } else { batch.log_append_time_ms },
                    log_start_offset,
                })
            })
            .collect();
        if !stored.is_empty() {
            let metrics = &self.shared.options.metrics;
            metrics.appended_records.inc_by(stored.iter().map(StoredBatch::count).sum());
            metrics.appended_bytes.inc_by(stored.iter().map(|batch| batch.size() as u64).sum());
        }
        let mut inner = self.inner.lock();
        if inner.claimed != Some(epoch) {
            // The lead was lost meanwhile. Where it has come back since, what was read then has this append, and more.
            return answers;
        }
        inner.appends += 1;
        inner.learn_appended(outcome.next_offset);
        if let Some(state) = &mut inner.state {
            if let Some(first) = stored.first()
                && state.epoch_starts.last().is_none_or(|(epoch, _)| *epoch < state.leader_epoch)
            {
                state.epoch_starts.push((state.leader_epoch, first.base_offset));
            }
            state.log_start_offset = outcome.log_start_offset;
            state.local_start_offset = outcome.local_start_offset;
            state.next_offset = outcome.next_offset;
            state.max_timestamp = outcome.max_timestamp;
            state.size_bytes = outcome.size_bytes;
        }
        let has_news = !stored.is_empty();
        if has_news {
            self.shared.tail.append(self.key(), stored);
        }
        self.learn_end(&mut inner, promise, life);
        if has_news && !inner.is_behind() {
            inner.waiters.wake();
        }
        answers
    }
}

/// The right to append to a partition. Where it ends otherwise than by an empty queue (a panic, the runtime's end), whoever
/// waits is answered and the next append starts afresh.
struct Turn<'a>(&'a Partition);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.appending = false;
        inner.doubts += 1;
        for entry in inner.queue.drain() {
            let _ = entry.reply.send(Err(AppendError::Abandoned));
        }
    }
}
