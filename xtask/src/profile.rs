//! `cargo xtask profile`: samples the daemon with perf while the load generator drives it.

use std::fs;
use std::thread;

use anyhow::{Context as _, Result};
use lexopt::prelude::*;

use crate::daemon::Daemon;
use crate::invocation::Invocation;
use crate::{cores, repository, tool};

pub(crate) const HELP: &str = "\
Usage: cargo xtask profile [--workload NAME] [--size BYTES] [--seconds N]

Starts the daemon on one core and the load generator on another, samples the daemon with perf for N
seconds (default 5) under one workload (default T1, 128 B), and prints the functions that take its
cycles, kernel included. The recording stays in target/profile/perf.data for
`perf report` or a flame graph.

Needs perf: cargo xtask setup bench
";

/// Functions below this share of the cycles are left out of the table.
const PERCENT_MIN: &str = "0.5";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<()> {
    let mut workload = "T1".to_owned();
    let mut size = 128_u32;
    let mut seconds = 5_u64;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("workload") => workload = parser.value()?.string()?,
            Long("size") => size = parser.value()?.parse()?,
            Long("seconds") => seconds = parser.value()?.parse()?,
            _ => return Err(argument.unexpected().into()),
        }
    }
    let perf = tool::PERF.require()?;
    Invocation::cargo()
        .args(["build", "--release", "--locked", "--package", "nexusd", "--package"])
        .arg("nexusd-loadgen")
        .run()?;
    let folder = repository::target().join("profile");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let recording = folder.join("perf.data");

    let (daemon_core, load_core) = cores::for_daemon_and_load();
    let daemon = Daemon::start(&repository::release_binary("nexusd"), daemon_core)?;
    // The load runs a second longer at either end than the recording.
    let load = Invocation::new(repository::release_binary("nexusd-loadgen"))
        .args(["--workload", &workload, "--size", &size.to_string()])
        .args(["--addr", &daemon.address, "--load-core", &load_core.to_string()])
        .args(["--warmup", "1s", "--duration"])
        .arg(format!("{}s", seconds + 1));
    let load = thread::spawn(move || load.run());
    thread::sleep(std::time::Duration::from_secs(1));
    let recorded = Invocation::new(&perf)
        .args(["record", "--quiet", "--freq", "997", "--pid"])
        .arg(daemon.pid().to_string())
        .arg("--output")
        .arg(&recording)
        .args(["--", "sleep", &seconds.to_string()])
        .run();
    let loaded = load.join().map_err(|_| anyhow::anyhow!("the load's thread panicked"))?;
    daemon.stop()?;
    loaded?;
    recorded?;
    Invocation::new(&perf)
        .args(["report", "--stdio", "--no-children", "--call-graph", "none", "--percent-limit"])
        .arg(PERCENT_MIN)
        .arg("--input")
        .arg(&recording)
        .run()?;
    println!("Recording: {}", recording.display());
    Ok(())
}
