//! All hosts, the network between them, and the clients that use them: what happens next, until the end.
//!
//! A run works for a number of operations while things go wrong, mends everything, waits until all nodes
//! know all that is to be known, and then finds out by messages to every topic whether that is so.

mod coming_back;
mod departures;
mod faults;
mod operations;
mod settling;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nexusd_core::limits::{CLOSE_LINGER_US, LINGER_US};
use nexusd_core::{Door, LinkDown, LinkRefusal, LinkReport, PeerAddress};
use nexusd_wire::NodeId;

use super::client::Client;
use super::coverage::{Coverage, Mark};
use super::network::{Happening, Network};
use super::node::{Node, Start};
use super::oracle::{Incarnation, Oracle};
use super::scenario::{Scenario, Trouble};
use super::wire::{Party, Times, WireId};
use crate::dice::Dice;
use crate::trace::{Trace, trace};
use crate::violation::{Violation, ensure};

/// Happenings between two looks at all of a node's state, for each node.
const HAPPENINGS_PER_WALK: u64 = 40;

/// Who is told that its connection ends has so long to read that, if it writes meanwhile: what it writes to a
/// closed socket throws away what it has not read.
const UNTOLD_US: u64 = LINGER_US;
/// And may begin to read so shortly before its end that it gets nothing of it any more.
const FORGIVEN_US: u64 = 100_000;

/// Where a node may run.
pub struct Host {
    /// Where it is found.
    pub address: SocketAddr,
    /// Nodes that were started on it.
    pub starts: u32,
    /// The one that runs.
    pub node: Option<Node>,
    /// It has no power.
    pub is_off: bool,
    mono_ahead_us: u64,
    wall_ahead_us: u64,
    last_start_us: u64,
}

/// What is known of a node, also when it is gone.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Where and when.
    pub at: Incarnation,
    /// It runs.
    pub is_alive: bool,
    /// It said that it stops.
    pub has_drained: bool,
    /// It may refuse connections.
    pub is_closed: bool,
}

/// A run.
pub struct World<'a> {
    scenario: Scenario,
    dice: Dice,
    network: Network,
    hosts: Vec<Host>,
    oracle: Oracle,
    coverage: &'a mut Coverage,
    trace: Trace,
    /// All nodes that ever were.
    lives: BTreeMap<NodeId, Life>,
    operations_left: u64,
    next_client: u32,
    happenings: u64,
    /// Since when one node knows what another wants, and the name of that.
    known_since: BTreeMap<(Incarnation, Incarnation), (u64, u64)>,
    /// Of two of which one has given up the other: the first has not had a link to the second since.
    parted: BTreeSet<(Incarnation, Incarnation)>,
    /// The hash of what a node wants, if that is sure.
    wanted: BTreeMap<Incarnation, Option<u64>>,
    /// Until when everything that went wrong is over.
    trouble_until_us: u64,
    /// Nothing goes wrong any more.
    is_mended: bool,
    /// Nodes that are no more: whether they crashed, or did not stop in time.
    ends: BTreeMap<Incarnation, bool>,
    last_reset_us: u64,
}

