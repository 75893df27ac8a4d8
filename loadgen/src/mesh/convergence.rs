//! Workload C: nodes start at once; how long until each routes to each other one.
//!
//! As soon as a node is ready it gets a subscriber with a filter of its own, and a prober, which
//! publishes acknowledged messages to all the other filters: to each until an acknowledgement counts a
//! delivery, and again if nothing comes of that; where nothing is acknowledged, until a message arrives. The nodes have converged when a message of each has arrived at each other one. Rounds of
//! probes are so far apart that they take a small share of a core, whatever the number of nodes;
//! convergence is seen late by one round at most.
//! Everything that was acknowledged as delivered has to arrive, once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::prober::{Probe, Prober, leave};
use super::routes::Routes;
use super::{CONVERGENCE_TIMEOUT, MeshFigures, MeshPlan, Started, StartedNode};
use crate::clock;
use crate::connection::Received;
use crate::error::LoadError;
use crate::hiccup::Hiccups;
use crate::idle::IdleFigures;
use crate::latency::Latencies;
use crate::measurement::Measurement;
use crate::nodes::{NodeCost, Nodes};
use crate::sequence_check::Faults;
use crate::server::Server;
use crate::stamp::STAMP_BYTES;
use crate::target::{
    Framing, FramingTotals, Introduction, SubscriberEnd, Target, TargetFraming, Wish,
};
use crate::workload::Transport;

/// Time between two rounds of probes, for each node.
const ROUND_NS_PER_NODE: u64 = 500_000;
/// How long a probe that was acknowledged may be on its way when all else is done.
const SETTLE_NS: u64 = 5_000_000_000;
/// Ready connections taken from the kernel at a time.
const EVENTS_PER_ROUND: usize = 256;
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// How nodes came together.
#[derive(Debug)]
pub(crate) struct Convergence {
    /// The times, as scripts read them.
    pub(crate) figures: MeshFigures,
    /// Routes that no message passed in time, in words.
    pub(crate) missing: Option<String>,
    /// Probes that arrived.
    pub(crate) arrived: u64,
    /// Probes that were acknowledged as delivered and did not arrive once.
    pub(crate) faults: Faults,
    /// What subscribers were told of that.
    pub(crate) told: FramingTotals,
    /// From the first start to the end of all waiting.
    pub(crate) elapsed_s: f64,
}

impl MeshPlan {
    /// Starts the nodes and waits until each routes to each other one, for [`CONVERGENCE_TIMEOUT`]
    /// from the first start at most. `watch` is told now and then over which share of the routes a
    /// message has passed.
    pub(crate) fn converge(
        &self,
        transport: Transport,
        watch: &mut dyn FnMut(f64),
    ) -> Result<(Nodes, Convergence), LoadError> {
        let Started { at_ns, nodes } = self.start()?;
        let topics: Vec<String> =
            (0..self.nodes).map(|node| format!("converge/{node:03}")).collect();
        thread::scope(|scope| {
            let (sender, joining) = mpsc::channel();
            let target = self.target;
            for (number, node) in nodes.into_iter().enumerate() {
                let (sender, topics) = (sender.clone(), &topics);
                let join = move || {
                    // Nobody listens any more when another node has failed.
                    drop(sender.send(Joined::join(target, number, node, transport, topics)));
                };
                thread::Builder::new().spawn_scoped(scope, join).map_err(|source| {
                    LoadError::System { what: "cannot start a thread", source }
                })?;
            }
            drop(sender);
            Gathering::new(self, at_ns, joining)?.run(watch)
        })
    }
}

/// A node that is ready, and its clients.
struct Joined {
    number: usize,
    /// Since when, on the run's clock.
    ready_ns: u64,
    server: Server,
    subscriber: SubscriberEnd<TargetFraming>,
    prober: Prober,
}

impl Joined {
    /// Waits until a node is ready, and connects its clients.
    fn join(
        target: Target,
        number: usize,
        node: StartedNode,
        transport: Transport,
        topics: &[String],
    ) -> Result<Self, LoadError> {
        let (server, ready_ns) = node.ready()?;
        let endpoint = server.endpoint(transport)?;
        let introduction =
            Introduction { endpoint: &endpoint, lane: 0, payload_bytes: STAMP_BYTES };
        let wish = Wish { filters: &[&topics[number]], ..Wish::default() };
        let subscriber = target.subscribe(&introduction, &wish)?;
        let prober = Prober::connect(target, &endpoint, number as u64, topics)?;
        Ok(Self { number, ready_ns, server, subscriber, prober })
    }

