//! What an operator should read: one clear sentence each, and not again while it stays true.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nexusd_wire::NodeId;

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// For who looks closely.
    Debug,
    /// The life of a mesh.
    Info,
    /// Something may have to be done.
    Warning,
}

/// Why a peer is no longer part of the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// It said goodbye.
    Goodbye,
    /// Its link broke and did not come back.
    Lost,
    /// Its link was silent for too long.
    Silent,
    /// Nobody listens any more where it was.
    Refused,
    /// A later start is at its address.
    Restarted,
    /// It has no link, and its beacons stopped.
    Unheard,
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Goodbye => "it said goodbye",
            Self::Lost => "its link broke and did not come back",
            Self::Silent => "its link was silent for too long",
            Self::Refused => "nobody listens there any more",
            Self::Restarted => "another start is at its address",
            Self::Unheard => "its beacons stopped",
        })
    }
}

/// Something an operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// The first link to a peer stands.
    Joined {
        /// The peer.
        node: NodeId,
        /// Where it takes links.
        address: SocketAddr,
    },
    /// A peer is dead.
    Left {
        /// The peer.
        node: NodeId,
        /// Where it took links.
        address: SocketAddr,
        /// Why.
        reason: Departure,
    },
    /// A peer is not heard.
    Suspected {
        /// The peer.
        node: NodeId,
        /// Where it takes links.
        address: SocketAddr,
    },
    /// A peer that was suspected is heard again.
    Trusted {
        /// The peer.
        node: NodeId,
        /// Where it takes links.
        address: SocketAddr,
    },
    /// A seed is not there yet.
    SeedLate {
        /// The seed.
        name: String,
        /// What came of the last attempt.
        reason: String,
    },
    /// A seed was tried often, and is tried on.
    SeedAbsent {
        /// As written.
        name: String,
        /// How often.
        attempts: u32,
        /// What was wrong the last time.
        reason: String,
    },
    /// A seed that was absent for so long is linked.
    SeedFound {
        /// As written.
        name: String,
    },
    /// A seed leads to this node.
    SeedIsThisNode {
        /// As written.
        name: String,
    },
    /// A node of another cluster is where one of this cluster was looked for.
    WrongCluster {
        /// Where.
        address: SocketAddr,
    },
    /// A node does not have the cluster's key.
    WrongKey {
        /// Where.
        address: SocketAddr,
    },
    /// A node speaks no protocol version that this one does.
    Version {
        /// Where.
        address: SocketAddr,
    },
    /// A link ended because one of its nodes broke the protocol.
    Violated {
        /// The peer.
        node: NodeId,
        /// Where it takes links.
        address: SocketAddr,
        /// What was wrong.
        reason: Box<str>,
        /// The link is shut for so long.
        pause_us: u64,
    },
    /// A peer takes longer messages than this node does.
    TooLarge {
        /// The peer.
        node: NodeId,
        /// Where it takes links.
        address: SocketAddr,
        /// The payload of one of them.
        bytes: usize,
    },
    /// Datagrams that are no beacons come from somewhere.
    Unreadable {
        /// Where from.
        from: IpAddr,
        /// What is wrong with the newest.
        reason: String,
        /// How many came since this was last said.
        datagrams: u64,
    },
    /// More peers than this node remembers.
    PeersFull {
        /// How many it remembers.
        peers: usize,
    },
    /// More peers than this node may have links to.
    LinksFull {
        /// How many it may have.
        links: usize,
    },
}

impl Notice {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::Left { reason: Departure::Unheard, .. } => Level::Debug,
            Self::Joined { .. }
            | Self::Left { reason: Departure::Goodbye | Departure::Restarted, .. }
            | Self::Trusted { .. }
            | Self::SeedLate { .. }
            | Self::SeedFound { .. }
            | Self::SeedIsThisNode { .. } => Level::Info,
            Self::Left { .. }
            | Self::Suspected { .. }
            | Self::SeedAbsent { .. }
            | Self::WrongCluster { .. }
            | Self::WrongKey { .. }
            | Self::Version { .. }
            | Self::Violated { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable { .. }
            | Self::PeersFull { .. }
            | Self::LinksFull { .. } => Level::Warning,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { node, address } => write!(f, "node {node} at {address} joined"),
            Self::Left { node, address, reason } => {
                write!(f, "node {node} at {address} left: {reason}")
            }
            Self::Suspected { node, address } => {
                write!(f, "node {node} at {address} is not heard; messages for it wait")
            }
            Self::Trusted { node, address } => {
                write!(f, "node {node} at {address} is heard again")
            }
            Self::SeedLate { name, reason } => {
                write!(f, "{name} (--peers) is not reached yet: {reason}; it is tried on")
            }
            Self::SeedAbsent { name, attempts, reason } => write!(
                f,
                "{name} (--peers) could not be reached in {attempts} attempts, the last one: \
                 {reason}; it is tried on at the longest interval"
            ),
            Self::SeedFound { name } => write!(f, "{name} (--peers) is reached"),
            Self::SeedIsThisNode { name } => {
                write!(f, "{name} (--peers) is this node itself and is left alone")
            }
            Self::WrongCluster { address } => {
                write!(f, "the node at {address} is of another cluster (--cluster)")
            }
            Self::WrongKey { address } => {
                write!(
                    f,
                    "the node at {address} and this one do not have the same key (--cluster-key)"
                )
            }
            Self::Version { address } => {
                write!(
                    f,
                    "the node at {address} speaks another version of the protocol; upgrade one of the two"
                )
            }
            Self::Violated { node, address, reason, pause_us } => write!(
                f,
                "the link to node {node} at {address} ended, for one of the two broke the protocol: {reason}; \
                 it is shut for {:.1?}, and longer each time",
                Duration::from_micros(*pause_us)
            ),
            Self::TooLarge { node, address, bytes } => write!(
                f,
                "node {node} at {address} sent a message of {bytes} bytes, more than this node takes \
                 (--max-payload); such messages are lost here, and subscribers are told: give all nodes \
                 the same limit"
            ),
            Self::Unreadable { from, reason, datagrams } => {
                write!(f, "{datagrams} datagrams from {from} were ignored, the last one: {reason}")
            }
            Self::PeersFull { peers } => {
                write!(f, "more than {peers} nodes are heard; further ones are ignored")
            }
            Self::LinksFull { links } => {
                write!(f, "{links} nodes are linked; no further ones are dialled (--max-links)")
            }
        }
    }
}
