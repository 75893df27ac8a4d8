//! How far a subscription has come, topic by topic: what it tells a daemon that does not know it any
//! more.
//!
//! Keeps the topics seen most recently, in two generations: once the younger one is full it becomes
//! the older one and a new one begins. So noting a message is one look-up and allocates nothing in
//! the steady state. Invariant: as long as no more topics were seen than may be told, all are kept.

use std::collections::HashMap;
use std::sync::Arc;

use nexusd_wire::NodeId;

use crate::limits;

/// How far a subscription has come in one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The topic.
    pub topic: Arc<str>,
    /// Number of the newest message it has had of the topic.
    pub sequence: u64,
    /// The node that gave this number: the daemon that the client was connected to, which numbers all
    /// messages of a topic, or another one, which numbers those that were published there.
    pub origin: NodeId,
}

/// The newest messages of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Newest {
    /// By the numbers of the daemon that the client was connected to last, which is `origin`.
    sequence: u64,
    origin: NodeId,
    /// By the numbers of other nodes: those that were published there.
    others: Vec<(NodeId, u64)>,
}

impl Newest {
    /// Another daemon numbers the topic from now on. What was published at the one before stays known.
    fn note(&mut self, sequence: u64, origin: NodeId) {
        if self.origin == origin {
            // A retained value may come behind newer messages.
            self.sequence = self.sequence.max(sequence);
            return;
        }
        self.note_other(self.sequence, self.origin);
        (self.sequence, self.origin) = (sequence, origin);
    }

    fn note_other(&mut self, sequence: u64, origin: NodeId) {
        match self.others.iter_mut().find(|(known, _)| *known == origin) {
            Some((_, newest)) => *newest = sequence.max(*newest),
            None => self.others.push((origin, sequence)),
        }
    }

    /// What to tell `node` of it: to the daemon that numbered all messages that number says it all.
    fn told_to(&self, node: Option<NodeId>) -> impl Iterator<Item = (NodeId, u64)> {
        let is_enough = node == Some(self.origin);
        let all =
            self.others.iter().copied().filter(move |(node, _)| !is_enough && *node != self.origin);
        [(self.origin, self.sequence)].into_iter().chain(all)
    }
}

type Generation = HashMap<Arc<str>, Newest, foldhash::fast::RandomState>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Positions {
    young: Generation,
    old: Generation,
    /// Topics were seen before these that are not among them.
    has_forgotten: bool,
    /// Nodes that have said, behind everything else, that nothing follows, the newest last.
    ended: Vec<NodeId>,
}

/// Bytes of a position in a Subscribe frame beside its topic, at most.
const BYTES_BESIDE_TOPIC: usize = 64;

impl Positions {
    /// What an earlier subscription had told, and whether that was all.
    pub(crate) fn of(told: &[Position], is_complete: bool) -> Self {
        let mut positions = Self { has_forgotten: !is_complete, ..Self::default() };
        // The most recent topics come first, and of one the daemon's number does.
        for position in told.iter().rev() {
            positions.note(&position.topic, position.sequence, position.origin);
        }
        positions
    }

    /// Whether no topic was seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// Whether there is a number of this node's for each topic.
    pub(crate) fn all_name(&self, node: NodeId) -> bool {
        let is_named = |newest: &Newest| newest.told_to(None).any(|(origin, _)| origin == node);
        self.young.values().chain(self.old.values()).all(is_named)
    }

    /// A message to which the daemon `origin` gave this number has come, or is known to be lost.
    #[inline]
    pub(crate) fn note(&mut self, topic: &Arc<str>, sequence: u64, origin: NodeId) {
        match self.young.get_mut(topic) {
            Some(newest) => newest.note(sequence, origin),
            None => self.place(topic, sequence, origin).note(sequence, origin),
        }
    }

    /// A message that was published at the node `origin`, and has this number there, has come by way of
    /// another daemon, and was noted.
    pub(crate) fn note_origin(&mut self, topic: &Arc<str>, sequence: u64, origin: NodeId) {
        if let Some(newest) = self.young.get_mut(topic) {
            newest.note_other(sequence, origin);
        }
    }

