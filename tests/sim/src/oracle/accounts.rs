//! What must balance once everything has come to rest.

use nexusd_core::Metrics;

use super::{Fate, Oracle, Stream, StreamState};
use crate::violation::{Violation, ensure};

impl Oracle {
    /// Everything willing has been read: every open stream has had, or was told it lost, all of it.
    /// Refusals that nobody was told of went down with the connections they were meant for.
    pub fn check_complete(&self) -> Result<(), Violation> {
        for (at, stream) in self.streams.iter().enumerate() {
            self.check_stream(stream)?;
            if stream.state == StreamState::Open {
                self.check_replay(at)?;
                self.check_retained(at)?;
            }
        }
        Ok(())
    }

    /// The same for the streams of one conversation.
    pub fn check_complete_for(&self, conversation: u32) -> Result<(), Violation> {
        let mut streams = self.streams.iter().filter(|stream| stream.conversation == conversation);
        streams.try_for_each(|stream| self.check_stream(stream))
    }

    fn check_stream(&self, stream: &Stream) -> Result<(), Violation> {
        if stream.state != StreamState::Open || stream.is_doubtful {
            return Ok(());
        }
        let unexplained = self.unexplained_refusals();
        let (mut had, mut owed_low, mut owed_high) = (stream.unattributed, 0, 0);
        for (at, (topic, cursor)) in self.topics.iter().zip(&stream.cursors).enumerate() {
            if !cursor.matches {
                continue;
            }
            let count = cursor.delivered + cursor.missed;
            let low = topic.settled.saturating_sub(cursor.fed_before).saturating_sub(unexplained);
            let low = low.saturating_sub(self.expired(at));
            let high = topic.fed.saturating_sub(cursor.settled_before);
            had += count;
            owed_low += low;
            owed_high += high;
            ensure!(
                (count >= low || stream.unattributed > 0)
                    && (count <= high || stream.may_overtell()),
                "{}: {:?} had {} messages and was told of {} lost; owed are {low} to {high}",
                topic.name,
                stream.filters,
                cursor.delivered,
                cursor.missed
            );
        }
        // Gaps that are told again together may be told again though some were heard.
        let owed_high = if stream.may_overtell() { u64::MAX } else { owed_high };
        // Of what is told as lost without a name nobody knows what was a retained value.
        let retained = self.retained_at_most(stream).min(stream.unattributed);
        let owed_high = owed_high.saturating_add(retained);
        ensure!(
            (owed_low..=owed_high).contains(&had),
            "{:?} had or lost {had} messages in all; owed are {owed_low} to {owed_high}",
            stream.filters
        );
        Ok(())
    }

    /// The shard's counters tell the same story.
    pub fn check_metrics(&self, metrics: &Metrics) -> Result<(), Violation> {
        let settled: u64 = self.topics.iter().map(|topic| topic.settled).sum();
        let fed: u64 = self.topics.iter().map(|topic| topic.fed).sum();
        let unexplained = self.unexplained_refusals();
        ensure!(
            (settled.saturating_sub(unexplained)..=fed).contains(&metrics.messages_in),
            "{} messages counted in; {settled} to {fed} were accepted",
            metrics.messages_in
        );
        ensure!(
            metrics.messages_out == self.delivered,
            "{} messages counted out; {} were",
            metrics.messages_out,
            self.delivered
        );
        let dropped = metrics.dropped_slow_consumer + metrics.dropped_memory;
        ensure!(
            dropped >= self.missed,
            "{dropped} messages counted as dropped; {} were told",
            self.missed
        );
        let is_known = |stream: &Stream| {
            stream.state == StreamState::Open && !stream.is_doubtful && stream.tells_drops_alone()
        };
        if !self.has_recovered && self.streams.iter().all(is_known) {
            ensure!(
                dropped == self.missed,
                "{dropped} messages dropped; {} were told",
                self.missed
            );
        }
        let (mut low, mut high) = (0, 0);
        for publication in &self.publications {
            let (surely, maybe) = publication.matching;
            match publication.fate {
                Fate::Settled => {
                    low += u64::from(surely);
                    high += u64::from(maybe);
                }
                Fate::Fed | Fate::Doubtful => {
                    high += u64::from(maybe.max(self.topics[publication.topic].matching_ever));
                }
                Fate::Written | Fate::Refused => {}
            }
        }
        if unexplained > 0 {
            low = 0;
        }
        let accounted = metrics.messages_out
            + dropped
            + metrics.dropped_disconnect
            + metrics.ttl_expired
            + metrics.queued_messages;
        // What was sent again was in a queue twice.
        let low = low + self.extra;
        let mut high = high + self.requeued + self.perhaps_requeued;
        // How many of these were queued and never came is not known.
        high += self.streams.iter().map(|stream| self.retained_at_most(stream)).sum::<u64>();
        high += (0..self.streams.len()).map(|at| self.replayed_at_most(at)).sum::<u64>();
        high += if self.has_recovered { dropped } else { 0 };
        // A retained value may end by its time to live too.
        let is_mortal = |index: &&u32| self.publications[**index as usize].ttl_us > 0;
        let values = self.topics.iter().flat_map(|topic| &topic.retained);
        high += values.filter(is_mortal).count() as u64;
        ensure!(
            (low..=high).contains(&accounted),
            "{low} to {high} messages were queued, but delivered ({}), dropped ({dropped}), lost with \
             their subscription ({}), expired ({}) and still queued ({}) make {accounted}",
            metrics.messages_out,
            metrics.dropped_disconnect,
            metrics.ttl_expired,
            metrics.queued_messages
        );
        let open = self.streams.iter().filter(|stream| stream.in_high).count() as u64;
        // One that was paused and has not heard so when the drain begins waits on.
        let paused = self.streams.iter().filter(|stream| stream.was_parked).count() as u64;
        let open = open + paused.min(metrics.parked);
        let sure = self.streams.iter().filter(|stream| stream.in_low).count() as u64;
        ensure!(
            (sure..=open).contains(&metrics.subscriptions),
            "{} subscriptions counted; there are {sure} to {open}",
            metrics.subscriptions
        );
        Ok(())
    }
}
