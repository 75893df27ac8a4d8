//! The subscriptions of a client, as they outlive its connections.
//!
//! Each is named by the number of its Subscribe request, which is the same on every connection;
//! the daemon's own id of it is new each time. Invariant: an entry is here from the moment the
//! application asks for it until it or the daemon ends it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use nexusd_wire::control::OverflowPolicy;
use nexusd_wire::{FrameEncoder, SubscribeRequest, SubscriptionId};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::event::Gap;
use crate::inbox::Inbox;
use crate::limits;

/// What the daemon is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) filters: Arc<[String]>,
    pub(crate) policy: Option<OverflowPolicy>,
    pub(crate) queue_messages: Option<u32>,
    pub(crate) queue_bytes: Option<u64>,
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) wanted: Wanted,
    pub(crate) inbox: Arc<Inbox>,
    /// Who waits for the first confirmation. `None` once there was one.
    pub(crate) answer: Option<oneshot::Sender<Result<(), Error>>>,
    /// The daemon's id on the present connection.
    id: Option<SubscriptionId>,
}

impl Entry {
    pub(crate) fn new(
        wanted: Wanted,
        inbox: Arc<Inbox>,
        answer: oneshot::Sender<Result<(), Error>>,
    ) -> Self {
        Self { wanted, inbox, answer: Some(answer), id: None }
    }

    fn encode(&self, request: u64, encoder: &mut FrameEncoder, out: &mut Vec<u8>) {
        let filters: Vec<&str> = self.wanted.filters.iter().map(String::as_str).collect();
        encoder.subscribe(
            out,
            &SubscribeRequest {
                request,
                filters: &filters,
                policy: self.wanted.policy,
                queue_messages: self.wanted.queue_messages,
                queue_bytes: self.wanted.queue_bytes,
                receive_retained: false,
                ..SubscribeRequest::default()
            },
        );
    }
}

/// What a confirmation turned out to be.
pub(crate) enum Confirmed {
    /// The first one.
    New,
    /// One after a reconnection; the gap that its inbox was told.
    Again(Gap),
    /// Nobody wants the subscription any more.
    Unwanted,
}

#[derive(Debug, Default)]
pub(crate) struct SubscriptionTable {
    /// By request, so that a new connection subscribes in the old order.
    entries: BTreeMap<u64, Entry>,
    by_id: HashMap<SubscriptionId, u64>,
}

impl SubscriptionTable {
    /// Adds a subscription without telling the daemon, or refuses it.
    pub(crate) fn insert(&mut self, request: u64, entry: Entry) {
        self.entries.insert(request, entry);
        if self.entries.len() > limits::SUBSCRIPTIONS_MAX {
            let reason = format!("a client holds {} subscriptions", limits::SUBSCRIPTIONS_MAX);
            self.refuse(request, &Error::LimitReached { reason });
        }
    }

    /// Appends the Subscribe of one subscription.
    pub(crate) fn subscribe(&self, request: u64, encoder: &mut FrameEncoder, out: &mut Vec<u8>) {
        if let Some(entry) = self.entries.get(&request) {
            entry.encode(request, encoder, out);
        }
    }

    /// Appends the Subscribes of all, for a new connection.
    pub(crate) fn subscribe_all(&self, encoder: &mut FrameEncoder, out: &mut Vec<u8>) {
        for (request, entry) in &self.entries {
            entry.encode(*request, encoder, out);
        }
    }

    /// The daemon has confirmed a request under this id.
    pub(crate) fn confirm(&mut self, request: u64, id: SubscriptionId) -> Confirmed {
        let Some(entry) = self.entries.get_mut(&request) else {
            return Confirmed::Unwanted;
        };
        entry.id = Some(id);
        self.by_id.insert(id, request);
        match entry.answer.take() {
            // An application that has given up waiting also drops its handle, which ends it.
            Some(answer) => {
                let _ = answer.send(Ok(()));
                Confirmed::New
            }
            None => {
                let gap = Gap::reconnected();
                entry.inbox.append_gap(gap.clone());
                Confirmed::Again(gap)
            }
        }
    }

    /// The daemon has refused a request. Tells whether it was one of these, and already confirmed
    /// on an earlier connection.
    pub(crate) fn refuse(&mut self, request: u64, error: &Error) -> Option<bool> {
        let entry = self.entries.remove(&request)?;
        entry.inbox.end(error.clone());
        match entry.answer {
            Some(answer) => {
                let _ = answer.send(Err(error.clone()));
                Some(false)
            }
            None => Some(true),
        }
    }

    /// Ends a subscription; tells the daemon's id of it, if it has one now.
    pub(crate) fn remove(&mut self, request: u64) -> Option<SubscriptionId> {
        let entry = self.entries.remove(&request)?;
        entry.inbox.end(Error::Closed);
        let id = entry.id?;
        self.by_id.remove(&id);
        Some(id)
    }

    /// The subscription of this id on the present connection.
    pub(crate) fn by_id(&self, id: SubscriptionId) -> Option<&Entry> {
        self.entries.get(self.by_id.get(&id)?)
    }

    pub(crate) fn by_request(&self, request: u64) -> Option<&Entry> {
        self.entries.get(&request)
    }

    /// The daemon's ids are void.
    pub(crate) fn on_disconnected(&mut self) {
        self.by_id.clear();
        for entry in self.entries.values_mut() {
            entry.id = None;
        }
    }

    /// Ends all subscriptions.
    pub(crate) fn end_all(&mut self, why: &Error) {
        self.by_id.clear();
        for (_, entry) in std::mem::take(&mut self.entries) {
            entry.inbox.end(why.clone());
            if let Some(answer) = entry.answer {
                let _ = answer.send(Err(why.clone()));
            }
        }
    }
}
