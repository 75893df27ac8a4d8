//! The nodes that are known: by who they are, by where they are, and by when something has to be done
//! about one.
//!
//! Invariants: an address belongs to one peer at most; a peer is looked at no later than
//! [`Peer::wake_at`] says. All changes of a peer go through [`Peers::change`], which keeps that so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use nexusd_wire::NodeId;

use crate::limits::{PEER_ADDRESSES_MAX, PEERS_MAX};
use crate::peer::Peer;

#[derive(Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<NodeId, Entry>,
    by_address: BTreeMap<SocketAddr, NodeId>,
    /// In no order, so that some can be taken at random.
    nodes: Vec<NodeId>,
    timers: BTreeSet<(u64, NodeId)>,
    linked: usize,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    /// When it is looked at, which may be too early.
    timer_us: Option<u64>,
    /// Its place in `nodes`.
    place: usize,
}

impl Peers {
    pub(crate) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node).map(|entry| &entry.peer)
    }

    /// Who is there.
    pub(crate) fn at(&self, address: SocketAddr) -> Option<NodeId> {
        self.by_address.get(&address).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().map(|entry| &entry.peer)
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How many are linked.
    pub(crate) fn linked(&self) -> usize {
        self.linked
    }

    /// Whether one more is remembered that has no link.
    pub(crate) fn has_room(&self) -> bool {
        self.nodes.len() < PEERS_MAX
    }

    /// Takes in a peer that is not known, at an address that is nobody's.
    pub(crate) fn insert(&mut self, peer: Peer) {
        let node = peer.node;
        for &address in &peer.addresses {
            let other = self.by_address.insert(address, node);
            debug_assert!(other.is_none(), "{address} is nobody's");
        }
        let entry = Entry { peer, timer_us: None, place: self.nodes.len() };
        self.nodes.push(node);
        let other = self.peers.insert(node, entry);
        debug_assert!(other.is_none(), "{node} is not known");
        self.change(node, |_| {});
    }

    pub(crate) fn remove(&mut self, node: NodeId) -> Option<Peer> {
        let Entry { peer, timer_us, place } = self.peers.remove(&node)?;
        if let Some(timer_us) = timer_us {
            self.timers.remove(&(timer_us, node));
        }
        for address in &peer.addresses {
            self.by_address.remove(address);
        }
        self.linked -= usize::from(peer.is_linked());
        self.nodes.swap_remove(place);
        if let Some(moved) = self.nodes.get(place).and_then(|moved| self.peers.get_mut(moved)) {
            moved.place = place;
        }
        Some(peer)
    }

    /// Changes a peer in everything but who and where it is.
    pub(crate) fn change<R>(
        &mut self,
        node: NodeId,
        change: impl FnOnce(&mut Peer) -> R,
    ) -> Option<R> {
        let entry = self.peers.get_mut(&node)?;
        self.linked -= usize::from(entry.peer.is_linked());
        let result = change(&mut entry.peer);
        self.linked += usize::from(entry.peer.is_linked());
        // One that is too early is found out when it is looked at: beacons come often, and put it off.
        if let Some(due_us) = entry.peer.wake_at()
            && entry.timer_us.is_none_or(|timer_us| timer_us > due_us)
        {
            if let Some(timer_us) = entry.timer_us.replace(due_us) {
                self.timers.remove(&(timer_us, node));
            }
            self.timers.insert((due_us, node));
        }
        Some(result)
    }

    /// A peer that it is time to look at.
    pub(crate) fn take_due(&mut self, now_us: u64) -> Option<NodeId> {
        while let Some(&(timer_us, node)) = self.timers.first().filter(|(us, _)| *us <= now_us) {
            self.timers.remove(&(timer_us, node));
            let Some(entry) = self.peers.get_mut(&node) else { continue };
            entry.timer_us = None;
            let is_due = entry.peer.wake_at().is_some_and(|due_us| due_us <= now_us);
            if is_due {
                return Some(node);
            }
            self.change(node, |_| {});
        }
        None
    }

    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.timers.first().map(|&(timer_us, _)| timer_us)
    }

    /// A peer is found at an address, which must be its own or nobody's; `is_first`: it is linked there.
    pub(crate) fn add_address(&mut self, node: NodeId, address: SocketAddr, is_first: bool) {
        let Some(Entry { peer, .. }) = self.peers.get_mut(&node) else { return };
        let place = peer.addresses.iter().position(|&known| known == address);
        match place {
            Some(place) if is_first => peer.addresses[..=place].rotate_right(1),
            Some(_) => {}
            None => {
                if peer.addresses.len() == PEER_ADDRESSES_MAX
                    && let Some(dropped) = peer.addresses.pop()
                {
                    self.by_address.remove(&dropped);
                }
                let other = self.by_address.insert(address, node);
                debug_assert!(other.is_none(), "{address} is nobody's");
                let place = if is_first { 0 } else { peer.addresses.len() };
                peer.addresses.insert(place, address);
            }
        }
    }

    /// A peer is not at this address; whether it has another one. If not, it is to be removed.
    pub(crate) fn drop_address(&mut self, node: NodeId, address: SocketAddr) -> bool {
        let Some(Entry { peer, .. }) = self.peers.get_mut(&node) else { return false };
        if peer.addresses.len() == 1 {
            return peer.addresses[0] != address;
        }
        if let Some(place) = peer.addresses.iter().position(|&known| known == address) {
            peer.addresses.remove(place);
            self.by_address.remove(&address);
        }
        true
    }

    /// Some that `pick` makes something of, at random, each once; it looks at no more than a few times
    /// as many.
    pub(crate) fn sample<T>(
        &self,
        count: usize,
        dice: &mut fastrand::Rng,
        pick: impl Fn(&Peer) -> Option<T>,
    ) -> Vec<T> {
        let mut sample = Vec::with_capacity(count.min(self.nodes.len()));
        if self.nodes.len() <= 4 * count {
            let mut nodes = self.nodes.clone();
            dice.shuffle(&mut nodes);
            let picked = nodes.iter().filter_map(|&node| pick(self.get(node)?));
            sample.extend(picked.take(count));
            return sample;
        }
        let mut seen = BTreeSet::new();
        for _ in 0..4 * count {
            let node = self.nodes[dice.usize(..self.nodes.len())];
            if seen.insert(node) {
                sample.extend(self.get(node).and_then(&pick));
            }
            if sample.len() == count {
                break;
            }
        }
        sample
    }

    pub(crate) fn assert_invariants(&self) {
        assert_eq!(self.peers.len(), self.nodes.len());
        let addresses: usize = self.iter().map(|peer| peer.addresses.len()).sum();
        assert_eq!(addresses, self.by_address.len(), "an address belongs to one peer");
        let mut linked = 0;
        for (&node, entry) in &self.peers {
            let peer = &entry.peer;
            assert_eq!(peer.node, node);
            assert_eq!(self.nodes.get(entry.place), Some(&node));
            assert!(peer.addresses.iter().all(|&address| self.at(address) == Some(node)));
            let due_us = peer.wake_at().unwrap_or(u64::MAX);
            assert!(entry.timer_us.unwrap_or(u64::MAX) <= due_us, "{node} is looked at in time");
            assert!(entry.timer_us.is_none_or(|us| self.timers.contains(&(us, node))));
            linked += usize::from(peer.is_linked());
            peer.assert_invariants();
        }
        assert_eq!(linked, self.linked);
        assert!(self.timers.len() <= self.peers.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::UNHEARD_US;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn with(peers: u16) -> Peers {
        let mut all = Peers::default();
        for port in 0..peers {
            all.insert(Peer::new(NodeId(u128::from(port)), address(port), 0));
        }
        all.assert_invariants();
        all
    }

    #[test]
    fn a_beacon_puts_off_when_a_peer_is_looked_at() {
        let mut peers = with(1);
        peers.change(NodeId(0), |peer| peer.last_heard_us = 3_000_000);
        assert_eq!(peers.take_due(UNHEARD_US), None);
        assert_eq!(peers.wake_at(), Some(3_000_000 + UNHEARD_US));
        peers.assert_invariants();
        assert_eq!(peers.take_due(3_000_000 + UNHEARD_US), Some(NodeId(0)));
    }

    #[test]
    fn a_peer_has_few_addresses_and_the_linked_one_is_first() {
        let mut peers = with(1);
        for port in 1..10 {
            peers.add_address(NodeId(0), address(port), false);
            peers.assert_invariants();
        }
        peers.add_address(NodeId(0), address(99), true);
        peers.add_address(NodeId(0), address(1), true);
        peers.assert_invariants();
        let peer = peers.get(NodeId(0)).expect("it is known");
        assert_eq!(peer.addresses, [1, 99, 0, 2].map(address));
    }

    #[test]
    fn a_peer_without_an_address_is_to_be_removed() {
        let mut peers = with(1);
        peers.add_address(NodeId(0), address(5), false);
        assert!(peers.drop_address(NodeId(0), address(0)));
        assert!(peers.drop_address(NodeId(0), address(0)), "it is not there anyway");
        assert!(!peers.drop_address(NodeId(0), address(5)));
        peers.assert_invariants();
    }

    #[test]
    fn a_sample_holds_each_once_and_all_in_the_long_run() {
        let (mut peers, mut dice) = (with(100), fastrand::Rng::with_seed(1));
        peers.remove(NodeId(17));
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let sample = peers.sample(5, &mut dice, |peer| Some(peer.node));
            assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), 5);
            seen.extend(sample);
        }
        assert_eq!(seen.len(), 99);
        assert_eq!(peers.sample(500, &mut dice, |peer| Some(peer.node)).len(), 99);
        peers.assert_invariants();
    }
}
