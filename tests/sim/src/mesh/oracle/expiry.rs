//! Messages with a time to live: which may be missing, and which came when their time was long over.
//!
//! The time to live counts from when the origin accepted a message, which is not before its client wrote
//! it. So one that is missing may be so only if its time was over, counted from there, when its node sent
//! what comes behind it. When it was accepted is what its timestamp says, by a clock that is known here.

use super::{Delivered, Incarnation, Oracle, Publication};
use crate::violation::{Violation, ensure};

/// Times to live are counted in whole milliseconds, and a send is planned a little before it is made.
const ROUNDING_US: u64 = 3_000;

/// How many messages that end at these times were over at one moment.
pub(super) fn over(ends: &[u64], by_us: u64) -> u64 {
    ends.iter().filter(|end_us| **end_us <= by_us).count() as u64
}

impl Publication {
    /// Whether it may have been left out by then because its time was over.
    pub(super) fn may_be_over(&self, by_us: u64) -> bool {
        self.ttl_us > 0 && self.written_us + self.ttl_us <= by_us
    }
}

impl Oracle {
    /// A message that came was not sent to its subscription when its time was over.
    pub(super) fn check_age(&self, publication: u32, it: &Delivered<'_>) -> Result<(), Violation> {
        let Publication { publisher, ttl_us, written_us, .. } =
            self.publications[publication as usize];
        let from = self.publishers[&publisher].at;
        let Some(ahead_us) = self.walls_ahead_us.get(from.0).filter(|_| ttl_us > 0) else {
            return Ok(());
        };
        let accepted_us = it.timestamp_us.saturating_sub(*ahead_us);
        let to = self.streams[it.stream].at;
        let slack_us = ROUNDING_US + self.under_way_us(from, to, written_us, it.begun_us);
        let late_us = it.begun_us.saturating_sub(accepted_us + ttl_us);
        ensure!(
            late_us <= slack_us,
            "stream {}: message {publication} was sent to it {late_us} us after its time to live of \
             {ttl_us} us was over",
            it.stream
        );
        Ok(())
    }

    /// How long a message may have been under way between two nodes, or between the threads of one,
    /// without getting older.
    fn under_way_us(
        &self,
        from: Incarnation,
        to: Incarnation,
        since_us: u64,
        until_us: u64,
    ) -> u64 {
        let idle_us = self.outages.of_host_us(from.0, since_us, until_us);
        match from.0 == to.0 {
            true => idle_us,
            false => {
                let cut_us = self.outages.total_us(from.0, to.0, since_us, until_us);
                self.link_us + idle_us + cut_us
            }
        }
    }
}
