//! The table of settings: each stands here once, with its name, its help, and how its value is read
//! and shown. Flags, variables, keys, help text and defaults are all made from it.
//!
//! `read` is given text of any origin and answers with the second half of a sentence that begins
//! with the value. What `show` writes, `read` takes, unless it is a secret.

use std::time::Duration;

use nexusd_core::limits::{PAYLOAD_BYTES_MAX, SHARDS_MAX};
use nexusd_wire::control::OverflowPolicy;

use super::address::{read_addresses, read_http_port, read_port, read_unix_socket, show_http_port};
use super::mesh::{self, ClusterSecret, KEY_IS_SET};
use super::quantity::{
    digits, read_count, read_duration_within, read_size_within, read_thousandths, show_duration,
    show_size,
};
use super::{Config, IoEngine, LogFormat, LogLevel, Profile, UnixSocket};

/// One thing that can be set.
#[derive(Debug)]
pub(super) struct Setting {
    /// The flag without its dashes; the key of the file.
    pub(super) name: &'static str,
    /// The heading it stands under in the help.
    pub(super) heading: &'static str,
    /// What stands for the value in the help.
    pub(super) value: &'static str,
    /// One or more sentences for the operator.
    pub(super) help: &'static str,
    /// Takes a value.
    pub(super) read: fn(&mut Config, &str) -> Result<(), String>,
    /// Writes the value.
    pub(super) show: fn(&Config) -> String,
}

const NODE: &str = "Node";
const ADDRESSES: &str = "Addresses";
const MESH: &str = "Mesh";
const PEERS: &str = "Peers by name";
const LIMITS: &str = "Limits";
const SOURCES: &str = "Limits per source address";
const SLOW_SUBSCRIBERS: &str = "Slow subscribers";
const COMING_BACK: &str = "Coming back";
const EXPIRY: &str = "Expiry";
const THREADS: &str = "Threads";
const OPERATION: &str = "Operation";
const LOGS: &str = "Logs";

/// What stands for a time in the help.
const DURATION: &str = "DURATION";

/// More memory than any machine has, in bytes.
const MEMORY_BYTES_MAX: u64 = 1 << 50;
/// Highest rate, per second: a nanosecond for each.
const RATE_MAX: u32 = 1_000_000_000;
/// Longest time that somebody may be kept waiting.
const WAIT_MAX: Duration = Duration::from_hours(1);
/// Longest time that a subscription may stay parked.
const PARKED_MAX: Duration = Duration::from_hours(7 * 24);
/// Longest time to live, in whole days below what a message's header holds (32 bits of milliseconds).
const TTL_MAX: Duration = Duration::from_hours(49 * 24);
/// Shortest time between two searches for expired messages.
const REAPER_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Longest cluster name, in bytes.
const CLUSTER_BYTES_MAX: usize = 64;
/// Longest path of metrics, in bytes.
const PATH_BYTES_MAX: usize = 128;

