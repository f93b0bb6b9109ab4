//! Incremental fetch sessions (KIP-227): what a client fetches is remembered, so that requests and answers name only
//! what changed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use rand::Rng;

use crate::model::{TopicId, TopicName};

/// A session that was not used for this long may make room for another; one that is older than this makes room for a
/// larger one (Kafka's fixed two minutes).
const EVICTION_MS: i64 = 120_000;

/// The epoch of a request that starts a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that wants no session, and ends the one it names.
const FINAL_EPOCH: i32 = -1;
/// The id of no session.
pub const NO_SESSION: i32 = 0;

/// A topic as the requests of a session name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionTopic {
    /// Before Fetch v13.
    Name(TopicName),
    /// From Fetch v13 on.
    Id(TopicId),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionPartition {
    pub topic: SessionTopic,
    pub index: i32,
}

/// What a request asks of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRequest {
    pub fetch_offset: i64,
    pub max_bytes: i32,
    pub current_leader_epoch: Option<i32>,
    pub last_fetched_epoch: Option<i32>,
    /// The session had an answer of the topic before; set by the session.
    pub topic_known: bool,
}

/// What a session must know of a partition's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionAnswer {
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub has_records: bool,
    pub failed: bool,
    pub diverged: bool,
    /// There is, or was, such a topic.
    pub topic_known: bool,
}

/// A request as far as sessions are concerned.
#[derive(Clone, Debug)]
pub struct SessionRequest {
    pub session_id: i32,
    pub epoch: i32,
    pub uses_topic_ids: bool,
    pub partitions: Vec<(SessionPartition, PartitionRequest)>,
    pub forgotten: Vec<SessionPartition>,
}

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SessionError {
    #[error("there is no such fetch session")]
    NotFound,
    #[error("the epoch of the fetch session is another")]
    InvalidEpoch,
    #[error("the fetch session names topics the other way, by name or by id")]
    TopicIds,
}

/// A request that passed, with all the partitions to fetch, in the order to fetch them.
#[derive(Debug)]
pub struct Begun {
    pub partitions: Vec<(SessionPartition, PartitionRequest)>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sessionless,
    Full { uses_topic_ids: bool },
    Incremental { session: Arc<Mutex<Session>>, epoch: i32 },
}

/// Which answers are sent, and under which session.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    pub session_id: i32,
    /// For each answer whether it is sent.
    pub sent: Vec<bool>,
}

/// Bounds of all sessions together.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `max.incremental.fetch.session.cache.slots`.
    pub slots: usize,
    /// Partitions that all sessions together may remember; a client that finds no room fetches without a session.
    pub partitions: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { slots: 1000, partitions: 200_000 }
    }
}

/// The sessions of this broker.
#[derive(Debug)]
pub struct Sessions {
    options: Options,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    sessions: HashMap<i32, Slot>,
    partitions: usize,
}

#[derive(Debug)]
struct Slot {
    created_ms: i64,
    used_ms: i64,
    size: usize,
    session: Arc<Mutex<Session>>,
}

#[derive(Debug)]
struct Session {
    id: i32,
    /// The epoch that the next request must have.
    epoch: i32,
    uses_topic_ids: bool,
    /// By the order in which they are fetched next.
    partitions: BTreeMap<u64, Cached>,
    places: HashMap<SessionPartition, u64>,
    next_place: u64,
}

#[derive(Debug)]
struct Cached {
    partition: SessionPartition,
    request: PartitionRequest,
    high_watermark: i64,
    log_start_offset: i64,
}

fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        ..0 => FINAL_EPOCH,
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

impl Sessions {
    pub fn new(options: Options) -> Self {
        Self { options, cache: Mutex::default() }
    }

