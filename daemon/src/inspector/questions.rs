//! What shards were asked and have not answered.
//!
//! A question is known until its answer comes, whether or not somebody still waits for that: it lies in the
//! shard's mailbox, which others need as well. Signs of life are asked for beside all others, one of each shard
//! at a time, so that no number of questions and of people who look makes a node seem ill.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nexusd_core::inspection::{Answer, Reply, Request, Subject};
use nexusd_core::{Command, ConnectionId};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Questions that wait for an answer.
const QUESTIONS_MAX: usize = 256;

/// The open questions to all shards.
#[derive(Debug)]
pub(crate) struct Questions {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    asked: AtomicU64,
    pulses: Box<[watch::Sender<Pulse>]>,
}

/// A shard's sign of life.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Pulse {
    /// Since when it is waited for; `None`: the last one came.
    pub(super) since: Option<Instant>,
    /// The question is in the mailbox.
    is_sent: bool,
}

impl Questions {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            asked: AtomicU64::new(0),
            pulses: (0..shards).map(|_| watch::Sender::default()).collect(),
        }
    }

    /// A shard has answered. Nobody may wait for that any more.
    pub(crate) fn on_reply(&self, Reply { number, answer }: Reply) {
        if let Some(pulse) = self.pulse_of(number) {
            pulse.send_replace(Pulse::default());
        } else if let Some(waiting) = self.lock().remove(&number) {
            // As above.
            let _ = waiting.send(answer);
        }
    }

    /// A number to ask with, and what the answer comes through; `None` if too much is asked already.
    pub(super) fn open(&self) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let mut waiting = self.lock();
        if waiting.len() >= QUESTIONS_MAX {
            return None;
        }
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        waiting.insert(number, sender);
        Some((number, receiver))
    }

    /// A question that will not be answered.
    pub(super) fn close(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Asks a shard for a sign of life, unless that is asked for already; `send` says whether it took the question.
    pub(super) fn feel(&self, shard: usize, send: impl FnOnce(Command) -> bool) {
        // The cheapest question that there is.
        let nobody = ConnectionId { index: u32::MAX, generation: u32::MAX };
        let subject = Subject::Clients(Some(nobody));
        let request = Box::new(Request::List { subject, cursor: 0, entries: 1 });
        let command = Command::Inspect { number: number_of(shard), request };
        self.pulses[shard].send_if_modified(|pulse| {
            pulse.since.get_or_insert_with(Instant::now);
            if !pulse.is_sent {
                pulse.is_sent = send(command);
            }
            // Nobody waits for it to be asked.
            false
        });
    }

    /// A shard's sign of life, as it comes.
    pub(super) fn pulse(&self, shard: usize) -> watch::Receiver<Pulse> {
        self.pulses[shard].subscribe()
    }

    /// The shard whose sign of life has this number.
    fn pulse_of(&self, number: u64) -> Option<&watch::Sender<Pulse>> {
        self.pulses.get(usize::try_from(u64::MAX - number).ok()?)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number with which a shard is asked for its sign of life; other questions count from 0.
fn number_of(shard: usize) -> u64 {
    u64::MAX - shard as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_nobody_waits_for_counts_until_it_is_answered() {
        let questions = Questions::new(1);
        let mut numbers: Vec<_> =
            std::iter::from_fn(|| questions.open().map(|open| open.0)).collect();
        assert_eq!(numbers.len(), QUESTIONS_MAX, "their receivers are gone, and they still count");
        let number = numbers.pop().expect("one of them");
        questions.on_reply(Reply { number, answer: Answer::Done(true) });
        let (_, mut receiver) = questions.open().expect("room for one");
        assert!(questions.open().is_none());
        assert!(receiver.try_recv().is_err(), "that was another question");
        questions.close(numbers[0]);
        assert!(questions.open().is_some());
    }

    #[test]
    fn a_sign_of_life_is_asked_for_once_until_it_comes() {
        let questions = Questions::new(2);
        let asked = std::cell::Cell::new(0);
        let ask = |takes: bool| {
            questions.feel(1, |command| {
                assert!(
                    matches!(command, Command::Inspect { number, .. } if number == u64::MAX - 1)
                );
                asked.set(asked.get() + 1);
                takes
            });
            questions.pulse(1).borrow().since.expect("it was asked for")
        };
        let first = ask(false);
        assert_eq!(ask(true), first, "it has been waited for since the first time");
        assert_eq!((ask(true), asked.get()), (first, 2));
        assert!(questions.pulse(0).borrow().since.is_none());
        questions.on_reply(Reply { number: u64::MAX - 1, answer: Answer::Done(true) });
        assert!(questions.pulse(1).borrow().since.is_none());
        ask(true);
        assert_eq!(asked.get(), 3);
    }
}
