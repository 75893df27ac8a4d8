//! Nodes that were lost and may come back: without multicast nobody else would tell of them.
//!
//! After a netsplit both sides have given up the other. So an address is dialled now and then; and a
//! beacon goes there more often, for it costs less and is answered by a dial. A node that said goodbye, or where nobody
//! listens any more, is not looked for: when it starts again it looks for others itself.
//! Invariant: an address is being dialled, or has a time at which it will be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;

use crate::address_source::{AddressSource, Origin, Outcome, Wish};
use crate::backoff::interval_us;
use crate::config::Retry;
use crate::limits::{ABSENT_DIALS_MAX, ABSENT_MAX, ABSENT_US, SUPERSEDED_US};

const RETRY: Retry = Retry {
    count: u32::MAX,
    interval_us: 5_000_000,
    interval_max_us: 60_000_000,
    factor: 2.0,
    jitter: 0.2,
};

#[derive(Debug)]
pub(crate) struct Absent {
    nodes: BTreeMap<SocketAddr, Absence>,
    due: BTreeSet<(u64, SocketAddr)>,
    /// Whose turn it was last.
    last: SocketAddr,
}

impl Default for Absent {
    fn default() -> Self {
        let last = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { nodes: BTreeMap::new(), due: BTreeSet::new(), last }
    }
}

#[derive(Debug)]
struct Absence {
    since_us: u64,
    failures: u32,
    /// `None`: it is being dialled.
    due_us: Option<u64>,
}

impl Absent {
    /// A node that was there is lost. Where too many are, further ones are not looked for.
    pub(crate) fn remember(&mut self, address: SocketAddr, now_us: u64, dice: &mut fastrand::Rng) {
        if self.nodes.len() >= ABSENT_MAX || self.nodes.contains_key(&address) {
            return;
        }
        self.nodes.insert(address, Absence { since_us: now_us, failures: 1, due_us: None });
        self.set_due(address, now_us + interval_us(&RETRY, 1, dice));
    }

    /// Somebody is there, or it is known that nobody is.
    pub(crate) fn forget(&mut self, address: SocketAddr) {
        if let Some(due_us) = self.nodes.remove(&address).and_then(|absence| absence.due_us) {
            self.due.remove(&(due_us, address));
        }
    }

    /// A few of them, in turn.
    pub(crate) fn next_few(&mut self, count: usize) -> Vec<SocketAddr> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let in_turn = self.nodes.range(behind).chain(self.nodes.iter());
        let few: Vec<SocketAddr> =
            in_turn.take(count.min(self.nodes.len())).map(|(&address, _)| address).collect();
        self.last = few.last().copied().unwrap_or(self.last);
        few
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn set_due(&mut self, address: SocketAddr, due_us: u64) {
        if let Some(absence) = self.nodes.get_mut(&address) {
            absence.due_us = Some(due_us);
            self.due.insert((due_us, address));
        }
    }

    fn has_room(&self) -> bool {
        self.nodes.len() - self.due.len() < ABSENT_DIALS_MAX
    }

    pub(crate) fn assert_invariants(&self) {
        assert!(self.nodes.len() <= ABSENT_MAX);
        let due = self.nodes.iter().filter_map(|(at, absence)| Some((absence.due_us?, *at)));
        assert_eq!(due.collect::<BTreeSet<_>>(), self.due, "each has its time");
        assert!(self.nodes.len() - self.due.len() <= ABSENT_DIALS_MAX);
    }
}

impl AddressSource for Absent {
    fn take_wish(&mut self, now_us: u64, _dice: &mut fastrand::Rng) -> Option<Wish> {
        while self.has_room() {
            let &(_, address) = self.due.first().filter(|(due_us, _)| *due_us <= now_us)?;
            self.due.pop_first();
            let absence = self.nodes.get_mut(&address)?;
            absence.due_us = None;
            if absence.since_us + ABSENT_US > now_us {
                return Some(Wish::Dial { origin: Origin::Absent, address });
            }
            self.nodes.remove(&address);
        }
        None
    }

