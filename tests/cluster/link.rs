//! A broker's way to Redis, which a test can hold up, as a whole or what is published: that arrives when it is let go.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

const SUBSCRIBE: &[u8] = b"SUBSCRIBE";

/// Listens on a free port of 127.0.0.1 for as long as the test runs.
pub(crate) struct Link {
    port: u16,
    gate: Arc<Gate>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Held {
    #[default]
    Nothing,
    /// The connections that Redis tells on what is published.
    News,
    Everything,
}

#[derive(Default)]
struct Gate {
    held: Mutex<Held>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self, is_news: bool) {
        let is_held = |held: &mut Held| match held {
            Held::Nothing => false,
            Held::News => is_news,
            Held::Everything => true,
        };
        let held = self.held.lock().expect("no panic");
        drop(self.changed.wait_while(held, is_held).expect("no panic"));
    }

    fn set(&self, held: Held) {
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
                    gate.pass(false);
                    let Ok(far) = UnixStream::connect(&socket) else { return };
                    let (near_copy, far_copy) = (near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
                    let (there, back) = (gate.clone(), gate.clone());
                    let is_news = Arc::<AtomicBool>::default();
                    let notice = is_news.clone();
                    let look = move |bytes: &[u8]| {
                        if bytes.windows(SUBSCRIBE.len()).any(|command| command.eq_ignore_ascii_case(SUBSCRIBE)) {
                            notice.store(true, Ordering::Relaxed);
                        }
                        there.pass(false);
                    };
                    thread::spawn(move || copy(near, far, look, |far| far.shutdown(Shutdown::Both)));
                    let wait = move |_: &[u8]| back.pass(is_news.load(Ordering::Relaxed));
                    thread::spawn(move || copy(far_copy, near_copy, wait, |near| near.shutdown(Shutdown::Both)));
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
        self.gate.set(Held::Everything);
    }

    /// Nothing that is published comes through until [`Link::let_go`].
    pub(crate) fn hold_news(&self) {
        self.gate.set(Held::News);
    }

    pub(crate) fn let_go(&self) {
        self.gate.set(Held::Nothing);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn copy<T: Write>(
    mut from: impl Read,
    mut to: T,
    before: impl Fn(&[u8]),
    close: impl FnOnce(&T) -> std::io::Result<()>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        before(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = close(&to);
}
