//! What discovery is told: everything that enters it comes as one of these.

use std::net::SocketAddr;

use nexusd_wire::{Member, NodeId};

/// The time an event happened at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Now {
    /// Microseconds since an arbitrary start; never goes back. All deadlines are in this time.
    pub mono_us: u64,
    /// Microseconds since 1970 by the wall clock; may jump.
    pub wall_us: u64,
}

/// One of [`Config::seeds`](crate::Config::seeds), by its place there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeedId(pub u32);

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The sockets are open: beacons may go out.
    Started,
    /// A datagram came, by multicast or to the mesh port.
    Datagram {
        /// Its sender.
        from: SocketAddr,
        /// All of it.
        bytes: &'a [u8],
    },
    /// One subscription of a client began or ended to want a filter; as often as there are
    /// subscriptions that do.
    Interest {
        /// `filter`, or `$share/<group>/<filter>`.
        filter: &'a str,
        /// Whether it begins.
        is_wanted: bool,
    },
    /// Retained values of this node changed, and its digest of them by this exclusive or.
    Retained {
        /// What to change it by.
        change: u64,
    },
    /// A name has these addresses now.
    Resolved {
        /// Whose name it is.
        seed: SeedId,
        /// In the order in which they are tried.
        addresses: &'a [SocketAddr],
    },
    /// A name has no address now.
    ResolveFailed {
        /// Whose name it is.
        seed: SeedId,
        /// For an operator.
        reason: &'a str,
    },
    /// A dial came to no connection. What becomes of a connection is a [`LinkEvent`].
    DialFailed {
        /// Which one.
        dial: u64,
        /// The host is there and nobody listens.
        is_refused: bool,
        /// For an operator.
        reason: &'a str,
    },
    /// A link reports.
    Link(LinkEvent),
    /// This node stops: it says goodbye and dials nobody any more.
    Drain,
    /// [`Discovery::wake_at`](crate::Discovery::wake_at) is reached.
    Tick,
}

/// What the data plane says about its links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// The link to this peer stands; if it stood already, on another connection now.
    Up {
        /// The peer.
        peer: NodeId,
        /// When it started, by its clock.
        start_us: u64,
        /// Where it takes links.
        address: SocketAddr,
        /// Its port for applications.
        app_port: u16,
        /// The dial it came from; `None` if the peer dialled.
        dial: Option<u64>,
    },
    /// A connection did not become a link.
    Refused {
        /// The dial it came from; `None` if the other side dialled.
        dial: Option<u64>,
        /// Who the other side says it is.
        peer: Option<NodeId>,
        /// Where the other side is.
        address: SocketAddr,
        /// Why.
        reason: LinkRefusal,
    },
    /// Nothing was heard of the peer for a while; its queue waits.
    Suspected {
        /// The peer.
        peer: NodeId,
    },
    /// It was heard again.
    Trusted {
        /// The peer.
        peer: NodeId,
    },
    /// The connection is gone.
    Down {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: LinkDown,
    },
    /// The connection is gone, for one of the two nodes broke the protocol.
    Violated {
        /// The peer.
        peer: NodeId,
        /// What was wrong.
        reason: Box<str>,
        /// For so long no other connection becomes the link.
        pause_us: u64,
    },
    /// A message of the peer's is longer than this node takes.
    TooLarge {
        /// The peer.
        peer: NodeId,
        /// The payload of the message.
        bytes: usize,
    },
    /// The queue of a broken link waited in vain: the peer is dead.
    Dead {
        /// The peer.
        peer: NodeId,
    },
    /// What this node holds of the peer's interest is what the peer calls `hash`; `None`: it does not
    /// fit together, the whole is needed.
    Stored {
        /// The peer.
        peer: NodeId,
        /// As its last NodeState or InterestDelta said; 0: it wants nothing.
        hash: Option<u64>,
    },
    /// The peer asks for this node's NodeState.
    StateWanted {
        /// The peer.
        peer: NodeId,
    },
    /// Nodes that a peer knows.
    Members {
        /// The peer.
        peer: NodeId,
        /// From its NodeState.
        members: Vec<Member>,
    },
}

/// Why a connection did not become a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LinkRefusal {
    /// The other side is of another cluster.
    WrongCluster,
    /// The other side does not have the cluster's key, or has another one.
    WrongKey,
    /// The connection leads to this node itself.
    OwnNode,
    /// There is no protocol version that both speak.
    Version,
    /// Another node answered than the one that was dialled.
    Unexpected,
    /// Another connection between the two is the link.
    Superseded,
    /// It broke, or what was said on it was no Hello.
    Closed,
}

/// Why a link's connection is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkDown {
    /// It broke: the peer's queue is parked, and waits for a new one.
    Broken,
    /// Closed, because neither wants anything of the other.
    Idle,
    /// The peer stops, and said so: it is dead.
    Ending,
    /// The peer was silent for too long: it is dead.
    Silent,
    /// This node wanted it so ([`Output::Forget`](crate::Output::Forget)).
    Forgotten,
}
