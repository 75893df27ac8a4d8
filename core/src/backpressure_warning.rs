//! What a subscription that falls behind is told besides its gaps, at most once a second.

use nexusd_wire::control::GapReason;

use crate::limits::WARNING_INTERVAL_US;

/// What happened to a queue since its client was last warned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackpressureWarning {
    pub(crate) dropped: u64,
    pub(crate) expired: u64,
    /// Messages dropped before those.
    dropped_before: u64,
    /// Why messages were dropped last.
    pub(crate) reason: GapReason,
    not_before_us: u64,
}

impl Default for BackpressureWarning {
    fn default() -> Self {
        Self {
            dropped: 0,
            expired: 0,
            dropped_before: 0,
            reason: GapReason::SlowConsumer,
            not_before_us: 0,
        }
    }
}

impl BackpressureWarning {
    pub(crate) fn note_dropped(&mut self, messages: u64, reason: GapReason) {
        if messages > 0 {
            self.dropped += messages;
            self.reason = reason;
        }
    }

    pub(crate) fn note_expired(&mut self, messages: u64) {
        self.expired += messages;
    }

    /// Whether there is something to warn of, and it is time for that.
    #[inline]
    pub(crate) fn is_due(&self, now_us: u64) -> bool {
        self.dropped > 0 && now_us >= self.not_before_us
    }

    /// Messages dropped since the subscription began.
    pub(crate) fn dropped_in_all(&self) -> u64 {
        self.dropped_before + self.dropped
    }

    /// The client is told.
    pub(crate) fn told(&mut self, now_us: u64) {
        let dropped_before = self.dropped_in_all();
        let not_before_us = now_us + WARNING_INTERVAL_US;
        *self = Self { not_before_us, dropped_before, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_a_second_apart_and_sum_up_what_was_dropped() {
        let mut warning = BackpressureWarning::default();
        assert!(!warning.is_due(0));
        warning.note_expired(1);
        assert!(!warning.is_due(0), "what expires is no reason to warn");
        warning.note_dropped(2, GapReason::Memory);
        assert!(warning.is_due(0));
        warning.told(5);
        warning.note_dropped(3, GapReason::SlowConsumer);
        warning.note_dropped(4, GapReason::SlowConsumer);
        assert!(!warning.is_due(1_000_004));
        assert!(warning.is_due(1_000_005));
        assert_eq!((warning.dropped, warning.expired), (7, 0));
        assert_eq!(warning.dropped_in_all(), 9);
    }
}
