//! `cargo xtask bench --against REV`: is this tree faster than that revision? Answered by pairs of
//! runs, alternately old and new, because these machines drift by a factor of two within minutes:
//! only the ratio of two neighbouring runs means anything.
//!
//! Both daemons are driven by this tree's load generator, so that the measure itself never changes
//! between the two. The revision is built in a git worktree below target/, which is removed again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use crate::daemon::Daemon;
use crate::invocation::Invocation;
use crate::statistics::{Spread, median};
use crate::{cores, repository};

pub(crate) const HELP: &str = "\
Usage: cargo xtask bench --against REV [--workload NAME]… [--pairs N] [--size BYTES]
                         [--duration TIME] [--warmup TIME] [--json FILE]

Builds the daemon of REV (any git revision) and of this tree, uncommitted changes included, and runs
them alternately under the same load generator. Prints, per workload, the ratio new / old of messages
per CPU-second of the daemon: the median over the pairs, its 95 % confidence interval, and the
smallest and largest ratio. An interval that holds 1.0 shows no difference.

  --against REV    compare with this revision, for example HEAD or main~3
  --workload NAME  T1 (default), T2, F16, F64, F1000, P, B; may be repeated
  --pairs N        pairs of runs, 20 unless told
  --size BYTES     payload, 128 unless told
  --duration TIME  measured time of each run, 3s unless told
  --warmup TIME    unmeasured time before it, 1s unless told
  --json FILE      every single figure as well

A quick look:      cargo xtask bench --against HEAD --pairs 5
For a decision:    cargo xtask bench --against main --workload T1 --workload F16
";

/// A run that loses messages or misses its schedule is repeated this often before we give up.
const ATTEMPTS: u32 = 3;

#[derive(Debug, PartialEq)]
struct Arguments {
    against: String,
    workloads: Vec<String>,
    pairs: usize,
    size: u32,
    duration: String,
    warmup: String,
    json: Option<PathBuf>,
}

/// One daemon to measure.
struct Side {
    label: String,
    daemon: PathBuf,
}

