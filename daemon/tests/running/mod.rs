//! The binary as a child process: started with flags, watched, signalled, and never left behind.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything the daemon should do soon.
const SOON: Duration = Duration::from_secs(20);

/// Flags of a daemon that is alone with whoever knows its port.
pub(crate) const ALONE: [&str; 6] =
    ["--bind", "127.0.0.1", "--app-port", "0", "--discovery", "off"];

/// The binary, without the settings of whoever runs the tests.
pub(crate) fn nexusd() -> Command {
    without_settings(env!("CARGO_BIN_EXE_nexusd"))
}

/// A program that a daemon may come of, without the settings of whoever runs the tests.
pub(crate) fn without_settings(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NEXUSD_") {
            command.env_remove(name);
        }
    }
    // Many daemons run side by side.
    command.env("NEXUSD_HEALTH_PORT", "off").env("NEXUSD_METRICS_PORT", "off");
    command
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    nexusd().args(args).output().expect("the binary runs")
}

/// A daemon that said it is ready.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) ready_line: String,
    stderr: Option<JoinHandle<String>>,
}

impl Daemon {
    /// On its own, on a free port of the loopback address.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(&[&ALONE, args].concat())
    }

    /// With these flags alone.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        let mut command = nexusd();
        command.args(args);
        Self::start_command(command)
    }

    /// A daemon that this command becomes.
    pub(crate) fn start_command(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stdout = child.stdout.take().expect("piped");
        let lines = lines_of(BufReader::new(stdout));
        let stderr = child.stderr.take().map(read_to_end);
        let ready_line = lines.recv_timeout(SOON).expect("a ready line on stdout");
        Self { child, ready_line, stderr }
    }

    /// What the ready line says about `name`.
    pub(crate) fn told(&self, name: &str) -> &str {
        self.ready_line
            .split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("{name}= in {:?}", self.ready_line))
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the daemon runs");
    }

    /// Waits for the end; returns how it ended and all it logged.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            assert!(Instant::now() < deadline, "the daemon should have ended");
            thread::sleep(Duration::from_millis(5));
        };
        let stderr = self.stderr.take().map(|reader| reader.join().expect("no panic"));
        (status, stderr.unwrap_or_default())
    }

    /// Ends it by SIGTERM.
    pub(crate) fn terminate(&mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.end()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(reader: impl BufRead + Send + 'static) -> Receiver<String> {
    let (lines, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn read_to_end(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).expect("UTF-8");
        text
    })
}
