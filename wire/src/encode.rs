//! Writing frames into byte vectors.
//!
//! One [`FrameEncoder`] per connection or shard: it keeps the FlatBuffers scratch between frames,
//! so steady traffic allocates nothing.

mod link;

use flatbuffers::{FlatBufferBuilder, WIPOffset};
use zerocopy::IntoBytes;

use crate::control::{
    self, DeliveryMode, ErrorCode, GapMode, GapReason, OverflowPolicy, PublishAckEntry, Role,
};
use crate::header::{FRAME_ALIGNMENT, FrameKind, Header, PROTOCOL_MAJOR, aligned};
use crate::ids::{NodeId, Sequence, SubscriptionId, TopicId};

pub use link::{InterestChange, Introduction, Member, NodeStatePart, RETAINED_BUCKETS};

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
    /// The client will acknowledge what it has had, so that the rest is kept for a Resume.
    pub counted: bool,
    /// How far the client had come in some topics; at most 1,024.
    pub positions: &'a [Position<'a>],
    /// The answer waits, 1 s at most, until other nodes know what is wanted.
    pub wait_mesh: bool,
    /// Nodes that have said, in a complete Goodbye, that nothing follows; at most 1,024.
    pub ended: &'a [NodeId],
}

/// How far a subscriber had come in one topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The newest message it had; 0 asks for the newest there is.
    pub sequence: Sequence,
    /// The node whose numbers these are; `None`: the one that is asked.
    pub origin: Option<NodeId>,
}

/// The contents of a SubscriptionInfo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriptionReport {
    /// The Subscribe or Resume that this answers.
    pub request: u64,
    /// The subscription's id.
    pub subscription: SubscriptionId,
    /// Messages were lost since it was last connected.
    pub gap_detected: bool,
    /// How many; -1 if that is not known.
    pub missed_count: i64,
    /// A replay follows.
    pub replay_started: bool,
}

impl SubscriptionReport {
    /// Of a subscription that begins now.
    pub fn fresh(request: u64, subscription: SubscriptionId) -> Self {
        let (gap_detected, missed_count, replay_started) = (false, 0, false);
        Self { request, subscription, gap_detected, missed_count, replay_started }
    }
}

