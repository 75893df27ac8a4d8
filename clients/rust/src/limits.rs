//! Every bound of the client, by name. What an application may need to change is an option of
//! [`ClientBuilder`](crate::ClientBuilder) or [`SubscribeOptions`](crate::SubscribeOptions); the
//! rest are constants.

use std::time::Duration;

/// Bytes of messages that wait to be sent, by default.
pub(crate) const OUTBOX_BYTES: usize = 8 << 20;
/// Messages that wait to be sent, by default.
pub(crate) const OUTBOX_MESSAGES: usize = 10_000;
/// Acknowledgements and flushes awaited at a time.
pub(crate) const ACKS_AWAITED_MAX: usize = 65_536;
/// Topics bound for publishing at a time; a further one takes the id of the oldest.
pub(crate) const TOPICS_BOUND_MAX: usize = 16_384;

/// Subscriptions of one client, as the daemon bounds them.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 10_000;
/// Filters of one subscription, as the daemon bounds them.
pub(crate) const FILTERS_PER_SUBSCRIPTION_MAX: usize = 4_096;
/// Messages that wait in a subscription for the application, by default.
pub(crate) const BUFFER_MESSAGES: usize = 4_096;
/// Bytes that wait in a subscription for the application, by default.
pub(crate) const BUFFER_BYTES: usize = 8 << 20;
/// Bytes that filters and positions of one Subscribe frame may have together, with what the frame
/// adds to each: control frames are bounded.
pub(crate) const SUBSCRIBE_BYTES_MAX: usize = CONTROL_BYTES_MAX as usize - 1024;
/// Messages of a subscription after which they are acknowledged.
pub(crate) const ACK_MESSAGES: u64 = 512;
/// Bytes of a subscription's messages after which they are acknowledged.
pub(crate) const ACK_BYTES: usize = 1 << 20;
/// Longest time a message waits for its acknowledgement.
pub(crate) const ACK_WITHIN: Duration = Duration::from_millis(250);
/// Topics whose positions a subscription remembers, as the daemon bounds them.
pub(crate) const POSITIONS_MAX: usize = 1_024;
/// Nodes that have ended of which a subscription knows it.
pub(crate) const ENDED_NODES_MAX: usize = 64;
/// How long a subscription that has had everything of a daemon that ended may be nowhere without doubt. In more
/// time other nodes may have begun and ended, and nobody knows what they accepted.
pub(crate) const LEFT_WELL_FOR: Duration = Duration::from_secs(10);
/// Topic names a daemon may bind on one connection.
pub(crate) const TOPICS_DELIVERED_MAX: usize = 4 << 20;
/// Node handles a daemon may bind on one connection.
pub(crate) const NODES_MAX: usize = 65_536;

/// Bytes read at once. Messages of one read share its memory.
pub(crate) const READ_BYTES: usize = 128 << 10;
/// Free room below which a read buffer is not read into any more.
pub(crate) const READ_ROOM_BYTES_MIN: usize = 16 << 10;
/// Messages with a longer frame that do not arrive in one piece get memory of their own.
pub(crate) const LARGE_FRAME_BYTES: usize = READ_BYTES / 4;
/// Longest message frame accepted from a daemon: the largest configurable payload, metadata, header.
pub(crate) const MESSAGE_BYTES_MAX: u32 = (64 << 20) + (64 << 10) + 48;
/// Longest payload any daemon can be configured to accept.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Longest metadata table, until the daemon says otherwise.
pub(crate) const METADATA_BYTES_MAX: usize = 16 << 10;
/// Longest control frame accepted from a daemon.
pub(crate) const CONTROL_BYTES_MAX: u32 = 256 << 10;
/// Unsent control frames at which the daemon is not asked for more subscriptions.
pub(crate) const ASKED_AHEAD_BYTES: usize = 64 << 10;
/// Unsent control frames at which the daemon is not read any more: its Pings cause them. More than
/// what is asked ahead with one longest frame, so that both sides never wait for each other.
pub(crate) const CONTROL_BACKLOG_BYTES: usize = 512 << 10;
const _: () = assert!(CONTROL_BACKLOG_BYTES > ASKED_AHEAD_BYTES + CONTROL_BYTES_MAX as usize);
/// Buffers that grew beyond this are given back when they are empty and the connection is silent.
pub(crate) const IDLE_BUFFER_BYTES: usize = 64 << 10;

/// Time to connect and to be welcomed, by default.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the answer to a request or an acknowledged publish, by default.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to send what is queued when a client is closed, by default.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which the daemon is pinged, by default.
pub(crate) const PING_AFTER: Duration = Duration::from_secs(30);
/// Time for the answer to that ping, by default.
pub(crate) const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// Time a write may make no progress; also the time for a Pong while the daemon holds publishing
/// back, because it may then not read the Ping.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that lived this long was a good one: the next attempts begin with short delays.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(1);
