//! The systems that can be measured, and all that differs between them.
//!
//! A target says how a publisher and a subscriber introduce themselves, what one message looks like
//! on the wire, and how received bytes are cut into messages ([`Framing`]). Everything else is the
//! same code with the same threads, buffers, clocks and histograms. A system with a protocol of its
//! own is one more file beside `native.rs` and one more [`Target`].

mod any_framing;
mod counted_stream;
mod grpc;
pub(crate) mod lane_greeting;
mod mqtt;
pub(crate) mod native;
mod nats;
mod redis;
mod straddle;
mod zenoh;

pub(crate) use any_framing::TargetFraming;

use std::io::{self, Read, Write};

use clap::ValueEnum;
use nexusd_wire::control::OverflowPolicy;

use crate::batch::FrameTemplate;
use crate::clock;
use crate::connection::{Connection, Endpoint, Handshake};
use crate::error::LoadError;
use crate::topic_table::TopicTable;

/// A system to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Target {
    /// The NexusD daemon.
    Nexusd,
    /// The same daemon over gRPC: publishers are `PublishStream`s.
    NexusdGrpc,
    /// The limit: what a publisher sends is passed on unread, on the daemon's own ring.
    Pump,
    /// The yardstick: frames are cut and copied once per subscriber on the same ring, nothing else.
    Relay,
    /// NATS core.
    Nats,
    /// Redis pub/sub.
    Redis,
    /// An MQTT 3.1.1 broker at QoS 0, such as Mosquitto.
    Mqtt,
    /// A Zenoh router.
    Zenoh,
}

impl Target {
    /// The name as given on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nexusd => "nexusd",
            Self::NexusdGrpc => "nexusd-grpc",
            Self::Pump => "pump",
            Self::Relay => "relay",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Mqtt => "mqtt",
            Self::Zenoh => "zenoh",
        }
    }

    /// The program that is started as its server, where that is not this one.
    pub(crate) fn program(self) -> Option<&'static str> {
        match self {
            Self::Nexusd | Self::NexusdGrpc | Self::Pump | Self::Relay => None,
            Self::Nats => Some("nats-server"),
            Self::Redis => Some("redis-server"),
            Self::Mqtt => Some("mosquitto"),
            Self::Zenoh => Some("zenohd"),
        }
    }

    /// Whether several of its servers pass on to each other what is published at one of them, as they are
    /// started here.
    pub(crate) fn has_mesh(self) -> bool {
        matches!(self, Self::Nexusd | Self::Nats | Self::Zenoh)
    }

    /// Whether a publisher can be told how many queues took a message.
    pub(crate) fn acknowledges(self) -> bool {
        self == Self::Nexusd
    }
}

/// Cuts the bytes that one subscriber's connection receives into messages.
pub(crate) trait Framing: Send {
    /// Takes received bytes and hands each message's payload to `on_payload`, in order.
    ///
    /// # Errors
    /// What the server said or did that ends the run.
    fn on_bytes(
        &mut self,
        bytes: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError>;

    /// How many bytes the server takes now.
    fn credit(&self) -> u64 {
        u64::MAX
    }

    /// These were written.
    fn on_written(&mut self, _bytes: &[u8]) {}

    /// Takes what has to be written back, such as the answer to a ping. Empty most of the time.
    fn take_reply(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The connection is broken: forgets what stood half in its stream, and says what to send first on
    /// the next one to go on with the subscription.
    fn come_back(&mut self) -> Vec<u8>;

    /// What the server was told and told in turn.
    fn totals(&self) -> FramingTotals {
        FramingTotals::default()
    }
}

/// What was said on all connections of a framing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FramingTotals {
    /// Messages that the server said it did not deliver; all ones if it could not say how many.
    pub(crate) told_lost: u64,
    /// Times it said so.
    pub(crate) gaps: u64,
    /// Acknowledgements of a counted subscription.
    pub(crate) stream_acks: u64,
}

impl FramingTotals {
    /// Adds those of another framing.
    pub(crate) fn add(&mut self, other: &Self) {
        self.told_lost = self.told_lost.saturating_add(other.told_lost);
        self.gaps += other.gaps;
        self.stream_acks += other.stream_acks;
    }
}

/// Why a subscriber or publisher cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FramingError {
    /// Bytes that are not the target's protocol.
    #[error("the server sent something else than its protocol: {0}")]
    Malformed(String),
    /// The server said why not.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server is stopping.
    #[error("the server said goodbye")]
    Goodbye,
}

/// A subscriber that has been confirmed: whatever is published from now on reaches it.
#[derive(Debug)]
pub(crate) struct SubscriberEnd<F> {
    /// Its socket.
    pub(crate) connection: Connection,
    /// Its framing, behind the handshake.
    pub(crate) framing: F,
    /// When it was about to say what it wants, on the run's clock.
    pub(crate) asked_ns: u64,
}

