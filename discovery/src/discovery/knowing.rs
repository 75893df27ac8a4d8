//! Who is known: how a node becomes a peer, whose address it is, and how it ceases to be one.

use std::net::{IpAddr, SocketAddr};

use nexusd_wire::{Member, NodeId};

use super::Discovery;
use crate::limits::{
    DIAL_SPREAD_MAX_US, DIAL_SPREAD_PER_PEER_US, DIAL_YIELD_US, MEMBERS_TAKEN_MAX,
    PEER_ADDRESSES_MAX, PEERS_MAX, UNHEARD_US,
};
use crate::notice::{Departure, Notice};
use crate::output::Output;
use crate::peer::{Link, Peer};
use crate::plant::{Plant, is_planted};

/// What is said of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) node: NodeId,
    pub(super) start_us: u64,
    pub(super) address: SocketAddr,
    pub(super) app_port: u16,
}

/// Who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// The node, over a link.
    Link,
    /// The node, to everybody.
    Beacon,
    /// Another node.
    Rumour,
}

impl Discovery {
    /// Takes in what is said of a node; whether it is a peer now. One that is new is dialled.
    pub(super) fn learn(&mut self, claim: Claim, word: Word) -> bool {
        let Claim { node, start_us, address, app_port } = claim;
        // Of this node, or of the one that was here before it.
        if node == self.config.node || word != Word::Link && self.own_addresses.contains(&address) {
            return false;
        }
        if let Some(holder) = self.peers.at(address).filter(|&holder| holder != node) {
            if !self.gives_way(holder, start_us, word) {
                return false;
            }
            self.bury(holder, Departure::Restarted);
        }
        if let Some(peer) = self.peers.get(node) {
            let has_room = peer.addresses.len() < PEER_ADDRESSES_MAX;
            if word == Word::Link || word == Word::Beacon && has_room {
                self.peers.add_address(node, address, word == Word::Link);
            }
            self.peers.change(node, |peer| {
                peer.start_us = peer.start_us.max(start_us);
                peer.app_port = if app_port == 0 { peer.app_port } else { app_port };
            });
            return true;
        }
        let is_ignored = self.is_draining || is_planted(Plant::StrangersIgnored);
        if word != Word::Link && (is_ignored || !self.peers.has_room()) {
            return self.ignore_peer();
        }
        let mut peer = Peer::new(node, address, self.now_us);
        (peer.start_us, peer.app_port) = (start_us, app_port);
        peer.came_by_beacon = word == Word::Beacon;
        self.peers.insert(peer);
        if word != Word::Link {
            // Of two that hear each other one dial is enough. Of a rumour the other has heard nothing.
            let yields = word == Word::Beacon && self.config.node > node;
            let delay_us = self.spread_us() + if yields { DIAL_YIELD_US } else { 0 };
            self.want_link(node, delay_us);
        }
        true
    }

    /// Whether the peer at an address is no more, because another node is there that started at
    /// `start_us`. The later start is there now, and who has a link knows best.
    fn gives_way(&self, holder: NodeId, start_us: u64, word: Word) -> bool {
        self.peers.get(holder).is_none_or(|holder| {
            let is_later = start_us > holder.start_us || is_planted(Plant::StaleStartAccepted);
            match word {
                Word::Link => is_later || !holder.is_linked(),
                Word::Beacon => is_later,
                Word::Rumour => is_later && !holder.is_linked(),
            }
        })
    }

    fn ignore_peer(&mut self) -> bool {
        if !self.is_draining {
            self.counters.peers_ignored += 1;
            if !std::mem::replace(&mut self.is_told_peers_full, true) {
                self.notice(Notice::PeersFull { peers: self.peers.len() });
            }
        }
        false
    }

    /// Nodes that a peer knows.
    pub(super) fn on_members(&mut self, members: &[Member]) {
        for member in members.iter().take(MEMBERS_TAKEN_MAX) {
            let &Member { node, start_us, mesh_address, app_port } = member;
            if is_usable(mesh_address) && self.peers.get(node).is_none() {
                let claim = Claim { node, start_us, address: mesh_address, app_port };
                self.learn(claim, Word::Rumour);
            }
        }
    }

    /// A peer is dead, which the data plane does not know.
    pub(super) fn bury(&mut self, node: NodeId, reason: Departure) {
        let link = self.peers.get(node).map(|peer| peer.link);
        match link {
            // Its successor's beacon may have overtaken its last messages and its Goodbye.
            Some(Link::Up) if reason == Departure::Restarted => {
                self.outbox.push(Output::Retire { peer: node });
            }
            Some(Link::Up | Link::Broken) => self.outbox.push(Output::Forget { peer: node }),
            Some(Link::Never | Link::Idle) | None => {}
        }
        self.on_dead(node, reason);
    }

    /// A peer is dead, and the data plane knows. It is not told again: it may have heard of it anew.
    pub(super) fn on_dead(&mut self, node: NodeId, reason: Departure) {
        let Some(peer) = self.peers.remove(node) else { return };
        let address = peer.address();
        self.dials.wait(node, peer.dial_due_us, None);
        self.owed.remove(&node);
        self.outbox.forget(node);
        self.seeds.on_gone(node, self.now_us);
        let may_come_back =
            matches!(reason, Departure::Lost | Departure::Silent | Departure::Unheard);
        let is_heard_then = self.config.is_multicast && peer.came_by_beacon;
        if may_come_back && !is_heard_then && !self.is_draining {
            self.absent.remember(address, self.now_us, &mut self.dice);
        }
        if peer.has_joined {
            self.notice(Notice::Left { node, address, reason });
        }
        self.is_told_peers_full &= self.peers.len() >= PEERS_MAX / 2;
        self.is_told_links_full &= self.peers.linked() >= self.config.links_max / 2;
    }

    /// Something is due at a peer.
    pub(super) fn look_at(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get(node) else { return };
        match peer.link {
            Link::Never | Link::Idle => {
                if peer.last_heard_us + UNHEARD_US <= self.now_us {
                    self.bury(node, Departure::Unheard);
                }
            }
            Link::Up => self.look_after_link(node),
            Link::Broken => {}
        }
    }

    /// How much later to dial, so that not all do at once what they learn at once.
    pub(super) fn spread_us(&mut self) -> u64 {
        let most_us = DIAL_SPREAD_PER_PEER_US * self.peers.len() as u64;
        self.dice.u64(..=most_us.min(DIAL_SPREAD_MAX_US))
    }
}

/// Whether a connection can be made to an address.
pub(super) fn is_usable(address: SocketAddr) -> bool {
    let is_everybody = match address.ip() {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_everybody
}
