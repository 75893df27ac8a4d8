//! Subscriptions without a connection: how they get there, how long they wait, and how a client goes on
//! with them.
//!
//! A parked subscription queues like any other, but sends nothing and holds no publisher back. A client
//! that comes back gets what it has not had in the old order, under new binds: its connection knows no
//! topic yet. A subscription whose old connection still stands is parked first; the connection is closed
//! for that.

use std::collections::VecDeque;

use nexusd_wire::control::{self, DeliveryMode, ErrorCode, GapMode, GapReason};
use nexusd_wire::{Frame, Sequence, SubscriptionId, SubscriptionReport, TopicId};

use super::control::request_number;
use super::event::{ConnectionId, Now};
use super::publish::Plane;
use super::violation::Violation;
use super::{Shard, open_connection};
use crate::counted_stream::Missing;
use crate::expiry::Expiry;
use crate::gap::Gap;
use crate::limits::{PARKED_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use crate::log::Extent;
use crate::plant::{Plant, is_planted};
use crate::session::SessionState;
use crate::subscriber_queue::{Item, Presence, QueueId, ReplayComplete};

/// A client that wants to go on with a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Comeback {
    pub(crate) connection: ConnectionId,
    /// The number of its Resume.
    pub(crate) request: u64,
    /// Messages of the subscription that it has had.
    pub(crate) received: u64,
    pub(crate) mode: GapMode,
}

impl Shard {
    pub(super) fn on_resume(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let resume = frame.body::<control::Resume<'_>>()?;
        let request = request_number(frame, resume.request())?;
        let subscription = SubscriptionId::from(resume.subscription());
        let comeback = Comeback {
            connection: id,
            request,
            received: resume.received_count(),
            mode: resume.gap_mode(),
        };
        match self.check_resume(subscription, &comeback) {
            Ok(queue) => self.resume(queue, comeback),
            Err((code, message)) => self.report(id, frame, code, request, &message),
        }
        Ok(())
    }

