//! The sweeps: what grows in each of them, how the load generator is asked for it, and what is read from
//! its reports.
//!
//! A sweep is repeated as a whole, so that a machine that drifts does so for all of its points alike; a point is
//! the median of the repetitions.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::Value as Json;

use super::idle::IdleClients;
use super::load::{self, Run};
use crate::cores;
use crate::daemon::Daemon;
use crate::statistics::median;

/// Repetitions of a sweep.
const REPETITIONS: usize = 3;

/// Something that grows.
pub(super) struct Sweep {
    pub(super) name: &'static str,
    /// What it is about, and how it is measured.
    pub(super) about: &'static str,
    measure: fn() -> Result<Vec<Reading>>,
}

pub(super) const SWEEPS: &[Sweep] = &[
    Sweep {
        name: "subscribers",
        about: "One topic, 128 B, every subscriber gets every message. With 256 subscribers the load generator's window is \
                5,957 messages, as sockets hold no more.",
        measure: subscribers,
    },
    Sweep {
        name: "topics",
        about: "One publisher over so many topics, 128 B, one subscriber whose filter matches all. All are bound before the \
                run; with a million of them 5 s of messages go before what is measured.",
        measure: topics,
    },
    Sweep {
        name: "filters",
        about: "100 subscribers have so many filters, half of them with wildcards; messages at random over 400 topics, of \
                128 B, of which each matches two filters.",
        measure: filters,
    },
    Sweep {
        name: "payload",
        about: "One publisher, one subscriber, payloads of so many bytes.",
        measure: payload,
    },
    Sweep {
        name: "connections",
        about: "So many clients with a connection and a subscription each, that do nothing; one measurement of their \
                memory. Beside them a publisher and a subscriber, 128 B.",
        measure: connections,
    },
    Sweep {
        name: "nodes",
        about: "A publisher at one node and a subscriber at each other one, 128 B: so many links carry every message. The cost \
                is that of the publisher's node. All nodes share two cores with the load.",
        measure: nodes,
    },
];

/// One figure of one run.
#[derive(Debug, Clone, PartialEq)]
struct Reading {
    curve: &'static str,
    /// What grows, for the table.
    of: &'static str,
    unit: &'static str,
    x: f64,
    value: f64,
    /// Nanoseconds in user space and in the kernel, where it is CPU time.
    split: Option<(f64, f64)>,
    is_noisy: bool,
}

/// A curve as measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) of: String,
    pub(super) unit: String,
    pub(super) points: Vec<Measured>,
}

/// A point of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) x: f64,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// Medians of the nanoseconds in user space and in the kernel, where it is CPU time.
    pub(super) split: Option<(f64, f64)>,
    pub(super) runs: usize,
    /// Runs of which the load generator said that others disturbed them.
    pub(super) noisy: usize,
}

const PER_MESSAGE: &str = "CPU of the server, ns per message";
const PER_DELIVERY: &str = "CPU of the server, ns per delivery";

impl Curve {
    /// Whether its growth follows from that of another one, so that there is nothing of its own to fit.
    pub(super) fn is_derived(&self) -> bool {
        self.name.ends_with("per delivery") || self.name.ends_with("and link")
    }
}

impl Sweep {
    /// All curves, each point measured some times.
    pub(super) fn run(&self) -> Result<Vec<Curve>> {
        let curves = curves((self.measure)()?);
        if curves.is_empty() {
            bail!("the sweep `{}` gave nothing", self.name);
        }
        Ok(curves)
    }
}

/// Joins repeated readings to points, and points to curves, which stay in the order in which they came first.
fn curves(readings: Vec<Reading>) -> Vec<Curve> {
    let mut curves = Vec::<(Reading, BTreeMap<u64, Vec<Reading>>)>::new();
    for reading in readings {
        // Positive numbers are ordered as their bits are.
        let x = reading.x.to_bits();
        match curves.iter_mut().find(|(first, _)| first.curve == reading.curve) {
            Some((_, points)) => points.entry(x).or_default().push(reading),
            None => curves.push((reading.clone(), BTreeMap::from([(x, vec![reading])]))),
        }
    }
    curves
        .into_iter()
        .map(|(first, points)| Curve {
            name: first.curve.to_owned(),
            of: first.of.to_owned(),
            unit: first.unit.to_owned(),
            points: points.into_values().filter_map(|readings| point(&readings)).collect(),
        })
        .collect()
}

fn point(readings: &[Reading]) -> Option<Measured> {
    let all = |of: fn(&Reading) -> Option<f64>| readings.iter().filter_map(of).collect::<Vec<_>>();
    let values = all(|reading| Some(reading.value));
    let user = median(&all(|reading| reading.split.map(|(user, _)| user)));
    let kernel = median(&all(|reading| reading.split.map(|(_, kernel)| kernel)));
    Some(Measured {
        x: readings.first()?.x,
        median: median(&values)?,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(0.0, f64::max),
        split: user.zip(kernel),
        runs: readings.len(),
        noisy: readings.iter().filter(|reading| reading.is_noisy).count(),
    })
}

/// CPU time of a run's server, for each of so many messages.
fn cost(curve: &'static str, of: &'static str, x: f64, run: &Run, per: f64) -> Reading {
    let (user, kernel) = (run.user_ns() / per, run.kernel_ns() / per);
    let unit = if curve.contains("delivery") { PER_DELIVERY } else { PER_MESSAGE };
    let (split, is_noisy) = (Some((user, kernel)), run.is_noisy());
    Reading { curve, of, unit, x, value: user + kernel, split, is_noisy }
}

