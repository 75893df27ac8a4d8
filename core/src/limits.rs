//! The bounds of the data plane, by name. What an operator may need to change is in [`Limits`];
//! the rest are constants that the design rests on.

use nexusd_wire::control::OverflowPolicy;

/// Past this many sends the loop looks at completions and inbox before it goes on, whether or not more wait.
pub const SENDS_PER_TURN: usize = 64;
/// Sends begun before other shards are told what waits for them.
pub const SENDS_PER_FLUSH: usize = SENDS_PER_TURN / 2;
/// Behind bursts of so many sends ...
pub const BURST_SENDS_MIN: u32 = 32;
/// ... of less than so many bytes each ...
pub const BURST_BYTES_PER_SEND_MAX: u32 = 4 << 10;
/// ... the loop may rest for so long per send, in microseconds ...
pub const REST_US_PER_SEND: u32 = 5;
/// ... and for this long at most, so that messages share sends (driver on io_uring, Linux 6.12).
pub const REST_US_MAX: u32 = 320;
/// Whether it does is tried behind so many of these bursts without a rest and as many with one ...
pub const TRIAL_BURSTS: u32 = 16;
/// ... in each so many.
pub const BURSTS_PER_TRIAL: u32 = 1_024;
/// Slices in one gathered send; the kernel's IOV_MAX.
pub const IOVECS_PER_SEND: usize = 1024;
/// From so many bytes on a gathered send takes no further extent. It ends with one, so it may have a segment more.
pub const BYTES_PER_SEND: usize = 128 << 10;

/// Shards of a node.
pub const SHARDS_MAX: usize = 64;
/// Parcels on their way from one shard to another. What does not fit waits at the sender.
pub const PARCELS_PER_INBOX: usize = 64;
/// Filters, topics and the like that clients have asked of another shard and that are not on their way
/// there; beyond it they are read no further.
pub const ASKED_MAX: usize = 1_024;
/// Time after which a parcel that did not fit is tried again, microseconds.
pub const FLUSH_RETRY_US: u64 = 1_000;
/// Parcels of an inbox that a shard keeps for reuse.
pub const SPARE_PARCELS: usize = 4;
/// Bytes of messages in one batch for another shard: a segment's, for it can become one.
pub const BATCH_BYTES: usize = SEGMENT_BYTES;
/// A batch with at least so many bytes of messages becomes a segment of their owner's log; those of a
/// smaller one are copied there.
pub const ADOPTED_BYTES_MIN: usize = SEGMENT_BYTES / 4;
/// How many messages ahead the headers of such a batch are fetched, for they lie in the cache of its
/// publishers' core.
pub const HEADERS_AHEAD: usize = 16;
/// How far ahead of what is written to a batch its lines are fetched, in bytes: the owner's core read
/// them last.
pub const LINES_AHEAD_BYTES: usize = 2 << 10;
/// Batches on their way to one other shard: at least, and at most.
pub const BATCHES_PER_NEIGHBOUR: (usize, usize) = (2, 16);
/// Batches on their way from one shard to all others, within those bounds.
pub const BATCHES_MAX: usize = 32;
/// Bytes taken from inboxes before what they cause to be sent is sent.
pub const INBOX_BYTES_PER_TURN: usize = 512 << 10;
/// Items taken from inboxes in a turn.
pub const INBOX_ITEMS_PER_TURN: usize = 4_096;
/// Lent segments asked for at a time, and free ones below which some are asked for.
pub const SEGMENTS_RECALLED: usize = 4;

/// Receive buffers that all connections of a shard share. The pool has to stay inside the
/// second-level cache.
pub const RECEIVE_BUFFERS: u16 = 8;
/// Bytes of one receive buffer.
pub const RECEIVE_BUFFER_BYTES: u32 = 64 << 10;
/// Bytes fed to the state machine before what it wants sent is sent.
pub const RECEIVE_BYTES_PER_TURN: usize = 256 << 10;
/// The same for the driver on epoll, and the bytes of its one receive buffer: as much as a send takes
/// along, so that a stream leaves as it came.
pub const EPOLL_BYTES_PER_TURN: usize = 128 << 10;
/// What an accepted connection counts for in that.
pub const ACCEPT_COST_BYTES: usize = 4 << 10;
/// Connections that the service is done with and whose end is begun in one turn.
pub const CLOSES_PER_TURN: usize = 64;
/// Receives that ran out of buffers and are armed again in one turn.
pub const REARMS_PER_TURN: usize = 64;
/// The rest of a large frame is received in place only if it is at least this long, in bytes.
pub const RECEIVE_IN_PLACE_BYTES_MIN: usize = 64 << 10;
/// Commands of other threads taken in one turn.
pub const COMMANDS_PER_TURN: usize = 256;
/// Connections that come from other shards, begun in one turn; what was read of them already counts as
/// received.
pub const ADOPTIONS_PER_TURN: usize = 64;
/// Connections a driver accepts above its limit, so that the shard can refuse them with a reason.
pub const REFUSALS_AT_A_TIME: usize = 16;
/// Time after which a listener that ran out of file descriptors tries again, microseconds.
pub const ACCEPT_RETRY_US: u64 = 100_000;
/// Time a closed connection is still read, so that its last frames are not lost to a reset,
/// microseconds.
pub const LINGER_US: u64 = 1_000_000;
/// Bytes a closed connection is still read.
pub const LINGER_BYTES_MAX: u32 = 1 << 20;

