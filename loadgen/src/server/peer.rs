//! Servers of others, started with the settings that make the most of one core and drop nothing early.
//!
//! The program is looked for on the PATH. It listens on a free port of loopback, and ends with the process
//! that started it, as the daemon does, even if that is killed (`dependent.rs`).
//!
//! Of several, each is told where those before it take links: servers of NATS by routes, routers of Zenoh by
//! connecting to each other, without scouting.
//!
//! Where a subscriber stalls, queues without a bound would be no honest setting: there each has its own
//! bounds. NATS has them everywhere, since no subscriber that reads comes near them: 64 MiB for a client
//! (`max_pending`), 10 s for a write (`write_deadline`), and publishers held back for a moment for a
//! subscriber that is late.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Addresses, ServerOptions, dependent};
use crate::error::LoadError;
use crate::target::Target;

/// How long a server may take until it can be connected to.
const START_TIMEOUT: Duration = Duration::from_secs(8);
/// How long it waits between two attempts.
const ATTEMPT_EVERY: Duration = Duration::from_millis(20);
/// Connections that Redis queues until it accepts them; the kernel takes less if it allows no more.
const BACKLOG: &str = "4096";

/// What of a Zenoh router is not its default: nothing but routing, and room for many clients, also while they
/// are being let in. Its short queues are its best: with 16 batches instead of two, T1 is a tenth slower.
const ZENOH_SETTINGS: [&str; 5] = [
    "scouting/gossip/enabled:false",
    "adminspace/enabled:false",
    "plugins_loading/enabled:false",
    "transport/unicast/max_sessions:100000",
    "transport/unicast/accept_pending:100000",
];

/// A server of another system.
#[derive(Debug)]
pub(super) struct Peer {
    child: Child,
    address: SocketAddr,
    /// Where it takes links from others of a mesh.
    mesh: Option<SocketAddr>,
    /// Its configuration, if it wants a file.
    configuration: Option<PathBuf>,
}

impl Peer {
    /// Starts one and waits until it takes connections.
    pub(super) fn start(
        target: Target,
        program: &str,
        options: &ServerOptions,
    ) -> Result<Self, LoadError> {
        let failed = |cause: String| LoadError::Spawn { target: target.name(), cause };
        let address = free_address().map_err(|error| failed(error.to_string()))?;
        let mut command = dependent::command(program).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed(format!("{program} is not on the PATH")),
            _ => failed(error.to_string()),
        })?;
        let (mut mesh, mut configuration) = (None, None);
        match target {
            Target::Nexusd | Target::NexusdGrpc | Target::Pump | Target::Relay => {}
            Target::Nats => {
                mesh = set_nats(&mut command, address, options)
                    .map_err(|error| failed(error.to_string()))?;
            }
            Target::Redis => set_redis(&mut command, address, options),
            Target::Mqtt => {
                let path = set_mqtt(&mut command, address, options);
                configuration = Some(path.map_err(|error| failed(error.to_string()))?);
            }
            Target::Zenoh => {
                set_zenoh(&mut command, address, options);
                mesh = Some(address);
            }
        }
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|error| failed(error.to_string()))?;
        let mut peer = Self { child, address, mesh, configuration };
        peer.await_start().map_err(failed)?;
        Ok(peer)
    }

    fn await_start(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended at once: {status}"));
            }
            if TcpStream::connect_timeout(&self.address, ATTEMPT_EVERY).is_ok() {
                return Ok(());
            }
            thread::sleep(ATTEMPT_EVERY);
        }
        Err(format!("it took no connection within {} s", START_TIMEOUT.as_secs()))
    }

    /// Where it listens, and which process it is.
    pub(super) fn addresses(&self) -> Addresses {
        Addresses {
            tcp: Some(self.address),
            mesh: self.mesh,
            pid: Some(self.child.id()),
            ..Addresses::default()
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It has nothing to keep; whether it can be killed, nothing more can be done.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(path) = &self.configuration {
            let _ = fs::remove_file(path);
        }
    }
}

/// One thread, as everybody has. Returns where it takes routes, if it is one of several.
fn set_nats(
    command: &mut Command,
    address: SocketAddr,
    options: &ServerOptions,
) -> io::Result<Option<SocketAddr>> {
    let port = address.port().to_string();
    command.env("GOMAXPROCS", "1").args(["-a", "127.0.0.1", "-p", &port]);
    let Some(cluster) = &options.mesh.cluster else {
        return Ok(None);
    };
    let mesh = free_address()?;
    command.args(["--cluster", &format!("nats://{mesh}"), "--cluster_name", cluster]);
    if !options.mesh.peers.is_empty() {
        let routes: Vec<_> =
            options.mesh.peers.iter().map(|peer| format!("nats-route://{peer}")).collect();
        command.args(["--routes", &routes.join(",")]);
    }
    Ok(Some(mesh))
}

fn set_redis(command: &mut Command, address: SocketAddr, options: &ServerOptions) {
    let port = address.port().to_string();
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]);
    command.args(["--appendonly", "no", "--io-threads", "1", "--tcp-backlog", BACKLOG]);
    if !options.bounded {
        command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
    }
    if let Some(connections) = options.connections_max {
        command.args(["--maxclients", &connections.to_string()]);
    }
}

/// Returns the file that it is configured by.
fn set_mqtt(
    command: &mut Command,
    address: SocketAddr,
    options: &ServerOptions,
) -> io::Result<PathBuf> {
    let port = address.port();
    // Another user's process would outlive this one.
    let mut text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nuser root\n"
    );
    if !options.bounded {
        text += "max_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 0\n";
    }
    let path = std::env::temp_dir().join(format!("loadgen-mqtt-{port}.conf"));
    fs::write(&path, text)?;
    command.arg("-c").arg(&path);
    Ok(path)
}

/// One thread that receives and routes; while that waits for room, another must send.
fn set_zenoh(command: &mut Command, address: SocketAddr, options: &ServerOptions) {
    command.env("ZENOH_RUNTIME", "(rx: (worker_threads: 1))");
    command.args(["--listen", &format!("tcp/{address}")]);
    command.args(["--no-multicast-scouting", "--no-timestamp"]);
    command.args(ZENOH_SETTINGS.iter().flat_map(|setting| ["--cfg", setting]));
    for peer in &options.mesh.peers {
        command.args(["--connect", &format!("tcp/{peer}")]);
    }
}

/// An address that nobody listens on at the moment.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
