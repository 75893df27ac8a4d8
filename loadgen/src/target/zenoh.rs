//! Zenoh's own protocol, version 9, to a router over TCP, as the crates `zenoh-protocol` and `zenoh-codec` have
//! it.
//!
//! The stream is batches, each behind its length in two bytes. A batch is transport messages, of which a Frame
//! is followed by network messages up to the end. Numbers are seven bits a byte, least first, the top bit set
//! in all but the last. No extension is offered, and a lease so long that clients need no KeepAlive.
//!
//! A router deals with what one client says in order. So a client that has declared its keys and subscriptions
//! asks which liveliness tokens there are: the end of that answer confirms the declarations. Publishers ask
//! that a full queue holds them back; the default is that it drops.

use super::straddle::Straddle;
use super::{Framing, FramingError, FramingTotals, HandshakeError, TopicNames, Wish};
use crate::batch::{Envelope, FrameTemplate, TopicName};
use crate::topic_table::TopicTable;

/// Kinds of messages, in the low five bits of the first byte.
const KIND: u8 = 0x1F;
const INIT: u8 = 0x01;
const OPEN: u8 = 0x02;
const CLOSE: u8 = 0x03;
const KEEP_ALIVE: u8 = 0x04;
const FRAME: u8 = 0x05;
const FRAGMENT: u8 = 0x06;
const INTEREST: u8 = 0x19;
const PUSH: u8 = 0x1D;
const DECLARE: u8 = 0x1E;
/// What a Push holds.
const PUT: u8 = 0x01;
/// What is declared.
const KEY: u8 = 0x00;
const SUBSCRIBER: u8 = 0x02;
const FINAL: u8 = 0x1A;

/// Flags above the kind; the same bit means another thing in another kind.
const HAS_EXTENSIONS: u8 = 0x80;
const HAS_SIZES: u8 = 0x40;
const IN_SECONDS: u8 = 0x40;
const IS_RELIABLE: u8 = 0x20;
const HAS_MORE: u8 = 0x40;
const IS_NAMED: u8 = 0x20;
const IS_SENDERS_KEY: u8 = 0x40;
const HAS_TIMESTAMP: u8 = 0x20;
const HAS_ENCODING: u8 = 0x40;
const IS_ANSWER: u8 = 0x20;
/// Of an Interest: those that exist, and none that come.
const CURRENT: u8 = 0x20;
const TOKENS: u8 = 0x08;

const VERSION: u8 = 9;
const CLIENT: u8 = 0b10;
/// Sequence and request numbers of 32 bits, of which 28 are used.
const RESOLUTION: u8 = 0b1010;
const SEQUENCE_MASK: u32 = u32::MAX >> 4;
const BATCH_BYTES_MAX: u16 = u16::MAX;
const LEASE_S: u64 = 24 * 3_600;
/// The extension of a Push that says: of ordinary priority, and held back rather than dropped.
const QUALITY: [u8; 2] = [0x21, 0x0D];
/// The first key that a publisher declares, and the only Interest of a client.
const FIRST: u64 = 1;
/// Keys that can be declared: their numbers have 16 bits, and 0 is none.
const KEYS_MAX: usize = 65_535;

/// Length and Frame in front of the messages of a batch.
const HEAD_BYTES: usize = 2 + 1 + 4;
/// Filters of at most 255 bytes each surely fit a batch.
const DECLARATIONS_PER_FRAME: usize = 32;

const CLOSE_REASONS: [&str; 8] = [
    "for no reason it names",
    "unsupported",
    "invalid",
    "too many sessions",
    "too many links",
    "expired",
    "unresponsive",
    "connected to itself",
];

/// What a client says first. No other client of the router has the same `now_ns`.
pub(super) fn opening(now_ns: u64) -> Vec<u8> {
    let id = [&now_ns.to_le_bytes()[..], &std::process::id().to_le_bytes()].concat();
    let mut body = vec![INIT | HAS_SIZES, VERSION, (id.len() as u8 - 1) << 4 | CLIENT];
    body.extend(id);
    body.push(RESOLUTION);
    body.extend(BATCH_BYTES_MAX.to_le_bytes());
    batch(&body)
}

