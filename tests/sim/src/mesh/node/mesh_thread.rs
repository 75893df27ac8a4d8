//! A turn of the mesh thread: as the daemon's event loop, with discovery inside.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use nexusd_core::{Command, LinkCommand, LinkReport, home_of_node};
use nexusd_discovery::{
    Discovery, Event, LinkDown, LinkEvent, LinkRefusal, Notice, Now, Output, SeedId,
};
use nexusd_wire::NodeId;

use super::{Mail, Node};
use crate::mesh::network::{Happening, Network};
use crate::mesh::wire::WireId;

/// Datagrams that a socket holds.
const DATAGRAMS_WAITING_MAX: usize = 256;
/// How long a dial may take, as in the daemon.
const DIAL_TIMEOUT_US: u64 = 3_000_000;
const RESOLVE_US: u64 = 5_000;

/// Discovery and what is for it.
pub struct MeshThread {
    /// The state machine.
    pub discovery: Discovery,
    interest: BTreeMap<Box<str>, i64>,
    /// What the digest of retained values changed by.
    pub retained: u64,
    /// The digest itself.
    pub retained_digest: u64,
    /// What links reported, in order.
    pub news: Vec<LinkReport>,
    /// What names came to.
    pub resolutions: Vec<(SeedId, Option<SocketAddr>)>,
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    /// What dials came to.
    pub dialled: VecDeque<(u64, Option<NodeId>, Result<WireId, bool>)>,
    /// Where dials go.
    pub address_of_dial: BTreeMap<u64, SocketAddr>,
    /// The node stops: it says goodbye.
    pub is_draining: bool,
    has_started: bool,
    /// What an operator is told, for the oracle.
    pub notices: Vec<Notice>,
    /// Datagrams for everybody.
    pub multicasts: Vec<Vec<u8>>,
    /// Datagrams for these addresses.
    pub unicasts: Vec<(SocketAddr, Vec<u8>)>,
}

impl MeshThread {
    /// One that has not begun.
    pub fn new(discovery: Discovery) -> Self {
        Self {
            discovery,
            interest: BTreeMap::new(),
            retained: 0,
            retained_digest: 0,
            news: Vec::new(),
            resolutions: Vec::new(),
            datagrams: VecDeque::new(),
            dialled: VecDeque::new(),
            address_of_dial: BTreeMap::new(),
            is_draining: false,
            has_started: false,
            notices: Vec::new(),
            multicasts: Vec::new(),
            unicasts: Vec::new(),
        }
    }

    /// A subscription of a client began or ended to want a filter.
    pub fn on_interest(&mut self, filter: Box<str>, is_wanted: bool) {
        let sum = self.interest.entry(filter).or_default();
        *sum += if is_wanted { 1 } else { -1 };
    }

    /// A datagram arrived.
    pub fn on_datagram(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        if self.datagrams.len() < DATAGRAMS_WAITING_MAX {
            self.datagrams.push_back((from, bytes));
        }
    }
}

impl Node {
    pub(super) fn turn_of_mesh(&mut self, network: &mut Network) {
        let now = self.mesh_now(network);
        let mesh = &mut self.mesh;
        let discovery = &mut mesh.discovery;
        if !std::mem::replace(&mut mesh.has_started, true) {
            discovery.on_event(now, Event::Started);
        }
        for (filter, change) in std::mem::take(&mut mesh.interest) {
            let is_wanted = change > 0;
            for _ in 0..change.unsigned_abs() {
                discovery.on_event(now, Event::Interest { filter: &filter, is_wanted });
            }
        }
        let change = std::mem::take(&mut mesh.retained);
        mesh.retained_digest ^= change;
        if change != 0 {
            discovery.on_event(now, Event::Retained { change });
        }
        for report in mesh.news.drain(..) {
            discovery.on_event(now, Event::Link(link_event(report)));
        }
        for (seed, address) in mesh.resolutions.drain(..) {
            let addresses: Vec<SocketAddr> = address.into_iter().collect();
            let event = match addresses.is_empty() {
                false => Event::Resolved { seed, addresses: &addresses },
                true => Event::ResolveFailed { seed, reason: "no such host" },
            };
            discovery.on_event(now, event);
        }
        for (from, bytes) in mesh.datagrams.drain(..) {
            discovery.on_event(now, Event::Datagram { from, bytes: &bytes });
        }
        self.take_dialled(now, network);
        if std::mem::take(&mut self.mesh.is_draining) {
            self.mesh.discovery.on_event(now, Event::Drain);
        }
        if self.mesh.discovery.wake_at().is_some_and(|due_us| due_us <= now.mono_us) {
            self.mesh.discovery.on_event(now, Event::Tick);
        }
        while let Some(output) = self.mesh.discovery.poll_output() {
            self.do_output(output, network);
        }
        if let Some(wake_us) = self.mesh.discovery.wake_at() {
            let at_us = wake_us.saturating_sub(self.mono_ahead_us).max(network.now_us + 1);
            self.turn_by(self.mesh_thread(), at_us, network);
        }
    }

