//! What the model says of workload L beside what was measured.
//!
//! Costs come from two loads, [`CALIBRATION`]: few messages make a batch at the one, many at the other. What cannot be
//! counted, how long wake-ups take, is fitted to median and 99th percentile at the same two. Everything else is
//! predicted, and what is predicted is never fitted.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value as Json, json};

use super::host::FRAME_BYTES;
use super::load::{self, Run};
use super::model::{self, Parameters, Varying, Work};
use super::results::grouped;
use crate::statistics::{SplitMix, median};

/// Percentages of the capacity.
const SHARES: [u64; 6] = [10, 20, 30, 50, 70, 80];
/// Those at which costs are counted, and that the model is fitted to.
const CALIBRATION: [u64; 2] = [10, 50];
/// Runs at each of them that say what messages cost.
const COST_RUNS: usize = 5;
const REPETITIONS: usize = 9;
/// Runs of which one counts, and short gaps with which one does at once: hardly any has none.
const CHOICE: usize = 5;
const FEW_GAPS: f64 = 2.0;
const PAYLOAD_BYTES: f64 = 128.0;

/// What the load generator does at least between two writes, and at most in one (loadgen/src/publisher.rs and
/// batch.rs), and what it reads at most.
const PAUSE_NS: f64 = 20_000.0;
const WRITE_BYTES: f64 = 131_072.0;
const READ_BYTES: f64 = 262_144.0;

/// How long the scheduler lets one thread run while another waits: 0.7 ms, twice that on two cores (`base_slice_ns` of
/// Linux 6.18).
const SLICE_NS: f64 = 1_400_000.0;

/// Simulated time of a prediction, and of each step of the fit.
const SIMULATED_S: f64 = 8.0;
const FIT_STEPS: usize = 120;
/// Median and spread of wake-ups, where the fit begins.
const WAKE_UP_TRIED: Varying = Varying { median_ns: 20_000.0, spread: 0.8 };

/// CPU time of a message, where so many make a send of the daemon.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    server_ns: f64,
    load_ns: f64,
    batch: f64,
}

/// Latencies at a load.
#[derive(Debug, Clone, PartialEq, Default)]
struct Load {
    /// Percentage of the capacity.
    share: u64,
    rate_per_s: f64,
    p50_ns: Vec<f64>,
    p99_ns: Vec<f64>,
    /// CPU seconds a second, of the server and of the load generator.
    server_busy: Vec<f64>,
    load_busy: Vec<f64>,
    /// Runs in which cores were taken away more often all the same.
    disturbed: usize,
}

/// All that was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observed {
    /// Messages a second in full flow, with a window.
    full_per_s: f64,
    /// The highest rate that is kept on a schedule with few gaps, in steps of a tenth of that.
    capacity_per_s: f64,
    full: Cost,
    /// At the loads of [`CALIBRATION`].
    counted: [Cost; 2],
    loads: Vec<Load>,
}

