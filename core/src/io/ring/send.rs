//! Sending: at most one gathered send in flight per connection, and none that waits.
//!
//! A send that the socket did not take whole is followed by a poll; a stalled peer costs that poll
//! and nothing else.
#![allow(unsafe_code)]

use super::UringDriver;
use crate::io::connection::Receive;
use crate::io::driver::Service;
use crate::io::errno;
use crate::io::operation::Operation;
use crate::shard::event::{CloseReason, ConnectionId, Event};

impl UringDriver {
    pub(super) fn send(&mut self, service: &mut impl Service, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if !connection.is_open() || connection.sending {
            debug_assert!(!connection.sending, "a second send before the first one's Sent");
            return;
        }
        let socket = connection.descriptor();
        let Some(send) = self.send_slots.gather(service, id, socket) else {
            let sent = Event::Sent { connection: id, bytes: 0, blocked: false };
            service.on_event(self.now, sent);
            return;
        };
        connection.sending = true;
        connection.gathered = send.bytes;
        self.rest.add(send.bytes);
        let entry = send.entry.user_data(Operation::Send.on(id));
        // SAFETY: the service leaves the gathered slices in place and unchanged until `Sent` or
        // `Closed` (its contract), which it is told only after the completion was popped (`sending`
        // is set until then). The message header and the iovecs are a send slot's, which is reused
        // only after the kernel has taken every submission.
        unsafe { self.ring.push(&entry) };
        self.in_flight += 1;
    }

    #[inline]
    pub(super) fn on_sent(&mut self, service: &mut impl Service, id: ConnectionId, result: i32) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        connection.sending = false;
        // The peer is gone, but what it said before may still be on its way to us, or not taken by the
        // service: the end of that ends the connection.
        let is_gone = errno::says_peer_is_gone(-result)
            && connection.is_open()
            && (connection.paused || connection.ended || connection.receive != Receive::Idle);
        if is_gone {
            connection.is_gone = true;
            connection.reason = CloseReason::Failed(-result);
            if connection.paused {
                self.lingering.hold(id, self.now.mono_us);
            }
        }
        let (bytes, blocked) = match result {
            _ if is_gone => (0, true),
            0.. => (result as usize, (result as u32) < connection.gathered),
            _ => match -result {
                libc::EAGAIN => (0, true),
                libc::EINTR | libc::ECANCELED => (0, false),
                errno => {
                    if connection.is_open() {
                        self.begin_close(service, id, CloseReason::Failed(errno));
                    } else {
                        self.advance_close(service, id);
                    }
                    return;
                }
            },
        };
        let open = connection.is_open();
        if open && blocked && !is_gone && !connection.polling_writable {
            connection.polling_writable = true;
            let socket = connection.descriptor();
            self.ring.push_poll_writable(socket, Operation::Writable.on(id));
            self.in_flight += 1;
        }
        let sent = Event::Sent { connection: id, bytes, blocked };
        service.on_event(self.now, sent);
        if !open {
            self.advance_close(service, id);
        }
    }

    pub(super) fn on_writable(&mut self, service: &mut impl Service, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        connection.polling_writable = false;
        if connection.is_open() {
            service.on_event(self.now, Event::Writable { connection: id });
        } else {
            self.advance_close(service, id);
        }
    }
}
