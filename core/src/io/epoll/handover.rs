//! Giving a connection to another shard's loop, or to the edge.
//!
//! Nothing is ever in flight, so it goes at once: it is watched no longer, and what its socket still
//! holds, the end of its stream included, is received by the next loop.

use super::EpollDriver;
use crate::io::connection::Receive;
use crate::io::driver::Service;
use crate::shard::event::{CloseReason, ConnectionId, Event};
use crate::shard::output::Destination;

impl EpollDriver {
    /// Moves a connection, unless its end has begun. Where its new loop has ended, it ends as well.
    pub(super) fn begin_move(
        &mut self,
        service: &mut impl Service,
        id: ConnectionId,
        to: Destination,
    ) {
        let Some(connection) = self.connections.find(id).filter(|connection| connection.is_open())
        else {
            return;
        };
        debug_assert!(
            !connection.sending && !connection.polling_writable,
            "nothing was sent on it"
        );
        if !self.neighbours.takes_connections(to) {
            return self.ask_to_close(id);
        }
        // If the kernel refuses, which it has no reason to, that ends the connection.
        self.change(service, id, |connection| connection.receive = Receive::Idle);
        if self.connections.find(id).is_none() {
            return;
        }
        let Some(handover) = service.hand_over(id) else {
            return self.ask_to_close(id);
        };
        if let Some(socket) = self.connections.release(id) {
            let closed = Event::Closed { connection: id, reason: CloseReason::Moved };
            service.on_event(self.now, closed);
            self.neighbours.give_away(to, socket, handover);
        }
    }
}
