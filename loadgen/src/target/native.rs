//! The NexusD protocol as the generator needs it: handshakes, the message frame, and cutting what a
//! connection receives.
//!
//! Stands on the wire format alone, not on the client library, so that the daemon is measured and
//! not our own client. Pump and relay carry the same message frames, so they are cut here too.

use std::io::{self, Read, Write};

use nexusd_wire::control::{self, ErrorCode, GapMode, Role};
use nexusd_wire::{
    Cut, Frame, FrameCutter, FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, NodeId,
    PROTOCOL_MINOR, SubscribeRequest, SubscriptionId, TopicId, aligned,
};

use super::counted_stream::CountedStream;
use super::{Framing, FramingError, FramingTotals, HandshakeError, Introduction, TopicNames, Wish};
use crate::batch::{AckFlag, FrameTemplate};
use crate::connection::{Connection, Handshake};

/// Longest message frame accepted: more than any daemon lets through.
const MESSAGE_BYTES_MAX: u32 = 128 << 20;
/// Longest control frame accepted.
const CONTROL_BYTES_MAX: u32 = 1 << 20;
/// Where the header holds the publisher's number.
const SEQUENCE_AT: usize = 16;
/// Where it holds flags.
const FLAGS_AT: usize = 5;
/// Where it holds the topic's id.
const TOPIC_AT: usize = 8;
/// The one Subscribe or Resume of a connection.
const REQUEST: u64 = 1;
/// Topics bound before the daemon is asked, by a ping, whether it has handled them.
const BINDS_PER_PING: u32 = 4_096;
/// What subscribers call themselves.
const SUBSCRIBER: &str = "loadgen subscriber";
const SOFTWARE: &str = concat!("nexusd-loadgen ", env!("CARGO_PKG_VERSION"));

const _: () = assert!(SEQUENCE_AT + 8 <= HEADER_BYTES);

/// The frame of one message on topic id 0 with a payload of `payload_bytes` zeroes.
pub(crate) fn message_template(payload_bytes: usize) -> FrameTemplate {
    let header = Header::new(FrameKind::Message, 0, payload_bytes).with_topic(TopicId(0));
    let mut bytes = Vec::with_capacity(HEADER_BYTES + aligned(payload_bytes));
    FrameEncoder::message(&mut bytes, &header, &[], &vec![0; payload_bytes]);
    FrameTemplate {
        bytes,
        payload: HEADER_BYTES..HEADER_BYTES + payload_bytes,
        sequence_at: Some(SEQUENCE_AT),
        topic_at: Some(TOPIC_AT),
        name: None,
        ack: Some(AckFlag { at: FLAGS_AT, wanted: MessageFlags::ACK.0 }),
        envelope: None,
    }
}

/// Hello and Subscribe, up to the confirmation.
pub(super) fn subscribe(
    connection: &Connection,
    introduction: &Introduction<'_>,
    wish: &Wish<'_>,
) -> Result<NativeFraming, HandshakeError> {
    let mut framing = NativeFraming::new();
    framing.stream = wish.counted.then(CountedStream::default);
    let opening = subscriber_opening(wish);
    converse(connection, &mut framing, &opening, |control| control.subscription.is_some())?;
    framing.may_carry(introduction.payload_bytes)?;
    Ok(framing)
}

/// What a subscriber says first: Hello and Subscribe.
pub(crate) fn subscriber_opening(wish: &Wish<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = FrameEncoder::new();
    encoder.hello(&mut out, PROTOCOL_MINOR, Role::Client, SUBSCRIBER, SOFTWARE);
    encoder.subscribe(
        &mut out,
        &SubscribeRequest {
            request: REQUEST,
            filters: wish.filters,
            policy: wish.policy,
            // With a bound of its own in bytes a queue is not bounded by count.
            queue_messages: wish.queue_bytes.map(|_| 0),
            queue_bytes: wish.queue_bytes,
            counted: wish.counted,
            ..SubscribeRequest::default()
        },
    );
    out
}

/// What a client says last: nothing is kept for it then.
pub(crate) fn farewell() -> Vec<u8> {
    let mut out = Vec::new();
    FrameEncoder::new().goodbye(&mut out, "done", 0);
    out
}

