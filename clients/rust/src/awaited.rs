//! Who waits for the answer to what was published.
//!
//! Invariant: sequences in [`Awaited`] rise from front to back; every waiter is resolved exactly
//! once, with the answer or with why there will be none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::error::Error;
use crate::publication::PublishAck;

/// An answer to an acknowledged publish.
pub(crate) type AckResult = Result<PublishAck, Error>;

/// One who waits.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// For the acknowledgement of one message.
    Ack(oneshot::Sender<AckResult>),
    /// For the acknowledgement of the message at an index of a batch.
    Batch(Arc<AckBatch>, usize),
    /// For the Pong behind everything that was published before.
    Flush(oneshot::Sender<Result<(), Error>>),
}

impl Waiter {
    // A receiver that is gone has given up waiting; nobody misses the answer.
    fn resolve(self, result: AckResult) {
        match self {
            Self::Ack(sender) => {
                let _ = sender.send(result);
            }
            Self::Batch(batch, index) => batch.resolve(index, result),
            Self::Flush(sender) => {
                let _ = sender.send(result.map(|_| ()));
            }
        }
    }
}

/// The answers to a batch, collected.
#[derive(Debug)]
pub(crate) struct AckBatch {
    collected: Mutex<Collected>,
    complete: Notify,
}

#[derive(Debug)]
struct Collected {
    results: Vec<Option<AckResult>>,
    missing: usize,
}

impl AckBatch {
    pub(crate) fn new(messages: usize) -> Arc<Self> {
        Arc::new(Self {
            collected: Mutex::new(Collected { results: vec![None; messages], missing: messages }),
            complete: Notify::new(),
        })
    }

    /// The answer to the message at `index`; the first one counts.
    pub(crate) fn resolve(&self, index: usize, result: AckResult) {
        let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = collected.results.get_mut(index)
            && slot.is_none()
        {
            *slot = Some(result);
            collected.missing -= 1;
            if collected.missing == 0 {
                self.complete.notify_one();
            }
        }
    }

    /// Waits until all answers are there.
    pub(crate) async fn completed(&self) {
        loop {
            let is_complete = {
                let collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
                collected.missing == 0
            };
            if is_complete {
                return;
            }
            self.complete.notified().await;
        }
    }

    /// The answers so far, `missing` for those that are not there.
    pub(crate) fn take(&self, missing: &Error) -> Vec<AckResult> {
        let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        let results = std::mem::take(&mut collected.results);
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(missing.clone()))).collect()
    }
}

/// All who wait for answers on the connection, by the publisher's sequence.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    waiters: VecDeque<(u64, Waiter)>,
}

impl Awaited {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// `sequence` is above all that wait.
    pub(crate) fn push(&mut self, sequence: u64, waiter: Waiter) {
        debug_assert!(self.waiters.back().is_none_or(|(last, _)| *last < sequence));
        self.waiters.push_back((sequence, waiter));
    }

    /// Answers the one who waits for `sequence`, if anybody does.
    pub(crate) fn resolve(&mut self, sequence: u64, result: AckResult) {
        let index = match self.waiters.front() {
            Some((first, _)) if *first == sequence => Ok(0),
            _ => self.waiters.binary_search_by_key(&sequence, |(sequence, _)| *sequence),
        };
        if let Ok(index) = index
            && let Some((_, waiter)) = self.waiters.remove(index)
        {
            waiter.resolve(result);
        }
    }

    /// Answers all below `sequence` by what `why` says of each.
    pub(crate) fn give_up_below(&mut self, sequence: u64, why: impl Fn(u64) -> Error) {
        while let Some((first, _)) = self.waiters.front()
            && *first < sequence
        {
            if let Some((first, waiter)) = self.waiters.pop_front() {
                waiter.resolve(Err(why(first)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: PublishAck = PublishAck { sequence: 9, delivered: 1, dropped: 0, blocked: 0 };

    #[test]
    fn answers_find_their_waiters_in_any_order() {
        let mut awaited = Awaited::default();
        let mut receivers = Vec::new();
        for sequence in [2, 3, 7] {
            let (sender, receiver) = oneshot::channel();
            awaited.push(sequence, Waiter::Ack(sender));
            receivers.push(receiver);
        }
        awaited.resolve(3, Ok(ACK));
        awaited.resolve(4, Ok(ACK));
        awaited.give_up_below(7, |_| Error::OutcomeUnknown);
        assert!(matches!(receivers[1].try_recv(), Ok(Ok(ack)) if ack == ACK));
        assert!(matches!(receivers[0].try_recv(), Ok(Err(Error::OutcomeUnknown))));
        assert!(receivers[2].try_recv().is_err());
        assert_eq!(awaited.len(), 1);
    }

    #[test]
    fn a_batch_keeps_its_order_and_its_first_answers() {
        let batch = AckBatch::new(3);
        batch.resolve(2, Ok(ACK));
        batch.resolve(0, Err(Error::Draining));
        batch.resolve(0, Ok(ACK));
        batch.resolve(3, Ok(ACK));
        let results = batch.take(&Error::Closed);
        assert!(matches!(results.as_slice(), [Err(Error::Draining), Err(Error::Closed), Ok(_)]));
    }
}
