//! Another shard of the node, as this one sees it: the rings to and from it, what goes there next,
//! and the topics that publishers of either side have open at the other.
//!
//! Messages go in batches, and batches are the credit: there are so many for a neighbour, and one
//! comes back when it has been published. Without one, publishers to that neighbour wait.

use std::collections::VecDeque;

use hashbrown::HashTable;
use nexusd_wire::{Sequence, TopicId};
use slab::Slab;
use std::hash::BuildHasher;

use super::event::ConnectionId;
use super::inbox::{Receiver, Sender};
use super::parcel::{
    Batch, BatchRun, Correction, Expected, Item, LargeMessage, LentRun, Parcel, TopicHandle,
};
use super::routing::{PublisherId, ShardIndex};
use super::wiring::Ends;
use crate::limits::{ASKED_MAX, SPARE_PARCELS};
use crate::link::Origin;
use crate::log::{Extent, Log};
use crate::owed_acks::AckRange;
use crate::plant::{Plant, is_planted};
use crate::subscription_index::KeyedHash;

/// What is known of a topic that publishers of this shard have open at its owner.
#[derive(Debug)]
struct OpenTopic {
    name: Box<str>,
    /// Ids of this shard's publishers that stand for it.
    bindings: u32,
    state: OpenState,
    /// Messages that were passed on so far.
    passed: u64,
    /// What is known of it to number messages.
    numbering: Option<Numbering>,
}

/// How a topic's owner will number what is passed on, if nobody else publishes to it.
#[derive(Clone, Copy, Debug)]
struct Numbering {
    topic: TopicId,
    /// The number that the first message ever passed on would have, were all numbered in one go that
    /// ends with the newest.
    zeroth: u64,
}

/// Which messages the run may take that is being passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Takes {
    /// Those that ask for nothing more than to be delivered: they are numbered.
    Plain,
    /// Those that ask for more, for the owner to look at.
    Special,
    /// Any: what their owner calls the topic is not known yet.
    Any,
}

impl Takes {
    /// Whether the run takes such a message too.
    pub(crate) fn also(self, is_plain: bool) -> bool {
        match self {
            Self::Plain => is_plain,
            Self::Special => !is_plain,
            Self::Any => true,
        }
    }
}

#[derive(Debug)]
enum OpenState {
    /// The owner has not answered.
    Asked(Vec<Asker>),
    Open,
    /// The owner has not answered, but nobody wants the topic any more: until it has, the handle is
    /// not free.
    Closed(Vec<Asker>),
}

/// A publisher that bound a topic of another shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) connection: ConnectionId,
    /// Its id for the topic.
    pub(crate) id: TopicId,
    /// Where in its stream it bound it.
    pub(crate) offset: u64,
}

/// One other shard.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) shard: ShardIndex,
    sender: Sender<Parcel>,
    receiver: Receiver<Parcel>,
    /// What goes with the next parcel.
    items: Parcel,
    /// How much of that clients here have asked for, as [`Item::weight`] counts it.
    asked: usize,
    /// Emptied parcels, kept for their memory.
    spare: Vec<Parcel>,
    /// The batch that is being filled.
    batch: Option<Box<Batch>>,
    #[expect(clippy::vec_box, reason = "boxes travel; taking them out would copy batches")]
    spare_batches: Vec<Box<Batch>>,
    /// Batches that may yet be made.
    credit: usize,
    credit_max: usize,
    /// Messages of runs that have ended, and of these and the last one those that were asked for.
    passed: u64,
    taken: u64,
    /// Publishers that wait for a batch, in turn.
    pub(crate) waiting: VecDeque<ConnectionId>,
    open: Slab<OpenTopic>,
    by_name: HashTable<u32>,
    hash: KeyedHash,
    /// Topics of this shard that its publishers have open, by handle; `None` where there was no room.
    pub(crate) opened: Vec<Option<TopicId>>,
    /// What its publishers sent, and this shard has no memory for now.
    pub(crate) stalled: VecDeque<Item>,
    /// How far it has come with draining.
    pub(crate) drain_round: u8,
}

impl Neighbour {
    pub(crate) fn new(ends: Ends, credit: usize, seed: u64) -> Self {
        Self {
            shard: ends.shard,
            sender: ends.sender,
            receiver: ends.receiver,
            items: Vec::new(),
            asked: 0,
            spare: Vec::new(),
            batch: None,
            spare_batches: Vec::new(),
            credit,
            credit_max: credit,
            passed: 0,
            taken: 0,
            waiting: VecDeque::new(),
            open: Slab::new(),
            by_name: HashTable::new(),
            hash: KeyedHash::new(seed),
            opened: Vec::new(),
            stalled: VecDeque::new(),
            drain_round: 0,
        }
    }

    /// Tells it something, behind all that it was told before.
    pub(crate) fn tell(&mut self, item: Item) {
        self.asked += item.weight();
        self.items.push(item);
    }

    /// Whether clients have asked for so much that they wait until it is on its way.
    #[inline]
    pub(crate) fn is_clogged(&self) -> bool {
        self.asked > ASKED_MAX
    }

