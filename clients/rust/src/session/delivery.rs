//! What a connection delivers to its subscriptions: messages, losses, and what is said about them.
//!
//! Messages of a run are collected, and handed to their subscription together; only then do they
//! count as received. Invariant: what was collected is handed over before anything else is told to a
//! subscription, and before the connection is left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexusd_wire::{Header, SubscriptionId, TopicId, control};
use tokio::time::Instant;

use super::{Session, fault};
use crate::entry::Owed;
use crate::error::Error;
use crate::event::{Event, Gap, GapReason, MissedRange, ReplayComplete, Warning};
use crate::inbox::{Fill, Inbox};
use crate::limits;
use crate::message::{Delivery, Message};

/// Whom the messages belong to that come now.
pub(super) enum Run {
    /// No Deliver has come yet.
    None,
    /// A subscription that was ended here and is not yet ended there.
    Nobody,
    Of {
        request: u64,
        inbox: Arc<Inbox>,
        delivery: Delivery,
    },
}

/// The subscriptions whose counts the daemon does not know.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    requests: Vec<u64>,
    /// When it is to hear of them at the latest.
    due: Option<Instant>,
    counts: Vec<(SubscriptionId, u64)>,
}

/// Counts in one StreamAck frame, which is bounded like all control frames.
const ACKS_PER_FRAME: usize = 4_096;

impl Session<'_> {
    /// The messages from here on belong to this subscription.
    pub(super) fn begin_run(&mut self, id: SubscriptionId, delivery: Delivery) {
        let subscriptions = &mut self.task.subscriptions;
        self.run = match subscriptions.request_of(id).zip(subscriptions.by_id(id)) {
            Some((request, entry)) => {
                Run::Of { request, inbox: Arc::clone(&entry.inbox), delivery }
            }
            None => Run::Nobody,
        };
    }

    #[inline]
    pub(super) fn on_message(
        &mut self,
        header: &Header,
        keep: impl FnOnce() -> Bytes,
    ) -> Result<(), Error> {
        let delivery = match self.run {
            Run::Of { delivery, .. } => delivery,
            Run::Nobody => return Ok(()),
            Run::None => return Err(fault("a message belongs to no subscription")),
        };
        let id = header.topic();
        let topic = match &self.last_topic {
            Some((last, topic)) if *last == id => Arc::clone(topic),
            _ => {
                let topic = self.topics.get(&id);
                let topic = topic.ok_or_else(|| fault("a message has a topic without a name"))?;
                self.last_topic = Some((id, Arc::clone(topic)));
                Arc::clone(topic)
            }
        };
        let origin = match header.origin() {
            0 => self.node.into(),
            handle => *self
                .nodes
                .get(&handle)
                .ok_or_else(|| fault("a message has an origin without an id"))?,
        };
        let message = Message::new(topic, keep(), origin, delivery);
        self.arrived_bytes += message.frame_bytes();
        self.arrived.push(Event::Message(message));
        Ok(())
    }

    /// Hands the collected messages to their subscription.
    pub(crate) fn hand_over(&mut self) {
        if self.arrived.is_empty() {
            return;
        }
        if let Run::Of { request, inbox, .. } = &self.run {
            let owed = match self.task.subscriptions.by_request(*request) {
                Some(entry) => entry.on_received(&self.arrived, self.arrived_bytes, self.node),
                None => Owed::default(),
            };
            let fill = inbox.append(&mut self.arrived, self.arrived_bytes);
            if fill == Fill::Full && !self.full.iter().any(|full| Arc::ptr_eq(full, inbox)) {
                self.full.push(Arc::clone(inbox));
            }
            if owed.is_first {
                self.unacknowledged.add(*request);
            }
            if owed.is_due {
                self.acknowledge();
            }
        }
        self.arrived.clear();
        self.arrived_bytes = 0;
    }

    /// When the daemon is to be told what has come.
    pub(crate) fn ack_due(&self) -> Option<Instant> {
        self.unacknowledged.due
    }

    /// Tells the daemon how much of each subscription has come.
    pub(crate) fn acknowledge(&mut self) {
        let Unacknowledged { requests, due, counts } = &mut self.unacknowledged;
        *due = None;
        counts.clear();
        for request in requests.drain(..) {
            let entry = self.task.subscriptions.by_request(request);
            counts.extend(entry.and_then(|entry| entry.acknowledge()));
        }
        for counts in counts.chunks(ACKS_PER_FRAME) {
            self.encoder.stream_ack(self.sender.control(), counts);
        }
    }

    pub(super) fn on_gap(&mut self, body: &control::Gap<'_>) {
        self.hand_over();
        let Some(entry) = self.task.subscriptions.by_id(body.subscription().into()) else {
            return;
        };
        let mut gap = Gap {
            reason: GapReason::of(body.reason()),
            missed: Some(body.missed()).filter(|missed| *missed != u64::MAX),
            ranges: Vec::new(),
            elsewhere: body.rest(),
        };
        for range in body.entries().into_iter().flatten() {
            let (first, last) = (range.first(), range.last());
            match self.topics.get(&TopicId(range.topic())) {
                Some(topic) => {
                    entry.on_lost(topic, last, self.node);
                    let topic = Arc::clone(topic);
                    gap.ranges.push(MissedRange { topic, first, last });
                }
                // Lost before the daemon had a reason to name it.
                None => {
                    let missed = last.saturating_sub(first).saturating_add(1);
                    gap.elsewhere = gap.elsewhere.saturating_add(missed);
                }
            }
        }
        entry.inbox.append_notice(Event::Gap(gap.clone()));
        self.task.shared.tell_gap(&entry.wanted.filters, &gap);
    }

    pub(super) fn on_warning(&mut self, body: &control::BackpressureWarning<'_>) {
        self.hand_over();
        let Some(entry) = self.task.subscriptions.by_id(body.subscription().into()) else {
            return;
        };
        let warning = Warning {
            dropped: body.dropped(),
            expired: body.expired(),
            depth: body.depth(),
            limit: body.limit(),
            reason: GapReason::of(body.reason()),
            oldest_age: Duration::from_millis(body.oldest_age_ms()),
        };
        entry.inbox.append_notice(Event::Warning(warning.clone()));
        self.task.shared.tell_warning(&entry.wanted.filters, &warning);
    }

    pub(super) fn on_replay_complete(
        &mut self,
        topic: TopicId,
        body: &control::ReplayComplete<'_>,
    ) {
        self.hand_over();
        let Some(entry) = self.task.subscriptions.by_id(body.subscription().into()) else {
            return;
        };
        // A topic has no name here if all that was to be replayed of it has expired.
        if let Some(topic) = self.topics.get(&topic) {
            entry.inbox.append_notice(Event::ReplayComplete(ReplayComplete {
                topic: Arc::clone(topic),
                replayed: body.replayed_count(),
                latest_sequence: body.latest_sequence(),
            }));
        }
    }
}

impl Unacknowledged {
    /// Something has come for a subscription that is not among them.
    fn add(&mut self, request: u64) {
        if self.due.is_none() {
            self.due = Some(Instant::now() + limits::ACK_WITHIN);
        }
        self.requests.push(request);
    }
}
