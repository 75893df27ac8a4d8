//! `cargo xtask demo`: the first thing a newcomer runs. Builds, shows a few messages flowing through
//! a real daemon, measures it for some seconds and leaves nothing behind.

use std::process::Child;
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

Needs Rust, a C compiler and git, and a Linux kernel from 6.1 on that allows io_uring.
";

/// How long the subscriber may take to have shown its messages.
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

/// Starts the subscriber example, then the publisher example, and waits until the subscriber has
/// shown what it was to wait for.
fn show_messages(daemon: &Daemon) -> Result<()> {
    let example = |name: &str| repository::release_binary("examples").join(name);
    let mut subscriber = Invocation::new(example("subscribe"))
        .args([&daemon.address, "sensors/#", "--count", "6"])
        .into_command()
        .spawn()
        .context("the subscriber example could not be started")?;
    let published = Invocation::new(example("publish"))
        .args([&daemon.address, "sensors/kitchen/temperature", "--count", "6"])
        .run();
    let shown = wait(&mut subscriber);
    published?;
    shown
}

fn wait(subscriber: &mut Child) -> Result<()> {
    let deadline = Instant::now() + MESSAGES_TIMEOUT;
    loop {
        match subscriber.try_wait().context("cannot ask after the subscriber")? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("the subscriber ended badly: {status}"),
            None if Instant::now() > deadline => {
                let _ = subscriber.kill();
                let _ = subscriber.wait();
                bail!("the subscriber did not see its messages within {MESSAGES_TIMEOUT:?}");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn measure(daemon: &Daemon, load_core: usize) -> Result<()> {
    for (workload, rate) in [("T1", "max"), ("L", "100k")] {
        Invocation::new(repository::release_binary("nexusd-loadgen"))
            .args(["--workload", workload, "--rate", rate, "--duration", "3s"])
            .args(["--addr", &daemon.address, "--server-pid", &daemon.pid().to_string()])
            .args(["--load-core", &load_core.to_string()])
            .run()?;
    }
    Ok(())
}
