//! Where a daemon is: a host and the port for applications, on which it answers operators, too.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::error::CliError;

/// The port daemons listen on for applications.
pub(crate) const APP_PORT: u16 = 5672;
/// The daemon of this host.
pub(crate) const LOCALHOST: &str = "127.0.0.1";

/// An address as given. Shown, it is what it is read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Target {
    /// A host, which may bring its port along: `HOST`, `HOST:PORT`, `[IPV6]:PORT`. `port` beats it.
    pub(crate) fn new(host: &str, port: Option<u16>) -> Result<Self, CliError> {
        let target: Self = host.parse()?;
        Ok(Self { port: port.unwrap_or(target.port), ..target })
    }
}

impl FromStr for Target {
    type Err = CliError;

    fn from_str(text: &str) -> Result<Self, CliError> {
        let bad = |reason| CliError::BadAddress { text: text.to_owned(), reason };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) =
                    rest.split_once(']').ok_or_else(|| bad("the bracket is not closed"))?;
                if !is_ipv6(host) {
                    return Err(bad("brackets belong around an IPv6 address"));
                }
                match (rest, rest.strip_prefix(':')) {
                    ("", _) => (host, None),
                    (_, Some(port)) => (host, Some(port)),
                    _ => return Err(bad("behind the bracket belongs :PORT or nothing")),
                }
            }
            None if is_ipv6(text) => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            return Err(bad("it is no host name and no IP address"));
        }
        let port = match port {
            None => APP_PORT,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(bad("the port is not a number from 1 to 65535")),
                Ok(port) => port,
            },
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

/// An address, which may be of an interface: `fe80::1%eth0`.
fn is_ipv6(host: &str) -> bool {
    let (address, zone) = host.split_once('%').map_or((host, None), |(it, zone)| (it, Some(zone)));
    address.parse::<Ipv6Addr>().is_ok() && zone != Some("")
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V4(address) => IpAddr::V4(*address.ip()).to_string(),
            SocketAddr::V6(address) => match address.scope_id() {
                0 => address.ip().to_string(),
                scope => format!("{}%{scope}", address.ip()),
            },
        };
        Self { host, port: address.port() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Target {
    /// As the authority of a URL, which knows no interfaces.
    pub(crate) fn authority(&self) -> String {
        let host = self.host.split('%').next().unwrap_or_default();
        Self { host: host.to_owned(), port: self.port }.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        text.parse::<Target>().map(|target| target.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_host_may_bring_its_port_along() {
        assert_eq!(shown("localhost"), Ok("localhost:5672".to_owned()));
        assert_eq!(shown("10.0.0.1:7000"), Ok("10.0.0.1:7000".to_owned()));
        assert_eq!(shown("::1"), Ok("[::1]:5672".to_owned()));
        assert_eq!(shown("[fe80::1]:7000"), Ok("[fe80::1]:7000".to_owned()));
        assert_eq!(shown("fe80::1%eth0"), Ok("[fe80::1%eth0]:5672".to_owned()));
        let scoped = SocketAddrV6::new([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), 7_000, 0, 4);
        let target = Target::from(SocketAddr::V6(scoped)).to_string();
        assert_eq!(shown(&target), Ok("[fe80::1%4]:7000".to_owned()));
        let target = Target::new("localhost:7000", Some(8_000)).expect("valid");
        assert_eq!(target.to_string(), "localhost:8000");
    }

    #[test]
    fn what_is_no_address_is_told() {
        for text in [
            "",
            ":1",
            "a b",
            "host:0",
            "host:99999",
            "[::1",
            "[host]:1",
            "a/b",
            "[::1]garbage",
            "[::1]:",
            "[::1%]:1",
        ] {
            let error = shown(text).expect_err(text);
            assert!(error.starts_with(&format!("bad address `{text}`: ")), "{error}");
        }
    }
}
