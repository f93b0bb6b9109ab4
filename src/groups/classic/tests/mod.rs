//! One group under hand-moved time.

mod interleavings;
mod joining;
mod rebalancing;
mod static_members;

use std::collections::{BTreeMap, HashMap};

use super::*;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;
const NEW_MEMBER_MS: i64 = 300_000;

/// What a member asks, with the usual things filled in.
struct World {
    group: ClassicGroup,
    now: Moment,
    tickets: u64,
    ids: u64,
    answers: HashMap<Ticket, Answer>,
    stored: Vec<Record>,
}

#[derive(Clone)]
struct Ask(JoinRequest);

/// A new dynamic member of a client that needs no id first.
fn ask() -> Ask {
    Ask(JoinRequest {
        member_id: MemberId::new(""),
        instance_id: None,
        fresh_id: MemberId::new(""),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range", b"r")],
        reason: None,
        member_id_required: false,
        can_skip_assignment: false,
    })
}

fn protocol(name: &str, metadata: &'static [u8]) -> Protocol {
    Protocol { name: name.to_owned(), metadata: Bytes::from_static(metadata) }
}

impl Ask {
    fn again(mut self, id: &MemberId) -> Self {
        self.0.member_id = id.clone();
        self
    }

    fn instance(mut self, id: &str) -> Self {
        self.0.instance_id = Some(GroupInstanceId::new(id));
        self
    }

    fn speaking(mut self, protocols: &[(&str, &'static [u8])]) -> Self {
        self.0.protocols = protocols.iter().map(|(name, metadata)| protocol(name, metadata)).collect();
        self
    }

    fn of_type(mut self, protocol_type: &str) -> Self {
        self.0.protocol_type = protocol_type.to_owned();
        self
    }

    fn needing_an_id(mut self) -> Self {
        self.0.member_id_required = true;
        self
    }

    fn able_to_skip(mut self) -> Self {
        self.0.can_skip_assignment = true;
        self
    }

    fn rebalance_timeout(mut self, ms: i32) -> Self {
        self.0.rebalance_timeout_ms = ms;
        self
    }
}

impl World {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self::of(ClassicGroup::new(GroupId::new("g"), Arc::new(settings)))
    }

    fn of(group: ClassicGroup) -> Self {
        Self {
            group,
            now: Moment { monotonic_ms: 1_000, wall_ms: 1_700_000_000_000 },
            tickets: 0,
            ids: 0,
            answers: HashMap::new(),
            stored: Vec::new(),
        }
    }

    /// As after a restart of the broker: what was stored last, nothing else.
    fn restored(&self) -> Self {
        let record = self.stored.last().expect("something was stored").clone();
        let settings = self.group.settings.clone();
        let mut world = Self::of(ClassicGroup::restore(GroupId::new("g"), settings, record, self.now));
        world.now = self.now;
        world.ids = 1_000;
        world
    }

    fn collect(&mut self) {
        if self.group.take_must_store() {
            self.stored.push(self.group.record());
        }
        for (ticket, answer) in self.group.take_answers() {
            assert!(self.answers.insert(ticket, answer).is_none(), "{ticket:?} was answered twice");
        }
    }

    fn join(&mut self, ask: Ask) -> Ticket {
        let mut request = ask.0;
        self.ids += 1;
        request.fresh_id = MemberId::new(&format!("m{:04}", self.ids));
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.group.handle_join(request, ticket, self.now);
        self.collect();
        ticket
    }

    fn sync(&mut self, id: &MemberId, generation: i32, assignments: &[(&MemberId, &'static [u8])]) -> Ticket {
        self.sync_as(SyncRequest {
            member_id: id.clone(),
            instance_id: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments.iter().map(|(id, bytes)| ((*id).clone(), Bytes::from_static(bytes))).collect(),
        })
    }

    fn sync_as(&mut self, request: SyncRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.group.handle_sync(request, ticket, self.now);
        self.collect();
        ticket
    }

    fn heartbeat(&mut self, id: &MemberId, generation: i32) -> Result<(), GroupError> {
        self.group.handle_heartbeat(id, None, generation, self.now)
    }

    fn leave(&mut self, ids: &[&MemberId]) -> Vec<Result<(), GroupError>> {
        let members = ids.iter().map(|id| LeavingMember { id: (*id).clone(), instance_id: None, reason: None });
        let results = self.group.handle_leave(&LeaveRequest { members: members.collect() }, self.now);
        self.collect();
        results
    }

    /// Lets time pass, waking the group whenever it wants to be.
    fn pass(&mut self, ms: i64) {
        let end = self.now.monotonic_ms + ms;
        while let Some(wake) = self.group.poll_timeout().filter(|wake| *wake <= end) {
            let step = (wake - self.now.monotonic_ms).max(0);
            self.now.monotonic_ms += step;
            self.now.wall_ms += step;
            self.group.handle_timeout(self.now);
            self.collect();
        }
        self.now.wall_ms += end - self.now.monotonic_ms;
        self.now.monotonic_ms = end;
    }

    fn waits(&self, ticket: Ticket) -> bool {
        !self.answers.contains_key(&ticket)
    }

    #[track_caller]
    fn joined(&mut self, ticket: Ticket) -> Joined {
        match self.answers.remove(&ticket) {
            Some(Answer::Join(Ok(joined))) => joined,
            other => panic!("{ticket:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, ticket: Ticket) -> (GroupError, String) {
        match self.answers.remove(&ticket) {
            Some(Answer::Join(Err(refusal))) => (refusal.error, refusal.member_id.to_string()),
            other => panic!("{ticket:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn synced(&mut self, ticket: Ticket) -> Result<Bytes, GroupError> {
        match self.answers.remove(&ticket) {
            Some(Answer::Sync(answer)) => answer.map(|synced| synced.assignment),
            other => panic!("{ticket:?}: {other:?}"),
        }
    }

    /// A stable group of these members in its first generation; the first one leads.
    fn stable(&mut self, asks: Vec<Ask>) -> Vec<MemberId> {
        let tickets: Vec<Ticket> = asks.into_iter().map(|ask| self.join(ask)).collect();
        while tickets.iter().any(|ticket| self.waits(*ticket)) {
            self.pass(500);
        }
        let joined: Vec<Joined> = tickets.into_iter().map(|ticket| self.joined(ticket)).collect();
        let ids: Vec<MemberId> = joined.iter().map(|joined| joined.member_id.clone()).collect();
        let generation = joined[0].generation;
        assert_eq!(joined[0].leader.as_ref(), Some(&ids[0]));
        let syncs: Vec<Ticket> = ids[1..].iter().map(|id| self.sync(id, generation, &[])).collect();
        let assignments: Vec<(&MemberId, &[u8])> = ids.iter().map(|id| (id, &b"assigned"[..])).collect();
        let last = self.sync(&ids[0], generation, &assignments);
        for ticket in syncs.into_iter().chain([last]) {
            assert_eq!(self.synced(ticket), Ok(Bytes::from_static(b"assigned")));
        }
        assert_eq!(self.group.state(), State::Stable);
        ids
    }
}
