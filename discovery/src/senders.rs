//! Who sends datagrams: how many of them are looked at, and when an operator is told that they cannot
//! be read.
//!
//! Anybody may send to a multicast group, in any name. So a sender has a rate, all together have one,
//! and of the senders themselves only the newest are remembered.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::limits::{
    DATAGRAMS_PER_SECOND, DATAGRAMS_PER_SENDER, SENDERS_MAX, UNREADABLE_INTERVAL_US,
    UNREADABLE_NOTICES_PER_MINUTE,
};

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;

#[derive(Debug, Default)]
pub(crate) struct Senders {
    known: BTreeMap<IpAddr, Sender>,
    /// Oldest first.
    order: VecDeque<IpAddr>,
    datagrams: Rate,
    notices: Rate,
}

#[derive(Debug, Default)]
struct Sender {
    datagrams: Rate,
    unreadable: u64,
    told_us: Option<u64>,
}

impl Senders {
    /// Whether a datagram is looked at.
    pub(crate) fn admit(&mut self, from: IpAddr, now_us: u64) -> bool {
        // One that sends too much takes nothing from the others.
        self.sender(from).datagrams.take(DATAGRAMS_PER_SENDER, SECOND_US, now_us)
            && self.datagrams.take(DATAGRAMS_PER_SECOND, SECOND_US, now_us)
    }

    /// A datagram that was looked at is no beacon. How many there were, if an operator is to be told.
    pub(crate) fn count_unreadable(&mut self, from: IpAddr, now_us: u64) -> Option<u64> {
        let sender = self.sender(from);
        sender.unreadable += 1;
        if sender.told_us.is_some_and(|told_us| now_us < told_us + UNREADABLE_INTERVAL_US)
            || !self.notices.take(UNREADABLE_NOTICES_PER_MINUTE, MINUTE_US, now_us)
        {
            return None;
        }
        let sender = self.sender(from);
        sender.told_us = Some(now_us);
        Some(std::mem::take(&mut sender.unreadable))
    }

    fn sender(&mut self, from: IpAddr) -> &mut Sender {
        let from = from.to_canonical();
        if !self.known.contains_key(&from) {
            if self.order.len() >= SENDERS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(from);
        }
        self.known.entry(from).or_default()
    }

    pub(crate) fn assert_invariants(&self) {
        assert_eq!(self.known.len(), self.order.len(), "each sender stands in line once");
        assert!(self.order.len() <= SENDERS_MAX);
    }
}

/// So many per time: all of them at once, then evenly.
#[derive(Debug, Default)]
struct Rate {
    /// When what was taken is made up for, a thousandth of a microsecond exact.
    paid_at_ns: u64,
}

impl Rate {
    fn take(&mut self, count: u32, per_us: u64, now_us: u64) -> bool {
        let (now_ns, per_ns) = (now_us * 1_000, per_us * 1_000);
        let paid_at_ns = self.paid_at_ns.max(now_ns) + per_ns / u64::from(count);
        let is_within = paid_at_ns <= now_ns + per_ns;
        if is_within {
            self.paid_at_ns = paid_at_ns;
        }
        is_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn ip(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn admitted(senders: &mut Senders, from: IpAddr, datagrams: u32, now_us: u64) -> u32 {
        (0..datagrams).map(|_| u32::from(senders.admit(from, now_us))).sum()
    }

    #[test]
    fn a_sender_that_floods_is_not_looked_at_and_others_are() {
        let mut senders = Senders::default();
        let most = DATAGRAMS_PER_SENDER;
        assert_eq!(admitted(&mut senders, ip(1), 10 * most, SECOND_US), most);
        assert_eq!(admitted(&mut senders, ip(2), 10, SECOND_US), 10);
        assert_eq!(admitted(&mut senders, ip(1), 10 * most, 2 * SECOND_US), most);
    }

    #[test]
    fn however_many_names_a_flood_comes_in_it_is_bounded() {
        let mut senders = Senders::default();
        let admitted: u32 =
            (0..50_000).map(|number| admitted(&mut senders, ip(number), 1, SECOND_US)).sum();
        assert_eq!(admitted, DATAGRAMS_PER_SECOND);
        senders.assert_invariants();
    }

    #[test]
    fn an_operator_is_told_of_unreadable_datagrams_once_a_minute_and_sender() {
        let mut senders = Senders::default();
        assert_eq!(senders.count_unreadable(ip(1), 0), Some(1));
        for _ in 0..7 {
            assert_eq!(senders.count_unreadable(ip(1), 30 * SECOND_US), None);
        }
        assert_eq!(senders.count_unreadable(ip(2), 30 * SECOND_US), Some(1));
        assert_eq!(senders.count_unreadable(ip(1), 60 * SECOND_US), Some(8));
    }

    #[test]
    fn many_names_do_not_flood_the_log() {
        let mut senders = Senders::default();
        let told = (0..10_000).filter(|&n| senders.count_unreadable(ip(n), 0).is_some()).count();
        assert_eq!(told, UNREADABLE_NOTICES_PER_MINUTE as usize);
    }
}
