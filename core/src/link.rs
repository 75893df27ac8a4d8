//! A link: the one connection between this node and another, and what outlives it when it breaks.
//!
//! Each direction is a counted stream. What this node sends is a queue like a subscription's, whose filters
//! are what the peer wants; it is parked while there is no connection. What the peer sends is counted here,
//! so that the next connection goes on exactly there.
//!
//! A link belongs to one shard, found from the peer's id. `shard/links.rs` decides what happens to it,
//! `shard/greeting.rs` who may be one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use nexusd_wire::control::Farewell;
use nexusd_wire::{ClusterKey, Member, NodeId, SubscriptionId};

use crate::limits::{LINK_SHUT_DOUBLINGS, LINK_SHUT_US, LINK_SOUND_US};
use crate::retained::{Buckets, Digest};
use crate::shard::answering::AskedEarly;
use crate::shard::event::ConnectionId;
use crate::shard::routing::ShardMask;
use crate::subscriber_queue::QueueId;

/// What a node says of itself to others.
#[derive(Clone, Debug, Default)]
pub struct MeshConfig {
    /// When it started, microseconds since 1970.
    pub start_us: u64,
    /// Where other nodes reach it; `None`: where they see its connections come from.
    pub address: Option<IpAddr>,
    /// TCP port for links.
    pub mesh_port: u16,
    /// TCP port for applications.
    pub app_port: u16,
    /// The secret of the cluster, if it has one.
    pub key: Option<ClusterKey>,
    /// Whether it is one of a mesh: a node on its own remembers nothing for others.
    pub is_on: bool,
}

/// What is asked of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkCommand {
    /// Send whole control frames. Thrown away if the link does not stand.
    Send {
        /// To this node.
        peer: NodeId,
        /// One or more of them.
        frames: Box<[u8]>,
    },
    /// The node is dead: what it wanted is forgotten, and its link closes.
    Forget {
        /// This node.
        peer: NodeId,
    },
    /// Another start is where the node was: what it wanted is forgotten at once; what it sent and is under
    /// way comes first, for a while, then its link closes.
    Retire {
        /// This node.
        peer: NodeId,
    },
    /// Compare all retained values with the peer's.
    CompareRetained {
        /// With this node.
        peer: NodeId,
    },
    /// Neither node wants anything of the other: the link closes, until one does.
    CloseIdle {
        /// To this node.
        peer: NodeId,
    },
}

impl LinkCommand {
    /// The node that it is about.
    pub fn peer(&self) -> NodeId {
        match self {
            Self::Send { peer, .. }
            | Self::Forget { peer }
            | Self::Retire { peer }
            | Self::CompareRetained { peer }
            | Self::CloseIdle { peer } => *peer,
        }
    }
}

/// What became of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkReport {
    /// It stands. A second one without `Down` between means that another connection took its place.
    Up {
        /// To this node.
        peer: NodeId,
        /// When that started, microseconds since 1970 by its clock.
        start_us: u64,
        /// Where it takes links.
        address: SocketAddr,
        /// Its TCP port for applications.
        app_port: u16,
        /// The attempt that it comes from; `None`: the peer dialled.
        dial: Option<u64>,
    },
    /// A connection did not become a link.
    Refused {
        /// The attempt; `None`: somebody dialled this node.
        dial: Option<u64>,
        /// The node at its other end, if that was said.
        peer: Option<NodeId>,
        /// Where that is.
        address: SocketAddr,
        /// Why.
        reason: LinkRefusal,
    },
    /// Nothing was heard for a while.
    Suspected {
        /// Of this node.
        peer: NodeId,
    },
    /// It was heard again.
    Trusted {
        /// This node.
        peer: NodeId,
    },
    /// The connection is gone.
    Down {
        /// To this node.
        peer: NodeId,
        /// Why.
        reason: LinkDown,
    },
    /// The connection is gone, for one of the two nodes broke the protocol.
    Violated {
        /// The peer.
        peer: NodeId,
        /// What was wrong, for an operator.
        reason: Box<str>,
        /// For so long no other connection becomes the link.
        pause_us: u64,
    },
    /// A message of the peer's is longer than this node takes, and lost. Told now and then.
    TooLarge {
        /// The peer.
        peer: NodeId,
        /// The payload of the message.
        bytes: usize,
    },
    /// A link that broke did not come back in time: the node is dead.
    Dead {
        /// This node.
        peer: NodeId,
    },
    /// What the peer wants is known here now.
    Stored {
        /// This node.
        peer: NodeId,
        /// The hash that the peer gave it; `None`: it does not fit, the whole is needed.
        hash: Option<u64>,
    },
    /// The peer asks what this node wants.
    StateWanted {
        /// This node.
        peer: NodeId,
    },
    /// Nodes that the peer knows.
    Members {
        /// This node.
        peer: NodeId,
        /// Some or all of them.
        members: Vec<Member>,
    },
}

