//! What the daemon sends, held against what was published: messages, gaps, acks.

use nexusd_wire::control::{
    self, DeliveryMode, GapReason, OverflowPolicy, PublishAckEntry, PublishStatus,
};
use nexusd_wire::{Frame, MessageFlags, SubscriptionId};

use super::history::{Before, Told};
use super::positions::Start;
use super::{DAEMON, FAR_AHEAD, Fate, NOBODY, NONE, Oracle, StreamState};
use nexusd_core::limits::WARNING_INTERVAL_US;

use crate::payload;
use crate::violation::{Violation, ensure};

impl Oracle {
    /// A message is whole on the wire, in a run of this stream and mode, under a topic name. Its first
    /// byte was given to the socket at `begun_us`.
    pub fn on_message(
        &mut self,
        (stream, mode): (usize, DeliveryMode),
        topic: usize,
        begun_us: u64,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let header = frame.header();
        let number = header.sequence().0;
        let index = payload::publication_of(header, frame.payload());
        let name = &self.topics[topic].name;
        let Some(publication) = self.publications.get(index as usize) else {
            return Err(Violation(format!("{name} {number}: nobody published what it carries")));
        };
        let sent = &publication.header;
        ensure!(
            publication.topic == topic,
            "{name} {number}: delivered under another topic's name"
        );
        ensure!(
            !matches!(publication.fate, Fate::Written | Fate::Refused),
            "{name} {number}: publication {index} was delivered though it is {:?}",
            publication.fate
        );
        ensure!(
            frame.payload().len() == publication.payload_len
                && payload::is_intact(index, frame.payload()),
            "{name} {number}: the payload is not what was published"
        );
        ensure!(
            frame.metadata_bytes() == self.shelf.table(publication.metadata),
            "{name} {number}: the metadata is not what was published"
        );
        ensure!(
            header.flags() == sent.flags().without(MessageFlags::ACK)
                && u64::from(header.ttl_ms()) * 1_000 == publication.ttl_us
                && header.key_hash() == sent.key_hash()
                && header.origin() == 0
                && header.origin_sequence().0 == number,
            "{name} {number}: the header {header:?} does not follow from {sent:?}"
        );
        let stride = header.stride() as u64;
        let publisher = publication.conversation;
        self.learn_number(index, number, Some(header.timestamp_us()))?;
        self.check_alive(index, begun_us)?;
        let before = Before {
            cursor: self.streams[stream].cursors[topic],
            left: self.streams[stream].unattributed_left,
            publisher,
            newest: self.streams[stream].newest_of(publisher, topic),
        };
        if mode == DeliveryMode::Retained {
            return self.on_retained(stream, (topic, index), stride, before);
        }
        // Of what may be told twice some may be found again though its loss was heard.
        let of = &self.streams[stream];
        let was_told = of.may_overtell() && number < of.cursors[topic].next;
        let passed = match mode {
            DeliveryMode::Replay if was_told => 0,
            _ => self.check_place(stream, topic, index, number)?,
        };
        match mode {
            DeliveryMode::Replay => {
                self.check_replayed(stream, topic, number)?;
                self.extra += u64::from(self.was_before(stream, index));
            }
            _ => {
                self.check_live(stream, topic, index, number)?;
                self.streams[stream].cursors[topic].has_live = true;
            }
        }
        let (now_us, timeout_us) = (self.now_us, self.block_timeout_us);
        let stream = &mut self.streams[stream];
        stream.message_gone(stride, now_us, timeout_us);
        let cursor = &mut stream.cursors[topic];
        cursor.next = cursor.next.max(number + 1);
        cursor.delivered += 1;
        let is_retained = false;
        stream.history.push(Told::Message { topic, stride, before, passed, is_retained });
        stream.weigh_history();
        self.delivered += 1;
        Ok(())
    }

    /// A stream goes on at `number` of a topic: what it leaves out has expired, or was told as lost
    /// without its topic. Returns how many that are.
    fn pass_over(&mut self, at: usize, topic: usize, number: u64) -> Result<u64, Violation> {
        let next = self.streams[at].cursors[topic].next;
        if number <= next || next == 0 {
            return Ok(0);
        }
        let expired = self.expired_between(topic, next, number).min(number - next);
        let told = number - next - expired;
        let (now_us, timeout_us) = (self.now_us, self.block_timeout_us);
        let stream = &mut self.streams[at];
        ensure!(
            told <= stream.unattributed_left,
            "{} {number}: expected {next}, and no gap told of the loss",
            self.topics[topic].name
        );
        stream.unattributed_left -= told;
        for _ in next..number {
            stream.message_gone(0, now_us, timeout_us);
        }
        stream.cursors[topic].expired += expired;
        stream.cursors[topic].next = number;
        Ok(number - next)
    }

