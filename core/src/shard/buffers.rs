//! What waits in the buffers of connections: bytes that were received and not dealt with yet, and
//! control frames that clients have not taken.
//!
//! Each connection's are bounded, but whoever opens very many could fill the memory with them. So all of
//! a shard stay within a share of `--memory-limit`: beyond it, the connection with the most is ended,
//! until what is left fits.
//! Invariant: `Buffers::bytes` is the sum of what connections are counted with.

use nexusd_wire::control::ErrorCode;

use super::event::Now;
use super::{Shard, fatal, open_connection};
use crate::connection::Connection;
use crate::limits::{BUFFERED_BYTES_MIN, BUFFERED_SHARE, Limits};
use crate::session::SessionState;

const TOO_MUCH_WAITS: &str = "more waits for the daemon's connections than its memory allows, and for \
                              this one the most (--memory-limit)";

/// What waits for all connections of a shard, and how much may.
#[derive(Debug)]
pub(super) struct Buffers {
    bytes: usize,
    bytes_max: usize,
}

impl Buffers {
    pub(super) fn new(limits: &Limits, shards: usize) -> Self {
        let share = limits.memory_bytes / BUFFERED_SHARE / shards;
        Self { bytes: 0, bytes_max: share.max(BUFFERED_BYTES_MIN) }
    }

    /// Counts what waits for a connection now.
    #[inline]
    pub(super) fn count(&mut self, connection: &mut Connection) {
        let bytes = connection.buffered_bytes();
        self.bytes += bytes;
        self.bytes -= std::mem::replace(&mut connection.counted_bytes, bytes);
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, connection: &Connection) {
        self.bytes -= connection.counted_bytes;
    }

    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.bytes > self.bytes_max
    }
}

impl Shard {
    /// Ends the connection for which the most waits.
    #[cold]
    pub(super) fn end_greediest(&mut self, now: Now) {
        let there = self.connections.iter().flatten();
        let Some(greediest) = there.max_by_key(|connection| connection.counted_bytes) else {
            return;
        };
        let (id, state) = (greediest.id, greediest.session.state);
        let hears = greediest.outbound.blocked_since_us.is_none();
        self.plane.metrics.greedy_disconnected += 1;
        match state {
            SessionState::AwaitingHello | SessionState::Open if hears => {
                self.fail(id, &fatal(ErrorCode::LimitReached, TOO_MUCH_WAITS), now);
            }
            // There is no more to be said, or nobody who hears it.
            _ => self.close_now(id),
        }
        if let Some(connection) = open_connection(&mut self.connections, id) {
            self.buffers.count(connection);
        }
    }

    /// Checks what must hold between events.
    pub(super) fn assert_buffers(&self) {
        let counted = self.connections.iter().flatten().map(|connection| connection.counted_bytes);
        assert_eq!(counted.sum::<usize>(), self.buffers.bytes, "what waits is counted");
        assert!(!self.buffers.is_over(), "what waits for connections is within its bound");
    }
}
