//! One connection: what has arrived and is not yet dealt with, and what waits to be sent.
//!
//! Invariants: `control` is only appended to while a send runs; everything a running send reads
//! (`sending`, `inline`, the plan's extents) stays as it is until the send ends; after a short send
//! the stream goes on exactly where it was cut (`sent` in `sending`, or `cut_queue`).

use std::collections::VecDeque;

use nexusd_wire::control::DeliveryMode;
use nexusd_wire::{FrameCutter, Header};

use crate::limits::BUFFER_BYTES_KEPT;
use crate::log::SegmentId;
use crate::session::{Session, SessionState};
use crate::shard::event::{ConnectionId, Door, PeerAddress};
use crate::subscriber_queue::QueueId;

/// A large frame that is being received.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Landing {
    /// It goes to the log.
    Segment { segment: SegmentId, filled: usize, stride: usize },
    /// It was refused; its rest is thrown away. One of a link is lost behind that, not before it is sent: should
    /// the link break amid it, it comes again.
    Discard { remaining: usize, lost: Option<Header> },
}

/// What the messages that come next on the wire are: whose, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OpenRun {
    pub(crate) queue: QueueId,
    pub(crate) mode: DeliveryMode,
}

/// What one slice of a running send is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Piece {
    /// Bytes of `sending`.
    Control { bytes: u32 },
    /// The Deliver frame that opens this run, in `inline`.
    Deliver { run: OpenRun, start: u32, bytes: u32 },
    /// A warning to the client of `queue`, in `inline`.
    Warning { queue: QueueId, start: u32, bytes: u32 },
    /// A bind or gap from the front of `queue`, in `inline`.
    Marker { queue: QueueId, start: u32, bytes: u32 },
    /// Messages from the front of `queue`.
    Extent { queue: QueueId, segment: SegmentId, start: u32, bytes: u32, messages: u32 },
}

impl Piece {
    pub(crate) fn bytes(&self) -> u32 {
        match self {
            Self::Control { bytes }
            | Self::Deliver { bytes, .. }
            | Self::Warning { bytes, .. }
            | Self::Marker { bytes, .. }
            | Self::Extent { bytes, .. } => *bytes,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) cutter: FrameCutter,
    /// Bytes that arrived while the connection was not to be read.
    pub(crate) backlog: Vec<u8>,
    pub(crate) landing: Option<Landing>,
    /// What arrives is not dealt with, but kept in the backlog.
    pub(crate) is_paused: bool,
    /// The driver was told to receive no more. It stays so until all of the backlog is dealt with, or
    /// whoever pauses again and again would be received further each time.
    pub(crate) is_stopped: bool,
}

impl Inbound {
    /// Gives memory back that a long control frame took.
    #[inline]
    pub(crate) fn give_memory_back(&mut self) {
        if self.cutter.stash_capacity() > BUFFER_BYTES_KEPT && self.cutter.stashed() == 0 {
            self.cutter.shrink();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Outbound {
    /// Control frames that wait for the next send.
    pub(crate) control: Vec<u8>,
    /// Control frames of the running (or cut) send, of which the first `sent` bytes are gone.
    pub(crate) sending: Vec<u8>,
    pub(crate) sent: usize,
    /// Frames written for the running send alone: Deliver, binds, gaps.
    pub(crate) inline: Vec<u8>,
    pub(crate) plan: Vec<Piece>,
    /// Queues of this connection with something to send, in turn.
    pub(crate) ready: VecDeque<QueueId>,
    /// How many of `ready` the running send visits.
    pub(crate) visited: usize,
    /// The run that is open on the wire.
    pub(crate) run: Option<OpenRun>,
    /// The queue whose front frame is half on the wire.
    pub(crate) cut_queue: Option<QueueId>,
    /// A send was asked for and has not ended.
    pub(crate) in_flight: bool,
    /// A send waits among the shard's outputs.
    pub(crate) scheduled: bool,
    /// Since when the socket takes no more.
    pub(crate) blocked_since_us: Option<u64>,
}

impl Outbound {
    /// Nothing is left to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.has_nothing_to_send() && !self.in_flight
    }

    /// Nothing waits for a send.
    pub(crate) fn has_nothing_to_send(&self) -> bool {
        self.control_backlog() == 0 && self.ready.is_empty() && self.cut_queue.is_none()
    }

    /// Control bytes the client has not taken yet.
    pub(crate) fn control_backlog(&self) -> usize {
        self.control.len() + self.sending.len() - self.sent
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// Where it comes from.
    pub(crate) peer: PeerAddress,
    pub(crate) session: Session,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    /// The driver was told to close it.
    pub(crate) close_asked: bool,
    /// What its buffers were last counted with, bytes.
    pub(crate) counted_bytes: usize,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        peer: PeerAddress,
        door: Door,
        cutter: FrameCutter,
        now_us: u64,
    ) -> Self {
        Self {
            id,
            peer,
            session: Session::new(door, now_us),
            inbound: Inbound {
                cutter,
                backlog: Vec::new(),
                landing: None,
                is_paused: false,
                is_stopped: false,
            },
            outbound: Outbound {
                control: Vec::new(),
                sending: Vec::new(),
                sent: 0,
                inline: Vec::new(),
                plan: Vec::new(),
                ready: VecDeque::new(),
                visited: 0,
                run: None,
                cut_queue: None,
                in_flight: false,
                scheduled: false,
                blocked_since_us: None,
            },
            close_asked: false,
            counted_bytes: 0,
        }
    }

    /// What waits in its buffers, bytes; nothing any more once it was closed.
    #[inline]
    pub(crate) fn buffered_bytes(&self) -> usize {
        if self.close_asked {
            return 0;
        }
        let Inbound { cutter, backlog, .. } = &self.inbound;
        cutter.stashed() + backlog.len() + self.outbound.control_backlog()
    }

    /// Gives the memory of buffers back that a silent client does not need.
    pub(crate) fn shrink(&mut self) {
        self.inbound.cutter.shrink();
        self.inbound.backlog.shrink_to_fit();
        if !self.outbound.in_flight {
            self.outbound.control.shrink_to_fit();
            self.outbound.sending.shrink_to_fit();
            self.outbound.inline = Vec::new();
            self.outbound.plan.shrink_to_fit();
        }
    }

    /// Checks what must hold between events. For tests and the simulator.
    pub(crate) fn assert_invariants(&self) {
        let outbound = &self.outbound;
        assert!(outbound.in_flight || outbound.plan.is_empty(), "a plan belongs to a running send");
        assert!(
            outbound.in_flight
                || outbound.scheduled
                || outbound.blocked_since_us.is_some()
                || self.close_asked
                || outbound.is_empty(),
            "what waits is being sent, or cannot be"
        );
        let is_moving = matches!(self.session.state, SessionState::Moving);
        assert!(
            !is_moving || self.inbound.is_paused && outbound.is_empty(),
            "nothing is said or dealt with on a connection that moves"
        );
    }
}