/// Measures; takes about five minutes.
pub(super) fn measure() -> Result<Observed> {
    let mut full = Vec::new();
    for _ in 0..3 {
        // The daemon tells of its sends once a second.
        full.extend(load::run("--workload T1 --duration 3s")?);
    }
    let middle = |runs: &[Run], of: &dyn Fn(&Run) -> f64| {
        median(&runs.iter().map(of).collect::<Vec<_>>()).context("there are runs")
    };
    let frame_bytes = PAYLOAD_BYTES + FRAME_BYTES;
    let cost = |runs: &[Run]| {
        Ok::<_, anyhow::Error>(Cost {
            server_ns: middle(runs, &|run| (run.user_ns() + run.kernel_ns()) / run.sent())?,
            load_ns: middle(runs, &|run| run.load_ns() / run.sent())?,
            batch: middle(runs, &|run| run.number("bytes_per_send"))? / frame_bytes,
        })
    };
    let full_per_s = middle(&full, &|run| run.number("received_per_s"))?;
    let capacity_per_s = capacity(full_per_s)?;
    let rate = |share: u64| (capacity_per_s * share as f64 / 100.0).round();
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..COST_RUNS {
        for (runs, share) in runs.iter_mut().zip(CALIBRATION) {
            runs.extend(load::run(&format!("--workload L --rate {} --duration 3s", rate(share)))?);
        }
    }
    let counted = [cost(&runs[0])?, cost(&runs[1])?];
    let mut observed =
        Observed { full_per_s, capacity_per_s, full: cost(&full)?, counted, loads: Vec::new() };
    // Without batches there is no telling apart what they cost, and what their messages do.
    if !(counted[0].batch > 0.0 && counted[1].batch > 2.0 * counted[0].batch) {
        bail!(
            "batches of {:.0} and {:.0} messages are too alike",
            counted[0].batch,
            counted[1].batch
        );
    }
    for share in SHARES {
        observed.loads.push(Load { share, rate_per_s: rate(share), ..Load::default() });
    }
    // All loads in turn, so that a machine that drifts does so for all of them alike.
    for _ in 0..REPETITIONS {
        for load in &mut observed.loads {
            let run = latencies(load.rate_per_s)?;
            load.p50_ns.push(run.latency_ns("p50"));
            load.p99_ns.push(run.latency_ns("p99"));
            let elapsed_ns = run.number("duration_s") * 1e9;
            load.server_busy.push((run.user_ns() + run.kernel_ns()) / elapsed_ns);
            load.load_busy.push(run.load_ns() / elapsed_ns);
            load.disturbed += usize::from(short_gaps(&run) > FEW_GAPS);
        }
    }
    Ok(observed)
}

/// Raises the rate until it is not kept, or no longer without more than a few gaps: where the load generator's core is nearly
/// full, each run has many, and the model none.
fn capacity(full_per_s: f64) -> Result<f64> {
    let mut kept = 0.0;
    for tenths in 1..=10 {
        let rate_per_s = (full_per_s * f64::from(tenths) / 10.0).round();
        let is_smooth = || latencies(rate_per_s).is_ok_and(|run| short_gaps(&run) <= FEW_GAPS);
        if !(0..2).all(|_| is_smooth()) {
            break;
        }
        kept = rate_per_s;
    }
    if kept == 0.0 {
        bail!(
            "not even a tenth of {full_per_s:.0} messages a second is kept on a schedule with few gaps"
        );
    }
    Ok(kept)
}

/// Latencies at a rate, of a run in which cores were hardly ever taken away for longer than 0.2 ms, or of some runs that
/// in which it happened least: otherwise the 99th percentile of a run of a second says how long the machine stood still.
fn latencies(rate_per_s: f64) -> Result<Run> {
    let arguments = format!("--workload L --rate {rate_per_s}");
    let mut best: Option<Run> = None;
    for _ in 0..CHOICE {
        for run in load::run(&arguments)? {
            if best.as_ref().is_none_or(|best| short_gaps(&run) < short_gaps(best)) {
                best = Some(run);
            }
        }
        if best.as_ref().is_some_and(|best| short_gaps(best) <= FEW_GAPS) {
            break;
        }
    }
    best.context("there is a run")
}

fn short_gaps(run: &Run) -> f64 {
    run.number("short_hiccups")
}

impl Observed {
    pub(super) fn json(&self) -> Json {
        let cost = |cost: Cost| json!({ "server_ns": cost.server_ns, "load_ns": cost.load_ns, "batch": cost.batch });
        let load = |load: &Load| {
            json!({
                "share": load.share, "rate_per_s": load.rate_per_s, "p50_ns": load.p50_ns,
                "p99_ns": load.p99_ns, "server_busy": load.server_busy, "load_busy": load.load_busy,
                "disturbed": load.disturbed,
            })
        };
        json!({
            "full_per_s": self.full_per_s, "capacity_per_s": self.capacity_per_s, "full": cost(self.full),
            "counted": self.counted.map(cost), "loads": self.loads.iter().map(load).collect::<Vec<_>>(),
        })
    }