    fn check_resume(
        &self,
        subscription: SubscriptionId,
        comeback: &Comeback,
    ) -> Result<QueueId, (ErrorCode, String)> {
        let found = self.plane.subscriptions.get(&subscription);
        let Some((&id, queue)) = found.map(|id| (id, &self.plane.queues[id.0 as usize])) else {
            let routing = &self.plane.routing;
            let home = routing.home_of(subscription);
            let text = if home.is_none_or(|home| home == routing.own) {
                "Subscription not found"
            } else {
                "Subscription not found: another thread may keep it; name it in Hello"
            };
            return Err((ErrorCode::NotFound, text.to_owned()));
        };
        let sent = queue.stream.sent();
        if comeback.received > sent {
            let text =
                format!("the client has had {} messages, but {sent} were sent", comeback.received);
            return Err((ErrorCode::Rejected, text));
        }
        if !queue.awaits.is_empty() {
            return Err((ErrorCode::NotFound, "Subscription not found".to_owned()));
        }
        if queue.presence == Presence::Connected && queue.connection == comeback.connection {
            let text = "the subscription is on this connection, and not paused".to_owned();
            return Err((ErrorCode::Rejected, text));
        }
        if self.subscriptions_of(comeback.connection) >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            let text = format!(
                "a connection holds at most {SUBSCRIPTIONS_PER_CONNECTION_MAX} subscriptions"
            );
            return Err((ErrorCode::LimitReached, text));
        }
        Ok(id)
    }

    /// Goes on with a subscription, now or as soon as its old connection has let go of it.
    fn resume(&mut self, id: QueueId, comeback: Comeback) {
        let queue = &mut self.plane.queues[id.0 as usize];
        let presence = queue.presence;
        if let Presence::Parked { .. } = presence {
            self.go_on(id, comeback);
            return;
        }
        let old = queue.connection;
        let earlier = queue.comeback.replace(Box::new(comeback));
        if let Some(earlier) = earlier {
            self.refuse_comeback(&earlier);
        }
        if presence == Presence::Connected && !is_planted(Plant::OldConnectionKept) {
            self.close_now(old);
        }
    }

    /// Somebody else came back for the same subscription.
    fn refuse_comeback(&mut self, comeback: &Comeback) {
        self.report_request(
            comeback.connection,
            comeback.request,
            ErrorCode::NotFound,
            "Subscription not found",
        );
    }

    pub(super) fn on_stream_ack(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let ack = frame.body::<control::StreamAck<'_>>()?;
        let plane = &mut self.plane;
        for entry in ack.entries() {
            let subscription = SubscriptionId::from(entry.subscription());
            if let Some(queue) = plane.subscriptions.get(&subscription)
                && let queue = &mut plane.queues[queue.0 as usize]
                && queue.connection == id
                && queue.presence == Presence::Connected
            {
                queue.stream.acknowledge(entry.received(), &mut plane.log);
            }
        }
        Ok(())
    }

    /// Takes a subscription off its connection, at once or as soon as no send reads from it and no frame
    /// of it is half on the wire.
    pub(super) fn leave(&mut self, id: ConnectionId, queue: QueueId) {
        self.detach(id, queue);
        let leaving = &mut self.plane.queues[queue.0 as usize];
        leaving.presence = Presence::Leaving;
        leaving.is_ready = true;
        self.park_if_free(id, queue);
    }

    /// Takes all confirmed subscriptions off a connection that does not answer.
    pub(super) fn leave_all(&mut self, id: ConnectionId) {
        if self.config.limits.parked_ttl_us == 0 {
            return;
        }
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let queues = &self.plane.queues;
        let held = connection.session.subscriptions.iter().map(|(_, queue)| *queue);
        let confirmed: Vec<_> =
            held.filter(|queue| queues[queue.0 as usize].awaits.is_empty()).collect();
        for queue in confirmed {
            self.leave(id, queue);
        }
    }

    /// A client is done with a parked subscription, or wants it to stay parked; for how long it does.
    pub(super) fn end_parked(&mut self, subscription: SubscriptionId, stays: bool) -> u64 {
        let Some(&queue) = self.plane.subscriptions.get(&subscription) else { return 0 };
        match self.plane.queues[queue.0 as usize].presence {
            Presence::Parked { until_us } if stays => (until_us - self.now_us) / 1_000,
            _ => {
                self.plane.remove_queue(queue);
                0
            }
        }
    }

    /// Parks a queue that is leaving, once nothing holds it.
    pub(super) fn park_if_free(&mut self, id: ConnectionId, queue: QueueId) {
        let leaving = &self.plane.queues[queue.0 as usize];
        if leaving.in_flight || leaving.front_sent > 0 {
            return;
        }
        if let Some(connection) = open_connection(&mut self.connections, id) {
            connection.session.subscriptions.retain(|(_, held)| *held != queue);
        }
        self.park(queue);
    }

    /// A queue has no connection any more, and no send reads from it.
    pub(super) fn park(&mut self, id: QueueId) {
        let until_us = self.now_us + self.config.limits.parked_ttl_us;
        self.plane.unblock(id);
        let plane = &mut self.plane;
        let queue = &mut plane.queues[id.0 as usize];
        debug_assert!(!queue.in_flight);
        queue.front_sent = 0;
        queue.presence = Presence::Parked { until_us };
        // It has no turn, so nobody is to be told that it wants one.
        queue.is_ready = true;
        queue.block_expired = false;
        let comeback = queue.comeback.take();
        plane.parked.insert((until_us, id));
        plane.metrics.parked += 1;
        if let Some(comeback) = comeback {
            self.go_on(id, *comeback);
        }
        let most = (PARKED_MAX / self.plane.routing.shards()).max(1);
        if self.plane.parked.len() > most
            && let Some(&(_, first)) = self.plane.parked.first()
        {
            self.plane.remove_queue(first);
        }
    }

    /// Ends parked subscriptions that nobody came back for.
    pub(super) fn expire_parked(&mut self, now: Now) {
        while let Some(&(until_us, id)) = self.plane.parked.first()
            && until_us <= now.mono_us
            && !is_planted(Plant::ParkedNeverExpires)
        {
            self.plane.remove_queue(id);
        }
    }

    /// When the next parked subscription expires.
    pub(super) fn parked_due_us(&self) -> Option<u64> {
        self.plane.parked.first().map(|(until_us, _)| *until_us)
    }

    /// A client goes on with a parked subscription.
    fn go_on(&mut self, id: QueueId, comeback: Comeback) {
        let Some(connection) = open_connection(&mut self.connections, comeback.connection) else {
            return;
        };
        if connection.session.state != SessionState::Open {
            return;
        }
        let report = self.plane.go_on(id, &comeback);
        connection.session.subscriptions.push((report.subscription, id));
        self.encoder.subscription_info(&mut connection.outbound.control, &report);
        if self.plane.queues[id.0 as usize].is_ready {
            connection.outbound.ready.push_back(id);
        }
        if report.gap_detected && comeback.mode == GapMode::RetainedOnly {
            self.plane.begin_scans(id);
        }
        self.plane.ask_for_retained(id);
        self.schedule(comeback.connection);
    }
}

impl Plane {
    /// Whether a subscription waits for its client.
    pub(super) fn is_parked(&self, subscription: SubscriptionId) -> bool {
        self.subscriptions.get(&subscription).is_some_and(|queue| {
            matches!(self.queues[queue.0 as usize].presence, Presence::Parked { .. })
        })
    }

