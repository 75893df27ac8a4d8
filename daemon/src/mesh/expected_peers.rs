//! Tells an operator whether as many nodes were found as there should be (`--expected-peers`).

use tracing::{info, warn};

/// How long they may take, in microseconds.
const PATIENCE_US: u64 = 30_000_000;

/// What was said so far.
#[derive(Debug)]
pub(super) struct ExpectedPeers {
    expected: u64,
    /// When it is said that some are missing; `None` once it was.
    due_us: Option<u64>,
    /// They were all there, and it was said.
    are_there: bool,
}

impl ExpectedPeers {
    /// For a node that starts now; none are expected if `expected` is 0.
    pub(super) fn new(expected: u64, now_us: u64) -> Self {
        Self {
            expected,
            due_us: Some(now_us.saturating_add(PATIENCE_US)),
            are_there: expected == 0,
        }
    }

    /// When [`Self::look`] is due, if nobody joins before.
    pub(super) fn wake_at(&self) -> Option<u64> {
        self.due_us.filter(|_| !self.are_there)
    }

    /// So many have a link now.
    pub(super) fn look(&mut self, now_us: u64, linked: u64) {
        if self.are_there {
            return;
        }
        let expected = self.expected;
        if linked >= expected {
            self.are_there = true;
            info!("{linked} other nodes are linked, {expected} were expected (--expected-peers)");
        } else if self.due_us.is_some_and(|due_us| due_us <= now_us) {
            self.due_us = None;
            warn!(
                "{linked} other nodes are linked after {} s, {expected} were expected \
                 (--expected-peers)",
                PATIENCE_US / 1_000_000
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_at_the_time_and_until_all_are_there() {
        let mut expected = ExpectedPeers::new(2, 5);
        assert_eq!(expected.wake_at(), Some(5 + PATIENCE_US));
        expected.look(5 + PATIENCE_US, 1);
        assert_eq!(expected.wake_at(), None);
        assert!(!expected.are_there);
        expected.look(6 + PATIENCE_US, 2);
        assert!(expected.are_there);
    }

    #[test]
    fn without_an_expectation_nothing_is_looked_at() {
        let expected = ExpectedPeers::new(0, 0);
        assert!(expected.are_there);
        assert_eq!(expected.wake_at(), None);
    }
}
