//! How much of a rate is left: a second's worth at once, refilled evenly.
//!
//! Kept as one number, the time at which all that was taken is paid for, so that threads share a bucket
//! without a lock. Whoever has asked what is available may take more than is left by then: the bucket
//! then owes, and pays that first. So over any longer time the rate holds, whatever threads do at once.

use std::sync::atomic::{AtomicU64, Ordering};

const SECOND_NS: u64 = 1_000_000_000;

/// One bucket, full at first. The rate is the caller's, and the same in every call.
#[derive(Debug, Default)]
pub(crate) struct TokenBucket {
    /// Nanoseconds on the clock of `Now::mono_us`.
    paid_at_ns: AtomicU64,
}

impl TokenBucket {
    /// Tokens that can be taken now.
    pub(crate) fn available(&self, per_second: u32, now_us: u64) -> u64 {
        let owed_ns = self.paid_at_ns.load(Ordering::Relaxed).saturating_sub(nanoseconds(now_us));
        SECOND_NS.saturating_sub(owed_ns) * u64::from(per_second) / SECOND_NS
    }

    /// Takes tokens, be there as many or not.
    pub(crate) fn take(&self, tokens: u64, per_second: u32, now_us: u64) {
        let cost_ns = tokens.saturating_mul(SECOND_NS) / u64::from(per_second.max(1));
        let take =
            |paid_at_ns: u64| Some(paid_at_ns.max(nanoseconds(now_us)).saturating_add(cost_ns));
        // It never refuses.
        let _ = self.paid_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    /// Whether nothing is owed.
    pub(crate) fn is_full(&self, now_us: u64) -> bool {
        self.paid_at_ns.load(Ordering::Relaxed) <= nanoseconds(now_us)
    }
}

fn nanoseconds(us: u64) -> u64 {
    us.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes what is available, up to `wanted`.
    fn draw(bucket: &TokenBucket, wanted: u64, per_second: u32, now_us: u64) -> u64 {
        let tokens = bucket.available(per_second, now_us).min(wanted);
        bucket.take(tokens, per_second, now_us);
        tokens
    }

    #[test]
    fn a_second_of_the_rate_can_be_taken_at_once_and_comes_back_evenly() {
        let bucket = TokenBucket::default();
        assert_eq!(draw(&bucket, 150, 100, 5_000_000), 100);
        assert_eq!(draw(&bucket, 1, 100, 5_009_999), 0);
        assert_eq!(draw(&bucket, 5, 100, 5_010_000), 1);
        assert_eq!(draw(&bucket, 150, 100, 5_510_000), 50);
        assert!(!bucket.is_full(6_509_999));
        assert!(bucket.is_full(6_510_000));
        assert_eq!(draw(&bucket, 150, 100, 60_000_000), 100, "it never holds more");
    }

    #[test]
    fn what_was_taken_beyond_the_rate_is_paid_for_first() {
        let bucket = TokenBucket::default();
        bucket.take(30, 10, 1_000_000);
        assert_eq!(bucket.available(10, 3_000_000), 0);
        assert_eq!(bucket.available(10, 3_100_000), 1);
    }

    #[test]
    fn a_clock_that_is_a_little_behind_takes_nothing_for_free() {
        let bucket = TokenBucket::default();
        bucket.take(10, 10, 2_000_000);
        assert_eq!(bucket.available(10, 1_999_000), 0);
    }

    proptest! {
        #[test]
        fn no_more_is_drawn_than_a_second_at_once_and_the_rate(
            per_second in 1..2_000_000_u32,
            draws in prop::collection::vec((0..200_000_u64, 0..5_000_u64), 1..100),
        ) {
            let bucket = TokenBucket::default();
            let (mut now_us, mut drawn) = (1, 0);
            for (passed_us, wanted) in draws {
                now_us += passed_us;
                drawn += draw(&bucket, wanted, per_second, now_us);
                // A nanosecond a draw is lost in rounding.
                let most = u128::from(per_second) * u128::from(now_us + 1_000_001) / 1_000_000 + 1;
                prop_assert!(u128::from(drawn) <= most, "{drawn} > {most}");
            }
        }
    }
}
