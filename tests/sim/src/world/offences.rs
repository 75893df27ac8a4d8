//! What clients do wrong, and the Error each of it must be answered with.

use flatbuffers::FlatBufferBuilder;
use nexusd_wire::control::{self, ErrorCode, GapMode, OverflowPolicy, Role as HelloRole};
use nexusd_wire::{
    FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, NodeId, PROTOCOL_MAJOR, Sequence,
    SubscribeRequest, SubscriptionId, TopicId, aligned,
};

use super::World;
use crate::conversation::{Offended, Sent};
use crate::coverage::Mark;
use crate::dice::Dice;

/// A frame that must not be, and its answer.
struct Offence {
    bytes: Vec<u8>,
    code: ErrorCode,
    fatal: bool,
    request: u64,
    /// The shard counts it among the refused publishes.
    is_rejected_publish: bool,
    /// It is HTTP.
    is_http: bool,
}

impl Offence {
    fn fatal(code: ErrorCode, bytes: Vec<u8>) -> Self {
        Self { bytes, code, fatal: true, request: 0, is_rejected_publish: false, is_http: false }
    }

    fn mild(code: ErrorCode, request: u64, bytes: Vec<u8>) -> Self {
        Self { bytes, code, fatal: false, request, is_rejected_publish: false, is_http: false }
    }

    fn rejected_publish(self) -> Self {
        Self { is_rejected_publish: true, ..self }
    }
}

impl World<'_> {
    /// Something that ends the connection, or something milder.
    pub(super) fn offend(&mut self, slot: usize) {
        if self.dice.one_in(3) {
            return self.offend_mildly(slot);
        }
        let Some(connection) = self.slots[slot].as_deref() else { return };
        let bound = connection.conversation.topic_ids.len();
        let offence = match connection.conversation.hello_was_written() {
            false => before_hello(&mut self.dice, &mut self.encoder),
            true => {
                fatal(&mut self.dice, &mut self.encoder, bound, self.scenario.limits.payload_bytes)
            }
        };
        self.commit(slot, &offence);
    }

    /// Something that is refused, and the connection goes on.
    pub(super) fn offend_mildly(&mut self, slot: usize) {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        let conversation = &mut connection.conversation;
        if !conversation.hello_was_written() {
            return;
        }
        let request = conversation.next_request;
        conversation.next_request += 1;
        let encoder = &mut self.encoder;
        let mut bytes = Vec::new();
        let can_bind = conversation.topic_ids.len() < self.scenario.limits.topics;
        let (code, request, is_rejected) = match self.dice.below(11) {
            0 | 1 if can_bind => {
                // The id is taken, for good, by a name that is refused.
                let id = TopicId(conversation.topic_ids.len() as u32);
                let (name, code) = self.dice.pick(&[
                    ("$SYS/node/load", ErrorCode::Rejected),
                    ("a/+", ErrorCode::InvalidTopic),
                    ("a\u{7}", ErrorCode::InvalidTopic),
                    ("", ErrorCode::InvalidTopic),
                ]);
                conversation.topic_ids.push(None);
                encoder.topic_bind(&mut bytes, id, name);
                (code, 0, true)
            }
            0..=3 => {
                let filter = self.dice.pick(&["a/b#", "#/a", "", "a+/b", "a\u{0}"]);
                let subscribe =
                    SubscribeRequest { request, filters: &["a", filter], ..Default::default() };
                encoder.subscribe(&mut bytes, &subscribe);
                (ErrorCode::InvalidTopic, request, false)
            }
            4 => {
                encoder.subscribe(&mut bytes, &SubscribeRequest { request, ..Default::default() });
                (ErrorCode::InvalidTopic, request, false)
            }
            5 => {
                let policy = OverflowPolicy(self.dice.pick(&[4, 9, 255]));
                let subscribe = SubscribeRequest {
                    request,
                    filters: &["a"],
                    policy: Some(policy),
                    ..Default::default()
                };
                encoder.subscribe(&mut bytes, &subscribe);
                (ErrorCode::Unsupported, request, false)
            }
            6 | 7 => {
                let modes = [GapMode::None, GapMode::RetainedOnly, GapMode::ReplayBuffer];
                let (id, mode) = (SubscriptionId(1), self.dice.pick(&modes));
                encoder.resume(&mut bytes, request, id, self.dice.below(3) as u64, mode);
                (ErrorCode::NotFound, request, false)
            }
            // Where binds may be refused for want of room, their messages are refused silently.
            8 if self.scenario.limits.topics > self.scenario.topics.len() => {
                let Some(id) = conversation.topic_ids.iter().position(Option::is_some) else {
                    return;
                };
                let too_long =
                    self.scenario.limits.payload_bytes as usize + 1 + self.dice.below(4_000);
                let header = Header::new(FrameKind::Message, 0, too_long)
                    .with_topic(TopicId(id as u32))
                    .with_sequence(Sequence(conversation.next_sequence));
                conversation.next_sequence += 1;
                FrameEncoder::message(&mut bytes, &header, &[], &vec![0; too_long]);
                (ErrorCode::TooLarge, 0, true)
            }
            _ => {
                let kind = self.dice.pick(&[
                    FrameKind::Ack,
                    FrameKind::Nack,
                    FrameKind::Request,
                    FrameKind::Reply,
                ]);
                FrameEncoder::bare(&mut bytes, &Header::new(kind, 0, 0));
                (ErrorCode::Unsupported, 0, false)
            }
        };
        let offence =
            Offence { is_rejected_publish: is_rejected, ..Offence::mild(code, request, bytes) };
        self.commit(slot, &offence);
    }

    fn commit(&mut self, slot: usize, offence: &Offence) {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return };
        self.coverage.mark(Mark::Offence);
        let offended = Offended {
            code: offence.code,
            fatal: offence.fatal,
            request: offence.request,
            is_rejected_publish: offence.is_rejected_publish,
            is_http: offence.is_http,
        };
        connection.conversation.write(Sent::Offence(offended), self.coverage, |out| {
            out.extend_from_slice(&offence.bytes);
        });
    }
}

