//! Another process of this program: a server to measure, or many idle clients.
//!
//! It talks in lines: what it is told stands on its standard input, what it answers on its standard
//! output. It ends when its standard input does, which is when this value is dropped or this process
//! dies, however that happens.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts this program with these arguments.
    pub(crate) fn start(arguments: &[String]) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let lines = lines_of(child.stdout.take());
        Ok(Self { child, stdin, lines })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it something.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(format!("{line}\n").as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Waits for the next line it says.
    pub(crate) fn answer(&self, timeout: Duration) -> Result<String, RecvTimeoutError> {
        self.lines.recv_timeout(timeout)
    }

    /// Asks it to end, and does not wait until it has.
    pub(crate) fn let_go(&mut self) {
        drop(self.stdin.take());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.let_go();
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
