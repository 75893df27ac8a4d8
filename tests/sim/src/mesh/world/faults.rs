//! What goes wrong, and for how long.

use super::World;
use crate::mesh::coverage::Mark;
use crate::mesh::network::{Happening, RESENT_US};
use crate::mesh::scenario::Trouble;
use crate::mesh::wire::{Party, WireId};
use crate::trace::trace;
use crate::violation::{Violation, ensure};

/// The longest that a thread has no CPU without its node being frozen.
const STARVED_US: u64 = 900_000;
/// How long a node may take to stop.
const DRAIN_TIMEOUT_US: u64 = 10_000_000;
/// Between the end of one outage and the beginning of the next.
const CALM_US: u64 = 2_500_000;

impl World<'_> {
    pub(super) fn go_wrong(&mut self) {
        if self.is_mended {
            return;
        }
        let pace_us = self.scenario.trouble_pace_us;
        let after_us = self.dice.between(pace_us / 4, pace_us);
        self.network.later(after_us, Happening::Fault);
        match self.dice.pick(&self.scenario.troubles.clone()) {
            Trouble::Reset => self.reset(),
            Trouble::Split => self.split(),
            Trouble::Freeze => self.freeze(),
            Trouble::Starve => self.starve(),
            Trouble::Crash => self.crash(false),
            Trouble::PowerCut => self.crash(true),
            Trouble::Drain => self.begin_drain(),
            Trouble::WallStep => self.step_wall(),
            Trouble::Stall => self.stall(),
            Trouble::ComeBack => self.break_client(),
        }
    }

    /// Connections between nodes.
    fn links(&self) -> Vec<WireId> {
        let is_link = |party: Party| matches!(party, Party::Node { .. });
        let wires = self.network.wires.iter();
        wires
            .filter(|(_, wire)| wire.ends.iter().all(|end| is_link(*end)))
            .map(|(id, _)| *id)
            .collect()
    }

    fn is_anyone_draining(&self) -> bool {
        let nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        nodes.into_iter().any(|node| node.drains_since_us.is_some())
    }

    fn reset(&mut self) {
        let mut links = self.links();
        if !self.scenario.has(Trouble::Crash) {
            // A last word that is under way would be lost with its connection.
            links.retain(|wire| self.network.wires[wire].closed_at_us == [None; 2]);
        }
        if links.is_empty() || self.is_anyone_draining() && !self.scenario.has(Trouble::Crash) {
            return;
        }
        let wire = self.dice.pick(&links);
        self.last_reset_us = self.network.now_us;
        self.coverage.mark(Mark::Reset);
        let ends = self.network.wires[&wire].ends;
        trace!(self.trace, "{} reset {wire:?} {ends:?}", self.network.now_us);
        self.network.reset(wire);
    }

    /// How long the next outage is; `None` while another one is too near.
    fn outage_us(&mut self) -> Option<u64> {
        let now_us = self.network.now_us;
        if now_us < self.trouble_until_us + CALM_US {
            return None;
        }
        let us = self.dice.between(50_000, self.scenario.outage_us);
        self.trouble_until_us = now_us + us + RESENT_US;
        Some(us)
    }

    fn split(&mut self) {
        let Some(us) = self.outage_us() else { return };
        let hosts = self.hosts.len();
        let part: Vec<bool> = match self.dice.one_in(2) {
            // One of them alone, or any part.
            true => {
                let alone = self.dice.below(hosts);
                (0..hosts).map(|host| host == alone).collect()
            }
            false => (0..hosts).map(|_| self.dice.one_in(2)).collect(),
        };
        let is_one_way = self.dice.one_in(4);
        let mut pairs = Vec::new();
        for one in (0..hosts).filter(|host| part[*host]) {
            for other in (0..hosts).filter(|host| !part[*host]) {
                pairs.push((one, other));
                if !is_one_way {
                    pairs.push((other, one));
                }
                let now_us = self.network.now_us;
                self.oracle.outages.between(one, other, now_us, now_us + us + RESENT_US);
            }
        }
        self.coverage.mark(if is_one_way { Mark::SplitOneWay } else { Mark::Split });
        trace!(self.trace, "{} split {pairs:?} for {us} us", self.network.now_us);
        self.network.blocked.extend(pairs.iter().copied());
        self.network.later(us, Happening::Heal { pairs });
    }

    fn freeze(&mut self) {
        let Some(us) = self.outage_us() else { return };
        let host = self.dice.below(self.hosts.len());
        let until_us = self.network.now_us + us;
        let Some(node) = &mut self.hosts[host].node else { return };
        node.has_frozen = true;
        for thread in 0..node.threads.len() {
            node.put_to_sleep(thread, until_us, &mut self.network);
        }
        self.oracle.outages.of(host, self.network.now_us, until_us);
        self.coverage.mark(Mark::Freeze);
        trace!(self.trace, "{} host {host} freezes for {us} us", self.network.now_us);
    }

    fn starve(&mut self) {
        let host = self.dice.below(self.hosts.len());
        let us = self.dice.between(5_000, STARVED_US);
        let until_us = self.network.now_us + us;
        let Some(node) = &mut self.hosts[host].node else { return };
        let thread = self.dice.below(node.threads.len());
        node.put_to_sleep(thread, until_us, &mut self.network);
        self.oracle.outages.of(host, self.network.now_us, until_us);
        self.coverage.mark(Mark::Starve);
        trace!(
            self.trace,
            "{} host {host}: thread {thread} has no CPU for {us} us", self.network.now_us
        );
    }

    fn crash(&mut self, has_no_power: bool) {
        let host = self.dice.below(self.hosts.len());
        if self.hosts[host].node.is_none() {
            return;
        }
        self.coverage.mark(if has_no_power { Mark::PowerCut } else { Mark::Crash });
        trace!(self.trace, "{} host {host} crashes ({has_no_power})", self.network.now_us);
        self.hosts[host].is_off = has_no_power;
        self.end_node(host);
        self.start_again(host);
    }

    fn start_again(&mut self, host: usize) {
        let us = match self.dice.below(3) {
            0 => self.dice.between(1_000, 100_000),
            1 => self.dice.between(10_000, 1_000_000),
            _ => self.dice.between(10_000, 9_000_000),
        };
        self.network.later(us, Happening::Start { host });
    }

    /// A node is no more, whatever it was doing.
    pub(super) fn end_node(&mut self, host: usize) {
        let Some(node) = self.hosts[host].node.take() else { return };
        if let Some(life) = self.lives.get_mut(&node.id) {
            (life.is_alive, life.is_closed) = (false, true);
        }
        let at = (host, node.start);
        self.ends.entry(at).or_insert(true);
        self.oracle.node_ended(at);
        self.known_since.retain(|(from, to), _| *from != at && *to != at);
        self.wanted.remove(&at);
        let is_off = self.hosts[host].is_off;
        for (wire, end) in self.network.wires_of(node.party()) {
            let is_closed = self.network.wires[&wire].closed_at_us[end].is_some();
            match is_closed {
                // Its kernel sees to it that the last bytes arrive.
                true if !is_off => {}
                false if !is_off && self.dice.one_in(2) => self.network.close(wire, end),
                _ => self.network.abort(wire, end, is_off),
            }
        }
        for client in &node.clients {
            self.network.abort(client.wire, 0, true);
        }
        for (wire, end, ..) in &node.sockets.backlog {
            self.network.abort(*wire, *end, is_off);
        }
    }

    fn begin_drain(&mut self) {
        let now_us = self.network.now_us;
        let host = self.dice.below(self.hosts.len());
        let Some(node) = &self.hosts[host].node else { return };
        if self.is_anyone_draining() || now_us < self.last_reset_us + CALM_US {
            return;
        }
        let start = node.start;
        self.network.later(1, Happening::Drain { host, start });
    }

    pub(super) fn drain(&mut self, host: usize) {
        let Some(node) = &mut self.hosts[host].node else { return };
        if node.drains_since_us.is_some() {
            return;
        }
        if let Some(life) = self.lives.get_mut(&node.id) {
            (life.has_drained, life.is_closed) = (true, true);
        }
        self.coverage.mark(Mark::Drain);
        trace!(self.trace, "{} host {host} drains", self.network.now_us);
        node.drain(DRAIN_TIMEOUT_US, &mut self.network);
    }

    /// All shards of a node are finished: it ends.
    pub(super) fn finish(&mut self, host: usize) -> Result<(), Violation> {
        let now_us = self.network.now_us;
        let Some(node) = &self.hosts[host].node else { return Ok(()) };
        let since_us = node.drains_since_us.unwrap_or(now_us);
        let is_in_time = now_us < since_us + DRAIN_TIMEOUT_US;
        trace!(self.trace, "{now_us} host {host} is done ({is_in_time})");
        ensure!(
            is_in_time || !self.oracle.is_lossless,
            "host {host} was not done when its time to stop was over"
        );
        if is_in_time {
            self.coverage.mark(Mark::Drained);
            self.ends.insert((host, node.start), false);
        }
        // What its clients were told is read before they go with it.
        self.end_node(host);
        self.start_again(host);
        Ok(())
    }

    fn step_wall(&mut self) {
        let host = self.dice.below(self.hosts.len());
        let us = self.dice.between(1_000, 7_200_000_000);
        let it = &mut self.hosts[host];
        it.wall_ahead_us = match self.dice.one_in(2) {
            true => it.wall_ahead_us + us,
            false => it.wall_ahead_us - us,
        };
        if let Some(node) = &mut it.node {
            node.wall_ahead_us = it.wall_ahead_us;
        }
        self.coverage.mark(Mark::WallStep);
        trace!(self.trace, "{} host {host}: the wall clock is set", self.network.now_us);
    }
}
