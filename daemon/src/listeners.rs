//! The listeners of a node, bound before any of its threads runs, so that a start that fails leaves
//! nothing behind.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use nexusd_core::io::listener::{ListenAddress, ListenError, Listener, UnixAddress};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, DiscoveryMode, HttpPort, UnixSocket};
use crate::error::StartError;

/// How many free ports are tried until one is free on all addresses.
const FREE_PORTS_TRIED: usize = 16;

/// Connections to an HTTP port that wait to be accepted.
const HTTP_BACKLOG: i32 = 128;

/// What a node listens on.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) all: Vec<Listener>,
    /// In the order of `--bind`, with the real port.
    pub(crate) tcp: Vec<SocketAddr>,
    /// As clients write it.
    pub(crate) unix: Option<String>,
    /// For the signs of life and the JSON interface, and for metrics; none where they are off.
    pub(crate) health: HttpListeners,
    pub(crate) metrics: HttpListeners,
    /// What other nodes reach; `None` for a node on its own.
    pub(crate) mesh: Option<MeshListeners>,
}

/// What other nodes reach. Both lists are in the order of `--bind`, all on the same port.
#[derive(Debug)]
pub(crate) struct MeshListeners {
    /// For links.
    pub(crate) links: Vec<Listener>,
    /// For beacons to this node alone. They do not block.
    pub(crate) beacons: Vec<UdpSocket>,
    /// Where they are, with the real port.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// A port that speaks HTTP, on each address of `--bind`, in their order. They do not block.
#[derive(Default, Debug)]
pub(crate) struct HttpListeners {
    pub(crate) sockets: Vec<TcpListener>,
    /// Where they are, with the real port.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl HttpListeners {
    fn bind(bind: &[IpAddr], port: HttpPort, setting: &'static str) -> Result<Self, StartError> {
        let HttpPort::At(port) = port else { return Ok(Self::default()) };
        on_free_port(port, |mut port| {
            let mut listeners = Self::default();
            for address in bind {
                let address = SocketAddr::new(*address, port);
                let refused = |source| StartError::Http { address, setting, source };
                let socket = bind_http(address).map_err(refused)?;
                let address = socket.local_addr().map_err(refused)?;
                port = address.port();
                listeners.sockets.push(socket);
                listeners.addresses.push(address);
            }
            Ok(listeners)
        })
    }
}

fn bind_http(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier daemon that linger do not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(HTTP_BACKLOG)?;
    Ok(socket.into())
}

impl Listeners {
    /// Binds everything `config` asks for. What others use is told at once, and not one by one.
    pub(crate) fn bind(config: &Config) -> Result<Self, StartError> {
        let mut taken = Taken::default();
        let bound =
            on_free_port(config.app_port, |port| bind_tcp(&config.bind, port, "--app-port"));
        let mut all = taken.unless_taken(bound)?;
        let tcp: Vec<SocketAddr> = all.iter().filter_map(tcp_address).collect();
        let port = tcp.first().map_or(config.app_port, SocketAddr::port);
        let unix = match &config.unix_socket {
            UnixSocket::None => None,
            // Whoever has the port has the name that is made of it.
            UnixSocket::Auto if tcp.is_empty() => None,
            UnixSocket::Auto => Some(UnixAddress::Abstract(format!("nexusd/{port}"))),
            UnixSocket::At(address) => Some(address.clone()),
        };
        let listening = |source| StartError::Listen { setting: "--unix-socket", source };
        let unix = taken.unless_taken(unix.map(Listener::unix).transpose().map_err(listening))?;
        let unix_name = unix.as_ref().map(|unix| unix.local_address().to_string());
        all.extend(unix);
        let mesh = match config.discovery {
            DiscoveryMode::Multicast | DiscoveryMode::Static => {
                let bound = on_free_port(config.mesh_port, |port| bind_mesh(&config.bind, port));
                taken.unless_taken(bound.map(Some))?
            }
            DiscoveryMode::Off => None,
        };
        let metrics_port = if config.metrics_enabled { config.metrics_port } else { HttpPort::Off };
        let health = HttpListeners::bind(&config.bind, config.health_port, "--health-port");
        let health = taken.unless_taken(health)?;
        let metrics = HttpListeners::bind(&config.bind, metrics_port, "--metrics-port");
        let metrics = taken.unless_taken(metrics)?;
        taken.told()?;
        Ok(Self { all, tcp, unix: unix_name, health, metrics, mesh })
    }
}

/// What could not be bound because another program uses it.
#[derive(Default)]
struct Taken(Vec<StartError>);

impl Taken {
    /// What was bound; nothing in place of what another program uses, which is remembered.
    fn unless_taken<T: Default>(&mut self, bound: Result<T, StartError>) -> Result<T, StartError> {
        match bound {
            Err(error) if is_in_use(&error) => {
                self.0.push(error);
                Ok(T::default())
            }
            bound => bound,
        }
    }

