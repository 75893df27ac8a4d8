//! What a spawned server runs: the daemon as a library, the pump or the relay.
//!
//! It listens on a free port of loopback and on an abstract unix socket, prints its [`Addresses`] as
//! a line of JSON when it is ready, and ends when its standard input does, which is when the
//! generator that started it lets go of it or dies. Pump and relay answer a line there with what they
//! have sent; the daemon says so in its own statistics.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nexusd::config::{DiscoveryMode, HttpPort, InterfaceChoice, LogFormat, LogLevel, UnixSocket};
use nexusd::{Config, Invocation, Node};
use nexusd_core::io::listener::{ListenAddress, Listener, UnixAddress};
use nexusd_core::io::mailbox::mailbox;
use nexusd_core::io::ring::{UringDriver, UringOptions};
use nexusd_core::{Command, Limits, Report, Service};
use serde::Serialize;

use super::peer::Peer;
use super::{Addresses, MeshOptions, SendTotals, ServerOptions};
use crate::error::LoadError;
use crate::pinning;
use crate::pump::Pump;
use crate::relay::Relay;
use crate::target::Target;

/// Commands that wait for a forwarder; two samples and its end come.
const MAILBOX_COMMANDS: usize = 16;
/// The interface that nodes of this host find each other on.
const LOOPBACK: &str = "lo";
/// A measured node has nothing to flush when it is stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs a server until standard input ends.
pub(crate) fn serve(target: Target, options: &ServerOptions) -> Result<(), LoadError> {
    if !options.cores.is_empty() {
        pinning::pin_to(&options.cores)?;
    }
    match target {
        Target::Nexusd | Target::NexusdGrpc => serve_node(options),
        Target::Pump => serve_forwarder(target, &mut Pump::default(), options.spin_us),
        Target::Relay => serve_forwarder(target, &mut Relay::default(), options.spin_us),
        Target::Nats | Target::Redis | Target::Mqtt | Target::Zenoh => serve_peer(target, options),
    }
}

/// The server of another system, which has the cores of this process.
fn serve_peer(target: Target, options: &ServerOptions) -> Result<(), LoadError> {
    let peer = Peer::start(target, target.program().unwrap_or(target.name()), options)?;
    announce(&peer.addresses())?;
    read_input(|| {});
    Ok(())
}

/// What a node that is measured is started with; everything else is the daemon's default.
pub(crate) fn node_config(options: &ServerOptions) -> Result<Config, LoadError> {
    let MeshOptions { cluster, mcast_port, peers, small } = &options.mesh;
    let defaults = if *small { small_profile()? } else { Config::default() };
    let connections = options.connections_max.unwrap_or(defaults.limits.connections);
    let (discovery, multicast_port) = match (cluster, mcast_port) {
        (None, _) => (DiscoveryMode::Off, defaults.multicast_port),
        (Some(_), None) => (DiscoveryMode::Static, defaults.multicast_port),
        (Some(_), Some(port)) => (DiscoveryMode::Multicast, *port),
    };
    Ok(Config {
        cluster: cluster.clone().unwrap_or_else(|| defaults.cluster.clone()),
        limits: Limits { connections, ..defaults.limits.clone() },
        shards: options.shards.or(defaults.shards),
        bind: vec![Ipv4Addr::LOCALHOST.into()],
        app_port: 0,
        mesh_port: 0,
        health_port: HttpPort::Off,
        metrics_port: HttpPort::Off,
        discovery,
        multicast_port,
        interfaces: vec![InterfaceChoice::Name(LOOPBACK.to_owned())],
        peers: peers.iter().map(SocketAddr::to_string).collect(),
        unix_socket: UnixSocket::At(UnixAddress::Abstract(unix_name())),
        // Several cores, or one that several shards share, are the whole process's.
        pin: match options.cores.as_slice() {
            [core] if options.shards.is_none_or(|shards| shards == 1) => Some(*core),
            _ => None,
        },
        io: options.io.into(),
        spin_us: options.spin_us,
        drain_timeout: DRAIN_TIMEOUT,
        ..defaults
    })
}

