//! Shards whose clients say first where they want to live and how much they will say; whoever has heard
//! that much answers with a sum over it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use nexusd_core::{
    CloseReason, Command, ConnectionId, Destination, Door, Event, Handover, Now, Output,
    PeerAddress, Service, ShardIndex,
};

use super::Gauge;

/// What stands before a client's words: the shard it wants, and their length.
const PREFACE_BYTES: usize = 1 + 4;

/// A client's stream: the preface for `shard`, and `words`.
pub fn stream(shard: u8, words: &[u8]) -> Vec<u8> {
    let mut bytes = vec![shard];
    bytes.extend_from_slice(&(words.len() as u32).to_le_bytes());
    bytes.extend_from_slice(words);
    bytes
}

/// What a client is answered when all of its stream has come.
pub fn answer(stream: &[u8]) -> [u8; 8] {
    let mix = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
    stream.iter().fold(7, mix).to_le_bytes()
}

/// What tests may watch while the loop runs.
#[derive(Default)]
pub struct MovingGauges {
    pub opened: Gauge,
    pub received: Gauge,
    pub closed: Gauge,
    /// Of those closed, the ones that moved.
    pub moved: Gauge,
}

struct Stay {
    peer: PeerAddress,
    is_moved: bool,
    moves: bool,
    stream: Vec<u8>,
    /// The answer, when it is due and while it is lent.
    answer: Option<[u8; 8]>,
}

/// What became of a connection at one shard.
pub struct Stayed {
    pub peer: PeerAddress,
    pub is_moved: bool,
    /// What was received of it and not handed over.
    pub stream: Vec<u8>,
    pub reason: CloseReason,
}

/// One of the shards.
pub struct Moving {
    own: usize,
    pub gauges: Arc<MovingGauges>,
    /// Closes whatever it moves, in the same breath.
    pub regrets: bool,
    /// Those that are gone, in their order.
    pub stayed: Vec<Stayed>,
    /// The highest slot that a connection had.
    pub highest_slot: u32,
    connections: HashMap<ConnectionId, Stay>,
    outputs: VecDeque<Output>,
    finished: bool,
}

impl Moving {
    /// Both of a node.
    pub fn pair() -> [Self; 2] {
        [0, 1].map(|own| Self {
            own,
            gauges: Arc::default(),
            regrets: false,
            stayed: Vec::new(),
            highest_slot: 0,
            connections: HashMap::new(),
            outputs: VecDeque::new(),
            finished: false,
        })
    }

    fn on_received(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let stay = self.connections.get_mut(&connection).expect("an open connection");
        self.gauges.received.add(bytes.len());
        let had = stay.stream.len();
        stay.stream.extend_from_slice(bytes);
        let Some(&[wanted, ref len @ ..]) = stay.stream.first_chunk::<PREFACE_BYTES>() else {
            return;
        };
        if usize::from(wanted) != self.own {
            if had < PREFACE_BYTES {
                stay.moves = true;
                let to = Destination::Shard(ShardIndex::new(wanted.into()));
                self.outputs.push_back(Output::Move { connection, to });
                if self.regrets {
                    self.outputs.push_back(Output::Close(connection));
                }
            }
            return;
        }
        let whole = PREFACE_BYTES + u32::from_le_bytes(*len) as usize;
        assert!(stay.stream.len() <= whole, "more than was said");
        if stay.stream.len() == whole {
            stay.answer = Some(answer(&stay.stream));
            self.outputs.push_back(Output::Send(connection));
        }
    }
}

impl Service for Moving {
    fn on_event(&mut self, _now: Now, event: Event<'_>) {
        match event {
            Event::Opened { connection, peer, is_moved, .. } => {
                let stay = Stay { peer, is_moved, moves: false, stream: Vec::new(), answer: None };
                let before = self.connections.insert(connection, stay);
                assert!(before.is_none(), "opened twice");
                self.highest_slot = self.highest_slot.max(connection.index);
                self.gauges.opened.add(1);
            }
            Event::Received { connection, bytes } => self.on_received(connection, bytes),
            Event::Closed { connection, reason } => {
                let stay = self.connections.remove(&connection).expect("closed once");
                let Stay { peer, is_moved, stream, .. } = stay;
                self.stayed.push(Stayed { peer, is_moved, stream, reason });
                self.gauges.moved.add((reason == CloseReason::Moved).into());
                self.gauges.closed.add(1);
            }
            Event::Command(Command::Drain { .. }) => self.finished = true,
            Event::Sent { .. } | Event::Command(_) | Event::Inbox | Event::Tick => {}
            Event::Writable { .. } | Event::Landed { .. } => panic!("answers are short"),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn gather(&mut self, connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        if let Some(stay) = self.connections.get(&connection) {
            take(stay.answer.as_ref().expect("an answer that is due"));
        }
    }

    fn landing_zone(&mut self, _connection: ConnectionId) -> Option<&mut [u8]> {
        None
    }

    fn hand_over(&mut self, connection: ConnectionId) -> Option<Handover> {
        let stay = self.connections.get_mut(&connection).expect("an open connection");
        assert!(std::mem::take(&mut stay.moves), "asked once, for one that moves");
        Some(Handover {
            peer: stay.peer,
            door: Door::Apps,
            bytes: std::mem::take(&mut stay.stream),
        })
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
