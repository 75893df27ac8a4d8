//! Connections that are over, but not at once: closed ones, and those whose peer is gone.
//!
//! Closing a TCP socket with unread bytes answers them with a reset, and a reset can destroy the frames
//! we sent last on the peer's side. So a connection that the service ends is shut down for sending
//! only, and what the peer still says is read and thrown away: until it ends too, up to
//! [`LINGER_BYTES_MAX`] and for [`LINGER_US`].
//!
//! A connection whose peer is gone while the service has paused it has as long for the service to take
//! what came before the end.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;

use socket2::SockRef;

use super::connection::{Connection, ConnectionTable, Phase};
use crate::limits::{LINGER_BYTES_MAX, LINGER_US};
use crate::shard::event::ConnectionId;

/// Reads of leftover bytes from a socket that is closed in a hurry.
const LAST_READS_MAX: usize = 64;

/// The connections that linger, and those that are held.
#[derive(Default)]
pub(super) struct Lingering {
    /// Each with the end of its time, the earliest first; some have ended before.
    line: VecDeque<(u64, ConnectionId)>,
}

impl Lingering {
    /// From now on the connection sends no more and lingers.
    pub(super) fn begin(&mut self, id: ConnectionId, connection: &mut Connection, now_us: u64) {
        connection.phase = Phase::Lingering;
        if let Some(socket) = connection.socket() {
            // Fails only if the peer was faster, which the receive will tell.
            let _ = SockRef::from(&socket).shutdown(Shutdown::Write);
        }
        self.line.push_back((now_us + LINGER_US, id));
    }

    /// The peer is gone, but the service has not taken all it said: it has a while for that.
    pub(super) fn hold(&mut self, id: ConnectionId, now_us: u64) {
        self.line.push_back((now_us + LINGER_US, id));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// When the next one's time is over.
    pub(super) fn until(&self) -> Option<u64> {
        self.line.front().map(|(until, _)| *until)
    }

    /// Takes out a connection whose time is over, and forgets those that ended before.
    pub(super) fn pop_due(
        &mut self,
        connections: &mut ConnectionTable,
        now_us: u64,
    ) -> Option<ConnectionId> {
        while let Some((until, id)) = self.line.front().copied() {
            let lingers = connections
                .find(id)
                .is_some_and(|slot| slot.phase == Phase::Lingering || slot.is_leaving());
            if lingers && until > now_us {
                return None;
            }
            self.line.pop_front();
            if lingers {
                return Some(id);
            }
        }
        None
    }
}

impl Connection {
    /// Whether a connection that lingers has been listened to for long enough.
    pub(super) fn has_lingered(&self) -> bool {
        self.discarded >= LINGER_BYTES_MAX
    }
}

/// Reads what the peer has sent already, so that closing the socket does not answer it with a reset
/// that destroys our last frames.
pub(super) fn discard_unread(socket: BorrowedFd<'_>) {
    let socket = SockRef::from(&socket);
    let mut scratch = [MaybeUninit::<u8>::uninit(); 4_096];
    for _ in 0..LAST_READS_MAX {
        match socket.recv_with_flags(&mut scratch, libc::MSG_DONTWAIT) {
            Ok(1..) => {}
            _ => break,
        }
    }
}
