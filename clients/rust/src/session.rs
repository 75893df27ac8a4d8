//! What the frames of one connection mean to the client.
//!
//! Every frame kind a daemon may send has its branch in [`Session::on_frame`]; what it delivers to
//! subscriptions is dealt with in `session/delivery.rs`. A daemon that breaks the protocol is an
//! error, upon which the connection is given up; frames of later features are passed over.

mod delivery;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexusd_wire::control::{self, PublishStatus};
use nexusd_wire::{Frame, FrameEncoder, FrameKind, Header, NodeId, SubscriptionId, TopicId};
use tokio::sync::oneshot;

use self::delivery::{Run, Unacknowledged};
use crate::entry::Identity;
use crate::error::Error;
use crate::event::Event;
use crate::inbox::{Fill, Inbox};
use crate::limits;
use crate::message::Delivery;
use crate::paused::Paused;
use crate::publication::PublishAck;
use crate::sender::{Sender, Settled};
use crate::shared::Command;
use crate::state::{ConnectionState, Daemon};
use crate::subscription_table::{Confirmed, Refused};
use crate::task::Task;

/// What the daemon has to be asked, by the number of the subscription's request.
#[derive(Clone, Copy, Debug)]
enum Ask {
    /// What a new connection asks.
    First(u64),
    /// What follows a Resume that was refused; whether more may be missing than positions tell.
    Anew { request: u64, is_in_doubt: bool },
}

/// The daemon is stopping.
pub(crate) struct Goodbye {
    pub(crate) reason: String,
    last_accepted: u64,
    /// All that it had for the client came before.
    is_complete: bool,
}

/// An Unsubscribe that the daemon has not answered.
enum Ending {
    /// Of a subscription that nobody has any more; who waits for the answer, if anybody does.
    Ended { id: SubscriptionId, answer: Option<oneshot::Sender<()>> },
    /// Of one that is to be parked.
    Paused { request: u64, answer: oneshot::Sender<Result<Paused, Error>> },
}

pub(crate) struct Session<'a> {
    pub(crate) task: &'a mut Task,
    pub(crate) sender: Sender,
    encoder: FrameEncoder,
    node: NodeId,
    /// Subscriptions that the daemon has to be asked for.
    to_ask: VecDeque<Ask>,
    /// The daemon's topic ids.
    topics: HashMap<TopicId, Arc<str>, foldhash::fast::RandomState>,
    /// The topic of the last message: runs mostly keep to one.
    last_topic: Option<(TopicId, Arc<str>)>,
    nodes: HashMap<u32, control::NodeId>,
    run: Run,
    /// Messages of the run that were not handed over yet.
    arrived: Vec<Event>,
    arrived_bytes: usize,
    /// Inboxes that must be emptied before more is read.
    full: Vec<Arc<Inbox>>,
    unacknowledged: Unacknowledged,
    /// Why the daemon refused the last topic that it refused: acknowledgements only say that it did. It refuses
    /// topics for one reason, for others are checked before.
    refused_topic: Option<Error>,
    /// By the number of their own request.
    unsubscribes: HashMap<u64, Ending>,
    /// The daemon holds publishers back.
    pub(crate) is_paused: bool,
    pub(crate) goodbye: Option<Goodbye>,
    has_said_goodbye: bool,
    /// What makes the connection useless, found outside of the stream's order.
    pub(crate) fault: Option<Error>,
}

impl<'a> Session<'a> {
    /// The daemon has welcomed the client: binds topics and resumes subscriptions, and lets messages
    /// go.
    pub(crate) fn open(task: &'a mut Task, daemon: Daemon) -> Self {
        let shared = Arc::clone(&task.shared);
        let mut sender = Sender::default();
        let refused =
            shared.outbox().on_connected(daemon.max_payload, daemon.max_metadata, sender.control());
        for error in &refused {
            shared.tell_error(error);
        }
        let node = daemon.node;
        shared.set_state(&ConnectionState::Connected(daemon));
        task.on_welcome();
        let unwanted = task.subscriptions.take_unwanted(node);
        let to_ask = task.subscriptions.requests().map(Ask::First).collect();
        let mut session = Self {
            task,
            sender,
            encoder: FrameEncoder::new(),
            node,
            to_ask,
            topics: HashMap::default(),
            last_topic: None,
            nodes: HashMap::new(),
            run: Run::None,
            arrived: Vec::new(),
            arrived_bytes: 0,
            full: Vec::new(),
            unacknowledged: Unacknowledged::default(),
            refused_topic: None,
            unsubscribes: HashMap::new(),
            is_paused: false,
            goodbye: None,
            has_said_goodbye: false,
            fault: None,
        };
        for id in unwanted {
            session.send_unsubscribe(id, None);
        }
        session
    }

