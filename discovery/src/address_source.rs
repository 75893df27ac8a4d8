//! Where nodes may be found, for who has to go and look: what a source of addresses wants done, and how
//! it learns what came of it.
//!
//! Beacons and members come by themselves and are peers at once. The addresses of a source are only a
//! promise: somebody may be there, of this cluster or not. It says what it wants by and by
//! ([`AddressSource::take_wish`]); who dials decides when, and answers each dial with an
//! [`Outcome`].

use std::net::SocketAddr;

use nexusd_wire::NodeId;

use crate::event::SeedId;
use crate::notice::Notice;

/// Who wants a dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// `--peers`.
    Seed(SeedId),
    /// Nodes that were lost.
    Absent,
}

/// What a source wants done.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Wish {
    Resolve { seed: SeedId, name: String },
    Dial { origin: Origin, address: SocketAddr },
    Tell(Notice),
}

/// What came of a dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome<'a> {
    /// This peer is there and linked.
    Linked(NodeId),
    /// This node itself is there.
    OwnNode,
    /// Nobody listens there.
    Nobody,
    /// Nobody can be reached there, or nobody to be linked to.
    Failed(&'a str),
    /// The address is being dialled already.
    Busy,
}

/// A source of addresses.
pub(crate) trait AddressSource {
    /// What it wants now; called until that is nothing.
    fn take_wish(&mut self, now_us: u64, dice: &mut fastrand::Rng) -> Option<Wish>;

    /// The answer to [`Wish::Dial`].
    fn on_dialled(
        &mut self,
        origin: Origin,
        address: SocketAddr,
        outcome: Outcome<'_>,
        now_us: u64,
        dice: &mut fastrand::Rng,
    );

    /// When it next wants something.
    fn wake_at(&self) -> Option<u64>;
}