/// Bytes of one log segment. A few fit the second-level cache together with the receive buffers.
pub const SEGMENT_BYTES: usize = 128 << 10;
/// Memory that one extent in a queue is counted with.
pub const EXTENT_BYTES: usize = 48;
/// Room for items that a drained queue keeps; more is given back.
pub const ITEMS_KEPT: usize = 1024;
/// Message frames with a longer stride get a segment of their own and are received in place.
pub const LARGE_FRAME_BYTES: usize = SEGMENT_BYTES / 4;
/// Large messages that are being received take at most this share (one part in …) of the log, so
/// that some that never come whole leave room for others. One alone may take all of it.
pub const LANDING_SHARE: usize = 2;
/// A segment is evacuated when less than this share (one part in …) of it is live.
pub const EVACUATION_SHARE: usize = 8;
/// Memory that a run kept for replay is counted with, beside its messages.
pub const KEPT_RUN_BYTES: usize = 48;
/// Lists of runs whose memory is kept for other segments.
pub const SPARE_RUN_LISTS: usize = 8;
/// Messages of received bytes whose topics are fetched ahead.
pub const LOOKED_AHEAD_MAX: usize = 512;
/// Changes of topic in a connection's last bytes from which on that is done,
pub const LOOK_AHEAD_TURNS: u64 = 64;
/// and topics of the shard: fewer are in a cache.
pub const LOOK_AHEAD_TOPICS: usize = 2_048;
/// Runs looked at to find out how much of a segment is still to be kept for replay.
pub const RUNS_SAMPLED: usize = 16;
/// Segments kept for replay that are looked at when a new one is begun.
pub const LOOKS_PER_SEGMENT: usize = 4;
/// Segments kept for replay of which none is given back before nothing of it is wanted any more.
pub const SEGMENTS_LEFT_ALONE: usize = 16;
/// And of others when less than this share (one part in …) of it is wanted: moving that costs as much as receiving it.
pub const WORTH_MOVING_SHARE: usize = 8;
/// Bytes of messages that move for replay's sake at a time.
pub const SURVIVOR_BYTES_MAX: usize = SEGMENT_BYTES / 2;
/// Free segments kept for reuse; more are given back to the system.
pub const FREE_SEGMENTS_KEPT: usize = 16;

/// What topics remember of the subscriptions that match them takes at most this share (one part in …) of
/// `--memory-limit`, …
pub const AUDIENCES_SHARE: usize = 4;
/// … or this many bytes, for each shard's own topics and for those of others, if that is more.
pub const AUDIENCES_BYTES_MIN: usize = 1 << 20;
/// Memory that a topic is counted with for each subscription that matches it.
pub const MATCH_BYTES: usize = 16;

