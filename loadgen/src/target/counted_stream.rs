//! How much of a counted subscription has come, and how much of that the server was told.
//!
//! The count is what a subscriber comes back with: it goes on over all connections of the
//! subscription. Invariant: `acknowledged` is never above `received`.

/// Messages that may come before they are acknowledged.
const ACK_MESSAGES: u64 = 512;
/// Bytes that may.
const ACK_BYTES: usize = 64 << 10;

/// The stream of one counted subscription.
#[derive(Debug, Default)]
pub(super) struct CountedStream {
    /// Messages since the subscription began.
    received: u64,
    /// Those the server was told of.
    acknowledged: u64,
    /// Bytes of those it was not told of.
    unacknowledged_bytes: usize,
    /// Acknowledgements sent.
    acks: u64,
}

impl CountedStream {
    /// A read brought whole messages; returns the count to acknowledge, if it is time to.
    #[inline]
    pub(super) fn on_read(&mut self, messages: u64, bytes: usize) -> Option<u64> {
        self.received += messages;
        self.unacknowledged_bytes += bytes;
        let unacknowledged = self.received - self.acknowledged;
        let is_due = unacknowledged >= ACK_MESSAGES || self.unacknowledged_bytes >= ACK_BYTES;
        if !is_due || unacknowledged == 0 {
            return None;
        }
        self.acks += 1;
        Some(self.tell())
    }

    /// The count to come back with.
    pub(super) fn tell(&mut self) -> u64 {
        self.acknowledged = self.received;
        self.unacknowledged_bytes = 0;
        self.received
    }

    /// Acknowledgements sent so far.
    pub(super) fn acks(&self) -> u64 {
        self.acks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_or_bytes_make_an_acknowledgement_due_once() {
        let mut stream = CountedStream::default();
        assert_eq!(stream.on_read(ACK_MESSAGES - 1, ACK_BYTES - 2), None);
        assert_eq!(stream.on_read(1, 1), Some(ACK_MESSAGES));
        assert_eq!(stream.on_read(1, ACK_BYTES - 1), None);
        assert_eq!(stream.on_read(0, 1), Some(ACK_MESSAGES + 1));
        assert_eq!(stream.acks(), 2);
    }

    #[test]
    fn a_part_of_a_message_is_not_acknowledged() {
        let mut stream = CountedStream::default();
        assert_eq!(stream.on_read(0, ACK_BYTES), None);
        assert_eq!(stream.on_read(1, 1), Some(1));
    }

    #[test]
    fn what_was_told_when_coming_back_needs_no_acknowledgement() {
        let mut stream = CountedStream::default();
        stream.on_read(ACK_MESSAGES - 1, 1);
        assert_eq!(stream.tell(), ACK_MESSAGES - 1);
        assert_eq!(stream.on_read(1, 1), None);
        assert_eq!(stream.acks(), 0);
    }
}