    fn place(&mut self, topic: &Arc<str>, sequence: u64, origin: NodeId) -> &mut Newest {
        let before = self.old.get(topic).cloned();
        let newest = before.unwrap_or(Newest { sequence, origin, others: Vec::new() });
        if self.young.len() >= limits::POSITIONS_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.has_forgotten = true;
        }
        self.young.entry(Arc::clone(topic)).insert_entry(newest).into_mut()
    }

    /// All that a node had for the subscription has come, and the node has ended.
    pub(crate) fn note_ended(&mut self, node: NodeId) {
        self.ended.retain(|ended| *ended != node);
        if self.ended.len() >= limits::ENDED_NODES_MAX {
            self.ended.remove(0);
        }
        self.ended.push(node);
    }

    /// The nodes of these positions of which nothing follows.
    pub(crate) fn ended_of(&self, told: &[Position]) -> Vec<NodeId> {
        let is_told = |node: &NodeId| told.iter().any(|position| position.origin == *node);
        self.ended.iter().copied().filter(is_told).collect()
    }

    /// Whether the topic's newest message is known.
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.young.contains_key(topic) || self.old.contains_key(topic)
    }

    /// The positions to tell `node`, or any one, that fit into so many bytes of a Subscribe frame, more
    /// recent topics first; and whether these are all topics that were ever seen.
    pub(crate) fn told_within(
        &self,
        bytes_max: usize,
        node: Option<NodeId>,
    ) -> (Vec<Position>, bool) {
        let older = self.old.iter().filter(|(topic, _)| !self.young.contains_key(*topic));
        let (mut told, mut topics, mut bytes) = (Vec::new(), 0, 0);
        for (topic, newest) in self.young.iter().chain(older) {
            let before = told.len();
            told.extend(newest.told_to(node).map(|(origin, sequence)| Position {
                topic: Arc::clone(topic),
                sequence,
                origin,
            }));
            bytes += (told.len() - before) * (topic.len() + BYTES_BESIDE_TOPIC);
            if told.len() > limits::POSITIONS_MAX || bytes > bytes_max {
                told.truncate(before);
                break;
            }
            topics += 1;
        }
        (told, !self.has_forgotten && topics == self.young.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NodeId = NodeId(1);
    const THERE: NodeId = NodeId(2);

    fn seen(topics: std::ops::Range<usize>) -> Positions {
        let mut positions = Positions::default();
        for topic in topics {
            positions.note(&format!("t/{topic}").into(), 7, HERE);
        }
        positions
    }

    fn told(positions: &Positions, node: Option<NodeId>) -> Vec<(NodeId, u64)> {
        let (told, is_complete) = positions.told_within(1 << 20, node);
        assert!(is_complete);
        told.iter().map(|position| (position.origin, position.sequence)).collect()
    }

    #[test]
    fn a_position_only_rises_until_another_node_numbers_its_topic() {
        let mut positions = Positions::default();
        let topic: Arc<str> = "t".into();
        for (sequence, known) in [(5, 5), (3, 5), (6, 6)] {
            positions.note(&topic, sequence, HERE);
            assert_eq!(told(&positions, None), [(HERE, known)]);
        }
        positions.note(&topic, 1, THERE);
        assert_eq!(told(&positions, None), [(THERE, 1), (HERE, 6)]);
        assert_eq!(told(&positions, Some(THERE)), [(THERE, 1)], "it numbers all messages");
        positions.note(&topic, 9, HERE);
        assert_eq!(told(&positions, None), [(HERE, 9), (THERE, 1)]);
    }

    #[test]
    fn what_other_nodes_published_is_told_to_who_did_not_number_it() {
        let mut positions = Positions::default();
        let topic: Arc<str> = "t".into();
        for (sequence, number_there) in [(1, 4), (3, 6), (2, 5)] {
            positions.note(&topic, sequence, HERE);
            positions.note_origin(&topic, number_there, THERE);
        }
        assert_eq!(told(&positions, Some(HERE)), [(HERE, 3)]);
        assert_eq!(told(&positions, Some(THERE)), [(HERE, 3), (THERE, 6)]);
        let (all, _) = positions.told_within(1 << 20, None);
        assert_eq!(told(&Positions::of(&all, true), Some(THERE)), [(HERE, 3), (THERE, 6)]);
    }

    #[test]
    fn a_node_that_has_ended_is_named_with_its_positions() {
        let mut positions = Positions::default();
        positions.note_ended(THERE);
        positions.note(&"t".into(), 5, HERE);
        let ended = |positions: &Positions| {
            let (told, _) = positions.told_within(1 << 20, None);
            positions.ended_of(&told)
        };
        assert_eq!(ended(&positions), [], "it has no position");
        positions.note(&"t".into(), 1, THERE);
        assert_eq!((told(&positions, None).len(), ended(&positions)), (2, vec![THERE]));
        (0..limits::ENDED_NODES_MAX)
            .for_each(|node| positions.note_ended(NodeId(99 + node as u128)));
        assert_eq!(ended(&positions), [], "of many the newest are known");
    }

    #[test]
    fn as_many_topics_as_may_be_told_are_all_told() {
        let positions = seen(0..limits::POSITIONS_MAX);
        let (told, is_complete) = positions.told_within(1 << 20, None);
        assert_eq!((told.len(), is_complete), (limits::POSITIONS_MAX, true));
    }

    #[test]
    fn of_more_topics_the_recent_ones_are_told_and_known_not_to_be_all() {
        let positions = seen(0..limits::POSITIONS_MAX + 10);
        let (told, is_complete) = positions.told_within(1 << 20, None);
        assert_eq!((told.len(), is_complete), (limits::POSITIONS_MAX, false));
        for topic in limits::POSITIONS_MAX..limits::POSITIONS_MAX + 10 {
            assert!(told.iter().any(|position| *position.topic == *format!("t/{topic}")));
        }
    }

    #[test]
    fn a_topic_that_comes_back_keeps_its_newest_number() {
        let mut positions = seen(0..limits::POSITIONS_MAX + 1);
        positions.note(&"t/0".into(), 2, HERE);
        let (told, _) = positions.told_within(1 << 20, None);
        let position = told.iter().find(|position| &*position.topic == "t/0").unwrap();
        assert_eq!(position.sequence, 7);
    }

    #[test]
    fn positions_that_do_not_fit_into_a_frame_are_not_all() {
        let (told, is_complete) = seen(0..10).told_within(5 * (3 + BYTES_BESIDE_TOPIC), None);
        assert_eq!((told.len(), is_complete), (5, false));
    }

    #[test]
    fn what_was_told_can_be_taken_up_again() {
        let (told, is_complete) = seen(0..20).told_within(1 << 20, None);
        let again = Positions::of(&told, is_complete);
        assert!(again.has("t/19") && !again.has("t/20"));
        assert!(again.told_within(1 << 20, None).1);
        assert!(!Positions::of(&told, false).told_within(1 << 20, None).1);
    }
}
