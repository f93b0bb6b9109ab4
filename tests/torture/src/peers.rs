//! Whose a connection is: all processes of a run have the same address.

use std::{collections::HashSet, fs};

/// The local ports of a process' TCP connections; none where it has ended.
pub fn ports_of(process: u32) -> HashSet<u16> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let names = files.filter_map(|file| Some(fs::read_link(file.path()).ok()?.to_string_lossy().into_owned()));
    let sockets: HashSet<String> =
        names.filter_map(|name| Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    // Number, local address and port, remote ones, state, queues, timer, retransmissions, user, timeouts, inode.
    let port = |line: &str| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let inode = words.nth(7)?;
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        sockets.contains(inode).then_some(port)
    };
    table.lines().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_process_own_connections_are_its_own_and_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let port = stream.local_addr().expect("connected").port();
        assert!(ports_of(std::process::id()).contains(&port));
        assert!(!ports_of(1).contains(&port));
    }
}
