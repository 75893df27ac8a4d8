//! The command line, and what it asks for.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::connection::Endpoint;
use crate::error::LoadError;
use crate::mesh::Meeting;
use crate::policy::Policy;
use crate::quantity::{Rate, parse_count, parse_duration, parse_rate, parse_seconds, parse_size};
use crate::server::{Addresses, DaemonIo, MeshOptions, ServerOptions};
use crate::stamp::{STAMP_BYTES, TOPICS_MAX};
use crate::target::Target;
use crate::topic_tree::{PER_ROOM, ROOM_SUBSCRIBERS};
use crate::topic_walk::Order;
use crate::workload::{Overrides, Transport, Workload};

/// The shortest time between two breaks of a connection.
const RESUME_EVERY_MIN: Duration = Duration::from_millis(10);

/// Where a server runs unless told, and where the load does.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
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
         reads at the end and checks that it was told exactly what it lost
  Q      a quiet pair at 1,000 messages/s: alone, beside a connection that floods a topic of its own
         whose subscriber reads, and beside one that floods a topic nobody wants
  K      one publisher over 1, 1,000 and 1,000,000 topics, round-robin, at random and by Zipf's
         law, to one subscriber whose filter matches all; topics are bound before the run
  W      one publisher to 100 subscribers with different filters, half of them with wildcards, of
         which every message matches two: 10,000 filters and topics, then 100,000 filters, then
         100,000 topics as well
  S      10,000 idle clients in processes of their own, each with a connection and a subscription:
         memory of the daemon and of the kernel for each, time to connect all, and time until all
         are back after all were dropped at once; then each must get one message (a daemon at
         --addr needs a --max-connections well above the clients)

  M1     a publisher at one node, a subscriber at another; of N nodes all but the first have one
  M3     three nodes, at each a publisher and a subscriber that wants what all of them publish
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
    /// What workload S starts: clients that end with their standard input
    #[command(hide = true)]
    IdleClients {
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

/// What a command line asks for.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Be a server.
    Serve {
        /// Which.
        target: Target,
        /// How.
        options: ServerOptions,
    },
    /// Be many idle clients.
    IdleClients {
        /// Where they connect.
        endpoint: Endpoint,
        /// What their topics begin with.
        run_name: String,
        /// The number of the first.
        first: usize,
        /// How many.
        count: usize,
    },
    /// Show what an embedded node can do.
    Demo {
        /// The node's core.
        server_core: usize,
        /// The load's core.
        load_core: usize,
    },
    /// Measure.
    Measure(Box<MeasureRequest>),
}

/// A workload to measure.
#[derive(Clone, Debug)]
pub(crate) struct MeasureRequest {
    /// The system.
    pub(crate) target: Target,
    /// The workload.
    pub(crate) workload: Workload,
    /// What differs from its defaults.
    pub(crate) overrides: Overrides,
    /// Percentages of the capacity to run at, instead of fixed rates.
    pub(crate) capacity_shares: Vec<u64>,
    /// Length of the measured interval.
    pub(crate) duration: Duration,
    /// Time before it.
    pub(crate) warmup: Duration,
    /// Where the server comes from.
    pub(crate) source: ServerSource,
    /// Cores of the load; none is all.
    pub(crate) load_cores: Vec<usize>,
    /// How nodes find each other, where there are several.
    pub(crate) meeting: Meeting,
    /// Where results go, besides the table.
    pub(crate) files: ResultFiles,
}

/// Where the server comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ServerSource {
    /// Start one for every run.
    Spawn(ServerOptions),
    /// It runs already.
    Running {
        /// Where.
        addresses: Addresses,
        /// Its process, if known.
        pid: Option<u32>,
    },
}

impl MeasureRequest {
    /// Whether servers that are started here are given cores, and not just all there are.
    pub(crate) fn has_server_cores(&self) -> bool {
        matches!(&self.source, ServerSource::Spawn(options) if !options.cores.is_empty())
    }
}

