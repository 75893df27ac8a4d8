//! What a client did that ends its connection, and where in its stream: an Error frame tells both.

use nexusd_wire::control::ErrorCode;
use nexusd_wire::{DecodeError, Frame, FrameKind};

/// Why a connection is ended by the shard.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    /// Stream position and kind of the frame at fault.
    pub(super) at: Option<(u64, FrameKind)>,
}

impl Violation {
    /// A breach of the protocol that no frame stands for.
    pub(super) fn protocol(message: &str) -> Self {
        Self { code: ErrorCode::Protocol, message: message.to_string(), at: None }
    }

    /// A breach of the protocol by a frame.
    pub(super) fn by(frame: &Frame<'_>, message: &str) -> Self {
        Self { at: Some((frame.at(), frame.kind())), ..Self::protocol(message) }
    }

    /// The same, by a frame whose header was in order: its kind can be named.
    pub(super) fn of(mut self, kind: FrameKind) -> Self {
        if let Some((_, at_fault)) = &mut self.at {
            *at_fault = kind;
        }
        self
    }
}

impl From<DecodeError> for Violation {
    fn from(error: DecodeError) -> Self {
        // Of a header that is wrong the kind cannot be trusted.
        let at = Some((error.at(), FrameKind(0)));
        Self { code: ErrorCode::Malformed, message: error.to_string(), at }
    }
}
