//! The prototype of a shared-memory transport, measured beside a unix socket: a publisher, a stand-in for
//! the shard and a subscriber, each a process of its own, the server on core 0, both clients on core 1.
//!
//! `nexusd-shm` runs everything in alternated order and prints a table; it takes about a minute. What it
//! means stands in `docs/adr/0024-shared-memory-transport.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod clients;
mod forwarder;
mod process;
mod run;

use std::process::ExitCode;
use std::time::Duration;

use process::{Failure, Way};
use run::{Load, Run};

const SIZES: [usize; 4] = [16, 128, 1024, 16384];
const WAYS: [Way; 3] = [Way::Socket, Way::Ring, Way::RingByLog];
/// What throughput is measured with.
const POLL_FOR: Duration = Duration::from_micros(20);
const THROUGHPUT_RUN: Duration = Duration::from_millis(500);
const LATENCY_BYTES: usize = 128;
const LATENCY_INTERVAL: Duration = Duration::from_micros(100);
const LATENCY_MESSAGES: u64 = 12_000;
/// A server that sleeps between messages, and one that never does.
const LATENCY_POLLS: [(&str, Duration); 2] =
    [("parked", Duration::ZERO), ("polling", Duration::from_millis(10))];

const USAGE: &str = "\
usage: nexusd-shm [--pairs N]

Measures a shared-memory transport beside a unix socket, each N times (5), alternately.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("nexusd-shm: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn command(arguments: &[&str]) -> Result<ExitCode, Failure> {
    match arguments {
        [] => compare(5)?,
        ["--pairs", pairs] if pairs.parse().is_ok_and(|pairs: usize| pairs > 0) => {
            compare(pairs.parse()?)?;
        }
        ["run", way, bytes, milliseconds] => {
            let load = Load::Unlimited(Duration::from_millis(milliseconds.parse()?));
            println!("{:?}", Run::new(run::way(way)?, bytes.parse()?, load, POLL_FOR).measure()?);
        }
        _ => match run::role(arguments) {
            Some(report) => process::say(&report?)?,
            None => {
                eprintln!("{USAGE}");
                return Ok(ExitCode::from(2));
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(pairs: usize) -> Result<(), Failure> {
    println!(
        "Server on core {}, both clients on core {}; {pairs} alternated runs each: medians, and\n\
         the median of the pairwise ratios to the socket (least … most).\n",
        process::SERVER_CORE,
        process::LOAD_CORE
    );
    println!("million messages per CPU-second of the server, unlimited rate");
    println!("{:>8}  {:<12}{:>10}{:>10}   ratio", "bytes", "way", "per CPU-s", "per s");
    for bytes in SIZES {
        let load = Load::Unlimited(THROUGHPUT_RUN);
        let runs = alternate(pairs, |way| Run::new(way, bytes, load, POLL_FOR))?;
        for (way, outcomes) in WAYS.iter().zip(&runs) {
            let per_processor_s = column(outcomes, |outcome| outcome.per_processor_s() / 1e6);
            let per_s = column(outcomes, |outcome| outcome.per_s() / 1e6);
            let ratios = ratios(outcomes, &runs[0], run::Outcome::per_processor_s);
            println!(
                "{bytes:>8}  {:<12}{:>10.2}{:>10.2}   {}",
                way.name(),
                median(&per_processor_s),
                median(&per_s),
                spread(&ratios)
            );
        }
    }
    println!("\nlatency from the intended time, {LATENCY_BYTES} bytes, 10,000 messages per second");
    println!(
        "{:>8}  {:<12}{:>9}{:>9}{:>9}   ratio of p50",
        "server", "way", "p50 µs", "p99 µs", "CPU µs"
    );
    for (name, poll_for) in LATENCY_POLLS {
        let load = Load::Paced(LATENCY_INTERVAL, LATENCY_MESSAGES);
        let runs = alternate(pairs, |way| Run::new(way, LATENCY_BYTES, load, poll_for))?;
        for (way, outcomes) in WAYS.iter().zip(&runs) {
            let ratios = ratios(outcomes, &runs[0], |outcome| outcome.p50_us);
            println!(
                "{name:>8}  {:<12}{:>9.1}{:>9.1}{:>9.1}   {}",
                way.name(),
                median(&column(outcomes, |outcome| outcome.p50_us)),
                median(&column(outcomes, |outcome| outcome.p99_us)),
                median(&column(outcomes, |outcome| 1e6 / outcome.per_processor_s())),
                spread(&ratios)
            );
        }
    }
    Ok(())
}

/// Runs of every way, in turns, every second turn backwards.
fn alternate(
    pairs: usize,
    run: impl Fn(Way) -> Run,
) -> Result<[Vec<run::Outcome>; WAYS.len()], Failure> {
    let mut outcomes = [const { Vec::new() }; WAYS.len()];
    for pair in 0..pairs {
        for turn in 0..WAYS.len() {
            let which = if pair % 2 == 0 { turn } else { WAYS.len() - 1 - turn };
            outcomes[which].push(run(WAYS[which]).measure()?);
        }
    }
    Ok(outcomes)
}

fn column(outcomes: &[run::Outcome], of: impl Fn(&run::Outcome) -> f64) -> Vec<f64> {
    outcomes.iter().map(of).collect()
}

fn ratios(
    outcomes: &[run::Outcome],
    beside: &[run::Outcome],
    of: impl Fn(&run::Outcome) -> f64,
) -> Vec<f64> {
    outcomes.iter().zip(beside).map(|(this, that)| of(this) / of(that)).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.2} ({least:.2} … {most:.2})", median(values))
}
