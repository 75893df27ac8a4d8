//! One client connection as its client sees it: what it wrote, how much of that the shard was fed,
//! what the daemon sent back, and what it still owes.
//!
//! Outgoing bytes wait in `outbox`; every frame in it is remembered with the place it ends at, so
//! that being fed bytes means being fed frames. Incoming bytes are cut and checked when they are on
//! the wire (`incoming.rs`), because what is on the wire cannot be taken back; what a client *does*
//! about them ([`Reaction`]) waits until it reads that far.

mod incoming;

pub use incoming::{Identity, Witnesses};

use std::collections::{BTreeMap, VecDeque};

use nexusd_core::limits::METADATA_BYTES_MAX;
use nexusd_wire::control::{DeliveryMode, ErrorCode};
use nexusd_wire::{
    FrameCutter, FrameEncoder, FrameKind, HEADER_BYTES, MessageFlags, SubscriptionId, aligned,
};

use crate::coverage::Coverage;
use crate::oracle::{Oracle, Resuming, StreamState};

/// By what the answer to HTTP is told, and how much of HTTP a shard needs to tell it.
const HTTP_BEGINNING: &[u8; 4] = b"HTTP";

/// What a written frame was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// Hello.
    Hello,
    /// A name for a topic id: the index of the [`Bind`].
    Bind(usize),
    /// A message: the index of the publication.
    Publish(u32),
    /// Subscribe: the index of the stream.
    Subscribe(usize),
    /// Unsubscribe of a stream.
    Unsubscribe(usize),
    /// Unsubscribe of a stream that is to be parked.
    Pause(usize),
    /// Unsubscribe of an id that is not known.
    UnsubscribeUnknown,
    /// Resume of a stream.
    Resume(Resuming),
    /// StreamAck of so many messages of a stream.
    StreamAck(usize, u64),
    /// A ping with this token.
    Ping(u64),
    /// Goodbye.
    Goodbye,
    /// Something that must be answered with an Error: fatal or not.
    Offence(Offended),
    /// Anything that has no answer.
    Other,
}

/// The Error that an offence must be answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offended {
    /// Its code.
    pub code: ErrorCode,
    /// The connection ends with it.
    pub fatal: bool,
    /// The request it answers; 0 if none.
    pub request: u64,
    /// The shard counts it among the refused publishes.
    pub is_rejected_publish: bool,
    /// It is HTTP, and so is the answer.
    pub is_http: bool,
}

/// What became of a TopicBind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BindFate {
    /// As far as is known it holds.
    Held,
    /// It was, or must be, refused.
    Refused,
}

/// One TopicBind of a client.
#[derive(Clone, Copy, Debug)]
pub struct Bind {
    /// The topic, as an index into the scenario's.
    pub topic: usize,
    /// What became of it.
    pub fate: BindFate,
}

/// What a client does once it has read so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// It may use its connection.
    Welcomed,
    /// It answers a ping.
    Pong(u64),
    /// It holds back, or goes on.
    Pause(bool),
    /// It knows the id of its stream.
    Confirmed(usize),
    /// Its stream goes on here.
    Resumed(usize),
    /// Its stream is parked, as it asked.
    Parked(usize),
    /// Its stream is gone.
    NotFound(usize),
    /// Its stream could not be resumed like this.
    Rejected(usize),
    /// The daemon is leaving or angry: it closes its end.
    Leave,
}

/// Where the connection is, as the shard must see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Nothing was fed that ends it.
    Going,
    /// A fatal offence was fed: only its Error may still come.
    Doomed,
    /// The client's Goodbye was fed: control frames may still come.
    Leaving,
    /// The daemon drains: what is fed is thrown away.
    Draining,
}

/// What the messages that come next on the wire are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    /// Of a stream, for this reason.
    Of(usize, DeliveryMode),
    /// Of a stream that was taken over: what was on its way when that happened.
    TakenOver,
}

/// One connection's conversation.
#[derive(Debug)]
pub struct Conversation {
    /// Counts conversations of a run; the publisher's identity for the oracle.
    pub number: u32,
    outbox: Vec<u8>,
    outbox_start: usize,
    written: u64,
    fed: u64,
    /// Where the frame that is being fed starts.
    frame_start: u64,
    /// Its header was fed.
    frame_has_begun: bool,
    written_frames: VecDeque<(u64, Sent)>,
    /// Fed, but the shard may not have dealt with them.
    unsettled: Vec<Sent>,
    /// Stream position of every publish and bind that was fed.
    placed: Vec<(u64, Sent)>,

