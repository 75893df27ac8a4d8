//! What links report, and which of them are closed because nobody needs them.

use nexusd_wire::NodeId;

use super::Discovery;
use super::knowing::{Claim, Word, is_usable};
use crate::event::{LinkDown, LinkEvent};
use crate::limits::{
    DIAL_YIELD_US, LINK_IDLE_US, REDIAL_YIELD_US, VIOLATION_INTERVAL_US, VIOLATORS_MAX,
};
use crate::notice::{Departure, Notice};
use crate::output::Output;
use crate::peer::{Link, Peer};
use crate::plant::{Plant, is_planted};

impl Discovery {
    pub(super) fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { peer, start_us, address, app_port, dial } => {
                self.on_up(Claim { node: peer, start_us, address, app_port }, dial);
            }
            LinkEvent::Refused { dial, peer, address, reason } => {
                self.on_refused(dial, peer, address, reason);
            }
            LinkEvent::Suspected { peer } => self.on_suspected(peer, true),
            LinkEvent::Trusted { peer } => self.on_suspected(peer, false),
            LinkEvent::Down { peer, reason } => self.on_down(peer, reason),
            LinkEvent::Violated { peer, reason, pause_us } => {
                self.on_violated(peer, reason, pause_us);
            }
            LinkEvent::TooLarge { peer: node, bytes } => {
                if let Some(address) = self.peers.get(node).map(Peer::address) {
                    self.notice(Notice::TooLarge { node, address, bytes });
                }
            }
            LinkEvent::Dead { peer } => self.on_dead(peer, Departure::Lost),
            LinkEvent::Stored { peer, hash } => {
                let now_us = self.now_us;
                let other = self.peers.iter().next().map(|peer| peer.node);
                let peer = other.filter(|_| is_planted(Plant::StoredAtAnother)).unwrap_or(peer);
                self.peers.change(peer, |peer| {
                    if peer.is_linked() {
                        peer.sync.on_stored(hash, now_us);
                    }
                });
                self.set_idle(peer);
            }
            LinkEvent::StateWanted { peer } => self.owe_state(peer),
            LinkEvent::Members { members, .. } => self.on_members(&members),
        }
    }

    fn on_up(&mut self, claim: Claim, dial: Option<u64>) {
        let Claim { node, address, .. } = claim;
        if let Some(dial) = dial {
            self.on_dial_linked(dial, node);
        }
        if !is_usable(address) || !self.learn(claim, Word::Link) {
            // Two nodes say that they are at one address, and the other one is linked and later.
            self.on_dead(node, Departure::Restarted);
            self.outbox.push(Output::Forget { peer: node });
            return;
        }
        self.set_dial_due(node, None);
        self.outbox.forget(node);
        let now_us = self.now_us;
        let is_new = self.peers.change(node, |peer| {
            peer.link = Link::Up;
            peer.is_dialled = dial.is_some();
            peer.is_suspected = false;
            peer.idle_since_us = None;
            peer.last_heard_us = now_us;
            peer.sync.on_up(now_us);
            !std::mem::replace(&mut peer.has_joined, true)
        });
        if is_new == Some(true) {
            self.joined += 1;
            self.notice(Notice::Joined { node, address });
        }
        self.dials.succeeded(address);
        self.absent.forget(address);
        self.seeds.on_linked(address, node);
        self.owe_state(node);
    }

    fn on_suspected(&mut self, node: NodeId, is_suspected: bool) {
        let (now_us, joined) = (self.now_us, self.joined);
        let mut was_passed_over = false;
        let changed = self.peers.change(node, |peer| {
            let is_news = peer.is_linked()
                && peer.is_suspected != is_suspected
                && (is_suspected || !is_planted(Plant::SuspectedForEver));
            if is_news {
                peer.is_suspected = is_suspected;
                was_passed_over = !is_suspected && peer.joined_before != joined;
                peer.joined_before = joined;
            }
            if !is_suspected {
                peer.last_heard_us = now_us;
            }
            is_news.then(|| peer.address())
        });
        // Who joined meanwhile was not told of it, and may hear of it from nobody else.
        if was_passed_over {
            self.owe_state(node);
        }
        if let Some(address) = changed.flatten() {
            self.notice(if is_suspected {
                Notice::Suspected { node, address }
            } else {
                Notice::Trusted { node, address }
            });
        }
    }

    fn on_down(&mut self, node: NodeId, reason: LinkDown) {
        let Some(peer) = self.peers.get(node).filter(|peer| peer.is_linked()) else {
            return match reason {
                // It was dead already, or is now.
                LinkDown::Ending => self.on_dead(node, Departure::Goodbye),
                LinkDown::Silent => self.on_dead(node, Departure::Silent),
                LinkDown::Broken | LinkDown::Idle | LinkDown::Forgotten => {}
            };
        };
        match reason {
            LinkDown::Broken if peer.is_leaving => self.bury(node, Departure::Goodbye),
            LinkDown::Broken => self.on_broken(node, peer.is_dialled, 0),
            LinkDown::Idle => {
                self.unlink(node, Link::Idle);
                if self.seeds.has(node) || !self.interest.is_empty() {
                    self.want_link(node, 0);
                }
            }
            LinkDown::Ending => self.on_dead(node, Departure::Goodbye),
            LinkDown::Silent => self.on_dead(node, Departure::Silent),
            LinkDown::Forgotten => {
                // It came back while it was being forgotten.
                self.unlink(node, Link::Never);
                self.want_link(node, DIAL_YIELD_US);
            }
        }
    }

    /// A link is to stand again, after a pause.
    fn on_broken(&mut self, node: NodeId, is_dialled: bool, pause_us: u64) {
        self.unlink(node, Link::Broken);
        // Who could dial it before is quickest.
        if !is_planted(Plant::NeverRedialled) {
            self.want_link(node, pause_us + if is_dialled { 0 } else { REDIAL_YIELD_US });
        }
    }

    /// One of the two nodes broke the protocol. What is wrong is told once a minute.
    fn on_violated(&mut self, node: NodeId, reason: Box<str>, pause_us: u64) {
        let Some(peer) = self.peers.get(node).filter(|peer| peer.is_linked()) else { return };
        let (address, is_dialled) = (peer.address(), peer.is_dialled);
        if peer.is_leaving {
            self.bury(node, Departure::Goodbye);
        } else {
            self.on_broken(node, is_dialled, pause_us);
        }
        let now_us = self.now_us;
        self.violators.retain(|_, told_us| now_us < *told_us + VIOLATION_INTERVAL_US);
        if self.violators.len() < VIOLATORS_MAX && !self.violators.contains_key(&node) {
            self.violators.insert(node, now_us);
            self.notice(Notice::Violated { node, address, reason, pause_us });
        }
    }

    fn unlink(&mut self, node: NodeId, link: Link) {
        self.owed.remove(&node);
        self.outbox.forget(node);
        self.is_told_links_full &= self.peers.linked() >= self.config.links_max / 2;
        let now_us = self.now_us;
        self.peers.change(node, |peer| {
            peer.link = link;
            peer.is_suspected = false;
            peer.idle_since_us = None;
            peer.last_heard_us = now_us;
            peer.sync.on_down();
        });
    }

    /// Something is due at a link that stands.
    pub(super) fn look_after_link(&mut self, node: NodeId) {
        let (now_us, dice) = (self.now_us, &mut self.dice);
        let due = self.peers.change(node, |peer| {
            let is_idle =
                peer.idle_since_us.is_some_and(|since_us| since_us + LINK_IDLE_US <= now_us);
            if is_idle {
                // If it is not closed then, it is asked for again.
                peer.idle_since_us = Some(now_us);
            }
            (peer.sync.take_request(now_us, dice), is_idle)
        });
        let Some((is_asked, is_idle)) = due else { return };
        if is_asked {
            self.ask_for_state(node);
        }
        if is_idle {
            self.outbox.push(Output::CloseIdle { peer: node });
        }
    }

    /// Finds out whether a link serves nobody. Who dialled it closes it, so that a seed's link, which
    /// stays, is not closed by the seed.
    pub(super) fn set_idle(&mut self, node: NodeId) {
        let is_seed = self.seeds.has(node);
        let (now_us, is_empty) = (self.now_us, self.interest.is_empty());
        self.peers.change(node, |peer| {
            let is_idle = is_empty
                && !is_seed
                && peer.is_linked()
                && peer.is_dialled
                && peer.sync.stored() == Some(0);
            let since_us = peer.idle_since_us.unwrap_or(now_us);
            peer.idle_since_us = is_idle.then_some(since_us);
        });
    }
}
