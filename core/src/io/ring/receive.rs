//! Receiving: multishot into the shared buffers, or the rest of a large frame straight into the
//! service's memory.
//!
//! At most one receive is in flight per connection. To change from one way to the other, or to
//! pause, the one in flight is cancelled; what it had received until then is delivered all the same,
//! and its last completion decides what is armed next ([`UringDriver::arm_receive`]).
#![allow(unsafe_code)]

use std::collections::VecDeque;

use io_uring::{opcode, types::Fd};

use super::UringDriver;
use crate::io::buffer_ring::BufferRing;
use crate::io::connection::{Phase, Receive};
use crate::io::driver::Service;
use crate::io::errno;
use crate::io::kernel_ring::Completion;
use crate::io::operation::Operation;
use crate::limits::{REARMS_PER_TURN, RECEIVE_BYTES_PER_TURN, RECEIVE_IN_PLACE_BYTES_MIN};
use crate::shard::event::{CloseReason, ConnectionId, Event};

/// Connections whose receive found no free buffer, in the order in which they are armed again.
/// Those that were served in a turn stand behind those that were not, so that one flood cannot take
/// the pool for itself.
pub(super) struct Starved {
    line: VecDeque<ConnectionId>,
    served: Vec<ConnectionId>,
}

impl Starved {
    pub(super) fn new() -> Self {
        Self {
            line: VecDeque::with_capacity(REARMS_PER_TURN),
            served: Vec::with_capacity(REARMS_PER_TURN),
        }
    }

    fn push(&mut self, id: ConnectionId, was_served: bool) {
        if was_served {
            self.served.push(id);
        } else {
            self.line.push_back(id);
        }
    }

    /// Those that were served in this turn join the line.
    pub(super) fn end_turn(&mut self) {
        self.line.extend(self.served.drain(..));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.served.is_empty()
    }
}

impl UringDriver {
    /// Arms the receive that the connection is due, unless it is paused or ends.
    pub(super) fn arm_receive(&mut self, service: &mut impl Service, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if connection.receive != Receive::Idle {
            return;
        }
        let lingering = connection.phase == Phase::Lingering;
        if !lingering && (connection.paused || connection.ended || !connection.is_open()) {
            return;
        }
        let socket = connection.descriptor();
        if connection.in_place && !lingering {
            match service.landing_zone(id) {
                Some(zone) if zone.len() >= RECEIVE_IN_PLACE_BYTES_MIN => {
                    connection.receive = Receive::InPlace;
                    let bytes = zone.len().min(RECEIVE_BYTES_PER_TURN);
                    let entry = opcode::Recv::new(Fd(socket), zone.as_mut_ptr(), bytes as u32)
                        .build()
                        .user_data(Operation::ReceiveInPlace.on(id));
                    // SAFETY: `bytes` is at most the zone's length, and the service leaves the zone
                    // in place and alone until `Landed` or `Closed` (its contract), which it is told
                    // only after the completion was popped (`receive` is `InPlace` until then).
                    unsafe { self.ring.push(&entry) };
                    self.in_flight += 1;
                    return;
                }
                // Complete, or so little is missing that it may as well come through the buffers.
                _ => connection.in_place = false,
            }
        }
        connection.receive = Receive::Shared;
        connection.fed = false;
        self.ring.push_receive(socket, BufferRing::GROUP, Operation::Receive.on(id));
        self.in_flight += 1;
    }

    /// Asks for the end of the receive in flight, if there is one.
    pub(super) fn cancel_receive(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        let operation = match connection.receive {
            Receive::Shared => Operation::Receive,
            Receive::InPlace => Operation::ReceiveInPlace,
            Receive::Idle | Receive::Starved => return,
        };
        if !connection.receive_cancelled {
            connection.receive_cancelled = true;
            self.ring.push_cancel(operation.on(id));
        }
    }

    /// One step of a multishot receive, or its end. Returns the bytes received.
    #[inline]
    pub(super) fn on_received(
        &mut self,
        service: &mut impl Service,
        id: ConnectionId,
        completion: Completion,
    ) -> usize {
        let bytes = usize::try_from(completion.result).unwrap_or(0);
        if let Some(buffer) = completion.buffer() {
            if bytes > 0
                && let Some(connection) = self.connections.find(id)
            {
                if connection.is_open() {
                    connection.fed = true;
                    let received = Event::Received {
                        connection: id,
                        bytes: self.buffers.received(buffer, bytes),
                    };
                    service.on_event(self.now, received);
                } else {
                    connection.discarded = connection.discarded.saturating_add(bytes as u32);
                }
            }
            self.buffers.release(buffer, bytes, completion.buffer_more());
        }
        if !completion.more() {
            self.end_receive(service, id, completion.result);
        }
        bytes
    }