    /// The reverse; `None` where something is missing.
    pub(super) fn from_json(json: &Json) -> Option<Self> {
        let cost = |json: &Json| {
            let (server_ns, load_ns) = (json["server_ns"].as_f64()?, json["load_ns"].as_f64()?);
            Some(Cost { server_ns, load_ns, batch: json["batch"].as_f64()? })
        };
        let numbers =
            |json: &Json| json.as_array()?.iter().map(Json::as_f64).collect::<Option<Vec<f64>>>();
        let load = |json: &Json| {
            Some(Load {
                share: json["share"].as_u64()?,
                rate_per_s: json["rate_per_s"].as_f64()?,
                p50_ns: numbers(&json["p50_ns"])?,
                p99_ns: numbers(&json["p99_ns"])?,
                server_busy: numbers(&json["server_busy"])?,
                load_busy: numbers(&json["load_busy"])?,
                disturbed: json["disturbed"].as_u64()? as usize,
            })
        };
        Some(Self {
            full_per_s: json["full_per_s"].as_f64()?,
            capacity_per_s: json["capacity_per_s"].as_f64()?,
            full: cost(&json["full"])?,
            counted: [cost(&json["counted"][0])?, cost(&json["counted"][1])?],
            loads: json["loads"].as_array()?.iter().map(load).collect::<Option<_>>()?,
        })
    }

    /// The work of the stages, which is counted; wake-ups are a first guess.
    fn counted(&self) -> Parameters {
        let frame_bytes = PAYLOAD_BYTES + FRAME_BYTES;
        // cost = per batch ÷ messages of a batch + per message, at both loads. Nobody who follows a schedule is spared the
        // sleep behind a batch, as in full flow, and nobody sleeps as deep as where messages come one by one.
        let [few, many] = self.counted;
        let split = |few_ns: f64, many_ns: f64, batch_max: f64| {
            let per_batch_ns = ((few_ns - many_ns) / (1.0 / few.batch - 1.0 / many.batch)).max(0.0);
            let per_message_ns = (many_ns - per_batch_ns / many.batch).max(0.0);
            Work { per_batch_ns, per_message_ns, batch_max: batch_max.round() as u64 }
        };
        // Nobody counts publisher and subscriber apart: each has half of what both cost.
        let split_load = |batch_max| split(few.load_ns / 2.0, many.load_ns / 2.0, batch_max);
        Parameters {
            publisher: split_load(WRITE_BYTES / frame_bytes),
            shard: split(few.server_ns, many.server_ns, self.full.batch),
            subscriber: split_load(READ_BYTES / frame_bytes),
            wake_up: WAKE_UP_TRIED,
            pause_ns: PAUSE_NS,
            slice_ns: SLICE_NS,
        }
    }

    /// The model's parameters.
    pub(super) fn parameters(&self) -> Result<Parameters> {
        let calibrated = |load: &&Load| CALIBRATION.contains(&load.share);
        let targets: Option<Vec<_>> = self
            .loads
            .iter()
            .filter(calibrated)
            .map(|load| Some((load.rate_per_s, median(&load.p50_ns)?, median(&load.p99_ns)?)))
            .collect();
        let targets = targets.filter(|targets| !targets.is_empty());
        let targets = targets.context("there are no loads to fit the model to")?;
        Ok(calibrate(self.counted(), &targets, SIMULATED_S))
    }

