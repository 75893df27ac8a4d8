//! Servers of others, started with the settings that make the most of one core and drop nothing early.
//!
//! The program is looked for on the PATH. It listens on a free port of loopback, and ends with the process
//! that started it, as the daemon does, even if that is killed (`dependent.rs`).

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Addresses, dependent};
use crate::error::LoadError;
use crate::target::Target;

/// How long a server may take until it can be connected to.
const START_TIMEOUT: Duration = Duration::from_secs(8);
/// How long it waits between two attempts.
const ATTEMPT_EVERY: Duration = Duration::from_millis(20);

/// What of a Zenoh router is not its default: nothing but routing, and room for many clients. Its short
/// queues are its best: with 16 batches instead of two, T1 is a tenth slower.
const ZENOH_SETTINGS: [&str; 4] = [
    "scouting/gossip/enabled:false",
    "adminspace/enabled:false",
    "plugins_loading/enabled:false",
    "transport/unicast/max_sessions:100000",
];

/// A server of another system.
#[derive(Debug)]
pub(super) struct Peer {
    child: Child,
    address: SocketAddr,
    /// Its configuration, if it wants a file.
    configuration: Option<PathBuf>,
}

impl Peer {
    /// Starts one and waits until it takes connections.
    pub(super) fn start(target: Target, program: &str) -> Result<Self, LoadError> {
        let failed = |cause: String| LoadError::Spawn { target: target.name(), cause };
        let address = free_address().map_err(|error| failed(error.to_string()))?;
        let port = address.port().to_string();
        let mut command = dependent::command(program).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed(format!("{program} is not on the PATH")),
            _ => failed(error.to_string()),
        })?;
        let mut configuration = None;
        match target {
            Target::Nexusd | Target::Pump | Target::Relay => {}
            Target::Nats => {
                // One thread, as everybody has.
                command.env("GOMAXPROCS", "1").args(["-a", "127.0.0.1", "-p", &port]);
            }
            Target::Redis => {
                command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]);
                command.args(["--appendonly", "no", "--io-threads", "1"]);
                command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
            }
            Target::Mqtt => {
                // Another user's process would outlive this one.
                let path = std::env::temp_dir().join(format!("loadgen-mqtt-{port}.conf"));
                let text = format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n\
                     user root\nmax_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 0\n"
                );
                fs::write(&path, text).map_err(|error| failed(error.to_string()))?;
                command.arg("-c").arg(&path);
                configuration = Some(path);
            }
            Target::Zenoh => {
                // One thread that receives and routes; while that waits for room, another must send.
                command.env("ZENOH_RUNTIME", "(rx: (worker_threads: 1))");
                command.args(["--listen", &format!("tcp/127.0.0.1:{port}")]);
                command.args(["--no-multicast-scouting", "--no-timestamp"]);
                command.args(ZENOH_SETTINGS.iter().flat_map(|setting| ["--cfg", setting]));
            }
        }
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|error| failed(error.to_string()))?;
        let mut peer = Self { child, address, configuration };
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
        Addresses { tcp: Some(self.address), pid: Some(self.child.id()), ..Addresses::default() }
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

/// An address that nobody listens on at the moment.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
