//! One host: the daemon on it, if one runs, and what its links have stored of the others' interest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nexusd_discovery::{Discovery, Event, LinkEvent, Member, NodeId, Notice, Now};
use nexusd_wire::{Cut, FrameCutter, FrameKind, control};

/// Longest control frame of the data plane, in bytes.
const CONTROL_BYTES_MAX: u32 = 256 << 10;

pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    /// How often a daemon was started here.
    pub(crate) starts: u32,
    pub(crate) daemon: Option<Daemon>,
    /// Its clocks are ahead of the world's by this much.
    pub(crate) mono_ahead_us: u64,
    pub(crate) wall_ahead_us: u64,
    /// The whole host is gone, not the daemon alone: nothing refuses a connection.
    pub(crate) is_off: bool,
    pub(crate) traffic: Traffic,
}

/// A daemon that runs.
pub(crate) struct Daemon {
    pub(crate) node: NodeId,
    pub(crate) discovery: Discovery,
    pub(crate) start_us: u64,
    pub(crate) is_multicast: bool,
    pub(crate) wakes_at_us: Option<u64>,
    pub(crate) wanted: BTreeSet<String>,
    pub(crate) stored: BTreeMap<NodeId, Stored>,
    /// Broken links whose queue waits, each with a number of its own.
    pub(crate) parked: BTreeMap<NodeId, u64>,
    pub(crate) notices: Vec<Notice>,
}

/// What the data plane of a node holds of a peer's interest.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) hash: Option<u64>,
    pub(crate) filters: BTreeSet<String>,
    arriving: Option<(u32, BTreeSet<String>)>,
}

/// What a host sent, and was asked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) datagrams: u64,
    pub(crate) datagram_bytes: u64,
    pub(crate) sends: u64,
    pub(crate) send_bytes: u64,
    pub(crate) dials: u64,
    pub(crate) dials_taken: u64,
    /// In the current tenth of a second, and in any.
    pub(crate) dials_taken_now: (u64, u64),
    pub(crate) dials_taken_most: u64,
}

impl Host {
    pub(crate) fn now(&self, world_us: u64) -> Now {
        Now { mono_us: world_us + self.mono_ahead_us, wall_us: world_us + self.wall_ahead_us }
    }

    pub(crate) fn count_dial_taken(&mut self, world_us: u64) {
        let tenth = world_us / 100_000;
        let (current, count) = &mut self.traffic.dials_taken_now;
        if *current != tenth {
            (*current, *count) = (tenth, 0);
        }
        *count += 1;
        self.traffic.dials_taken += 1;
        self.traffic.dials_taken_most = self.traffic.dials_taken_most.max(*count);
    }
}

impl Daemon {
    /// What the data plane makes of frames that came over a link.
    pub(crate) fn read(&mut self, from: NodeId, frames: &[u8]) -> Vec<LinkEvent> {
        let mut events = Vec::new();
        let mut cutter = FrameCutter::new(0, CONTROL_BYTES_MAX, usize::MAX);
        let mut input = frames;
        while let Cut::Frame(frame) = cutter.next(&mut input).expect("whole frames") {
            match frame.kind() {
                FrameKind::NodeState => {
                    let state = frame.body::<control::NodeState<'_>>().expect("a NodeState");
                    if let Some(members) = state.members() {
                        let members = members.iter().map(member).collect();
                        events.push(LinkEvent::Members { peer: from, members });
                    }
                    events.extend(self.store_state(from, &state));
                }
                FrameKind::InterestDelta => {
                    let delta = frame.body::<control::InterestDelta<'_>>().expect("a delta");
                    events.push(self.store_delta(from, &delta));
                }
                FrameKind::NodeStateRequest => {
                    events.push(LinkEvent::StateWanted { peer: from });
                }
                other => panic!("discovery sends no {other:?}"),
            }
        }
        events
    }

    fn store_state(&mut self, from: NodeId, state: &control::NodeState<'_>) -> Option<LinkEvent> {
        let stored = self.stored.entry(from).or_default();
        if state.part() == 0 {
            stored.arriving = Some((0, BTreeSet::new()));
        }
        let (parts, filters) = stored.arriving.as_mut()?;
        assert_eq!(state.part(), *parts, "parts come in order");
        *parts += 1;
        filters.extend(state.filters().into_iter().flatten().map(String::from));
        if !state.is_last() {
            return None;
        }
        let (_, filters) = stored.arriving.take()?;
        stored.filters = filters;
        stored.hash = Some(state.hash());
        Some(LinkEvent::Stored { peer: from, hash: stored.hash })
    }

    fn store_delta(&mut self, from: NodeId, delta: &control::InterestDelta<'_>) -> LinkEvent {
        let stored = self.stored.entry(from).or_default();
        if stored.hash == Some(delta.before()) {
            for filter in delta.removed().into_iter().flatten() {
                assert!(stored.filters.remove(filter), "what is gone was there");
            }
            for filter in delta.added().into_iter().flatten() {
                assert!(stored.filters.insert(filter.into()), "what is new was not there");
            }
            stored.hash = Some(delta.hash());
        } else {
            stored.hash = None;
        }
        LinkEvent::Stored { peer: from, hash: stored.hash }
    }

    pub(crate) fn feed(&mut self, now: Now, event: Event<'_>) {
        self.discovery.on_event(now, event);
    }
}

fn member(member: control::Member<'_>) -> Member {
    Member {
        node: member.node().into(),
        start_us: member.start_us(),
        mesh_address: member.mesh_address().parse().expect("an address"),
        app_port: member.app_port(),
    }
}
