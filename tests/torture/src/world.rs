//! Redis, brokers and clients as processes. They end with this one.

use std::{
    fs::{File, OpenOptions},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    servers::Servers,
    settings::{Durability, Setting, Settings},
    support::proxy::{Proxy, Weather},
};

pub const TOPICS: [&str; 2] = ["torture-record", "torture-batch"];
pub const PARTITIONS: i32 = 3;

const PATIENCE: Duration = Duration::from_secs(60);

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(format!("not within {PATIENCE:?}: {what}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Outside of what the kernel gives to whoever asks for any port: nobody else takes it while the broker is away, and a link to a broker
/// that does not run leads nowhere, not to itself or to another run.
fn broker_port(node: usize) -> u16 {
    let places = u16::try_from(std::process::id() % 1_000).expect("small");
    let first = 12_000 + 10 * places + u16::try_from(node).expect("few");
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..32_768).step_by(10).find(is_free).expect("a port below 32768")
}

/// Ended by the kernel when the thread that starts it ends.
fn bound_to_this(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn log_file(folder: &Path, name: &str) -> File {
    let path = folder.join(format!("{name}.log"));
    OpenOptions::new().create(true).append(true).open(path).expect("a log file")
}

fn signal(child: &Child, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
}

/// A process that is killed, paused and started again.
pub struct Process {
    child: Option<Child>,
}

impl Process {
    fn of(child: Child) -> Self {
        Self { child: Some(child) }
    }

    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and the end of it.
    pub fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        signal(&child, "TERM");
        let ended = until("a process ends after SIGTERM", || matches!(child.try_wait(), Ok(Some(_))));
        let _ = child.kill();
        let _ = child.wait();
        ended
    }

    pub fn pause(&self) {
        self.child.iter().for_each(|child| signal(child, "STOP"));
    }

    pub fn wake(&self) {
        self.child.iter().for_each(|child| signal(child, "CONT"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Broker {
    pub node: usize,
    pub process: Process,
    /// The clients' way to the broker.
    pub front: Proxy,
    port: u16,
}

/// A client of the load.
#[derive(Clone, Debug)]
pub struct ClientKind {
    pub library: &'static str,
    pub role: &'static str,
    pub group: &'static str,
    pub idempotent: bool,
}

pub struct Client {
    pub name: String,
    pub kind: ClientKind,
    pub process: Process,
}

pub struct World {
    pub settings: Settings,
    pub servers: Servers,
    pub brokers: Vec<Broker>,
    /// How many of the brokers are meant to run: the first ones.
    count: usize,
    pub clients: Vec<Client>,
    /// When the run began: microseconds since 1970.
    start: u64,
    started_clients: usize,
}

impl World {
    pub fn start(settings: Settings, start: u64) -> Result<Self, String> {
        let servers = Servers::start(&settings)?;
        let count = settings.setting.brokers();
        let mut world =
            Self { settings, servers, brokers: Vec::new(), count, clients: Vec::new(), start, started_clients: 0 };
        for node in 1..=Setting::MOST_BROKERS {
            let port = broker_port(node);
            world.brokers.push(Broker { node, process: Process { child: None }, front: Proxy::to(port), port });
        }
        for node in 1..=count {
            world.run_broker(node)?;
        }
        world.until_brokers_listen()?;
        Ok(world)
    }

    pub fn broker(&mut self, node: usize) -> &mut Broker {
        &mut self.brokers[node - 1]
    }

    pub fn run_broker(&mut self, node: usize) -> Result<(), String> {
        let broker = &self.brokers[node - 1];
        let log = || log_file(&self.settings.folder, &format!("broker-{node}"));
        let mut command = bound_to_this(&self.settings.weir_program);
        command
            .args(["--listen", &format!("127.0.0.1:{}", broker.port), "--node-id", &node.to_string()])
            .args(["--advertise", &broker.front.address.to_string()])
            .args(["--redis-url", &self.servers.url(node)]);
        let durability = format!("weir.durability={}", self.settings.durability.level());
        for pair in ["group.initial.rebalance.delay.ms=0", "group.min.session.timeout.ms=1000", &durability] {
            command.args(["--override", pair]);
        }
        if matches!(self.settings.durability, Durability::Replicas(_)) {
            // Masters begin again too, with what they had written.
            command.args(["--override", "weir.durability.floor=written"]);
        }
        if let Some(fault) = &self.settings.fault {
            command.env("PLANTED_FAULT", fault);
        }
        let child = command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn();
        let child = child.map_err(|error| format!("{}: {error}", self.settings.weir_program.display()))?;
        self.brokers[node - 1].process = Process::of(child);
        Ok(())
    }

    fn until_brokers_listen(&mut self) -> Result<(), String> {
        for place in 0..self.count {
            let folder = self.settings.folder.display().to_string();
            let broker = &mut self.brokers[place];
            let (node, port) = (broker.node, broker.port);
            until(&format!("broker {node} listens (logs in {folder})"), || {
                TcpStream::connect(("127.0.0.1", port)).is_ok()
            })?;
        }
        Ok(())
    }

    pub fn bootstrap(&self) -> String {
        self.brokers.iter().map(|broker| broker.front.address.to_string()).collect::<Vec<_>>().join(",")
    }

    /// From now on so many brokers; those that are too many leave in order, or are killed.
    pub fn change_brokers(&mut self, count: usize, are_killed: bool) -> Result<(), String> {
        for node in count + 1..=self.count {
            let process = &mut self.broker(node).process;
            if are_killed {
                process.kill();
            } else {
                process.stop()?;
            }
        }
        for node in self.count + 1..=count {
            self.run_broker(node)?;
        }
        self.count = count;
        Ok(())
    }

    /// As whoever looks after brokers does: one that ended by itself is started again. Which ones.
    pub fn start_ended(&mut self) -> Result<Vec<usize>, String> {
        let ended: Vec<usize> = (1..=self.count).filter(|node| !self.brokers[node - 1].process.runs()).collect();
        for node in &ended {
            self.run_broker(*node)?;
        }
        Ok(ended)
    }

    /// Starts a client with a name that no other had.
    pub fn run_client(&mut self, kind: ClientKind) -> Result<(), String> {
        self.started_clients += 1;
        let idempotence = if kind.idempotent { "-idempotent" } else { "" };
        let name = format!("{}-{}{idempotence}-{}", kind.library, kind.role, self.started_clients);
        let mut command = match &self.settings.go_worker {
            Some(worker) if kind.library == "franz-go" => bound_to_this(worker),
            _ => {
                let mut command = bound_to_this(&std::env::current_exe().map_err(|error| error.to_string())?);
                command.arg("worker");
                command
            }
        };
        let patience = self.settings.patience;
        command
            .args(["--patience", &patience.as_secs().to_string()])
            .args(["--role", kind.role, "--name", &name, "--bootstrap", &self.bootstrap(), "--group", kind.group])
            .args(["--start", &self.start.to_string(), "--topics", &TOPICS.join(",")])
            .args(["--partitions", &PARTITIONS.to_string(), "--rate", &self.settings.rate.to_string(), "--folder"])
            .arg(&self.settings.folder);
        if kind.idempotent {
            command.arg("--idempotent");
        }
        let log = || log_file(&self.settings.folder, &name);
        let child = command.stdin(Stdio::piped()).stdout(log()).stderr(log()).spawn();
        let process = Process::of(child.map_err(|error| format!("a {} worker: {error}", kind.library))?);
        self.clients.push(Client { name, kind, process });
        Ok(())
    }

    /// Everything that was struck works again.
    pub fn heal(&mut self) -> Result<(), String> {
        self.servers.heal()?;
        for node in 1..=self.count {
            let broker = self.broker(node);
            broker.front.set(Weather::Clear);
            broker.process.wake();
            if !broker.process.runs() {
                self.run_broker(node)?;
            }
        }
        self.clients.iter().for_each(|client| client.process.wake());
        self.until_brokers_listen()
    }

    /// Tells clients to get done, and waits for it.
    pub fn finish_clients(&mut self, is_meant: impl Fn(&ClientKind) -> bool) -> Result<(), String> {
        // Longer than clients wait for themselves.
        let given = self.settings.patience + PATIENCE;
        let meant: Vec<&mut Client> = self.clients.iter_mut().filter(|client| is_meant(&client.kind)).collect();
        let mut waiting: Vec<(&str, Child)> =
            meant.into_iter().filter_map(|client| Some((client.name.as_str(), client.process.child.take()?))).collect();
        for (_, child) in &mut waiting {
            drop(child.stdin.take());
        }
        let deadline = Instant::now() + given;
        let mut failed = Vec::new();
        for (name, mut child) in waiting {
            let status = loop {
                match child.try_wait() {
                    Ok(Some(status)) => break Some(status),
                    Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                    _ => break None,
                }
            };
            if status.is_none_or(|status| !status.success()) {
                let _ = child.kill();
                let _ = child.wait();
                failed.push(format!("{name} did not get done ({status:?})"));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }
}