    /// What the client may do.
    pub is_welcome: bool,
    /// The daemon asked it to hold back.
    pub is_held_back: bool,
    /// It has decided to close its end once everything is written.
    pub closes_when_written: bool,
    /// Its topic ids, dense from 0: indexes into `binds`; `None` if released.
    pub topic_ids: Vec<Option<usize>>,
    /// Every bind it ever made.
    pub binds: Vec<Bind>,
    /// The number of its next publish.
    pub next_sequence: u64,
    /// The number of its next request.
    pub next_request: u64,
    /// Its newest publication of each topic.
    pub newest: BTreeMap<usize, u32>,
    /// Its subscriptions.
    pub streams: Vec<usize>,
    /// Those of them whose id it knows and that it has not given up.
    pub known_streams: Vec<usize>,
    /// Those that it has asked to park, and knows no answer.
    pub pausing: Vec<usize>,
    /// Parked ones of which it has said too large a count, and knows no answer.
    pub resuming_parked: Vec<usize>,
    /// Those that it goes on with, and knows no answer.
    pub resuming: Vec<usize>,

    /// What the shard owes, in order.
    acks_due: VecDeque<u32>,
    pongs_due: VecDeque<u64>,
    errors_due: VecDeque<Offended>,
    unsubscribes_due: VecDeque<Sent>,
    /// When the shard was first asked for a pause.
    paused_since_us: u64,
    resumes_due: Vec<Resuming>,
    /// The fatal Error that may come, and must once the stage is `Doomed`.
    doom: Option<ErrorCode>,
    /// Where the connection is.
    pub stage: Stage,
    /// Since when it is no longer going.
    pub ending_since_us: Option<u64>,
    /// Since when its streams may have been parked.
    pub doubtful_since_us: Option<u64>,
    /// The shard may have given it up: little can be held against it.
    pub is_doubtful: bool,
    /// Its client has gone on elsewhere and left it standing.
    pub is_abandoned: bool,
    /// The shard that has it.
    pub home: usize,
    /// It was opened beyond the connection limit, or while draining.
    pub must_be_refused: Option<ErrorCode>,
    hello_written: bool,
    hello_fed: bool,

    cutter: FrameCutter,
    /// The fatal Error that may come is the answer to HTTP.
    is_http_due: bool,
    /// The answer to HTTP so far, in which no frames are.
    http: Vec<u8>,
    names: BTreeMap<u32, usize>,
    run: Option<Run>,
    /// Messages on the wire that the client has not read: where they end, and whose they are.
    unread: VecDeque<(u64, usize)>,
    /// When the first byte of the frame that is half on the wire was given to the socket.
    begun_us: u64,
    welcome_seen: bool,
    is_held_on_wire: bool,
    goodbye_seen: bool,
    /// Its Goodbye said that nothing follows.
    was_sent_all: bool,
    /// A fatal Error is on the wire.
    pub fatal_error: Option<ErrorCode>,
    /// Bytes the daemon has put on the wire.
    pub on_wire: u64,
    /// Bytes the client has read.
    pub read: u64,
    reactions: VecDeque<(u64, Reaction)>,
}

impl Conversation {
    /// A connection that was just made.
    pub fn new(number: u32, payload_bytes_max: u32) -> Self {
        let message_bytes_max =
            HEADER_BYTES + aligned(METADATA_BYTES_MAX as usize) + payload_bytes_max as usize;
        Self {
            number,
            outbox: Vec::new(),
            outbox_start: 0,
            written: 0,
            fed: 0,
            frame_start: 0,
            frame_has_begun: false,
            written_frames: VecDeque::new(),
            unsettled: Vec::new(),
            placed: Vec::new(),
            is_welcome: false,
            is_held_back: false,
            closes_when_written: false,
            topic_ids: Vec::new(),
            binds: Vec::new(),
            next_sequence: 1,
            next_request: 1,
            newest: BTreeMap::new(),
            streams: Vec::new(),
            known_streams: Vec::new(),
            pausing: Vec::new(),
            resuming_parked: Vec::new(),
            resuming: Vec::new(),
            acks_due: VecDeque::new(),
            pongs_due: VecDeque::new(),
            errors_due: VecDeque::new(),
            unsubscribes_due: VecDeque::new(),
            paused_since_us: u64::MAX,
            resumes_due: Vec::new(),
            doom: None,
            stage: Stage::Going,
            ending_since_us: None,
            doubtful_since_us: None,
            is_doubtful: false,
            is_abandoned: false,
            home: 0,
            must_be_refused: None,
            hello_written: false,
            hello_fed: false,
            cutter: FrameCutter::new(
                message_bytes_max as u32,
                nexusd_core::limits::CONTROL_BYTES_MAX,
                usize::MAX,
            ),
            is_http_due: false,
            http: Vec::new(),
            names: BTreeMap::new(),
            run: None,
            unread: VecDeque::new(),
            begun_us: 0,
            welcome_seen: false,
            is_held_on_wire: false,
            goodbye_seen: false,
            was_sent_all: false,
            fatal_error: None,
            on_wire: 0,
            read: 0,
            reactions: VecDeque::new(),
        }
    }

