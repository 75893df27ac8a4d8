//! Beacons: what this node says to whom, and what it makes of those it hears.

use std::net::{IpAddr, SocketAddr};

use nexusd_wire::Beacon;

use super::Discovery;
use super::knowing::{Claim, Word, is_usable};
use crate::beacon_schedule::Due;
use crate::limits::{BEACON_ABSENT, BEACON_PEERS, BEACON_UNLINKED_MAX, DIAL_YIELD_US};
use crate::notice::{Departure, Notice};
use crate::output::Output;
use crate::peer::{Link, Peer};

impl Discovery {
    pub(super) fn announce(&mut self, due: Due) {
        if !self.outbox.is_full()
            && let Some(change) = self.interest.take_change_for_beacon()
        {
            self.tell_change(&change);
        }
        let beacon = Beacon {
            node: self.config.node,
            start_us: self.config.start_us,
            cluster: &self.config.cluster,
            mesh_address: self.config.mesh_address,
            mesh_port: self.config.mesh_port,
            app_port: self.config.app_port,
            interest_hash: self.interest.last_hash(),
            retained_digest: self.retained.digest(),
            is_goodbye: due == Due::Goodbye,
        };
        let datagram = beacon.encode(self.config.key.as_ref());
        let listeners = self.listeners();
        self.counters.beacons_sent += listeners.len() as u64;
        for to in listeners {
            self.outbox.push(Output::Unicast { to, datagram: datagram.clone() });
        }
        if self.config.is_multicast {
            self.counters.beacons_sent += 1;
            self.outbox.push(Output::Multicast(datagram));
        }
    }

    /// Who is sent a beacon by name: everybody who hears nothing of this node over a link or by
    /// multicast, and the places where somebody may be; without multicast a few others as well.
    fn listeners(&mut self) -> Vec<SocketAddr> {
        let is_multicast = self.config.is_multicast;
        let is_deaf = |peer: &&Peer| !(peer.is_linked() || is_multicast && peer.came_by_beacon);
        let mut listeners: Vec<SocketAddr> =
            self.peers.iter().filter(is_deaf).map(Peer::address).collect();
        let is_place = |address: &SocketAddr| {
            self.peers.at(*address).is_none() && !self.own_addresses.contains(address)
        };
        listeners.extend(self.seeds.unlinked_addresses().filter(is_place));
        if listeners.len() > BEACON_UNLINKED_MAX {
            let first = self.dice.usize(..listeners.len());
            listeners.rotate_left(first);
            listeners.truncate(BEACON_UNLINKED_MAX);
        }
        listeners.extend(self.absent.next_few(BEACON_ABSENT));
        if !is_multicast {
            listeners.extend(self.peers.sample(BEACON_PEERS, &mut self.dice, |peer| {
                peer.is_linked().then(|| peer.address())
            }));
        }
        listeners
    }

    pub(super) fn on_datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        if !self.senders.admit(from.ip(), self.now_us) {
            self.counters.datagrams_limited += 1;
            return;
        }
        // Borrowed by the beacon while the rest changes.
        let key = self.config.key.clone();
        let beacon = match Beacon::decode(bytes, key.as_ref()) {
            Ok(beacon) => beacon,
            Err(error) => return self.on_unreadable(from.ip(), &error.to_string()),
        };
        if beacon.node == self.config.node || beacon.cluster != self.config.cluster {
            self.counters.beacons_ignored += 1;
            return;
        }
        let address = address_of(&beacon, from);
        if !is_usable(address) {
            return self.on_unreadable(from.ip(), "its mesh address cannot be dialled");
        }
        self.counters.beacons_received += 1;
        if beacon.is_goodbye {
            self.on_goodbye(&beacon);
        } else {
            self.on_beacon(&beacon, address);
        }
    }

    fn on_unreadable(&mut self, from: IpAddr, reason: &str) {
        self.counters.datagrams_unreadable += 1;
        if let Some(datagrams) = self.senders.count_unreadable(from, self.now_us) {
            let from = from.to_canonical();
            self.notice(Notice::Unreadable { from, reason: reason.into(), datagrams });
        }
    }

    fn on_beacon(&mut self, beacon: &Beacon<'_>, address: SocketAddr) {
        let claim = Claim {
            node: beacon.node,
            start_us: beacon.start_us,
            address,
            app_port: beacon.app_port,
        };
        if !self.learn(claim, Word::Beacon) {
            return;
        }
        let (now_us, own) = (self.now_us, &self.retained);
        let mut differs = false;
        let link = self.peers.change(beacon.node, |peer| {
            peer.last_heard_us = now_us;
            peer.is_heard = true;
            peer.beacon_hash = Some(beacon.interest_hash);
            peer.sync.on_beacon(beacon.interest_hash, now_us);
            differs = peer.retained.on_beacon(beacon.retained_digest, own, now_us);
            peer.link
        });
        if link == Some(Link::Up) && differs {
            self.outbox.push(Output::CompareRetained { peer: beacon.node });
        }
        // With a new link they are compared anyway.
        if link == Some(Link::Idle) && (beacon.interest_hash != 0 || differs) {
            // It dials, too: it knows best what it wants.
            let delay_us = DIAL_YIELD_US + self.spread_us();
            self.want_link(beacon.node, delay_us);
        }
    }

    fn on_goodbye(&mut self, beacon: &Beacon<'_>) {
        let link = self.peers.change(beacon.node, |peer| {
            peer.is_leaving = true;
            peer.link
        });
        match link {
            // What is on its way over the link comes first; then it ends by itself.
            Some(Link::Up) | None => {}
            Some(Link::Broken | Link::Idle | Link::Never) => {
                self.bury(beacon.node, Departure::Goodbye);
            }
        }
    }
}

/// Where a beacon's sender takes links.
fn address_of(beacon: &Beacon<'_>, from: SocketAddr) -> SocketAddr {
    match (beacon.mesh_address, from) {
        (Some(ip), _) => SocketAddr::new(ip.to_canonical(), beacon.mesh_port),
        // Which interface a link-local address is at stands in the sender's.
        (None, SocketAddr::V6(mut from)) if from.ip().to_ipv4_mapped().is_none() => {
            from.set_port(beacon.mesh_port);
            from.set_flowinfo(0);
            from.into()
        }
        (None, from) => SocketAddr::new(from.ip().to_canonical(), beacon.mesh_port),
    }
}