/// Longest control frame, in bytes.
pub const CONTROL_BYTES_MAX: u32 = 256 << 10;
/// Longest metadata table, in bytes.
pub const METADATA_BYTES_MAX: u32 = 16 << 10;
/// Longest payload that any node may be set to take, in bytes: what another node may send, whatever this one takes.
pub const PAYLOAD_BYTES_MAX: u32 = 64 << 20;
/// Filters of one subscription.
pub const FILTERS_PER_SUBSCRIPTION_MAX: usize = 4_096;
/// Subscriptions and topic ids of all clients take at most this share (one part in …) of
/// `--memory-limit`, …
pub const CLIENT_SHARE: usize = 8;
/// … or this many bytes, if that is more.
pub const CLIENT_BYTES_MIN: usize = 4 << 20;
/// Memory that a subscription is counted with, without its filters.
pub const SUBSCRIPTION_BYTES: usize = 512;
/// Memory that a filter is counted with beside its text.
pub const FILTER_BYTES: usize = 32;
/// Memory that a level of the subscription index is counted with beside its text.
pub const INDEX_NODE_BYTES: usize = 128;
/// Memory that a topic id bound by a client is counted with.
pub const BINDING_BYTES: usize = 16;
/// Parked subscriptions of a node; one more ends the one that expires first.
pub const PARKED_MAX: usize = 10_000;
/// Topics of which a subscription says how far its client had come.
pub const POSITIONS_MAX: usize = 1_024;
/// Topics of subscriptions that a shard fetches from other nodes at a time.
pub const FETCHES_MAX: usize = 65_536;
/// How long a subscription that comes back waits for nodes to be found: since the start of this one, and
/// since it came if its client has had something of one to which there is no link.
pub const FETCH_FOUND_US: u64 = 1_000_000;
/// How long it waits for nodes that do not answer.
pub const FETCH_TIMEOUT_US: u64 = 2_000_000;
/// How long after its start a node hands over what it accepted before it knew what a peer wants.
pub const EARLY_MESSAGES_US: u64 = 5_000_000;
/// How long nodes may answer that did not in time and that there is no link to.
pub const FETCH_LATE_US: u64 = 60_000_000;
/// How long losses on links that nobody can name wait to be told together.
pub const UNNAMED_LOSSES_US: u64 = 250_000;
/// How long a peer gets a topic live because it asked for what is held of it. By then it has told what it
/// wants.
pub const ASKED_FILTER_KEPT_US: u64 = 30_000_000;
/// Retained values take at most this share (one part in …) of `--memory-limit`.
pub const RETAINED_SHARE: usize = 8;
/// Memory that a retained value is counted with beside its frame.
pub const RETAINED_BYTES: usize = 96;
/// Retained values that are handed to a queue at a time, in bytes, give or take one.
pub const RETAINED_BYTES_PER_STEP: usize = 64 << 10;
/// Such portions that queues of the shard itself get before anything else is done.
pub const SCANS_PER_TICK: usize = 8;
/// Topics looked at for that.
pub const RETAINED_LOOKS_PER_STEP: usize = 4_096;
/// Retained values given up at a time because they have expired.
pub const RETAINED_REAPED_PER_TICK: usize = 4_096;
/// Bytes that are not live in a queue at which no more retained values are asked for.
pub const RETAINED_AHEAD_BYTES: u64 = 64 << 10;
/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 10_000;
/// Unsent control bytes (acks, pongs, confirmations) at which a connection is no longer read.
pub const CONTROL_BACKLOG_BYTES: usize = 256 << 10;
/// Memory that a connection's buffer keeps when it is empty; more is given back.
pub const BUFFER_BYTES_KEPT: usize = 64 << 10;
/// What waits in the buffers of all connections takes at most this share (one part in …) of
/// `--memory-limit`, …
pub const BUFFERED_SHARE: usize = 4;
/// … or this many bytes a shard, if that is more.
pub const BUFFERED_BYTES_MIN: usize = 2 << 20;
/// Acknowledgements owed to a publisher at which it is no longer read.
pub const ACKS_OWED_MAX: usize = 8_192;
/// Acknowledgements that are sent before more messages are looked at, so that a PublishAck frame
/// stays far below the limit of control frames.
pub const ACKS_PER_FRAME: usize = 1_024;
/// Bytes a held-back publisher is still read, so that its acks and pings pass.
pub const BLOCKED_READ_BYTES: usize = 1 << 20;
/// Topics named in one Gap; the messages of further ones are counted together.
pub const GAP_TOPICS_MAX: usize = 64;
/// Memory that a loss which is to be told is counted with, beside the topics it names.
pub const GAP_BYTES: usize = 112;
/// Losses to be told, or told and perhaps to be told again, take at most this share (one part in …) of
/// the log's budget, …
pub const GAPS_SHARE: usize = 8;
/// … and so much for each subscription. Beyond it they are joined, and name nothing any more.
pub const GAPS_BYTES_SPARED: usize = 2 * GAP_BYTES;
/// Gaps of different reasons that follow each other in a queue; further losses join the last one.
pub const GAPS_TOGETHER_MAX: usize = 8;
/// Losses that are looked for when a client comes back; older ones stay lost.
pub const LOSSES_RECOVERED_MAX: usize = 128;
/// Losses of a subscription that were told and may have to be told again; further ones are told together.
pub const GAPS_KEPT_MAX: usize = 64;
/// Time between two warnings to a subscription that falls behind, microseconds.
pub const WARNING_INTERVAL_US: u64 = 1_000_000;
/// An overflowing queue is cut to this many eighths of its limit.
pub const OVERFLOW_KEEP_EIGHTHS: u64 = 7;
/// What is left when an extent goes whole for that: at least this many eighths of what is kept.
pub const OVERFLOW_LEAVE_EIGHTHS: u64 = 6;
/// A blocked queue lets publishers go on at this many eighths of its limit.
pub const BLOCK_RESUME_EIGHTHS: u64 = 4;

