//! What the frames of one connection mean to the client.
//!
//! Every frame kind a daemon may send has its branch in [`Session::on_frame`]. Messages of a run are
//! collected and handed to their subscription together. A daemon that breaks the protocol is an
//! error, upon which the connection is given up; frames of later features are passed over.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use nexusd_wire::control::{self, PublishStatus};
use nexusd_wire::{Frame, FrameEncoder, FrameKind, Header, NodeId, SubscriptionId, TopicId};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::event::{Event, Gap, GapReason, MissedRange};
use crate::inbox::{Fill, Inbox};
use crate::limits;
use crate::message::Message;
use crate::publication::PublishAck;
use crate::sender::{Sender, Settled};
use crate::shared::Command;
use crate::state::{ConnectionState, Daemon};
use crate::subscription_table::Confirmed;
use crate::task::Task;

/// Whom the messages belong to that come now.
enum Run {
    /// No Deliver has come yet.
    None,
    /// A subscription that was ended here and is not yet ended there.
    Nobody,
    Of(Arc<Inbox>),
}

/// The daemon is stopping.
pub(crate) struct Goodbye {
    pub(crate) reason: String,
    last_accepted: u64,
}

pub(crate) struct Session<'a> {
    pub(crate) task: &'a mut Task,
    pub(crate) sender: Sender,
    encoder: FrameEncoder,
    node: NodeId,
    /// The daemon's topic ids.
    topics: HashMap<TopicId, Arc<str>, foldhash::fast::RandomState>,
    /// The topic of the last message: runs mostly keep to one.
    last_topic: Option<(TopicId, Arc<str>)>,
    nodes: HashMap<u32, NodeId>,
    run: Run,
    /// Messages of the run that were not handed over yet.
    arrived: Vec<Event>,
    arrived_bytes: usize,
    /// Inboxes that must be emptied before more is read.
    full: Vec<Arc<Inbox>>,
    /// Requests to end a subscription that the daemon has not answered.
    unsubscribes: HashMap<u64, Option<oneshot::Sender<()>>>,
    /// The daemon holds publishers back.
    pub(crate) is_paused: bool,
    pub(crate) goodbye: Option<Goodbye>,
    has_said_goodbye: bool,
    /// What makes the connection useless, found outside of the stream's order.
    pub(crate) fault: Option<Error>,
}

impl<'a> Session<'a> {
    /// The daemon has welcomed the client: binds topics and subscribes again, and lets messages go.
    pub(crate) fn open(task: &'a mut Task, daemon: Daemon) -> Self {
        let shared = Arc::clone(&task.shared);
        let mut sender = Sender::default();
        let mut encoder = FrameEncoder::new();
        let refused =
            shared.outbox().on_connected(daemon.max_payload, daemon.max_metadata, sender.control());
        task.subscriptions.subscribe_all(&mut encoder, sender.control());
        for error in &refused {
            shared.tell_error(error);
        }
        let node = daemon.node;
        shared.set_state(&ConnectionState::Connected(daemon));
        task.on_welcome();
        Self {
            task,
            sender,
            encoder,
            node,
            topics: HashMap::default(),
            last_topic: None,
            nodes: HashMap::new(),
            run: Run::None,
            arrived: Vec::new(),
            arrived_bytes: 0,
            full: Vec::new(),
            unsubscribes: HashMap::new(),
            is_paused: false,
            goodbye: None,
            has_said_goodbye: false,
            fault: None,
        }
    }

    /// The connection has ended: what it had not sent goes back, what it was asked is void.
    pub(crate) fn leave(self) {
        let last_accepted = self.goodbye.as_ref().map(|goodbye| goodbye.last_accepted);
        let shared = &self.task.shared;
        shared.outbox().on_disconnected(self.sender.unsent(), last_accepted);
        shared.room.notify_waiters();
        self.task.subscriptions.on_disconnected();
        // The daemon ends subscriptions with their connection.
        for answer in self.unsubscribes.into_values().flatten() {
            let _ = answer.send(());
        }
    }

