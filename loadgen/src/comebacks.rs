//! Connections that are broken on purpose, and subscribers that come back.
//!
//! Every so often each subscriber's connection is closed without a word, when it has just brought
//! something. At every other break that counts as never received, so that something is surely on its
//! way; at the others the subscriber has had it. It connects again at once and goes on with its
//! subscription, while the publishers go on too. Subscribers take turns, so that their breaks are spread
//! evenly over the time.

use std::time::Duration;

use crate::clock;
use crate::connection::Endpoint;
use crate::latency::Latencies;

/// When connections break, and where their subscribers connect again.
#[derive(Clone, Debug)]
pub(crate) struct BreakPlan {
    /// Where the server of each subscriber listens.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Time between two breaks of a connection.
    pub(crate) every: Duration,
    /// Nothing breaks before.
    pub(crate) start_ns: u64,
}

/// The breaks of one subscriber's connections.
#[derive(Clone, Debug)]
pub(crate) struct Breaks {
    every_ns: u64,
    next_ns: u64,
    /// When the connection broke behind which no message has come yet.
    broken_ns: Option<u64>,
    loses_read: bool,
}

/// What coming back took.
#[derive(Clone, Debug, Default)]
pub(crate) struct ComebackReport {
    /// Connections that were broken.
    pub(crate) breaks: u64,
    /// From the break to the first message on the next connection.
    pub(crate) latencies: Latencies,
}

impl BreakPlan {
    /// The breaks of one of so many subscribers.
    pub(crate) fn breaks_of(&self, subscriber: usize, subscribers: usize) -> Breaks {
        let every_ns = clock::nanoseconds(self.every);
        let share = (subscriber + 1) as f64 / subscribers as f64;
        let first_ns = (every_ns as f64 * share) as u64;
        Breaks { every_ns, next_ns: self.start_ns + first_ns, broken_ns: None, loses_read: true }
    }
}

impl Breaks {
    /// Whether the connection, which has just brought something, is to break. It does not before the
    /// subscriber has had a message behind the last break.
    #[inline]
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.next_ns && self.broken_ns.is_none()
    }

    /// Whether the next break takes along what was just read.
    pub(crate) fn loses_read(&self) -> bool {
        self.loses_read
    }

    /// The connection breaks.
    pub(crate) fn on_break(&mut self, now_ns: u64) {
        self.next_ns = now_ns + self.every_ns;
        self.broken_ns = Some(now_ns);
        self.loses_read = !self.loses_read;
    }

    /// Messages have come; returns how long after the break, if they are the first behind one.
    #[inline]
    pub(crate) fn on_messages(&mut self, now_ns: u64) -> Option<u64> {
        self.broken_ns.take().map(|broken_ns| now_ns.saturating_sub(broken_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> BreakPlan {
        let endpoint = Endpoint::Unix("@nobody".to_owned());
        BreakPlan { endpoints: vec![endpoint], every: Duration::from_nanos(1_000), start_ns: 5_000 }
    }

    #[test]
    fn subscribers_take_turns() {
        let first = |subscriber| plan().breaks_of(subscriber, 4).next_ns;
        assert_eq!([0, 1, 2, 3].map(first), [5_250, 5_500, 5_750, 6_000]);
    }

    #[test]
    fn a_connection_breaks_again_once_a_message_has_come_and_the_time_has_passed() {
        let mut breaks = plan().breaks_of(0, 1);
        assert!(!breaks.is_due(5_999));
        assert!(breaks.is_due(6_000) && breaks.loses_read());
        breaks.on_break(6_100);
        assert!(!breaks.is_due(7_100));
        assert_eq!(breaks.on_messages(6_130), Some(30));
        assert_eq!(breaks.on_messages(6_140), None);
        assert!(!breaks.is_due(7_099));
        assert!(breaks.is_due(7_100) && !breaks.loses_read());
    }
}
