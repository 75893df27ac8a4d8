//! What the shards count, brought together: each answers for itself, and once all have, the sum goes
//! to the control thread.

use std::sync::{Mutex, PoisonError};

use async_channel::Sender;
use nexusd_core::Metrics;

/// The newest counters of every shard.
#[derive(Debug)]
pub(crate) struct Samples {
    shards: Mutex<Vec<Answer>>,
    sums: Sender<Metrics>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Answer {
    metrics: Metrics,
    /// It came after the last sum.
    is_new: bool,
}

impl Samples {
    pub(crate) fn new(shards: usize, sums: Sender<Metrics>) -> Self {
        Self { shards: Mutex::new(vec![Answer::default(); shards]), sums }
    }

    /// What a shard has counted.
    pub(crate) fn on_answer(&self, shard: usize, metrics: &Metrics) {
        let mut answers = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        answers[shard] = Answer { metrics: *metrics, is_new: true };
        if answers.iter().all(|answer| answer.is_new) {
            answers.iter_mut().for_each(|answer| answer.is_new = false);
            // A control thread that is behind learns as much from the next sum.
            let _ = self.sums.try_send(sum(&answers));
        }
    }

    /// All together, as last heard.
    pub(crate) fn sum(&self) -> Metrics {
        sum(&self.shards.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn sum(answers: &[Answer]) -> Metrics {
    let mut sum = Metrics::default();
    for answer in answers {
        sum += answer.metrics;
    }
    sum
}
