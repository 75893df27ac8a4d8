//! The end of a connection, in steps that each wait for what is in flight.
//!
//! `Open → Closing → Lingering → Ending → gone`. The service is told `Closed` exactly once, as soon
//! as none of its memory is in the kernel's hands; the slot is freed when nothing at all is. A
//! connection that the peer ended, or that failed, does not linger.

use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;

use socket2::SockRef;

use super::UringDriver;
use crate::io::connection::{Phase, Receive};
use crate::io::driver::Service;
use crate::io::operation::Operation;
use crate::limits::{CLOSES_PER_TURN, LINGER_US};
use crate::shard::event::{CloseReason, ConnectionId, Event};

/// Reads of leftover bytes from a socket that is closed in a hurry.
const LAST_READS_MAX: usize = 64;

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
                self.lingering.push_back((self.now.mono_us + LINGER_US, id));
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
                connection.phase = Phase::Lingering;
                if let Some(socket) = connection.socket() {
                    // Fails only if the peer was faster, which the receive will tell.
                    let _ = SockRef::from(&socket).shutdown(Shutdown::Write);
                }
                self.lingering.push_back((self.now.mono_us + LINGER_US, id));
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

    /// Ends connections whose time to linger is over, and forgets those that ended before.
    pub(super) fn end_lingering(&mut self, service: &mut impl Service) {
        while let Some((until, id)) = self.lingering.front().copied() {
            let lingers = self.connections.find(id).filter(|connection| {
                connection.phase == Phase::Lingering || connection.is_leaving()
            });
            if let Some(connection) = lingers {
                if until > self.now.mono_us {
                    break;
                }
                if connection.is_open() {
                    let reason = connection.reason;
                    self.begin_close(service, id, reason);
                } else {
                    connection.phase = Phase::Ending;
                    self.advance_close(service, id);
                }
            }
            self.lingering.pop_front();
        }
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
