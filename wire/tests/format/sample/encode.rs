//! Samples to bytes.

use flatbuffers::{FlatBufferBuilder, WIPOffset};
use nexusd_wire::control::{self, Farewell, PublishAckEntry, Role};
use nexusd_wire::{
    ErrorReport, FrameEncoder, FrameKind, GapReport, Header, InterestChange, Introduction, Member,
    MessageFlags, MetadataBuilder, NodeStatePart, PROTOCOL_MAJOR, PROTOCOL_MINOR, Position,
    Sequence, SubscribeRequest, SubscriptionReport, TopicId, WarningReport, metadata_table,
};

use super::{IntroductionSample, MemberSample, MessageSample, MetadataSample, Sample};

impl Sample {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut encoder = FrameEncoder::new();
        match self {
            Self::Hello { minor, role, name, software, resume, introduction: None } => {
                encoder.hello_again(out, *minor, *role, name, software, *resume);
            }
            Self::Hello {
                minor: PROTOCOL_MINOR,
                role: Role::Node,
                name,
                software,
                resume: None,
                introduction: Some(introduction),
            } if name.is_empty() => {
                encoder.node_hello(out, software, &introduction.lent());
            }
            Self::Welcome {
                minor,
                node,
                software,
                cluster,
                max_payload,
                max_metadata,
                introduction: None,
            } => {
                encoder.welcome(out, *minor, *node, software, cluster, *max_payload, *max_metadata);
            }
            Self::Welcome {
                minor,
                node,
                software,
                cluster,
                max_payload: 0,
                max_metadata: 0,
                introduction: Some(introduction),
            } if cluster.is_empty() && *node == introduction.node => {
                encoder.node_welcome(out, *minor, software, &introduction.lent());
            }
            Self::Ping { token } | Self::Pong { token } => {
                FrameEncoder::ping_or_pong(out, self.kind(), *token);
            }
            Self::Goodbye { reason, last_accepted: 0, farewell, is_complete: false } => {
                encoder.farewell(out, reason, *farewell);
            }
            Self::Goodbye { reason, last_accepted, farewell: Farewell::Ending, is_complete } => {
                match is_complete {
                    true => encoder.complete_goodbye(out, reason, *last_accepted),
                    false => encoder.goodbye(out, reason, *last_accepted),
                }
            }
            Self::Error { code, message, fatal, request, offset, kind } => encoder.error(
                out,
                &ErrorReport {
                    code: *code,
                    message,
                    fatal: *fatal,
                    request: *request,
                    offset: *offset,
                    kind: *kind,
                },
            ),
            Self::TopicBind { topic, name } => encoder.topic_bind(out, TopicId(*topic), name),
            Self::TopicUnbind { topic } => FrameEncoder::topic_unbind(out, TopicId(*topic)),
            Self::NodeBind { handle, node } => encoder.node_bind(out, *handle, *node),
            Self::Message(message) => message.encode(FrameKind::Message, out),
            Self::Request(message) => message.encode(FrameKind::Request, out),
            Self::Reply(message) => message.encode(FrameKind::Reply, out),
            Self::PublishAck { entries } => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|entry| {
                        PublishAckEntry::new(
                            entry.publisher_sequence,
                            entry.sequence,
                            entry.delivered,
                            entry.dropped,
                            entry.blocked,
                            entry.status,
                        )
                    })
                    .collect();
                encoder.publish_ack(out, &entries);
            }
            Self::NodeState { hash, part, is_last, filters, members } => {
                let members: Vec<_> = members.iter().map(MemberSample::lent).collect();
                encoder.node_state(
                    out,
                    &NodeStatePart {
                        hash: *hash,
                        part: *part,
                        is_last: *is_last,
                        filters: &lent(filters),
                        members: &members,
                    },
                );
            }
            Self::InterestDelta { before, hash, added, removed } => encoder.interest_delta(
                out,
                &InterestChange {
                    before: *before,
                    hash: *hash,
                    added: &lent(added),
                    removed: &lent(removed),
                },
            ),
            Self::LinkAck { stream, received, proof } => {
                encoder.link_ack(out, *stream, *received, proof.as_deref());
            }
            Self::NodeStateRequest => FrameEncoder::node_state_request(out),
            Self::RetainedDigest { buckets, is_answer } => {
                let buckets = buckets[..].try_into().expect("all buckets");
                encoder.retained_digest(out, buckets, *is_answer);
            }
            Self::RetainedFetch { buckets } => {
                encoder.retained_fetch(out, buckets[..].try_into().expect("a bit for each"));
            }
            Self::ReplayRequest { request, topic, after } => {
                encoder.replay_request(out, *request, topic, after.map(Sequence));
            }
            Self::InterestRequest { request, filters } => {
                encoder.interest_request(out, *request, filters.iter().map(String::as_str));
            }
            Self::ReplayAnswer { request, is_end, is_partial } => {
                encoder.replay_answer(out, *request, *is_end, *is_partial);
            }
            Self::PublishPause | Self::PublishResume => {
                FrameEncoder::bare(out, &Header::new(self.kind(), 0, 0));
            }
            Self::Heartbeat { timestamp_us } => FrameEncoder::bare(
                out,
                &Header::new(self.kind(), 0, 0).with_timestamp_us(*timestamp_us),
            ),
            Self::Subscribe {
                request,
                filters,
                policy,
                queue_messages,
                queue_bytes,
                receive_retained,
                counted,
                positions,
                wait_mesh,
                ended,
            } => {
                let positions: Vec<_> = positions
                    .iter()
                    .map(|(topic, sequence, origin)| Position {
                        topic,
                        sequence: Sequence(*sequence),
                        origin: *origin,
                    })
                    .collect();
                encoder.subscribe(
                    out,
                    &SubscribeRequest {
                        request: *request,
                        filters: &lent(filters),
                        policy: *policy,
                        queue_messages: *queue_messages,
                        queue_bytes: *queue_bytes,
                        receive_retained: *receive_retained,
                        counted: *counted,
                        positions: &positions,
                        wait_mesh: *wait_mesh,
                        ended,
                    },
                );
            }
            Self::SubscriptionInfo {
                request,
                subscription,
                gap_detected,
                missed_count,
                replay_started,
            } => encoder.subscription_info(
                out,
                &SubscriptionReport {
                    request: *request,
                    subscription: *subscription,
                    gap_detected: *gap_detected,
                    missed_count: *missed_count,
                    replay_started: *replay_started,
                },
            ),
            Self::Unsubscribe { request, subscription, pause } => {
                encoder.unsubscribe(out, *request, *subscription, *pause);
            }
            Self::UnsubscribeResult { request, success, message, pause_ttl_ms }
                if *success == message.is_none() =>
            {
                encoder.unsubscribe_result(out, *request, message.as_deref(), *pause_ttl_ms);
            }
            Self::Resume { request, subscription, received_count, gap_mode } => {
                encoder.resume(out, *request, *subscription, *received_count, *gap_mode);
            }
            Self::ReplayComplete { topic, subscription, replayed_count, latest_sequence } => {
                let latest = Sequence(*latest_sequence);
                let topic = TopicId(*topic);
                encoder.replay_complete(out, topic, *subscription, *replayed_count, latest);
            }
            Self::Deliver { subscription, mode, delivery_count: 0, now_us: 0 } => {
                encoder.deliver(out, *subscription, *mode);
            }
            Self::StreamAck { entries } => encoder.stream_ack(out, entries),
            Self::BackpressureWarning {
                subscription,
                dropped,
                depth,
                limit,
                reason,
                expired,
                oldest_age_ms,
            } => encoder.backpressure_warning(
                out,
                &WarningReport {
                    subscription: *subscription,
                    dropped: *dropped,
                    depth: *depth,
                    limit: *limit,
                    reason: *reason,
                    expired: *expired,
                    oldest_age_ms: *oldest_age_ms,
                },
            ),
            Self::Gap { subscription, reason, missed, entries, rest } => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|&(topic, first, last)| (TopicId(topic), Sequence(first), Sequence(last)))
                    .collect();
                encoder.gap(
                    out,
                    &GapReport {
                        subscription: *subscription,
                        reason: *reason,
                        missed: *missed,
                        entries: &entries,
                        rest: *rest,
                    },
                );
            }
            _ => self.encode_from_tables(out),
        }
    }

    /// The kinds, the fields and the combinations of fields that [`FrameEncoder`] does not write.
    fn encode_from_tables(&self, out: &mut Vec<u8>) {
        let body = finished(|b| match self {
            Self::Hello { minor, role, name, software, resume, introduction } => {
                let resume = resume.map(control::SubscriptionId::from);
                let args = control::HelloArgs {
                    major: PROTOCOL_MAJOR,
                    minor: *minor,
                    role: *role,
                    name: Some(b.create_string(name)),
                    software: Some(b.create_string(software)),
                    resume: resume.as_ref(),
                    introduction: introduction.as_ref().map(|it| it.table(b)),
                };
                control::Hello::create(b, &args).as_union_value()
            }
            Self::Welcome {
                minor,
                node,
                software,
                cluster,
                max_payload,
                max_metadata,
                introduction,
            } => {
                let args = control::WelcomeArgs {
                    major: PROTOCOL_MAJOR,
                    minor: *minor,
                    node: Some(&(*node).into()),
                    software: Some(b.create_string(software)),
                    max_payload: *max_payload,
                    max_metadata: *max_metadata,
                    cluster: Some(b.create_string(cluster)),
                    introduction: introduction.as_ref().map(|it| it.table(b)),
                };
                control::Welcome::create(b, &args).as_union_value()
            }
            Self::Goodbye { reason, last_accepted, farewell, is_complete } => {
                let args = control::GoodbyeArgs {
                    reason: Some(b.create_string(reason)),
                    last_accepted: *last_accepted,
                    farewell: *farewell,
                    is_complete: *is_complete,
                };
                control::Goodbye::create(b, &args).as_union_value()
            }
            Self::UnsubscribeResult { request, success, message, pause_ttl_ms } => {
                let message = message.as_deref().map(|text| b.create_string(text));
                control::UnsubscribeResult::create(
                    b,
                    &control::UnsubscribeResultArgs {
                        request: *request,
                        success: *success,
                        message,
                        pause_ttl_ms: *pause_ttl_ms,
                    },
                )
                .as_union_value()
            }
            Self::Deliver { subscription, mode, delivery_count, now_us } => {
                let args = control::DeliverArgs {
                    subscription: Some(&(*subscription).into()),
                    mode: *mode,
                    delivery_count: *delivery_count,
                    now_us: *now_us,
                };
                control::Deliver::create(b, &args).as_union_value()
            }
            Self::Ack { subscription, cumulative, messages } => {
                let messages = Some(b.create_vector(&message_refs(messages)));
                control::Ack::create(
                    b,
                    &control::AckArgs {
                        subscription: Some(&(*subscription).into()),
                        cumulative: *cumulative,
                        messages,
                    },
                )
                .as_union_value()
            }
            Self::Nack { subscription, messages, delay_ms } => {
                let messages = Some(b.create_vector(&message_refs(messages)));
                control::Nack::create(
                    b,
                    &control::NackArgs {
                        subscription: Some(&(*subscription).into()),
                        messages,
                        delay_ms: *delay_ms,
                    },
                )
                .as_union_value()
            }
            encoded_elsewhere => panic!("FrameEncoder writes {encoded_elsewhere:?}"),
        });
        let header = Header::new(self.kind(), 0, body.len());
        let end = out.len() + header.stride();
        FrameEncoder::bare(out, &header);
        out.extend_from_slice(&body);
        out.resize(end, 0);
    }
}