    /// Parameters, and prediction beside measurement.
    pub(super) fn report(&self) -> Result<String> {
        let parameters = self.parameters()?;
        let Parameters { publisher, shard, subscriber, wake_up, .. } = parameters;
        let us = |ns: f64| format!("{:.1} µs", ns / 1e3);
        let mut text = format!(
            "Highest rate that is kept on a schedule with few gaps, in steps of a tenth of full flow: {} messages a second. Full flow \
             (T1, a window): {}; the shard alone would bear {}.\n\n\
             | parameter | value | from |\n|---|---:|---|\n",
            grouped(self.capacity_per_s),
            grouped(self.full_per_s),
            grouped(1e9 / self.full.server_ns),
        );
        let [few, many] = CALIBRATION;
        let counted = format!("counted: CPU time at {few} and {many} %");
        for (stage, work) in
            [("publisher", publisher), ("shard", shard), ("subscriber", subscriber)]
        {
            let _ = writeln!(
                text,
                "| {stage}, a batch | {} | {counted} |\n| {stage}, a message | {:.1} ns | {counted} |\n\
                 | {stage}, messages of a batch at most | {} | {} |",
                us(work.per_batch_ns),
                work.per_message_ns,
                work.batch_max,
                if stage == "shard" {
                    "counted: bytes of a send in full flow"
                } else {
                    "the load generator's source"
                }
            );
        }
        let fitted = format!("fitted at {few} and {many} %");
        let _ = writeln!(
            text,
            "| pause of the publisher | {} | the load generator's source |\n\
             | slice of a thread | {} | the kernel's default |\n\
             | wake-up of an idle core, median | {} | {fitted} |\n\
             | its spread (σ of the logarithm) | {:.2} | {fitted} |",
            us(parameters.pause_ns),
            us(parameters.slice_ns),
            us(wake_up.median_ns),
            wake_up.spread,
        );
        text.push_str(
            "\n| load | messages/s | p50 predicted | measured | off by | p99 predicted | measured (least … most) | off by | \
             messages of a turn, predicted | shard busy, predicted | CPU of the server, measured | disturbed runs |\n\
             |---:|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|\n",
        );
        let mut within = Vec::new();
        for load in &self.loads {
            let outcome = model::simulate(&parameters, load.rate_per_s, SIMULATED_S);
            let (p50, p99) = (outcome.latencies.quantile(0.5), outcome.latencies.quantile(0.99));
            let (Some(p50_seen), Some(p99_seen)) = (median(&load.p50_ns), median(&load.p99_ns))
            else {
                continue;
            };
            let least = load.p99_ns.iter().copied().fold(f64::INFINITY, f64::min);
            let most = load.p99_ns.iter().copied().fold(0.0, f64::max);
            let off = |predicted: f64, seen: f64| (predicted / seen - 1.0) * 100.0;
            let is_fitted = CALIBRATION.contains(&load.share);
            if !is_fitted {
                within.push((load.share, off(p99, p99_seen).abs() <= 20.0));
            }
            let _ = writeln!(
                text,
                "| {} %{} | {} | {} | {} | {:+.0} % | {} | {} ({} … {}) | {}{:+.0} %{} | {:.0} | {:.0} % | {:.0} % | {} of {} |",
                load.share,
                if is_fitted { ", fitted" } else { "" },
                grouped(load.rate_per_s),
                us(p50),
                us(p50_seen),
                off(p50, p50_seen),
                us(p99),
                us(p99_seen),
                us(least),
                us(most),
                if is_fitted { "" } else { "**" },
                off(p99, p99_seen),
                if is_fitted { "" } else { "**" },
                outcome.turn_messages,
                outcome.shard_busy * 100.0,
                median(&load.server_busy).unwrap_or(0.0) * 100.0,
                load.disturbed,
                load.p99_ns.len(),
            );
        }
        let list = |wanted: bool| {
            let shares = within.iter().filter(|(_, is_within)| *is_within == wanted);
            shares.map(|(share, _)| format!("{share} %")).collect::<Vec<_>>().join(", ")
        };
        let _ = writeln!(
            text,
            "\np99 predicted within 20 %: {}; not: {}.",
            Some(list(true)).filter(|text| !text.is_empty()).unwrap_or_else(|| "none".to_owned()),
            Some(list(false)).filter(|text| !text.is_empty()).unwrap_or_else(|| "none".to_owned()),
        );
        Ok(text)
    }
}

