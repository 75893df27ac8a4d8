//! Dials: which are under way, which peers wait for one, and which addresses are left alone for a while.
//!
//! Invariants: at most one dial is under way to an address; a peer waits at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nexusd_wire::NodeId;

use crate::address_source::Origin;
use crate::backoff::interval_us;
use crate::config::Retry;
use crate::limits::{BREAKER_MEMORY_US, BREAKERS_MAX, DIAL_DEADLINE_US, DIALS_MAX};

/// Between two dials to an address.
const RETRY: Retry =
    Retry { count: 8, interval_us: 100_000, interval_max_us: 10_000_000, factor: 2.0, jitter: 0.2 };

/// A dial under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dial {
    pub(crate) address: SocketAddr,
    /// Who should be there.
    pub(crate) peer: Option<NodeId>,
    /// Who wants it, beside the peer.
    pub(crate) origin: Option<Origin>,
    began_us: u64,
}

/// An address whose dials fail is left alone, the longer the more of them did.
#[derive(Clone, Copy, Debug)]
struct Breaker {
    failures: u32,
    until_us: u64,
}

/// Whether an address can be dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Readiness {
    Ready,
    /// It is being dialled.
    Busy,
    /// It is left alone until then.
    Later(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Dials {
    last: u64,
    under_way: BTreeMap<u64, Dial>,
    addresses: BTreeSet<SocketAddr>,
    breakers: BTreeMap<SocketAddr, Breaker>,
    /// Peers to be dialled, and when.
    waiting: BTreeSet<(u64, NodeId)>,
}

impl Dials {
    pub(crate) fn readiness(&self, address: SocketAddr, now_us: u64) -> Readiness {
        if self.addresses.contains(&address) {
            return Readiness::Busy;
        }
        match self.breakers.get(&address) {
            Some(breaker) if breaker.until_us > now_us => Readiness::Later(breaker.until_us),
            _ => Readiness::Ready,
        }
    }

    /// Begins a dial to an address that is ready; its number.
    pub(crate) fn begin(
        &mut self,
        address: SocketAddr,
        peer: Option<NodeId>,
        origin: Option<Origin>,
        now_us: u64,
    ) -> u64 {
        let is_new = self.addresses.insert(address);
        debug_assert!(is_new, "one dial at a time to {address}");
        self.last += 1;
        self.under_way.insert(self.last, Dial { address, peer, origin, began_us: now_us });
        self.last
    }

    /// A dial has ended, one way or the other; `None`: it is not known (any more).
    pub(crate) fn end(&mut self, dial: u64) -> Option<Dial> {
        let dial = self.under_way.remove(&dial)?;
        self.addresses.remove(&dial.address);
        Some(dial)
    }

    /// The next dial of which nothing was heard for too long.
    pub(crate) fn overdue(&self, now_us: u64) -> Option<u64> {
        let (&number, dial) = self.under_way.first_key_value()?;
        (dial.began_us + DIAL_DEADLINE_US <= now_us).then_some(number)
    }

    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.under_way.len() < DIALS_MAX
    }

    /// A dial to the address came to nothing: when it is ready again.
    pub(crate) fn failed(
        &mut self,
        address: SocketAddr,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) -> u64 {
        let failures = self.breakers.get(&address).map_or(0, |breaker| {
            if breaker.until_us + BREAKER_MEMORY_US > now_us { breaker.failures } else { 0 }
        });
        self.leave_alone(address, failures + 1, now_us, dice)
    }

    /// What was found there will not change soon.
    pub(crate) fn hopeless(
        &mut self,
        address: SocketAddr,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) -> u64 {
        self.leave_alone(address, RETRY.count, now_us, dice)
    }

    fn leave_alone(
        &mut self,
        address: SocketAddr,
        failures: u32,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) -> u64 {
        if self.breakers.len() >= BREAKERS_MAX && !self.breakers.contains_key(&address) {
            self.breakers.retain(|_, breaker| breaker.until_us + BREAKER_MEMORY_US > now_us);
            if self.breakers.len() >= BREAKERS_MAX {
                self.breakers.pop_first();
            }
        }
        let until_us = now_us + interval_us(&RETRY, failures, dice);
        self.breakers.insert(address, Breaker { failures, until_us });
        until_us
    }

    /// The address is as good as any other.
    pub(crate) fn succeeded(&mut self, address: SocketAddr) {
        self.breakers.remove(&address);
    }

    /// A peer is to be dialled; `was_us`: when it was to be until now.
    pub(crate) fn wait(&mut self, peer: NodeId, was_us: Option<u64>, due_us: Option<u64>) {
        if let Some(was_us) = was_us {
            self.waiting.remove(&(was_us, peer));
        }
        if let Some(due_us) = due_us {
            self.waiting.insert((due_us, peer));
        }
    }

    /// The next peer that is due.
    pub(crate) fn next_waiting(&self, now_us: u64) -> Option<NodeId> {
        self.waiting.first().filter(|(due_us, _)| *due_us <= now_us).map(|&(_, peer)| peer)
    }

    /// `has_room`: whether a peer that is due could be dialled.
    pub(crate) fn wake_at(&self, has_room: bool) -> Option<u64> {
        let overdue = self.under_way.values().next().map(|dial| dial.began_us + DIAL_DEADLINE_US);
        let waiting = self.waiting.first().map(|&(due_us, _)| due_us).filter(|_| has_room);
        [overdue, waiting].into_iter().flatten().min()
    }

    pub(crate) fn assert_invariants(&self) {
        let addresses: BTreeSet<_> = self.under_way.values().map(|dial| dial.address).collect();
        assert_eq!(addresses, self.addresses, "dialled addresses are known");
        assert_eq!(addresses.len(), self.under_way.len(), "one dial at a time to an address");
        assert!(self.breakers.len() <= BREAKERS_MAX);
        let peers: BTreeSet<_> = self.waiting.iter().map(|(_, peer)| peer).collect();
        assert_eq!(peers.len(), self.waiting.len(), "a peer waits once");
    }

    /// How many peers wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a peer waits for this time.
    pub(crate) fn is_waiting(&self, peer: NodeId, due_us: u64) -> bool {
        self.waiting.contains(&(due_us, peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn an_address_is_dialled_once_at_a_time() {
        let mut dials = Dials::default();
        let dial = dials.begin(address(1), None, None, 0);
        assert_eq!(dials.readiness(address(1), 0), Readiness::Busy);
        assert_eq!(dials.readiness(address(2), 0), Readiness::Ready);
        assert!(dials.end(dial).is_some());
        assert_eq!(dials.end(dial), None);
        assert_eq!(dials.readiness(address(1), 0), Readiness::Ready);
        dials.assert_invariants();
    }

    #[test]
    fn an_address_that_fails_is_left_alone_ever_longer() {
        let (mut dials, mut dice) = (Dials::default(), fastrand::Rng::with_seed(1));
        let (mut now_us, mut waits) = (0, Vec::new());
        for _ in 0..10 {
            let until_us = dials.failed(address(1), now_us, &mut dice);
            assert_eq!(dials.readiness(address(1), until_us - 1), Readiness::Later(until_us));
            assert_eq!(dials.readiness(address(1), until_us), Readiness::Ready);
            waits.push(until_us - now_us);
            now_us = until_us;
        }
        assert!(waits[0] <= 120_000 && waits[1] > 150_000 && waits[9] >= 8 * SECOND_US);
        assert!(waits.iter().all(|&us| us <= 12 * SECOND_US), "{waits:?}");
        dials.succeeded(address(1));
        assert!(dials.failed(address(1), now_us, &mut dice) <= now_us + 120_000);
    }

    #[test]
    fn a_failure_of_long_ago_does_not_count() {
        let (mut dials, mut dice) = (Dials::default(), fastrand::Rng::with_seed(1));
        let mut now_us = 0;
        for _ in 0..10 {
            now_us = dials.failed(address(1), now_us, &mut dice);
        }
        now_us += BREAKER_MEMORY_US;
        assert!(dials.failed(address(1), now_us, &mut dice) <= now_us + 120_000);
    }

    #[test]
    fn however_many_addresses_fail_few_are_remembered() {
        let (mut dials, mut dice) = (Dials::default(), fastrand::Rng::with_seed(1));
        for port in 0..u16::MAX {
            dials.failed(address(port), 0, &mut dice);
        }
        dials.assert_invariants();
    }

    #[test]
    fn a_dial_of_which_nothing_is_heard_is_overdue() {
        let mut dials = Dials::default();
        let dial = dials.begin(address(1), None, None, SECOND_US);
        assert_eq!(dials.wake_at(true), Some(SECOND_US + DIAL_DEADLINE_US));
        assert_eq!(dials.overdue(SECOND_US), None);
        assert_eq!(dials.overdue(SECOND_US + DIAL_DEADLINE_US), Some(dial));
    }

    #[test]
    fn peers_are_dialled_in_the_order_in_which_they_are_due() {
        let mut dials = Dials::default();
        dials.wait(NodeId(1), None, Some(30));
        dials.wait(NodeId(2), None, Some(20));
        assert_eq!(dials.next_waiting(19), None);
        assert_eq!(dials.next_waiting(30), Some(NodeId(2)));
        dials.wait(NodeId(2), Some(20), Some(40));
        assert_eq!(dials.next_waiting(30), Some(NodeId(1)));
        assert_eq!(dials.wake_at(true), Some(30));
        assert_eq!(dials.wake_at(false), None);
        dials.assert_invariants();
    }
}