    /// Whether something waits in its inbox for us.
    pub(crate) fn has_mail(&self) -> bool {
        !self.receiver.is_empty()
    }

    pub(crate) fn receive(&mut self) -> Option<Parcel> {
        self.receiver.receive()
    }

    /// Keeps a parcel that was read for its memory.
    pub(crate) fn recycle(&mut self, parcel: Parcel) {
        debug_assert!(parcel.is_empty());
        if self.spare.len() < SPARE_PARCELS {
            self.spare.push(parcel);
        }
    }

    /// Sends what there is to tell; whether something went. If the ring is full it stays for the
    /// next time.
    pub(crate) fn flush(&mut self) -> bool {
        self.close_batch();
        if self.items.is_empty() {
            return false;
        }
        let parcel = std::mem::replace(&mut self.items, self.spare.pop().unwrap_or_default());
        match self.sender.send(parcel) {
            Ok(()) => {
                self.asked = 0;
                true
            }
            // It has drained and ended; nobody misses what it was not told.
            Err(_) if self.sender.is_alone() => false,
            Err(back) => {
                let empty = std::mem::replace(&mut self.items, back);
                self.recycle(empty);
                false
            }
        }
    }

    /// Whether nothing is left to tell.
    pub(crate) fn is_flushed(&self) -> bool {
        self.items.is_empty() && self.batch.as_ref().is_none_or(|batch| batch.is_empty())
    }

    /// Puts the first message of a run into the batch for the neighbour, and says what the run takes;
    /// `None` if this batch is full and there is no credit for another.
    pub(crate) fn begin_run(
        &mut self,
        mut run: BatchRun,
        frame: &[u8],
        is_plain: bool,
        wall_us: u64,
    ) -> Option<Takes> {
        if self.batch.as_ref().is_none_or(|batch| batch.is_full(frame.len())) && !self.begin_batch()
        {
            return None;
        }
        self.count_passed();
        let mut takes = Takes::Any;
        if let Some(OpenTopic { passed, numbering, .. }) = self.open.get(run.handle.0 as usize) {
            run.before = *passed;
            // The owner looks at numbers before it takes them, so a wrong one does no harm.
            if let Some(Numbering { topic, zeroth }) = *numbering {
                takes = if is_plain { Takes::Plain } else { Takes::Special };
                let first = Sequence(zeroth.wrapping_add(*passed));
                run.expected =
                    (is_plain && run.relay.is_none()).then_some(Expected { topic, first });
            }
        }
        if let Some(batch) = &mut self.batch {
            batch.begin_run(run, frame, wall_us);
        }
        Some(takes)
    }

    /// The batch's last run has ended: counts its messages.
    fn count_passed(&mut self) {
        if let Some(batch) = &self.batch
            && let Some(run) = batch.last_run()
        {
            self.passed += u64::from(run.messages);
            if let Some(topic) = self.open.get_mut(run.handle.0 as usize) {
                topic.passed += u64::from(run.messages);
            }
        }
    }

    /// Messages that were passed on since this was last asked.
    pub(crate) fn take_passed(&mut self) -> u64 {
        let last = self.batch.as_deref().and_then(Batch::last_run);
        let passed = self.passed + last.map_or(0, |run| u64::from(run.messages));
        passed - std::mem::replace(&mut self.taken, passed)
    }

    /// Puts the next message of the run begun last into the batch, if there is room.
    #[inline(always)]
    pub(crate) fn extend_batch(&mut self, frame: &[u8], wall_us: u64) -> bool {
        self.batch.as_mut().is_some_and(|batch| batch.extend(frame, wall_us))
    }