/// Bytes queued for another node, unacknowledged ones included, unless configured otherwise.
pub const LINK_QUEUE_BYTES: u64 = 16 << 20;
/// Messages of a link after which they are acknowledged, …
pub const LINK_ACK_MESSAGES: u64 = 4_096;
/// … or bytes, far below what its sender keeps.
pub const LINK_ACK_BYTES: usize = 1 << 20;
/// Characters of a peer's last word that are reported.
pub const PEERS_WORD_CHARACTERS: usize = 200;
/// Messages that one loss on a link may name of a topic.
pub const LOST_ON_LINK_MAX: u64 = 1 << 40;
/// Time between two looks at all links, microseconds.
pub const LINK_TICK_US: u64 = 250_000;
/// Silence towards a peer after which it is told that this node lives, microseconds.
pub const LINK_HEARTBEAT_US: u64 = 500_000;
/// Silence of a peer after which it is suspected, microseconds.
pub const LINK_SUSPECTED_US: u64 = 1_500_000;
/// Silence of a peer, or time without a connection, after which it is dead, microseconds.
pub const LINK_DEAD_US: u64 = 5_000_000;
/// Time for which a link stays shut that ended because one of the nodes broke the protocol, microseconds; twice as
/// long each time, as long as it does not stand for [`LINK_SOUND_US`] between. Beyond [`LINK_DEAD_US`] the peer is
/// dead, and what is queued for it goes: should that be what it cannot take, the link is sound again.
pub const LINK_SHUT_US: u64 = 100_000;
/// How often that is doubled.
pub const LINK_SHUT_DOUBLINGS: u32 = 7;
/// Time for which a link has to stand so that what was before does not count, microseconds.
pub const LINK_SOUND_US: u64 = 60_000_000;
/// Time between two reports that a peer's messages are longer than this node takes, microseconds.
pub const LINK_TOO_LARGE_US: u64 = 60_000_000;
/// Time for what is under way from a node whose successor was heard, microseconds.
pub const LINK_RETIRE_US: u64 = 3_000_000;
/// How long a node remembers how far the stream of a peer that it gave up had come, microseconds.
pub const ENDED_STREAM_KEPT_US: u64 = 600_000_000;
/// How long nodes remember that a retained value was cleared, milliseconds.
pub const CLEARED_KEPT_MS: u32 = 3_600_000;
/// How far the clock of another node may be ahead for its retained values to count, microseconds.
pub const CLOCK_AHEAD_MAX_US: u64 = 60_000_000;
/// Connections of other nodes at a time, those that do not say who they are yet included.
pub const LINKS_MAX: usize = 4_096;

/// Entries of tables that a page of a list looks at, give or take one.
pub const INSPECTION_LOOKS: usize = 2_048;
/// Entries that it holds.
pub const INSPECTION_ENTRIES: usize = 512;
/// Bytes of a client's name, and of what its software is called, that are kept to be shown.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;
/// Time between two measurements of how long a link takes there and back, microseconds.
pub const LINK_PING_US: u64 = 5_000_000;

/// Time for Hello, microseconds.
pub const HELLO_TIMEOUT_US: u64 = 5_000_000;
/// Silence after which a client is pinged, microseconds.
pub const PING_AFTER_US: u64 = 30_000_000;
/// Time for the answer to that ping, microseconds.
pub const PONG_TIMEOUT_US: u64 = 10_000_000;
/// Time between two errors that tell a connection that its source publishes too fast, microseconds.
pub const RATE_ERROR_INTERVAL_US: u64 = 1_000_000;
/// Time after which a source that has left is looked at, to forget it, microseconds: the second that
/// its rates count in.
pub const SOURCE_RECOVERY_US: u64 = 1_000_000;
/// Sources without a connection that are remembered for what they did in the last second.
pub const SOURCES_IDLE_MAX: usize = 16_384;
/// Time a write may make no progress, microseconds.
pub const WRITE_TIMEOUT_US: u64 = 60_000_000;
/// Silence towards a subscriber after which a Heartbeat is sent, microseconds.
pub const HEARTBEAT_AFTER_US: u64 = 30_000_000;
/// Time a connection that was told it is over has to go, microseconds.
pub const CLOSE_LINGER_US: u64 = 2_000_000;
/// Shortest time between two looks at all connections, microseconds.
pub const SCAN_INTERVAL_US: u64 = 250_000;
/// Topics looked at for idleness per scan.
pub const TOPICS_PER_SCAN: usize = 5_000;
/// Nodes of the subscription index looked at for that, give or take one topic.
pub const INDEX_LOOKS_PER_SCAN: usize = 20_000;
/// Idle time after which a topic is forgotten, microseconds.
pub const TOPIC_IDLE_US: u64 = 60_000_000;

