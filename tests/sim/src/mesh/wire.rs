//! A connection as the network sees it: two ordered streams of bytes, each with what is under way and what
//! has arrived and nobody has read.
//!
//! A stream holds no more than its capacity: what its writer was told is taken and its reader has not
//! acknowledged. An acknowledgement travels against the stream, so that a netsplit one way stops both.

use std::collections::VecDeque;

/// Who is at one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// A node, by its host and the number of its start there.
    Node {
        /// The host.
        host: usize,
        /// Counts the host's nodes.
        start: u32,
    },
    /// A client of that node.
    Client {
        /// The host.
        host: usize,
        /// Counts the host's nodes.
        start: u32,
        /// Which of its clients.
        client: usize,
    },
}

impl Party {
    /// The host that it is on.
    pub fn host(self) -> usize {
        match self {
            Self::Node { host, .. } | Self::Client { host, .. } => host,
        }
    }
}

/// A connection, by number; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WireId(pub u64);

/// What arrives in one piece.
#[derive(Debug)]
pub enum Segment {
    /// Bytes.
    Bytes(Vec<u8>),
    /// The writer closed its end.
    End,
    /// The connection is no more.
    Reset,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Stream {
    /// What is under way, and when it arrives.
    pub under_way: VecDeque<(u64, Segment)>,
    /// What has arrived.
    pub arrived: VecDeque<u8>,
    /// Nothing comes behind that.
    pub has_ended: bool,
    /// The connection is known to be no more.
    pub is_reset: bool,
    /// Bytes that count against the capacity.
    pub held: usize,
    /// Bytes read whose acknowledgement is stuck.
    pub stuck: usize,
    /// When its bytes were written.
    pub times: Times,
}

/// When the bytes of a stream were written.
#[derive(Debug, Default)]
pub struct Times {
    /// Bytes written by then, and when.
    writes: VecDeque<(u64, u64)>,
    written: u64,
}

impl Times {
    /// So many bytes are written now.
    pub fn note(&mut self, bytes: usize, now_us: u64) {
        self.written += bytes as u64;
        self.writes.push_back((self.written, now_us));
    }

    /// When the byte at a place of the stream was written; what stands before is asked for no more.
    pub fn of(&mut self, at: u64) -> u64 {
        while self.writes.front().is_some_and(|(end, _)| *end <= at) {
            self.writes.pop_front();
        }
        self.writes.front().map_or(0, |(_, us)| *us)
    }
}

/// Both, and who is at the ends. Stream `at` comes from end `at`.
#[derive(Debug)]
pub struct Wire {
    /// Who is there.
    pub ends: [Party; 2],
    /// What they say.
    pub streams: [Stream; 2],
    /// Bytes that each stream holds.
    pub capacity: usize,
    /// Since when an end is closed.
    pub closed_at_us: [Option<u64>; 2],
}

impl Wire {
    /// One that was just made.
    pub fn new(ends: [Party; 2], capacity: usize) -> Self {
        Self { ends, streams: Default::default(), capacity, closed_at_us: [None; 2] }
    }

    /// Bytes that an end may write.
    pub fn room(&self, end: usize) -> usize {
        self.capacity.saturating_sub(self.streams[end].held)
    }

    /// Bytes that an end may read.
    pub fn readable(&self, end: usize) -> usize {
        self.streams[1 - end].arrived.len()
    }

    /// Whether an end has read all that it will ever get.
    pub fn is_over(&self, end: usize) -> bool {
        let stream = &self.streams[1 - end];
        stream.arrived.is_empty() && (stream.has_ended || stream.is_reset)
    }
}
