//! `cargo xtask demo`: the first thing a newcomer runs. Builds, shows a few messages flowing through
//! a real daemon, measures it for some seconds and leaves nothing behind.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::daemon::Daemon;
use crate::invocation::Invocation;
use crate::{cores, repository};

pub(crate) const HELP: &str = "\
Usage: cargo xtask demo

Builds the daemon, the load generator and two examples with full optimisation (a few minutes the
first time), then, on free ports of this machine:

  1. starts a daemon
  2. starts a subscriber and a publisher, and shows the messages that arrive
  3. measures throughput and latency for some seconds and prints a table
  4. stops the daemon

Needs Rust, a C compiler and git, and Linux: 6.1 or newer with io_uring allowed for full speed.
";

/// Messages to show.
const MESSAGES: u32 = 8;
/// Slow enough to watch.
const READING_INTERVAL: Duration = Duration::from_millis(150);
/// The load generator's exit code for figures that do not count.
const INVALID_RUN: i32 = 1;
/// How long both may take to have shown their messages and ended.
const MESSAGES_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<()> {
    if let Some(argument) = parser.next()? {
        return Err(argument.unexpected().into());
    }
    println!("Building NexusD with full optimisation; a few minutes the first time.");
    Invocation::cargo()
        .args(["build", "--release", "--locked"])
        .args(["--package", "nexusd", "--package", "nexusd-loadgen", "--package", "nexusd-client"])
        .args(["--bin", "nexusd", "--bin", "nexusd-loadgen"])
        .args(["--example", "subscribe", "--example", "publish"])
        .run()?;

    println!("\n1. A daemon");
    let (daemon_core, load_core) = cores::for_daemon_and_load();
    let daemon = Daemon::start(&repository::release_binary("nexusd"), daemon_core)?;
    println!("   {}", daemon.ready_line);

    println!("\n2. Messages, each shown by the subscriber as it arrives");
    show_messages(&daemon)?;

    println!("\n3. Figures");
    measure(&daemon, load_core)?;

    daemon.stop()?;
    println!("\nThe daemon has stopped. Next: cargo xtask test");
    Ok(())
}

/// Starts the subscriber and the publisher among the client's examples, and lets readings flow
/// until the subscriber has shown its share. What was published before it had subscribed is not
/// for it, so nobody has to wait for anybody.
fn show_messages(daemon: &Daemon) -> Result<()> {
    let count = MESSAGES.to_string();
    let wanted = ["--count", &count, "sensors/+/temp"];
    let mut subscriber = Example::start("subscribe", daemon, &wanted, Stdio::null())?;
    let mut publisher =
        Example::start("publish", daemon, &["sensors/kitchen/temp"], Stdio::piped())?;
    let mut lines = publisher.child.stdin.take().context("the publisher has a standard input")?;
    let deadline = Instant::now() + MESSAGES_TIMEOUT;
    let mut tenths = 205;
    while !subscriber.has_ended_well()? {
        if Instant::now() > deadline {
            bail!("the subscriber did not show {count} messages within {MESSAGES_TIMEOUT:?}");
        }
        thread::sleep(READING_INTERVAL);
        writeln!(lines, "{}.{} °C", tenths / 10, tenths % 10).context("the publisher has ended")?;
        tenths += 1;
    }
    // The end of its input ends the publisher.
    drop(lines);
    while !publisher.has_ended_well()? {
        if Instant::now() > deadline {
            bail!("the publisher did not end within {MESSAGES_TIMEOUT:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A running example of the client. Dropping it ends it.
struct Example {
    name: &'static str,
    child: Child,
}

impl Example {
    fn start(
        name: &'static str,
        daemon: &Daemon,
        arguments: &[&str],
        stdin: Stdio,
    ) -> Result<Self> {
        let invocation = Invocation::new(repository::release_binary("examples").join(name))
            .args(["--daemon", &daemon.address])
            .args(arguments);
        println!("   $ {}", invocation.line());
        let child = invocation
            .into_command()
            .stdin(stdin)
            .spawn()
            .with_context(|| format!("the example `{name}` could not be started"))?;
        Ok(Self { name, child })
    }

    fn has_ended_well(&mut self) -> Result<bool> {
        match self.child.try_wait().with_context(|| format!("cannot ask after `{}`", self.name))? {
            Some(status) if status.success() => Ok(true),
            Some(status) => bail!("the example `{}` ended badly: {status}", self.name),
            None => Ok(false),
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Only after a failure elsewhere; nothing more can be done if this fails, too.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn measure(daemon: &Daemon, load_core: usize) -> Result<()> {
    let mut all_valid = true;
    for (workload, rate) in [("T1", "max"), ("L", "100k")] {
        let status = Invocation::new(repository::release_binary("nexusd-loadgen"))
            .args(["--workload", workload, "--rate", rate, "--duration", "3s"])
            .args(["--addr", &daemon.address, "--server-pid", &daemon.pid().to_string()])
            .args(["--load-core", &load_core.to_string()])
            .status()?;
        match status.code() {
            Some(0) => {}
            Some(INVALID_RUN) => all_valid = false,
            _ => bail!("the load generator failed: {status}; its reason stands above"),
        }
    }
    if !all_valid {
        println!(
            "A run that is not valid says why below its table. On a busy machine that is common: \
             let it come to rest and repeat."
        );
    }
    Ok(())
}
