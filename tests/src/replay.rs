//! What comes of one return to one subscription.

use std::collections::HashMap;
use std::sync::Arc;

use nexusd_wire::SubscriptionId;
use nexusd_wire::control::DeliveryMode;

use crate::heard::{Delivery, Heard, Replayed, Subscribed};

/// Checks that what was missed comes as replayed, topic by topic with a right ReplayComplete behind
/// it, and that what is live comes behind all of it.
#[derive(Debug)]
pub struct Replay {
    subscription: SubscriptionId,
    is_announced: bool,
    topics: HashMap<Arc<str>, Progress>,
    is_live: bool,
}

/// The replay of one topic.
#[derive(Default, Debug)]
struct Progress {
    count: u64,
    latest: u64,
    is_complete: bool,
}

impl Replay {
    /// Begins with what the daemon answered.
    pub fn new(answer: &Subscribed) -> Self {
        Self {
            subscription: answer.subscription,
            is_announced: answer.replay_started,
            topics: HashMap::new(),
            is_live: false,
        }
    }

    /// Takes what was heard, if it belongs to the subscription.
    ///
    /// # Panics
    /// If it comes in the wrong place, or a ReplayComplete is wrong.
    pub fn take(&mut self, heard: &Heard) {
        match heard {
            Heard::Message(message) if message.subscription == self.subscription => {
                self.receive(message);
            }
            Heard::ReplayComplete(replayed) if replayed.subscription == self.subscription => {
                self.complete(replayed);
            }
            _ => {}
        }
    }

    fn receive(&mut self, message: &Delivery) {
        if message.mode != DeliveryMode::Replay {
            assert!(self.is_over(), "{message:?} before the end of {self:?}");
            self.is_live = true;
            return;
        }
        assert!(self.is_announced && !self.is_live, "{message:?} is replayed: {self:?}");
        let progress = self.topics.entry(Arc::clone(&message.topic)).or_default();
        assert!(!progress.is_complete, "{message:?} behind the end of its replay");
        progress.count += 1;
        progress.latest = message.sequence;
    }

    fn complete(&mut self, told: &Replayed) {
        let progress = self.topics.get_mut(&told.topic);
        let progress = progress.unwrap_or_else(|| panic!("{told:?} without a message"));
        assert!(!progress.is_complete, "{told:?} for the second time");
        assert_eq!((told.count, told.latest), (progress.count, progress.latest), "{}", told.topic);
        progress.is_complete = true;
    }

    /// Whether all has come that was announced.
    pub fn is_over(&self) -> bool {
        self.is_announced != self.topics.is_empty()
            && self.topics.values().all(|progress| progress.is_complete)
    }

    /// Messages replayed so far.
    pub fn replayed(&self) -> u64 {
        self.topics.values().map(|progress| progress.count).sum()
    }
}