    /// Writes one frame.
    pub fn write(
        &mut self,
        sent: Sent,
        coverage: &mut Coverage,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        self.hello_written |= sent == Sent::Hello;
        let before = self.outbox.len();
        encode(&mut self.outbox);
        if let Some(&kind) = self.outbox.get(before + 4) {
            coverage.sent_to_daemon(FrameKind(kind));
        }
        self.written += (self.outbox.len() - before) as u64;
        self.written_frames.push_back((self.written, sent));
    }

    /// Answers a ping.
    pub fn write_pong(&mut self, token: u64, coverage: &mut Coverage) {
        self.write(Sent::Other, coverage, |out| {
            FrameEncoder::ping_or_pong(out, FrameKind::Pong, token);
        });
    }

    /// The client has said Hello, if perhaps only to its own socket.
    pub fn hello_was_written(&self) -> bool {
        self.hello_written
    }

    /// The shard was fed the beginning of something that ends the connection.
    pub fn is_doomed(&self) -> bool {
        self.doom.is_some()
    }

    /// The shard was fed a Hello.
    pub fn hello_was_fed(&self) -> bool {
        self.hello_fed
    }

    /// Hello was answered, and the answer is on the wire.
    pub fn was_welcomed(&self) -> bool {
        self.welcome_seen
    }

    /// Bytes written and not yet fed to the shard.
    pub fn outbox(&self) -> &[u8] {
        &self.outbox[self.outbox_start..]
    }

    /// Everything written was fed.
    pub fn is_written_out(&self) -> bool {
        self.outbox_start == self.outbox.len()
    }

    /// The shard is being fed the next `bytes`: what they complete.
    pub fn feed(&mut self, bytes: usize, oracle: &mut Oracle) {
        self.outbox_start += bytes;
        self.fed += bytes as u64;
        if self.outbox_start == self.outbox.len() {
            self.outbox.clear();
            self.outbox_start = 0;
        } else if self.outbox_start > 64 << 10 {
            self.outbox.drain(..self.outbox_start);
            self.outbox_start = 0;
        }
        while let Some(&(end, sent)) = self.written_frames.front() {
            let is_heard = self.stage == Stage::Going && self.must_be_refused.is_none();
            // HTTP is told by its first bytes.
            let is_http = matches!(sent, Sent::Offence(Offended { is_http: true, .. }));
            let judged = if is_http { HTTP_BEGINNING.len() } else { HEADER_BYTES };
            let has_begun = self.fed >= self.frame_start + judged as u64;
            if has_begun && is_heard && !std::mem::replace(&mut self.frame_has_begun, true) {
                self.frame_begun(sent, oracle);
            }
            if end > self.fed {
                break;
            }
            self.written_frames.pop_front();
            self.frame_start = end;
            self.frame_has_begun = false;
            if self.stage == Stage::Going && is_heard {
                self.frame_fed(sent, oracle);
            }
            if is_heard {
                self.unsettled.push(sent);
            }
        }
    }

    /// The shard was fed a frame's header: it may refuse the frame without waiting for its end.
    fn frame_begun(&mut self, sent: Sent, oracle: &mut Oracle) {
        match sent {
            Sent::Bind(_) => self.placed.push((self.frame_start, sent)),
            Sent::Publish(index) => {
                self.placed.push((self.frame_start, sent));
                if oracle.publication(index).header.flags().contains(MessageFlags::ACK) {
                    self.acks_due.push_back(index);
                }
            }
            Sent::Offence(offended) if offended.fatal => {
                self.doom = Some(offended.code);
                self.is_http_due = offended.is_http;
                self.ending_since_us = Some(oracle.now_us());
                self.streams_may_end(oracle);
            }
            Sent::Offence(offended) => self.errors_due.push_back(offended),
            _ => {}
        }
    }

