//! The next minor version of the protocol, for the test that nodes of two versions live beside each other:
//! a kind of frame that is sent to those who agreed to that minor, once, and a flag on each message that
//! this node accepts.
//! Invariant: nothing of it goes to anybody who does not know it and could not ignore it.

use nexusd_wire::{Frame, FrameEncoder, Header, MessageFlags, NEXT_FLAG, NEXT_KIND};

use super::event::ConnectionId;
use super::violation::Violation;
use super::{Shard, open_connection};

/// The minor that has the new kind.
const NEXT_MINOR: u8 = 1;

impl Shard {
    /// Both ends of a connection know which minor they speak. A client is told so at once, a node when
    /// the connection is the link.
    pub(super) fn agree_on(&mut self, id: ConnectionId, minor: u8, is_client: bool) {
        if let Some(connection) = open_connection(&mut self.connections, id) {
            connection.session.minor = minor;
        }
        if is_client {
            self.say_next(id);
        }
    }

    /// Says what only the next minor has, to who speaks it.
    pub(super) fn say_next(&mut self, id: ConnectionId) {
        if let Some(connection) = open_connection(&mut self.connections, id)
            && connection.session.minor >= NEXT_MINOR
        {
            FrameEncoder::bare(&mut connection.outbound.control, &Header::new(NEXT_KIND, 0, 0));
            self.schedule(id);
        }
    }

    /// A peer has said it.
    pub(super) fn on_next(&mut self, id: ConnectionId, frame: &Frame<'_>) -> Result<(), Violation> {
        let minor = self.connection(id).map_or(0, |connection| connection.session.minor);
        if minor < NEXT_MINOR {
            return Err(Violation::by(frame, "the connection's minor version has no such frame"));
        }
        self.plane.metrics.next_frames += 1;
        Ok(())
    }
}

/// The flags of a message that this node has accepted.
#[inline(always)]
pub(super) fn accepted_flags(header: &Header) -> MessageFlags {
    header.flags().without(MessageFlags::ACK).with(NEXT_FLAG)
}
