//! Another node, as this one knows it.

use std::net::SocketAddr;

use nexusd_wire::{Member, NodeId};

use crate::limits::{LINK_IDLE_US, PEER_ADDRESSES_MAX, SUSPECTED_US, UNHEARD_US};
use crate::retained::PeersDigest;
use crate::sync::Sync;

/// What is believed of a peer. One that is dead is no peer any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerStatus {
    /// It is heard.
    Alive,
    /// It was not heard for a while.
    Suspected,
}

/// What there is between the two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    /// None yet.
    Never,
    /// None any more, for neither wanted anything of the other.
    Idle,
    /// None any more: it broke, and the data plane keeps what is for the peer for a while.
    Broken,
    /// One that stands.
    Up,
}

/// Another node.
///
/// Invariant: it has an address, and the first one is where it was last linked, if it was.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(crate) node: NodeId,
    pub(crate) start_us: u64,
    /// Where it takes links.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) app_port: u16,
    pub(crate) link: Link,
    /// This node dialled the link that stands, or stood.
    pub(crate) is_dialled: bool,
    /// The link is silent.
    pub(crate) is_suspected: bool,
    /// How many had joined when that last began or ended: later ones were not told of it.
    pub(crate) joined_before: u64,
    /// It said goodbye; the link, if one stands, will say so too.
    pub(crate) is_leaving: bool,
    /// An operator was told that it is there.
    pub(crate) has_joined: bool,
    /// A beacon of it was heard.
    pub(crate) is_heard: bool,
    /// Its beacon was the first that was known of it: multicast, if there is any, reaches it.
    pub(crate) came_by_beacon: bool,
    pub(crate) last_heard_us: u64,
    /// What it calls its interest, as its last beacon said.
    pub(crate) beacon_hash: Option<u64>,
    pub(crate) sync: Sync,
    pub(crate) retained: PeersDigest,
    /// Since when neither side wants anything over the link.
    pub(crate) idle_since_us: Option<u64>,
    /// When it is to be dialled.
    pub(crate) dial_due_us: Option<u64>,
}

impl Peer {
    pub(crate) fn new(node: NodeId, address: SocketAddr, now_us: u64) -> Self {
        Self {
            node,
            start_us: 0,
            addresses: vec![address],
            app_port: 0,
            link: Link::Never,
            is_dialled: false,
            is_suspected: false,
            joined_before: 0,
            is_leaving: false,
            has_joined: false,
            is_heard: false,
            came_by_beacon: false,
            last_heard_us: now_us,
            beacon_hash: None,
            sync: Sync::default(),
            retained: PeersDigest::default(),
            idle_since_us: None,
            dial_due_us: None,
        }
    }

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
        // There is one; see the invariant.
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Its port for applications; 0: not known yet.
    pub fn app_port(&self) -> u16 {
        self.app_port
    }

    /// What is believed of it at `now_us`, in the time of [`Now::mono_us`](crate::Now::mono_us).
    pub fn status(&self, now_us: u64) -> PeerStatus {
        let is_suspected = match self.link {
            Link::Up => self.is_suspected,
            Link::Broken => true,
            Link::Never | Link::Idle => now_us.saturating_sub(self.last_heard_us) >= SUSPECTED_US,
        };
        if is_suspected { PeerStatus::Suspected } else { PeerStatus::Alive }
    }

    /// Whether a link to it stands.
    pub fn is_linked(&self) -> bool {
        self.link == Link::Up
    }

    /// Whether this node holds what the peer wants.
    pub fn is_synced(&self) -> bool {
        self.sync.stored().is_some()
    }

    /// When a beacon of it came, or its link was last heard of, in the time of
    /// [`Now::mono_us`](crate::Now::mono_us). A link that stands and is not suspected is heard all the
    /// time.
    pub fn last_heard_us(&self) -> u64 {
        self.last_heard_us
    }

    /// What it calls its interest: by what is stored of it, or by its last beacon; `None`: not known yet.
    pub fn interest_hash(&self) -> Option<u64> {
        self.sync.stored().or(self.beacon_hash)
    }

    /// What it last called its interest in a beacon; `None`: none came.
    pub fn told_hash(&self) -> Option<u64> {
        self.beacon_hash
    }

    /// What it called the interest of its that this node holds; `None`: it does not hold the whole.
    pub fn stored_hash(&self) -> Option<u64> {
        self.sync.stored()
    }

    /// When something has to be done about it, unless something happens before.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        match self.link {
            Link::Up => {
                let idle = self.idle_since_us.map(|since_us| since_us + LINK_IDLE_US);
                [self.sync.wake_at(), idle].into_iter().flatten().min()
            }
            // The data plane says when it is dead.
            Link::Broken => None,
            Link::Never | Link::Idle => Some(self.last_heard_us + UNHEARD_US),
        }
    }

    /// As others are told of it; `None`: it is not known well enough.
    pub(crate) fn as_member(&self, now_us: u64) -> Option<Member> {
        let is_sure = match self.link {
            Link::Up => !self.is_suspected && !self.is_leaving,
            Link::Broken => false,
            Link::Never | Link::Idle => {
                self.is_heard && self.status(now_us) == PeerStatus::Alive && !self.is_leaving
            }
        };
        is_sure.then(|| Member {
            node: self.node,
            start_us: self.start_us,
            mesh_address: self.address(),
            app_port: self.app_port,
        })
    }

    /// It is dialled at another of its addresses next time.
    pub(crate) fn turn_addresses(&mut self) {
        self.addresses.rotate_left(1);
    }

    pub(crate) fn assert_invariants(&self) {
        assert!((1..=PEER_ADDRESSES_MAX).contains(&self.addresses.len()), "it has addresses");
        assert!(self.link == Link::Up || self.sync.wake_at().is_none(), "asked over a link");
        assert!(self.link == Link::Up || !self.is_suspected, "a link is suspected");
        assert!(self.link == Link::Up || self.idle_since_us.is_none(), "a link is idle");
        assert!(
            self.link != Link::Up || self.dial_due_us.is_none(),
            "what is linked is not dialled"
        );
    }
}
