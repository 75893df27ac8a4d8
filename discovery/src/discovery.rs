//! One node's view of its cluster: the one match.
//!
//! What happened is taken in by one of the parts below, which say what each of them decides; then
//! whatever has become due is done. Nothing waits anywhere for an answer: an answer is an event.

mod beacons;
mod dialling;
mod knowing;
mod links;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;

use nexusd_wire::{FrameEncoder, NodeId};

use crate::absent::Absent;
use crate::address_source::AddressSource;
use crate::beacon_schedule::BeaconSchedule;
use crate::config::Config;
use crate::counters::Counters;
use crate::dials::Dials;
use crate::event::{Event, LinkRefusal, Now};
use crate::frames::States;
use crate::interest::Interest;
use crate::limits::{OWN_ADDRESSES_MAX, STRANGERS_MAX};
use crate::notice::Notice;
use crate::outbox::Outbox;
use crate::output::Output;
use crate::peer::{Link, Peer};
use crate::peers::Peers;
use crate::retained::OwnDigest;
use crate::seeds::Seeds;
use crate::senders::Senders;

/// Who is alive in the mesh and what they want, as one node sees it. See the crate's documentation.
pub struct Discovery {
    config: Config,
    /// The time of the last event.
    now_us: u64,
    dice: fastrand::Rng,
    schedule: BeaconSchedule,
    senders: Senders,
    peers: Peers,
    dials: Dials,
    seeds: Seeds,
    absent: Absent,
    interest: Interest,
    retained: OwnDigest,
    /// Peers that are to be sent the whole of it.
    owed: BTreeSet<NodeId>,
    /// The whole of it, while it is being sent to somebody.
    states: Weak<States>,
    /// When the next change of it may be told.
    next_delta_us: u64,
    encoder: FrameEncoder,
    outbox: Outbox,
    /// Addresses that lead to this node.
    own_addresses: BTreeSet<SocketAddr>,
    /// What an operator was told about who cannot be linked.
    strangers: BTreeSet<(IpAddr, LinkRefusal)>,
    /// Peers whose links ended because one of the nodes broke the protocol, and when that was told.
    violators: BTreeMap<NodeId, u64>,
    is_draining: bool,
    is_told_peers_full: bool,
    is_told_links_full: bool,
    /// Peers that ever joined.
    joined: u64,
    counters: Counters,
}

impl Discovery {
    /// A node that has heard nobody yet.
    pub fn new(config: Config) -> Self {
        let mut dice = fastrand::Rng::with_seed(config.seed);
        let own_address = config.mesh_address.map(|ip| SocketAddr::new(ip, config.mesh_port));
        Self {
            now_us: 0,
            schedule: BeaconSchedule::default(),
            senders: Senders::default(),
            peers: Peers::default(),
            dials: Dials::default(),
            seeds: Seeds::new(config.seeds.clone(), config.retry),
            absent: Absent::default(),
            interest: Interest::new(dice.u64(..)),
            retained: OwnDigest::default(),
            owed: BTreeSet::new(),
            states: Weak::new(),
            next_delta_us: 0,
            encoder: FrameEncoder::new(),
            outbox: Outbox::default(),
            own_addresses: own_address.into_iter().collect(),
            strangers: BTreeSet::new(),
            violators: BTreeMap::new(),
            is_draining: false,
            is_told_peers_full: false,
            is_told_links_full: false,
            joined: 0,
            counters: Counters::default(),
            dice,
            config,
        }
    }

    /// Takes in what happened. Events that happened together are given together, before outputs are
    /// polled: what they change of this node's interest is then told at once.
    pub fn on_event(&mut self, now: Now, event: Event<'_>) {
        self.now_us = self.now_us.max(now.mono_us);
        self.outbox.on_time(self.now_us);
        match event {
            Event::Started => {
                self.schedule.start(self.now_us);
                self.seeds.start(self.now_us);
            }
            Event::Datagram { from, bytes } => self.on_datagram(from, bytes),
            Event::Interest { filter, is_wanted } => self.on_interest(filter, is_wanted),
            Event::Retained { change } => self.retained.change(change, self.now_us),
            Event::Resolved { seed, addresses } => {
                let own = &self.own_addresses;
                let is_own = |address| own.contains(&address);
                self.seeds.on_resolved(seed, addresses, is_own, self.now_us, &mut self.dice);
            }
            Event::ResolveFailed { seed, reason } => {
                self.seeds.on_resolve_failed(seed, reason, self.now_us, &mut self.dice);
            }
            Event::DialFailed { dial, is_refused, reason } => {
                self.on_dial_failed(dial, is_refused, reason);
            }
            Event::Link(event) => self.on_link(event),
            Event::Drain => self.drain(),
            Event::Tick => {}
        }
        self.do_what_is_due();
    }

