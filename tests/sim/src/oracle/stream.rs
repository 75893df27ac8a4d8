//! One subscription as its subscriber sees it: what it asked for and what it has had.

use nexusd_core::limits::{
    GAPS_KEPT_MAX, OVERFLOW_KEEP_EIGHTHS, OVERFLOW_LEAVE_EIGHTHS, SHARDS_MAX,
};
use nexusd_wire::control::OverflowPolicy;
use nexusd_wire::{SubscriptionId, filter_matches};

use super::coming_back::Replay;
use super::history::{History, TakenBack, Told};
use super::positions::{FAR_AHEAD, Start};

/// Where a subscription is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamState {
    /// Its Subscribe is written.
    Asked,
    /// The shard was fed the Subscribe.
    Fed,
    /// The shard has dealt with it.
    Open,
    /// No connection has it; it waits for its client.
    Parked,
    /// The shard was fed its Unsubscribe.
    Closing,
    /// Nothing of it may come any more.
    Ended,
}

/// A stream's place in one topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Whether the subscription wants the topic.
    pub(super) matches: bool,
    /// How it stands to what the topic had before.
    pub(super) start: Start,
    /// Messages surely accepted before the subscription was made.
    pub(super) settled_before: u64,
    /// Messages possibly accepted before.
    pub(super) fed_before: u64,
    /// Highest number seen before.
    pub(super) numbers_before: u64,
    /// The number that must come next; 0 before the first.
    pub(super) next: u64,
    pub(super) delivered: u64,
    pub(super) missed: u64,
    /// Times the retained value came or was lost, and the number of the last one.
    pub(super) retained_count: u64,
    pub(super) retained: u64,
    /// A live message has come.
    pub(super) has_live: bool,
    /// Messages that were left out because their time was over.
    pub(super) expired: u64,
}

impl Cursor {
    /// Is what it was then, but for what is known of the time before the subscription.
    fn take_back(&mut self, then: Self) {
        let Self { settled_before, fed_before, numbers_before, .. } = *self;
        *self = Self { settled_before, fed_before, numbers_before, ..then };
    }
}

/// One subscription.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Whose it is: a conversation's number, or [`super::NOBODY`].
    pub conversation: u32,
    /// Topics of which its client said how far it had come.
    pub positions: Vec<(usize, u64)>,
    /// Which conversation asked for it.
    pub subscriber: u32,
    /// Which client did.
    pub client: usize,
    /// The client acknowledges what it has had.
    pub is_counted: bool,
    /// The request that asked for it.
    pub request: u64,
    /// Its filters.
    pub filters: Vec<String>,
    /// What happens when its queue is full.
    pub policy: OverflowPolicy,
    /// Most messages in its queue; `u64::MAX` if bytes alone bound it.
    pub queue_messages: u64,
    /// Most bytes in its queue.
    pub queue_bytes: u64,
    /// Where it is in its life.
    pub state: StreamState,
    /// Its id, once confirmed.
    pub subscription: Option<SubscriptionId>,
    /// What it can be held to is limited: its connection may have ended.
    pub is_doubtful: bool,
    pub(super) cursors: Vec<Cursor>,
    pub(super) fed_at: u64,
    pub(super) settled_at: u64,
    pub(super) in_low: bool,
    pub(super) in_high: bool,
    /// Messages told as lost without their topic.
    pub(super) unattributed: u64,
    pub(super) unattributed_left: u64,
    /// At most this much is in its queue.
    waiting_messages: u64,
    waiting_bytes: u64,
    /// Since when a `block` queue may have been full.
    full_since_us: Option<u64>,
    /// Messages of the daemon's own were among those for it.
    had_own: bool,
    /// A loss was told as a number though its gap had room for names: many stand together in it.
    pub(super) names_forgotten: bool,
    /// Gaps it was sent.
    pub(super) gaps_told: u64,
    /// Messages of different topics may come in another order than they were fed.
    pub(super) is_reordered: bool,
    /// Its queue may have dropped messages by now.
    may_have_dropped: bool,
    /// Newest publication had of each publisher and topic.
    newest: Vec<(u32, usize, u32)>,
    pub(super) history: History,
    /// Messages the client has read, and how many of them it has said.
    pub(super) had: u64,
    pub(super) acked: u64,
    /// More was sent and not acknowledged than is kept for certain.
    pub(super) may_have_forgotten: bool,
    /// The shard may have ended it.
    pub(super) may_be_gone: bool,
    /// It was parked at some time between these, by the monotonic clock.
    pub(super) parked_between_us: (u64, u64),
    pub(super) was_parked: bool,
    /// Since when it may have been parked, unless that is known.
    pub(super) away_since_us: Option<u64>,
    /// Resumes that the shard was fed, and that were not answered yet.
    pub resumes_pending: u32,
    /// When its connection asked for it.
    pub(super) had_since: u64,
    /// Connections that it was taken from while they had it.
    pub taken_from: Vec<u32>,
    pub(super) replay: Option<Box<Replay>>,
    /// It asked for retained values when it was made, and how often it has asked for them.
    pub wants_retained: bool,
    pub(super) retained_rounds: u64,
    /// Warnings it has had, and since when there can have been some.
    pub(super) warnings: u64,
    pub(super) subscribed_us: u64,
}