/// The defaults of a small host.
fn small_profile() -> Result<Config, LoadError> {
    let arguments = ["nexusd", "--profile", "small"].map(OsString::from);
    let no_file = |_: &Path| Err(io::ErrorKind::NotFound.into());
    match Config::from_sources(arguments, [], no_file) {
        Ok(Invocation::Run(config)) => Ok(*config),
        Ok(Invocation::Print(text)) => Err(cannot_start(text)),
        Err(error) => Err(cannot_start(error.to_string())),
    }
}

fn cannot_start(cause: String) -> LoadError {
    LoadError::Spawn { target: Target::Nexusd.name(), cause }
}

/// A name that no other process has.
fn unix_name() -> String {
    format!("nexusd-loadgen/{}", std::process::id())
}

fn serve_node(options: &ServerOptions) -> Result<(), LoadError> {
    nexusd::logging::start(LogLevel::Warn, LogFormat::Text);
    let node =
        Node::start(node_config(options)?).map_err(|error| cannot_start(error.to_string()))?;
    announce(&node_addresses(&node))?;
    let drainer = node.drainer();
    thread::spawn(move || {
        read_input(|| {});
        drainer.drain();
    });
    node.wait().map_err(|error| cannot_start(error.to_string()))?;
    Ok(())
}

/// Where a node can be reached.
pub(crate) fn node_addresses(node: &Node) -> Addresses {
    Addresses {
        tcp: node.tcp_addresses().first().copied(),
        unix: node.unix_name().map(str::to_owned),
        mesh: node.mesh_addresses().first().copied(),
        ..Addresses::default()
    }
}

fn serve_forwarder(
    target: Target,
    service: &mut impl Service,
    spin_us: u32,
) -> Result<(), LoadError> {
    let failed = |cause: String| LoadError::Spawn { target: target.name(), cause };
    let tcp = Listener::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .map_err(|error| failed(error.to_string()))?;
    let unix = Listener::unix(UnixAddress::Abstract(unix_name()))
        .map_err(|error| failed(error.to_string()))?;
    let addresses = Addresses {
        tcp: match tcp.local_address() {
            ListenAddress::Tcp(address) => Some(address),
            ListenAddress::Unix(_) => None,
        },
        unix: Some(unix.local_address().to_string()),
        counts_sends: true,
        ..Addresses::default()
    };
    let (commands, receiver) =
        mailbox(MAILBOX_COMMANDS).map_err(|error| failed(error.to_string()))?;
    let options = UringOptions { spin_us, ..UringOptions::default() };
    let mut driver =
        UringDriver::new(&options, vec![tcp, unix], receiver, Box::new(|report| answer(&report)))
            .map_err(|error| failed(error.to_string()))?;
    announce(&addresses)?;
    thread::spawn(move || {
        // The mailbox has room, and a loop that has ended needs no more commands.
        read_input(|| drop(commands.send(Command::Sample)));
        drop(commands.send(Command::Drain { deadline_us: 0 }));
    });
    nexusd_core::run(&mut driver, service).map_err(|error| failed(error.to_string()))
}

/// Says what was sent so far. Nobody listens any more if that fails.
fn answer(report: &Report) {
    let Report::Metrics(metrics) = report else { return };
    let totals = SendTotals { sends: metrics.sends, bytes: metrics.bytes_out };
    drop(write_line(&totals));
}

/// Says where the server listens.
fn announce(addresses: &Addresses) -> Result<(), LoadError> {
    write_line(addresses)
        .map_err(|source| LoadError::System { what: "cannot say where the server listens", source })
}

fn write_line(content: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(content)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Reads standard input to its end; each line asks for what was counted.
fn read_input(on_line: impl Fn()) {
    for _line in io::stdin().lock().lines().map_while(Result::ok) {
        on_line();
    }
}
