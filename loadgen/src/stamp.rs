//! What the generator writes at the start of every payload, and reads back at the other end.
//!
//! `number u64, intended_ns u64`, little endian, and behind them `sent_ns u64` where the payload
//! has room for it. The number's upper 24 bits are the publisher's own number of the topic, the
//! lower 40 the message's own within that topic, both from 0, so order and completeness are checked
//! without trusting any number that the system under test assigns.

/// Bytes of number and intended time: the smallest payload.
pub(crate) const STAMP_BYTES: usize = 16;
/// Topics a publisher may have.
pub(crate) const TOPICS_MAX: u32 = 1 << 24;
/// Bits of the number that are the message's.
const COUNTER_BITS: u32 = 40;

/// The stamp of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// The publisher's topic, from 0; below [`TOPICS_MAX`].
    pub(crate) topic: u32,
    /// The message's number within it, from 0; below 2^40.
    pub(crate) counter: u64,
    /// When it was meant to be sent; at an unlimited rate, when it was.
    pub(crate) intended_ns: u64,
    /// When it was handed to the socket; `None` in payloads too short for it.
    pub(crate) sent_ns: Option<u64>,
}

impl Stamp {
    /// Reads the stamp of a payload; `None` if it is too short to be one of ours.
    #[inline]
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (number, rest) = payload.split_first_chunk()?;
        let number = u64::from_le_bytes(*number);
        let (intended_ns, rest) = rest.split_first_chunk()?;
        Some(Self {
            topic: (number >> COUNTER_BITS) as u32,
            counter: number & ((1 << COUNTER_BITS) - 1),
            intended_ns: u64::from_le_bytes(*intended_ns),
            sent_ns: rest.first_chunk().map(|sent| u64::from_le_bytes(*sent)),
        })
    }

    /// Writes the stamp to the start of a payload, as far as it has room.
    #[inline]
    pub(crate) fn write(&self, payload: &mut [u8]) {
        let Some((number, rest)) = payload.split_first_chunk_mut() else {
            return;
        };
        *number = (u64::from(self.topic) << COUNTER_BITS | self.counter).to_le_bytes();
        let Some((intended_ns, rest)) = rest.split_first_chunk_mut() else {
            return;
        };
        *intended_ns = self.intended_ns.to_le_bytes();
        if let (Some(sent_ns), Some(place)) = (self.sent_ns, rest.first_chunk_mut()) {
            *place = sent_ns.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        topic: TOPICS_MAX - 1,
        counter: (1 << COUNTER_BITS) - 1,
        intended_ns: 11,
        sent_ns: Some(13),
    };

    #[test]
    fn a_stamp_reads_back_what_was_written() {
        let mut payload = [0xEE; 32];
        STAMP.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(STAMP));
        assert_eq!(payload[24..], [0xEE; 8]);
    }

    #[test]
    fn a_payload_of_16_bytes_has_no_send_time() {
        let mut payload = [0; STAMP_BYTES];
        STAMP.write(&mut payload);
        let expected = Stamp { sent_ns: None, ..STAMP };
        assert_eq!(Stamp::read(&payload), Some(expected));
    }

    #[test]
    fn a_payload_too_short_for_a_stamp_is_not_read() {
        assert_eq!(Stamp::read(&[0; STAMP_BYTES - 1]), None);
    }
}
