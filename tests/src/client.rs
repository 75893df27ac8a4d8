//! An application on a blocking socket.
//!
//! It speaks the protocol frame by frame: what it sends is gathered and goes out with
//! [`Client::flush`], which everything that waits for an answer does first. What comes meanwhile is
//! kept, in order, until somebody listens for it. How it understands the frames stands in `hearing.rs`,
//! how it comes back after a connection that broke in `client/returning.rs`.

mod returning;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use nexusd_wire::control::{PublishStatus, Role};
use nexusd_wire::{
    Cut, FrameCutter, FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, NodeId,
    Sequence, SubscribeRequest, SubscriptionId, TopicId,
};
use socket2::Socket;

use crate::SOON;
use crate::address::Address;
use crate::heard::{Complaint, Confirmation, Delivery, Heard, Subscribed};
use crate::hearing::Hearing;

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 64 << 10;
/// How long a sip waits for more.
const SIP_PATIENCE: Duration = Duration::from_millis(10);
/// Request numbers begin here, so that a daemon that answers with another number is noticed.
const FIRST_REQUEST: u64 = 1_000;

thread_local! {
    /// Where bytes are received: clients by the thousand share it.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What came of listening for a while.
#[derive(Clone, PartialEq, Debug)]
pub enum Listened {
    /// A frame.
    Heard(Heard),
    /// Nothing, in that time.
    Silence,
    /// The daemon has closed the connection, behind whatever was heard before.
    End,
}

/// What carries a connection.
#[derive(Debug)]
pub struct Line(Socket);

impl Line {
    /// Cuts it, both ways.
    pub fn cut(&self) {
        // The daemon may have done so before.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    /// Frames to be sent.
    outgoing: Vec<u8>,
    /// Bytes received, of which the first `taken` are dealt with.
    incoming: Vec<u8>,
    taken: usize,
    /// Heard while waiting for something else.
    kept: VecDeque<Heard>,
    /// Topics bound for publishing, by name.
    bound: HashMap<String, TopicId>,
    /// Number of the newest publish.
    published: u64,
    request: u64,
    hearing: Hearing,
    /// Bytes given to the socket.
    sent: u64,
    answers_pings: bool,
    /// The connection may end amid a frame: it is not the daemon that ends it.
    may_be_cut: bool,
    has_ended: bool,
}

impl Client {
    /// Connects and is welcomed.
    pub fn connect(address: &Address) -> Self {
        let mut client = Self::open(address);
        client.hello();
        client.welcome();
        client
    }

    /// Connects without a word.
    pub fn open(address: &Address) -> Self {
        Self::over(address.connect(None).unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    /// Connects like [`Self::connect`], over a socket that takes in little for a client that does
    /// not read.
    pub fn connect_narrow(address: &Address) -> Self {
        let socket = address.connect(Some(4 << 10));
        let mut client = Self::over(socket.unwrap_or_else(|error| panic!("{address}: {error}")));
        client.hello();
        client.welcome();
        client
    }

    /// A client on a connected socket.
    pub fn over(socket: Socket) -> Self {
        socket.set_write_timeout(Some(SOON)).expect("a timeout");
        Self {
            socket,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            taken: 0,
            kept: VecDeque::new(),
            bound: HashMap::new(),
            published: 0,
            request: FIRST_REQUEST,
            hearing: Hearing::default(),
            sent: 0,
            answers_pings: true,
            may_be_cut: false,
            has_ended: false,
        }
    }

    // What it says.

    /// Says Hello.
    pub fn hello(&mut self) {
        FrameEncoder::new().hello(&mut self.outgoing, 0, Role::Client, "a test", "nexusd-tests");
    }

    /// Says any bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Says Goodbye.
    pub fn goodbye(&mut self) {
        FrameEncoder::new().goodbye(&mut self.outgoing, "done", 0);
    }

    /// Says Ping.
    pub fn ping(&mut self, token: u64) {
        FrameEncoder::ping_or_pong(&mut self.outgoing, FrameKind::Ping, token);
    }

    /// Hears the daemon's pings from now on, instead of answering them by itself.
    pub fn leave_pings_unanswered(&mut self) {
        self.answers_pings = false;
    }

    /// Says Pong.
    pub fn pong(&mut self, token: u64) {
        FrameEncoder::ping_or_pong(&mut self.outgoing, FrameKind::Pong, token);
    }

    /// Gives a topic an id for publishing, once; returns the id.
    pub fn bind(&mut self, topic: &str) -> TopicId {
        if let Some(id) = self.bound.get(topic) {
            return *id;
        }
        let id = TopicId(u32::try_from(self.bound.len()).expect("few topics"));
        self.bound.insert(topic.to_owned(), id);
        FrameEncoder::new().topic_bind(&mut self.outgoing, id, topic);
        id
    }

    /// Publishes without asking for an acknowledgement; returns the publisher's number.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> u64 {
        self.publish_with(topic, &Header::new(FrameKind::Message, 0, 0), &[], payload)
    }

    /// Publishes and asks for an acknowledgement, without waiting for it.
    pub fn publish_asking(&mut self, topic: &str, payload: &[u8]) -> u64 {
        let header = Header::new(FrameKind::Message, 0, 0).with_flags(MessageFlags::ACK);
        self.publish_with(topic, &header, &[], payload)
    }

    /// Publishes with the flags, times and key of `header`, and metadata.
    pub fn publish_with(
        &mut self,
        topic: &str,
        header: &Header,
        metadata: &[u8],
        payload: &[u8],
    ) -> u64 {
        let id = self.bind(topic);
        self.published += 1;
        let header = header.with_topic(id).with_sequence(Sequence(self.published));
        FrameEncoder::message(&mut self.outgoing, &header, metadata, payload);
        self.published
    }

    /// Asks for a subscription, without waiting for it; returns the request's number.
    pub fn ask_to_subscribe(&mut self, request: &SubscribeRequest<'_>) -> u64 {
        self.request += 1;
        let request = SubscribeRequest { request: self.request, ..*request };
        FrameEncoder::new().subscribe(&mut self.outgoing, &request);
        self.request
    }

    /// Asks to end a subscription, without waiting for it; returns the request's number.
    pub fn ask_to_unsubscribe(&mut self, subscription: SubscriptionId) -> u64 {
        self.request += 1;
        FrameEncoder::new().unsubscribe(&mut self.outgoing, self.request, subscription, false);
        self.request
    }

    /// Sends what was said.
    pub fn flush(&mut self) {
        self.try_flush().expect("the daemon reads");
    }

    /// Sends what was said; an error if the daemon has closed the connection.
    pub fn try_flush(&mut self) -> std::io::Result<()> {
        let bytes = std::mem::take(&mut self.outgoing);
        self.socket.write_all(&bytes)?;
        self.sent += bytes.len() as u64;
        self.outgoing = bytes;
        self.outgoing.clear();
        Ok(())
    }

    /// Takes what was said and not yet sent.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Bytes said so far, sent or not: the position of the next frame in the stream.
    pub fn position(&self) -> u64 {
        self.sent + self.outgoing.len() as u64
    }

    /// Sends what was said, and then the end of the stream. The daemon takes that for the end of the
    /// connection: what it has not answered yet it may not answer any more.
    pub fn shut_down(&mut self) {
        // The daemon may have ended the connection already; what it said is still to be read.
        let _ = self.try_flush();
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// A handle by which the connection can be cut while the client reads.
    pub fn line(&mut self) -> Line {
        self.may_be_cut = true;
        Line(self.socket.try_clone().expect("a descriptor"))
    }

    // What it hears.

    /// The next frame.
    ///
    /// # Panics
    /// If none comes soon.
    pub fn hear(&mut self) -> Heard {
        match self.listen(SOON) {
            Listened::Heard(heard) => heard,
            other => panic!("a frame should have come: {other:?}"),
        }
    }

    /// The next frame, if one comes within `patience`.
    pub fn listen(&mut self, patience: Duration) -> Listened {
        match self.kept.pop_front() {
            Some(heard) => Listened::Heard(heard),
            None => self.listen_anew(patience),
        }
    }

    /// Whether something was heard that nobody listened for yet.
    pub fn is_keeping(&self) -> bool {
        !self.kept.is_empty()
    }

    /// The next frame that `wanted` takes; all others are kept for later.
    ///
    /// # Panics
    /// If none comes soon.
    pub fn wait_for<T>(&mut self, what: &str, mut wanted: impl FnMut(&Heard) -> Option<T>) -> T {
        for at in 0..self.kept.len() {
            if let Some(found) = wanted(&self.kept[at]) {
                self.kept.remove(at);
                return found;
            }
        }
        self.flush();
        let deadline = Instant::now() + SOON;
        loop {
            match self.listen_anew(deadline.saturating_duration_since(Instant::now())) {
                Listened::Heard(heard) => match wanted(&heard) {
                    Some(found) => return found,
                    None => self.kept.push_back(heard),
                },
                other => panic!("{what} should have come: {other:?}; before: {:?}", self.kept),
            }
        }
    }

    /// Waits until the daemon closes the connection; returns what it said until then.
    pub fn rest(&mut self) -> Vec<Heard> {
        let mut rest = Vec::new();
        loop {
            match self.listen(SOON) {
                Listened::Heard(heard) => rest.push(heard),
                Listened::End => return rest,
                Listened::Silence => panic!("the daemon should have closed; it said {rest:?}"),
            }
        }
    }

    /// Waits for the fatal Error that ends the connection, and for the end.
    pub fn complaint(&mut self) -> Complaint {
        // What was said may be why the daemon closes while it is still being sent.
        let _ = self.try_flush();
        match self.rest().pop() {
            Some(Heard::Error(complaint)) => {
                assert!(complaint.fatal, "{complaint:?}");
                complaint
            }
            other => panic!("the last word should have been an Error: {other:?}"),
        }
    }

    /// Waits for Welcome; returns the daemon's id and the longest payload it takes.
    pub fn welcome(&mut self) -> (NodeId, u32) {
        self.wait_for("Welcome", |heard| match heard {
            Heard::Welcome { node, max_payload } => Some((*node, *max_payload)),
            _ => None,
        })
    }

    /// Subscribes with the daemon's defaults, and waits until that is confirmed.
    pub fn subscribe(&mut self, filters: &[&str]) -> SubscriptionId {
        self.subscribe_with(&SubscribeRequest { filters, ..SubscribeRequest::default() })
    }

    /// Subscribes without a bound on the number of queued messages but with a large one on their
    /// bytes, so that nothing is lost, and waits until that is confirmed.
    pub fn subscribe_to_all(&mut self, filters: &[&str]) -> SubscriptionId {
        self.subscribe_with(&SubscribeRequest {
            filters,
            queue_messages: Some(0),
            queue_bytes: Some(1 << 30),
            ..SubscribeRequest::default()
        })
    }

    /// Subscribes, and waits until that is confirmed.
    pub fn subscribe_with(&mut self, request: &SubscribeRequest<'_>) -> SubscriptionId {
        let asked = self.ask_to_subscribe(request);
        self.subscribed(asked).subscription
    }

    /// Waits until the Subscribe or Resume of this number is confirmed.
    ///
    /// # Panics
    /// If it is refused.
    pub fn subscribed(&mut self, asked: u64) -> Subscribed {
        self.wait_for("SubscriptionInfo", |heard| match heard {
            Heard::Subscribed(subscribed) if subscribed.request == asked => Some(*subscribed),
            Heard::Error(complaint) if complaint.request == asked => panic!("{complaint:?}"),
            _ => None,
        })
    }

    /// Gives a subscription up, and waits until that is confirmed; returns whether there was one.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId) -> (bool, String) {
        let asked = self.ask_to_unsubscribe(subscription);
        self.wait_for("UnsubscribeResult", |heard| match heard {
            Heard::Unsubscribed { request, success, message, .. } if *request == asked => {
                Some((*success, message.clone()))
            }
            _ => None,
        })
    }

    /// Publishes, and waits until that is answered.
    pub fn publish_and_wait(&mut self, topic: &str, payload: &[u8]) -> Confirmation {
        let number = self.publish_asking(topic, payload);
        self.confirmation(number)
    }

    /// Publishes, and waits until that is accepted.
    pub fn publish_accepted(&mut self, topic: &str, payload: &[u8]) -> Confirmation {
        let confirmation = self.publish_and_wait(topic, payload);
        assert_eq!(confirmation.status, PublishStatus::Accepted, "{confirmation:?}");
        confirmation
    }

    /// Publishes to a topic again and again, until a message of it goes to so many subscriptions and
    /// nodes; returns how long that took.
    pub fn publish_until_delivered(&mut self, topic: &str, delivered: u32) -> Duration {
        crate::soon(&format!("{topic} goes to {delivered}"), || {
            self.publish_accepted(topic, b"probe").delivered == delivered
        })
    }

    /// Waits for the answer to a publish; answers to earlier ones are dropped.
    pub fn confirmation(&mut self, number: u64) -> Confirmation {
        self.wait_for("PublishAck", |heard| match heard {
            Heard::PublishAck(entries) => {
                entries.iter().find(|entry| entry.publisher_sequence == number).cloned()
            }
            _ => None,
        })
    }

    /// Pings, and waits for the answer: the daemon has dealt with all that was sent before.
    pub fn catch_up(&mut self) {
        let token = 0xCA7C_0000 + self.position();
        self.ping(token);
        self.wait_for("Pong", |heard| (*heard == Heard::Pong(token)).then_some(()));
    }

    /// The next message or Gap; other frames are kept.
    pub fn next_delivery(&mut self) -> Heard {
        self.wait_for("a message or Gap", |heard| match heard {
            Heard::Message(_) | Heard::Gap(_) => Some(heard.clone()),
            _ => None,
        })
    }

    /// The next message.
    ///
    /// # Panics
    /// If it is a Gap.
    pub fn next_message(&mut self) -> Delivery {
        match self.next_delivery() {
            Heard::Message(message) => message,
            other => panic!("a message should have come: {other:?}"),
        }
    }

    /// Reads one frame, if one comes within `patience`.
    fn listen_anew(&mut self, patience: Duration) -> Listened {
        let deadline = Instant::now() + patience;
        loop {
            while let Some(heard) = self.cut_one() {
                match heard {
                    Some(Heard::Ping(token)) if self.answers_pings => {
                        self.pong(token);
                        // Whatever else was said goes with it; the daemon may be gone already.
                        let _ = self.try_flush();
                    }
                    Some(heard) => return Listened::Heard(heard),
                    None => {}
                }
            }
            if self.has_ended {
                let is_whole = self.incoming.len() == self.taken;
                assert!(is_whole || self.may_be_cut, "the daemon ended amid a frame");
                return Listened::End;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.receive(READ_BYTES, left) {
                return Listened::Silence;
            }
        }
    }

    /// Receives what there is, up to `most` bytes; `false` if nothing came within `patience`.
    fn receive(&mut self, most: usize, patience: Duration) -> bool {
        if patience.is_zero() {
            return false;
        }
        self.incoming.drain(..self.taken);
        self.taken = 0;
        self.socket.set_read_timeout(Some(patience)).expect("a timeout");
        let received = SCRATCH.with_borrow_mut(|scratch| {
            let received = self.socket.read(&mut scratch[..most]);
            if let Ok(count) = received {
                self.incoming.extend_from_slice(&scratch[..count]);
            }
            received
        });
        match received {
            Ok(0) => self.has_ended = true,
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return false,
                ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.has_ended = true,
                _ => panic!("reading: {error}"),
            },
        }
        true
    }

    /// Shows life and takes about `bytes` of what waits off the socket, as a reader does that is all
    /// but stalled.
    pub fn sip(&mut self, bytes: usize) {
        self.pong(0);
        self.flush();
        let wanted = self.incoming.len() - self.taken + bytes;
        while self.incoming.len() - self.taken < wanted && self.receive(READ_BYTES, SIP_PATIENCE) {}
    }

    /// Takes one byte off the socket and leaves it for later.
    ///
    /// # Panics
    /// If none comes soon.
    pub fn take_a_byte(&mut self) {
        assert!(self.receive(1, SOON), "a byte should have come");
        assert!(!self.has_ended, "the daemon closed the connection");
    }

    /// Takes one whole frame off what was received; `Some(None)` if it is nothing to be heard.
    #[expect(clippy::option_option, reason = "no frame, or a frame with nothing to be heard")]
    fn cut_one(&mut self) -> Option<Option<Heard>> {
        let bytes = &self.incoming[self.taken..];
        let stride = Header::peek(bytes)?.stride();
        assert!(stride >= HEADER_BYTES, "the daemon sent a frame of {stride} bytes");
        let mut bytes = bytes.get(..stride)?;
        let mut cutter = FrameCutter::new(u32::MAX, u32::MAX, usize::MAX);
        let frame = match cutter.next(&mut bytes) {
            Ok(Cut::Frame(frame)) => frame,
            other => panic!("the daemon sent no frame: {other:?}"),
        };
        let heard = self.hearing.interpret(&frame);
        self.taken += stride;
        Some(heard)
    }
}
