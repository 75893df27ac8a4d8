//! The regression gate: instructions per message through the pure shard, counted by callgrind.
//!
//! `nexusd-gate` runs every workload twice under valgrind, with different numbers of messages, so
//! that set-up cancels out, and compares instructions per message with `bench/gate.toml`. More than
//! the allowed drift above fails; more than that below asks for the file to be updated
//! (`--update`), so that the gain cannot be lost again unnoticed.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use nexusd_bench::{Order, Traffic, Workload};
use serde::{Deserialize, Serialize};

const WORKLOADS: [(&str, Workload); 12] = [
    ("t1", Workload::T1),
    ("f16", Workload::FanOut(16)),
    ("acked", Workload::Acknowledged),
    ("stalled", Workload::Stalled),
    ("held", Workload::Held),
    ("lent", Workload::Lent),
    ("passed-on", Workload::PassedOn),
    ("f1000", Workload::FanOut(1_000)),
    ("sparse", Workload::Sparse),
    ("topics", Workload::Topics(1_000, Order::RoundRobin)),
    ("zipf", Workload::Topics(1_000, Order::Zipf)),
    ("filters", Workload::Filters),
];
const FEW: u64 = 20_000;
const MANY: u64 = 120_000;

/// The committed file.
#[derive(Serialize, Deserialize)]
struct Gate {
    /// Allowed drift upwards, in percent.
    drift_percent: f64,
    /// Instructions per message.
    instructions_per_message: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", name, messages] => run(name, messages),
        [] => check(false),
        ["--update"] => check(true),
        _ => {
            eprintln!("usage: nexusd-gate [--update]");
            ExitCode::from(2)
        }
    }
}

/// What runs under valgrind. Prints how many messages went through.
fn run(name: &str, messages: &str) -> ExitCode {
    let workload = WORKLOADS.iter().find(|(known, _)| *known == name);
    let (Some((_, workload)), Ok(messages)) = (workload, messages.parse()) else {
        eprintln!("no such workload: {name}");
        return ExitCode::from(2);
    };
    let mut traffic = Traffic::new(*workload);
    println!("{}", traffic.run(messages));
    ExitCode::SUCCESS
}

fn check(update: bool) -> ExitCode {
    match measure_and_compare(update) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn measure_and_compare(update: bool) -> Result<bool, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.toml");
    let text =
        std::fs::read_to_string(&path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    let mut gate: Gate =
        toml::from_str(&text).map_err(|cause| format!("{}: {cause}", path.display()))?;
    println!("{:<10} {:>12} {:>12} {:>8}", "workload", "committed", "now", "drift");
    let mut passed = true;
    for (name, _) in WORKLOADS {
        let now = instructions_per_message(name)?;
        let committed = gate.instructions_per_message.get(name).copied().unwrap_or(f64::NAN);
        let drift = (now / committed - 1.0) * 100.0;
        let verdict = if drift.abs() <= gate.drift_percent {
            ""
        } else if drift < 0.0 {
            "  better: commit the new figure with --update"
        } else {
            "  TOO MUCH"
        };
        println!("{name:<10} {committed:>12.2} {now:>12.2} {drift:>7.2}%{verdict}");
        passed &= drift <= gate.drift_percent;
        if update {
            gate.instructions_per_message.insert(String::from(name), (now * 100.0).round() / 100.0);
        }
    }
    if update {
        let text = toml::to_string(&gate).map_err(|cause| cause.to_string())?;
        let head = "# Instructions per message through the pure shard; see src/bin/gate.rs.\n";
        std::fs::write(&path, format!("{head}{text}")).map_err(|cause| cause.to_string())?;
        return Ok(true);
    }
    Ok(passed)
}

/// (instructions for many − instructions for few) ÷ (many − few).
fn instructions_per_message(name: &str) -> Result<f64, String> {
    let (few_messages, few) = count(name, FEW)?;
    let (many_messages, many) = count(name, MANY)?;
    Ok((many - few) as f64 / (many_messages - few_messages) as f64)
}

/// Runs one workload under callgrind; messages and instructions.
fn count(name: &str, messages: u64) -> Result<(u64, u64), String> {
    let this = std::env::current_exe().map_err(|cause| cause.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["run", name, &messages.to_string()])
        .output()
        .map_err(|cause| {
            format!("valgrind could not be started ({cause}); install Debian's package valgrind")
        })?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let messages = String::from_utf8_lossy(&output.stdout).trim().parse();
    let instructions = complaints
        .lines()
        .find_map(|line| line.split("Collected :").nth(1))
        .map(|count| count.trim().parse());
    match (messages, instructions) {
        (Ok(messages), Some(Ok(instructions))) => Ok((messages, instructions)),
        _ => Err(format!("callgrind did not count {name}: {complaints}")),
    }
}
