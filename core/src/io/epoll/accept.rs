//! Accepting: as many connections as a turn has room for.
//!
//! When file descriptors run out, connections stay in the kernel's backlog and the listener tries
//! again after a while, or as soon as a connection of ours has closed; it never spins.

use std::io;
use std::os::fd::OwnedFd;

use socket2::{SockAddr, SockRef};

use super::EpollDriver;
use crate::io::arrival::Arrival;
use crate::io::connection::Receive;
use crate::io::driver::Service;
use crate::io::errno;
use crate::io::kernel_poll::Interest;
use crate::io::listener::Listener;
use crate::io::operation::Operation;
use crate::limits::{ACCEPT_COST_BYTES, ACCEPT_RETRY_US, REFUSALS_AT_A_TIME};
use crate::shard::event::{Door, PeerAddress};

/// A listener, and what it is doing.
pub(super) struct ListenerSlot {
    /// `None` once it was closed.
    listener: Option<Listener>,
    /// Nobody accepts until this time (`Now::mono_us`).
    resting_until: Option<u64>,
}

impl ListenerSlot {
    pub(super) fn new(listener: Listener) -> io::Result<Self> {
        // Whoever waits may be gone again before we accept.
        SockRef::from(&listener.socket()).set_nonblocking(true)?;
        Ok(Self { listener: Some(listener), resting_until: None })
    }

    /// When to accept again.
    pub(super) fn retry_at(&self) -> Option<u64> {
        self.resting_until
    }
}

impl EpollDriver {
    pub(super) fn watch_listener(&mut self, index: usize) -> io::Result<()> {
        self.change_listener(index, Interest::NONE, Interest::READABLE)
    }

    fn change_listener(&self, index: usize, before: Interest, after: Interest) -> io::Result<()> {
        match &self.listeners[index].listener {
            Some(listener) => {
                let user_data = Operation::Accept.numbered(index as u32);
                self.poll.watch(listener.socket(), user_data, before, after)
            }
            None => Ok(()),
        }
    }

    /// Accepts connections until they count for `share`, and returns what they do.
    pub(super) fn accept(
        &mut self,
        service: &mut impl Service,
        index: usize,
        share: usize,
    ) -> usize {
        let mut cost = 0;
        while cost < share {
            let Some(listener) = &self.listeners[index].listener else {
                break;
            };
            match SockRef::from(&listener.socket()).accept() {
                Ok((socket, address)) => {
                    let door = listener.door();
                    self.open(service, socket.into(), &address, door);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error().is_some_and(errno::is_passing_for_accept) => {}
                Err(_) => {
                    self.rest(index);
                    break;
                }
            }
            cost += ACCEPT_COST_BYTES;
        }
        cost
    }

    fn open(
        &mut self,
        service: &mut impl Service,
        socket: OwnedFd,
        address: &SockAddr,
        door: Door,
    ) {
        if self.connections.len() >= self.connections_max.saturating_add(REFUSALS_AT_A_TIME) {
            self.counters.refused += 1;
            return;
        }
        self.counters.accepted += 1;
        let peer = address.as_socket().map_or(PeerAddress::Unix, PeerAddress::Tcp);
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
        self.change(service, connection, |connection| connection.receive = Receive::Shared);
        bytes
    }

    fn rest(&mut self, index: usize) {
        self.counters.accepts_failed += 1;
        self.listeners[index].resting_until = Some(self.now.mono_us + ACCEPT_RETRY_US);
        // Forgetting needs nothing that could be short.
        let _ = self.change_listener(index, Interest::READABLE, Interest::NONE);
    }

    /// Accepts again where the time has come.
    pub(super) fn retry_accepts(&mut self) {
        for index in 0..self.listeners.len() {
            let slot = &mut self.listeners[index];
            if slot.resting_until.is_some_and(|until| until <= self.now.mono_us) {
                slot.resting_until = None;
                if self.watch_listener(index).is_err() {
                    self.rest(index);
                }
            }
        }
    }

    /// A descriptor became free: no listener has to rest any longer.
    pub(super) fn wake_resting_listeners(&mut self) {
        for slot in &mut self.listeners {
            slot.resting_until = slot.resting_until.map(|until| until.min(self.now.mono_us));
        }
    }

    pub(super) fn stop_accepting(&mut self) {
        for slot in &mut self.listeners {
            slot.listener = None;
            slot.resting_until = None;
        }
    }
}
