//! An application in a process of its own, to be killed.
//!
//! Applications are small binaries of this package. They print a line at each point that a test waits
//! for, and end by themselves when the test does: their input ends then.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::SOON;

/// A running application. Dropping it kills it.
#[derive(Debug)]
pub struct Application {
    child: Child,
    lines: Receiver<String>,
}

impl Application {
    /// Runs a binary.
    pub fn start(binary: &str, arguments: &[String]) -> Self {
        let mut child = Command::new(binary)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{binary}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Whoever no longer listens does not want to know.
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits until it prints this line.
    ///
    /// # Panics
    /// If another one comes, or none.
    pub fn wait_for(&self, line: &str) {
        let printed = self.lines.recv_timeout(SOON);
        assert_eq!(printed.as_deref(), Ok(line), "what the application printed");
    }

    /// Kills it as `kill -9` does. When it is dropped its sockets are closed.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
    }

    /// Waits until it ends by itself, all being well.
    pub fn end_well(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("our child");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an application does until its test is over, or kills it.
pub fn wait_for_the_end() -> io::Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}
