//! When to rest behind sends, so that the next ones carry more.
//!
//! A small send costs the kernel some microseconds whatever it carries, so a publisher of single messages
//! that many want keeps a core busy with little. Behind a burst of small sends the loop may therefore rest,
//! when nothing is left to do that it knows of. What arrives while the sends go on, or in the rest, waits
//! until that is over, and its messages share the next sends.
//!
//! A rest is worth it only where messages come whether or not those before were answered. A publisher that
//! waits for acknowledgements sends no more for being made to wait. So the loop tries, some bursts without
//! rests and some with, again and again, and rests where that lets sends carry more.

use std::mem;

use crate::limits::{
    BURST_BYTES_PER_SEND_MAX, BURST_SENDS_MIN, BURSTS_PER_TRIAL, REST_US_MAX, REST_US_PER_SEND,
    TRIAL_BURSTS,
};

/// The first burst that was made with rests in a trial ...
const SECOND_HALF: u32 = TRIAL_BURSTS + 1;
/// ... and the last.
const TRIAL_ENDS: u32 = 2 * TRIAL_BURSTS;

/// Watches the sends between two sleeps.
#[derive(Debug, Default)]
pub(super) struct Rest {
    burst: Burst,
    trial: Trial,
}

/// The sends since the loop last slept, or could have.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    sends: u32,
    bytes: u64,
    has_large: bool,
}

/// Finds out whether rests let sends carry more: behind some bursts it has none, behind as many it has, and
/// behind all others until the next trial what was better.
#[derive(Debug, Default)]
struct Trial {
    /// Bursts since it began.
    bursts: u32,
    without: Carried,
    with: Carried,
    is_worth_it: bool,
}

/// What the sends of some bursts carried.
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    sends: u64,
    bytes: u64,
}

impl Rest {
    /// One more send, of so many bytes.
    #[inline]
    pub(super) fn add(&mut self, bytes: u32) {
        self.burst.sends += 1;
        self.burst.bytes += u64::from(bytes);
        self.burst.has_large |= bytes >= BURST_BYTES_PER_SEND_MAX;
    }

    /// Nothing is left to send. Returns how long to rest behind that, in microseconds.
    pub(super) fn end_burst(&mut self) -> u32 {
        let burst = mem::take(&mut self.burst);
        // Behind a large send there may be more of its queue, which has waited long enough.
        if burst.sends < BURST_SENDS_MIN || burst.has_large || !self.trial.wants_rest(burst) {
            return 0;
        }
        burst.sends.saturating_mul(REST_US_PER_SEND).min(REST_US_MAX)
    }
}

impl Trial {
    /// Whether to rest behind `burst`.
    fn wants_rest(&mut self, burst: Burst) -> bool {
        if self.bursts == BURSTS_PER_TRIAL {
            *self = Self::default();
        }
        // A burst is made of what came since the one before, so the first tells nothing of this trial.
        match self.bursts {
            1..=TRIAL_BURSTS => self.without.add(burst),
            SECOND_HALF..=TRIAL_ENDS => self.with.add(burst),
            _ => {}
        }
        if self.bursts == TRIAL_ENDS {
            self.is_worth_it = self.with.is_more_than(self.without);
        }
        let is_second_half = (TRIAL_BURSTS..TRIAL_ENDS).contains(&self.bursts);
        let wants_rest = is_second_half || self.is_worth_it;
        self.bursts += 1;
        wants_rest
    }
}

impl Carried {
    fn add(&mut self, burst: Burst) {
        self.sends += u64::from(burst.sends);
        self.bytes += burst.bytes;
    }

