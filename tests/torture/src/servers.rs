//! The Redis of a run: one server, three that Sentinels watch, or a cluster of six; and the links by which they are reached.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    settings::{Durability, Setting, Settings},
    support::{
        proxy::{Proxy, Weather},
        redis_cluster::Cluster,
        servers::{Redis, Watched},
    },
};

const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A Sentinel takes ten seconds to turn a server that it finds with the wrong role, and twice that to hear of one.
const UNTIL_WELL: Duration = Duration::from_secs(120);
const UNTIL_MENDED: Duration = Duration::from_secs(45);
/// Redis gives a planned failover up after five.
const UNTIL_FAILED_OVER: Duration = Duration::from_secs(6);

enum Deployment {
    Single(Redis),
    Watched(Watched),
    Cluster(Cluster),
}

pub struct Servers {
    deployment: Deployment,
    /// One Redis: a link for each broker. Else one for each server, by which brokers, replicas and Sentinels reach it.
    pub links: Vec<Proxy>,
    /// With what a server begins again: how it is to be reached.
    announcements: Vec<Vec<String>>,
    /// Where it is told what does not get well.
    folder: PathBuf,
}

/// A node of a cluster as it sees itself.
struct Seen {
    place: usize,
    id: String,
    /// Whom it follows; nobody where it leads.
    follows: Option<String>,
    has_slots: bool,
    offset: i64,
}

impl Servers {
    pub fn start(settings: &Settings) -> Result<Self, String> {
        // A history that is looked into later needs what Redis had.
        let _ = tempfile::env::override_temp_dir(&settings.folder);
        let program = bound_program(settings).map_err(|error| error.to_string())?;
        let arguments = settings.durability.redis_arguments();
        let folder = settings.folder.clone();
        let mut this = match settings.setting {
            Setting::Single | Setting::Brokers => {
                let redis = Redis::run(&program, arguments);
                let links = (0..Setting::MOST_BROKERS).map(|_| Proxy::to(redis.port)).collect();
                Self { deployment: Deployment::Single(redis), links, announcements: vec![Vec::new()], folder }
            }
            Setting::Sentinel => {
                let servers: Vec<Redis> = (0..3).map(|_| Redis::run(&program, arguments)).collect();
                let (links, announcements) = announce(servers.iter(), "replica");
                let master = links[0].address.port();
                for replica in &servers[1..] {
                    let mut follow = redis::cmd("REPLICAOF");
                    let followed = follow.arg("127.0.0.1").arg(master).exec(&mut replica.connection());
                    followed.map_err(|error| error.to_string())?;
                }
                until("the replicas catch up", || {
                    servers[1..].iter().all(|replica| replica.info("replication").contains("master_link_status:up"))
                })?;
                let watched = Watched::over(&program, servers, master);
                Self { deployment: Deployment::Watched(watched), links, announcements, folder }
            }
            Setting::Cluster => {
                // A slot of many records keeps its master busy for a while.
                let more = [arguments, &["--cluster-node-timeout", "3000"]].concat();
                let cluster = Cluster::run(&program, &more, true);
                let (links, announcements) = announce(cluster.nodes.iter().map(|node| &node.redis), "cluster");
                Self { deployment: Deployment::Cluster(cluster), links, announcements, folder }
            }
        };
        for place in 0..this.count() {
            this.server_mut(place).folder.disable_cleanup(true);
        }
        this.until_well()?;
        Ok(this)
    }

    fn count(&self) -> usize {
        match &self.deployment {
            Deployment::Single(_) => 1,
            Deployment::Watched(watched) => watched.servers.len(),
            Deployment::Cluster(cluster) => cluster.nodes.len(),
        }
    }

    fn server(&self, place: usize) -> &Redis {
        match &self.deployment {
            Deployment::Single(redis) => redis,
            Deployment::Watched(watched) => &watched.servers[place],
            Deployment::Cluster(cluster) => &cluster.nodes[place].redis,
        }
    }

    fn server_mut(&mut self, place: usize) -> &mut Redis {
        match &mut self.deployment {
            Deployment::Single(redis) => redis,
            Deployment::Watched(watched) => &mut watched.servers[place],
            Deployment::Cluster(cluster) => &mut cluster.nodes[place].redis,
        }
    }

    /// What a broker is told.
    pub fn url(&self, node: usize) -> String {
        match &self.deployment {
            Deployment::Single(_) => self.links[node - 1].url(),
            Deployment::Watched(watched) => watched.url(),
            Deployment::Cluster(_) => {
                let links: Vec<String> = self.links.iter().map(|link| link.address.to_string()).collect();
                format!("redis://{}", links.join(","))
            }
        }
    }

