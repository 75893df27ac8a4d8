//! gRPC over HTTP/2, as much of it as one call of a connection needs: a publisher is one `PublishStream`, a
//! subscriber one `Subscribe`.
//!
//! What is written keeps to the server's windows; what is read has windows so large that they are opened anew
//! once in a gigabyte. As a library that has many messages to send puts them into one frame, so does this.
//!
//! A queue has a limit of messages here, and none of bytes: that stays the daemon's (`--subscriber-queue-bytes`).

use super::straddle::Straddle;
use super::{Framing, FramingError, Wish};
use crate::batch::{Envelope, FrameTemplate, TopicName};
use crate::topic_table::TopicTable;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header: length (3), kind, flags, stream (4).
const FRAME_HEADER_BYTES: usize = 9;
/// Bytes of a frame at most, before anybody has said otherwise.
const FRAME_BYTES_MAX: usize = 16_384;
/// Bytes in front of each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// The one stream of a connection.
const STREAM: u32 = 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Flags: the stream's last frame, or an answer; the whole header block.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// The window before anybody has said otherwise, and the largest there can be.
const FIRST_WINDOW: i64 = 65_535;
const LARGEST_WINDOW: u32 = i32::MAX as u32;
/// Bytes read after which the windows are opened anew.
const WINDOW_STEP: u32 = 1 << 30;

/// Fields of the messages, as `grpc/proto/sidecar.proto` numbers them.
const TOPIC: u8 = 1;
const PAYLOAD_OF_REQUEST: u8 = 2;
const TOPICS: u8 = 1;
const MAX_BUFFER_SIZE: u8 = 4;
const OVERFLOW_POLICY: u8 = 20;
const SUCCESS: u8 = 1;
const ERROR_MESSAGE: u8 = 4;
const SUBSCRIPTION_INFO: u8 = 1;
const MESSAGE: u8 = 2;
const PAYLOAD: u8 = 3;
const GAP: u8 = 20;
const MISSED: u8 = 2;

/// Bytes that a message takes in a queue at least.
const QUEUED_BYTES_MIN: u64 = 64;

/// Who is at this end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Publisher,
    Subscriber,
}

/// What a publisher says first.
pub(super) fn publisher_opening() -> Vec<u8> {
    opening("PublishStream")
}

/// What a subscriber says first.
pub(super) fn subscriber_opening(wish: &Wish<'_>) -> Vec<u8> {
    let mut request = Vec::new();
    for filter in wish.filters {
        put_field(&mut request, TOPICS, filter.as_bytes());
    }
    if let Some(bytes) = wish.queue_bytes {
        // So many that bytes alone bound the queue. The field is signed.
        let messages = (bytes / QUEUED_BYTES_MIN).clamp(1, i32::MAX as u64);
        put_number(&mut request, MAX_BUFFER_SIZE, messages);
    }
    if let Some(policy) = wish.policy {
        // Numbered as in the native protocol, behind the one that leaves it to the daemon.
        put_number(&mut request, OVERFLOW_POLICY, u64::from(policy.0) + 1);
    }
    let mut message = vec![0];
    message.extend_from_slice(&(request.len() as u32).to_be_bytes());
    message.extend_from_slice(&request);
    let mut out = opening("Subscribe");
    put_frame(&mut out, DATA, END_STREAM, STREAM, &message);
    out
}

/// The preface, the widest windows, and the head of a call.
fn opening(call: &str) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    settings.extend_from_slice(&LARGEST_WINDOW.to_be_bytes());
    put_frame(&mut out, SETTINGS, 0, 0, &settings);
    let widened = LARGEST_WINDOW - FIRST_WINDOW as u32;
    put_frame(&mut out, WINDOW_UPDATE, 0, 0, &widened.to_be_bytes());
    let path = format!("/nexusd.sidecar.SidecarService/{call}");
    let mut head = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", "nexusd"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // Neither indexed nor compressed.
        head.push(0);
        for text in [name, value] {
            head.push(text.len() as u8);
            head.extend_from_slice(text.as_bytes());
        }
    }
    put_frame(&mut out, HEADERS, END_HEADERS, STREAM, &head);
    out
}