/// Why a connection did not become a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkRefusal {
    /// The other node is of another cluster.
    WrongCluster,
    /// It does not have the cluster's key, or this one does not.
    WrongKey,
    /// It is this node.
    OwnNode,
    /// It speaks another version of the protocol.
    Version,
    /// It is not the node that was dialled, or not known to be, and another shard keeps its link: dial it
    /// again by its id.
    Unexpected,
    /// Another connection between the two is the link.
    Superseded,
    /// It closed before it was one, or broke the protocol.
    Closed,
}

/// Why a link is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkDown {
    /// It broke: what is queued waits for a while.
    Broken,
    /// Neither node wanted anything of the other.
    Idle,
    /// The peer stops: it is dead.
    Ending,
    /// Nothing was heard for too long: it is dead.
    Silent,
    /// By command: it is dead.
    Forgotten,
}

/// A node as this one counts those whose messages it passes on to its clients: `origin` in their headers.
/// 0 is this node; a number is never used for another node while the daemon runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Origin(pub(crate) u32);

/// Whose messages come over a link, and what is known of their time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Relay {
    pub(crate) origin: Origin,
    /// This node's monotonic clock less the time that the peer told, microseconds; it wraps.
    pub(crate) clock_offset_us: u64,
    /// They are retained values that the peer was asked for.
    pub(crate) is_state: bool,
    /// They answer a fetch, and are for its subscription alone.
    pub(crate) fetch: FetchId,
}

/// Names a fetch on this node, and the ReplayRequests for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FetchId(pub(crate) u64);

impl FetchId {
    pub(crate) const NONE: Self = Self(0);
    /// What answers a fetch on a connection that came behind the beginning of the answer.
    pub(crate) const STALE: Self = Self(u64::MAX);
}

/// What the connection of a link has to know at every message; the link has the rest.
#[derive(Debug)]
pub(crate) struct LinkSession {
    pub(crate) peer: NodeId,
    pub(crate) relay: Relay,
    /// Messages of the peer's stream that this node has had.
    pub(crate) received: u64,
    /// Bytes of those that were not acknowledged.
    pub(crate) unacknowledged_bytes: usize,
    pub(crate) unacknowledged: u64,
    /// Other nodes, by the peer's numbers.
    pub(crate) origins: Vec<(u32, Origin)>,
    /// The fetch that the peer is answering, and whether what comes now is part of the answer.
    pub(crate) answers: FetchId,
    pub(crate) is_answer: bool,
}

impl LinkSession {
    /// What comes next belongs to a fetch, or not.
    pub(crate) fn note_fetch(&mut self) {
        self.relay.fetch = match (self.is_answer, self.answers) {
            (false, _) => FetchId::NONE,
            (true, FetchId::NONE) => FetchId::STALE,
            (true, fetch) => fetch,
        };
    }
}

/// A node that shows who it is, until it is known whether its connection is the link.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) peer: NodeId,
    /// Connections of this shard that had become links when it came.
    pub(crate) links_begun: u64,
    pub(crate) start_us: u64,
    pub(crate) address: SocketAddr,
    pub(crate) app_port: u16,
}

/// The peer's interest, as far as it has come in parts.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) next: u32,
    pub(crate) filters: BTreeSet<Box<str>>,
    pub(crate) bytes: usize,
}

/// How far two nodes have come with comparing their retained values.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Shards that still have to say what they have, and what the others said.
    pub(crate) awaits: ShardMask,
    pub(crate) sum: Option<Box<Digest>>,
    /// What the peer was told last.
    pub(crate) offered: Option<Box<Digest>>,
    /// What the peer asks to compare with, until this node knows what it has itself.
    pub(crate) theirs: Option<Box<Digest>>,
    /// What the peer asked for last.
    pub(crate) fetched: Buckets,
}

/// How a link ended because one of the nodes broke the protocol. Were it dialled again at once, the two would do
/// nothing else any more.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    /// What was wrong, until that is told.
    pub(crate) reason: Option<Box<str>>,
    in_a_row: u32,
    /// No connection becomes the link until then.
    pub(crate) shut_until_us: u64,
}

