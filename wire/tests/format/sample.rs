//! A frame of any kind as plain values: what the tests write, read back and compare.
//!
//! Kinds that the daemon does not speak yet are built from the generated tables, all others by
//! [`nexusd_wire::FrameEncoder`], so that what is tested is what runs.

mod arbitrary;
mod decode;
mod encode;

pub(crate) use arbitrary::{any_sample, small_sample};
use nexusd_wire::control::{
    DeliveryMode, ErrorCode, Farewell, GapMode, GapReason, OverflowPolicy, PublishStatus, Role,
};
use nexusd_wire::{FrameKind, NodeId, SubscriptionId};

/// What a Message, Request or Reply holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct MessageSample {
    pub flags: u8,
    pub topic: u32,
    pub origin: u32,
    pub sequence: u64,
    pub origin_sequence: u64,
    pub timestamp_us: u64,
    pub ttl_ms: u32,
    pub key_hash: u32,
    pub metadata: Option<MetadataSample>,
    pub payload: Vec<u8>,
}

/// What a metadata table holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct MetadataSample {
    pub content_type: Option<String>,
    pub correlation_id: Option<String>,
    /// Node, session, request.
    pub reply_to: Option<(NodeId, u64, u64)>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub trace_parent: Option<String>,
    pub trace_state: Option<String>,
}

/// One entry of a PublishAck.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct AckSample {
    pub publisher_sequence: u64,
    pub sequence: u64,
    pub delivered: u32,
    pub dropped: u32,
    pub blocked: u32,
    pub status: PublishStatus,
}

/// Who a node is, in a Hello or Welcome.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct IntroductionSample {
    pub node: NodeId,
    pub start_us: u64,
    pub cluster: String,
    pub mesh_address: Option<String>,
    pub mesh_port: u16,
    pub app_port: u16,
    pub challenge: Option<Vec<u8>>,
    pub proof: Option<Vec<u8>>,
}

/// One member of a NodeState.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct MemberSample {
    pub node: NodeId,
    pub start_us: u64,
    pub mesh_address: String,
    pub app_port: u16,
}

/// One frame.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Sample {
    Hello {
        minor: u8,
        role: Role,
        name: String,
        software: String,
        resume: Option<SubscriptionId>,
        introduction: Option<IntroductionSample>,
    },
    Welcome {
        minor: u8,
        node: NodeId,
        software: String,
        cluster: String,
        max_payload: u32,
        max_metadata: u32,
        introduction: Option<IntroductionSample>,
    },
    Ping {
        token: u64,
    },
    Pong {
        token: u64,
    },
    Goodbye {
        reason: String,
        last_accepted: u64,
        farewell: Farewell,
        is_complete: bool,
    },
    Error {
        code: ErrorCode,
        message: String,
        fatal: bool,
        request: u64,
        offset: u64,
        kind: u8,
    },
    TopicBind {
        topic: u32,
        name: String,
    },
    TopicUnbind {
        topic: u32,
    },
    NodeBind {
        handle: u32,
        node: NodeId,
    },
    Message(MessageSample),
    PublishAck {
        entries: Vec<AckSample>,
    },
    PublishPause,
    PublishResume,
    Subscribe {
        request: u64,
        filters: Vec<String>,
        policy: Option<OverflowPolicy>,
        queue_messages: Option<u32>,
        queue_bytes: Option<u64>,
        receive_retained: bool,
        counted: bool,
        /// Topic, sequence, origin.
        positions: Vec<(String, u64, Option<NodeId>)>,
        wait_mesh: bool,
        ended: Vec<NodeId>,
    },
    SubscriptionInfo {
        request: u64,
        subscription: SubscriptionId,
        gap_detected: bool,
        missed_count: i64,
        replay_started: bool,
    },
    Unsubscribe {
        request: u64,
        subscription: SubscriptionId,
        pause: bool,
    },
    UnsubscribeResult {
        request: u64,
        success: bool,
        message: Option<String>,
        pause_ttl_ms: u64,
    },
    Resume {
        request: u64,
        subscription: SubscriptionId,
        received_count: u64,
        gap_mode: GapMode,
    },
    ReplayComplete {
        topic: u32,
        subscription: SubscriptionId,
        replayed_count: u64,
        latest_sequence: u64,
    },
    Deliver {
        subscription: SubscriptionId,
        mode: DeliveryMode,
        delivery_count: u32,
        now_us: u64,
    },
    Gap {
        subscription: SubscriptionId,
        reason: GapReason,
        missed: u64,
        /// Topic, first, last.
        entries: Vec<(u32, u64, u64)>,
        rest: u64,
    },
    BackpressureWarning {
        subscription: SubscriptionId,
        dropped: u64,
        depth: u64,
        limit: u64,
        reason: GapReason,
        expired: u64,
        oldest_age_ms: u64,
    },
    Heartbeat {
        timestamp_us: u64,
    },
    StreamAck {
        /// Subscription, messages received.
        entries: Vec<(SubscriptionId, u64)>,
    },
    Ack {
        subscription: SubscriptionId,
        cumulative: bool,
        /// Topic, sequence.
        messages: Vec<(u32, u64)>,
    },
    Nack {
        subscription: SubscriptionId,
        messages: Vec<(u32, u64)>,
        delay_ms: u32,
    },
    Request(MessageSample),
    Reply(MessageSample),
    NodeState {
        hash: u64,
        part: u32,
        is_last: bool,
        filters: Vec<String>,
        members: Vec<MemberSample>,
    },
    InterestDelta {
        before: u64,
        hash: u64,
        added: Vec<String>,
        removed: Vec<String>,
    },
    LinkAck {
        stream: Option<SubscriptionId>,
        received: u64,
        proof: Option<Vec<u8>>,
    },
    NodeStateRequest,
    RetainedDigest {
        buckets: Vec<u64>,
        is_answer: bool,
    },
    RetainedFetch {
        buckets: Vec<u64>,
    },
    ReplayRequest {
        request: u64,
        topic: String,
        after: Option<u64>,
    },
    InterestRequest {
        request: u64,
        filters: Vec<String>,
    },
    ReplayAnswer {
        request: u64,
        is_end: bool,
        is_partial: bool,
    },
}

