//! `cargo xtask bench` without `--against`: NexusD beside other systems, one workload after the other and in
//! pairs of neighbouring runs, under the same load generator and on the same core.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::results::Results;
use super::{Arguments, Key, PEERS, Pair, Server, Side, measure, resolve, short, tables};
use crate::tool;

/// What is measured unless something is asked for.
const CASES: &[Case] = &[
    Case::of("T1", ALL),
    Case::of("T2", ALL),
    Case::of("F16", ALL),
    Case::of("F64", ALL),
    Case::of("F1000", &["nats", "redis", "zenoh"]),
    Case::of("P", ALL),
    // NATS has no unix socket, and those of the others are not driven.
    Case { transport: "unix", ..Case::of("P", &["nats"]) },
    Case { rate: Some("10k"), ..Case::of("L", ALL) },
    Case { rate: Some("1M"), ..Case::of("L", &["nats"]) },
    Case::of("W", &["nats"]),
    Case { more: &["--topics", "1,1k"], ..Case::of("K", &["nats", "zenoh"]) },
    // A daemon has room for one million at a time. Until the subscriber was told the names takes a while, at
    // random longer.
    Case {
        warmup: Some("3s"),
        more: &["--topics", "1M", "--order", "round-robin"],
        ..Case::of("K", &["nats", "zenoh"])
    },
    Case {
        warmup: Some("8s"),
        more: &["--topics", "1M", "--order", "random"],
        ..Case::of("K", &["nats", "zenoh"])
    },
    Case::of("M1", &["nats", "zenoh"]),
    Case { rate: Some("10k"), ..Case::of("M1", &["nats", "zenoh"]) },
    Case::of("M3", &["nats", "zenoh"]),
    Case::of("S", &["nats", "redis", "mqtt"]),
    // The time that its router takes to let clients in grows with their square.
    Case { more: &["--clients", "2k"], ..Case::of("S", &["zenoh"]) },
    // What a stalled subscriber costs is paid in the first seconds.
    Case { duration: Some("10s"), ..Case::of("B", &["nats", "redis", "mqtt", "zenoh"]) },
];
/// The relay, and every other system that is here.
const ALL: &[&str] = &["relay", "nats", "redis", "mqtt", "zenoh"];

struct Case {
    workload: &'static str,
    rate: Option<&'static str>,
    /// How NexusD is reached; the others by TCP alone.
    transport: &'static str,
    /// Where they matter.
    duration: Option<&'static str>,
    warmup: Option<&'static str>,
    /// What else the load generator is told.
    more: &'static [&'static str],
    /// Who can do it.
    beside: &'static [&'static str],
}

/// Measures what this commit lacks, and writes the tables.
pub(super) fn run(arguments: &Arguments, new: &Side, pairs: usize) -> Result<()> {
    let here = systems_here()?;
    let mut results = results_of_head(arguments.is_quick)?;
    let asked = |case: &&Case| {
        let mut named = arguments.workloads.iter();
        arguments.workloads.is_empty() || named.any(|it| it.eq_ignore_ascii_case(case.workload))
    };
    let cases: Vec<&Case> = CASES.iter().filter(asked).collect();
    if cases.is_empty() {
        let known: BTreeSet<_> = CASES.iter().map(|case| case.workload).collect();
        bail!("side by side there are the workloads {}", Vec::from_iter(known).join(", "));
    }
    for case in cases {
        for system in case.beside.iter().filter(|system| here.contains(system)) {
            if let Err(error) = measure_case(arguments, case, system, new, pairs, &mut results) {
                // The others can still be measured, and this one another time.
                eprintln!("{} beside {system}: {error:#}", case.name());
            }
        }
    }
    println!("\n{}\n{}", results.glance(), results.report());
    if arguments.is_quick {
        return Ok(());
    }
    tables::write(&results)
}

/// Writes the tables of what was measured before.
pub(super) fn report() -> Result<()> {
    tables::write(&results_of_head(false)?)
}

fn results_of_head(is_quick: bool) -> Result<Results> {
    Results::open(short(&resolve("HEAD")?).to_owned(), is_quick)
}

/// The systems that are here, after what is missing was installed where that is possible.
fn systems_here() -> Result<Vec<&'static str>> {
    let tools: Vec<_> = PEERS.iter().map(|(_, tool)| *tool).collect();
    let missing = tool::install_missing(&tools);
    if !missing.is_empty() {
        eprintln!("warning: measuring without some. {}", tool::remedy(&missing));
    }
    let found = PEERS.iter().filter(|(_, tool)| tool.find().is_some()).map(|(name, _)| *name);
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        bail!("there is nothing to measure beside; {}", tool::remedy(&missing));
    }
    Ok([&["relay"], found.as_slice()].concat())
}

/// Does the pairs of a case and a peer that are wanting.
fn measure_case(
    arguments: &Arguments,
    case: &Case,
    system: &str,
    ours: &Side,
    pairs: usize,
    results: &mut Results,
) -> Result<()> {
    let theirs = &Side { label: system.to_owned(), server: Server::Target(system.to_owned()) };
    let rate = case.rate.map(str::to_owned).or_else(|| arguments.rate.clone());
    let over = |transport: &str| Arguments {
        rate: rate.clone(),
        transport: transport.to_owned(),
        duration: case.duration.unwrap_or(&arguments.duration).to_owned(),
        warmup: case.warmup.unwrap_or(&arguments.warmup).to_owned(),
        more: case.more,
        ..arguments.clone()
    };
    let (to_them, to_us) = (over("tcp"), over(case.transport));
    for number in results.count(system, &case.name())..pairs {
        let old = without_transport(measure(&to_them, case.workload, theirs)?.figures);
        let new = without_transport(measure(&to_us, case.workload, ours)?.figures);
        for ((run, measure), new) in new {
            let Some(&old) = old.get(&(run.clone(), measure)) else { continue };
            let pair = Pair { old, new };
            eprintln!(
                "{} {run} beside {}, {}: pair {}/{pairs}: {:.0}, {:.0}, ratio {:.2}",
                case.workload,
                theirs.label,
                measure.name(),
                number + 1,
                pair.old,
                pair.new,
                pair.new / pair.old
            );
            results.add(system, &case.name(), number, &run, measure, pair)?;
        }
    }
    Ok(())
}

/// Figures by the run's name without how the server was reached, which is the case's to say.
fn without_transport(figures: BTreeMap<Key, f64>) -> BTreeMap<Key, f64> {
    let plain = |run: String| run.replace(", tcp", "").replace(", unix", "");
    figures.into_iter().map(|((run, measure), figure)| ((plain(run), measure), figure)).collect()
}

impl Case {
    /// Over TCP, at the workload's own rate.
    const fn of(workload: &'static str, beside: &'static [&'static str]) -> Self {
        Self {
            workload,
            rate: None,
            transport: "tcp",
            duration: None,
            warmup: None,
            more: &[],
            beside,
        }
    }

    fn name(&self) -> String {
        let rate = self.rate.map(|rate| format!(" at {rate}")).unwrap_or_default();
        let way = if self.transport == "tcp" { "" } else { ", unix socket against TCP" };
        let warmup = self.warmup.map(|warmup| format!(" behind {warmup}")).unwrap_or_default();
        format!("{}{rate}{way}{warmup}", self.workload)
    }
}
