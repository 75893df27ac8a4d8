//! How long a link takes there and back: the peer is asked to answer at once, now and then, with a Ping behind
//! the heartbeat that is due. What waits in front of the question counts, as it does for a message.

use nexusd_wire::{Frame, FrameEncoder, FrameKind, NodeId};

use super::event::{ConnectionId, Now};
use super::{Shard, open_connection};
use crate::limits::LINK_PING_US;

impl Shard {
    /// Asks the peer to answer at once, now and then.
    pub(super) fn measure_latency(&mut self, id: ConnectionId, peer: NodeId, now: Now) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.is_up || now.mono_us < link.ping_due_us {
            return;
        }
        link.ping_due_us = now.mono_us + LINK_PING_US;
        link.pinged_us = Some(now.mono_us);
        if let Some(connection) = open_connection(&mut self.connections, id) {
            let control = &mut connection.outbound.control;
            FrameEncoder::ping_or_pong(control, FrameKind::Ping, now.mono_us);
            self.schedule(id);
        }
    }

    /// The peer has answered.
    pub(super) fn note_latency(&mut self, id: ConnectionId, frame: &Frame<'_>, now: Now) {
        let Some(link) = self.peer_of(id).and_then(|peer| self.links.get_mut(&peer)) else {
            return;
        };
        let is_answer = |pinged_us: &u64| frame.header().sequence().0 == *pinged_us;
        if let Some(pinged_us) = link.pinged_us.take_if(|pinged_us| is_answer(pinged_us)) {
            link.latency_us = Some(now.mono_us - pinged_us);
        }
    }
}
