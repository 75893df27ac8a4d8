//! The command line: its flags and their help.
//!
//! Whether flags fit together is said in `cli/check.rs`, what they ask for in `cli/request.rs`.

mod check;
pub(crate) mod request;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::error::LoadError;
use crate::policy::Policy;
use crate::quantity::{Rate, parse_count, parse_duration, parse_rate, parse_seconds, parse_size};
use crate::server::{DaemonIo, ServerOptions};
use crate::stamp::TOPICS_MAX;
use crate::target::Target;
use crate::topic_tree::{PER_ROOM, ROOM_SUBSCRIBERS};
use crate::topic_walk::Order;
use crate::workload::{Transport, Workload};

/// Most filters in W: room numbers have five digits.
const FILTERS_MAX: u32 = 400_000;
/// Most nodes of a mesh.
const NODES_MAX: usize = 250;

const ABOUT: &str = "\
Measures NexusD, and the limits it is measured against, honestly.

Without arguments it starts a node inside this process, measures throughput and latency, and prints \
both; that takes less than 20 seconds.";

const EXAMPLES: &str = "\
Workloads:
  T1     one publisher to one subscriber, as fast as it goes
  T2     eight publishers to eight subscribers over eight topics
  F16, F64, F1000
         one publisher to 16, 64, 1,000 subscribers
  P      sparse: 20 k messages/s, each in a send of its own, to 1 and to 64 subscribers,
         over TCP and over the unix socket
  L      latency at 10 k, 100 k and 1 M messages/s, or at shares of the capacity
  B      16 subscribers of which one stalls, beside the same run without it; the stalled one
         reads at the end and checks that it was told exactly what it lost; other systems tell
         nothing: it says how much it lost, and whether it was cut off
  Q      a quiet pair at 1,000 messages/s: alone, beside a connection that floods a topic of its own
         whose subscriber reads, and beside one that floods a topic nobody wants
  K      one publisher over 1, 1,000 and 1,000,000 topics, round-robin, at random and by Zipf's
         law, to one subscriber whose filter matches all; topics are bound before the run
  W      one publisher to 100 subscribers with different filters, half of them with wildcards, of
         which every message matches two: 10,000 filters and topics, then 100,000 filters, then
         100,000 topics as well
  S      10,000 idle clients in processes of their own, each with a connection and a subscription:
         memory of the server and of the kernel for each, time to connect all, and time until all
         are back after all were dropped at once; then each must get one message (a daemon at
         --addr needs a --max-connections well above the clients)

  M1     a publisher at one node, a subscriber at another; of N nodes all but the first have one
  M3     three nodes, at each a publisher and a subscriber that wants what all of them publish
         (M1 and M3 also of a cluster of NATS servers and of Zenoh routers that are connected to each
         other, started one after the other; our clients are clients there, not Zenoh peers)
  C      ten small nodes start at once: how long until each routes to each other one, known from
         messages between all of them

Examples:
  nexusd-loadgen --workload T1
      A daemon on core 0, the load on core 1, 128-byte messages for 5 s.
  nexusd-loadgen --workload T1 --size 16,128,1024,16384 --json results.json
      Four runs; one JSON object per line and run.
  nexusd-loadgen --target relay --workload F16
      The same load through a bare relay: what any server that copies per subscriber can do.
  nexusd-loadgen --workload L --rate 100k --transport unix --hgrm latency.hgrm
      Latency at 100 k messages/s over the unix socket, as a histogram to plot.
  nexusd-loadgen --workload L --capacity-shares 10,50,80
      First the capacity, then latency at 10, 50 and 80 % of it.
  nexusd-loadgen --workload K --topics 1,50k --order zipf
      What 50,000 topics of very different popularity cost beside one.
  nexusd-loadgen --workload L --rate 100k --ack 10
      As L, and the latency of the acknowledgements that every tenth message asks for.
  nexusd-loadgen --workload F16 --resume 0.5
      As F16, and the connection of each subscriber breaks twice a second: how long until the first
      message is there again, and that nothing was lost and nothing came twice.
  nexusd-loadgen --workload T2 --shards 2 --server-core 0,1
      A daemon with two shards on cores 0 and 1.
  nexusd-loadgen --workload M1 --rate 10k
      Latency from one daemon to another, which run on cores 0 and 1, as the load does.
  nexusd-loadgen --workload C --nodes 100 --seed
      100 daemons that find each other through one of them.
  nexusd-loadgen --workload T1 --addr 127.0.0.1:5672 --server-pid $(pidof nexusd)
      A daemon that runs already; its process id makes CPU time and memory known.