impl ServerSource {
    /// Shards that a daemon is started with.
    pub(crate) fn shards(&self) -> Option<usize> {
        match self {
            Self::Spawn(options) => options.shards,
            Self::Running { .. } => None,
        }
    }
}

/// Where results go, besides the table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ResultFiles {
    /// JSON lines; `-` is standard output.
    pub(crate) json: Option<PathBuf>,
    /// Histograms.
    pub(crate) hgrm: Option<PathBuf>,
}

impl Cli {
    /// What is asked for, or one sentence about what is wrong.
    pub(crate) fn request(self) -> Result<Request, LoadError> {
        match self.command {
            Some(Command::Serve { target, options }) => {
                return Ok(Request::Serve { target, options });
            }
            Some(Command::IdleClients { addr, unix, run_name, first, count }) => {
                let endpoint = addr
                    .map(Endpoint::Tcp)
                    .or_else(|| unix.map(Endpoint::Unix))
                    .ok_or_else(|| usage("idle clients need --addr or --unix"))?;
                return Ok(Request::IdleClients { endpoint, run_name, first, count });
            }
            None => {}
        }
        let Some(workload) = self.workload else {
            return self.demo();
        };
        self.check(workload)?;
        let (server_cores, load_cores) = self.cores(workload);
        let source = self.source(server_cores)?;
        let transport = match &source {
            ServerSource::Running { addresses, .. } if addresses.unix.is_some() => {
                Some(Transport::Unix)
            }
            ServerSource::Running { .. } => Some(Transport::Tcp),
            ServerSource::Spawn(_) => self.transport,
        };
        Ok(Request::Measure(Box::new(MeasureRequest {
            target: self.target,
            workload,
            overrides: Overrides {
                sizes: self.size,
                rate: self.rate,
                batch: self.batch,
                window: self.window,
                transport,
                fan_outs: self.fan_out,
                topics: self.topics,
                filters: self.filters,
                orders: self.order,
                ack_every: self.ack.and_then(NonZeroU64::new),
                policy: self.policy,
                counted: self.counted || self.resume.is_some(),
                resume_every: self.resume,
                clients: self.clients.map(|clients| clients as usize),
                nodes: self.nodes,
            },
            capacity_shares: self.capacity_shares,
            duration: self.duration,
            warmup: self.warmup,
            source,
            load_cores,
            meeting: if self.seed { Meeting::Seed } else { Meeting::Multicast },
            files: ResultFiles { json: self.json, hgrm: self.hgrm },
        })))
    }

    /// Without a workload there is nothing that other flags could refer to.
    fn demo(self) -> Result<Request, LoadError> {
        let is_plain = self.target == Target::Nexusd
            && self.size.is_empty()
            && self.addr.is_none()
            && self.unix.is_none()
            && !self.spawn
            && self.rate.is_none()
            && self.json.is_none()
            && self.hgrm.is_none()
            && self.topics.is_empty()
            && self.filters.is_empty()
            && self.order.is_empty()
            && self.clients.is_none()
            && self.ack.is_none()
            && self.policy.is_none()
            && !self.counted
            && self.resume.is_none()
            && self.shards.is_none()
            && self.nodes.is_none_or(|nodes| nodes == 1)
            && !self.seed;
        let one = |cores: &[usize], default| match cores {
            [] => Some(default),
            [core] => Some(*core),
            _ => None,
        };
        let cores = one(&self.server_core, SERVER_CORE).zip(one(&self.load_core, LOAD_CORE));
        if let (Some((server_core, load_core)), true) = (cores, is_plain) {
            return Ok(Request::Demo { server_core, load_core });
        }
        Err(usage("say what to measure, such as --workload T1; --help explains the workloads"))
    }

