//! What clients do, and what follows from it for who must get what.

use nexusd_core::Limits;
use nexusd_wire::{Position, Sequence};

use super::World;
use crate::mesh::coverage::Mark;
use crate::mesh::network::Happening;
use crate::mesh::oracle::State;
use crate::mesh::scenario::Trouble;
use crate::trace::trace;

/// For so long a node has to know what another wants before its messages are owed: its shards have to be
/// told, too.
const KNOWN_US: u64 = 200_000;

impl World<'_> {
    pub(super) fn operate(&mut self) {
        if self.operations_left == 0 {
            return;
        }
        self.operations_left -= 1;
        let after_us = self.dice.between(1, self.scenario.pace_us);
        self.network.later(after_us, Happening::Operation);
        let host = self.dice.below(self.hosts.len());
        let Some(node) = &self.hosts[host].node else { return };
        if node.drains_since_us.is_some() && !self.dice.one_in(4) {
            return;
        }
        let clients = node.clients.len();
        let publishers = self.scenario.publishers;
        match self.dice.below(12) {
            0 => {
                let client = publishers + self.dice.below(clients - publishers);
                self.subscribe(host, client);
                self.flush_client(host, client);
            }
            1 => {
                let client = publishers + self.dice.below(clients - publishers);
                self.unsubscribe(host, client);
                self.flush_client(host, client);
            }
            2 | 3 if !self.scenario.values.is_empty() => {
                let client = self.dice.below(publishers);
                self.retain(host, client);
                self.flush_client(host, client);
            }
            _ => {
                // What was published over a connection that breaks may not have been accepted.
                let may_all = !self.scenario.has(Trouble::ComeBack);
                let client = match self.dice.one_in(6) && may_all {
                    true => self.dice.below(clients),
                    false => self.dice.below(publishers),
                };
                if self.is_held_back(host, client) && !self.dice.one_in(4) {
                    return;
                }
                let Some(topic) = self.topic_of(host) else { return };
                for _ in 0..self.dice.between(1, self.scenario.burst_max) {
                    let topic = match self.dice.one_in(8) {
                        true => self.topic_of(host).unwrap_or(topic),
                        false => topic,
                    };
                    self.publish(host, client, topic);
                }
                self.flush_client(host, client);
            }
        }
        self.note_wanted();
    }

    /// A topic that clients of this host publish to, if there is one.
    fn topic_of(&mut self, host: usize) -> Option<usize> {
        let topics = 0..self.scenario.topics.len();
        if !self.scenario.is_at_home {
            return Some(self.dice.below(topics.len()));
        }
        let own: Vec<usize> = topics.filter(|topic| topic % self.hosts.len() == host).collect();
        (!own.is_empty()).then(|| self.dice.pick(&own))
    }

    fn is_held_back(&self, host: usize, client: usize) -> bool {
        let node = self.hosts[host].node.as_ref();
        node.is_some_and(|node| node.clients[client].is_held_back)
    }

    pub(super) fn subscribe(&mut self, host: usize, client: usize) {
        let filters = self.scenario.filters.clone();
        let mut chosen = vec![self.dice.pick(&filters)];
        while self.dice.one_in(3) {
            let filter = self.dice.pick(&filters);
            if !chosen.contains(&filter) {
                chosen.push(filter);
            }
        }
        let ended = self.oracle.ended_cleanly();
        let may_wait = !self.oracle.is_lossless && self.operations_left > 0;
        let ended = ended.filter(|_| may_wait && self.dice.one_in(2));
        if let Some(ended) = ended {
            chosen.clone_from(&self.oracle.streams[ended].filters);
        }
        let policy = self.dice.pick(&self.scenario.policies);
        let is_counted = self.dice.one_in(2);
        let Some(node) = &mut self.hosts[host].node else { return };
        let it = &mut node.clients[client];
        if it.is_over || it.is_away || it.streams.len() >= 4 {
            return;
        }
        self.coverage.mark(Mark::Subscribe);
        let at = (host, node.start);
        let stream = self.oracle.subscribe(it.number, at, chosen.clone());
        trace!(
            self.trace,
            "{} host {host}: client {} subscribes to {chosen:?} as stream {stream}",
            self.network.now_us,
            it.number
        );
        let queue_messages = u64::from(self.scenario.queue_messages);
        let of_bytes = Limits::default().queue_bytes / (self.scenario.payload_max + 200);
        let expected = &mut self.oracle.streams[stream];
        (expected.is_counted, expected.policy) = (is_counted, policy);
        expected.queue_messages = if queue_messages > 0 { queue_messages } else { of_bytes };
        let (mut positions, mut gone) = (Vec::new(), None);
        if let Some(ended) = ended {
            self.coverage.mark(Mark::TakeUp);
            trace!(self.trace, "  it goes on where stream {ended} was");
            (positions, gone) = self.oracle.take_up(ended, stream);
            if gone.is_some() {
                self.coverage.mark(Mark::TakeUpOfEnded);
            }
        }
        let positions: Vec<_> = positions
            .into_iter()
            .map(|(topic, node, last)| Position {
                topic: self.oracle.name(topic),
                sequence: Sequence(last),
                origin: Some(node),
            })
            .collect();
        let options = (policy, self.scenario.queue_messages, is_counted);
        it.subscribe(stream, &chosen, options, (&positions, gone.as_slice()));
    }

    fn unsubscribe(&mut self, host: usize, client: usize) {
        let Some(node) = &mut self.hosts[host].node else { return };
        let it = &mut node.clients[client];
        let is_open = |stream: &&usize| self.oracle.streams[**stream].state == State::Open;
        let open: Vec<usize> = it.streams.iter().filter(is_open).copied().collect();
        // A subscription that its old connection still holds is not found on the new one.
        if it.is_over || it.is_away || it.is_coming_back() || open.is_empty() {
            return;
        }
        let stream = self.dice.pick(&open);
        self.end_stream(host, client, stream);
    }

    pub(super) fn end_stream(&mut self, host: usize, client: usize, stream: usize) {
        let Some(node) = &mut self.hosts[host].node else { return };
        let it = &mut node.clients[client];
        let Some(subscription) = self.oracle.streams[stream].subscription else { return };
        self.coverage.mark(Mark::Unsubscribe);
        trace!(self.trace, "{} host {host}: stream {stream} ends", self.network.now_us);
        self.oracle.ending(stream);
        it.unsubscribe(stream, subscription);
    }

    /// A client publishes a message; its number.
    pub(super) fn publish(&mut self, host: usize, client: usize, topic: usize) -> Option<u32> {
        let len = self.dice.magnitude(self.scenario.payload_max);
        // What is published there is refused, and in the end everything has to come.
        let most =
            if self.is_mended || host == 0 { self.scenario.payload_max_of_all() } else { u64::MAX };
        let len = len.min(most) as usize;
        let ack = self.is_mended || self.dice.one_in(2);
        let ttl_ms_max = u64::from(self.scenario.ttl_ms_max);
        let ttl_ms = match ttl_ms_max > 0 && !self.is_mended && self.dice.one_in(2) {
            true => 1 + self.dice.below(ttl_ms_max as usize) as u32,
            false => 0,
        };
        let node = self.hosts[host].node.as_mut()?;
        let it = &mut node.clients[client];
        if it.is_over {
            return None;
        }
        self.coverage.mark(Mark::Publish);
        let at = (host, node.start);
        let awake_since_us = node.threads.iter().map(|thread| thread.asleep_until_us).max();
        let awake_since_us = awake_since_us.unwrap_or_default();
        let publication = self.oracle.publish(it.number, topic, u64::from(ttl_ms) * 1_000);
        trace!(
            self.trace,
            "{} host {host}: client {} publishes message {publication} to {} for {ttl_ms} ms",
            self.network.now_us,
            it.number,
            self.oracle.name(topic)
        );
        it.publish(publication, (topic, self.oracle.name(topic)), len, ttl_ms, ack);
        let now_us = self.network.now_us;
        for (&(from, to), &(hash, since_us)) in &self.known_since {
            let is_sure = since_us.max(awake_since_us) + KNOWN_US <= now_us;
            let is_so = self.wanted.get(&to) == Some(&Some(hash));
            if from == at && is_sure && is_so {
                self.oracle.owe(publication, to);
            }
        }
        Some(publication)
    }

    /// A client sets or clears a retained value.
    fn retain(&mut self, host: usize, client: usize) {
        let topics = self.oracle.value_topics();
        let topic = topics.start + self.dice.below(topics.len());
        let len = match self.dice.one_in(4) {
            true => 0,
            false => {
                let len = self.dice.magnitude(self.scenario.payload_max);
                (1 + len).min(self.scenario.payload_max_of_all()) as usize
            }
        };
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        let it = &mut node.clients[client];
        if it.is_over {
            return;
        }
        let publication = self.oracle.publish(it.number, topic, 0);
        if len == 0 {
            self.oracle.values.note_clear(publication);
        }
        self.coverage.mark(if len == 0 { Mark::ValueCleared } else { Mark::ValueSet });
        let name = self.oracle.name(topic);
        trace!(
            self.trace,
            "{} host {host}: client {} retains message {publication} of {len} bytes for {name}",
            self.network.now_us,
            it.number
        );
        it.retain(publication, topic, name, len);
    }

    /// What nodes want has changed.
    pub(super) fn note_wanted(&mut self) {
        let mut changed = std::mem::take(&mut self.oracle.changed);
        changed.sort_unstable();
        changed.dedup();
        for at in changed {
            let filters = self.oracle.filters_of(at);
            self.wanted.insert(at, filters.map(|filters| hash_of(filters.into_iter())));
        }
    }

    /// A node's mesh thread has had a turn: since when it knows what others want.
    pub(super) fn note_knowledge(&mut self, host: usize) {
        let now_us = self.network.now_us;
        let Some(node) = &self.hosts[host].node else { return };
        let at = (host, node.start);
        for (other, there) in self.hosts.iter().enumerate() {
            let Some(other_node) = there.node.as_ref().filter(|_| other != host) else { continue };
            let to = (other, other_node.start);
            let peer = node.mesh.discovery.peer(other_node.id);
            let hash = peer
                .filter(|peer| peer.is_linked() && peer.is_synced())
                .filter(|_| !self.parted.contains(&(at, to)))
                .and_then(|peer| peer.interest_hash());
            match hash {
                // A set that is empty is owed nothing.
                None | Some(0) => {
                    self.known_since.remove(&(at, to));
                }
                Some(hash) => {
                    let known = self.known_since.entry((at, to)).or_insert((hash, now_us));
                    if known.0 != hash {
                        *known = (hash, now_us);
                    }
                }
            }
        }
    }

    /// Subscribers that stall.
    pub(super) fn stall(&mut self) {
        let host = self.dice.below(self.hosts.len());
        let us = self.dice.between(100_000, 6_000_000);
        let Some(node) = &mut self.hosts[host].node else { return };
        let client = self.dice.below(node.clients.len());
        let start = node.start;
        let it = &mut node.clients[client];
        it.stalls_until_us = self.network.now_us + us;
        self.oracle.outages.of_client(it.number, self.network.now_us, it.stalls_until_us);
        self.network.later(us, Happening::ClientReads { host, start, client });
        self.coverage.mark(Mark::Stall);
        debug_assert!(self.scenario.has(Trouble::Stall));
    }
}

