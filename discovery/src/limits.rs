//! The bounds of discovery, by name.

/// Beacons that a node starts with, before it keeps to [`BEACON_INTERVAL_US`].
pub const FIRST_BEACONS: u32 = 4;
/// Time between those, microseconds.
pub const FIRST_BEACON_INTERVAL_US: u64 = 100_000;
/// Time between two beacons, microseconds.
pub const BEACON_INTERVAL_US: u64 = 1_000_000;
/// Beacons that say goodbye, for one alone may be lost.
pub const GOODBYES: u32 = 3;
/// Linked peers that a beacon goes to by unicast, where there is no multicast.
pub const BEACON_PEERS: usize = 3;
/// Lost nodes that a beacon goes to; where there are more, they take turns.
pub const BEACON_ABSENT: usize = 8;
/// Unlinked peers and seeds that a beacon goes to by unicast at most; where there are more, they take turns.
pub const BEACON_UNLINKED_MAX: usize = 1_024;

/// Datagrams of one sender that are looked at, per second. Many nodes may share a host.
pub const DATAGRAMS_PER_SENDER: u32 = 1_000;
/// Datagrams of all senders that are looked at, per second.
pub const DATAGRAMS_PER_SECOND: u32 = 20_000;
/// Senders of datagrams that are remembered; a further one takes the place of the oldest.
pub const SENDERS_MAX: usize = 4_096;
/// Time between two notices that a sender's datagrams are unreadable, microseconds.
pub const UNREADABLE_INTERVAL_US: u64 = 60_000_000;
/// Such notices about all senders, per minute.
pub const UNREADABLE_NOTICES_PER_MINUTE: u32 = 60;

/// Peers that are remembered; one more is only if it has a link.
pub const PEERS_MAX: usize = 16_384;
/// Addresses of one peer.
pub const PEER_ADDRESSES_MAX: usize = 4;
/// Time after its last beacon at which a peer without a link is forgotten, microseconds.
pub const UNHEARD_US: u64 = 5_000_000;
/// Silence after which a peer without a link is suspected, microseconds.
pub const SUSPECTED_US: u64 = 1_500_000;
/// Time after which a link is closed over which neither side wants anything, microseconds.
pub const LINK_IDLE_US: u64 = 60_000_000;
/// Links at a time beyond which nobody is dialled, unless configured otherwise.
pub const LINKS_MAX: usize = 4_096;

/// Dials under way. Those of seeds come on top.
pub const DIALS_MAX: usize = 64;
/// Dials of them to nodes that were lost and may come back.
pub const ABSENT_DIALS_MAX: usize = 4;
/// Time after which a dial of which nothing was heard has failed, microseconds: longer than a
/// connection and its Hello may take.
pub const DIAL_DEADLINE_US: u64 = 12_000_000;
/// How much later, at random, a peer is dialled for each peer that is known, microseconds: so much at
/// most, so that a node that joins many is not dialled by all of them at once.
pub const DIAL_SPREAD_PER_PEER_US: u64 = 1_000;
/// The most that comes of it, microseconds.
pub const DIAL_SPREAD_MAX_US: u64 = 3_000_000;
/// How much later the node with the greater id dials a peer that it heard, microseconds: the other one
/// has heard it too, as a rule, and its dial would win.
pub const DIAL_YIELD_US: u64 = 200_000;
/// How much later a broken link is dialled by who did not dial it before, microseconds.
pub const REDIAL_YIELD_US: u64 = 100_000;
/// Attempts after which an operator is told that a seed is not there yet: at a start of all nodes together the first
/// may well come too early.
pub const SEED_LATE_ATTEMPTS: u32 = 2;
/// Time between two notices that a peer's link ended because the protocol was broken, microseconds.
pub const VIOLATION_INTERVAL_US: u64 = 60_000_000;
/// Peers that such notices are about in that time.
pub const VIOLATORS_MAX: usize = 256;
/// Time given to the other one of two connections between the same nodes, microseconds.
pub const SUPERSEDED_US: u64 = 1_000_000;
/// Addresses whose dials failed that are remembered.
pub const BREAKERS_MAX: usize = 4_096;
/// Time after which such a failure does not count any more, microseconds.
pub const BREAKER_MEMORY_US: u64 = 60_000_000;
/// Addresses of this node that it met with, dialling.
pub const OWN_ADDRESSES_MAX: usize = 16;
/// Addresses of strangers that an operator was told about.
pub const STRANGERS_MAX: usize = 256;

/// Addresses of one seed.
pub const SEED_ADDRESSES_MAX: usize = 64;
/// Time after which a name is taken not to resolve, microseconds.
pub const RESOLVE_DEADLINE_US: u64 = 30_000_000;
/// Lost nodes that are dialled now and then.
pub const ABSENT_MAX: usize = 1_024;
/// Time for which they are, microseconds.
pub const ABSENT_US: u64 = 3_600_000_000;

/// Members told in one NodeState. Each link tells others, so that all are heard of soon.
pub const MEMBERS_TOLD: usize = 32;
/// Members looked at in one NodeState.
pub const MEMBERS_TAKEN_MAX: usize = 1_024;

/// Text of filters in one NodeState or InterestDelta, in bytes: far below the longest control frame.
pub const PART_BYTES: usize = 48 << 10;
/// What a filter is counted with there beside its text.
pub const PART_FILTER_BYTES: usize = 12;
/// Shortest time between two rounds of deltas, microseconds.
pub const DELTA_INTERVAL_US: u64 = 10_000;
/// Frames for peers that wait to be sent, beyond which changes of interest wait too.
pub const FRAMES_WAITING_MAX: usize = 65_536;
/// Bytes of frames given to the links in one turn, give or take a part.
pub const FRAME_BYTES_PER_TURN: usize = 1 << 20;
/// A turn, microseconds.
pub const FRAME_TURN_US: u64 = 5_000;

/// Time for a NodeState to come, microseconds.
pub const STATE_DEADLINE_US: u64 = 5_000_000;
/// Longest time between two requests for it, microseconds.
pub const STATE_RETRY_MAX_US: u64 = 60_000_000;
/// For how long a peer's beacons must speak of another interest than what is stored, with no delta
/// coming in, before the whole is asked for, microseconds: longer than a delta is under way.
pub const STATE_DIFFERS_US: u64 = 1_500_000;

/// How long retained values of two nodes stand still before their digests count, microseconds.
pub(crate) const RETAINED_STILL_US: u64 = 2_500_000;
/// Time between two comparisons with a peer, at first and at most, microseconds.
pub(crate) const COMPARE_AGAIN_US: u64 = 10_000_000;
pub(crate) const COMPARE_AGAIN_MAX_US: u64 = 300_000_000;