    /// What a server says of its role; nothing where it does not answer.
    fn replication(&self, place: usize) -> String {
        let connected = redis::Client::open(self.server(place).url()).and_then(|client| client.get_connection());
        let asked = connected.and_then(|mut server| redis::cmd("INFO").arg("replication").query(&mut server));
        asked.unwrap_or_default()
    }

    fn of_role(&self, role: &str) -> Vec<usize> {
        let role = format!("role:{role}\r");
        (0..self.count()).filter(|place| self.replication(*place).contains(&role)).collect()
    }

    /// Where the number falls among the masters. All servers must run.
    pub fn master(&self, number: usize) -> usize {
        if matches!(self.deployment, Deployment::Single(_)) {
            return 0;
        }
        let masters = self.of_role("master");
        masters.get(number % masters.len().max(1)).copied().unwrap_or(0)
    }

    /// Where the number falls among the replicas.
    pub fn replica(&self, number: usize) -> usize {
        let replicas = self.of_role("slave");
        replicas.get(number % replicas.len().max(1)).copied().unwrap_or(0)
    }

    /// Every replica that could be promoted has what its master has, and all agree on who is a master: what is promised is promised
    /// for one failure, and another one may come. What had to be done by hand for that.
    pub fn until_well(&self) -> Result<Vec<String>, String> {
        let mut mended = Vec::new();
        let mut looked = Instant::now();
        let well = until("every server of Redis follows or leads", || {
            if self.is_well() {
                return true;
            }
            if looked.elapsed() > UNTIL_MENDED {
                looked = Instant::now();
                let what = self.mend();
                self.tell_state(&what);
                mended.extend(what);
            }
            false
        });
        well.map(|()| mended)
    }

    /// As whoever looks after a cluster does: a failover may leave a replica behind one that leads no longer, and Redis does not turn
    /// it (its issue 15472).
    fn mend(&self) -> Vec<String> {
        let Deployment::Cluster(cluster) = &self.deployment else { return Vec::new() };
        let seen: Vec<Seen> = (0..self.count()).filter_map(|place| self.see(cluster, place)).collect();
        let of = |id: &str| seen.iter().find(|node| node.id == id);
        let leader_of = |node: &Seen| {
            let mut follows = node.follows.as_deref();
            (0..seen.len()).find_map(|_| match of(follows?) {
                Some(next) if next.follows.is_none() => Some(next.id.clone()),
                next => {
                    follows = next.and_then(|next| next.follows.as_deref());
                    None
                }
            })
        };
        let has_follower = |id: &String| seen.iter().any(|node| node.follows.as_ref() == Some(id));
        let mut done = Vec::new();
        let mut tell = |node: &Seen, words: &[&str]| {
            let command = format!("CLUSTER {} by hand on Redis server {}", words.join(" "), node.place + 1);
            let connected =
                redis::Client::open(self.server(node.place).url()).and_then(|client| client.get_connection());
            let told = connected.and_then(|mut server| redis::cmd("CLUSTER").arg(words).exec(&mut server));
            done.push(told.map_or_else(|error| format!("{command}: {error}"), |()| command.clone()));
        };
        for node in &seen {
            let direct = node.follows.as_deref().and_then(of);
            let lone = |other: &&Seen| other.follows.is_none() && other.has_slots && !has_follower(&other.id);
            match (&node.follows, leader_of(node)) {
                (Some(_), Some(leader)) if direct.is_some_and(|direct| direct.id != leader) => {
                    tell(node, &["REPLICATE", &leader]);
                }
                // They follow each other: who has more leads.
                (Some(_), None)
                    if direct.is_some_and(|direct| (direct.offset, direct.place) < (node.offset, node.place)) =>
                {
                    tell(node, &["FAILOVER", "TAKEOVER"]);
                }
                (None, _) if !node.has_slots => {
                    if let Some(leader) = seen.iter().find(lone) {
                        tell(node, &["REPLICATE", &leader.id]);
                    }
                }
                _ => {}
            }
        }
        done
    }

    fn see(&self, cluster: &Cluster, place: usize) -> Option<Seen> {
        let nodes = ask_cluster(&cluster.nodes[place].redis, "NODES");
        let words: Vec<&str> = nodes.lines().find(|line| line.contains("myself"))?.split(' ').collect();
        let replication = self.replication(place);
        let offset = replication.lines().find_map(|line| line.strip_prefix("master_repl_offset:")?.parse().ok());
        Some(Seen {
            place,
            id: (*words.first()?).to_owned(),
            follows: words.get(3).filter(|id| **id != "-").map(|id| (*id).to_owned()),
            has_slots: words.len() > 8,
            offset: offset.unwrap_or(0),
        })
    }

