//! Frames to samples.

use nexusd_wire::control;
use nexusd_wire::{DecodeError, Frame, FrameKind, Metadata, NodeId, metadata_table};

use super::{AckSample, IntroductionSample, MemberSample, MessageSample, MetadataSample, Sample};

impl Sample {
    /// Reads every field of a frame.
    pub(crate) fn decode(frame: &Frame<'_>) -> Result<Self, DecodeError> {
        let header = frame.header();
        Ok(match frame.kind() {
            FrameKind::Hello => {
                let body = frame.body::<control::Hello<'_>>()?;
                assert_eq!(body.major(), 1);
                Self::Hello {
                    minor: body.minor(),
                    role: body.role(),
                    name: text(body.name()),
                    software: text(body.software()),
                    resume: body.resume().map(Into::into),
                    introduction: body.introduction().map(IntroductionSample::decode),
                }
            }
            FrameKind::Welcome => {
                let body = frame.body::<control::Welcome<'_>>()?;
                assert_eq!(body.major(), 1);
                Self::Welcome {
                    minor: body.minor(),
                    node: body.node().into(),
                    software: text(body.software()),
                    cluster: text(body.cluster()),
                    max_payload: body.max_payload(),
                    max_metadata: body.max_metadata(),
                    introduction: body.introduction().map(IntroductionSample::decode),
                }
            }
            FrameKind::Ping => Self::Ping { token: header.sequence().0 },
            FrameKind::Pong => Self::Pong { token: header.sequence().0 },
            FrameKind::Goodbye => {
                let body = frame.body::<control::Goodbye<'_>>()?;
                Self::Goodbye {
                    reason: text(body.reason()),
                    last_accepted: body.last_accepted(),
                    farewell: body.farewell(),
                    is_complete: body.is_complete(),
                }
            }
            FrameKind::Error => {
                let body = frame.body::<control::Error<'_>>()?;
                Self::Error {
                    code: body.code(),
                    message: text(body.message()),
                    fatal: body.fatal(),
                    request: body.request(),
                    offset: body.offset(),
                    kind: body.kind(),
                }
            }
            FrameKind::TopicBind => Self::TopicBind {
                topic: header.topic().0,
                name: frame.body::<control::TopicBind<'_>>()?.name().to_owned(),
            },
            FrameKind::TopicUnbind => Self::TopicUnbind { topic: header.topic().0 },
            FrameKind::NodeBind => Self::NodeBind {
                handle: header.origin(),
                node: frame.body::<control::NodeBind<'_>>()?.node().into(),
            },
            FrameKind::Message => Self::Message(MessageSample::decode(frame)?),
            FrameKind::Request => Self::Request(MessageSample::decode(frame)?),
            FrameKind::Reply => Self::Reply(MessageSample::decode(frame)?),
            FrameKind::PublishAck => Self::PublishAck {
                entries: frame
                    .body::<control::PublishAck<'_>>()?
                    .entries()
                    .iter()
                    .map(|entry| AckSample {
                        publisher_sequence: entry.publisher_sequence(),
                        sequence: entry.sequence(),
                        delivered: entry.delivered(),
                        dropped: entry.dropped(),
                        blocked: entry.blocked(),
                        status: entry.status(),
                    })
                    .collect(),
            },
            FrameKind::PublishPause => Self::PublishPause,
            FrameKind::PublishResume => Self::PublishResume,
            FrameKind::Subscribe => {
                let body = frame.body::<control::Subscribe<'_>>()?;
                Self::Subscribe {
                    request: body.request(),
                    filters: body.filters().iter().map(str::to_owned).collect(),
                    policy: body.policy(),
                    queue_messages: body.queue_messages(),
                    queue_bytes: body.queue_bytes(),
                    receive_retained: body.receive_retained(),
                    counted: body.counted(),
                    positions: body
                        .positions()
                        .into_iter()
                        .flatten()
                        .map(|at| {
                            (at.topic().to_owned(), at.sequence(), at.origin().map(Into::into))
                        })
                        .collect(),
                    wait_mesh: body.wait_mesh(),
                    ended: body.ended().into_iter().flatten().map(Into::into).collect(),
                }
            }
            FrameKind::SubscriptionInfo => {
                let body = frame.body::<control::SubscriptionInfo<'_>>()?;
                Self::SubscriptionInfo {
                    request: body.request(),
                    subscription: body.subscription().into(),
                    gap_detected: body.gap_detected(),
                    missed_count: body.missed_count(),
                    replay_started: body.replay_started(),
                }
            }
            FrameKind::Unsubscribe => {
                let body = frame.body::<control::Unsubscribe<'_>>()?;
                Self::Unsubscribe {
                    request: body.request(),
                    subscription: body.subscription().into(),
                    pause: body.pause(),
                }
            }
            FrameKind::UnsubscribeResult => {
                let body = frame.body::<control::UnsubscribeResult<'_>>()?;
                Self::UnsubscribeResult {
                    request: body.request(),
                    success: body.success(),
                    message: body.message().map(str::to_owned),
                    pause_ttl_ms: body.pause_ttl_ms(),
                }
            }
            FrameKind::Resume => {
                let body = frame.body::<control::Resume<'_>>()?;
                Self::Resume {
                    request: body.request(),
                    subscription: body.subscription().into(),
                    received_count: body.received_count(),
                    gap_mode: body.gap_mode(),
                }
            }
            FrameKind::ReplayComplete => {
                let body = frame.body::<control::ReplayComplete<'_>>()?;
                Self::ReplayComplete {
                    topic: header.topic().0,
                    subscription: body.subscription().into(),
                    replayed_count: body.replayed_count(),
                    latest_sequence: body.latest_sequence(),
                }
            }
            FrameKind::Deliver => {
                let body = frame.body::<control::Deliver<'_>>()?;
                Self::Deliver {
                    subscription: body.subscription().into(),
                    mode: body.mode(),
                    delivery_count: body.delivery_count(),
                    now_us: body.now_us(),
                }
            }
            FrameKind::Gap => {
                let body = frame.body::<control::Gap<'_>>()?;
                Self::Gap {
                    subscription: body.subscription().into(),
                    reason: body.reason(),
                    missed: body.missed(),
                    entries: body
                        .entries()
                        .into_iter()
                        .flatten()
                        .map(|entry| (entry.topic(), entry.first(), entry.last()))
                        .collect(),
                    rest: body.rest(),
                }
            }
            FrameKind::BackpressureWarning => {
                let body = frame.body::<control::BackpressureWarning<'_>>()?;
                Self::BackpressureWarning {
                    subscription: body.subscription().into(),
                    dropped: body.dropped(),
                    depth: body.depth(),
                    limit: body.limit(),
                    reason: body.reason(),
                    expired: body.expired(),
                    oldest_age_ms: body.oldest_age_ms(),
                }
            }
            FrameKind::Heartbeat => Self::Heartbeat { timestamp_us: header.timestamp_us() },
            FrameKind::StreamAck => Self::StreamAck {
                entries: frame
                    .body::<control::StreamAck<'_>>()?
                    .entries()
                    .iter()
                    .map(|entry| (entry.subscription().into(), entry.received()))
                    .collect(),
            },
            FrameKind::Ack => {
                let body = frame.body::<control::Ack<'_>>()?;
                Self::Ack {
                    subscription: body.subscription().into(),
                    cumulative: body.cumulative(),
                    messages: message_refs(body.messages()),
                }
            }
            FrameKind::Nack => {
                let body = frame.body::<control::Nack<'_>>()?;
                Self::Nack {
                    subscription: body.subscription().into(),
                    messages: message_refs(body.messages()),
                    delay_ms: body.delay_ms(),
                }
            }
            FrameKind::NodeState => {
                let body = frame.body::<control::NodeState<'_>>()?;
                Self::NodeState {
                    hash: body.hash(),
                    part: body.part(),
                    is_last: body.is_last(),
                    filters: texts(body.filters()),
                    members: body
                        .members()
                        .into_iter()
                        .flatten()
                        .map(|member| MemberSample {
                            node: member.node().into(),
                            start_us: member.start_us(),
                            mesh_address: member.mesh_address().to_owned(),
                            app_port: member.app_port(),
                        })
                        .collect(),
                }
            }
            FrameKind::InterestDelta => {
                let body = frame.body::<control::InterestDelta<'_>>()?;
                Self::InterestDelta {
                    before: body.before(),
                    hash: body.hash(),
                    added: texts(body.added()),
                    removed: texts(body.removed()),
                }
            }
            FrameKind::LinkAck => {
                let body = frame.body::<control::LinkAck<'_>>()?;
                Self::LinkAck {
                    stream: body.stream().map(Into::into),
                    received: body.received(),
                    proof: bytes(body.proof()),
                }
            }
            FrameKind::NodeStateRequest => Self::NodeStateRequest,
            FrameKind::RetainedDigest => {
                let body = frame.body::<control::RetainedDigest<'_>>()?;
                let buckets = body.buckets().iter().collect();
                Self::RetainedDigest { buckets, is_answer: body.is_answer() }
            }
            FrameKind::RetainedFetch => {
                let body = frame.body::<control::RetainedFetch<'_>>()?;
                Self::RetainedFetch { buckets: body.buckets().iter().collect() }
            }
            FrameKind::ReplayRequest => {
                let body = frame.body::<control::ReplayRequest<'_>>()?;
                let topic = body.topic().to_owned();
                Self::ReplayRequest { request: body.request(), topic, after: body.after() }
            }
            FrameKind::InterestRequest => {
                let body = frame.body::<control::InterestRequest<'_>>()?;
                let filters = body.filters().iter().map(str::to_owned).collect();
                Self::InterestRequest { request: body.request(), filters }
            }
            FrameKind::ReplayAnswer => {
                let body = frame.body::<control::ReplayAnswer<'_>>()?;
                Self::ReplayAnswer {
                    request: body.request(),
                    is_end: body.is_end(),
                    is_partial: body.is_partial(),
                }
            }
            unknown => panic!("a checked frame is of a known kind, not {unknown:?}"),
        })
    }
}