impl Violations {
    /// The link ends, which stood since `up_since_us`.
    pub(crate) fn note(&mut self, reason: &str, up_since_us: u64, now_us: u64) {
        if now_us.saturating_sub(up_since_us) >= LINK_SOUND_US {
            self.in_a_row = 0;
        }
        let pause_us = LINK_SHUT_US << self.in_a_row.min(LINK_SHUT_DOUBLINGS);
        self.in_a_row = self.in_a_row.saturating_add(1);
        (self.reason, self.shut_until_us) = (Some(reason.into()), now_us + pause_us);
    }
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) guest: Guest,
    pub(crate) origin: Origin,
    /// Its connection, from when it is the link; both sides may still have to say where they go on.
    pub(crate) connection: Option<ConnectionId>,
    /// The attempt that the connection comes from; `None`: the peer dialled.
    pub(crate) dial: Option<u64>,
    /// Which one it is of all connections of this shard that became links.
    pub(crate) begun: u64,
    /// Both have said so.
    pub(crate) is_up: bool,
    /// Who watches the links takes it for up: it was, and this connection took over from one that was.
    pub(crate) is_reported_up: bool,
    /// What this node sends.
    pub(crate) queue: Option<(SubscriptionId, QueueId)>,
    /// The stream that the peer sends, and how many of its messages came before this connection.
    pub(crate) stream: Option<SubscriptionId>,
    pub(crate) received: u64,
    /// What the peer wants, and the hash that it gave that.
    pub(crate) filters: BTreeSet<Box<str>>,
    pub(crate) filter_bytes: usize,
    /// Topics that it asked this node to replay, and until when their live messages go to it for that.
    pub(crate) asked: BTreeMap<Box<str>, u64>,
    pub(crate) hash: Option<u64>,
    /// The peer has told what it wants before; until then, what it asks this node to replay.
    pub(crate) has_told: bool,
    pub(crate) asked_early: Vec<AskedEarly>,
    /// Filters that the peer asked this node to know, by request: the shards that do not yet.
    pub(crate) unknown_to: BTreeMap<u64, ShardMask>,
    pub(crate) parts: Parts,
    pub(crate) comparison: Comparison,
    /// Its connection was up once: the peer may know what this node wants.
    pub(crate) was_up: bool,
    pub(crate) up_since_us: u64,
    pub(crate) violations: Violations,
    /// When it was last reported that the peer's messages are longer than this node takes.
    pub(crate) too_large_told_us: Option<u64>,
    /// When it was given up before, everybody here was told that something may be lost, and nothing of
    /// the peer's stream has come since.
    pub(crate) is_told: bool,
    pub(crate) last_heard_us: u64,
    pub(crate) last_said_us: u64,
    pub(crate) is_suspected: bool,
    /// When the peer was asked to answer at once, and has not yet; and how long it took the last time.
    pub(crate) pinged_us: Option<u64>,
    pub(crate) latency_us: Option<u64>,
    /// When to ask again.
    pub(crate) ping_due_us: u64,
    /// Since when it has no connection.
    pub(crate) down_since_us: Option<u64>,
    /// It ends as soon as everything is sent and acknowledged.
    pub(crate) leaving: Option<Farewell>,
    /// The node is no more, and what it sent may be under way until then.
    pub(crate) retires_at_us: Option<u64>,
}

impl Link {
    pub(crate) fn new(guest: Guest, origin: Origin, now_us: u64) -> Self {
        Self {
            guest,
            origin,
            connection: None,
            dial: None,
            begun: 0,
            is_up: false,
            is_reported_up: false,
            queue: None,
            stream: None,
            received: 0,
            filters: BTreeSet::new(),
            filter_bytes: 0,
            asked: BTreeMap::new(),
            hash: None,
            has_told: false,
            asked_early: Vec::new(),
            unknown_to: BTreeMap::new(),
            parts: Parts::default(),
            comparison: Comparison::default(),
            was_up: false,
            up_since_us: now_us,
            violations: Violations::default(),
            too_large_told_us: None,
            is_told: false,
            last_heard_us: now_us,
            last_said_us: now_us,
            is_suspected: false,
            pinged_us: None,
            latency_us: None,
            ping_due_us: 0,
            down_since_us: None,
            leaving: None,
            retires_at_us: None,
        }
    }

    /// The dial that its connection came from, if nobody was told yet what came of it.
    pub(crate) fn open_dial(&self) -> Option<u64> {
        self.dial.filter(|_| self.connection.is_some() && !self.is_up)
    }

    /// Its connection is another one.
    pub(crate) fn forget_latency(&mut self) {
        (self.pinged_us, self.latency_us, self.ping_due_us) = (None, None, 0);
    }

    /// Somebody has something to say or wants something: it does not close because nobody does.
    pub(crate) fn stay_if_idle(&mut self) {
        if self.leaving == Some(Farewell::Idle) {
            self.leaving = None;
        }
    }
}

/// How far the stream of a peer had come that was given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedStream {
    pub(crate) stream: SubscriptionId,
    pub(crate) received: u64,
    /// It is forgotten then.
    pub(crate) until_us: u64,
}

/// The links of a shard, by peer.
pub(crate) type Links = BTreeMap<NodeId, Link>;

/// Whether, of two connections between `own` and `peer`, the one dialled as `new` says takes the place of
/// the one dialled as `old` says: that of the node with the smaller id stays, of one node's the newer one.
pub(crate) fn takes_over(own: NodeId, peer: NodeId, old_is_ours: bool, new_is_ours: bool) -> bool {
    let ours_stays = own < peer;
    new_is_ours == ours_stays || old_is_ours != ours_stays
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_keep_the_same_one_of_two_connections() {
        let (small, large) = (NodeId(1), NodeId(2));
        // Each end sees the one dialled by the small node first, or second.
        assert!(!takes_over(small, large, true, false) && takes_over(small, large, false, true));
        assert!(!takes_over(large, small, false, true) && takes_over(large, small, true, false));
    }

    #[test]
    fn of_one_nodes_dials_the_newer_one_stays() {
        for (own, peer) in [(NodeId(1), NodeId(2)), (NodeId(2), NodeId(1))] {
            assert!(takes_over(own, peer, true, true) && takes_over(own, peer, false, false));
        }
    }
}
