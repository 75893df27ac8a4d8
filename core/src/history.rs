//! What the log keeps for replay: the newest messages of every topic, wherever they lie.
//!
//! Each segment has a list of the runs of messages in it, and each run knows where the one before it
//! of the same topic is, so a topic is read backwards from its newest run. Segments are given up
//! without a word to their topics: numbers are dense, so a run that does not end right before the
//! next one is not the one that was meant.
//!
//! The history holds one reference on every segment it has runs in. One that nothing else refers to
//! is *idle*; idle segments together stay within a bound. Those in which little is still wanted are
//! given back to the log, and the little moves (`shard/memory.rs`), so a busy topic does not push the
//! last messages of a quiet one out.

use std::collections::VecDeque;

use nexusd_wire::{Header, Sequence, TopicId};

use crate::expiry::Expiry;
use crate::limits::{
    KEPT_RUN_BYTES, LOOK_AHEAD_TOPICS, LOOKS_PER_SEGMENT, RUNS_SAMPLED, SEGMENT_BYTES,
    SEGMENTS_LEFT_ALONE, SPARE_RUN_LISTS, SURVIVOR_BYTES_MAX,
};
use crate::log::{Extent, Log, SegmentId, SegmentKind};
use crate::prefetch::prefetch;
use crate::topic::Topics;

/// Where a run stands: a segment, and its place in that segment's list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunRef {
    segment: SegmentId,
    index: u32,
}

impl RunRef {
    /// No run.
    pub(crate) const NONE: Self = Self { segment: SegmentId::NONE, index: 0 };
}

impl Default for RunRef {
    fn default() -> Self {
        Self::NONE
    }
}

/// Messages of one topic that lie behind each other, numbered one by one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptRun {
    pub(crate) topic: TopicId,
    pub(crate) first: Sequence,
    pub(crate) start: u32,
    pub(crate) len: u32,
    pub(crate) messages: u32,
    pub(crate) expiry: Expiry,
    pub(crate) previous: RunRef,
}

impl KeptRun {
    fn last(&self) -> u64 {
        self.first.0 + u64::from(self.messages) - 1
    }

    /// Whether the other one is its continuation, in the same segment.
    #[inline(always)]
    fn is_followed_by(&self, next: &Self) -> bool {
        self.topic == next.topic
            && self.start + self.len == next.start
            && self.last() + 1 == next.first.0
            && self.expiry == next.expiry
    }
}

/// What is known of a topic's numbers: the first it may have, and its newest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) first: u64,
    pub(crate) newest: u64,
}

/// Messages that are kept of segments that were given up, until they have a new place.
#[derive(Debug, Default)]
struct Survivors {
    bytes: Vec<u8>,
    /// Their starts are in `bytes`.
    runs: Vec<KeptRun>,
}

impl Survivors {
    /// Takes a run in; `false` if there is no room for it.
    fn add(&mut self, run: KeptRun, bytes: &[u8]) -> bool {
        if self.bytes.len() + bytes.len() > SURVIVOR_BYTES_MAX {
            return false;
        }
        self.runs.push(KeptRun { start: self.bytes.len() as u32, ..run });
        self.bytes.extend_from_slice(bytes);
        true
    }

    /// Whether the run that follows this one in its topic is here.
    fn has_next_of(&self, run: &KeptRun) -> bool {
        self.runs.iter().any(|next| next.topic == run.topic && next.first.0 == run.last() + 1)
    }
}

/// The runs of all segments of a log.
#[derive(Debug)]
pub(crate) struct History {
    /// Whether anything is kept.
    is_on: bool,
    /// Messages of a topic that are kept.
    messages: u64,
    bytes_max: usize,
    by_segment: Vec<Vec<KeptRun>>,
    /// Segments with runs, the oldest first.
    line: VecDeque<SegmentId>,
    /// Where in the line looks go on.
    looked: usize,
    runs: usize,
    /// Empty lists, kept for their memory.
    spare_lists: Vec<Vec<KeptRun>>,
    survivors: Survivors,
}

impl History {
    /// Keeps the newest `messages` of every topic, within `bytes_max`; less than two segments are not worth it.
    pub(crate) fn new(messages: u64, bytes_max: usize) -> Self {
        Self {
            is_on: messages > 0 && bytes_max >= 2 * SEGMENT_BYTES,
            messages,
            bytes_max,
            by_segment: Vec::new(),
            line: VecDeque::new(),
            looked: 0,
            runs: 0,
            spare_lists: Vec::new(),
            survivors: Survivors::default(),
        }
    }

