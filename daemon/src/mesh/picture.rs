//! What the mesh thread tells of the mesh when somebody asks: every peer, and how far both nodes know what the
//! other wants.

use std::fmt;
use std::net::SocketAddr;

use nexusd_discovery::{Counters, Discovery, Now, PeerStatus};
use nexusd_wire::NodeId;

/// The mesh at one moment.
#[derive(Clone, Default, Debug)]
pub(crate) struct MeshPicture {
    /// CRC-64 of what this node wants, as last told to others.
    pub(crate) interest_hash: u64,
    /// Filters that it wants.
    pub(crate) interest_filters: u64,
    /// Sums up its retained values.
    pub(crate) retained_digest: u64,
    pub(crate) counters: Counters,
    pub(crate) peers: Vec<PeerPicture>,
}

/// Another node, as discovery knows it.
#[derive(Clone, Debug)]
pub(crate) struct PeerPicture {
    pub(crate) node: NodeId,
    /// Where it takes links.
    pub(crate) address: SocketAddr,
    /// Its port for applications; 0: not known.
    pub(crate) app_port: u16,
    /// It was not heard for a while.
    pub(crate) is_suspected: bool,
    pub(crate) is_linked: bool,
    /// There is no link, for neither node wants anything of the other.
    pub(crate) is_idle: bool,
    /// What it wants is known.
    pub(crate) is_synced: bool,
    /// When its beacon came, or its link was last heard of, microseconds since 1970.
    pub(crate) last_heard_us: u64,
    /// When it started, by its own clock; 0: not known.
    pub(crate) start_us: u64,
    /// What it last called its interest, and what this node knows of that is called.
    pub(crate) told_hash: Option<u64>,
    pub(crate) known_hash: Option<u64>,
}

impl MeshPicture {
    pub(super) fn of(discovery: &Discovery, now: Now) -> Self {
        let peers = discovery.peers().map(|peer| {
            let silent_us = now.mono_us.saturating_sub(peer.last_heard_us());
            PeerPicture {
                node: peer.node(),
                address: peer.address(),
                app_port: peer.app_port(),
                is_suspected: peer.status(now.mono_us) == PeerStatus::Suspected,
                is_linked: peer.is_linked(),
                is_idle: discovery.is_idle(peer),
                is_synced: peer.is_synced(),
                last_heard_us: now.wall_us.saturating_sub(silent_us),
                start_us: peer.start_us(),
                told_hash: peer.told_hash(),
                known_hash: peer.stored_hash(),
            }
        });
        Self {
            interest_hash: discovery.interest_hash(),
            interest_filters: discovery.interest_len() as u64,
            retained_digest: discovery.retained_digest(),
            counters: discovery.counters(),
            peers: peers.collect(),
        }
    }
}

/// Takes a picture that somebody asked for.
pub(crate) struct Viewer(Box<dyn FnOnce(MeshPicture) + Send>);

impl Viewer {
    pub(crate) fn new(take: impl FnOnce(MeshPicture) + Send + 'static) -> Self {
        Self(Box::new(take))
    }

    pub(super) fn show(self, picture: MeshPicture) {
        (self.0)(picture);
    }
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Viewer").finish_non_exhaustive()
    }
}