    fn on_dialled(
        &mut self,
        _origin: Origin,
        address: SocketAddr,
        outcome: Outcome<'_>,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) {
        let Some(absence) = self.nodes.get_mut(&address).filter(|it| it.due_us.is_none()) else {
            return;
        };
        let wait_us = match outcome {
            Outcome::Linked(_) | Outcome::OwnNode | Outcome::Nobody => {
                self.nodes.remove(&address);
                return;
            }
            Outcome::Failed(_) => {
                absence.failures = absence.failures.saturating_add(1);
                interval_us(&RETRY, absence.failures, dice)
            }
            Outcome::Busy => SUPERSEDED_US,
        };
        self.set_due(address, now_us + wait_us);
    }

    fn wake_at(&self) -> Option<u64> {
        self.due.first().map(|&(due_us, _)| due_us).filter(|_| self.has_room())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// Answers every dial with `outcome` until `until_us`; the times of the dials, in seconds.
    fn dials(absent: &mut Absent, outcome: Outcome<'_>, until_us: u64) -> Vec<u64> {
        let (mut dice, mut times) = (fastrand::Rng::with_seed(1), Vec::new());
        while let Some(now_us) = absent.wake_at().filter(|&us| us <= until_us) {
            while let Some(wish) = absent.take_wish(now_us, &mut dice) {
                let Wish::Dial { origin, address } = wish else { panic!("it only dials") };
                absent.assert_invariants();
                absent.on_dialled(origin, address, outcome, now_us, &mut dice);
                times.push(now_us / 1_000_000);
            }
        }
        absent.assert_invariants();
        times
    }

    fn with(nodes: u16) -> Absent {
        let (mut absent, mut dice) = (Absent::default(), fastrand::Rng::with_seed(1));
        for port in 0..nodes {
            absent.remember(address(port), 0, &mut dice);
        }
        absent
    }

    #[test]
    fn a_lost_node_is_looked_for_ever_less_often_and_given_up_after_an_hour() {
        let times = dials(&mut with(1), Outcome::Failed("no route"), u64::MAX);
        assert!(times[0] >= 4 && times[1] - times[0] >= 8 && times.len() < 90, "{times:?}");
        assert!(*times.last().expect("dials") < 3_600);
    }

    #[test]
    fn one_that_is_found_or_refuses_is_not_looked_for_again() {
        assert_eq!(dials(&mut with(1), Outcome::Nobody, u64::MAX).len(), 1);
        let mut absent = with(2);
        absent.forget(address(0));
        absent.assert_invariants();
        assert_eq!(dials(&mut absent, Outcome::OwnNode, u64::MAX).len(), 1);
    }

    #[test]
    fn each_of_them_has_its_turn() {
        let mut absent = with(10);
        let mut turns = BTreeMap::new();
        for _ in 0..10 {
            let few = absent.next_few(3);
            assert_eq!(few.len(), 3);
            for address in few {
                *turns.entry(address).or_insert(0) += 1;
            }
        }
        assert_eq!(turns.len(), 10);
        assert!(turns.values().all(|&count| count == 3), "{turns:?}");
        assert_eq!(with(2).next_few(3).len(), 2);
        assert_eq!(with(0).next_few(3).len(), 0);
    }

    #[test]
    fn however_many_are_lost_few_are_dialled_at_a_time() {
        let (mut absent, mut dice) = (with(5_000), fastrand::Rng::with_seed(2));
        let mut begun = 0;
        while absent.take_wish(60_000_000, &mut dice).is_some() {
            begun += 1;
        }
        assert_eq!(begun, ABSENT_DIALS_MAX);
        assert_eq!(absent.wake_at(), None, "an answer comes first");
        absent.assert_invariants();
    }
}