    /// The connection has ended: what it had not sent goes back, what it was asked is void.
    pub(crate) fn leave(mut self) {
        self.hand_over();
        let last_accepted = self.goodbye.as_ref().map(|goodbye| goodbye.last_accepted);
        let shared = &self.task.shared;
        shared.outbox().on_disconnected(self.sender.unsent(), last_accepted);
        shared.room.notify_waiters();
        let is_complete = self.goodbye.as_ref().is_some_and(|goodbye| goodbye.is_complete);
        self.task.subscriptions.on_disconnected(is_complete.then_some(self.node));
        for ending in self.unsubscribes.into_values() {
            match ending {
                // The daemon may not have read it, and parks the subscription.
                Ending::Ended { id, answer } => {
                    self.task.subscriptions.end_later(Identity { id, node: self.node });
                    tell(answer);
                }
                // The daemon parks it for the one reason or the other.
                Ending::Paused { request, answer } => {
                    let paused = self.task.subscriptions.park(request, None);
                    let _ = answer.send(paused.ok_or_else(Error::not_running));
                }
            }
        }
    }

    /// Does what handles ask.
    pub(crate) fn on_commands(&mut self) {
        for command in self.task.shared.take_commands() {
            match command {
                Command::Subscribe { request, entry } => {
                    self.task.subscriptions.insert(request, *entry);
                    self.to_ask.push_back(Ask::First(request));
                }
                Command::Pause { request, answer } => self.pause(request, answer),
                Command::Unsubscribe { request, answer } => self.unsubscribe(request, answer),
                Command::Close { answer } => self.task.begin_closing(answer),
            }
        }
    }

    fn unsubscribe(&mut self, request: u64, answer: Option<oneshot::Sender<()>>) {
        match self.task.subscriptions.remove(request, self.node) {
            Some(id) => self.send_unsubscribe(id, answer),
            // The daemon has not confirmed it yet: it is ended when it does.
            None => tell(answer),
        }
    }

    fn send_unsubscribe(&mut self, id: SubscriptionId, answer: Option<oneshot::Sender<()>>) {
        let request = self.task.shared.new_request();
        self.unsubscribes.insert(request, Ending::Ended { id, answer });
        self.encoder.unsubscribe(self.sender.control(), request, id, false);
    }

    /// What comes before the daemon's answer still belongs to the subscription.
    fn pause(&mut self, request: u64, answer: oneshot::Sender<Result<Paused, Error>>) {
        let subscriptions = &mut self.task.subscriptions;
        let is_confirmed = subscriptions.is_confirmed(request);
        let identity = match subscriptions.by_request(request) {
            Some(entry) if is_confirmed || entry.is_asked_for() => entry.identity(),
            _ => None,
        };
        let Some(identity) = identity else {
            // The daemon has parked it with the connection before, or there is none.
            let paused = subscriptions.park(request, None);
            let _ = answer.send(paused.ok_or_else(Error::not_running));
            return;
        };
        let unsubscribe = self.task.shared.new_request();
        self.unsubscribes.insert(unsubscribe, Ending::Paused { request, answer });
        self.encoder.unsubscribe(self.sender.control(), unsubscribe, identity.id, true);
    }

    /// Asks for subscriptions, as far as the daemon takes it: what they tell of their positions can
    /// be much.
    fn ask(&mut self) {
        while self.sender.control_backlog() < limits::ASKED_AHEAD_BYTES
            && let Some(ask) = self.to_ask.pop_front()
        {
            let (subscriptions, encoder) = (&mut self.task.subscriptions, &mut self.encoder);
            let out = self.sender.control();
            match ask {
                Ask::First(request) => subscriptions.ask(request, self.node, encoder, out),
                Ask::Anew { request, is_in_doubt } => {
                    if let Some(entry) = subscriptions.by_request(request) {
                        entry.ask_anew(request, self.node, is_in_doubt, encoder, out);
                    }
                }
            }
        }
    }

    /// Whether messages must not be sent now.
    pub(crate) fn is_held(&self) -> bool {
        self.is_paused || self.goodbye.is_some()
    }

    pub(crate) fn has_said_goodbye(&self) -> bool {
        self.has_said_goodbye
    }

