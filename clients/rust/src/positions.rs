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
    /// The daemon that gave this number.
    pub origin: NodeId,
}

/// The newest message of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Newest {
    sequence: u64,
    origin: NodeId,
}

type Generation = HashMap<Arc<str>, Newest, foldhash::fast::RandomState>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Positions {
    young: Generation,
    old: Generation,
    /// Topics were seen before these that are not among them.
    has_forgotten: bool,
}

/// Bytes of a position in a Subscribe frame beside its topic, at most.
const BYTES_BESIDE_TOPIC: usize = 64;

impl Positions {
    /// What an earlier subscription had told, and whether that was all.
    pub(crate) fn of(told: &[Position], is_complete: bool) -> Self {
        let mut positions = Self { has_forgotten: !is_complete, ..Self::default() };
        // The most recent ones come first.
        for position in told.iter().rev() {
            positions.note(&position.topic, position.sequence, position.origin);
        }
        positions
    }

    /// A message of this number has come, or is known to be lost.
    #[inline]
    pub(crate) fn note(&mut self, topic: &Arc<str>, sequence: u64, origin: NodeId) {
        if let Some(newest) = self.young.get_mut(topic) {
            // A retained value may come behind newer messages.
            if newest.origin != origin || newest.sequence < sequence {
                *newest = Newest { sequence, origin };
            }
            return;
        }
        self.note_in_new_place(topic, Newest { sequence, origin });
    }

    fn note_in_new_place(&mut self, topic: &Arc<str>, mut newest: Newest) {
        if let Some(before) = self.old.get(topic)
            && before.origin == newest.origin
        {
            newest.sequence = newest.sequence.max(before.sequence);
        }
        if self.young.len() >= limits::POSITIONS_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.has_forgotten = true;
        }
        self.young.insert(Arc::clone(topic), newest);
    }

    /// Whether the topic's newest message is known.
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.young.contains_key(topic) || self.old.contains_key(topic)
    }

    /// The positions that fit into so many bytes of a Subscribe frame, more recent topics first; and
    /// whether these are all topics that were ever seen.
    pub(crate) fn told_within(&self, bytes_max: usize) -> (Vec<Position>, bool) {
        let older = self.old.iter().filter(|(topic, _)| !self.young.contains_key(*topic));
        let mut bytes = 0;
        let told: Vec<Position> = self
            .young
            .iter()
            .chain(older)
            .take(limits::POSITIONS_MAX)
            .take_while(|(topic, _)| {
                bytes += topic.len() + BYTES_BESIDE_TOPIC;
                bytes <= bytes_max
            })
            .map(|(topic, newest)| Position {
                topic: Arc::clone(topic),
                sequence: newest.sequence,
                origin: newest.origin,
            })
            .collect();
        let is_complete = !self.has_forgotten && told.len() == self.young.len();
        (told, is_complete)
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

    #[test]
    fn a_position_only_rises_until_another_node_numbers_its_topic() {
        let mut positions = Positions::default();
        let topic: Arc<str> = "t".into();
        for (sequence, origin, known) in [(5, HERE, 5), (3, HERE, 5), (6, HERE, 6), (1, THERE, 1)] {
            positions.note(&topic, sequence, origin);
            let position = Position { topic: Arc::clone(&topic), sequence: known, origin };
            assert_eq!(positions.told_within(1 << 20), (vec![position], true));
        }
    }

    #[test]
    fn as_many_topics_as_may_be_told_are_all_told() {
        let positions = seen(0..limits::POSITIONS_MAX);
        let (told, is_complete) = positions.told_within(1 << 20);
        assert_eq!((told.len(), is_complete), (limits::POSITIONS_MAX, true));
    }

    #[test]
    fn of_more_topics_the_recent_ones_are_told_and_known_not_to_be_all() {
        let positions = seen(0..limits::POSITIONS_MAX + 10);
        let (told, is_complete) = positions.told_within(1 << 20);
        assert_eq!((told.len(), is_complete), (limits::POSITIONS_MAX, false));
        for topic in limits::POSITIONS_MAX..limits::POSITIONS_MAX + 10 {
            assert!(told.iter().any(|position| *position.topic == *format!("t/{topic}")));
        }
    }

    #[test]
    fn a_topic_that_comes_back_keeps_its_newest_number() {
        let mut positions = seen(0..limits::POSITIONS_MAX + 1);
        positions.note(&"t/0".into(), 2, HERE);
        let (told, _) = positions.told_within(1 << 20);
        let position = told.iter().find(|position| &*position.topic == "t/0").unwrap();
        assert_eq!(position.sequence, 7);
    }

    #[test]
    fn positions_that_do_not_fit_into_a_frame_are_not_all() {
        let (told, is_complete) = seen(0..10).told_within(5 * (3 + BYTES_BESIDE_TOPIC));
        assert_eq!((told.len(), is_complete), (5, false));
    }

    #[test]
    fn what_was_told_can_be_taken_up_again() {
        let (told, is_complete) = seen(0..20).told_within(1 << 20);
        let again = Positions::of(&told, is_complete);
        assert!(again.has("t/19") && !again.has("t/20"));
        assert!(again.told_within(1 << 20).1);
        assert!(!Positions::of(&told, false).told_within(1 << 20).1);
    }
}