/// The framing of a subscriber, which declares its filters once it is let in.
pub(super) fn subscriber(wish: &Wish<'_>) -> ZenohFraming {
    let mut declarations = Vec::new();
    for (id, filter) in (FIRST..).zip(wish.filters) {
        let mut declaration = Vec::new();
        let key = key_expression(filter);
        // What stands in front of wildcards is declared, so that messages need not spell it out.
        let fixed = key.find('*').map_or(&*key, |at| key[..at].trim_end_matches('/'));
        let rest = &key[fixed.len()..];
        let mut scope = 0;
        if !fixed.is_empty() {
            scope = id;
            declaration = key_declaration(id, fixed);
        }
        let is_named = if rest.is_empty() { 0 } else { IS_NAMED };
        declaration.extend([DECLARE, SUBSCRIBER | IS_SENDERS_KEY | is_named]);
        put_number(&mut declaration, id);
        put_number(&mut declaration, scope);
        if !rest.is_empty() {
            put_sized(&mut declaration, rest.as_bytes());
        }
        declarations.push(declaration);
    }
    ZenohFraming::declaring(declarations)
}

/// The framing of a publisher, which declares the keys of its messages once it is let in. Where they are more
/// than can be declared, messages spell theirs out.
pub(super) fn publisher(topics: &TopicNames<'_>) -> ZenohFraming {
    let declared = if topics.count as usize > KEYS_MAX { 0 } else { topics.count };
    let declaration = |topic| key_declaration(key_of(topic), &(topics.name)(topic));
    ZenohFraming::declaring((0..declared).map(declaration).collect())
}

/// The number of the key of a publisher's topic.
fn key_of(topic: u32) -> u64 {
    FIRST + u64::from(topic)
}

/// A key in three bytes, also where fewer would do.
fn wide_key(topic: u32) -> [u8; 3] {
    let key = key_of(topic);
    [key as u8 | 0x80, (key >> 7) as u8 | 0x80, (key >> 14) as u8]
}

/// A topic or filter in the words of Zenoh.
fn key_expression(topic: &str) -> String {
    topic
        .split('/')
        .map(|level| match level {
            "+" => "*",
            "#" => "**",
            level => level,
        })
        .collect::<Vec<_>>()
        .join("/")
}