fn lent(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

impl IntroductionSample {
    fn lent(&self) -> Introduction<'_> {
        Introduction {
            node: self.node,
            start_us: self.start_us,
            cluster: &self.cluster,
            mesh_address: self.mesh_address.as_deref(),
            mesh_port: self.mesh_port,
            app_port: self.app_port,
            challenge: self.challenge.as_deref(),
            proof: self.proof.as_deref(),
        }
    }

    fn table(
        &self,
        b: &mut FlatBufferBuilder<'static>,
    ) -> WIPOffset<control::Introduction<'static>> {
        let args = control::IntroductionArgs {
            node: Some(&self.node.into()),
            start_us: self.start_us,
            cluster: Some(b.create_string(&self.cluster)),
            mesh_address: self.mesh_address.as_ref().map(|address| b.create_string(address)),
            mesh_port: self.mesh_port,
            app_port: self.app_port,
            challenge: self.challenge.as_ref().map(|bytes| b.create_vector(bytes)),
            proof: self.proof.as_ref().map(|bytes| b.create_vector(bytes)),
        };
        control::Introduction::create(b, &args)
    }
}

impl MemberSample {
    fn lent(&self) -> Member {
        Member {
            node: self.node,
            start_us: self.start_us,
            mesh_address: self.mesh_address.parse().expect("an address and a port"),
            app_port: self.app_port,
        }
    }
}