    fn do_what_is_due(&mut self) {
        while let Some(due) = self.schedule.take_due(self.now_us) {
            self.announce(due);
        }
        while let Some(dial) = self.dials.overdue(self.now_us) {
            self.counters.dials_untold += 1;
            self.on_dial_failed(dial, false, "nothing was heard of the connection");
        }
        while let Some(node) = self.peers.take_due(self.now_us) {
            self.look_at(node);
        }
        self.serve_sources();
        self.dial_who_waits();
    }

    /// This node stops.
    fn drain(&mut self) {
        self.is_draining = true;
        self.schedule.stop(self.now_us);
        self.seeds.stop();
        self.absent.clear();
        let waiting: Vec<NodeId> = self.peers.iter().map(Peer::node).collect();
        for node in waiting {
            self.set_dial_due(node, None);
        }
    }

    /// What is to be done next; `None`: nothing before the next event.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.poll().or_else(|| {
            self.tell();
            self.outbox.poll()
        })
    }

    /// When [`Event::Tick`] is due, in the time of [`Now::mono_us`].
    pub fn wake_at(&self) -> Option<u64> {
        [
            self.schedule.wake_at(),
            self.dials.wake_at(self.has_room_for_links()),
            self.peers.wake_at(),
            self.seeds.wake_at(),
            self.absent.wake_at(),
            self.outbox.wake_at(),
            (self.interest.has_changed() && !self.outbox.is_full()).then_some(self.next_delta_us),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The nodes that are known, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter()
    }

    /// One of them.
    pub fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(node)
    }

    /// Peers that are linked.
    pub fn links(&self) -> usize {
        self.peers.linked()
    }

    /// Whether the link to a peer was closed because neither node wants anything of the other, and that is
    /// still so: nothing is missing.
    pub fn is_idle(&self, peer: &Peer) -> bool {
        peer.link == Link::Idle && self.interest.is_empty() && peer.beacon_hash.unwrap_or(0) == 0
    }

    /// Links beyond which nobody is dialled.
    pub fn links_max(&self) -> usize {
        self.config.links_max
    }

    /// CRC-64/WE of what this node wants, as of its last beacon or the last change before it.
    pub fn interest_hash(&self) -> u64 {
        self.interest.last_hash()
    }

    /// Filters that this node wants.
    pub fn interest_len(&self) -> usize {
        self.interest.len()
    }

    /// Sums up all retained values of this node.
    pub fn retained_digest(&self) -> u64 {
        self.retained.digest()
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        Counters { hashes_computed: self.interest.hashes_computed(), ..self.counters }
    }

    /// Panics if what must always hold does not.
    pub fn assert_invariants(&self) {
        self.senders.assert_invariants();
        self.peers.assert_invariants();
        self.dials.assert_invariants();
        self.seeds.assert_invariants();
        self.absent.assert_invariants();
        self.interest.assert_invariants();
        assert!(self.own_addresses.len() <= OWN_ADDRESSES_MAX);
        assert!(self.strangers.len() <= STRANGERS_MAX);
        assert!(self.peers.get(self.config.node).is_none(), "a node is not its own peer");
        for peer in self.peers.iter() {
            if let Some(due_us) = peer.dial_due_us {
                assert!(self.dials.is_waiting(peer.node, due_us), "who is to be dialled waits");
                assert!(!self.is_draining, "a node that stops dials nobody");
            }
        }
        let waiting = self.peers.iter().filter(|peer| peer.dial_due_us.is_some()).count();
        assert_eq!(waiting, self.dials.waiting(), "who waits is to be dialled");
        let linked = |node: &NodeId| self.peers.get(*node).is_some_and(Peer::is_linked);
        assert!(self.owed.iter().all(linked), "a state is sent over a link");
    }

    fn notice(&mut self, notice: Notice) {
        self.outbox.push(Output::Notice(notice));
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("node", &self.config.node)
            .field("peers", &self.peers.len())
            .field("links", &self.peers.linked())
            .finish_non_exhaustive()
    }
}
