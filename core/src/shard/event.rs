//! What a shard is told: everything that enters it comes as one of these.

use std::net::SocketAddr;

use nexusd_wire::NodeId;

use crate::inspection::Request;
use crate::link::LinkCommand;

/// The time an event happened at, given by the driver and the same for all events of one loop turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Now {
    /// Microseconds since an arbitrary start; never goes back. All deadlines are in this time.
    pub mono_us: u64,
    /// Microseconds since 1970 by the wall clock; may jump. Only stamped into messages.
    pub wall_us: u64,
}

/// A connection, as numbered by its driver: a dense index that is reused, and a generation that
/// tells its users apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId {
    /// Slot in the driver's table; reused after [`Event::Closed`].
    pub index: u32,
    /// Counts the users of the slot.
    pub generation: u32,
}

/// Where a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerAddress {
    /// TCP, over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// The unix socket.
    Unix,
}

/// Which way a connection came in: it says who may be at its other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Door {
    /// The listeners for applications.
    #[default]
    Apps,
    /// The daemon's own edge, for an application that speaks another protocol.
    Edge,
    /// The listeners for other nodes.
    Mesh,
    /// This node dialled another one.
    Dialled {
        /// The number of the attempt, for whoever asked for it.
        dial: u64,
        /// The node that should be there, if that is known.
        peer: Option<NodeId>,
    },
}

/// Why a connection ended, for counters and logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The peer closed its end.
    EndOfStream,
    /// The socket failed; the error number.
    Failed(i32),
    /// The shard asked for it.
    Asked,
    /// It goes on elsewhere, which the shard asked for by [`super::output::Output::Move`].
    Moved,
}

/// What other threads ask of a shard, through its mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Publish a message of the daemon's own, such as `$SYS/…`. Ignored if the topic is not well
    /// formed. To be asked of the shard that owns the topic ([`crate::shard::routing::owner_of`]).
    Publish {
        /// Full topic name; system topics are allowed here.
        topic: Box<str>,
        /// The payload.
        payload: Box<[u8]>,
    },
    /// Answer with [`super::output::Report::Metrics`]: for the daemon's own statistics, which want those of all shards
    /// together and nothing else. Whoever else asks does so by `Inspect`.
    Sample,
    /// Answer with [`super::output::Report::Answer`].
    Inspect {
        /// Tells the answer apart.
        number: u64,
        /// What is asked.
        request: Box<Request>,
    },
    /// Something about a link. To be asked of the shard that keeps it
    /// ([`crate::shard::routing::home_of_node`]).
    Link(LinkCommand),
    /// Stop: accept nothing more, say Goodbye, flush subscribers until the deadline
    /// (`Now::mono_us`), close, and finish.
    Drain {
        /// When to give up flushing.
        deadline_us: u64,
    },
}

/// One thing that happened.
///
/// Contract between driver and shard, per connection: `Opened` first, `Closed` exactly once and
/// last. Between a `Output::Send` and its `Sent` no second send is asked for.
#[derive(Debug)]
pub enum Event<'a> {
    /// A listener accepted a connection.
    Opened {
        /// Its id from now on.
        connection: ConnectionId,
        /// Where it comes from.
        peer: PeerAddress,
        /// Which way it came in.
        door: Door,
        /// It comes from another shard of the node, which has admitted it. What that one was told of
        /// its stream follows as `Received`.
        is_moved: bool,
    },
    /// Bytes arrived. They are lent for the call alone.
    Received {
        /// From this connection.
        connection: ConnectionId,
        /// The next bytes of its stream.
        bytes: &'a [u8],
    },
    /// Bytes arrived straight in the memory that [`crate::Service::landing_zone`] lent.
    Landed {
        /// From this connection.
        connection: ConnectionId,
        /// How many, from the start of the zone.
        bytes: usize,
    },
    /// The send asked for by [`super::output::Output::Send`] ended: the socket took the first
    /// `bytes` of what was gathered. The memory of the gathered slices is the shard's again.
    Sent {
        /// On this connection.
        connection: ConnectionId,
        /// Bytes taken, possibly 0.
        bytes: usize,
        /// The socket would take no more: `Writable` follows when it does.
        blocked: bool,
    },
    /// A socket that was `blocked` takes bytes again.
    Writable {
        /// This connection.
        connection: ConnectionId,
    },
    /// The connection is gone and nothing of the shard's memory is in use for it.
    Closed {
        /// This connection.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Another thread asks for something.
    Command(Command),
    /// Other shards have sent something ([`crate::Service::has_mail`]).
    Inbox,
    /// Nothing happened, but the time [`crate::Service::wake_at`] asked for has come.
    Tick,
}
