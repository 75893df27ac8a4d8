//! What the shard tells the rest of the daemon about itself: its topics, subscriptions, clients and links, a
//! page at a time; and what it lets others do: to a client, and to its limits.
//!
//! A page is made between two events, so it looks at few entries (`INSPECTION_LOOKS`), whether they are what
//! is asked for or not: a list of two million topics is many small commands, and messages pass between them.
//! Cursors are places in the shard's tables, which stay where they are; links alone move up when one before them ends.
//!
//! Never called for a message: what clients did is what their connections counted.

use nexusd_wire::control::ErrorCode;
use nexusd_wire::{CLOSED_BY_OPERATOR, Header, filter_matches};

use super::event::{ConnectionId, Door, Now};
use super::output::{Output, Report};
use super::plane::Plane;
use super::retained::stamp_of;
use super::{Shard, fatal, open_connection};
use crate::connection::Connection;
use crate::inspection::{
    Answer, ClientEntry, Entries, FilterEntry, LinkEntry, Reply, Request, RetainedEntry, Subject,
    SubscriptionEntry, TopicEntry, WantedEntry,
};
use crate::limits::{CLIENT_NAME_BYTES_MAX, INSPECTION_ENTRIES, INSPECTION_LOOKS, Limits};
use crate::link::Link;
use crate::session::SessionState;
use crate::subscriber_queue::{Presence, SubscriberQueue};
use crate::topic::Topic;

/// How far a page has come.
struct Page {
    /// The next place to look at.
    at: u64,
    looks: usize,
    /// How many entries there is room for.
    room: usize,
    /// Everything was looked at.
    is_end: bool,
}

impl Page {
    fn new(cursor: u64, entries: usize) -> Self {
        Self { at: cursor, looks: 0, room: entries.clamp(1, INSPECTION_ENTRIES), is_end: false }
    }

    /// The next of `places` to look at, unless the page is over.
    fn next(&mut self, places: usize) -> Option<usize> {
        let place = usize::try_from(self.at).ok().filter(|at| *at < places);
        self.is_end = place.is_none();
        if self.looks >= INSPECTION_LOOKS || self.room == 0 {
            return None;
        }
        self.looks += 1;
        self.at += u64::from(place.is_some());
        place
    }

    /// Looks at all of `places` that the page has room for; what `entry` makes of one is an entry.
    fn fill<T>(
        &mut self,
        places: usize,
        mut entry: impl FnMut(&mut Self, usize) -> Option<T>,
    ) -> Vec<T> {
        let mut found = Vec::new();
        while let Some(place) = self.next(places) {
            if let Some(entry) = entry(self, place) {
                found.push(entry);
                self.room -= 1;
            }
        }
        found
    }

    fn answer(&self, entries: Entries) -> Answer {
        Answer::Page { entries, next: (!self.is_end).then_some(self.at) }
    }
}

impl Shard {
    /// Answers another thread.
    pub(super) fn on_request(&mut self, number: u64, request: Request, now: Now) {
        let answer = match request {
            Request::List { subject, cursor, entries } => {
                self.list(&subject, Page::new(cursor, entries))
            }
            Request::Metrics => Answer::Metrics(Box::new(self.metrics())),
            Request::Close(client) => Answer::Done(self.close_client(client, now)),
            Request::Rename { client, name } => Answer::Done(self.rename(client, &name)),
            Request::TakeOn(limits) => {
                self.take_on(&limits);
                Answer::Done(true)
            }
        };
        let reply = Box::new(Reply { number, answer });
        self.outputs.push_back(Output::Report(Report::Answer(reply)));
    }

