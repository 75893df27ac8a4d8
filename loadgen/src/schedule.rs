//! When each message of an open-loop run is meant to be sent.
//!
//! Message `n` is due at `start + n / rate`, whatever happened to the messages before it: the next
//! intended time is the previous one plus the interval, never "now". A publisher that was held up
//! sends the messages it owes late, and their latency says so.
//! Invariant: `due(t)` counts exactly the messages with `intended_ns(n) <= t`.
//! Never reads a clock.

/// An even schedule, or one publisher's share of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    /// Messages per second of the whole schedule.
    rate: u64,
    /// Publishers that share it.
    publishers: u64,
    /// Which of them this is, from 0. It sends every `publishers`th message.
    number: u64,
}

impl Schedule {
    /// `rate` messages per second (at least one) from `start_ns` on.
    pub(crate) fn new(start_ns: u64, rate: u64) -> Self {
        Self { start_ns, rate: rate.max(1), publishers: 1, number: 0 }
    }

    /// The share of one of several publishers, counted from 0.
    #[must_use]
    pub(crate) fn share(self, number: u64, publishers: u64) -> Self {
        Self { publishers: publishers.max(1), number, ..self }
    }

    /// When message `n` (from 0) is meant to be sent. Rounded down once, from the start, so that no
    /// rounding adds up.
    #[inline]
    pub(crate) fn intended_ns(&self, n: u64) -> u64 {
        let of_all = u128::from(n) * u128::from(self.publishers) + u128::from(self.number);
        self.start_ns + (of_all * 1_000_000_000 / u128::from(self.rate)) as u64
    }

    /// The time between two messages, rounded down.
    pub(crate) fn interval_ns(&self) -> u64 {
        (u128::from(self.publishers) * 1_000_000_000 / u128::from(self.rate)) as u64
    }

    /// How many messages are due at `now_ns`.
    #[inline]
    pub(crate) fn due(&self, now_ns: u64) -> u64 {
        let Some(elapsed) = now_ns.checked_sub(self.start_ns) else {
            return 0;
        };
        // Of all publishers: the largest n with n * 1e9 / rate (rounded down) <= elapsed, and one
        // more for n = 0.
        let numerator = (u128::from(elapsed) + 1) * u128::from(self.rate) - 1;
        let of_all = (numerator / 1_000_000_000) as u64 + 1;
        of_all.saturating_sub(self.number).div_ceil(self.publishers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intended_times_do_not_drift_over_an_hour() {
        let schedule = Schedule::new(1_000, 3);
        assert_eq!(schedule.intended_ns(0), 1_000);
        assert_eq!(schedule.intended_ns(1), 1_000 + 333_333_333);
        assert_eq!(schedule.intended_ns(3 * 3_600), 1_000 + 3_600 * 1_000_000_000);
    }

    #[test]
    fn a_message_is_due_exactly_from_its_intended_time_on() {
        for rate in [1, 3, 7, 10_000, 999_983, 1_000_000, 3_000_000_000] {
            let schedule = Schedule::new(5, rate);
            for n in [0, 1, 2, 17, 1_000_003] {
                let at = schedule.intended_ns(n);
                assert!(schedule.due(at) > n, "rate {rate}, message {n}");
                assert!(schedule.due(at - 1) <= n, "rate {rate}, message {n}");
            }
        }
    }

    #[test]
    fn a_held_up_publisher_owes_every_message_of_the_pause() {
        let schedule = Schedule::new(0, 10_000);
        let before = schedule.due(1_000_000_000);
        let after = schedule.due(1_500_000_000);
        assert_eq!(after - before, 5_000);
        assert_eq!(schedule.intended_ns(before), 1_000_100_000);
    }

    #[test]
    fn several_publishers_share_a_schedule_without_a_rest() {
        let whole = Schedule::new(7, 10);
        let shares: Vec<_> = (0..8).map(|number| whole.share(number, 8)).collect();
        let mut intended: Vec<u64> =
            shares.iter().flat_map(|share| (0..5).map(|n| share.intended_ns(n))).collect();
        intended.sort_unstable();
        assert_eq!(intended, (0..40).map(|n| whole.intended_ns(n)).collect::<Vec<_>>());
        for now_ns in [6, 7, 8, 1_000_000_006, 1_000_000_007, 3_141_592_653] {
            let due: u64 = shares.iter().map(|share| share.due(now_ns)).sum();
            assert_eq!(due, whole.due(now_ns), "at {now_ns}");
        }
    }

    #[test]
    fn nothing_is_due_before_the_start() {
        assert_eq!(Schedule::new(100, 1_000).due(99), 0);
    }
}