    /// The end of a receive into the landing zone. Returns the bytes received.
    pub(super) fn on_landed(
        &mut self,
        service: &mut impl Service,
        id: ConnectionId,
        result: i32,
    ) -> usize {
        let bytes = usize::try_from(result).unwrap_or(0);
        if let Some(connection) = self.connections.find(id) {
            if bytes > 0 && connection.is_open() {
                let landed = Event::Landed { connection: id, bytes };
                // Until here the zone was the kernel's.
                connection.receive = Receive::Idle;
                service.on_event(self.now, landed);
            }
            self.end_receive(service, id, result);
        }
        bytes
    }

    /// The receive in flight is over: what is next?
    fn end_receive(&mut self, service: &mut impl Service, id: ConnectionId, result: i32) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        connection.receive = Receive::Idle;
        connection.receive_cancelled = false;
        match connection.phase {
            Phase::Open if connection.moves_to.is_some() => return self.advance_move(service, id),
            Phase::Open => {}
            Phase::Lingering => {
                let goes_on = result > 0 || -result == libc::ENOBUFS || errno::is_passing(-result);
                if goes_on && !connection.has_lingered() {
                    self.arm_receive(service, id);
                } else {
                    connection.phase = Phase::Ending;
                }
                self.advance_close(service, id);
                return;
            }
            Phase::Closing | Phase::Ending => {
                self.advance_close(service, id);
                return;
            }
        }
        match result {
            0 => self.end_of_stream(id, CloseReason::EndOfStream),
            1.. => self.arm_receive(service, id),
            _ => match -result {
                libc::ENOBUFS => {
                    self.counters.receives_starved += 1;
                    connection.receive = Receive::Starved;
                    let was_served = connection.fed;
                    self.starved.push(id, was_served);
                }
                errno if errno::is_passing(errno) => self.arm_receive(service, id),
                errno => self.end_of_stream(id, CloseReason::Failed(errno)),
            },
        }
    }

    /// Nothing more will come. The end is dealt with in the next turn: by then it is known whether
    /// the service has taken what came before, or has paused.
    fn end_of_stream(&mut self, id: ConnectionId, reason: CloseReason) {
        if let Some(connection) = self.connections.find(id) {
            connection.ended = true;
            if !connection.is_gone {
                connection.reason = reason;
            }
            self.to_close.push(id);
        }
    }

    /// Arms receives that found no buffer, once every buffer that completions named is back.
    pub(super) fn rearm_starved(&mut self, service: &mut impl Service) {
        if self.starved.is_empty() || self.ring.completions() > 0 {
            return;
        }
        for _ in 0..REARMS_PER_TURN {
            let Some(id) = self.starved.line.pop_front() else {
                break;
            };
            if let Some(connection) = self.connections.find(id)
                && connection.receive == Receive::Starved
            {
                connection.receive = Receive::Idle;
                self.arm_receive(service, id);
            }
        }
    }

    pub(super) fn pause_receive(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id)
            && connection.is_open()
        {
            connection.paused = true;
            if connection.is_gone {
                self.lingering.hold(id, self.now.mono_us);
            }
            self.cancel_receive(id);
        }
    }

    pub(super) fn resume_receive(&mut self, service: &mut impl Service, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id) {
            connection.paused = false;
            if connection.ended {
                self.to_close.push(id);
            } else {
                self.arm_receive(service, id);
            }
        }
    }

    pub(super) fn receive_in_place(&mut self, service: &mut impl Service, id: ConnectionId) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        if !connection.is_open() || connection.receive == Receive::InPlace {
            return;
        }
        let worthwhile =
            service.landing_zone(id).is_some_and(|zone| zone.len() >= RECEIVE_IN_PLACE_BYTES_MIN);
        if worthwhile {
            connection.in_place = true;
            if connection.receive == Receive::Starved {
                // No buffer is needed any more.
                connection.receive = Receive::Idle;
            }
            self.cancel_receive(id);
            self.arm_receive(service, id);
        }
    }
}