    /// The last message of the batch asks for more than to be delivered.
    pub(crate) fn note_special(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.has_special = true;
        }
    }

    /// Whether a batch may be begun.
    pub(crate) fn has_credit(&self) -> bool {
        self.credit > 0 || !self.spare_batches.is_empty()
    }

    fn begin_batch(&mut self) -> bool {
        if !self.has_credit() {
            return false;
        }
        self.close_batch();
        self.batch = self.spare_batches.pop().or_else(|| {
            self.credit -= 1;
            Some(Box::new(Batch::new()))
        });
        true
    }

    /// What was batched so far goes before whatever is told next.
    pub(crate) fn close_batch(&mut self) {
        self.count_passed();
        match self.batch.take() {
            Some(batch) if !batch.is_empty() => self.items.push(Item::Publish(batch)),
            Some(batch) => self.spare_batches.push(batch),
            None => {}
        }
    }

    /// A batch came back.
    pub(crate) fn credit(&mut self, mut batch: Box<Batch>) {
        if is_planted(Plant::CreditLeaks) {
            return;
        }
        for Correction { handle, zeroth } in batch.corrections.drain(..) {
            if let Some(topic) = self.open.get_mut(handle.0 as usize)
                && let Some(numbering) = &mut topic.numbering
            {
                numbering.zeroth = zeroth;
            }
        }
        batch.clear();
        self.spare_batches.push(batch);
    }

    /// Checks that all credit is back. For tests and the simulator.
    pub(crate) fn assert_nothing_under_way(&self) {
        let at_hand = self.credit + self.spare_batches.len() + usize::from(self.batch.is_some());
        assert_eq!(at_hand, self.credit_max, "all batches came back");
        assert!(self.is_flushed() && self.stalled.is_empty(), "nothing waits");
    }

    /// Gives the memory of batches at hand back.
    pub(crate) fn shrink(&mut self) {
        self.credit += self.spare_batches.len();
        self.spare_batches.clear();
    }

    pub(crate) fn publish_large(&mut self, message: LargeMessage) {
        self.close_batch();
        if let Some(topic) = self.open.get_mut(message.handle.0 as usize) {
            topic.passed += 1;
        }
        self.passed += 1;
        self.items.push(Item::PublishLarge(Box::new(message)));
    }

    /// The messages of `extent` are for subscribers over there. What follows a run directly
    /// lengthens it.
    pub(crate) fn lend(
        &mut self,
        extent: Extent,
        (publisher, origin): (Option<PublisherId>, Option<Origin>),
        is_state: bool,
        acks: Option<AckRange>,
        log: &mut Log,
    ) {
        if let Some(Item::Run(last)) = self.items.last_mut()
            && last.publisher == publisher
            && last.origin == origin
            && last.is_state == is_state
            && last.acks.is_none()
            && acks.is_none()
            && last.extent.absorb(&extent)
        {
            return;
        }
        if let Some(memory) = log.lend(extent.segment, self.shard) {
            self.items.push(Item::Run(LentRun {
                extent,
                memory,
                publisher,
                origin,
                is_state,
                acks,
            }));
        }
    }

    /// A publisher binds a topic that the neighbour owns.
    pub(crate) fn open_topic(&mut self, name: &str, asker: Asker) -> TopicHandle {
        let hash = self.hash.hash_one(name);
        let open = &mut self.open;
        if let Some(&slot) = self.by_name.find(hash, |&slot| &*open[slot as usize].name == name) {
            let topic = &mut open[slot as usize];
            topic.bindings += 1;
            if let OpenState::Asked(by) = &mut topic.state {
                by.push(asker);
            }
            return TopicHandle(slot);
        }
        let state = OpenState::Asked(vec![asker]);
        let topic = OpenTopic { name: name.into(), bindings: 1, state, passed: 0, numbering: None };
        let slot = open.insert(topic) as u32;
        let (open, key) = (&self.open, self.hash);
        self.by_name.insert_unique(hash, slot, |&slot| key.hash_one(&*open[slot as usize].name));
        self.tell(Item::OpenTopic { handle: TopicHandle(slot), name: name.into() });
        TopicHandle(slot)
    }

    /// A publisher's id stands for the topic no longer.
    pub(crate) fn close_topic(&mut self, handle: TopicHandle) {
        let topic = &mut self.open[handle.0 as usize];
        topic.bindings -= 1;
        if topic.bindings > 0 {
            return;
        }
        let hash = self.hash.hash_one(&*topic.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |&slot| slot == handle.0) {
            entry.remove();
        }
        match &mut topic.state {
            OpenState::Asked(by) => topic.state = OpenState::Closed(std::mem::take(by)),
            _ => drop(self.open.remove(handle.0 as usize)),
        }
        // Its messages go first.
        self.close_batch();
        self.tell(Item::CloseTopic { handle });
    }

    /// The neighbour has answered: who asked, if it refused.
    pub(crate) fn on_opened(
        &mut self,
        handle: TopicHandle,
        opened: Option<(TopicId, Sequence)>,
    ) -> Vec<Asker> {
        let Some(topic) = self.open.get_mut(handle.0 as usize) else { return Vec::new() };
        topic.numbering = opened.map(|(topic, newest)| Numbering { topic, zeroth: newest.0 + 1 });
        let askers = match std::mem::replace(&mut topic.state, OpenState::Open) {
            OpenState::Asked(by) => by,
            OpenState::Closed(by) => {
                self.open.remove(handle.0 as usize);
                by
            }
            OpenState::Open => Vec::new(),
        };
        if opened.is_some() { Vec::new() } else { askers }
    }
}

/// All other shards of the node.
#[derive(Debug)]
pub(crate) struct Neighbours {
    own: ShardIndex,
    list: Vec<Neighbour>,
}

impl Neighbours {
    pub(crate) fn new(own: ShardIndex, list: Vec<Neighbour>) -> Self {
        debug_assert!(list.is_sorted_by_key(|neighbour| neighbour.shard));
        Self { own, list }
    }

    /// The neighbour that is this shard. Panics if it is our own.
    #[inline]
    pub(crate) fn of(&mut self, shard: ShardIndex) -> &mut Neighbour {
        let at = shard.index() - usize::from(shard > self.own);
        &mut self.list[at]
    }

    pub(crate) fn all(&mut self) -> &mut [Neighbour] {
        &mut self.list
    }

    /// Whether clients have asked for so much of one of them that they wait.
    #[inline]
    pub(crate) fn are_clogged(&self) -> bool {
        self.list.iter().any(Neighbour::is_clogged)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.list.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
}
