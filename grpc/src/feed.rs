//! A subscription's way from the daemon to a client's stream: frames become events.
//!
//! Each has a connection of its own, so a client that is slow holds up itself alone: its connection is not read,
//! the daemon's queue fills, and the policy decides.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use nexusd_wire::control::{self, DeliveryMode, GapMode, GapReason};
use nexusd_wire::{
    Frame, FrameEncoder, FrameKind, Header, NodeId, SubscribeRequest, SubscriptionId,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tonic::Status;

use crate::batches::{Batch, BatchSender};
use crate::errors::{reported, unreadable};
use crate::limits::{
    EVENTS_TOGETHER_BYTES, NAME_BYTES_BESIDE, NODES_MAX, STALLED_HEARTBEAT, STALLED_TIMEOUT,
};
use crate::message_id::MessageId;
use crate::native::{Native, frame_of};
use crate::progress::{Comeback, Given, Progress, Skipped, to_i64};
use crate::proto::message_event::Event;
use crate::proto::{self, MessageEvent, UnsubscribeResponse};
use crate::registry::{Order, Registry, Returning, names_bytes};
use crate::sources::{Source, Taken};

/// The number of the one request that is made on a connection, and of the one that ends it.
const REQUEST: u64 = 1;
const UNSUBSCRIBE: u64 = 2;

pub(crate) struct Feed {
    native: Native,
    subscription: SubscriptionId,
    filters: Arc<[String]>,
    topics: HashMap<u32, Arc<str>>,
    nodes: HashMap<u32, NodeId>,
    mode: DeliveryMode,
    progress: Progress,
    skipped: Skipped,
    /// How many messages of a topic's replay were skipped.
    unsent: HashMap<Arc<str>, i32>,
    events: Vec<MessageEvent>,
    /// What those take.
    events_bytes: usize,
    /// For those, if one of them is long, or for a long message that comes.
    room: Option<Taken>,
    source: Arc<Source>,
    /// For the names of topics and filters.
    names: Taken,
    /// Who waits for the subscription's end, or for its rest; the first one's wish counts.
    ending: Vec<(bool, oneshot::Sender<UnsubscribeResponse>)>,
    /// The daemon has said that it stops. What it has for the subscription still comes.
    is_draining: bool,
}

/// What a client is told when the daemon ends: it has had everything, …
const STOPPING: &str = "the daemon is stopping; everything for the subscription was sent";
/// … or not.
const STOPPED: &str = "the daemon has stopped before everything for the subscription was sent";

/// How a feed ends.
enum End {
    /// The client has gone: the subscription waits.
    Gone,
    /// The connection is cut: the subscription waits.
    Cut(Status),
    /// Another stream goes on with it.
    Left(oneshot::Sender<Returning>),
    /// Its client has ended it.
    Unsubscribed,
    /// Its client wants that it waits.
    Paused,
    /// The daemon has stopped. What came is still given to the client.
    Stopped {
        /// Everything came.
        is_complete: bool,
    },
}

impl Feed {
    /// Asks for a new subscription, and waits for it.
    pub(crate) async fn subscribe(
        mut native: Native,
        filters: Arc<[String]>,
        request: SubscribeRequest<'_>,
        gap: Option<proto::Gap>,
        source: &Arc<Source>,
    ) -> Result<Self, Status> {
        let names = names_of(source, &filters, &Skipped::default())?;
        let asked: Vec<&str> = filters.iter().map(String::as_str).collect();
        let request =
            SubscribeRequest { request: REQUEST, filters: &asked, counted: true, ..request };
        native.say(|encoder, out| encoder.subscribe(out, &request));
        let progress = Progress::new(request.queue_messages.filter(|it| *it > 0));
        let comeback = Comeback { gap, ..Comeback::default() };
        Self::confirmed(native, filters, progress, comeback, names).await
    }

    /// Goes on with a subscription.
    pub(crate) async fn resume(
        mut native: Native,
        id: SubscriptionId,
        filters: Arc<[String]>,
        progress: Progress,
        comeback: Comeback,
        mode: GapMode,
        source: &Arc<Source>,
    ) -> Result<Self, Status> {
        let names = names_of(source, &filters, &comeback.skipped)?;
        let received = progress.acknowledged();
        native.say(|encoder, out| encoder.resume(out, REQUEST, id, received, mode));
        Self::confirmed(native, filters, progress, comeback, names).await
    }

    /// Waits for the daemon's answer, which is the first event.
    async fn confirmed(
        mut native: Native,
        filters: Arc<[String]>,
        progress: Progress,
        comeback: Comeback,
        (source, names): (Arc<Source>, Taken),
    ) -> Result<Self, Status> {
        let answer = loop {
            let frame = native.hear().await?;
            if frame_of(&frame)?.kind() == FrameKind::SubscriptionInfo {
                break frame;
            }
        };
        let info = body::<control::SubscriptionInfo<'_>>(&frame_of(&answer)?)?;
        let subscription = SubscriptionId::from(info.subscription());
        let Comeback { gap, found, room, skipped } = comeback;
        let missed = match (info.missed_count(), &gap) {
            (-1, _) => -1,
            (_, Some(gap)) if gap.missed < 0 => -1,
            (missed, Some(gap)) => missed.saturating_add(gap.missed),
            (missed, None) => missed,
        };
        let told = proto::SubscriptionInfo {
            subscription_id: subscription.to_string(),
            topics: filters.to_vec(),
            timestamp_ms: wall_clock_ms(),
            gap_detected: info.gap_detected() || gap.is_some(),
            missed_message_count: i32::try_from(missed).unwrap_or(i32::MAX),
            replay_started: info.replay_started() || !found.is_empty(),
        };
        let mut events = vec![event(Event::SubscriptionInfo(told))];
        events.extend(gap.map(|gap| event(Event::Gap(gap))));
        let events_bytes = found.iter().map(|message| message.payload.len()).sum();
        events.extend(found.into_iter().map(|message| event(Event::ReplayMessage(message))));
        Ok(Self {
            native,
            subscription,
            filters,
            topics: HashMap::new(),
            nodes: HashMap::new(),
            mode: DeliveryMode::Live,
            progress,
            skipped,
            unsent: HashMap::new(),
            events,
            events_bytes,
            room,
            source,
            names,
            ending: Vec::new(),
            is_draining: false,
        })
    }

    pub(crate) fn subscription(&self) -> SubscriptionId {
        self.subscription
    }

    pub(crate) fn filters(&self) -> Arc<[String]> {
        Arc::clone(&self.filters)
    }

    /// Whether the daemon has said that a replay follows.
    pub(crate) fn replays(&self) -> bool {
        let told = |event: &MessageEvent| matches!(&event.event, Some(Event::SubscriptionInfo(info)) if info.replay_started);
        self.events.iter().any(told)
    }

    /// The next events, for whoever has no client to give them to.
    pub(crate) async fn more(&mut self) -> Result<Vec<Event>, Status> {
        loop {
            while let Some(frame) = self.native.next()? {
                match self.on_frame(&frame)? {
                    Some(End::Cut(status)) => return Err(status),
                    Some(End::Stopped { .. }) => return Err(Status::unavailable(STOPPING)),
                    _ => {}
                }
            }
            if !self.events.is_empty() {
                self.events_bytes = 0;
                return Ok(self.events.drain(..).filter_map(|event| event.event).collect());
            }
            self.native.turn(true).await?;
        }
    }

    /// Ends the subscription of one who has no client.
    pub(crate) async fn dismiss(mut self) -> Result<(), Status> {
        let subscription = self.subscription;
        self.native.say(|encoder, out| encoder.unsubscribe(out, UNSUBSCRIBE, subscription, false));
        while self.native.has_unwritten() {
            self.native.turn(false).await?;
        }
        Ok(())
    }

    /// Runs until the subscription or its client ends.
    pub(crate) async fn run(
        mut self,
        client: BatchSender<MessageEvent>,
        mut orders: mpsc::Receiver<Order>,
        registry: Arc<Registry>,
    ) {
        let end = match self.turn(&client, &mut orders).await {
            Ok(end) => end,
            Err(_) if self.is_draining => End::Stopped { is_complete: false },
            Err(status) => End::Cut(status),
        };
        let Self { subscription, progress, native, events, .. } = self;
        // The daemon parks the subscription when its connection ends.
        drop(native);
        let is_told_to_its_end = !matches!(end, End::Cut(_) | End::Left(_));
        let last = match end {
            End::Gone => {
                registry.park(subscription, progress);
                return;
            }
            End::Cut(status) => {
                registry.park(subscription, progress);
                Err(status)
            }
            End::Left(heir) => {
                // An heir that has gone leaves it to its client again.
                drop(heir.send(registry.give_up(subscription, progress)));
                Err(Status::aborted("another stream goes on with this subscription"))
            }
            End::Paused => {
                registry.park(subscription, progress);
                Ok(())
            }
            End::Unsubscribed => {
                registry.remove(subscription);
                Ok(())
            }
            End::Stopped { is_complete } => {
                registry.remove(subscription);
                Err(Status::unavailable(if is_complete { STOPPING } else { STOPPED }))
            }
        };
        // From here on nobody waits for this but the client. What it has not taken comes again when it comes
        // back; where it cannot, it is given that.
        if is_told_to_its_end && !events.is_empty() {
            let _ = client.send(Batch::Items(events, None)).await;
        }
        let _ = client.send(Batch::End(last)).await;
    }

    async fn turn(
        &mut self,
        client: &BatchSender<MessageEvent>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<End, Status> {
        let first = Instant::now() + STALLED_HEARTBEAT;
        let mut alive = interval_at(first, STALLED_HEARTBEAT);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_taken = Instant::now();
        loop {
            while self.takes_more()
                && let Some(frame) = self.native.next()?
            {
                if let Some(end) = self.on_frame(&frame)? {
                    return Ok(end);
                }
            }
            if let Some(count) = self.progress.acknowledge() {
                let subscription = self.subscription;
                self.native.say(|encoder, out| encoder.stream_ack(out, &[(subscription, count)]));
            }
            let has_events = !self.events.is_empty();
            if !has_events {
                last_taken = Instant::now();
            }
            // Who ends its subscription waits for the answer, whatever else it takes.
            let may_read = !has_events || !self.ending.is_empty();
            // Before a long message is read, there is room for it.
            let needs_room = may_read && self.native.announced() > 0 && self.room.is_none();
            let may_read = may_read && !needs_room;
            let talks = may_read || self.native.has_unwritten();
            tokio::select! {
                room = room_for(&self.source, client, self.native.announced()), if needs_room => {
                    match room {
                        Some(room) => self.room = Some(room),
                        None => return Ok(End::Gone),
                    }
                }
                place = client.reserve(), if has_events => match place {
                    Ok(place) => {
                        let events = std::mem::take(&mut self.events);
                        place.send(Batch::Items(events, self.room.take()));
                        self.events_bytes = 0;
                        self.progress.hand_over();
                    }
                    Err(_) => return Ok(End::Gone),
                },
                () = client.closed(), if !has_events => return Ok(End::Gone),
                turned = self.native.turn(may_read), if talks => turned?,
                Some(order) = orders.recv() => match order {
                    Order::Leave(heir) => return Ok(End::Left(heir)),
                    Order::Unsubscribe { pause, answer } => self.unsubscribe(pause, answer),
                },
                _ = alive.tick() => self.native.say(|_, out| {
                    FrameEncoder::bare(out, &Header::new(FrameKind::Heartbeat, 0, 0));
                }),
                () = sleep_until(last_taken + STALLED_TIMEOUT), if has_events => {
                    let text = "the client took nothing for 60 s; resume the subscription";
                    return Ok(End::Cut(Status::unavailable(text)));
                }
            }
        }
    }

    /// Whether frames that were read become events now. Once the subscription ends, only what is no message does.
    fn takes_more(&self) -> bool {
        let is_full = self.events.len() >= self.progress.together_max()
            || self.events_bytes >= EVENTS_TOGETHER_BYTES;
        !is_full || !self.ending.is_empty()
    }

    fn unsubscribe(&mut self, pause: bool, answer: oneshot::Sender<UnsubscribeResponse>) {
        if self.ending.is_empty() {
            let subscription = self.subscription;
            self.native
                .say(|encoder, out| encoder.unsubscribe(out, UNSUBSCRIBE, subscription, pause));
        }
        self.ending.push((pause, answer));
    }

    /// What one frame says; whether it was the last.
    fn on_frame(&mut self, bytes: &Bytes) -> Result<Option<End>, Status> {
        let frame = frame_of(bytes)?;
        match frame.kind() {
            FrameKind::Message => self.on_message(&frame, bytes)?,
            FrameKind::Deliver => self.mode = body::<control::Deliver<'_>>(&frame)?.mode(),
            FrameKind::TopicBind => {
                let name = body::<control::TopicBind<'_>>(&frame)?.name();
                self.on_topic_bind(frame.header().topic().0, name)?;
            }
            FrameKind::TopicUnbind => {
                if let Some(name) = self.topics.remove(&frame.header().topic().0) {
                    self.names.give_back(name.len() + NAME_BYTES_BESIDE);
                }
            }
            FrameKind::NodeBind => {
                let node = body::<control::NodeBind<'_>>(&frame)?.node().into();
                if self.nodes.len() >= NODES_MAX {
                    return Err(Status::internal("the daemon names too many nodes"));
                }
                self.nodes.insert(frame.header().origin(), node);
            }
            FrameKind::Gap => {
                let gap = self.gap(&body::<control::Gap<'_>>(&frame)?);
                self.events.push(event(Event::Gap(gap)));
            }
            FrameKind::BackpressureWarning => {
                let warning = warning(&body::<control::BackpressureWarning<'_>>(&frame)?);
                self.events.push(event(Event::BackpressureWarning(warning)));
            }
            FrameKind::ReplayComplete => self.on_replay_complete(&frame)?,
            FrameKind::Heartbeat => {
                let heartbeat = proto::Heartbeat { timestamp_ms: wall_clock_ms() };
                self.events.push(event(Event::Heartbeat(heartbeat)));
            }
            FrameKind::Ping => {
                let token = frame.header().sequence().0;
                self.native.say(|_, out| {
                    FrameEncoder::ping_or_pong(out, FrameKind::Pong, token);
                });
            }
            FrameKind::UnsubscribeResult => {
                let result = unsubscribed(&body::<control::UnsubscribeResult<'_>>(&frame)?);
                let pauses = self.ending.first().is_some_and(|(pause, _)| *pause);
                for (_, answer) in self.ending.drain(..) {
                    // Who asked may not wait any more.
                    let _ = answer.send(result.clone());
                }
                return Ok(Some(if pauses { End::Paused } else { End::Unsubscribed }));
            }
            FrameKind::Goodbye => {
                // The first one stands ahead of what is queued.
                self.is_draining = true;
                if body::<control::Goodbye<'_>>(&frame)?.is_complete() {
                    return Ok(Some(End::Stopped { is_complete: true }));
                }
            }
            FrameKind::Error => {
                let error = body::<control::Error<'_>>(&frame)?;
                if error.fatal() {
                    return Ok(Some(End::Cut(reported(&error))));
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn on_topic_bind(&mut self, topic: u32, name: &str) -> Result<(), Status> {
        self.names.merge(room_for_names(&self.source, name.len() + NAME_BYTES_BESIDE)?);
        self.topics.insert(topic, name.into());
        Ok(())
    }

    fn on_message(&mut self, frame: &Frame<'_>, bytes: &Bytes) -> Result<(), Status> {
        if !self.ending.is_empty() {
            // It counts as not had: a subscription that is paused goes on with it.
            return Ok(());
        }
        let header = frame.header();
        let topic = self.topics.get(&header.topic().0);
        let topic = topic.ok_or_else(|| Status::internal("a message of a topic without a name"))?;
        let origin = match header.origin() {
            0 => self.native.node(),
            handle => *self
                .nodes
                .get(&handle)
                .ok_or_else(|| Status::internal("a message of a node without a name"))?,
        };
        let given = Given {
            topic: Arc::clone(topic),
            sequence: header.sequence().0,
            origin,
            origin_sequence: header.origin_sequence().0,
            bytes: bytes.len(),
        };
        let is_again = matches!(self.mode, DeliveryMode::Replay | DeliveryMode::Redelivery);
        if is_again && self.skipped.takes(&given) {
            *self.unsent.entry(Arc::clone(topic)).or_default() += 1;
            self.progress.note(given);
            return Ok(());
        }
        let metadata = frame.metadata().map_err(|error| unreadable(&error))?;
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let number = header.origin_sequence().0;
        let message = proto::Message {
            message_id: MessageId { origin, number, topic }.text(),
            topic: (**topic).to_owned(),
            payload: bytes.slice(header.payload_start()..header.total()),
            content_type: text(metadata.as_ref().and_then(|it| it.content_type())),
            timestamp_ms: to_i64(header.timestamp_us() / 1_000),
            source_node_id: origin.to_string(),
            correlation_id: text(metadata.as_ref().and_then(|it| it.correlation_id())),
            sequence_number: to_i64(header.sequence().0),
            headers: metadata.iter().flat_map(|it| it.headers()).map(header_of).collect(),
            origin_sequence: to_i64(number),
        };
        self.progress.note(given);
        self.events_bytes += bytes.len();
        self.events.push(event(match self.mode {
            DeliveryMode::Retained => Event::RetainedMessage(message),
            _ if is_again => Event::ReplayMessage(message),
            _ => Event::Message(message),
        }));
        Ok(())
    }

    fn on_replay_complete(&mut self, frame: &Frame<'_>) -> Result<(), Status> {
        let complete = body::<control::ReplayComplete<'_>>(frame)?;
        let topic = self.topics.get(&frame.header().topic().0);
        let topic = topic.ok_or_else(|| Status::internal("a replay of a topic without a name"))?;
        let replayed = i32::try_from(complete.replayed_count()).unwrap_or(i32::MAX);
        let unsent = self.unsent.remove(topic).unwrap_or(0);
        self.events.push(event(Event::ReplayComplete(proto::ReplayComplete {
            topic: (**topic).to_owned(),
            replayed_count: replayed.saturating_sub(unsent),
            latest_sequence: to_i64(complete.latest_sequence()),
        })));
        Ok(())
    }

    fn gap(&self, gap: &control::Gap<'_>) -> proto::Gap {
        let mut elsewhere = gap.rest();
        let mut ranges = Vec::new();
        for entry in gap.entries().into_iter().flatten() {
            match self.topics.get(&entry.topic()) {
                Some(topic) => ranges.push(proto::MissedRange {
                    topic: (**topic).to_owned(),
                    first: to_i64(entry.first()),
                    last: to_i64(entry.last()),
                }),
                None => elsewhere += entry.last().saturating_sub(entry.first()) + 1,
            }
        }
        proto::Gap {
            reason: reason(gap.reason()).to_owned(),
            missed: if gap.missed() == u64::MAX { -1 } else { to_i64(gap.missed()) },
            ranges,
            elsewhere: to_i64(elsewhere),
        }
    }
}

/// Room for a long message, once the client has taken the events before the last: one that takes nothing holds
/// little. `None`: the client has gone.
async fn room_for(
    source: &Source,
    client: &BatchSender<MessageEvent>,
    bytes: usize,
) -> Option<Taken> {
    drop(client.reserve().await.ok()?);
    source.events.take(bytes).await
}

/// Room for what a stream knows from the start, and whose it is.
fn names_of(
    source: &Arc<Source>,
    filters: &[String],
    skipped: &Skipped,
) -> Result<(Arc<Source>, Taken), Status> {
    let room = room_for_names(source, names_bytes(filters) + skipped.bytes())?;
    Ok((Arc::clone(source), room))
}

fn room_for_names(source: &Source, bytes: usize) -> Result<Taken, Status> {
    source.names.try_take(bytes).map_err(|_| {
        Status::resource_exhausted(
            "the topics of all streams have too many names; subscribe to fewer, or natively",
        )
    })
}

/// Ends a subscription that has no stream, or lets it wait.
pub(crate) async fn end_parked(
    mut native: Native,
    id: SubscriptionId,
    pause: bool,
) -> Result<UnsubscribeResponse, Status> {
    native.say(|encoder, out| encoder.unsubscribe(out, UNSUBSCRIBE, id, pause));
    loop {
        let bytes = native.hear().await?;
        let frame = frame_of(&bytes)?;
        if frame.kind() == FrameKind::UnsubscribeResult {
            return Ok(unsubscribed(&body::<control::UnsubscribeResult<'_>>(&frame)?));
        }
    }
}

fn unsubscribed(result: &control::UnsubscribeResult<'_>) -> UnsubscribeResponse {
    UnsubscribeResponse {
        success: result.success(),
        error_message: result.message().unwrap_or_default().to_owned(),
        pause_ttl_ms: to_i64(result.pause_ttl_ms()),
    }
}

fn event(event: Event) -> MessageEvent {
    MessageEvent { event: Some(event) }
}

fn header_of((key, value): (&str, &[u8])) -> proto::Header {
    proto::Header { key: key.to_owned(), value: Bytes::copy_from_slice(value) }
}

fn warning(warning: &control::BackpressureWarning<'_>) -> proto::BackpressureWarning {
    proto::BackpressureWarning {
        messages_dropped: warning.dropped(),
        queue_depth: warning.depth(),
        queue_limit: warning.limit(),
        reason: reason(warning.reason()).to_owned(),
        messages_expired: warning.expired(),
        oldest_message_age_ms: to_i64(warning.oldest_age_ms()),
    }
}

fn reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::ReplayWindow => "replay_window",
        GapReason::LinkLost => "link_lost",
        GapReason::Memory => "memory",
        _ => "slow_consumer",
    }
}

fn body<'a, T>(frame: &Frame<'a>) -> Result<T::Inner, Status>
where
    T: flatbuffers::Follow<'a> + flatbuffers::Verifiable + 'a,
{
    frame.body::<T>().map_err(|error| unreadable(&error))
}

fn wall_clock_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
