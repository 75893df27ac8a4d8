//! The listeners of a node, bound before any of its threads runs, so that a start that fails leaves
//! nothing behind.

use std::net::{IpAddr, SocketAddr};

use nexusd_core::io::listener::{ListenAddress, ListenError, Listener, UnixAddress};

use crate::config::{Config, UnixSocket};

/// How many free ports are tried until one is free on all addresses.
const FREE_PORTS_TRIED: usize = 16;

/// What a node listens on.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) all: Vec<Listener>,
    /// In the order of `--bind`, with the real port.
    pub(crate) tcp: Vec<SocketAddr>,
    /// As clients write it.
    pub(crate) unix: Option<String>,
}

impl Listeners {
    /// Binds everything `config` asks for.
    pub(crate) fn bind(config: &Config) -> Result<Self, ListenError> {
        let mut all = bind_tcp(&config.bind, config.app_port)?;
        let tcp: Vec<SocketAddr> = all.iter().filter_map(tcp_address).collect();
        let port = tcp.first().map_or(config.app_port, SocketAddr::port);
        let unix = match &config.unix_socket {
            UnixSocket::None => None,
            UnixSocket::Auto => Some(UnixAddress::Abstract(format!("nexusd/{port}"))),
            UnixSocket::At(address) => Some(address.clone()),
        };
        let unix = unix.map(Listener::unix).transpose()?;
        let unix_name = unix.as_ref().map(|unix| unix.local_address().to_string());
        all.extend(unix);
        Ok(Self { all, tcp, unix: unix_name })
    }
}

/// One listener per address, all on the same port.
fn bind_tcp(addresses: &[IpAddr], port: u16) -> Result<Vec<Listener>, ListenError> {
    let mut attempts = 1;
    loop {
        match bind_tcp_once(addresses, port) {
            // A port that is free on the first address may be taken on another.
            Err(ListenError::InUse { .. }) if port == 0 && attempts < FREE_PORTS_TRIED => {
                attempts += 1;
            }
            bound => return bound,
        }
    }
}

fn bind_tcp_once(addresses: &[IpAddr], mut port: u16) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = Listener::tcp(SocketAddr::new(*address, port))?;
        port = tcp_address(&listener).map_or(port, |address| address.port());
        listeners.push(listener);
    }
    Ok(listeners)
}

fn tcp_address(listener: &Listener) -> Option<SocketAddr> {
    match listener.local_address() {
        ListenAddress::Tcp(address) => Some(address),
        ListenAddress::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn config() -> Config {
        Config {
            bind: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            app_port: 0,
            ..Config::default()
        }
    }

    #[test]
    fn all_addresses_share_the_free_port_and_the_unix_socket_is_named_after_it() {
        let listeners = Listeners::bind(&config()).expect("free addresses");
        let [four, six] = listeners.tcp[..] else {
            panic!("two addresses: {:?}", listeners.tcp);
        };
        assert_ne!(four.port(), 0);
        assert_eq!(four.port(), six.port());
        assert_eq!(listeners.unix, Some(format!("@nexusd/{}", four.port())));
        assert_eq!(listeners.all.len(), 3);
    }

    #[test]
    fn a_taken_unix_socket_frees_the_ports_again() {
        let taken = Listeners::bind(&config()).expect("free addresses");
        let name = taken.unix.as_deref().unwrap_or_default().replace('@', "");
        let unlucky =
            Config { unix_socket: UnixSocket::At(UnixAddress::Abstract(name)), ..config() };
        let error = Listeners::bind(&unlucky).expect_err("the name is taken");
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    }

    #[test]
    fn without_a_unix_socket_there_is_tcp_alone() {
        let listeners = Listeners::bind(&Config { unix_socket: UnixSocket::None, ..config() })
            .expect("free addresses");
        assert_eq!((listeners.unix, listeners.all.len()), (None, 2));
    }
}