/// Hello and the TopicBinds, up to the pong behind the last.
pub(super) fn publish(
    connection: &Connection,
    introduction: &Introduction<'_>,
    topics: &mut TopicNames<'_>,
) -> Result<NativeFraming, HandshakeError> {
    let mut framing = NativeFraming::new();
    let mut out = Vec::new();
    let mut encoder = FrameEncoder::new();
    encoder.hello(&mut out, PROTOCOL_MINOR, Role::Client, "loadgen publisher", SOFTWARE);
    for topic in 0..topics.count {
        encoder.topic_bind(&mut out, TopicId(topic), &(topics.name)(topic));
        let bound = topic + 1;
        if bound.is_multiple_of(BINDS_PER_PING) || bound == topics.count {
            FrameEncoder::ping_or_pong(&mut out, FrameKind::Ping, u64::from(bound));
            converse(connection, &mut framing, &out, |control| {
                control.pong == Some(u64::from(bound))
            })?;
            out.clear();
            (topics.watch)(f64::from(bound) / f64::from(topics.count));
        }
    }
    framing.may_carry(introduction.payload_bytes)?;
    Ok(framing)
}

/// Writes `out` and reads until `is_done`.
fn converse(
    connection: &Connection,
    framing: &mut NativeFraming,
    out: &[u8],
    is_done: impl Fn(&ControlState) -> bool,
) -> Result<(), HandshakeError> {
    let mut handshake = Handshake::on(connection);
    handshake.write_all(out)?;
    let mut buffer = [0; 4_096];
    while !is_done(&framing.control) {
        let bytes = handshake.read(&mut buffer)?;
        if bytes == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        framing.on_bytes(&buffer[..bytes], &mut |_| {})?;
    }
    Ok(())
}

/// Cuts NexusD frames: messages go out at once, control frames are noted.
#[derive(Debug)]
pub(crate) struct NativeFraming {
    cutter: FrameCutter,
    control: ControlState,
    /// Of a counted subscription.
    stream: Option<CountedStream>,
}

/// What control frames said.
#[derive(Debug, Default)]
struct ControlState {
    /// Who the daemon is.
    node: Option<NodeId>,
    payload_max: Option<u32>,
    subscription: Option<SubscriptionId>,
    /// The token of the last pong.
    pong: Option<u64>,
    reply: Vec<u8>,
    told_lost: u64,
    gaps: u64,
}

impl NativeFraming {
    /// Framing at the start of a stream.
    pub(crate) fn new() -> Self {
        Self { cutter: cutter(), control: ControlState::default(), stream: None }
    }

    /// Whose Welcome has come.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.control.node
    }

    /// Whether its Subscribe was confirmed.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.control.subscription.is_some()
    }

    /// Whether the server, which has said hello, takes payloads of that length.
    fn may_carry(&self, payload_bytes: usize) -> Result<(), HandshakeError> {
        match self.control.payload_max {
            Some(limit) if payload_bytes > limit as usize => {
                Err(HandshakeError::PayloadTooLarge { asked: payload_bytes, limit })
            }
            _ => Ok(()),
        }
    }

    /// Like [`Framing::on_bytes`], but lends whole frames, Gaps and acknowledgements among them:
    /// what the stalled subscriber and the reader of acknowledgements need.
    pub(crate) fn on_frames(
        &mut self,
        mut bytes: &[u8],
        on_frame: &mut impl FnMut(&Frame<'_>) -> Result<(), FramingError>,
    ) -> Result<(), FramingError> {
        loop {
            let cut = self.cutter.next(&mut bytes);
            match cut.map_err(|error| FramingError::Malformed(error.to_string()))? {
                Cut::Frame(frame) => {
                    if matches!(
                        frame.kind(),
                        FrameKind::Message | FrameKind::Gap | FrameKind::PublishAck
                    ) {
                        on_frame(&frame)?;
                    } else {
                        self.control.on_frame(&frame)?;
                    }
                }
                Cut::Large { stride, .. } => return Err(too_large(stride)),
                Cut::Incomplete => return Ok(()),
            }
        }
    }
}

impl Framing for NativeFraming {
    #[inline]
    fn on_bytes(
        &mut self,
        mut bytes: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        let read_bytes = bytes.len();
        let mut messages = 0;
        loop {
            let cut = self.cutter.next(&mut bytes);
            match cut.map_err(|error| FramingError::Malformed(error.to_string()))? {
                Cut::Frame(frame) if frame.kind() == FrameKind::Message => {
                    messages += 1;
                    on_payload(frame.payload());
                }
                Cut::Frame(frame) => self.control.on_frame(&frame)?,
                Cut::Large { stride, .. } => return Err(too_large(stride)),
                Cut::Incomplete => break,
            }
        }
        if let Some(stream) = &mut self.stream
            && let Some(received) = stream.on_read(messages, read_bytes)
        {
            self.control.acknowledge(received);
        }
        Ok(())
    }

