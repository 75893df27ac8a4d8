//! The subscriptions that are known here, by their ids: those that have a stream, and those that had one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nexusd_wire::SubscriptionId;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::limits::PARKED_MAX;
use crate::progress::Progress;
use crate::proto::UnsubscribeResponse;

/// Orders on their way to a stream.
pub(crate) const ORDERS: usize = 4;

/// What is asked of a subscription's stream by other calls.
#[derive(Debug)]
pub(crate) enum Order {
    /// Another stream goes on with it.
    Leave(oneshot::Sender<Progress>),
    /// End it, or let it wait.
    Unsubscribe { pause: bool, answer: oneshot::Sender<UnsubscribeResponse> },
}

/// A subscription.
#[derive(Debug)]
struct Entry {
    filters: Arc<[String]>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It has a stream.
    Streaming(mpsc::Sender<Order>),
    /// Somebody is about to go on with it.
    Returning,
    /// It waits for its client.
    Parked { progress: Box<Progress>, since: Instant },
}

/// What is known of a subscription that somebody asks for.
#[derive(Debug)]
pub(crate) enum Known {
    /// It has a stream.
    Streaming(mpsc::Sender<Order>),
    /// It waits for its client, and is now returning.
    Parked(Box<Progress>),
}

#[derive(Debug)]
pub(crate) struct Registry {
    entries: Mutex<HashMap<SubscriptionId, Entry>>,
    /// How long the daemon keeps subscriptions without a stream.
    parked_ttl: Duration,
}

impl Registry {
    pub(crate) fn new(parked_ttl: Duration) -> Self {
        Self { entries: Mutex::default(), parked_ttl }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream begins.
    pub(crate) fn begin(
        &self,
        id: SubscriptionId,
        filters: Arc<[String]>,
        orders: mpsc::Sender<Order>,
    ) {
        self.lock().insert(id, Entry { filters, state: State::Streaming(orders) });
    }

    /// Somebody wants to go on with a subscription: its filters, and where it is.
    pub(crate) fn find(&self, id: SubscriptionId) -> Result<(Arc<[String]>, Known), Status> {
        let mut entries = self.lock();
        self.forget_expired(&mut entries);
        // One whose stream has ended and left no word was served by a task that is no more.
        let is_lost =
            |entry: &Entry| matches!(&entry.state, State::Streaming(orders) if orders.is_closed());
        if entries.get(&id).is_some_and(is_lost) {
            entries.remove(&id);
        }
        let entry = entries.get_mut(&id).ok_or_else(not_found)?;
        let known = match std::mem::replace(&mut entry.state, State::Returning) {
            State::Parked { progress, .. } => Known::Parked(progress),
            State::Streaming(orders) => {
                entry.state = State::Streaming(orders.clone());
                Known::Streaming(orders)
            }
            State::Returning => {
                return Err(Status::aborted("another call goes on with this subscription now"));
            }
        };
        Ok((Arc::clone(&entry.filters), known))
    }

    /// Its stream has ended, or nobody could go on with it: it waits.
    pub(crate) fn park(&self, id: SubscriptionId, progress: Progress) {
        let mut entries = self.lock();
        self.forget_expired(&mut entries);
        if let Some(entry) = entries.get_mut(&id) {
            entry.state = State::Parked { progress: Box::new(progress), since: Instant::now() };
        }
    }

    /// Its stream gives it up for another one.
    pub(crate) fn leave(&self, id: SubscriptionId) {
        if let Some(entry) = self.lock().get_mut(&id) {
            entry.state = State::Returning;
        }
    }

    /// It has ended.
    pub(crate) fn remove(&self, id: SubscriptionId) {
        self.lock().remove(&id);
    }

    fn forget_expired(&self, entries: &mut HashMap<SubscriptionId, Entry>) {
        let mut parked = Vec::new();
        entries.retain(|id, entry| match entry.state {
            State::Parked { since, .. } => {
                let is_kept = since.elapsed() < self.parked_ttl;
                if is_kept {
                    parked.push((since, *id));
                }
                is_kept
            }
            _ => true,
        });
        if parked.len() >= PARKED_MAX {
            parked.sort_unstable_by_key(|(since, _)| *since);
            for (_, id) in &parked[..=parked.len() - PARKED_MAX] {
                entries.remove(id);
            }
        }
    }
}

/// What is said of a subscription that nobody knows.
pub(crate) fn not_found() -> Status {
    Status::not_found("Subscription not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SubscriptionId = SubscriptionId(5);

    fn registry(ttl: Duration) -> (Registry, mpsc::Receiver<Order>) {
        let registry = Registry::new(ttl);
        let (orders, ordered) = mpsc::channel(1);
        registry.begin(ID, ["a".to_owned()].into(), orders);
        (registry, ordered)
    }

    #[test]
    fn a_subscription_is_gone_on_with_once() {
        let (registry, _ordered) = registry(Duration::from_secs(60));
        assert!(matches!(registry.find(ID), Ok((_, Known::Streaming(_)))));
        registry.park(ID, Progress::new(None));
        let (filters, known) = registry.find(ID).expect("it is parked");
        assert!(*filters == ["a"] && matches!(known, Known::Parked(_)));
        assert_eq!(registry.find(ID).expect_err("it returns").code(), tonic::Code::Aborted);
        registry.remove(ID);
        assert_eq!(registry.find(ID).expect_err("it is gone").code(), tonic::Code::NotFound);
    }

    #[test]
    fn it_expires_as_it_does_at_the_daemon() {
        let (registry, _ordered) = registry(Duration::ZERO);
        assert!(registry.find(ID).is_ok(), "one with a stream does not");
        registry.park(ID, Progress::new(None));
        assert!(registry.find(ID).is_err());
    }

    #[test]
    fn one_whose_stream_is_lost_is_forgotten() {
        let (registry, ordered) = registry(Duration::from_secs(60));
        drop(ordered);
        assert_eq!(registry.find(ID).expect_err("it is lost").code(), tonic::Code::NotFound);
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten() {
        let registry = Registry::new(Duration::from_secs(60));
        for id in 0..PARKED_MAX as u128 + 10 {
            registry.begin(SubscriptionId(id), [].into(), mpsc::channel(1).0);
            registry.park(SubscriptionId(id), Progress::new(None));
        }
        let parked = registry.lock().len();
        assert!(parked <= PARKED_MAX, "{parked}");
        assert!(registry.find(SubscriptionId(0)).is_err());
        assert!(registry.find(SubscriptionId(PARKED_MAX as u128 + 9)).is_ok());
    }
}
