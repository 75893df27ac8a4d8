//! What the daemon counts, as operators find it: names and sentences for the metrics of Prometheus, and for the
//! statistics of the admin service.

use nexusd_admin::proto::Metric;
use nexusd_admin::{Family, Kind, Sample};
use nexusd_core::Metrics;
use nexusd_discovery::Counters;

use crate::statistics::{self, named};

/// What is known of the whole process.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct ProcessFigures {
    pub(crate) uptime_s: f64,
    pub(crate) cpu_s: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) limit_bytes: u64,
    /// Connections and calls of gRPC for which there was no room.
    pub(crate) refused_connections: u64,
    pub(crate) refused_calls: u64,
}

/// What is known of the mesh.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MeshFigures {
    pub(crate) peers: u64,
    pub(crate) suspected: u64,
    pub(crate) synced: u64,
    pub(crate) idle: u64,
    pub(crate) counters: Counters,
}

/// Where a value of the shards stands among the metrics.
struct Place {
    /// The field of [`Metrics`].
    field: &'static str,
    /// The name of the metric.
    name: &'static str,
    /// What tells it from others of that name.
    label: Option<(&'static str, &'static str)>,
    /// Of the metric, or of the value where the name has several.
    help: &'static str,
}

const fn place(field: &'static str, name: &'static str, help: &'static str) -> Place {
    Place { field, name, label: None, help }
}

const fn reason(
    field: &'static str,
    name: &'static str,
    reason: &'static str,
    help: &'static str,
) -> Place {
    Place { field, name, label: Some(("reason", reason)), help }
}

const DROPPED: &str = "nexusd_dropped_messages_total";
const DROPPED_HELP: &str =
    "Messages that subscriptions or other nodes should have got and did not, by reason.";
const REFUSED: &str = "nexusd_refused_connections_total";
const REFUSED_HELP: &str = "Connections that were refused, by reason.";
const ENDED: &str = "nexusd_ended_connections_total";
const ENDED_HELP: &str = "Connections that the node ended, by reason.";

/// Every value of [`Metrics`]; those of one name stand together.
#[rustfmt::skip]
const PLACES: &[Place] = &[
    place("messages_in", "nexusd_accepted_messages_total", "Messages accepted from clients and other nodes."),
    place("bytes_in", "nexusd_accepted_bytes_total", "Their bytes, whole frames."),
    place("relayed", "nexusd_relayed_messages_total", "Messages accepted from other nodes."),
    place("messages_out", "nexusd_sent_messages_total", "Messages written to sockets of subscribers and other nodes."),
    place("forwarded", "nexusd_forwarded_messages_total", "Messages written to other nodes."),
    place("bytes_out", "nexusd_sent_bytes_total", "All bytes written to sockets."),
    place("sends", "nexusd_sends_total", "Sends carried out."),
    place("no_subscribers", "nexusd_unwanted_messages_total", "Messages accepted that nobody wanted."),
    place("rejected", "nexusd_rejected_messages_total", "Publishes and topic names that were refused with an error."),
    reason("dropped_slow_consumer", DROPPED, "slow_consumer", DROPPED_HELP),
    reason("dropped_memory", DROPPED, "memory", DROPPED_HELP),
    reason("dropped_disconnect", DROPPED, "disconnect", DROPPED_HELP),
    reason("ttl_expired", DROPPED, "expired", DROPPED_HELP),
    reason("lost_on_links", DROPPED, "link_lost", DROPPED_HELP),
    reason("dropped_link", DROPPED, "peer_lost", DROPPED_HELP),
    place("publisher_pauses", "nexusd_publisher_pauses_total", "Times a publisher was held back by a full queue."),
    reason("connections_refused", REFUSED, "limit", REFUSED_HELP),
    reason("source_connections_refused", REFUSED, "source_limit", REFUSED_HELP),
    reason("source_accepts_refused", REFUSED, "source_rate", REFUSED_HELP),
    place("source_messages_refused", "nexusd_source_rate_messages_total", "Publishes refused because their source publishes too fast."),
    reason("slow_disconnected", ENDED, "slow_consumer", ENDED_HELP),
    reason("greedy_disconnected", ENDED, "buffers", ENDED_HELP),
    reason("protocol_errors", ENDED, "protocol", ENDED_HELP),
    reason("timeouts", ENDED, "timeout", ENDED_HELP),
    place("connections_moved", "nexusd_moved_connections_total", "Connections that another shard took over."),
    place("accepts_failed", "nexusd_failed_accepts_total", "Times a connection could not be accepted for want of descriptors or memory."),
    place("segments_evacuated", "nexusd_evacuated_segments_total", "Segments of the log whose rest was moved to make room."),
    place("resumed", "nexusd_resumed_subscriptions_total", "Parked subscriptions whose clients came back."),
    place("connections", "nexusd_connections", "Connections now, links to other nodes included."),
    place("links", "nexusd_links", "Links to other nodes now."),
    place("subscriptions", "nexusd_subscriptions", "Subscriptions now."),
    place("parked", "nexusd_parked_subscriptions", "Subscriptions that wait for their clients now."),
    place("topics", "nexusd_topics", "Topics now."),
    place("queued_messages", "nexusd_queued_messages", "Messages queued now, over all subscriptions and links."),
    place("queued_bytes", "nexusd_queued_bytes", "Their bytes; what several queues share counts for each."),
    place("retained", "nexusd_retained_values", "Retained values now."),
    place("retained_bytes", "nexusd_retained_bytes", "Memory that they take."),
    place("log_bytes", "nexusd_log_bytes", "Memory that the log takes now."),
    #[cfg(feature = "protocol-next")]
    place("next_frames", "nexusd_next_frames_total", "Frames of the next minor version."),
];

