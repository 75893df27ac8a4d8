//! One node, its clock, and what it wanted done.

use std::net::SocketAddr;

use nexusd_discovery::{
    ClusterKey, Config, Discovery, Event, LinkDown, LinkEvent, LinkRefusal, Member, NodeId, Notice,
    Now, Output,
};
use nexusd_wire::{Beacon, Cut, FrameCutter, FrameKind};

pub(crate) const SECOND_US: u64 = 1_000_000;
pub(crate) const OWN: NodeId = NodeId(1_000);

pub(crate) struct Rig {
    pub(crate) discovery: Discovery,
    pub(crate) now_us: u64,
    /// What it wanted done and nobody asked for yet.
    pub(crate) outputs: Vec<Output>,
}

/// Where a peer is in these tests.
pub(crate) fn address(node: u128) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, node as u8], 5671))
}

/// A peer's beacon.
pub(crate) fn beacon(node: u128) -> Beacon<'static> {
    Beacon {
        node: NodeId(node),
        start_us: node as u64,
        cluster: "default",
        mesh_address: None,
        mesh_port: 5671,
        app_port: 5672,
        interest_hash: 7,
        retained_digest: 0,
        is_goodbye: false,
    }
}

pub(crate) fn member(node: u128) -> Member {
    Member {
        node: NodeId(node),
        start_us: node as u64,
        mesh_address: address(node),
        app_port: 5672,
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A node that has started, and said its first four beacons.
    pub(crate) fn with(adapt: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { node: OWN, start_us: 1, seed: 1, ..Config::default() };
        adapt(&mut config);
        let mut rig =
            Self { discovery: Discovery::new(config), now_us: SECOND_US, outputs: Vec::new() };
        rig.feed(Event::Started);
        rig.run_for(400_000);
        rig.outputs.clear();
        rig
    }

    pub(crate) fn feed(&mut self, event: Event<'_>) {
        let now = Now { mono_us: self.now_us, wall_us: 1_700_000_000_000_000 + self.now_us };
        self.discovery.on_event(now, event);
        while let Some(output) = self.discovery.poll_output() {
            if let Output::Notice(notice) = &output {
                assert!(!notice.to_string().is_empty(), "there is something to read");
            }
            self.outputs.push(output);
        }
        self.discovery.assert_invariants();
    }

    pub(crate) fn run_for(&mut self, us: u64) {
        let until_us = self.now_us + us;
        while let Some(wake_us) = self.discovery.wake_at().filter(|&us| us <= until_us) {
            assert!(wake_us > self.now_us, "it does not ask to be woken for nothing");
            self.now_us = wake_us;
            self.feed(Event::Tick);
        }
        self.now_us = until_us;
    }

    pub(crate) fn hear(&mut self, beacon: &Beacon<'_>) {
        self.hear_from(address(beacon.node.0), &beacon.encode(None));
    }

    pub(crate) fn hear_from(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.feed(Event::Datagram { from, bytes });
    }

    pub(crate) fn hear_signed(&mut self, node: u128, key: &[u8]) {
        let key = ClusterKey::new(key);
        self.hear_from(address(node), &beacon(node).encode(Some(&key)));
    }

    pub(crate) fn link(&mut self, event: LinkEvent) {
        self.feed(Event::Link(event));
    }

    /// A peer dialled this node.
    pub(crate) fn up(&mut self, node: u128) {
        self.up_by(node, None);
    }

    pub(crate) fn up_by(&mut self, node: u128, dial: Option<u64>) {
        let address = address(node);
        let (peer, start_us) = (NodeId(node), node as u64);
        self.link(LinkEvent::Up { peer, start_us, address, app_port: 5672, dial });
    }

    pub(crate) fn down(&mut self, node: u128, reason: LinkDown) {
        self.link(LinkEvent::Down { peer: NodeId(node), reason });
    }

    pub(crate) fn stored(&mut self, node: u128, hash: Option<u64>) {
        self.link(LinkEvent::Stored { peer: NodeId(node), hash });
    }

    pub(crate) fn members(&mut self, of: u128, members: Vec<Member>) {
        self.link(LinkEvent::Members { peer: NodeId(of), members });
    }

    pub(crate) fn fail(&mut self, dial: u64, is_refused: bool) {
        self.feed(Event::DialFailed { dial, is_refused, reason: "for a test" });
    }

    pub(crate) fn refuse(&mut self, dial: u64, node: u128, reason: LinkRefusal) {
        let (peer, address) = (Some(NodeId(node)), address(node));
        self.link(LinkEvent::Refused { dial: Some(dial), peer, address, reason });
    }

    pub(crate) fn knows(&self, node: u128) -> bool {
        self.discovery.peer(NodeId(node)).is_some()
    }

    /// Takes the dials that were begun: their numbers, where to and to whom.
    pub(crate) fn dials(&mut self) -> Vec<(u64, SocketAddr, Option<NodeId>)> {
        self.take(|output| match output {
            Output::Dial { dial, address, peer } => Some((*dial, *address, *peer)),
            _ => None,
        })
    }

    /// Takes the one dial that was begun, within a second.
    pub(crate) fn dial(&mut self) -> u64 {
        self.run_for(SECOND_US);
        let dials = self.dials();
        assert_eq!(dials.len(), 1, "{dials:?}");
        dials[0].0
    }

    pub(crate) fn notices(&mut self) -> Vec<Notice> {
        self.take(|output| match output {
            Output::Notice(notice) => Some(notice.clone()),
            _ => None,
        })
    }

    pub(crate) fn retired(&mut self) -> Vec<NodeId> {
        self.take(|output| match output {
            Output::Retire { peer } => Some(*peer),
            _ => None,
        })
    }

    pub(crate) fn forgotten(&mut self) -> Vec<NodeId> {
        self.take(|output| match output {
            Output::Forget { peer } => Some(*peer),
            _ => None,
        })
    }

    pub(crate) fn beacons(&mut self) -> Vec<Vec<u8>> {
        self.take(|output| match output {
            Output::Multicast(datagram) => Some(datagram.clone()),
            _ => None,
        })
    }

    pub(crate) fn unicasts(&mut self) -> Vec<SocketAddr> {
        self.take(|output| match output {
            Output::Unicast { to, .. } => Some(*to),
            _ => None,
        })
    }

    /// The kinds of frames that a peer was sent.
    pub(crate) fn sent(&mut self, node: u128) -> Vec<FrameKind> {
        let sends = self.take(|output| match output {
            Output::Send { peer, frames } if peer.0 == node => Some(frames.clone()),
            _ => None,
        });
        let mut cutter = FrameCutter::new(0, 256 << 10, usize::MAX);
        let (mut kinds, bytes) = (Vec::new(), sends.concat());
        let mut input = &bytes[..];
        while let Cut::Frame(frame) = cutter.next(&mut input).expect("whole frames") {
            kinds.push(frame.kind());
        }
        kinds
    }

    fn take<T>(&mut self, is_it: impl Fn(&Output) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        self.outputs.retain(|output| match is_it(output) {
            Some(it) => {
                taken.push(it);
                false
            }
            None => true,
        });
        taken
    }
}