    /// The daemon gave a publication this number: everybody has to agree.
    fn learn_number(
        &mut self,
        index: u32,
        number: u64,
        timestamp_us: Option<u64>,
    ) -> Result<(), Violation> {
        let publication = &mut self.publications[index as usize];
        let topic = &mut self.topics[publication.topic];
        topic.note_number(number, publication.fed_at);
        let name = &topic.name;
        if let Some(timestamp_us) = timestamp_us {
            ensure!(
                publication.timestamp_us == 0 || publication.timestamp_us == timestamp_us,
                "{name} {number}: stamped {timestamp_us}, but {} for somebody else",
                publication.timestamp_us
            );
            publication.timestamp_us = timestamp_us;
        }
        if publication.number == number {
            return Ok(());
        }
        ensure!(number > 0, "{name}: publication {index} was given no number");
        ensure!(
            publication.number == 0,
            "{name} {number}: publication {index} has number {} already",
            publication.number
        );
        publication.number = number;
        let slot = number as usize;
        if topic.numbers.len() <= slot {
            topic.numbers.resize(slot + 1, NONE);
        }
        ensure!(
            topic.numbers[slot] == NONE,
            "{name} {number}: publications {} and {index} have the same number",
            topic.numbers[slot]
        );
        topic.numbers[slot] = index;
        let (previous, next) = (publication.previous, publication.next);
        let number_of = |neighbour: u32| match self.publications.get(neighbour as usize) {
            Some(neighbour) if neighbour.number != 0 => Some(neighbour.number),
            _ => None,
        };
        ensure!(
            number_of(previous).is_none_or(|earlier| earlier < number)
                && number_of(next).is_none_or(|later| later > number),
            "{name} {number}: out of its publisher's order"
        );
        Ok(())
    }

    /// Whether this message may stand here in this stream. Returns how many it leaves out.
    fn check_place(
        &mut self,
        at: usize,
        topic: usize,
        index: u32,
        number: u64,
    ) -> Result<u64, Violation> {
        let unexplained = self.unexplained_refusals();
        let passed = self.pass_over(at, topic, number)?;
        let stream = &mut self.streams[at];
        let name = &self.topics[topic].name;
        ensure!(
            stream.subscription.is_some() && stream.state != StreamState::Ended,
            "{name} {number}: delivered to a subscription that is {:?}",
            stream.state
        );
        let cursor = &mut stream.cursors[topic];
        ensure!(cursor.matches, "{name} {number}: none of {:?} matches", stream.filters);
        let publication = &self.publications[index as usize];
        if cursor.next == 0 {
            ensure!(
                number > cursor.numbers_before,
                "{name} {number}: the subscription was made when {} was known",
                cursor.numbers_before
            );
        } else {
            ensure!(number == cursor.next, "{name} {number}: expected {}", cursor.next);
        }
        // On one connection, what was fed first is dealt with first, unless it is by another shard.
        let is_earlier = self.shards == 1
            && publication.conversation == stream.subscriber
            && publication.fed_at < stream.fed_at;
        let is_replayed = cursor.start != Start::Live;
        ensure!(
            is_replayed
                || !is_earlier
                    && (publication.settled_at == 0 || publication.settled_at > stream.fed_at),
            "{name} {number}: accepted before the subscription was asked for"
        );
        let is_first = cursor.next == 0;
        let settled_at = stream.settled_at;
        let earlier = stream.advance(publication.conversation, topic, index);
        ensure!(
            earlier.is_none_or(|earlier| earlier < index),
            "{name} {number}: publication {index} behind {earlier:?} of the same publisher"
        );
        let is_sure = stream.unattributed == 0;
        if is_first && settled_at > 0 && is_sure && unexplained == 0 {
            let skipped = self.publications.get(publication.previous as usize).filter(|previous| {
                matches!(previous.fate, Fate::Fed | Fate::Settled)
                    && previous.fed_at > settled_at
                    && previous.expires_us() > self.now_us
            });
            ensure!(
                skipped.is_none_or(|skipped| skipped.conversation == DAEMON),
                "{name} {number}: the message before it was not delivered, and no gap told of it"
            );
        }
        Ok(passed)
    }

