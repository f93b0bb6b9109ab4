//! What the handlers of group APIs share.

use std::net::IpAddr;

use kafka_protocol::protocol::StrBytes;

use crate::net::Caller;

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The client's address as the JVM prints it, since tools show what Kafka shows: `/10.0.0.1`, `/0:0:0:0:0:0:0:1`.
pub(super) fn client_host(caller: &Caller) -> String {
    match caller.peer.ip().to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => format!("/{}", address.segments().map(|part| format!("{part:x}")).join(":")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_printed_as_kafka_prints_them() {
        for (peer, printed) in
            [("10.0.0.1:5", "/10.0.0.1"), ("[::1]:5", "/0:0:0:0:0:0:0:1"), ("[::ffff:10.0.0.1]:5", "/10.0.0.1")]
        {
            let caller = Caller { listener: 0, peer: peer.parse().expect("an address"), connection_id: 1 };
            assert_eq!(client_host(&caller), printed);
        }
    }
}
