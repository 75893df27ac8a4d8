//! Which subscriptions are slow: their queues fill, or have overflowed.

use nexusd_admin::proto::Subscription;

/// From which part of its limit on a queue is worth a look, in percent.
const FULL_FROM_PERCENT: f64 = 50.0;

/// How a subscription keeps up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Pace {
    /// Its queue is short.
    Fine,
    /// Its queue is half full or more.
    Slow,
    /// It loses messages right now.
    Losing,
}

/// How full a queue is by the limit that is closer, in percent.
pub(super) fn fill_percent(subscription: &Subscription) -> f64 {
    let part = |used: u64, limit: u64| {
        if limit == 0 { 0.0 } else { 100.0 * used as f64 / limit as f64 }
    };
    part(subscription.queued_messages, subscription.limit_messages)
        .max(part(subscription.queued_bytes, subscription.limit_bytes))
}

/// How it keeps up, while it drops so many a second.
pub(super) fn pace(subscription: &Subscription, dropped_per_second: f64) -> Pace {
    if dropped_per_second > 0.0 {
        Pace::Losing
    } else if fill_percent(subscription) >= FULL_FROM_PERCENT {
        Pace::Slow
    } else {
        Pace::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_closer_decides() {
        let subscription = Subscription {
            queued_messages: 10,
            limit_messages: 100,
            queued_bytes: 60,
            limit_bytes: 100,
            ..Subscription::default()
        };
        assert_eq!(fill_percent(&subscription), 60.0);
        assert_eq!(pace(&subscription, 0.0), Pace::Slow);
        assert_eq!(pace(&subscription, 0.1), Pace::Losing);
        let unbounded = Subscription { limit_bytes: 0, ..subscription };
        assert_eq!(pace(&unbounded, 0.0), Pace::Fine);
    }
}
