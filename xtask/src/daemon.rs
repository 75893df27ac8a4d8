//! A daemon that a command starts for itself on free ports, and ends again whatever happens.

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cores;
use crate::invocation::Invocation;

/// How long it may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to end after SIGTERM; longer than its own `--drain-timeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A running daemon. Dropping it ends it.
pub(crate) struct Daemon {
    child: Child,
    /// Where applications connect: `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// Its unix socket, as the load generator takes it.
    pub(crate) unix_socket: String,
    /// What it said when it was ready.
    pub(crate) ready_line: String,
}

impl Daemon {
    /// Starts `program` on a free port of the loopback interface, on one core, as a node on its own.
    pub(crate) fn start(program: &Path, core: usize) -> Result<Self> {
        Self::start_with(program, core, &["--discovery", "off"])
    }

    /// Starts nodes that find each other and no others, on the loopback interface, on the cores in turn.
    pub(crate) fn start_mesh(
        program: &Path,
        nodes: usize,
        name: &str,
        flags: &[&str],
    ) -> Result<Vec<Self>> {
        let free = UdpSocket::bind(("0.0.0.0", 0)).context("no free UDP port")?;
        let port = free.local_addr().context("no free UDP port")?.port().to_string();
        drop(free);
        // The port may be somebody else's as well; the cluster is ours.
        let cluster = format!("{name}-{}", std::process::id());
        let mesh = ["--cluster", &cluster, "--mcast-port", &port, "--mesh-port", "0"];
        let flags = [&mesh[..], &["--interface", "lo"], flags].concat();
        let cores = cores::allowed();
        let core = |at: usize| cores.get(at % cores.len().max(1)).copied().unwrap_or(0);
        (0..nodes).map(|at| Self::start_with(program, core(at), &flags)).collect()
    }

    fn start_with(program: &Path, core: usize, flags: &[&str]) -> Result<Self> {
        let invocation = Invocation::new("taskset")
            .args(["--cpu-list", &core.to_string()])
            .arg(program)
            .args(["--bind", "127.0.0.1", "--app-port", "0", "--unix-socket", "auto"])
            .args(["--health-port", "off", "--metrics-port", "off"])
            .args(["--log-level", "warn"])
            .args(flags);
        let line = invocation.line();
        let mut child = invocation
            .into_command()
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{line}` could not be started"))?;
        let stdout = child.stdout.take().context("the daemon has a standard output")?;
        let mut daemon = Self {
            child,
            address: String::new(),
            unix_socket: String::new(),
            ready_line: String::new(),
        };
        daemon.ready_line = first_line(stdout).with_context(|| {
            format!("`{line}` did not say that it is ready; its reason stands above")
        })?;
        let address = |transport| {
            address(&daemon.ready_line, transport)
                .map(str::to_owned)
                .with_context(|| format!("no address in the ready line `{}`", daemon.ready_line))
        };
        (daemon.address, daemon.unix_socket) = (address("tcp=")?, address("unix=")?);
        Ok(daemon)
    }

    /// Its process id. taskset becomes the daemon, so this is the daemon's own.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its id, as it says it.
    pub(crate) fn node(&self) -> Option<&str> {
        address(&self.ready_line, "node=")
    }

    /// Ends it as an operator would, with SIGTERM, and fails when it does not end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.terminate()?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            match self.child.try_wait().context("cannot ask after the daemon")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the daemon ended badly: {status}"),
                None if Instant::now() > deadline => {
                    bail!("the daemon did not end within {STOP_TIMEOUT:?} of SIGTERM")
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn terminate(&self) -> Result<()> {
        // The shell's own `kill`: a minimal Debian has no program of that name.
        let status = Command::new("sh")
            .args(["-c", "kill -TERM \"$1\"", "sh", &self.pid().to_string()])
            .status()
            .context("cannot start sh")?;
        if !status.success() {
            bail!("the daemon is gone already");
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Only after a failure elsewhere; nothing more can be done if this fails, too.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn first_line(stdout: impl std::io::Read + Send + 'static) -> Result<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let result = reader.read_line(&mut line).map(|_| line);
        // Nobody waits any more after the timeout.
        let _ = sender.send(result);
        // Read on, so that the daemon never writes to a closed pipe.
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    let line = receiver.recv_timeout(READY_TIMEOUT).context("nothing within 10 s")??;
    if line.is_empty() {
        bail!("it ended");
    }
    Ok(line.trim_end().to_owned())
}

/// What stands behind a name such as `tcp=`; of several addresses the first.
fn address<'a>(ready_line: &'a str, name: &str) -> Option<&'a str> {
    let addresses = ready_line.split(' ').find_map(|word| word.strip_prefix(name))?;
    addresses.split(',').next().filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_stands_in_the_ready_line() {
        let line = "NexusD is ready tcp=127.0.0.1:40123,[::1]:40123 unix=@nexusd/40123 node=7f";
        assert_eq!(address(line, "tcp="), Some("127.0.0.1:40123"));
        assert_eq!(address(line, "unix="), Some("@nexusd/40123"));
        assert_eq!(address("NexusD is ready tcp= unix=none", "tcp="), None);
        assert_eq!(address("something else", "tcp="), None);
    }

    #[test]
    fn a_program_that_ends_without_a_ready_line_is_an_error() {
        let error = Daemon::start(Path::new("/bin/false"), 0).err().expect("no ready line");
        assert!(format!("{error:#}").contains("did not say that it is ready"), "{error:#}");
    }
}
