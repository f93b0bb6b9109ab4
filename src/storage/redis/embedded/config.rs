//! The private server's configuration file.

use std::path::Path;

use super::Options;

/// Everything that differs from Redis' own defaults.
pub(super) fn text(options: &Options, data_dir: &Path, socket: &Path, log: &Path) -> String {
    let maxmemory = options.maxmemory_bytes.to_string();
    let settings: [(&str, &str); 26] = [
        // Reached through the socket only, by this user only.
        ("port", "0"),
        ("unixsocketperm", "700"),
        ("protected-mode", "yes"),
        ("daemonize", "no"),
        ("databases", "1"),
        // Every write is in the kernel's hands before it is answered; Weir syncs the file once a second.
        ("appendonly", "yes"),
        ("appendfsync", "no"),
        // Weir cuts off what was written in part, before.
        ("aof-load-truncated", "no"),
        ("save", ""),
        // Rewriting a small file costs more than the space it gives back.
        ("auto-aof-rewrite-min-size", "2gb"),
        ("auto-aof-rewrite-percentage", "300"),
        // Compressing batches that are compressed already only costs CPU.
        ("rdbcompression", "no"),
        ("maxmemory", &maxmemory),
        ("maxmemory-policy", "noeviction"),
        ("maxmemory-clients", "50%"),
        ("stream-node-max-bytes", "16384"),
        ("stream-node-max-entries", "400"),
        // A hash of hundreds of fields is slow to write as a listpack.
        ("hash-max-listpack-entries", "32"),
        ("lazyfree-lazy-eviction", "yes"),
        ("lazyfree-lazy-expire", "yes"),
        ("lazyfree-lazy-server-del", "yes"),
        ("lazyfree-lazy-user-del", "yes"),
        ("lazyfree-lazy-user-flush", "yes"),
        ("latency-tracking", "no"),
        ("timeout", "0"),
        ("always-show-logo", "no"),
    ];
    let mut out = String::from("# Written by Weir at each start; changes here are lost.\n");
    for (name, value) in settings {
        out.push_str(&format!("{name} {}\n", quoted(value.as_bytes())));
    }
    for (name, path) in [("dir", data_dir), ("unixsocket", socket), ("logfile", log)] {
        use std::os::unix::ffi::OsStrExt;
        out.push_str(&format!("{name} {}\n", quoted(path.as_os_str().as_bytes())));
    }
    out
}

/// As Redis reads a quoted argument.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(*byte)]),
            byte if byte.is_ascii_graphic() || *byte == b' ' => out.push(char::from(*byte)),
            byte => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_would_split_is_quoted() {
        assert_eq!(quoted(b"/a b/\"c\"\\"), r#""/a b/\"c\"\\""#);
        assert_eq!(quoted("/ü".as_bytes()), r#""/\xc3\xbc""#);
        assert_eq!(quoted(b""), "\"\"");
    }
}