/// Every setting, in the order of the help.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "cluster",
        heading: NODE,
        value: "NAME",
        help: "Name of the cluster this node belongs to. Nodes of different clusters ignore each \
               other.",
        read: |config, text| {
            let fits = (1..=CLUSTER_BYTES_MAX).contains(&text.len());
            if !fits || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err("is not a cluster name; it has 1 to 64 bytes and no spaces".to_owned());
            }
            text.clone_into(&mut config.cluster);
            Ok(())
        },
        show: |config| config.cluster.clone(),
    },
    Setting {
        name: "drain-timeout",
        heading: NODE,
        value: DURATION,
        help: "Time that SIGTERM leaves to send what is queued for subscribers. What is left then \
               is counted in the log.",
        read: |config, text| {
            config.drain_timeout = read_duration_within(text, Duration::ZERO..=WAIT_MAX)?;
            Ok(())
        },
        show: |config| show_duration(config.drain_timeout),
    },
    Setting {
        name: "bind",
        heading: ADDRESSES,
        value: "ADDRESS,…",
        help: "Addresses to listen on, for applications and for other nodes, IPv4 or IPv6, separated \
               by commas. `0.0.0.0,::` is every address of the host, 127.0.0.1 this host alone.",
        read: |config, text| {
            config.bind = read_addresses(text)?;
            Ok(())
        },
        show: |config| {
            let addresses: Vec<_> = config.bind.iter().map(ToString::to_string).collect();
            addresses.join(",")
        },
    },
    Setting {
        name: "app-port",
        heading: ADDRESSES,
        value: "PORT",
        help: "TCP port for applications. 0 takes a free port and names it in the ready line.",
        read: |config, text| {
            config.app_port = read_port(text)?;
            Ok(())
        },
        show: |config| config.app_port.to_string(),
    },
    Setting {
        name: "mesh-port",
        heading: ADDRESSES,
        value: "PORT",
        help: "TCP port for links to other nodes, and UDP port for their beacons. 0 takes a free port \
               and names it in the ready line.",
        read: |config, text| {
            config.mesh_port = read_port(text)?;
            Ok(())
        },
        show: |config| config.mesh_port.to_string(),
    },
    Setting {
        name: "unix-socket",
        heading: ADDRESSES,
        value: "auto|none|PATH",
        help: "Unix socket for applications on this host, which costs less per call than TCP. \
               `auto` is the abstract name @nexusd/<app-port>, where clients look first; \
               @NAME is another abstract name.",
        read: |config, text| {
            config.unix_socket = read_unix_socket(text)?;
            Ok(())
        },
        show: |config| match &config.unix_socket {
            UnixSocket::Auto => "auto".to_owned(),
            UnixSocket::None => "none".to_owned(),
            UnixSocket::At(address) => address.to_string(),
        },
    },
    Setting {
        name: "discovery",
        heading: MESH,
        value: "multicast|static|off",
        help: "How nodes of a cluster find each other: `multicast` by beacons and through --peers, \
               `static` through --peers alone, where one that can be reached is enough. `off` is a \
               node on its own, whatever else is set here: it looks for nobody, and does not listen on \
               --mesh-port.",
        read: |config, text| {
            config.discovery = mesh::read_discovery(text)?;
            Ok(())
        },
        show: |config| mesh::show_discovery(config.discovery),
    },
    Setting {
        name: CLUSTER_KEY,
        heading: MESH,
        value: "TEXT|@FILE",
        help: "Secret of the cluster, at least 16 bytes: nodes that do not have it get no link, and \
               their beacons are ignored. @FILE reads it from a file, NEXUSD_CLUSTER_KEY from the \
               environment; a flag is seen by every user of the host. Links are not encrypted.",
        read: |config, text| {
            config.cluster_key = match text {
                "none" => None,
                _ => Some(ClusterSecret::new(text)?),
            };
            Ok(())
        },
        show: |config| config.cluster_key.as_ref().map_or("none", |_| KEY_IS_SET).to_owned(),
    },
    Setting {
        name: "advertise",
        heading: MESH,
        value: "auto|ADDRESS",
        help: "Address under which other nodes reach this one, where that is not the one its beacons \
               come from, as behind NAT.",
        read: |config, text| {
            config.advertise = mesh::read_advertise(text)?;
            Ok(())
        },
        show: |config| config.advertise.map_or_else(|| "auto".to_owned(), |it| it.to_string()),
    },
    Setting {
        name: "interface",
        heading: MESH,
        value: "all|NAME,…",
        help: "Interfaces for beacons to the multicast group, by name or address. `all` are those \
               that are up, can multicast and have an address of --bind; the loopback interface \
               speaks only where there is no other.",
        read: |config, text| {
            config.interfaces = mesh::read_interfaces(text)?;
            Ok(())
        },
        show: |config| mesh::show_interfaces(&config.interfaces),
    },
    Setting {
        name: "mcast-addr",
        heading: MESH,
        value: "GROUP,…",
        help: "Multicast group for beacons, the same on all nodes: one of IPv4, one of IPv6, or both.",
        read: |config, text| {
            config.multicast_groups = mesh::read_groups(text)?;
            Ok(())
        },
        show: |config| mesh::show_list(&config.multicast_groups, ""),
    },
    Setting {
        name: "mcast-port",
        heading: MESH,
        value: "PORT",
        help: "UDP port for beacons to the multicast group, the same on all nodes.",
        read: |config, text| {
            config.multicast_port = mesh::read_multicast_port(text)?;
            Ok(())
        },
        show: |config| config.multicast_port.to_string(),
    },
    Setting {
        name: "expected-peers",
        heading: MESH,
        value: "COUNT",
        help: "Other nodes that should be found. A node that has found fewer after 30 s says so in the \
               log, and once more when they are there.",
        read: |config, text| {
            config.expected_peers = read_count(text, 0, 1_000_000)?;
            Ok(())
        },
        show: |config| config.expected_peers.to_string(),
    },
    Setting {
        name: "max-links",
        heading: MESH,
        value: "COUNT",
        help: "Links to other nodes beyond which no further node is dialled, at most 4096. Who dials this \
               one is taken up to 4096. Each takes a file descriptor.",
        read: |config, text| {
            config.links_max = read_count(text, 1, nexusd_discovery::limits::LINKS_MAX)?;
            Ok(())
        },
        show: |config| config.links_max.to_string(),
    },
    Setting {
        name: "peers",
        heading: PEERS,
        value: "none|HOST:PORT,…",
        help: "Nodes to find the cluster through, by name or address and mesh port, separated by \
               commas. They need not be there yet: names are looked up and nodes dialled for as long \
               as the daemon runs.",
        read: |config, text| {
            config.peers = mesh::read_peers(text)?;
            Ok(())
        },
        show: |config| mesh::show_peers(&config.peers),
    },
    Setting {
        name: "peer-retry-count",
        heading: PEERS,
        value: "COUNT",
        help: "Attempts to reach one of them before it is logged. From then on it is tried at the \
               longest interval.",
        read: |config, text| {
            let count = read_count(text, 0, 1_000_000)?;
            config.peer_retry.count = u32::try_from(count).unwrap_or(u32::MAX);
            Ok(())
        },
        show: |config| config.peer_retry.count.to_string(),
    },
    Setting {
        name: "peer-retry-interval",
        heading: PEERS,
        value: DURATION,
        help: "Time between the first two attempts.",
        read: |config, text| {
            config.peer_retry.interval = mesh::read_retry_interval(text)?;
            Ok(())
        },
        show: |config| show_duration(config.peer_retry.interval),
    },
    Setting {
        name: "peer-retry-max-interval",
        heading: PEERS,
        value: DURATION,
        help: "Longest time between two attempts.",
        read: |config, text| {
            config.peer_retry.interval_max = mesh::read_retry_interval(text)?;
            Ok(())
        },
        show: |config| show_duration(config.peer_retry.interval_max),
    },
    Setting {
        name: "peer-retry-backoff-factor",
        heading: PEERS,
        value: "FACTOR",
        help: "How much longer than the time before each time between two attempts is, from 1.0 to \
               10.0.",
        read: |config, text| {
            config.peer_retry.backoff_factor = read_thousandths(text, 1_000, 10_000)?;
            Ok(())
        },
        show: |config| config.peer_retry.backoff_factor.to_string(),
    },
    Setting {
        name: "peer-retry-jitter",
        heading: PEERS,
        value: "SHARE",
        help: "Share of that time that is added or taken away at random, from 0.0 to 1.0, so that \
               nodes that start together do not all try together.",
        read: |config, text| {
            config.peer_retry.jitter = read_thousandths(text, 0, 1_000)?;
            Ok(())
        },
        show: |config| config.peer_retry.jitter.to_string(),
    },
    Setting {
        name: "profile",
        heading: LIMITS,
        value: "small|medium|large",
        help: "Size of the host: `small` is a sidecar that stays within some 64M, `large` a machine \
               for messaging. It chooses the defaults of the settings in the table below; what is \
               set in any other way beats it.",
        read: |config, text| {
            config.profile =
                Profile::named(text).ok_or("is not a profile; choose small, medium or large")?;
            Ok(())
        },
        show: |config| config.profile.to_string(),
    },
    Setting {
        name: "memory-limit",
        heading: LIMITS,
        value: "SIZE",
        help: "Memory for messages: the log and all that is queued. When it is used up, the oldest \
               messages go, and their subscribers are told. Subscriptions and topic ids of clients \
               take at most an eighth of it.",
        read: |config, text| {
            let bytes = read_size_within(text, 1 << 20..=MEMORY_BYTES_MAX)?;
            config.limits.memory_bytes = addressable(bytes)?;
            Ok(())
        },
        show: |config| show_size(config.limits.memory_bytes as u64),
    },
    Setting {
        name: "max-payload",
        heading: LIMITS,
        value: "SIZE",
        help: "Longest payload of a message, at most 64M. Longer ones are refused with an error.",
        read: |config, text| {
            let bytes = read_size_within(text, 1..=u64::from(PAYLOAD_BYTES_MAX))?;
            config.limits.payload_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            Ok(())
        },
        show: |config| show_size(u64::from(config.limits.payload_bytes)),
    },
    Setting {
        name: "max-connections",
        heading: LIMITS,
        value: "COUNT",
        help: "Connections of applications at a time. Further ones are refused with an error. Each \
               takes a file descriptor; the limit on those (`ulimit -n`) must be higher.",
        read: |config, text| {
            config.limits.connections = read_count(text, 1, 1_000_000)?;
            Ok(())
        },
        show: |config| config.limits.connections.to_string(),
    },
    Setting {
        name: "max-topics",
        heading: LIMITS,
        value: "COUNT",
        help: "Topics at a time. Publishing to a new one beyond that is refused with an error. \
               Topics nobody uses are forgotten after 60 s.",
        read: |config, text| {
            config.limits.topics = read_count(text, 1, 1_000_000_000)?;
            Ok(())
        },
        show: |config| config.limits.topics.to_string(),
    },
    Setting {
        name: "max-connections-per-source",
        heading: SOURCES,
        value: "COUNT",
        help: "Connections at a time from one IPv4 address or one IPv6 network of 64 bits, 127.0.0.1 \
               included, but not over the unix socket. Further ones are refused with an error. 0, here \
               and below, is no limit.",
        read: |config, text| {
            config.limits.connections_per_source = read_count(text, 0, 1_000_000)?;
            Ok(())
        },
        show: |config| config.limits.connections_per_source.to_string(),
    },
    Setting {
        name: "accept-rate-per-source",
        heading: SOURCES,
        value: "COUNT",
        help: "New connections per second from one of those; a second's worth may come at once. \
               Further ones are refused with an error.",
        read: |config, text| {
            config.limits.accept_rate_per_source = read_rate(text)?;
            Ok(())
        },
        show: |config| config.limits.accept_rate_per_source.to_string(),
    },
    Setting {
        name: "publish-rate-per-source",
        heading: SOURCES,
        value: "COUNT",
        help: "Messages per second that one of those publishes, over all its connections; a second's \
               worth may come at once. Further ones are refused, with an error or in their \
               acknowledgement.",
        read: |config, text| {
            config.limits.publish_rate_per_source = read_rate(text)?;
            Ok(())
        },
        show: |config| config.limits.publish_rate_per_source.to_string(),
    },
    Setting {
        name: "subscriber-queue-limit",
        heading: SLOW_SUBSCRIBERS,
        value: "COUNT",
        help: "Messages queued for one subscription before the policy below takes effect. 0 leaves \
               it to the bytes alone.",
        read: |config, text| {
            config.limits.queue_messages = read_count(text, 0, 1_000_000_000)? as u64;
            Ok(())
        },
        show: |config| config.limits.queue_messages.to_string(),
    },
    Setting {
        name: "subscriber-queue-bytes",
        heading: SLOW_SUBSCRIBERS,
        value: "SIZE",
        help: "Bytes queued for one subscription before the policy below takes effect.",
        read: |config, text| {
            config.limits.queue_bytes = read_size_within(text, 1 << 10..=MEMORY_BYTES_MAX)?;
            Ok(())
        },
        show: |config| show_size(config.limits.queue_bytes),
    },
    Setting {
        name: "backpressure-policy",
        heading: SLOW_SUBSCRIBERS,
        value: "POLICY",
        help: "What happens when a queue is full: `drop-oldest` or `drop-newest` messages, of which \
               the subscriber is told; `block` holds publishers back first; `disconnect` ends the \
               subscriber's connection.",
        read: |config, text| {
            config.limits.policy = match text {
                "drop-oldest" => OverflowPolicy::DropOldest,
                "drop-newest" => OverflowPolicy::DropNewest,
                "block" => OverflowPolicy::Block,
                "disconnect" => OverflowPolicy::Disconnect,
                _ => {
                    let text =
                        "is not a policy; choose drop-oldest, drop-newest, block or disconnect";
                    return Err(text.to_owned());
                }
            };
            Ok(())
        },
        show: |config| {
            match config.limits.policy {
                OverflowPolicy::DropOldest => "drop-oldest",
                OverflowPolicy::DropNewest => "drop-newest",
                OverflowPolicy::Block => "block",
                OverflowPolicy::Disconnect => "disconnect",
                _ => "unknown",
            }
            .to_owned()
        },
    },
    Setting {
        name: "block-timeout-ms",
        heading: SLOW_SUBSCRIBERS,
        value: DURATION,
        help: "Longest time that `block` holds publishers back; after that the queue drops its \
               oldest messages.",
        read: |config, text| {
            let timeout = read_duration_within(text, Duration::ZERO..=WAIT_MAX)?;
            config.limits.block_timeout_us = microseconds(timeout);
            Ok(())
        },
        show: |config| show_duration(Duration::from_micros(config.limits.block_timeout_us)),
    },
    Setting {
        name: "message-buffer-size",
        heading: COMING_BACK,
        value: "COUNT",
        help: "Newest messages of each topic that are kept for subscribers that come back.",
        read: |config, text| {
            config.limits.replay_messages = read_count(text, 0, 1_000_000)? as u64;
            Ok(())
        },
        show: |config| config.limits.replay_messages.to_string(),
    },
    Setting {
        name: "max-buffer-memory",
        heading: COMING_BACK,
        value: "SIZE",
        help: "Memory for messages that are kept for that alone. It beats the count: topics with \
               more messages than that shrink first, then the oldest messages go.",
        read: |config, text| {
            let bytes = read_size_within(text, 0..=MEMORY_BYTES_MAX)?;
            config.limits.replay_bytes = addressable(bytes)?;
            Ok(())
        },
        show: |config| show_size(config.limits.replay_bytes as u64),
    },
    Setting {
        name: "paused-subscription-ttl",
        heading: COMING_BACK,
        value: DURATION,
        help: "Time that a subscription whose connection broke, or that was paused, goes on queueing \
               until its client comes back, at most 168h. With 0 a broken connection ends its \
               subscriptions.",
        read: |config, text| {
            let ttl = read_duration_within(text, Duration::ZERO..=PARKED_MAX)?;
            config.limits.parked_ttl_us = microseconds(ttl);
            Ok(())
        },
        show: |config| show_duration(Duration::from_micros(config.limits.parked_ttl_us)),
    },
    Setting {
        name: "default-message-ttl",
        heading: EXPIRY,
        value: DURATION,
        help: "Time to live of messages whose publisher gave none, at most 1176h; 0 lets them live \
               for as long as there is room. An expired message is not delivered.",
        read: |config, text| {
            let ttl = read_duration_within(text, Duration::ZERO..=TTL_MAX)?;
            config.limits.default_ttl_ms = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX);
            Ok(())
        },
        show: |config| {
            show_duration(Duration::from_millis(u64::from(config.limits.default_ttl_ms)))
        },
    },
    Setting {
        name: "ttl-reaper-interval",
        heading: EXPIRY,
        value: DURATION,
        help: "Time between two searches for expired messages, which give back their memory. No \
               expired message is delivered between them either.",
        read: |config, text| {
            let interval = read_duration_within(text, REAPER_INTERVAL_MIN..=WAIT_MAX)?;
            config.limits.reaper_interval_us = microseconds(interval);
            Ok(())
        },
        show: |config| show_duration(Duration::from_micros(config.limits.reaper_interval_us)),
    },
    Setting {
        name: "shards",
        heading: THREADS,
        value: "auto|COUNT",
        help: "Threads that share the topics, at most 64; `auto` is one for each CPU that the daemon \
               may use, as far as --memory-limit gives each its share.",
        read: |config, text| {
            config.shards = match text {
                "auto" => None,
                _ => Some(read_count(text, 1, SHARDS_MAX)?),
            };
            Ok(())
        },
        show: |config| config.shards.map_or_else(|| "auto".to_owned(), |count| count.to_string()),
    },
    Setting {
        name: "pin",
        heading: THREADS,
        value: "none|CPU",
        help: "CPU that the first shard stays on, by its number; each further shard stays on the next \
               one. `none` lets the kernel move them.",
        read: |config, text| {
            config.pin = match text {
                "none" => None,
                _ => Some(
                    digits(text)
                        .and_then(|cpu| usize::try_from(cpu).ok())
                        .ok_or("is not a CPU; choose none or the number of one")?,
                ),
            };
            Ok(())
        },
        show: |config| config.pin.map_or_else(|| "none".to_owned(), |cpu| cpu.to_string()),
    },
    Setting {
        name: "spin-us",
        heading: THREADS,
        value: "MICROSECONDS",
        help: "Time a shard looks for work before it sleeps, at most 1000000. Spinning saves the \
               cost of waking up, some 50 µs on virtual machines, and keeps a CPU busy.",
        read: |config, text| {
            let spin = read_count(text, 0, 1_000_000)?;
            config.spin_us = u32::try_from(spin).unwrap_or(u32::MAX);
            Ok(())
        },
        show: |config| config.spin_us.to_string(),
    },
    Setting {
        name: "io",
        heading: THREADS,
        value: "auto|uring|epoll",
        help: "How shards talk to the kernel. `uring` is io_uring, which needs Linux 6.1 and a host \
               or container that allows it; `epoll` runs everywhere and takes some 15 % more CPU time \
               where subscribers are many. `auto` is io_uring, and epoll where that is refused.",
        read: |config, text| {
            config.io = match text {
                "auto" => IoEngine::Auto,
                "uring" => IoEngine::Uring,
                "epoll" => IoEngine::Epoll,
                _ => {
                    return Err(
                        "is not a way of input and output; choose auto, uring or epoll".to_owned()
                    );
                }
            };
            Ok(())
        },
        show: |config| {
            match config.io {
                IoEngine::Auto => "auto",
                IoEngine::Uring => "uring",
                IoEngine::Epoll => "epoll",
            }
            .to_owned()
        },
    },
    Setting {
        name: "health-port",
        heading: OPERATION,
        value: "PORT|off",
        help: "TCP port, on all addresses of --bind, for /livez, /healthz and /readyz, and for what \
               operators ask: JSON under /api/v1, described by /openapi.json. What changes something is \
               taken from this host alone. 0 takes a free port and names it in the ready line.",
        read: |config, text| {
            config.health_port = read_http_port(text)?;
            Ok(())
        },
        show: |config| show_http_port(config.health_port),
    },
    Setting {
        name: "metrics-port",
        heading: OPERATION,
        value: "PORT|off",
        help: "TCP port for metrics in the format of Prometheus. 0 takes a free port and names it in the \
               ready line.",
        read: |config, text| {
            config.metrics_port = read_http_port(text)?;
            Ok(())
        },
        show: |config| show_http_port(config.metrics_port),
    },
    Setting {
        name: "metrics-enabled",
        heading: OPERATION,
        value: "true|false",
        help: "Whether there are metrics at all; false is as --metrics-port off.",
        read: |config, text| {
            config.metrics_enabled = match text {
                "true" => true,
                "false" => false,
                _ => return Err("is neither true nor false".to_owned()),
            };
            Ok(())
        },
        show: |config| config.metrics_enabled.to_string(),
    },
    Setting {
        name: "metrics-path",
        heading: OPERATION,
        value: "PATH",
        help: "Path of the metrics on that port.",
        read: |config, text| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
            let is_path = text.starts_with('/') && text.len() <= PATH_BYTES_MAX;
            if !is_path || !text.bytes().all(is_plain) {
                return Err(
                    "is not a path; it begins with / and has letters, digits, /, -, _ and ."
                        .to_owned(),
                );
            }
            text.clone_into(&mut config.metrics_path);
            Ok(())
        },
        show: |config| config.metrics_path.clone(),
    },
    Setting {
        name: "metrics-update-interval",
        heading: OPERATION,
        value: DURATION,
        help: "Time for which a page of metrics is served again before the shards are asked anew; with 0 \
               they are asked each time.",
        read: |config, text| {
            config.metrics_update_interval = read_duration_within(text, Duration::ZERO..=WAIT_MAX)?;
            Ok(())
        },
        show: |config| show_duration(config.metrics_update_interval),
    },
    Setting {
        name: "log-level",
        heading: LOGS,
        value: "LEVEL",
        help: "Least important events that are logged: off, error, warn, info, debug or trace. Logs \
               go to stderr; the ready line goes to stdout whatever the level.",
        read: |config, text| {
            config.log_level = LogLevel::named(text)
                .ok_or("is not a level; choose off, error, warn, info, debug or trace")?;
            Ok(())
        },
        show: |config| config.log_level.to_string(),
    },
    Setting {
        name: "log-format",
        heading: LOGS,
        value: "text|json",
        help: "Form of the log: lines for people, or one JSON object per line.",
        read: |config, text| {
            config.log_format = match text {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("is not a format; choose text or json".to_owned()),
            };
            Ok(())
        },
        show: |config| {
            match config.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            }
            .to_owned()
        },
    },
];

/// The setting whose value is never shown.
pub(super) const CLUSTER_KEY: &str = "cluster-key";

impl Setting {
    /// Whether its value must not be shown. What `show` writes is then no value.
    pub(super) fn is_secret(&self) -> bool {
        self.name == CLUSTER_KEY
    }

    /// Whether it is a time whose default is a second or more, and whose name says nothing else.
    pub(super) fn is_usually_seconds(&self) -> bool {
        let second = Duration::from_secs(1);
        let default = || (self.show)(&Config::default());
        self.value == DURATION
            && !self.name.ends_with("-ms")
            && read_duration_within(&default(), second..=Duration::MAX).is_ok()
    }
}

/// The setting of that name.
pub(super) fn named(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn addressable(bytes: u64) -> Result<usize, String> {
    usize::try_from(bytes).map_err(|_| "is more than this machine can address".to_owned())
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Reads a number per second.
fn read_rate(text: &str) -> Result<u32, String> {
    let rate = read_count(text, 0, RATE_MAX as usize)?;
    Ok(u32::try_from(rate).unwrap_or(RATE_MAX))
}
