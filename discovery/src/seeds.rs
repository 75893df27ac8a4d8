//! The nodes to begin with (`--peers`): each name is resolved and its addresses are dialled in turn,
//! for as long as the daemon runs, until one of them is linked; and again when that node is gone.
//!
//! A name that leads to this node itself is left alone: one list can be given to all nodes.
//! Absent nodes never keep this one from starting, and it never gives up.

use std::net::SocketAddr;

use nexusd_wire::NodeId;

use crate::address_source::{AddressSource, Origin, Outcome, Wish};
use crate::backoff::interval_us;
use crate::config::Retry;
use crate::event::SeedId;
use crate::limits::{RESOLVE_DEADLINE_US, SEED_ADDRESSES_MAX, SEED_LATE_ATTEMPTS, SUPERSEDED_US};
use crate::notice::Notice;

#[derive(Debug)]
pub(crate) struct Seeds {
    seeds: Vec<Seed>,
    retry: Retry,
    notices: Vec<Notice>,
    /// When the first of them wants something.
    wake_at_us: Option<u64>,
}

#[derive(Debug)]
struct Seed {
    /// As written.
    name: String,
    state: State,
    addresses: Vec<SocketAddr>,
    /// Rounds over its addresses that came to nothing, and what the last one did.
    attempts: u32,
    reason: String,
    /// Addresses of this round that lead to this node.
    own: usize,
    is_told_absent: bool,
    is_told_own: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing was asked of it yet.
    Fresh,
    /// Until the next round.
    Waiting {
        until_us: u64,
    },
    Resolving {
        deadline_us: u64,
    },
    /// The address at this place is to be dialled.
    Ready {
        at: usize,
        due_us: u64,
    },
    Dialling {
        at: usize,
    },
    Linked(NodeId),
}

impl State {
    fn due_us(self) -> Option<u64> {
        match self {
            Self::Waiting { until_us: due_us }
            | Self::Resolving { deadline_us: due_us }
            | Self::Ready { due_us, .. } => Some(due_us),
            Self::Fresh | Self::Dialling { .. } | Self::Linked(_) => None,
        }
    }
}

impl Seeds {
    pub(crate) fn new(names: Vec<String>, retry: Retry) -> Self {
        let seeds = names.into_iter().map(Seed::new).collect();
        Self { seeds, retry, notices: Vec::new(), wake_at_us: None }
    }

    pub(crate) fn start(&mut self, now_us: u64) {
        for seed in &mut self.seeds {
            if seed.state == State::Fresh {
                seed.state = State::Waiting { until_us: now_us };
            }
        }
        self.set_wake();
    }

    /// This node stops: nothing is looked for any more.
    pub(crate) fn stop(&mut self) {
        self.seeds.clear();
        self.set_wake();
    }

    pub(crate) fn on_resolved(
        &mut self,
        id: SeedId,
        addresses: &[SocketAddr],
        is_own: impl Fn(SocketAddr) -> bool,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) {
        let retry = self.retry;
        let Some(seed) = self.resolving(id) else { return };
        seed.addresses.clear();
        seed.own = 0;
        for &address in addresses {
            let is_new = !seed.addresses.contains(&address);
            if is_new && is_own(address) {
                seed.own += 1;
            } else if is_new && seed.addresses.len() < SEED_ADDRESSES_MAX {
                seed.addresses.push(address);
            }
        }
        seed.reason = "the name has no address".into();
        seed.state = State::Ready { at: 0, due_us: now_us };
        if seed.addresses.is_empty() {
            let notice = seed.end_round(&retry, now_us, dice);
            self.notices.extend(notice);
        }
        self.set_wake();
    }

    pub(crate) fn on_resolve_failed(
        &mut self,
        id: SeedId,
        reason: &str,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) {
        let retry = self.retry;
        let Some(seed) = self.resolving(id) else { return };
        seed.reason = reason.into();
        seed.own = 0;
        let notice = seed.end_round(&retry, now_us, dice);
        self.notices.extend(notice);
        self.set_wake();
    }

    fn resolving(&mut self, id: SeedId) -> Option<&mut Seed> {
        let seed = self.seeds.get_mut(id.0 as usize)?;
        matches!(seed.state, State::Resolving { .. }).then_some(seed)
    }

    /// A peer is linked that takes links at `address`, whoever dialled.
    pub(crate) fn on_linked(&mut self, address: SocketAddr, node: NodeId) {
        for seed in &mut self.seeds {
            if !matches!(seed.state, State::Linked(_)) && seed.addresses.contains(&address) {
                self.notices.extend(seed.link(node));
            }
        }
        self.set_wake();
    }