impl Stream {
    /// A subscription that is about to be asked for.
    pub fn new(
        conversation: u32,
        client: usize,
        request: u64,
        filters: Vec<String>,
        policy: OverflowPolicy,
        queue_messages: u64,
        queue_bytes: u64,
    ) -> Self {
        Self {
            conversation,
            positions: Vec::new(),
            subscriber: conversation,
            client,
            is_counted: false,
            request,
            filters,
            policy,
            queue_messages: if queue_messages == 0 { u64::MAX } else { queue_messages },
            queue_bytes,
            state: StreamState::Asked,
            subscription: None,
            is_doubtful: false,
            cursors: Vec::new(),
            fed_at: 0,
            settled_at: 0,
            in_low: false,
            in_high: false,
            unattributed: 0,
            unattributed_left: 0,
            waiting_messages: 0,
            waiting_bytes: 0,
            full_since_us: None,
            had_own: false,
            names_forgotten: false,
            gaps_told: 0,
            is_reordered: false,
            may_have_dropped: false,
            newest: Vec::new(),
            history: History::default(),
            had: 0,
            acked: 0,
            may_have_forgotten: false,
            may_be_gone: false,
            parked_between_us: (0, 0),
            was_parked: false,
            away_since_us: None,
            resumes_pending: 0,
            had_since: 0,
            taken_from: Vec::new(),
            replay: None,
            wants_retained: false,
            retained_rounds: 0,
            warnings: 0,
            subscribed_us: 0,
        }
    }

