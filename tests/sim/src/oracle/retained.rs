//! Retained values: one per topic, had once by every subscription that asks, before what is live.

use nexusd_wire::MessageFlags;

use super::history::{Before, Told};
use super::{Fate, Oracle, Publication, Stream, StreamState};
use crate::violation::{Violation, ensure};

impl Publication {
    /// Whether it sets or clears its topic's retained value.
    pub(super) fn is_retained(&self) -> bool {
        self.header.flags().contains(MessageFlags::RETAIN)
    }
}

impl Oracle {
    /// A message comes as its topic's retained value.
    pub(super) fn on_retained(
        &mut self,
        at: usize,
        (topic, index): (usize, u32),
        stride: u64,
        before: Before,
    ) -> Result<(), Violation> {
        let name = &self.topics[topic].name;
        let publication = &self.publications[index as usize];
        let number = publication.number;
        let stream = &mut self.streams[at];
        ensure!(
            stream.subscription.is_some() && stream.state != StreamState::Ended,
            "{name} {number}: a retained value for a subscription that is {:?}",
            stream.state
        );
        ensure!(
            publication.is_retained() && publication.payload_len > 0,
            "{name} {number}: comes as a retained value and is none"
        );
        let fed_at = stream.fed_at;
        let is_asked_once = stream.wants_retained && stream.retained_rounds == 1;
        ensure!(stream.retained_rounds > 0, "{name} {number}: nobody asked for retained values");
        let cursor = &mut stream.cursors[topic];
        ensure!(
            cursor.matches,
            "{name} {number}: a retained value that none of {:?} matches",
            stream.filters
        );
        ensure!(
            cursor.retained_count < stream.retained_rounds,
            "{name} {number}: a retained value for the second time"
        );
        ensure!(
            !is_asked_once || !cursor.has_live,
            "{name} {number}: the retained value comes behind live messages"
        );
        cursor.retained_count += 1;
        cursor.retained = number;
        let is_retained = true;
        stream.history.push(Told::Message { topic, stride, before, passed: 0, is_retained });
        stream.weigh_history();
        self.delivered += 1;
        self.extra += 1;
        let ledger = &self.topics[topic];
        let newer = ledger.retained.iter().map(|&index| &self.publications[index as usize]);
        let mut newer = newer.filter(|other| other.number > number);
        let is_old = newer.any(|newer| newer.settled_at > 0 && newer.settled_at < fed_at);
        ensure!(!is_old, "{name} {number}: a retained value that was replaced before");
        Ok(())
    }

    /// Retained values that a stream may have been queued.
    pub(super) fn retained_at_most(&self, stream: &Stream) -> u64 {
        let matching = self.topics.iter().zip(&stream.cursors);
        let topics =
            matching.filter(|(topic, cursor)| cursor.matches && !topic.retained.is_empty());
        topics.count() as u64 * stream.retained_rounds
    }

    /// Everything has come: a value that was surely there when the subscription was made, and stayed,
    /// was had.
    pub(super) fn check_retained(&self, at: usize) -> Result<(), Violation> {
        let stream = &self.streams[at];
        if stream.retained_rounds != 1 || !stream.wants_retained {
            return Ok(());
        }
        let mut missing = 0;
        for (topic, cursor) in self.topics.iter().zip(&stream.cursors) {
            if !cursor.matches || cursor.retained_count > 0 {
                continue;
            }
            let values = topic.retained.iter().map(|&index| &self.publications[index as usize]);
            let mut values = values.filter(|value| value.fate != Fate::Refused).peekable();
            let is_settled = |value: &Publication| {
                value.number > 0 && value.fate == Fate::Settled && value.settled_at < stream.fed_at
            };
            if values.peek().is_none() || !values.clone().all(is_settled) {
                continue;
            }
            let newest = values.max_by_key(|value| value.number);
            let is_missing =
                newest.is_some_and(|newest| newest.payload_len > 0 && newest.ttl_us == 0);
            missing += u64::from(is_missing);
            ensure!(
                missing <= stream.unattributed,
                "{}: the retained value never came to stream {at} {:?}, and no gap told of it",
                topic.name,
                stream.filters
            );
        }
        Ok(())
    }
}
