//! Two nodes at desks, and the connections between them, byte by byte.

use nexusd_core::{Door, Limits, LinkCommand, LinkReport, MeshConfig};
use nexusd_wire::{ClusterKey, FrameEncoder, MessageFlags, NodeId, NodeStatePart};

use super::desk::{Desk, Heard, START_US, SeatId};

pub(crate) const PLAIN: MessageFlags = MessageFlags(0);

/// Two nodes, and the connections between them.
pub(crate) struct Pair {
    pub(crate) desks: [Desk; 2],
    /// Both ends of each, by desk.
    pub(crate) wires: Vec<[SeatId; 2]>,
    /// They carry nothing.
    pub(crate) is_cut: bool,
    /// What the first one has sent so far.
    pub(crate) recorded: Vec<u8>,
}

pub(crate) fn id(desk: usize) -> NodeId {
    NodeId(0x1000 + desk as u128)
}

pub(crate) fn limits() -> Limits {
    Limits { memory_bytes: 16 << 20, ..Limits::default() }
}

pub(crate) fn mesh(key: Option<&str>) -> MeshConfig {
    let key = key.map(|secret| ClusterKey::new(secret.as_bytes()));
    MeshConfig {
        start_us: 7,
        mesh_port: 5671,
        app_port: 5672,
        key,
        is_on: true,
        ..MeshConfig::default()
    }
}

impl Pair {
    pub(crate) fn new(shards: usize) -> Self {
        Self::with_keys(shards, [None, None])
    }

    /// Two nodes without a link, of which one has just started.
    pub(crate) fn with_fresh_node(shards: usize, at: usize) -> Self {
        let mut pair = Self::new(shards);
        let fresh = MeshConfig { start_us: START_US, ..mesh(None) };
        pair.desks[at] = Desk::of_node(id(at), fresh, limits(), shards);
        pair
    }

    /// Two nodes with a link, of which the second one has room for only so many topics on each shard.
    pub(crate) fn with_topics(shards: usize, topics: usize) -> Self {
        Self::with_limits(shards, Limits { topics, ..limits() })
    }

    /// Two nodes with a link, of which the second one has limits of its own.
    pub(crate) fn with_limits(shards: usize, limits: Limits) -> Self {
        let mut pair = Self::new(shards);
        pair.desks[1] = Desk::of_node(id(1), mesh(None), limits, shards);
        pair.dial(0, true);
        pair.carry();
        pair
    }

    pub(crate) fn with_keys(shards: usize, keys: [Option<&str>; 2]) -> Self {
        let desk = |at: usize| Desk::of_node(id(at), mesh(keys[at]), limits(), shards);
        Self { desks: [desk(0), desk(1)], wires: Vec::new(), is_cut: false, recorded: Vec::new() }
    }

    /// Two nodes with a link, each knowing that the other wants nothing.
    pub(crate) fn linked(shards: usize) -> Self {
        let mut pair = Self::new(shards);
        pair.dial(0, true);
        pair.carry();
        for at in 0..2 {
            let reports = pair.desks[at].reports();
            assert!(matches!(reports[..], [LinkReport::Up { .. }]), "{reports:?}");
        }
        for at in 0..2 {
            pair.tell_interest(at, &[]);
            pair.desks[1 - at].reports();
        }
        pair
    }

    /// Two nodes with a link: a client of the second one has a subscription to "a", and a client of the first
    /// one publishes to it. Returns the subscriber and the publisher, too.
    pub(crate) fn with_subscription(shards: usize) -> (Self, SeatId, SeatId) {
        let mut pair = Self::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        (pair, subscriber, publisher)
    }

    /// One node dials the other, knowing who that is or not. Returns the connection's number.
    pub(crate) fn dial(&mut self, from: usize, is_known: bool) -> usize {
        self.dial_node(from, id(1 - from), is_known)
    }

