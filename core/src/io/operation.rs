//! What a submission was for, packed into the 64 bits that come back with its completion.
//!
//! `operation (8) | slot index (24) | generation (32)`. The generation makes sure that a late
//! completion of a slot's former user never reaches the next one; a cancellation names exactly one
//! request by the same bits.

use crate::shard::event::ConnectionId;

/// Most slots an index can name.
pub(super) const SLOTS_MAX: usize = 1 << 24;

/// The operations that can be in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Operation {
    /// A listener's multishot accept; the index is the listener's.
    Accept = 1,
    /// The multishot poll of the doorbell.
    Doorbell = 2,
    /// A connection's multishot receive into the shared buffers.
    Receive = 3,
    /// A connection's single receive straight into the service's memory.
    ReceiveInPlace = 4,
    /// A connection's send.
    Send = 5,
    /// A connection's poll for room in its send buffer.
    Writable = 6,
    /// A cancellation. Its own end says nothing: the cancelled request's does.
    Cancel = 7,
}

impl Operation {
    /// The user data of this operation on a connection.
    #[inline]
    pub(super) fn on(self, id: ConnectionId) -> u64 {
        (self as u64) << 56 | u64::from(id.index) << 32 | u64::from(id.generation)
    }

    /// The user data of this operation on something that has only a number.
    #[inline]
    pub(super) fn numbered(self, index: u32) -> u64 {
        self.on(ConnectionId { index, generation: 0 })
    }
}

/// Takes user data apart; `None` for bits that no operation has.
#[inline]
pub(super) fn unpack(user_data: u64) -> Option<(Operation, ConnectionId)> {
    let operation = match (user_data >> 56) as u8 {
        1 => Operation::Accept,
        2 => Operation::Doorbell,
        3 => Operation::Receive,
        4 => Operation::ReceiveInPlace,
        5 => Operation::Send,
        6 => Operation::Writable,
        7 => Operation::Cancel,
        _ => return None,
    };
    let id = ConnectionId {
        index: (user_data >> 32) as u32 & (SLOTS_MAX as u32 - 1),
        generation: user_data as u32,
    };
    Some((operation, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_comes_back_as_it_was_packed() {
        for operation in [
            Operation::Accept,
            Operation::Doorbell,
            Operation::Receive,
            Operation::ReceiveInPlace,
            Operation::Send,
            Operation::Writable,
            Operation::Cancel,
        ] {
            for index in [0, 1, 77_777, SLOTS_MAX as u32 - 1] {
                for generation in [0, 1, u32::MAX] {
                    let id = ConnectionId { index, generation };
                    assert_eq!(unpack(operation.on(id)), Some((operation, id)));
                }
            }
        }
    }

    #[test]
    fn unknown_bits_are_no_operation() {
        assert_eq!(unpack(0), None);
        assert_eq!(unpack(u64::MAX), None);
    }
}
