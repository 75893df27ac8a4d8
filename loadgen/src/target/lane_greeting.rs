//! How a connection to the pump or the relay introduces itself: eight bytes that say what it is and
//! which lane it belongs to. The server returns them once the connection counts.
//!
//! `role u8 ('P' or 'S'), 0, 0, 0, lane u32` (little endian). Behind it, publishers send NexusD
//! message frames, and subscribers receive them.

use std::io::{Read, Write};

use super::native::NativeFraming;
use super::{FramingError, HandshakeError, Introduction};
use crate::connection::{Connection, Handshake};

/// Bytes of a greeting.
pub(crate) const GREETING_BYTES: usize = 8;
/// Lanes a server has room for.
pub(crate) const LANES_MAX: u32 = 1_024;

/// Which end of a lane a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Sends messages.
    Publisher,
    /// Receives all messages of its lane.
    Subscriber,
}

/// A connection's introduction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Greeting {
    /// Which end.
    pub(crate) role: Role,
    /// Of which lane.
    pub(crate) lane: u32,
}

impl Greeting {
    /// The bytes on the wire.
    pub(crate) fn encode(self) -> [u8; GREETING_BYTES] {
        let role = match self.role {
            Role::Publisher => b'P',
            Role::Subscriber => b'S',
        };
        let [a, b, c, d] = self.lane.to_le_bytes();
        [role, 0, 0, 0, a, b, c, d]
    }

    /// Reads a greeting; `None` for bytes that are none.
    pub(crate) fn decode(bytes: [u8; GREETING_BYTES]) -> Option<Self> {
        let [role, 0, 0, 0, a, b, c, d] = bytes else {
            return None;
        };
        let role = match role {
            b'P' => Role::Publisher,
            b'S' => Role::Subscriber,
            _ => return None,
        };
        let lane = u32::from_le_bytes([a, b, c, d]);
        (lane < LANES_MAX).then_some(Self { role, lane })
    }
}

/// Introduces a connection and waits for the server's answer.
pub(super) fn introduce(
    connection: &Connection,
    role: Role,
    introduction: &Introduction<'_>,
) -> Result<NativeFraming, HandshakeError> {
    let greeting = Greeting { role, lane: introduction.lane }.encode();
    let mut handshake = Handshake::on(connection);
    handshake.write_all(&greeting)?;
    let mut answer = [0; GREETING_BYTES];
    handshake.read_exact(&mut answer)?;
    if answer != greeting {
        return Err(FramingError::Malformed("it does not return the greeting".into()).into());
    }
    Ok(NativeFraming::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_reads_back_what_was_written() {
        for role in [Role::Publisher, Role::Subscriber] {
            let greeting = Greeting { role, lane: 7 };
            assert_eq!(Greeting::decode(greeting.encode()), Some(greeting));
        }
    }

    #[test]
    fn what_is_no_greeting_is_refused() {
        assert_eq!(Greeting::decode(*b"GET / HT"), None);
        assert_eq!(Greeting::decode([b'P', 1, 0, 0, 0, 0, 0, 0]), None);
        let too_far = [b'P', 0, 0, 0, 0, 0, 0, 0xFF];
        assert_eq!(Greeting::decode(too_far), None);
    }
}