    /// Takes what its subscriber has received.
    fn on_subscriber_readable(
        &mut self,
        routes: &mut Routes,
        buffer: &mut [u8],
    ) -> Result<(), LoadError> {
        let SubscriberEnd { connection, framing, .. } = &mut self.subscriber;
        let bytes = match connection.receive_now(buffer).map_err(lost)? {
            Received::Bytes(bytes) => bytes,
            Received::Nothing => return Ok(()),
            Received::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
        };
        let mut foreign = None;
        framing
            .on_bytes(&buffer[..bytes], &mut |payload| match Probe::read(payload) {
                Some(probe)
                    if probe.topic as usize == self.number
                        && (probe.sender as usize) < routes.nodes() =>
                {
                    routes.on_arrival(probe.sender as usize, self.number);
                }
                other => foreign = Some(other),
            })
            .map_err(|source| LoadError::Conversation { role: "subscriber", source })?;
        if let Some(probe) = foreign {
            let sentence = format!("node {} delivered what nobody sent it: {probe:?}", self.number);
            return Err(LoadError::Mesh(sentence));
        }
        connection.send_all(&framing.take_reply(), || true).map_err(lost)
    }
}

/// The nodes while they come together.
struct Gathering<'a> {
    plan: &'a MeshPlan,
    started_ns: u64,
    joining: Receiver<Result<Joined, LoadError>>,
    nodes: Vec<Option<Joined>>,
    joined: usize,
    routes: Routes,
    watch: OwnedFd,
}

