//! Where a daemon is, as a user writes it, and the places to try for it in order.
//!
//! `HOST`, `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH` or `unix:@NAME`. A host that is this machine by
//! its name or number gets the daemon's unix socket, `@nexusd/<port>`, as its first place: the
//! daemon derives that name from its own port, and both names live in the same network namespace,
//! so whoever answers there is the daemon of that port.

use std::fmt;
use std::net::Ipv6Addr;

use crate::error::Error;

/// The port daemons listen on for applications.
const DEFAULT_PORT: u16 = 5672;

/// An address as given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(UnixName),
}

/// The name of a unix socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum UnixName {
    Path(String),
    /// In the abstract namespace, which Linux alone has.
    Abstract(String),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::BadAddress { address: text.to_owned(), reason };
        if let Some(name) = text.strip_prefix("unix:") {
            return match (name.strip_prefix('@'), name) {
                (Some(""), _) | (None, "") => Err(bad("a unix socket needs a path or @NAME")),
                (Some(name), _) => Ok(Self::Unix(UnixName::Abstract(name.to_owned()))),
                (None, path) => Ok(Self::Unix(UnixName::Path(path.to_owned()))),
            };
        }
        let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
            let (host, rest) =
                bracketed.split_once(']').ok_or_else(|| bad("the bracket is not closed"))?;
            host.parse::<Ipv6Addr>().map_err(|_| bad("brackets belong around an IPv6 address"))?;
            match rest {
                "" => (host, None),
                rest => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
            }
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(bad("the port is not a number from 1 to 65535")),
                Ok(port) => port,
            },
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    /// The places to try, best first.
    pub(crate) fn places(&self, prefer_unix: bool) -> Vec<Self> {
        match self {
            Self::Tcp { host, port }
                if prefer_unix && cfg!(target_os = "linux") && is_this_machine(host) =>
            {
                let name = UnixName::Abstract(format!("nexusd/{port}"));
                vec![Self::Unix(name), self.clone()]
            }
            place => vec![place.clone()],
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(UnixName::Path(path)) => write!(f, "unix:{path}"),
            Self::Unix(UnixName::Abstract(name)) => write!(f, "unix:@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (given, shown) in [
            ("localhost", "localhost:5672"),
            ("localhost:1234", "localhost:1234"),
            ("10.0.0.7:5673", "10.0.0.7:5673"),
            ("[::1]:9", "[::1]:9"),
            ("[::1]", "[::1]:5672"),
            ("::1", "[::1]:5672"),
            ("unix:/run/nexusd.sock", "unix:/run/nexusd.sock"),
            ("unix:@nexusd/5672", "unix:@nexusd/5672"),
        ] {
            assert_eq!(Address::parse(given).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for given in [
            "",
            ":5672",
            "host:",
            "host:0",
            "host:65536",
            "host:port",
            "[::1",
            "[host]:1",
            "[::1]1:2",
            "unix:",
            "unix:@",
        ] {
            assert!(matches!(Address::parse(given), Err(Error::BadAddress { .. })), "{given}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_unix_socket_comes_first_on_this_machine_alone() {
        let places = |text| -> Vec<String> {
            Address::parse(text).unwrap().places(true).iter().map(ToString::to_string).collect()
        };
        assert_eq!(places("localhost:77"), ["unix:@nexusd/77", "localhost:77"]);
        assert_eq!(places("127.0.0.1:7"), ["unix:@nexusd/7", "127.0.0.1:7"]);
        assert_eq!(places("[::1]:7"), ["unix:@nexusd/7", "[::1]:7"]);
        assert_eq!(places("example.org:7"), ["example.org:7"]);
        let tcp = Address::parse("localhost:77").unwrap();
        assert_eq!(tcp.places(false), [tcp]);
    }
}
