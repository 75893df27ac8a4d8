//! Accepting: one multishot accept per listener.
//!
//! When file descriptors run out, connections stay in the kernel's backlog and the listener tries
//! again after a while, or as soon as a connection of ours has closed; it never spins.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

use socket2::SockRef;

use super::UringDriver;
use crate::io::arrival::Arrival;
use crate::io::driver::Service;
use crate::io::errno;
use crate::io::kernel_ring::Completion;
use crate::io::listener::Listener;
use crate::io::operation::Operation;
use crate::limits::{ACCEPT_RETRY_US, REFUSALS_AT_A_TIME};
use crate::shard::event::{Door, PeerAddress};

/// A listener, and what it is doing.
pub(super) struct ListenerSlot {
    /// `None` once it was closed.
    listener: Option<Listener>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The multishot accept is in flight.
    Accepting,
    /// Nothing is in flight until this time (`Now::mono_us`).
    Resting {
        until: u64,
    },
    /// The accept in flight is cancelled; then the listener closes.
    Stopping,
    Closed,
}

impl ListenerSlot {
    pub(super) fn new(listener: Listener) -> Self {
        Self { listener: Some(listener), state: State::Closed }
    }

    /// When to accept again.
    pub(super) fn retry_at(&self) -> Option<u64> {
        match self.state {
            State::Resting { until } => Some(until),
            _ => None,
        }
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.listener = None;
    }
}

/// The socket that an accept ended with, or the error number.
pub(super) fn accepted(result: i32) -> Result<OwnedFd, i32> {
    if result < 0 {
        return Err(-result);
    }
    // SAFETY: the kernel made this descriptor for this completion, and a completion is handled once;
    // nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

impl UringDriver {
    pub(super) fn arm_accept(&mut self, index: usize) {
        let slot = &mut self.listeners[index];
        let Some(listener) = &slot.listener else {
            return;
        };
        slot.state = State::Accepting;
        self.ring.push_accept(listener.descriptor(), Operation::Accept.numbered(index as u32));
        self.in_flight += 1;
    }

    pub(super) fn on_accepted(
        &mut self,
        service: &mut impl Service,
        index: usize,
        completion: Completion,
    ) {
        let Some(slot) = self.listeners.get(index) else {
            return;
        };
        let stopping = slot.state == State::Stopping;
        let is_unix = slot.listener.as_ref().is_some_and(Listener::is_unix);
        let door = slot.listener.as_ref().map(Listener::door).unwrap_or_default();
        let failure = match accepted(completion.result) {
            Ok(socket) => {
                if !stopping {
                    self.open(service, socket, is_unix, door);
                }
                None
            }
            Err(errno) => Some(errno),
        };
        if completion.more() {
            return;
        }
        if stopping {
            self.listeners[index].close();
            return;
        }
        match failure {
            None => self.arm_accept(index),
            Some(errno) if errno::is_passing_for_accept(errno) => self.arm_accept(index),
            Some(_) => {
                self.counters.accepts_failed += 1;
                self.listeners[index].state =
                    State::Resting { until: self.now.mono_us + ACCEPT_RETRY_US };
            }
        }
    }

    fn open(&mut self, service: &mut impl Service, socket: OwnedFd, is_unix: bool, door: Door) {
        if self.connections.len() >= self.connections_max.saturating_add(REFUSALS_AT_A_TIME) {
            self.counters.refused += 1;
            return;
        }
        let peer = if is_unix {
            PeerAddress::Unix
        } else {
            let address = SockRef::from(&socket).peer_addr();
            match address.ok().and_then(|address| address.as_socket()) {
                Some(address) => PeerAddress::Tcp(address),
                // Reset by the peer before we came: there is nobody to serve.
                None => return,
            }
        };
        self.counters.accepted += 1;
        let arrival = Arrival::accepted(socket, peer, door);
        if let Some(arrival) = self.neighbours.hand_over(service.place(), arrival) {
            self.adopt(service, arrival);
        }
    }

    /// Begins to serve a connection on this shard. Returns the bytes that were read of it before.
    pub(super) fn adopt(&mut self, service: &mut impl Service, arrival: Arrival) -> usize {
        let Arrival { socket, story } = arrival;
        let connection = self.connections.insert(socket);
        let bytes = story.tell(service, connection, self.now);
        self.arm_receive(service, connection);
        bytes
    }

    /// Accepts again where the time has come.
    pub(super) fn retry_accepts(&mut self) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].retry_at().is_some_and(|at| at <= self.now.mono_us) {
                self.arm_accept(index);
            }
        }
    }

    /// A descriptor became free: no listener has to rest any longer.
    pub(super) fn wake_resting_listeners(&mut self) {
        let now = self.now.mono_us;
        for slot in &mut self.listeners {
            if let State::Resting { until } = &mut slot.state {
                *until = (*until).min(now);
            }
        }
    }

    pub(super) fn stop_accepting(&mut self) {
        for (index, slot) in self.listeners.iter_mut().enumerate() {
            match slot.state {
                State::Accepting => {
                    slot.state = State::Stopping;
                    self.ring.push_cancel(Operation::Accept.numbered(index as u32));
                }
                State::Resting { .. } => slot.close(),
                State::Stopping | State::Closed => {}
            }
        }
    }
}