/// The message of a publisher, behind the header of the frame that holds as many as fit.
pub(super) fn message_template(topics: &TopicTable, payload_bytes: usize) -> FrameTemplate {
    let mut request = Vec::new();
    let topic = topics.name(0);
    put_field(&mut request, TOPIC, topic);
    let name_at = request.len() - topic.len();
    put_field(&mut request, PAYLOAD_OF_REQUEST, &vec![0; payload_bytes]);
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(request.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&request);
    let payload = bytes.len() - payload_bytes..bytes.len();
    let name = TopicName::of_several(PREFIX_BYTES + name_at, topics);
    let mut head = Vec::new();
    put_frame(&mut head, DATA, 0, STREAM, &[]);
    let seal = |head: &mut [u8], _number: u64, bytes: usize| {
        let [.., high, middle, low] = ((bytes - FRAME_HEADER_BYTES) as u32).to_be_bytes();
        head[..3].copy_from_slice(&[high, middle, low]);
    };
    let envelope =
        Envelope { head, bytes_max: FRAME_HEADER_BYTES + FRAME_BYTES_MAX, first: 0, seal };
    FrameTemplate { envelope: Some(envelope), ..FrameTemplate::by_name(bytes, payload, name) }
}

/// The longest payload that a frame has room for.
pub(super) fn payload_bytes_max() -> usize {
    FRAME_BYTES_MAX / 2
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

/// A field of bytes or text.
fn put_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A field that is a number.
fn put_number(out: &mut Vec<u8>, field: u8, number: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, number);
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Cuts what the daemon sends.
#[derive(Debug)]
pub(crate) struct GrpcFraming {
    role: Role,
    frames: Straddle,
    messages: Straddle,
    /// Bytes that may be written: of the stream, and of the connection.
    windows: (i64, i64),
    /// What the windows of new streams are.
    initial_window: i64,
    /// Bytes read since the windows were opened.
    read_bytes: u32,
    reply: Vec<u8>,
    /// The settings have come.
    pub(super) is_greeted: bool,
    /// The subscription is confirmed.
    pub(super) is_subscribed: bool,
    told_lost: u64,
    gaps: u64,
}

/// A publisher's.
pub(super) fn publisher() -> GrpcFraming {
    GrpcFraming::new(Role::Publisher)
}

/// A subscriber's.
pub(super) fn subscriber() -> GrpcFraming {
    GrpcFraming::new(Role::Subscriber)
}

impl GrpcFraming {
    fn new(role: Role) -> Self {
        Self {
            role,
            frames: Straddle::default(),
            messages: Straddle::default(),
            windows: (FIRST_WINDOW, FIRST_WINDOW),
            initial_window: FIRST_WINDOW,
            read_bytes: 0,
            reply: Vec::new(),
            is_greeted: false,
            is_subscribed: false,
            told_lost: 0,
            gaps: 0,
        }
    }

    fn on_settings(&mut self, settings: &[u8]) {
        for setting in settings.chunks_exact(6) {
            if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                let size = i64::from(number(&setting[2..]));
                self.windows.0 += size - self.initial_window;
                self.initial_window = size;
            }
        }
        put_frame(&mut self.reply, SETTINGS, ACK, 0, &[]);
        self.is_greeted = true;
    }

    fn on_data(
        &mut self,
        body: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        self.read_bytes += body.len() as u32;
        if self.read_bytes >= WINDOW_STEP {
            for stream in [0, STREAM] {
                let read = self.read_bytes.to_be_bytes();
                put_frame(&mut self.reply, WINDOW_UPDATE, 0, stream, &read);
            }
            self.read_bytes = 0;
        }
        let mut messages = std::mem::take(&mut self.messages);
        let result = messages.feed(body, |bytes| {
            let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
                return Ok(None);
            };
            let length = number(&prefix[1..]) as usize;
            let Some(message) = rest.get(..length) else { return Ok(None) };
            match self.role {
                Role::Publisher => check_answer(message)?,
                Role::Subscriber => self.on_event(message, on_payload)?,
            }
            Ok(Some(PREFIX_BYTES + length))
        });
        self.messages = messages;
        result
    }

    #[inline]
    fn on_event(
        &mut self,
        event: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        match fields(event).next() {
            Some((MESSAGE, Value::Bytes(message))) => {
                let payload = fields(message).find_map(|field| match field {
                    (PAYLOAD, Value::Bytes(payload)) => Some(payload),
                    _ => None,
                });
                on_payload(payload.unwrap_or_default());
            }
            Some((SUBSCRIPTION_INFO, _)) => self.is_subscribed = true,
            Some((GAP, Value::Bytes(gap))) => {
                self.gaps += 1;
                let missed = fields(gap).find_map(|field| match field {
                    (MISSED, Value::Number(missed)) => Some(missed),
                    _ => None,
                });
                // The field is signed, and -1 where nobody can know.
                let missed = missed.filter(|missed| *missed <= i64::MAX as u64).unwrap_or(0);
                self.told_lost = self.told_lost.saturating_add(missed);
            }
            // Warnings and heartbeats.
            _ => {}
        }
        Ok(())
    }
}