    fn check(&self, workload: Workload) -> Result<(), LoadError> {
        if let Some(size) = self.size.iter().find(|size| **size < STAMP_BYTES) {
            return Err(usage(format!(
                "--size {size} is too small: a payload carries a counter and a time, \
                 {STAMP_BYTES} bytes"
            )));
        }
        if self.duration < Duration::from_millis(100) {
            return Err(usage("--duration must be at least 100ms"));
        }
        if self.fan_out.contains(&0) {
            return Err(usage("--fan-out must be at least 1"));
        }
        if workload != Workload::P && !self.fan_out.is_empty() {
            return Err(usage("--fan-out belongs to --workload P"));
        }
        if workload != Workload::L && !self.capacity_shares.is_empty() {
            return Err(usage("--capacity-shares belongs to --workload L"));
        }
        if self.io == DaemonIo::Epoll && self.target != Target::Nexusd {
            return Err(usage(
                "--io epoll belongs to --target nexusd; pump and relay have io_uring",
            ));
        }
        if workload == Workload::B && self.target != Target::Nexusd {
            return Err(usage(
                "--workload B needs a server that drops for a stalled subscriber; pump and relay \
                 wait for it for ever",
            ));
        }
        if workload == Workload::Q && self.target != Target::Nexusd {
            return Err(usage(
                "--workload Q needs a server that drops what nobody wants; pump and relay wait for a \
                 reader",
            ));
        }
        if workload == Workload::Q && self.rate == Some(Rate::Max) {
            return Err(usage("--workload Q measures a quiet pair: give its --rate in messages/s"));
        }
        if workload == Workload::W && matches!(self.target, Target::Pump | Target::Relay) {
            return Err(usage(
                "--workload W needs a server that knows filters; pump and relay know none",
            ));
        }
        self.check_peer(workload)?;
        self.check_topics(workload)?;
        self.check_idle(workload)?;
        self.check_mesh(workload)?;
        self.check_resume(workload)?;
        self.check_daemon(workload)
    }

    /// What the generator can ask of other systems.
    fn check_peer(&self, workload: Workload) -> Result<(), LoadError> {
        let is_alike = matches!(
            workload,
            Workload::T1
                | Workload::T2
                | Workload::F16
                | Workload::F64
                | Workload::F1000
                | Workload::P
                | Workload::L
                | Workload::W
                | Workload::K
        );
        if self.target.program().is_some() && !is_alike {
            return Err(usage(format!(
                "--workload {} cannot be run with --target {}: it needs what only nexusd has",
                workload.name(),
                self.target.name()
            )));
        }
        Ok(())
    }

    fn check_topics(&self, workload: Workload) -> Result<(), LoadError> {
        if workload != Workload::K && !self.topics.is_empty() {
            return Err(usage("--topics belongs to --workload K"));
        }
        if workload != Workload::W && !self.filters.is_empty() {
            return Err(usage("--filters belongs to --workload W"));
        }
        if !matches!(workload, Workload::K | Workload::W) && !self.order.is_empty() {
            return Err(usage("--order belongs to --workload K and W"));
        }
        Ok(())
    }

    fn check_idle(&self, workload: Workload) -> Result<(), LoadError> {
        if workload != Workload::S {
            return match self.clients {
                Some(_) => Err(usage("--clients belongs to --workload S")),
                None => Ok(()),
            };
        }
        if self.target != Target::Nexusd {
            return Err(usage("--workload S needs --target nexusd"));
        }
        match self.flag_of_traffic() {
            Some(flag) => {
                Err(usage(format!("--workload S has idle clients: {flag} changes nothing there")))
            }
            None => Ok(()),
        }
    }