/// What the shards counted, for the admin service.
pub(crate) fn statistics(metrics: &Metrics) -> Vec<Metric> {
    let metric = |(name, kind, value): (&'static str, statistics::Kind, u64)| {
        let place = PLACES.iter().find(|place| place.field == name);
        let label = place.and_then(|place| place.label);
        let help = place.map_or("", |place| place.help);
        Metric {
            name: name.to_owned(),
            kind: of_kind(kind).name().to_owned(),
            value,
            help: match label {
                Some((_, reason)) => format!("{help} This one: {}.", reason.replace('_', " ")),
                None => help.to_owned(),
            },
        }
    };
    named(metrics).into_iter().map(metric).collect()
}

/// Everything, for Prometheus.
pub(crate) fn families(
    metrics: &Metrics,
    process: ProcessFigures,
    mesh: Option<MeshFigures>,
    version: &str,
) -> Vec<Family> {
    let build = Sample { labels: vec![("version", version.to_owned())], value: 1.0 };
    let gauge = |name, help, value| Family::single(name, Kind::Gauge, help, value);
    let counter = |name, help, value: u64| Family::single(name, Kind::Counter, help, value as f64);
    let mut families = vec![
        Family {
            name: "nexusd_build_info",
            help: "The version that runs.",
            kind: Kind::Gauge,
            samples: vec![build],
        },
        gauge("nexusd_uptime_seconds", "Time since the node started.", process.uptime_s),
        Family::single(
            "process_cpu_seconds_total",
            Kind::Counter,
            "CPU time of all threads, of the program and of the kernel for it.",
            process.cpu_s,
        ),
        gauge(
            "process_resident_memory_bytes",
            "Memory of the process in RAM.",
            process.resident_bytes as f64,
        ),
        gauge(
            "nexusd_memory_limit_bytes",
            "What --memory-limit allows.",
            process.limit_bytes as f64,
        ),
        counter(
            "nexusd_published_messages_total",
            "Messages accepted from clients of this node, and its own statistics.",
            metrics.messages_in.saturating_sub(metrics.relayed),
        ),
        counter(
            "nexusd_delivered_messages_total",
            "Messages written to sockets of subscribers.",
            metrics.messages_out.saturating_sub(metrics.forwarded),
        ),
    ];
    families.extend([
        counter(
            "nexusd_refused_grpc_connections_total",
            "Connections of gRPC that were closed at once, because their source or all have what they may.",
            process.refused_connections,
        ),
        counter(
            "nexusd_refused_grpc_calls_total",
            "Calls that were refused for the same reason.",
            process.refused_calls,
        ),
    ]);
    let values = named(metrics);
    for place in PLACES {
        let Some((_, kind, value)) = values.iter().find(|(name, ..)| *name == place.field) else {
            continue;
        };
        let label = place.label.map(|(name, value)| (name, value.to_owned()));
        let sample = Sample { labels: label.into_iter().collect(), value: *value as f64 };
        match families.last_mut().filter(|family| family.name == place.name) {
            Some(family) => family.samples.push(sample),
            None => families.push(Family {
                name: place.name,
                help: place.help,
                kind: of_kind(*kind),
                samples: vec![sample],
            }),
        }
    }
    let Some(MeshFigures { peers, suspected, synced, idle, counters }) = mesh else {
        return families;
    };
    families.extend([
        gauge("nexusd_peers", "Other nodes that are known now.", peers as f64),
        gauge("nexusd_suspected_peers", "Those that were not heard for a while.", suspected as f64),
        gauge("nexusd_synced_peers", "Those of which it is known what they want.", synced as f64),
        gauge(
            "nexusd_idle_peers",
            "Those without a link, because neither node wants anything of the other.",
            idle as f64,
        ),
        counter("nexusd_beacons_sent_total", "Beacons sent.", counters.beacons_sent),
        counter(
            "nexusd_beacons_received_total",
            "Beacons of other nodes of the cluster.",
            counters.beacons_received,
        ),
        counter("nexusd_dials_total", "Attempts to reach another node.", counters.dials),
        counter("nexusd_failed_dials_total", "Those that came to nothing.", counters.dials_failed),
    ]);
    families
}

