//! Writing frames into byte vectors.
//!
//! One [`FrameEncoder`] per connection or shard: it keeps the FlatBuffers scratch between frames,
//! so steady traffic allocates nothing.

use flatbuffers::FlatBufferBuilder;
use zerocopy::IntoBytes;

use crate::control::{self, ErrorCode, GapReason, OverflowPolicy, PublishAckEntry, Role};
use crate::header::{FRAME_ALIGNMENT, FrameKind, Header, PROTOCOL_MAJOR, aligned};
use crate::ids::{NodeId, Sequence, SubscriptionId, TopicId};

/// What a client asks for in a Subscribe frame. `None` takes the daemon's default.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscribeRequest<'a> {
    /// Chosen by the client; the answer carries it. Not 0.
    pub request: u64,
    /// A message that matches any of these is delivered, once.
    pub filters: &'a [&'a str],
    /// What happens when the subscription's queue is full.
    pub policy: Option<OverflowPolicy>,
    /// Most messages queued; `Some(0)` leaves bytes as the only bound.
    pub queue_messages: Option<u32>,
    /// Most bytes queued.
    pub queue_bytes: Option<u64>,
    /// Whether matching retained values are wanted.
    pub receive_retained: bool,
}

/// The contents of an Error frame.
#[derive(Clone, Copy, Debug)]
pub struct ErrorReport<'a> {
    /// The class of the error.
    pub code: ErrorCode,
    /// What is wrong and, where it can be said, what to do.
    pub message: &'a str,
    /// The sender closes the connection behind this frame.
    pub fatal: bool,
    /// The request this answers; 0 if none.
    pub request: u64,
    /// Stream position of the frame at fault.
    pub offset: u64,
    /// Kind of the frame at fault; 0 if none.
    pub kind: u8,
}

/// The contents of a Gap frame.
#[derive(Clone, Copy, Debug)]
pub struct GapReport<'a> {
    /// Whose loss it is.
    pub subscription: SubscriptionId,
    /// Why messages were lost.
    pub reason: GapReason,
    /// Messages lost in all.
    pub missed: u64,
    /// Topic, first and last lost sequence; at most 64.
    pub entries: &'a [(TopicId, Sequence, Sequence)],
    /// Messages lost of topics beyond `entries`.
    pub rest: u64,
}

/// Appends frames to byte vectors, each padded to its stride.
#[derive(Default)]
pub struct FrameEncoder {
    builder: FlatBufferBuilder<'static>,
}

impl FrameEncoder {
    /// An encoder with empty scratch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message frame. `header` gives topic, numbers, flags and times; lengths are set
    /// here. `metadata` is an encoded table or empty.
    ///
    /// # Panics
    /// If `metadata` is longer than 65,535 bytes or the frame than 4 GiB: callers check their
    /// limits, which are far lower, first.
    pub fn message(out: &mut Vec<u8>, header: &Header, metadata: &[u8], payload: &[u8]) {
        let metadata_len = u16::try_from(metadata.len()).expect("metadata within its limit");
        let sized =
            header.with_lengths_of(&Header::new(FrameKind::Message, metadata_len, payload.len()));
        out.extend_from_slice(sized.as_bytes());
        out.extend_from_slice(metadata);
        pad(out, metadata.len());
        out.extend_from_slice(payload);
        pad(out, payload.len());
    }

    /// Appends a frame that is a header alone.
    pub fn bare(out: &mut Vec<u8>, header: &Header) {
        out.extend_from_slice(header.as_bytes());
    }

    /// Appends a Ping, or the Pong that answers it.
    pub fn ping_or_pong(out: &mut Vec<u8>, kind: FrameKind, token: u64) {
        Self::bare(out, &Header::new(kind, 0, 0).with_sequence(Sequence(token)));
    }

    /// Appends a TopicUnbind.
    pub fn topic_unbind(out: &mut Vec<u8>, topic: TopicId) {
        Self::bare(out, &Header::new(FrameKind::TopicUnbind, 0, 0).with_topic(topic));
    }