fn bare(kind: FrameKind) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameEncoder::bare(&mut bytes, &Header::new(kind, 0, 0));
    bytes
}

fn before_hello(dice: &mut Dice, encoder: &mut FrameEncoder) -> Offence {
    let mut bytes = Vec::new();
    match dice.below(7) {
        0 => {
            encoder.subscribe(
                &mut bytes,
                &SubscribeRequest { request: 1, filters: &["#"], ..Default::default() },
            );
            Offence::fatal(ErrorCode::Protocol, bytes)
        }
        1 => {
            FrameEncoder::message(
                &mut bytes,
                &Header::new(FrameKind::Message, 0, 5),
                &[],
                b"early",
            );
            Offence::fatal(ErrorCode::Protocol, bytes)
        }
        2 => Offence::fatal(ErrorCode::Protocol, bare(FrameKind::Ping)),
        3 => Offence::fatal(ErrorCode::VersionMismatch, hello_of(PROTOCOL_MAJOR + 1)),
        4 => {
            encoder.hello(&mut bytes, 0, HelloRole::Node, "node", "sim");
            Offence::fatal(ErrorCode::Unsupported, bytes)
        }
        5 => {
            // What an HTTP client would say.
            let mut bytes =
                b"GET / HTTP/1.1\r\nHost: localhost:5672\r\nUser-Agent: curl/8\r\n\r\n".to_vec();
            bytes.resize(aligned(bytes.len()), b' ');
            Offence { is_http: true, ..Offence::fatal(ErrorCode::Malformed, bytes) }
        }
        _ => malformed(dice),
    }
}

