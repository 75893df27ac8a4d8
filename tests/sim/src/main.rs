//! Runs the simulator from the command line: many seeds, one seed with its trace, or the proof that
//! every planted bug is found. Ends with the line `violations: N`, and with exit code 1 if N > 0.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to people")]

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
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
    /// Threads; as many as there are cores unless told.
    #[arg(long)]
    jobs: Option<usize>,
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
    let planted = match &arguments.plant {
        None => None,
        Some(name) => match Planted::named(name) {
            Some(planted) => Some(planted),
            None => {
                eprintln!("there is no plant '{name}'; --plants lists them");
                return ExitCode::from(2);
            }
        },
    };
    take_over_panics();
    let faults = match arguments.check_plants {
        true => check_plants(&arguments),
        false => run(&arguments, planted),
    };
    match faults {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Runs the seeds; returns how many violated something.
fn run(arguments: &Arguments, planted: Option<Planted>) -> Result<u64, &'static str> {
    let progress = Progress::new(arguments.seeds);
    let runs = on_all_cores(arguments, || {
        if planted.is_some() {
            planting::set(planted)?;
        }
        let mut coverages = Coverages::default();
        while let Some(at) = progress.next() {
            let seed = arguments.from.saturating_add(at);
            let wants_trace = arguments.trace && at == 0;
            let outcome = run_one(arguments, seed, wants_trace, &mut coverages);
            progress.done(&outcome, seed, arguments);
        }
        Ok(coverages)
    });
    let mut coverages = Coverages::default();
    for run in runs {
        let Coverages { of_one, of_mesh } = run?;
        coverages.of_one += of_one;
        coverages.of_mesh += of_mesh;
    }
    match arguments.nodes {
        1 => print!("{}", coverages.of_one.table()),
        _ => print!("{}", coverages.of_mesh.table()),
    }
    let violations = progress.violations.into_inner();
    println!("violations: {violations}");
    Ok(violations)
}

/// Does the same on as many threads as are wanted.
fn on_all_cores<T: Send>(arguments: &Arguments, work: impl Fn() -> T + Sync) -> Vec<T> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let jobs = arguments.jobs.unwrap_or(cores).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("panics are caught")).collect()
    })
}

/// How far the seeds are, on all threads.
struct Progress {
    started: Instant,
    seeds: u64,
    begun: AtomicU64,
    done: AtomicU64,
    violations: AtomicU64,
    told: Mutex<Instant>,
}

impl Progress {
    fn new(seeds: u64) -> Self {
        let started = Instant::now();
        let [begun, done, violations] = [const { AtomicU64::new(0) }; 3];
        Self { started, seeds, begun, done, violations, told: Mutex::new(started) }
    }

    /// The next seed to run, counted from 0.
    fn next(&self) -> Option<u64> {
        if self.violations.load(Relaxed) >= VIOLATIONS_MAX {
            return None;
        }
        Some(self.begun.fetch_add(1, Relaxed)).filter(|at| *at < self.seeds)
    }

    /// Tells what a seed came to, and now and then how many have been run.
    fn done(&self, outcome: &Outcome, seed: u64, arguments: &Arguments) {
        // Whoever tells something is not interrupted.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.done.fetch_add(1, Relaxed) + 1;
        for line in &outcome.trace {
            println!("{line}");
        }
        if let Some(violation) = &outcome.violation {
            let Arguments { nodes, shards, ops, plant, .. } = arguments;
            let plant = plant.as_ref().map_or(String::new(), |name| format!(" --plant {name}"));
            println!("seed {seed}: {violation}");
            println!(
                "  replay: cargo xtask sim --nodes {nodes} --shards {shards} --seeds 1 --from {seed} --ops {ops}{plant} \
                 --trace"
            );
            if self.violations.fetch_add(1, Relaxed) + 1 == VIOLATIONS_MAX {
                println!("{VIOLATIONS_MAX} seeds violated something; the rest is left out");
            }
        }
        if told.elapsed() >= PROGRESS_INTERVAL {
            *told = Instant::now();
            let rate = done as f64 / self.started.elapsed().as_secs_f64();
            let violations = self.violations.load(Relaxed);
            eprintln!(
                "{done} of {} seeds, {rate:.0} a second, {violations} violations",
                self.seeds
            );
        }
    }
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

/// Plants every bug in turn and looks for it; returns how many were not found.
fn check_plants(arguments: &Arguments) -> Result<u64, &'static str> {
    let seeds = arguments.from..arguments.from.saturating_add(arguments.seeds);
    let all = Planted::all(arguments.nodes > 1);
    let next = AtomicUsize::new(0);
    let missed = on_all_cores(arguments, || {
        let mut missed = 0;
        while let Some(&planted) = all.get(next.fetch_add(1, Relaxed)) {
            let mut coverages = Coverages::default();
            let run = |seed| run_one(arguments, seed, false, &mut coverages);
            if let Some((seed, violation)) = planting::search(planted, seeds.clone(), run)? {
                println!("{:<26} found by seed {seed}: {violation}", planted.name());
            } else {
                missed += 1;
                println!("{:<26} NOT found within {} seeds", planted.name(), arguments.seeds);
            }
        }
        Ok(missed)
    });
    let missed = missed.into_iter().sum::<Result<u64, _>>()?;
    println!("plants not found: {missed}");
    Ok(missed)
}
