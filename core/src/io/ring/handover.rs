//! Giving a connection to another shard's loop, or to the edge, once the kernel does nothing on it for this one.
//!
//! The receive in flight is cancelled; what it had received until then is told all the same, as always,
//! and goes with the connection. Its end, whatever it says, is the moment to let the connection go: the
//! end of a stream, or its failure, is seen by the next loop's receive as well.

use super::UringDriver;
use crate::io::driver::Service;
use crate::shard::event::{CloseReason, ConnectionId, Event};
use crate::shard::output::Destination;

impl UringDriver {
    /// Receives no more from a connection and moves it, unless its end has begun.
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
        connection.moves_to = Some(to);
        connection.paused = true;
        self.cancel_receive(id);
        self.advance_move(service, id);
    }

    /// Lets a connection that moves go, if nothing is in flight on it. Where its new loop has ended, it
    /// ends as well.
    pub(super) fn advance_move(&mut self, service: &mut impl Service, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        let Some(to) = connection.moves_to.filter(|_| connection.is_open()) else {
            return;
        };
        if connection.is_in_flight() {
            return;
        }
        if !self.neighbours.takes_connections(to) {
            return self.ask_to_close(id);
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
