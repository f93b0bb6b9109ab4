//! From a host and a port to bound sockets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
};

use tokio::net::TcpListener;

use super::listener::bind;

/// Binds every address of `host`: both loopbacks for `localhost`, all of the machine's for no host. Port 0 takes one free port
/// for all of them.
///
/// # Errors
/// The first address' error; that this machine has no IPv6 is none.
pub fn bind_host(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    let (required, optional) = addresses(host, port)?;
    /// With port 0, the second address may find the first one's port taken.
    const TRIES: usize = 20;
    let mut tries = 0;
    loop {
        tries += 1;
        match bind_together(&required, optional) {
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && tries < TRIES => {}
            done => return done,
        }
    }
}

fn bind_together(required: &[SocketAddr], optional: Option<SocketAddr>) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for mut address in required.iter().copied() {
        if let (0, Some(first)) = (address.port(), listeners.first()) {
            address.set_port(first.local_addr()?.port());
        }
        listeners.push(bind(address)?);
    }
    if let Some(mut address) = optional {
        if let (0, Some(first)) = (address.port(), listeners.first()) {
            address.set_port(first.local_addr()?.port());
        }
        match bind(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_unsupported(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

/// The addresses that must be bound, and one that is bound where the machine has its kind.
fn addresses(host: &str, port: u16) -> io::Result<(Vec<SocketAddr>, Option<SocketAddr>)> {
    let v6 = |ip: Ipv6Addr| SocketAddr::new(IpAddr::V6(ip), port);
    let v4 = |ip: Ipv4Addr| SocketAddr::new(IpAddr::V4(ip), port);
    if host.is_empty() {
        let everywhere = v6(Ipv6Addr::UNSPECIFIED);
        let supported = bind(SocketAddr::new(everywhere.ip(), 0)).is_ok();
        return Ok((vec![if supported { everywhere } else { v4(Ipv4Addr::UNSPECIFIED) }], None));
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok((vec![v4(Ipv4Addr::LOCALHOST)], Some(v6(Ipv6Addr::LOCALHOST))));
    }
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in (host, port).to_socket_addrs()? {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host name has no address"));
    }
    Ok((found, None))
}

fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_listens_on_one_port_for_every_loopback() {
        let listeners = bind_host("localhost", 0).expect("a free port");
        let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0), "{ports:?}");
        assert!(listeners.iter().all(|l| l.local_addr().expect("bound").ip().is_loopback()));
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let first = bind_host("127.0.0.1", 0).expect("a free port");
        let port = first[0].local_addr().expect("bound").port();
        assert_eq!(bind_host("127.0.0.1", port).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