    /// Whether the bound is exceeded.
    pub(crate) fn is_over(&self, log: &Log) -> bool {
        log.idle_bytes() + self.runs * KEPT_RUN_BYTES > self.bytes_max
    }

    /// Keeps a run of a topic that lies in `segment`. `newest` is the topic's newest run: before, which is the run's
    /// previous one, and after.
    #[inline(always)]
    pub(crate) fn note(
        &mut self,
        segment: SegmentId,
        run: KeptRun,
        newest: &mut RunRef,
        log: &mut Log,
    ) {
        if !self.is_on {
            return;
        }
        let runs = self.by_segment.get_mut(segment.0 as usize).filter(|runs| !runs.is_empty());
        let Some(runs) = runs else {
            return self.push(segment, run, newest, log);
        };
        let place = RunRef { segment, index: runs.len() as u32 };
        if newest.segment == segment
            && newest.index + 1 == place.index
            && let Some(last) = runs.last_mut()
            && last.is_followed_by(&run)
        {
            last.len += run.len;
            last.messages += run.messages;
            return;
        }
        runs.push(run);
        *newest = place;
        self.runs += 1;
        log.charge(KEPT_RUN_BYTES);
    }

    /// Keeps a run behind all others of its segment, which may be the first.
    #[inline(never)]
    fn push(&mut self, segment: SegmentId, run: KeptRun, place: &mut RunRef, log: &mut Log) {
        let slot = segment.0 as usize;
        if self.by_segment.len() <= slot {
            self.by_segment.resize_with(slot + 1, Vec::new);
        }
        let runs = &mut self.by_segment[slot];
        if runs.is_empty() {
            *runs = self.spare_lists.pop().unwrap_or_default();
            log.keep(segment);
            self.line.push_back(segment);
        }
        *place = RunRef { segment, index: runs.len() as u32 };
        runs.push(run);
        self.runs += 1;
        log.charge(KEPT_RUN_BYTES);
    }

    fn run(&self, at: RunRef) -> Option<&KeptRun> {
        self.by_segment.get(at.segment.0 as usize)?.get(at.index as usize)
    }

    #[inline(always)]
    fn prefetch(&self, at: RunRef) {
        if let Some(run) = self.run(at) {
            prefetch(run);
        }
    }

    /// The runs of a topic that are held, newest first, without a hole.
    fn runs_of(
        &self,
        topic: TopicId,
        newest: RunRef,
        standing: Standing,
    ) -> impl Iterator<Item = (RunRef, &KeptRun)> {
        let (mut at, mut end) = (newest, standing.newest);
        std::iter::from_fn(move || {
            let run = self.run(at).filter(|run| run.topic == topic && run.last() == end)?;
            let found = (at, run);
            (at, end) = (run.previous, run.first.0 - 1);
            Some(found)
        })
    }

    /// Extents of the messages of a topic that are held and numbered above `after`, in order, and the
    /// number of the oldest of them, expired ones included.
    pub(crate) fn above(
        &self,
        topic: TopicId,
        newest: RunRef,
        standing: Standing,
        after: u64,
        log: &Log,
        now_us: u64,
    ) -> (Vec<Extent>, u64) {
        let mut extents = Vec::new();
        let mut oldest = standing.newest + 1;
        for (at, run) in self.runs_of(topic, newest, standing) {
            if oldest <= after + 1 {
                break;
            }
            let skipped = (after + 1).saturating_sub(run.first.0) as u32;
            oldest = run.first.0 + u64::from(skipped);
            if run.expiry.is_past(now_us) {
                continue;
            }
            let offset = self.offset_of(at.segment, run, skipped, log);
            extents.push(Extent {
                segment: at.segment,
                start: run.start + offset,
                len: run.len - offset,
                messages: run.messages - skipped,
                topic: Some(topic),
                mode: nexusd_wire::control::DeliveryMode::Replay,
                expiry: run.expiry,
            });
        }
        extents.reverse();
        (extents, oldest)
    }

    /// Bytes of the first `skipped` frames of a run.
    fn offset_of(&self, segment: SegmentId, run: &KeptRun, skipped: u32, log: &Log) -> u32 {
        let mut offset = 0;
        for _ in 0..skipped {
            offset += log.header(segment, run.start + offset).stride() as u32;
        }
        offset
    }

