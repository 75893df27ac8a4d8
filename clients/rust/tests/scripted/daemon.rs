//! A daemon that does only what a test tells it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use nexusd_client::{Client, ClientBuilder, Event, Message, Subscription};
use nexusd_wire::control::{self, DeliveryMode, ErrorCode};
use nexusd_wire::{
    Cut, ErrorReport, Frame, FrameCutter, FrameEncoder, FrameKind, Header, NodeId, Sequence,
    SubscriptionId, SubscriptionReport, TopicId,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longest time anything in these tests may take.
const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const NODE: NodeId = NodeId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
/// Another daemon, or the same one after a restart.
pub(crate) const OTHER_NODE: NodeId = NodeId(0xfeed);
/// And one after that.
pub(crate) const THIRD_NODE: NodeId = NodeId(44);
pub(crate) const MAX_PAYLOAD: u32 = 4 << 20;

/// Waits for what has to happen.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it happens before the deadline")
}

pub(crate) struct ScriptedDaemon {
    listener: TcpListener,
}

/// One client's connection, seen from the daemon.
pub(crate) struct Link<S = TcpStream> {
    pub(crate) stream: S,
    cutter: FrameCutter,
    unread: Vec<u8>,
    encoder: FrameEncoder,
    /// StreamAcks that came while something else was waited for.
    acks: VecDeque<Vec<(u128, u64)>>,
}

/// A Subscribe that was received.
pub(crate) struct Asked {
    pub(crate) request: u64,
    pub(crate) filters: Vec<String>,
    /// Topic, number and origin, by topic.
    pub(crate) positions: Vec<(String, u64, NodeId)>,
    pub(crate) receive_retained: bool,
    pub(crate) counted: bool,
    /// Nodes of which nothing follows.
    pub(crate) ended: Vec<NodeId>,
}

/// A frame as it was received, with its padding.
pub(crate) struct Received(pub(crate) Vec<u8>);

impl Received {
    pub(crate) fn kind(&self) -> FrameKind {
        self.header().kind().unwrap()
    }

    pub(crate) fn header(&self) -> &Header {
        Header::peek(&self.0).unwrap()
    }

    /// Looks at the frame.
    pub(crate) fn see<T>(&self, look: impl FnOnce(&Frame<'_>) -> T) -> T {
        let mut cutter = FrameCutter::new(u32::MAX, u32::MAX, usize::MAX);
        let mut input = self.0.as_slice();
        match cutter.next(&mut input) {
            Ok(Cut::Frame(frame)) => look(&frame),
            other => panic!("not a frame: {other:?}"),
        }
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        self.see(|frame| frame.payload().to_vec())
    }

    /// What it is, in one line.
    pub(crate) fn line(&self) -> String {
        let topic = self.header().topic().0;
        let sequence = self.header().sequence().0;
        self.see(|frame| match frame.kind() {
            FrameKind::TopicBind => {
                let bind = frame.body::<control::TopicBind<'_>>().unwrap();
                format!("bind {topic} {}", bind.name())
            }
            FrameKind::Message => {
                let payload = String::from_utf8_lossy(frame.payload());
                format!("message {topic} #{sequence} {payload}")
            }
            FrameKind::Subscribe => {
                let subscribe = frame.body::<control::Subscribe<'_>>().unwrap();
                let filters: Vec<_> = subscribe.filters().iter().collect();
                format!("subscribe {}", filters.join(" "))
            }
            FrameKind::Resume => {
                let resume = frame.body::<control::Resume<'_>>().unwrap();
                let id = SubscriptionId::from(resume.subscription()).0;
                format!("resume {id} after {}", resume.received_count())
            }
            kind => format!("{kind:?}"),
        })
    }
}

impl ScriptedDaemon {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self { listener }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// A client that is set up for tests: it reconnects without delay.
    pub(crate) fn client(&self) -> ClientBuilder {
        Client::builder(&self.address().to_string())
            .reconnect_delays(Duration::from_millis(1), Duration::from_millis(5))
    }

    pub(crate) async fn accept(&self) -> Link {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Link::over(stream)
    }

    /// Accepts and welcomes.
    pub(crate) async fn welcome(&self) -> Link {
        self.welcome_as(NODE).await.0
    }

    /// Accepts, and welcomes as this node; tells the subscription that Hello names.
    pub(crate) async fn welcome_as(&self, node: NodeId) -> (Link, Option<u128>) {
        let mut link = self.accept().await;
        let named = link.welcome_as(node).await;
        (link, named)
    }

    /// A connected client, and its link.
    pub(crate) async fn connected(&self) -> (Client, Link) {
        self.connected_by(self.client()).await
    }

