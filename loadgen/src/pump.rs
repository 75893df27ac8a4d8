//! The pump: what a publisher sends is sent to its lane's subscribers, unread.
//!
//! The least that any server on this ring can do: one receive, one copy out of the receive buffer,
//! one send. It states how fast the ring and the load generator are.

use nexusd_wire::DecodeError;

use crate::forwarder::{Copying, Forwarder, Subscribers};

/// The pump as a service.
pub(crate) type Pump = Forwarder<Unread>;

/// Copies chunks as they come.
pub(crate) struct Unread;

impl Copying for Unread {
    type Stream = ();

    fn stream() {}

    #[inline]
    fn copy(
        _stream: &mut (),
        bytes: &[u8],
        subscribers: &mut Subscribers<'_>,
    ) -> Result<(), DecodeError> {
        subscribers.push(bytes);
        Ok(())
    }
}