/// What discovery counted, for the admin service.
pub(crate) fn gossip_counters(counters: &Counters) -> Vec<Metric> {
    let metric = |name: &str, value, help: &str| Metric {
        name: name.to_owned(),
        kind: Kind::Counter.name().to_owned(),
        value,
        help: help.to_owned(),
    };
    Vec::from([
        metric("beacons_sent", counters.beacons_sent, "Beacons sent, to the group or to a node."),
        metric(
            "beacons_received",
            counters.beacons_received,
            "Beacons of other nodes of this cluster.",
        ),
        metric(
            "beacons_ignored",
            counters.beacons_ignored,
            "Beacons of this node itself and of other clusters.",
        ),
        metric(
            "datagrams_unreadable",
            counters.datagrams_unreadable,
            "Datagrams that are no beacons.",
        ),
        metric(
            "datagrams_limited",
            counters.datagrams_limited,
            "Datagrams that were not looked at, because too many came.",
        ),
        metric("dials", counters.dials, "Attempts to reach another node."),
        metric("dials_failed", counters.dials_failed, "Those that came to no link."),
        metric("states_sent", counters.states_sent, "Times a peer was told all that is wanted."),
        metric(
            "states_requested",
            counters.states_requested,
            "Times a peer was asked for all that it wants.",
        ),
        metric("deltas_sent", counters.deltas_sent, "Changes of what is wanted that were told."),
        metric(
            "peers_ignored",
            counters.peers_ignored,
            "Peers that were not remembered, because too many are.",
        ),
    ])
}

fn of_kind(kind: statistics::Kind) -> Kind {
    match kind {
        statistics::Kind::Counter => Kind::Counter,
        statistics::Kind::Gauge => Kind::Gauge,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_value_has_one_place_and_every_name_one_meaning() {
        let values: Vec<_> = named(&Metrics::default()).iter().map(|(name, ..)| *name).collect();
        let mut placed: Vec<_> = PLACES.iter().map(|place| place.field).collect();
        let mut expected = values.clone();
        placed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(placed, expected);
        let mesh = Some(MeshFigures::default());
        let all = families(&Metrics::default(), ProcessFigures::default(), mesh, "1");
        let names: BTreeSet<_> = all.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), all.len(), "values of a name stand together");
        for family in &all {
            let is_counter = family.kind == Kind::Counter;
            assert_eq!(is_counter, family.name.ends_with("_total"), "{}", family.name);
        }
    }

    #[test]
    fn what_clients_did_is_told_apart_from_what_other_nodes_did() {
        let metrics = Metrics {
            messages_in: 10,
            relayed: 4,
            messages_out: 20,
            forwarded: 5,
            dropped_memory: 3,
            ..Metrics::default()
        };
        let all = families(&metrics, ProcessFigures::default(), None, "1");
        let value = |name: &str, reason: Option<&str>| {
            let family = all.iter().find(|family| family.name == name).expect("a metric");
            let is_it =
                |sample: &&Sample| sample.labels.first().map(|(_, value)| value.as_str()) == reason;
            family.samples.iter().find(is_it).expect("a value").value
        };
        assert_eq!(value("nexusd_published_messages_total", None), 6.0);
        assert_eq!(value("nexusd_delivered_messages_total", None), 15.0);
        assert_eq!(value("nexusd_dropped_messages_total", Some("memory")), 3.0);
        assert!(all.iter().all(|family| family.name != "nexusd_peers"), "it is on its own");
    }
}
