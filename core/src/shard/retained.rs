//! Retained values: how they are set and cleared, and how a new subscription gets those it wants.
//!
//! A subscription that asks for them begins a *scan* at every owner: the owner goes through its topics, a
//! portion at a time, and hands over the values that match. The next portion is asked for when the
//! queue has sent most of the last one, so that a million values neither fill a queue nor hold anybody
//! up. A message to a topic that a scan has not come to yet takes the topic's value ahead of it.

use std::collections::HashSet;

use nexusd_wire::control::DeliveryMode;
use nexusd_wire::{
    FrameKind, HEADER_BYTES, Header, MessageFlags, NodeId, SubscriptionId, TopicId, filter_matches,
};

use super::event::Now;
use super::parcel::{Item as ParcelItem, LentRun, Replay};
use super::plane::Plane;
use super::publish::Refusal;
use super::routing::ShardIndex;
use super::wiring::NodeWide;
use crate::expiry::Expiry;
use crate::gap::Gap;
use crate::limits::{
    CLEARED_KEPT_MS, CLOCK_AHEAD_MAX_US, LARGE_FRAME_BYTES, RETAINED_AHEAD_BYTES,
    RETAINED_BYTES_PER_STEP, RETAINED_LOOKS_PER_STEP, RETAINED_REAPED_PER_TICK, SCANS_PER_TICK,
};
use crate::link::Origin;
use crate::log::{Extent, SegmentId};
use crate::plant::{Plant, is_planted};
use crate::retained::{Buckets, Retained, Stamp};
use crate::subscriber_queue::{Presence, QueueId, SubscriberQueue};

/// Names a search. A subscription may begin one anew; what is said of the earlier one then counts no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ScanId {
    /// Where it hands over to.
    queue: QueueId,
    subscription: SubscriptionId,
    /// How many the subscription had begun before.
    number: u32,
}

/// Which retained values are wanted.
#[derive(Clone, Debug)]
pub(crate) enum WantedValues {
    /// Those of topics that match one of these filters.
    Matching(Box<[Box<str>]>),
    /// Those of these buckets, and what was cleared of them.
    In(Box<Buckets>),
}

/// A search for retained values that one subscription wants.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Where the queue is.
    to: ShardIndex,
    id: ScanId,
    /// Filters without wildcards, until they were looked up.
    names: Vec<Box<str>>,
    wildcards: Vec<Box<str>>,
    /// Another node wants these, and what was cleared of them.
    buckets: Option<Box<Buckets>>,
    /// The next slot to look at.
    slot: usize,
    /// Topics at or behind that slot that are done with already.
    ahead: HashSet<TopicId>,
}

impl Scan {
    fn new(to: ShardIndex, id: ScanId, wanted: WantedValues) -> Self {
        let (filters, buckets) = match wanted {
            WantedValues::Matching(filters) => (filters, None),
            WantedValues::In(buckets) => (Box::default(), Some(buckets)),
        };
        let (wildcards, names) =
            filters.into_iter().partition(|filter| filter.contains(['+', '#']));
        Self { to, id, names, wildcards, buckets, slot: 0, ahead: HashSet::new() }
    }

    fn wants(&self, name: &str) -> bool {
        if let Some(buckets) = &self.buckets {
            return buckets.contain(name);
        }
        let mut filters = self.wildcards.iter().chain(&self.names);
        filters.any(|filter| filter_matches(filter, name))
    }
}

impl SubscriberQueue {
    /// The search that the queue began last.
    fn scan_id(&self, id: QueueId) -> ScanId {
        ScanId { queue: id, subscription: self.subscription, number: self.scans_begun }
    }
}

impl Plane {
    /// Whether a message may become the retained value of a topic, or clear it.
    pub(super) fn check_retained(
        &mut self,
        topic: TopicId,
        header: &Header,
    ) -> Result<(), Refusal> {
        if !header.flags().contains(MessageFlags::RETAIN) || header.payload_len() == 0 {
            return Ok(());
        }
        let earlier = self.topics.topic(topic).retained.as_deref();
        if self.retained.fits(header.stride(), earlier) {
            Ok(())
        } else {
            Err(Refusal::TooManyRetained)
        }
    }