    /// Merges a request into its session.
    pub fn begin(&self, request: SessionRequest, now_ms: i64) -> Result<Begun, SessionError> {
        let SessionRequest { session_id, epoch, uses_topic_ids, partitions, forgotten } = request;
        let mut cache = self.cache.lock();
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            cache.remove(session_id);
            let kind = if epoch == FINAL_EPOCH { Kind::Sessionless } else { Kind::Full { uses_topic_ids } };
            return Ok(Begun { partitions: without_repetitions(partitions), kind });
        }
        let slot = cache.sessions.get(&session_id).ok_or(SessionError::NotFound)?;
        let shared = slot.session.clone();
        let mut session = shared.lock();
        if session.epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if session.uses_topic_ids != uses_topic_ids {
            return Err(SessionError::TopicIds);
        }
        for (partition, request) in &partitions {
            session.merge(partition.clone(), *request);
        }
        for partition in &forgotten {
            session.forget(partition);
        }
        let size = session.partitions.len();
        if size == 0 {
            cache.remove(session_id);
            return Ok(Begun { partitions: without_repetitions(partitions), kind: Kind::Sessionless });
        }
        if !cache.touch(session_id, size, now_ms, self.options.partitions) {
            cache.remove(session_id);
            return Err(SessionError::NotFound);
        }
        session.epoch = next_epoch(epoch);
        let partitions = session.partitions.values().map(|cached| (cached.partition.clone(), cached.request)).collect();
        drop(session);
        Ok(Begun { partitions, kind: Kind::Incremental { session: shared, epoch: next_epoch(epoch) } })
    }

    /// Decides which answers are sent, and remembers them. `answers` may be in any order, but each of the partitions
    /// of `begun` has one.
    pub fn finish(
        &self,
        begun: &Begun,
        answers: &[(SessionPartition, PartitionAnswer)],
        now_ms: i64,
    ) -> Result<Finished, SessionError> {
        match &begun.kind {
            Kind::Sessionless => Ok(Finished { session_id: NO_SESSION, sent: vec![true; answers.len()] }),
            Kind::Full { uses_topic_ids } => {
                let session_id = self.create(begun, answers, *uses_topic_ids, now_ms);
                Ok(Finished { session_id, sent: vec![true; answers.len()] })
            }
            Kind::Incremental { session, epoch } => {
                let mut session = session.lock();
                if session.epoch != *epoch {
                    return Err(SessionError::InvalidEpoch);
                }
                let sent = answers.iter().map(|(partition, answer)| session.answer(partition, answer)).collect();
                Ok(Finished { session_id: session.id, sent })
            }
        }
    }

    /// The id of a new session, or [`NO_SESSION`] when there is no room.
    fn create(
        &self,
        begun: &Begun,
        answers: &[(SessionPartition, PartitionAnswer)],
        uses_topic_ids: bool,
        now_ms: i64,
    ) -> i32 {
        let size = begun.partitions.len();
        let mut cache = self.cache.lock();
        if cache.sessions.len() >= self.options.slots && !cache.evict(size, now_ms) {
            return NO_SESSION;
        }
        if cache.partitions + size > self.options.partitions {
            return NO_SESSION;
        }
        let id = loop {
            let id = rand::rng().random_range(1..i32::MAX);
            if !cache.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            id,
            epoch: next_epoch(INITIAL_EPOCH),
            uses_topic_ids,
            partitions: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        };
        let requests: HashMap<_, _> =
            begun.partitions.iter().map(|(partition, request)| (partition, *request)).collect();
        for (partition, answer) in answers {
            if let Some(request) = requests.get(partition) {
                session.merge(partition.clone(), *request);
                session.remember(partition, answer);
            }
        }
        cache.partitions += size;
        let session = Arc::new(Mutex::new(session));
        cache.sessions.insert(id, Slot { created_ms: now_ms, used_ms: now_ms, size, session });
        id
    }

    /// Sessions, and the partitions that all of them remember.
    pub fn counts(&self) -> (usize, usize) {
        let cache = self.cache.lock();
        (cache.sessions.len(), cache.partitions)
    }
}

