//! Another node, as this one knows it.

use std::net::SocketAddr;

use nexusd_wire::NodeId;

/// What is believed of a peer. One that is dead is no peer any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerStatus {
    /// It is heard.
    Alive,
    /// It was not heard for a while.
    Suspected,
}

/// Another node.
#[derive(Clone, Debug)]
pub struct Peer {
    node: NodeId,
    start_us: u64,
    address: SocketAddr,
    app_port: u16,
}

impl Peer {
    /// Who it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// When it started, microseconds since 1970 by its clock; 0: not known yet.
    pub fn start_us(&self) -> u64 {
        self.start_us
    }

    /// Where it takes links.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port for applications; 0: not known yet.
    pub fn app_port(&self) -> u16 {
        self.app_port
    }

    /// What is believed of it.
    pub fn status(&self) -> PeerStatus {
        PeerStatus::Alive
    }

    /// Whether a link to it stands.
    pub fn is_linked(&self) -> bool {
        false
    }

    /// Whether this node holds what the peer wants.
    pub fn is_synced(&self) -> bool {
        false
    }

    /// When it was last heard, in the time of [`Now::mono_us`](crate::Now::mono_us).
    pub fn last_heard_us(&self) -> u64 {
        0
    }

    /// What it calls its interest, by its last beacon or its link; `None`: not known yet.
    pub fn interest_hash(&self) -> Option<u64> {
        None
    }
}