    pub(crate) async fn connected_by(&self, builder: ClientBuilder) -> (Client, Link) {
        let (client, link) = tokio::join!(soon(builder.connect()), self.welcome());
        (client.unwrap(), link)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            cutter: FrameCutter::new(u32::MAX, u32::MAX, usize::MAX),
            unread: Vec::new(),
            encoder: FrameEncoder::new(),
            acks: VecDeque::new(),
        }
    }

    /// The next frame that is no StreamAck, which come when time has passed; `None` when the client
    /// has closed.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        loop {
            let frame = self.next_of_any_kind().await?;
            if frame.kind() != FrameKind::StreamAck {
                return Some(frame);
            }
            self.acks.push_back(counts_of(&frame));
        }
    }

    /// The counts of the next StreamAck, by subscription.
    pub(crate) async fn ack(&mut self) -> Vec<(u128, u64)> {
        if let Some(counts) = self.acks.pop_front() {
            return counts;
        }
        let frame = self.next_of_any_kind().await.expect("the client is still there");
        assert_eq!(frame.kind(), FrameKind::StreamAck, "{}", frame.line());
        counts_of(&frame)
    }

    /// The StreamAcks for what was sent that came without waiting. The first Pong may pass those for
    /// what came together with its Ping, the second one does not.
    pub(crate) async fn acks_at_once(&mut self) -> Vec<Vec<(u128, u64)>> {
        for _ in 0..2 {
            self.send_bare(FrameKind::Ping).await;
            self.expect(FrameKind::Pong).await;
        }
        self.acks.drain(..).collect()
    }

    async fn next_of_any_kind(&mut self) -> Option<Received> {
        loop {
            let mut input = self.unread.as_slice();
            let found = match self.cutter.next(&mut input).unwrap() {
                Cut::Frame(frame) => Some(Received(frame.bytes().to_vec())),
                _ => None,
            };
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            if found.is_some() {
                return found;
            }
            let mut bytes = [0; 64 << 10];
            match soon(self.stream.read(&mut bytes)).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.unread.extend_from_slice(&bytes[..count]),
            }
        }
    }

    pub(crate) async fn expect(&mut self, kind: FrameKind) -> Received {
        let frame = self.next().await.expect("the client is still there");
        assert_eq!(frame.kind(), kind, "{}", frame.line());
        frame
    }

    /// The next frames, a line each.
    pub(crate) async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let frame = self.next().await.expect("the client is still there");
            lines.push(frame.line());
        }
        lines
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn send(&mut self, encode: impl FnOnce(&mut FrameEncoder, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        encode(&mut self.encoder, &mut bytes);
        self.write(&bytes).await;
    }

    pub(crate) async fn send_bare(&mut self, kind: FrameKind) {
        self.send(|_, out| FrameEncoder::bare(out, &Header::new(kind, 0, 0))).await;
    }

    pub(crate) async fn send_error(&mut self, code: ErrorCode, message: &str, fatal: bool) {
        let report = ErrorReport { code, message, fatal, request: 0, offset: 0, kind: 0 };
        self.send(|encoder, out| encoder.error(out, &report)).await;
    }

    /// Takes Hello and answers with Welcome; tells the subscription that Hello names.
    pub(crate) async fn welcome_as(&mut self, node: NodeId) -> Option<u128> {
        let hello = self.expect(FrameKind::Hello).await;
        self.send(|encoder, out| {
            encoder.welcome(out, 0, node, "scripted", "test", MAX_PAYLOAD, 16 << 10);
        })
        .await;
        hello.see(|frame| {
            let hello = frame.body::<control::Hello<'_>>().unwrap();
            hello.resume().map(|id| SubscriptionId::from(id).0)
        })
    }

    /// Takes Subscribe.
    pub(crate) async fn asked(&mut self) -> Asked {
        let frame = self.expect(FrameKind::Subscribe).await;
        frame.see(|frame| {
            let body = frame.body::<control::Subscribe<'_>>().unwrap();
            let mut positions: Vec<_> = body
                .positions()
                .into_iter()
                .flatten()
                .map(|it| {
                    let origin = it.origin().map(NodeId::from).unwrap_or_default();
                    (it.topic().to_owned(), it.sequence(), origin)
                })
                .collect();
            positions.sort();
            Asked {
                request: body.request(),
                filters: body.filters().iter().map(str::to_owned).collect(),
                positions,
                receive_retained: body.receive_retained(),
                counted: body.counted(),
                ended: body.ended().into_iter().flatten().map(NodeId::from).collect(),
            }
        })
    }

    /// Confirms a Subscribe or a Resume.
    pub(crate) async fn confirm_request(&mut self, request: u64, id: u128) {
        let report = SubscriptionReport::fresh(request, SubscriptionId(id));
        self.send(|encoder, out| encoder.subscription_info(out, &report)).await;
    }

    /// Takes Subscribe and confirms it under this id; tells the filters.
    pub(crate) async fn confirm(&mut self, id: u128) -> Vec<String> {
        let asked = self.asked().await;
        self.confirm_request(asked.request, id).await;
        asked.filters
    }

    /// Takes the Resume of this subscription; tells its request and count.
    pub(crate) async fn resume_of(&mut self, id: u128) -> (u64, u64) {
        let frame = self.expect(FrameKind::Resume).await;
        frame.see(|frame| {
            let resume = frame.body::<control::Resume<'_>>().unwrap();
            assert_eq!(SubscriptionId::from(resume.subscription()).0, id);
            (resume.request(), resume.received_count())
        })
    }

    /// Takes the Resume of this subscription and confirms it; tells the count.
    pub(crate) async fn confirm_resume(&mut self, id: u128) -> u64 {
        let (request, count) = self.resume_of(id).await;
        self.confirm_request(request, id).await;
        count
    }

    /// Takes the Resume of this subscription and says that there is none.
    pub(crate) async fn refuse_resume(&mut self, id: u128, code: ErrorCode) {
        let (request, _) = self.resume_of(id).await;
        self.refuse(request, code, FrameKind::Resume).await;
    }

    pub(crate) async fn refuse(&mut self, request: u64, code: ErrorCode, kind: FrameKind) {
        let (message, fatal, offset, kind) = ("refused by the script", false, 0, kind.0);
        let report = ErrorReport { code, message, fatal, request, offset, kind };
        self.send(|encoder, out| encoder.error(out, &report)).await;
    }

    /// Takes Unsubscribe; tells its request, the subscription, and whether it is a pause.
    pub(crate) async fn unsubscribe(&mut self) -> (u64, u128, bool) {
        let frame = self.expect(FrameKind::Unsubscribe).await;
        frame.see(|frame| {
            let body = frame.body::<control::Unsubscribe<'_>>().unwrap();
            let id = SubscriptionId::from(body.subscription()).0;
            (body.request(), id, body.pause())
        })
    }

    /// Ends the stream and waits until the client, which has then read all of it, has closed too.
    pub(crate) async fn end(mut self) {
        self.stream.shutdown().await.unwrap();
        while self.next().await.is_some() {}
    }

    pub(crate) async fn bind(&mut self, topic: u32, name: &str) {
        self.send(|encoder, out| encoder.topic_bind(out, TopicId(topic), name)).await;
    }

    pub(crate) async fn deliver(&mut self, id: u128) {
        self.deliver_as(id, DeliveryMode::Live).await;
    }

    pub(crate) async fn deliver_as(&mut self, id: u128, mode: DeliveryMode) {
        self.send(|encoder, out| encoder.deliver(out, SubscriptionId(id), mode)).await;
    }

    pub(crate) async fn message(&mut self, topic: u32, sequence: u64, payload: &[u8]) {
        self.write(&message(topic, sequence, payload)).await;
    }
}

