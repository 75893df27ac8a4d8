//! Runs the simulator from the command line: many seeds, one seed with its trace, or the proof that
//! every planted bug is found. Ends with the line `violations: N`, and with exit code 1 if N > 0.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to people")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use nexusd_core::limits::SHARDS_MAX;
use nexusd_sim::planting::{self, Planted};
use nexusd_sim::run::{Outcome, take_over_panics};
use nexusd_sim::{Coverage, mesh, run_seed};

/// Violations after which a run of many seeds stops.
const VIOLATIONS_MAX: u64 = 20;
/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Drives whole conversations through the shard, in virtual time, against an oracle.
#[derive(Parser, Debug)]
#[command(name = "sim")]
struct Arguments {
    /// Nodes in the simulated mesh; of one alone other things are checked.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Most shards of a node; a seed has from one to as many.
    #[arg(long, default_value_t = 4)]
    shards: usize,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Operations per seed.
    #[arg(long, default_value_t = 500)]
    ops: u64,
    /// Plant this bug in the shard; violations are then what is hoped for.
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// List the bugs that can be planted.
    #[arg(long)]
    plants: bool,
    /// Plant every bug in turn; each must be found within `--seeds`.
    #[arg(long)]
    check_plants: bool,
    /// Print everything that happens in the first seed.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.nodes == 0 || !(1..=SHARDS_MAX).contains(&arguments.shards) {
        eprintln!("a mesh has at least one node, and that has 1 to {SHARDS_MAX} shards");
        return ExitCode::from(2);
    }
    if arguments.plants {
        for planted in Planted::all(arguments.nodes > 1) {
            println!("{}", planted.name());
        }
        return ExitCode::SUCCESS;
    }
    take_over_panics();
    if arguments.check_plants {
        return check_plants(&arguments);
    }
    if let Some(name) = &arguments.plant {
        let Some(plant) = Planted::named(name) else {
            eprintln!("there is no plant '{name}'; --plants lists them");
            return ExitCode::from(2);
        };
        if let Err(why) = planting::set(Some(plant)) {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    }
    match run(&arguments) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Runs the seeds; returns how many violated something.
fn run(arguments: &Arguments) -> u64 {
    let Arguments { nodes, shards, seeds, from, ops, trace, .. } = *arguments;
    let (started, mut told) = (Instant::now(), Instant::now());
    let mut coverages = Coverages::default();
    let (mut violations, mut done) = (0, 0);
    for seed in from..from.saturating_add(seeds) {
        let outcome = run_one(arguments, seed, trace && seed == from, &mut coverages);
        done += 1;
        for line in &outcome.trace {
            println!("{line}");
        }
        if let Some(violation) = outcome.violation {
            violations += 1;
            let plant =
                arguments.plant.as_ref().map_or(String::new(), |name| format!(" --plant {name}"));
            println!("seed {seed}: {violation}");
            println!(
                "  replay: cargo xtask sim --nodes {nodes} --shards {shards} --seeds 1 --from {seed} --ops {ops}{plant} \
                 --trace"
            );
            if violations == VIOLATIONS_MAX {
                println!("{VIOLATIONS_MAX} seeds violated something; the rest is left out");
                break;
            }
        }
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            let rate = f64::from(u32::try_from(done).unwrap_or(u32::MAX))
                / started.elapsed().as_secs_f64();
            eprintln!("{done} of {seeds} seeds, {rate:.0} a second, {violations} violations");
        }
    }
    match nodes {
        1 => print!("{}", coverages.of_one.table()),
        _ => print!("{}", coverages.of_mesh.table()),
    }
    println!("violations: {violations}");
    violations
}

/// What all runs have exercised.
#[derive(Default)]
struct Coverages {
    of_one: Coverage,
    of_mesh: mesh::Coverage,
}

fn run_one(
    arguments: &Arguments,
    seed: u64,
    wants_trace: bool,
    coverages: &mut Coverages,
) -> Outcome {
    let Arguments { nodes, shards, ops, .. } = *arguments;
    match nodes {
        1 => run_seed(seed, shards, ops, wants_trace, &mut coverages.of_one),
        _ => mesh::run_seed(seed, nodes, shards, ops, wants_trace, &mut coverages.of_mesh),
    }
}

/// Plants every bug in turn and looks for it.
fn check_plants(arguments: &Arguments) -> ExitCode {
    let seeds = arguments.from..arguments.from.saturating_add(arguments.seeds);
    let mut missed = 0;
    for planted in Planted::all(arguments.nodes > 1) {
        let mut coverages = Coverages::default();
        let run = |seed| run_one(arguments, seed, false, &mut coverages);
        match planting::search(planted, seeds.clone(), run) {
            Err(why) => {
                eprintln!("{why}");
                return ExitCode::from(2);
            }
            Ok(Some((seed, violation))) => {
                println!("{:<26} found by seed {seed}: {violation}", planted.name());
            }
            Ok(None) => {
                missed += 1;
                println!("{:<26} NOT found within {} seeds", planted.name(), arguments.seeds);
            }
        }
    }
    println!("plants not found: {missed}");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
