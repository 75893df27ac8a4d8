//! What discovery has done, for metrics and for who looks for a fault.

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Beacons sent, to the group or to a node.
    pub beacons_sent: u64,
    /// Beacons of other nodes of this cluster.
    pub beacons_received: u64,
    /// Beacons of this node itself and of other clusters.
    pub beacons_ignored: u64,
    /// Datagrams that are no beacons.
    pub datagrams_unreadable: u64,
    /// Datagrams that were not looked at, because too many came.
    pub datagrams_limited: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that came to no link.
    pub dials_failed: u64,
    /// Of those, the ones whose end was never told: who carries out dials owes it for each.
    pub dials_untold: u64,
    /// NodeStates sent.
    pub states_sent: u64,
    /// NodeStates asked for.
    pub states_requested: u64,
    /// InterestDeltas sent.
    pub deltas_sent: u64,
    /// How often the hash of this node's interest was computed.
    pub hashes_computed: u64,
    /// Peers that were not remembered, because too many are.
    pub peers_ignored: u64,
}
