//! `cargo xtask bench --against REV`: is this tree faster than that revision? Answered by pairs of
//! runs, alternately old and new, because these machines drift by a factor of two within minutes:
//! only the ratio of two neighbouring runs means anything.
//!
//! Both daemons are driven by this tree's load generator, so that the measure itself never changes
//! between the two. The revision is built in a git worktree below target/, which is removed again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use crate::invocation::Invocation;
use crate::repository;
use crate::statistics::{Spread, median};

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

/// One daemon to measure, lying beside its load generator.
struct Side {
    label: String,
    folder: PathBuf,
}

pub(crate) fn run(parser: lexopt::Parser) -> Result<()> {
    let arguments = parse(parser)?;
    let sides = build_sides(&arguments.against)?;
    let mut results = Vec::new();
    for workload in &arguments.workloads {
        let figures = measure_pairs(&arguments, workload, &sides)?;
        results.push((workload, figures));
    }
    println!("\nold: {}\nnew: {}", sides[0].label, sides[1].label);
    println!(
        "messages per CPU-second of the daemon, {} B, {} pairs of {}\n",
        arguments.size, arguments.pairs, arguments.duration
    );
    println!(
        "{:<9} {:>12} {:>12} {:>7} {:>15} {:>15}  verdict",
        "workload", "old median", "new median", "ratio", "95 % interval", "min .. max"
    );
    let mut rows = Vec::new();
    for (workload, figures) in &results {
        let comparison = Comparison::of(figures)
            .with_context(|| format!("{workload}: no pair of runs gave figures"))?;
        println!("{}", comparison.row(workload));
        rows.push(comparison.json(workload, figures));
    }
    if let Some(path) = &arguments.json {
        let document = json!({
            "old": sides[0].label, "new": sides[1].label, "size": arguments.size,
            "duration": arguments.duration, "warmup": arguments.warmup, "workloads": rows,
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
    let commit = resolve(against)?;
    let folder = repository::target().join("bench");
    let old = Side {
        label: format!("{against} ({})", &commit[..12]),
        folder: folder.join(format!("old-{}", &commit[..12])),
    };
    let here = resolve("HEAD")?;
    let dirty = !Invocation::new("git")
        .args(["status", "--porcelain", "--untracked-files=no"])
        .output()?
        .is_empty();
    let changes = if dirty { " with uncommitted changes" } else { "" };
    let new =
        Side { label: format!("this tree ({}{changes})", &here[..12]), folder: folder.join("new") };

    Invocation::cargo()
        .args(["build", "--release", "--locked", "--package", "nexusd", "--package"])
        .arg("nexusd-loadgen")
        .run()?;
    place(&repository::release_binary("nexusd"), &new.folder)?;
    if !old.folder.join("nexusd").exists() {
        build_revision(&commit, &folder, &old.folder)
            .with_context(|| format!("{against} could not be built"))?;
    }
    for side in [&old, &new] {
        place(&repository::release_binary("nexusd-loadgen"), &side.folder)?;
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

fn build_revision(commit: &str, folder: &Path, destination: &Path) -> Result<()> {
    let worktree = folder.join("worktree");
    let remove =
        || Invocation::new("git").args(["worktree", "remove", "--force"]).arg(&worktree).run();
    if worktree.exists() {
        // Left over from an interrupted run.
        remove()?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Invocation::new("git")
        .args(["worktree", "add", "--detach", "--quiet"])
        .arg(&worktree)
        .arg(commit)
        .run()?;
    // A target folder of its own, kept: the dependencies of the next revision are mostly the same.
    let build = folder.join("build");
    let built = Invocation::cargo()
        .args(["build", "--release", "--locked", "--package", "nexusd", "--target-dir"])
        .arg(&build)
        .current_dir(&worktree)
        .run()
        .and_then(|()| place(&build.join("release/nexusd"), destination));
    remove()?;
    built
}

/// Copies a program into a folder, so that the next build does not change it under a measurement.
fn place(program: &Path, folder: &Path) -> Result<()> {
    let name = program.file_name().context("a program has a name")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let copy = folder.join(name);
    fs::copy(program, &copy)
        .with_context(|| format!("cannot copy {} to {}", program.display(), copy.display()))?;
    Ok(())
}

/// Messages per CPU-second of one pair of neighbouring runs.
#[derive(Debug, Clone, Copy)]
struct Pair {
    old: f64,
    new: f64,
}

fn measure_pairs(arguments: &Arguments, workload: &str, sides: &[Side; 2]) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for index in 0..arguments.pairs {
        let old = measure(arguments, workload, &sides[0])?;
        let new = measure(arguments, workload, &sides[1])?;
        eprintln!(
            "{workload} pair {:>2}/{}: old {old:>12.0}  new {new:>12.0}  ratio {:.3}",
            index + 1,
            arguments.pairs,
            new / old
        );
        pairs.push(Pair { old, new });
    }
    Ok(pairs)
}

fn measure(arguments: &Arguments, workload: &str, side: &Side) -> Result<f64> {
    let report = side.folder.join("report.json");
    let mut complaint = String::new();
    for _ in 0..ATTEMPTS {
        let _ = fs::remove_file(&report);
        let mut command = Invocation::new(side.folder.join("nexusd-loadgen"))
            .args(["--target", "nexusd", "--workload", workload, "--spawn"])
            .args(["--size", &arguments.size.to_string(), "--warmup", &arguments.warmup])
            .args(["--duration", &arguments.duration, "--json"])
            .arg(&report)
            .into_command();
        let output = command.output().with_context(|| {
            format!("cannot start {}", side.folder.join("nexusd-loadgen").display())
        })?;
        match fs::read_to_string(&report)
            .map_err(|error| error.to_string())
            .and_then(|text| rate_in(&text))
        {
            Ok(rate) => return Ok(rate),
            Err(reason) => {
                let said = String::from_utf8_lossy(&output.stderr);
                complaint = format!("{reason}; it said: {}", said.trim());
                eprintln!("{workload} on {}: {reason}; once more", side.label);
            }
        }
    }
    bail!("{workload} on {} gave no valid run in {ATTEMPTS} attempts: {complaint}", side.label)
}

/// Reads the figure out of the load generator's report.
fn rate_in(report: &str) -> Result<f64, String> {
    let document: Json =
        serde_json::from_str(report).map_err(|error| format!("the report is not JSON: {error}"))?;
    // One result per measurement of the workload; the workloads here have one.
    let result = match &document {
        Json::Array(results) => results.first().ok_or("the report is empty")?,
        one => one,
    };
    if result["valid"] != Json::Bool(true) {
        return Err("the run is not valid".to_owned());
    }
    match result["messages_per_cpu_s"].as_f64() {
        Some(rate) if rate > 0.0 => Ok(rate),
        _ => Err("the run gave no messages_per_cpu_s".to_owned()),
    }
}

/// What all pairs of a workload say together.
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

    fn row(&self, workload: &str) -> String {
        let Spread { median, min, max, low, high, .. } = self.ratio;
        let interval = format!("{low:.3} .. {high:.3}");
        let range = format!("{min:.3} .. {max:.3}");
        format!(
            "{workload:<9} {:>12.0} {:>12.0} {median:>7.3} {interval:>15} {range:>15}  {}",
            self.old,
            self.new,
            self.verdict()
        )
    }

    fn json(&self, workload: &str, pairs: &[Pair]) -> Json {
        json!({
            "workload": workload,
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
    fn the_rate_is_read_from_a_valid_run_alone() {
        assert_eq!(rate_in(r#"{"valid": true, "messages_per_cpu_s": 1.5e7}"#), Ok(1.5e7));
        assert_eq!(rate_in(r#"[{"valid": true, "messages_per_cpu_s": 2}]"#), Ok(2.0));
        assert!(rate_in(r#"{"valid": false, "messages_per_cpu_s": 1.5e7}"#).is_err());
        assert!(rate_in(r#"{"valid": true, "messages_per_cpu_s": null}"#).is_err());
        assert!(rate_in("").is_err());
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
