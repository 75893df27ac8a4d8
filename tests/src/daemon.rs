//! A daemon as a process of its own.
//!
//! `TESTS_NEXUSD_IO` says how it talks to the kernel (`uring` or `epoll`), so that the same tests can
//! be run on each driver; without it the daemon chooses.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::address::Address;
use crate::binary::{Release, forget_settings, nexusd};
use crate::client::Client;
use crate::process::{Usage, usage};
use crate::say::note;
use crate::{SOON, eventually, soon};

/// Free ports of the loopback addresses, no other nodes, and a quiet log.
const FLAGS: [&str; 8] =
    ["--bind", "127.0.0.1,::1", "--app-port", "0", "--discovery", "off", "--log-level", "warn"];

/// Free ports of the loopback interface, and a log that tells who comes and goes. Who else there is, the
/// test says.
const NODE_FLAGS: [&str; 10] = [
    "--bind",
    "127.0.0.1",
    "--app-port",
    "0",
    "--unix-socket",
    "none",
    "--interface",
    "lo",
    "--log-level",
    "info",
];

/// The driver that the tests are run on, if somebody chose one.
fn chosen_io() -> Option<String> {
    std::env::var("TESTS_NEXUSD_IO").ok()
}

/// These flags, and the choice of the driver.
fn with_io(flags: &[&str]) -> Vec<String> {
    let io = chosen_io().map(|io| ["--io".to_owned(), io]);
    flags.iter().map(|&flag| flag.to_owned()).chain(io.into_iter().flatten()).collect()
}

/// A running daemon. Dropping it kills it; amid a failure it says first who it was and shows its log.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    ready_line: String,
    log: Arc<Mutex<String>>,
    stderr: Option<JoinHandle<()>>,
}

/// How a daemon ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All it wrote to stderr.
    pub log: String,
    /// How long it took from the signal.
    pub took: Duration,
}

impl Daemon {
    /// Starts a daemon on free ports with these flags besides.
    pub fn start(flags: &[&str]) -> Self {
        let mut command = nexusd();
        command.args(with_io(&FLAGS)).args(flags);
        Self::start_command(command)
    }

    /// Starts a daemon that others of this host find, on free ports of 127.0.0.1, with these flags
    /// besides: those that say who belongs to it, and its `--mesh-port`.
    pub fn start_node(flags: &[&str]) -> Self {
        let mut command = nexusd();
        command.args(with_io(&NODE_FLAGS)).args(flags);
        Self::start_command(command)
    }

    /// Starts a daemon of a release with these flags alone, by way of a program that becomes it, such as
    /// `ip netns exec HOST`.
    pub fn start_through(program: &[&str], release: Release, flags: &[&str]) -> Self {
        let mut command = Command::new(program[0]);
        forget_settings(&mut command);
        command.args(&program[1..]).arg(release.path()).args(with_io(flags));
        Self::start_command(command)
    }

    /// Starts a daemon that, with its connections, may open this many files.
    pub fn start_with_open_files(limit: u32, flags: &[&str]) -> Self {
        let mut command = Command::new("sh");
        forget_settings(&mut command);
        command.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", &limit.to_string()]);
        command.arg(Release::This.path()).args(with_io(&FLAGS)).args(flags);
        Self::start_command(command)
    }

    fn start_command(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let stdout = child.stdout.take().expect("piped");
        let log = Arc::default();
        let stderr = child.stderr.take().map(|stderr| keep(stderr, Arc::clone(&log)));
        let mut daemon = Self { child, ready_line: String::new(), log, stderr };
        let (lines, first_line) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Read on when nobody listens any more, so that the daemon never waits for us.
                let _ = lines.send(line);
            }
        });
        match first_line.recv_timeout(SOON) {
            Ok(line) => daemon.ready_line = line,
            Err(_) => {
                let _ = daemon.child.kill();
                panic!("no ready line; the daemon said: {}", daemon.wait().log);
            }
        }
        assert!(daemon.ready_line.starts_with("NexusD is ready "), "{}", daemon.ready_line);
        if let Some(io) = chosen_io() {
            assert_eq!(daemon.told("io"), io);
        }
        daemon
    }

    /// What the ready line says about `name`.
    pub fn told(&self, name: &str) -> &str {
        self.ready_line
            .split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("{name}= in {:?}", self.ready_line))
    }

    /// Its port on 127.0.0.1.
    pub fn v4(&self) -> Address {
        self.tcp(SocketAddr::is_ipv4)
    }

    /// Its port on ::1.
    pub fn v6(&self) -> Address {
        self.tcp(SocketAddr::is_ipv6)
    }

    /// Its unix socket.
    pub fn unix(&self) -> Address {
        Address::Unix(self.told("unix").to_owned())
    }

    fn tcp(&self, wanted: fn(&SocketAddr) -> bool) -> Address {
        let addresses = self.told("tcp").split(',');
        addresses
            .map(|address| address.parse().expect("an address"))
            .find(wanted)
            .map(Address::Tcp)
            .expect("an address of that family")
    }

    /// Where it publishes its statistics.
    pub fn statistics_topic(&self) -> String {
        format!("$SYS/{}/stats", self.told("node"))
    }

    /// Where other nodes reach it.
    pub fn mesh(&self) -> SocketAddr {
        self.told("mesh").parse().expect("one address")
    }

    /// A client on its IPv4 port, welcomed.
    pub fn client(&self) -> Client {
        Client::connect(&self.v4())
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Usage {
        usage(self.child.id()).expect("a running daemon")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills it, and waits until the kernel has ended all that was its.
    pub fn kill(&mut self) -> Ended {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Stops it where it stands, with its sockets open.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a running daemon");
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the line that holds this text has been written so often since the start; returns
    /// how long that took.
    pub fn wait_for_line(&self, text: &str, times: usize) -> Duration {
        soon(&format!("{:?} says {times} times {text:?}", self.ready_line), || {
            self.log().matches(text).count() >= times
        })
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Ended {
        let since = Instant::now();
        let mut status = None;
        eventually("the daemon has ended", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        let took = since.elapsed();
        if let Some(reader) = self.stderr.take() {
            reader.join().expect("no panic");
        }
        Ended { status: status.expect("waited for"), log: self.log(), took }
    }

    /// Ends it by SIGTERM and checks that it was well until then.
    pub fn end_well(mut self) {
        assert!(self.is_running(), "the daemon ended by itself: {}", self.wait().log);
        self.terminate();
        let ended = self.wait();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            note(&format!("{}, process {}\n{}", self.ready_line, self.child.id(), self.log()));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps what a daemon says, as it says it.
fn keep(stderr: ChildStderr, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        // What was read until an error is all there is.
        while stderr.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line);
            log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            line.clear();
        }
    })
}