    /// A Gap is on the wire. `topic_of` resolves a daemon-wide topic id by this connection's binds.
    pub fn on_gap(
        &mut self,
        at: usize,
        gap: &control::Gap<'_>,
        topic_of: impl Fn(u32) -> Option<usize>,
    ) -> Result<(), Violation> {
        let (now_us, timeout_us) = (self.now_us, self.block_timeout_us);
        let may_have_recycled = self.may_have_recycled();
        let frame_bytes_max = self.frame_bytes_max;
        let is_of_link = gap.reason() == GapReason::LinkLost;
        // As many as can be, if nobody knows how many.
        let is_unknown = gap.missed() == u64::MAX;
        let is_dropped = !is_of_link
            && gap.reason() != GapReason::ReplayWindow
            && !is_unknown
            && self.streams[at].tells_drops_alone();
        if is_of_link {
            self.on_link_lost(at, gap.missed())?;
        }
        let is_of_coming_back = Self::is_of_coming_back(gap.reason());
        let stream = &mut self.streams[at];
        ensure!(
            stream.subscription.is_some() && stream.state != StreamState::Ended,
            "a gap for a subscription that is {:?}",
            stream.state
        );
        ensure!(
            gap.reason() != GapReason::SlowConsumer
                || stream.policy != OverflowPolicy::Disconnect
                || stream.was_parked,
            "a gap of {} in a queue that is never cut",
            gap.missed()
        );
        match gap.reason() {
            GapReason::SlowConsumer => ensure!(
                stream.may_have_dropped(now_us, timeout_us),
                "a gap of {} for a {:?} queue of {} messages, {} bytes that was never full{}",
                gap.missed(),
                stream.policy,
                stream.queue_messages,
                stream.queue_bytes,
                if stream.policy == OverflowPolicy::Block { " for long enough" } else { "" }
            ),
            GapReason::Memory => ensure!(
                may_have_recycled,
                "a gap for memory, but the log never took more than {} of {} bytes",
                self.peak_log_bytes,
                self.memory_bytes
            ),
            reason => {
                ensure!(is_of_coming_back, "a gap for {reason:?}, which cannot happen here");
            }
        }
        stream.gaps_told += 1;
        let left_before = stream.unattributed_left;
        let unattributed = if is_unknown { FAR_AHEAD } else { gap.rest() };
        stream.unattributed += unattributed;
        stream.unattributed_left += unattributed;
        let mut places = Vec::new();
        let mut told = gap.rest();
        let entries = gap.entries().map(|entries| entries.iter()).into_iter().flatten();
        let (mut count, mut lost_bytes, mut passed) = (0, 0, 0);
        for entry in entries {
            count += 1;
            let (mut first, last) = (entry.first(), entry.last());
            let Some(topic) = topic_of(entry.topic()) else {
                return Err(Violation(format!(
                    "a gap names topic id {}, which is not bound",
                    entry.topic()
                )));
            };
            ensure!(first > 0 && first <= last, "a gap from {first} to {last}");
            told += last - first + 1;
            let stream = &self.streams[at];
            if stream.may_overtell() {
                first = first.max(stream.cursors[topic].next);
            }
            if first > last {
                continue;
            }
            let before = self.streams[at].cursors[topic];
            passed += self.pass_over(at, topic, first)?;
            let name = &self.topics[topic].name;
            let stream = &mut self.streams[at];
            let cursor = &mut stream.cursors[topic];
            ensure!(cursor.matches, "a gap in {name}, which the subscription does not want");
            if cursor.next == 0 {
                ensure!(
                    first > cursor.numbers_before,
                    "a gap in {name} from {first}, but {} was known before",
                    cursor.numbers_before
                );
            } else {
                ensure!(
                    first == cursor.next,
                    "a gap in {name} from {first}; expected {}",
                    cursor.next
                );
            }
            if gap.reason() == GapReason::ReplayWindow {
                self.check_window(at, topic, last)?;
            }
            let stream = &mut self.streams[at];
            let cursor = &mut stream.cursors[topic];
            let lost = last - first + 1;
            cursor.next = last + 1;
            cursor.missed += lost;
            places.push((topic, before));
            for number in first..=last {
                let known =
                    self.topics[topic].numbers.get(number as usize).copied().unwrap_or(NONE);
                let publication = self.publications.get(known as usize);
                let stride =
                    publication.map_or(0, |publication| publication.header.stride() as u64);
                lost_bytes += stride;
                stream.message_gone(stride, now_us, timeout_us);
            }
        }
        let stream = &mut self.streams[at];
        ensure!(gap.missed() > 0, "a gap of nothing");
        ensure!(
            gap.reason() != GapReason::SlowConsumer
                || stream.policy == OverflowPolicy::DropNewest
                || stream.was_cut_sparingly(frame_bytes_max),
            "a gap of {} messages, and less is left in a queue of {} messages, {} bytes than fits it",
            gap.missed(),
            stream.queue_messages,
            stream.queue_bytes
        );
        ensure!(
            told == gap.missed() || is_unknown,
            "a gap of {} messages names {told}",
            gap.missed()
        );
        stream.names_forgotten |=
            !is_of_link && gap.rest() > 0 && count < nexusd_core::limits::GAP_TOPICS_MAX;
        ensure!(count <= nexusd_core::limits::GAP_TOPICS_MAX, "a gap of {count} entries");
        if let Some(replay) = &mut stream.replay {
            replay.told += if is_unknown { told } else { gap.missed() };
        }
        let missed = if is_unknown { told + unattributed } else { gap.missed() };
        let bytes = lost_bytes;
        stream.history.push(Told::Gap {
            places,
            bytes,
            missed,
            passed,
            unattributed,
            left_before,
            is_of_link,
            is_dropped,
        });
        if is_dropped {
            self.missed += missed;
            ensure!(
                self.missed <= self.dropped,
                "{} messages were told as dropped, and {} counted",
                self.missed,
                self.dropped
            );
        }
        Ok(())
    }