    /// Appends the Hello that opens a connection.
    pub fn hello(&mut self, out: &mut Vec<u8>, minor: u8, role: Role, name: &str, software: &str) {
        let b = &mut self.builder;
        let name = Some(b.create_string(name));
        let software = Some(b.create_string(software));
        let args = control::HelloArgs { major: PROTOCOL_MAJOR, minor, role, name, software };
        let root = control::Hello::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Hello, 0, 0));
    }

    /// Appends the Welcome that answers a Hello.
    #[expect(
        clippy::too_many_arguments,
        reason = "the body's fields, each of its own type or name"
    )]
    pub fn welcome(
        &mut self,
        out: &mut Vec<u8>,
        minor: u8,
        node: NodeId,
        software: &str,
        cluster: &str,
        max_payload: u32,
        max_metadata: u32,
    ) {
        let b = &mut self.builder;
        let software = Some(b.create_string(software));
        let cluster = Some(b.create_string(cluster));
        let node = control::NodeId::from(node);
        let args = control::WelcomeArgs {
            major: PROTOCOL_MAJOR,
            minor,
            node: Some(&node),
            software,
            max_payload,
            max_metadata,
            cluster,
        };
        let root = control::Welcome::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Welcome, 0, 0));
    }

    /// Appends a Goodbye.
    pub fn goodbye(&mut self, out: &mut Vec<u8>, reason: &str, last_accepted: u64) {
        let b = &mut self.builder;
        let reason = Some(b.create_string(reason));
        let root = control::Goodbye::create(b, &control::GoodbyeArgs { reason, last_accepted });
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Goodbye, 0, 0));
    }

    /// Appends an Error.
    pub fn error(&mut self, out: &mut Vec<u8>, report: &ErrorReport<'_>) {
        let b = &mut self.builder;
        let args = control::ErrorArgs {
            code: report.code,
            message: Some(b.create_string(report.message)),
            fatal: report.fatal,
            request: report.request,
            offset: report.offset,
            kind: report.kind,
        };
        let root = control::Error::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Error, 0, 0));
    }

    /// Appends a TopicBind.
    pub fn topic_bind(&mut self, out: &mut Vec<u8>, topic: TopicId, name: &str) {
        let b = &mut self.builder;
        let name = Some(b.create_string(name));
        let root = control::TopicBind::create(b, &control::TopicBindArgs { name });
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::TopicBind, 0, 0).with_topic(topic));
    }

    /// Appends a NodeBind.
    pub fn node_bind(&mut self, out: &mut Vec<u8>, handle: u32, node: NodeId) {
        let b = &mut self.builder;
        let node = control::NodeId::from(node);
        let root = control::NodeBind::create(b, &control::NodeBindArgs { node: Some(&node) });
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::NodeBind, 0, 0).with_origin(handle));
    }

    /// Appends a PublishAck.
    pub fn publish_ack(&mut self, out: &mut Vec<u8>, entries: &[PublishAckEntry]) {
        let b = &mut self.builder;
        let entries = Some(b.create_vector(entries));
        let root = control::PublishAck::create(b, &control::PublishAckArgs { entries });
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::PublishAck, 0, 0));
    }

    /// Appends a Subscribe.
    pub fn subscribe(&mut self, out: &mut Vec<u8>, subscribe: &SubscribeRequest<'_>) {
        let b = &mut self.builder;
        let filters: Vec<_> =
            subscribe.filters.iter().map(|filter| b.create_string(filter)).collect();
        let args = control::SubscribeArgs {
            request: subscribe.request,
            filters: Some(b.create_vector(&filters)),
            policy: subscribe.policy,
            queue_messages: subscribe.queue_messages,
            queue_bytes: subscribe.queue_bytes,
            receive_retained: subscribe.receive_retained,
        };
        let root = control::Subscribe::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Subscribe, 0, 0));
    }

    /// Appends the SubscriptionInfo that confirms a new subscription.
    pub fn subscription_info(
        &mut self,
        out: &mut Vec<u8>,
        request: u64,
        subscription: SubscriptionId,
    ) {
        let b = &mut self.builder;
        let subscription = control::SubscriptionId::from(subscription);
        let args = control::SubscriptionInfoArgs {
            request,
            subscription: Some(&subscription),
            ..Default::default()
        };
        let root = control::SubscriptionInfo::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::SubscriptionInfo, 0, 0));
    }

    /// Appends an Unsubscribe.
    pub fn unsubscribe(
        &mut self,
        out: &mut Vec<u8>,
        request: u64,
        subscription: SubscriptionId,
        pause: bool,
    ) {
        let b = &mut self.builder;
        let subscription = control::SubscriptionId::from(subscription);
        let args = control::UnsubscribeArgs { request, subscription: Some(&subscription), pause };
        let root = control::Unsubscribe::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Unsubscribe, 0, 0));
    }

    /// Appends an UnsubscribeResult; `refusal` is why it failed.
    pub fn unsubscribe_result(&mut self, out: &mut Vec<u8>, request: u64, refusal: Option<&str>) {
        let b = &mut self.builder;
        let message = refusal.map(|text| b.create_string(text));
        let args = control::UnsubscribeResultArgs {
            request,
            success: refusal.is_none(),
            message,
            ..Default::default()
        };
        let root = control::UnsubscribeResult::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::UnsubscribeResult, 0, 0));
    }

    /// Appends the Deliver that opens a run of live messages.
    pub fn deliver_live(&mut self, out: &mut Vec<u8>, subscription: SubscriptionId) {
        let b = &mut self.builder;
        let subscription = control::SubscriptionId::from(subscription);
        let args = control::DeliverArgs { subscription: Some(&subscription), ..Default::default() };
        let root = control::Deliver::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Deliver, 0, 0));
    }

    /// Appends a Gap.
    pub fn gap(&mut self, out: &mut Vec<u8>, gap: &GapReport<'_>) {
        let b = &mut self.builder;
        let subscription = control::SubscriptionId::from(gap.subscription);
        let entries: Vec<_> = gap
            .entries
            .iter()
            .map(|(topic, first, last)| control::GapEntry::new(topic.0, first.0, last.0))
            .collect();
        let args = control::GapArgs {
            subscription: Some(&subscription),
            reason: gap.reason,
            missed: gap.missed,
            entries: Some(b.create_vector(&entries)),
            rest: gap.rest,
        };
        let root = control::Gap::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Gap, 0, 0));
    }

    /// Appends `header`, sized for the finished body, and the body.
    fn finish(&mut self, out: &mut Vec<u8>, header: Header) {
        let body = self.builder.finished_data();
        let kind = header.kind().unwrap_or(FrameKind::Error);
        let sized = header.with_lengths_of(&Header::new(kind, 0, body.len()));
        out.extend_from_slice(sized.as_bytes());
        out.extend_from_slice(body);
        pad(out, body.len());
        self.builder.reset();
    }
}

/// Appends the zeroes that bring `written` bytes to the frame alignment.
#[inline]
fn pad(out: &mut Vec<u8>, written: usize) {
    out.extend_from_slice(&[0; FRAME_ALIGNMENT][..aligned(written) - written]);
}