    /// Asks for subscriptions, and takes what was published since the last time, if all before is
    /// sent. Says goodbye when the client is to end and nothing is left to send.
    pub(crate) fn refill(&mut self) {
        self.ask();
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

    fn on_control(&mut self, frame: &Frame<'_>) -> Result<(), Error> {
        match frame.kind() {
            FrameKind::Deliver => {
                let deliver = frame.body::<control::Deliver<'_>>()?;
                self.hand_over();
                self.begin_run(deliver.subscription().into(), Delivery::of(deliver.mode()));
            }
            FrameKind::Gap => self.on_gap(&frame.body::<control::Gap<'_>>()?),
            FrameKind::BackpressureWarning => {
                self.on_warning(&frame.body::<control::BackpressureWarning<'_>>()?);
            }
            FrameKind::ReplayComplete => {
                let body = frame.body::<control::ReplayComplete<'_>>()?;
                self.on_replay_complete(frame.header().topic(), &body);
            }
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
                self.nodes.insert(frame.header().origin(), *bind.node());
            }
            FrameKind::PublishPause => self.is_paused = true,
            FrameKind::PublishResume => self.is_paused = false,
            FrameKind::SubscriptionInfo => {
                let info = frame.body::<control::SubscriptionInfo<'_>>()?;
                self.on_confirmed(&info);
            }
            FrameKind::UnsubscribeResult => {
                let result = frame.body::<control::UnsubscribeResult<'_>>()?;
                self.on_unsubscribe_result(&result);
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
                    is_complete: goodbye.is_complete(),
                });
            }
            FrameKind::Error => return self.on_error(&frame.body::<control::Error<'_>>()?),
            // Heartbeats show that the daemon lives, which having been read says already. The
            // others belong to what this client does not ask for.
            FrameKind::Heartbeat | FrameKind::Reply => {}
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

    fn on_confirmed(&mut self, info: &control::SubscriptionInfo<'_>) {
        let request = info.request();
        let identity = Identity { id: info.subscription().into(), node: self.node };
        let tells_unknown_gap = info.gap_detected() && info.missed_count() < 0;
        let subscriptions = &mut self.task.subscriptions;
        match subscriptions.confirm(request, identity, tells_unknown_gap) {
            Confirmed::Whole => {}
            Confirmed::WithGap(gap) => {
                if let Some(entry) = subscriptions.by_request(request) {
                    self.task.shared.tell_gap(&entry.wanted.filters, &gap);
                }
            }
            Confirmed::Unwanted => self.send_unsubscribe(identity.id, None),
        }
    }

    fn on_unsubscribe_result(&mut self, result: &control::UnsubscribeResult<'_>) {
        match self.unsubscribes.remove(&result.request()) {
            // Whether or not the daemon still knew it, it is ended now.
            Some(Ending::Ended { answer, .. }) => tell(answer),
            Some(Ending::Paused { request, answer }) if result.success() => {
                self.hand_over();
                let ttl = Duration::from_millis(result.pause_ttl_ms());
                let paused = self.task.subscriptions.park(request, Some(ttl));
                let _ = answer.send(paused.ok_or_else(Error::not_running));
            }
            Some(Ending::Paused { request, answer }) => {
                let reason = result.message().unwrap_or("no reason given").to_owned();
                let _ = answer.send(Err(Error::NotFound { reason }));
                // It ran here: as if it had expired.
                if self.task.subscriptions.is_confirmed(request) {
                    self.to_ask.push_back(Ask::Anew { request, is_in_doubt: false });
                }
            }
            None => {}
        }
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
                PublishStatus::Rejected => {
                    let why = self.refused_topic.clone();
                    Err(why.unwrap_or_else(|| Error::refused(PublishStatus::Rejected)))
                }
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
            0 => {
                if FrameKind(body.kind()) == FrameKind::TopicBind {
                    self.refused_topic = Some(error.clone());
                }
                self.task.shared.tell_error(&error);
            }
            request => match self.task.subscriptions.refuse(request, &error) {
                // The caller has it.
                Refused::AtFirst => {}
                // It ends a stream that was running.
                Refused::Later => self.task.shared.tell_error(&error),
                Refused::Resume => {
                    let is_in_doubt = !matches!(error, Error::NotFound { .. });
                    self.to_ask.push_back(Ask::Anew { request, is_in_doubt });
                }
                Refused::Unknown => match self.unsubscribes.remove(&request) {
                    // An unsubscribe that fails ends nothing more.
                    Some(Ending::Ended { answer, .. }) => tell(answer),
                    Some(Ending::Paused { answer, .. }) => {
                        let _ = answer.send(Err(error));
                    }
                    None => {}
                },
            },
        }
        Ok(())
    }
}

/// Answers who waits for the end of a subscription, if anybody does.
fn tell(answer: Option<oneshot::Sender<()>>) {
    if let Some(answer) = answer {
        let _ = answer.send(());
    }
}

fn fault(what: &str) -> Error {
    Error::Protocol { reason: what.to_owned() }
}