impl Framing for GrpcFraming {
    fn on_bytes(
        &mut self,
        bytes: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        let mut frames = std::mem::take(&mut self.frames);
        let result = frames.feed(bytes, |bytes| {
            let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
                return Ok(None);
            };
            let [high, middle, low, kind, flags, stream @ ..] = *header;
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            let Some(body) = rest.get(..length) else { return Ok(None) };
            match kind {
                DATA => self.on_data(body, on_payload)?,
                // How a call ends; what it says is compressed.
                HEADERS if flags & END_STREAM != 0 => {
                    let text = "the call ended; any other gRPC client tells why";
                    return Err(FramingError::Refused(text.to_owned()));
                }
                RST_STREAM => {
                    let text = format!("the call was reset, code {}", number(body));
                    return Err(FramingError::Refused(text));
                }
                SETTINGS if flags & ACK == 0 => self.on_settings(body),
                PING if flags & ACK == 0 => put_frame(&mut self.reply, PING, ACK, 0, body),
                GOAWAY => return Err(FramingError::Goodbye),
                WINDOW_UPDATE => {
                    let widened = i64::from(number(body));
                    match u32::from_be_bytes(stream) {
                        0 => self.windows.1 += widened,
                        _ => self.windows.0 += widened,
                    }
                }
                _ => {}
            }
            Ok(Some(FRAME_HEADER_BYTES + length))
        });
        self.frames = frames;
        result
    }

    fn take_reply(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.reply)
    }

    fn come_back(&mut self) -> Vec<u8> {
        *self = Self::new(self.role);
        Vec::new()
    }

    fn credit(&self) -> u64 {
        u64::try_from(self.windows.0.min(self.windows.1)).unwrap_or(0)
    }

    fn on_written(&mut self, mut bytes: &[u8]) {
        while let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() {
            let [high, middle, low, ..] = *header;
            let length = u32::from_be_bytes([0, high, middle, low]);
            self.windows.0 -= i64::from(length);
            self.windows.1 -= i64::from(length);
            bytes = rest.get(length as usize..).unwrap_or_default();
        }
    }

    fn totals(&self) -> super::FramingTotals {
        super::FramingTotals { told_lost: self.told_lost, gaps: self.gaps, stream_acks: 0 }
    }
}

/// An answer to a publish that is no success ends the run.
fn check_answer(answer: &[u8]) -> Result<(), FramingError> {
    let mut reason = "the daemon refused a message";
    for field in fields(answer) {
        match field {
            (SUCCESS, Value::Number(1)) => return Ok(()),
            (ERROR_MESSAGE, Value::Bytes(text)) => {
                reason = std::str::from_utf8(text).unwrap_or(reason);
            }
            _ => {}
        }
    }
    Err(FramingError::Refused(reason.to_owned()))
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// The value of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, up to one that cannot be read.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u8, Value<'_>)> {
    std::iter::from_fn(move || {
        let key = varint(&mut message)?;
        let field = u8::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((field, value))
    })
}