    /// Does what handles ask.
    pub(crate) fn on_commands(&mut self) {
        for command in self.task.shared.take_commands() {
            match command {
                Command::Subscribe { request, entry } => {
                    self.task.subscriptions.insert(request, entry);
                    self.task.subscriptions.subscribe(
                        request,
                        &mut self.encoder,
                        self.sender.control(),
                    );
                }
                Command::Unsubscribe { request, answer } => self.unsubscribe(request, answer),
                Command::Close { answer } => self.task.begin_closing(answer),
            }
        }
    }

    fn unsubscribe(&mut self, request: u64, answer: Option<oneshot::Sender<()>>) {
        match self.task.subscriptions.remove(request) {
            Some(id) => self.send_unsubscribe(id, answer),
            // The daemon has not confirmed it yet: it is ended when it does.
            None => {
                if let Some(answer) = answer {
                    let _ = answer.send(());
                }
            }
        }
    }

    fn send_unsubscribe(&mut self, id: SubscriptionId, answer: Option<oneshot::Sender<()>>) {
        let request = self.task.shared.new_request();
        self.unsubscribes.insert(request, answer);
        self.encoder.unsubscribe(self.sender.control(), request, id, false);
    }

    /// Whether messages must not be sent now.
    pub(crate) fn is_held(&self) -> bool {
        self.is_paused || self.goodbye.is_some()
    }

    pub(crate) fn has_said_goodbye(&self) -> bool {
        self.has_said_goodbye
    }

    /// Takes what was published since the last time, if all before is sent. Says goodbye when the
    /// client is to end and nothing is left to send.
    pub(crate) fn refill(&mut self) {
        if self.is_held() {
            return;
        }
        if let Some(batch) = self.sender.empty_batch() {
            self.task.shared.outbox().take(batch);
        }
        if self.task.closing.is_some() && !self.has_said_goodbye && self.sender.is_empty() {
            self.has_said_goodbye = true;
            self.encoder.goodbye(self.sender.control(), "the client was closed", 0);
        }
    }

    /// Frames of the outbox were sent.
    pub(crate) fn on_settled(&mut self, settled: Settled) {
        if settled.bytes > 0 {
            let has_room = self.task.shared.outbox().settle(settled.bytes, settled.messages);
            if has_room {
                self.task.shared.room.notify_waiters();
            }
        }
    }

    /// Whether reading has to wait for an application that is slow.
    pub(crate) fn is_an_inbox_full(&mut self) -> bool {
        if !self.full.is_empty() {
            self.full.retain(|inbox| inbox.fill() == Fill::Full);
        }
        !self.full.is_empty()
    }

    /// Gives memory back that a burst has left behind.
    pub(crate) fn shrink(&mut self) {
        self.sender.shrink();
        self.task.shared.outbox().shrink();
        self.arrived.shrink_to(0);
    }

    /// One frame, in the stream's order. `keep` lends its bytes for good.
    #[inline]
    pub(crate) fn on_frame(
        &mut self,
        frame: &Frame<'_>,
        keep: impl FnOnce() -> Bytes,
    ) -> Result<(), Error> {
        if frame.kind() == FrameKind::Message {
            return self.on_message(frame.header(), keep);
        }
        self.on_control(frame)
    }

    /// A message that came in memory of its own.
    pub(crate) fn on_large_message(&mut self, frame: &Bytes) -> Result<(), Error> {
        if let Some(header) = Header::peek(frame) {
            self.on_message(header, || frame.clone())?;
        }
        Ok(())
    }