fn message_refs(messages: &[(u32, u64)]) -> Vec<control::MessageRef> {
    messages.iter().map(|&(topic, sequence)| control::MessageRef::new(topic, sequence)).collect()
}

/// The bytes of the table that `build` makes.
fn finished<T>(build: impl FnOnce(&mut FlatBufferBuilder<'static>) -> WIPOffset<T>) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let root = build(&mut builder);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

impl MessageSample {
    fn encode(&self, kind: FrameKind, out: &mut Vec<u8>) {
        let metadata = self.metadata.as_ref().map_or_else(Vec::new, MetadataSample::bytes);
        let header = Header::new(kind, 0, 0)
            .with_flags(MessageFlags(self.flags))
            .with_topic(TopicId(self.topic))
            .with_origin(self.origin)
            .with_sequence(Sequence(self.sequence))
            .with_origin_sequence(Sequence(self.origin_sequence))
            .with_timestamp_us(self.timestamp_us)
            .with_ttl_ms(self.ttl_ms)
            .with_key_hash(self.key_hash);
        let start = out.len();
        FrameEncoder::message(out, &header, &metadata, &self.payload);
        out[start + 4] = kind.0;
    }
}

impl MetadataSample {
    /// The table alone, without padding.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        if self.reply_to.is_none() && self.trace_parent.is_none() && self.trace_state.is_none() {
            return MetadataBuilder::default()
                .encode(
                    self.content_type.as_deref(),
                    self.correlation_id.as_deref(),
                    self.headers.iter().map(|(key, value)| (key.as_str(), value.as_slice())),
                )
                .to_vec();
        }
        finished(|b| {
            let headers: Vec<_> = self
                .headers
                .iter()
                .map(|(key, value)| {
                    let key = Some(b.create_string(key));
                    let value = Some(b.create_vector(value));
                    metadata_table::HeaderEntry::create(
                        b,
                        &metadata_table::HeaderEntryArgs { key, value },
                    )
                })
                .collect();
            let headers = (!headers.is_empty()).then(|| b.create_vector(&headers));
            let reply_to = self.reply_to.map(|(node, session, request)| {
                metadata_table::ReplyAddress::create(
                    b,
                    &metadata_table::ReplyAddressArgs {
                        node_high: (node.0 >> 64) as u64,
                        node_low: node.0 as u64,
                        session,
                        request,
                    },
                )
            });
            let mut text =
                |text: &Option<String>| text.as_deref().map(|text| b.create_string(text));
            let content_type = text(&self.content_type);
            let correlation_id = text(&self.correlation_id);
            let trace_parent = text(&self.trace_parent);
            let trace_state = text(&self.trace_state);
            metadata_table::Metadata::create(
                b,
                &metadata_table::MetadataArgs {
                    content_type,
                    correlation_id,
                    reply_to,
                    headers,
                    trace_parent,
                    trace_state,
                },
            )
        })
    }
}
