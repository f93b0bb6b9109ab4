//! What is done to brokers, Redis, links and clients: a schedule that the seed decides, carried out one strike after another.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::{
    history::{Kind, Operation, Recorder},
    peers::ports_of,
    random::Random,
    servers::Servers,
    settings::{Durability, Setting},
    support::proxy::Weather,
    world::World,
};

/// One thing that is done, and undone after `length`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Quiet before it.
    pub after: Duration,
    pub what: What,
    pub length: Duration,
}

/// Nodes count from 1. Clients, masters and replicas are numbered: the strike takes the one that the number falls on among those that
/// there are. Links count from 1: to the only Redis each broker has one; else each server has one, by which all others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    KillBroker(usize),
    /// SIGTERM; it leaves in order.
    StopBroker(usize),
    PauseBroker(usize),
    /// Two of three at once.
    KillBrokers(usize, usize),
    /// So many from now on; those that leave are killed, or leave in order.
    ChangeBrokers(usize, bool),
    KillMaster(usize),
    StopMaster(usize),
    PauseMaster(usize),
    KillReplica(usize),
    PauseReplica(usize),
    FailOver(usize),
    /// To another master, with what is in it.
    MoveSlot(usize),
    FillMemory(usize),
    DropLinks(usize),
    CloseLink(usize),
    SilenceLink(usize),
    SlowLink(usize, Duration),
    TearAnswers(usize, usize),
    /// One broker from one server, which the others reach.
    CutBroker(usize, usize),
    /// From the Sentinels and its replicas; brokers reach it, and it takes their writes until they hear of another master.
    CutMaster(usize),
    /// Between clients and a broker: what was answered is not heard.
    CutClients(usize),
    TearClients(usize, usize),
    KillMember(usize),
    PauseMember(usize),
    KillProducer(usize),
}

impl fmt::Display for Strike {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::KillBroker(node) => write!(formatter, "kill -9 of broker {node}")?,
            What::StopBroker(node) => write!(formatter, "SIGTERM to broker {node}")?,
            What::PauseBroker(node) => write!(formatter, "SIGSTOP of broker {node}")?,
            What::KillBrokers(first, second) => write!(formatter, "kill -9 of two brokers ({first} {second})")?,
            What::ChangeBrokers(count, true) => write!(formatter, "kill -9, for good, of brokers but ({count})")?,
            What::ChangeBrokers(count, false) => write!(formatter, "other number of brokers ({count})")?,
            What::KillMaster(number) => write!(formatter, "kill -9 of a Redis master ({number})")?,
            What::StopMaster(number) => write!(formatter, "SIGTERM to a Redis master ({number})")?,
            What::PauseMaster(number) => write!(formatter, "SIGSTOP of a Redis master ({number})")?,
            What::KillReplica(number) => write!(formatter, "kill -9 of a Redis replica ({number})")?,
            What::PauseReplica(number) => write!(formatter, "SIGSTOP of a Redis replica ({number})")?,
            What::FailOver(number) => write!(formatter, "planned failover ({number})")?,
            What::MoveSlot(number) => write!(formatter, "move of a slot to another master ({number})")?,
            What::FillMemory(number) => {
                write!(formatter, "maxmemory of a Redis master below what it holds ({number})")?
            }
            What::DropLinks(link) => write!(formatter, "cut of every connection of Redis link {link}")?,
            What::CloseLink(link) => write!(formatter, "no connection through Redis link {link}")?,
            What::SilenceLink(link) => write!(formatter, "nothing passes Redis link {link}")?,
            What::SlowLink(link, delay) => write!(formatter, "Redis' answers late by ({delay:?}) on link {link}")?,
            What::TearAnswers(link, bytes) => {
                write!(formatter, "Redis' answers cut after ({bytes} bytes) on link {link}")?
            }
            What::CutBroker(node, link) => write!(formatter, "broker {node} does not reach Redis link {link}")?,
            What::CutMaster(number) => write!(formatter, "only brokers reach a Redis master ({number})")?,
            What::CutClients(node) => write!(formatter, "cut of every connection between clients and broker {node}")?,
            What::TearClients(node, bytes) => {
                write!(formatter, "the answers of broker {node} to clients are cut after {bytes} bytes")?;
            }
            What::KillMember(number) => write!(formatter, "kill -9 of a group member ({number})")?,
            What::PauseMember(number) => write!(formatter, "SIGSTOP of a group member ({number})")?,
            What::KillProducer(number) => write!(formatter, "kill -9 of a producer ({number})")?,
        }
        write!(formatter, " for {:?}", self.length)
    }
}