    /// Segments in the line.
    pub(crate) fn segments(&self) -> usize {
        self.line.len()
    }

    /// The next segments to look at: one that is no longer young, for what busy topics had is wanted for a short time
    /// only, and some others in turn.
    pub(crate) fn next_looks(&mut self) -> impl Iterator<Item = SegmentId> + use<> {
        let grown = self.line.len().checked_sub(SEGMENTS_LEFT_ALONE + 1);
        let first = if self.looked < self.line.len() { self.looked } else { 0 };
        self.looked = first + LOOKS_PER_SEGMENT - 1;
        let mut looks = [None; LOOKS_PER_SEGMENT];
        for (look, at) in looks.iter_mut().zip(grown.into_iter().chain(first..self.looked)) {
            *look = self.line.get(at).copied();
        }
        looks.into_iter().flatten()
    }

    /// The oldest segment that replay alone keeps. Those before it, which queues need as well, go behind all others,
    /// so that they are not looked at each time.
    pub(crate) fn oldest_idle(&mut self, log: &Log) -> Option<SegmentId> {
        for _ in 0..self.line.len() {
            let oldest = *self.line.front()?;
            if log.is_idle(oldest) {
                return Some(oldest);
            }
            self.line.rotate_left(1);
        }
        None
    }

    /// How many of a run's messages, from its end, are still to be kept.
    fn wanted(&self, run: &KeptRun, topics: &Topics, now_us: u64) -> u32 {
        let Some(standing) = topics.standing(run.topic) else { return 0 };
        if run.last() < standing.first || run.expiry.is_past(now_us) {
            return 0;
        }
        let beyond = run.last().saturating_sub(standing.newest.saturating_sub(self.messages));
        beyond.min(u64::from(run.messages)) as u32
    }

    /// About how many bytes of a segment are still to be kept: some of its runs are looked at.
    pub(crate) fn wanted_bytes(&self, segment: SegmentId, topics: &Topics, now_us: u64) -> usize {
        let Some(runs) = self.by_segment.get(segment.0 as usize) else { return 0 };
        let step = runs.len().div_ceil(RUNS_SAMPLED).max(1);
        // From the end: a topic's newest messages are its last ones.
        let sample = || runs.iter().rev().step_by(step);
        // None of it is in a cache.
        sample().for_each(|run| topics.prefetch_standing(run.topic));
        let (mut bytes, mut looked) = (0, 0);
        for run in sample() {
            let wanted = self.wanted(run, topics, now_us) as usize;
            bytes += (run.len as usize / run.messages as usize) * wanted;
            looked += 1;
        }
        (bytes * runs.len()).checked_div(looked).unwrap_or(0)
    }

    /// Bytes of messages that have no place now.
    pub(crate) fn homeless_bytes(&self) -> usize {
        self.survivors.bytes.len()
    }

    /// Takes what is still wanted of a segment along, all of it; `false` if there is no room for that.
    pub(crate) fn rescue_all(
        &mut self,
        segment: SegmentId,
        log: &Log,
        topics: &Topics,
        now_us: u64,
    ) -> bool {
        let (bytes, runs) = (self.survivors.bytes.len(), self.survivors.runs.len());
        let is_whole = self.rescue(segment, log, topics, now_us);
        if !is_whole {
            self.survivors.bytes.truncate(bytes);
            self.survivors.runs.truncate(runs);
        }
        is_whole
    }

    /// Takes what is still wanted of a segment along, as far as there is room for it; whether that was
    /// all. Other segments' messages may be taken along too before [`Self::settle`] finds them a new
    /// place.
    pub(crate) fn rescue(
        &mut self,
        segment: SegmentId,
        log: &Log,
        topics: &Topics,
        now_us: u64,
    ) -> bool {
        if log.kind(segment) != SegmentKind::Log {
            return self.wanted_bytes(segment, topics, now_us) == 0;
        }
        let Some(runs) = self.by_segment.get(segment.0 as usize) else { return true };
        if topics.len() >= LOOK_AHEAD_TOPICS {
            runs.iter().rev().for_each(|run| topics.prefetch_standing(run.topic));
        }
        let mut is_whole = true;
        let mut survivors = std::mem::take(&mut self.survivors);
        for run in runs.iter().rev() {
            let wanted = self.wanted(run, topics, now_us);
            if wanted == 0 {
                continue;
            }
            let skipped = run.messages - wanted;
            let offset = self.offset_of(segment, run, skipped, log);
            let (start, len) = (run.start + offset, run.len - offset);
            let first = Sequence(run.first.0 + u64::from(skipped));
            let saved = KeptRun { first, len, messages: wanted, ..*run };
            if !survivors.add(saved, log.bytes(segment, start, len)) {
                is_whole = false;
                break;
            }
        }
        self.survivors = survivors;
        is_whole
    }

