//! What shards tell each other: items, in order, many to a parcel.
//!
//! One parcel a turn goes to each shard there is something for. What is between two shards at a time
//! is bounded: batches and large messages by credit, runs by the log they lie in, what clients ask for
//! by not reading them further, all else by the connections and subscriptions that it is about.

use std::sync::Arc;

use nexusd_wire::{Header, NodeId, Sequence, SubscriptionId, TopicId};

use crate::limits::{ADOPTED_BYTES_MIN, BATCH_BYTES, LINES_AHEAD_BYTES};
use crate::link::{FetchId, Origin, Relay};
use crate::log::{Extent, Log, Memory, PREFETCHED_BYTES, SegmentId, Sole};
use crate::owed_acks::{AckPart, AckRange};
use crate::retained::Digest;
use crate::shard::answering::{Answer, Asked};
use crate::shard::asking::Wanted;
use crate::shard::event::ConnectionId;
use crate::shard::gate::Outcome;
use crate::shard::losing::LossId;
use crate::shard::publish::accepted_header;
use crate::shard::recovery::{Range, Recovered};
use crate::shard::relay::relayed_header;
use crate::shard::replay::WantedTopic;
use crate::shard::retained::{ScanId, WantedValues};
use crate::shard::routing::PublisherId;
use crate::subscriber_queue::{QueueId, ReplayComplete};

/// What is sent at once.
pub(crate) type Parcel = Vec<Item>;

/// A topic of the receiver's, as numbered by the sender, who publishes to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TopicHandle(pub(crate) u32);

/// One thing that a shard tells another.
#[derive(Debug)]
pub(crate) enum Item {
    // A publisher's shard to the owner of its topic, and back.
    /// The handle stands for the topic of this name from now on.
    OpenTopic { handle: TopicHandle, name: Box<str> },
    /// What the owner calls the topic, and the number of its newest message; `None` if there is no room
    /// for it.
    TopicOpened { handle: TopicHandle, topic: Option<(TopicId, Sequence)> },
    /// The handle is free again.
    CloseTopic { handle: TopicHandle },
    /// Messages to publish.
    Publish(Box<Batch>),
    /// The batch was published; it may be filled again.
    Credit(Box<Batch>),
    /// A large message to publish.
    PublishLarge(Box<LargeMessage>),
    /// Messages of another node for the topic of this handle are lost.
    LoseOnLink { handle: TopicHandle, messages: u64 },
    /// Messages of another node may be lost, nobody knows of which topics.
    LoseUnknown { loss: LossId },
    /// The owner keeps a large message of so many bytes, or gave it up.
    LargeTaken { bytes: usize },
    /// A message was refused that asked for no acknowledgement.
    Refused { connection: ConnectionId, offset: u64 },

    // A subscriber's shard to all owners, and back.
    /// Messages of topics that match are wanted, or no longer.
    Interest { filter: Box<str>, is_wanted: bool },
    /// Asks for `Confirmed`: what was said before is then known; and for what is held of some topics.
    Confirm {
        queue: QueueId,
        created_at: u64,
        subscription: SubscriptionId,
        wanted: Vec<WantedTopic>,
    },
    /// Retained values of topics that match are wanted, when they are asked for.
    ScanRetained { scan: ScanId, wanted: WantedValues },
    /// The sums of all retained values are wanted, to compare them with a peer's.
    DigestWanted { peer: NodeId },
    /// The answer.
    Digest { peer: NodeId, digest: Box<Digest> },
    /// Now, some of them.
    MoreRetained { scan: ScanId },
    /// That were some, or the last ones.
    RetainedStep { scan: ScanId, is_done: bool },
    /// Nobody wants them any more.
    EndScan { subscription: SubscriptionId },
    /// Messages that a queue of the sender lost are wanted.
    Recover { queue: QueueId, subscription: SubscriptionId, ranges: Vec<Range> },
    /// The answer: what is held of them.
    Recovered { queue: QueueId, subscription: SubscriptionId, recovered: Vec<Recovered> },
    /// What the sender holds of a topic: ahead of its `Confirmed`, or a retained value.
    Replay(Box<Replay>),
    /// The answer.
    Confirmed { queue: QueueId, created_at: u64 },
    /// Other nodes are to be asked.
    Fetch { fetch: FetchId, wanted: Wanted },
    /// These were asked, and at first there were no others.
    FetchAsked { fetch: FetchId, peers: Vec<NodeId>, is_first: bool },
    /// One begins to answer, and does not hold all of it.
    FetchPartial { fetch: FetchId, peer: NodeId },
    /// One has answered, or is gone.
    FetchAnswered { fetch: FetchId, peer: NodeId, has_answered: bool },
    /// No more is wanted.
    EndFetch { fetch: FetchId },
    /// Ahead of `Confirmed`: what other nodes send of the topic is not for the queue yet.
    FetchBegins { queue: QueueId, subscription: SubscriptionId, topic: TopicId },
    /// What one sends from now on is.
    FetchedFrom {
        queue: QueueId,
        subscription: SubscriptionId,
        topic: TopicId,
        origin: Origin,
        complete: Option<ReplayComplete>,
    },
    /// An answer is cut short.
    FetchCut { queue: QueueId, subscription: SubscriptionId },
    /// All of them are heard.
    FetchEnds { queue: QueueId, subscription: SubscriptionId, topic: TopicId, outcome: Outcome },
    /// A peer asks for what is held of a topic.
    Answer { queue: QueueId, subscription: SubscriptionId, asked: Asked },
    /// The filters of a peer that were told before are known: asks for `Known`.
    Know { peer: NodeId, request: u64 },
    /// The answer.
    Known { peer: NodeId, request: u64 },
    /// A peer is to get what was accepted before it told what it wants, which is this.
    EarlyMessages { queue: QueueId, subscription: SubscriptionId, filters: Arc<[Box<str>]> },
    /// That was all of it.
    EarlyMessagesEnd { queue: QueueId, subscription: SubscriptionId },