/// Varies wake-ups until medians and 99th percentiles at these rates are as near as they get.
fn calibrate(first: Parameters, targets: &[(f64, f64, f64)], seconds: f64) -> Parameters {
    let distance = |wake_up: Varying| {
        let parameters = Parameters { wake_up, ..first };
        let of_rate = |&(rate_per_s, p50_ns, p99_ns): &(f64, f64, f64)| {
            let latencies = model::simulate(&parameters, rate_per_s, seconds).latencies;
            let off = |share, seen: f64| (latencies.quantile(share).max(1.0) / seen).ln().powi(2);
            off(0.5, p50_ns) + off(0.99, p99_ns)
        };
        targets.iter().map(of_rate).sum::<f64>()
    };
    let mut best = first.wake_up;
    let mut nearest = distance(best);
    let mut random = SplitMix::new(7);
    // A step in a random direction, with both numbers at once; larger after one that came nearer, else smaller.
    let mut stride = 0.7_f64;
    let mut step = |stride: f64| {
        let direction = random.below(2_001) as f64 / 1_000.0 - 1.0;
        (stride * direction).exp()
    };
    for _ in 0..FIT_STEPS {
        let next = Varying {
            median_ns: best.median_ns * step(stride),
            spread: best.spread * step(stride),
        };
        let far = distance(next);
        if far < nearest {
            (best, nearest, stride) = (next, far, (stride * 1.5).min(1.0));
        } else {
            stride = (stride * 0.95).max(0.05);
        }
    }
    Parameters { wake_up: best, ..first }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        let load = |share: u64| Load {
            share,
            rate_per_s: share as f64 * 1e5,
            p50_ns: vec![100_000.0],
            p99_ns: vec![300_000.0, 200_000.0, 400_000.0],
            server_busy: vec![0.5],
            load_busy: vec![0.7],
            disturbed: 1,
        };
        Observed {
            full_per_s: 2e7,
            capacity_per_s: 1e7,
            full: Cost { server_ns: 60.0, load_ns: 90.0, batch: 500.0 },
            counted: [
                Cost { server_ns: 840.0, load_ns: 1_260.0, batch: 25.0 },
                Cost { server_ns: 140.0, load_ns: 210.0, batch: 200.0 },
            ],
            loads: SHARES.map(load).to_vec(),
        }
    }

    #[test]
    fn work_follows_from_what_a_message_costs_in_a_small_batch_and_in_a_large_one() {
        let Parameters { shard, publisher, .. } = observed().counted();
        let at = |messages: f64| shard.per_batch_ns / messages + shard.per_message_ns;
        assert!((at(25.0) - 840.0).abs() < 1e-6 && (at(200.0) - 140.0).abs() < 1e-6, "{shard:?}");
        assert!((publisher.per_batch_ns / 15_000.0 - 1.0).abs() < 0.01, "{publisher:?}");
    }

    #[test]
    fn what_was_measured_is_read_again() {
        let observed = observed();
        assert_eq!(Observed::from_json(&observed.json()), Some(observed));
        assert_eq!(Observed::from_json(&json!({})), None);
    }

    #[test]
    fn calibration_finds_the_wake_ups_that_latencies_were_made_with() {
        const SECONDS: f64 = 0.5;
        let mut truth = observed().counted();
        truth.wake_up = Varying { median_ns: 55_000.0, spread: 0.5 };
        let at = |parameters: &Parameters, rate_per_s: f64| {
            let latencies = model::simulate(parameters, rate_per_s, SECONDS).latencies;
            (latencies.quantile(0.5), latencies.quantile(0.99))
        };
        let targets = [1e4, 3e4].map(|rate_per_s| {
            let (p50_ns, p99_ns) = at(&truth, rate_per_s);
            (rate_per_s, p50_ns, p99_ns)
        });
        let found = calibrate(observed().counted(), &targets, SECONDS);
        let ((p50, p99), (p50_found, p99_found)) = (at(&truth, 2e4), at(&found, 2e4));
        assert!((p50_found / p50 - 1.0).abs() < 0.1, "{p50_found} {p50} {found:?}");
        assert!((p99_found / p99 - 1.0).abs() < 0.1, "{p99_found} {p99} {found:?}");
    }
}
