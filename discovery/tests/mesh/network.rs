//! A network of hosts with daemons that know of each other through discovery alone. Time is virtual;
//! what chance decides comes from one seed.
//!
//! Links are a model of the data plane's: heartbeats are not sent, but the silence that they would
//! find is; a broken link's queue waits 5 s; of two dials the one of the lesser node id is the link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use nexusd_discovery::{
    Config, Discovery, Event, LinkDown, LinkEvent, LinkRefusal, NodeId, Notice, Output, SeedId,
};

use crate::connection::{Connection, End, Pair};
use crate::host::{Daemon, Host, Traffic};

const SUSPECTED_US: u64 = 1_500_000;
const DEAD_US: u64 = 5_000_000;
const CONNECT_TIMEOUT_US: u64 = 5_000_000;
const RETRANSMIT_US: u64 = 200_000;
const SYN_RETRANSMIT_US: u64 = 1_000_000;
const RESOLVE_US: u64 = 5_000;
/// From the first goodbye of a daemon that stops to the end of its links.
const DRAIN_US: u64 = 300_000;

/// How packets travel.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) latency_us: u64,
    /// Up to so much more, at random.
    pub(crate) jitter_us: u64,
    /// Of datagrams, which are gone.
    pub(crate) datagram_loss: f64,
    /// Of segments of a connection, which come later.
    pub(crate) segment_loss: f64,
}

impl Default for Weather {
    fn default() -> Self {
        Self { latency_us: 250, jitter_us: 250, datagram_loss: 0.0, segment_loss: 0.0 }
    }
}

pub(crate) struct Network {
    pub(crate) seed: u64,
    pub(crate) now_us: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) names: BTreeMap<String, Vec<SocketAddr>>,
    pub(crate) weather: Weather,
    dice: fastrand::Rng,
    config: Config,
    /// By when they happen, and in which order.
    happenings: BTreeMap<(u64, u64), Happening>,
    last_number: u64,
    connections: BTreeMap<Pair, Connection>,
    by_address: BTreeMap<SocketAddr, usize>,
    by_node: BTreeMap<NodeId, usize>,
    /// From one host to another nothing gets through.
    blocked: BTreeSet<(usize, usize)>,
    /// Checked after each event, or, with many hosts, now and then.
    events_per_check: u64,
    events: u64,
    starts_to_come: usize,
}

enum Happening {
    Start { host: usize },
    Wake { host: usize, start: u32 },
    Multicast { from: usize, datagram: Rc<[u8]> },
    Unicast { from: usize, to: usize, datagram: Vec<u8> },
    Resolve { host: usize, start: u32, seed: SeedId, name: String },
    Connect { host: usize, start: u32, dial: u64, address: SocketAddr, peer: Option<NodeId> },
    DialFailed { host: usize, start: u32, dial: u64, is_refused: bool },
    Link { host: usize, start: u32, event: LinkEvent },
    Frames { pair: Pair, id: u64, to: usize, frames: Vec<u8> },
    Silence { pair: Pair, id: u64, at: usize, since_us: u64 },
    CloseArrives { pair: Pair, id: u64, at: usize, reason: LinkDown },
    Unparked { host: usize, start: u32, peer: NodeId, number: u64 },
    End { host: usize, start: u32 },
}

impl Network {
    /// Hosts without daemons. `config`: of all daemons, but for who and where they are.
    pub(crate) fn new(hosts: usize, config: Config, weather: Weather, seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let hosts: Vec<Host> = (0..hosts)
            .map(|number| Host {
                address: address_of(number),
                starts: 0,
                daemon: None,
                mono_ahead_us: dice.u64(..1_000_000_000_000),
                wall_ahead_us: 1_700_000_000_000_000 + dice.u64(..7_200_000_000),
                is_off: false,
                traffic: Traffic::default(),
            })
            .collect();
        let by_address = hosts.iter().enumerate().map(|(at, host)| (host.address, at)).collect();
        println!("network of {} hosts, seed {seed}", hosts.len());
        Self {
            seed,
            now_us: 0,
            events_per_check: if hosts.len() <= 20 { 1 } else { 50_000 },
            hosts,
            names: BTreeMap::new(),
            weather,
            dice,
            config,
            happenings: BTreeMap::new(),
            last_number: 0,
            connections: BTreeMap::new(),
            by_address,
            by_node: BTreeMap::new(),
            blocked: BTreeSet::new(),
            events: 0,
            starts_to_come: 0,
        }
    }

