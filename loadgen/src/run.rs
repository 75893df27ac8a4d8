//! One run: connects everybody, lets the load run, measures a part of it, and checks everything.
//!
//! This thread sleeps and takes two looks, at the beginning and at the end of the measured interval.
//! The load goes on a little beyond it, so that the second look sees full flow; order and
//! completeness are checked over everything that was sent, warm-up included.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clients::{Clients, RunningClients, Times};
use crate::clock;
use crate::core_distance::core_distance_ns;
use crate::error::LoadError;
use crate::flood::{Flood, RunningFlood};
use crate::hiccup::HiccupMeter;
use crate::idle::IdleFigures;
use crate::measurement::Measurement;
use crate::mesh::MeshFigures;
use crate::nodes::{NodeCost, Nodes, cpu_of_all};
use crate::server::account::{Account, CpuTime, busy_ns};
use crate::server::sends::{SendCounts, SendWatch};
use crate::server::{SendTotals, Server};
use crate::target::Target;
use crate::workload::Case;

/// Time between connecting and the first message.
const LEAD_NS: u64 = 50_000_000;
/// How long the load goes on behind the measured interval.
const TAIL_NS: u64 = 100_000_000;
/// How often somebody who watches is told how far a run has come.
const WATCH_EVERY_NS: u64 = 200_000_000;

/// What all runs of an invocation have in common.
#[derive(Clone, Debug)]
pub(crate) struct RunOptions {
    /// The system to measure.
    pub(crate) target: Target,
    /// Time before the measured interval.
    pub(crate) warmup: Duration,
    /// The measured interval.
    pub(crate) duration: Duration,
    /// Cores that the hiccup meter watches.
    pub(crate) watched_cores: Vec<usize>,
    /// Those of a server and of the load, or of two servers, between which messages go; if it is two.
    pub(crate) ends: Option<[usize; 2]>,
}

/// What was counted at one look.
struct Look {
    at_ns: u64,
    /// Microseconds since 1970.
    wall_us: u64,
    sent: u64,
    received: u64,
    /// Of each server.
    server_cpu: Vec<Option<CpuTime>>,
    /// This whole process's.
    own_cpu: Option<CpuTime>,
    /// Everybody's on the watched cores.
    busy_ns: Option<u64>,
    sends: Option<SendTotals>,
}

impl Look {
    fn at(clients: &RunningClients, nodes: &mut Nodes, cores: &[usize]) -> Self {
        Self {
            at_ns: clock::now_ns(),
            wall_us: wall_us(),
            sent: clients.sent(),
            received: clients.received(),
            server_cpu: nodes.iter().map(|server| server.account.cpu()).collect(),
            own_cpu: Account::Process(std::process::id()).cpu(),
            busy_ns: busy_ns(cores),
            sends: match &mut **nodes {
                [server] => server.sends(),
                _ => None,
            },
        }
    }
}

/// How far a run has come: shares of the whole.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Progress {
    /// Of the topics, those that the publisher has bound.
    Bound(f64),
    /// Of the time, that which has passed.
    Passed(f64),
}