/// A partition named twice is fetched once, as the last mention says, at the place of the first.
fn without_repetitions(
    partitions: Vec<(SessionPartition, PartitionRequest)>,
) -> Vec<(SessionPartition, PartitionRequest)> {
    let mut places = HashMap::new();
    let mut kept: Vec<(SessionPartition, PartitionRequest)> = Vec::with_capacity(partitions.len());
    for (partition, request) in partitions {
        match places.get(&partition).and_then(|place: &usize| kept.get_mut(*place)) {
            Some(earlier) => earlier.1 = request,
            None => {
                places.insert(partition.clone(), kept.len());
                kept.push((partition, request));
            }
        }
    }
    kept
}

impl Cache {
    fn remove(&mut self, session_id: i32) {
        if let Some(slot) = self.sessions.remove(&session_id) {
            self.partitions -= slot.size;
        }
    }

    /// False when the session has grown beyond what all may have.
    fn touch(&mut self, session_id: i32, size: usize, now_ms: i64, limit: usize) -> bool {
        let Some(slot) = self.sessions.get_mut(&session_id) else { return false };
        self.partitions = self.partitions - slot.size + size;
        let grown = size > slot.size;
        slot.size = size;
        slot.used_ms = now_ms;
        !grown || self.partitions <= limit
    }

    /// Makes room for a session of `size` partitions: an unused one goes, or else the smallest of the old ones if it is
    /// smaller than that.
    fn evict(&mut self, size: usize, now_ms: i64) -> bool {
        let Some((&oldest, slot)) = self.sessions.iter().min_by_key(|(id, slot)| (slot.used_ms, **id)) else {
            return false;
        };
        if now_ms - slot.used_ms > EVICTION_MS {
            self.remove(oldest);
            return true;
        }
        let old = self.sessions.iter().filter(|(_, slot)| slot.used_ms - slot.created_ms > EVICTION_MS);
        match old.map(|(id, slot)| (slot.size, *id)).min() {
            Some((smallest, id)) if smallest < size => {
                self.remove(id);
                true
            }
            _ => false,
        }
    }
}

impl Session {
    fn merge(&mut self, partition: SessionPartition, request: PartitionRequest) {
        if let Some(cached) = self.places.get(&partition).and_then(|place| self.partitions.get_mut(place)) {
            cached.request = PartitionRequest { topic_known: cached.request.topic_known, ..request };
            return;
        }
        let place = self.new_place();
        self.places.insert(partition.clone(), place);
        self.partitions.insert(place, Cached { partition, request, high_watermark: -1, log_start_offset: -1 });
    }

    fn new_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    fn forget(&mut self, partition: &SessionPartition) {
        if let Some(place) = self.places.remove(partition) {
            self.partitions.remove(&place);
        }
    }

    fn remember(&mut self, partition: &SessionPartition, answer: &PartitionAnswer) {
        if let Some(cached) = self.places.get(partition).and_then(|place| self.partitions.get_mut(place)) {
            cached.high_watermark = answer.high_watermark;
            cached.log_start_offset = answer.log_start_offset;
            cached.request.topic_known = answer.topic_known;
        }
    }

