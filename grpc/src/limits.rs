//! Every bound of the shim, by name.

use std::time::Duration;

/// Connections at a time, and calls of all of them.
pub const ROOM_MAX: usize = 1_024;
/// Calls of a connection at a time, streams among them.
pub(crate) const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Calls at a time, besides, that look how the daemon is, and what it can be asked.
pub(crate) const LOOKS_MAX: usize = 64;
/// One source has at most one part in so many of what there is for all.
pub(crate) const SOURCE_SHARE: usize = 4;
/// Bytes of long requests, from their first byte until they are answered, of all calls together: as many of the
/// longest as this holds, and one.
pub(crate) const UPLOAD_BYTES_MAX: usize = 64 << 20;
/// A request of so many bytes is a short one, which is not reckoned.
pub(crate) const SHORT_REQUEST_BYTES: usize = 16 << 10;
/// Fields of a request at most, each of which can take ten times its bytes in memory.
pub(crate) const REQUEST_FIELDS_MAX: usize = 8_192;
/// How long a request may take to come.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request beside its payload.
pub(crate) const REQUEST_BYTES_BESIDE_PAYLOAD: usize = 64 << 10;
/// Bytes of a call's headers.
pub(crate) const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Streams that a client may reset before they were looked at, until its connection ends.
pub(crate) const PENDING_RESETS_MAX: usize = 64;

/// Bytes that a client may send before they were looked at: of a stream, and of a connection.
pub(crate) const WINDOW_BYTES: (u32, u32) = (256 << 10, 512 << 10);

/// Time for the first words of a connection.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// When a silent connection is pinged, and how long it may take to answer.
pub(crate) const KEEPALIVE: (Duration, Duration) =
    (Duration::from_secs(30), Duration::from_secs(10));

/// Messages of a `PublishStream` that are published together.
pub(crate) const BATCH_MESSAGES: usize = 256;
/// What those take in memory at most, but for the last one.
pub(crate) const BATCH_BYTES: usize = 256 << 10;
/// The topics among that, which the answers repeat, but for the last one's.
pub(crate) const BATCH_TOPIC_BYTES: usize = 16 << 10;
/// Messages of one connection that wait to be published.
pub(crate) const OUTBOX_MESSAGES: usize = 4_096;
/// Bytes of those.
pub(crate) const OUTBOX_BYTES: usize = 256 << 10;

/// Bytes read of a subscription's messages at once.
pub(crate) const READ_BYTES: usize = 16 << 10;
/// A message of more bytes is reckoned before it is read.
pub(crate) const LONG_BYTES: usize = 16 << 10;
/// Longest message frame: the largest payload that can be configured, metadata, header.
pub(crate) const MESSAGE_BYTES_MAX: u32 = (64 << 20) + (64 << 10) + 48;
/// Longest control frame.
pub(crate) const CONTROL_BYTES_MAX: u32 = 256 << 10;
/// Nodes that the daemon names on one connection.
pub(crate) const NODES_MAX: usize = 65_536;
/// A client that does not take its messages says so to the daemon this often.
pub(crate) const STALLED_HEARTBEAT: Duration = Duration::from_secs(15);
/// Time for an answer of the daemon beside us.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages that were given to a client and are not acknowledged to the daemon, so that it sends them again
/// should they not have come: at most this many, and a quarter of the subscription's queue.
pub(crate) const TAIL_MESSAGES: usize = 1_024;
/// Bytes of those.
pub(crate) const TAIL_BYTES: usize = 1 << 20;
/// Messages that go to a client together: at most this many, and an eighth of those, …
pub(crate) const EVENTS_TOGETHER: usize = 64;
/// … and no further one behind so many bytes.
pub(crate) const EVENTS_TOGETHER_BYTES: usize = 16 << 10;
/// Topics of a subscription of which it is known how far their messages are acknowledged.
pub(crate) const POSITIONS_MAX: usize = 1_024;
/// Subscriptions without a stream that are known, as many as the daemon keeps.
pub(crate) const PARKED_MAX: usize = 10_000;
/// Bytes that they take.
pub(crate) const PARKED_BYTES_MAX: usize = 64 << 20;

/// Bytes of long messages on their way to clients, of all streams: as many of the longest as this holds, and one.
pub(crate) const LARGE_BYTES_MAX: usize = 64 << 20;
/// Bytes of messages that are looked for in the daemon's history for a client that comes back.
pub(crate) const FETCHED_BYTES_MAX: usize = 8 << 20;
/// Bytes that the names of topics take, of all streams.
pub(crate) const NAMES_BYTES_MAX: usize = 256 << 20;
/// What a name takes beside its text.
pub(crate) const NAME_BYTES_BESIDE: usize = 64;
/// Bytes of a call's answer that wait for its client, until no more is made.
pub(crate) const UNTAKEN_BYTES_MAX: usize = 32 << 10;
/// What a piece of an answer takes beside its bytes.
pub(crate) const PORTION_BYTES_BESIDE: usize = 512;
/// A piece of an answer of so many bytes is a short one, which is not reckoned.
pub(crate) const SHORT_ANSWER_BYTES: usize = 64 << 10;
/// Bytes of longer ones, of all calls together, but for events.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a client may take nothing of its call.
pub(crate) const STALLED_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to hear that a stream has ended for that, before it is reset.
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(30);
