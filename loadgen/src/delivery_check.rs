//! What all subscribers of a run must get, and how far they have come.
//!
//! Where each publisher has one topic, every subscriber must get all messages of its publisher:
//! [`LaneCheck`]. Where every subscriber wants what all publishers send: [`CrowdCheck`]. Where one publisher has very many topics, [`TopicCheck`] knows who must get which.

use std::ops::Range;
use std::sync::Arc;

use crate::lane::Lane;
use crate::sequence_check::{Faults, SequenceCheck};
use crate::stamp::Stamp;
use crate::topic_check::TopicCheck;

/// Checks what subscribers receive. Subscribers and lanes are counted from 0 over the whole run.
pub(crate) trait DeliveryCheck: Send {
    /// Takes a message that a subscriber received.
    fn on_stamp(&mut self, subscriber: usize, stamp: &Stamp);

    /// A subscriber has taken what one read brought.
    fn on_read_end(&mut self, subscriber: usize);

    /// How many of a lane's messages its slowest subscriber has had.
    fn delivered(&self, lane: usize) -> u64;

    /// What went wrong in all, once the publishers of these lanes have ended.
    fn faults(&self, lanes: &[Arc<Lane>]) -> Faults;
}

/// Every subscriber gets all messages of its lane.
#[derive(Debug)]
pub(crate) struct LaneCheck {
    checks: Vec<SequenceCheck>,
    /// How far each has come, beside each other so that the slowest is found quickly.
    progress: Vec<u64>,
    /// The subscribers of each lane.
    lanes: Vec<Range<usize>>,
}

impl LaneCheck {
    /// The check of lanes with this many subscribers each.
    pub(crate) fn new(subscribers: &[usize]) -> Self {
        let mut end = 0;
        let lanes: Vec<Range<usize>> = subscribers
            .iter()
            .map(|count| {
                let start = end;
                end += count;
                start..end
            })
            .collect();
        Self { checks: vec![SequenceCheck::default(); end], progress: vec![0; end], lanes }
    }
}

impl DeliveryCheck for LaneCheck {
    #[inline]
    fn on_stamp(&mut self, subscriber: usize, stamp: &Stamp) {
        self.checks[subscriber].on_counter(stamp.counter);
    }

    #[inline]
    fn on_read_end(&mut self, subscriber: usize) {
        self.progress[subscriber] = self.checks[subscriber].next();
    }

    #[inline]
    fn delivered(&self, lane: usize) -> u64 {
        self.progress[self.lanes[lane].clone()].iter().min().copied().unwrap_or(0)
    }

    fn faults(&self, lanes: &[Arc<Lane>]) -> Faults {
        let mut faults = Faults::default();
        for (lane, subscribers) in lanes.iter().zip(&self.lanes) {
            let total = lane.total().unwrap_or(0);
            for check in &self.checks[subscribers.clone()] {
                faults.add(&check.faults(total));
            }
        }
        faults
    }
}

/// Every subscriber gets all messages of all lanes; a stamp's topic is its lane.
#[derive(Debug)]
pub(crate) struct CrowdCheck {
    lanes: usize,
    /// Of each subscriber, those of all lanes.
    checks: Vec<SequenceCheck>,
    /// How far each has come.
    progress: Vec<u64>,
    /// Messages of lanes that there are not.
    foreign: u64,
}

impl CrowdCheck {
    /// The check of so many subscribers to all of so many lanes.
    pub(crate) fn new(subscribers: usize, lanes: usize) -> Self {
        let count = subscribers * lanes;
        Self {
            lanes,
            checks: vec![SequenceCheck::default(); count],
            progress: vec![0; count],
            foreign: 0,
        }
    }
}

impl DeliveryCheck for CrowdCheck {
    #[inline]
    fn on_stamp(&mut self, subscriber: usize, stamp: &Stamp) {
        let lane = stamp.topic as usize;
        if lane < self.lanes {
            self.checks[subscriber * self.lanes + lane].on_counter(stamp.counter);
        } else {
            self.foreign += 1;
        }
    }

    #[inline]
    fn on_read_end(&mut self, subscriber: usize) {
        for place in subscriber * self.lanes..(subscriber + 1) * self.lanes {
            self.progress[place] = self.checks[place].next();
        }
    }

    #[inline]
    fn delivered(&self, lane: usize) -> u64 {
        self.progress[lane..].iter().step_by(self.lanes).min().copied().unwrap_or(0)
    }

    fn faults(&self, lanes: &[Arc<Lane>]) -> Faults {
        let mut faults = Faults { foreign: self.foreign, ..Faults::default() };
        for (place, check) in self.checks.iter().enumerate() {
            let total = lanes[place % self.lanes].total().unwrap_or(0);
            faults.add(&check.faults(total));
        }
        faults
    }
}

impl DeliveryCheck for TopicCheck {
    #[inline]
    fn on_stamp(&mut self, subscriber: usize, stamp: &Stamp) {
        Self::on_stamp(self, subscriber, stamp);
    }

    #[inline]
    fn on_read_end(&mut self, _subscriber: usize) {}

    #[inline]
    fn delivered(&self, _lane: usize) -> u64 {
        Self::delivered(self)
    }

    fn faults(&self, lanes: &[Arc<Lane>]) -> Faults {
        Self::faults(self, lanes.first().map_or(&[], |lane| lane.by_topic()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_subscriber_of_a_lane_counts_and_other_lanes_do_not() {
        let mut check = LaneCheck::new(&[2, 1]);
        for (subscriber, counter) in [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)] {
            let stamp = Stamp { topic: 0, counter, intended_ns: 0, sent_ns: None };
            check.on_stamp(subscriber, &stamp);
            check.on_read_end(subscriber);
        }
        assert_eq!((check.delivered(0), check.delivered(1)), (1, 3));
    }

    #[test]
    fn everybody_must_get_what_everybody_publishes() {
        let mut check = CrowdCheck::new(2, 3);
        let mut receive = |subscriber, lane, counter| {
            let stamp = Stamp { topic: lane, counter, intended_ns: 0, sent_ns: None };
            check.on_stamp(subscriber, &stamp);
            check.on_read_end(subscriber);
        };
        for lane in 0..3 {
            receive(0, lane, 0);
        }
        for (lane, counter) in [(0, 0), (0, 1), (2, 1), (3, 0)] {
            receive(1, lane, counter);
        }
        assert_eq!([0, 1, 2].map(|lane| check.delivered(lane)), [1, 0, 1]);
        let lanes = [2, 1, 2].map(|sent| {
            let lane = Lane::new(1);
            lane.on_ended(sent, vec![sent]);
            Arc::new(lane)
        });
        // The first lacks the second of lanes 0 and 2, the second all of lane 1 and the first of lane 2.
        let expected = Faults { lost: 4, foreign: 1, ..Faults::default() };
        assert_eq!(check.faults(&lanes), expected);
    }
}