/// The contents of a BackpressureWarning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WarningReport {
    /// The subscription that falls behind.
    pub subscription: SubscriptionId,
    /// Messages dropped since the last warning.
    pub dropped: u64,
    /// Messages queued now.
    pub depth: u64,
    /// Messages the queue holds; 0 if bytes alone bound it.
    pub limit: u64,
    /// Why.
    pub reason: GapReason,
    /// Messages that expired in the queue since the last warning.
    pub expired: u64,
    /// Age of the oldest queued message, in milliseconds.
    pub oldest_age_ms: u64,
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
    /// Messages lost in all; `u64::MAX` if that is not known.
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
        self.hello_again(out, minor, role, name, software, None);
    }

    /// Appends the Hello of a client that comes back to go on with a subscription.
    pub fn hello_again(
        &mut self,
        out: &mut Vec<u8>,
        minor: u8,
        role: Role,
        name: &str,
        software: &str,
        resume: Option<SubscriptionId>,
    ) {
        let b = &mut self.builder;
        let name = Some(b.create_string(name));
        let software = Some(b.create_string(software));
        let resume = resume.map(control::SubscriptionId::from);
        let (major, resume) = (PROTOCOL_MAJOR, resume.as_ref());
        let args =
            control::HelloArgs { major, minor, role, name, software, resume, introduction: None };
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
            introduction: None,
        };
        let root = control::Welcome::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Welcome, 0, 0));
    }

    /// Appends a Goodbye.
    pub fn goodbye(&mut self, out: &mut Vec<u8>, reason: &str, last_accepted: u64) {
        self.client_goodbye(out, reason, last_accepted, false);
    }

    /// Appends the Goodbye of a daemon that has sent all it accepted for the client's subscriptions.
    pub fn complete_goodbye(&mut self, out: &mut Vec<u8>, reason: &str, last_accepted: u64) {
        self.client_goodbye(out, reason, last_accepted, true);
    }

    fn client_goodbye(
        &mut self,
        out: &mut Vec<u8>,
        reason: &str,
        last_accepted: u64,
        is_complete: bool,
    ) {
        let b = &mut self.builder;
        let reason = Some(b.create_string(reason));
        let root = control::Goodbye::create(
            b,
            &control::GoodbyeArgs { reason, last_accepted, is_complete, ..Default::default() },
        );
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
        let positions = (!subscribe.positions.is_empty()).then(|| {
            let positions: Vec<_> = subscribe.positions.iter().map(|at| position(b, at)).collect();
            b.create_vector(&positions)
        });
        let ended = (!subscribe.ended.is_empty()).then(|| {
            let ended: Vec<_> =
                subscribe.ended.iter().copied().map(control::NodeId::from).collect();
            b.create_vector(&ended)
        });
        let args = control::SubscribeArgs {
            request: subscribe.request,
            filters: Some(b.create_vector(&filters)),
            policy: subscribe.policy,
            queue_messages: subscribe.queue_messages,
            queue_bytes: subscribe.queue_bytes,
            receive_retained: subscribe.receive_retained,
            counted: subscribe.counted,
            positions,
            wait_mesh: subscribe.wait_mesh,
            ended,
        };
        let root = control::Subscribe::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Subscribe, 0, 0));
    }

    /// Appends the SubscriptionInfo that answers a Subscribe or a Resume.
    pub fn subscription_info(&mut self, out: &mut Vec<u8>, report: &SubscriptionReport) {
        let b = &mut self.builder;
        let subscription = control::SubscriptionId::from(report.subscription);
        let args = control::SubscriptionInfoArgs {
            request: report.request,
            subscription: Some(&subscription),
            gap_detected: report.gap_detected,
            missed_count: report.missed_count,
            replay_started: report.replay_started,
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

    /// Appends an UnsubscribeResult; `refusal` is why it failed. A paused subscription stays parked for
    /// `pause_ttl_ms`, an ended one for 0.
    pub fn unsubscribe_result(
        &mut self,
        out: &mut Vec<u8>,
        request: u64,
        refusal: Option<&str>,
        pause_ttl_ms: u64,
    ) {
        let b = &mut self.builder;
        let message = refusal.map(|text| b.create_string(text));
        let success = refusal.is_none();
        let args = control::UnsubscribeResultArgs { request, success, message, pause_ttl_ms };
        let root = control::UnsubscribeResult::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::UnsubscribeResult, 0, 0));
    }

    /// Appends a Resume.
    pub fn resume(
        &mut self,
        out: &mut Vec<u8>,
        request: u64,
        subscription: SubscriptionId,
        received_count: u64,
        gap_mode: GapMode,
    ) {
        let b = &mut self.builder;
        let subscription = control::SubscriptionId::from(subscription);
        let subscription = Some(&subscription);
        let args = control::ResumeArgs { request, subscription, received_count, gap_mode };
        let root = control::Resume::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Resume, 0, 0));
    }

    /// Appends a ReplayComplete.
    pub fn replay_complete(
        &mut self,
        out: &mut Vec<u8>,
        topic: TopicId,
        subscription: SubscriptionId,
        replayed_count: u64,
        latest_sequence: Sequence,
    ) {
        let b = &mut self.builder;
        let subscription = control::SubscriptionId::from(subscription);
        let args = control::ReplayCompleteArgs {
            subscription: Some(&subscription),
            replayed_count,
            latest_sequence: latest_sequence.0,
        };
        let root = control::ReplayComplete::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::ReplayComplete, 0, 0).with_topic(topic));
    }

    /// Appends the Deliver that opens a run of messages that are delivered for the first time.
    pub fn deliver(&mut self, out: &mut Vec<u8>, subscription: SubscriptionId, mode: DeliveryMode) {
        let b = &mut self.builder;
        let subscription = control::SubscriptionId::from(subscription);
        let args =
            control::DeliverArgs { subscription: Some(&subscription), mode, ..Default::default() };
        let root = control::Deliver::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Deliver, 0, 0));
    }

    /// Appends the Deliver that opens a run on a link. It tells the sender's wall clock, microseconds since
    /// 1970.
    pub fn deliver_at(
        &mut self,
        out: &mut Vec<u8>,
        stream: SubscriptionId,
        mode: DeliveryMode,
        now_us: u64,
    ) {
        let b = &mut self.builder;
        let stream = control::SubscriptionId::from(stream);
        let args = control::DeliverArgs {
            subscription: Some(&stream),
            mode,
            now_us,
            ..Default::default()
        };
        let root = control::Deliver::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Deliver, 0, 0));
    }

    /// Appends a StreamAck: of each subscription, how many messages the client has had.
    pub fn stream_ack(&mut self, out: &mut Vec<u8>, entries: &[(SubscriptionId, u64)]) {
        let b = &mut self.builder;
        let entries: Vec<_> = entries
            .iter()
            .map(|&(id, received)| control::StreamAckEntry::new(&id.into(), received))
            .collect();
        let entries = Some(b.create_vector(&entries));
        let root = control::StreamAck::create(b, &control::StreamAckArgs { entries });
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::StreamAck, 0, 0));
    }

    /// Appends a BackpressureWarning.
    pub fn backpressure_warning(&mut self, out: &mut Vec<u8>, warning: &WarningReport) {
        let b = &mut self.builder;
        let subscription = control::SubscriptionId::from(warning.subscription);
        let args = control::BackpressureWarningArgs {
            subscription: Some(&subscription),
            dropped: warning.dropped,
            depth: warning.depth,
            limit: warning.limit,
            reason: warning.reason,
            expired: warning.expired,
            oldest_age_ms: warning.oldest_age_ms,
        };
        let root = control::BackpressureWarning::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::BackpressureWarning, 0, 0));
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
        #[cfg(feature = "protocol-next")]
        let body = &*crate::next::grown(body);
        let kind = header.kind().unwrap_or(FrameKind::Error);
        let sized = header.with_lengths_of(&Header::new(kind, 0, body.len()));
        out.extend_from_slice(sized.as_bytes());
        out.extend_from_slice(body);
        pad(out, body.len());
        self.builder.reset();
    }
}

fn position<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    position: &Position<'_>,
) -> WIPOffset<control::Position<'b>> {
    let topic = Some(builder.create_string(position.topic));
    let origin = position.origin.map(control::NodeId::from);
    let (sequence, origin) = (position.sequence.0, origin.as_ref());
    control::Position::create(builder, &control::PositionArgs { topic, sequence, origin })
}

/// Appends the zeroes that bring `written` bytes to the frame alignment.
#[inline]
fn pad(out: &mut Vec<u8>, written: usize) {
    out.extend_from_slice(&[0; FRAME_ALIGNMENT][..aligned(written) - written]);
}
