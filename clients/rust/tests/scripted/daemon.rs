//! A daemon that does only what a test tells it.

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
        let mut link = self.accept().await;
        link.welcome().await;
        link
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
        }
    }

    /// The next frame; `None` when the client has closed.
    pub(crate) async fn next(&mut self) -> Option<Received> {
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

    /// Takes Hello and answers with Welcome.
    pub(crate) async fn welcome(&mut self) {
        self.expect(FrameKind::Hello).await;
        self.send(|encoder, out| {
            encoder.welcome(out, 0, NODE, "scripted", "test", MAX_PAYLOAD, 16 << 10);
        })
        .await;
    }

    /// Takes Subscribe and confirms it under this id; tells the filters.
    pub(crate) async fn confirm(&mut self, id: u128) -> Vec<String> {
        let frame = self.expect(FrameKind::Subscribe).await;
        let (request, filters) = frame.see(|frame| {
            let subscribe = frame.body::<control::Subscribe<'_>>().unwrap();
            let filters = subscribe.filters().iter().map(str::to_owned).collect();
            (subscribe.request(), filters)
        });
        let report = SubscriptionReport::fresh(request, SubscriptionId(id));
        self.send(|encoder, out| encoder.subscription_info(out, &report)).await;
        filters
    }

    pub(crate) async fn bind(&mut self, topic: u32, name: &str) {
        self.send(|encoder, out| encoder.topic_bind(out, TopicId(topic), name)).await;
    }

    pub(crate) async fn deliver(&mut self, id: u128) {
        self.send(|encoder, out| encoder.deliver(out, SubscriptionId(id), DeliveryMode::Live))
            .await;
    }

    pub(crate) async fn message(&mut self, topic: u32, sequence: u64, payload: &[u8]) {
        self.write(&message(topic, sequence, payload)).await;
    }
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
