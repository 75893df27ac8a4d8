//! Subscriptions whose clients say how far they had come: from there on nothing may be missing.
//!
//! A number stands for all messages up to it, so a topic's place in such a stream is known before its
//! first message. What it was sent from before it was made is a replay.

use nexusd_core::limits::{KEPT_RUN_BYTES, LARGE_FRAME_BYTES, SEGMENT_BYTES, TOPIC_IDLE_US};
use nexusd_wire::{control, filter_matches};

use super::coming_back::Replay;
use super::{NONE, Oracle, StreamState, TopicLedger};
use crate::violation::{Violation, ensure};

/// A position that no topic reaches, as of an earlier start: all that is held comes, behind a gap.
pub const FAR_AHEAD: u64 = 1 << 40;

/// How a stream stands to what its topic had before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Start {
    /// It has live messages alone.
    #[default]
    Live,
    /// It has all behind this number.
    Behind(u64),
    /// It has the newest, if that is still there.
    Newest,
    /// The topic may have been forgotten meanwhile, or its number is of an earlier start: what is there of it is not
    /// known.
    Unknown,
}

impl TopicLedger {
    /// Whether the daemon may have forgotten the topic by now, and with it what it held.
    pub(super) fn note_idle(&mut self, now_us: u64, step: u64) -> bool {
        let is_idle = now_us >= self.busy_us + TOPIC_IDLE_US;
        if is_idle {
            (self.forgotten, self.forgotten_at) = (self.newest(), step);
        }
        is_idle
    }

    /// A number becomes known of a message that the shard was fed then: perhaps before the topic was
    /// forgotten.
    pub(super) fn note_number(&mut self, number: u64, fed_at: u64) {
        if fed_at <= self.forgotten_at {
            self.forgotten = self.forgotten.max(number);
        }
    }

    /// The newest number that is known.
    fn newest(&self) -> u64 {
        self.numbers.len() as u64 - 1
    }
}

impl Oracle {
    /// Topics that any of these filters match.
    pub fn matching(&self, filters: &[String]) -> Vec<usize> {
        let wants = |name: &str| filters.iter().any(|filter| filter_matches(filter, name));
        (0..self.topics.len()).filter(|&topic| wants(&self.topics[topic].name)).collect()
    }

    /// The newest number of a topic that anybody was told.
    pub fn newest_number(&self, topic: usize) -> u64 {
        self.topics[topic].newest()
    }

    /// The newest number up to this one of a message that somebody knows; 0: none.
    pub fn number_up_to(&self, topic: usize, number: u64) -> u64 {
        let numbers = &self.topics[topic].numbers[..=number as usize];
        numbers.iter().rposition(|known| *known != NONE).unwrap_or(0) as u64
    }

    /// The shard was fed the Subscribe of a stream that told positions.
    pub(super) fn begin_at_positions(&mut self, index: usize) {
        let (now_us, step) = (self.now_us, self.step);
        let stream = &mut self.streams[index];
        if stream.positions.is_empty() {
            return;
        }
        for publication in &self.publications {
            let behind = |&(topic, after): &(usize, u64)| {
                topic == publication.topic
                    && (publication.number == 0 || publication.number > after || after == FAR_AHEAD)
            };
            if publication.fed_at > 0 && stream.positions.iter().any(behind) {
                stream.expect_replay(publication.header.stride() as u64);
            }
        }
        stream.replay = Some(Box::new(Replay::of_positions(stream.fed_at, self.dropped)));
        for &(topic, after) in &stream.positions {
            let ledger = &mut self.topics[topic];
            ledger.note_idle(now_us, step);
            let cursor = &mut stream.cursors[topic];
            cursor.start = match after {
                FAR_AHEAD => Start::Unknown,
                0 if ledger.forgotten == 0 => Start::Newest,
                after if after <= ledger.forgotten => Start::Unknown,
                after => Start::Behind(after),
            };
            match cursor.start {
                Start::Live => {}
                Start::Behind(after) => {
                    let known = ledger.numbers.iter().take(after as usize + 1);
                    cursor.settled_before = known.filter(|number| **number != NONE).count() as u64;
                    cursor.numbers_before = after;
                    cursor.next = after + 1;
                }
                Start::Newest => {
                    cursor.settled_before = cursor.settled_before.saturating_sub(1);
                    cursor.numbers_before = cursor.numbers_before.saturating_sub(1);
                }
                Start::Unknown => (cursor.settled_before, cursor.numbers_before) = (0, 0),
            }
        }
    }