    #[inline]
    fn on_message(&mut self, header: &Header, keep: impl FnOnce() -> Bytes) -> Result<(), Error> {
        match self.run {
            Run::Of(_) => {}
            Run::Nobody => return Ok(()),
            Run::None => return Err(fault("a message belongs to no subscription")),
        }
        let id = header.topic();
        let topic = match &self.last_topic {
            Some((last, topic)) if *last == id => Arc::clone(topic),
            _ => {
                let topic = self.topics.get(&id);
                let topic = topic.ok_or_else(|| fault("a message has a topic without a name"))?;
                self.last_topic = Some((id, Arc::clone(topic)));
                Arc::clone(topic)
            }
        };
        let origin = match header.origin() {
            0 => self.node,
            handle => *self
                .nodes
                .get(&handle)
                .ok_or_else(|| fault("a message has an origin without an id"))?,
        };
        let message = Message::new(topic, keep(), origin);
        self.arrived_bytes += message.frame_bytes();
        self.arrived.push(Event::Message(message));
        Ok(())
    }

    /// Hands the collected messages to their subscription.
    pub(crate) fn hand_over(&mut self) {
        if self.arrived.is_empty() {
            return;
        }
        if let Run::Of(inbox) = &self.run {
            let fill = inbox.append(&mut self.arrived, self.arrived_bytes);
            if fill == Fill::Full && !self.full.iter().any(|full| Arc::ptr_eq(full, inbox)) {
                self.full.push(Arc::clone(inbox));
            }
        }
        self.arrived.clear();
        self.arrived_bytes = 0;
    }

