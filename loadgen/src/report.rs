//! The result of one run as scripts read it: one JSON object per run and line.
//!
//! Keys are public interface: added, never renamed, and always there; what was not measured is
//! `null`.

use std::io::{self, Write};
use std::num::NonZeroU64;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::flood::FloodReport;
use crate::idle::IdleFigures;
use crate::latency::LatencySummary;
use crate::machine::Machine;
use crate::measurement::{Measurement, per_cpu_second};
use crate::mesh::MeshFigures;
use crate::nodes::{NodeRecord, cpu_of_all, memory_of_all};
use crate::policy::Policy;
use crate::quantity::Rate;
use crate::run::RunOptions;
use crate::stalled::StalledReport;
use crate::topic_tree::TopicTree;
use crate::workload::{Case, Workload};

/// Where client and server ran.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Cores {
    /// The server's core, where it was pinned by us to one alone.
    pub(crate) server_core: Option<usize>,
    /// All cores that it was pinned to.
    pub(crate) server_cores: Vec<usize>,
    /// The load's core, if it is one alone.
    pub(crate) load_core: Option<usize>,
    /// All cores of the load.
    pub(crate) load_cores: Vec<usize>,
}

impl Cores {
    /// Servers pinned to these cores, if any, and the load's cores.
    pub(crate) fn new(server_cores: Vec<usize>, load_cores: Vec<usize>) -> Self {
        let alone = |cores: &[usize]| match cores {
            [core] => Some(*core),
            _ => None,
        };
        Self {
            server_core: alone(&server_cores),
            server_cores,
            load_core: alone(&load_cores),
            load_cores,
        }
    }
}