/// A publisher that may begin.
#[derive(Debug)]
pub(crate) struct PublisherEnd<F> {
    /// Its socket.
    pub(crate) connection: Connection,
    /// What the server sends back to it.
    pub(crate) framing: F,
    /// Its message.
    pub(crate) template: FrameTemplate,
}

/// What connecting needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Introduction<'a> {
    /// Where the server listens.
    pub(crate) endpoint: &'a Endpoint,
    /// The publisher's number among those of this run, from 0.
    pub(crate) lane: u32,
    /// Bytes of a payload.
    pub(crate) payload_bytes: usize,
}

/// What a subscriber asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'a> {
    /// Filters, all in one subscription.
    pub(crate) filters: &'a [&'a str],
    /// Bytes the server may queue for it; `None` leaves it to the server.
    pub(crate) queue_bytes: Option<u64>,
    /// What happens when they are used up; `None` leaves it to the server.
    pub(crate) policy: Option<OverflowPolicy>,
    /// Whether the server shall keep what it sent until it is acknowledged.
    pub(crate) counted: bool,
}

/// The topics of a publisher, by their numbers.
pub(crate) struct TopicNames<'a> {
    /// How many.
    pub(crate) count: u32,
    /// The name of each.
    pub(crate) name: &'a dyn Fn(u32) -> String,
    /// Is told now and then which share of them is bound.
    pub(crate) watch: &'a mut dyn FnMut(f64),
}

impl Target {
    /// Connects a subscriber and waits until the server has confirmed it.
    pub(crate) fn subscribe(
        self,
        introduction: &Introduction<'_>,
        wish: &Wish<'_>,
    ) -> Result<SubscriberEnd<TargetFraming>, LoadError> {
        let connection = self.open(introduction)?;
        let asked_ns = clock::now_ns();
        let framing = match self {
            Self::Nexusd => {
                native::subscribe(&connection, introduction, wish).map(TargetFraming::Native)
            }
            Self::Pump | Self::Relay => {
                lane_greeting::introduce(&connection, lane_greeting::Role::Subscriber, introduction)
                    .map(TargetFraming::Native)
            }
            Self::NexusdGrpc | Self::Nats | Self::Redis | Self::Mqtt | Self::Zenoh => {
                let (opening, framing) = self.greet_as_subscriber(wish, asked_ns);
                let filters = wish.filters.len() as u64;
                converse_with(framing, &connection, &opening, |it| it.is_subscribed(filters))
            }
        };
        let framing = framing.map_err(|cause| self.failed(introduction, cause))?;
        Ok(SubscriberEnd { connection, framing, asked_ns })
    }

    /// What a subscriber says first, and the framing of its connection, which knows when it is subscribed. No
    /// other one of the server has the same `now_ns`.
    pub(crate) fn greet_as_subscriber(
        self,
        wish: &Wish<'_>,
        now_ns: u64,
    ) -> (Vec<u8>, TargetFraming) {
        match self {
            Self::Nexusd | Self::Pump | Self::Relay => {
                let framing = TargetFraming::Native(native::NativeFraming::new());
                (native::subscriber_opening(wish), framing)
            }
            Self::NexusdGrpc => {
                (grpc::subscriber_opening(wish), TargetFraming::Grpc(grpc::subscriber()))
            }
            Self::Nats => {
                (nats::subscriber_opening(wish), TargetFraming::Nats(nats::NatsFraming::default()))
            }
            Self::Redis => {
                let framing = TargetFraming::Redis(redis::RedisFraming::default());
                (redis::subscriber_opening(wish), framing)
            }
            Self::Mqtt => {
                let framing = TargetFraming::Mqtt(mqtt::MqttFraming::default());
                (mqtt::subscriber_opening(wish, &client_name("s", now_ns)), framing)
            }
            Self::Zenoh => (zenoh::opening(now_ns), TargetFraming::Zenoh(zenoh::subscriber(wish))),
        }
    }

