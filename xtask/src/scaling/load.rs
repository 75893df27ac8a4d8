//! Runs of the load generator, and what they reported.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::Value as Json;

use crate::core_distance::{self, Apart};
use crate::invocation::Invocation;
use crate::{bench, cores};

/// Measured time of a run, and time before it, unless told.
const DURATION: &str = "1s";
const WARMUP: &str = "300ms";
/// An invocation in which a run loses messages or misses its schedule is repeated this often.
const ATTEMPTS: u32 = 3;

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) json: Json,
}

/// Runs the load generator with these arguments, separated by spaces. Unless they name a server it is started
/// for each run.
pub(super) fn run(arguments: &str) -> Result<Vec<Run>> {
    let mut attempt = 1;
    loop {
        match run_once(arguments) {
            Ok(runs) => return Ok(runs),
            Err(reason) if attempt < ATTEMPTS => eprintln!("{arguments}: {reason:#}; once more"),
            Err(reason) => {
                return Err(reason.context(format!("{ATTEMPTS} attempts of {arguments}")));
            }
        }
        attempt += 1;
    }
}

/// The same, without another attempt after a run that is not valid.
fn run_once(arguments: &str) -> Result<Vec<Run>> {
    let mut apart = Apart::default();
    loop {
        let report = output(arguments)?;
        if !apart.repeats(arguments, core_distance::is_apart(&report)) {
            return runs_in(&report);
        }
    }
}

/// The daemon that the load generator was built with.
pub(super) fn daemon() -> PathBuf {
    bench::load_generator().with_file_name("nexusd-new")
}

fn output(arguments: &str) -> Result<String> {
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let has = |flag| arguments.contains(&flag);
    let mut load = Invocation::new(bench::load_generator()).args(&arguments).args(["--json", "-"]);
    // Nodes of a mesh have cores in turn.
    if !has("M1") {
        let (server_core, load_core) = cores::for_daemon_and_load();
        load = load.args(["--load-core", &load_core.to_string()]);
        if !has("--addr") {
            load = load.args(["--server-core", &server_core.to_string()]);
        }
    }
    for (flag, value) in [("--duration", DURATION), ("--warmup", WARMUP)] {
        if !has(flag) {
            load = load.args([flag, value]);
        }
    }
    let line = load.line();
    let output = load.into_command().output().context("the load generator could not be started")?;
    if output.status.code() == Some(2) {
        bail!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads runs out of a report, a line of JSON for each. One that is not valid spoils them all.
fn runs_in(output: &str) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    // A table for people stands beside them.
    for line in output.lines().filter(|line| line.starts_with('{')) {
        let json: Json = serde_json::from_str(line).context("the report is not JSON")?;
        if json["valid"] != Json::Bool(true) {
            bail!("the run {} is not valid: {}", json["label"], json["objections"]);
        }
        runs.push(Run { json });
    }
    if runs.is_empty() {
        bail!("the load generator reported no run");
    }
    Ok(runs)
}

impl Run {
    /// A number of the report; 0 if it has none.
    pub(super) fn number(&self, key: &str) -> f64 {
        self.json[key].as_f64().unwrap_or(0.0)
    }

    /// Messages sent within the measured interval.
    pub(super) fn sent(&self) -> f64 {
        self.number("sent_per_s") * self.number("duration_s")
    }

    /// Deliveries within it.
    pub(super) fn received(&self) -> f64 {
        self.number("received_per_s") * self.number("duration_s")
    }

    /// CPU time of the server within it, in user space.
    pub(super) fn user_ns(&self) -> f64 {
        self.number("server_user_s") * 1e9
    }

    /// The same in the kernel.
    pub(super) fn kernel_ns(&self) -> f64 {
        self.number("server_system_s") * 1e9
    }

    /// CPU time of the load generator within it.
    pub(super) fn load_ns(&self) -> f64 {
        self.number("load_cpu_s") * 1e9
    }

    /// A latency from the intended time, in nanoseconds.
    pub(super) fn latency_ns(&self, quantile: &str) -> f64 {
        self.json["latency_us"][quantile].as_f64().unwrap_or(0.0) * 1e3
    }

    /// Whether the load generator says that others disturbed it.
    pub(super) fn is_noisy(&self) -> bool {
        self.json["noisy"] == Json::Bool(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_a_report_beside_a_table() {
        let runs = runs_in(
            "a table\n\
             {\"valid\": true, \"sent_per_s\": 100.0, \"received_per_s\": 200.0, \"duration_s\": 2.0, \
              \"server_user_s\": 0.5, \"noisy\": true, \"latency_us\": {\"p99\": 1.5}}\n",
        )
        .expect("valid");
        let run = &runs[0];
        assert_eq!((run.sent(), run.received(), run.user_ns()), (200.0, 400.0, 5e8));
        assert_eq!((run.latency_ns("p99"), run.is_noisy()), (1_500.0, true));
        assert_eq!(run.number("not there"), 0.0);
    }

    #[test]
    fn a_run_that_does_not_count_spoils_the_report() {
        let lossy = "{\"valid\": true}\n{\"valid\": false, \"objections\": [\"3 lost\"]}\n";
        let error = runs_in(lossy).expect_err("lossy");
        assert!(error.to_string().contains("3 lost"), "{error}");
        assert!(runs_in("only a table").is_err());
    }
}
