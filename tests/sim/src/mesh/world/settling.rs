//! The end of a run: everything is mended, all nodes find each other and learn what the others want, and a
//! message of each publisher to each topic comes to exactly those who want it.

use nexusd_discovery::PeerStatus;

use super::World;
use crate::mesh::coverage::Mark;
use crate::mesh::network::{Happening, RESENT_US};
use crate::mesh::oracle::{Fate, Incarnation, State, Stream};
use crate::mesh::wire::Wire;
use crate::trace::trace;
use crate::violation::{Violation, ensure};

/// Within this time after the last fault every node knows all that is to be known.
const CONVERGED_US: u64 = 30_000_000;
/// Between two looks whether that is so.
const STEP_US: u64 = 50_000;
/// Within this time all is sent that was published before; connections may be slow.
const DRAINED_US: u64 = 3_600_000_000;
/// Within this time all nodes have the same retained values: beacons tell that they differ.
const VALUES_SAME_US: u64 = 60_000_000;
/// Within this time messages are where they are wanted, and acknowledged.
const DELIVERED_US: u64 = 4_000_000;

impl World<'_> {
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        self.mend()?;
        trace!(self.trace, "{} all is mended", self.network.now_us);
        self.converge()?;
        if self.dice.one_in(12) {
            self.rest()?;
            self.converge()?;
        }
        self.assert_invariants()?;
        // What was lost and not told shows behind what comes now; and shards have to be told as well.
        self.run_for(300_000)?;
        let since_us = self.network.now_us;
        while let Some(what) = self.what_is_queued() {
            let us = self.network.now_us - since_us;
            ensure!(us < DRAINED_US, "{us} us after the last message there are {what}");
            self.run_for(STEP_US)?;
        }
        self.probe()?;
        self.check_values()?;
        self.check_ends();
        self.oracle.check_suspects()?;
        self.assert_invariants()
    }

    /// Waits until every node knows all that is to be known.
    fn converge(&mut self) -> Result<(), Violation> {
        let since_us = self.network.now_us;
        while let Some(why) = self.why_not_converged() {
            let us = self.network.now_us - since_us;
            ensure!(us < CONVERGED_US, "{us} us after the last fault {why}");
            self.run_for(STEP_US)?;
        }
        self.coverage.converged(self.network.now_us - since_us);
        Ok(())
    }

    /// Nobody wants anything for so long that links are closed; then everybody does.
    fn rest(&mut self) -> Result<(), Violation> {
        trace!(self.trace, "{} all subscriptions end", self.network.now_us);
        self.coverage.mark(Mark::Rest);
        let is_open = |stream: &usize| self.oracle.streams[*stream].state == State::Open;
        let open: Vec<usize> = (0..self.oracle.streams.len()).filter(is_open).collect();
        for stream in open {
            let (host, number) =
                (self.oracle.streams[stream].at.0, self.oracle.streams[stream].client);
            let Some(node) = &self.hosts[host].node else { continue };
            let client = node.clients.iter().position(|client| client.number == number);
            if let Some(client) = client {
                self.end_stream(host, client, stream);
                self.flush_client(host, client);
            }
        }
        let us = self.dice.between(50_000_000, 90_000_000);
        self.run_for(us)?;
        for host in 0..self.hosts.len() {
            self.subscribe(host, self.scenario.publishers);
            self.flush_client(host, self.scenario.publishers);
        }
        self.run_for(100_000)
    }

    /// Nothing goes wrong any more, and what did is over.
    fn mend(&mut self) -> Result<(), Violation> {
        self.is_mended = true;
        let until_us = self.trouble_until_us + RESENT_US;
        self.run_for(until_us.saturating_sub(self.network.now_us))?;
        for host in 0..self.hosts.len() {
            // Its start may be long to come.
            if self.hosts[host].node.is_none() {
                self.network.later(1, Happening::Start { host });
            }
            self.unstall(host)?;
        }
        let is_busy = |world: &Self| {
            world.hosts.iter().any(|host| {
                let node = host.node.as_ref();
                node.is_none_or(|node| node.drains_since_us.is_some())
            })
        };
        self.run_for(2)?;
        while is_busy(self) {
            self.run_for(STEP_US)?;
        }
        let asleep = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let asleep = asleep.flat_map(|node| node.threads.iter()).map(|it| it.asleep_until_us);
        let until_us = asleep.max().unwrap_or_default();
        self.run_for(until_us.saturating_sub(self.network.now_us))?;
        let since_us = self.network.now_us;
        while self.is_anyone_coming_back() {
            let us = self.network.now_us - since_us;
            ensure!(us < CONVERGED_US, "{us} us after the last fault a client has not come back");
            self.run_for(STEP_US)?;
        }
        Ok(())
    }

    fn is_anyone_coming_back(&self) -> bool {
        let nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        nodes
            .flat_map(|node| &node.clients)
            .any(|client| !client.is_over && (client.is_away || client.is_coming_back()))
    }

    /// What still waits anywhere, in a queue or on a connection, if anything does.
    fn what_is_queued(&self) -> Option<String> {
        for node in self.hosts.iter().filter_map(|host| host.node.as_ref()) {
            let (host, messages) = (node.host, node.metrics().queued_messages);
            if messages > 0 {
                return Some(format!("{messages} messages in queues of host {host}"));
            }
            if node.clients.iter().any(|client| client.is_held_back && !client.is_over) {
                return Some(format!("publishers of host {host} that are held back"));
            }
            if node.clients.iter().any(|client| !client.outbox.is_empty() && !client.is_over) {
                return Some(format!("messages that clients of host {host} cannot write"));
            }
        }
        let held = |wire: &Wire| wire.streams.iter().map(|stream| stream.held).max();
        let longest = self.network.wires.values().filter_map(held).max().unwrap_or_default();
        (longest > 4_096).then(|| format!("{longest} bytes on a connection"))
    }

    fn unstall(&mut self, host: usize) -> Result<(), Violation> {
        let Some(node) = &mut self.hosts[host].node else { return Ok(()) };
        let start = node.start;
        for client in 0..node.clients.len() {
            node.clients[client].stalls_until_us = 0;
            self.network.later(0, Happening::ClientReads { host, start, client });
            self.network.later(0, Happening::ComeBack { host, start, client });
        }
        Ok(())
    }

    /// What keeps nodes from knowing all that is to be known, if anything does.
    fn why_not_converged(&self) -> Option<String> {
        for (at, host) in self.hosts.iter().enumerate() {
            let node = host.node.as_ref()?;
            let discovery = &node.mesh.discovery;
            if self.wanted.get(&(at, node.start)).copied().flatten()
                != Some(discovery.interest_hash())
            {
                return Some(format!("host {at} does not know what its clients want"));
            }
            for (other, there) in self.hosts.iter().enumerate().filter(|(other, _)| *other != at) {
                let other_node = there.node.as_ref()?;
                let wanted = other_node.mesh.discovery.interest_hash();
                let Some(peer) = discovery.peer(other_node.id) else {
                    return Some(format!("host {at} does not know host {other}"));
                };
                if !peer.is_linked() {
                    return Some(format!("host {at} has no link to host {other}"));
                }
                let now_us = node.now(&self.network).mono_us;
                if peer.status(now_us) != PeerStatus::Alive {
                    return Some(format!("host {at} suspects host {other}"));
                }
                if !peer.is_synced() || peer.interest_hash() != Some(wanted) {
                    return Some(format!("host {at} does not hold what host {other} wants"));
                }
            }
            let known = discovery.peers().count();
            if known != self.hosts.len() - 1 {
                return Some(format!("host {at} knows {known} others"));
            }
        }
        None
    }

    fn assert_invariants(&self) -> Result<(), Violation> {
        for node in self.hosts.iter().filter_map(|host| host.node.as_ref()) {
            node.assert_invariants();
            let untold = node.mesh.discovery.counters().dials_untold;
            // Who stood still for long hears of it later than it waits.
            let is_in_time = untold == 0 || node.has_frozen;
            ensure!(is_in_time, "{untold} dials ended, and nobody said so");
            let limit = self.scenario.limits.memory_bytes as u64;
            for shard in &node.shards {
                let bytes = shard.metrics.get().log_bytes;
                ensure!(bytes <= limit, "a log of {bytes} bytes is over its limit of {limit}");
            }
        }
        Ok(())
    }

    /// Publishes a message of each publisher to each topic, and checks where they come to.
    fn probe(&mut self) -> Result<(), Violation> {
        let mut probes = Vec::new();
        let overflows: Vec<u64> =
            self.oracle.streams.iter().map(|stream| stream.overflows).collect();
        let is_open = |stream: &Stream| stream.state == State::Open;
        let were_open: Vec<bool> = self.oracle.streams.iter().map(is_open).collect();
        for host in 0..self.hosts.len() {
            let Some(node) = &self.hosts[host].node else { continue };
            for client in 0..node.clients.len() {
                let number = self.hosts[host].node.as_ref().map(|node| node.clients[client].number);
                for topic in 0..self.scenario.topics.len() {
                    let publisher = &self.oracle.publishers[&number.unwrap_or_default()];
                    // Those that were quiet have nothing to show but where their messages go.
                    if !publisher.by_topic.contains_key(&topic) && client != 0 {
                        continue;
                    }
                    probes.extend(self.publish(host, client, topic).map(|probe| (host, probe)));
                    self.coverage.mark(Mark::Probe);
                }
                self.flush_client(host, client);
                self.run_for(if self.hosts.len() <= 5 { 100_000 } else { 1_000 })?;
            }
        }
        self.run_for(DELIVERED_US)?;
        for (host, probe) in probes {
            let publication = &self.oracle.publications[probe as usize];
            let (topic, fate) = (publication.topic, publication.fate);
            let name = self.oracle.name(topic);
            let wants = |at: usize| {
                let stream = &self.oracle.streams[at];
                stream.state == State::Open && stream.wants(name)
            };
            let wanting: Vec<usize> =
                (0..self.oracle.streams.len()).filter(|at| wants(*at)).collect();
            let (mut own, mut others) = (0, std::collections::BTreeSet::new());
            for stream in wanting {
                let at = self.oracle.streams[stream].at;
                if at.0 == host {
                    own += 1;
                } else {
                    others.insert(at);
                }
                let has_overflown = self.oracle.streams[stream].overflows > overflows[stream];
                ensure!(
                    self.oracle.has_had(stream, probe) || has_overflown,
                    "message {probe} of host {host} to {name} has not come to stream {stream} of \
                     host {}, which wants {:?}",
                    at.0,
                    self.oracle.streams[stream].filters
                );
                self.coverage.mark(Mark::ProbeHad);
            }
            // Who fetched something of a topic gets it for a while, wanted or not.
            let fetched = |at: &Incarnation| at.0 != host && !others.contains(at);
            let more = self.oracle.fetching().filter(|at| fetched(at)).count();
            // So many messages at once may be too many for one whose policy is to disconnect.
            let has_ended = |(at, was_open): (usize, &bool)| {
                let stream = &self.oracle.streams[at];
                *was_open && !is_open(stream) && stream.wants(name)
            };
            let more =
                (more + were_open.iter().enumerate().filter(|it| has_ended(*it)).count()) as u32;
            let expected = own + others.len() as u32;
            ensure!(
                matches!(fate, Fate::Accepted(count) if (expected..=expected + more).contains(&count)),
                "message {probe} of host {host} to {name} is {fate:?}; {expected} want it"
            );
        }
        Ok(())
    }

    /// All nodes have the same retained values, and those are the newest.
    fn check_values(&mut self) -> Result<(), Violation> {
        if self.scenario.values.is_empty() {
            return Ok(());
        }
        let since_us = self.network.now_us;
        while !self.are_values_the_same() {
            let us = self.network.now_us - since_us;
            ensure!(us < VALUES_SAME_US, "{us} us after the last fault retained values differ");
            self.run_for(STEP_US)?;
        }
        let mut readers = Vec::new();
        for host in 0..self.hosts.len() {
            let client = self.scenario.publishers;
            let Some(node) = &mut self.hosts[host].node else { continue };
            let (at, it) = ((host, node.start), &mut node.clients[client]);
            let stream = self.oracle.subscribe(it.number, at, vec!["state/#"]);
            it.subscribe_to_values(stream, &["state/#"]);
            readers.push((at, stream));
            self.flush_client(host, client);
        }
        self.run_for(DELIVERED_US)?;
        let nodes: Vec<_> = readers.iter().map(|(at, _)| *at).collect();
        for topic in self.oracle.value_topics() {
            let (values, name) = (&self.oracle.values, self.oracle.name(topic));
            let newest = values.newest(&nodes, topic);
            let is_set = newest.is_some_and(|value| !values.is_clear(value.publication));
            let is_unheard_clear = |publication: u32| {
                let it = &self.oracle.publications[publication as usize];
                it.topic == topic && it.fate != Fate::Refused
            };
            let is_nobodys = readers.iter().all(|(_, stream)| values.had(*stream, topic).is_none());
            if is_nobodys && (!is_set || values.clears_behind(newest).any(is_unheard_clear)) {
                self.coverage.mark(Mark::ValueHadNone);
                continue;
            }
            for (at, stream) in &readers {
                let had = values.had(*stream, topic);
                ensure!(
                    is_set && had == newest,
                    "host {} has {had:?} as the value of {name}; the newest is {newest:?} (a value:                      {is_set})",
                    at.0
                );
                self.coverage.mark(Mark::ValueHad);
            }
        }
        Ok(())
    }

    fn are_values_the_same(&self) -> bool {
        let mut digests = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let first = digests.next().map(|node| node.mesh.retained_digest);
        digests.all(|node| Some(node.mesh.retained_digest) == first)
    }

    /// What nodes accepted that are no more has arrived, or its loss was told.
    fn check_ends(&mut self) {
        let ends = std::mem::take(&mut self.ends);
        let mut tails = Vec::new();
        for (number, publisher) in &self.oracle.publishers {
            if let Some(has_crashed) = ends.get(&publisher.at) {
                let topics = publisher.by_topic.keys();
                tails.extend(topics.map(|topic| (*number, *topic, *has_crashed)));
            }
        }
        for (publisher, topic, has_crashed) in tails {
            self.oracle.check_tail(publisher, topic, has_crashed);
        }
    }
}
