//! Receiving: into the one buffer, or the rest of a large frame straight into the service's memory.
//!
//! A readable connection joins the line and is served once per place in it: one buffer's worth, or one
//! turn's share in place. One that filled what it was given goes to the end of the line, so nobody's
//! flood delays the others by more than that.

use rustix::net::{RecvFlags, recv};
use zerocopy::IntoBytes;

use super::EpollDriver;
use crate::io::connection::{Phase, Receive};
use crate::io::driver::Service;
use crate::io::errno;
use crate::io::kernel_poll::Report;
use crate::limits::{EPOLL_BYTES_PER_TURN, RECEIVE_IN_PLACE_BYTES_MIN};
use crate::shard::event::{CloseReason, ConnectionId, Event};

impl EpollDriver {
    /// A socket can be read, or written again.
    #[inline]
    pub(super) fn on_ready(
        &mut self,
        service: &mut impl Service,
        id: ConnectionId,
        report: Report,
    ) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        let reading = report.readable && connection.receive == Receive::Shared;
        let is_unwanted = connection.is_open() && connection.paused;
        if reading && !is_unwanted && !connection.in_line {
            connection.in_line = true;
            self.line.push_back(id);
        }
        let writable = report.writable && connection.polling_writable;
        let stop_reading = reading && is_unwanted;
        if writable || stop_reading {
            self.change(service, id, |connection| {
                if writable {
                    connection.polling_writable = false;
                }
                if stop_reading {
                    connection.receive = Receive::Idle;
                }
            });
        }
        if writable {
            self.on_writable(service, id);
        }
    }

    /// Serves the next in line. Returns the bytes received.
    #[inline]
    pub(super) fn receive(&mut self, service: &mut impl Service, id: ConnectionId) -> usize {
        let Some(connection) = self.connections.find(id) else {
            return 0;
        };
        connection.in_line = false;
        let lingers = connection.phase == Phase::Lingering;
        if !lingers && (connection.paused || connection.ended || !connection.is_open()) {
            return 0;
        }
        let Some(socket) = connection.socket() else {
            return 0;
        };
        if connection.in_place && !lingers {
            if let Some(zone) = worthwhile(service.landing_zone(id)) {
                let wanted = zone.len().min(EPOLL_BYTES_PER_TURN);
                let result = recv(socket, &mut zone[..wanted], RecvFlags::DONTWAIT);
                let received = result.map_or(0, |(bytes, _)| bytes);
                if received > 0 {
                    service.on_event(self.now, Event::Landed { connection: id, bytes: received });
                }
                self.end_receive(service, id, result.map(|(bytes, _)| bytes == wanted), received);
                return received;
            }
            // Complete, or so little is missing that it may as well come through the buffer.
            connection.in_place = false;
        }
        let Some(socket) = connection.socket() else {
            return 0;
        };
        let buffer = self.buffer.as_mut_bytes();
        let result = recv(socket, &mut *buffer, RecvFlags::DONTWAIT);
        let received = result.map_or(0, |(bytes, _)| bytes);
        if lingers {
            connection.discarded = connection.discarded.saturating_add(received as u32);
        } else if received > 0 {
            let bytes = &buffer[..received];
            service.on_event(self.now, Event::Received { connection: id, bytes });
        }
        let is_full = result.map(|(bytes, _)| bytes == buffer.len());
        self.end_receive(service, id, is_full, received);
        received
    }

    /// What is next after a receive that ended with `is_full`, or failed?
    fn end_receive(
        &mut self,
        service: &mut impl Service,
        id: ConnectionId,
        is_full: rustix::io::Result<bool>,
        received: usize,
    ) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        let reason = match is_full {
            Ok(_) if received == 0 => CloseReason::EndOfStream,
            Ok(is_full) => {
                if connection.has_lingered() {
                    self.end(service, id, CloseReason::Asked);
                } else if is_full {
                    connection.in_line = true;
                    self.line.push_back(id);
                }
                return;
            }
            Err(error) if errno::is_passing(error.raw_os_error()) => return,
            Err(error) => CloseReason::Failed(error.raw_os_error()),
        };
        if connection.is_open() {
            self.end_of_stream(service, id, reason);
        } else {
            self.end(service, id, reason);
        }
    }

    /// Nothing more will come. The end is dealt with in the next turn: by then it is known whether
    /// the service has taken what came before, or has paused.
    fn end_of_stream(&mut self, service: &mut impl Service, id: ConnectionId, reason: CloseReason) {
        self.to_close.push(id);
        self.change(service, id, |connection| {
            connection.ended = true;
            connection.receive = Receive::Idle;
            if !connection.is_gone {
                connection.reason = reason;
            }
        });
    }

    pub(super) fn pause_receive(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id)
            && connection.is_open()
        {
            // Watched on until there is something to read: it may be resumed before.
            connection.paused = true;
            if connection.is_gone {
                self.lingering.hold(id, self.now.mono_us);
            }
        }
    }

    pub(super) fn resume_receive(&mut self, service: &mut impl Service, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id)
            && connection.is_open()
        {
            connection.paused = false;
            if connection.ended {
                self.to_close.push(id);
            } else {
                self.change(service, id, |connection| connection.receive = Receive::Shared);
            }
        }
    }

    pub(super) fn receive_in_place(&mut self, service: &mut impl Service, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id)
            && connection.is_open()
        {
            connection.in_place = worthwhile(service.landing_zone(id)).is_some();
        }
    }
}

/// A landing zone, if receiving in place pays.
fn worthwhile(zone: Option<&mut [u8]>) -> Option<&mut [u8]> {
    zone.filter(|zone| zone.len() >= RECEIVE_IN_PLACE_BYTES_MIN)
}