/// CRC-64/WE over sorted filters, each with an end; the empty set is 0.
pub(super) fn hash_of<'f>(filters: impl Iterator<Item = &'f str>) -> u64 {
    let mut filters = filters.peekable();
    if filters.peek().is_none() {
        return 0;
    }
    let mut crc = u64::MAX;
    let bytes = filters.flat_map(|filter| filter.bytes().chain([b'\n']));
    for byte in bytes {
        crc ^= u64::from(byte) << 56;
        for _ in 0..8 {
            let carry = crc >> 63;
            crc = crc << 1 ^ carry.wrapping_mul(0x42F0_E1EB_A9EA_3693);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_discoverys() {
        assert_eq!(hash_of([].into_iter()), 0);
        // As computed by `nexusd_discovery` for "a/#" and "b".
        let mut discovery = nexusd_discovery::Discovery::new(nexusd_discovery::Config::default());
        let now = nexusd_discovery::Now { mono_us: 1, wall_us: 1 };
        for filter in ["b", "a/#"] {
            let event = nexusd_discovery::Event::Interest { filter, is_wanted: true };
            discovery.on_event(now, event);
        }
        discovery.on_event(now, nexusd_discovery::Event::Started);
        assert_eq!(hash_of(["a/#", "b"].into_iter()), discovery.interest_hash());
    }
}
