//! The contract between a state machine and the loop that drives it, and that loop.
//!
//! A [`Service`] is the state machine: the [`crate::Shard`], or the load generator's relay. A
//! [`Driver`] is its surroundings: io_uring, epoll, or the simulator's network. [`run`] joins them:
//! wait → events in → outputs out, bounded per turn so that no connection starves another.

use crate::limits::SENDS_PER_TURN;
use crate::shard::event::{ConnectionId, Event, Now};
use crate::shard::handover::Handover;
use crate::shard::output::Output;
use crate::shard::routing::ShardIndex;

/// A state machine that a driver can drive. Nothing in it blocks.
pub trait Service {
    /// Takes one event.
    fn on_event(&mut self, now: Now, event: Event<'_>);

    /// The next thing to do, until `None`. The order is the order to do them in.
    fn poll_output(&mut self) -> Option<Output>;

    /// Lends what this connection sends next to `take`, slice by slice: at most
    /// [`crate::limits::IOVECS_PER_SEND`] slices and about [`crate::limits::BYTES_PER_SEND`] bytes.
    /// Called once per [`Output::Send`]. The slices stay in place and unchanged, whatever else
    /// happens, until [`Event::Sent`] or [`Event::Closed`] of this connection. No slice means there
    /// is nothing to send after all: the driver answers with `Sent` of 0 bytes at once.
    fn gather(&mut self, connection: ConnectionId, take: &mut dyn FnMut(&[u8]));

    /// The memory the rest of a large frame of this connection goes to; `None` once it is complete
    /// or the connection is closing. Stays in place until `Landed` or `Closed`.
    fn landing_zone(&mut self, connection: ConnectionId) -> Option<&mut [u8]>;

    /// Whether other shards have sent something: [`Event::Inbox`] is due. Asked each turn, and once
    /// more before the loop sleeps.
    fn has_mail(&self) -> bool {
        false
    }

    /// Where a connection that was just accepted is to live; asked once for each.
    fn place(&mut self) -> ShardIndex {
        ShardIndex::default()
    }

    /// What goes to another shard with a connection that moves; asked once, right before its
    /// [`Event::Closed`]. `None` if it does not move.
    fn hand_over(&mut self, _connection: ConnectionId) -> Option<Handover> {
        None
    }

    /// When [`Event::Tick`] is due, in `Now::mono_us`.
    fn wake_at(&self) -> Option<u64>;

    /// Nothing is left to do: the loop ends.
    fn is_finished(&self) -> bool;
}

/// How long [`Driver::wait`] may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Park {
    /// Not at all: the service has more outputs to give.
    Never,
    /// Until something happens, or this time (`Now::mono_us`) has come.
    Until(Option<u64>),
}

/// The surroundings of a service.
pub trait Driver {
    /// Why a driver stops for good.
    type Error;

    /// Submits what was asked for, waits as `park` allows, and feeds everything that happened to
    /// `service`; `Event::Tick` when the time has come.
    fn wait(&mut self, service: &mut impl Service, park: Park) -> Result<(), Self::Error>;

    /// Begins to carry out one output.
    fn apply(&mut self, service: &mut impl Service, output: Output);

    /// Goes on for the connections that were closed last, until their peers have had the last frames
    /// or it is time to end: for a service that is finished. Nobody's commands are taken any more.
    /// Surroundings in which nothing is lost at the end have nothing to do.
    fn finish(&mut self, _service: &mut impl Service) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Drives `service` until it is finished.
pub fn run<D: Driver>(driver: &mut D, service: &mut impl Service) -> Result<(), D::Error> {
    let mut park = Park::Until(service.wake_at());
    while !service.is_finished() {
        driver.wait(service, park)?;
        park = drain_outputs(driver, service);
    }
    Ok(())
}

/// Carries out outputs until none is left, or more than [`SENDS_PER_TURN`] of them were sends, and says
/// whether the driver may park: only in the first case.
pub fn drain_outputs<D: Driver>(driver: &mut D, service: &mut impl Service) -> Park {
    let mut sends = 0;
    while let Some(output) = service.poll_output() {
        sends += usize::from(matches!(output, Output::Send(_)));
        driver.apply(service, output);
        if sends > SENDS_PER_TURN {
            return Park::Never;
        }
    }
    Park::Until(service.wake_at())
}