How it measures:
  At --rate max the publisher keeps at most --window messages undelivered; for fan-out the slowest
  subscriber counts; in W a message counts as delivered when two have been. At a given rate the load is open loop: each message has an intended time, and
  latency runs from there to the subscriber's read, however late the message was sent.
  Beyond a million deliveries a second, one message in two, four, ... is timed; all are checked.
  With --resume, what was just read when a connection breaks counts as never received at every other
  break, so that something is surely on its way then; the time without messages is in all figures.
  Of several nodes each one's cost stands beside the sum of all. Before a run each has been seen to
  route to each other one, and the publishers' nodes to know of the subscriptions.
  A run that loses, duplicates or reorders messages, or reaches less than 99 % of its rate, is not
  valid, and the exit code is 1. Bad flags: exit code 2.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "nexusd-loadgen", version, about = ABOUT, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// The system to measure
    #[arg(long, value_enum, default_value = "nexusd")]
    target: Target,

    /// What to measure it with; see below
    #[arg(long, value_enum, ignore_case = true)]
    workload: Option<Workload>,

    /// Payload size in bytes, at least 16; several make several runs [default: 128]
    #[arg(long, value_name = "BYTES", value_parser = parse_size, value_delimiter = ',')]
    size: Vec<usize>,

    /// Messages per second over all publishers, or max [default: the workload's]
    #[arg(long, value_name = "N|max", value_parser = parse_rate)]
    rate: Option<Rate>,

    /// Most messages in one write [default: what fits 128 KiB; 1 in P]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    batch: Option<u64>,

    /// Undelivered messages at --rate max [default: 8192, fewer for large messages or fan-outs]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    window: Option<u64>,

    /// Length of the measured interval
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    duration: Duration,

    /// Time before it, which is discarded
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,

    /// A server that runs already, over TCP
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["unix", "spawn"])]
    addr: Option<String>,

    /// A server that runs already, over its unix socket: a path, or @ and an abstract name
    #[arg(long, value_name = "NAME", conflicts_with = "spawn")]
    unix: Option<String>,

    /// Start the server, pinned, in a process of its own, and stop it: the default without --addr
    /// and --unix
    #[arg(long)]
    spawn: bool,

    /// Process id of the server at --addr or --unix, to account for its CPU time and memory
    #[arg(long, value_name = "PID", conflicts_with = "spawn")]
    server_pid: Option<u32>,

    /// Core, or cores, for a server that is started here
    /// [default: 0; of several nodes one core each, in turn: 0,1 in M1 and M3; all for all in C]
    #[arg(long, value_name = "CORE", value_delimiter = ',')]
    server_core: Vec<usize>,

    /// Core, or cores, for all threads of the load [default: 1; 0,1 in M1 and M3; all in C]
    #[arg(long, value_name = "CORE", value_delimiter = ',')]
    load_core: Vec<usize>,

    /// How long a server that is started here looks for work before it sleeps, in microseconds
    #[arg(long, value_name = "US", default_value_t = 0)]
    spin_us: u32,

    /// How a daemon that is started here talks to the kernel; pump and relay are always on io_uring
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["addr", "unix"])]
    io: DaemonIo,

    /// How clients connect to a server that is started here [default: tcp; both in P]
    #[arg(long, value_enum, conflicts_with_all = ["addr", "unix"])]
    transport: Option<Transport>,

    /// Subscribers in P [default: 1,64]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    fan_out: Vec<usize>,

    /// In L: rates as percentages of the capacity, which is measured first
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', conflicts_with = "rate")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100))]
    capacity_shares: Vec<u64>,

    /// Topics in K, at most 16M [default: 1,1k,1M]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = parse_topics)]
    topics: Vec<u32>,

    /// Filters in W, over 400 topics: multiples of 400 [default: three runs of 10k and 100k, over as many topics and
    /// fewer]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = parse_filters)]
    filters: Vec<u32>,

    /// Order of topics [default: all three in K, random in W]
    #[arg(long, value_enum, value_delimiter = ',')]
    order: Vec<Order>,

    /// Idle clients in S [default: 10k]
    #[arg(long, value_name = "N", value_parser = parse_topics)]
    clients: Option<u32>,

    /// Ask for an acknowledgement of every message, or of one in N
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1")]
    #[arg(value_parser = parse_count)]
    ack: Option<u64>,

    /// What subscribers ask to happen when their queues are full [default: the daemon's]
    #[arg(long, value_enum)]
    policy: Option<Policy>,

    /// Subscribers acknowledge what they had, every 64 KiB or 512 messages, so that the daemon keeps
    /// the rest for them
    #[arg(long)]
    counted: bool,

    /// Break the connection of each subscriber every so many seconds, and come back; with --counted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    #[arg(value_parser = parse_seconds)]
    resume: Option<Duration>,

    /// Shards of a daemon that is started here [default: the daemon's]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    shards: Option<u16>,

    /// Nodes to start in M1, M3 and C [default: 2 in M1, 3 in M3, 10 in C; 1 in all others]
    #[arg(long, value_name = "N", value_parser = parse_nodes)]
    nodes: Option<usize>,

    /// In M1, M3 and C: nodes find each other through the first of them, which is ready before the
    /// others are started, instead of by multicast on the loopback interface
    #[arg(long)]
    seed: bool,

    /// Write one line of JSON per run to this file, or to standard output (-)
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,

    /// Write the latency histogram to this file; of several runs, to one file each
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What --spawn starts: a server that ends with its standard input
    #[command(hide = true)]
    Serve {
        #[arg(value_enum)]
        target: Target,
        #[command(flatten)]
        options: ServerOptions,
    },
    /// What becomes the server of another system, which ends with the process that started it
    #[command(hide = true)]
    Dependent {
        #[arg(long)]
        parent: u32,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        line: Vec<OsString>,
    },
    /// What workload S starts: clients that end with their standard input
    #[command(hide = true)]
    IdleClients {
        #[arg(long, value_enum)]
        target: Target,
        #[arg(long)]
        addr: Option<SocketAddr>,
        #[arg(long)]
        unix: Option<String>,
        #[arg(long)]
        run_name: String,
        #[arg(long)]
        first: usize,
        #[arg(long)]
        count: usize,
    },
}

/// Reads a number of nodes.
fn parse_nodes(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|nodes| (1..=NODES_MAX).contains(nodes))
        .ok_or_else(|| format!("give a number of nodes from 1 to {NODES_MAX}"))
}

/// Reads a number of topics, with `k` or `M`.
fn parse_topics(text: &str) -> Result<u32, String> {
    parse_count(text)
        .ok()
        .and_then(|topics| u32::try_from(topics).ok())
        .filter(|topics| *topics <= TOPICS_MAX)
        .ok_or_else(|| format!("give a number of topics, such as 50k, of at most {TOPICS_MAX}"))
}

fn parse_filters(text: &str) -> Result<u32, String> {
    let step = PER_ROOM * ROOM_SUBSCRIBERS as u32;
    parse_count(text)
        .ok()
        .and_then(|filters| u32::try_from(filters).ok())
        .filter(|filters| filters.is_multiple_of(step) && *filters <= FILTERS_MAX)
        .ok_or_else(|| format!("give a multiple of {step}, such as 40k, of at most {FILTERS_MAX}"))
}

fn usage(sentence: impl Into<String>) -> LoadError {
    LoadError::Usage(sentence.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