    /// A peer is no more: who was linked to it begins anew.
    pub(crate) fn on_gone(&mut self, node: NodeId, now_us: u64) {
        for seed in &mut self.seeds {
            if seed.state == State::Linked(node) {
                seed.state = State::Waiting { until_us: now_us };
            }
        }
        self.set_wake();
    }

    /// Where seeds may be that no link stands to.
    pub(crate) fn unlinked_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let unlinked = self.seeds.iter().filter(|seed| !matches!(seed.state, State::Linked(_)));
        unlinked.flat_map(|seed| seed.addresses.iter().copied())
    }

    /// Whether a seed led to this peer.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.seeds.iter().any(|seed| seed.state == State::Linked(node))
    }

    fn set_wake(&mut self) {
        self.wake_at_us = self.seeds.iter().filter_map(|seed| seed.state.due_us()).min();
    }

    pub(crate) fn assert_invariants(&self) {
        for seed in &self.seeds {
            if let State::Ready { at, .. } | State::Dialling { at } = seed.state {
                assert!(at < seed.addresses.len(), "{} has an address to dial", seed.name);
            }
            assert!(seed.addresses.len() <= SEED_ADDRESSES_MAX);
        }
        let due = self.seeds.iter().filter_map(|seed| seed.state.due_us()).min();
        assert_eq!(self.wake_at_us, due, "seeds are looked at in time");
    }
}

impl AddressSource for Seeds {
    fn take_wish(&mut self, now_us: u64, dice: &mut fastrand::Rng) -> Option<Wish> {
        if let Some(notice) = self.notices.pop() {
            return Some(Wish::Tell(notice));
        }
        while self.wake_at_us.is_some_and(|us| us <= now_us) {
            let is_due = |seed: &Seed| seed.state.due_us().is_some_and(|us| us <= now_us);
            let at = self.seeds.iter().position(is_due)?;
            let seed = &mut self.seeds[at];
            let wish = seed.take_wish(SeedId(at as u32), &self.retry, now_us, dice);
            self.set_wake();
            if wish.is_some() {
                return wish;
            }
        }
        None
    }

    fn on_dialled(
        &mut self,
        origin: Origin,
        address: SocketAddr,
        outcome: Outcome<'_>,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) {
        let Origin::Seed(SeedId(number)) = origin else { return };
        let Some(seed) = self.seeds.get_mut(number as usize) else { return };
        let State::Dialling { at } = seed.state else { return };
        if seed.addresses.get(at) != Some(&address) {
            return;
        }
        let notice = seed.on_dialled(at, outcome, &self.retry, now_us, dice);
        self.notices.extend(notice);
        self.set_wake();
    }

    fn wake_at(&self) -> Option<u64> {
        if self.notices.is_empty() { self.wake_at_us } else { Some(0) }
    }
}

impl Seed {
    fn new(name: String) -> Self {
        Self {
            name,
            state: State::Fresh,
            addresses: Vec::new(),
            attempts: 0,
            reason: String::new(),
            own: 0,
            is_told_absent: false,
            is_told_own: false,
        }
    }

    fn take_wish(
        &mut self,
        id: SeedId,
        retry: &Retry,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) -> Option<Wish> {
        match self.state {
            State::Waiting { .. } => {
                let deadline_us = now_us + RESOLVE_DEADLINE_US;
                self.state = State::Resolving { deadline_us };
                Some(Wish::Resolve { seed: id, name: self.name.clone() })
            }
            State::Resolving { .. } => {
                self.reason = "the name was not resolved in time".into();
                self.own = 0;
                self.end_round(retry, now_us, dice).map(Wish::Tell)
            }
            State::Ready { at, .. } => {
                self.state = State::Dialling { at };
                let address = *self.addresses.get(at)?;
                Some(Wish::Dial { origin: Origin::Seed(id), address })
            }
            State::Fresh | State::Dialling { .. } | State::Linked(_) => None,
        }
    }

    fn on_dialled(
        &mut self,
        at: usize,
        outcome: Outcome<'_>,
        retry: &Retry,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) -> Option<Notice> {
        match outcome {
            Outcome::Linked(node) => return self.link(node),
            Outcome::Busy => {
                self.state = State::Ready { at, due_us: now_us + SUPERSEDED_US };
                return None;
            }
            Outcome::OwnNode => {
                self.own += 1;
                self.addresses.remove(at);
                self.state = State::Ready { at, due_us: now_us };
            }
            Outcome::Nobody | Outcome::Failed(_) => {
                self.reason = match outcome {
                    Outcome::Failed(reason) => reason.into(),
                    _ => "nobody listens there".into(),
                };
                self.state = State::Ready { at: at + 1, due_us: now_us };
            }
        }
        match self.state {
            State::Ready { at, .. } if at >= self.addresses.len() => {
                self.end_round(retry, now_us, dice)
            }
            _ => None,
        }
    }