    // An owner to the shards of its topics' subscribers, and back.
    /// The name of a topic, before its first run.
    Name { topic: TopicId, name: Box<str> },
    /// The topic is forgotten, its id may be used for another one.
    Forget { topic: TopicId },
    /// Messages for the subscribers of their topics.
    Run(LentRun),
    /// Messages of the topic are lost, the first of which would have had this number.
    Lost { topic: TopicId, first: Sequence, messages: u64 },
    /// Messages of the sender's topics may be lost, nobody knows of which.
    UnknownLost { loss: LossId },
    /// Runs of the segment that are done with.
    Return { segment: SegmentId, runs: u32 },
    /// The segment is wanted back.
    Recall { segment: SegmentId },
    /// The answer: it was given back, or cannot be for now.
    Recalled,

    // Any shard to a publisher's.
    /// What became of an acknowledged message.
    Ack { connection: ConnectionId, part: AckPart },
    /// A full queue of the sender's holds the publisher back.
    Hold { connection: ConnectionId, queue: QueueId },
    /// It does so no longer.
    Release { connection: ConnectionId, queue: QueueId },

    // Everybody to everybody.
    /// A drain has come so far (`shard/drain.rs`).
    DrainRound(u8),
}

impl Item {
    /// What it counts for in what clients have asked of another shard; all else is bounded otherwise.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::OpenTopic { .. } | Self::CloseTopic { .. } | Self::Interest { .. } => 1,
            Self::Confirm { wanted, .. } => 1 + wanted.len(),
            Self::ScanRetained { wanted: WantedValues::Matching(filters), .. } => 1 + filters.len(),
            Self::Recover { ranges, .. } => 1 + ranges.len(),
            _ => 0,
        }
    }
}

/// Messages that lie in the sender's log.
#[derive(Debug)]
pub(crate) struct LentRun {
    /// Where, in the sender's log.
    pub(crate) extent: Extent,
    pub(crate) memory: Memory,
    pub(crate) publisher: Option<PublisherId>,
    /// The other node that they come from.
    pub(crate) origin: Option<Origin>,
    /// It is a retained value of this node's, which all nodes get.
    pub(crate) is_state: bool,
    /// So many of its last messages are acknowledged: all, or one.
    pub(crate) acks: Option<AckRange>,
}

impl LentRun {
    /// Messages for one queue, which was chosen already.
    pub(crate) fn addressed(extent: Extent, memory: Memory) -> Self {
        Self { extent, memory, publisher: None, origin: None, is_state: false, acks: None }
    }
}

/// What an owner holds of a topic, for one queue of the receiver's.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) queue: QueueId,
    pub(crate) subscription: SubscriptionId,
    pub(crate) topic: TopicId,
    /// The first and the last message that are not held any more.
    pub(crate) lost: Option<(Sequence, Sequence)>,
    /// More may be lost, nobody knows how much.
    pub(crate) is_unknown: bool,
    /// Messages; of a retained value none, if there was no memory for it.
    pub(crate) runs: Vec<LentRun>,
    /// The number of the topic's newest message, if that ends its replay; none of a retained value.
    pub(crate) newest: Option<Sequence>,
    /// They answer a peer, over the link whose queue it is.
    pub(crate) answer: Option<Answer>,
}

/// A large message on its way to its topic's owner.
#[derive(Debug)]
pub(crate) struct LargeMessage {
    pub(crate) handle: TopicHandle,
    pub(crate) connection: ConnectionId,
    /// As its publisher wrote it.
    pub(crate) header: Header,
    pub(crate) memory: Memory,
    pub(crate) ack: Option<u64>,
    /// It comes from another node.
    pub(crate) relay: Option<Relay>,
    /// Position of the frame in its publisher's stream.
    pub(crate) offset: u64,
}

/// Messages of a connection in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchRun {
    pub(crate) connection: ConnectionId,
    pub(crate) handle: TopicHandle,
    pub(crate) bytes: u32,
    pub(crate) messages: u32,
    /// Number of the first acknowledgement that the run asks for.
    pub(crate) first_ack: u64,
    /// Position of the first frame in its publisher's stream.
    pub(crate) offset: u64,
    /// Messages that were passed on before it under its handle.
    pub(crate) before: u64,
    /// They come from another node.
    pub(crate) relay: Option<Relay>,
    /// How the messages are numbered already; `None`: they stand there as published.
    pub(crate) expected: Option<Expected>,
}