    fn check_mesh(&self, workload: Workload) -> Result<(), LoadError> {
        if !workload.is_meshed() {
            return match (self.nodes, self.seed) {
                (Some(2..), _) => Err(usage("--nodes belongs to --workload M1, M3 and C")),
                (_, true) => Err(usage("--seed belongs to --workload M1, M3 and C")),
                _ => Ok(()),
            };
        }
        let name = workload.name();
        if self.target != Target::Nexusd {
            return Err(usage(format!("--workload {name} needs --target nexusd")));
        }
        if self.addr.is_some() || self.unix.is_some() {
            return Err(usage(format!(
                "--workload {name} starts its nodes itself: it needs neither --addr nor --unix"
            )));
        }
        if self.nodes == Some(1) {
            return Err(usage(format!("--workload {name} needs at least --nodes 2")));
        }
        match (workload, self.flag_of_traffic()) {
            (Workload::C, Some(flag)) => {
                Err(usage(format!("--workload C has no traffic: {flag} changes nothing there")))
            }
            _ => Ok(()),
        }
    }

    /// A flag that is given and says something of traffic.
    fn flag_of_traffic(&self) -> Option<&'static str> {
        let flags = [
            ("--rate", self.rate.is_some()),
            ("--ack", self.ack.is_some()),
            ("--policy", self.policy.is_some()),
            ("--counted", self.counted),
            ("--resume", self.resume.is_some()),
        ];
        flags.iter().find(|(_, is_given)| *is_given).map(|(flag, _)| *flag)
    }

    /// The cores of servers and load; none is all that this process may use.
    fn cores(&self, workload: Workload) -> (Vec<usize>, Vec<usize>) {
        let (of_servers, of_load) = match workload {
            Workload::M1 | Workload::M3 => {
                (vec![SERVER_CORE, LOAD_CORE], vec![SERVER_CORE, LOAD_CORE])
            }
            Workload::C => (Vec::new(), Vec::new()),
            _ => (vec![SERVER_CORE], vec![LOAD_CORE]),
        };
        let or = |given: &[usize], default| match given {
            [] => default,
            given => given.to_vec(),
        };
        (or(&self.server_core, of_servers), or(&self.load_core, of_load))
    }

    fn check_resume(&self, workload: Workload) -> Result<(), LoadError> {
        let Some(every) = self.resume else {
            return Ok(());
        };
        if matches!(workload, Workload::B | Workload::Q) {
            return Err(usage(format!(
                "--workload {} compares subscribers that stay connected: --resume breaks their \
                 connections",
                workload.name()
            )));
        }
        if every < RESUME_EVERY_MIN {
            return Err(usage("--resume must be at least 10ms"));
        }
        if every >= self.warmup + self.duration {
            return Err(usage("--resume must be shorter than --warmup and --duration together"));
        }
        Ok(())
    }

    /// What only the daemon knows.
    fn check_daemon(&self, workload: Workload) -> Result<(), LoadError> {
        let of_daemon = [
            ("--ack", self.ack.is_some()),
            ("--policy", self.policy.is_some()),
            ("--counted", self.counted),
            ("--resume", self.resume.is_some()),
            ("--shards", self.shards.is_some()),
        ];
        if let (Some((flag, _)), true) =
            (of_daemon.iter().find(|(_, is_given)| *is_given), self.target != Target::Nexusd)
        {
            return Err(usage(format!("{flag} belongs to --target nexusd")));
        }
        if self.shards.is_some() && (self.addr.is_some() || self.unix.is_some()) {
            return Err(usage(
                "--shards belongs to a daemon that is started here, not to --addr or --unix",
            ));
        }
        if workload == Workload::B
            && matches!(self.policy, Some(Policy::Block | Policy::Disconnect))
        {
            return Err(usage(
                "--workload B needs a --policy that drops: drop-oldest or drop-newest",
            ));
        }
        Ok(())
    }

    fn source(&self, cores: Vec<usize>) -> Result<ServerSource, LoadError> {
        let running = |addresses| ServerSource::Running { addresses, pid: self.server_pid };
        if let Some(address) = &self.addr {
            return Ok(running(Addresses { tcp: Some(resolve(address)?), ..Addresses::default() }));
        }
        if let Some(name) = &self.unix {
            return Ok(running(Addresses { unix: Some(name.clone()), ..Addresses::default() }));
        }
        if self.server_pid.is_some() {
            return Err(usage("--server-pid belongs to --addr or --unix"));
        }
        Ok(ServerSource::Spawn(ServerOptions {
            cores,
            spin_us: self.spin_us,
            shards: self.shards.map(usize::from),
            connections_max: None,
            io: self.io,
            mesh: MeshOptions::default(),
        }))
    }
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