    /// Gives a parked queue its new connection, and makes what the client has not had come first.
    fn go_on(&mut self, id: QueueId, comeback: &Comeback) -> SubscriptionReport {
        let queue = &mut self.queues[id.0 as usize];
        if let Presence::Parked { until_us } = queue.presence {
            self.parked.remove(&(until_us, id));
            self.metrics.parked -= 1;
        }
        self.metrics.resumed += 1;
        queue.presence = Presence::Connected;
        queue.connection = comeback.connection;
        // From now on its binds are unknown to all topics.
        queue.created_at = self.index.renew();
        let (unread, missing) = queue.stream.resume(comeback.received, &mut self.log);
        let mut catch_up = CatchUp::default();
        let mut earliest = Expiry::NEVER;
        if missing > 0 {
            let mut gap = Gap::new(GapReason::LinkLost);
            gap.note_unnamed(missing);
            catch_up.items.push_back(Item::Gap(Box::new(gap)));
        }
        let (messages, bytes) = (queue.messages, queue.bytes);
        for unread in unread {
            match unread {
                Missing::Gap(gap) => catch_up.add_gap(gap),
                Missing::Extent(extent) => {
                    queue.messages += u64::from(extent.messages);
                    queue.bytes += u64::from(extent.len);
                    earliest = earliest.min(extent.expiry);
                    catch_up.add_extent(extent, &self.log);
                }
            }
        }
        self.metrics.queued_messages += queue.messages - messages;
        self.metrics.queued_bytes += queue.bytes - bytes;
        for item in std::mem::take(&mut queue.items) {
            match item {
                Item::Extent(extent) => catch_up.add_extent(extent, &self.log),
                Item::Gap(gap) => catch_up.add_gap(gap),
                // They are made anew.
                Item::Bind(_) | Item::ReplayComplete(_) => {}
            }
        }
        (queue.replay_messages, queue.replay_bytes) = (queue.messages, queue.bytes);
        queue.binds.clear();
        queue.binds.extend(catch_up.topics.iter().map(|topic| topic.topic));
        if is_planted(Plant::BindNotRepeated) {
            queue.binds.clear();
        }
        let replayed = catch_up.topics.iter().filter(|topic| topic.messages > 0);
        if !is_planted(Plant::ReplayCompleteMissing) {
            let completes = replayed.map(|topic| Item::ReplayComplete(Box::new(*topic)));
            catch_up.items.extend(completes);
        }
        queue.items = catch_up.items;
        if earliest != Expiry::NEVER {
            self.expiring.note(queue, id, earliest);
        }
        queue.is_ready = !queue.is_empty();
        let missed: u64 = catch_up.missed;
        let report = SubscriptionReport {
            request: comeback.request,
            subscription: queue.subscription,
            gap_detected: missing + missed > 0,
            missed_count: i64::try_from(missing + missed).unwrap_or(i64::MAX),
            replay_started: queue.messages > 0,
        };
        for topic in catch_up.topics {
            self.note_bound(topic.topic, comeback.connection);
        }
        report
    }
}

/// What a client gets that comes back, in order.
#[derive(Default)]
struct CatchUp {
    items: VecDeque<Item>,
    /// The topics of all that, by first appearance, with their replayed messages.
    topics: Vec<ReplayComplete>,
    places: std::collections::HashMap<TopicId, usize>,
    missed: u64,
}

impl CatchUp {
    fn topic(&mut self, topic: TopicId) -> &mut ReplayComplete {
        let next = self.topics.len();
        let place = *self.places.entry(topic).or_insert(next);
        if place == next {
            self.topics.push(ReplayComplete { topic, messages: 0, latest: Sequence(0) });
        }
        &mut self.topics[place]
    }

    /// Messages that come again, or for the first time; they keep what they are if they are no live ones.
    fn add_extent(&mut self, extent: Extent, log: &crate::log::Log) {
        let mode = match extent.mode {
            DeliveryMode::Live => DeliveryMode::Replay,
            mode => mode,
        };
        let mut rest = extent;
        while let Some((topic, part)) = log.split_off_topic(&mut rest) {
            let last = log.last_sequence(&part);
            let replayed = self.topic(topic);
            if mode == DeliveryMode::Replay {
                replayed.messages += u64::from(part.messages);
                replayed.latest = last;
            }
        }
        self.items.push_back(Item::Extent(Extent { mode, ..extent }));
    }

    fn add_gap(&mut self, gap: Box<Gap>) {
        self.missed += gap.missed();
        for topic in gap.topics() {
            self.topic(topic);
        }
        self.items.push_back(Item::Gap(gap));
    }
}