/// What all runs of one invocation have in common.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    /// Where.
    pub(crate) cores: Cores,
    /// Shards that a daemon is started with.
    pub(crate) shards: Option<usize>,
    /// On what.
    pub(crate) machine: Machine,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunRecord {
    pub(crate) target: &'static str,
    pub(crate) workload: &'static str,
    /// What tells the runs of a workload apart, for people.
    pub(crate) label: String,
    /// Payload bytes.
    pub(crate) size: usize,
    pub(crate) publishers: usize,
    /// Subscribers that read, over all topics.
    pub(crate) subscribers: usize,
    /// Topics of all publishers together.
    pub(crate) topics: usize,
    /// In which order a publisher goes over its topics; `null` where each has one.
    pub(crate) order: Option<&'static str>,
    /// Filters of all subscribers that read.
    pub(crate) filters: usize,
    /// Overflow policy that subscribers asked for; `null` is the server's default.
    pub(crate) policy: Option<&'static str>,
    /// Shards that a daemon was started with; `null` is its default.
    pub(crate) shards: Option<usize>,
    pub(crate) transport: &'static str,
    /// Offered messages per second; `null` is as fast as the window allows.
    pub(crate) rate: Option<u64>,
    /// Undelivered messages allowed at a time; `null` on a schedule.
    pub(crate) window: Option<u64>,
    /// Most messages in one write; `null` is as many as fit.
    pub(crate) batch: Option<u64>,
    /// Each server: one, or the nodes of the mesh under test.
    pub(crate) nodes: Vec<NodeRecord>,
    /// Length of the measured interval.
    pub(crate) duration_s: f64,
    pub(crate) warmup_s: f64,
    pub(crate) valid: bool,
    /// Why it is not valid.
    pub(crate) objections: Vec<String>,
    pub(crate) sent_per_s: f64,
    pub(crate) received_per_s: f64,
    /// Messages sent, warm-up included: what the checks cover.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Messages received that nobody sent.
    pub(crate) foreign: u64,
    /// Messages the server said it had not delivered; all ones if it could not say how many.
    pub(crate) told_lost: u64,
    /// Times it said so.
    pub(crate) gaps: u64,
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) server_user_s: Option<f64>,
    pub(crate) server_system_s: Option<f64>,
    /// CPU time of the load generator.
    pub(crate) load_cpu_s: Option<f64>,
    /// Deliveries per second of the server's CPU time.
    pub(crate) messages_per_cpu_s: Option<f64>,
    pub(crate) user_ns_per_delivery: Option<f64>,
    pub(crate) sends_per_s: Option<f64>,
    pub(crate) bytes_per_send: Option<f64>,
    /// Open loop, from the intended time; `null` at an unlimited rate, which has no schedule.
    pub(crate) latency_us: Option<LatencySummary>,
    /// From the hand-over to the socket; `null` for payloads too short to carry that time.
    pub(crate) send_latency_us: Option<LatencySummary>,
    /// Closed loop: how long a message spends within the window at an unlimited rate. No latency
    /// that an application would see.
    pub(crate) window_latency_us: Option<LatencySummary>,
    pub(crate) server_rss_kb: Option<u64>,
    pub(crate) server_rss_peak_kb: Option<u64>,
    /// Gaps of more than a millisecond in which a core was not ours.
    pub(crate) hiccups: u64,
    /// The same of more than 0.2 ms.
    pub(crate) short_hiccups: u64,
    pub(crate) hiccup_longest_us: f64,
    /// In which a line of the cache goes from the server's core to the load's, or from one server's to the
    /// other's: some 40 where they share a cache, and four times that, with half the throughput, where they do not.
    pub(crate) core_distance_ns: Option<f64>,
    /// CPU time that anybody else used on the cores of server and load.
    pub(crate) other_cpu_s: Option<f64>,
    /// Others disturbed the run: repeat it, or do not trust it.
    pub(crate) noisy: bool,
    #[serde(flatten)]
    pub(crate) mesh: MeshFigures,
    /// What the stalled subscriber found.
    pub(crate) stalled: Option<StalledReport>,
    /// The same run without the stalled subscriber, and this one's figures as a share of its.
    pub(crate) without_stalled: Option<Comparison>,
    /// What flooded the server meanwhile.
    pub(crate) flood: Option<FloodReport>,
    /// The same run without the flood, and this one's figures as a share of its.
    pub(crate) without_flood: Option<Comparison>,
    /// Of workloads K and W: their first run, that with the fewest topics and filters, and this
    /// one's figures as a share of its.
    pub(crate) first_run: Option<Comparison>,
    /// Messages that were acknowledged as accepted, each in its turn; `null` without --ack.
    pub(crate) acked: Option<u64>,
    /// An acknowledgement was wanted of one message of this many.
    pub(crate) ack_every: Option<u64>,
    /// Open loop, from the intended time to the read of the acknowledgement; `null` at an unlimited
    /// rate.
    pub(crate) ack_latency_us: Option<LatencySummary>,
    /// Acknowledgements that subscribers sent of what they had; `null` without --counted.
    pub(crate) stream_acks: Option<u64>,
    /// Time between two breaks of a subscriber's connection; `null` without --resume.
    pub(crate) resume_every_s: Option<f64>,
    /// Connections that were broken, whose subscribers came back; `null` without --resume.
    pub(crate) resumed: Option<u64>,
    /// From the break of a connection to the first message on the next one.
    pub(crate) resume_latency_us: Option<LatencySummary>,
    #[serde(flatten)]
    pub(crate) idle: IdleFigures,
    #[serde(flatten)]
    pub(crate) cores: Cores,
    #[serde(flatten)]
    pub(crate) machine: Machine,
    /// When the run ended, in seconds since 1970.
    pub(crate) ended_unix_s: u64,
}

/// A run beside the one it is compared with.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Comparison {
    /// Deliveries per second of the other run.
    pub(crate) received_per_s: f64,
    /// Deliveries per CPU-second of the other run.
    pub(crate) messages_per_cpu_s: Option<f64>,
    /// Median of the other run, in microseconds.
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile of the other run, in microseconds.
    pub(crate) p99_us: Option<f64>,
    /// This run's deliveries per second, as a share of the other's.
    pub(crate) received_ratio: f64,
    /// This run's deliveries per CPU-second, as a share of the other's.
    pub(crate) messages_per_cpu_s_ratio: Option<f64>,
    /// This run's median, as a share of the other's.
    pub(crate) p50_ratio: Option<f64>,
    /// This run's 99th percentile, as a share of the other's.
    pub(crate) p99_ratio: Option<f64>,
}