    /// The time a retained message is stamped with: later than the value it replaces.
    pub(super) fn retained_stamp(&mut self, topic: TopicId, now: Now) -> Now {
        let earlier = self.topics.topic(topic).retained.as_deref();
        let stamp = earlier.and_then(|value| Header::peek(&value.frame)).map(Header::timestamp_us);
        let wall_us = stamp.map_or(now.wall_us, |earlier| now.wall_us.max(earlier + 1));
        Now { wall_us, ..now }
    }

    /// A retained message was accepted and lies here.
    pub(super) fn set_retained(
        &mut self,
        topic: TopicId,
        (segment, start, len): (SegmentId, u32, u32),
        expiry: Expiry,
    ) {
        let frame = self.log.bytes(segment, start, len);
        let header = Header::peek(frame).filter(|header| header.payload_len() == 0);
        let value = match header {
            None => Some(Retained { frame: frame.into(), expiry, since_us: self.now_us }),
            Some(header) => self.mark_of_clear(topic, *header),
        };
        let place = &self.topics.topic(topic).retained;
        if value.is_some() && place.is_some() && is_planted(Plant::RetainedNotReplaced) {
            return;
        }
        self.replace_retained(topic, value);
    }

    /// What is left of a value that was cleared, if other nodes have to know and there is room.
    fn mark_of_clear(&mut self, topic: TopicId, header: Header) -> Option<Retained> {
        let earlier = self.topics.topic(topic).retained.as_deref();
        let is_kept = self.retained.are_shared() && self.retained.fits(HEADER_BYTES, earlier);
        is_kept.then(|| {
            let header = header.with_lengths_of(&Header::new(FrameKind::Message, 0, 0));
            let now = Now { mono_us: self.now_us, wall_us: self.wall_us };
            let expiry = Expiry::of(CLEARED_KEPT_MS, now);
            Retained { frame: header.bytes().into(), expiry, since_us: self.now_us }
        })
    }

    fn replace_retained(&mut self, id: TopicId, value: Option<Retained>) {
        let topic = self.topics.topic(id);
        if self.retained.are_shared() {
            let stamp = |value: &Retained| {
                Header::peek(&value.frame).map(|header| stamp_of(header, self.own, &self.node))
            };
            let (old, new) =
                (topic.retained.as_deref().and_then(stamp), value.as_ref().and_then(stamp));
            self.retained.sum_up(&topic.name, old, new);
        }
        self.retained.replace(id, &mut topic.retained, value);
    }

    /// Whether a message of another node is newer than its topic's retained value, by the clocks of those
    /// who accepted them; and no clock is further ahead than it may be.
    pub(super) fn is_newer_state(&mut self, topic: TopicId, header: &Header) -> bool {
        let new = stamp_of(header, self.own, &self.node);
        let earlier = self.topics.topic(topic).retained.as_deref();
        let earlier = earlier.and_then(|value| Header::peek(&value.frame));
        if is_planted(Plant::OlderStateTaken) {
            return true;
        }
        let is_ahead = new.timestamp_us > self.wall_us.saturating_add(CLOCK_AHEAD_MAX_US);
        self.metrics.rejected += u64::from(is_ahead);
        !is_ahead && earlier.is_none_or(|earlier| stamp_of(earlier, self.own, &self.node) < new)
    }

    /// Gives up retained values that have expired; if there are very many, some of them.
    pub(super) fn reap_retained(&mut self) {
        for _ in 0..RETAINED_REAPED_PER_TICK {
            let Some(topic) = self.retained.expired(self.now_us) else { return };
            let place = &self.topics.topic(topic).retained;
            let is_value = place.as_deref().is_some_and(|value| !value.is_cleared());
            self.replace_retained(topic, None);
            self.metrics.ttl_expired += u64::from(is_value);
        }
    }

    /// Begins scans at all owners for a queue that wants retained values.
    pub(super) fn begin_scans(&mut self, id: QueueId) {
        let filters = self.queues[id.0 as usize].filters.clone();
        self.begin_scans_for(id, &WantedValues::Matching(filters));
    }

    /// The same for what is wanted in some other way.
    pub(super) fn begin_scans_for(&mut self, id: QueueId, wanted: &WantedValues) {
        let queue = &mut self.queues[id.0 as usize];
        queue.scans_begun += 1;
        let scan = queue.scan_id(id);
        for neighbour in self.neighbours.all() {
            queue.scans.insert(neighbour.shard);
            neighbour.tell(ParcelItem::ScanRetained { scan, wanted: wanted.clone() });
        }
        let own = self.routing.own;
        queue.scans.insert(own);
        queue.scans_idle = queue.scans;
        self.begin_scan(own, scan, wanted.clone());
    }