    fn told(mut self) -> Result<(), StartError> {
        match (self.0.pop(), self.0.is_empty()) {
            (None, _) => Ok(()),
            (Some(alone), true) => Err(alone),
            (Some(last), false) => {
                self.0.push(last);
                Err(StartError::Taken(self.0))
            }
        }
    }
}

/// Binds several sockets that share a port. With port 0 that is a free one, and one that is free for
/// the first of them may be taken for another.
fn on_free_port<T>(
    port: u16,
    bind: impl Fn(u16) -> Result<T, StartError>,
) -> Result<T, StartError> {
    let mut attempts = 1;
    loop {
        match bind(port) {
            Err(error) if port == 0 && attempts < FREE_PORTS_TRIED && is_in_use(&error) => {
                attempts += 1;
            }
            bound => return bound,
        }
    }
}

fn is_in_use(error: &StartError) -> bool {
    match error {
        StartError::Listen { source, .. } => matches!(source, ListenError::InUse { .. }),
        StartError::Beacons { source, .. } | StartError::Http { source, .. } => {
            source.kind() == io::ErrorKind::AddrInUse
        }
        _ => false,
    }
}

fn bind_mesh(bind: &[IpAddr], port: u16) -> Result<MeshListeners, StartError> {
    let links = bind_tcp(bind, port, "--mesh-port")?;
    let addresses: Vec<SocketAddr> = links.iter().filter_map(tcp_address).collect();
    let beacons = addresses.iter().map(|address| {
        bind_udp(*address).map_err(|source| StartError::Beacons {
            address: *address,
            setting: "--mesh-port",
            source,
        })
    });
    Ok(MeshListeners { beacons: beacons.collect::<Result<_, _>>()?, links, addresses })
}

/// A socket that does not block, on an address that nobody shares.
pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// One listener per address, all on the same port.
fn bind_tcp(
    addresses: &[IpAddr],
    mut port: u16,
    setting: &'static str,
) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = Listener::tcp(SocketAddr::new(*address, port))
            .map_err(|source| StartError::Listen { setting, source })?;
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
            mesh_port: 0,
            health_port: HttpPort::Off,
            metrics_port: HttpPort::Off,
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
        assert!(is_in_use(&error), "{error}");
    }

    #[test]
    fn links_and_beacons_share_a_port_of_their_own() {
        let listeners = Listeners::bind(&config()).expect("free addresses");
        let mesh = listeners.mesh.expect("it is not off");
        assert_eq!(mesh.links.iter().filter_map(tcp_address).collect::<Vec<_>>(), mesh.addresses);
        let beacons: Vec<_> =
            mesh.beacons.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        assert_eq!(beacons, mesh.addresses);
        assert_eq!(mesh.addresses[0].port(), mesh.addresses[1].port());
        assert_ne!(mesh.addresses[0].port(), listeners.tcp[0].port());
    }

    #[test]
    fn a_node_on_its_own_has_no_port_for_others() {
        let config = Config { discovery: DiscoveryMode::Off, ..config() };
        assert!(Listeners::bind(&config).expect("free addresses").mesh.is_none());
    }

    /// A UDP port that is taken while nobody listens on the same one of TCP, and what is said of that.
    fn beacon_port_taken() -> (UdpSocket, u16, String) {
        loop {
            let udp = bind_udp("127.0.0.1:0".parse().expect("an address")).expect("a port");
            let port = udp.local_addr().expect("bound").port();
            let error = Listeners::bind(&Config { mesh_port: port, ..config() });
            let error = error.expect_err("the UDP port is taken").to_string();
            if !error.starts_with("cannot listen") {
                return (udp, port, error);
            }
        }
    }

    #[test]
    fn a_taken_port_for_links_or_beacons_is_one_clear_sentence() {
        let (udp, port, error) = beacon_port_taken();
        let taken = || Listeners::bind(&Config { mesh_port: port, ..config() });
        assert_eq!(
            error,
            format!(
                "cannot receive beacons on UDP 127.0.0.1:{port}: the address is already in use; \
                     stop the program that uses it or choose another --mesh-port"
            )
        );
        drop(udp);
        let first = taken().expect("free again");
        let error = taken().expect_err("the TCP port is taken").to_string();
        assert!(error.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{error}");
        drop(first);
    }

    #[test]
    fn without_a_unix_socket_there_is_tcp_alone() {
        let listeners = Listeners::bind(&Config { unix_socket: UnixSocket::None, ..config() })
            .expect("free addresses");
        assert_eq!((listeners.unix, listeners.all.len()), (None, 2));
    }
}
