//! Who gave up whom, and whether it had a reason: nobody is taken for dead that can be reached.

use std::collections::BTreeMap;

use nexusd_discovery::{Departure, Notice};
use nexusd_wire::NodeId;

use super::World;
use crate::mesh::coverage::Mark;
use crate::trace::trace;
use crate::violation::{Violation, ensure};

/// What is not reached for less is not given up.
const OUTAGE_MIN_US: u64 = 1_500_000;
/// The time before a death in which there must have been such an outage.
const OUTAGE_WINDOW_US: u64 = 9_000_000;

/// When which hosts could not be reached: from and until when, between two, or one and all.
#[derive(Debug, Default)]
pub(super) struct Outages {
    of_pairs: BTreeMap<(usize, usize), Vec<(u64, u64)>>,
    of_hosts: BTreeMap<usize, Vec<(u64, u64)>>,
}

impl Outages {
    /// Two hosts do not reach each other.
    pub(super) fn between(&mut self, one: usize, other: usize, from_us: u64, until_us: u64) {
        let pair = (one.min(other), one.max(other));
        self.of_pairs.entry(pair).or_default().push((from_us, until_us));
    }

    /// A host does nothing.
    pub(super) fn of(&mut self, host: usize, from_us: u64, until_us: u64) {
        self.of_hosts.entry(host).or_default().push((from_us, until_us));
    }

    /// How much of the time from one moment to another `one` could not hear of `other`. While `one` itself
    /// did nothing it could not have heard anybody: that is no reason.
    fn total_us(&self, one: usize, other: usize, from_us: u64, until_us: u64) -> u64 {
        let pair = (one.min(other), one.max(other));
        let lists = [self.of_pairs.get(&pair), self.of_hosts.get(&other)];
        let mut spans: Vec<(u64, u64)> = lists
            .into_iter()
            .flatten()
            .flatten()
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
}

impl World<'_> {
    pub(super) fn check_silence(
        &self,
        host: usize,
        peer: NodeId,
        why: &str,
    ) -> Result<(), Violation> {
        let Some(life) = self.lives.get(&peer).filter(|life| life.is_alive) else {
            return Ok(());
        };
        // A node that stops gives up what is broken then.
        if self.hosts[host].node.as_ref().is_some_and(|node| node.drains_since_us.is_some()) {
            return Ok(());
        }
        let now_us = self.network.now_us;
        let from_us = now_us.saturating_sub(OUTAGE_WINDOW_US);
        let total_us = self.outages.total_us(host, life.at.0, from_us, now_us);
        ensure!(
            total_us >= OUTAGE_MIN_US,
            "host {host} took node {peer} of host {} for dead at {now_us} because it {why}, but it \
             was not to be reached for {total_us} us only",
            life.at.0
        );
        Ok(())
    }

    /// What discovery tells an operator of those that left.
    pub(super) fn note_notices(&mut self, host: usize) -> Result<(), Violation> {
        let Some(node) = &mut self.hosts[host].node else { return Ok(()) };
        let at = (host, node.start);
        for notice in std::mem::take(&mut node.mesh.notices) {
            trace!(self.trace, "{} host {host}: {notice}", self.network.now_us);
            let Notice::Left { node: peer, reason, .. } = notice else { continue };
            self.part(at, peer);
            let Some(life) = self.lives.get(&peer).copied() else { continue };
            let is_gone = !life.is_alive;
            let (is_so, mark) = match reason {
                Departure::Goodbye => (is_gone || life.has_drained, Mark::LeftGoodbye),
                Departure::Refused => (is_gone || life.is_closed, Mark::LeftRefused),
                Departure::Restarted => (is_gone, Mark::LeftRestarted),
                Departure::Lost => (true, Mark::LeftLost),
                Departure::Silent => (true, Mark::LeftSilent),
                Departure::Unheard => (true, Mark::LeftUnheard),
            };
            self.coverage.mark(mark);
            ensure!(
                is_so,
                "host {host} gave node {peer} of host {} up because {reason}, but it runs",
                life.at.0
            );
            let is_late = reason == Departure::Unheard && self.scenario.weather.datagram_loss > 0;
            if !is_late
                && matches!(reason, Departure::Lost | Departure::Silent | Departure::Unheard)
            {
                self.check_silence(host, peer, &reason.to_string())?;
            }
        }
        Ok(())
    }
}
