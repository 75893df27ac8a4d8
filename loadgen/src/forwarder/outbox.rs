//! What waits to be sent on one connection: two buffers, one being sent and one being filled.
//!
//! Invariant: the buffer being sent changes only when no send is in flight, so what was lent to the
//! driver stays in place.

/// Bytes of one send: with more or with less, pump and relay are slower.
const SEND_BYTES_MAX: usize = 320 << 10;

/// The bytes of one connection, and whether its socket takes them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    sending: Vec<u8>,
    /// Bytes of `sending` that the socket has taken.
    sent: usize,
    filling: Vec<u8>,
    state: SendState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum SendState {
    /// Nothing is under way.
    #[default]
    Idle,
    /// A send was asked for and has not ended.
    Busy,
    /// The socket is full.
    Blocked,
}

impl Outbox {
    /// Appends bytes.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.filling.extend_from_slice(bytes);
    }

    /// Bytes that the socket has not taken.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.sending.len() - self.sent + self.filling.len()
    }

    /// Whether a send should be asked for.
    #[inline]
    pub(super) fn wants_send(&self) -> bool {
        self.state == SendState::Idle && self.waiting() > 0
    }

    /// A send was asked for.
    #[inline]
    pub(super) fn on_send_asked(&mut self) {
        self.state = SendState::Busy;
    }

    /// What to send now. Stays in place until [`Self::on_sent`].
    #[inline]
    pub(super) fn next_send(&mut self) -> &[u8] {
        if self.sent == self.sending.len() {
            self.sending.clear();
            self.sent = 0;
            std::mem::swap(&mut self.sending, &mut self.filling);
        }
        let end = self.sending.len().min(self.sent + SEND_BYTES_MAX);
        &self.sending[self.sent..end]
    }

    /// The send ended: the socket took `bytes`, and takes no more if `blocked`.
    #[inline]
    pub(super) fn on_sent(&mut self, bytes: usize, blocked: bool) {
        self.sent = (self.sent + bytes).min(self.sending.len());
        self.state = if blocked { SendState::Blocked } else { SendState::Idle };
    }

    /// The socket takes bytes again.
    pub(super) fn on_writable(&mut self) {
        if self.state == SendState::Blocked {
            self.state = SendState::Idle;
        }
    }
}
