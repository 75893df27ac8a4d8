//! The server under test: started here and pinned, or already running somewhere; and what it costs.

pub(crate) mod account;
pub(crate) mod sends;
pub(crate) mod serve;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nexusd::config::IoEngine;
use serde::{Deserialize, Serialize};

use self::account::Account;
use crate::connection::Endpoint;
use crate::error::LoadError;
use crate::target::Target;
use crate::workload::Transport;

/// How long a server may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to say what it has sent.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How long it may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Where a server can be reached; a spawned one says so in a line of JSON when it is ready.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// Its TCP address.
    pub(crate) tcp: Option<SocketAddr>,
    /// Its unix socket: a path, or `@` and an abstract name.
    pub(crate) unix: Option<String>,
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
    origin: Origin,
}

impl Server {
    /// One that runs already; with its process id its cost can be stated.
    pub(crate) fn running(addresses: Addresses, pid: Option<u32>) -> Self {
        Self {
            addresses,
            account: pid.map_or(Account::Unknown, Account::Process),
            origin: Origin::Foreign,
        }
    }

    /// One inside this process, whose threads these are.
    pub(crate) fn embedded(addresses: Addresses, threads: Vec<u32>) -> Self {
        Self { addresses, account: Account::Threads(threads), origin: Origin::Embedded }
    }

    /// Starts one in a process of its own, pinned to `core`. It ends when this value is dropped, or
    /// when this process ends, however that happens.
    pub(crate) fn spawn(
        target: Target,
        core: usize,
        spin_us: u32,
        io: DaemonIo,
    ) -> Result<Self, LoadError> {
        let failed = |cause: String| LoadError::Spawn { target: target.name(), cause };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut child = Command::new(program)
            .args(["serve", target.name()])
            .args(["--core", &core.to_string()])
            .args(["--spin-us", &spin_us.to_string()])
            .args(["--io", io.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdin = child.stdin.take();
        let lines = lines_of(child.stdout.take());
        let process = Process { child, stdin, lines };
        let addresses = match process.lines.recv_timeout(READY_TIMEOUT) {
            Ok(line) => serde_json::from_str(&line).map_err(|error| failed(error.to_string()))?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(failed("it was not ready within 10 s".into()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let cause = "it ended before it was ready; its reason stands above";
                return Err(failed(cause.into()));
            }
        };
        Ok(Self {
            addresses,
            account: Account::Process(process.child.id()),
            origin: Origin::Spawned(process),
        })
    }

    /// What it has sent so far; `None` if it does not say.
    pub(crate) fn sends(&mut self) -> Option<SendTotals> {
        match &mut self.origin {
            Origin::Spawned(process) => process.sends(),
            Origin::Foreign | Origin::Embedded => None,
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

/// A server's process. A server ends when its standard input does.
#[derive(Debug)]
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    fn sends(&mut self) -> Option<SendTotals> {
        self.stdin.as_mut()?.write_all(b"\n").ok()?;
        let line = self.lines.recv_timeout(ANSWER_TIMEOUT).ok()?;
        serde_json::from_str(&line).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // It does not end by itself; whether killing it succeeds, nothing more can be done.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a server's standard output.
fn lines_of(stream: Option<ChildStdout>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let lines = stream.into_iter().flat_map(|stream| BufReader::new(stream).lines());
        for line in lines.map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
