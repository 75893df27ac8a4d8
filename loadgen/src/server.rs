//! The server under test: started here and pinned, or already running somewhere; and what it costs.

pub(crate) mod account;
pub(crate) mod dependent;
mod peer;
pub(crate) mod sends;
pub(crate) mod serve;

use std::net::SocketAddr;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nexusd::config::IoEngine;
use serde::{Deserialize, Serialize};

use self::account::Account;
use crate::connection::Endpoint;
use crate::error::LoadError;
use crate::process::Process;
use crate::target::Target;
use crate::workload::Transport;

/// How long a server may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to say what it has sent.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Where a server can be reached; a spawned one says so in a line of JSON when it is ready.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// Its TCP address.
    pub(crate) tcp: Option<SocketAddr>,
    /// Its unix socket: a path, or `@` and an abstract name.
    pub(crate) unix: Option<String>,
    /// Where a daemon takes links from others.
    #[serde(default)]
    pub(crate) mesh: Option<SocketAddr>,
    /// Its process, if that is not the one that says so.
    #[serde(default)]
    pub(crate) pid: Option<u32>,
    /// Whether it answers a line on its standard input with what it has sent.
    #[serde(default)]
    pub(crate) counts_sends: bool,
}

impl Addresses {
    /// The address for a transport, if the server has one.
    pub(crate) fn endpoint(&self, transport: Transport) -> Option<Endpoint> {
        match transport {
            Transport::Unix => self.unix.clone().map(Endpoint::Unix),
            Transport::Tcp | Transport::Both => self.tcp.map(Endpoint::Tcp),
        }
    }
}

/// How a daemon talks to the kernel; the daemon's own flag has the same values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum DaemonIo {
    /// io_uring, or epoll where it is refused.
    #[default]
    Auto,
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

impl DaemonIo {
    /// The value as given on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

impl From<DaemonIo> for IoEngine {
    fn from(io: DaemonIo) -> Self {
        match io {
            DaemonIo::Auto => Self::Auto,
            DaemonIo::Uring => Self::Uring,
            DaemonIo::Epoll => Self::Epoll,
        }
    }
}

/// How a server is started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub(crate) struct ServerOptions {
    /// Cores it runs on; empty leaves that to the kernel.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cores: Vec<usize>,
    /// How long it looks for work before it sleeps, in microseconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) spin_us: u32,
    /// Shards of a daemon; `None` leaves them to the daemon.
    #[arg(long)]
    pub(crate) shards: Option<usize>,
    /// Connections a server takes; `None` leaves them to it.
    #[arg(long)]
    pub(crate) connections_max: Option<usize>,
    /// Whether queues of subscribers have the bounds that they have by default; daemons' always do.
    #[arg(long)]
    pub(crate) bounded: bool,
    /// How a daemon talks to the kernel.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) io: DaemonIo,
    /// How a daemon finds others.
    #[command(flatten)]
    pub(crate) mesh: MeshOptions,
}

/// How a daemon finds others, all of them on this host.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub(crate) struct MeshOptions {
    /// The cluster it belongs to; `None` is a daemon on its own.
    #[arg(long)]
    pub(crate) cluster: Option<String>,
    /// The port of the multicast group, for beacons on the loopback interface; `None` sends none.
    #[arg(long)]
    pub(crate) mcast_port: Option<u16>,
    /// Where other nodes take links.
    #[arg(long = "peer")]
    pub(crate) peers: Vec<SocketAddr>,
    /// Whether it has the defaults of a small host.
    #[arg(long)]
    pub(crate) small: bool,
}

impl ServerOptions {
    /// As arguments of the hidden command `serve`.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--spin-us".to_owned(), self.spin_us.to_string()];
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--io", self.io.name().to_owned());
        for core in &self.cores {
            add("--cores", core.to_string());
        }
        if let Some(shards) = self.shards {
            add("--shards", shards.to_string());
        }
        if let Some(connections) = self.connections_max {
            add("--connections-max", connections.to_string());
        }
        if self.bounded {
            arguments.push("--bounded".to_owned());
        }
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        let MeshOptions { cluster, mcast_port, peers, small } = &self.mesh;
        if let Some(cluster) = cluster {
            add("--cluster", cluster.clone());
        }
        if let Some(port) = mcast_port {
            add("--mcast-port", port.to_string());
        }
        for peer in peers {
            add("--peer", peer.to_string());
        }
        if *small {
            arguments.push("--small".to_owned());
        }
        arguments
    }
}

