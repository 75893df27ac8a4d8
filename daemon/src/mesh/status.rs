//! What the mesh thread tells the statistics about itself and the mesh, as of the last second.

use std::sync::{Arc, Mutex, PoisonError};

use nexusd_discovery::{Counters, Discovery, PeerStatus};
use serde_json::{Value, json};

/// A picture of the mesh.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MeshStatus {
    /// Other nodes that are known.
    pub(crate) peers: u64,
    /// Of those, the ones with a link.
    pub(crate) linked: u64,
    /// Of those, the ones without a link because nothing is wanted over it.
    pub(crate) idle: u64,
    /// Of those, the ones that were not heard for a while.
    pub(crate) suspected: u64,
    /// Of those, the ones whose interest is known.
    pub(crate) synced: u64,
    /// Links beyond which nobody is dialled.
    pub(crate) links_max: u64,
    /// What could not be sent, received or joined.
    pub(crate) socket_errors: u64,
    /// What discovery has done.
    pub(crate) counters: Counters,
}

impl MeshStatus {
    pub(super) fn of(discovery: &Discovery, now_us: u64, socket_errors: u64) -> Self {
        let mut status = Self {
            links_max: discovery.links_max() as u64,
            socket_errors,
            counters: discovery.counters(),
            ..Self::default()
        };
        for peer in discovery.peers() {
            status.peers += 1;
            status.linked += u64::from(peer.is_linked());
            status.idle += u64::from(discovery.is_idle(peer));
            status.suspected += u64::from(peer.status(now_us) == PeerStatus::Suspected);
            status.synced += u64::from(peer.is_synced());
        }
        status
    }

    /// As it stands in the statistics.
    pub(crate) fn document(&self) -> Value {
        let Counters {
            beacons_sent,
            beacons_received,
            beacons_ignored,
            datagrams_unreadable,
            datagrams_limited,
            dials,
            dials_failed,
            dials_untold,
            states_sent,
            states_requested,
            deltas_sent,
            hashes_computed,
            peers_ignored,
            ..
        } = self.counters;
        json!({
            "peers": self.peers,
            "linked": self.linked,
            "idle": self.idle,
            "links_max": self.links_max,
            "suspected": self.suspected,
            "synced": self.synced,
            "socket_errors": self.socket_errors,
            "beacons_sent": beacons_sent,
            "beacons_received": beacons_received,
            "beacons_ignored": beacons_ignored,
            "datagrams_unreadable": datagrams_unreadable,
            "datagrams_limited": datagrams_limited,
            "dials": dials,
            "dials_failed": dials_failed,
            "dials_untold": dials_untold,
            "states_sent": states_sent,
            "states_requested": states_requested,
            "deltas_sent": deltas_sent,
            "hashes_computed": hashes_computed,
            "peers_ignored": peers_ignored,
        })
    }
}

/// The newest picture, for other threads.
#[derive(Clone, Default, Debug)]
pub(crate) struct SharedStatus(Arc<Mutex<MeshStatus>>);

impl SharedStatus {
    pub(super) fn set(&self, status: MeshStatus) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    pub(crate) fn now(&self) -> MeshStatus {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