fn fatal(dice: &mut Dice, encoder: &mut FrameEncoder, bound: usize, payload_bytes: u32) -> Offence {
    let mut bytes = Vec::new();
    match dice.below(9) {
        0 => {
            encoder.hello(&mut bytes, 0, HelloRole::Client, "again", "sim");
            Offence::fatal(ErrorCode::Protocol, bytes)
        }
        1 => {
            let header =
                Header::new(FrameKind::Message, 0, 3).with_topic(TopicId(bound as u32 + 7));
            FrameEncoder::message(&mut bytes, &header, &[], b"abc");
            Offence::fatal(ErrorCode::NotBound, bytes).rejected_publish()
        }
        2 => {
            encoder.topic_bind(&mut bytes, TopicId(bound as u32 + 1), "a");
            Offence::fatal(ErrorCode::Protocol, bytes)
        }
        3 => {
            FrameEncoder::topic_unbind(&mut bytes, TopicId(bound as u32 + 1));
            Offence::fatal(ErrorCode::Protocol, bytes)
        }
        4 => {
            let kind = dice.pick(&[
                FrameKind::Welcome,
                FrameKind::Deliver,
                FrameKind::Gap,
                FrameKind::PublishAck,
                FrameKind::SubscriptionInfo,
                FrameKind::UnsubscribeResult,
                FrameKind::PublishPause,
                FrameKind::Error,
            ]);
            Offence::fatal(ErrorCode::Protocol, bare(kind))
        }
        5 => {
            encoder.node_bind(&mut bytes, 1, NodeId(7));
            Offence::fatal(ErrorCode::Protocol, bytes)
        }
        6 => {
            // A body whose offsets point anywhere.
            let kind = dice.pick(&[
                FrameKind::Subscribe,
                FrameKind::TopicBind,
                FrameKind::Unsubscribe,
                FrameKind::Resume,
                FrameKind::StreamAck,
            ]);
            FrameEncoder::bare(&mut bytes, &Header::new(kind, 0, 40));
            bytes.extend((0..40).map(|_| 0xF0 | dice.below(16) as u8));
            Offence::fatal(ErrorCode::Malformed, bytes)
        }
        7 => {
            let limit = HEADER_BYTES + aligned(nexusd_core::limits::METADATA_BYTES_MAX as usize);
            let beyond = payload_bytes as usize + limit + 1;
            FrameEncoder::bare(&mut bytes, &Header::new(FrameKind::Message, 0, beyond));
            Offence::fatal(ErrorCode::Malformed, bytes)
        }
        _ => malformed(dice),
    }
}

/// Bytes that are no frame whatever came before.
fn malformed(dice: &mut Dice) -> Offence {
    let mut bytes = bare(FrameKind::Ping);
    match dice.below(5) {
        // A kind that is none, with anything behind it.
        0 => {
            bytes[4] = dice.pick(&[0, 199, 255]);
            bytes.extend((0..64).map(|_| dice.below(256) as u8));
        }
        // Shorter than its header.
        1 => bytes[..4].copy_from_slice(&(dice.below(48) as u32).to_le_bytes()),
        // Longer than any control frame.
        2 => bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes()),
        // Flags that nobody has given a meaning.
        3 => bytes[5] = dice.pick(&[0x40, 0x80, MessageFlags::ACK.0]),
        // Metadata that reaches beyond the frame.
        _ => bytes[6..8].copy_from_slice(&9u16.to_le_bytes()),
    }
    Offence::fatal(ErrorCode::Malformed, bytes)
}

/// A Hello of another major version, which the encoder would not write.
fn hello_of(major: u8) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let root =
        control::Hello::create(&mut builder, &control::HelloArgs { major, ..Default::default() });
    builder.finish_minimal(root);
    let body = builder.finished_data();
    let mut bytes = Vec::new();
    FrameEncoder::bare(&mut bytes, &Header::new(FrameKind::Hello, 0, body.len()));
    bytes.extend_from_slice(body);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}
