//! The subscriptions that are known here, by their ids: those that have a stream, and those that had one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nexusd_wire::SubscriptionId;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::limits::{PARKED_BYTES_MAX, PARKED_MAX};
use crate::progress::Progress;
use crate::proto::UnsubscribeResponse;

/// Orders on their way to a stream.
pub(crate) const ORDERS: usize = 4;

/// What is asked of a subscription's stream by other calls.
#[derive(Debug)]
pub(crate) enum Order {
    /// Another stream goes on with it.
    Leave(oneshot::Sender<Returning>),
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
    Parked {
        progress: Box<Progress>,
        since: Instant,
        /// What it takes in memory.
        bytes: usize,
    },
}

/// Where a subscription is that somebody asks for.
#[derive(Debug)]
pub(crate) enum Known {
    /// It has a stream.
    Streaming(mpsc::Sender<Order>),
    /// It waited for its client.
    Parked(Returning),
}

/// A subscription that somebody is about to go on with. Dropped, it waits on.
#[derive(Debug)]
pub(crate) struct Returning {
    registry: Arc<Registry>,
    id: SubscriptionId,
    progress: Option<Box<Progress>>,
}

impl Returning {
    /// How far it had come.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.as_deref().cloned().unwrap_or_else(|| Progress::new(None))
    }

    /// It goes on: its new stream says so itself.
    pub(crate) fn goes_on(mut self) {
        self.progress = None;
    }

    /// It has ended.
    pub(crate) fn has_ended(mut self) {
        self.progress = None;
        self.registry.remove(self.id);
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some(progress) = self.progress.take() {
            self.registry.park(self.id, *progress);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Registry {
    entries: Mutex<HashMap<SubscriptionId, Entry>>,
    /// How long the daemon keeps subscriptions without a stream.
    parked_ttl: Duration,
}

impl Registry {
    pub(crate) fn new(parked_ttl: Duration) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), parked_ttl })
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
    pub(crate) fn find(
        self: &Arc<Self>,
        id: SubscriptionId,
    ) -> Result<(Arc<[String]>, Known), Status> {
        let mut entries = self.lock();
        let is_over = entries.get(&id).is_some_and(|entry| match &entry.state {
            State::Parked { since, .. } => since.elapsed() >= self.parked_ttl,
            // Its stream was served by a task that is no more, and has left no word.
            State::Streaming(orders) => orders.is_closed(),
            State::Returning => false,
        });
        if is_over {
            entries.remove(&id);
        }
        let entry = entries.get_mut(&id).ok_or_else(not_found)?;
        let known = match std::mem::replace(&mut entry.state, State::Returning) {
            State::Parked { progress, .. } => Known::Parked(self.returning(id, progress)),
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

    /// Its stream has ended: it waits.
    pub(crate) fn park(&self, id: SubscriptionId, progress: Progress) {
        let mut entries = self.lock();
        let Some(entry) = entries.get(&id) else { return };
        let bytes = size_of::<Entry>() + progress.bytes() + names_bytes(&entry.filters);
        self.make_room(&mut entries, bytes);
        if let Some(entry) = entries.get_mut(&id) {
            let (progress, since) = (Box::new(progress), Instant::now());
            entry.state = State::Parked { progress, since, bytes };
        }
    }

    /// Its stream gives it up for another one.
    pub(crate) fn give_up(self: &Arc<Self>, id: SubscriptionId, progress: Progress) -> Returning {
        if let Some(entry) = self.lock().get_mut(&id) {
            entry.state = State::Returning;
        }
        self.returning(id, Box::new(progress))
    }

    /// It has ended.
    pub(crate) fn remove(&self, id: SubscriptionId) {
        self.lock().remove(&id);
    }

    fn returning(self: &Arc<Self>, id: SubscriptionId, progress: Box<Progress>) -> Returning {
        Returning { registry: Arc::clone(self), id, progress: Some(progress) }
    }

    /// Forgets what has expired and, of too many that wait, those that wait longest.
    fn make_room(&self, entries: &mut HashMap<SubscriptionId, Entry>, bytes: usize) {
        let mut parked = Vec::new();
        entries.retain(|id, entry| match &entry.state {
            State::Parked { since, bytes, .. } => {
                let is_kept = since.elapsed() < self.parked_ttl;
                if is_kept {
                    parked.push((*since, *id, *bytes));
                }
                is_kept
            }
            State::Streaming(_) | State::Returning => true,
        });
        parked.sort_unstable_by_key(|(since, id, _)| (*since, id.0));
        let mut left = parked.len();
        let mut left_bytes: usize = bytes + parked.iter().map(|(.., bytes)| bytes).sum::<usize>();
        for (_, id, bytes) in parked {
            if left < PARKED_MAX && left_bytes <= PARKED_BYTES_MAX {
                break;
            }
            entries.remove(&id);
            left -= 1;
            left_bytes -= bytes;
        }
    }
}

/// What these names take in memory.
pub(crate) fn names_bytes(names: &[String]) -> usize {
    names.iter().map(|name| size_of::<String>() + name.len()).sum()
}

/// What is said of a subscription that nobody knows.
pub(crate) fn not_found() -> Status {
    Status::not_found("Subscription not found")
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const ID: SubscriptionId = SubscriptionId(5);

    fn registry(ttl: Duration) -> (Arc<Registry>, mpsc::Receiver<Order>) {
        let registry = Registry::new(ttl);
        let (orders, ordered) = mpsc::channel(1);
        registry.begin(ID, ["a".to_owned()].into(), orders);
        (registry, ordered)
    }

    fn code(registry: &Arc<Registry>) -> Code {
        registry.find(ID).expect_err("it is not to be had").code()
    }

    #[test]
    fn a_subscription_is_gone_on_with_once() {
        let (registry, _ordered) = registry(Duration::from_secs(60));
        assert!(matches!(registry.find(ID), Ok((_, Known::Streaming(_)))));
        registry.park(ID, Progress::new(None));
        let (filters, known) = registry.find(ID).expect("it is parked");
        assert!(*filters == ["a"]);
        let Known::Parked(returning) = known else { panic!("it has no stream") };
        assert_eq!(code(&registry), Code::Aborted);
        returning.has_ended();
        assert_eq!(code(&registry), Code::NotFound);
    }

    #[test]
    fn a_call_that_is_given_up_leaves_it_where_it_was() {
        let (registry, _ordered) = registry(Duration::from_secs(60));
        registry.park(ID, Progress::new(None));
        drop(registry.find(ID));
        assert!(matches!(registry.find(ID), Ok((_, Known::Parked(_)))));
        drop(registry.give_up(ID, Progress::new(None)));
        assert!(matches!(registry.find(ID), Ok((_, Known::Parked(_)))));
    }

    #[test]
    fn it_expires_as_it_does_at_the_daemon() {
        let (registry, _ordered) = registry(Duration::ZERO);
        assert!(registry.find(ID).is_ok(), "one with a stream does not");
        registry.park(ID, Progress::new(None));
        assert_eq!(code(&registry), Code::NotFound);
    }

    #[test]
    fn one_whose_stream_is_lost_is_forgotten() {
        let (registry, ordered) = registry(Duration::from_secs(60));
        drop(ordered);
        assert_eq!(code(&registry), Code::NotFound);
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten() {
        let registry = Registry::new(Duration::from_secs(60));
        let most = PARKED_MAX as u128;
        for id in 0..most {
            registry.begin(SubscriptionId(id), [].into(), mpsc::channel(1).0);
        }
        for entry in registry.lock().values_mut() {
            let progress = Box::new(Progress::new(None));
            entry.state = State::Parked { progress, since: Instant::now(), bytes: 1 };
        }
        registry.begin(SubscriptionId(most), [].into(), mpsc::channel(1).0);
        registry.park(SubscriptionId(most), Progress::new(None));
        assert_eq!(registry.lock().len(), PARKED_MAX);
        assert!(matches!(registry.find(SubscriptionId(most)), Ok((_, Known::Parked(_)))));
    }

    #[test]
    fn what_they_take_is_bounded_with_the_names_of_their_filters() {
        let registry = Registry::new(Duration::from_secs(60));
        let filters: Arc<[String]> = vec!["x".repeat(255); 1_000].into();
        let each = names_bytes(&filters);
        for id in 0..1_000 {
            registry.begin(SubscriptionId(id), Arc::clone(&filters), mpsc::channel(1).0);
            registry.park(SubscriptionId(id), Progress::new(None));
        }
        let kept = registry.lock().len();
        assert!((2..=PARKED_BYTES_MAX / each).contains(&kept), "{kept} of {each} bytes");
        assert!(matches!(registry.find(SubscriptionId(999)), Ok((_, Known::Parked(_)))));
    }
}
