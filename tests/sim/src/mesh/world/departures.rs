//! Who gave up whom, and whether it had a reason: nobody is taken for dead that can be reached.

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
        let total_us = self.oracle.outages.total_us(host, life.at.0, from_us, now_us);
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
