//! When to rest behind sends, so that the next ones carry more.
//!
//! A small send costs the kernel some microseconds whatever it carries, so a publisher of single messages
//! that many want keeps a core busy with little. Where bursts of small sends follow each other closely, the
//! loop therefore rests behind each, when nothing is left to do that it knows of. What arrives while the
//! sends go on, or in the rest, waits until that is over, and its messages share the next sends.

use std::mem;

use crate::limits::{
    BURST_BYTES_PER_SEND_MAX, BURST_SENDS_MIN, BURSTS_APART_US, REST_US_MAX, REST_US_PER_SEND,
};

/// Watches the sends between two sleeps.
#[derive(Debug, Default)]
pub(super) struct Rest {
    burst: Burst,
    /// When the turn began that ended the last burst.
    last_burst_us: Option<u64>,
}

/// The sends since the loop last slept, or could have.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    sends: u32,
    has_large: bool,
}

impl Rest {
    /// One more send, of so many bytes.
    #[inline]
    pub(super) fn add(&mut self, bytes: u32) {
        self.burst.sends += 1;
        self.burst.has_large |= bytes >= BURST_BYTES_PER_SEND_MAX;
    }

    /// The turn that began at `now_us` leaves nothing to send. Returns how long to rest behind it, in
    /// microseconds.
    pub(super) fn end_burst(&mut self, now_us: u64) -> u32 {
        let Burst { sends, has_large } = mem::take(&mut self.burst);
        // Behind a large send there may be more of its queue, which has waited long enough.
        if sends < BURST_SENDS_MIN || has_large {
            return 0;
        }
        let last_us = self.last_burst_us.replace(now_us);
        if last_us.is_none_or(|last_us| now_us.saturating_sub(last_us) > BURSTS_APART_US) {
            return 0;
        }
        sends.saturating_mul(REST_US_PER_SEND).min(REST_US_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rest behind so many sends of so many bytes each.
    fn rest_behind(rest: &mut Rest, sends: u32, bytes: u32, now_us: u64) -> u32 {
        (0..sends).for_each(|_| rest.add(bytes));
        rest.end_burst(now_us)
    }

    #[test]
    fn bursts_of_small_sends_that_follow_each_other_are_rested_behind() {
        let mut rest = Rest::default();
        assert_eq!(rest_behind(&mut rest, 64, 176, 1_000), 0, "the first may stay the only one");
        assert_eq!(rest_behind(&mut rest, 40, 176, 1_400), 40 * REST_US_PER_SEND);
        assert_eq!(rest_behind(&mut rest, 100_000, 176, 1_800), REST_US_MAX);
        let later = 1_800 + BURSTS_APART_US;
        assert_eq!(rest_behind(&mut rest, 64, 176, later + 1), 0, "too long after the one before");
        assert!(rest_behind(&mut rest, 64, 176, later + 2) > 0);
    }

    #[test]
    fn few_sends_are_not_nor_is_any_burst_with_a_large_one() {
        let mut rest = Rest::default();
        for now_us in [1_000, 1_001, 1_002] {
            assert_eq!(rest_behind(&mut rest, 0, 0, now_us), 0);
            assert_eq!(rest_behind(&mut rest, BURST_SENDS_MIN - 1, 176, now_us), 0);
            rest.add(BURST_BYTES_PER_SEND_MAX);
            assert_eq!(rest_behind(&mut rest, 64, 176, now_us), 0);
        }
    }
}
