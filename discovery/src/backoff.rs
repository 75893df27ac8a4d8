//! How long to wait before the next attempt: ever longer, and never the same as everybody else.

use crate::config::Retry;

/// Before the attempt that follows `failures` of them, microseconds.
pub(crate) fn interval_us(retry: &Retry, failures: u32, dice: &mut fastrand::Rng) -> u64 {
    let most = retry.interval_max_us as f64;
    let even = if failures >= retry.count {
        most
    } else {
        let power = failures.saturating_sub(1).min(1_000);
        (retry.interval_us as f64 * retry.factor.max(1.0).powi(power as i32)).min(most)
    };
    let jitter = retry.jitter.clamp(0.0, 1.0);
    (even * (1.0 + jitter * (2.0 * dice.f64() - 1.0))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even() -> Retry {
        Retry { jitter: 0.0, ..Retry::default() }
    }

    #[test]
    fn each_interval_is_longer_by_the_factor_until_the_longest() {
        let mut dice = fastrand::Rng::with_seed(1);
        let seconds: Vec<u64> =
            (1..=9).map(|failures| interval_us(&even(), failures, &mut dice) / 1_000_000).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn after_so_many_attempts_the_longest_interval_is_kept() {
        let mut dice = fastrand::Rng::with_seed(1);
        let retry = Retry { count: 2, ..even() };
        assert_eq!(interval_us(&retry, 1, &mut dice), 2_000_000);
        for failures in [2, 3, u32::MAX] {
            assert_eq!(interval_us(&retry, failures, &mut dice), 60_000_000);
        }
    }

    #[test]
    fn jitter_stays_within_its_part_and_spreads_over_it() {
        let mut dice = fastrand::Rng::with_seed(7);
        let intervals: Vec<u64> =
            (0..1_000).map(|_| interval_us(&Retry::default(), 1, &mut dice)).collect();
        assert!(intervals.iter().all(|us| (1_600_000..=2_400_000).contains(us)));
        let (low, high) = (intervals.iter().min(), intervals.iter().max());
        assert!(low < Some(&1_650_000) && high > Some(&2_350_000), "{low:?} to {high:?}");
    }

    #[test]
    fn settings_that_make_no_sense_do_no_harm() {
        let mut dice = fastrand::Rng::with_seed(1);
        let retry = Retry { factor: f64::NAN, jitter: -3.0, ..Retry::default() };
        assert_eq!(interval_us(&retry, 5, &mut dice), 2_000_000);
        let retry = Retry { factor: f64::INFINITY, jitter: 0.0, ..Retry::default() };
        assert_eq!(interval_us(&retry, 5, &mut dice), 60_000_000);
    }
}
