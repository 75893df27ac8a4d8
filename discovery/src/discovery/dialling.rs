//! Who is dialled and when, and what becomes of a dial that comes to no link.

use std::net::SocketAddr;

use nexusd_wire::NodeId;

use super::Discovery;
use super::knowing::{Claim, Word, is_usable};
use crate::address_source::{AddressSource, Origin, Outcome, Wish};
use crate::dials::{Dial, Readiness};
use crate::event::LinkRefusal;
use crate::limits::{DIAL_YIELD_US, OWN_ADDRESSES_MAX, STRANGERS_MAX, SUPERSEDED_US};
use crate::notice::{Departure, Notice};
use crate::output::Output;
use crate::peer::Link;

impl Discovery {
    /// A link to this peer should stand; it is dialled after `delay_us`, if not sooner.
    pub(super) fn want_link(&mut self, node: NodeId, delay_us: u64) {
        let Some(peer) = self.peers.get(node) else { return };
        let due_us = self.now_us + delay_us;
        let is_sooner = peer.dial_due_us.is_none_or(|was_us| due_us < was_us);
        if !peer.is_linked() && is_sooner && !self.is_draining {
            self.set_dial_due(node, Some(due_us));
        }
    }

    pub(super) fn set_dial_due(&mut self, node: NodeId, due_us: Option<u64>) {
        let was_us = self.peers.change(node, |peer| {
            let was_us = peer.dial_due_us;
            peer.dial_due_us = due_us;
            was_us
        });
        if let Some(was_us) = was_us {
            self.dials.wait(node, was_us, due_us);
        }
    }

    pub(super) fn has_room_for_links(&self) -> bool {
        self.dials.has_room() && self.peers.linked() + self.dials.len() < self.config.links_max
    }

    pub(super) fn dial_who_waits(&mut self) {
        while let Some(node) = self.dials.next_waiting(self.now_us) {
            if !self.has_room_for_links() {
                return self.tell_if_links_are_full();
            }
            let Some(peer) = self.peers.get(node) else { return };
            let address = peer.address();
            match self.dials.readiness(address, self.now_us) {
                Readiness::Ready => {
                    self.set_dial_due(node, None);
                    self.dial(address, Some(node), None);
                }
                Readiness::Busy => self.set_dial_due(node, Some(self.now_us + DIAL_YIELD_US)),
                Readiness::Later(until_us) => self.set_dial_due(node, Some(until_us)),
            }
        }
    }

    fn tell_if_links_are_full(&mut self) {
        let links = self.peers.linked();
        if links >= self.config.links_max && !std::mem::replace(&mut self.is_told_links_full, true)
        {
            self.notice(Notice::LinksFull { links });
        }
    }

    fn dial(&mut self, address: SocketAddr, peer: Option<NodeId>, origin: Option<Origin>) {
        let dial = self.dials.begin(address, peer, origin, self.now_us);
        self.counters.dials += 1;
        self.outbox.push(Output::Dial { dial, address, peer });
    }

    /// Does what sources of addresses want.
    pub(super) fn serve_sources(&mut self) {
        while let Some(wish) = self.next_wish() {
            match wish {
                Wish::Resolve { seed, name } => self.outbox.push(Output::Resolve { seed, name }),
                Wish::Dial { origin, address } => self.dial_for(origin, address),
                Wish::Tell(notice) => self.notice(notice),
            }
        }
    }

    fn next_wish(&mut self) -> Option<Wish> {
        let sources: [&mut dyn AddressSource; 2] = [&mut self.seeds, &mut self.absent];
        sources.into_iter().find_map(|source| source.take_wish(self.now_us, &mut self.dice))
    }

    fn dial_for(&mut self, origin: Origin, address: SocketAddr) {
        let peer = self.peers.at(address);
        let linked = peer.and_then(|node| self.peers.get(node)).filter(|peer| peer.is_linked());
        let outcome = match self.dials.readiness(address, self.now_us) {
            _ if linked.is_some() => linked.map(|peer| Outcome::Linked(peer.node)),
            _ if self.own_addresses.contains(&address) => Some(Outcome::OwnNode),
            Readiness::Busy => Some(Outcome::Busy),
            // Seeds have a pace of their own.
            Readiness::Later(_) if origin == Origin::Absent => Some(Outcome::Busy),
            Readiness::Later(_) | Readiness::Ready => None,
        };
        match outcome {
            Some(outcome) => self.answer(origin, address, outcome),
            None => self.dial(address, peer, Some(origin)),
        }
    }

    /// Tells who wanted a dial what came of it.
    pub(super) fn answer(&mut self, origin: Origin, address: SocketAddr, outcome: Outcome<'_>) {
        let source: &mut dyn AddressSource = match origin {
            Origin::Seed(_) => &mut self.seeds,
            Origin::Absent => &mut self.absent,
        };
        source.on_dialled(origin, address, outcome, self.now_us, &mut self.dice);
    }

    fn answer_dial(&mut self, dial: &Dial, outcome: Outcome<'_>) {
        if let Some(origin) = dial.origin {
            self.answer(origin, dial.address, outcome);
        }
    }

    pub(super) fn on_dial_failed(&mut self, dial: u64, is_refused: bool, reason: &str) {
        let Some(dial) = self.dials.end(dial) else { return };
        self.counters.dials_failed += 1;
        self.dials.failed(dial.address, self.now_us, &mut self.dice);
        let outcome = if is_refused { Outcome::Nobody } else { Outcome::Failed(reason) };
        self.answer_dial(&dial, outcome);
        if let Some(node) = dial.peer {
            self.on_unreached(node, is_refused);
        }
    }