/// How a server came to run.
#[derive(Debug)]
enum Origin {
    /// It ran already.
    Foreign,
    /// It runs inside this process.
    Embedded,
    /// We started it; it ends with this value.
    Spawned(Process),
}

/// A server to measure.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it is.
    pub(crate) addresses: Addresses,
    /// What it costs, if that can be known.
    pub(crate) account: Account,
    /// The core it is pinned to by us, if to one alone.
    pub(crate) core: Option<usize>,
    origin: Origin,
}

/// A server whose process was started and that may not be ready yet.
#[derive(Debug)]
pub(crate) struct StartingServer {
    target: Target,
    core: Option<usize>,
    process: Process,
}

impl StartingServer {
    /// Starts one in a process of its own, pinned. It ends when this value is dropped, or what it
    /// becomes, or when this process ends, however that happens.
    pub(crate) fn start(target: Target, options: &ServerOptions) -> Result<Self, LoadError> {
        let mut arguments = vec!["serve".to_owned(), target.name().to_owned()];
        arguments.extend(options.arguments());
        let process = Process::start(&arguments).map_err(|error| LoadError::Spawn {
            target: target.name(),
            cause: error.to_string(),
        })?;
        let core = match options.cores.as_slice() {
            [core] => Some(*core),
            _ => None,
        };
        Ok(Self { target, core, process })
    }

    /// Waits until it is ready.
    pub(crate) fn ready(self, timeout: Duration) -> Result<Server, LoadError> {
        let failed = |cause: String| LoadError::Spawn { target: self.target.name(), cause };
        let addresses: Addresses = match self.process.answer(timeout) {
            Ok(line) => serde_json::from_str(&line).map_err(|error| failed(error.to_string()))?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(failed(format!("it was not ready within {} s", timeout.as_secs())));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let cause = "it ended before it was ready; its reason stands above";
                return Err(failed(cause.into()));
            }
        };
        let pid = addresses.pid.unwrap_or_else(|| self.process.id());
        Ok(Server {
            addresses,
            account: Account::Process(pid),
            core: self.core,
            origin: Origin::Spawned(self.process),
        })
    }
}

impl Server {
    /// One that runs already; with its process id its cost can be stated.
    pub(crate) fn running(addresses: Addresses, pid: Option<u32>) -> Self {
        Self {
            addresses,
            account: pid.map_or(Account::Unknown, Account::Process),
            core: None,
            origin: Origin::Foreign,
        }
    }

    /// One inside this process, whose threads these are.
    pub(crate) fn embedded(addresses: Addresses, threads: Vec<u32>, core: Option<usize>) -> Self {
        Self { addresses, account: Account::Threads(threads), core, origin: Origin::Embedded }
    }

    /// Starts one in a process of its own, pinned, and waits until it is ready.
    pub(crate) fn spawn(target: Target, options: &ServerOptions) -> Result<Self, LoadError> {
        StartingServer::start(target, options)?.ready(READY_TIMEOUT)
    }

    /// Asks it to end if we started it, and does not wait until it has.
    pub(crate) fn let_go(&mut self) {
        if let Origin::Spawned(process) = &mut self.origin {
            process.let_go();
        }
    }

    /// Where it can be reached over a transport.
    pub(crate) fn endpoint(&self, transport: Transport) -> Result<Endpoint, LoadError> {
        self.addresses.endpoint(transport).ok_or_else(|| {
            LoadError::Usage(format!(
                "the server has no {} address; see --transport",
                transport.name()
            ))
        })
    }

    /// What it has sent so far; `None` if it does not say.
    pub(crate) fn sends(&mut self) -> Option<SendTotals> {
        match &mut self.origin {
            Origin::Spawned(process) if self.addresses.counts_sends => {
                process.tell("").ok()?;
                serde_json::from_str(&process.answer(ANSWER_TIMEOUT).ok()?).ok()
            }
            Origin::Spawned(_) | Origin::Foreign | Origin::Embedded => None,
        }
    }

    /// Whether it runs on the core we gave it.
    pub(crate) fn is_ours(&self) -> bool {
        !matches!(self.origin, Origin::Foreign)
    }
}

/// What a spawned server answers to a line on its standard input, if it counts its sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SendTotals {
    /// Sends carried out.
    pub(crate) sends: u64,
    /// Bytes they took along.
    pub(crate) bytes: u64,
}
