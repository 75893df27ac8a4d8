//! Runs `nexusd-cli` and keeps what it says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A command line, for the daemon at this address.
pub(crate) fn command(address: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexusd-cli"));
    // Errors that should come at once still do; a busy machine gets its time.
    command.args(["-h", address, "--timeout", "20s"]).args(words);
    command
}

/// Runs a command to its end.
pub(crate) fn run(address: &str, words: &[&str]) -> Said {
    said(command(address, words))
}

/// Runs this to its end.
pub(crate) fn said(mut command: Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs the prompt with these lines.
pub(crate) fn script(address: &str, lines: impl AsRef<[u8]>) -> Said {
    let mut child = command(address, &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(lines.as_ref()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The document of a command that succeeds.
pub(crate) fn document(address: &str, words: &[&str]) -> Value {
    let said = run(address, &[&["--json"], words].concat());
    assert_eq!(said.code, Some(0), "{words:?}: {}{}", said.out, said.err);
    serde_json::from_str(&said.out)
        .unwrap_or_else(|error| panic!("{words:?}: {error}: {}", said.out))
}

/// A command that goes on until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Of a script: closed with this.
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
    told: BufReader<ChildStderr>,
}

impl Running {
    pub(crate) fn start(address: &str, words: &[&str]) -> Self {
        Self::of(command(address, words), Stdio::null())
    }

    /// The same without a timeout for busy machines.
    pub(crate) fn start_plainly(address: &str, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexusd-cli"));
        command.args(["-h", address]).args(words);
        Self::of(command, Stdio::null())
    }

    /// A script whose lines are still to be written.
    pub(crate) fn script(address: &str) -> Self {
        Self::of(command(address, &[]), Stdio::piped())
    }

    fn of(mut command: Command, stdin: Stdio) -> Self {
        let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let told = BufReader::new(child.stderr.take().expect("piped"));
        Self { stdin: child.stdin.take(), child, lines, told }
    }

    /// Writes lines of a script.
    pub(crate) fn write(&mut self, lines: &str) {
        let stdin = self.stdin.as_mut().expect("a script");
        stdin.write_all(lines.as_bytes()).expect("it reads");
    }

    /// The next line, once it comes; `None` at its end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.lines.read_line(&mut line).expect("text") > 0).then_some(line)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// Waits for its end; returns its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.wait().expect("our child").code()
    }

    /// The next line that it says on stderr, once it comes.
    pub(crate) fn told_line(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).expect("text");
        line
    }

    /// What it has said on stderr, once it has ended.
    pub(crate) fn told(&mut self) -> String {
        let mut told = String::new();
        self.told.read_to_string(&mut told).expect("text");
        told
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a running process");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
