//! What waits in one subscription for the application: filled by the connection, emptied by the
//! subscription's handle.
//!
//! The bound is soft by one read: the connection fills in what it has read and then stops reading
//! while an inbox is full. Invariant: a producer that was told `Full` is woken once the inbox has
//! room again or has no consumer any more.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::entry::Identity;
use crate::error::Error;
use crate::event::{Event, GapReason};

/// Whether more may be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    Room,
    Full,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
    consumer: Option<Waker>,
    producer_waits: bool,
    has_consumer: bool,
    /// How the daemon knows the subscription, once it has confirmed it.
    identity: Option<Identity>,
    /// Nothing follows; why.
    ended: Option<Error>,
}

impl Inbox {
    /// The application holds what it took last while new events come in, so each of the two gets
    /// half of the room.
    pub(crate) fn new(messages: usize, bytes: usize) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                events: VecDeque::new(),
                bytes: 0,
                consumer: None,
                producer_waits: false,
                has_consumer: true,
                identity: None,
                ended: None,
            }),
            messages_max: (messages / 2).max(1),
            bytes_max: (bytes / 2).max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill_of(&self, waiting: &Waiting) -> Fill {
        let full = waiting.events.len() >= self.messages_max || waiting.bytes >= self.bytes_max;
        if full && waiting.has_consumer { Fill::Full } else { Fill::Room }
    }

    /// Moves `events`, which occupy `bytes`, behind what waits. The caller that hears `Full` is
    /// woken when there is room.
    pub(crate) fn append(&self, events: &mut Vec<Event>, bytes: usize) -> Fill {
        let mut waiting = self.lock();
        if !waiting.has_consumer {
            drop(waiting);
            events.clear();
            return Fill::Room;
        }
        waiting.events.extend(events.drain(..));
        waiting.bytes += bytes;
        let fill = self.fill_of(&waiting);
        waiting.producer_waits = fill == Fill::Full;
        let consumer = waiting.consumer.take();
        drop(waiting);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
        fill
    }

    /// Appends what is no message. Of several reconnections with nothing between them one is told.
    pub(crate) fn append_notice(&self, notice: Event) {
        let is_reconnection = |event: &Event| matches!(event, Event::Gap(gap) if gap.reason == GapReason::Reconnected);
        let mut waiting = self.lock();
        let is_repeated =
            is_reconnection(&notice) && waiting.events.back().is_some_and(is_reconnection);
        if !waiting.has_consumer || is_repeated {
            return;
        }
        waiting.events.push_back(notice);
        let consumer = waiting.consumer.take();
        drop(waiting);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    /// Whether the producer still has to wait.
    pub(crate) fn fill(&self) -> Fill {
        let mut waiting = self.lock();
        let fill = self.fill_of(&waiting);
        waiting.producer_waits = fill == Fill::Full;
        fill
    }

    /// A daemon has confirmed the subscription.
    pub(crate) fn identify(&self, identity: Identity) {
        self.lock().identity = Some(identity);
    }

    /// How the daemon that confirmed it last knows the subscription.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.lock().identity
    }

    /// Nothing will follow what waits.
    pub(crate) fn end(&self, why: Error) {
        let mut waiting = self.lock();
        waiting.ended.get_or_insert(why);
        let consumer = waiting.consumer.take();
        drop(waiting);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    /// Why nothing follows, once it is so.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.lock().ended.clone()
    }

    /// Takes all that waits into `events`, which must be empty. `Ready(false)` if nothing waits and
    /// nothing will follow. `wake_producer` is called when the producer waits for room.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<Event>,
        wake_producer: impl FnOnce(),
    ) -> Poll<bool> {
        let mut waiting = self.lock();
        if waiting.events.is_empty() {
            if waiting.ended.is_some() {
                return Poll::Ready(false);
            }
            match &mut waiting.consumer {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        std::mem::swap(&mut waiting.events, events);
        waiting.bytes = 0;
        let producer_waits = std::mem::take(&mut waiting.producer_waits);
        drop(waiting);
        if producer_waits {
            wake_producer();
        }
        Poll::Ready(true)
    }

    /// The application is not interested any more; what waits is dropped.
    pub(crate) fn abandon(&self) {
        let mut waiting = self.lock();
        waiting.has_consumer = false;
        let events = std::mem::take(&mut waiting.events);
        drop(waiting);
        drop(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Gap;

    fn gaps(count: usize) -> Vec<Event> {
        let gap = Gap { reason: GapReason::SlowConsumer, ..Gap::reconnected() };
        vec![Event::Gap(gap); count]
    }

    #[test]
    fn a_producer_told_full_is_woken_by_the_consumer_that_makes_room() {
        let inbox = Inbox::new(4, 1 << 20);
        assert_eq!(inbox.append(&mut gaps(1), 8), Fill::Room);
        assert_eq!(inbox.append(&mut gaps(1), 8), Fill::Full);
        let mut woken = 0;
        let mut taken = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        let polled = inbox.poll_take(&mut cx, &mut taken, || woken += 1);
        assert_eq!((polled, taken.len(), woken), (Poll::Ready(true), 2, 1));
        assert_eq!(inbox.fill(), Fill::Room);
        taken.clear();
        assert_eq!(inbox.append(&mut gaps(1), 8), Fill::Room);
        let polled = inbox.poll_take(&mut cx, &mut taken, || woken += 1);
        assert_eq!((polled, woken), (Poll::Ready(true), 1));
    }

    #[test]
    fn bytes_fill_an_inbox_too() {
        let inbox = Inbox::new(1_000, 1_000);
        assert_eq!(inbox.append(&mut gaps(1), 499), Fill::Room);
        assert_eq!(inbox.append(&mut gaps(1), 1), Fill::Full);
    }

    #[test]
    fn what_waits_is_still_taken_after_the_end() {
        let inbox = Inbox::new(4, 1 << 20);
        inbox.append(&mut gaps(1), 8);
        inbox.end(Error::Closed);
        let mut taken = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(inbox.poll_take(&mut cx, &mut taken, || ()), Poll::Ready(true));
        taken.clear();
        assert_eq!(inbox.poll_take(&mut cx, &mut taken, || ()), Poll::Ready(false));
        assert!(matches!(inbox.ended(), Some(Error::Closed)));
    }

    #[test]
    fn reconnections_without_a_message_between_them_are_told_once() {
        let inbox = Inbox::new(4, 1 << 20);
        inbox.append_notice(Event::Gap(Gap::reconnected()));
        inbox.append_notice(Event::Gap(Gap::reconnected()));
        let mut taken = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(inbox.poll_take(&mut cx, &mut taken, || ()), Poll::Ready(true));
        assert_eq!(taken.len(), 1);
    }

    #[test]
    fn an_abandoned_inbox_swallows_everything_and_is_never_full() {
        let inbox = Inbox::new(2, 1 << 20);
        assert_eq!(inbox.append(&mut gaps(1), 8), Fill::Full);
        inbox.abandon();
        assert_eq!(inbox.fill(), Fill::Room);
        let mut events = gaps(3);
        assert_eq!(inbox.append(&mut events, 8), Fill::Room);
        assert!(events.is_empty());
    }
}