impl What {
    /// The kind of strike, as figures are grouped by: its text without the numbers.
    pub fn kind(text: &str) -> String {
        let text = text.rsplit_once(" for ").map_or(text, |(text, _)| text);
        let is_number = |word: &str| word.starts_with(|letter: char| letter.is_ascii_digit());
        let mut kind = Vec::new();
        let mut is_inside = false;
        for word in text.split(' ') {
            is_inside |= word.starts_with('(');
            if !is_inside && !is_number(word) {
                kind.push(word);
            }
            is_inside &= !word.ends_with(')');
        }
        kind.join(" ")
    }

    /// One that takes a server of Redis away from others: the one before must be over for all of them.
    fn is_on_servers(&self) -> bool {
        matches!(
            self,
            Self::KillMaster(_)
                | Self::StopMaster(_)
                | Self::PauseMaster(_)
                | Self::KillReplica(_)
                | Self::PauseReplica(_)
                | Self::FailOver(_)
                | Self::MoveSlot(_)
                | Self::FillMemory(_)
                | Self::DropLinks(_)
                | Self::CloseLink(_)
                | Self::SilenceLink(_)
                | Self::SlowLink(..)
                | Self::TearAnswers(..)
                | Self::CutMaster(_)
        )
    }
}

/// The strikes of a run of `length`. The same seed gives the same ones.
pub fn schedule(seed: u64, setting: Setting, durability: Durability, length: Duration) -> Vec<Strike> {
    let mut random = Random::new(seed);
    let mut brokers = setting.brokers();
    let mut strikes = Vec::new();
    let mut total = Duration::ZERO;
    let few = |number: u64| usize::try_from(number).expect("few");
    loop {
        let after = Duration::from_millis(random.between(1_000, 4_000));
        let node = few(random.between(1, brokers as u64 + 1));
        let link = few(random.between(1, setting.links() as u64 + 1));
        let number = few(random.between(0, 100));
        let short = Duration::from_millis(random.between(50, 1_500));
        let long = Duration::from_millis(random.between(500, 5_000));
        // Some end before anybody else takes over, some after.
        let outage = match setting {
            Setting::Single | Setting::Brokers => short,
            Setting::Sentinel => Duration::from_millis(random.between(50, 4_000)),
            Setting::Cluster => Duration::from_millis(random.between(50, 9_000)),
        };
        let pause = outage.max(long);
        let (what, length_of) = match random.between(0, 100) {
            0..12 => (What::KillBroker(node), short),
            12..17 => (What::StopBroker(node), short),
            17..26 => (What::PauseBroker(node), long),
            26..29 if brokers > 2 => (What::KillBrokers(node, node % brokers + 1), long),
            29..34 if setting.brokers() > 1 => {
                let others: Vec<usize> = (1..=Setting::MOST_BROKERS).filter(|count| *count != brokers).collect();
                brokers = others[number % others.len()];
                (What::ChangeBrokers(brokers, short > Duration::from_millis(800)), Duration::ZERO)
            }
            34..38 if setting.has_replicas() => (What::KillReplica(number), outage),
            38..40 if setting.has_replicas() => (What::PauseReplica(number), pause),
            40..44 if setting.has_replicas() => (What::FailOver(number), Duration::ZERO),
            44..50 if setting == Setting::Cluster => (What::MoveSlot(number), Duration::ZERO),
            34..50 if durability.may_lose() => (What::KillMaster(number), outage),
            34..44 => (What::KillMaster(number), outage),
            44..50 => (What::StopMaster(number), outage),
            50..54 if setting.has_replicas() => (What::KillMaster(number), outage),
            50..58 => (What::PauseMaster(number), pause),
            58..61 => (What::FillMemory(number), long),
            61..62 if setting.has_replicas() => (What::CutBroker(node, link), long),
            62..64 if setting == Setting::Sentinel => (What::CutMaster(number), outage),
            61..66 => (What::DropLinks(link), Duration::ZERO),
            66..70 => (What::CloseLink(link), long),
            70..74 => (What::SilenceLink(link), long),
            74..79 => (What::SlowLink(link, Duration::from_millis(random.between(5, 300))), long),
            79..81 => (What::CutClients(node), Duration::ZERO),
            81..83 => (What::TearClients(node, few(random.between(1, 5_000))), short),
            83..86 => (What::TearAnswers(link, few(random.between(1, 2_000))), long),
            86..91 => (What::KillMember(number), short),
            // Longer than the session timeout: the group goes on without it.
            91..95 => (What::PauseMember(number), Duration::from_secs(8)),
            95..98 => (What::KillProducer(number), short),
            _ => (What::KillMaster(number), outage),
        };
        total += after + length_of;
        if total > length {
            return strikes;
        }
        strikes.push(Strike { after, what, length: length_of });
    }
}

