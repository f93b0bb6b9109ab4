//! A link to Redis that a test slows down, cuts, and lets end in the middle of an answer.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Answers come this much later.
    Slow(Duration),
    /// Requests go through; of what is answered on each connection this many bytes, then it is cut.
    CutAnswersAfter(usize),
    /// Nothing goes through; connections stay open.
    Silent,
    /// Connections end as soon as they are made.
    Closed,
}

/// Whether the connection of this local port of a client is meant.
pub type Meant = Box<dyn Fn(u16) -> bool + Send>;

struct Shared {
    weather: Weather,
    links: Vec<(usize, TcpStream, TcpStream)>,
    connections: usize,
    refused: Option<Meant>,
}

impl Shared {
    fn is_refused(&self, client: &TcpStream) -> bool {
        let port = client.peer_addr().map(|address| address.port());
        self.refused.as_ref().is_some_and(|is_meant| port.is_ok_and(is_meant))
    }
}

/// Listens until the test ends.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared =
            Arc::new(Mutex::new(Shared { weather: Weather::Clear, links: Vec::new(), connections: 0, refused: None }));
        thread::spawn({
            let shared = shared.clone();
            move || {
                for client in listener.incoming().flatten() {
                    connect(client, port, &shared);
                }
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on, also on the connections that are there.
    pub fn set(&self, weather: Weather) {
        self.shared.lock().expect("no panic").weather = weather;
    }

    /// Ends every connection.
    pub fn drop_all(&self) {
        for (_, client, server) in self.shared.lock().expect("no panic").links.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Ends the connections that are meant, and those that come, until this is taken back with none.
    pub fn refuse(&self, meant: Option<Meant>) {
        let mut inner = self.shared.lock().expect("no panic");
        inner.refused = meant;
        for (_, client, server) in inner.links.iter().filter(|(_, client, _)| inner.is_refused(client)) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Connections that were ever made.
    pub fn connections(&self) -> usize {
        self.shared.lock().expect("no panic").connections
    }
}

fn connect(client: TcpStream, port: u16, shared: &Arc<Mutex<Shared>>) {
    let mut inner = shared.lock().expect("no panic");
    inner.connections += 1;
    if inner.weather == Weather::Closed || inner.is_refused(&client) {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let copy = |stream: &TcpStream| stream.try_clone().expect("a socket");
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let number = inner.connections;
    inner.links.push((number, copy(&client), copy(&server)));
    for (from, to, is_answer) in [(copy(&client), copy(&server), false), (server, client, true)] {
        let shared = shared.clone();
        thread::spawn(move || {
            carry(&from, &to, is_answer, &shared);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            shared.lock().expect("no panic").links.retain(|(other, ..)| *other != number);
        });
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, is_answer: bool, shared: &Mutex<Shared>) {
    const LOOK_AGAIN: Duration = Duration::from_millis(10);
    let mut bytes = [0; 16 << 10];
    let mut answered_while_cutting = 0;
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes) else { return };
        let weather = || shared.lock().expect("no panic").weather;
        while weather() == Weather::Silent {
            thread::sleep(LOOK_AGAIN);
        }
        let mut passing = &bytes[..count];
        match weather() {
            Weather::Slow(delay) if is_answer => thread::sleep(delay),
            Weather::CutAnswersAfter(most) if is_answer => {
                passing = &passing[..passing.len().min(most.saturating_sub(answered_while_cutting))];
                answered_while_cutting += passing.len();
            }
            Weather::Closed => return,
            _ => {}
        }
        if to.write_all(passing).is_err() || passing.len() < count {
            return;
        }
    }
}
