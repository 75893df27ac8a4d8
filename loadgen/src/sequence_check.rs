//! Proves that one subscriber got every message of one publisher once and in order.
//!
//! It knows the counter that must come next. A counter beyond it opens a hole; one that falls into
//! a hole later was reordered, any other one behind is a duplicate. In order, a message costs one
//! comparison and one addition.
//! Invariant: `next` is one above the highest counter seen, and all holes lie below it.

use std::ops::Range;

/// Holes remembered. Beyond these a late message counts as duplicated and its hole as lost, which
/// is wrong in kind but never hides a fault.
const HOLES_MAX: usize = 4_096;

/// The check of one subscriber.
#[derive(Clone, Debug, Default)]
pub(crate) struct SequenceCheck {
    next: u64,
    /// Counters below `next` that did not come, in all.
    missing: u64,
    /// Where they are missing, as far as remembered.
    holes: Vec<Range<u64>>,
    duplicated: u64,
    reordered: u64,
}

/// What a check found in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Faults {
    /// Messages sent that never came.
    pub(crate) lost: u64,
    /// Messages that came again.
    pub(crate) duplicated: u64,
    /// Messages that came behind a later one.
    pub(crate) reordered: u64,
    /// Messages that nobody sent: counters beyond the last one, or payloads of a wrong length.
    pub(crate) foreign: u64,
}

impl SequenceCheck {
    /// A check that has had every message before `next`.
    pub(crate) fn expecting(next: u64) -> Self {
        Self { next, ..Self::default() }
    }

    /// Takes the counter of the message that came now.
    #[inline]
    pub(crate) fn on_counter(&mut self, counter: u64) {
        if counter == self.next {
            self.next += 1;
        } else {
            self.on_surprise(counter);
        }
    }

    #[cold]
    fn on_surprise(&mut self, counter: u64) {
        if counter > self.next {
            self.missing += counter - self.next;
            if self.holes.len() < HOLES_MAX {
                self.holes.push(self.next..counter);
            }
            self.next = counter.saturating_add(1);
            return;
        }
        let Some(at) = self.holes.iter().position(|hole| hole.contains(&counter)) else {
            self.duplicated += 1;
            return;
        };
        let hole = self.holes.swap_remove(at);
        for rest in [hole.start..counter, counter + 1..hole.end] {
            if !rest.is_empty() {
                self.holes.push(rest);
            }
        }
        self.missing -= 1;
        self.reordered += 1;
    }

    /// One above the highest counter seen: how far delivery has come.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Messages that came, duplicates included.
    #[cfg(test)]
    pub(crate) fn received(&self) -> u64 {
        self.next - self.missing + self.duplicated
    }

    /// What went wrong, given how many messages were sent.
    pub(crate) fn faults(&self, sent: u64) -> Faults {
        Faults {
            lost: self.missing + sent.saturating_sub(self.next),
            duplicated: self.duplicated,
            reordered: self.reordered,
            foreign: self.next.saturating_sub(sent),
        }
    }
}

impl Faults {
    /// Adds another subscriber's faults.
    pub(crate) fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(counters: &[u64]) -> SequenceCheck {
        let mut check = SequenceCheck::default();
        for counter in counters {
            check.on_counter(*counter);
        }
        check
    }

    #[test]
    fn every_message_once_and_in_order_is_no_fault() {
        let check = check(&[0, 1, 2, 3]);
        assert_eq!(check.faults(4), Faults::default());
        assert_eq!(check.received(), 4);
    }

    #[test]
    fn a_hole_and_a_missing_tail_are_losses() {
        let check = check(&[0, 3]);
        let expected = Faults { lost: 2 + 6, ..Faults::default() };
        assert_eq!(check.faults(10), expected);
        assert_eq!(check.received(), 2);
    }

    #[test]
    fn a_message_that_comes_late_is_reordered_and_not_lost() {
        let check = check(&[0, 3, 1, 2, 4]);
        let expected = Faults { reordered: 2, ..Faults::default() };
        assert_eq!(check.faults(5), expected);
        assert_eq!(check.received(), 5);
    }

    #[test]
    fn a_message_that_comes_again_is_duplicated() {
        let check = check(&[0, 1, 1, 0]);
        let expected = Faults { duplicated: 2, ..Faults::default() };
        assert_eq!(check.faults(2), expected);
        assert_eq!(check.received(), 4);
    }

    #[test]
    fn a_late_message_that_comes_twice_is_reordered_once_and_duplicated_once() {
        let check = check(&[0, 2, 1, 1]);
        let faults = check.faults(3);
        assert_eq!((faults.reordered, faults.duplicated, faults.lost), (1, 1, 0));
    }

    #[test]
    fn a_counter_nobody_sent_is_foreign() {
        let check = check(&[0, 1, u64::MAX - 1]);
        assert!(check.faults(2).foreign > 0);
    }

    #[test]
    fn more_holes_than_are_remembered_still_count_as_lost() {
        let mut check = SequenceCheck::default();
        let holes = HOLES_MAX as u64 + 10;
        for n in 0..holes {
            check.on_counter(2 * n + 1);
        }
        assert_eq!(check.faults(2 * holes).lost, holes);
    }
}