    fn frame_fed(&mut self, sent: Sent, oracle: &mut Oracle) {
        match sent {
            Sent::Hello => self.hello_fed = true,
            Sent::Publish(index) => oracle.publish_fed(index),
            Sent::Subscribe(stream) => oracle.subscribe_fed(stream),
            Sent::Unsubscribe(stream) => {
                oracle.unsubscribe_fed(stream);
                self.unsubscribes_due.push_back(sent);
            }
            Sent::Pause(stream) => {
                oracle.may_be_away(stream);
                self.paused_since_us = self.paused_since_us.min(oracle.now_us());
                self.unsubscribes_due.push_back(sent);
            }
            Sent::UnsubscribeUnknown => self.unsubscribes_due.push_back(sent),
            Sent::Resume(resuming) => self.resumes_due.push(oracle.resume_fed(resuming)),
            Sent::StreamAck(stream, count) => oracle.ack_fed(stream, count),
            Sent::Ping(token) => self.pongs_due.push_back(token),
            Sent::Goodbye => self.ending(Stage::Leaving, oracle),
            Sent::Offence(offended) if offended.fatal => self.ending(Stage::Doomed, oracle),
            Sent::Bind(_) | Sent::Offence(_) | Sent::Other => {}
        }
    }

    /// The connection goes on no longer.
    pub fn ending(&mut self, stage: Stage, oracle: &mut Oracle) {
        self.stage = stage;
        self.ending_since_us.get_or_insert(oracle.now_us());
        if stage != Stage::Draining {
            self.streams_may_end(oracle);
        }
    }

    /// The streams that are this conversation's now.
    fn own_streams(&self, oracle: &Oracle) -> Vec<usize> {
        let is_own = |stream: &usize| oracle.stream(*stream).conversation == self.number;
        self.streams.iter().copied().filter(is_own).collect()
    }

    fn streams_may_end(&self, oracle: &mut Oracle) {
        for stream in self.own_streams(oracle) {
            oracle.stream_may_be_gone(stream);
        }
        self.resumed_may_be_gone(oracle);
    }

    /// Streams that were asked for here may have come, and end with the others.
    fn resumed_may_be_gone(&self, oracle: &mut Oracle) {
        for resuming in self.resumes_due.iter().filter(|resuming| !resuming.is_wrong) {
            oracle.stream_may_be_gone(resuming.stream);
        }
    }

    /// Whether frames were fed that the shard may not have dealt with.
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// The shard read this connection when its turn ended: it has dealt with all it was fed.
    pub fn settle(&mut self, oracle: &mut Oracle) {
        if self.is_doubtful {
            return;
        }
        for sent in self.unsettled.drain(..) {
            match sent {
                Sent::Publish(index) => oracle.publish_settled(index),
                Sent::Subscribe(stream) => {
                    oracle.subscribe_settled(stream);
                    if self.doom.is_some() || self.stage == Stage::Leaving {
                        oracle.stream_may_end(stream);
                    }
                }
                Sent::Offence(Offended { is_rejected_publish: true, .. }) => {
                    oracle.offence_refused();
                }
                Sent::StreamAck(stream, count) => oracle.ack_settled(stream, count),
                _ => {}
            }
        }
    }

    /// From now on it cannot be known what the shard made of what it was fed. `ends`: its streams may
    /// have ended, not only been parked.
    pub fn doubt(&mut self, ends: bool, oracle: &mut Oracle) {
        let ends = ends || !oracle.parks();
        for stream in self.own_streams(oracle) {
            if ends || oracle.stream(stream).state != StreamState::Open {
                oracle.stream_doubted(stream);
            }
        }
        self.own_streams(oracle).into_iter().for_each(|stream| oracle.may_be_away(stream));
        if ends {
            self.resumed_may_be_gone(oracle);
        }
        if std::mem::replace(&mut self.is_doubtful, true) {
            return;
        }
        self.doubtful_since_us = Some(oracle.now_us());
    }

    /// The connection is gone for the shard.
    pub fn ended(&mut self, oracle: &mut Oracle) {
        for stream in self.own_streams(oracle) {
            self.leave(stream, oracle);
        }
        if self.may_have_ended_streams(oracle) {
            self.resumed_may_be_gone(oracle);
        }
        for resuming in std::mem::take(&mut self.resumes_due) {
            oracle.resume_given_up(&resuming);
        }
        for sent in self.unsettled.drain(..) {
            if let Sent::Publish(index) = sent {
                oracle.publish_doubted(index);
            }
        }
        if self.is_doubtful {
            for &(_, sent) in &self.placed {
                if let Sent::Publish(index) = sent {
                    oracle.publish_doubted(index);
                }
            }
        }
    }