fn key_declaration(id: u64, key: &str) -> Vec<u8> {
    let mut out = vec![DECLARE, KEY | IS_NAMED];
    put_number(&mut out, id);
    put_number(&mut out, 0);
    put_sized(&mut out, key.as_bytes());
    out
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7F {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn batch(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&length.to_le_bytes()[..], body].concat()
}

/// A Frame in a batch.
fn frame(number: u64, messages: &[u8]) -> Vec<u8> {
    let mut out = [&[0; HEAD_BYTES], messages].concat();
    let bytes = out.len();
    seal(&mut out, number, bytes);
    out
}

/// Writes what stands in front of the messages of a batch of so many bytes. Its number always takes four.
fn seal(head: &mut [u8], frame: u64, bytes: usize) {
    let sequence = frame as u32 & SEQUENCE_MASK;
    head[..2].copy_from_slice(&((bytes - 2) as u16).to_le_bytes());
    head[2] = FRAME | IS_RELIABLE;
    for at in 0..4 {
        let more = if at < 3 { 0x80 } else { 0 };
        head[3 + at] = (sequence >> (7 * at)) as u8 & 0x7F | more;
    }
}

/// Cuts what a router sends.
#[derive(Debug, Default)]
pub(crate) struct ZenohFraming {
    straddle: Straddle,
    session: Session,
}

/// What was said so far.
#[derive(Debug, Default)]
struct Session {
    /// Said once the router has let us in.
    declarations: Vec<u8>,
    /// Frames that those take.
    frames: u64,
    /// Most bytes of a batch that the router takes.
    batch_bytes: usize,
    /// Whether the declarations have been dealt with.
    is_confirmed: bool,
    reply: Vec<u8>,
    /// The beginning of a message that is larger than a batch.
    fragments: Vec<u8>,
}

impl ZenohFraming {
    fn declaring(mut messages: Vec<Vec<u8>>) -> Self {
        let mut interest = vec![INTEREST | CURRENT];
        put_number(&mut interest, FIRST);
        interest.push(TOKENS);
        messages.push(interest);
        let mut session = Session::default();
        for some in messages.chunks(DECLARATIONS_PER_FRAME) {
            session.declarations.extend(frame(session.frames, &some.concat()));
            session.frames += 1;
        }
        Self { session, ..Self::default() }
    }

    /// Whether the router knows what was declared.
    pub(super) fn is_confirmed(&self) -> bool {
        self.session.is_confirmed
    }

    /// The frame of one message of a publisher that is confirmed.
    pub(super) fn message_template(
        &self,
        keys: &TopicTable,
        payload_bytes: usize,
    ) -> Result<FrameTemplate, HandshakeError> {
        let (mut bytes, mut name) = (Vec::new(), None);
        if keys.len() == 1 {
            bytes.push(PUSH | IS_SENDERS_KEY | HAS_EXTENSIONS);
            put_number(&mut bytes, FIRST);
        } else if keys.len() <= KEYS_MAX {
            bytes.push(PUSH | IS_SENDERS_KEY | HAS_EXTENSIONS);
            let numbers = TopicTable::new(keys.len() as u32, wide_key);
            name = TopicName::of_several(bytes.len(), &numbers);
            bytes.extend_from_slice(numbers.name(0));
        } else {
            bytes.extend([PUSH | IS_NAMED | HAS_EXTENSIONS, 0]);
            put_sized(&mut bytes, keys.name(0));
            name = TopicName::of_several(bytes.len() - keys.name(0).len(), keys);
        }
        bytes.extend(QUALITY);
        bytes.push(PUT);
        put_number(&mut bytes, payload_bytes as u64);
        let payload = bytes.len()..bytes.len() + payload_bytes;
        bytes.resize(payload.end, 0);
        // A larger one would have to be cut into Fragments.
        let room = self.session.batch_bytes.saturating_sub(HEAD_BYTES + payload.start);
        if payload_bytes > room {
            return Err(HandshakeError::PayloadTooLarge {
                asked: payload_bytes,
                limit: room as u32,
            });
        }
        let envelope = Envelope {
            head: vec![0; HEAD_BYTES],
            bytes_max: self.session.batch_bytes,
            first: self.session.frames,
            seal,
        };
        let template = FrameTemplate::by_name(bytes, payload, name);
        Ok(FrameTemplate { envelope: Some(envelope), ..template })
    }
}

impl Framing for ZenohFraming {
    #[inline]
    fn on_bytes(
        &mut self,
        bytes: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        let Self { straddle, session } = self;
        straddle.feed(bytes, |bytes| {
            let Some(length) = bytes.first_chunk() else { return Ok(None) };
            let end = 2 + usize::from(u16::from_le_bytes(*length));
            let Some(batch) = bytes.get(2..end) else { return Ok(None) };
            session.on_messages(Input(batch), on_payload)?;
            Ok(Some(end))
        })
    }

    fn take_reply(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.session.reply)
    }

    fn come_back(&mut self) -> Vec<u8> {
        self.straddle.clear();
        self.session.fragments.clear();
        Vec::new()
    }

    fn totals(&self) -> FramingTotals {
        FramingTotals::default()
    }
}

impl Session {
    #[inline]
    fn on_messages(
        &mut self,
        mut input: Input<'_>,
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        while !input.0.is_empty() {
            let header = input.byte()?;
            match header & KIND {
                PUSH => {
                    input.skip_key(header)?;
                    input.skip_extensions(header)?;
                    on_payload(input.put()?);
                }
                FRAME => {
                    input.number()?;
                    input.skip_extensions(header)?;
                }
                FRAGMENT => {
                    input.number()?;
                    input.skip_extensions(header)?;
                    self.fragments.extend_from_slice(input.rest());
                    if header & HAS_MORE == 0 {
                        let mut message = std::mem::take(&mut self.fragments);
                        self.on_messages(Input(&message), on_payload)?;
                        message.clear();
                        self.fragments = message;
                    }
                }
                _ => self.on_control(header, &mut input)?,
            }
        }
        Ok(())
    }

