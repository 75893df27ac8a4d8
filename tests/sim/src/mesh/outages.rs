//! Who did nothing, or could not be reached, and when: what may come late or not at all for that.

use std::collections::BTreeMap;

/// When which hosts could not be reached: from and until when, between two, or one and all.
#[derive(Debug, Default)]
pub struct Outages {
    of_pairs: BTreeMap<(usize, usize), Vec<(u64, u64)>>,
    of_hosts: BTreeMap<usize, Vec<(u64, u64)>>,
    of_clients: BTreeMap<u32, Vec<(u64, u64)>>,
}

impl Outages {
    /// Two hosts do not reach each other.
    pub fn between(&mut self, one: usize, other: usize, from_us: u64, until_us: u64) {
        let pair = (one.min(other), one.max(other));
        self.of_pairs.entry(pair).or_default().push((from_us, until_us));
    }

    /// A host does nothing.
    pub fn of(&mut self, host: usize, from_us: u64, until_us: u64) {
        self.of_hosts.entry(host).or_default().push((from_us, until_us));
    }

    /// A client reads nothing.
    pub fn of_client(&mut self, client: u32, from_us: u64, until_us: u64) {
        self.of_clients.entry(client).or_default().push((from_us, until_us));
    }

    /// How much of the time from one moment to another a host did nothing, or one of its threads.
    pub fn of_host_us(&self, host: usize, from_us: u64, until_us: u64) -> u64 {
        union_us(self.of_hosts.get(&host).into_iter().flatten(), from_us, until_us)
    }

    /// The same of a client.
    pub fn of_client_us(&self, client: u32, from_us: u64, until_us: u64) -> u64 {
        union_us(self.of_clients.get(&client).into_iter().flatten(), from_us, until_us)
    }

    /// How much of the time from one moment to another `one` could not hear of `other`. While `one` itself
    /// did nothing it could not have heard anybody: that is no reason.
    pub fn total_us(&self, one: usize, other: usize, from_us: u64, until_us: u64) -> u64 {
        let pair = (one.min(other), one.max(other));
        let lists = [self.of_pairs.get(&pair), self.of_hosts.get(&other)];
        union_us(lists.into_iter().flatten().flatten(), from_us, until_us)
    }
}

/// How much of the time from one moment to another is in any of these.
fn union_us<'s>(spans: impl Iterator<Item = &'s (u64, u64)>, from_us: u64, until_us: u64) -> u64 {
    let mut spans: Vec<(u64, u64)> = spans
        .map(|&(begin_us, end_us)| (begin_us.max(from_us), end_us.min(until_us)))
        .filter(|(begin_us, end_us)| begin_us < end_us)
        .collect();
    spans.sort_unstable();
    let (mut total_us, mut at_us) = (0, from_us);
    for (begin_us, end_us) in spans {
        total_us += end_us.saturating_sub(begin_us.max(at_us));
        at_us = at_us.max(end_us);
    }
    total_us
}
