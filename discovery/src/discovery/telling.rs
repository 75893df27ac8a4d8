//! What this node tells its peers of its interest: the whole to who is new, changes to all others.

use std::sync::Arc;

use nexusd_wire::{FrameEncoder, NodeId};

use super::Discovery;
use crate::frames;
use crate::interest::Change;
use crate::limits::{DELTA_INTERVAL_US, MEMBERS_TOLD};
use crate::outbox::Frames;
use crate::output::Output;
use crate::peer::{Link, Peer};
use crate::plant::{Plant, is_planted};

impl Discovery {
    pub(super) fn on_interest(&mut self, filter: &str, is_wanted: bool) {
        let was_empty = self.interest.is_empty();
        self.interest.count(filter, is_wanted);
        if was_empty == self.interest.is_empty() {
            return;
        }
        let nodes: Vec<(NodeId, Link)> =
            self.peers.iter().map(|peer| (peer.node, peer.link)).collect();
        for (node, link) in nodes {
            match link {
                Link::Up => self.set_idle(node),
                Link::Idle if was_empty => {
                    let delay_us = self.spread_us();
                    self.want_link(node, delay_us);
                }
                Link::Idle | Link::Broken | Link::Never => {}
            }
        }
    }

    /// A peer is to be sent the whole.
    pub(super) fn owe_state(&mut self, node: NodeId) {
        if self.peers.get(node).is_some_and(Peer::is_linked) {
            self.owed.insert(node);
        }
    }

    /// Tells what there is to tell: called when everything that happened at once is taken in.
    pub(super) fn tell(&mut self) {
        if self.outbox.is_full() {
            return;
        }
        // Who is sent the whole is sent what others were told.
        if !self.owed.is_empty() || self.now_us >= self.next_delta_us {
            if let Some(change) = self.interest.take_change() {
                self.next_delta_us = self.now_us + DELTA_INTERVAL_US;
                self.tell_change(&change);
            }
            self.tell_states();
        }
    }

    /// Tells all that stand.
    pub(super) fn tell_change(&mut self, change: &Change) {
        let is_told = |peer: &&Peer| peer.is_linked() && !self.owed.contains(&peer.node);
        let mut told: Vec<NodeId> = self.peers.iter().filter(is_told).map(Peer::node).collect();
        if is_planted(Plant::DeltaNotTold) {
            told.pop();
        }
        if told.is_empty() {
            return;
        }
        let interest = &mut self.interest;
        for frames in frames::deltas(&mut self.encoder, change, || interest.new_name()) {
            let frames: Arc<[u8]> = frames.into();
            self.counters.deltas_sent += told.len() as u64;
            for &node in &told {
                self.outbox.send(node, Frames::Shared(Arc::clone(&frames)));
            }
        }
    }

    fn tell_states(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        let known = self.states.upgrade().filter(|states| states.hash == self.interest.told());
        let states = known.unwrap_or_else(|| {
            let states = Arc::new(frames::states(&mut self.encoder, &self.interest));
            self.states = Arc::downgrade(&states);
            states
        });
        let now_us = self.now_us;
        for node in std::mem::take(&mut self.owed) {
            if is_planted(Plant::StateNeverSent) {
                continue;
            }
            let members = self.peers.sample(MEMBERS_TOLD, &mut self.dice, |peer| {
                peer.as_member(now_us).filter(|member| member.node != node)
            });
            let (encoder, interest) = (&mut self.encoder, &self.interest);
            let first = frames::first_state(encoder, interest, &states, &members);
            self.counters.states_sent += 1;
            self.outbox.send(node, Frames::Own(first));
            self.outbox.send(node, Frames::States(Arc::clone(&states), 0));
        }
    }

    pub(super) fn ask_for_state(&mut self, node: NodeId) {
        let mut frames = Vec::new();
        FrameEncoder::node_state_request(&mut frames);
        self.counters.states_requested += 1;
        self.outbox.push(Output::Send { peer: node, frames });
    }
}