/// Carries the strikes out, in order, those that begin before `end`. What cannot be done is told as a problem, and the next one
/// comes; a server is not struck while others are not well.
pub fn strike(world: &mut World, strikes: &[Strike], end: Instant, recorder: &Recorder) {
    let problem = |error| recorder.record(Kind::Info, Operation::Problem { error });
    for strike in strikes {
        if Instant::now() + strike.after > end {
            break;
        }
        thread::sleep(strike.after);
        match world.start_ended() {
            Ok(ended) => ended.into_iter().for_each(|node| {
                let action = format!("broker {node} had ended and is started again");
                recorder.record(Kind::Info, Operation::Strike { action });
            }),
            Err(error) => problem(error),
        }
        if strike.what.is_on_servers() {
            match world.servers.until_well() {
                Ok(mended) => mended.into_iter().for_each(|action| {
                    recorder.record(Kind::Info, Operation::Strike { action });
                }),
                Err(error) => {
                    problem(format!("{error}, so there is no {strike}"));
                    continue;
                }
            }
        }
        let action = strike.to_string();
        recorder.record(Kind::Invoke, Operation::Strike { action: action.clone() });
        match carry_out(world, strike) {
            Ok(()) => recorder.record(Kind::Ok, Operation::Strike { action }),
            Err(error) => problem(format!("{action}: {error}")),
        }
    }
}

fn carry_out(world: &mut World, strike: &Strike) -> Result<(), String> {
    let hold = || thread::sleep(strike.length);
    let servers = &mut world.servers;
    match strike.what {
        What::KillBroker(node) => {
            world.broker(node).process.kill();
            hold();
            world.run_broker(node)?;
        }
        What::StopBroker(node) => {
            world.broker(node).process.stop()?;
            hold();
            world.run_broker(node)?;
        }
        What::KillBrokers(first, second) => {
            world.broker(first).process.kill();
            world.broker(second).process.kill();
            hold();
            world.run_broker(first)?;
            hold();
            world.run_broker(second)?;
        }
        What::PauseBroker(node) => {
            world.broker(node).process.pause();
            hold();
            world.broker(node).process.wake();
        }
        What::ChangeBrokers(count, are_killed) => world.change_brokers(count, are_killed)?,
        What::KillMaster(number) => {
            let place = servers.master(number);
            servers.kill(place);
            hold();
            servers.start_again(place);
        }
        What::KillReplica(number) => {
            let place = servers.replica(number);
            servers.kill(place);
            hold();
            servers.start_again(place);
        }
        What::StopMaster(number) => {
            let place = servers.master(number);
            servers.stop(place)?;
            hold();
            servers.start_again(place);
        }
        What::PauseMaster(number) => pause(servers, servers.master(number), hold),
        What::PauseReplica(number) => pause(servers, servers.replica(number), hold),
        What::FailOver(number) => servers.fail_over(number),
        What::MoveSlot(number) => servers.move_slot(number)?,
        What::FillMemory(number) => {
            let place = servers.master(number);
            servers.limit_memory(place, "1mb");
            hold();
            servers.limit_memory(place, "0");
        }
        What::DropLinks(link) => servers.links[link - 1].drop_all(),
        What::CloseLink(link) => {
            let link = &servers.links[link - 1];
            link.set(Weather::Closed);
            link.drop_all();
            hold();
            link.set(Weather::Clear);
        }
        What::SilenceLink(link) => with_weather(servers, link, Weather::Silent, hold),
        What::SlowLink(link, delay) => with_weather(servers, link, Weather::Slow(delay), hold),
        What::TearAnswers(link, bytes) => with_weather(servers, link, Weather::CutAnswersAfter(bytes), hold),
        What::CutBroker(node, link) => {
            let process = world.broker(node).process.id();
            let link = &world.servers.links[link - 1];
            link.refuse(Some(Box::new(move |port| process.is_some_and(|process| ports_of(process).contains(&port)))));
            hold();
            link.refuse(None);
        }
        What::CutMaster(number) => {
            let brokers: Vec<u32> = world.brokers.iter().filter_map(|broker| broker.process.id()).collect();
            let link = &world.servers.links[world.servers.master(number)];
            link.refuse(Some(Box::new(move |port| !brokers.iter().any(|broker| ports_of(*broker).contains(&port)))));
            hold();
            link.refuse(None);
        }
        What::CutClients(node) => world.broker(node).front.drop_all(),
        What::TearClients(node, bytes) => {
            let front = &world.broker(node).front;
            front.set(Weather::CutAnswersAfter(bytes));
            hold();
            front.set(Weather::Clear);
        }
        What::KillMember(number) => replace_client(world, "member", number, hold)?,
        What::KillProducer(number) => replace_client(world, "producer", number, hold)?,
        What::PauseMember(number) => {
            if let Some(place) = client_of(world, "member", number) {
                world.clients[place].process.pause();
                hold();
                world.clients[place].process.wake();
            }
        }
    }
    Ok(())
}

