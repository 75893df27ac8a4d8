//! How long to wait before the next attempt to connect.
//!
//! Delays double from the first to the longest and stay there, without end. Each is varied by up to
//! ±10 %, so that many clients of one daemon do not come back in step. Asks neither clock nor dice:
//! the caller brings a random number and does the waiting.

use std::time::Duration;

/// The growing delay between attempts.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

/// Part of a delay by which it varies up and down.
const JITTER: f64 = 0.1;

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Self { first, longest, next: first }
    }

    /// The delay before the next attempt. `random` may be any number.
    pub(crate) fn next_delay(&mut self, random: u64) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.longest);
        let unit = random as f64 / u64::MAX as f64;
        delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * unit)
    }

    /// Starts again with the first delay.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number whose jitter is none.
    const MIDDLE: u64 = u64::MAX / 2;

    #[test]
    fn delays_double_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        let seconds: Vec<f64> = (0..11)
            .map(|_| (backoff.next_delay(MIDDLE).as_secs_f64() * 10.0).round() / 10.0)
            .collect();
        assert_eq!(seconds, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]);
        backoff.reset();
        assert_eq!(backoff.next_delay(MIDDLE).as_millis(), 100);
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        for random in [0, 1, MIDDLE, u64::MAX - 1, u64::MAX] {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
            let delay = backoff.next_delay(random).as_secs_f64();
            assert!((0.09..=0.110_001).contains(&delay), "{delay} from {random}");
        }
    }
}