    /// The connection is gone, and its streams with it for all that is known.
    fn may_have_ended_streams(&self, oracle: &mut Oracle) -> bool {
        self.doom.is_some()
            || matches!(self.stage, Stage::Doomed | Stage::Leaving | Stage::Draining)
            || (self.is_doubtful && self.may_be_disconnected(oracle))
    }

    /// Whether a stream of policy `disconnect` that is here, or may be, can have ended the connection.
    pub fn may_be_disconnected(&self, oracle: &mut Oracle) -> bool {
        let resumed = self.resumes_due.iter().map(|resuming| resuming.stream);
        let streams: Vec<_> = self.streams.iter().copied().chain(resumed).collect();
        oracle.may_be_disconnected(&streams)
    }

    /// The connection is gone, and one of its streams parked or ended.
    fn leave(&self, stream: usize, oracle: &mut Oracle) {
        // Somebody may have waited to go on with it when the drain began.
        let is_drained =
            self.stage == Stage::Draining && oracle.stream(stream).resumes_pending == 0;
        if !oracle.parks() || is_drained {
            return oracle.stream_ended(stream);
        }
        let ends = |sent: &Sent| match *sent {
            Sent::Goodbye => true,
            Sent::Offence(offended) => offended.fatal,
            Sent::Unsubscribe(of) => of == stream,
            _ => false,
        };
        let is_timeout = self.fatal_error == Some(ErrorCode::Timeout);
        let was_ended = !is_timeout
            && (self.doom.is_some()
                || matches!(self.stage, Stage::Doomed | Stage::Leaving)
                || oracle.stream(stream).state == StreamState::Closing);
        // What ends it was fed; perhaps the shard had not come to it.
        let is_unsure = self.is_doubtful || self.unsettled.iter().any(ends);
        let is_half_fed = self.doom.is_some() && self.stage == Stage::Going;
        // One that was to be parked before was parked before.
        let was_paused = self.unsubscribes_due.contains(&Sent::Pause(stream));
        if was_ended && !was_paused && !is_half_fed && (!is_unsure || self.fatal_error.is_some()) {
            return oracle.stream_ended(stream);
        }
        let is_unsure = oracle.stream(stream).is_doubtful || self.stage == Stage::Draining;
        let may_be_gone = was_ended || is_unsure;
        let since_us = self.doubtful_since_us.unwrap_or(oracle.now_us());
        oracle.stream_parked(stream, since_us, may_be_gone);
    }

    /// Lets the client read up to `bytes` more, and tells what it does about it.
    pub fn read(&mut self, bytes: u64, oracle: &mut Oracle) -> Vec<Reaction> {
        self.read = self.on_wire.min(self.read + bytes);
        while let Some(&(_, stream)) = self.unread.front().filter(|(at, _)| *at <= self.read) {
            self.unread.pop_front();
            oracle.message_read(stream);
        }
        let mut reactions = Vec::new();
        while let Some(&(at, reaction)) = self.reactions.front() {
            if at > self.read {
                break;
            }
            self.reactions.pop_front();
            reactions.push(reaction);
        }
        reactions
    }

    /// The streams that the client has here, as far as it knows.
    pub fn client_streams(&self) -> Vec<usize> {
        [&self.known_streams, &self.pausing, &self.resuming]
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// Whether a stream was surely taken from here by another connection: one that is parked, or that
    /// was about to be, is not.
    pub fn was_taken_over(&self, oracle: &Oracle) -> bool {
        let is_taken = |stream: &usize| {
            oracle.stream(*stream).taken_from.contains(&self.number)
                && !self.unsubscribes_due.contains(&Sent::Pause(*stream))
        };
        self.streams.iter().any(is_taken)
    }

    /// Whether the daemon was asked for a stream that is here, and has to end this connection for that.
    pub fn is_to_be_taken_over(&self, oracle: &Oracle) -> bool {
        let is_awaited = |stream: &usize| {
            let is_pausing = self.unsubscribes_due.contains(&Sent::Pause(*stream));
            let stream = oracle.stream(*stream);
            stream.conversation == self.number
                && stream.state == StreamState::Open
                && stream.resumes_pending > 0
                && !is_pausing
        };
        !self.is_doubtful && self.streams.iter().any(is_awaited)
    }

    /// The id of a stream, if the client knows it.
    pub fn subscription_of(&self, stream: usize, oracle: &Oracle) -> Option<SubscriptionId> {
        oracle.stream(stream).subscription.filter(|_| self.known_streams.contains(&stream))
    }
}