    /// Gives a segment up; the log frees it once nothing else refers to it.
    pub(crate) fn give_up(&mut self, segment: SegmentId, log: &mut Log) {
        let Some(runs) = self.by_segment.get_mut(segment.0 as usize) else { return };
        if runs.is_empty() {
            return;
        }
        let mut runs = std::mem::take(runs);
        self.runs -= runs.len();
        log.discharge(runs.len() * KEPT_RUN_BYTES);
        if self.spare_lists.len() < SPARE_RUN_LISTS {
            runs.clear();
            self.spare_lists.push(runs);
        }
        let is_first = self.line.front() == Some(&segment);
        let at =
            if is_first { Some(0) } else { self.line.iter().rposition(|&held| held == segment) };
        if let Some(at) = at {
            self.line.remove(at);
            self.looked -= usize::from(at < self.looked);
        }
        log.unkeep(segment);
    }

    /// Finds rescued messages a new place: behind the tail's last frame, as far as it has room. The others
    /// wait for the next tail.
    pub(crate) fn settle(&mut self, log: &mut Log, topics: &mut Topics) {
        if self.survivors.runs.is_empty() {
            return;
        }
        let mut survivors = std::mem::take(&mut self.survivors);
        let mut homeless = Survivors::default();
        // The newer ones first: an older run hangs on the next newer one.
        survivors.runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.first));
        // With many topics none of their newest runs is in a cache.
        for run in survivors.runs.iter().filter(|run| topics.standing(run.topic).is_some()) {
            self.prefetch(topics.newest_run(run.topic));
        }
        for run in survivors.runs.drain(..) {
            let bytes = &survivors.bytes[run.start as usize..][..run.len as usize];
            let Some(standing) = topics.standing(run.topic) else { continue };
            let newest = topics.newest_run(run.topic);
            let hangs_on = match run.last() == standing.newest {
                true => None,
                false => {
                    let next = self
                        .runs_of(run.topic, newest, standing)
                        .find(|(_, newer)| newer.first.0 == run.last() + 1);
                    match next {
                        Some((next, _)) => Some(next),
                        None if homeless.has_next_of(&run) => {
                            homeless.add(run, bytes);
                            continue;
                        }
                        None => continue,
                    }
                }
            };
            let Some((segment, start)) = log.append_again(bytes) else {
                homeless.add(run, bytes);
                continue;
            };
            let mut place = RunRef::NONE;
            self.push(segment, KeptRun { start, ..run }, &mut place, log);
            match hangs_on {
                None => topics.set_newest_run(run.topic, place),
                Some(RunRef { segment, index }) => {
                    self.by_segment[segment.0 as usize][index as usize].previous = place;
                }
            }
        }
        self.survivors = homeless;
    }

    /// Checks what must hold between events. For tests and the simulator.
    pub(crate) fn assert_invariants(&self, log: &Log) {
        let mut runs = 0;
        for (slot, held) in self.by_segment.iter().enumerate() {
            let segment = SegmentId(slot as u32);
            runs += held.len();
            assert_eq!(log.is_kept(segment), !held.is_empty(), "segments with runs are kept");
            assert_eq!(self.line.contains(&segment), !held.is_empty(), "and stand in line");
            for run in held {
                let header = log.header(segment, run.start);
                assert_eq!(
                    (header.topic(), header.sequence()),
                    (run.topic, run.first),
                    "runs are where they are said to be"
                );
                let mut rest = log.bytes(segment, run.start, run.len);
                let mut messages = 0;
                while let Some(header) = Header::peek(rest) {
                    rest = &rest[header.stride()..];
                    messages += 1;
                }
                assert_eq!(messages, run.messages, "and hold what they are said to hold");
            }
        }
        assert_eq!(runs, self.runs, "runs are counted");
        assert!(self.survivors.bytes.len() <= SURVIVOR_BYTES_MAX, "few messages are homeless");
    }
}