    /// A peer was dialled in vain.
    fn on_unreached(&mut self, node: NodeId, is_refused: bool) {
        let Some(peer) = self.peers.get(node) else { return };
        match peer.link {
            Link::Up => {}
            // Where it was, nobody is any more.
            Link::Broken if is_refused => self.bury(node, Departure::Refused),
            Link::Broken => self.want_link(node, 0),
            Link::Never | Link::Idle if is_refused && !peer.is_heard => {
                self.bury(node, Departure::Refused);
            }
            Link::Never | Link::Idle => {
                self.peers.change(node, crate::Peer::turn_addresses);
                self.want_link(node, 0);
            }
        }
    }

    /// A connection did not become a link.
    pub(super) fn on_refused(
        &mut self,
        dial: Option<u64>,
        found: Option<NodeId>,
        address: SocketAddr,
        reason: LinkRefusal,
    ) {
        let dial = dial.and_then(|dial| self.dials.end(dial));
        match reason {
            LinkRefusal::WrongCluster | LinkRefusal::WrongKey | LinkRefusal::Version => {
                self.tell_of_stranger(address, reason);
            }
            LinkRefusal::OwnNode
            | LinkRefusal::Unexpected
            | LinkRefusal::Superseded
            | LinkRefusal::Closed => {}
        }
        let Some(dial) = dial else { return };
        let now_us = self.now_us;
        match reason {
            LinkRefusal::OwnNode => self.on_own_address(&dial),
            LinkRefusal::Superseded => {
                self.answer_dial(&dial, Outcome::Busy);
                if let Some(node) = dial.peer.or(found) {
                    self.want_link(node, SUPERSEDED_US);
                }
            }
            LinkRefusal::Unexpected => {
                self.answer_dial(&dial, Outcome::Busy);
                match dial.peer {
                    Some(node) => self.on_replaced(node, dial.address, found),
                    // The data plane keeps the link elsewhere: dialled by its id, the node is taken there.
                    None => self.on_found(dial.address, found),
                }
            }
            LinkRefusal::WrongCluster | LinkRefusal::WrongKey | LinkRefusal::Version => {
                self.counters.dials_failed += 1;
                self.dials.hopeless(dial.address, now_us, &mut self.dice);
                self.answer_dial(&dial, Outcome::Failed(sentence(reason)));
                if let Some(node) = dial.peer {
                    self.on_unreached(node, false);
                }
            }
            LinkRefusal::Closed => {
                self.counters.dials_failed += 1;
                self.dials.failed(dial.address, now_us, &mut self.dice);
                self.answer_dial(&dial, Outcome::Failed(sentence(reason)));
                if let Some(node) = dial.peer {
                    self.on_unreached(node, false);
                }
            }
        }
    }

    /// A dial led back to this node: who is said to be there was here before it, or has that address
    /// in another network.
    fn on_own_address(&mut self, dial: &Dial) {
        if self.own_addresses.len() < OWN_ADDRESSES_MAX {
            self.own_addresses.insert(dial.address);
        }
        self.answer_dial(dial, Outcome::OwnNode);
        let Some(node) = dial.peer else { return };
        if self.peers.drop_address(node, dial.address) {
            self.want_link(node, 0);
        } else {
            self.bury(node, Departure::Restarted);
        }
    }

    /// Another node answered where a peer should have.
    fn on_replaced(&mut self, node: NodeId, address: SocketAddr, found: Option<NodeId>) {
        let has_others = self.peers.drop_address(node, address);
        let is_broken = self.peers.get(node).is_some_and(|peer| peer.link == Link::Broken);
        if !has_others || is_broken {
            self.bury(node, Departure::Restarted);
        } else {
            self.want_link(node, 0);
        }
        self.on_found(address, found);
    }

    /// A node answered a dial and is to be dialled by its id.
    fn on_found(&mut self, address: SocketAddr, found: Option<NodeId>) {
        if let Some(found) = found.filter(|&found| self.peers.get(found).is_none()) {
            let claim = Claim { node: found, start_us: 0, address, app_port: 0 };
            self.learn(claim, Word::Rumour);
        }
    }

    /// Tells an operator once who cannot be linked.
    fn tell_of_stranger(&mut self, address: SocketAddr, reason: LinkRefusal) {
        let stranger = (address.ip(), reason);
        if self.strangers.len() >= STRANGERS_MAX || !self.strangers.insert(stranger) {
            return;
        }
        self.notice(match reason {
            LinkRefusal::WrongCluster => Notice::WrongCluster { address },
            LinkRefusal::WrongKey => Notice::WrongKey { address },
            _ => Notice::Version { address },
        });
    }

    /// The dial that a link came from, if this node dialled, has done its work.
    pub(super) fn on_dial_linked(&mut self, dial: u64, node: NodeId) {
        let Some(dial) = self.dials.end(dial) else { return };
        self.dials.succeeded(dial.address);
        self.absent.forget(dial.address);
        self.answer_dial(&dial, Outcome::Linked(node));
        debug_assert!(is_usable(dial.address), "only what can be dialled is");
    }
}

fn sentence(reason: LinkRefusal) -> &'static str {
    match reason {
        LinkRefusal::WrongCluster => "the node there is of another cluster",
        LinkRefusal::WrongKey => "the node there does not have the cluster's key",
        LinkRefusal::OwnNode => "it is this node",
        LinkRefusal::Version => "the node there speaks another version of the protocol",
        LinkRefusal::Unexpected => "another node is there",
        LinkRefusal::Superseded => "another connection is the link",
        LinkRefusal::Closed => "the connection closed before it was a link",
    }
}