    /// For whoever looks into it later.
    fn tell_state(&self, mended: &[String]) {
        let mut text = format!("{:?}\n", mended);
        for place in 0..self.count() {
            let port = (self.server(place).port, self.links[place].address.port());
            let _ = writeln!(text, "\nserver {} {port:?}\n{}", place + 1, self.replication(place));
            if let Deployment::Cluster(cluster) = &self.deployment {
                let redis = &cluster.nodes[place].redis;
                let _ = writeln!(text, "{}\n{}", ask_cluster(redis, "NODES"), ask_cluster(redis, "INFO"));
            }
        }
        if let Deployment::Watched(watched) = &self.deployment {
            let _ = writeln!(text, "{:#?}", watched.masters());
        }
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join("not-well.txt"));
        let _ = file.and_then(|mut file| file.write_all(text.as_bytes()));
    }

    fn is_well(&self) -> bool {
        if matches!(self.deployment, Deployment::Single(_)) {
            return true;
        }
        let replications: Vec<String> = (0..self.count()).map(|place| self.replication(place)).collect();
        let masters: Vec<usize> =
            (0..self.count()).filter(|place| replications[*place].contains("role:master\r")).collect();
        let followed = |place: &usize| {
            let port = self.links[*place].address.port();
            let follows = format!("master_port:{port}\r");
            replications
                .iter()
                .filter(|text| text.contains(&follows) && text.contains("master_link_status:up\r"))
                .count()
        };
        match &self.deployment {
            Deployment::Single(_) => true,
            Deployment::Watched(watched) => {
                let [master] = masters[..] else { return false };
                let port = self.links[master].address.port().to_string();
                let is_seen = |facts: &std::collections::HashMap<String, String>| {
                    let fact = |name: &str| facts.get(name).map(String::as_str);
                    fact("flags") == Some("master") && fact("port") == Some(&port)
                };
                followed(&master) + 1 == self.count() && watched.masters().iter().all(is_seen)
            }
            Deployment::Cluster(cluster) => {
                let knows_all = |place: usize| {
                    let redis = &cluster.nodes[place].redis;
                    let (state, nodes) = (ask_cluster(redis, "INFO"), ask_cluster(redis, "NODES"));
                    let every_link =
                        self.links.iter().all(|link| nodes.contains(&format!(":{}@", link.address.port())));
                    state.contains("cluster_state:ok")
                        && every_link
                        && !nodes.contains("fail")
                        && !nodes.contains("->-")
                };
                masters.len() == 3
                    && masters.iter().all(|master| followed(master) == 1)
                    && (0..self.count()).all(knows_all)
            }
        }
    }

    pub fn kill(&mut self, place: usize) {
        self.server_mut(place).kill();
    }

    /// SIGTERM, and the end of it.
    pub fn stop(&mut self, place: usize) -> Result<(), String> {
        let server = self.server_mut(place);
        server.signal("TERM");
        until("Redis ends after SIGTERM", || matches!(server.child.try_wait(), Ok(Some(_))))
    }

    pub fn pause(&self, place: usize) {
        self.server(place).signal("STOP");
    }

    pub fn wake(&self, place: usize) {
        self.server(place).signal("CONT");
    }

    /// After `kill` or `stop`: as a replica where Sentinels have another master by now, as whoever starts it would ask them.
    pub fn start_again(&mut self, place: usize) {
        let mut words = self.announcements[place].clone();
        if let Deployment::Watched(watched) = &self.deployment {
            let told = watched.masters();
            let port = told.iter().find_map(|facts| facts.get("port")?.parse::<u16>().ok());
            if let Some(port) = port.filter(|port| *port != self.links[place].address.port()) {
                words.extend(["--replicaof".to_owned(), format!("127.0.0.1 {port}")]);
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.server_mut(place).start_again_with(&words);
    }

    /// A planned failover. It may be refused. A cluster answers before it begins; it is over, or given up, when this returns: what is
    /// done to a server meanwhile would be a second failure at a time.
    pub fn fail_over(&self, number: usize) {
        match &self.deployment {
            Deployment::Single(_) => {}
            Deployment::Watched(watched) => drop(watched.fail_over()),
            Deployment::Cluster(cluster) => {
                let place = self.replica(number);
                let replica = &cluster.nodes[place].redis;
                let _ = redis::cmd("CLUSTER").arg("FAILOVER").exec(&mut replica.connection());
                let asked = Instant::now();
                while asked.elapsed() < UNTIL_FAILED_OVER && !self.replication(place).contains("role:master\r") {
                    thread::sleep(LOOK_AGAIN);
                }
            }
        }
    }

    /// Moves the slot of some key of one master to the next one.
    pub fn move_slot(&self, number: usize) -> Result<(), String> {
        let Deployment::Cluster(cluster) = &self.deployment else { return Ok(()) };
        let masters = self.of_role("master");
        let [_, _, ..] = masters[..] else { return Err("no two masters answer".to_owned()) };
        let (from, to) = (masters[number % masters.len()], masters[(number + 1) % masters.len()]);
        let mut connection = self.server(from).connection();
        let key: Option<String> =
            redis::cmd("RANDOMKEY").query(&mut connection).map_err(|error: redis::RedisError| error.to_string())?;
        let Some(key) = key else { return Ok(()) };
        let slot: u16 = redis::cmd("CLUSTER")
            .arg("KEYSLOT")
            .arg(&key)
            .query(&mut connection)
            .map_err(|error: redis::RedisError| error.to_string())?;
        let mut last = None;
        let moved = until("a slot is moved", || match cluster.try_move_slot(slot, from, to) {
            Ok(()) => true,
            Err(error) => {
                last = Some(error);
                false
            }
        });
        moved.map_err(|error| format!("{error}: slot {slot} of {key}: {last:?}"))
    }

    /// Where it is paused or loading, it forgets the limit by itself or is told again when all is healed.
    pub fn limit_memory(&self, place: usize, limit: &str) {
        let connected = redis::Client::open(self.server(place).url())
            .and_then(|client| client.get_connection_with_timeout(Duration::from_secs(2)));
        if let Ok(mut connection) = connected {
            let _ = connection.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit).exec(&mut connection);
        }
    }

    /// Everything that was struck works again.
    pub fn heal(&mut self) -> Result<(), String> {
        for link in &self.links {
            link.set(Weather::Clear);
        }
        for place in 0..self.count() {
            self.wake(place);
            if !matches!(self.server_mut(place).child.try_wait(), Ok(None)) {
                self.start_again(place);
            }
            self.limit_memory(place, "0");
        }
        self.until_well().map(drop)
    }
}