/// Runs the same some times, and reads something from each run.
fn repeated(arguments: &str, mut read: impl FnMut(&Run) -> Vec<Reading>) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for _ in 0..REPETITIONS {
        readings.extend(load::run(arguments)?.iter().flat_map(&mut read));
    }
    Ok(readings)
}

fn subscribers() -> Result<Vec<Reading>> {
    let arguments =
        "--workload P --transport tcp --rate max --batch 8192 --fan-out 1,2,4,8,16,32,64,128,256";
    repeated(arguments, |run| {
        let x = run.number("subscribers");
        vec![
            cost("per message", "subscribers", x, run, run.sent()),
            cost("per delivery", "subscribers", x, run, run.received()),
        ]
    })
}

fn topics() -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for numbers in ["1,100,10k", "100k --warmup 2s", "1M --warmup 5s"] {
        let arguments = format!("--workload K --order round-robin,random --topics {numbers}");
        readings.extend(repeated(&arguments, |run| {
            let x = run.number("topics");
            let order = run.json["order"].as_str().unwrap_or_default();
            let one = |curve| cost(curve, "topics", x, run, run.sent());
            match order {
                // Over one topic there is one order.
                _ if x < 2.0 => vec![one("round-robin"), one("at random")],
                "random" => vec![one("at random")],
                _ => vec![one("round-robin")],
            }
        })?);
    }
    Ok(readings)
}

fn filters() -> Result<Vec<Reading>> {
    repeated("--workload W --filters 400,2k,10k,40k,100k", |run| {
        vec![cost("per message", "filters", run.number("filters"), run, run.sent())]
    })
}

fn payload() -> Result<Vec<Reading>> {
    let arguments = "--workload T1 --size 16,32,64,128,256,512,1K,2K,4K,8K,16K,32K,64K";
    repeated(arguments, |run| {
        vec![cost("per message", "payload, bytes", run.number("size"), run, run.sent())]
    })
}

fn connections() -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for clients in [1_000, 2_000, 4_000, 8_000] {
        for run in load::run(&format!("--workload S --clients {clients}"))? {
            let mut memory = |curve, key: &str| {
                // Nothing that grew is nothing to fit.
                let value = run.number(key) * f64::from(clients) / 1e6;
                let reading = Reading {
                    curve,
                    of: "idle clients",
                    unit: "MB",
                    x: f64::from(clients),
                    value,
                    split: None,
                    is_noisy: run.is_noisy(),
                };
                readings.extend((value > 0.0).then_some(reading));
            };
            memory("memory of the daemon", "user_bytes_per_client");
            memory("memory of the kernel, both ends", "kernel_bytes_per_client");
        }
    }
    let (server_core, load_core) = cores::for_daemon_and_load();
    for clients in [0, 1_000, 4_000, 8_000] {
        let daemon = Daemon::start(&load::daemon(), server_core)?;
        let _idle = IdleClients::connect(&daemon.address, clients, load_core)?;
        let arguments =
            format!("--workload T1 --addr {} --server-pid {}", daemon.address, daemon.pid());
        readings.extend(repeated(&arguments, |run| {
            // With publisher and subscriber.
            let x = (clients + 2) as f64;
            vec![cost("a message beside them", "connections", x, run, run.sent())]
        })?);
    }
    Ok(readings)
}

fn nodes() -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for nodes in [2, 3, 5, 8] {
        let arguments = format!("--workload M1 --nodes {nodes}");
        readings.extend(repeated(&arguments, |run| {
            let links = f64::from(nodes - 1);
            let Some((first, others)) =
                run.json["nodes"].as_array().and_then(|all| all.split_first())
            else {
                return Vec::new();
            };
            let ns = |node: &Json, key: &str| node[key].as_f64().unwrap_or(0.0) * 1e9;
            let of_first = (ns(first, "server_user_s"), ns(first, "server_system_s"));
            let of_others = others.iter().fold((0.0, 0.0), |sum, node| {
                (sum.0 + ns(node, "server_user_s"), sum.1 + ns(node, "server_system_s"))
            });
            let one = |curve, (user, kernel): (f64, f64), per: f64| Reading {
                curve,
                of: "links",
                unit: PER_MESSAGE,
                x: links,
                value: (user + kernel) / per,
                split: Some((user / per, kernel / per)),
                is_noisy: run.is_noisy(),
            };
            vec![
                one("the publisher's node, per message", of_first, run.sent()),
                one("the publisher's node, per message and link", of_first, run.sent() * links),
                one("a subscriber's node, per message", of_others, run.received()),
            ]
        })?);
    }
    Ok(readings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(curve: &'static str, x: f64, value: f64) -> Reading {
        let split = Some((value / 4.0, value * 0.75));
        Reading { curve, of: "x", unit: "ns", x, value, split, is_noisy: value > 100.0 }
    }

    #[test]
    fn repetitions_become_points_in_the_order_of_x() {
        let readings = [
            reading("a", 10.0, 40.0),
            reading("b", 2.0, 8.0),
            reading("a", 9.0, 20.0),
            reading("a", 10.0, 44.0),
            reading("a", 10.0, 104.0),
        ];
        let curves = curves(readings.to_vec());
        assert_eq!(curves.iter().map(|curve| curve.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let xs: Vec<f64> = curves[0].points.iter().map(|point| point.x).collect();
        assert_eq!(xs, [9.0, 10.0]);
        let expected = Measured {
            x: 10.0,
            median: 44.0,
            min: 40.0,
            max: 104.0,
            split: Some((11.0, 33.0)),
            runs: 3,
            noisy: 1,
        };
        assert_eq!(curves[0].points[1], expected);
    }

    #[test]
    fn every_sweep_has_a_name_of_its_own() {
        let mut names: Vec<_> = SWEEPS.iter().map(|sweep| sweep.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SWEEPS.len());
    }
}