    /// The same, where the other one has an id of its own.
    pub(crate) fn dial_as(&mut self, from: usize, peer: NodeId) -> usize {
        self.dial_node(from, peer, true)
    }

    fn dial_node(&mut self, from: usize, peer: NodeId, is_known: bool) -> usize {
        let home = nexusd_core::home_of_node(peer, self.shards()).index();
        let door = Door::Dialled { dial: 1, peer: is_known.then_some(peer) };
        let dialled = self.desks[from].open_link(door, home);
        let accepted = self.desks[1 - from].open_link(Door::Mesh, 0);
        let wire = if from == 0 { [dialled, accepted] } else { [accepted, dialled] };
        self.wires.push(wire);
        self.wires.len() - 1
    }

    fn shards(&self) -> usize {
        self.desks[0].shards()
    }

    /// Carries what both ends of all connections send, until nothing is under way.
    pub(crate) fn carry(&mut self) {
        while !self.is_cut && self.carry_once() {}
    }

    pub(crate) fn carry_once(&mut self) -> bool {
        let mut is_busy = false;
        for at in 0..self.wires.len() {
            let wire = self.wires[at];
            for from in 0..2 {
                let bytes = self.desks[from].take(wire[from]);
                if from == 0 {
                    self.recorded.extend_from_slice(&bytes);
                }
                let to = &mut self.desks[1 - from];
                if !bytes.is_empty() && !to.is_closed(wire[1 - from]) {
                    is_busy = true;
                    to.say(wire[1 - from], &bytes);
                }
            }
            for from in 0..2 {
                let is_over = self.desks[from].is_closed(wire[from]);
                let other = &self.desks[1 - from];
                if is_over && !other.is_closed(wire[1 - from]) {
                    is_busy = true;
                    let last = self.desks[from].take(wire[from]);
                    self.desks[1 - from].say(wire[1 - from], &last);
                    let other = &mut self.desks[1 - from];
                    other.end(wire[1 - from]);
                }
            }
        }
        is_busy
    }

    /// Breaks a connection; what is on its way is lost.
    pub(crate) fn cut(&mut self, wire: usize) {
        for at in 0..2 {
            let end = self.wires[wire][at];
            self.desks[at].take(end);
            if !self.desks[at].is_closed(end) {
                self.desks[at].end(end);
            }
        }
    }

    /// A node tells the other all that it wants.
    pub(crate) fn tell_interest(&mut self, at: usize, filters: &[&str]) {
        let mut frames = Vec::new();
        let hash = filters.len() as u64;
        let part = NodeStatePart { hash, part: 0, is_last: true, filters, members: &[] };
        FrameEncoder::new().node_state(&mut frames, &part);
        self.send(at, frames);
    }

    pub(crate) fn send(&mut self, at: usize, frames: Vec<u8>) {
        self.desks[at].command(LinkCommand::Send { peer: id(1 - at), frames: frames.into() });
        self.carry();
    }

    pub(crate) fn pass(&mut self, us: u64) {
        let step = 100_000;
        for _ in 0..us / step {
            self.desks.iter_mut().for_each(|desk| desk.pass(step));
            self.carry();
        }
    }

    pub(crate) fn publish(&mut self, at: usize, publisher: SeatId, payload: &[u8]) {
        self.desks[at].publish(publisher, 0, payload, PLAIN);
        self.carry();
    }

    pub(crate) fn payloads(&mut self, at: usize, subscriber: SeatId) -> Vec<Vec<u8>> {
        let payload = |heard| match heard {
            Heard::Message { payload, .. } => Some(payload),
            _ => None,
        };
        self.desks[at].heard(subscriber).into_iter().filter_map(payload).collect()
    }
}

pub(crate) fn payloads(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(|number| number.to_le_bytes().to_vec()).collect()
}

pub(crate) fn is_gap(heard: &Heard) -> bool {
    matches!(heard, Heard::Gap { .. })
}
