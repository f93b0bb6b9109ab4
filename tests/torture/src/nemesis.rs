//! What is done to brokers, Redis, links and clients: a schedule that the seed decides, carried out one strike after another.

use std::{fmt, thread, time::Duration};

use crate::{
    history::{Kind, Operation, Recorder},
    proxy::Weather,
    random::Random,
    settings::{Durability, Setting},
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

/// Nodes count from 1. Clients are numbered: the strike takes the one that the number falls on among those that run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    KillBroker(usize),
    /// SIGTERM; it leaves in order.
    StopBroker(usize),
    PauseBroker(usize),
    /// Two of three at once.
    KillBrokers(usize, usize),
    KillRedis,
    StopRedis,
    PauseRedis,
    FillMemory,
    DropLinks(usize),
    CloseLink(usize),
    SilenceLink(usize),
    SlowLink(usize, Duration),
    TearAnswers(usize, usize),
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
            What::KillBrokers(first, second) => write!(formatter, "kill -9 of brokers {first} and {second}")?,
            What::KillRedis => write!(formatter, "kill -9 of Redis")?,
            What::StopRedis => write!(formatter, "SIGTERM to Redis")?,
            What::PauseRedis => write!(formatter, "SIGSTOP of Redis")?,
            What::FillMemory => write!(formatter, "maxmemory of Redis below what it holds")?,
            What::DropLinks(node) => write!(formatter, "cut of every connection between broker {node} and Redis")?,
            What::CloseLink(node) => write!(formatter, "no connection between broker {node} and Redis")?,
            What::SilenceLink(node) => write!(formatter, "nothing passes between broker {node} and Redis")?,
            What::SlowLink(node, delay) => write!(formatter, "Redis' answers to broker {node} come {delay:?} later")?,
            What::TearAnswers(node, bytes) => {
                write!(formatter, "Redis' answers to broker {node} are cut after {bytes} bytes")?;
            }
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
        let is_number = |word: &&str| word.trim_start_matches('(').starts_with(|letter: char| letter.is_ascii_digit());
        text.split(' ').filter(|word| !is_number(word)).collect::<Vec<_>>().join(" ")
    }
}

/// The strikes of a run of `length`. The same seed gives the same ones.
pub fn schedule(seed: u64, setting: Setting, durability: Durability, length: Duration) -> Vec<Strike> {
    let mut random = Random::new(seed);
    let brokers = setting.brokers();
    let mut strikes = Vec::new();
    let mut total = Duration::ZERO;
    loop {
        let after = Duration::from_millis(random.between(1_000, 4_000));
        let node = usize::try_from(random.between(1, brokers as u64 + 1)).expect("few");
        let number = usize::try_from(random.between(0, 100)).expect("few");
        let short = Duration::from_millis(random.between(50, 1_500));
        let long = Duration::from_millis(random.between(500, 5_000));
        let (what, length_of) = match random.between(0, 100) {
            0..16 => (What::KillBroker(node), short),
            16..22 => (What::StopBroker(node), short),
            22..32 => (What::PauseBroker(node), long),
            32..36 if brokers > 2 => (What::KillBrokers(node, node % brokers + 1), long),
            32..42 => (What::KillRedis, short),
            42..46 => (What::StopRedis, short),
            46..54 => (What::PauseRedis, long),
            54..58 => (What::FillMemory, long),
            58..64 => (What::DropLinks(node), Duration::ZERO),
            64..69 => (What::CloseLink(node), long),
            69..74 => (What::SilenceLink(node), long),
            74..79 => (What::SlowLink(node, Duration::from_millis(random.between(5, 300))), long),
            79..81 => (What::CutClients(node), Duration::ZERO),
            81..83 => (What::TearClients(node, usize::try_from(random.between(1, 5_000)).expect("small")), short),
            83..86 => (What::TearAnswers(node, usize::try_from(random.between(1, 2_000)).expect("small")), long),
            86..91 => (What::KillMember(number), short),
            // Longer than the session timeout: the group goes on without it.
            91..95 => (What::PauseMember(number), Duration::from_secs(8)),
            _ => (What::KillProducer(number), short),
        };
        // What dies with Redis under `memory` is bounded by its last save, which it has to get done.
        let what = if durability.may_lose() && what == What::StopRedis { What::KillRedis } else { what };
        total += after + length_of;
        if total > length {
            return strikes;
        }
        strikes.push(Strike { after, what, length: length_of });
    }
}

/// Carries the strikes out, in order.
pub fn strike(world: &mut World, strikes: &[Strike], recorder: &Recorder) -> Result<(), String> {
    for strike in strikes {
        thread::sleep(strike.after);
        let action = strike.to_string();
        recorder.record(Kind::Invoke, Operation::Strike { action: action.clone() });
        carry_out(world, strike)?;
        recorder.record(Kind::Ok, Operation::Strike { action });
    }
    Ok(())
}

fn carry_out(world: &mut World, strike: &Strike) -> Result<(), String> {
    let hold = || thread::sleep(strike.length);
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
        What::KillRedis => {
            world.redis.process.kill();
            hold();
            world.redis.run()?;
        }
        What::StopRedis => {
            world.redis.process.stop()?;
            hold();
            world.redis.run()?;
        }
        What::PauseRedis => {
            world.redis.process.pause();
            hold();
            world.redis.process.wake();
        }
        What::FillMemory => {
            let _ = world.redis.command("CONFIG SET maxmemory 1mb");
            hold();
            // Where it is paused or loading, it forgets the limit by itself or is told again when all is healed.
            let _ = world.redis.command("CONFIG SET maxmemory 0");
        }
        What::DropLinks(node) => world.broker(node).link.drop_all(),
        What::CloseLink(node) => {
            let link = &world.broker(node).link;
            link.set(Weather::Closed);
            link.drop_all();
            hold();
            link.set(Weather::Clear);
        }
        What::SilenceLink(node) => with_weather(world, node, Weather::Silent, hold),
        What::SlowLink(node, delay) => with_weather(world, node, Weather::Slow(delay), hold),
        What::TearAnswers(node, bytes) => with_weather(world, node, Weather::CutAnswersAfter(bytes), hold),
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

fn with_weather(world: &mut World, node: usize, weather: Weather, hold: impl Fn()) {
    let link = &world.broker(node).link;
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
    fn figures_are_grouped_by_what_was_done() {
        assert_eq!(What::kind("kill -9 of broker 2 for 1.4s"), "kill -9 of broker");
        assert_eq!(What::kind("SIGSTOP of a group member (17) for 8s"), "SIGSTOP of a group member");
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
