//! What a node says about itself once a second, as one JSON document.
//!
//! `metrics` holds what the shard counts, under the names of [`Metrics`]; `per_second` how fast the
//! counters grew since the document before, `mesh` what is known of other nodes, nothing in a node on
//! its own. Sizes are in bytes unless the name says `kb` (1,024).

use std::time::{Duration, Instant};

use nexusd_core::Metrics;
use nexusd_wire::NodeId;
use serde_json::{Map, Value, json};

use crate::mesh::SharedStatus;
use crate::process;

/// Makes the documents of one node.
#[derive(Debug)]
pub(crate) struct Statistics {
    node: String,
    cluster: String,
    started: Instant,
    mesh: Option<SharedStatus>,
    last: Option<Sample>,
}

/// Everything measured at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) cpu: Duration,
    pub(crate) rss_kb: Option<u64>,
    pub(crate) metrics: Metrics,
}

impl Sample {
    /// The process as it is now, and what the shard counted.
    pub(crate) fn now(metrics: &Metrics) -> Self {
        let (cpu, rss_kb) = (process::cpu_time(), process::rss_kb());
        Self { at: Instant::now(), cpu, rss_kb, metrics: *metrics }
    }
}

impl Statistics {
    /// For a node that started at `started`.
    pub(crate) fn new(
        node: NodeId,
        cluster: &str,
        started: Instant,
        mesh: Option<SharedStatus>,
    ) -> Self {
        Self { node: node.to_string(), cluster: cluster.to_owned(), started, mesh, last: None }
    }

    /// The topic the documents are published to.
    pub(crate) fn topic(&self) -> String {
        format!("$SYS/{}/stats", self.node)
    }

    /// The document for `sample`, which is younger than all before it.
    pub(crate) fn document(&mut self, sample: &Sample) -> Value {
        let mut per_second = Map::new();
        let mut cpu_percent = None;
        let metrics = named(&sample.metrics);
        if let Some(last) = self.last.replace(*sample) {
            let elapsed = sample.at.duration_since(last.at).as_secs_f64().max(1e-6);
            let cpu = sample.cpu.saturating_sub(last.cpu).as_secs_f64();
            cpu_percent = Some(rounded(100.0 * cpu / elapsed));
            let before = named(&last.metrics);
            for ((name, kind, value), (_, _, before)) in metrics.iter().zip(before) {
                if *kind == Kind::Counter {
                    let growth = value.saturating_sub(before) as f64;
                    per_second.insert((*name).to_owned(), rounded(growth / elapsed).into());
                }
            }
        }
        let metrics: Map<_, _> =
            metrics.into_iter().map(|(name, _, value)| (name.to_owned(), value.into())).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "node": self.node,
            "cluster": self.cluster,
            "uptime_s": rounded(sample.at.duration_since(self.started).as_secs_f64()),
            "rss_kb": sample.rss_kb,
            "cpu_s": rounded(sample.cpu.as_secs_f64()),
            "cpu_percent": cpu_percent,
            "metrics": metrics,
            "per_second": per_second,
            "mesh": self.mesh.as_ref().map(|mesh| mesh.now().document()),
        })
    }
}

/// To three decimal places.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Lists fields of [`Metrics`] by name. Taking the struct apart completely makes a field that is
/// missing here an error.
macro_rules! list {
    (
        $metrics:expr,
        counters: [$($(#[$when:meta])* $counter:ident),* $(,)?],
        gauges: [$($gauge:ident),* $(,)?]
    ) => {{
        let Metrics { $($(#[$when])* $counter,)* $($gauge,)* } = *$metrics;
        Vec::from([
            $($(#[$when])* (stringify!($counter), Kind::Counter, $counter),)*
            $((stringify!($gauge), Kind::Gauge, $gauge),)*
        ])
    }};
}

/// All counters and gauges, by name.
pub(crate) fn named(metrics: &Metrics) -> Vec<(&'static str, Kind, u64)> {
    list!(metrics,
        counters: [
            messages_in, bytes_in, messages_out, forwarded, bytes_out, sends, no_subscribers, rejected,
            dropped_slow_consumer, dropped_memory, lost_on_links, dropped_link, relayed, ttl_expired,
            dropped_disconnect, publisher_pauses,
            slow_disconnected, protocol_errors, connections_refused, connections_moved,
            accepts_failed, timeouts, segments_evacuated, resumed, source_connections_refused,
            source_accepts_refused, source_messages_refused, greedy_disconnected,
            #[cfg(feature = "protocol-next")]
            next_frames,
        ],
        gauges: [
            connections, links, subscriptions, parked, topics, queued_messages, queued_bytes, retained,
            retained_bytes, log_bytes,
        ]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(started: Instant, after_ms: u64, messages_in: u64) -> Sample {
        Sample {
            at: started + Duration::from_millis(after_ms),
            cpu: Duration::from_millis(after_ms / 10),
            rss_kb: Some(9_000),
            metrics: Metrics { messages_in, connections: 3, ..Metrics::default() },
        }
    }

    #[test]
    fn a_document_holds_all_metrics_and_how_fast_the_counters_grow() {
        let started = Instant::now();
        let mut statistics = Statistics::new(NodeId(0xabc), "default", started, None);
        let first = statistics.document(&sample(started, 1_000, 100));
        assert_eq!(first["per_second"], json!({}));
        assert_eq!(first["cpu_percent"], Value::Null);

        let second = statistics.document(&sample(started, 3_000, 700));
        assert_eq!(second["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(second["node"], "00000000000000000000000000000abc");
        assert_eq!(second["cluster"], "default");
        assert_eq!(second["uptime_s"], 3.0);
        assert_eq!(second["rss_kb"], 9_000);
        assert_eq!(second["cpu_s"], 0.3);
        assert_eq!(second["cpu_percent"], 10.0);
        assert_eq!(second["metrics"]["messages_in"], 700);
        assert_eq!(second["metrics"]["connections"], 3);
        assert_eq!(second["per_second"]["messages_in"], 300.0);
        assert_eq!(second["per_second"]["connections"], Value::Null);
        assert_eq!(second["mesh"], Value::Null);
    }

    #[test]
    fn a_node_that_others_can_find_says_how_many_it_knows() {
        let started = Instant::now();
        let mesh = Some(SharedStatus::default());
        let mut statistics = Statistics::new(NodeId(1), "default", started, mesh);
        let document = statistics.document(&sample(started, 1_000, 100));
        assert_eq!(document["mesh"]["peers"], 0);
        assert_eq!(document["mesh"]["beacons_sent"], 0);
    }

    #[test]
    fn the_topic_names_the_node() {
        let statistics = Statistics::new(NodeId(1), "default", Instant::now(), None);
        assert_eq!(statistics.topic(), "$SYS/00000000000000000000000000000001/stats");
    }
}
