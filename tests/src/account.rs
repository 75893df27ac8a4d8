//! The account of one subscription: every message of its topics, delivered or lost, in order.

use std::collections::HashMap;
use std::sync::Arc;

use nexusd_wire::SubscriptionId;

use crate::heard::{Delivery, Heard, Loss};

/// Checks that the numbers of every topic go on without a hole: each is delivered once, in order, or
/// told as lost in its place. Losses that a Gap only counts (those of topics beyond its entries) are
/// set against the holes that were seen.
#[derive(Debug)]
pub struct Account {
    subscription: SubscriptionId,
    /// The newest number of each topic that was received or told as lost.
    topics: HashMap<Arc<str>, u64>,
    received: u64,
    missed: u64,
    gaps: u64,
    /// Gaps of which nobody knows how many messages they are.
    unknown: u64,
    /// Lost messages that were counted without a topic.
    unnamed: u64,
    /// Numbers that were passed over without a Gap that names them.
    holes: u64,
}

impl Account {
    /// For a subscription that was there before its topics.
    pub fn new(subscription: SubscriptionId) -> Self {
        Self {
            subscription,
            topics: HashMap::new(),
            received: 0,
            missed: 0,
            gaps: 0,
            unknown: 0,
            unnamed: 0,
            holes: 0,
        }
    }

    /// Counts a topic's numbers from behind `sequence`: the subscription had come so far before.
    pub fn begin_behind(&mut self, topic: &str, sequence: u64) {
        self.topics.insert(Arc::from(topic), sequence);
    }

    /// Takes what was heard, if it belongs to the subscription.
    ///
    /// # Panics
    /// If a message comes twice, out of order, or behind a hole that nobody told of.
    pub fn take(&mut self, heard: &Heard) {
        match heard {
            Heard::Message(message) if message.subscription == self.subscription => {
                self.receive(message);
            }
            Heard::Gap(loss) if loss.subscription == self.subscription => self.lose(loss),
            _ => {}
        }
    }

    fn receive(&mut self, message: &Delivery) {
        self.received += 1;
        let last = self.topics.entry(Arc::clone(&message.topic)).or_insert(0);
        assert!(
            message.sequence > *last,
            "{} came with number {} after {last}",
            message.topic,
            message.sequence
        );
        self.holes += message.sequence - *last - 1;
        *last = message.sequence;
        assert!(
            self.holes <= self.unnamed,
            "{}: {} messages before number {} are missing and nobody told",
            message.topic,
            self.holes - self.unnamed,
            message.sequence
        );
    }

    fn lose(&mut self, loss: &Loss) {
        self.gaps += 1;
        if loss.is_unknown() {
            self.unknown += 1;
        } else {
            self.missed += loss.missed;
        }
        self.unnamed += loss.rest;
        let mut named = 0;
        for (topic, first, last_lost) in &loss.entries {
            assert!(first <= last_lost, "{topic}: {first} to {last_lost} are lost");
            named += last_lost - first + 1;
            let last = self.topics.entry(Arc::clone(topic)).or_insert(0);
            assert!(*first > *last, "{topic}: {first} was lost after {last} had come");
            self.holes += first - *last - 1;
            *last = *last_lost;
        }
        let is_sum = loss.is_unknown() || loss.missed == named + loss.rest;
        assert!(is_sum, "a Gap's sum: {loss:?}");
        assert!(self.holes <= self.unnamed, "a hole nobody told of before {loss:?}");
    }

    /// Whose account it is.
    pub fn subscription(&self) -> SubscriptionId {
        self.subscription
    }

    /// Messages received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Messages told as lost so far.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Gaps so far.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Gaps of unknown size so far.
    pub fn unknown_gaps(&self) -> u64 {
        self.unknown
    }

    /// Messages accounted for so far.
    pub fn accounted(&self) -> u64 {
        self.received + self.missed
    }

    /// The newest number of a topic that was accounted for by name.
    pub fn newest(&self, topic: &str) -> u64 {
        self.topics.get(topic).copied().unwrap_or(0)
    }
}
