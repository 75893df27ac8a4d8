//! Sending: one gathered call that never waits.
//!
//! The end of a short send is told at once. A long one may have left something behind: that goes
//! together with what the next turn brings, so its end is told there. Told at once, the rest would go
//! in a short send of its own, and each send costs its receiver's waking.
//!
//! A send that the socket did not take whole has the socket watched until it takes more; a stalled peer
//! costs that and nothing else.
#![allow(unsafe_code)]

use std::{io, mem};

use super::EpollDriver;
use crate::io::connection::Connection;
use crate::io::driver::Service;
use crate::io::errno;
use crate::io::gathered::SEND_FLAGS;
use crate::limits::BYTES_PER_SEND;
use crate::shard::event::{CloseReason, ConnectionId, Event};

impl EpollDriver {
    pub(super) fn send(&mut self, service: &mut impl Service, id: ConnectionId) {
        let Some(connection) = self.connections.find(id).filter(|connection| connection.is_open())
        else {
            return;
        };
        debug_assert!(!connection.sending, "a second send before the first one's Sent");
        let gathered = self.gathered.collect(service, id);
        let result =
            if gathered == 0 { Ok(0) } else { transmit(connection, self.gathered.iovecs()) };
        let (bytes, blocked) = match result {
            Ok(bytes) => (bytes, bytes < gathered as usize),
            Err(errno) if errno == libc::EAGAIN => (0, true),
            Err(errno) if errno::is_passing(errno) => (0, false),
            // The peer is gone, but what it said before may still be on its way to us, or not taken by
            // the service: the end of that ends the connection.
            Err(errno) if errno::says_peer_is_gone(errno) => {
                connection.is_gone = true;
                connection.reason = CloseReason::Failed(errno);
                if connection.paused {
                    self.lingering.hold(id, self.now.mono_us);
                }
                let sent = Event::Sent { connection: id, bytes: 0, blocked: true };
                service.on_event(self.now, sent);
                return;
            }
            Err(errno) => {
                self.end(service, id, CloseReason::Failed(errno));
                return;
            }
        };
        if bytes >= BYTES_PER_SEND && !blocked {
            connection.sending = true;
            self.sent.push((id, bytes));
            return;
        }
        service.on_event(self.now, Event::Sent { connection: id, bytes, blocked });
        if blocked {
            self.change(service, id, |connection| connection.polling_writable = true);
        }
    }

    /// Tells the service of the long sends since the last turn. None of their connections has lingered
    /// since: that begins later in a turn.
    pub(super) fn tell_sent(&mut self, service: &mut impl Service) {
        for (id, bytes) in self.sent.drain(..) {
            if let Some(connection) = self.connections.find(id) {
                connection.sending = false;
                let sent = Event::Sent { connection: id, bytes, blocked: false };
                service.on_event(self.now, sent);
            }
        }
    }

    pub(super) fn on_writable(&mut self, service: &mut impl Service, id: ConnectionId) {
        if self.connections.find(id).is_some_and(|connection| connection.is_open()) {
            service.on_event(self.now, Event::Writable { connection: id });
        }
    }
}

/// Hands the slices to the socket, and returns the bytes it took or the error number.
fn transmit(connection: &Connection, iovecs: &mut [libc::iovec]) -> Result<usize, i32> {
    let socket = connection.descriptor();
    let sent = if let [one] = iovecs {
        // SAFETY: the slice is the service's, which leaves it in place until it is told `Sent` or
        // `Closed` (its contract); that is after the call, and the kernel keeps nothing beyond it.
        unsafe { libc::send(socket, one.iov_base, one.iov_len, SEND_FLAGS) }
    } else {
        // SAFETY: all zeros is a header without name, iovecs and control data: null pointers and
        // lengths of zero.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = iovecs.as_mut_ptr();
        header.msg_iovlen = iovecs.len() as _;
        // SAFETY: the header and the iovecs live until the call returns, and the slices as above.
        unsafe { libc::sendmsg(socket, &raw const header, SEND_FLAGS) }
    };
    usize::try_from(sent)
        .map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
