//! This broker among the live ones: a hash in Redis that expires unless it is renewed.

use std::{fs, sync::Arc, time::Duration};

use redis::Cmd;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::client::Client;
use crate::{clock::Clock, log::store::StoreError, model::NodeId};

/// A broker that was not heard of for this long is gone.
const TIME_TO_LIVE: Duration = Duration::from_secs(9);
const BETWEEN_HEARTBEATS: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(
        "node id {node} belongs to a live broker at {address} on this Redis: give this one another with --node-id, or stop that one"
    )]
    Taken { node: NodeId, address: String },
    #[error(transparent)]
    Storage(#[from] StoreError),
}

/// Who registers.
#[derive(Clone, Debug)]
pub struct Identity {
    pub node: NodeId,
    pub rack: Option<String>,
    /// A listener's name and the address that clients are told, one for each.
    pub endpoints: Vec<(String, String)>,
}

/// A registered broker.
pub struct Registration {
    client: Arc<Client>,
    clock: Clock,
    identity: Identity,
    incarnation: String,
}

enum Attempt {
    Registered,
    Held(Holder),
}

/// Who is registered under the same node id.
#[derive(PartialEq, Eq)]
struct Holder {
    incarnation: String,
    heartbeat: String,
    address: String,
    process: String,
}

impl Registration {
    /// Registers this broker, at once if no live one has its node id. Where one was there a moment ago, waits until it is heard of
    /// again or its time has run out; one whose process on this machine is gone is replaced at once.
    pub async fn new(client: Arc<Client>, clock: Clock, identity: Identity) -> Result<Self, RegistryError> {
        const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
        let registration = Self { client, clock, identity, incarnation: Uuid::new_v4().simple().to_string() };
        let Attempt::Held(first) = registration.attempt("").await? else { return Ok(registration) };
        if has_ended(&first.process)
            && let Attempt::Registered = registration.attempt(&first.incarnation).await?
        {
            return Ok(registration);
        }
        info!(node = %registration.identity.node, "a broker with this node id was here; waiting to see whether it lives");
        let deadline = Instant::now() + TIME_TO_LIVE + BETWEEN_HEARTBEATS;
        loop {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            match registration.attempt("").await? {
                Attempt::Registered => return Ok(registration),
                Attempt::Held(holder) if holder == first && Instant::now() < deadline => {}
                Attempt::Held(holder) => {
                    return Err(RegistryError::Taken { node: registration.identity.node, address: holder.address });
                }
            }
        }
    }

    /// Unique to this run of the broker.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    async fn attempt(&self, replaced: &str) -> Result<Attempt, StoreError> {
        let address = self.identity.endpoints.first().map(|(_, address)| address.as_str()).unwrap_or_default();
        let mut call = self.call("weir_broker_register_v1");
        call.arg(&self.incarnation).arg(replaced).arg(millis(TIME_TO_LIVE));
        call.arg("heartbeat").arg(self.clock.now_ms()).arg("address").arg(address).arg("process").arg(this_process());
        call.arg("version").arg(env!("CARGO_PKG_VERSION"));
        if let Some(rack) = &self.identity.rack {
            call.arg("rack").arg(rack);
        }
        for (name, address) in &self.identity.endpoints {
            call.arg(format!("endpoint.{name}")).arg(address);
        }
        let held: Option<[Option<String>; 4]> = self.client.query(&call).await?;
        Ok(match held.map(|fields| fields.map(Option::unwrap_or_default)) {
            None => Attempt::Registered,
            Some([incarnation, heartbeat, address, process]) => {
                Attempt::Held(Holder { incarnation, heartbeat, address, process })
            }
        })
    }

    fn call(&self, function: &str) -> Cmd {
        let mut call = redis::cmd("FCALL");
        call.arg(function).arg(1).arg(self.client.keyspace().broker(self.identity.node));
        call
    }

    /// Renews the registration until `stopping`, then takes it away. Returns early, with false, when another broker has taken the
    /// node id: this one must stop.
    pub async fn keep(self, stopping: CancellationToken) -> bool {
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(BETWEEN_HEARTBEATS) => {}
            }
            match self.renew().await {
                Ok(true) => {}
                Ok(false) => {
                    error!(node = %self.identity.node, "another broker has taken this node id; this one stops");
                    return false;
                }
                // The connection's supervisor tells of Redis' loss.
                Err(StoreError::NotSent(_)) => {}
                Err(error) => warn!(%error, "the broker's registration was not renewed"),
            }
        }
        let leave = self.call("weir_broker_leave_v1").arg(&self.incarnation).to_owned();
        if let Err(error) = self.client.query::<()>(&leave).await {
            warn!(%error, "the broker's registration stays until it expires");
        }
        true
    }

    async fn renew(&self) -> Result<bool, StoreError> {
        let mut call = self.call("weir_broker_renew_v1");
        call.arg(&self.incarnation).arg(millis(TIME_TO_LIVE)).arg(self.clock.now_ms());
        match self.client.query::<i64>(&call).await? {
            1 => Ok(true),
            0 => Ok(false),
            // It ran out while Redis could not be reached, or Redis came back with less than it had.
            _ => Ok(matches!(self.attempt("").await?, Attempt::Registered)),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Names this process so that another on the same machine can see whether it has ended: the boot, the process namespace, the
/// process' number and when it started. Empty where the system does not tell.
fn this_process() -> String {
    process_name(std::process::id()).unwrap_or_default()
}

fn process_name(pid: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks; the start time is the twentieth field after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // A process that has ended stays until its parent has heard of it.
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    let started = fields.get(19)?;
    Some(format!("{} {} {pid} {started}", boot.trim(), namespace.display()))
}

/// Whether a process of this machine, boot and namespace has ended. False where that can't be known.
fn has_ended(process: &str) -> bool {
    let this = this_process();
    let (Some(theirs), Some(ours)) = (parts(process), parts(&this)) else { return false };
    if theirs[..2] != ours[..2] {
        return false;
    }
    theirs[2].parse().is_ok_and(|pid| process_name(pid).as_deref() != Some(process))
}

fn parts(process: &str) -> Option<[&str; 4]> {
    let mut words = process.split(' ');
    let parts = [words.next()?, words.next()?, words.next()?, words.next()?];
    words.next().is_none().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_not_ended() {
        assert!(!has_ended(&this_process()));
        assert!(!has_ended(""));
        assert!(!has_ended("another-boot pid:[1] 1 1"));
    }

    #[test]
    fn a_process_that_is_gone_or_another_by_now_has_ended() {
        let this = this_process();
        let [boot, namespace, pid, _] = parts(&this).expect("Linux tells");
        assert!(has_ended(&format!("{boot} {namespace} {pid} 1")), "the number is another process' by now");
        assert!(has_ended(&format!("{boot} {namespace} 4194305 1")), "above the largest number a process can have");
    }
}