/// The bounds an operator can set. [`Limits::default`] holds the documented defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Memory of the log and all queues of the node, in bytes (`--memory-limit`).
    pub memory_bytes: usize,
    /// Longest payload, in bytes (`--max-payload`).
    pub payload_bytes: u32,
    /// Client connections at a time (`--max-connections`).
    pub connections: usize,
    /// The same of one source address; 0 is no limit, here and below (`--max-connections-per-source`).
    pub connections_per_source: usize,
    /// New connections of one source address, per second (`--accept-rate-per-source`).
    pub accept_rate_per_source: u32,
    /// Messages that one source address publishes, per second (`--publish-rate-per-source`).
    pub publish_rate_per_source: u32,
    /// Topics at a time (`--max-topics`).
    pub topics: usize,
    /// Messages queued per subscription; 0 leaves bytes alone (`--subscriber-queue-limit`).
    pub queue_messages: u64,
    /// Bytes queued per subscription (`--subscriber-queue-bytes`).
    pub queue_bytes: u64,
    /// What happens when a queue is full (`--backpressure-policy`).
    pub policy: OverflowPolicy,
    /// How long a `block` queue holds publishers back before it drops, microseconds
    /// (`--block-timeout-ms`).
    pub block_timeout_us: u64,
    /// Newest messages of each topic that are kept for replay (`--message-buffer-size`).
    pub replay_messages: u64,
    /// Memory for messages that are kept for replay alone, in bytes (`--max-buffer-memory`).
    pub replay_bytes: usize,
    /// Bytes queued for another node, unacknowledged ones included.
    pub link_queue_bytes: u64,
    /// How long a parked subscription waits for its client, microseconds; 0: a broken connection parks
    /// none (`--paused-subscription-ttl`).
    pub parked_ttl_us: u64,
    /// Time to live of messages that name none, milliseconds; 0 is none (`--default-message-ttl`).
    pub default_ttl_ms: u32,
    /// Time between two searches for expired messages, microseconds (`--ttl-reaper-interval`).
    pub reaper_interval_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 384 << 20,
            payload_bytes: 4 << 20,
            connections: 10_000,
            connections_per_source: 0,
            accept_rate_per_source: 0,
            publish_rate_per_source: 0,
            topics: 2_000_000,
            queue_messages: 10_000,
            queue_bytes: 16 << 20,
            policy: OverflowPolicy::DropOldest,
            block_timeout_us: 5_000_000,
            replay_messages: 5,
            replay_bytes: 50 << 20,
            link_queue_bytes: LINK_QUEUE_BYTES,
            parked_ttl_us: 300_000_000,
            default_ttl_ms: 0,
            reaper_interval_us: 1_000_000,
        }
    }
}

impl Limits {
    /// Takes on those that can change while a node runs. What is there already keeps what it began with: queues
    /// their bounds, messages their times to live; and connections that began while nothing was bounded per source
    /// stay without such bounds.
    pub fn take_on(&mut self, new: &Self) {
        let Self {
            memory_bytes: _,
            payload_bytes: _,
            connections: _,
            connections_per_source,
            accept_rate_per_source,
            publish_rate_per_source,
            topics,
            queue_messages,
            queue_bytes,
            policy,
            block_timeout_us,
            replay_messages: _,
            replay_bytes: _,
            link_queue_bytes: _,
            parked_ttl_us: _,
            default_ttl_ms,
            reaper_interval_us,
        } = *new;
        *self = Self {
            connections_per_source,
            accept_rate_per_source,
            publish_rate_per_source,
            topics,
            queue_messages,
            queue_bytes,
            policy,
            block_timeout_us,
            default_ttl_ms,
            reaper_interval_us,
            ..self.clone()
        };
    }

    /// Whether anything is bounded per source address.
    pub(crate) fn are_set_per_source(&self) -> bool {
        self.connections_per_source != 0
            || self.accept_rate_per_source != 0
            || self.publish_rate_per_source != 0
    }
}
