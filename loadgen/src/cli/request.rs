//! What a command line asks for: the plan that is derived from its flags, once they fit together.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cli, Command, usage};
use crate::connection::Endpoint;
use crate::error::LoadError;
use crate::mesh::Meeting;
use crate::server::{Addresses, MeshOptions, ServerOptions};
use crate::target::Target;
use crate::workload::{Overrides, Transport, Workload};

/// Where a server runs unless told, and where the load does.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

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
    /// Become another program that ends with the process that started it.
    Dependent {
        /// That process.
        parent: u32,
        /// The program and its arguments.
        line: Vec<OsString>,
    },
    /// Be many idle clients.
    IdleClients {
        /// Of what.
        target: Target,
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
            Some(Command::Dependent { parent, line }) => {
                return Ok(Request::Dependent { parent, line });
            }
            Some(Command::IdleClients { target, addr, unix, run_name, first, count }) => {
                let endpoint = addr
                    .map(Endpoint::Tcp)
                    .or_else(|| unix.map(Endpoint::Unix))
                    .ok_or_else(|| usage("idle clients need --addr or --unix"))?;
                return Ok(Request::IdleClients { target, endpoint, run_name, first, count });
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
            meeting: match (self.target, self.seed) {
                (Target::Nexusd, true) => Meeting::Seed,
                (Target::Nexusd, false) => Meeting::Multicast,
                _ => Meeting::Addresses,
            },
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
            bounded: false,
            io: self.io,
            mesh: MeshOptions::default(),
        }))
    }
}

fn resolve(address: &str) -> Result<SocketAddr, LoadError> {
    use std::net::ToSocketAddrs;
    address
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| usage(format!("--addr {address} is no address such as 127.0.0.1:5672")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use clap::Parser as _;

    /// What a command line asks for, or what is wrong with it.
    pub(in crate::cli) fn request(arguments: &str) -> Result<Request, String> {
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
}