    /// Whether the answer tells the client anything new. A partition that gave records goes to the end of the line.
    fn answer(&mut self, partition: &SessionPartition, answer: &PartitionAnswer) -> bool {
        let Some(&place) = self.places.get(partition) else { return true };
        let Some(cached) = self.partitions.get_mut(&place) else { return true };
        let news = answer.has_records
            || answer.failed
            || answer.diverged
            || cached.high_watermark != answer.high_watermark
            || cached.log_start_offset != answer.log_start_offset;
        // After an error the partition is sent again when the error is gone.
        cached.high_watermark = if answer.failed { -1 } else { answer.high_watermark };
        cached.log_start_offset = answer.log_start_offset;
        cached.request.topic_known |= answer.topic_known;
        if answer.has_records
            && let Some(cached) = self.partitions.remove(&place)
        {
            let place = self.new_place();
            self.places.insert(cached.partition.clone(), place);
            self.partitions.insert(place, cached);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(index: i32) -> SessionPartition {
        SessionPartition { topic: SessionTopic::Name(TopicName::new("t")), index }
    }

    fn at(fetch_offset: i64) -> PartitionRequest {
        PartitionRequest {
            fetch_offset,
            max_bytes: 1000,
            current_leader_epoch: None,
            last_fetched_epoch: None,
            topic_known: false,
        }
    }

    fn answer(high_watermark: i64, has_records: bool) -> PartitionAnswer {
        PartitionAnswer {
            high_watermark,
            log_start_offset: 0,
            has_records,
            failed: false,
            diverged: false,
            topic_known: false,
        }
    }

    fn request(session_id: i32, epoch: i32, indexes: &[i32]) -> SessionRequest {
        SessionRequest {
            session_id,
            epoch,
            uses_topic_ids: false,
            partitions: indexes.iter().map(|index| (partition(*index), at(0))).collect(),
            forgotten: Vec::new(),
        }
    }

    fn answer_all(sessions: &Sessions, begun: &Begun, answer: PartitionAnswer, now_ms: i64) -> Finished {
        let answers: Vec<_> = begun.partitions.iter().map(|(partition, _)| (partition.clone(), answer)).collect();
        sessions.finish(begun, &answers, now_ms).expect("the epoch is right")
    }

    fn started(sessions: &Sessions, indexes: &[i32], now_ms: i64) -> i32 {
        let begun = sessions.begin(request(0, 0, indexes), now_ms).expect("a full fetch");
        answer_all(sessions, &begun, answer(0, false), now_ms).session_id
    }

    fn indexes(begun: &Begun) -> Vec<i32> {
        begun.partitions.iter().map(|(partition, _)| partition.index).collect()
    }

    #[test]
    fn an_incremental_fetch_covers_all_partitions_and_answers_only_what_changed() {
        let sessions = Sessions::new(Options::default());
        let id = started(&sessions, &[0, 1, 2], 0);
        assert!(id > 0);
        let begun = sessions.begin(request(id, 1, &[]), 1).expect("the session is there");
        assert_eq!(indexes(&begun), [0, 1, 2]);
        let answers = [
            (partition(0), answer(0, false)),
            (partition(1), answer(5, true)),
            (partition(2), PartitionAnswer { log_start_offset: 3, ..answer(0, false) }),
        ];
        let finished = sessions.finish(&begun, &answers, 1).expect("the epoch is right");
        assert_eq!(finished, Finished { session_id: id, sent: vec![false, true, true] });
    }

    #[test]
    fn a_partition_that_gave_records_goes_to_the_end() {
        let sessions = Sessions::new(Options::default());
        let id = started(&sessions, &[0, 1, 2], 0);
        let begun = sessions.begin(request(id, 1, &[]), 1).expect("the session is there");
        let answers =
            [(partition(0), answer(5, true)), (partition(1), answer(5, false)), (partition(2), answer(0, false))];
        sessions.finish(&begun, &answers, 1).expect("the epoch is right");
        let begun = sessions.begin(request(id, 2, &[]), 1).expect("the session is there");
        assert_eq!(indexes(&begun), [1, 2, 0]);
    }

    #[test]
    fn a_partition_is_sent_again_when_its_error_is_gone() {
        let sessions = Sessions::new(Options::default());
        let id = started(&sessions, &[0], 0);
        let failed = PartitionAnswer { failed: true, high_watermark: -1, log_start_offset: 0, ..answer(0, false) };
        for (epoch, answer, sent) in
            [(1, failed, true), (2, answer(0, false), true), (3, answer(0, false), false), (4, failed, true)]
        {
            let begun = sessions.begin(request(id, epoch, &[]), 1).expect("the session is there");
            assert_eq!(answer_all(&sessions, &begun, answer, 1).sent, [sent], "epoch {epoch}");
        }
    }

    #[test]
    fn partitions_are_added_updated_and_forgotten() {
        let sessions = Sessions::new(Options::default());
        let id = started(&sessions, &[0, 1], 0);
        let mut change = request(id, 1, &[2]);
        change.partitions.push((partition(1), at(77)));
        change.forgotten.push(partition(0));
        let begun = sessions.begin(change, 1).expect("the session is there");
        assert_eq!(begun.partitions, [(partition(1), at(77)), (partition(2), at(0))]);
        assert_eq!(sessions.counts(), (1, 2));
    }

    #[test]
    fn wrong_ids_epochs_and_kinds_of_topic_are_refused() {
        let sessions = Sessions::new(Options::default());
        let id = started(&sessions, &[0], 0);
        let other = if id == 1 { 2 } else { 1 };
        assert_eq!(sessions.begin(request(other, 1, &[]), 0).expect_err("no such id"), SessionError::NotFound);
        assert_eq!(sessions.begin(request(id, 2, &[]), 0).expect_err("epoch"), SessionError::InvalidEpoch);
        let by_id = SessionRequest { uses_topic_ids: true, ..request(id, 1, &[]) };
        assert_eq!(sessions.begin(by_id, 0).expect_err("topic ids"), SessionError::TopicIds);
    }

    #[test]
    fn a_repeated_request_does_not_answer_under_an_epoch_that_passed() {
        let sessions = Sessions::new(Options::default());
        let id = started(&sessions, &[0], 0);
        let first = sessions.begin(request(id, 1, &[]), 0).expect("epoch 1");
        sessions.begin(request(id, 2, &[]), 0).expect("epoch 2");
        let answers = [(partition(0), answer(0, false))];
        assert_eq!(sessions.finish(&first, &answers, 0), Err(SessionError::InvalidEpoch));
    }

    #[test]
    fn the_final_epoch_and_an_emptied_session_end_it() {
        let sessions = Sessions::new(Options::default());
        let id = started(&sessions, &[0], 0);
        let begun = sessions.begin(request(id, FINAL_EPOCH, &[0]), 0).expect("a full fetch");
        assert_eq!(answer_all(&sessions, &begun, answer(0, false), 0).session_id, NO_SESSION);
        assert_eq!(sessions.counts(), (0, 0));
        let id = started(&sessions, &[0], 0);
        let mut emptied = request(id, 1, &[]);
        emptied.forgotten.push(partition(0));
        let begun = sessions.begin(emptied, 0).expect("the session is there");
        assert_eq!(answer_all(&sessions, &begun, answer(0, false), 0).session_id, NO_SESSION);
        assert_eq!(sessions.counts(), (0, 0));
    }

    #[test]
    fn room_is_made_by_the_unused_and_by_the_old_and_smaller() {
        let sessions = Sessions::new(Options { slots: 2, ..Options::default() });
        let small = started(&sessions, &[0], 0);
        let large = started(&sessions, &[0, 1, 2], 0);
        assert_eq!(started(&sessions, &[0, 1], EVICTION_MS), NO_SESSION, "both are young and used");
        for id in [small, large] {
            let begun = sessions.begin(request(id, 1, &[]), EVICTION_MS + 1).expect("the session is there");
            answer_all(&sessions, &begun, answer(0, false), EVICTION_MS + 1);
        }
        assert_eq!(started(&sessions, &[0], EVICTION_MS + 2), NO_SESSION, "not larger than the smallest");
        assert_ne!(started(&sessions, &[0, 1], EVICTION_MS + 2), NO_SESSION);
        assert_eq!(sessions.begin(request(small, 2, &[]), 0).expect_err("gone"), SessionError::NotFound);
        assert_ne!(started(&sessions, &[0], 3 * EVICTION_MS), NO_SESSION, "the others are unused by now");
    }

    #[test]
    fn all_sessions_together_remember_only_so_many_partitions() {
        let sessions = Sessions::new(Options { slots: 10, partitions: 3 });
        let id = started(&sessions, &[0, 1], 0);
        assert_eq!(started(&sessions, &[0, 1], 0), NO_SESSION);
        assert_eq!(sessions.begin(request(id, 1, &[2, 3]), 0).expect_err("too many"), SessionError::NotFound);
        assert_eq!(sessions.counts(), (0, 0));
    }
}