fn resolve(address: &str) -> Result<SocketAddr, LoadError> {
    use std::net::ToSocketAddrs;
    address
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| usage(format!("--addr {address} is no address such as 127.0.0.1:5672")))
}

fn usage(sentence: impl Into<String>) -> LoadError {
    LoadError::Usage(sentence.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn request(arguments: &str) -> Result<Request, String> {
        let arguments = std::iter::once("nexusd-loadgen").chain(arguments.split_whitespace());
        Cli::try_parse_from(arguments)
            .map_err(|error| error.to_string())?
            .request()
            .map_err(|error| error.to_string())
    }

    fn measure(arguments: &str) -> MeasureRequest {
        match request(arguments) {
            Ok(Request::Measure(measure)) => *measure,
            other => panic!("no measurement: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_flags_scripts_rely_on_are_there() {
        let request = measure(
            "--target relay --workload T1 --size 128 --rate max --batch 100 --window 8192 \
             --duration 5s --warmup 1s --spawn --server-core 0 --load-core 1 --nodes 1 --json -",
        );
        assert_eq!(request.target, Target::Relay);
        let options = ServerOptions { cores: vec![0], ..ServerOptions::default() };
        assert_eq!(request.source, ServerSource::Spawn(options));
        assert_eq!(request.files.json, Some("-".into()));
        assert_eq!(request.overrides.window, Some(8_192));
    }

    #[test]
    fn nothing_asked_is_the_demo() {
        assert!(matches!(request(""), Ok(Request::Demo { .. })));
    }

    #[test]
    fn an_address_means_tcp_and_a_unix_name_means_the_unix_socket() {
        let tcp = measure("--workload P --addr 127.0.0.1:1");
        assert_eq!(tcp.overrides.transport, Some(Transport::Tcp));
        let unix = measure("--workload P --unix @nexusd/5672 --server-pid 7");
        assert_eq!(unix.overrides.transport, Some(Transport::Unix));
        assert!(matches!(unix.source, ServerSource::Running { pid: Some(7), .. }));
    }

    #[test]
    fn an_acknowledgement_is_asked_of_every_message_or_of_one_in_some() {
        let every = |arguments| measure(arguments).overrides.ack_every.map(NonZeroU64::get);
        assert_eq!(every("--workload T1"), None);
        assert_eq!(every("--ack --workload T1"), Some(1));
        assert_eq!(every("--workload T1 --ack 10"), Some(10));
    }

    #[test]
    fn who_comes_back_acknowledges_what_it_had() {
        let asked = |arguments| {
            let overrides = measure(arguments).overrides;
            (overrides.counted, overrides.resume_every)
        };
        assert_eq!(asked("--workload T1"), (false, None));
        assert_eq!(asked("--workload T1 --counted"), (true, None));
        assert_eq!(asked("--workload T1 --resume"), (true, Some(Duration::from_secs(1))));
        assert_eq!(asked("--workload T1 --resume 0.1"), (true, Some(Duration::from_millis(100))));
    }

    #[test]
    fn a_daemon_with_shards_may_have_several_cores() {
        let request = measure("--workload T2 --shards 2 --server-core 0,1");
        let ServerSource::Spawn(options) = request.source else {
            panic!("no server is started");
        };
        assert_eq!((options.shards, options.cores), (Some(2), vec![0, 1]));
    }

    #[test]
    fn nodes_and_load_share_two_cores_unless_told_and_very_many_nodes_share_all() {
        let cores = |arguments| {
            let request = measure(arguments);
            let ServerSource::Spawn(options) = request.source else {
                panic!("no server is started");
            };
            (options.cores, request.load_cores)
        };
        assert_eq!(cores("--workload T1"), (vec![0], vec![1]));
        assert_eq!(cores("--workload M1"), (vec![0, 1], vec![0, 1]));
        assert_eq!(cores("--workload M3 --server-core 2,3 --load-core 4"), (vec![2, 3], vec![4]));
        assert_eq!(cores("--workload C"), (vec![], vec![]));
    }

    #[test]
    fn nodes_find_each_other_by_multicast_or_through_a_seed() {
        let asked = |arguments| {
            let request = measure(arguments);
            (request.meeting, request.overrides.nodes)
        };
        assert_eq!(asked("--workload C"), (Meeting::Multicast, None));
        assert_eq!(asked("--workload C --nodes 100 --seed"), (Meeting::Seed, Some(100)));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_in_one_sentence() {
        for (arguments, expected) in [
            ("--size 128", "--workload T1"),
            ("--workload T1 --size 15", "16 bytes"),
            ("--workload T1 --size 128,8", "16 bytes"),
            ("--workload B --target relay", "stalled subscriber"),
            ("--workload T1 --target relay --io epoll", "--target nexusd"),
            ("--workload T1 --capacity-shares 10", "--workload L"),
            ("--workload T1 --fan-out 2", "--workload P"),
            ("--workload T1 --addr nowhere", "127.0.0.1:5672"),
            ("--workload T1 --server-pid 1", "--addr or --unix"),
            ("--workload T1 --addr 127.0.0.1:1 --spawn", "cannot be used with"),
            ("--workload T1 --topics 5", "--workload K"),
            ("--workload K --topics 17M", "16777216"),
            ("--workload K --filters 400", "--workload W"),
            ("--workload W --filters 500", "multiple of 400"),
            ("--workload W --filters 4M", "at most 400000"),
            ("--workload T1 --order zipf", "--workload K and W"),
            ("--workload W --target relay", "filters"),
            ("--workload Q --target relay", "nobody wants"),
            ("--workload Q --rate max", "--rate"),
            ("--workload T1 --target relay --ack", "--target nexusd"),
            ("--workload T1 --target pump --policy block", "--target nexusd"),
            ("--workload T1 --shards 2 --addr 127.0.0.1:1", "started here"),
            ("--workload B --policy block", "drop-newest"),
            ("--workload T1 --clients 5", "--workload S"),
            ("--workload S --target pump", "--target nexusd"),
            ("--workload S --rate 5", "idle clients"),
            ("--workload S --resume", "idle clients"),
            ("--workload T1 --nodes 2", "--workload M1"),
            ("--workload T1 --seed", "--workload M1"),
            ("--workload M1 --nodes 1", "--nodes 2"),
            ("--workload M1 --nodes 0", "from 1 to"),
            ("--workload C --nodes 1000", "from 1 to"),
            ("--workload M3 --target relay", "--target nexusd"),
            ("--workload C --addr 127.0.0.1:1", "itself"),
            ("--workload C --rate 5", "no traffic"),
            ("--seed", "--workload T1"),
            ("--workload T1 --target relay --counted", "--target nexusd"),
            ("--workload T1 --target pump --resume 1", "--target nexusd"),
            ("--workload B --resume", "stay connected"),
            ("--workload Q --resume", "stay connected"),
            ("--workload T1 --resume 0", "10ms"),
            ("--workload T1 --resume 6", "shorter"),
            ("--counted", "--workload T1"),
            ("--resume", "--workload T1"),
            ("--workload T9", "invalid value"),
            ("--workload T1 --rate fast", "20k"),
        ] {
            let error = request(arguments).expect_err(arguments);
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }
}
