//! A daemon as a process of its own.
//!
//! `NEXUSD_TESTS_IO` says how it talks to the kernel (`uring` or `epoll`), so that the same tests can
//! be run on each driver; without it the daemon chooses.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::address::Address;
use crate::binary::{forget_settings, nexusd, path};
use crate::client::Client;
use crate::process::{Usage, usage};
use crate::{SOON, eventually};

/// Free ports of the loopback addresses, no other nodes, and a quiet log.
const FLAGS: [&str; 8] =
    ["--bind", "127.0.0.1,::1", "--app-port", "0", "--discovery", "off", "--log-level", "warn"];

/// The driver that the tests are run on, if somebody chose one.
fn chosen_io() -> Option<String> {
    std::env::var("NEXUSD_TESTS_IO").ok()
}

/// [`FLAGS`], and the choice of the driver.
fn flags() -> Vec<String> {
    let io = chosen_io().map(|io| ["--io".to_owned(), io]);
    FLAGS.map(str::to_owned).into_iter().chain(io.into_iter().flatten()).collect()
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    ready_line: String,
    stderr: Option<JoinHandle<String>>,
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
        command.args(self::flags()).args(flags);
        Self::start_command(command)
    }

    /// Starts a daemon that, with its connections, may open this many files.
    pub fn start_with_open_files(limit: u32, flags: &[&str]) -> Self {
        let mut command = Command::new("sh");
        forget_settings(&mut command);
        command.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", &limit.to_string()]);
        command.arg(path()).args(self::flags()).args(flags);
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
        let stderr = child.stderr.take().map(read_to_end);
        let mut daemon = Self { child, ready_line: String::new(), stderr };
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
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a running daemon");
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
        let log = self.stderr.take().map(|reader| reader.join().expect("no panic"));
        Ended { status: status.expect("waited for"), log: log.unwrap_or_default(), took }
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_to_end(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        // What was read until an error is all there is.
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}
