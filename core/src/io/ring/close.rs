//! The end of a connection, in steps that each wait for what is in flight.
//!
//! `Open → Closing → Lingering → Ending → gone`. The service is told `Closed` exactly once, as soon
//! as none of its memory is in the kernel's hands; the slot is freed when nothing at all is. A
//! connection that the peer ended, or that failed, does not linger.

use super::UringDriver;
use crate::io::connection::{Phase, Receive};
use crate::io::driver::Service;
use crate::io::operation::Operation;
use crate::limits::CLOSES_PER_TURN;
use crate::shard::event::{CloseReason, ConnectionId, Event};

impl UringDriver {
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
                self.begin_close(service, id, reason);
            } else {
                self.advance_close(service, id);
            }
        }
    }

    /// Ends a connection that the peer closed or that failed.
    pub(super) fn begin_close(
        &mut self,
        service: &mut impl Service,
        id: ConnectionId,
        reason: CloseReason,
    ) {
        if let Some(connection) = self.connections.find(id) {
            connection.phase = Phase::Closing;
            if !connection.is_gone {
                connection.reason = reason;
            }
            self.advance_close(service, id);
        }
    }

    /// Takes every step towards the end that nothing in flight forbids.
    pub(super) fn advance_close(&mut self, service: &mut impl Service, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if connection.sending || connection.is_open() {
            return;
        }
        if connection.phase == Phase::Closing {
            if connection.polling_writable {
                self.ring.push_cancel(Operation::Writable.on(id));
            }
            if connection.reason == CloseReason::Asked {
                self.lingering.begin(id, connection, self.now.mono_us);
                if connection.receive == Receive::Starved {
                    connection.receive = Receive::Idle;
                }
                if connection.receive == Receive::InPlace {
                    self.cancel_receive(id);
                } else {
                    self.arm_receive(service, id);
                }
            } else {
                connection.phase = Phase::Ending;
            }
        }
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if connection.phase == Phase::Ending {
            self.cancel_receive(id);
        }
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if !connection.told_closed && connection.receive != Receive::InPlace {
            connection.told_closed = true;
            let closed = Event::Closed { connection: id, reason: connection.reason };
            service.on_event(self.now, closed);
        }
        if connection.phase == Phase::Ending && !connection.is_in_flight() {
            self.connections.remove(id);
            self.wake_resting_listeners();
        }
    }

    /// Ends connections whose time is over.
    pub(super) fn end_lingering(&mut self, service: &mut impl Service) {
        while let Some(id) = self.lingering.pop_due(&mut self.connections, self.now.mono_us) {
            let Some(connection) = self.connections.find(id) else { continue };
            if connection.is_open() {
                let reason = connection.reason;
                self.begin_close(service, id, reason);
            } else {
                connection.phase = Phase::Ending;
                self.advance_close(service, id);
            }
        }
    }
}
