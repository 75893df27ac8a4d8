//! What discovery wants done.

use std::net::SocketAddr;

use nexusd_wire::NodeId;

use crate::event::SeedId;
use crate::notice::Notice;

/// Something to do; see [`Discovery::poll_output`](crate::Discovery::poll_output).
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Send this datagram to the multicast group, on every interface.
    Multicast(Vec<u8>),
    /// Send this datagram to a node's mesh port.
    Unicast {
        /// The node's mesh address: UDP port and TCP port have the same number.
        to: SocketAddr,
        /// The datagram.
        datagram: Vec<u8>,
    },
    /// Resolve a name; the answer is [`Event::Resolved`](crate::Event::Resolved) or
    /// [`Event::ResolveFailed`](crate::Event::ResolveFailed).
    Resolve {
        /// Whose name it is.
        seed: SeedId,
        /// `HOST:PORT` as written.
        name: String,
    },
    /// Connect, and hand the connection to the data plane. The answer is
    /// [`Event::DialFailed`](crate::Event::DialFailed), or what becomes of the link.
    Dial {
        /// Names this dial in the answer.
        dial: u64,
        /// Where to.
        address: SocketAddr,
        /// Who should be there, if that is known.
        peer: Option<NodeId>,
    },
    /// Send whole control frames over the link to a peer.
    Send {
        /// The peer.
        peer: NodeId,
        /// The frames.
        frames: Vec<u8>,
    },
    /// The peer is dead: its link closes, its routes and its queue go.
    Forget {
        /// The peer.
        peer: NodeId,
    },
    /// The peer is no more, another start is where it was: its routes and its queue go, and its link closes
    /// behind what is under way.
    Retire {
        /// The peer.
        peer: NodeId,
    },
    /// Compare all retained values with a peer: the digests differ.
    CompareRetained {
        /// The peer.
        peer: NodeId,
    },
    /// Close the link: neither side wants anything of the other.
    CloseIdle {
        /// The peer.
        peer: NodeId,
    },
    /// Tell an operator.
    Notice(Notice),
}