    fn take_reply(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.control.reply)
    }

    fn come_back(&mut self) -> Vec<u8> {
        self.cutter = cutter();
        self.control.reply.clear();
        let mut out = Vec::new();
        let mut encoder = FrameEncoder::new();
        let subscription = self.control.subscription;
        let (minor, role) = (PROTOCOL_MINOR, Role::Client);
        encoder.hello_again(&mut out, minor, role, SUBSCRIBER, SOFTWARE, subscription);
        if let (Some(subscription), Some(stream)) = (subscription, &mut self.stream) {
            encoder.resume(&mut out, REQUEST, subscription, stream.tell(), GapMode::None);
        }
        out
    }

    fn totals(&self) -> FramingTotals {
        FramingTotals {
            told_lost: self.control.told_lost,
            gaps: self.control.gaps,
            stream_acks: self.stream.as_ref().map_or(0, CountedStream::acks),
        }
    }
}

/// A cutter at the start of a stream.
fn cutter() -> FrameCutter {
    FrameCutter::new(MESSAGE_BYTES_MAX, CONTROL_BYTES_MAX, usize::MAX)
}

/// The cutter was told to put every frame together, so this is a frame beyond all limits.
fn too_large(stride: usize) -> FramingError {
    FramingError::Malformed(format!("a frame of {stride} bytes"))
}

impl ControlState {
    /// So many messages of the subscription have come.
    fn acknowledge(&mut self, received: u64) {
        if let Some(subscription) = self.subscription {
            FrameEncoder::new().stream_ack(&mut self.reply, &[(subscription, received)]);
        }
    }

    #[cold]
    fn on_frame(&mut self, frame: &Frame<'_>) -> Result<(), FramingError> {
        let malformed =
            |error: nexusd_wire::DecodeError| FramingError::Malformed(error.to_string());
        match frame.kind() {
            FrameKind::Welcome => {
                let welcome = frame.body::<control::Welcome<'_>>().map_err(malformed)?;
                self.payload_max = Some(welcome.max_payload());
                self.node = Some(welcome.node().into());
            }
            FrameKind::SubscriptionInfo => {
                let info = frame.body::<control::SubscriptionInfo<'_>>().map_err(malformed)?;
                self.subscription = Some(info.subscription().into());
            }
            FrameKind::Ping => {
                let token = frame.header().sequence().0;
                FrameEncoder::ping_or_pong(&mut self.reply, FrameKind::Pong, token);
            }
            FrameKind::Pong => {
                self.pong = Some(frame.header().sequence().0);
            }
            FrameKind::Gap => {
                let gap = frame.body::<control::Gap<'_>>().map_err(malformed)?;
                self.told_lost = self.told_lost.saturating_add(gap.missed());
                self.gaps += 1;
            }
            FrameKind::Error => {
                let error = frame.body::<control::Error<'_>>().map_err(malformed)?;
                return Err(FramingError::Refused(in_words(
                    error.code(),
                    error.message().unwrap_or_default(),
                )));
            }
            FrameKind::Goodbye => return Err(FramingError::Goodbye),
            // Binds, the opening of runs, heartbeats, warnings and pauses change nothing here: a
            // payload says itself what it belongs to, and a held-back publisher feels its socket
            // fill up.
            _ => {}
        }
        Ok(())
    }
}

