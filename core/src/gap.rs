//! What a subscription lost at one place of its stream, until it is told.

use nexusd_wire::control::GapReason;
use nexusd_wire::{GapReport, Sequence, SubscriptionId, TopicId};

use crate::limits::{GAP_BYTES, GAP_TOPICS_MAX};
use crate::plant::{Plant, is_planted};

/// One loss: which messages, and why. Becomes one Gap frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    reason: GapReason,
    missed: u64,
    /// More may have been lost.
    is_unknown: bool,
    entries: Vec<(TopicId, Sequence, Sequence)>,
    rest: u64,
}

impl Gap {
    pub(crate) fn new(reason: GapReason) -> Self {
        Self { reason, missed: 0, is_unknown: false, entries: Vec::new(), rest: 0 }
    }

    /// A retained value that there was no memory for. It stays unnamed, as in `overflow.rs`.
    pub(crate) fn of_retained_value() -> Self {
        let mut gap = Self::new(GapReason::Memory);
        gap.note_unnamed(1);
        gap
    }

    pub(crate) fn reason(&self) -> GapReason {
        self.reason
    }

    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }

    /// Adds `messages` lost messages of a topic, numbered from `first`. Those of a topic come in
    /// order of their sequence.
    pub(crate) fn note(&mut self, topic: TopicId, first: Sequence, messages: u64) {
        let first = Sequence(first.0 + u64::from(is_planted(Plant::GapOffByOne)));
        self.missed += messages;
        self.add(topic, first, Sequence(first.0 + messages - 1));
    }

    /// Adds `messages` lost messages of which nobody knows any more which they were.
    pub(crate) fn note_unnamed(&mut self, messages: u64) {
        self.missed += messages;
        self.rest += messages;
    }

    /// Notes that more was lost, and nobody knows how much.
    pub(crate) fn note_unknown(&mut self) {
        self.is_unknown = true;
    }

    /// Whether more was lost than `missed` says.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.missed == 0 && !self.is_unknown
    }

    /// The same loss as gaps that name a topic once each, in order: what is found of the topic's messages
    /// can then stand right behind the one that names them.
    pub(crate) fn once_each(self) -> Vec<Self> {
        let mut gaps = vec![Self::new(self.reason)];
        for (topic, first, last) in self.entries {
            if gaps.last().is_some_and(|gap| gap.topics().any(|other| other == topic)) {
                gaps.push(Self::new(self.reason));
            }
            if let Some(gap) = gaps.last_mut() {
                gap.missed += last.0 - first.0 + 1;
                gap.entries.push((topic, first, last));
            }
        }
        // What is not named may stand before anything that is.
        gaps[0].missed += self.rest;
        (gaps[0].rest, gaps[0].is_unknown) = (self.rest, self.is_unknown);
        gaps
    }

    /// Messages `from` to `last` of a topic are not lost after all; whether it said so, to the last one,
    /// and names none of the topic behind them.
    pub(crate) fn take_back(&mut self, topic: TopicId, from: Sequence, last: Sequence) -> bool {
        let mut newest = self.entries.iter().rposition(|entry| entry.0 == topic);
        if is_planted(Plant::RecoveredOutOfPlace) {
            newest = self.entries.iter().position(|entry| (entry.0, entry.2) == (topic, last));
        }
        let Some(at) = newest.filter(|&at| {
            let (_, first, end) = self.entries[at];
            first <= from && end == last
        }) else {
            return false;
        };
        self.missed -= last.0 - from.0 + 1;
        if self.entries[at].1 == from {
            self.entries.remove(at);
        } else {
            self.entries[at].2 = Sequence(from.0 - 1);
        }
        true
    }

    /// Memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        GAP_BYTES + self.entries.capacity() * size_of::<(TopicId, Sequence, Sequence)>()
    }

    /// Counts what was lost, and names nothing of it any more.
    pub(crate) fn forget_names(&mut self) {
        let named = std::mem::take(&mut self.entries);
        self.rest += named.iter().map(|(_, first, last)| last.0 + 1 - first.0).sum::<u64>();
    }

    /// The messages that it names: topics, with the first and the last number.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (TopicId, Sequence, Sequence)> {
        self.entries.iter().copied()
    }

    /// The topics that it names.
    pub(crate) fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.entries.iter().map(|(topic, _, _)| *topic)
    }

    /// Adds the losses of a later gap.
    pub(crate) fn absorb(&mut self, later: &Self) {
        for &(topic, first, last) in &later.entries {
            self.add(topic, first, last);
        }
        self.rest += later.rest;
        self.missed += later.missed;
        self.is_unknown |= later.is_unknown;
    }

    fn add(&mut self, topic: TopicId, first: Sequence, last: Sequence) {
        let continues = |entry: &&mut (TopicId, Sequence, Sequence)| {
            entry.0 == topic && entry.2.0 + 1 == first.0
        };
        // Losses come in runs of a topic, so the last entry is nearly always the one.
        if let Some(entry) = self.entries.last_mut().filter(|entry| continues(entry)) {
            entry.2 = last;
        } else if let Some(entry) = self.entries.iter_mut().find(continues) {
            entry.2 = last;
        } else if self.entries.len() < GAP_TOPICS_MAX {
            self.entries.push((topic, first, last));
        } else {
            self.rest += last.0 - first.0 + 1;
        }
    }

    /// The frame's contents.
    pub(crate) fn report(&self, subscription: SubscriptionId) -> GapReport<'_> {
        GapReport {
            subscription,
            reason: self.reason,
            missed: if self.is_unknown { u64::MAX } else { self.missed },
            entries: &self.entries,
            rest: self.rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_that_names_a_topic_twice_becomes_two() {
        let mut gap = Gap::new(GapReason::SlowConsumer);
        gap.note(TopicId(1), Sequence(5), 2);
        gap.note(TopicId(2), Sequence(1), 1);
        gap.note(TopicId(1), Sequence(9), 3);
        gap.note_unnamed(4);
        let gaps = gap.once_each();
        let told: Vec<_> = gaps.iter().map(|gap| (gap.missed(), gap.topics().count())).collect();
        assert_eq!(told, [(7, 2), (3, 1)]);
        assert_eq!(gaps[0].report(SubscriptionId(9)).rest, 4);
    }

    #[test]
    fn only_what_a_gap_names_last_of_a_topic_is_taken_back() {
        let mut gap = Gap::new(GapReason::SlowConsumer);
        gap.note(TopicId(1), Sequence(5), 2);
        gap.note(TopicId(1), Sequence(9), 3);
        assert!(!gap.take_back(TopicId(1), Sequence(5), Sequence(6)));
        assert!(gap.take_back(TopicId(1), Sequence(10), Sequence(11)));
        assert_eq!(gap.missed(), 3);
        assert_eq!(gap.ranges().last(), Some((TopicId(1), Sequence(9), Sequence(9))));
    }

    #[test]
    fn a_later_gap_joins_an_earlier_one_without_losing_count() {
        let mut gap = Gap::new(GapReason::SlowConsumer);
        gap.note(TopicId(1), Sequence(1), 1);
        let mut later = Gap::new(GapReason::Memory);
        for topic in 1..=80 {
            later.note(TopicId(topic), Sequence(2), 1);
        }
        gap.absorb(&later);
        let report = gap.report(SubscriptionId(9));
        assert_eq!(report.entries[0], (TopicId(1), Sequence(1), Sequence(2)));
        assert_eq!((report.missed, report.entries.len(), report.rest), (81, 64, 16));
    }

    #[test]
    fn runs_of_a_topic_share_an_entry_and_further_topics_are_counted() {
        let mut gap = Gap::new(GapReason::SlowConsumer);
        for sequence in 5..8 {
            gap.note(TopicId(1), Sequence(sequence), 1);
            gap.note(TopicId(2), Sequence(sequence + 10), 1);
        }
        gap.note(TopicId(1), Sequence(20), 1);
        for topic in 100..200 {
            gap.note(TopicId(topic), Sequence(1), 1);
        }
        let report = gap.report(SubscriptionId(9));
        assert_eq!(report.entries[0], (TopicId(1), Sequence(5), Sequence(7)));
        assert_eq!(report.entries[1], (TopicId(2), Sequence(15), Sequence(17)));
        assert_eq!(report.entries[2], (TopicId(1), Sequence(20), Sequence(20)));
        assert_eq!(report.entries.len(), GAP_TOPICS_MAX);
        assert_eq!(report.missed, 107);
        assert_eq!(report.rest, 100 - (GAP_TOPICS_MAX as u64 - 3));
    }
}