    /// A message comes to a topic, or may have come since it was fed: perhaps the topic was forgotten
    /// before.
    pub(super) fn note_idle(&mut self, topic: usize) {
        let topic = &mut self.topics[topic];
        if topic.note_idle(self.now_us, self.step) {
            for stream in topic.streams.clone() {
                if self.streams[stream].state == StreamState::Fed {
                    self.doubt_positions(stream);
                }
            }
        }
    }

    /// The shard may have come to a Subscribe no sooner than now: topics may have been forgotten since it
    /// was fed that.
    pub(super) fn doubt_positions(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        for &(topic, after) in &stream.positions {
            let ledger = &mut self.topics[topic];
            ledger.note_idle(self.now_us, self.step);
            let cursor = &mut stream.cursors[topic];
            let is_known = match cursor.start {
                Start::Behind(_) => after > ledger.forgotten,
                Start::Newest => ledger.forgotten == 0,
                _ => true,
            };
            if !is_known {
                cursor.start = Start::Unknown;
                (cursor.settled_before, cursor.numbers_before) = (0, 0);
                if cursor.next == after + 1 {
                    cursor.next = 0;
                }
            }
        }
    }

    /// What a SubscriptionInfo says of a replay that is to come.
    pub(super) fn replay_announced(
        &mut self,
        index: usize,
        info: &control::SubscriptionInfo<'_>,
    ) -> Result<(), Violation> {
        let stream = &mut self.streams[index];
        let Some(replay) = &mut stream.replay else {
            ensure!(
                info.missed_count() == 0 && !info.gap_detected() && !info.replay_started(),
                "a subscription without positions is answered with {info:?}"
            );
            return Ok(());
        };
        replay.announce(info);
        ensure!(
            info.missed_count() >= 0
                || stream.cursors.iter().any(|cursor| cursor.start == Start::Unknown),
            "nobody knows how much {:?} missed, and all its topics are known",
            stream.filters
        );
        Ok(())
    }

    /// A gap tells that messages up to `last` are not held any more.
    pub(super) fn check_window(&self, at: usize, topic: usize, last: u64) -> Result<(), Violation> {
        let stream = &self.streams[at];
        // What was dropped may stand together with what was not held any more, under the reason of that.
        if stream.cursors[topic].start == Start::Unknown || stream.may_overtell() {
            return Ok(());
        }
        let ledger = &self.topics[topic];
        // Some of the newest may have numbers that nobody was told.
        let known = ledger.numbers.iter().filter(|number| **number != NONE).count() as u64;
        let newest = ledger.newest() + ledger.fed.saturating_sub(known);
        ensure!(
            last + self.replay_messages <= newest
                || self.may_have_expired(topic)
                || self.is_window_tight()
                || self.may_have_recycled(),
            "{} {last}: not held any more, of {newest} messages; the newest {} are",
            ledger.name,
            self.replay_messages
        );
        Ok(())
    }

    /// Whether the newest messages of all topics are nearly more than what is kept for replay may take, or
    /// some are so large that they cannot move when the segment they are in is given up.
    fn is_window_tight(&self) -> bool {
        let strides = self.publications.iter().map(|sent| sent.header.stride() as u64);
        let largest = strides.max().unwrap_or(0);
        let newest = self.topics.len() as u64 * self.replay_messages;
        largest > LARGE_FRAME_BYTES as u64
            || 4 * newest * (largest + KEPT_RUN_BYTES as u64) + 4 * SEGMENT_BYTES as u64
                > self.replay_bytes / self.shards
    }

    /// Messages that a stream may have been queued because they were there before it.
    pub(super) fn replayed_at_most(&self, index: usize) -> u64 {
        let stream = &self.streams[index];
        let before = |&(topic, _): &(usize, u64)| match stream.cursors[topic].start {
            Start::Live => 0,
            Start::Newest => 1,
            _ => self.topics[topic].fed,
        };
        stream.positions.iter().map(before).sum()
    }

    /// Whether a message was surely there before its stream.
    pub(super) fn was_before(&self, index: usize, publication: u32) -> bool {
        debug_assert_ne!(publication, NONE);
        let settled_at = self.publications[publication as usize].settled_at;
        settled_at > 0 && settled_at < self.streams[index].fed_at
    }
}
