//! Listeners: where the broker listens, and how clients are told to reach it.

use super::{ConfigError, Given};

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    pub bind: Address,
    /// What clients are told; `None` follows [`Listener::bind`].
    pub advertised: Option<Address>,
}

/// A host and a port as a person writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Without brackets; empty for every address of the machine.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// `HOST:PORT`; an IPv6 address has brackets, and `*`, `0.0.0.0`, `[::]` and no host at all mean every address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or("HOST:PORT: the port is missing")?;
        let port = port.parse().map_err(|_| format!("a port from 0 to 65535, not {port:?}"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or("an IPv6 address in brackets, as in [::1]:9092")?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| format!("an IPv6 address, not {inner:?}"))?;
                inner
            }
            None if host.contains(':') => return Err("an IPv6 address in brackets, as in [::1]:9092".to_owned()),
            None => host,
        };
        if host.chars().any(|c| c.is_whitespace() || "/@?#".contains(c)) {
            return Err(format!("a host name or an IP address, not {host:?}"));
        }
        let host = if host == "*" { "" } else { host };
        Ok(Self { host: host.to_owned(), port })
    }

    pub fn is_everywhere(&self) -> bool {
        self.host.is_empty() || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

const DEFAULT_NAME: &str = "PLAINTEXT";

struct Named {
    name: Option<String>,
    address: Address,
}

fn named(setting: &str, text: &str, given: &Given) -> Result<Named, ConfigError> {
    let invalid = |expected: String| ConfigError::Invalid {
        name: setting.to_owned(),
        value: text.to_owned(),
        origin: given.origin.clone(),
        expected,
    };
    let (name, rest) = match text.split_once("://") {
        Some((name, rest)) => (Some(name.to_ascii_uppercase()), rest),
        None => (None, text),
    };
    let legal = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if name.as_deref().is_some_and(|name| !legal(name)) {
        return Err(invalid("[NAME://]HOST:PORT with a name of letters, digits, dots, _ and -".to_owned()));
    }
    Ok(Named { name, address: Address::parse(rest).map_err(invalid)? })
}

/// Joins `listen` and `advertise`.
pub(super) fn listeners(listen: &Given, advertise: &Given) -> Result<Vec<Listener>, ConfigError> {
    let mut listeners: Vec<Listener> = Vec::new();
    for text in split(listen) {
        let Named { name, address } = named("listen", &text, listen)?;
        let name = name.unwrap_or_else(|| DEFAULT_NAME.to_owned());
        if listeners.iter().any(|other| other.name == name) {
            return Err(ConfigError::Conflict(format!(
                "two listeners are named {name} ({}): name each, as in `INTERNAL://{address}`",
                listen.origin
            )));
        }
        listeners.push(Listener { name, bind: address, advertised: None });
    }
    if listeners.is_empty() {
        return Err(ConfigError::Conflict(format!("`listen` ({}) names no address: give at least one", listen.origin)));
    }
    for text in split(advertise) {
        let Named { name, address } = named("advertise", &text, advertise)?;
        if address.port == 0 || address.is_everywhere() {
            return Err(ConfigError::Invalid {
                name: "advertise".to_owned(),
                value: text,
                origin: advertise.origin.clone(),
                expected: "a host and a port that clients can connect to".to_owned(),
            });
        }
        let names: Vec<String> = listeners.iter().map(|listener| listener.name.clone()).collect();
        let listener = match (&name, listeners.as_mut_slice()) {
            (None, [only]) => only,
            (name, all) => {
                let wanted = name.as_deref().unwrap_or(DEFAULT_NAME);
                all.iter_mut().find(|listener| listener.name == wanted).ok_or_else(|| {
                    ConfigError::Conflict(format!(
                        "`advertise` ({}) names the listener {wanted}, but `listen` has {}: use one of these",
                        advertise.origin,
                        names.join(", ")
                    ))
                })?
            }
        };
        if listener.advertised.replace(address).is_some() {
            return Err(ConfigError::Conflict(format!(
                "`advertise` ({}) gives listener {} two addresses: give one",
                advertise.origin, listener.name
            )));
        }
    }
    Ok(listeners)
}

fn split(given: &Given) -> Vec<String> {
    given
        .values
        .iter()
        .flat_map(|text| text.split(','))
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .collect()
}
