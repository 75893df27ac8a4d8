//! How much of a subscription has come, and how much of that the daemon was told.
//!
//! A message has come when it is in the subscription's inbox: the inbox outlives the connection, so
//! nothing that was counted is lost with it. Invariant: `acknowledged` is never above `received`.

use nexusd_wire::NodeId;

use crate::event::Event;
use crate::limits;
use crate::message::Message;
use crate::positions::Positions;

#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Messages since the daemon gave the subscription its id, of every delivery mode.
    pub(crate) received: u64,
    pub(crate) positions: Positions,
    /// Those that the daemon was told of.
    acknowledged: u64,
    /// Bytes of those it was not told.
    unacknowledged_bytes: usize,
}

/// How much may come unacknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckLimits {
    messages: u64,
    bytes: usize,
}

impl AckLimits {
    /// The daemon keeps what is not acknowledged in a queue of these bounds: a quarter of it may be
    /// on its way.
    pub(crate) fn of_queue(messages: Option<u32>, bytes: Option<u64>) -> Self {
        let quarter = messages.filter(|it| *it > 0).map(|it| u64::from(it / 4));
        let quarter_bytes = bytes.and_then(|it| usize::try_from(it / 4).ok());
        Self {
            messages: quarter.unwrap_or(u64::MAX).clamp(1, limits::ACK_MESSAGES),
            bytes: quarter_bytes.unwrap_or(usize::MAX).clamp(1, limits::ACK_BYTES),
        }
    }
}

impl Progress {
    /// How far a subscription had come that is taken up again.
    pub(crate) fn resumed(received: u64, positions: Positions) -> Self {
        Self { received, positions, acknowledged: received, unacknowledged_bytes: 0 }
    }

    /// The daemon counts from 0 again, under a new id.
    pub(crate) fn restart(&mut self) {
        self.received = 0;
        self.acknowledged = 0;
        self.unacknowledged_bytes = 0;
    }

    /// Messages that occupy `bytes` come into the inbox.
    pub(crate) fn on_received(&mut self, messages: &[Event], bytes: usize) {
        self.received += messages.len() as u64;
        self.unacknowledged_bytes += bytes;
    }

    /// Notes how far these messages, numbered by `node`, lead.
    pub(crate) fn note_positions(&mut self, messages: &[Event], node: NodeId) {
        let mut last: Option<&Message> = None;
        for event in messages {
            let Event::Message(message) = event else { continue };
            if let Some(last) = last
                && !last.is_alike(message)
            {
                self.note_position(last, node);
            }
            last = Some(message);
        }
        if let Some(last) = last {
            self.note_position(last, node);
        }
    }

    fn note_position(&mut self, message: &Message, node: NodeId) {
        let (topic, origin) = (message.topic_name(), message.origin());
        self.positions.note(topic, message.sequence(), node);
        if origin != node {
            self.positions.note_origin(topic, message.origin_sequence(), origin);
        }
    }

    /// Whether the daemon knows the count.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.received == self.acknowledged
    }

    /// Whether the daemon should be told now.
    pub(crate) fn is_ack_due(&self, limits: AckLimits) -> bool {
        self.received - self.acknowledged >= limits.messages
            || self.unacknowledged_bytes >= limits.bytes
    }

    /// The count to tell the daemon, if it does not know it.
    pub(crate) fn acknowledge(&mut self) -> Option<u64> {
        if self.received == self.acknowledged {
            return None;
        }
        self.acknowledged = self.received;
        self.unacknowledged_bytes = 0;
        Some(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(messages: u64, bytes: usize) -> Progress {
        Progress { received: messages, unacknowledged_bytes: bytes, ..Progress::default() }
    }

    #[test]
    fn messages_or_bytes_make_an_acknowledgement_due_once() {
        let limits = AckLimits::of_queue(None, None);
        assert!(!after(limits::ACK_MESSAGES - 1, limits::ACK_BYTES - 1).is_ack_due(limits));
        assert!(after(1, limits::ACK_BYTES).is_ack_due(limits));
        let mut progress = after(limits::ACK_MESSAGES, 0);
        assert!(progress.is_ack_due(limits));
        assert_eq!(progress.acknowledge(), Some(limits::ACK_MESSAGES));
        assert!(!progress.is_ack_due(limits));
        assert_eq!(progress.acknowledge(), None);
    }

    #[test]
    fn a_small_queue_is_acknowledged_more_often() {
        assert!(after(25, 0).is_ack_due(AckLimits::of_queue(Some(100), None)));
        assert!(!after(24, 0).is_ack_due(AckLimits::of_queue(Some(100), None)));
        assert!(after(1, 0).is_ack_due(AckLimits::of_queue(Some(1), None)));
        assert!(after(1, 250).is_ack_due(AckLimits::of_queue(None, Some(1_000))));
        assert!(!after(25, 0).is_ack_due(AckLimits::of_queue(Some(0), None)));
    }
}