/// The counts of a StreamAck, by subscription.
fn counts_of(frame: &Received) -> Vec<(u128, u64)> {
    frame.see(|frame| {
        let body = frame.body::<control::StreamAck<'_>>().unwrap();
        let entry = |it: &control::StreamAckEntry| {
            (SubscriptionId::from(it.subscription()).0, it.received())
        };
        body.entries().iter().map(entry).collect()
    })
}

/// The frame of a delivered message.
pub(crate) fn message(topic: u32, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(FrameKind::Message, 0, 0)
        .with_topic(TopicId(topic))
        .with_sequence(Sequence(sequence))
        .with_origin_sequence(Sequence(sequence))
        .with_timestamp_us(1_700_000_000_000_000);
    let mut out = Vec::new();
    FrameEncoder::message(&mut out, &header, &[], payload);
    out
}

pub(crate) async fn next_event(subscription: &mut Subscription) -> Event {
    soon(subscription.next()).await.expect("the stream goes on")
}

pub(crate) async fn next_message(subscription: &mut Subscription) -> Message {
    match next_event(subscription).await {
        Event::Message(message) => message,
        other => panic!("{other:?} instead of a message"),
    }
}

/// The next messages' payloads, as text.
pub(crate) async fn next_payloads(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let message = next_message(subscription).await;
        payloads.push(String::from_utf8_lossy(message.payload()).into_owned());
    }
    payloads
}