impl RunRecord {
    /// The record of one run.
    pub(crate) fn new(
        workload: Workload,
        case: &Case,
        options: &RunOptions,
        measurement: &Measurement,
        conditions: &Conditions,
    ) -> Self {
        let objections = measurement.objections(case);
        let deliveries = measurement.received as f64;
        let cpu = cpu_of_all(&measurement.nodes);
        let memory = memory_of_all(&measurement.nodes);
        let of_node = |cost| NodeRecord::new(cost, measurement.received);
        let sends = measurement.server_sends;
        let latency = measurement.latencies.summary();
        let acks = measurement.acks.as_ref();
        let comebacks = measurement.comebacks.as_ref();
        let (rate, window) = match case.rate {
            Rate::Max => (None, Some(case.window)),
            Rate::PerSecond(rate) => (Some(rate), None),
        };
        Self {
            target: options.target.name(),
            workload: workload.name(),
            label: case.label.clone(),
            size: case.size,
            publishers: case.shape.publishers,
            subscribers: case.shape.readers(),
            topics: case.shape.publishers * case.shape.tree.topics() as usize,
            order: (case.shape.tree != TopicTree::Single).then(|| case.shape.order.name()),
            filters: case.shape.filters(),
            policy: case.policy.map(Policy::name),
            shards: conditions.shards,
            transport: case.transport.name(),
            rate,
            window,
            batch: case.batch,
            nodes: measurement.nodes.iter().map(of_node).collect(),
            duration_s: measurement.elapsed_s,
            warmup_s: options.warmup.as_secs_f64(),
            valid: objections.is_empty(),
            objections,
            sent_per_s: measurement.sent as f64 / measurement.elapsed_s,
            received_per_s: deliveries / measurement.elapsed_s,
            sent: measurement.sent_in_all,
            lost: measurement.faults.lost,
            duplicated: measurement.faults.duplicated,
            reordered: measurement.faults.reordered,
            foreign: measurement.faults.foreign,
            told_lost: measurement.totals.told_lost,
            gaps: measurement.totals.gaps,
            server_cpu_s: cpu.map(|cpu| cpu.seconds()),
            server_user_s: cpu.map(|cpu| cpu.user_ns as f64 / 1e9),
            server_system_s: cpu.map(|cpu| cpu.system_ns as f64 / 1e9),
            load_cpu_s: measurement.load_cpu.map(|cpu| cpu.seconds()),
            messages_per_cpu_s: cpu.and_then(|cpu| per_cpu_second(measurement.received, cpu)),
            user_ns_per_delivery: cpu.and_then(|cpu| ratio(cpu.user_ns as f64, deliveries)),
            sends_per_s: sends.map(|sends| sends.sends_per_s),
            bytes_per_send: sends.map(|sends| sends.bytes_per_send),
            latency_us: latency.filter(|_| rate.is_some()),
            send_latency_us: measurement.send_latencies.summary().filter(|_| rate.is_some()),
            window_latency_us: latency.filter(|_| rate.is_none()),
            server_rss_kb: memory.map(|memory| memory.resident_kb),
            server_rss_peak_kb: memory.map(|memory| memory.peak_kb),
            hiccups: measurement.hiccups.count,
            short_hiccups: measurement.hiccups.short,
            hiccup_longest_us: measurement.hiccups.longest_ns as f64 / 1e3,
            core_distance_ns: measurement.core_distance_ns,
            other_cpu_s: measurement.other_cpu_ns.map(|ns| ns as f64 / 1e9),
            noisy: measurement.is_noisy(case),
            mesh: measurement.mesh,
            stalled: measurement.stalled,
            without_stalled: None,
            flood: measurement.flood,
            without_flood: None,
            first_run: None,
            acked: acks.map(|acks| acks.acked),
            ack_every: case.ack_every.map(NonZeroU64::get),
            ack_latency_us: acks.and_then(|acks| acks.latencies.summary()),
            stream_acks: case.counted.then_some(measurement.totals.stream_acks),
            resume_every_s: case.resume_every.map(|every| every.as_secs_f64()),
            resumed: comebacks.map(|comebacks| comebacks.breaks),
            resume_latency_us: comebacks.and_then(|comebacks| comebacks.latencies.summary()),
            idle: measurement.idle,
            cores: conditions.cores.clone(),
            machine: conditions.machine.clone(),
            ended_unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }
    }

    /// Whichever latency the run has.
    pub(crate) fn latency(&self) -> Option<LatencySummary> {
        self.latency_us.or(self.window_latency_us)
    }

    /// States this run against `other`, the same one without the stalled subscriber.
    pub(crate) fn compare_with(&mut self, other: &Self) {
        self.without_stalled = Some(self.as_share_of(other));
    }

    /// States this run against `other`, the same one without the flood.
    pub(crate) fn compare_with_quiet(&mut self, other: &Self) {
        self.without_flood = Some(self.as_share_of(other));
    }

    /// Whether `other`, an earlier run, is what this one is stated against: it differs in its topics
    /// and filters alone, and has fewer.
    pub(crate) fn is_stated_against(&self, other: &Self) -> bool {
        let same = |run: &Self| (run.workload, run.size, run.rate, run.transport, run.publishers);
        let fewer = other.topics < self.topics || other.filters < self.filters;
        fewer && self.order.is_some() && same(self) == same(other)
    }

