//! When to rest behind sends, so that the next ones carry more.
//!
//! A small send costs the kernel some five microseconds whatever it carries, so a publisher of single
//! messages that many want keeps a core busy with little. Where bursts of small sends follow each other
//! closely, the shard therefore rests behind each for less than half of the time that it took: what is
//! published meanwhile shares the next sends. Work that waits already is never put off.

use std::mem;

use crate::limits::{
    BURST_BYTES_PER_SEND_MAX, BURST_SENDS_MIN, BURSTS_APART_US, REST_US_MAX, REST_US_PER_SEND,
};

/// Watches the sends of each turn.
#[derive(Debug, Default)]
pub(super) struct Rest {
    burst: Burst,
    /// When the turn of the last burst began.
    last_burst_us: Option<u64>,
}

/// The sends of one turn.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    sends: u32,
    bytes: u64,
}

impl Rest {
    /// One more send of this turn, of so many bytes.
    #[inline]
    pub(super) fn add(&mut self, bytes: u32) {
        self.burst.sends += 1;
        self.burst.bytes += u64::from(bytes);
    }

    /// The turn that began at `now_us` ends. Returns how long to rest behind it, in microseconds.
    pub(super) fn end_turn(&mut self, now_us: u64) -> u32 {
        let Burst { sends, bytes } = mem::take(&mut self.burst);
        if sends < BURST_SENDS_MIN || bytes >= BURST_BYTES_PER_SEND_MAX * u64::from(sends) {
            return 0;
        }
        let last_us = self.last_burst_us.replace(now_us);
        if last_us.is_none_or(|last_us| now_us.saturating_sub(last_us) > BURSTS_APART_US) {
            return 0;
        }
        (sends * REST_US_PER_SEND).min(REST_US_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rest behind so many sends of so many bytes each.
    fn rest_behind(rest: &mut Rest, sends: u32, bytes: u32, now_us: u64) -> u32 {
        (0..sends).for_each(|_| rest.add(bytes));
        rest.end_turn(now_us)
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
    fn few_sends_or_large_ones_are_not() {
        let mut rest = Rest::default();
        for (sends, bytes) in
            [(0, 0), (BURST_SENDS_MIN - 1, 176), (64, BURST_BYTES_PER_SEND_MAX as u32)]
        {
            for now_us in [1_000, 1_001] {
                assert_eq!(rest_behind(&mut rest, sends, bytes, now_us), 0, "{sends} of {bytes}");
            }
        }
    }
}