    /// Connects a publisher and waits until it may begin.
    pub(crate) fn publish(
        self,
        introduction: &Introduction<'_>,
        topics: &mut TopicNames<'_>,
    ) -> Result<PublisherEnd<TargetFraming>, LoadError> {
        let connection = self.open(introduction)?;
        let payload_bytes = introduction.payload_bytes;
        let framing = match self {
            Self::Nexusd => {
                native::publish(&connection, introduction, topics).map(TargetFraming::Native)
            }
            Self::Pump | Self::Relay => {
                lane_greeting::introduce(&connection, lane_greeting::Role::Publisher, introduction)
                    .map(TargetFraming::Native)
            }
            Self::NexusdGrpc if payload_bytes > grpc::payload_bytes_max() => {
                let limit = grpc::payload_bytes_max() as u32;
                Err(HandshakeError::PayloadTooLarge { asked: payload_bytes, limit })
            }
            Self::NexusdGrpc => {
                let opening = grpc::publisher_opening();
                let is_greeted = |it: &grpc::GrpcFraming| it.is_greeted;
                converse_with(grpc::publisher(), &connection, &opening, is_greeted)
                    .map(TargetFraming::Grpc)
            }
            Self::Nats => {
                let confirmed = |it: &nats::NatsFraming| it.pongs > 0;
                converse(&connection, &nats::publisher_opening(), confirmed)
                    .map(TargetFraming::Nats)
            }
            Self::Redis => {
                let confirmed = |it: &redis::RedisFraming| it.confirmed > 0;
                converse(&connection, &redis::publisher_opening(), confirmed)
                    .map(TargetFraming::Redis)
            }
            Self::Mqtt => {
                let opening = mqtt::publisher_opening(&client_name("p", clock::now_ns()));
                converse(&connection, &opening, |it: &mqtt::MqttFraming| it.is_connected)
                    .map(TargetFraming::Mqtt)
            }
            Self::Zenoh => {
                let opening = zenoh::opening(clock::now_ns());
                let framing = zenoh::publisher(topics);
                converse_with(framing, &connection, &opening, zenoh::ZenohFraming::is_confirmed)
                    .map(TargetFraming::Zenoh)
            }
        };
        let framing = framing.map_err(|cause| self.failed(introduction, cause))?;
        let template = match &framing {
            TargetFraming::Native(_) => native::message_template(payload_bytes),
            TargetFraming::Grpc(_) => {
                grpc::message_template(&TopicTable::new(topics.count, topics.name), payload_bytes)
            }
            TargetFraming::Nats(_) => {
                let subjects =
                    TopicTable::new(topics.count, |at| nats::subject(&(topics.name)(at)));
                nats::message_template(&subjects, payload_bytes)
            }
            TargetFraming::Redis(_) => {
                redis::message_template(&TopicTable::new(topics.count, topics.name), payload_bytes)
            }
            TargetFraming::Mqtt(_) => {
                mqtt::message_template(&TopicTable::new(topics.count, topics.name), payload_bytes)
            }
            TargetFraming::Zenoh(it) => it
                .message_template(&TopicTable::new(topics.count, topics.name), payload_bytes)
                .map_err(|cause| self.failed(introduction, cause))?,
        };
        Ok(PublisherEnd { connection, framing, template })
    }

    fn open(self, introduction: &Introduction<'_>) -> Result<Connection, LoadError> {
        Connection::open(introduction.endpoint).map_err(|source| LoadError::Unreachable {
            target: self.name(),
            endpoint: introduction.endpoint.to_string(),
            source,
        })
    }

    fn failed(self, introduction: &Introduction<'_>, cause: HandshakeError) -> LoadError {
        LoadError::Handshake {
            target: self.name(),
            endpoint: introduction.endpoint.to_string(),
            cause,
        }
    }
}

/// A name that no other client of a server has.
fn client_name(role: &str, now_ns: u64) -> String {
    format!("loadgen-{}-{role}-{now_ns}", std::process::id())
}

/// Writes `opening` and reads until `is_done`.
fn converse<F: Framing + Default>(
    connection: &Connection,
    opening: &[u8],
    is_done: impl Fn(&F) -> bool,
) -> Result<F, HandshakeError> {
    converse_with(F::default(), connection, opening, is_done)
}

/// Writes `opening`, and reads and answers until `is_done`.
fn converse_with<F: Framing>(
    mut framing: F,
    connection: &Connection,
    opening: &[u8],
    is_done: impl Fn(&F) -> bool,
) -> Result<F, HandshakeError> {
    let mut handshake = Handshake::on(connection);
    handshake.write_all(opening)?;
    let mut buffer = [0; 4_096];
    while !is_done(&framing) {
        let bytes = handshake.read(&mut buffer)?;
        if bytes == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        framing.on_bytes(&buffer[..bytes], &mut |_| {})?;
        handshake.write_all(&framing.take_reply())?;
    }
    Ok(framing)
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The socket failed or was closed.
    #[error("{}", in_words(.0))]
    Io(#[from] io::Error),
    /// The server answered something unexpected.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The payload would be refused.
    #[error(
        "a payload of {asked} bytes is above the server's limit of {limit}; take a smaller --size \
         or raise the server's --max-payload"
    )]
    PayloadTooLarge {
        /// Bytes asked for.
        asked: usize,
        /// The server's limit in bytes.
        limit: u32,
    },
}

/// The commonest ways a wrong server shows itself, said plainly.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            "no answer within 5 s; is this the right kind of server?".to_owned()
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => {
            "it closed the connection; is this the right kind of server?".to_owned()
        }
        _ => error.to_string(),
    }
}