impl<'a> World<'a> {
    /// A world in which nothing has happened.
    pub fn new(
        seed: u64,
        nodes: usize,
        shards: usize,
        operations: u64,
        coverage: &'a mut Coverage,
        trace: Trace,
    ) -> Self {
        let mut dice = Dice::new(seed);
        let mut scenario = Scenario::new(&mut dice, nodes, shards);
        scenario.differ(&mut Dice::new(!seed));
        let is_lossless = scenario.is_lossless() && scenario.is_roomy(operations);
        for (is_so, mark) in [
            (is_lossless, Mark::Lossless),
            (scenario.is_multicast, Mark::Multicast),
            (!scenario.seeds.is_empty(), Mark::Seeds),
            (scenario.key.is_some(), Mark::Key),
            (scenario.ttl_ms_max > 0, Mark::Mortal),
        ] {
            if is_so {
                coverage.mark(mark);
            }
        }
        let clocks_apart_us = match scenario.values.is_empty() {
            true => 7_200_000_000,
            false => 20_000_000,
        };
        let host = |host: usize| Host {
            address: address_of(host),
            starts: 0,
            node: None,
            is_off: false,
            mono_ahead_us: 1 + dice.between(0, 1 << 40),
            wall_ahead_us: 1_700_000_000_000_000 + dice.between(0, clocks_apart_us),
            last_start_us: 0,
        };
        let hosts: Vec<Host> = (0..nodes).map(host).collect();
        let network = Network::new(scenario.weather, dice.bits());
        let mut oracle = Oracle::new(scenario.topics.clone(), &scenario.values, is_lossless);
        oracle.heard = trace.is_wanted().then(Vec::new);
        oracle.link_us = scenario.link_us();
        oracle.block_timeout_us = scenario.limits.block_timeout_us;
        if !scenario.has(Trouble::WallStep) {
            oracle.walls_ahead_us = hosts.iter().map(|host| host.wall_ahead_us).collect();
        }
        Self {
            scenario,
            dice,
            network,
            hosts,
            oracle,
            coverage,
            trace,
            lives: BTreeMap::new(),
            operations_left: operations,
            next_client: 0,
            happenings: 0,
            known_since: BTreeMap::new(),
            parted: BTreeSet::new(),
            wanted: BTreeMap::new(),
            trouble_until_us: 0,
            is_mended: false,
            ends: BTreeMap::new(),
            last_reset_us: 0,
        }
    }

    /// All of it.
    pub fn run(&mut self) -> Result<(), Violation> {
        trace!(self.trace, "{:?}", self.scenario);
        for host in 0..self.hosts.len() {
            let after_us = self.dice.between(0, 500_000);
            self.network.later(after_us, Happening::Start { host });
        }
        self.network.later(self.scenario.pace_us, Happening::Operation);
        if !self.scenario.troubles.is_empty() {
            let after_us = self.dice.between(200_000, 3_000_000);
            self.network.later(after_us, Happening::Fault);
        }
        while self.operations_left > 0 {
            let happening = self.network.next(u64::MAX);
            self.oracle.now_us = self.network.now_us;
            self.happen(happening.expect("operations go on"))?;
        }
        self.settle()
    }

    /// The trace.
    pub fn into_trace(self) -> Trace {
        self.trace
    }

    /// Counts the run.
    pub fn count(&mut self) {
        let (nodes, deliveries) = (self.lives.len(), self.oracle.deliveries);
        self.coverage.run(nodes, self.network.now_us, deliveries);
    }

    fn run_for(&mut self, us: u64) -> Result<(), Violation> {
        let until_us = self.network.now_us + us;
        while let Some(happening) = self.network.next(until_us) {
            self.oracle.now_us = self.network.now_us;
            self.happen(happening)?;
        }
        self.network.now_us = until_us;
        self.oracle.now_us = until_us;
        Ok(())
    }