fn in_words(code: ErrorCode, message: &str) -> String {
    match (message, code.variant_name()) {
        ("", Some(name)) => name.to_owned(),
        ("", None) => format!("error code {}", code.0),
        (message, _) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::stamp::Stamp;
    use crate::topic_walk::Step;
    use nexusd_wire::Sequence;
    use nexusd_wire::control::GapReason;
    use nexusd_wire::{ErrorReport, GapReport};

    fn one_topic(n: u64) -> Step {
        Step { topic: 0, number: n }
    }

    #[test]
    fn a_patched_batch_is_a_stream_of_valid_numbered_messages() {
        for size in [16, 17, 128, 1_024] {
            let mut batch = Batch::new(message_template(size), Some(5));
            let bytes = batch.prepare(40, 5, 9, |n| n, one_topic).to_vec();
            let mut framing = NativeFraming::new();
            let mut sequences = Vec::new();
            framing
                .on_frames(&bytes, &mut |frame| {
                    assert_eq!(frame.payload().len(), size);
                    let stamp = Stamp::read(frame.payload()).expect("a stamp");
                    assert_eq!(stamp.counter + 1, frame.header().sequence().0);
                    sequences.push(frame.header().sequence().0);
                    Ok(())
                })
                .expect("valid frames");
            assert_eq!(sequences, [41, 42, 43, 44, 45]);
        }
    }

    #[test]
    fn messages_that_straddle_reads_are_put_together() {
        let mut batch = Batch::new(message_template(100), Some(3));
        let bytes = batch.prepare(0, 3, 0, |n| n, one_topic).to_vec();
        let mut framing = NativeFraming::new();
        let mut counters = Vec::new();
        for chunk in bytes.chunks(7) {
            framing
                .on_bytes(chunk, &mut |payload| {
                    counters.extend(Stamp::read(payload).map(|stamp| stamp.counter));
                })
                .expect("valid frames");
        }
        assert_eq!(counters, [0, 1, 2]);
    }

    #[test]
    fn a_ping_is_answered_and_a_gap_is_counted() {
        let mut bytes = Vec::new();
        FrameEncoder::ping_or_pong(&mut bytes, FrameKind::Ping, 77);
        FrameEncoder::new().gap(
            &mut bytes,
            &GapReport {
                subscription: SubscriptionId(1),
                reason: GapReason::SlowConsumer,
                missed: 12,
                entries: &[(TopicId(1), Sequence(1), Sequence(12))],
                rest: 0,
            },
        );
        let mut framing = NativeFraming::new();
        framing.on_bytes(&bytes, &mut |_| {}).expect("valid frames");
        let totals = framing.totals();
        assert_eq!((totals.told_lost, totals.gaps), (12, 1));
        let mut pong = Vec::new();
        FrameEncoder::ping_or_pong(&mut pong, FrameKind::Pong, 77);
        assert_eq!(framing.take_reply(), pong);
        assert!(framing.take_reply().is_empty());
    }

    #[test]
    fn a_subscriber_comes_back_with_its_count_of_whole_messages() {
        let id = SubscriptionId(7);
        let mut framing = NativeFraming::new();
        framing.stream = Some(CountedStream::default());
        framing.control.subscription = Some(id);
        let mut batch = Batch::new(message_template(128), Some(3));
        let bytes = batch.prepare(0, 3, 0, |n| n, one_topic).to_vec();
        framing.on_bytes(&bytes[..bytes.len() - 1], &mut |_| {}).expect("valid frames");

        let opening = framing.come_back();
        let (mut rest, mut cutter) = (opening.as_slice(), cutter());
        let Ok(Cut::Frame(hello)) = cutter.next(&mut rest) else { panic!("no Hello") };
        let hello = hello.body::<control::Hello<'_>>().expect("a valid body");
        assert_eq!(hello.resume().map(SubscriptionId::from), Some(id));
        let Ok(Cut::Frame(resume)) = cutter.next(&mut rest) else { panic!("no Resume") };
        let resume = resume.body::<control::Resume<'_>>().expect("a valid body");
        assert_eq!(SubscriptionId::from(resume.subscription()), id);
        assert_eq!(resume.received_count(), 2);

        // The next stream begins with a frame of its own.
        let mut counters = Vec::new();
        let mut note =
            |payload: &[u8]| counters.extend(Stamp::read(payload).map(|stamp| stamp.counter));
        framing.on_bytes(&bytes, &mut note).expect("valid frames");
        assert_eq!(counters, [0, 1, 2]);
    }

    #[test]
    fn an_error_frame_ends_the_run_with_its_own_words() {
        let mut bytes = Vec::new();
        FrameEncoder::new().error(
            &mut bytes,
            &ErrorReport {
                code: ErrorCode::LimitReached,
                message: "too many connections",
                fatal: true,
                request: 0,
                offset: 0,
                kind: 0,
            },
        );
        let error = NativeFraming::new().on_bytes(&bytes, &mut |_| {});
        assert_eq!(error, Err(FramingError::Refused("too many connections".into())));
    }

    #[test]
    fn bytes_of_another_protocol_are_malformed() {
        let error = NativeFraming::new().on_bytes(&[0xFF; 64], &mut |_| {});
        assert!(matches!(error, Err(FramingError::Malformed(_))), "{error:?}");
    }
}