    fn link(&mut self, node: NodeId) -> Option<Notice> {
        self.state = State::Linked(node);
        self.attempts = 0;
        let was_told = std::mem::take(&mut self.is_told_absent);
        was_told.then(|| Notice::SeedFound { name: self.name.clone() })
    }

    /// None of its addresses led to a link.
    fn end_round(
        &mut self,
        retry: &Retry,
        now_us: u64,
        dice: &mut fastrand::Rng,
    ) -> Option<Notice> {
        if self.own > 0 && self.addresses.is_empty() {
            // Others may come to have the name too.
            let until_us = now_us + interval_us(retry, u32::MAX, dice);
            self.state = State::Waiting { until_us };
            let was_told = std::mem::replace(&mut self.is_told_own, true);
            return (!was_told).then(|| Notice::SeedIsThisNode { name: self.name.clone() });
        }
        self.attempts = self.attempts.saturating_add(1);
        self.state = State::Waiting { until_us: now_us + interval_us(retry, self.attempts, dice) };
        if self.attempts < retry.count || self.is_told_absent {
            let is_late = self.attempts == SEED_LATE_ATTEMPTS && !self.is_told_absent;
            let late = || Notice::SeedLate { name: self.name.clone(), reason: self.reason.clone() };
            return is_late.then(late);
        }
        self.is_told_absent = true;
        Some(Notice::SeedAbsent {
            name: self.name.clone(),
            attempts: self.attempts,
            reason: self.reason.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;
    const ID: SeedId = SeedId(0);
    const PEER: NodeId = NodeId(7);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// One seed, its clock, and what it wished for.
    struct Rig {
        seeds: Seeds,
        now_us: u64,
        dice: fastrand::Rng,
        notices: Vec<Notice>,
    }

    impl Rig {
        fn new(retry: Retry) -> Self {
            let mut seeds = Seeds::new(vec!["nexusd-0:5671".into()], retry);
            seeds.start(0);
            let dice = fastrand::Rng::with_seed(1);
            Self { seeds, now_us: 0, dice, notices: Vec::new() }
        }

        /// The next thing it wants done, whenever that is.
        fn next(&mut self) -> Option<Wish> {
            loop {
                self.seeds.assert_invariants();
                self.now_us = self.now_us.max(self.seeds.wake_at()?);
                match self.seeds.take_wish(self.now_us, &mut self.dice) {
                    Some(Wish::Tell(notice)) => self.notices.push(notice),
                    Some(wish) => return Some(wish),
                    None => {}
                }
            }
        }

        fn resolve(&mut self, addresses: &[SocketAddr]) {
            assert!(matches!(self.next(), Some(Wish::Resolve { .. })));
            self.seeds.on_resolved(ID, addresses, |_| false, self.now_us, &mut self.dice);
        }

        fn dial(&mut self, outcome: Outcome<'_>) -> SocketAddr {
            let Some(Wish::Dial { origin, address }) = self.next() else { panic!("no dial") };
            self.seeds.on_dialled(origin, address, outcome, self.now_us, &mut self.dice);
            address
        }
    }

    fn even() -> Retry {
        Retry { jitter: 0.0, ..Retry::default() }
    }

    #[test]
    fn an_absent_name_is_resolved_again_ever_less_often_and_never_given_up() {
        let mut rig = Rig::new(even());
        let mut times = Vec::new();
        for _ in 0..14 {
            assert!(matches!(rig.next(), Some(Wish::Resolve { .. })));
            times.push(rig.now_us / SECOND_US);
            let (now_us, dice) = (rig.now_us, &mut rig.dice);
            rig.seeds.on_resolve_failed(ID, "no such host", now_us, dice);
        }
        assert_eq!(times[..6], [0, 2, 6, 14, 30, 62]);
        assert!(times.windows(2).skip(5).all(|pair| pair[1] - pair[0] == 60), "{times:?}");
        let [Notice::SeedLate { .. }, Notice::SeedAbsent { name, attempts: 10, reason }] =
            &rig.notices[..]
        else {
            panic!("each is told once: {:?}", rig.notices)
        };
        assert_eq!((&**name, &**reason), ("nexusd-0:5671", "no such host"));
    }

    #[test]
    fn a_seed_that_comes_up_after_three_attempts_is_linked() {
        let mut rig = Rig::new(even());
        for _ in 0..3 {
            rig.resolve(&[address(1)]);
            rig.dial(Outcome::Nobody);
        }
        rig.resolve(&[address(1)]);
        rig.dial(Outcome::Linked(PEER));
        assert_eq!(rig.now_us, 14 * SECOND_US);
        assert!(rig.seeds.has(PEER));
        assert_eq!(rig.next(), None);
        assert!(
            matches!(rig.notices[..], [Notice::SeedLate { .. }]),
            "no alarm: {:?}",
            rig.notices
        );
    }

    #[test]
    fn all_addresses_are_tried_in_turn() {
        let mut rig = Rig::new(even());
        rig.resolve(&[address(1), address(2), address(1), address(3)]);
        assert_eq!(rig.dial(Outcome::Nobody), address(1));
        assert_eq!(rig.dial(Outcome::Failed("no route")), address(2));
        assert_eq!(rig.dial(Outcome::Linked(PEER)), address(3));
        assert_eq!(rig.now_us, 0, "without waiting in between");
    }

    #[test]
    fn a_seed_that_is_this_node_is_told_once_and_left_alone() {
        let mut rig = Rig::new(even());
        rig.resolve(&[address(1)]);
        rig.dial(Outcome::OwnNode);
        for _ in 0..5 {
            let before_us = rig.now_us;
            assert!(matches!(rig.next(), Some(Wish::Resolve { .. })));
            assert_eq!(rig.now_us - before_us, 60 * SECOND_US);
            let (now_us, dice) = (rig.now_us, &mut rig.dice);
            rig.seeds.on_resolved(ID, &[address(1)], |_| true, now_us, dice);
        }
        assert_eq!(rig.notices, [Notice::SeedIsThisNode { name: "nexusd-0:5671".into() }]);
    }

    #[test]
    fn a_name_of_many_nodes_leads_to_another_one_than_this() {
        let mut rig = Rig::new(even());
        rig.resolve(&[address(1), address(2)]);
        rig.dial(Outcome::OwnNode);
        assert_eq!(rig.dial(Outcome::Linked(PEER)), address(2));
        assert!(rig.notices.is_empty());
    }

    #[test]
    fn a_seed_whose_node_is_gone_is_looked_for_at_once() {
        let mut rig = Rig::new(even());
        rig.resolve(&[address(1)]);
        rig.dial(Outcome::Linked(PEER));
        rig.now_us = 100 * SECOND_US;
        rig.seeds.on_gone(PEER, rig.now_us);
        rig.resolve(&[address(1)]);
        assert_eq!(rig.now_us, 100 * SECOND_US);
        rig.dial(Outcome::Nobody);
        rig.resolve(&[address(1)]);
        assert_eq!(rig.now_us, 102 * SECOND_US, "and then as at the start");
    }

    #[test]
    fn a_seed_that_is_linked_by_other_ways_is_not_dialled() {
        let mut rig = Rig::new(even());
        rig.resolve(&[address(1), address(2)]);
        rig.dial(Outcome::Nobody);
        rig.seeds.on_linked(address(2), PEER);
        assert!(rig.seeds.has(PEER));
        assert_eq!(rig.next(), None);
    }

    #[test]
    fn a_seed_that_was_long_absent_and_comes_is_told() {
        let mut rig = Rig::new(Retry { count: 2, ..even() });
        for _ in 0..3 {
            rig.resolve(&[address(1)]);
            rig.dial(Outcome::Nobody);
        }
        rig.resolve(&[address(1)]);
        rig.dial(Outcome::Linked(PEER));
        rig.next();
        assert_eq!(rig.notices.len(), 2);
        assert!(matches!(rig.notices[1], Notice::SeedFound { .. }));
    }

    #[test]
    fn a_name_that_is_never_answered_is_asked_again() {
        let mut rig = Rig::new(even());
        assert!(matches!(rig.next(), Some(Wish::Resolve { .. })));
        assert!(matches!(rig.next(), Some(Wish::Resolve { .. })));
        assert_eq!(rig.now_us, RESOLVE_DEADLINE_US + 2 * SECOND_US);
    }

    #[test]
    fn late_answers_change_nothing() {
        let mut rig = Rig::new(even());
        rig.resolve(&[address(1)]);
        rig.dial(Outcome::Linked(PEER));
        let (now_us, dice) = (rig.now_us, &mut rig.dice);
        rig.seeds.on_resolved(ID, &[address(2)], |_| false, now_us, dice);
        rig.seeds.on_dialled(Origin::Seed(ID), address(1), Outcome::Nobody, now_us, dice);
        rig.seeds.on_resolve_failed(SeedId(9), "of another list", now_us, dice);
        assert!(rig.seeds.has(PEER));
        rig.seeds.assert_invariants();
    }
}
