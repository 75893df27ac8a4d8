//! When a message ends by its time to live.
//!
//! Counted on the monotonic clock from the moment the daemon accepted the message, in whole
//! milliseconds, so that no jump of the wall clock ends or prolongs anything.

use crate::plant::{Plant, is_planted};
use crate::shard::event::Now;

/// The millisecond, by the monotonic clock, from which on a message is not delivered any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Expiry(u64);

impl Expiry {
    /// Not at all.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// Of a message that is accepted now; a time to live of 0 is none. Up to a millisecond is added,
    /// none is taken.
    #[inline]
    pub(crate) fn of(ttl_ms: u32, now: Now) -> Self {
        match ttl_ms {
            0 => Self::NEVER,
            ttl_ms => Self(now.mono_us.div_ceil(1_000) + u64::from(ttl_ms)),
        }
    }

    /// Of a message that came here `age_ms` after it was accepted elsewhere.
    pub(crate) fn after(ttl_ms: u32, age_ms: u64, now: Now) -> Self {
        match ttl_ms {
            0 => Self::NEVER,
            ttl_ms => Self(now.mono_us.div_ceil(1_000) + u64::from(ttl_ms).saturating_sub(age_ms)),
        }
    }

    #[inline]
    pub(crate) fn is_past(self, now_us: u64) -> bool {
        self.0 <= now_us / 1_000 && !is_planted(Plant::ExpiredDelivered)
    }

    /// What the wall clock of the node that accepted a message says now, if nobody has set it since.
    pub(crate) fn wall_us(self, accepted_us: u64, ttl_ms: u32, now_us: u64) -> u64 {
        let left_us = self.0.saturating_mul(1_000).saturating_sub(now_us);
        accepted_us.saturating_add((u64::from(ttl_ms) * 1_000).saturating_sub(left_us))
    }

    /// Itself, or the next millisecond if it is past.
    pub(crate) fn beyond(self, now_us: u64) -> Self {
        self.max(Self(now_us / 1_000 + 1))
    }

    /// The first microsecond at which it is past.
    pub(crate) fn due_us(self) -> Option<u64> {
        (self != Self::NEVER).then(|| self.0 * 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_lives_as_long_as_it_may_and_less_than_a_millisecond_longer() {
        let accepted = Now { mono_us: 1_700, wall_us: 0 };
        let expiry = Expiry::of(3, accepted);
        assert!(!expiry.is_past(4_700));
        assert!(expiry.is_past(5_000));
        assert_eq!(expiry.due_us(), Some(5_000));
        assert!(!Expiry::of(0, accepted).is_past(u64::MAX - 1_000));
    }
}
