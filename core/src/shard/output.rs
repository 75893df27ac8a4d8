//! What a shard asks of its driver.

use super::event::ConnectionId;
use super::routing::ShardIndex;
use crate::inspection::Reply;
use crate::link::LinkReport;
use crate::metrics::Metrics;

/// One request to the driver, taken with [`crate::Service::poll_output`] and carried out at once.
#[derive(Debug)]
pub enum Output {
    /// Gather this connection's next bytes with [`crate::Service::gather`] and send them without
    /// blocking; the end comes as [`super::event::Event::Sent`].
    Send(ConnectionId),
    /// Close the connection, letting the peer read what was sent; [`super::event::Event::Closed`] follows once a running send has ended.
    Close(ConnectionId),
    /// Receive no more from this connection until told to resume. Bytes already on their way may
    /// still be delivered.
    PauseReceive(ConnectionId),
    /// Receive again.
    ResumeReceive(ConnectionId),
    /// A large frame has begun: receive straight into [`crate::Service::landing_zone`] until it is
    /// full. Bytes already on their way may still come as `Received`; ask for the zone again after
    /// each event.
    ReceiveInPlace(ConnectionId),
    /// Receive no more from this connection, and give it away with what
    /// [`crate::Service::hand_over`] hands over. Nothing was sent on it. What is still received until
    /// then is told; behind it [`super::event::Event::Closed`] follows, with
    /// [`super::event::CloseReason::Moved`] unless it could not be moved.
    Move {
        /// This connection.
        connection: ConnectionId,
        /// Where it goes, which is not this shard.
        to: Destination,
    },
    /// Wake another shard if it sleeps: it has something in its inbox.
    Ring(ShardIndex),
    /// Close the listeners.
    StopAccepting,
    /// Tell the rest of the daemon.
    Report(Report),
}

/// Where a connection goes that a shard gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The shard that keeps what it goes on with.
    Shard(ShardIndex),
    /// The thread that speaks HTTP/2.
    Edge,
}

/// What a shard tells the rest of the daemon, which is never on the path of a message.
#[derive(Debug)]
pub enum Report {
    /// The answer to [`super::event::Command::Sample`].
    Metrics(Box<Metrics>),
    /// A subscription of a client began, or ended, to want what matches this filter.
    Interest {
        /// The filter.
        filter: Box<str>,
        /// Whether it began to.
        is_wanted: bool,
    },
    /// Retained values of the shard changed, and the digest of all by this exclusive or.
    Retained {
        /// What to change it by.
        change: u64,
    },
    /// The answer to [`super::event::Command::Inspect`].
    Answer(Box<Reply>),
    /// What became of a link, or a connection that was to be one.
    Link(LinkReport),
}
