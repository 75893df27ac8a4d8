//! `cargo xtask bench --against …`: is this tree faster than that revision, and how far is it from the
//! relay? Answered by pairs of runs, alternately one and the other, because these machines drift by a
//! factor of two within minutes: only the ratio of two neighbouring runs means anything.
//!
//! Both sides are driven by this tree's load generator, so that the measure itself never changes
//! between the two. A revision is built in a git worktree below target/, which is removed again.

mod results;
mod side_by_side;
pub(crate) mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use crate::core_distance::{self, Apart};
use crate::daemon::Daemon;
use crate::invocation::Invocation;
use crate::statistics::{Spread, median};
use crate::tool::{self, Tool};
use crate::{cores, repository};

pub(crate) const HELP: &str = "\
Usage: cargo xtask bench [--workload NAME]… [--pairs N] [--quick] [--report]
       cargo xtask bench --against REV|relay|pump|nats|redis|mqtt|zenoh [--workload NAME]… [--pairs N] [--size BYTES]
                         [--rate N] [--transport tcp|unix] [--duration TIME] [--warmup TIME]
                         [--json FILE]

Without --against: NexusD beside NATS, Redis, Mosquitto and Zenoh, workload by workload, 5 pairs of each
unless told. Installs them if they are missing, goes on where an interrupted session was, and writes the
tables of BENCHMARKS.md, each row with the commit that has the most pairs of it, the last of several.
--report writes them alone, without measuring. --quick takes one pair of short runs of each and only
prints the tables; runs of B stay long, since what a stalled subscriber costs is paid in the first
seconds.

With --against: runs this tree's daemon, uncommitted changes included, and something else alternately under the same
load generator: the daemon of REV (any git revision), or one of the load generator's yardsticks.
Prints, per workload and measure, the ratio of this tree to the other: the median over the pairs, its
95 % confidence interval, and the smallest and largest ratio. An interval that holds 1.0 shows no
difference. Workload B also compares this tree's runs with and without the stalled subscriber.

  --against WHAT   a revision, for example HEAD or main~3; or relay, or pump; or another system,
                   which is installed if it is missing (`cargo xtask setup peers`)
  --workload NAME  T1 (default), T2, F16, F64, F1000, P, L, B, K, W; may be repeated; B against no
                   relay or pump, W against revisions and nats; without --against also M1, M3 and S
  --pairs N        pairs of runs, 20 unless told
  --size BYTES     payload, 128 unless told
  --rate N         messages per second, for latency: as in the load generator
  --transport NAME tcp (default) or unix
  --duration TIME  measured time of each run, 3s unless told
  --warmup TIME    unmeasured time before it, 1s unless told
  --json FILE      every single figure as well

A quick look:      cargo xtask bench --against HEAD --pairs 5
For a decision:    cargo xtask bench --against main --workload T1 --workload F16
Against NATS:      cargo xtask bench --against nats --workload T1,F16 --pairs 5
Against the limit: cargo xtask bench --against relay --workload T1,F16 --pairs 9 --duration 1s
Latency:           cargo xtask bench --against relay --workload L --rate 10k --pairs 9
";

/// Pairs of runs, where one revision is compared with another.
const PAIRS: usize = 20;
/// A run that loses messages or misses its schedule is repeated this often before we give up.
const ATTEMPTS: u32 = 3;
/// A run for latency that the machine disturbed is repeated this often before it counts all the same.
const DISTURBED_ATTEMPTS: u32 = 30;
/// The same where many systems are measured.
const DISTURBED_ATTEMPTS_BESIDE_OTHERS: u32 = 6;
/// Gaps of more than a millisecond in the execution of the machine's cores that latency can bear.
const HICCUPS_MAX: u64 = 2;

#[derive(Debug, Clone, PartialEq)]
struct Arguments {
    /// `None`: other systems, side by side.
    against: Option<String>,
    workloads: Vec<String>,
    pairs: Option<usize>,
    is_quick: bool,
    /// Measures nothing, and writes the tables of what was measured before.
    is_report: bool,
    size: u32,
    rate: Option<String>,
    transport: String,
    duration: String,
    warmup: String,
    json: Option<PathBuf>,
    /// What else the load generator is told.
    more: &'static [&'static str],
}