    /// Starts a daemon on every host, within `spread_us`.
    pub(crate) fn start_all(&mut self, spread_us: u64) {
        for host in 0..self.hosts.len() {
            let after_us = self.dice.u64(..=spread_us);
            self.later(after_us, Happening::Start { host });
            self.starts_to_come += 1;
        }
    }

    pub(crate) fn start(&mut self, host: usize) {
        self.start_with(host, |_| {});
    }

    pub(crate) fn start_with(&mut self, host: usize, adapt: impl FnOnce(&mut Config)) {
        let node = NodeId(self.dice.u128(..));
        let seed = self.dice.u64(..);
        let at = &mut self.hosts[host];
        assert!(at.daemon.is_none(), "one daemon per host");
        at.is_off = false;
        at.starts += 1;
        let now = at.now(self.now_us);
        let mut config = Config { node, start_us: now.wall_us, seed, ..self.config.clone() };
        adapt(&mut config);
        let daemon = Daemon {
            node,
            start_us: config.start_us,
            is_multicast: config.is_multicast,
            discovery: Discovery::new(config),
            wakes_at_us: None,
            wanted: BTreeSet::new(),
            stored: BTreeMap::new(),
            parked: BTreeMap::new(),
            notices: Vec::new(),
        };
        at.daemon = Some(daemon);
        self.by_node.insert(node, host);
        self.want(host, &[&format!("host/{host}/#")], true);
        if self.hosts.len() <= 100 {
            self.want(host, &["news/+", &format!("rack/{}", host / 10)], true);
        }
        self.feed(host, Event::Started);
    }

    /// Clients of a host's daemon begin or cease to want filters, all at once.
    pub(crate) fn want(&mut self, host: usize, filters: &[&str], is_wanted: bool) {
        let now = self.hosts[host].now(self.now_us);
        let daemon = self.hosts[host].daemon.as_mut().expect("it runs");
        for &filter in filters {
            let is_change = if is_wanted {
                daemon.wanted.insert(filter.into())
            } else {
                daemon.wanted.remove(filter)
            };
            assert!(is_change, "each filter has one subscription here");
            daemon.feed(now, Event::Interest { filter, is_wanted });
        }
        self.serve(host);
    }

    /// The daemon wants nothing any more.
    pub(crate) fn want_nothing(&mut self, host: usize) {
        let wanted = self.daemon(host).wanted.clone();
        let filters: Vec<&str> = wanted.iter().map(|filter| &**filter).collect();
        self.want(host, &filters, false);
    }

    /// The daemon is killed; its host closes its connections.
    pub(crate) fn kill(&mut self, host: usize) {
        let daemon = self.hosts[host].daemon.take().expect("it runs");
        drop(daemon);
        for pair in self.pairs_of(host) {
            let connection = self.connections.get_mut(&pair).expect("of the host");
            connection.end(host).is_open = false;
            let (id, other) = (connection.id, connection.other(host));
            self.close_arrives(pair, id, host, other, LinkDown::Broken);
        }
    }

    /// The host loses its power.
    pub(crate) fn cut_power(&mut self, host: usize) {
        self.hosts[host].daemon = None;
        self.hosts[host].is_off = true;
        for pair in self.pairs_of(host) {
            self.connections.get_mut(&pair).expect("of the host").end(host).is_open = false;
            self.look_for_silence(pair);
        }
    }

    /// The daemon says goodbye and ends a little later.
    pub(crate) fn stop(&mut self, host: usize) {
        self.feed(host, Event::Drain);
        let start = self.hosts[host].starts;
        self.later(DRAIN_US, Happening::End { host, start });
    }