    fn list(&mut self, subject: &Subject, mut page: Page) -> Answer {
        let now_us = self.now_us;
        let entries = match subject {
            Subject::Topics(filter) => {
                let entry = |topic: &Topic, _: &Plane| Some(topic_entry(topic));
                Entries::Topics(self.plane.topics_of(filter.as_deref(), &mut page, entry))
            }
            Subject::Retained(filter) => {
                let entry = |topic: &Topic, plane: &Plane| plane.retained_entry(topic);
                Entries::Retained(self.plane.topics_of(filter.as_deref(), &mut page, entry))
            }
            Subject::Wanted(topics) => {
                let mut found = Vec::new();
                Entries::Wanted(page.fill(topics.len(), |page, at| {
                    let (wanted, looks) = self.plane.wanted_entry(&topics[at], &mut found);
                    page.looks += looks;
                    Some(wanted)
                }))
            }
            Subject::Filters => {
                let Plane { index, queues, .. } = &self.plane;
                let is_clients =
                    |queue: u32| queues.get(queue as usize).is_some_and(|queue| !queue.is_link);
                // A place of the index is where up to two filters end.
                Entries::Filters(page.fill(index.places(), |page, at| {
                    let (filter, queues) = index.filter_at(at)?;
                    page.looks += queues.len();
                    let subscriptions = queues.iter().filter(|queue| is_clients(queue.0)).count();
                    let subscriptions = subscriptions as u64;
                    (subscriptions > 0)
                        .then(|| FilterEntry { filter: filter.into(), subscriptions })
                }))
            }
            Subject::Subscriptions => {
                let queues = &self.plane.queues;
                Entries::Subscriptions(page.fill(queues.capacity(), |page, slot| {
                    let queue = queues.get(slot).filter(|queue| !queue.is_link && queue.is_told)?;
                    page.looks += queue.filters.len();
                    Some(subscription_entry(queue, now_us))
                }))
            }
            Subject::Clients(Some(client)) => {
                let place = client.index as usize;
                page.is_end = true;
                let known = self.connections.get(place).and_then(Option::as_deref);
                let known = known.filter(|known| known.id == *client && is_client(known));
                Entries::Clients(
                    known.map(|known| client_entry(known, now_us)).into_iter().collect(),
                )
            }
            Subject::Clients(None) => {
                let connections = &self.connections;
                Entries::Clients(page.fill(connections.len(), |_, slot| {
                    let known = connections[slot].as_deref().filter(|known| is_client(known))?;
                    Some(client_entry(known, now_us))
                }))
            }
            Subject::Links { filters } => {
                let mut links = self.links.values().skip(page.at as usize);
                Entries::Links(page.fill(self.links.len(), |page, _| {
                    let link = links.next()?;
                    let named: Box<[_]> = link.filters.iter().take(*filters).cloned().collect();
                    page.looks += named.len();
                    Some(self.link_entry(link, named, now_us))
                }))
            }
        };
        page.answer(entries)
    }

    fn link_entry(&self, link: &Link, named: Box<[Box<str>]>, now_us: u64) -> LinkEntry {
        let connection = link.connection.and_then(|id| self.connections.get(id.index as usize));
        let heard_us = connection
            .and_then(Option::as_deref)
            .map_or(0, |connection| connection.session.last_received_us);
        let queue = link.queue.and_then(|(_, queue)| self.plane.queues.get(queue.0 as usize));
        let (queued_messages, queued_bytes) = queue.map_or((0, 0), |queue| {
            let stream = &queue.stream;
            (queue.messages + stream.messages(), queue.bytes + stream.bytes())
        });
        LinkEntry {
            peer: link.guest.peer,
            is_up: link.is_up,
            latency_us: link.latency_us,
            silent_us: now_us.saturating_sub(heard_us.max(link.last_heard_us)),
            queued_messages,
            queued_bytes,
            filters: link.filters.len() as u64,
            named,
            hash: link.hash,
        }
    }

    /// Ends a client's connection. What it subscribed to waits for it as if that had broken, and a client that
    /// connects again by itself does.
    fn close_client(&mut self, id: ConnectionId, now: Now) -> bool {
        let is_there =
            open_connection(&mut self.connections, id).is_some_and(|known| is_client(known));
        if is_there {
            self.leave_all(id);
            self.fail(id, &fatal(ErrorCode::LimitReached, CLOSED_BY_OPERATOR), now);
        }
        is_there
    }

    fn take_on(&mut self, limits: &Limits) {
        self.config.limits.take_on(limits);
        self.plane.limits.take_on(limits);
        // It is found anew by the timeout that holds now.
        self.block_due_us = None;
        self.plane.expiring.hasten(self.now_us + limits.reaper_interval_us);
    }

    fn rename(&mut self, id: ConnectionId, name: &str) -> bool {
        let known = open_connection(&mut self.connections, id).filter(|known| is_client(known));
        let Some(known) = known else { return false };
        known.session.name = shown(name);
        true
    }
}

impl Plane {
    /// What `entry` makes of the shard's topics, all or those that match a filter.
    fn topics_of<T>(
        &self,
        filter: Option<&str>,
        page: &mut Page,
        entry: impl Fn(&Topic, &Self) -> Option<T>,
    ) -> Vec<T> {
        if let Some(name) = filter.filter(|filter| !filter.contains(['+', '#'])) {
            page.is_end = true;
            let topic = self.topics.find(name).and_then(|id| self.topics.at(self.routing.slot(id)));
            return topic.and_then(|topic| entry(topic, self)).into_iter().collect();
        }
        page.fill(self.topics.slots(), |_, slot| {
            let topic = self.topics.at(slot)?;
            let is_wanted = filter.is_none_or(|filter| filter_matches(filter, &topic.name));
            if is_wanted { entry(topic, self) } else { None }
        })
    }

