//! Clients that are connected and do nothing, while something else is measured. They live in processes of
//! the load generator, which end with this value.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::bench;
use crate::invocation::Invocation;

/// Clients of one process, which may open only so many files.
const CLIENTS_PER_PROCESS: usize = 2_500;

/// Connected clients.
pub(super) struct IdleClients(Vec<Child>);

impl IdleClients {
    /// Connects so many, each with a subscription of its own.
    pub(super) fn connect(address: &str, clients: usize, core: usize) -> Result<Self> {
        let mut all = Self(Vec::new());
        for first in (0..clients).step_by(CLIENTS_PER_PROCESS) {
            let count = CLIENTS_PER_PROCESS.min(clients - first);
            let child = Invocation::new("taskset")
                .args(["--cpu-list", &core.to_string()])
                .arg(bench::load_generator())
                .args([
                    "idle-clients",
                    "--target",
                    "nexusd",
                    "--addr",
                    address,
                    "--run-name",
                    "idle",
                ])
                .args(["--first", &first.to_string(), "--count", &count.to_string()])
                .into_command()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("idle clients could not be started")?;
            all.0.push(child);
        }
        for child in &mut all.0 {
            let stdin = child.stdin.as_mut().context("idle clients have a standard input")?;
            stdin.write_all(b"connect\n").context("idle clients have ended")?;
        }
        for child in &mut all.0 {
            let stdout = child.stdout.as_mut().context("idle clients have a standard output")?;
            let mut answer = String::new();
            BufReader::new(stdout).read_line(&mut answer).context("idle clients do not answer")?;
            if answer.trim() != "\"Subscribed\"" {
                bail!("{clients} idle clients could not be connected: {}", answer.trim());
            }
        }
        Ok(all)
    }
}

impl Drop for IdleClients {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Nothing more can be done if one of these fails.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