    /// From `from` nothing reaches `to` any more.
    pub(crate) fn block(&mut self, from: usize, to: usize) {
        self.blocked.insert((from, to));
        self.look_for_silence(Connection::between(from, to));
    }

    pub(crate) fn unblock(&mut self, from: usize, to: usize) {
        self.blocked.remove(&(from, to));
        let pair = Connection::between(from, to);
        self.look_for_silence(pair);
        let Some(connection) = self.connections.get_mut(&pair) else { return };
        let id = connection.id;
        for frames in std::mem::take(&mut connection.end(to).stalled) {
            self.carry(pair, id, to, frames);
        }
    }

    /// Two parts of the network hear nothing of each other.
    pub(crate) fn split(&mut self, one: &[usize], other: &[usize], is_split: bool) {
        for &a in one {
            for &b in other {
                for (from, to) in [(a, b), (b, a)] {
                    if is_split {
                        self.block(from, to);
                    } else {
                        self.unblock(from, to);
                    }
                }
            }
        }
    }

    pub(crate) fn run_for(&mut self, us: u64) {
        let until_us = self.now_us + us;
        while let Some(entry) = self.happenings.first_entry() {
            let (at_us, _) = *entry.key();
            if at_us > until_us {
                break;
            }
            self.now_us = at_us;
            let happening = entry.remove();
            self.happen(happening);
        }
        self.now_us = until_us;
    }

    /// Runs until `is_so`, which is asked every `step_us`; how long it took, or a panic.
    pub(crate) fn run_until(
        &mut self,
        what: &str,
        limit_us: u64,
        step_us: u64,
        is_so: impl Fn(&Self) -> bool,
    ) -> u64 {
        let begin_us = self.now_us;
        while !is_so(self) {
            assert!(
                self.now_us < begin_us + limit_us,
                "seed {}: not so within {limit_us} us: {what}",
                self.seed
            );
            self.run_for(step_us);
        }
        self.check();
        self.now_us - begin_us
    }

    /// Every daemon has every other one linked and holds what it wants.
    pub(crate) fn is_converged(&self) -> bool {
        let daemons: Vec<&Daemon> = self.daemons().collect();
        let links: usize = daemons.iter().map(|daemon| daemon.discovery.links()).sum();
        self.starts_to_come == 0
            && links == daemons.len() * (daemons.len() - 1)
            && daemons.iter().all(|daemon| {
                daemons.iter().all(|other| daemon.node == other.node || knows(daemon, other))
            })
    }

