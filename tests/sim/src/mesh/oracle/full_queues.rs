//! What full queues may do that do not drop: hold the publishers of their node back, or end the connection.

use nexusd_wire::control::OverflowPolicy;

use super::{Oracle, Stream};
use crate::violation::{Violation, ensure};

impl Oracle {
    /// A subscription was told that its queue was full: its policy allows that.
    pub(super) fn check_overflow(&self, at: usize) -> Result<(), Violation> {
        let stream = &self.streams[at];
        match stream.policy {
            OverflowPolicy::Disconnect => ensure!(
                stream.has_come_back,
                "stream {at} was told that its queue was full; its policy is disconnect"
            ),
            OverflowPolicy::Block => ensure!(
                self.may_overflow(stream),
                "stream {at} was told that its queue was full, but that holds the publishers of its \
                 node back, and nobody else publishes what it wants"
            ),
            _ => {}
        }
        Ok(())
    }

    /// Whether a queue that blocks may have dropped something: for what nobody is held back, while nobody
    /// was there, or because nobody read for too long.
    fn may_overflow(&self, stream: &Stream) -> bool {
        let others = self.publishers.values().filter(|publisher| publisher.at != stream.at);
        let wants = |topic: &usize| stream.wants(self.topics[*topic]);
        let is_of_link = others.into_iter().any(|other| other.by_topic.keys().any(wants));
        let window_us = 2 * self.block_timeout_us + 1_000_000;
        let since_us = self.now_us.saturating_sub(window_us);
        let idle_us = self.outages.of_client_us(stream.client, since_us, self.now_us)
            + self.outages.of_host_us(stream.at.0, since_us, self.now_us);
        let is_slow = idle_us >= self.block_timeout_us / 2;
        stream.has_come_back || stream.takes_up || is_of_link || is_slow
    }

    /// A client was told that its connection ends because one of its queues was full: one of them can have
    /// been.
    pub fn disconnected(&self, client: u32, streams: &[usize]) -> Result<(), Violation> {
        let may_be_full = |at: &usize| {
            let stream = &self.streams[*at];
            let is_more = stream.takes_up || stream.offered > stream.queue_messages;
            stream.policy == OverflowPolicy::Disconnect && is_more
        };
        ensure!(
            streams.iter().any(may_be_full),
            "client {client} was disconnected as too slow, but none of its queues can have been full"
        );
        Ok(())
    }
}
