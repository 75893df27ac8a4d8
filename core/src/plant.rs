//! Bugs that can be planted in the shard, to prove that the simulator finds them.
//!
//! Each [`Plant`] names one mistake at one place of the data plane. The place asks
//! `is_planted`; without the feature `plant` that is the constant `false` and the place compiles
//! to what it says without it. With the feature, at most one plant is active per thread.
//! Never compiled into a daemon: only the simulator asks for the feature.

macro_rules! plants {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// One deliberate mistake.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Plant {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Plant {
            /// Every plant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The plant of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|plant| plant.name() == name)
            }

            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

plants! {
    /// A topic's name is not sent before its first message.
    LostBind = "lost-bind",
    /// A gap's last entry ends one message too late.
    GapOffByOne = "gap-off-by-one",
    /// Messages are dropped from a full queue and nobody is told.
    GapMissing = "gap-missing",
    /// A gap is told behind the messages that were kept.
    GapMisplaced = "gap-misplaced",
    /// A full queue is emptied instead of cut to its bounds.
    OverflowDropsAll = "overflow-drops-all",
    /// Overflow drops the frame that is half on the wire.
    PartialFrameDropped = "partial-frame-dropped",
    /// Evacuating a segment leaves one queue's extents behind.
    EvacuationForgetsQueue = "evacuation-forgets-queue",
    /// A run of messages is extended with another topic's.
    RunAcrossTopics = "run-across-topics",
    /// A subscription is made or ended while messages accepted before it wait in an open run.
    RunNotFlushed = "run-not-flushed",
    /// Two messages of a topic get the same number.
    SequenceReused = "sequence-reused",
    /// An ended subscription still gets messages queued.
    UnsubscribeKeepsMatch = "unsubscribe-keeps-match",
    /// A held-back publisher is not told to go on.
    PublisherNeverResumed = "publisher-never-resumed",
    /// One publish is acknowledged twice.
    AckTwice = "ack-twice",
    /// An acknowledgement counts one queue too many.
    AckMiscounts = "ack-miscounts",
    /// After a short send the stream goes on at the wrong byte.
    ShortSendSkips = "short-send-skips",
    /// A run of another subscription is sent without the Deliver that opens it.
    DeliverNotRepeated = "deliver-not-repeated",
    /// The log grows beyond its budget.
    MemoryLimitIgnored = "memory-limit-ignored",
    /// A topic's matching queues are not found anew after a subscription is made.
    StaleMatches = "stale-matches",
    /// Bytes that arrive while a connection is not to be read are lost.
    BacklogLost = "backlog-lost",
    /// A connection that is not read for a while is never read again.
    ReceiveNeverResumed = "receive-never-resumed",
    /// The queues of a connection that ended are kept.
    ClosedQueueKept = "closed-queue-kept",
    /// A segment may be recycled while a running send reads from it.
    SendNotProtected = "send-not-protected",
    /// A full `block` queue drops at once instead of holding its publishers back.
    BlockDropsEarly = "block-drops-early",
    /// A full `block` queue holds its publishers back for ever.
    BlockNeverExpires = "block-never-expires",
    /// A silent client is pinged but never given up.
    SilentClientKept = "silent-client-kept",
    /// A connection that broke the protocol is told so and stays open.
    OffenderKept = "offender-kept",
    /// A large frame's rest is taken to end one step early.
    LandingCutShort = "landing-cut-short",
    /// Draining closes connections without a Goodbye.
    GoodbyeForgotten = "goodbye-forgotten",
    /// Draining closes connections before their queues are sent.
    DrainDropsQueues = "drain-drops-queues",
    /// A forgotten topic's id is used again though connections still know its old name.
    UnbindForgotten = "unbind-forgotten",
    /// A shard that has something in its inbox is not woken.
    DoorbellLost = "doorbell-lost",
    /// A batch that was published does not come back.
    CreditLeaks = "credit-leaks",
    /// The frames of a batch that became a segment count as room for others.
    AdoptedNotClaimed = "adopted-not-claimed",
    /// Numbers that a publisher's shard expected are taken without a look at the topic's.
    ExpectedUnchecked = "expected-unchecked",
    /// A shard keeps what it borrowed of another one's log though nobody wants it any more.
    RunsNotReturned = "runs-not-returned",
    /// A subscription gets an owner's messages before that owner knows it.
    ConfirmedEarly = "confirmed-early",
    /// Of a connection that moves to another shard, what stands behind its Hello is lost.
    MoveLosesBytes = "move-loses-bytes",
    /// A drain does not wait for what is under way between shards.
    DrainRoundsSkipped = "drain-rounds-skipped",
    /// A subscription goes on one message behind the one that its client has had.
    ResumeOffByOne = "resume-off-by-one",
    /// Topics are not named anew to a client that comes back.
    BindNotRepeated = "bind-not-repeated",
    /// Nobody is told where the replay of a topic ends.
    ReplayCompleteMissing = "replay-complete-missing",
    /// A parked subscription waits for ever.
    ParkedNeverExpires = "parked-never-expires",
    /// The old connection of a subscription that somebody goes on with stays open.
    OldConnectionKept = "old-connection-kept",
    /// What a client wants back is put behind a loss that comes later.
    RecoveredOutOfPlace = "recovered-out-of-place",
    /// A client that tells how far it had come misses the next message.
    PositionOffByOne = "position-off-by-one",
    /// A topic's first retained value stays.
    RetainedNotReplaced = "retained-not-replaced",
    /// A retained value comes behind the messages that were published after it.
    RetainedAfterLive = "retained-after-live",
    /// An expired message is delivered all the same.
    ExpiredDelivered = "expired-delivered",
    /// Acknowledgements wait for more of the same connection, and another shard's has the same id.
    AckHeldForAnother = "ack-held-for-another",
    /// A change of what a peer wants is taken to be known, and is not.
    LinkDeltaLost = "link-delta-lost",
    /// After a break a link sends a message once more that the peer has had.
    LinkResumeTwice = "link-resume-twice",
    /// After a break one message more is counted as received than has come.
    LinkCountOffByOne = "link-count-off-by-one",
    /// What came over a link is passed on to other nodes.
    RelayedOn = "relayed-on",
    /// What a peer tells of losses is passed over.
    LinkGapUntold = "link-gap-untold",
    /// Nobody is told what may be lost with a peer that is dead.
    LinkDeathUntold = "link-death-untold",
    /// Of two connections between two nodes each end keeps the one that it saw last.
    SupersededKept = "superseded-kept",
    /// Nobody is told that a dial came to nothing because another connection became the link.
    OvertakenDialUntold = "overtaken-dial-untold",
    /// What a dead peer wanted is still wanted.
    DeadRoutesKept = "dead-routes-kept",
    /// A peer that was suspected is not reported when it is heard again.
    NeverTrusted = "never-trusted",
    /// A shard that had no CPU takes its peers for silent.
    LateTickUnexcused = "late-tick-unexcused",
    /// Peers are not told how many of their messages have come.
    LinkNeverAcked = "link-never-acked",
    /// What a peer may have lost is told of the topics of one shard only.
    LossOfOneShard = "loss-of-one-shard",
    /// A stream of which nothing has come is begun anew after a break.
    LinkBegunAnew = "link-begun-anew",
    /// A link that broke is given up too soon.
    LinkGivenUpEarly = "link-given-up-early",
    /// Two nodes never find out what the other one's retained values are.
    StateNotCompared = "state-not-compared",
    /// Of two retained values the one that comes last stays.
    OlderStateTaken = "older-state-taken",
    /// Messages that other nodes accepted have no number of theirs.
    OriginNumberLost = "origin-number-lost",
    /// What a subscription fetches it gets live as well.
    FetchedTwice = "fetched-twice",
    /// What other nodes do not hold any more nobody is told.
    FetchGapUntold = "fetch-gap-untold",
    /// What was asked for begins one message too late.
    AnswerOffByOne = "answer-off-by-one",
    /// A topic that was asked for does not go on live.
    AskedNotKept = "asked-not-kept",
    /// What comes over a link lives for ever.
    LinkTtlLost = "link-ttl-lost",
    /// The time to live of a message begins anew when it comes over a link.
    LinkAgeLost = "link-age-lost",
    /// How old a message is that comes over a link is told by the clocks of two nodes.
    ClocksCompared = "clocks-compared",
}

impl Plant {
    /// Whether it takes more than one node to find it.
    pub fn needs_mesh(self) -> bool {
        self as usize >= Self::LinkDeltaLost as usize
    }
}

/// Whether `plant` is active on this thread.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub(crate) const fn is_planted(_plant: Plant) -> bool {
    false
}

#[cfg(feature = "plant")]
pub(crate) use active::is_planted;
#[cfg(feature = "plant")]
pub use active::plant;

#[cfg(feature = "plant")]
mod active {
    use std::cell::Cell;

    use super::Plant;

    thread_local! {
        static ACTIVE: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    /// Makes `plant` the one that is active on this thread; `None` plants nothing.
    pub fn plant(plant: Option<Plant>) {
        ACTIVE.set(plant);
    }

    #[inline]
    pub(crate) fn is_planted(plant: Plant) -> bool {
        ACTIVE.get() == Some(plant)
    }
}