    fn on_control(&mut self, frame: &Frame<'_>) -> Result<(), Error> {
        match frame.kind() {
            FrameKind::Deliver => {
                let deliver = frame.body::<control::Deliver<'_>>()?;
                self.hand_over();
                let id = SubscriptionId::from(deliver.subscription());
                self.run = match self.task.subscriptions.by_id(id) {
                    Some(entry) => Run::Of(Arc::clone(&entry.inbox)),
                    None => Run::Nobody,
                };
            }
            FrameKind::Gap => self.on_gap(&frame.body::<control::Gap<'_>>()?),
            FrameKind::PublishAck => self.on_ack(&frame.body::<control::PublishAck<'_>>()?),
            FrameKind::TopicBind => {
                let bind = frame.body::<control::TopicBind<'_>>()?;
                self.on_topic_bind(frame.header().topic(), bind.name())?;
            }
            FrameKind::TopicUnbind => {
                self.topics.remove(&frame.header().topic());
                self.last_topic = None;
            }
            FrameKind::NodeBind => {
                let bind = frame.body::<control::NodeBind<'_>>()?;
                if self.nodes.len() >= limits::NODES_MAX {
                    return Err(fault("the daemon names too many nodes"));
                }
                self.nodes.insert(frame.header().origin(), bind.node().into());
            }
            FrameKind::PublishPause => self.is_paused = true,
            FrameKind::PublishResume => self.is_paused = false,
            FrameKind::SubscriptionInfo => {
                let info = frame.body::<control::SubscriptionInfo<'_>>()?;
                self.on_confirmed(info.request(), info.subscription().into());
            }
            FrameKind::UnsubscribeResult => {
                // Whether or not the daemon still knew it, it is ended now.
                let result = frame.body::<control::UnsubscribeResult<'_>>()?;
                if let Some(Some(answer)) = self.unsubscribes.remove(&result.request()) {
                    let _ = answer.send(());
                }
            }
            FrameKind::Ping => {
                let token = frame.header().sequence().0;
                FrameEncoder::ping_or_pong(self.sender.control(), FrameKind::Pong, token);
            }
            FrameKind::Pong => match frame.header().sequence().0 {
                0 => {}
                flushed => self.answer(flushed, Ok(PublishAck::NONE)),
            },
            FrameKind::Goodbye => {
                let goodbye = frame.body::<control::Goodbye<'_>>()?;
                self.goodbye = Some(Goodbye {
                    reason: goodbye.reason().unwrap_or("no reason given").to_owned(),
                    last_accepted: goodbye.last_accepted(),
                });
            }
            FrameKind::Error => return self.on_error(&frame.body::<control::Error<'_>>()?),
            // Heartbeats show that the daemon lives, which having been read says already. The
            // others belong to what this client does not ask for.
            FrameKind::Heartbeat
            | FrameKind::BackpressureWarning
            | FrameKind::ReplayComplete
            | FrameKind::Reply => {}
            kind => {
                return Err(fault(&format!("the daemon sent a {kind:?} frame")));
            }
        }
        Ok(())
    }

    fn on_topic_bind(&mut self, id: TopicId, name: &str) -> Result<(), Error> {
        if self.topics.get(&id).is_some_and(|bound| **bound == *name) {
            return Ok(());
        }
        if self.topics.len() >= limits::TOPICS_DELIVERED_MAX {
            return Err(fault("the daemon names too many topics"));
        }
        self.topics.insert(id, name.into());
        self.last_topic = None;
        Ok(())
    }

    fn on_confirmed(&mut self, request: u64, id: SubscriptionId) {
        match self.task.subscriptions.confirm(request, id) {
            Confirmed::New => {}
            Confirmed::Again(gap) => {
                if let Some(entry) = self.task.subscriptions.by_request(request) {
                    self.task.shared.tell_gap(&entry.wanted.filters, &gap);
                }
            }
            Confirmed::Unwanted => self.send_unsubscribe(id, None),
        }
    }

    fn on_gap(&mut self, body: &control::Gap<'_>) {
        self.hand_over();
        let Some(entry) = self.task.subscriptions.by_id(body.subscription().into()) else {
            return;
        };
        let mut gap = Gap {
            reason: GapReason::of(body.reason()),
            missed: Some(body.missed()),
            ranges: Vec::new(),
            elsewhere: body.rest(),
        };
        for range in body.entries().into_iter().flatten() {
            let (first, last) = (range.first(), range.last());
            match self.topics.get(&TopicId(range.topic())) {
                Some(topic) => {
                    let topic = Arc::clone(topic);
                    gap.ranges.push(MissedRange { topic, first, last });
                }
                // Lost before the daemon had a reason to name it.
                None => {
                    let missed = last.saturating_sub(first).saturating_add(1);
                    gap.elsewhere = gap.elsewhere.saturating_add(missed);
                }
            }
        }
        entry.inbox.append_gap(gap.clone());
        self.task.shared.tell_gap(&entry.wanted.filters, &gap);
    }

    fn on_ack(&mut self, body: &control::PublishAck<'_>) {
        let mut outbox = self.task.shared.outbox();
        let mut has_room = false;
        for entry in body.entries() {
            let result = match entry.status() {
                PublishStatus::Accepted => Ok(PublishAck {
                    sequence: entry.sequence(),
                    delivered: entry.delivered(),
                    dropped: entry.dropped(),
                    blocked: entry.blocked(),
                }),
                status => Err(Error::refused(status)),
            };
            has_room = outbox.answer(entry.publisher_sequence(), result);
        }
        drop(outbox);
        if has_room {
            self.task.shared.room.notify_waiters();
        }
    }

    fn answer(&mut self, sequence: u64, result: Result<PublishAck, Error>) {
        if self.task.shared.outbox().answer(sequence, result) {
            self.task.shared.room.notify_waiters();
        }
    }

    fn on_error(&mut self, body: &control::Error<'_>) -> Result<(), Error> {
        let error = Error::reported(body);
        if body.fatal() {
            return Err(error);
        }
        match body.request() {
            0 => self.task.shared.tell_error(&error),
            request => match self.task.subscriptions.refuse(request, &error) {
                // The caller has it.
                Some(false) => {}
                // It ends a stream that was running; an unsubscribe that fails ends nothing.
                Some(true) => self.task.shared.tell_error(&error),
                None => {
                    if let Some(Some(answer)) = self.unsubscribes.remove(&request) {
                        let _ = answer.send(());
                    }
                }
            },
        }
        Ok(())
    }
}

fn fault(what: &str) -> Error {
    Error::Protocol { reason: what.to_owned() }
}
