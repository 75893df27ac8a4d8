//! One client's ears: understands everything the shard sends and knows when it makes no sense.

use std::collections::{HashMap, HashSet};

use nexusd_core::HTTP1_ANSWER;
use nexusd_wire::control::{self, DeliveryMode};
use nexusd_wire::{Cut, Frame, FrameCutter, FrameKind, SubscriptionId};

use crate::bodies::read_body;

/// What a client has been told so far.
pub(crate) struct Audience {
    cutter: FrameCutter,
    topics: HashSet<u32>,
    subscriptions: Vec<SubscriptionId>,
    /// The subscription whose run is open, and why its messages come.
    run: Option<(SubscriptionId, DeliveryMode)>,
    /// Newest number heard or told lost, by subscription and topic.
    newest: HashMap<(SubscriptionId, u32), u64>,
    /// The answer to HTTP so far, in which no frames are.
    http: Vec<u8>,
    /// A last word was said: nothing may follow.
    has_ended: bool,
}

impl Default for Audience {
    fn default() -> Self {
        Self {
            cutter: FrameCutter::new(u32::MAX, u32::MAX, usize::MAX),
            topics: HashSet::new(),
            subscriptions: Vec::new(),
            run: None,
            newest: HashMap::new(),
            http: Vec::new(),
            has_ended: false,
        }
    }
}

impl Audience {
    /// Subscriptions that were confirmed and not ended.
    pub(crate) fn subscriptions(&self) -> &[SubscriptionId] {
        &self.subscriptions
    }

    /// Takes the next bytes.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        let held = self.cutter.held_back();
        let is_first = self.cutter.position() == 0;
        if !self.http.is_empty() || is_first && held.iter().chain(bytes).take(4).eq(b"HTTP") {
            if self.http.is_empty() {
                self.http.extend_from_slice(held);
            }
            self.http.extend_from_slice(bytes);
            assert!(HTTP1_ANSWER.starts_with(&self.http), "{:?}", self.http);
            return;
        }
        let mut input = bytes;
        let mut cutter = std::mem::replace(&mut self.cutter, FrameCutter::new(0, 0, 0));
        loop {
            match cutter.next(&mut input) {
                Ok(Cut::Frame(frame)) => self.understand(&frame),
                Ok(Cut::Incomplete) => break,
                other => panic!("the shard sends frames, not {other:?}"),
            }
        }
        self.cutter = cutter;
    }

    fn understand(&mut self, frame: &Frame<'_>) {
        read_body(frame).expect("what the shard sends verifies");
        assert!(!self.has_ended, "{:?} behind a fatal Error", frame.kind());
        let topic = frame.header().topic().0;
        match frame.kind() {
            FrameKind::TopicBind => {
                self.topics.insert(topic);
            }
            FrameKind::TopicUnbind => {
                self.topics.remove(&topic);
            }
            FrameKind::SubscriptionInfo => {
                let body = frame.body::<control::SubscriptionInfo<'_>>();
                let id = body.expect("verified").subscription().into();
                if self.subscriptions.contains(&id) {
                    // It was paused and goes on: what the client said it had not had comes again.
                    self.newest.retain(|(subscription, _), _| *subscription != id);
                } else {
                    self.subscriptions.push(id);
                }
            }
            FrameKind::Deliver => {
                let body = frame.body::<control::Deliver<'_>>().expect("verified");
                let id = body.subscription().into();
                assert!(self.subscriptions.contains(&id), "{id} was not confirmed");
                self.run = Some((id, body.mode()));
            }
            FrameKind::Gap => self.understand_gap(frame),
            FrameKind::Message => {
                let (id, mode) = self.run.expect("a Deliver before the first message");
                assert!(self.topics.contains(&topic), "topic {topic} has no name");
                // A retained value may be one that was delivered before.
                if mode != DeliveryMode::Retained {
                    self.advance(id, topic, frame.header().sequence().0);
                }
                assert_eq!(frame.header().origin(), 0);
            }
            FrameKind::Error => {
                let body = frame.body::<control::Error<'_>>().expect("verified");
                self.has_ended = body.fatal();
            }
            FrameKind::Welcome
            | FrameKind::Ping
            | FrameKind::Pong
            | FrameKind::Goodbye
            | FrameKind::PublishAck
            | FrameKind::PublishPause
            | FrameKind::PublishResume
            | FrameKind::UnsubscribeResult
            | FrameKind::ReplayComplete
            | FrameKind::BackpressureWarning
            | FrameKind::Heartbeat => {}
            other => panic!("daemons do not send {other:?} to clients"),
        }
    }

    fn understand_gap(&mut self, frame: &Frame<'_>) {
        let body = frame.body::<control::Gap<'_>>().expect("verified");
        let subscription = body.subscription().into();
        assert!(self.subscriptions.contains(&subscription));
        let mut told = body.rest();
        for entry in body.entries().into_iter().flatten() {
            assert!(entry.first() <= entry.last());
            assert!(self.topics.contains(&entry.topic()), "a topic without a name");
            told += entry.last() - entry.first() + 1;
            self.advance(subscription, entry.topic(), entry.first());
            self.newest.insert((subscription, entry.topic()), entry.last());
        }
        let is_unknown = body.missed() == u64::MAX;
        assert!(is_unknown || told == body.missed(), "a gap adds up");
    }

    /// Numbers of a topic only go up.
    fn advance(&mut self, subscription: SubscriptionId, topic: u32, sequence: u64) {
        let newest = self.newest.entry((subscription, topic)).or_default();
        assert!(sequence > *newest, "topic {topic}: {sequence} behind {newest}");
        *newest = sequence;
    }
}