/// Nothing where it does not answer.
fn ask_cluster(node: &Redis, word: &str) -> String {
    let connected = redis::Client::open(node.url()).and_then(|client| client.get_connection());
    connected.and_then(|mut node| redis::cmd("CLUSTER").arg(word).query(&mut node)).unwrap_or_default()
}

/// A link to each server, which it gives as its own address; and how it is told again.
fn announce<'a>(servers: impl Iterator<Item = &'a Redis>, what: &str) -> (Vec<Proxy>, Vec<Vec<String>>) {
    let announced = servers.map(|server| {
        let link = Proxy::to(server.port);
        let mut words = Vec::new();
        for (name, value) in [("ip", "127.0.0.1"), ("port", &link.address.port().to_string())] {
            server.config(&format!("{what}-announce-{name}"), value);
            words.extend([format!("--{what}-announce-{name}"), value.to_owned()]);
        }
        (link, words)
    });
    announced.unzip()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + UNTIL_WELL;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(format!("not within {UNTIL_WELL:?}: {what}"));
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// A program that is `redis-server`, ends with this one, and leaves a log in the run's folder.
fn bound_program(settings: &Settings) -> std::io::Result<String> {
    let file = settings.folder.join("redis-server");
    let (redis, folder) = (settings.redis_program.display(), settings.folder.display());
    let script = format!(
        "#!/bin/sh\ncase $1 in --port) name=redis-$2 ;; *) name=$(basename \"$1\" .conf) ;; esac\n\
         exec setpriv --pdeathsig KILL '{redis}' \"$@\" >>'{folder}'/\"$name.log\" 2>&1\n"
    );
    fs::write(&file, script)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(Path::display(&file).to_string())
}

impl Durability {
    fn redis_arguments(self) -> &'static [&'static str] {
        match self {
            // Comes back with what it had when it was saved last.
            Self::Memory => &["--save", "1 1", "--appendonly", "no"],
            Self::Written | Self::Replicas(_) => &["--save", "", "--appendonly", "yes", "--appendfsync", "no"],
            Self::Fsync => &["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
        }
    }
}