#[inline]
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7F).wrapping_shl(7 * at as u32);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use nexusd_wire::control::OverflowPolicy;

    use super::*;

    fn data(messages: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame(&mut out, DATA, 0, STREAM, messages);
        out
    }

    fn message(event: u8, payload: &[u8]) -> Vec<u8> {
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        put_field(&mut inner, TOPIC, b"a");
        put_field(&mut inner, PAYLOAD, payload);
        put_field(&mut outer, event, &inner);
        let mut out = vec![0];
        out.extend_from_slice(&(outer.len() as u32).to_be_bytes());
        out.extend_from_slice(&outer);
        out
    }

    #[test]
    fn messages_are_cut_wherever_frames_and_reads_end() {
        let events = [
            message(SUBSCRIPTION_INFO, b""),
            message(MESSAGE, b"hello"),
            message(MESSAGE, &[7; 300]),
        ]
        .concat();
        for frame in 1..events.len() {
            let mut stream = Vec::new();
            put_frame(&mut stream, SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]);
            events.chunks(frame).for_each(|part| stream.extend_from_slice(&data(part)));
            let (mut framing, mut got) = (subscriber(), Vec::new());
            for bytes in stream.chunks(13) {
                framing.on_bytes(bytes, &mut |it| got.push(it.to_vec())).expect("gRPC");
            }
            assert_eq!(got, [b"hello".to_vec(), vec![7; 300]], "frames of {frame}");
            assert!(framing.is_subscribed && framing.is_greeted);
            assert_eq!(framing.take_reply(), [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]);
            assert_eq!(framing.windows, (65_536, FIRST_WINDOW));
        }
    }

    #[test]
    fn losses_are_summed_up_where_somebody_knows_how_many() {
        let mut framing = subscriber();
        for missed in [12, u64::MAX, 3] {
            let (mut gap, mut event) = (Vec::new(), Vec::new());
            put_field(&mut gap, 1, b"slow_consumer");
            put_number(&mut gap, MISSED, missed);
            put_field(&mut event, GAP, &gap);
            let mut message = vec![0, 0, 0, 0, event.len() as u8];
            message.extend_from_slice(&event);
            framing.on_bytes(&data(&message), &mut |_| {}).expect("a gap");
        }
        let totals = framing.totals();
        assert_eq!((totals.told_lost, totals.gaps), (15, 3));
    }

    #[test]
    fn a_queue_is_asked_for_as_it_is_wished() {
        let limit = |queue_bytes| {
            let policy = Some(OverflowPolicy::Block);
            let wish = Wish { filters: &["run/0"], queue_bytes, policy, counted: false };
            let bytes = subscriber_opening(&wish);
            let request = (opening("Subscribe").len() + FRAME_HEADER_BYTES + PREFIX_BYTES)..;
            let fields: Vec<_> = fields(&bytes[request]).collect();
            assert_eq!(fields[0], (TOPICS, Value::Bytes(b"run/0")));
            match fields.get(1) {
                Some((field, Value::Number(number))) => (*field, *number),
                other => panic!("no number: {other:?}"),
            }
        };
        assert_eq!(limit(None), (OVERFLOW_POLICY, 3));
        assert_eq!(limit(Some(64 << 20)), (MAX_BUFFER_SIZE, 1 << 20));
        assert_eq!(limit(Some(u64::MAX)), (MAX_BUFFER_SIZE, i32::MAX as u64));
    }

    #[test]
    fn what_is_written_keeps_to_both_windows() {
        let mut framing = publisher();
        framing.on_written(&[data(&[0; 60_000]), data(&[0; 5_000])].concat());
        assert_eq!(framing.credit(), 535);
        let mut update = Vec::new();
        put_frame(&mut update, WINDOW_UPDATE, 0, STREAM, &1_000u32.to_be_bytes());
        framing.on_bytes(&update, &mut |_| {}).expect("a frame");
        assert_eq!(framing.credit(), 535, "the connection's window is the smaller one");
        update.clear();
        put_frame(&mut update, WINDOW_UPDATE, 0, 0, &100u32.to_be_bytes());
        framing.on_bytes(&update, &mut |_| {}).expect("a frame");
        assert_eq!(framing.credit(), 635);
    }

    #[test]
    fn a_refused_message_ends_the_run_in_its_words() {
        let mut answer = Vec::new();
        put_field(&mut answer, ERROR_MESSAGE, b"no");
        let mut message = vec![0, 0, 0, 0, answer.len() as u8];
        message.extend_from_slice(&answer);
        let error = publisher().on_bytes(&data(&message), &mut |_| {});
        assert_eq!(error, Err(FramingError::Refused("no".to_owned())));
    }

    #[test]
    fn a_template_is_one_request_behind_its_prefix() {
        let template = message_template(&TopicTable::new(1, |_| "run/0".to_owned()), 200);
        assert_eq!(template.bytes[..5], [0, 0, 0, 0, (2 + 5 + 3 + 200) as u8]);
        let request: Vec<_> = fields(&template.bytes[5..]).collect();
        assert_eq!(request[0], (TOPIC, Value::Bytes(b"run/0")));
        assert_eq!(request[1], (PAYLOAD_OF_REQUEST, Value::Bytes(&[0; 200])));
        assert_eq!(template.payload, template.bytes.len() - 200..template.bytes.len());
        let envelope = template.envelope.expect("frames hold several");
        let mut head = envelope.head;
        (envelope.seal)(&mut head, 0, FRAME_HEADER_BYTES + 0x01_02_03);
        assert_eq!(head, [1, 2, 3, DATA, 0, 0, 0, 0, 1]);
    }
}
