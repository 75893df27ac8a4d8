//! What a subscriber asks to happen when its queue is full, as it stands on a command line.

use clap::ValueEnum;
use nexusd_wire::control::OverflowPolicy;

/// An overflow policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Policy {
    /// The oldest messages make room.
    DropOldest,
    /// The newest message is not queued.
    DropNewest,
    /// Publishers are held back.
    Block,
    /// The subscriber is disconnected.
    Disconnect,
}

impl Policy {
    /// The name as given on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DropOldest => "drop-oldest",
            Self::DropNewest => "drop-newest",
            Self::Block => "block",
            Self::Disconnect => "disconnect",
        }
    }

    /// As it stands in a Subscribe.
    pub(crate) fn on_the_wire(self) -> OverflowPolicy {
        match self {
            Self::DropOldest => OverflowPolicy::DropOldest,
            Self::DropNewest => OverflowPolicy::DropNewest,
            Self::Block => OverflowPolicy::Block,
            Self::Disconnect => OverflowPolicy::Disconnect,
        }
    }
}
