//! Samples with arbitrary values.

use std::net::SocketAddr;

use nexusd_wire::control::{
    DeliveryMode, ErrorCode, Farewell, GapMode, GapReason, OverflowPolicy, PublishStatus, Role,
};
use nexusd_wire::{NodeId, PROTOCOL_MINOR, RETAINED_BUCKETS, SubscriptionId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;

use super::{AckSample, IntroductionSample, MemberSample, MessageSample, MetadataSample, Sample};

/// Any kind of frame, each as likely as any other, with payloads and texts of up to `bytes_max`.
fn sample_of_at_most(bytes_max: usize) -> impl Strategy<Value = Sample> {
    // Characters of one to four bytes, and none that only regular expressions care for.
    let text = move || {
        vec(any::<char>(), 0..=bytes_max / 4)
            .prop_map(|chars| chars.into_iter().collect::<String>())
    };
    let message = move || message(bytes_max, text().boxed());
    let introduction = move || introduction(text().boxed());
    let texts = move || vec(text(), 0..8);
    Union::new(vec![
        (
            any::<(u8, Option<u128>)>(),
            one_of(Role::ENUM_VALUES),
            text(),
            text(),
            option::of(introduction()),
        )
            .prop_map(|((minor, resume), role, name, software, introduction)| {
                let resume = resume.map(SubscriptionId);
                Sample::Hello { minor, role, name, software, resume, introduction }
            })
            .boxed(),
        (text(), introduction())
            .prop_map(|(software, introduction)| Sample::Hello {
                minor: PROTOCOL_MINOR,
                role: Role::Node,
                name: String::new(),
                software,
                resume: None,
                introduction: Some(introduction),
            })
            .boxed(),
        (any::<(u8, u128, u32, u32)>(), text(), text(), option::of(introduction()))
            .prop_map(
                |((minor, node, max_payload, max_metadata), software, cluster, introduction)| {
                    Sample::Welcome {
                        minor,
                        node: NodeId(node),
                        software,
                        cluster,
                        max_payload,
                        max_metadata,
                        introduction,
                    }
                },
            )
            .boxed(),
        (any::<u8>(), text(), introduction())
            .prop_map(|(minor, software, introduction)| Sample::Welcome {
                minor,
                node: introduction.node,
                software,
                cluster: String::new(),
                max_payload: 0,
                max_metadata: 0,
                introduction: Some(introduction),
            })
            .boxed(),
        any::<u64>().prop_map(|token| Sample::Ping { token }).boxed(),
        any::<u64>().prop_map(|token| Sample::Pong { token }).boxed(),
        (text(), any::<(u64, bool)>(), one_of(Farewell::ENUM_VALUES))
            .prop_map(|(reason, (last_accepted, is_complete), farewell)| Sample::Goodbye {
                reason,
                last_accepted,
                farewell,
                is_complete,
            })
            .boxed(),
        (text(), any::<(u64, bool)>())
            .prop_map(|(reason, (last_accepted, is_complete))| Sample::Goodbye {
                reason,
                last_accepted,
                farewell: Farewell::Ending,
                is_complete,
            })
            .boxed(),
        (text(), one_of(Farewell::ENUM_VALUES))
            .prop_map(|(reason, farewell)| Sample::Goodbye {
                reason,
                last_accepted: 0,
                farewell,
                is_complete: false,
            })
            .boxed(),
        (one_of(ErrorCode::ENUM_VALUES), text(), any::<(bool, u64, u64, u8)>())
            .prop_map(|(code, message, (fatal, request, offset, kind))| Sample::Error {
                code,
                message,
                fatal,
                request,
                offset,
                kind,
            })
            .boxed(),
        (any::<u32>(), text()).prop_map(|(topic, name)| Sample::TopicBind { topic, name }).boxed(),
        any::<u32>().prop_map(|topic| Sample::TopicUnbind { topic }).boxed(),
        any::<(u32, u128)>()
            .prop_map(|(handle, node)| Sample::NodeBind { handle, node: NodeId(node) })
            .boxed(),
        message().prop_map(Sample::Message).boxed(),
        message().prop_map(Sample::Request).boxed(),
        message().prop_map(Sample::Reply).boxed(),
        vec(ack_entry(), 0..=bytes_max / 32)
            .prop_map(|entries| Sample::PublishAck { entries })
            .boxed(),
        Just(Sample::PublishPause).boxed(),
        Just(Sample::PublishResume).boxed(),
        (
            texts(),
            option::of(one_of(OverflowPolicy::ENUM_VALUES)),
            any::<(u64, Option<u32>, Option<u64>, bool, bool, bool)>(),
            vec((text(), any::<(u64, Option<u128>)>()), 0..4),
            vec(any::<u128>(), 0..3),
        )
            .prop_map(|(filters, policy, numbers, positions, ended)| {
                let (request, queue_messages, queue_bytes, receive_retained, counted, wait_mesh) =
                    numbers;
                let position = |(topic, (sequence, origin)): (String, (u64, Option<u128>))| {
                    (topic, sequence, origin.map(NodeId))
                };
                let positions = positions.into_iter().map(position).collect();
                Sample::Subscribe {
                    request,
                    filters,
                    policy,
                    queue_messages,
                    queue_bytes,
                    receive_retained,
                    counted,
                    positions,
                    wait_mesh,
                    ended: ended.into_iter().map(NodeId).collect(),
                }
            })
            .boxed(),
        any::<(u64, u128, bool, i64, bool)>()
            .prop_map(|(request, id, gap_detected, missed_count, replay_started)| {
                Sample::SubscriptionInfo {
                    request,
                    subscription: SubscriptionId(id),
                    gap_detected,
                    missed_count,
                    replay_started,
                }
            })
            .boxed(),
        any::<(u64, u128)>()
            .prop_map(|(request, id)| Sample::SubscriptionInfo {
                request,
                subscription: SubscriptionId(id),
                gap_detected: false,
                missed_count: 0,
                replay_started: false,
            })
            .boxed(),
        any::<(u64, u128, bool)>()
            .prop_map(|(request, id, pause)| Sample::Unsubscribe {
                request,
                subscription: SubscriptionId(id),
                pause,
            })
            .boxed(),
        (any::<(u64, bool, u64)>(), option::of(text()))
            .prop_map(|((request, success, pause_ttl_ms), message)| Sample::UnsubscribeResult {
                request,
                success,
                message,
                pause_ttl_ms,
            })
            .boxed(),
        (any::<u64>(), option::of(text()))
            .prop_map(|(request, message)| Sample::UnsubscribeResult {
                request,
                success: message.is_none(),
                message,
                pause_ttl_ms: 0,
            })
            .boxed(),
        (any::<(u64, u128, u64)>(), one_of(GapMode::ENUM_VALUES))
            .prop_map(|((request, id, received_count), gap_mode)| Sample::Resume {
                request,
                subscription: SubscriptionId(id),
                received_count,
                gap_mode,
            })
            .boxed(),
        any::<(u32, u128, u64, u64)>()
            .prop_map(|(topic, id, replayed_count, latest_sequence)| Sample::ReplayComplete {
                topic,
                subscription: SubscriptionId(id),
                replayed_count,
                latest_sequence,
            })
            .boxed(),
        (any::<(u128, u32, u64)>(), one_of(DeliveryMode::ENUM_VALUES))
            .prop_map(|((id, delivery_count, now_us), mode)| Sample::Deliver {
                subscription: SubscriptionId(id),
                mode,
                delivery_count,
                now_us,
            })
            .boxed(),
        any::<u128>()
            .prop_map(|id| Sample::Deliver {
                subscription: SubscriptionId(id),
                mode: DeliveryMode::Live,
                delivery_count: 0,
                now_us: 0,
            })
            .boxed(),
        (
            any::<(u128, u64, u64)>(),
            one_of(GapReason::ENUM_VALUES),
            vec(any::<(u32, u64, u64)>(), 0..=64),
        )
            .prop_map(|((id, missed, rest), reason, entries)| Sample::Gap {
                subscription: SubscriptionId(id),
                reason,
                missed,
                entries,
                rest,
            })
            .boxed(),
        (any::<(u128, u64, u64, u64, u64, u64)>(), one_of(GapReason::ENUM_VALUES))
            .prop_map(|((id, dropped, depth, limit, expired, oldest_age_ms), reason)| {
                Sample::BackpressureWarning {
                    subscription: SubscriptionId(id),
                    dropped,
                    depth,
                    limit,
                    reason,
                    expired,
                    oldest_age_ms,
                }
            })
            .boxed(),
        any::<u64>().prop_map(|timestamp_us| Sample::Heartbeat { timestamp_us }).boxed(),
        vec(any::<(u128, u64)>(), 0..=bytes_max / 24)
            .prop_map(|entries| Sample::StreamAck {
                entries: entries
                    .into_iter()
                    .map(|(id, received)| (SubscriptionId(id), received))
                    .collect(),
            })
            .boxed(),
        (any::<(u128, bool)>(), vec(any::<(u32, u64)>(), 0..=bytes_max / 16))
            .prop_map(|((id, cumulative), messages)| Sample::Ack {
                subscription: SubscriptionId(id),
                cumulative,
                messages,
            })
            .boxed(),
        (any::<(u128, u32)>(), vec(any::<(u32, u64)>(), 0..=bytes_max / 16))
            .prop_map(|((id, delay_ms), messages)| Sample::Nack {
                subscription: SubscriptionId(id),
                messages,
                delay_ms,
            })
            .boxed(),
        (any::<(u64, u32, bool)>(), texts(), vec(member(), 0..4))
            .prop_map(|((hash, part, is_last), filters, members)| Sample::NodeState {
                hash,
                part,
                is_last,
                filters,
                members,
            })
            .boxed(),
        (any::<(u64, u64)>(), texts(), texts())
            .prop_map(|((before, hash), added, removed)| Sample::InterestDelta {
                before,
                hash,
                added,
                removed,
            })
            .boxed(),
        (any::<(Option<u128>, u64)>(), option::of(vec(any::<u8>(), 0..40)))
            .prop_map(|((stream, received), proof)| Sample::LinkAck {
                stream: stream.map(SubscriptionId),
                received,
                proof,
            })
            .boxed(),
        Just(Sample::NodeStateRequest).boxed(),
        (vec(any::<u64>(), RETAINED_BUCKETS), any::<bool>())
            .prop_map(|(buckets, is_answer)| Sample::RetainedDigest { buckets, is_answer })
            .boxed(),
        vec(any::<u64>(), RETAINED_BUCKETS / 64)
            .prop_map(|buckets| Sample::RetainedFetch { buckets })
            .boxed(),
        (any::<u64>(), text(), any::<Option<u64>>())
            .prop_map(|(request, topic, after)| Sample::ReplayRequest { request, topic, after })
            .boxed(),
        (any::<u64>(), texts())
            .prop_map(|(request, filters)| Sample::InterestRequest { request, filters })
            .boxed(),
        any::<(u64, bool, bool)>()
            .prop_map(|(request, is_end, is_partial)| Sample::ReplayAnswer {
                request,
                is_end,
                is_partial,
            })
            .boxed(),
    ])
}

/// Any kind of frame.
pub(crate) fn any_sample() -> impl Strategy<Value = Sample> {
    sample_of_at_most(300)
}

/// Any kind of frame, small enough to try every position in it.
pub(crate) fn small_sample() -> impl Strategy<Value = Sample> {
    sample_of_at_most(32)
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(values)
}

fn ack_entry() -> impl Strategy<Value = AckSample> {
    (any::<(u64, u64, u32, u32, u32)>(), one_of(PublishStatus::ENUM_VALUES)).prop_map(
        |((publisher_sequence, sequence, delivered, dropped, blocked), status)| AckSample {
            publisher_sequence,
            sequence,
            delivered,
            dropped,
            blocked,
            status,
        },
    )
}

fn introduction(text: BoxedStrategy<String>) -> impl Strategy<Value = IntroductionSample> {
    let signed = || option::of(vec(any::<u8>(), 0..40));
    (any::<(u128, u64, u16, u16)>(), text.clone(), option::of(text), signed(), signed()).prop_map(
        |((node, start_us, mesh_port, app_port), cluster, mesh_address, challenge, proof)| {
            IntroductionSample {
                node: NodeId(node),
                start_us,
                cluster,
                mesh_address,
                mesh_port,
                app_port,
                challenge,
                proof,
            }
        },
    )
}

fn member() -> impl Strategy<Value = MemberSample> {
    any::<(u128, u64, SocketAddr, u16)>().prop_map(|(node, start_us, mesh_address, app_port)| {
        MemberSample {
            node: NodeId(node),
            start_us,
            mesh_address: mesh_address.to_string(),
            app_port,
        }
    })
}

fn message(bytes_max: usize, text: BoxedStrategy<String>) -> impl Strategy<Value = MessageSample> {
    let metadata = (
        option::of(text.clone()),
        option::of(text.clone()),
        option::of(any::<(u128, u64, u64)>()),
        vec((text.clone(), vec(any::<u8>(), 0..20)), 0..5),
        option::of(text.clone()),
        option::of(text),
    )
        .prop_map(
            |(content_type, correlation_id, reply_to, headers, trace_parent, trace_state)| {
                MetadataSample {
                    content_type,
                    correlation_id,
                    reply_to: reply_to
                        .map(|(node, session, request)| (NodeId(node), session, request)),
                    headers,
                    trace_parent,
                    trace_state,
                }
            },
        );
    (
        any::<u8>().prop_map(|bits| bits & 0x3F),
        any::<(u32, u32, u64, u64, u64, u32, u32)>(),
        option::of(metadata),
        vec(any::<u8>(), 0..=bytes_max),
    )
        .prop_map(
            |(
                flags,
                (topic, origin, sequence, origin_sequence, timestamp_us, ttl_ms, key_hash),
                metadata,
                payload,
            )| MessageSample {
                flags,
                topic,
                origin,
                sequence,
                origin_sequence,
                timestamp_us,
                ttl_ms,
                key_hash,
                metadata,
                payload,
            },
        )
}