    #[cold]
    fn on_control(&mut self, header: u8, input: &mut Input<'_>) -> Result<(), FramingError> {
        match header & KIND {
            INIT => self.on_init(header, input),
            OPEN => {
                let (_lease, _first_sequence) = (input.number()?, input.number()?);
                self.reply.extend_from_slice(&self.declarations);
                input.skip_extensions(header)
            }
            KEEP_ALIVE => input.skip_extensions(header),
            CLOSE => {
                let reason = input.byte()?;
                let words = CLOSE_REASONS.get(usize::from(reason)).unwrap_or(&"unknown");
                Err(FramingError::Refused(format!("it closed the session: {words}")))
            }
            DECLARE => self.on_declare(header, input),
            _ => Err(FramingError::Malformed(format!("a message of header {header:#04x}"))),
        }
    }

    /// The router takes our offer, or less.
    fn on_init(&mut self, header: u8, input: &mut Input<'_>) -> Result<(), FramingError> {
        let version = input.byte()?;
        let id_bytes = 1 + usize::from(input.byte()? >> 4);
        input.take(id_bytes)?;
        let (mut resolution, mut batch_bytes) = (RESOLUTION, BATCH_BYTES_MAX);
        if header & HAS_SIZES != 0 {
            resolution = input.byte()?;
            batch_bytes = u16::from_le_bytes([input.byte()?, input.byte()?]);
        }
        if version != VERSION || resolution != RESOLUTION {
            return Err(FramingError::Refused(format!(
                "it has version {version} and resolution {resolution:#06b}"
            )));
        }
        self.batch_bytes = batch_bytes.into();
        let mut answer = vec![OPEN | IN_SECONDS];
        put_number(&mut answer, LEASE_S);
        put_number(&mut answer, 0);
        put_sized(&mut answer, input.sized()?);
        self.reply.extend(batch(&answer));
        input.skip_extensions(header)
    }

    fn on_declare(&mut self, header: u8, input: &mut Input<'_>) -> Result<(), FramingError> {
        let answers = if header & IS_ANSWER == 0 { 0 } else { input.number()? };
        input.skip_extensions(header)?;
        let body = input.byte()?;
        match body & KIND {
            FINAL => self.is_confirmed |= answers == FIRST,
            // Even ones name a key, odd ones take the one before back.
            kind @ KEY..=7 => {
                input.number()?;
                if kind % 2 == 0 {
                    input.skip_key(body)?;
                }
            }
            _ => return Err(FramingError::Malformed(format!("a declaration {body:#04x}"))),
        }
        input.skip_extensions(body)
    }
}

/// What of a batch has not been read.
#[derive(Debug)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    fn byte(&mut self) -> Result<u8, FramingError> {
        let (first, rest) = self.0.split_first().ok_or_else(cut_short)?;
        self.0 = rest;
        Ok(*first)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, FramingError> {
        let mut number = 0;
        for at in 0..9 {
            let byte = self.byte()?;
            // The ninth byte has no bit to spare.
            if byte < 0x80 || at == 8 {
                return Ok(number | u64::from(byte) << (7 * at));
            }
            number |= u64::from(byte & 0x7F) << (7 * at);
        }
        Ok(number)
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], FramingError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut_short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Bytes behind their number.
    #[inline]
    fn sized(&mut self) -> Result<&'a [u8], FramingError> {
        let count = self.number()?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// The payload of a Put, which is what a Push holds.
    #[inline]
    fn put(&mut self) -> Result<&'a [u8], FramingError> {
        let header = self.byte()?;
        if header & KIND != PUT {
            return Err(FramingError::Malformed(format!("a Push of {header:#04x}")));
        }
        if header & HAS_TIMESTAMP != 0 {
            let (_time, _clock) = (self.number()?, self.sized()?);
        }
        if header & HAS_ENCODING != 0 {
            let has_schema = self.number()? & 1 != 0;
            if has_schema {
                self.sized()?;
            }
        }
        self.skip_extensions(header)?;
        self.sized()
    }

    #[inline]
    fn skip_key(&mut self, header: u8) -> Result<(), FramingError> {
        self.number()?;
        if header & IS_NAMED != 0 {
            self.sized()?;
        }
        Ok(())
    }

    #[inline]
    fn skip_extensions(&mut self, header: u8) -> Result<(), FramingError> {
        let mut header = header;
        while header & HAS_EXTENSIONS != 0 {
            header = self.byte()?;
            match header >> 5 & 0b11 {
                0 => {}
                1 => _ = self.number()?,
                2 => _ = self.sized()?,
                _ => {
                    return Err(FramingError::Malformed(format!("an extension {header:#04x}")));
                }
            }
        }
        Ok(())
    }
}