    fn node(&mut self, host: usize, start: u32) -> Option<&mut Node> {
        self.hosts[host].node.as_mut().filter(|node| node.start == start)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Start { host } => self.start(host),
            Happening::Turn { host, start, thread } => self.turn(host, start, thread)?,
            Happening::Arrive { wire, from } => {
                if let Some(party) = self.network.arrive(wire, from) {
                    self.wake(party, wire, 1 - from)?;
                }
            }
            Happening::Acked { wire, writer, bytes } => {
                if let Some(party) = self.network.acked(wire, writer, bytes) {
                    self.wake(party, wire, writer)?;
                }
            }
            Happening::Datagram { from, to, bytes } => {
                let address = self.hosts[from].address;
                let is_blocked = self.network.is_blocked(from, to);
                if let Some(node) = self.hosts[to].node.as_mut().filter(|_| !is_blocked) {
                    node.mesh.on_datagram(address, bytes);
                    node.kick(node.mesh_thread(), &mut self.network);
                }
            }
            Happening::Syn { host, start, dial, address, peer, until_us } => {
                self.on_syn(host, start, (dial, address, peer), until_us);
            }
            Happening::Dialled { host, start, dial, peer, result } => {
                match self.hosts[host].node.as_mut().filter(|node| node.start == start) {
                    Some(node) => {
                        node.mesh.dialled.push_back((dial, peer, result));
                        node.kick(node.mesh_thread(), &mut self.network);
                    }
                    None => {
                        if let Ok(wire) = result {
                            self.network.abort(wire, 0, self.hosts[host].is_off);
                        }
                    }
                }
            }
            Happening::Resolved { host, start, seed, name } => {
                let is_it = |at: &usize| name.starts_with(&format!("host-{at}:"));
                let found = (0..self.hosts.len()).find(is_it);
                let address = found.map(|at| self.hosts[at].address);
                if let Some(node) = self.hosts[host].node.as_mut().filter(|it| it.start == start) {
                    node.mesh.resolutions.push((seed, address));
                    node.kick(node.mesh_thread(), &mut self.network);
                }
            }
            Happening::ClientReads { host, start, client } => {
                self.serve_client(host, start, client)?;
            }
            Happening::ComeBack { host, start, client } => self.come_back(host, start, client),
            Happening::Operation => self.operate(),
            Happening::Fault => self.go_wrong(),
            Happening::Heal { pairs } => {
                trace!(self.trace, "{} heal {pairs:?}", self.network.now_us);
                self.network.heal(&pairs);
            }
            Happening::Drain { host, start } => {
                if self.node(host, start).is_some() {
                    self.drain(host);
                }
            }
        }
        self.happenings += 1;
        if self.happenings.is_multiple_of(HAPPENINGS_PER_WALK) {
            let at = self.dice.below(self.hosts.len());
            if let Some(node) = &self.hosts[at].node {
                node.assert_invariants();
            }
        }
        Ok(())
    }

    fn start(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        if it.node.is_some() {
            return;
        }
        it.starts += 1;
        it.is_off = false;
        let start = Start {
            host,
            start: it.starts,
            mono_ahead_us: it.mono_ahead_us,
            wall_ahead_us: it.wall_ahead_us,
            last_start_us: it.last_start_us,
            address: it.address,
        };
        let mut node = Node::new(start, &self.scenario, &self.network, &mut self.dice);
        it.last_start_us = node.start_us;
        let at = (host, it.starts);
        trace!(
            self.trace,
            "{} host {host} starts {} with {} shards",
            self.network.now_us,
            node.id,
            node.shards.len()
        );
        if it.starts > 1 {
            self.coverage.mark(Mark::Restart);
        }
        let life = Life { at, is_alive: true, has_drained: false, is_closed: false };
        self.lives.insert(node.id, life);
        node.kick(node.mesh_thread(), &mut self.network);
        let clients = self.scenario.publishers + self.scenario.subscribers;
        for client in 0..clients {
            let ends = [Party::Client { host, start: start.start, client }, node.party()];
            let wire = self.network.join(ends, self.scenario.client_wire_bytes);
            node.sockets.backlog.push_back((wire, 1, PeerAddress::Unix, Door::Apps));
            self.next_client += 1;
            node.clients.push(Client::new(self.next_client, wire));
            self.oracle.publisher(self.next_client, at, node.id);
        }
        node.kick(0, &mut self.network);
        self.hosts[host].node = Some(node);
        self.wanted.insert(at, Some(0));
        for client in 0..clients {
            if client >= self.scenario.publishers && !self.dice.one_in(4) {
                self.subscribe(host, client);
            }
            self.flush_client(host, client);
        }
    }

    fn turn(&mut self, host: usize, start: u32, thread: usize) -> Result<(), Violation> {
        let Some(node) = self.hosts[host].node.as_mut().filter(|it| it.start == start) else {
            return Ok(());
        };
        node.turn(thread, &mut self.network);
        let is_mesh = thread == node.mesh_thread();
        let is_finished = node.is_finished();
        self.send_datagrams(host);
        self.note_reports(host)?;
        if is_mesh {
            self.note_notices(host)?;
            self.note_knowledge(host);
        }
        if is_finished {
            self.finish(host)?;
        }
        Ok(())
    }

    fn send_datagrams(&mut self, host: usize) {
        let Some(node) = &mut self.hosts[host].node else { return };
        let multicasts = std::mem::take(&mut node.mesh.multicasts);
        let unicasts = std::mem::take(&mut node.mesh.unicasts);
        let mut all = Vec::new();
        for datagram in multicasts {
            all.extend((0..self.hosts.len()).map(|to| (to, datagram.clone())));
        }
        for (to, datagram) in unicasts {
            let to = self.hosts.iter().position(|host| host.address == to);
            all.extend(to.map(|to| (to, datagram)));
        }
        for (to, bytes) in all {
            if to != host && self.network.dice.permille(self.scenario.weather.datagram_loss) {
                self.coverage.mark(Mark::LostDatagram);
                continue;
            }
            let again = self.network.dice.permille(self.scenario.weather.datagram_doubles);
            for _ in 0..1 + usize::from(again) {
                let is_late = self.network.dice.permille(self.scenario.weather.datagram_delays);
                let late_us = if is_late { self.network.dice.between(0, 3_000_000) } else { 0 };
                let after_us = self.network.latency_us(host, to) + late_us;
                let bytes = bytes.clone();
                self.network.later(after_us, Happening::Datagram { from: host, to, bytes });
            }
        }
    }

    /// The first packet of a dial arrives, or does not.
    fn on_syn(
        &mut self,
        host: usize,
        start: u32,
        (dial, address, peer): (u64, SocketAddr, Option<NodeId>),
        until_us: u64,
    ) {
        let now_us = self.network.now_us;
        let to = self.hosts.iter().position(|host| host.address == address);
        let reached = to.filter(|&to| {
            !self.network.is_blocked(host, to)
                && !self.network.is_blocked(to, host)
                && !self.hosts[to].is_off
        });
        let dialled = |result| Happening::Dialled { host, start, dial, peer, result };
        let Some(to) = reached else {
            if now_us + 1_000_000 < until_us {
                let syn = Happening::Syn { host, start, dial, address, peer, until_us };
                self.network.later(1_000_000, syn);
            } else {
                self.network.later(until_us.saturating_sub(now_us), dialled(Err(false)));
            }
            return;
        };
        let after_us = self.network.latency_us(to, host);
        let listening = self.hosts[to].node.as_mut().filter(|node| node.is_listening);
        let Some(node) = listening else {
            self.network.later(after_us, dialled(Err(true)));
            return;
        };
        let ends = [Party::Node { host, start }, node.party()];
        let wire = self.network.join(ends, self.scenario.weather.wire_bytes);
        let from = SocketAddr::new(self.hosts[host].address.ip(), 40_000);
        let Some(node) = self.hosts[to].node.as_mut() else { return };
        node.sockets.backlog.push_back((wire, 1, PeerAddress::Tcp(from), Door::Mesh));
        node.kick(0, &mut self.network);
        self.network.later(after_us, dialled(Ok(wire)));
    }

    /// Somebody may read or write.
    fn wake(&mut self, party: Party, wire: WireId, end: usize) -> Result<(), Violation> {
        match party {
            Party::Client { host, start, client } => self.serve_client(host, start, client),
            Party::Node { host, start } => {
                let Some(node) = self.hosts[host].node.as_mut().filter(|it| it.start == start)
                else {
                    return Ok(());
                };
                let shard = node.sockets.at(wire, end).and_then(|socket| socket.shard);
                if let Some(shard) = shard {
                    node.kick(shard, &mut self.network);
                }
                Ok(())
            }
        }
    }

    /// A client reads what has arrived, and writes on.
    fn serve_client(&mut self, host: usize, start: u32, client: usize) -> Result<(), Violation> {
        let Some(node) = self.hosts[host].node.as_mut().filter(|it| it.start == start) else {
            return Ok(());
        };
        let it = &mut node.clients[client];
        if it.is_away || it.stalls_until_us > self.network.now_us {
            return Ok(());
        }
        let bytes = self.network.read(it.wire, 0, usize::MAX);
        if !bytes.is_empty() {
            let mut none = Times::default();
            let wire = self.network.wires.get_mut(&it.wire);
            let times = wire.map_or(&mut none, |wire| &mut wire.streams[1].times);
            let result = it.read(&bytes, times, &mut self.oracle, self.coverage);
            for line in self.oracle.heard.iter_mut().flat_map(std::mem::take) {
                trace!(self.trace, "{} host {host}: {line}", self.network.now_us);
            }
            result?;
        }
        let is_over = self.network.wires.get(&it.wire).is_none_or(|wire| wire.is_over(0));
        if is_over || it.is_over {
            let is_news = !std::mem::replace(&mut it.is_over, true);
            // Who reads nothing for long, or whose node writes nothing, is not told why its connection ends.
            let since_us = self.network.now_us.saturating_sub(CLOSE_LINGER_US);
            let (outages, now_us) = (&self.oracle.outages, self.network.now_us);
            let idle_us = outages.of_client_us(it.number, since_us, now_us)
                + outages.of_host_us(host, since_us, now_us);
            it.was_too_slow |= is_news
                && idle_us + FORGIVEN_US >= UNTOLD_US
                && self.oracle.disconnected(it.number, &it.streams).is_ok();
            let streams = std::mem::take(&mut it.streams);
            let wire = it.wire;
            ensure!(
                !is_news || node.drains_since_us.is_some() || it.was_too_slow,
                "client {} of node {host} was closed",
                it.number
            );
            streams.into_iter().for_each(|stream| self.oracle.ended(stream));
            if it.was_too_slow {
                let after_us = self.dice.between(1_000, 2_000_000);
                self.network.later(after_us, Happening::ComeBack { host, start, client });
            }
            self.network.close(wire, 0);
        }
        self.flush_client(host, client);
        self.note_wanted();
        Ok(())
    }

    fn flush_client(&mut self, host: usize, client: usize) {
        let Some(node) = &mut self.hosts[host].node else { return };
        let it = &mut node.clients[client];
        if !it.outbox.is_empty() {
            let taken = self.network.write(it.wire, 0, it.outbox.make_contiguous());
            it.outbox.drain(..taken);
        }
    }

    fn note_reports(&mut self, host: usize) -> Result<(), Violation> {
        let Some(node) = &mut self.hosts[host].node else { return Ok(()) };
        let reports = std::mem::take(&mut node.reports);
        let at = (host, node.start);
        for report in reports {
            trace!(self.trace, "{} host {host}: {report:?}", self.network.now_us);
            let mark = match report {
                LinkReport::Up { peer, dial, .. } => {
                    if let Some(life) = self.lives.get(&peer) {
                        self.parted.remove(&(at, life.at));
                    }
                    if dial.is_some() { Mark::Up } else { Mark::UpForPeer }
                }
                LinkReport::Refused { reason, .. } => match reason {
                    LinkRefusal::Superseded => Mark::Superseded,
                    LinkRefusal::Unexpected => Mark::Unexpected,
                    LinkRefusal::OwnNode => Mark::OwnNode,
                    LinkRefusal::Closed => Mark::ClosedEarly,
                    reason => {
                        return Err(Violation(format!("host {host} refused a link: {reason:?}")));
                    }
                },
                LinkReport::Suspected { .. } => Mark::Suspected,
                LinkReport::Trusted { .. } => Mark::Trusted,
                LinkReport::Down { peer, reason } => match reason {
                    LinkDown::Broken => Mark::Broken,
                    LinkDown::Idle => Mark::Idle,
                    LinkDown::Ending => {
                        self.part(at, peer);
                        Mark::Ending
                    }
                    LinkDown::Silent => {
                        self.check_silence(host, peer, "was silent")?;
                        self.part(at, peer);
                        Mark::Silent
                    }
                    LinkDown::Forgotten => {
                        self.part(at, peer);
                        Mark::Forgotten
                    }
                },
                LinkReport::Dead { peer } => {
                    self.part(at, peer);
                    Mark::Dead
                }
                LinkReport::Stored { hash: Some(_), .. } => Mark::Stored,
                LinkReport::Stored { hash: None, .. } => Mark::Misfit,
                LinkReport::StateWanted { .. } => Mark::StateWanted,
                LinkReport::Members { .. } => Mark::Members,
                LinkReport::TooLarge { .. } => Mark::TooLarge,
                LinkReport::Violated { reason, .. } => {
                    let text = format!("host {host}: a link broke the protocol: {reason}");
                    return Err(Violation(text));
                }
            };
            self.coverage.mark(mark);
        }
        Ok(())
    }

    fn part(&mut self, at: Incarnation, peer: NodeId) {
        if let Some(life) = self.lives.get(&peer) {
            for pair in [(at, life.at), (life.at, at)] {
                self.known_since.remove(&pair);
                self.parted.insert(pair);
            }
        }
    }
}

/// Where a host is.
fn address_of(host: usize) -> SocketAddr {
    let [_, _, high, low] = (host as u32 + 1).to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 5671))
}