fn pause(servers: &Servers, place: usize, hold: impl Fn()) {
    servers.pause(place);
    hold();
    servers.wake(place);
}

fn with_weather(servers: &Servers, link: usize, weather: Weather, hold: impl Fn()) {
    let link = &servers.links[link - 1];
    link.set(weather);
    hold();
    link.set(Weather::Clear);
}

fn client_of(world: &mut World, role: &str, number: usize) -> Option<usize> {
    let of_role = |place: &usize| world.clients[*place].kind.role == role;
    let places: Vec<usize> = (0..world.clients.len()).filter(of_role).collect();
    places.get(number % places.len().max(1)).copied()
}

/// `kill -9` of a client; another one takes its place.
fn replace_client(world: &mut World, role: &str, number: usize, hold: impl Fn()) -> Result<(), String> {
    let Some(place) = client_of(world, role, number) else { return Ok(()) };
    let mut killed = world.clients.remove(place);
    killed.process.kill();
    hold();
    world.run_client(killed.kind.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_seed_another() {
        let of = |seed| schedule(seed, Setting::Brokers, Durability::Written, HOUR);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn only_with_sentinel_a_master_is_cut_from_all_but_brokers() {
        let cuts = |setting: Setting| {
            let strikes = schedule(7, setting, setting.durability(), HOUR);
            let is_cut = |what: fn(&What) -> bool| strikes.iter().any(|strike| what(&strike.what));
            (is_cut(|what| matches!(what, What::CutBroker(..))), is_cut(|what| matches!(what, What::CutMaster(_))))
        };
        assert_eq!(cuts(Setting::Sentinel), (true, true));
        assert_eq!(cuts(Setting::Cluster), (true, false));
        assert_eq!(cuts(Setting::Brokers), (false, false));
    }

    #[test]
    fn figures_are_grouped_by_what_was_done() {
        assert_eq!(What::kind("kill -9 of broker 2 for 1.4s"), "kill -9 of broker");
        assert_eq!(What::kind("SIGSTOP of a group member (17) for 8s"), "SIGSTOP of a group member");
        assert_eq!(What::kind("kill -9 of two brokers (1 2) for 3s"), "kill -9 of two brokers");
    }

    #[test]
    fn a_schedule_ends_in_time_and_strikes_only_brokers_that_there_are() {
        let strikes = schedule(1, Setting::Single, Durability::Written, HOUR);
        let total: Duration = strikes.iter().map(|strike| strike.after + strike.length).sum();
        assert!(total <= HOUR && strikes.len() > 300);
        assert!(!strikes.iter().any(|strike| matches!(strike.what, What::KillBroker(2) | What::KillBrokers(..))));
        assert!(strikes.iter().any(|strike| strike.what == What::KillBroker(1)));
    }
}
