//! Bodies and metadata are verified before they are read: damage is told, never followed.

use nexusd_wire::control;
use nexusd_wire::{
    DecodeError, Frame, FrameEncoder, FrameKind, Header, Metadata, NodeId, SubscriptionId, aligned,
};
use proptest::prelude::*;

use crate::cutter::decode_leniently;
use crate::round_trip::with_frame;
use crate::sample::{MemberSample, MetadataSample, Sample, any_sample, small_sample};

/// Reads everything in a Hello or Welcome.
pub(crate) fn read_body(frame: &Frame<'_>) -> Result<(), DecodeError> {
    match frame.kind() {
        FrameKind::Hello => frame.body::<control::Hello<'_>>().map(|body| {
            let _ = format!("{body:?}");
        }),
        _ => frame.body::<control::Welcome<'_>>().map(|body| {
            let _ = format!("{body:?}");
        }),
    }
}

/// A control frame around any bytes.
fn frame_around(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameEncoder::bare(&mut bytes, &Header::new(kind, 0, body.len()));
    bytes.extend_from_slice(body);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

fn carries_body(sample: &Sample) -> bool {
    with_frame(&sample.bytes(), |frame| {
        !frame.payload().is_empty()
            && !matches!(sample.kind(), FrameKind::Message | FrameKind::Request | FrameKind::Reply)
    })
}

proptest! {
    #[test]
    fn a_truncated_body_is_read_safely(sample in small_sample()) {
        prop_assume!(carries_body(&sample));
        let body = with_frame(&sample.bytes(), |frame| frame.payload().to_vec());
        for end in 0..body.len() {
            with_frame(&frame_around(sample.kind(), &body[..end]), |frame| {
                let _ = decode_leniently(frame);
            });
        }
        with_frame(&frame_around(sample.kind(), &[]), |frame| {
            assert!(matches!(
                decode_leniently(frame),
                Err(DecodeError::Body { at: 0, .. })
            ));
        });
    }

    #[test]
    fn every_flipped_bit_of_a_body_is_read_safely(sample in small_sample()) {
        prop_assume!(carries_body(&sample));
        let body = with_frame(&sample.bytes(), |frame| frame.payload().to_vec());
        let mut damaged = body.clone();
        for bit in 0..body.len() * 8 {
            damaged[bit / 8] ^= 1 << (bit % 8);
            with_frame(&frame_around(sample.kind(), &damaged), |frame| {
                let _ = decode_leniently(frame);
            });
            damaged[bit / 8] = body[bit / 8];
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read_safely_as_any_body(
        sample in any_sample(),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        with_frame(&frame_around(sample.kind(), &body), |frame| {
            let _ = decode_leniently(frame);
        });
    }

    #[test]
    fn damaged_metadata_is_refused_or_read_safely(
        sample in any_sample(),
        position in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let (Sample::Message(message) | Sample::Request(message) | Sample::Reply(message)) = sample
        else {
            return Ok(());
        };
        let Some(metadata) = message.metadata else {
            return Ok(());
        };
        let mut bytes = metadata.bytes();
        for end in 0..bytes.len() {
            read_metadata(&bytes[..end]);
        }
        let byte = position.index(bytes.len());
        bytes[byte] ^= 1 << bit;
        read_metadata(&bytes);
    }
}

fn read_metadata(bytes: &[u8]) {
    if let Ok(view) = Metadata::decode(bytes) {
        let _ = MetadataSample::decode(&view, bytes);
    }
}

#[test]
fn a_body_without_a_required_field_is_refused() {
    // A table without fields: the offset to it, its vtable (two lengths), its offset to the vtable.
    let empty = [8, 0, 0, 0, 4, 0, 4, 0, 4, 0, 0, 0];
    for kind in FrameKind::ENUM_VALUES {
        let required = match *kind {
            FrameKind::Welcome | FrameKind::NodeBind => "node",
            FrameKind::TopicBind => "name",
            FrameKind::PublishAck | FrameKind::StreamAck => "entries",
            FrameKind::Subscribe => "filters",
            FrameKind::SubscriptionInfo
            | FrameKind::Unsubscribe
            | FrameKind::Resume
            | FrameKind::ReplayComplete
            | FrameKind::Deliver
            | FrameKind::Gap
            | FrameKind::BackpressureWarning
            | FrameKind::Ack
            | FrameKind::Nack => "subscription",
            _ => continue,
        };
        with_frame(&frame_around(*kind, &empty), |frame| {
            let said = match decode_leniently(frame) {
                Err(DecodeError::Body { what, cause, .. }) => format!("{what}: {cause}"),
                other => panic!("{kind:?}: {other:?}"),
            };
            assert!(said.contains(required), "{kind:?}: {said}");
            assert!(!said.contains('\n'), "{said}");
        });
    }
}

#[test]
fn a_node_that_does_not_say_who_it_is_is_refused() {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let start = builder.start_table();
    let nobody =
        flatbuffers::WIPOffset::<control::Introduction<'_>>::new(builder.end_table(start).value());
    let introduction = Some(nobody);
    let args = control::HelloArgs { major: 1, introduction, ..Default::default() };
    let root = control::Hello::create(&mut builder, &args);
    builder.finish_minimal(root);
    with_frame(&frame_around(FrameKind::Hello, builder.finished_data()), |frame| {
        let refused = decode_leniently(frame).expect_err("nobody").to_string();
        assert!(refused.contains("introduction") && refused.contains("node"), "{refused}");
    });
}

#[test]
fn a_small_body_cannot_make_its_reader_work_for_gigabytes() {
    let text = "x".repeat(100_000);
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let shared = builder.create_string(&text);
    let filters = Some(builder.create_vector(&vec![shared; 15_000]));
    let root = control::Subscribe::create(
        &mut builder,
        &control::SubscribeArgs { request: 1, filters, ..Default::default() },
    );
    builder.finish_minimal(root);
    let body = builder.finished_data();
    assert!(body.len() < 256 << 10);
    with_frame(&frame_around(FrameKind::Subscribe, body), |frame| {
        assert!(matches!(frame.body::<control::Subscribe<'_>>(), Err(DecodeError::Body { .. })));
    });
}

#[test]
fn the_smallest_parts_in_large_numbers_are_accepted() {
    let metadata = MetadataSample {
        headers: vec![(String::new(), Vec::new()); 2_000],
        ..MetadataSample::default()
    };
    Metadata::decode(&metadata.bytes()).expect("many empty headers");
    let subscribe = Sample::Subscribe {
        request: 1,
        filters: vec!["a".to_owned(); 4_096],
        policy: None,
        queue_messages: None,
        queue_bytes: None,
        receive_retained: false,
        counted: false,
        positions: Vec::new(),
        wait_mesh: false,
        ended: Vec::new(),
    };
    let state = Sample::NodeState {
        hash: 0,
        part: 0,
        is_last: true,
        filters: vec!["a".to_owned(); 4_096],
        members: vec![
            MemberSample {
                node: NodeId(1),
                start_us: 0,
                mesh_address: "[::]:0".to_owned(),
                app_port: 0,
            };
            1_024
        ],
    };
    for sample in [subscribe, state] {
        with_frame(&sample.bytes(), |frame| {
            decode_leniently(frame).expect("many short parts");
        });
    }
}

/// What the writer in Appendix A of `docs/PROTOCOL.md` makes: another layout than the generated
/// code's.
#[test]
fn bodies_written_by_hand_as_the_protocol_document_shows_are_read() {
    let hello = "180000000e00100004000000000008000c000000000000001400000001000000080000001000000005\
                 0000006d657465720000000b0000006578616d706c652f312e3000";
    let subscribe = "100000000800140008001000000000000c000000000000000100000000000000040000000100000\
                     00400000013000000706c616e742f2b2f74656d706572617475726500";
    let unsubscribe = "100000000a00210008001000200000000c0000000000000003000000000000000001020304050\
                       60708090a0b0c0d0e0f01";
    let written = [
        (
            hello,
            Sample::Hello {
                minor: 0,
                role: control::Role::Client,
                name: "meter".into(),
                software: "example/1.0".into(),
                resume: None,
                introduction: None,
            },
        ),
        (
            subscribe,
            Sample::Subscribe {
                request: 1,
                filters: vec!["plant/+/temperature".into()],
                policy: None,
                queue_messages: None,
                queue_bytes: None,
                receive_retained: false,
                counted: false,
                positions: Vec::new(),
                wait_mesh: false,
                ended: Vec::new(),
            },
        ),
        (
            unsubscribe,
            Sample::Unsubscribe {
                request: 3,
                subscription: SubscriptionId(0x0706_0504_0302_0100_0f0e_0d0c_0b0a_0908),
                pause: true,
            },
        ),
    ];
    for (digits, sample) in written {
        let body: Vec<u8> = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal"))
            .collect();
        let bytes = frame_around(sample.kind(), &body);
        assert_eq!(with_frame(&bytes, Sample::decode), Ok(sample));
    }
}