/// Absent and empty texts mean the same in every field that is read with this.
fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

type Texts<'a> = flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<&'a str>>;

fn texts(value: Option<Texts<'_>>) -> Vec<String> {
    value.into_iter().flatten().map(str::to_owned).collect()
}

fn bytes(value: Option<flatbuffers::Vector<'_, u8>>) -> Option<Vec<u8>> {
    value.map(|bytes| bytes.bytes().to_vec())
}

fn message_refs(refs: flatbuffers::Vector<'_, control::MessageRef>) -> Vec<(u32, u64)> {
    refs.iter().map(|message| (message.topic(), message.sequence())).collect()
}

impl IntroductionSample {
    fn decode(table: control::Introduction<'_>) -> Self {
        Self {
            node: table.node().into(),
            start_us: table.start_us(),
            cluster: table.cluster().to_owned(),
            mesh_address: table.mesh_address().map(str::to_owned),
            mesh_port: table.mesh_port(),
            app_port: table.app_port(),
            challenge: bytes(table.challenge()),
            proof: bytes(table.proof()),
        }
    }
}

impl MessageSample {
    fn decode(frame: &Frame<'_>) -> Result<Self, DecodeError> {
        let header = frame.header();
        let metadata = match frame.metadata()? {
            None => None,
            Some(view) => Some(MetadataSample::decode(&view, frame.metadata_bytes())?),
        };
        Ok(Self {
            flags: header.flags().0,
            topic: header.topic().0,
            origin: header.origin(),
            sequence: header.sequence().0,
            origin_sequence: header.origin_sequence().0,
            timestamp_us: header.timestamp_us(),
            ttl_ms: header.ttl_ms(),
            key_hash: header.key_hash(),
            metadata,
            payload: frame.payload().to_vec(),
        })
    }
}

impl MetadataSample {
    /// Reads every field of verified metadata; `bytes` is where it stands.
    pub(crate) fn decode(view: &Metadata<'_>, bytes: &[u8]) -> Result<Self, DecodeError> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let table = flatbuffers::root::<metadata_table::Metadata<'_>>(bytes).map_err(|cause| {
            DecodeError::Body { at: 0, what: "metadata", cause: cause.to_string() }
        })?;
        Ok(Self {
            content_type: owned(view.content_type()),
            correlation_id: owned(view.correlation_id()),
            reply_to: table.reply_to().map(|address| {
                let high = u128::from(address.node_high()) << 64;
                (
                    NodeId(high | u128::from(address.node_low())),
                    address.session(),
                    address.request(),
                )
            }),
            headers: view.headers().map(|(key, value)| (key.to_owned(), value.to_vec())).collect(),
            trace_parent: owned(view.trace_parent()),
            trace_state: owned(view.trace_state()),
        })
    }
}