    /// Begins a scan for a queue of any shard, in place of an earlier one.
    pub(super) fn begin_scan(&mut self, to: ShardIndex, id: ScanId, wanted: WantedValues) {
        self.scans.insert(id.subscription, Scan::new(to, id, wanted));
    }

    /// Asks for the next portion of retained values, if the queue has sent most of the last one.
    pub(super) fn ask_for_retained(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        if queue.scans_idle.is_empty()
            || queue.presence != Presence::Connected
            || queue.replay_bytes >= RETAINED_AHEAD_BYTES
        {
            return;
        }
        let scan = queue.scan_id(id);
        for owner in std::mem::take(&mut queue.scans_idle) {
            if owner == self.routing.own {
                self.scans_due.push(scan);
            } else {
                self.neighbours.of(owner).tell(ParcelItem::MoreRetained { scan });
            }
        }
    }

    /// An owner has handed over a portion. `is_done`: it was the last one.
    pub(super) fn on_retained_step(&mut self, owner: ShardIndex, scan: ScanId, is_done: bool) {
        let id = scan.queue;
        if !self.is_same_queue(id, scan.subscription) {
            return;
        }
        let queue = &mut self.queues[id.0 as usize];
        if queue.scan_id(id) != scan {
            return;
        }
        if is_done {
            queue.scans.remove(owner);
        } else {
            queue.scans_idle.insert(owner);
            self.ask_for_retained(id);
        }
    }

    /// Hands the next portions over that queues of this shard have asked for.
    pub(super) fn step_scans_due(&mut self) {
        let count = self.scans_due.len().min(SCANS_PER_TICK);
        for scan in self.scans_due.drain(..count).collect::<Vec<_>>() {
            let is_done = self.step_scan(scan);
            self.on_retained_step(self.routing.own, scan, is_done);
        }
    }

    /// Hands the next portion over; whether it was the last one.
    pub(super) fn step_scan(&mut self, id: ScanId) -> bool {
        if self.scans.get(&id.subscription).is_none_or(|scan| scan.id != id) {
            return true;
        }
        let Some(mut scan) = self.scans.remove(&id.subscription) else { return true };
        let is_done = self.step(&mut scan);
        if !is_done {
            self.scans.insert(id.subscription, scan);
        }
        is_done
    }

    fn step(&mut self, scan: &mut Scan) -> bool {
        let (mut bytes, mut looks) = (0, 0);
        while let Some(name) = scan.names.last() {
            if bytes >= RETAINED_BYTES_PER_STEP || looks >= RETAINED_LOOKS_PER_STEP {
                return false;
            }
            looks += 1;
            if let Some(topic) = self.topics.find(name)
                && scan.ahead.insert(topic)
            {
                bytes += self.hand_over(scan, topic);
            }
            scan.names.pop();
        }
        let goes_through_all = !scan.wildcards.is_empty() || scan.buckets.is_some();
        if !goes_through_all || self.retained.are_none() {
            return true;
        }
        while scan.slot < self.topics.slots() {
            if bytes >= RETAINED_BYTES_PER_STEP || looks >= RETAINED_LOOKS_PER_STEP {
                return false;
            }
            looks += 1;
            let topic = self.topics.id_of(scan.slot);
            scan.slot += 1;
            if !self.topics.has_retained(topic) || scan.ahead.contains(&topic) {
                continue;
            }
            if scan.wants(self.topics.name(topic)) {
                bytes += self.hand_over(scan, topic);
            }
        }
        true
    }

    /// A message to this topic is about to be accepted: its retained value goes ahead of it to those
    /// whose scans have not come to it yet.
    #[cold]
    pub(super) fn hand_over_ahead(&mut self, topic: TopicId) {
        if is_planted(Plant::RetainedAfterLive) {
            return;
        }
        let slot = self.routing.slot(topic);
        let mut scans = std::mem::take(&mut self.scans);
        for scan in scans.values_mut() {
            let is_named = scan.names.iter().any(|name| **name == *self.topics.name(topic));
            let is_ahead = scan.slot <= slot && scan.wants(self.topics.name(topic));
            if (is_named || is_ahead) && scan.ahead.insert(topic) {
                self.hand_over(scan, topic);
            }
        }
        self.scans = scans;
    }

