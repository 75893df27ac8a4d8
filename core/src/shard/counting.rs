//! How many messages came from each connection: what the shard counted meanwhile, by runs and batches, so
//! that no message is counted by itself.
//!
//! While one connection's bytes are dealt with, others that it no longer holds back may go on: what comes
//! from them is theirs alone.

use super::event::{ConnectionId, Now};
use super::plane::Plane;
use super::{Shard, open_connection};

/// Where the counters stood when a connection's bytes began to be dealt with.
#[derive(Clone, Copy)]
pub(super) struct Count {
    accepted: u64,
    between: u64,
}

impl Shard {
    /// Deals with received bytes, and counts the messages among them.
    pub(super) fn read(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        let count = self.begin_count();
        self.read_bytes(id, bytes, now);
        self.end_count(id, count);
    }

    #[inline]
    pub(super) fn begin_count(&mut self) -> Count {
        let between = std::mem::take(&mut self.accepted_between);
        Count { accepted: self.plane.accepted(), between }
    }

    /// No run of the connection is open any more.
    #[inline]
    pub(super) fn end_count(&mut self, id: ConnectionId, count: Count) {
        let accepted = self.plane.accepted() - count.accepted;
        let between = std::mem::replace(&mut self.accepted_between, count.between + accepted);
        if let Some(connection) = open_connection(&mut self.connections, id) {
            connection.session.messages_in += accepted - between;
        }
    }
}

impl Plane {
    /// Messages accepted so far from connections of this shard, and, while none of their bytes is dealt with,
    /// from others.
    #[inline]
    fn accepted(&mut self) -> u64 {
        if !self.passed_to.is_empty() {
            self.count_passed();
        }
        self.metrics.messages_in + self.passed
    }

    #[cold]
    fn count_passed(&mut self) {
        for owner in std::mem::take(&mut self.passed_to) {
            self.passed += self.neighbours.of(owner).take_passed();
        }
    }
}