/// Runs one case against a server, or the nodes of a mesh. `run_name` is new for each run; `watch` is told now and then how
/// far it has come.
pub(crate) fn measure(
    case: &Case,
    options: &RunOptions,
    nodes: &mut Nodes,
    run_name: &str,
    watch: &mut dyn FnMut(Progress),
) -> Result<Measurement, LoadError> {
    let endpoints = nodes.endpoints(case.transport)?;
    let clients = Clients::connect(case, options.target, &endpoints, run_name, &mut |share| {
        watch(Progress::Bound(share));
    })?;
    let subscribe_to_first_ms = clients.subscribe_to_first_ms();
    let first = &endpoints[0];
    let flood = case
        .flood
        .map(|wanted_by| Flood::connect(wanted_by, case, options.target, first, run_name))
        .transpose()?;
    // In a mesh the statistics of each node would come from all of them.
    let sends = match options.target {
        Target::Nexusd if nodes.len() == 1 => Some(SendWatch::connect(first)?),
        _ => None,
    };
    let distance_before = options.ends.and_then(core_distance_ns);
    let times = times(clock::now_ns() + LEAD_NS, options);
    let flood = flood.map(|flood| flood.start(&times)).transpose()?;
    let running = clients.start(case, &times)?;

    watch_until(times.from_ns, &times, &running, watch);
    let meter = HiccupMeter::start(&options.watched_cores);
    let first = Look::at(&running, nodes, &options.watched_cores);
    watch_until(times.to_ns, &times, &running, watch);
    let second = Look::at(&running, nodes, &options.watched_cores);
    let hiccups = meter.stop();
    let costs = costs_between(&first, &second, nodes);

    let cpu = Shares::between(&first, &second, nodes, cpu_of_all(&costs));
    let report = running.finish()?;
    let flood = flood.map(RunningFlood::finish).transpose()?;
    let distance_after = options.ends.and_then(core_distance_ns);
    Ok(Measurement {
        elapsed_s: (second.at_ns - first.at_ns) as f64 / 1e9,
        sent: second.sent - first.sent,
        received: second.received - first.received,
        sent_in_all: report.published.sent,
        unsent: report.published.unsent,
        faults: report.subscribers.faults,
        totals: report.subscribers.totals,
        latencies: report.subscribers.latencies,
        send_latencies: report.subscribers.send_latencies,
        nodes: costs,
        load_cpu: cpu.load,
        other_cpu_ns: cpu.other_ns,
        server_sends: sends_between(&first, &second, sends),
        hiccups,
        core_distance_ns: distance_before.into_iter().chain(distance_after).reduce(f64::max),
        stalled: report.stalled,
        flood,
        acks: report.acks,
        comebacks: report.subscribers.comebacks,
        idle: IdleFigures::default(),
        mesh: MeshFigures { subscribe_to_first_ms, ..MeshFigures::default() },
        not_converged: None,
    })
}

fn wall_us() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

fn times(start_ns: u64, options: &RunOptions) -> Times {
    let from_ns = start_ns + clock::nanoseconds(options.warmup);
    let to_ns = from_ns + clock::nanoseconds(options.duration);
    Times { start_ns, from_ns, to_ns, end_ns: to_ns + TAIL_NS }
}

/// Sleeps until `deadline_ns`, or until a thread has failed.
fn watch_until(
    deadline_ns: u64,
    times: &Times,
    clients: &RunningClients,
    watch: &mut dyn FnMut(Progress),
) {
    let whole = (times.to_ns - times.start_ns).max(1) as f64;
    loop {
        let now_ns = clock::now_ns();
        if now_ns >= deadline_ns || clients.has_failed() {
            return;
        }
        watch(Progress::Passed(now_ns.saturating_sub(times.start_ns) as f64 / whole));
        clock::sleep_until(deadline_ns.min(now_ns + WATCH_EVERY_NS));
    }
}

/// What the server counted itself, or says in its statistics.
fn sends_between(first: &Look, second: &Look, told: Option<SendWatch>) -> Option<SendCounts> {
    match (first.sends, second.sends) {
        (Some(before), Some(after)) => {
            SendCounts::between(before, after, (second.at_ns - first.at_ns) as f64 / 1e9)
        }
        _ => told?.within(&(first.wall_us..second.wall_us)),
    }
}

/// What each server cost between two looks, and the memory it has now.
fn costs_between(first: &Look, second: &Look, nodes: &Nodes) -> Vec<NodeCost> {
    let cpu = first.server_cpu.iter().zip(&second.server_cpu);
    nodes
        .iter()
        .zip(cpu)
        .map(|(server, (first, second))| NodeCost {
            core: server.core,
            cpu: used(*first, *second),
            memory: server.account.memory(),
        })
        .collect()
}

fn used(first: Option<CpuTime>, second: Option<CpuTime>) -> Option<CpuTime> {
    Some(second?.since(first?))
}

/// Who else used the cores between two looks.
struct Shares {
    load: Option<CpuTime>,
    other_ns: Option<u64>,
}

impl Shares {
    fn between(first: &Look, second: &Look, nodes: &Nodes, of_servers: Option<CpuTime>) -> Self {
        let own = used(first.own_cpu, second.own_cpu);
        let is_embedded = nodes.iter().any(|server| matches!(server.account, Account::Threads(_)));
        let load = match (own, of_servers) {
            (Some(own), Some(of_servers)) if is_embedded => Some(own.since(of_servers)),
            (own, _) => own,
        };
        let other_ns = || {
            let busy = second.busy_ns?.checked_sub(first.busy_ns?)?;
            Some(busy.saturating_sub(of_servers?.nanoseconds() + load?.nanoseconds()))
        };
        Self {
            load,
            // A server that was not started here may run on any core.
            other_ns: if nodes.iter().all(Server::is_ours) { other_ns() } else { None },
        }
    }
}
