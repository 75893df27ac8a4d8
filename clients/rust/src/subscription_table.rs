//! The subscriptions of a client, as they outlive its connections.
//!
//! Each is named by the number of its Subscribe request, which is the same on every connection and
//! for a Resume. Invariant: an entry is here from the moment the application asks for it until it or
//! the daemon ends it; `by_id` holds those that the present connection has confirmed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use nexusd_wire::{FrameEncoder, NodeId, SubscriptionId};

use crate::entry::{Entry, Identity};
use crate::error::Error;
use crate::event::Gap;
use crate::limits;
use crate::paused::Paused;

/// What a confirmation turned out to be.
pub(crate) enum Confirmed {
    /// All is well.
    Whole,
    /// Messages may be missing: the gap that its inbox was told.
    WithGap(Gap),
    /// Nobody wants the subscription any more.
    Unwanted,
}

/// What a refusal turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Of no subscription.
    Unknown,
    /// Of one that was never confirmed: the caller has the error.
    AtFirst,
    /// Of one that was running. It has ended.
    Later,
    /// Of a Resume: the daemon has to be asked anew.
    Resume,
}

#[derive(Debug, Default)]
pub(crate) struct SubscriptionTable {
    /// By request, so that a new connection subscribes in the old order.
    entries: BTreeMap<u64, Entry>,
    by_id: HashMap<SubscriptionId, u64>,
    /// Parked at a daemon, and nobody wants them any more.
    unwanted: Vec<Identity>,
}

impl SubscriptionTable {
    /// Adds a subscription without telling the daemon, or refuses it.
    pub(crate) fn insert(&mut self, request: u64, entry: Entry) {
        self.entries.insert(request, entry);
        if self.entries.len() > limits::SUBSCRIPTIONS_MAX {
            let reason = format!("a client holds {} subscriptions", limits::SUBSCRIPTIONS_MAX);
            self.end(request, &Error::LimitReached { reason });
        }
    }

    /// Appends what asks a connection to `node` for one subscription.
    pub(crate) fn ask(
        &mut self,
        request: u64,
        node: NodeId,
        encoder: &mut FrameEncoder,
        out: &mut Vec<u8>,
    ) {
        if let Some(entry) = self.entries.get_mut(&request) {
            entry.ask(request, node, encoder, out);
        }
    }

    /// All subscriptions, in the order in which they were asked for first.
    pub(crate) fn requests(&self) -> impl Iterator<Item = u64> {
        self.entries.keys().copied()
    }

    /// Any subscription that the daemon may keep for this client.
    pub(crate) fn any_identity(&self) -> Option<Identity> {
        let unwanted = self.unwanted.first().copied();
        self.entries.values().find_map(Entry::identity).or(unwanted)
    }

    /// The daemon has confirmed a request under this identity.
    pub(crate) fn confirm(
        &mut self,
        request: u64,
        identity: Identity,
        tells_unknown_gap: bool,
    ) -> Confirmed {
        let Some(entry) = self.entries.get_mut(&request) else {
            return Confirmed::Unwanted;
        };
        self.by_id.insert(identity.id, request);
        match entry.confirm(identity, tells_unknown_gap) {
            None => Confirmed::Whole,
            Some(gap) => Confirmed::WithGap(gap),
        }
    }

    /// The daemon has refused a request.
    pub(crate) fn refuse(&mut self, request: u64, error: &Error) -> Refused {
        match self.entries.get(&request) {
            None => Refused::Unknown,
            Some(entry) if entry.subscribes_after(error) => Refused::Resume,
            Some(_) => self.end(request, error),
        }
    }

    /// Ends a subscription because of an error.
    fn end(&mut self, request: u64, error: &Error) -> Refused {
        let Some(entry) = self.take(request) else {
            return Refused::Unknown;
        };
        entry.inbox.end(error.clone());
        match entry.answer {
            Some(answer) => {
                let _ = answer.send(Err(error.clone()));
                Refused::AtFirst
            }
            None => Refused::Later,
        }
    }

    /// Takes an entry out.
    fn take(&mut self, request: u64) -> Option<Entry> {
        let entry = self.entries.remove(&request)?;
        if let Some(identity) = entry.identity()
            && self.by_id.get(&identity.id) == Some(&request)
        {
            self.by_id.remove(&identity.id);
        }
        Some(entry)
    }

    /// Ends a subscription; tells the id under which the daemon at `node` has it, if it has answered
    /// all it was asked.
    pub(crate) fn remove(&mut self, request: u64, node: NodeId) -> Option<SubscriptionId> {
        let identity = self.end_by_choice(request)?;
        (identity.node == node).then_some(identity.id)
    }

    /// Ends a subscription while there is no connection: the next one tells the daemon.
    pub(crate) fn remove_later(&mut self, request: u64) {
        let identity = self.end_by_choice(request);
        self.unwanted.extend(identity);
    }

    /// One that nobody could use yet is left to who holds its [`Paused`].
    fn end_by_choice(&mut self, request: u64) -> Option<Identity> {
        let entry = self.take(request)?;
        entry.inbox.end(Error::Closed);
        entry.identity().filter(|_| entry.answer.is_none() && !entry.is_asked_for())
    }

    /// A daemon may keep a subscription that nobody wants: the next connection ends it.
    pub(crate) fn end_later(&mut self, identity: Identity) {
        self.unwanted.push(identity);
    }

    /// The subscriptions that a connection to `node` has to end.
    pub(crate) fn take_unwanted(&mut self, node: NodeId) -> Vec<SubscriptionId> {
        let unwanted = std::mem::take(&mut self.unwanted).into_iter();
        unwanted.filter(|it| it.node == node).map(|it| it.id).collect()
    }

    /// Takes out a subscription that the daemon has parked, or will once it finds the connection
    /// broken; `None` if it was never confirmed.
    pub(crate) fn park(&mut self, request: u64, ttl: Option<Duration>) -> Option<Paused> {
        let paused = self.entries.get(&request)?.paused(ttl)?;
        let entry = self.take(request)?;
        entry.inbox.end(Error::Closed);
        Some(paused)
    }

    /// The subscription of this id on the present connection.
    pub(crate) fn request_of(&self, id: SubscriptionId) -> Option<u64> {
        self.by_id.get(&id).copied()
    }

    /// Whether the present connection has confirmed a subscription.
    pub(crate) fn is_confirmed(&self, request: u64) -> bool {
        let identity = self.entries.get(&request).and_then(Entry::identity);
        identity.is_some_and(|identity| self.by_id.get(&identity.id) == Some(&request))
    }

    /// As [`Self::request_of`], the subscription itself.
    pub(crate) fn by_id(&mut self, id: SubscriptionId) -> Option<&mut Entry> {
        self.entries.get_mut(self.by_id.get(&id)?)
    }

    pub(crate) fn by_request(&mut self, request: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&request)
    }

    /// Whoever was asked will not answer. `ended`: it, if it said that it had sent all that it had for the
    /// subscriptions that it confirmed.
    pub(crate) fn on_disconnected(&mut self, ended: Option<NodeId>) {
        let confirmed: HashSet<_> = self.by_id.drain().map(|(_, request)| request).collect();
        for (request, entry) in &mut self.entries {
            entry.on_disconnected(ended.filter(|_| confirmed.contains(request)));
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
