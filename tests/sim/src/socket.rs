//! The driver's side of one connection: what an operating system would keep for it.

use nexusd_core::{CloseReason, ConnectionId};

use crate::dice::Dice;

/// Bytes that one receive brings at most, as from a buffer of the ring.
pub const RECEIVE_BYTES: usize = 64 << 10;

/// One socket.
#[derive(Debug)]
pub struct Socket {
    /// Its name.
    pub id: ConnectionId,
    /// The shard wants to be fed.
    pub receiving: bool,
    /// Bytes that may still come although it does not.
    pub late_bytes: usize,
    /// Receives go to the landing zone.
    pub landing: bool,
    /// The landing zone that a receive is under way into: address and length.
    pub armed: Option<(usize, usize)>,
    /// Receives that may still come beside it.
    pub late_receives: u32,
    /// What the running send holds.
    pub in_flight: Option<Vec<u8>>,
    /// When it was given that.
    pub given_at_us: u64,
    /// The shard waits for `Writable`, since then.
    pub blocked_since_us: Option<u64>,
    /// The connection ends as soon as the running send has.
    pub closing: Option<CloseReason>,
    /// The client's end is closed: what is sent vanishes.
    pub client_left: bool,
    /// Bytes it holds for a client that does not read.
    pub capacity: usize,
    /// When the shard was last fed.
    pub fed_at_us: u64,
    /// When it was opened.
    pub opened_at_us: u64,
}

impl Socket {
    /// A connection that was just accepted.
    pub fn new(id: ConnectionId, capacity: usize, now_us: u64) -> Self {
        Self {
            id,
            receiving: true,
            late_bytes: 0,
            landing: false,
            armed: None,
            late_receives: 0,
            in_flight: None,
            given_at_us: 0,
            blocked_since_us: None,
            closing: None,
            client_left: false,
            capacity,
            fed_at_us: now_us,
            opened_at_us: now_us,
        }
    }

    /// How many of `waiting` bytes the next receive brings; 0 if it may bring none.
    pub fn receive_len(&self, waiting: usize, dice: &mut Dice) -> usize {
        let most = if self.receiving { waiting } else { waiting.min(self.late_bytes) };
        let most = most.min(RECEIVE_BYTES);
        match dice.below(8) {
            0..=4 => most,
            5 => most.min(1 + dice.below(64)),
            _ => most.min(dice.magnitude(most.max(1) as u64) as usize),
        }
    }

    /// How many of `len` bytes a send achieves if the socket has `room`, and whether it blocks.
    pub fn send_len(&self, len: usize, room: usize, dice: &mut Dice) -> (usize, bool) {
        let most = len.min(room);
        let sent = match dice.below(8) {
            0 => most.min(dice.magnitude(most.max(1) as u64) as usize),
            1 => most.min(dice.below(100)),
            _ => most,
        };
        let is_short = sent < len;
        // A socket may stop short of being full and take more at once.
        (sent, is_short && (sent == 0 || sent == room || dice.one_in(2)))
    }
}
