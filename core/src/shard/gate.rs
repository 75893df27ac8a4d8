//! What a queue keeps out while other nodes are asked for what its client missed: what these send live comes
//! behind their answers. The owner of the topic says what opens (`fetching.rs`).

use nexusd_wire::control::GapReason;
use nexusd_wire::{SubscriptionId, TopicId};

use super::fetching::NOTHING;
use super::parking::{ReplayedTopics, replayed};
use super::plane::Plane;
use crate::gap::Gap;
use crate::link::Origin;
use crate::plant::{Plant, is_planted};
use crate::subscriber_queue::{Item, QueueId, ReplayComplete, SubscriberQueue};

/// A topic that a queue gets from other nodes: it is to have the live messages of those that have answered.
#[derive(Debug)]
pub(crate) struct Gate {
    topic: TopicId,
    answered: Vec<Origin>,
}

/// A node that has not answered in time, and may still.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Silent {
    topic: TopicId,
    origin: Origin,
}

/// How a fetch has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Something is missing before what came.
    pub(crate) is_partial: bool,
    /// Nodes that have not answered: until they do, what they send live is not for the queue.
    pub(crate) silent: Vec<Origin>,
}

impl SubscriberQueue {
    /// Whether its client may be told of it: all that has to be known or had before is. A peer is told nothing.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_link || (self.awaits.is_empty() && self.gates.is_empty())
    }

    /// Whether live messages of another node are not for it, because that has not answered.
    #[inline]
    pub(crate) fn keeps_out(&self, topic: TopicId, origin: Origin) -> bool {
        let is_open = self.gates.is_empty() && self.silent.is_empty();
        !is_open && self.is_waiting_for(topic, origin)
    }

    #[cold]
    fn is_waiting_for(&self, topic: TopicId, origin: Origin) -> bool {
        let silent = Silent { topic, origin };
        let gate = self.gates.iter().find(|gate| gate.topic == topic);
        let is_behind_gate = gate.is_some_and(|gate| !gate.answered.contains(&origin));
        (is_behind_gate || self.silent.contains(&silent)) && !is_planted(Plant::FetchedTwice)
    }
}

impl Plane {
    /// Live messages of a topic from other nodes are not for a queue, until they have answered.
    pub(super) fn close_gate(&mut self, queue: QueueId, topic: TopicId) {
        if let Some(queue) = self.queues.get_mut(queue.0 as usize) {
            queue.gates.push(Gate { topic, answered: Vec::new() });
        }
    }

    pub(super) fn open_gate(
        &mut self,
        id: QueueId,
        subscription: SubscriptionId,
        topic: TopicId,
        origin: Origin,
        complete: Option<ReplayComplete>,
    ) {
        if !self.is_same_queue(id, subscription) {
            return;
        }
        let queue = &mut self.queues[id.0 as usize];
        queue.silent.retain(|silent| *silent != Silent { topic, origin });
        if let Some(gate) = queue.gates.iter_mut().find(|gate| gate.topic == topic) {
            gate.answered.push(origin);
        }
        if let Some(complete) = complete {
            queue.items.push_back(Item::ReplayComplete(Box::new(complete)));
            self.make_ready(id);
        }
    }

    /// Nothing more is fetched of a topic for a queue.
    pub(super) fn end_gate(
        &mut self,
        id: QueueId,
        subscription: SubscriptionId,
        topic: TopicId,
        outcome: Outcome,
    ) {
        if !self.is_same_queue(id, subscription) {
            return;
        }
        let Outcome { is_partial, silent } = outcome;
        let queue = &mut self.queues[id.0 as usize];
        queue.gates.retain(|gate| gate.topic != topic);
        queue.silent.retain(|silent| silent.topic != topic);
        let is_told = !is_planted(Plant::FetchGapUntold);
        queue.is_partial |= is_partial && is_told;
        queue.is_fetched |= topic != NOTHING;
        queue.silent.extend(silent.into_iter().map(|origin| Silent { topic, origin }));
        if queue.gates.is_empty() && !queue.is_told {
            if queue.is_fetched {
                self.bracket_as_replay(id);
            }
            self.fetching.done.push(id);
        }
    }

    /// All that has come to a queue while its client waited is a replay. What nobody holds any more is missing
    /// before it.
    fn bracket_as_replay(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        debug_assert!(!queue.is_held(), "nothing is sent of it before");
        let mut replay = ReplayedTopics::default();
        queue.items.retain(|item| !matches!(item, Item::ReplayComplete(_)));
        for item in &mut queue.items {
            if let Item::Extent(extent) = item {
                *extent = replayed(*extent);
                replay.add(extent, &self.log);
            }
        }
        (queue.replay_messages, queue.replay_bytes) = (queue.messages, queue.bytes);
        queue.items.extend(replay.ends());
        if std::mem::take(&mut queue.is_partial) {
            let gap = unknown_gap();
            self.log.charge_gap(&gap);
            queue.items.push_front(Item::Gap(gap));
        }
    }

    /// What comes next to a queue is not what follows.
    pub(super) fn tell_cut(&mut self, id: QueueId, subscription: SubscriptionId) {
        if self.is_same_queue(id, subscription) && !is_planted(Plant::FetchGapUntold) {
            let gap = unknown_gap();
            self.log.charge_gap(&gap);
            self.queues[id.0 as usize].items.push_back(Item::Gap(gap));
            self.make_ready(id);
        }
    }
}

fn unknown_gap() -> Box<Gap> {
    let mut gap = Gap::new(GapReason::ReplayWindow);
    gap.note_unknown();
    Box::new(gap)
}