pub(crate) fn run(parser: lexopt::Parser) -> Result<()> {
    let arguments = parse(parser)?;
    let sides = build_sides(&arguments.against)?;
    let mut measured = Vec::new();
    for workload in &arguments.workloads {
        measured.push((workload, measure_pairs(&arguments, workload, &sides)?));
    }
    println!("\nold: {}\nnew: {}", sides[0].label, sides[1].label);
    println!(
        "messages per CPU-second of the daemon, {} B, {} pairs of {} each\n",
        arguments.size, arguments.pairs, arguments.duration
    );
    println!(
        "{:<26} {:>11} {:>11} {:>6} {:>15} {:>15}  verdict",
        "workload", "old median", "new median", "ratio", "95 % interval", "min .. max"
    );
    let mut rows = Vec::new();
    for (workload, figures) in &measured {
        for (run, pairs) in figures {
            // Present as soon as there is one pair.
            let Some(comparison) = Comparison::of(pairs) else { continue };
            println!("{}", comparison.row(format!("{workload} {run}").trim_end()));
            rows.push(comparison.json(workload, run, pairs));
        }
    }
    if let Some(path) = &arguments.json {
        let document = json!({
            "old": sides[0].label, "new": sides[1].label, "size": arguments.size,
            "duration": arguments.duration, "warmup": arguments.warmup, "results": rows,
        });
        fs::write(path, format!("{document:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("\nEvery figure: {}", path.display());
    }
    Ok(())
}

fn parse(mut parser: lexopt::Parser) -> Result<Arguments> {
    let mut against = None;
    let mut arguments = Arguments {
        against: String::new(),
        workloads: Vec::new(),
        pairs: 20,
        size: 128,
        duration: "3s".to_owned(),
        warmup: "1s".to_owned(),
        json: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("against") => against = Some(parser.value()?.string()?),
            Long("workload") => {
                let names = parser.value()?.string()?;
                arguments.workloads.extend(names.split(',').map(str::to_owned));
            }
            Long("pairs") => arguments.pairs = parser.value()?.parse()?,
            Long("size") => arguments.size = parser.value()?.parse()?,
            Long("duration") => arguments.duration = parser.value()?.string()?,
            Long("warmup") => arguments.warmup = parser.value()?.string()?,
            Long("json") => arguments.json = Some(std::path::absolute(parser.value()?)?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    let Some(against) = against else {
        bail!("say what to compare with, for example `cargo xtask bench --against HEAD`");
    };
    if arguments.pairs == 0 {
        bail!("--pairs takes at least 1");
    }
    if arguments.workloads.is_empty() {
        arguments.workloads.push("T1".to_owned());
    }
    Ok(Arguments { against, ..arguments })
}

fn build_sides(against: &str) -> Result<[Side; 2]> {
    let folder = repository::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let commit = resolve(against)?;
    let old = Side {
        label: format!("{against} ({})", short(&commit)),
        daemon: folder.join(format!("nexusd-{}", short(&commit))),
    };
    let changes =
        Invocation::new("git").args(["status", "--porcelain", "--untracked-files=no"]).output()?;
    let suffix = if changes.is_empty() { "" } else { " with uncommitted changes" };
    let new = Side {
        label: format!("this tree ({}{suffix})", short(&resolve("HEAD")?)),
        daemon: folder.join("nexusd-new"),
    };
    Invocation::cargo()
        .args(["build", "--release", "--locked"])
        .args(["--package", "nexusd", "--package", "nexusd-loadgen"])
        .run()?;
    // Copies, so that the next build does not change a program under a measurement.
    copy(&repository::release_binary("nexusd"), &new.daemon)?;
    copy(&repository::release_binary("nexusd-loadgen"), &folder.join("nexusd-loadgen"))?;
    if !old.daemon.exists() {
        build_revision(&commit, &folder, &old.daemon)
            .with_context(|| format!("{against} could not be built"))?;
    }
    Ok([old, new])
}

fn resolve(revision: &str) -> Result<String> {
    let commit = Invocation::new("git")
        .args(["rev-parse", "--verify", "--quiet"])
        .arg(format!("{revision}^{{commit}}"))
        .output()
        .with_context(|| format!("git knows no revision `{revision}`"))?;
    Ok(commit.trim().to_owned())
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn build_revision(commit: &str, folder: &Path, destination: &Path) -> Result<()> {
    let worktree = folder.join("worktree");
    let remove =
        || Invocation::new("git").args(["worktree", "remove", "--force"]).arg(&worktree).run();
    if worktree.exists() {
        // Left over from an interrupted run.
        remove()?;
    }
    Invocation::new("git")
        .args(["worktree", "add", "--detach", "--quiet"])
        .arg(&worktree)
        .arg(commit)
        .run()?;
    // A target folder of its own, kept: the next revision has mostly the same dependencies.
    let build = folder.join("build");
    let built = Invocation::cargo()
        .args(["build", "--release", "--locked", "--package", "nexusd", "--target-dir"])
        .arg(&build)
        .current_dir(&worktree)
        .run()
        .and_then(|()| copy(&build.join("release/nexusd"), destination));
    remove()?;
    built
}

fn copy(program: &Path, destination: &Path) -> Result<()> {
    fs::copy(program, destination).with_context(|| {
        format!("cannot copy {} to {}", program.display(), destination.display())
    })?;
    Ok(())
}

/// Messages per CPU-second of one pair of neighbouring runs.
#[derive(Debug, Clone, Copy)]
struct Pair {
    old: f64,
    new: f64,
}

/// Run of a workload (`128 B`, `with the stalled one` …) → its pairs, in order.
type Figures = BTreeMap<String, Vec<Pair>>;

fn measure_pairs(arguments: &Arguments, workload: &str, sides: &[Side; 2]) -> Result<Figures> {
    let mut figures = Figures::new();
    for index in 0..arguments.pairs {
        let old = measure(arguments, workload, &sides[0])?;
        let new = measure(arguments, workload, &sides[1])?;
        for (run, new) in new {
            let Some(&old) = old.get(&run) else { continue };
            eprintln!(
                "{workload} {run}: pair {:>2}/{}: old {old:>11.0}  new {new:>11.0}  ratio {:.3}",
                index + 1,
                arguments.pairs,
                new / old
            );
            figures.entry(run).or_default().push(Pair { old, new });
        }
    }
    Ok(figures)
}

/// One valid measurement: messages per CPU-second of each run of the workload.
fn measure(arguments: &Arguments, workload: &str, side: &Side) -> Result<BTreeMap<String, f64>> {
    let mut complaint = String::new();
    for _ in 0..ATTEMPTS {
        match attempt(arguments, workload, side)? {
            Ok(rates) => return Ok(rates),
            Err(reason) => {
                eprintln!("{workload} on {}: {reason}; once more", side.label);
                complaint = reason;
            }
        }
    }
    bail!("{workload} on {} gave no valid run in {ATTEMPTS} attempts: {complaint}", side.label)
}

/// The inner error is a measurement that does not count, which may be repeated.
fn attempt(
    arguments: &Arguments,
    workload: &str,
    side: &Side,
) -> Result<Result<BTreeMap<String, f64>, String>> {
    let (daemon_core, load_core) = cores::for_daemon_and_load();
    let daemon = Daemon::start(&side.daemon, daemon_core)?;
    let output = Invocation::new(repository::target().join("bench/nexusd-loadgen"))
        .args(["--workload", workload, "--size", &arguments.size.to_string()])
        .args(["--duration", &arguments.duration, "--warmup", &arguments.warmup])
        .args(["--addr", &daemon.address, "--server-pid", &daemon.pid().to_string()])
        .args(["--load-core", &load_core.to_string(), "--json", "-"])
        .into_command()
        .output()
        .context("the load generator could not be started")?;
    daemon.stop().with_context(|| format!("the daemon of {}", side.label))?;
    Ok(rates_in(&String::from_utf8_lossy(&output.stdout)).map_err(|reason| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{reason} {}", said.lines().last().unwrap_or_default())
    }))
}

/// Reads the figures out of the load generator's report, a line of JSON per run.
fn rates_in(report: &str) -> Result<BTreeMap<String, f64>, String> {
    let mut rates = BTreeMap::new();
    // A table for people stands beside them.
    for line in report.lines().filter(|line| line.starts_with('{')) {
        let run: Json = serde_json::from_str(line)
            .map_err(|error| format!("the report is not JSON: {error}."))?;
        if run["valid"] != Json::Bool(true) {
            return Err(format!("the run is not valid: {}.", run["objections"]));
        }
        let label = run["label"].as_str().unwrap_or_default().to_owned();
        match run["messages_per_cpu_s"].as_f64() {
            Some(rate) if rate > 0.0 => rates.insert(label, rate),
            _ => return Err("the run gave no messages_per_cpu_s.".to_owned()),
        };
    }
    if rates.is_empty() {
        return Err("the load generator reported no run.".to_owned());
    }
    Ok(rates)
}

/// What all pairs of a run say together.
struct Comparison {
    old: f64,
    new: f64,
    ratio: Spread,
}

impl Comparison {
    fn of(pairs: &[Pair]) -> Option<Self> {
        let ratios: Vec<f64> = pairs.iter().map(|pair| pair.new / pair.old).collect();
        Some(Self {
            old: median(&pairs.iter().map(|pair| pair.old).collect::<Vec<_>>())?,
            new: median(&pairs.iter().map(|pair| pair.new).collect::<Vec<_>>())?,
            ratio: Spread::of(&ratios)?,
        })
    }

    fn verdict(&self) -> &'static str {
        match (self.ratio.excludes(1.0), self.ratio.median > 1.0) {
            (false, _) => "no difference shown",
            (true, true) => "faster",
            (true, false) => "slower",
        }
    }

    fn row(&self, run: &str) -> String {
        let Spread { median, min, max, low, high, .. } = self.ratio;
        let interval = format!("{low:.3} .. {high:.3}");
        let range = format!("{min:.3} .. {max:.3}");
        format!(
            "{run:<26} {:>11.0} {:>11.0} {median:>6.3} {interval:>15} {range:>15}  {}",
            self.old,
            self.new,
            self.verdict()
        )
    }

    fn json(&self, workload: &str, run: &str, pairs: &[Pair]) -> Json {
        json!({
            "workload": workload,
            "run": run,
            "old_messages_per_cpu_s": self.old,
            "new_messages_per_cpu_s": self.new,
            "ratio": {
                "median": self.ratio.median, "low": self.ratio.low, "high": self.ratio.high,
                "min": self.ratio.min, "max": self.ratio.max, "pairs": self.ratio.count,
            },
            "verdict": self.verdict(),
            "pairs": pairs
                .iter()
                .map(|pair| json!({ "old": pair.old, "new": pair.new }))
                .collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_valid_runs_alone() {
        let rates = rates_in(
            "workload  per CPU-second\n\
             {\"label\": \"128 B\", \"valid\": true, \"messages_per_cpu_s\": 1.5e7}\n\
             {\"label\": \"1 KiB\", \"valid\": true, \"messages_per_cpu_s\": 2}\n",
        );
        let expected = [("128 B".to_owned(), 1.5e7), ("1 KiB".to_owned(), 2.0)];
        assert_eq!(rates, Ok(BTreeMap::from(expected)));

        let lossy = rates_in(r#"{"label": "", "valid": false, "objections": ["3 lost"]}"#);
        assert!(lossy.is_err_and(|reason| reason.contains("3 lost")));
        let unknown = rates_in(r#"{"label": "", "valid": true, "messages_per_cpu_s": null}"#);
        assert!(unknown.is_err());
        assert!(rates_in("").is_err());
    }

    #[test]
    fn a_steady_gain_is_called_faster_and_noise_is_not() {
        let pairs = |ratios: &[f64]| -> Vec<Pair> {
            ratios.iter().map(|ratio| Pair { old: 100.0, new: 100.0 * ratio }).collect()
        };
        let verdict = |ratios: &[f64]| Comparison::of(&pairs(ratios)).expect("pairs").verdict();
        assert_eq!(verdict(&[1.04, 1.05, 1.06, 1.05, 1.07]), "faster");
        assert_eq!(verdict(&[0.94, 0.95, 0.96, 0.95, 0.97]), "slower");
        assert_eq!(verdict(&[0.9, 1.0, 1.1, 1.05, 0.95]), "no difference shown");
    }

    #[test]
    fn a_revision_is_required() {
        let error = parse(lexopt::Parser::from_args(["--pairs", "5"])).expect_err("no revision");
        assert!(error.to_string().contains("--against HEAD"), "{error}");
    }

    #[test]
    fn workloads_may_be_repeated_or_listed() {
        let line = ["--against", "HEAD", "--workload", "T1,F16", "--workload=B"];
        let arguments = parse(lexopt::Parser::from_args(line)).expect("valid");
        assert_eq!(arguments.workloads, ["T1", "F16", "B"]);
        assert_eq!(arguments.pairs, 20);
    }
}
