//! What a shard counts. Plain integers: the shard is their only writer, and a sample is a copy.

use std::ops::AddAssign;

use nexusd_wire::control::GapReason;

/// Counters and gauges of one shard. Counters only grow while the daemon runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Messages accepted from publishers and other nodes.
    pub messages_in: u64,
    /// Their bytes, whole frames.
    pub bytes_in: u64,
    /// Messages written to sockets of subscribers and other nodes.
    pub messages_out: u64,
    /// Of those, the ones to other nodes.
    pub forwarded: u64,
    /// All bytes written to sockets.
    pub bytes_out: u64,
    /// Sends carried out.
    pub sends: u64,
    /// Messages accepted that no subscription wanted.
    pub no_subscribers: u64,
    /// Publishes and topic binds refused (bad topic, too large, no memory, too fast), told by Error or
    /// PublishAck.
    pub rejected: u64,
    /// Messages dropped from full queues, told by a Gap.
    pub dropped_slow_consumer: u64,
    /// Messages dropped to stay inside the memory limit, told by a Gap.
    pub dropped_memory: u64,
    /// Messages that links lost, told by a Gap to the subscriptions that would have got them.
    pub lost_on_links: u64,
    /// Messages that were queued for another node when that was given up.
    pub dropped_link: u64,
    /// Messages that other nodes sent.
    pub relayed: u64,
    /// Links now.
    pub links: u64,
    /// Messages that expired in a queue, once for each.
    pub ttl_expired: u64,
    /// Messages that were queued for a connection when it ended.
    pub dropped_disconnect: u64,
    /// Times a publisher was held back by a full `block` queue.
    pub publisher_pauses: u64,
    /// Connections ended because a subscription of policy `disconnect` overflowed.
    pub slow_disconnected: u64,
    /// Connections ended because the most waited for them when too much did in all.
    pub greedy_disconnected: u64,
    /// Connections that broke the protocol.
    pub protocol_errors: u64,
    /// Connections refused because of the connection limit.
    pub connections_refused: u64,
    /// Connections refused because their source address has as many as it may.
    pub source_connections_refused: u64,
    /// Connections refused because their source address opens them faster than it may.
    pub source_accepts_refused: u64,
    /// Publishes refused because their source address publishes faster than it may; in `rejected` too.
    pub source_messages_refused: u64,
    /// Connections that another shard took over, which keeps what they came back for.
    pub connections_moved: u64,
    /// Times a listener could not accept for want of file descriptors or memory.
    pub accepts_failed: u64,
    /// Connections closed by a timeout.
    pub timeouts: u64,
    /// Log segments evacuated (their rest copied to compact blocks).
    pub segments_evacuated: u64,
    /// Connections now open, those of links to other nodes included.
    pub connections: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Of these, subscriptions that are parked.
    pub parked: u64,
    /// Parked subscriptions that went on.
    pub resumed: u64,
    /// Topics now.
    pub topics: u64,
    /// Messages now queued, over all subscriptions and links.
    pub queued_messages: u64,
    /// Bytes now queued, over all subscriptions and links (shared bytes counted once per queue).
    pub queued_bytes: u64,
    /// Retained values now.
    pub retained: u64,
    /// Memory now taken by them, in bytes.
    pub retained_bytes: u64,
    /// Memory now taken by the log in bytes: its segments, spare ones included, large messages, blocks,
    /// and the queues' extents.
    pub log_bytes: u64,
    /// Frames of the next minor version that peers sent.
    #[cfg(feature = "protocol-next")]
    pub next_frames: u64,
}

impl AddAssign for Metrics {
    fn add_assign(&mut self, other: Self) {
        // Named one by one, so that no field can be forgotten.
        let Self {
            messages_in,
            bytes_in,
            messages_out,
            forwarded,
            bytes_out,
            sends,
            no_subscribers,
            rejected,
            dropped_slow_consumer,
            dropped_memory,
            lost_on_links,
            dropped_link,
            relayed,
            links,
            ttl_expired,
            dropped_disconnect,
            publisher_pauses,
            slow_disconnected,
            greedy_disconnected,
            protocol_errors,
            connections_refused,
            source_connections_refused,
            source_accepts_refused,
            source_messages_refused,
            connections_moved,
            accepts_failed,
            timeouts,
            segments_evacuated,
            connections,
            subscriptions,
            parked,
            resumed,
            topics,
            queued_messages,
            queued_bytes,
            retained,
            retained_bytes,
            log_bytes,
            #[cfg(feature = "protocol-next")]
            next_frames,
        } = other;
        self.messages_in += messages_in;
        self.bytes_in += bytes_in;
        self.messages_out += messages_out;
        self.forwarded += forwarded;
        self.bytes_out += bytes_out;
        self.sends += sends;
        self.no_subscribers += no_subscribers;
        self.rejected += rejected;
        self.dropped_slow_consumer += dropped_slow_consumer;
        self.dropped_memory += dropped_memory;
        self.lost_on_links += lost_on_links;
        self.dropped_link += dropped_link;
        self.relayed += relayed;
        self.links += links;
        self.ttl_expired += ttl_expired;
        self.dropped_disconnect += dropped_disconnect;
        self.publisher_pauses += publisher_pauses;
        self.slow_disconnected += slow_disconnected;
        self.greedy_disconnected += greedy_disconnected;
        self.protocol_errors += protocol_errors;
        self.connections_refused += connections_refused;
        self.source_connections_refused += source_connections_refused;
        self.source_accepts_refused += source_accepts_refused;
        self.source_messages_refused += source_messages_refused;
        self.connections_moved += connections_moved;
        self.accepts_failed += accepts_failed;
        self.timeouts += timeouts;
        self.segments_evacuated += segments_evacuated;
        self.connections += connections;
        self.subscriptions += subscriptions;
        self.parked += parked;
        self.resumed += resumed;
        self.topics += topics;
        self.queued_messages += queued_messages;
        self.queued_bytes += queued_bytes;
        self.retained += retained;
        self.retained_bytes += retained_bytes;
        self.log_bytes += log_bytes;
        #[cfg(feature = "protocol-next")]
        (self.next_frames += next_frames);
    }
}

impl Metrics {
    /// Counts messages dropped for a reason that a Gap will tell.
    pub(crate) fn count_dropped(&mut self, reason: GapReason, messages: u64) {
        match reason {
            GapReason::Memory => self.dropped_memory += messages,
            _ => self.dropped_slow_consumer += messages,
        }
    }
}