    pub(crate) fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        self.hosts.iter().filter_map(|host| host.daemon.as_ref())
    }

    pub(crate) fn daemon(&self, host: usize) -> &Daemon {
        self.hosts[host].daemon.as_ref().expect("it runs")
    }

    /// Whether a daemon has a link to the daemon of another host, by its own account.
    pub(crate) fn is_linked(&self, host: usize, other: usize) -> bool {
        let node = self.daemon(other).node;
        self.daemon(host).discovery.peer(node).is_some_and(|peer| peer.is_linked())
    }

    pub(crate) fn knows(&self, host: usize, other: usize) -> bool {
        knows(self.daemon(host), self.daemon(other))
    }

    pub(crate) fn check(&self) {
        for daemon in self.daemons() {
            daemon.discovery.assert_invariants();
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Start { host } => {
                self.starts_to_come -= 1;
                self.start(host);
            }
            Happening::Wake { host, start } => {
                if self.is_running(host, start) {
                    let now = self.hosts[host].now(self.now_us);
                    let daemon = self.hosts[host].daemon.as_mut().expect("it runs");
                    daemon.wakes_at_us = None;
                    if daemon.discovery.wake_at().is_some_and(|us| us <= now.mono_us) {
                        self.feed(host, Event::Tick);
                    } else {
                        self.serve(host);
                    }
                }
            }
            Happening::Multicast { from, datagram } => self.deliver_to_all(from, &datagram),
            Happening::Unicast { from, to, datagram } => self.deliver(from, to, &datagram),
            Happening::Resolve { host, start, seed, name } => {
                if self.is_running(host, start) {
                    let addresses = self.names.get(&name).cloned();
                    self.feed(
                        host,
                        match &addresses {
                            Some(addresses) => Event::Resolved { seed, addresses },
                            None => Event::ResolveFailed { seed, reason: "no such host" },
                        },
                    );
                }
            }
            Happening::Connect { host, start, dial, address, peer } => {
                if self.is_running(host, start) {
                    self.connect(host, dial, address, peer);
                }
            }
            Happening::DialFailed { host, start, dial, is_refused } => {
                if self.is_running(host, start) {
                    let reason = if is_refused { "connection refused" } else { "timed out" };
                    self.feed(host, Event::DialFailed { dial, is_refused, reason });
                }
            }
            Happening::Link { host, start, event } => {
                if self.is_running(host, start) {
                    self.feed(host, Event::Link(event));
                }
            }
            Happening::Frames { pair, id, to, frames } => self.read(pair, id, to, &frames),
            Happening::Silence { pair, id, at, since_us } => {
                self.on_silence(pair, id, at, since_us);
            }
            Happening::CloseArrives { pair, id, at, reason } => {
                self.close_end(pair, id, at, reason);
            }
            Happening::Unparked { host, start, peer, number } => {
                if self.is_running(host, start) {
                    let daemon = self.hosts[host].daemon.as_mut().expect("it runs");
                    if daemon.parked.get(&peer) == Some(&number) {
                        daemon.parked.remove(&peer);
                        self.feed(host, Event::Link(LinkEvent::Dead { peer }));
                    }
                }
            }
            Happening::End { host, start } => {
                if self.is_running(host, start) {
                    for pair in self.pairs_of(host) {
                        let id = self.connections[&pair].id;
                        let other = self.connections[&pair].other(host);
                        self.close_arrives(pair, id, host, other, LinkDown::Ending);
                        self.connections.get_mut(&pair).expect("it is").end(host).is_open = false;
                    }
                    self.hosts[host].daemon = None;
                }
            }
        }
    }

    fn feed(&mut self, host: usize, event: Event<'_>) {
        let now = self.hosts[host].now(self.now_us);
        self.hosts[host].daemon.as_mut().expect("it runs").feed(now, event);
        self.serve(host);
    }

    /// Does what a daemon wants done.
    fn serve(&mut self, host: usize) {
        while let Some(output) =
            self.hosts[host].daemon.as_mut().and_then(|daemon| daemon.discovery.poll_output())
        {
            self.do_output(host, output);
        }
        self.events += 1;
        let at = &mut self.hosts[host];
        let Some(daemon) = at.daemon.as_mut() else { return };
        if self.events.is_multiple_of(self.events_per_check) {
            daemon.discovery.assert_invariants();
        }
        let wake = daemon
            .discovery
            .wake_at()
            .map(|us| us.saturating_sub(at.mono_ahead_us).max(self.now_us));
        if let Some(wake_us) = wake
            && daemon.wakes_at_us.is_none_or(|known_us| wake_us < known_us)
        {
            daemon.wakes_at_us = Some(wake_us);
            let start = at.starts;
            self.later(wake_us - self.now_us, Happening::Wake { host, start });
        }
    }

    fn do_output(&mut self, host: usize, output: Output) {
        let start = self.hosts[host].starts;
        match output {
            Output::Multicast(datagram) => {
                self.count_datagram(host, &datagram);
                let after_us = self.latency_us();
                let datagram = datagram.into();
                self.later(after_us, Happening::Multicast { from: host, datagram });
            }
            Output::Unicast { to, datagram } => {
                self.count_datagram(host, &datagram);
                let after_us = self.latency_us();
                let is_lost = self.is_datagram_lost();
                if let Some(&to) = self.by_address.get(&to).filter(|_| !is_lost) {
                    self.later(after_us, Happening::Unicast { from: host, to, datagram });
                }
            }
            Output::Resolve { seed, name } => {
                self.later(RESOLVE_US, Happening::Resolve { host, start, seed, name });
            }
            Output::Dial { dial, address, peer } => {
                self.hosts[host].traffic.dials += 1;
                let late_us = if self.is_segment_lost() { SYN_RETRANSMIT_US } else { 0 };
                let after_us = 3 * self.latency_us() + late_us;
                self.later(after_us, Happening::Connect { host, start, dial, address, peer });
            }
            Output::Send { peer, frames } => {
                let traffic = &mut self.hosts[host].traffic;
                traffic.sends += 1;
                traffic.send_bytes += frames.len() as u64;
                if let Some((pair, id, other)) = self.link_to(host, peer) {
                    self.carry(pair, id, other, frames);
                }
            }
            Output::Forget { peer } | Output::Retire { peer } => {
                self.hosts[host].daemon.as_mut().expect("it runs").parked.remove(&peer);
                if let Some((pair, id, other)) = self.link_to(host, peer) {
                    self.close(pair, id, host, LinkDown::Forgotten);
                    self.close_arrives(pair, id, host, other, LinkDown::Broken);
                }
            }
            Output::CompareRetained { .. } => {}
            Output::CloseIdle { peer } => {
                if let Some((pair, id, other)) = self.link_to(host, peer) {
                    self.close(pair, id, host, LinkDown::Idle);
                    self.close_arrives(pair, id, host, other, LinkDown::Idle);
                }
            }
            Output::Notice(notice) => {
                assert!(!notice.to_string().is_empty());
                self.hosts[host].daemon.as_mut().expect("it runs").notices.push(notice);
            }
        }
    }

    fn deliver_to_all(&mut self, from: usize, datagram: &[u8]) {
        for to in 0..self.hosts.len() {
            // A group is heard by its sender, too.
            let hears = self.hosts[to].daemon.as_ref().is_some_and(|daemon| daemon.is_multicast);
            if hears && (to == from || !self.is_datagram_lost()) {
                self.deliver(from, to, datagram);
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, datagram: &[u8]) {
        if self.hosts[to].daemon.is_some() && !self.blocked.contains(&(from, to)) {
            let from = self.hosts[from].address;
            self.feed(to, Event::Datagram { from, bytes: datagram });
        }
    }

    /// A connection is made, or not, and who is at its ends find out about each other.
    fn connect(&mut self, host: usize, dial: u64, address: SocketAddr, peer: Option<NodeId>) {
        let start = self.hosts[host].starts;
        let fail = |is_refused| Happening::DialFailed { host, start, dial, is_refused };
        let reached = self.by_address.get(&address).copied().filter(|&other| {
            let is_cut =
                self.blocked.contains(&(host, other)) || self.blocked.contains(&(other, host));
            !is_cut && !self.hosts[other].is_off
        });
        let Some(other) = reached else {
            return self.later(CONNECT_TIMEOUT_US, fail(false));
        };
        self.hosts[other].count_dial_taken(self.now_us);
        let Some(found) = self.hosts[other].daemon.as_ref().map(|daemon| daemon.node) else {
            return self.later(0, fail(true));
        };
        let refuse = |reason| {
            let event = LinkEvent::Refused { dial: Some(dial), peer: Some(found), address, reason };
            Happening::Link { host, start, event }
        };
        if other == host {
            return self.later(0, refuse(LinkRefusal::OwnNode));
        }
        if peer.is_some_and(|peer| peer != found) {
            return self.later(0, refuse(LinkRefusal::Unexpected));
        }
        let own = self.daemon(host).node;
        let pair = Connection::between(host, other);
        let stands = self.connections.get(&pair).is_some_and(|connection| {
            let is_of_these = connection.ends.iter().all(|end| [own, found].contains(&end.node));
            is_of_these && connection.is_whole() && connection.dialler == other && found < own
        });
        if stands {
            return self.later(0, refuse(LinkRefusal::Superseded));
        }
        self.link(pair, host, dial);
    }

    fn link(&mut self, pair: Pair, dialler: usize, dial: u64) {
        self.last_number += 1;
        let id = self.last_number;
        let ends = [pair.0, pair.1]
            .map(|host| End::new(host, self.daemon(host).node, self.hosts[host].starts));
        self.connections.insert(pair, Connection { id, dialler, ends });
        for (host, other) in [pair, (pair.1, pair.0)] {
            let (node, address) = (self.daemon(other).node, self.hosts[other].address);
            let start_us = self.daemon(other).start_us;
            let event = LinkEvent::Up {
                peer: node,
                start_us,
                address,
                app_port: 5672,
                dial: (host == dialler).then_some(dial),
            };
            let start = self.hosts[host].starts;
            self.hosts[host].daemon.as_mut().expect("it runs").parked.remove(&node);
            self.later(0, Happening::Link { host, start, event });
        }
    }

    /// Frames on their way to a host, in order.
    fn carry(&mut self, pair: Pair, id: u64, to: usize, frames: Vec<u8>) {
        let late_us = if self.is_segment_lost() { RETRANSMIT_US } else { 0 };
        let at_us = self.now_us + self.latency_us() + late_us;
        let connection = self.connections.get_mut(&pair).expect("it stands");
        let end = connection.end(to);
        end.last_arrival_us = end.last_arrival_us.max(at_us);
        let after_us = end.last_arrival_us - self.now_us;
        self.later(after_us, Happening::Frames { pair, id, to, frames });
    }

    fn read(&mut self, pair: Pair, id: u64, to: usize, frames: &[u8]) {
        let Some(connection) = self.connections.get_mut(&pair).filter(|it| it.id == id) else {
            return;
        };
        let from = connection.other(to);
        let (node, end) = (connection.end(from).node, connection.end(to));
        if self.blocked.contains(&(from, to)) {
            end.stalled.push(frames.to_vec());
        } else if end.is_open && self.hosts[to].starts == end.start {
            let Some(daemon) = self.hosts[to].daemon.as_mut() else { return };
            for event in daemon.read(node, frames) {
                self.feed(to, Event::Link(event));
            }
        }
    }

    /// The link of a host's daemon to a peer: its pair, which connection it is, and where the peer is.
    fn link_to(&self, host: usize, peer: NodeId) -> Option<(Pair, u64, usize)> {
        let other = *self.by_node.get(&peer)?;
        let pair = Connection::between(host, other);
        let connection = self.connections.get(&pair)?;
        let is_it = connection.ends.iter().any(|end| end.node == peer)
            && connection.ends.iter().any(|end| end.host == host && end.is_open);
        is_it.then_some((pair, connection.id, other))
    }

    fn pairs_of(&self, host: usize) -> Vec<Pair> {
        let is_of = |pair: &&Pair| pair.0 == host || pair.1 == host;
        self.connections.keys().filter(is_of).copied().collect()
    }

    /// A daemon closes its end of a link.
    fn close(&mut self, pair: Pair, id: u64, host: usize, reason: LinkDown) {
        self.close_end(pair, id, host, reason);
    }

    /// The close of one end is on its way to the other, if anything gets there.
    fn close_arrives(&mut self, pair: Pair, id: u64, from: usize, to: usize, reason: LinkDown) {
        if self.blocked.contains(&(from, to)) {
            self.look_for_silence(pair);
        } else {
            let after_us = self.latency_us();
            self.later(after_us, Happening::CloseArrives { pair, id, at: to, reason });
        }
    }

    fn close_end(&mut self, pair: Pair, id: u64, at: usize, reason: LinkDown) {
        let Some(connection) = self.connections.get_mut(&pair).filter(|it| it.id == id) else {
            return;
        };
        let peer = connection.ends[usize::from(connection.ends[0].host == at)].node;
        let end = connection.end(at);
        if !std::mem::take(&mut end.is_open) || self.hosts[at].starts != end.start {
            return;
        }
        let start = end.start;
        let Some(daemon) = self.hosts[at].daemon.as_mut() else { return };
        if reason == LinkDown::Broken {
            self.last_number += 1;
            let number = self.last_number;
            daemon.parked.insert(peer, number);
            self.later(DEAD_US, Happening::Unparked { host: at, start, peer, number });
        }
        self.later(0, Happening::Link { host: at, start, event: LinkEvent::Down { peer, reason } });
    }

    /// Finds out at which ends of a link nothing can arrive (any more).
    fn look_for_silence(&mut self, pair: Pair) {
        let Some(connection) = self.connections.get(&pair) else { return };
        let id = connection.id;
        for (at, other) in [pair, (pair.1, pair.0)] {
            let connection = self.connections.get_mut(&pair).expect("it is");
            let is_other_open = connection.end(other).is_open;
            let is_silent = !is_other_open || self.blocked.contains(&(other, at));
            let peer = connection.end(other).node;
            let end = connection.end(at);
            if !end.is_open || is_silent == end.silent_since_us.is_some() {
                continue;
            }
            end.silent_since_us = is_silent.then_some(self.now_us);
            let was_suspecting = !is_silent && std::mem::take(&mut end.is_suspecting);
            let start = end.start;
            if is_silent {
                let since_us = self.now_us;
                for after_us in [SUSPECTED_US, DEAD_US] {
                    self.later(after_us, Happening::Silence { pair, id, at, since_us });
                }
            } else if was_suspecting {
                let event = LinkEvent::Trusted { peer };
                self.later(0, Happening::Link { host: at, start, event });
            }
        }
    }

    fn on_silence(&mut self, pair: Pair, id: u64, at: usize, since_us: u64) {
        let Some(connection) = self.connections.get_mut(&pair).filter(|it| it.id == id) else {
            return;
        };
        let other = connection.other(at);
        let peer = connection.end(other).node;
        let end = connection.end(at);
        if !end.is_open || end.silent_since_us != Some(since_us) {
            return;
        }
        if self.now_us - since_us < DEAD_US {
            end.is_suspecting = true;
            let (start, event) = (end.start, LinkEvent::Suspected { peer });
            self.later(0, Happening::Link { host: at, start, event });
        } else {
            self.close(pair, id, at, LinkDown::Silent);
            self.close_arrives(pair, id, at, other, LinkDown::Broken);
        }
    }

    fn later(&mut self, after_us: u64, happening: Happening) {
        self.last_number += 1;
        self.happenings.insert((self.now_us + after_us, self.last_number), happening);
    }

    fn is_running(&self, host: usize, start: u32) -> bool {
        self.hosts[host].daemon.is_some() && self.hosts[host].starts == start
    }

    fn latency_us(&mut self) -> u64 {
        self.weather.latency_us + self.dice.u64(..=self.weather.jitter_us)
    }

    fn is_datagram_lost(&mut self) -> bool {
        self.weather.datagram_loss > 0.0 && self.dice.f64() < self.weather.datagram_loss
    }

    fn is_segment_lost(&mut self) -> bool {
        self.weather.segment_loss > 0.0 && self.dice.f64() < self.weather.segment_loss
    }

    fn count_datagram(&mut self, host: usize, datagram: &[u8]) {
        let traffic = &mut self.hosts[host].traffic;
        traffic.datagrams += 1;
        traffic.datagram_bytes += datagram.len() as u64;
    }

    /// Whether a daemon was told something that `is_it`.
    pub(crate) fn was_told(&self, host: usize, is_it: impl Fn(&Notice) -> bool) -> usize {
        self.daemon(host).notices.iter().filter(|notice| is_it(notice)).count()
    }
}

fn knows(daemon: &Daemon, other: &Daemon) -> bool {
    daemon.discovery.peer(other.node).is_some_and(|peer| peer.is_linked())
        && daemon.stored.get(&other.node).is_some_and(|stored| {
            stored.hash == Some(other.discovery.interest_hash()) && stored.filters == other.wanted
        })
}

fn address_of(number: usize) -> SocketAddr {
    let [_, _, high, low] = (number as u32 + 1).to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 5671))
}