/// A run's messages stand in their batch as they are to be delivered, if their topic's owner numbers the
/// first of them so: if nobody else has published to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expected {
    pub(crate) topic: TopicId,
    pub(crate) first: Sequence,
}

/// Messages were numbered otherwise than their publisher's shard expected. From now on it counts as if the
/// first message that it ever passed on under the handle had this number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Correction {
    pub(crate) handle: TopicHandle,
    pub(crate) zeroth: u64,
}

/// Messages of several connections on their way to their topics' owner: whole frames.
#[derive(Debug)]
pub(crate) struct Batch {
    memory: Sole,
    /// Bytes written.
    len: usize,
    /// Up to where lines were fetched to be written.
    fetched: usize,
    runs: Vec<BatchRun>,
    /// Some of the messages expire, or become retained values.
    pub(crate) has_special: bool,
    /// For the way back.
    pub(crate) corrections: Vec<Correction>,
    /// How far the owner has come: runs, and bytes.
    runs_done: usize,
    bytes_done: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            memory: Sole::zeroed(BATCH_BYTES),
            len: 0,
            fetched: 0,
            runs: Vec::new(),
            has_special: false,
            corrections: Vec::new(),
            runs_done: 0,
            bytes_done: 0,
        }
    }

    /// Whether so many bytes more are too many for one batch.
    #[inline]
    pub(crate) fn is_full(&self, bytes: usize) -> bool {
        self.len + bytes > self.memory.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the first frame of a run, accepted at `wall_us`. There is room.
    pub(crate) fn begin_run(&mut self, run: BatchRun, frame: &[u8], wall_us: u64) {
        self.runs.push(BatchRun { bytes: 0, messages: 0, ..run });
        let has_room = self.extend(frame, wall_us);
        debug_assert!(has_room, "a batch is begun for a frame that it has no room for");
    }

    /// Adds another frame to the last run; `false` if there is no room.
    #[inline(always)]
    pub(crate) fn extend(&mut self, frame: &[u8], wall_us: u64) -> bool {
        let Some(run) = self.runs.last_mut() else { return false };
        let end = self.len + frame.len();
        let Some(place) = self.memory.bytes_mut(self.len, end) else { return false };
        place.copy_from_slice(frame);
        if let Some(Expected { topic, first }) = run.expected
            && let Some(header) = Header::peek_mut(place)
        {
            let sequence = Sequence(first.0.wrapping_add(u64::from(run.messages)));
            *header = accepted_header(header, topic, sequence, wall_us);
        } else if let Some(relay) = run.relay
            && let Some(header) = Header::peek_mut(place)
        {
            *header = relayed_header(header, relay);
        }
        self.len = end;
        run.bytes += frame.len() as u32;
        run.messages += 1;
        while end + LINES_AHEAD_BYTES > self.fetched {
            self.memory.prefetch_to_write(self.fetched);
            self.fetched += PREFETCHED_BYTES;
        }
        true
    }

    /// The run that is being written.
    pub(crate) fn last_run(&self) -> Option<&BatchRun> {
        self.runs.last()
    }

    /// The run that the owner has come to.
    pub(crate) fn run(&self) -> Option<BatchRun> {
        self.runs.get(self.runs_done).copied()
    }

    /// The bytes that are left of all runs.
    pub(crate) fn rest(&self) -> &[u8] {
        self.memory.bytes(self.bytes_done, self.len).unwrap_or_default()
    }

    /// Whether so much is left that it is better made a segment than copied.
    pub(crate) fn is_worth_adopting(&self) -> bool {
        self.len - self.bytes_done >= ADOPTED_BYTES_MIN && !self.has_special
    }

    /// The runs that are left.
    pub(crate) fn runs(&self) -> &[BatchRun] {
        &self.runs[self.runs_done..]
    }

    /// The memory becomes that of the log's tail, which was just opened; the batch has the tail's
    /// instead, and only the runs are left to be gone through.
    pub(crate) fn give_to(&mut self, log: &mut Log) -> Option<SegmentId> {
        let segment = log.adopt(&mut self.memory, self.bytes_done)?;
        (self.len, self.bytes_done) = (0, 0);
        Some(segment)
    }

    /// The owner has published so many bytes of the run, with so many acknowledgements.
    pub(crate) fn advance(&mut self, bytes: u32, acks: u64) {
        self.bytes_done += bytes as usize;
        if let Some(run) = self.runs.get_mut(self.runs_done) {
            run.bytes -= bytes;
            // What is left is gone through one by one.
            run.expected = None;
            run.offset += u64::from(bytes);
            run.first_ack += acks;
            self.runs_done += usize::from(run.bytes == 0);
        }
    }

    pub(crate) fn clear(&mut self) {
        (self.len, self.fetched, self.has_special) = (0, 0, false);
        self.runs.clear();
        (self.runs_done, self.bytes_done) = (0, 0);
    }
}