#[cold]
fn cut_short() -> FramingError {
    FramingError::Malformed("a batch that ends within a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::stamp::Stamp;
    use crate::topic_walk::Step;

    /// InitAck of a router that takes batches of 65,482 bytes, with a cookie and an extension.
    const INIT_ACK: [u8; 14] = [0xE1, 9, 0x10, 0xAA, 0xBB, 0x0A, 0xCA, 0xFF, 3, 1, 2, 3, 0x27, 1];
    const OPEN_ACK: [u8; 4] = [0x62, 10, 0x80, 0x01];
    const FINAL_ANSWER: [u8; 7] = [0x25, 5, 0xBE, 1, 0x21, 0x08, 0x1A];

    fn name(topic: u32) -> String {
        format!("run/{topic}")
    }

    fn publisher_of(count: u32) -> ZenohFraming {
        publisher(&TopicNames { count, name: &name, watch: &mut |_| {} })
    }

    fn template_of(topics: u32, payload_bytes: usize) -> Result<FrameTemplate, HandshakeError> {
        let mut framing = publisher_of(topics);
        for said in [&INIT_ACK[..], &OPEN_ACK, &FINAL_ANSWER] {
            framing.on_bytes(&batch(said), &mut |_| {}).expect("Zenoh");
        }
        assert!(framing.is_confirmed());
        framing.message_template(&TopicTable::new(topics, name), payload_bytes)
    }

    #[test]
    fn a_client_is_let_in_declares_and_is_confirmed() {
        let mut framing = publisher_of(1);
        framing.on_bytes(&batch(&INIT_ACK), &mut |_| {}).expect("Zenoh");
        // A day, number 0 and the cookie.
        assert_eq!(framing.take_reply(), [9, 0, 0x42, 0x80, 0xA3, 0x05, 0, 3, 1, 2, 3]);
        framing.on_bytes(&batch(&OPEN_ACK), &mut |_| {}).expect("Zenoh");
        let declarations =
            [&[18, 0, 0x25, 0x80, 0x80, 0x80, 0, 0x1E, 0x20, 1, 0, 5][..], b"run/0", &[0x39, 1, 8]];
        assert_eq!(framing.take_reply(), declarations.concat());
        assert!(!framing.is_confirmed());
        framing.on_bytes(&batch(&FINAL_ANSWER), &mut |_| {}).expect("Zenoh");
        assert!(framing.is_confirmed() && framing.take_reply().is_empty());
    }

    #[test]
    fn a_client_introduces_itself() {
        let opening = opening(7);
        assert_eq!(opening[..5], [18, 0, 0x41, 9, 0xB2]);
        assert_eq!(opening[5..13], u64::to_le_bytes(7));
        assert_eq!(opening[17..], [0x0A, 0xFF, 0xFF]);
    }

    #[test]
    fn what_stands_in_front_of_wildcards_is_declared() {
        let framing = subscriber(&Wish { filters: &["a/+/c", "#", "b"], ..Wish::default() });
        let expected = [
            &[0x1E, 0x20, 1, 0, 1, b'a', 0x1E, 0x62, 1, 1, 4][..],
            b"/*/c",
            &[0x1E, 0x62, 2, 0, 2, b'*', b'*'],
            &[0x1E, 0x20, 3, 0, 1, b'b', 0x1E, 0x42, 3, 3],
            &[0x39, 1, 8],
        ];
        assert_eq!(framing.session.declarations[HEAD_BYTES..], expected.concat());
    }

    #[test]
    fn messages_are_cut_wherever_reads_end() {
        let spelt_out = [&[0x3D, 0, 3][..], b"a/b", &[0x01, 5], b"hello"].concat();
        // By a key of ours, with quality, timestamp, encoding, schema and an attachment.
        let adorned = [
            &[0x9D, 1, 0x21, 0x0D, 0xE1, 0x85, 0x01, 2, 8, 9, 0x03, 1, b's'][..],
            &[0xC1, 0x02, 7, 7, 0x21, 0x80, 1, 2],
            b"hi",
        ]
        .concat();
        let large = [&[0x5D, 1, 0x01, 0xAC, 0x02][..], &[7; 300]].concat();
        let stream = [
            batch(&[0x04]),
            batch(&[&[0x25, 9][..], &spelt_out, &adorned, &[0x04]].concat()),
            batch(&[&[0x66, 10][..], &large[..100]].concat()),
            batch(&[&[0xE6, 11, 0x31, 5][..], &large[100..200]].concat()),
            batch(&[&[0x26, 12][..], &large[200..]].concat()),
            frame(7, &spelt_out),
        ]
        .concat();
        for piece in 1..stream.len() {
            let (mut framing, mut got) = (ZenohFraming::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                framing.on_bytes(bytes, &mut |it| got.push(it.to_vec())).expect("Zenoh");
            }
            assert_eq!(got, [&b"hello"[..], b"hi", &[7; 300], b"hello"], "pieces of {piece}");
        }
    }

    #[test]
    fn declarations_of_the_router_are_passed_over() {
        let declared = [
            &[0x1E, 0x20, 4, 0, 1, b'k', 0x1E, 0x42, 1, 4, 0x1E, 0x83, 1, 0x5F, 2, 0, 4][..],
            &[0xBE, 9, 0x21, 0x08, 0x1A, 0x5D, 4, 0x01, 1, b'x'],
        ];
        let (mut framing, mut got) = (ZenohFraming::default(), Vec::new());
        let bytes = frame(7, &declared.concat());
        framing.on_bytes(&bytes, &mut |it| got.push(it.to_vec())).expect("Zenoh");
        assert_eq!(got, [b"x"]);
        assert!(!framing.is_confirmed());
    }

    #[test]
    fn a_close_ends_the_run_and_so_does_another_protocol() {
        let error = ZenohFraming::default().on_bytes(&batch(&[0x23, 3]), &mut |_| {});
        let words = "it closed the session: too many sessions";
        assert_eq!(error, Err(FramingError::Refused(words.to_owned())));
        for bytes in [&[1, 0, 0xFF][..], &[3, 0, 0x25, 0, 0x1D]] {
            let error = ZenohFraming::default().on_bytes(bytes, &mut |_| {});
            assert!(matches!(error, Err(FramingError::Malformed(_))), "{error:?}");
        }
    }

    #[test]
    fn a_template_is_one_push_with_room_for_its_payload() {
        let template = template_of(1, 128).expect("small");
        assert_eq!(template.bytes[..7], [0xDD, 1, 0x21, 0x0D, 0x01, 0x80, 0x01]);
        assert_eq!((template.payload, template.bytes.len()), (7..135, 135));
        let error = template_of(1, 65_482);
        assert!(matches!(error, Err(HandshakeError::PayloadTooLarge { limit: 65_467, .. })));
    }

    #[test]
    fn messages_of_several_topics_name_their_keys_by_numbers_of_one_width() {
        let framing = publisher_of(9);
        let last = [&[0x1E, 0x20, 9, 0, 5][..], b"run/8", &[0x39, 1, 8]].concat();
        assert!(framing.session.declarations.ends_with(&last));
        let template = template_of(9, 16).expect("small");
        assert_eq!(template.bytes[..8], [0xDD, 0x81, 0x80, 0, 0x21, 0x0D, 0x01, 16]);
        let mut batch = Batch::new(template, Some(1));
        let bytes = batch.prepare(0, 1, 0, |_| 0, |_| Step { topic: 7, number: 0 });
        assert_eq!(bytes[HEAD_BYTES..][1..4], [0x88, 0x80, 0]);
        assert_eq!(Input(&wide_key(65_534)).number(), Ok(65_535));
    }

    #[test]
    fn messages_of_more_topics_than_can_be_declared_spell_them_out() {
        let name = |topic: u32| format!("run/{topic:05}");
        let count = KEYS_MAX as u32 + 1;
        let mut framing = publisher(&TopicNames { count, name: &name, watch: &mut |_| {} });
        framing.on_bytes(&batch(&INIT_ACK), &mut |_| {}).expect("Zenoh");
        let table = TopicTable::new(count, name);
        let template = framing.message_template(&table, 16).expect("small");
        let head = [&[0xBD, 0, 9][..], b"run/00000", &[0x21, 0x0D, 0x01, 16]].concat();
        assert_eq!(template.bytes[..16], head);
        let mut batch = Batch::new(template, Some(2));
        let step = |n| Step { topic: 7 + n as u32, number: 0 };
        let (mut framing, mut got) = (ZenohFraming::default(), Vec::new());
        let bytes = batch.prepare(0, 2, 0, |_| 0, step);
        assert_eq!(bytes[HEAD_BYTES..][3..12], *b"run/00007");
        framing.on_bytes(bytes, &mut |payload| got.extend(Stamp::read(payload))).expect("Zenoh");
        assert_eq!(got.iter().map(|stamp| stamp.topic).collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn many_filters_take_several_frames() {
        let filters = vec!["a/+/c"; 70];
        let framing = subscriber(&Wish { filters: &filters, ..Wish::default() });
        let (mut rest, mut frames) = (&framing.session.declarations[..], 0);
        while !rest.is_empty() {
            let length = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
            assert_eq!(rest[2..4], [0x25, 0x80 | frames]);
            (rest, frames) = (&rest[2 + length..], frames + 1);
        }
        assert_eq!(frames, 3);
    }

    #[test]
    fn batches_hold_many_messages_and_their_frames_count_on() {
        let template = template_of(1, 128).expect("small");
        let mut batches = Batch::new(template, None);
        let step = |n| Step { topic: 0, number: n };
        let mut framing = ZenohFraming::default();
        let (mut sequences, mut counters) = (Vec::new(), Vec::new());
        let mut first = 0;
        for count in [batches.capacity(), 500, 1] {
            let bytes = batches.prepare(first, count, 0, |n| n, step).to_vec();
            first += count;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let length = u16::from_le_bytes([rest[0], rest[1]]).into();
                let mut head = Input(&rest[2..][..length]);
                assert_eq!(head.byte(), Ok(0x25));
                sequences.push(head.number().expect("a number"));
                rest = &rest[2 + length..];
            }
            let mut note =
                |payload: &[u8]| counters.extend(Stamp::read(payload).map(|stamp| stamp.counter));
            framing.on_bytes(&bytes, &mut note).expect("Zenoh");
        }
        assert_eq!(counters, (0..first).collect::<Vec<_>>());
        assert_eq!(sequences, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn frame_numbers_begin_again_behind_the_last() {
        let mut head = [0; HEAD_BYTES];
        seal(&mut head, u64::from(SEQUENCE_MASK), 300);
        assert_eq!(head, [42, 1, 0x25, 0xFF, 0xFF, 0xFF, 0x7F]);
        seal(&mut head, u64::from(SEQUENCE_MASK) + 1, 300);
        assert_eq!(head[3..], [0x80, 0x80, 0x80, 0]);
    }
}