/// What is measured.
pub(crate) struct Side {
    pub(crate) label: String,
    server: Server,
}

enum Server {
    /// A daemon, by its binary.
    Daemon(PathBuf),
    /// A target that the load generator starts itself.
    Target(String),
}

/// Other systems that the load generator can drive, and their servers.
const PEERS: &[(&str, &Tool)] = &[
    ("nats", &tool::NATS),
    ("redis", &tool::REDIS),
    ("mqtt", &tool::MOSQUITTO),
    ("zenoh", &tool::ZENOHD),
];

/// Workloads for which the load generator starts our daemon as well, since they take several or other limits.
const STARTED_BY_THE_LOAD: &[&str] = &["M1", "M3", "C", "S"];

/// What a run is judged by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Measure {
    /// Messages (deliveries, for fan-out) per CPU-second of the server.
    PerCpuSecond,
    /// Messages per second of wall time.
    PerSecond,
    /// Latency from the intended send time, microseconds.
    P50,
    P99,
    /// Share of the deliveries per second without a stalled subscriber that there are beside one, in percent.
    Beside,
    /// Resident memory of the server for each idle client.
    MemoryPerClient,
    /// Until all idle clients are subscribed, and until they are again after all were dropped, milliseconds.
    Connect,
    Reconnect,
}

impl Measure {
    const ALL: [Self; 8] = [
        Self::PerCpuSecond,
        Self::PerSecond,
        Self::P50,
        Self::P99,
        Self::Beside,
        Self::MemoryPerClient,
        Self::Connect,
        Self::Reconnect,
    ];

    /// What a run is judged by, and must have.
    fn of_run(run: &Json) -> Vec<Self> {
        if run["clients"].is_number() {
            return vec![Self::MemoryPerClient, Self::Connect, Self::Reconnect];
        }
        let mut measures = if run["rate"].is_null() {
            vec![Self::PerCpuSecond, Self::PerSecond]
        } else {
            vec![Self::PerCpuSecond, Self::P50, Self::P99]
        };
        if run["without_stalled"].is_object() {
            measures.push(Self::Beside);
        }
        measures
    }

    fn name(self) -> &'static str {
        match self {
            Self::PerCpuSecond => "per CPU-second",
            Self::PerSecond => "per second",
            Self::P50 => "p50 (µs)",
            Self::P99 => "p99 (µs)",
            Self::Beside => "throughput kept beside a stalled subscriber (%)",
            Self::MemoryPerClient => "memory of an idle client (bytes)",
            Self::Connect => "all idle clients connected (ms)",
            Self::Reconnect => "all idle clients back (ms)",
        }
    }

    /// Its place in a run's report.
    fn of(self, run: &Json) -> Option<f64> {
        match self {
            Self::PerCpuSecond => run["messages_per_cpu_s"].as_f64(),
            Self::PerSecond => run["received_per_s"].as_f64(),
            Self::P50 => run["latency_us"]["p50"].as_f64(),
            Self::P99 => run["latency_us"]["p99"].as_f64(),
            Self::Beside => run["without_stalled"]["received_ratio"].as_f64().map(|it| it * 100.0),
            Self::MemoryPerClient => run["user_bytes_per_client"].as_f64(),
            Self::Connect => run["connect_s"].as_f64().map(|it| it * 1e3),
            Self::Reconnect => run["reconnect_s"].as_f64().map(|it| it * 1e3),
        }
    }

    fn is_better_low(self) -> bool {
        !matches!(self, Self::PerCpuSecond | Self::PerSecond | Self::Beside)
    }
}

