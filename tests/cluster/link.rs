//! A broker's way to Redis, which a test can hold up: what is under way then arrives when it is let go.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// Listens on a free port of 127.0.0.1 for as long as the test runs.
pub(crate) struct Link {
    port: u16,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let held = self.held.lock().expect("no panic");
        drop(self.changed.wait_while(held, |held| *held).expect("no panic"));
    }

    fn set(&self, held: bool) {
        *self.held.lock().expect("no panic") = held;
        self.changed.notify_all();
    }
}

impl Link {
    pub(crate) fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let gate = Arc::<Gate>::default();
        thread::spawn({
            let gate = gate.clone();
            move || {
                for near in listener.incoming().map_while(Result::ok) {
                    gate.pass();
                    let Ok(far) = UnixStream::connect(&socket) else { return };
                    let (near_copy, far_copy) = (near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
                    let (there, back) = (gate.clone(), gate.clone());
                    thread::spawn(move || copy(near, far, &there, |far| far.shutdown(Shutdown::Both)));
                    thread::spawn(move || {
                        copy(far_copy, near_copy, &back, |near: &TcpStream| near.shutdown(Shutdown::Both))
                    });
                }
            }
        });
        Self { port, gate }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Nothing goes through until [`Link::let_go`].
    pub(crate) fn hold(&self) {
        self.gate.set(true);
    }

    pub(crate) fn let_go(&self) {
        self.gate.set(false);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn copy<T: Write>(mut from: impl Read, mut to: T, gate: &Gate, close: impl FnOnce(&T) -> std::io::Result<()>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        gate.pass();
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = close(&to);
}
