//! Proves that subscribers got every message of very many topics once, and in order within each.
//!
//! A delivery carries its topic and its number within it, so it costs one load and one comparison in
//! a dense array. Only where something is wrong a topic gets a [`SequenceCheck`] of its own.
//! Invariant: `delivered` is the sum of what has been expected and passed over all places.

use std::collections::HashMap;

use crate::sequence_check::{Faults, SequenceCheck};
use crate::stamp::Stamp;
use crate::topic_tree::TopicTree;

/// Marks a place that has a check of its own.
const ODD: u64 = u64::MAX;

/// The check of all subscribers of a tree of topics.
#[derive(Debug)]
pub(crate) struct TopicCheck {
    tree: TopicTree,
    /// The number that must come next at each place of the tree.
    next: Vec<u64>,
    odd: HashMap<usize, SequenceCheck>,
    delivered: u64,
    /// Deliveries of unknown topics, or to subscribers that do not want them.
    foreign: u64,
}

impl TopicCheck {
    /// Nothing has come yet.
    pub(crate) fn new(tree: TopicTree) -> Self {
        Self { tree, next: vec![0; tree.places()], odd: HashMap::new(), delivered: 0, foreign: 0 }
    }

    /// Takes what a subscriber received.
    #[inline]
    pub(crate) fn on_stamp(&mut self, subscriber: usize, stamp: &Stamp) {
        let Some(place) = self.tree.place(stamp.topic, subscriber) else {
            self.foreign += 1;
            return;
        };
        let next = &mut self.next[place];
        if stamp.counter == *next {
            *next += 1;
            self.delivered += 1;
        } else {
            self.on_surprise(place, stamp.counter);
        }
    }

    #[cold]
    fn on_surprise(&mut self, place: usize, counter: u64) {
        let next = std::mem::replace(&mut self.next[place], ODD);
        let check = self.odd.entry(place).or_insert_with(|| SequenceCheck::expecting(next));
        let before = check.next();
        check.on_counter(counter);
        self.delivered += check.next() - before;
    }

    /// How far delivery has come: messages that all who want them have had, if all are equally far.
    #[inline]
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered / self.tree.places_per_topic() as u64
    }

    /// What went wrong, given how many messages of each topic were sent.
    pub(crate) fn faults(&self, sent: &[u64]) -> Faults {
        let mut faults = Faults { foreign: self.foreign, ..Faults::default() };
        let places = self.tree.places_per_topic();
        for (place, next) in self.next.iter().enumerate() {
            let sent = sent.get(place / places).copied().unwrap_or(0);
            match self.odd.get(&place) {
                Some(check) if *next == ODD => faults.add(&check.faults(sent)),
                _ => faults.add(&SequenceCheck::expecting(*next).faults(sent)),
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: TopicTree = TopicTree::Wide { topics: 3 };

    fn check(tree: TopicTree, deliveries: &[(usize, u32, u64)]) -> TopicCheck {
        let mut check = TopicCheck::new(tree);
        for (subscriber, topic, counter) in deliveries {
            let stamp = Stamp { topic: *topic, counter: *counter, intended_ns: 0, sent_ns: None };
            check.on_stamp(*subscriber, &stamp);
        }
        check
    }

    #[test]
    fn topics_may_overtake_each_other() {
        let check = check(WIDE, &[(0, 2, 0), (0, 0, 0), (0, 0, 1), (0, 2, 1)]);
        assert_eq!(check.faults(&[2, 0, 2]), Faults::default());
        assert_eq!(check.delivered(), 4);
    }

    #[test]
    fn a_message_that_overtakes_another_of_its_topic_is_found() {
        let check = check(WIDE, &[(0, 1, 0), (0, 1, 2), (0, 0, 0), (0, 1, 1), (0, 1, 3)]);
        assert_eq!(check.faults(&[1, 4, 0]), Faults { reordered: 1, ..Faults::default() });
        assert_eq!(check.delivered(), 5);
    }

    #[test]
    fn losses_in_the_middle_and_at_the_end_of_a_topic_are_found() {
        let check = check(WIDE, &[(0, 0, 0), (0, 0, 2), (0, 1, 0)]);
        let expected = Faults { lost: 1 + 3 + 1, ..Faults::default() };
        assert_eq!(check.faults(&[3, 4, 1]), expected);
    }

    #[test]
    fn a_message_that_comes_again_is_found() {
        let check = check(WIDE, &[(0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 0, 1)]);
        assert_eq!(check.faults(&[2, 0, 0]), Faults { duplicated: 2, ..Faults::default() });
    }

    #[test]
    fn a_message_nobody_sent_or_of_no_topic_of_ours_is_foreign() {
        let check = check(WIDE, &[(0, 3, 0), (1, 0, 0), (0, 1, 0)]);
        assert_eq!(check.faults(&[0, 0, 0]), Faults { foreign: 3, ..Faults::default() });
    }

    #[test]
    fn of_two_subscribers_each_must_get_the_message_and_nobody_else_may() {
        let rooms = TopicTree::Rooms { rooms: 100, lively: 100 };
        // Topic 0 belongs to room 0: its exact filter to subscriber 0, that of the room to 75.
        let both = check(rooms, &[(0, 0, 0), (75, 0, 0)]);
        let mut sent = vec![0; rooms.topics() as usize];
        sent[0] = 1;
        assert_eq!(both.faults(&sent), Faults::default());
        assert_eq!(both.delivered(), 1);
        let wrong = check(rooms, &[(0, 0, 0), (1, 0, 0)]);
        let expected = Faults { lost: 1, foreign: 1, ..Faults::default() };
        assert_eq!(wrong.faults(&sent), expected);
    }
}