    fn mesh_now(&self, network: &Network) -> Now {
        let now = self.now(network);
        Now { mono_us: now.mono_us, wall_us: now.wall_us }
    }

    fn take_dialled(&mut self, now: Now, network: &mut Network) {
        while let Some((dial, peer, result)) = self.mesh.dialled.pop_front() {
            match result {
                Ok(wire) => {
                    let home = peer.map_or(0, |peer| self.home_of(peer));
                    self.shards[home].mail.push_back(Mail::Dialled { wire, dial, peer });
                    self.kick(home, network);
                }
                Err(is_refused) => {
                    let reason = if is_refused { "connection refused" } else { "no answer" };
                    let event = Event::DialFailed { dial, is_refused, reason };
                    self.mesh.discovery.on_event(now, event);
                }
            }
        }
    }

    fn home_of(&self, peer: NodeId) -> usize {
        home_of_node(peer, self.shards.len()).index()
    }

    fn do_output(&mut self, output: Output, network: &mut Network) {
        let (host, start) = (self.host, self.start);
        match output {
            Output::Multicast(datagram) => self.mesh.multicasts.push(datagram),
            Output::Unicast { to, datagram } => self.mesh.unicasts.push((to, datagram)),
            Output::Resolve { seed, name } => {
                network.later(RESOLVE_US, Happening::Resolved { host, start, seed, name });
            }
            Output::Dial { dial, address, peer } => {
                self.mesh.address_of_dial.insert(dial, address);
                let until_us = network.now_us + DIAL_TIMEOUT_US;
                let after_us = network.dice.between(20, 100) + network.weather.latency_us;
                let syn = Happening::Syn { host, start, dial, address, peer, until_us };
                network.later(after_us, syn);
            }
            Output::Send { peer, frames } => {
                self.command(LinkCommand::Send { peer, frames: frames.into() }, network);
            }
            Output::Forget { peer } => self.command(LinkCommand::Forget { peer }, network),
            Output::Retire { peer } => self.command(LinkCommand::Retire { peer }, network),
            Output::CompareRetained { peer } => {
                self.command(LinkCommand::CompareRetained { peer }, network);
            }
            Output::CloseIdle { peer } => self.command(LinkCommand::CloseIdle { peer }, network),
            Output::Notice(notice) => self.mesh.notices.push(notice),
        }
    }

    fn command(&mut self, command: LinkCommand, network: &mut Network) {
        let home = self.home_of(command.peer());
        self.shards[home].mail.push_back(Mail::Command(Command::Link(command)));
        self.kick(home, network);
    }
}

/// What a shard reports of a link, in discovery's words; as in the daemon.
fn link_event(report: LinkReport) -> LinkEvent {
    match report {
        LinkReport::Up { peer, start_us, address, app_port, dial } => {
            LinkEvent::Up { peer, start_us, address, app_port, dial }
        }
        LinkReport::Refused { dial, peer, address, reason } => {
            LinkEvent::Refused { dial, peer, address, reason: refusal(reason) }
        }
        LinkReport::Suspected { peer } => LinkEvent::Suspected { peer },
        LinkReport::Trusted { peer } => LinkEvent::Trusted { peer },
        LinkReport::Down { peer, reason } => LinkEvent::Down { peer, reason: down(reason) },
        LinkReport::Violated { peer, reason, pause_us } => {
            LinkEvent::Violated { peer, reason, pause_us }
        }
        LinkReport::TooLarge { peer, bytes } => LinkEvent::TooLarge { peer, bytes },
        LinkReport::Dead { peer } => LinkEvent::Dead { peer },
        LinkReport::Stored { peer, hash } => LinkEvent::Stored { peer, hash },
        LinkReport::StateWanted { peer } => LinkEvent::StateWanted { peer },
        LinkReport::Members { peer, members } => LinkEvent::Members { peer, members },
    }
}

fn refusal(reason: nexusd_core::LinkRefusal) -> LinkRefusal {
    use nexusd_core::LinkRefusal as Told;
    match reason {
        Told::WrongCluster => LinkRefusal::WrongCluster,
        Told::WrongKey => LinkRefusal::WrongKey,
        Told::OwnNode => LinkRefusal::OwnNode,
        Told::Version => LinkRefusal::Version,
        Told::Unexpected => LinkRefusal::Unexpected,
        Told::Superseded => LinkRefusal::Superseded,
        Told::Closed => LinkRefusal::Closed,
    }
}

fn down(reason: nexusd_core::LinkDown) -> LinkDown {
    use nexusd_core::LinkDown as Told;
    match reason {
        Told::Broken => LinkDown::Broken,
        Told::Idle => LinkDown::Idle,
        Told::Ending => LinkDown::Ending,
        Told::Silent => LinkDown::Silent,
        Told::Forgotten => LinkDown::Forgotten,
    }
}
