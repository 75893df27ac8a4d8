//! The end of a connection: `Open → Closing → Lingering → gone`.
//!
//! Nothing is ever in flight, so the service is told `Closed` as soon as the end begins; that stands for
//! a `Sent` which was still to be told. A connection that the peer ended, or that failed, does not
//! linger; if the service has paused it, the end waits a while for the service to take what came before.

use super::EpollDriver;
use crate::io::connection::{Phase, Receive};
use crate::io::driver::Service;
use crate::limits::CLOSES_PER_TURN;
use crate::shard::event::{CloseReason, ConnectionId, Event};

impl EpollDriver {
    /// Takes note that the service is done with a connection; the next turn goes on with it.
    pub(super) fn ask_to_close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id)
            && connection.is_open()
        {
            connection.phase = Phase::Closing;
            connection.reason = CloseReason::Asked;
            self.to_close.push(id);
        }
    }

    /// Goes on with the connections the service was done with, and with those whose stream ended. One
    /// that is paused has a while for the service to take what came before the end.
    pub(super) fn close_asked(&mut self, service: &mut impl Service) {
        for _ in 0..CLOSES_PER_TURN {
            let Some(id) = self.to_close.pop() else {
                break;
            };
            let Some(connection) = self.connections.find(id) else { continue };
            if connection.is_leaving() {
                self.lingering.hold(id, self.now.mono_us);
            } else if connection.is_open() {
                let reason = connection.reason;
                self.end(service, id, reason);
            } else if connection.phase == Phase::Closing {
                self.begin_lingering(service, id);
            }
        }
    }

    fn begin_lingering(&mut self, service: &mut impl Service, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        self.lingering.begin(id, connection, self.now.mono_us);
        connection.told_closed = true;
        service.on_event(self.now, Event::Closed { connection: id, reason: CloseReason::Asked });
        self.change(service, id, |connection| {
            connection.receive = Receive::Shared;
            connection.polling_writable = false;
        });
    }

    /// Ends a connection that the peer closed, that failed, or that has lingered.
    pub(super) fn end(
        &mut self,
        service: &mut impl Service,
        id: ConnectionId,
        reason: CloseReason,
    ) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        connection.phase = Phase::Ending;
        if !connection.is_gone {
            connection.reason = reason;
        }
        // A socket that is closed is watched no longer.
        connection.sending = false;
        connection.receive = Receive::Idle;
        connection.polling_writable = false;
        let closed = Event::Closed { connection: id, reason: connection.reason };
        let is_told = connection.told_closed;
        self.connections.remove(id);
        self.wake_resting_listeners();
        if !is_told {
            service.on_event(self.now, closed);
        }
    }

    /// Ends connections whose time is over.
    pub(super) fn end_lingering(&mut self, service: &mut impl Service) {
        while let Some(id) = self.lingering.pop_due(&mut self.connections, self.now.mono_us) {
            let Some(connection) = self.connections.find(id) else { continue };
            let reason = connection.reason;
            self.end(service, id, reason);
        }
    }
}