pub(crate) fn run(parser: lexopt::Parser) -> Result<()> {
    let mut arguments = parse(parser)?;
    let Some(against) = arguments.against.clone() else {
        return beside_others(arguments);
    };
    if arguments.workloads.is_empty() {
        arguments.workloads.push("T1".to_owned());
    }
    let sides = build_sides(&against)?;
    let mut measured = Vec::new();
    for workload in &arguments.workloads {
        measured.push((workload, measure_pairs(&arguments, workload, &sides)?));
    }
    println!("\nold: {}\nnew: {}", sides[0].label, sides[1].label);
    println!(
        "{} B, {}, {} pairs of {} each\n",
        arguments.size,
        arguments.transport,
        arguments.pairs.unwrap_or(PAIRS),
        arguments.duration
    );
    println!(
        "{:<36} {:<14} {:>11} {:>11} {:>6} {:>14} {:>14}  verdict",
        "workload", "measure", "old median", "new median", "ratio", "95 % interval", "min .. max"
    );
    let mut rows = Vec::new();
    for (workload, figures) in &measured {
        for ((run, measure), pairs) in figures {
            // Present as soon as there is one pair.
            let Some(comparison) = Comparison::of(*measure, pairs) else { continue };
            println!("{}", comparison.row(format!("{workload} {run}").trim_end()));
            rows.push(comparison.json(workload, run, pairs));
        }
    }
    if let Some(path) = &arguments.json {
        let document = json!({
            "old": sides[0].label, "new": sides[1].label, "size": arguments.size,
            "transport": arguments.transport, "rate": arguments.rate,
            "duration": arguments.duration, "warmup": arguments.warmup, "results": rows,
        });
        fs::write(path, format!("{document:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("\nEvery figure: {}", path.display());
    }
    Ok(())
}

fn beside_others(mut arguments: Arguments) -> Result<()> {
    if arguments.is_report {
        return side_by_side::report();
    }
    let mut pairs = arguments.pairs.unwrap_or(5);
    if arguments.is_quick {
        pairs = arguments.pairs.unwrap_or(1);
        (arguments.duration, arguments.warmup) = ("1s".to_owned(), "500ms".to_owned());
    }
    let new = build_tree()?;
    side_by_side::run(&arguments, &new, pairs)
}

fn parse(mut parser: lexopt::Parser) -> Result<Arguments> {
    let mut arguments = Arguments {
        against: None,
        workloads: Vec::new(),
        pairs: None,
        is_quick: false,
        is_report: false,
        size: 128,
        rate: None,
        transport: "tcp".to_owned(),
        duration: "3s".to_owned(),
        warmup: "1s".to_owned(),
        json: None,
        more: &[],
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("against") => arguments.against = Some(parser.value()?.string()?),
            Long("workload") => {
                let names = parser.value()?.string()?;
                arguments.workloads.extend(names.split(',').map(str::to_owned));
            }
            Long("pairs") => arguments.pairs = Some(parser.value()?.parse()?),
            Long("quick") => arguments.is_quick = true,
            Long("report") => arguments.is_report = true,
            Long("size") => arguments.size = parser.value()?.parse()?,
            Long("rate") => arguments.rate = Some(parser.value()?.string()?),
            Long("transport") => {
                arguments.transport = parser.value()?.string()?;
                if !["tcp", "unix"].contains(&arguments.transport.as_str()) {
                    bail!("--transport takes tcp or unix, not `{}`", arguments.transport);
                }
            }
            Long("duration") => arguments.duration = parser.value()?.string()?,
            Long("warmup") => arguments.warmup = parser.value()?.string()?,
            Long("json") => arguments.json = Some(std::path::absolute(parser.value()?)?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if arguments.pairs == Some(0) {
        bail!("--pairs takes at least 1");
    }
    let alone =
        |workload: &&String| STARTED_BY_THE_LOAD.iter().any(|it| workload.eq_ignore_ascii_case(it));
    if let (Some(_), Some(workload)) = (&arguments.against, arguments.workloads.iter().find(alone))
    {
        bail!(
            "workload {workload} starts its servers itself: it is compared with other systems alone, \
             without --against"
        );
    }
    Ok(arguments)
}

fn build_sides(against: &str) -> Result<[Side; 2]> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let peer = PEERS.iter().find(|(name, _)| *name == against).map(|(_, tool)| *tool);
    let old = match against {
        "relay" | "pump" => None,
        _ if peer.is_some() => None,
        revision => Some(resolve(revision)?),
    };
    if let Some(tool) = peer {
        tool::install_missing(&[tool]);
        tool.require()?;
    }
    let new = build_tree()?;
    let Some(commit) = old else {
        let label = match peer {
            Some(tool) => format!("{against} ({})", tool.program),
            None => format!("the load generator's {against}"),
        };
        return Ok([Side { label, server: Server::Target(against.to_owned()) }, new]);
    };
    let daemon = folder.join(format!("nexusd-{}", short(&commit)));
    if !daemon.exists() {
        build_revision(&commit, &folder, &daemon)
            .with_context(|| format!("{against} could not be built"))?;
    }
    let label = format!("{against} ({})", short(&commit));
    Ok([Side { label, server: Server::Daemon(daemon) }, new])
}

/// This tree's daemon and load generator, built and copied, so that the next build does not change a program
/// under a measurement.
pub(crate) fn build_tree() -> Result<Side> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let changes =
        Invocation::new("git").args(["status", "--porcelain", "--untracked-files=no"]).output()?;
    let suffix = if changes.is_empty() { "" } else { " with uncommitted changes" };
    let new = Side {
        label: format!("this tree ({}{suffix})", short(&resolve("HEAD")?)),
        server: Server::Daemon(folder.join("nexusd-new")),
    };
    Invocation::cargo()
        .args(["build", "--release", "--locked"])
        .args(["--package", "nexusd", "--package", "nexusd-loadgen"])
        .run()?;
    copy(&repository::release_binary("nexusd"), &folder.join("nexusd-new"))?;
    copy(&repository::release_binary("nexusd-loadgen"), &folder.join("nexusd-loadgen"))?;
    Ok(new)
}

fn folder() -> PathBuf {
    repository::target().join("bench")
}

/// The load generator that [`build_tree`] built.
pub(crate) fn load_generator() -> PathBuf {
    folder().join("nexusd-loadgen")
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

/// The figures of one pair of neighbouring runs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pair {
    old: f64,
    new: f64,
}

/// Run of a workload (`1 → 1, tcp`, …) and measure.
type Key = (String, Measure);

fn measure_pairs(
    arguments: &Arguments,
    workload: &str,
    sides: &[Side; 2],
) -> Result<BTreeMap<Key, Vec<Pair>>> {
    let mut figures = BTreeMap::<Key, Vec<Pair>>::new();
    let wanted = arguments.pairs.unwrap_or(PAIRS);
    for index in 0..wanted {
        let old = measure(arguments, workload, &sides[0])?;
        let mut new = measure(arguments, workload, &sides[1])?;
        let mut pairs: Vec<_> = std::mem::take(&mut new.pairs).into_iter().collect();
        for (key, new) in new.figures {
            if let Some(&old) = old.figures.get(&key) {
                pairs.push((key, Pair { old, new }));
            }
        }
        for ((run, measure), pair) in pairs {
            eprintln!(
                "{workload} {run}, {}: pair {:>2}/{}: old {:>11.0}  new {:>11.0}  ratio {:.3}",
                measure.name(),
                index + 1,
                wanted,
                pair.old,
                pair.new,
                pair.new / pair.old
            );
            figures.entry((run, measure)).or_default().push(pair);
        }
    }
    Ok(figures)
}

/// What the load generator reported of one measurement.
#[derive(Debug, Default, PartialEq)]
struct Report {
    figures: BTreeMap<Key, f64>,
    /// Comparisons that the measurement made itself.
    pairs: BTreeMap<Key, Pair>,
    /// The machine was busy elsewhere while latency was measured.
    is_disturbed: bool,
}

/// One measurement that counts.
fn measure(arguments: &Arguments, workload: &str, side: &Side) -> Result<Report> {
    let measurement = format!("{workload} on {}", side.label);
    let (mut invalid, mut disturbed, mut apart) = (0, 0, Apart::default());
    let attempts = match arguments.against {
        // It is there for what a message costs, and 64 subscribers keep the load's core busy, which looks
        // like a disturbance.
        _ if workload.eq_ignore_ascii_case("P") => 0,
        Some(_) => DISTURBED_ATTEMPTS,
        None => DISTURBED_ATTEMPTS_BESIDE_OTHERS,
    };
    loop {
        let attempt = attempt(arguments, workload, side)?;
        if apart.repeats(&measurement, attempt.is_apart) {
            continue;
        }
        match attempt.report {
            Ok(report) if report.is_disturbed && disturbed < attempts => disturbed += 1,
            Ok(report) => return Ok(report),
            Err(reason) if invalid + 1 < ATTEMPTS => {
                eprintln!("{measurement}: {reason}; once more");
                invalid += 1;
            }
            Err(reason) => {
                bail!("{measurement} gave no valid run in {ATTEMPTS} attempts: {reason}")
            }
        }
    }
}

/// A measurement that may have to be repeated.
struct Attempt {
    /// Whether the cores of server and load had no cache in common in one of its runs, if they say.
    is_apart: Option<bool>,
    /// Or why it does not count.
    report: Result<Report, String>,
}

fn attempt(arguments: &Arguments, workload: &str, side: &Side) -> Result<Attempt> {
    let (server_core, load_core) = cores::for_daemon_and_load();
    let is_started_by_load = STARTED_BY_THE_LOAD.iter().any(|it| workload.eq_ignore_ascii_case(it));
    // Several servers have a core each, and the load has both.
    let both = format!("{server_core},{load_core}");
    let (server_cores, load_cores) = match workload.to_ascii_uppercase().as_str() {
        "M1" | "M3" => (both.clone(), both),
        _ => (server_core.to_string(), load_core.to_string()),
    };
    let mut load = Invocation::new(load_generator())
        .args(["--workload", workload, "--size", &arguments.size.to_string()])
        .args(["--duration", &arguments.duration, "--warmup", &arguments.warmup])
        .args(["--load-core", &load_cores, "--json", "-"]);
    if let Some(rate) = &arguments.rate {
        load = load.args(["--rate", rate]);
    }
    load = load.args(arguments.more);
    let mut daemon = None;
    match &side.server {
        Server::Daemon(_) if is_started_by_load => {
            load = load.args(["--spawn", "--transport", &arguments.transport]);
            load = load.args(["--server-core", &server_cores]);
        }
        Server::Daemon(program) => {
            let started = Daemon::start(program, server_core)?;
            let address = match arguments.transport.as_str() {
                "unix" => ["--unix", &started.unix_socket],
                _ => ["--addr", &started.address],
            };
            load = load.args(address).args(["--server-pid", &started.pid().to_string()]);
            daemon = Some(started);
        }
        Server::Target(target) => {
            if let Some((_, tool)) = PEERS.iter().find(|(name, _)| name == target) {
                load = load.env("PATH", tool::path_with(&[tool])?);
            }
            load = load.args(["--spawn", "--target", target, "--transport", &arguments.transport]);
            load = load.args(["--server-core", &server_cores]);
        }
    }
    let output = load.into_command().output().context("the load generator could not be started")?;
    if let Some(daemon) = daemon {
        daemon.stop().with_context(|| format!("the daemon of {}", side.label))?;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last_words = said.lines().last().unwrap_or_default();
    let printed = String::from_utf8_lossy(&output.stdout);
    let report = match figures_in(&printed) {
        // It had done some of its runs before it failed.
        Ok(_) if !output.status.success() => {
            Err(format!("the load generator did not do all of it: {last_words}"))
        }
        report => report.map_err(|reason| format!("{reason} {last_words}")),
    };
    Ok(Attempt { is_apart: core_distance::is_apart(&printed), report })
}

/// Reads the figures out of the load generator's report, a line of JSON per run.
fn figures_in(output: &str) -> Result<Report, String> {
    let mut report = Report::default();
    // A table for people stands beside them.
    for line in output.lines().filter(|line| line.starts_with('{')) {
        let run: Json = serde_json::from_str(line)
            .map_err(|error| format!("the report is not JSON: {error}."))?;
        if run["valid"] != Json::Bool(true) {
            return Err(format!("the run is not valid: {}.", run["objections"]));
        }
        let label = run["label"].as_str().unwrap_or_default();
        report.is_disturbed |= !run["rate"].is_null()
            && run["hiccups"].as_u64().is_some_and(|gaps| gaps > HICCUPS_MAX);
        for measure in Measure::of_run(&run) {
            let figure = measure.of(&run).filter(|figure| *figure > 0.0);
            let figure = figure.ok_or_else(|| format!("no {} was reported.", measure.name()))?;
            report.figures.insert((label.to_owned(), measure), figure);
            if let Some(old) = measure.of(&run["without_stalled"]) {
                let key = (format!("{label} ÷ without"), measure);
                report.pairs.insert(key, Pair { old, new: figure });
            }
        }
    }
    if report.figures.is_empty() {
        return Err("the load generator reported no run.".to_owned());
    }
    Ok(report)
}

/// What all pairs of a run say together.
struct Comparison {
    measure: Measure,
    old: f64,
    new: f64,
    ratio: Spread,
}

impl Comparison {
    fn of(measure: Measure, pairs: &[Pair]) -> Option<Self> {
        let ratios: Vec<f64> = pairs.iter().map(|pair| pair.new / pair.old).collect();
        Some(Self {
            measure,
            old: median(&pairs.iter().map(|pair| pair.old).collect::<Vec<_>>())?,
            new: median(&pairs.iter().map(|pair| pair.new).collect::<Vec<_>>())?,
            ratio: Spread::of(&ratios)?,
        })
    }

    fn verdict(&self) -> &'static str {
        let is_better = (self.ratio.median > 1.0) != self.measure.is_better_low();
        match (self.ratio.excludes(1.0), is_better) {
            (false, _) => "no difference shown",
            (true, true) => "better",
            (true, false) => "worse",
        }
    }

    fn row(&self, run: &str) -> String {
        let Spread { median, min, max, low, high, .. } = self.ratio;
        let interval = format!("{low:.3} .. {high:.3}");
        let range = format!("{min:.3} .. {max:.3}");
        format!(
            "{run:<36} {:<14} {:>11.0} {:>11.0} {median:>6.3} {interval:>14} {range:>14}  {}",
            self.measure.name(),
            self.old,
            self.new,
            self.verdict()
        )
    }

    fn json(&self, workload: &str, run: &str, pairs: &[Pair]) -> Json {
        json!({
            "workload": workload,
            "run": run,
            "measure": self.measure.name(),
            "old": self.old,
            "new": self.new,
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
        let report = figures_in(
            "workload  per CPU-second\n\
             {\"label\": \"a\", \"valid\": true, \"messages_per_cpu_s\": 1.5e7, \"received_per_s\": 1e7}\n\
             {\"label\": \"b\", \"valid\": true, \"messages_per_cpu_s\": 2, \"rate\": 10, \"hiccups\": 9,\
              \"latency_us\": {\"p50\": 80.5, \"p99\": 170}}\n",
        );
        let figure = |run: &str, measure, figure| ((run.to_owned(), measure), figure);
        let figures = BTreeMap::from([
            figure("a", Measure::PerCpuSecond, 1.5e7),
            figure("a", Measure::PerSecond, 1e7),
            figure("b", Measure::PerCpuSecond, 2.0),
            figure("b", Measure::P50, 80.5),
            figure("b", Measure::P99, 170.0),
        ]);
        let pairs = BTreeMap::new();
        assert_eq!(report, Ok(Report { figures, pairs, is_disturbed: true }));

        let lossy = figures_in(r#"{"label": "", "valid": false, "objections": ["3 lost"]}"#);
        assert!(lossy.is_err_and(|reason| reason.contains("3 lost")));
        let unknown = figures_in(r#"{"label": "", "valid": true, "messages_per_cpu_s": null}"#);
        assert!(unknown.is_err());
        assert!(figures_in("").is_err());
    }

    #[test]
    fn a_run_beside_a_stalled_subscriber_is_compared_with_the_one_without() {
        let report = figures_in(
            r#"{"label": "B", "valid": true, "messages_per_cpu_s": 9, "received_per_s": 19,
                "without_stalled": {"messages_per_cpu_s": 10, "received_per_s": 20,
                "received_ratio": 0.95}}"#
                .replace('\n', "")
                .as_str(),
        );
        let report = report.expect("valid");
        assert_eq!(report.figures[&("B".to_owned(), Measure::Beside)], 95.0);
        let pairs = report.pairs;
        let pair = pairs[&("B ÷ without".to_owned(), Measure::PerCpuSecond)];
        assert_eq!((pair.old, pair.new), (10.0, 9.0));
        assert_eq!(pairs.len(), 2);
    }

    #[test]
    fn a_steady_gain_is_called_better_and_noise_is_not() {
        let verdict = |measure, ratios: &[f64]| {
            let pairs: Vec<_> =
                ratios.iter().map(|ratio| Pair { old: 100.0, new: 100.0 * ratio }).collect();
            Comparison::of(measure, &pairs).expect("pairs").verdict()
        };
        let (more, less) = ([1.04, 1.05, 1.06, 1.05, 1.07], [0.94, 0.95, 0.96, 0.95, 0.97]);
        assert_eq!(verdict(Measure::PerSecond, &more), "better");
        assert_eq!(verdict(Measure::PerSecond, &less), "worse");
        assert_eq!(verdict(Measure::P99, &more), "worse");
        assert_eq!(verdict(Measure::P99, &less), "better");
        let noise = [0.9, 1.0, 1.1, 1.05, 0.95];
        assert_eq!(verdict(Measure::PerSecond, &noise), "no difference shown");
    }

    #[test]
    fn without_a_revision_others_are_meant() {
        let arguments = parse(lexopt::Parser::from_args(["--pairs", "5"])).expect("valid");
        assert_eq!((arguments.against, arguments.pairs), (None, Some(5)));
    }

    #[test]
    fn what_starts_its_own_servers_is_compared_with_other_systems_alone() {
        let line = ["--against", "HEAD", "--workload", "T1,m1"];
        let error = parse(lexopt::Parser::from_args(line)).expect_err("no daemon of a revision");
        assert!(error.to_string().contains("workload m1"), "{error}");
        let arguments = parse(lexopt::Parser::from_args(["--workload", "S"])).expect("valid");
        assert_eq!(arguments.workloads, ["S"]);
    }

    #[test]
    fn idle_clients_are_judged_by_memory_and_time() {
        let report = figures_in(
            r#"{"label": "S", "valid": true, "clients": 10, "user_bytes_per_client": 900,
                "connect_s": 0.5, "reconnect_s": 0.75, "messages_per_cpu_s": null}"#
                .replace('\n', "")
                .as_str(),
        );
        let figures = report.expect("valid").figures;
        let of = |measure| figures[&("S".to_owned(), measure)];
        assert_eq!(of(Measure::MemoryPerClient), 900.0);
        assert_eq!((of(Measure::Connect), of(Measure::Reconnect)), (500.0, 750.0));
    }

    #[test]
    fn workloads_may_be_repeated_or_listed() {
        let line = ["--against", "HEAD", "--workload", "T1,F16", "--workload=B"];
        let arguments = parse(lexopt::Parser::from_args(line)).expect("valid");
        assert_eq!(arguments.workloads, ["T1", "F16", "B"]);
        assert_eq!(arguments.pairs, None);
    }
}