    pub(super) fn match_topics<'a>(&mut self, topics: impl Iterator<Item = &'a str>) {
        let wants = |topic: &str| self.filters.iter().any(|filter| filter_matches(filter, topic));
        self.cursors =
            topics.map(|topic| Cursor { matches: wants(topic), ..Cursor::default() }).collect();
    }

    /// A message it wants was fed to the shard.
    pub(super) fn expect_message(
        &mut self,
        stride: u64,
        is_own: bool,
        now_us: u64,
        block_timeout_us: u64,
    ) {
        self.waiting_messages += 1;
        self.waiting_bytes += stride;
        self.had_own |= is_own;
        self.weigh_history();
        if self.waiting_messages <= self.queue_messages && self.waiting_bytes <= self.queue_bytes {
            return;
        }
        // Nobody is held back for one of the daemon's own; with several shards it may come last. Nor
        // for a client that is not there.
        let is_own = is_own || (self.is_reordered && self.had_own) || self.was_parked;
        if self.policy == OverflowPolicy::Block && !is_own {
            let since = *self.full_since_us.get_or_insert(now_us);
            self.may_have_dropped |= now_us >= since + block_timeout_us;
        } else {
            self.may_have_dropped = true;
        }
    }

    /// A message may be queued for it that was there before it.
    pub(super) fn expect_replay(&mut self, stride: u64) {
        self.waiting_messages += 1;
        self.waiting_bytes += stride;
    }

    /// A message left its queue, by delivery or by a told loss.
    pub(super) fn message_gone(&mut self, stride: u64, now_us: u64, block_timeout_us: u64) {
        self.waiting_messages = self.waiting_messages.saturating_sub(1);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(stride);
        if self.waiting_messages == 0 {
            self.waiting_bytes = 0;
        }
        if let Some(since) = self.full_since_us {
            self.may_have_dropped |= now_us >= since + block_timeout_us;
            if self.waiting_messages <= self.queue_messages / 2
                && self.waiting_bytes <= self.queue_bytes / 2
            {
                self.full_since_us = None;
            }
        }
    }

    /// Whether it is open and holds publishers back after few messages.
    pub fn is_small_block_queue(&self) -> bool {
        let is_small = self.queue_messages <= 100 || self.queue_bytes <= 20_000;
        self.state == StreamState::Open && self.policy == OverflowPolicy::Block && is_small
    }

    /// Messages its client has read, and how many of them it has said.
    pub fn counts(&self) -> (u64, u64) {
        (self.had, if self.is_counted { self.acked } else { self.had })
    }

    /// The shard that keeps it, which its id names; `None` before it has one.
    pub fn home(&self) -> Option<usize> {
        self.subscription.map(|id| (id.0 as usize) % SHARDS_MAX)
    }

    /// Whether it wants a topic.
    pub fn wants(&self, topic: usize) -> bool {
        self.cursors[topic].matches
    }

    /// Nobody is held back any more for a queue that nobody reads from.
    pub(super) fn note_away(&mut self) {
        self.may_have_dropped |= self.full_since_us.is_some();
    }

    /// Whether its queue can have overflowed by now.
    pub(super) fn may_have_dropped(&mut self, now_us: u64, block_timeout_us: u64) -> bool {
        self.may_have_dropped |=
            self.full_since_us.is_some_and(|since| now_us >= since + block_timeout_us);
        self.may_have_dropped
    }

    /// Whether what is left in its queue can be what an overflow leaves: a good half of a bound, less
    /// the message it stopped at and one that was half on the wire, each of at most `frame_bytes`.
    pub(super) fn was_cut_sparingly(&self, frame_bytes: u64) -> bool {
        let kept = |limit: u64| limit / 64 * OVERFLOW_KEEP_EIGHTHS * OVERFLOW_LEAVE_EIGHTHS;
        let by_messages = self.queue_messages < u64::MAX
            && self.waiting_messages + 1 >= kept(self.queue_messages);
        by_messages || self.waiting_bytes + 2 * frame_bytes >= kept(self.queue_bytes)
    }

    /// Whether its gaps of dropped messages tell of nothing else: what was not held any more may stand
    /// together with it.
    pub(super) fn tells_drops_alone(&self) -> bool {
        self.positions.is_empty() && !self.may_overtell()
    }

    /// Whether so many losses were told that those of them that have to be told again stand together,
    /// or nobody knows how many there are.
    pub(super) fn may_overtell(&self) -> bool {
        self.gaps_told > GAPS_KEPT_MAX as u64
            || self.names_forgotten
            || self.unattributed >= FAR_AHEAD
    }

    /// Messages that were sent and may be asked for again may be too many to be kept.
    pub(super) fn weigh_history(&mut self) {
        let (messages, bytes) = self.history.kept();
        self.may_have_forgotten |= messages + self.waiting_messages > self.queue_messages
            || bytes + self.waiting_bytes > self.queue_bytes;
    }

    /// The client has read one more message.
    pub(super) fn read_one(&mut self) {
        self.had += 1;
        if !self.is_counted {
            self.history.forget(self.had);
        }
    }

    /// Takes back what was told behind the first `count` messages.
    pub(super) fn take_back(&mut self, count: u64) -> TakenBack {
        let mut taken = TakenBack::default();
        while let Some(told) = self.history.take_back(count) {
            match told {
                Told::Message { topic, stride, before, passed, is_retained } => {
                    self.cursors[topic].take_back(before.cursor);
                    self.unattributed_left = before.left;
                    if !is_retained {
                        self.set_newest(before.publisher, topic, before.newest);
                    }
                    taken.messages += 1;
                    self.waiting_messages += 1 + passed;
                    self.waiting_bytes += stride;
                }
                Told::Gap {
                    places,
                    bytes,
                    missed,
                    passed,
                    unattributed,
                    left_before,
                    is_of_link,
                    is_dropped,
                } => {
                    self.waiting_messages += missed - unattributed + passed;
                    self.waiting_bytes += bytes;
                    for (topic, cursor) in places.iter().rev() {
                        self.cursors[*topic].take_back(*cursor);
                    }
                    self.unattributed -= unattributed;
                    self.unattributed_left = left_before;
                    taken.link_lost += if is_of_link { missed } else { 0 };
                    taken.missed += if is_dropped { missed } else { 0 };
                }
            }
        }
        taken
    }

    /// The newest publication had of this publisher and topic.
    pub(super) fn newest_of(&self, publisher: u32, topic: usize) -> Option<u32> {
        let same = |entry: &&(u32, usize, u32)| entry.0 == publisher && entry.1 == topic;
        self.newest.iter().find(same).map(|entry| entry.2)
    }

    fn set_newest(&mut self, publisher: u32, topic: usize, newest: Option<u32>) {
        let same = |entry: &(u32, usize, u32)| entry.0 == publisher && entry.1 == topic;
        let Some(at) = self.newest.iter().position(same) else { return };
        match newest {
            Some(newest) => self.newest[at].2 = newest,
            None => drop(self.newest.swap_remove(at)),
        }
    }

    /// Replaces the newest publication had of this publisher and topic; returns the one before.
    pub(super) fn advance(
        &mut self,
        publisher: u32,
        topic: usize,
        publication: u32,
    ) -> Option<u32> {
        let same = |entry: &&mut (u32, usize, u32)| entry.0 == publisher && entry.1 == topic;
        match self.newest.iter_mut().find(same) {
            Some(entry) => Some(std::mem::replace(&mut entry.2, publication)),
            None => {
                self.newest.push((publisher, topic, publication));
                None
            }
        }
    }

    /// A publication that was counted turns out to have been refused.
    pub(super) fn forget_publication(
        &mut self,
        topic: usize,
        fed_at: u64,
        settled_at: Option<u64>,
    ) {
        let Some(cursor) = self.cursors.get_mut(topic) else { return };
        if let Start::Behind(_) = cursor.start {
            return;
        }
        if self.fed_at > 0 && settled_at.is_some_and(|settled_at| settled_at < self.fed_at) {
            cursor.settled_before = cursor.settled_before.saturating_sub(1);
        }
        if self.settled_at > 0 && fed_at < self.settled_at {
            cursor.fed_before = cursor.fed_before.saturating_sub(1);
        }
    }
}