    /// A BackpressureWarning is on the wire.
    pub fn on_warning(
        &mut self,
        at: usize,
        warning: &control::BackpressureWarning<'_>,
    ) -> Result<(), Violation> {
        let (now_us, timeout_us) = (self.now_us, self.block_timeout_us);
        let may_have_recycled = self.may_have_recycled();
        let may_expire = (0..self.topics.len()).any(|topic| self.may_have_expired(topic));
        let stream = &mut self.streams[at];
        ensure!(warning.dropped() > 0, "a warning, and nothing was dropped");
        ensure!(
            stream.may_have_dropped(now_us, timeout_us) || may_have_recycled,
            "stream {at}: a warning of {} dropped for {:?} in a queue that was never full",
            warning.dropped(),
            warning.reason()
        );
        ensure!(
            warning.expired() == 0 || may_expire,
            "a warning of {} that expired, and none has",
            warning.expired()
        );
        let limit = if stream.queue_messages == u64::MAX { 0 } else { stream.queue_messages };
        ensure!(warning.limit() == limit, "a warning of a limit of {}", warning.limit());
        let since_us = stream.subscribed_us;
        stream.warnings += 1;
        ensure!(
            stream.warnings <= 1 + (now_us - since_us) / WARNING_INTERVAL_US,
            "{} warnings within {} us",
            stream.warnings,
            now_us - since_us
        );
        Ok(())
    }

    /// The answer to an acknowledged publish is on the wire.
    pub fn on_ack(&mut self, index: u32, entry: &PublishAckEntry) -> Result<(), Violation> {
        let publication = &self.publications[index as usize];
        let (low, high) = publication.matching;
        let name = &self.topics[publication.topic].name;
        let (delivered, dropped, blocked) = (entry.delivered(), entry.dropped(), entry.blocked());
        if entry.status() != PublishStatus::Accepted {
            ensure!(
                entry.sequence() == 0 && delivered + dropped + blocked == 0,
                "a refusal of publication {index} carries counts: {entry:?}"
            );
            if publication.fate != Fate::Refused {
                ensure!(
                    matches!(entry.status(), PublishStatus::LimitReached | PublishStatus::Draining),
                    "publication {index} was refused as {:?}",
                    entry.status()
                );
                self.publish_refused(index)?;
            }
            return Ok(());
        }
        ensure!(publication.fate != Fate::Refused, "publication {index} should have been refused");
        // What is not settled may have been accepted at any time since it was fed.
        let (low, high) = match publication.fate {
            Fate::Settled => (low, high),
            _ if publication.fed_turn == self.turn => (0, high),
            _ => (0, self.topics[publication.topic].matching_ever),
        };
        ensure!(
            (low..=high).contains(&(delivered + dropped)) && blocked <= delivered,
            "{name}: publication {index} was acked for {delivered} delivered, {dropped} dropped, \
             {blocked} blocked; {low} to {high} subscriptions matched: {} {:?} {} {} {:?}",
            self.topics[publication.topic].matching_low,
            publication.fate,
            publication.fed_turn,
            self.turn,
            self.streams
                .iter()
                .enumerate()
                .filter(|(_, s)| s.in_low && s.wants(publication.topic))
                .map(|(i, s)| (i, s.state, s.conversation))
                .collect::<Vec<_>>()
        );
        self.learn_number(index, entry.sequence(), None)
    }

    /// The streams of a conversation that a subscription id belongs to, or why it is none.
    pub fn stream_for(&self, conversation: u32, id: SubscriptionId) -> Result<usize, Violation> {
        match self.stream_of(id) {
            Some(stream) if self.streams[stream].conversation == conversation => Ok(stream),
            Some(stream) if self.streams[stream].conversation == NOBODY => {
                Err(Violation(format!("{id} is parked")))
            }
            Some(_) => Err(Violation(format!("{id} belongs to another connection"))),
            None => Err(Violation(format!("{id} was never confirmed"))),
        }
    }
}