impl<'a> Gathering<'a> {
    fn new(
        plan: &'a MeshPlan,
        started_ns: u64,
        joining: Receiver<Result<Joined, LoadError>>,
    ) -> Result<Self, LoadError> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(cannot_watch)?;
        Ok(Self {
            plan,
            started_ns,
            joining,
            nodes: (0..plan.nodes).map(|_| None).collect(),
            joined: 0,
            routes: Routes::new(plan.nodes),
            watch,
        })
    }

    fn run(mut self, watch: &mut dyn FnMut(f64)) -> Result<(Nodes, Convergence), LoadError> {
        clock::wake_on_time();
        let deadline_ns = self.started_ns + clock::nanoseconds(CONVERGENCE_TIMEOUT);
        let converged_ns = self.until(deadline_ns, watch, |nodes| nodes.routes.unproven() == 0)?;
        if self.joined < self.nodes.len() {
            return Err(LoadError::Mesh(format!(
                "only {} of {} nodes were ready within {} s",
                self.joined,
                self.nodes.len(),
                CONVERGENCE_TIMEOUT.as_secs()
            )));
        }
        if converged_ns.is_some() {
            let settle_ns = clock::now_ns() + SETTLE_NS;
            self.until(settle_ns, watch, |nodes| {
                nodes.joined().all(|node| node.prober.is_idle()) && nodes.routes.are_settled()
            })?;
        }
        let since = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 / 1e9;
        let last_ready_ns =
            self.joined().map(|node| node.ready_ns).max().unwrap_or(self.started_ns);
        let proven = self.routes.count() - self.routes.unproven();
        let mut told = FramingTotals::default();
        self.joined().for_each(|node| told.add(&node.subscriber.framing.totals()));
        let convergence = Convergence {
            figures: MeshFigures {
                discovery: Some(self.plan.meeting.name()),
                converged_s: converged_ns.map(|at_ns| since(self.started_ns, at_ns)),
                converged_after_ready_s: converged_ns.map(|at_ns| since(last_ready_ns, at_ns)),
                routes: Some(proven),
                probes: Some(self.joined().map(|node| node.prober.sent()).sum()),
                subscribe_to_first_ms: None,
            },
            missing: self.routes.missing(),
            arrived: self.routes.arrived(),
            // What is still on its way when time is up is not lost.
            faults: if converged_ns.is_some() { self.routes.faults() } else { Faults::default() },
            told,
            elapsed_s: since(self.started_ns, clock::now_ns()),
        };
        let servers = self.nodes.into_iter().flatten().map(|node| {
            leave(&node.subscriber.connection, &node.subscriber.framing);
            node.prober.leave();
            node.server
        });
        Ok((Nodes::several(servers.collect()), convergence))
    }

    /// Probes and listens until something is the case. Says when it was, or `None` if it was not in
    /// time.
    fn until(
        &mut self,
        deadline_ns: u64,
        watch: &mut dyn FnMut(f64),
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<Option<u64>, LoadError> {
        let round_ns = ROUND_NS_PER_NODE * self.plan.nodes as u64;
        let mut buffer = vec![0; READ_BYTES];
        let mut events = Vec::with_capacity(EVENTS_PER_ROUND);
        let mut next_ns = clock::now_ns();
        loop {
            if is_so(self) {
                return Ok(Some(clock::now_ns()));
            }
            let now_ns = clock::now_ns();
            if now_ns >= deadline_ns {
                return Ok(None);
            }
            if now_ns >= next_ns {
                next_ns = now_ns + round_ns;
                self.admit()?;
                self.probe(deadline_ns)?;
                let proven = self.routes.count() - self.routes.unproven();
                watch(proven as f64 / self.routes.count() as f64);
            }
            let pause_ns = next_ns.saturating_sub(clock::now_ns());
            let pause = Timespec { tv_sec: 0, tv_nsec: pause_ns as i64 };
            events.clear();
            match epoll::wait(&self.watch, spare_capacity(&mut events), Some(&pause)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(cannot_watch(error)),
            }
            for event in &events {
                self.on_readable(event.data.u64() as usize, &mut buffer)?;
            }
        }
    }

    /// Takes in the nodes that have become ready.
    fn admit(&mut self) -> Result<(), LoadError> {
        loop {
            let node = match self.joining.try_recv() {
                Ok(node) => node?,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            };
            // Numbers of the two connections of a node.
            let first = node.number as u64 * 2;
            let add = |number, connection| {
                let data = epoll::EventData::new_u64(number);
                epoll::add(&self.watch, connection, data, epoll::EventFlags::IN)
            };
            add(first, node.subscriber.connection.as_fd())
                .and_then(|()| add(first + 1, node.prober.as_fd()))
                .map_err(cannot_watch)?;
            self.joined += 1;
            let place = node.number;
            self.nodes[place] = Some(node);
        }
    }

    /// Lets each node whose last round is acknowledged probe those that are due.
    fn probe(&mut self, deadline_ns: u64) -> Result<(), LoadError> {
        let now_ns = clock::now_ns();
        let is_there: Vec<bool> = self.nodes.iter().map(Option::is_some).collect();
        for node in self.nodes.iter_mut().flatten().filter(|node| node.prober.is_idle()) {
            let due = self.routes.due(node.number, now_ns).filter(|to| is_there[*to]);
            let topics: Vec<u32> = due.map(|to| to as u32).collect();
            node.prober.probe(&topics, deadline_ns)?;
            if !node.prober.is_answered() {
                topics.iter().for_each(|to| self.routes.on_unanswered(node.number, *to as usize));
            }
        }
        Ok(())
    }

    fn on_readable(&mut self, connection: usize, buffer: &mut [u8]) -> Result<(), LoadError> {
        let Self { nodes, routes, .. } = self;
        let Some(node) = &mut nodes[connection / 2] else {
            return Ok(());
        };
        if connection.is_multiple_of(2) {
            return node.on_subscriber_readable(routes, buffer);
        }
        let (from, now_ns) = (node.number, clock::now_ns());
        node.prober.on_readable(&mut |to, delivered| {
            routes.on_ack(from, to as usize, delivered, now_ns);
        })
    }

    fn joined(&self) -> impl Iterator<Item = &Joined> {
        self.nodes.iter().flatten()
    }
}

impl Convergence {
    /// As the result of a run that did nothing else.
    pub(crate) fn into_measurement(self, nodes: &Nodes) -> Measurement {
        let costs = nodes.iter().map(|server| NodeCost {
            core: server.core,
            cpu: server.account.cpu(),
            memory: server.account.memory(),
        });
        let sent = self.figures.probes.unwrap_or(0);
        Measurement {
            elapsed_s: self.elapsed_s,
            sent,
            received: self.arrived,
            sent_in_all: sent,
            unsent: 0,
            faults: self.faults,
            totals: self.told,
            latencies: Latencies::default(),
            send_latencies: Latencies::default(),
            nodes: costs.collect(),
            load_cpu: None,
            other_cpu_ns: None,
            server_sends: None,
            hiccups: Hiccups::default(),
            core_distance_ns: None,
            stalled: None,
            flood: None,
            acks: None,
            comebacks: None,
            idle: IdleFigures::default(),
            mesh: self.figures,
            not_converged: self.missing,
        }
    }
}

fn cannot_watch(error: Errno) -> LoadError {
    LoadError::System { what: "cannot watch connections with epoll", source: error.into() }
}

fn lost(source: io::Error) -> LoadError {
    LoadError::Connection { role: "subscriber", source }
}