    fn retained_entry(&self, topic: &Topic) -> Option<RetainedEntry> {
        let value = topic.retained.as_deref().filter(|value| !value.is_cleared())?;
        let header = Header::peek(&value.frame)?;
        let stamp = stamp_of(header, self.own, &self.node);
        Some(RetainedEntry {
            topic: topic.name.clone(),
            payload_bytes: header.payload_len() as u64,
            timestamp_us: stamp.timestamp_us,
            origin: stamp.origin,
            expires_us: value.expiry.due_us().map(|due_us| due_us.saturating_sub(self.now_us)),
        })
    }

    /// Who wants a topic, and how much had to be looked at for that. `found` is scratch.
    fn wanted_entry(&self, topic: &str, found: &mut Vec<u32>) -> (WantedEntry, usize) {
        let looks = self.index.matches(topic, found);
        let mut wanted = WantedEntry::default();
        for slot in &*found {
            match self.queues.get(*slot as usize) {
                Some(queue) if queue.is_link => wanted.peers += 1,
                Some(queue) => wanted.subscriptions += u64::from(queue.is_told),
                None => {}
            }
        }
        (wanted, looks + found.len())
    }
}

/// What of a text that a client sends is kept to show it to people: no more than a little, and nothing that
/// would not print.
pub(super) fn shown(text: &str) -> Box<str> {
    let mut shown = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if shown.len() + character.len_utf8() > CLIENT_NAME_BYTES_MAX {
            break;
        }
        shown.push(character);
    }
    shown.into_boxed_str()
}

/// A client that was greeted and is not on its way out.
fn is_client(connection: &Connection) -> bool {
    let is_open = matches!(connection.session.state, SessionState::Open | SessionState::Draining);
    is_open && matches!(connection.session.door, Door::Apps | Door::Edge) && !connection.close_asked
}

fn topic_entry(topic: &Topic) -> TopicEntry {
    let is_retained = topic.retained.as_deref().is_some_and(|value| !value.is_cleared());
    let messages = topic.sequence + 1 - topic.first;
    TopicEntry { name: topic.name.clone(), messages, is_retained }
}

fn subscription_entry(queue: &SubscriberQueue, now_us: u64) -> SubscriptionEntry {
    let parked_for_us = match queue.presence {
        Presence::Parked { until_us } => Some(until_us.saturating_sub(now_us)),
        Presence::Connected | Presence::Leaving => None,
    };
    SubscriptionEntry {
        subscription: queue.subscription,
        client: parked_for_us.is_none().then_some(queue.connection),
        filters: queue.filters.clone(),
        is_leaving: queue.presence == Presence::Leaving || queue.is_dying,
        parked_for_us,
        policy: queue.limits.policy,
        queued_messages: queue.messages,
        queued_bytes: queue.bytes,
        limit_messages: if queue.limits.messages == u64::MAX { 0 } else { queue.limits.messages },
        limit_bytes: queue.limits.bytes,
        sent: queue.stream.sent(),
        dropped: queue.warning.dropped_in_all(),
        unacknowledged: queue.stream.messages(),
    }
}

fn client_entry(connection: &Connection, now_us: u64) -> ClientEntry {
    let session = &connection.session;
    ClientEntry {
        id: connection.id,
        name: session.name.clone(),
        software: session.software.clone(),
        address: connection.peer,
        is_edge: session.door == Door::Edge,
        connected_us: now_us.saturating_sub(session.opened_at_us),
        silent_us: now_us.saturating_sub(session.last_received_us),
        subscriptions: session.subscriptions.len() as u64,
        messages_in: session.messages_in,
        messages_out: session.messages_out,
        topics_bound: session.bindings.len() as u64,
        buffered_bytes: connection.buffered_bytes() as u64,
        is_held_back: !session.held_by.is_empty(),
        is_blocked: connection.outbound.blocked_since_us.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_name_is_short_and_prints() {
        assert_eq!(&*shown("a\u{1b}[31mb\n"), "a[31mb");
        let long = shown(&"ä".repeat(CLIENT_NAME_BYTES_MAX));
        assert!(long.len() <= CLIENT_NAME_BYTES_MAX && long.chars().all(|c| c == 'ä'));
    }
}