    /// Hands a topic's retained value, if it has one, to the queue of a scan; returns its bytes.
    fn hand_over(&mut self, scan: &Scan, topic: TopicId) -> usize {
        let place = &mut self.topics.topic(topic).retained;
        let (is_for_node, now_us) = (scan.buckets.is_some(), self.now_us);
        // That a value was cleared is for nodes alone.
        let is_wanted = |value: &mut Box<Retained>| match is_for_node {
            true => !value.comes_itself(now_us),
            false => !value.is_cleared(),
        };
        let Some(value) = place.take_if(is_wanted) else { return 0 };
        let placed = self.place_retained(topic, &value);
        let frame_bytes = value.frame.len();
        let is_expired = value.expiry.is_past(self.now_us);
        self.topics.topic(topic).retained = Some(value);
        if is_expired {
            if let Some(extent) = placed {
                self.log.release(extent.segment);
            }
            return 0;
        }
        let is_own = scan.to == self.routing.own;
        match placed {
            Some(extent) if is_own => {
                self.begin_replay(scan.id.queue, topic, None);
                self.push_replay(scan.id.queue, extent);
                self.log.release(extent.segment);
            }
            Some(extent) => {
                self.name_to(topic, scan.to);
                let memory = self.log.lend(extent.segment, scan.to);
                let run = |memory| LentRun::addressed(extent, memory);
                let replay = Replay {
                    queue: scan.id.queue,
                    subscription: scan.id.subscription,
                    topic,
                    lost: None,
                    is_unknown: false,
                    runs: memory.map(run).into_iter().collect(),
                    newest: None,
                    answer: None,
                };
                self.neighbours.of(scan.to).tell(ParcelItem::Replay(Box::new(replay)));
                self.log.release(extent.segment);
            }
            // There is no memory for it now: that is told like any other loss.
            None => {
                self.metrics.dropped_memory += 1;
                if is_own {
                    self.begin_replay(scan.id.queue, topic, Some(Gap::of_retained_value()));
                } else {
                    self.name_to(topic, scan.to);
                    let replay = Replay {
                        queue: scan.id.queue,
                        subscription: scan.id.subscription,
                        topic,
                        lost: None,
                        is_unknown: false,
                        runs: Vec::new(),
                        newest: None,
                        answer: None,
                    };
                    self.neighbours.of(scan.to).tell(ParcelItem::Replay(Box::new(replay)));
                }
            }
        }
        frame_bytes
    }

    /// Copies a retained value to the log, from where it is sent; with one reference, which is the
    /// caller's.
    fn place_retained(&mut self, topic: TopicId, value: &Retained) -> Option<Extent> {
        let bytes = value.frame.len();
        debug_assert!(bytes >= HEADER_BYTES);
        let (segment, start) = if bytes > LARGE_FRAME_BYTES {
            if !self.make_room_for_large(bytes) {
                return None;
            }
            let segment = self.log.open_landing(bytes);
            self.log.landing_memory(segment).copy_from_slice(&value.frame);
            self.log.landed(segment);
            (segment, 0)
        } else {
            if self.log.room(bytes).is_none() && !self.renew_tail() {
                return None;
            }
            let (segment, start) = self.log.append_again(&value.frame)?;
            self.log.retain(segment, 1);
            (segment, start)
        };
        Some(Extent {
            segment,
            start,
            len: bytes as u32,
            messages: 1,
            topic: Some(topic),
            mode: DeliveryMode::Retained,
            expiry: value.expiry,
        })
    }

    /// The subscription is gone, and with it its scans.
    pub(super) fn end_scans(&mut self, id: QueueId) {
        let queue = &self.queues[id.0 as usize];
        let subscription = queue.subscription;
        for owner in queue.scans {
            if owner == self.routing.own {
                self.scans.remove(&subscription);
            } else {
                self.neighbours.of(owner).tell(ParcelItem::EndScan { subscription });
            }
        }
    }
}

/// When, and by whom, a value was accepted.
pub(super) fn stamp_of(header: &Header, own: NodeId, node: &NodeWide) -> Stamp {
    let origin = match header.origin() {
        0 => own,
        other => node.node_of(Origin(other)),
    };
    Stamp { timestamp_us: header.timestamp_us(), origin }
}