    /// States this run against `first`, the one with the fewest topics and filters.
    pub(crate) fn state_against(&mut self, first: &Self) {
        self.first_run = Some(self.as_share_of(first));
    }

    fn as_share_of(&self, other: &Self) -> Comparison {
        let of = |mine: Option<f64>, others: Option<f64>| ratio(mine?, others?);
        let (mine, others) = (self.latency(), other.latency());
        let p50 = |latency: Option<LatencySummary>| latency.map(|latency| latency.p50);
        let p99 = |latency: Option<LatencySummary>| latency.map(|latency| latency.p99);
        Comparison {
            received_per_s: other.received_per_s,
            messages_per_cpu_s: other.messages_per_cpu_s,
            p50_us: p50(others),
            p99_us: p99(others),
            received_ratio: ratio(self.received_per_s, other.received_per_s).unwrap_or(0.0),
            messages_per_cpu_s_ratio: of(self.messages_per_cpu_s, other.messages_per_cpu_s),
            p50_ratio: of(p50(mine), p50(others)),
            p99_ratio: of(p99(mine), p99(others)),
        }
    }

    /// Writes the record as one line of JSON.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

/// `None` instead of a division by nothing.
fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator > 0.0).then(|| numerator / denominator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::comebacks::ComebackReport;
    use crate::flood::Flooded;
    use crate::hiccup::Hiccups;
    use crate::latency::Latencies;
    use crate::nodes::NodeCost;
    use crate::sequence_check::Faults;
    use crate::server::account::CpuTime;
    use crate::target::{FramingTotals, Target};
    use crate::workload::Overrides;

    /// What scripts rely on.
    const KEYS: [&str; 40] = [
        "target",
        "workload",
        "size",
        "window",
        "valid",
        "sent_per_s",
        "received_per_s",
        "lost",
        "duplicated",
        "reordered",
        "server_cpu_s",
        "messages_per_cpu_s",
        "user_ns_per_delivery",
        "sends_per_s",
        "bytes_per_send",
        "latency_us",
        "server_rss_kb",
        "hiccups",
        "core_distance_ns",
        "converged_s",
        "commit",
        "command",
        "topics",
        "acked",
        "ack_latency_us",
        "clients",
        "connect_s",
        "reconnect_s",
        "user_bytes_per_client",
        "kernel_bytes_per_client",
        "gaps",
        "stream_acks",
        "resumed",
        "resume_latency_us",
        "nodes",
        "discovery",
        "converged_after_ready_s",
        "subscribe_to_first_ms",
        "routes",
        "load_cores",
    ];

    fn measurement() -> Measurement {
        let mut latencies = Latencies::default();
        latencies.record(50_000);
        Measurement {
            elapsed_s: 2.0,
            sent: 200,
            received: 200,
            sent_in_all: 300,
            unsent: 0,
            faults: Faults::default(),
            totals: FramingTotals::default(),
            send_latencies: latencies.clone(),
            latencies,
            nodes: vec![NodeCost {
                cpu: Some(CpuTime { user_ns: 100_000_000, system_ns: 300_000_000 }),
                ..NodeCost::default()
            }],
            load_cpu: None,
            other_cpu_ns: Some(0),
            server_sends: None,
            hiccups: Hiccups::default(),
            core_distance_ns: Some(55.0),
            stalled: None,
            flood: None,
            acks: None,
            comebacks: None,
            idle: IdleFigures::default(),
            mesh: MeshFigures::default(),
            not_converged: None,
        }
    }

    fn record(rate: Rate, measurement: &Measurement) -> RunRecord {
        let overrides = Overrides { rate: Some(rate), ..Overrides::default() };
        let case = &Workload::T1.cases(&overrides)[0];
        let options = RunOptions {
            target: Target::Relay,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(2),
            watched_cores: vec![],
            ends: None,
        };
        let conditions = Conditions {
            cores: Cores::new(vec![0], vec![1]),
            shards: None,
            machine: Machine::look(2),
        };
        RunRecord::new(Workload::T1, case, &options, measurement, &conditions)
    }

    fn json(record: &RunRecord) -> serde_json::Value {
        let mut line = Vec::new();
        record.write_json(&mut line).expect("a vector takes it");
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&line).expect("one JSON object")
    }

    #[test]
    fn a_record_has_every_key_scripts_rely_on() {
        let json = json(&record(Rate::Max, &measurement()));
        for key in KEYS {
            assert!(json.get(key).is_some(), "{key} is missing in {json}");
        }
        assert_eq!(json["server_core"], 0);
    }

    #[test]
    fn open_loop_latency_is_told_apart_from_that_within_a_window() {
        let scheduled = json(&record(Rate::PerSecond(100), &measurement()));
        for key in ["p50", "p90", "p99", "p999", "p9999", "max", "count"] {
            assert!(scheduled["latency_us"][key].is_number(), "{scheduled}");
        }
        assert!(scheduled["window"].is_null());
        assert!(scheduled["window_latency_us"].is_null());
        let windowed = json(&record(Rate::Max, &measurement()));
        assert!(windowed["latency_us"].is_null());
        assert!(windowed["window_latency_us"]["p99"].is_number());
        assert_eq!(windowed["window"], 8_192);
    }

    #[test]
    fn figures_are_per_second_of_wall_and_of_cpu() {
        let record = record(Rate::Max, &measurement());
        let near = |value: Option<f64>, wanted: f64| {
            value.is_some_and(|value| (value - wanted).abs() < 1e-6)
        };
        assert!(near(Some(record.received_per_s), 100.0));
        assert!(near(record.messages_per_cpu_s, 500.0));
        assert!(near(record.user_ns_per_delivery, 500_000.0));
    }

    #[test]
    fn a_run_that_misses_its_rate_or_loses_is_invalid_and_says_why() {
        let missed = record(Rate::PerSecond(102), &measurement());
        assert!(!missed.valid);
        assert_eq!(missed.objections[0], "only 98.0 % of the offered rate was sent");
        let kept = record(Rate::PerSecond(101), &measurement());
        assert!(kept.valid, "{:?}", kept.objections);
        let lossy =
            Measurement { faults: Faults { lost: 3, ..Faults::default() }, ..measurement() };
        let lossy = record(Rate::Max, &lossy);
        assert!(!lossy.valid);
        assert_eq!(lossy.objections, ["3 messages lost"]);
    }

    #[test]
    fn a_run_whose_subscribers_come_back_counts_only_if_they_were_gone_and_told_the_truth() {
        let broken = |breaks, told_lost, lost| {
            let mut comebacks = ComebackReport { breaks, ..ComebackReport::default() };
            comebacks.latencies.record(2_000_000);
            let measurement = Measurement {
                comebacks: Some(comebacks),
                totals: FramingTotals { told_lost, gaps: 1, stream_acks: 9 },
                faults: Faults { lost, ..Faults::default() },
                ..measurement()
            };
            record(Rate::Max, &measurement)
        };
        let run = broken(3, 0, 0);
        assert!(run.valid, "{:?}", run.objections);
        let json = json(&run);
        assert_eq!((&json["resumed"], &json["gaps"]), (&3.into(), &1.into()));
        assert!(json["resume_latency_us"]["p99"].as_f64() > Some(1_990.0), "{json}");
        assert_eq!(broken(0, 0, 0).objections, ["no connection was broken"]);
        assert_eq!(broken(3, 5, 5).objections, ["5 messages lost"]);
        let untrue = "5 messages were told as lost, but 0 were";
        assert_eq!(broken(3, 5, 0).objections, [untrue]);
    }

    #[test]
    fn a_flooded_run_is_stated_as_a_share_of_the_quiet_one() {
        let quiet = record(Rate::PerSecond(100), &measurement());
        let mut latencies = Latencies::default();
        latencies.record(150_000);
        let flood = Some(FloodReport {
            wanted_by: Flooded::Nobody,
            sent_per_s: 1e6,
            received_per_s: 0.0,
            told_lost: 0,
        });
        let slower = Measurement { latencies, flood, ..measurement() };
        let mut flooded = record(Rate::PerSecond(100), &slower);
        flooded.compare_with_quiet(&quiet);
        let json = json(&flooded);
        for ratio in ["p50_ratio", "p99_ratio"] {
            let ratio = json["without_flood"][ratio].as_f64().expect("a ratio");
            assert!((ratio - 3.0).abs() < 0.01, "{json}");
        }
        assert_eq!(json["flood"]["wanted_by"], "nobody");
    }

    #[test]
    fn a_stalled_run_is_stated_as_a_share_of_the_run_without() {
        let without = record(Rate::Max, &measurement());
        let slower = Measurement { received: 180, ..measurement() };
        let mut with = record(Rate::Max, &slower);
        with.compare_with(&without);
        let json = json(&with);
        assert_eq!(json["without_stalled"]["received_ratio"], 0.9);
        assert_eq!(json["without_stalled"]["p99_ratio"], 1.0);
    }
}