impl Sample {
    pub(crate) fn kind(&self) -> FrameKind {
        match self {
            Self::Hello { .. } => FrameKind::Hello,
            Self::Welcome { .. } => FrameKind::Welcome,
            Self::Ping { .. } => FrameKind::Ping,
            Self::Pong { .. } => FrameKind::Pong,
            Self::Goodbye { .. } => FrameKind::Goodbye,
            Self::Error { .. } => FrameKind::Error,
            Self::TopicBind { .. } => FrameKind::TopicBind,
            Self::TopicUnbind { .. } => FrameKind::TopicUnbind,
            Self::NodeBind { .. } => FrameKind::NodeBind,
            Self::Message(_) => FrameKind::Message,
            Self::PublishAck { .. } => FrameKind::PublishAck,
            Self::PublishPause => FrameKind::PublishPause,
            Self::PublishResume => FrameKind::PublishResume,
            Self::Subscribe { .. } => FrameKind::Subscribe,
            Self::SubscriptionInfo { .. } => FrameKind::SubscriptionInfo,
            Self::Unsubscribe { .. } => FrameKind::Unsubscribe,
            Self::UnsubscribeResult { .. } => FrameKind::UnsubscribeResult,
            Self::Resume { .. } => FrameKind::Resume,
            Self::ReplayComplete { .. } => FrameKind::ReplayComplete,
            Self::Deliver { .. } => FrameKind::Deliver,
            Self::Gap { .. } => FrameKind::Gap,
            Self::BackpressureWarning { .. } => FrameKind::BackpressureWarning,
            Self::Heartbeat { .. } => FrameKind::Heartbeat,
            Self::StreamAck { .. } => FrameKind::StreamAck,
            Self::Ack { .. } => FrameKind::Ack,
            Self::Nack { .. } => FrameKind::Nack,
            Self::Request(_) => FrameKind::Request,
            Self::Reply(_) => FrameKind::Reply,
            Self::NodeState { .. } => FrameKind::NodeState,
            Self::InterestDelta { .. } => FrameKind::InterestDelta,
            Self::LinkAck { .. } => FrameKind::LinkAck,
            Self::NodeStateRequest => FrameKind::NodeStateRequest,
            Self::RetainedDigest { .. } => FrameKind::RetainedDigest,
            Self::RetainedFetch { .. } => FrameKind::RetainedFetch,
            Self::ReplayRequest { .. } => FrameKind::ReplayRequest,
            Self::InterestRequest { .. } => FrameKind::InterestRequest,
            Self::ReplayAnswer { .. } => FrameKind::ReplayAnswer,
        }
    }

    /// The frame's bytes, padding included.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}