    /// Whether a send of these carried more than one of those by a half or more: where messages come anyway it is twice
    /// as much, for a rest is as long as the sends, and otherwise as much, give or take what payloads differ by.
    fn is_more_than(self, those: Self) -> bool {
        let crossed = |a: u64, b: u64| u128::from(a) * u128::from(b);
        2 * crossed(self.bytes, those.sends) >= 3 * crossed(those.bytes, self.sends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDS: u32 = 64;
    /// What 64 sends take the kernel.
    const SENDS_US: u32 = 320;
    const MESSAGE_BYTES: u32 = 176;

    /// The share of bursts that were rested behind, in percent, and messages in a send, on average, where
    /// `arrived` says how many messages have come since the last burst began, by the time from there to the end of
    /// its rest.
    fn run(rest: &mut Rest, bursts: u32, mut arrived: impl FnMut(u32) -> u32) -> (u32, f64) {
        let (mut messages, mut waiting, mut rests) = (0, 1, 0);
        for _ in 0..bursts {
            messages += waiting;
            (0..SENDS).for_each(|_| rest.add(waiting * MESSAGE_BYTES));
            let rest_us = rest.end_burst();
            assert_eq!(rest.end_burst(), 0, "nothing was sent since");
            rests += u32::from(rest_us > 0);
            waiting = arrived(SENDS_US + rest_us).max(1);
        }
        (100 * rests / bursts, f64::from(messages) / f64::from(bursts))
    }

    /// So many messages a second, whether or not those before were answered.
    fn at_rate(per_s: u32) -> impl FnMut(u32) -> u32 {
        let mut micro = 0;
        move |us| {
            micro += u64::from(per_s) * u64::from(us);
            let messages = micro / 1_000_000;
            micro %= 1_000_000;
            messages as u32
        }
    }

    #[test]
    fn where_messages_come_anyway_bursts_are_rested_behind() {
        let (rests, messages) = run(&mut Rest::default(), 10 * BURSTS_PER_TRIAL, at_rate(20_000));
        assert!(rests >= 98, "{rests}");
        assert!(messages > 12.0, "{messages}");
    }

    #[test]
    fn where_the_next_ones_wait_for_answers_they_are_not() {
        for window in [1, 2, 20] {
            let (rests, messages) = run(&mut Rest::default(), 10 * BURSTS_PER_TRIAL, |_| window);
            assert!(rests <= 2, "{rests}");
            assert!(messages <= f64::from(window));
        }
    }

    #[test]
    fn nor_where_messages_are_rare() {
        let (rests, _messages) = run(&mut Rest::default(), 10 * BURSTS_PER_TRIAL, at_rate(1_000));
        assert!(rests <= 2, "{rests}");
    }

    #[test]
    fn payloads_that_differ_are_not_taken_for_more_messages() {
        let (mut rest, mut rests) = (Rest::default(), 0);
        let mut random = 1_u32;
        for _ in 0..100 * BURSTS_PER_TRIAL {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bytes = 64 + (random >> 16) % 960;
            (0..SENDS).for_each(|_| rest.add(bytes));
            rests += u32::from(rest.end_burst() > 0);
        }
        let share = 100 * rests / (100 * BURSTS_PER_TRIAL);
        assert!(share <= 4, "{share}");
    }

    #[test]
    fn what_changes_is_noticed() {
        let mut rest = Rest::default();
        run(&mut rest, BURSTS_PER_TRIAL, at_rate(20_000));
        run(&mut rest, BURSTS_PER_TRIAL, |_| 1);
        let (rests, _messages) = run(&mut rest, BURSTS_PER_TRIAL, |_| 1);
        assert!(rests <= 2, "{rests}");
        run(&mut rest, BURSTS_PER_TRIAL, at_rate(20_000));
        let (rests, _messages) = run(&mut rest, BURSTS_PER_TRIAL, at_rate(20_000));
        assert!(rests >= 98, "{rests}");
    }

    #[test]
    fn few_sends_and_bursts_with_a_large_one_are_not_rested_behind_and_belong_to_no_trial() {
        let mut rest = Rest::default();
        for _ in 0..BURSTS_PER_TRIAL {
            (1..BURST_SENDS_MIN).for_each(|_| rest.add(MESSAGE_BYTES));
            assert_eq!(rest.end_burst(), 0);
            rest.add(BURST_BYTES_PER_SEND_MAX);
            (0..SENDS).for_each(|_| rest.add(MESSAGE_BYTES));
            assert_eq!(rest.end_burst(), 0);
        }
        assert_eq!(rest.trial.bursts, 0);
    }

    #[test]
    fn a_rest_is_as_long_as_the_sends_up_to_a_limit() {
        let mut rest = Rest::default();
        let mut of = |sends: u32| {
            (0..sends).for_each(|_| rest.add(MESSAGE_BYTES));
            rest.end_burst()
        };
        (0..TRIAL_BURSTS).for_each(|_| assert_eq!(of(40), 0));
        assert_eq!(of(40), 40 * REST_US_PER_SEND);
        assert_eq!(of(100_000), REST_US_MAX);
    }
}
