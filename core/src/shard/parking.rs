//! Subscriptions without a connection: how they get there, how long they wait, and how a client goes on
//! with them.
//!
//! A parked subscription queues like any other, but sends nothing and holds no publisher back. A client
//! that comes back gets what it has not had in the old order, under new binds: its connection knows no
//! topic yet. A subscription whose old connection still stands is parked first; the connection is closed
//! for that.

use std::collections::{BTreeSet, HashMap};

use nexusd_wire::control::{self, DeliveryMode, ErrorCode, GapMode, GapReason};
use nexusd_wire::{Frame, Sequence, SubscriptionId, SubscriptionReport, TopicId};

use super::control::request_number;
use super::event::{ConnectionId, Now};
use super::plane::Plane;
use super::violation::Violation;
use super::{Shard, open_connection};
use crate::counted_stream::Missing;
use crate::expiry::Expiry;
use crate::gap::Gap;
use crate::limits::{PARKED_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use crate::link::Origin;
use crate::log::{Extent, Log};
use crate::plant::{Plant, is_planted};
use crate::session::SessionState;
use crate::subscriber_queue::{Item, Name, Presence, QueueId, ReplayComplete, SubscriberQueue};

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
        // How much of what an old connection sends has arrived is known when it has let go; more than
        // there is cannot have.
        if queue.is_link {
            return Err((ErrorCode::NotFound, "Subscription not found".to_owned()));
        }
        let is_parked = matches!(queue.presence, Presence::Parked { .. });
        let under_way = if is_parked { 0 } else { queue.messages };
        if let Some(text) = too_many(comeback, queue, under_way) {
            return Err((ErrorCode::Rejected, text));
        }
        if !queue.is_confirmed() {
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
    pub(super) fn resume(&mut self, id: QueueId, comeback: Comeback) {
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

    /// Somebody else came back for the same subscription, or it has ended.
    fn refuse_comeback(&mut self, comeback: &Comeback) {
        self.report_request(
            comeback.connection,
            comeback.request,
            ErrorCode::NotFound,
            "Subscription not found",
        );
    }

    /// A subscription ends: who waits to go on with it does so in vain.
    pub(super) fn disappoint(&mut self, id: QueueId) {
        if let Some(comeback) = self.plane.queues[id.0 as usize].comeback.take() {
            self.refuse_comeback(&comeback);
        }
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
        self.leave_together(id, &[queue]);
    }

    fn leave_together(&mut self, id: ConnectionId, leaving: &[QueueId]) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let Plane { queues, newly_ready, .. } = &mut self.plane;
        for queue in leaving {
            let queue = &mut queues[queue.0 as usize];
            queue.presence = Presence::Leaving;
            queue.is_ready = true;
        }
        let is_leaving = |queue: &QueueId| {
            let queue = queues.get(queue.0 as usize);
            queue.is_some_and(|queue| queue.presence == Presence::Leaving)
        };
        newly_ready.retain(|queue| !is_leaving(queue));
        let outbound = &mut connection.outbound;
        outbound.ready.retain(|queue| !is_leaving(queue));
        outbound.run = outbound.run.filter(|run| !is_leaving(&run.queue));
        let is_free = |queue: &QueueId| !queues[queue.0 as usize].is_held();
        let held = &mut connection.session.subscriptions;
        held.retain(|(_, queue)| !is_leaving(queue) || !is_free(queue));
        let free: Vec<_> = leaving.iter().copied().filter(is_free).collect();
        for queue in free {
            self.park(queue);
        }
    }

    /// Takes all confirmed subscriptions off a connection that does not answer.
    pub(super) fn leave_all(&mut self, id: ConnectionId) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        if self.config.limits.parked_ttl_us == 0 && connection.session.link.is_none() {
            return;
        }
        let queues = &self.plane.queues;
        let held = connection.session.subscriptions.iter().map(|(_, queue)| *queue);
        let confirmed: Vec<_> =
            held.filter(|queue| queues[queue.0 as usize].is_confirmed()).collect();
        self.leave_together(id, &confirmed);
    }

    /// A client is done with a parked subscription, or wants it to stay parked; for how long it does.
    pub(super) fn end_parked(&mut self, subscription: SubscriptionId, stays: bool) -> u64 {
        let Some(&queue) = self.plane.subscriptions.get(&subscription) else { return 0 };
        match self.plane.queues[queue.0 as usize].presence {
            Presence::Parked { until_us } if stays => until_us.saturating_sub(self.now_us) / 1_000,
            _ => {
                self.plane.remove_queue(queue);
                0
            }
        }
    }

    /// Parks a queue that is leaving, once nothing holds it.
    pub(super) fn park_if_free(&mut self, id: ConnectionId, queue: QueueId) {
        let leaving = &self.plane.queues[queue.0 as usize];
        if leaving.is_held() {
            return;
        }
        // The send that has just ended may have opened a run of it.
        self.detach(id, queue);
        if let Some(connection) = open_connection(&mut self.connections, id) {
            connection.session.subscriptions.retain(|(_, held)| *held != queue);
        }
        self.park(queue);
    }

    /// A queue has no connection any more, and no send reads from it.
    pub(super) fn park(&mut self, id: QueueId) {
        self.plane.unblock(id);
        let plane = &mut self.plane;
        let queue = &mut plane.queues[id.0 as usize];
        // A link knows itself how long it waits for its peer.
        let ttl_us = if queue.is_link { u64::MAX } else { self.config.limits.parked_ttl_us };
        let until_us = self.now_us.saturating_add(ttl_us);
        debug_assert!(!queue.in_flight);
        queue.front_sent = 0;
        queue.presence = Presence::Parked { until_us };
        // It has no turn, so nobody is to be told that it wants one.
        queue.is_ready = true;
        queue.block_expired = false;
        // There is nobody to be ended for its overflow any more.
        queue.overflow_due |= std::mem::take(&mut queue.is_condemned);
        queue.returning = None;
        let comeback = queue.comeback.take();
        plane.cut_if_due(id);
        plane.note_parked(id, until_us);
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
        let queue = &self.plane.queues[id.0 as usize];
        if let Some(text) = too_many(&comeback, queue, 0) {
            let Comeback { connection, request, .. } = comeback;
            self.report_request(connection, request, ErrorCode::Rejected, &text);
            return;
        }
        let subscription = queue.subscription;
        connection.session.subscriptions.push((subscription, id));
        self.plane.attach(id, comeback);
        let is_awaited = comeback.mode == GapMode::ReplayBuffer && self.plane.recover(id);
        if !is_awaited {
            self.welcome_back(id);
        }
    }

    /// All that can be found of what a client missed is in the queue: it is told how things stand.
    pub(super) fn welcome_back(&mut self, id: QueueId) {
        let queue = &mut self.plane.queues[id.0 as usize];
        let Some(comeback) = queue.returning.take() else { return };
        let Some(connection) = open_connection(&mut self.connections, comeback.connection) else {
            return;
        };
        let report = self.plane.welcome_back(id, &comeback);
        if !self.plane.queues[id.0 as usize].is_link {
            self.encoder.subscription_info(&mut connection.outbound.control, &report);
        }
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
    /// A subscription is parked. Those of other nodes are their links'.
    fn note_parked(&mut self, id: QueueId, until_us: u64) {
        if !self.queues[id.0 as usize].is_link {
            self.parked.insert((until_us, id));
            self.metrics.parked += 1;
        }
    }

    /// It is parked no longer.
    pub(super) fn forget_parked(&mut self, id: QueueId, until_us: u64) {
        if !self.queues[id.0 as usize].is_link {
            self.parked.remove(&(until_us, id));
            self.metrics.parked -= 1;
        }
    }

    /// Whether a subscription waits for its client.
    pub(super) fn is_parked(&self, subscription: SubscriptionId) -> bool {
        self.subscriptions.get(&subscription).is_some_and(|queue| {
            matches!(self.queues[queue.0 as usize].presence, Presence::Parked { .. })
        })
    }

    /// Gives a parked queue its new connection, and makes what the client has not had come first. It has
    /// no turn before it is complete.
    fn attach(&mut self, id: QueueId, comeback: Comeback) {
        let queue = &mut self.queues[id.0 as usize];
        if let Presence::Parked { until_us } = queue.presence {
            self.forget_parked(id, until_us);
        }
        let queue = &mut self.queues[id.0 as usize];
        self.metrics.resumed += u64::from(!queue.is_link);
        queue.presence = Presence::Connected;
        queue.connection = comeback.connection;
        queue.returning = Some(Box::new(comeback));
        // From now on its binds are unknown to all topics, and made anew for what is here already.
        queue.created_at = self.index.renew();
        queue.forget_names();
        let (unread, missing) = queue.stream.resume(comeback.received, &mut self.log);
        let queued = std::mem::take(&mut queue.items);
        if missing > 0 {
            let mut gap = Gap::new(GapReason::LinkLost);
            gap.note_unnamed(missing);
            self.log.charge_gap(&gap);
            queue.items.push_back(Item::Gap(Box::new(gap)));
        }
        let (messages, bytes) = (queue.messages, queue.bytes);
        let mut earliest = Expiry::NEVER;
        for unread in unread {
            match unread {
                Missing::Gap(gap) => queue.items.push_back(Item::Gap(gap)),
                Missing::Extent(extent) => {
                    queue.messages += u64::from(extent.messages);
                    queue.bytes += u64::from(extent.len);
                    earliest = earliest.min(extent.expiry);
                    queue.items.push_back(Item::Extent(replayed(extent)));
                }
            }
        }
        self.metrics.queued_messages += queue.messages - messages;
        self.metrics.queued_bytes += queue.bytes - bytes;
        queue.items.extend(queued.into_iter().filter_map(|item| match item {
            Item::Extent(extent) => Some(Item::Extent(replayed(extent))),
            Item::Gap(gap) => Some(Item::Gap(gap)),
            Item::Bind(_) | Item::NodeBind(_) | Item::ReplayComplete(_) | Item::Answer(_) => None,
        }));
        (queue.replay_messages, queue.replay_bytes) = (queue.messages, queue.bytes);
        if earliest != Expiry::NEVER {
            self.expiring.note(queue, id, earliest);
        }
    }

    /// Names the topics of what is replayed, and puts their ends before what is live by now.
    fn welcome_back(&mut self, id: QueueId, comeback: &Comeback) -> SubscriptionReport {
        let queue = &mut self.queues[id.0 as usize];
        let mut replay = ReplayedTopics::default();
        let (mut missed, mut is_unknown) = (0, false);
        let is_live =
            |item: &Item| matches!(item, Item::Extent(extent) if extent.mode == DeliveryMode::Live);
        let end = queue.items.iter().position(is_live).unwrap_or(queue.items.len());
        for item in queue.items.iter().take(end) {
            match item {
                Item::Extent(extent) => replay.add(extent, &self.log),
                Item::Gap(gap) => {
                    missed += gap.missed();
                    is_unknown |= gap.is_unknown();
                    for topic in gap.topics() {
                        replay.topic(topic);
                    }
                }
                Item::Bind(_) | Item::NodeBind(_) | Item::ReplayComplete(_) | Item::Answer(_) => {}
            }
        }
        let live = queue.items.split_off(end);
        queue.items.extend(replay.ends());
        queue.items.extend(live);
        if !is_planted(Plant::BindNotRepeated) {
            queue.binds.extend(replay.topics.iter().map(|topic| Name::Topic(topic.topic)));
            for origin in &replay.origins {
                queue.introduce_first(*origin);
            }
        }
        queue.is_ready = !queue.is_empty();
        let report = SubscriptionReport {
            request: comeback.request,
            subscription: queue.subscription,
            gap_detected: missed > 0 || is_unknown,
            missed_count: if is_unknown { -1 } else { missed as i64 },
            replay_started: replay.topics.iter().any(|topic| topic.messages > 0),
        };
        for topic in replay.topics {
            self.note_bound(topic.topic, comeback.connection);
        }
        report
    }
}

/// What is wrong with a client's count, if it has had more than was sent and may be under way.
fn too_many(comeback: &Comeback, queue: &SubscriberQueue, under_way: u64) -> Option<String> {
    let (received, sent) = (comeback.received, queue.stream.sent());
    (received > sent + under_way)
        .then(|| format!("the client has had {received} messages, but {sent} were sent"))
}

/// Messages that come again, or later than they should have; they stay what they are if they are no live
/// ones.
pub(super) fn replayed(extent: Extent) -> Extent {
    match extent.mode {
        DeliveryMode::Live => Extent { mode: DeliveryMode::Replay, ..extent },
        _ => extent,
    }
}

/// The topics of what a client gets that comes back, by first appearance, with their replayed messages.
#[derive(Default)]
pub(super) struct ReplayedTopics {
    topics: Vec<ReplayComplete>,
    /// Other nodes that they come from.
    origins: BTreeSet<Origin>,
    places: HashMap<TopicId, usize>,
}

impl ReplayedTopics {
    fn topic(&mut self, topic: TopicId) -> &mut ReplayComplete {
        let next = self.topics.len();
        let place = *self.places.entry(topic).or_insert(next);
        if place == next {
            self.topics.push(ReplayComplete { topic, messages: 0, latest: Sequence(0) });
        }
        &mut self.topics[place]
    }

    /// The frames that end the replay of each.
    pub(super) fn ends(&self) -> impl Iterator<Item = Item> {
        let ended = self.topics.iter().filter(|topic| topic.messages > 0);
        ended
            .filter(|_| !is_planted(Plant::ReplayCompleteMissing))
            .map(|topic| Item::ReplayComplete(Box::new(*topic)))
    }

    pub(super) fn add(&mut self, extent: &Extent, log: &Log) {
        let mut rest = *extent;
        while let Some((topic, part)) = log.split_off_topic(&mut rest) {
            let last = log.last_sequence(&part);
            log.note_origins(&part, &mut self.origins);
            let replayed = self.topic(topic);
            if extent.mode == DeliveryMode::Replay {
                replayed.messages += u64::from(part.messages);
                replayed.latest = last;
            }
        }
    }
}
