//! The message path of this crate takes no memory: cutting whole frames, checking headers, reading
//! and writing messages. In a test binary of its own, because it counts what the allocator does.

use std::hint::black_box;

use allocation_counter::measure;
use nexusd_wire::{
    Cut, FrameCutter, FrameEncoder, FrameKind, Header, MetadataBuilder, Sequence, TopicId,
};

const MESSAGES: u64 = 1_000;

fn messages() -> Vec<u8> {
    let mut metadata = MetadataBuilder::default();
    let metadata =
        metadata.encode(Some("text/plain"), None, [("unit", b"celsius".as_slice())]).to_vec();
    let mut stream = Vec::new();
    for number in 1..=MESSAGES {
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_topic(TopicId(3))
            .with_sequence(Sequence(number));
        FrameEncoder::message(&mut stream, &header, &metadata, &[7; 100]);
    }
    stream
}

#[test]
fn cutting_whole_frames_takes_no_memory() {
    let stream = messages();
    let mut cutter = FrameCutter::new(1 << 20, 1 << 20, usize::MAX);
    let mut found = 0;
    let taken = measure(|| {
        let mut input = &stream[..];
        while let Ok(Cut::Frame(frame)) = cutter.next(&mut input) {
            black_box((frame.header().sequence(), frame.payload(), frame.metadata_bytes()));
            found += 1;
        }
    });
    assert_eq!(found, MESSAGES);
    assert_eq!(taken.count_total, 0);
}

#[test]
fn frames_that_straddle_chunks_take_no_memory_once_the_stash_has_grown() {
    let stream = messages();
    let mut cutter = FrameCutter::new(1 << 20, 1 << 20, usize::MAX);
    let mut cut_all = |found: &mut u64| {
        for chunk in stream.chunks(97) {
            let mut input = chunk;
            while let Ok(Cut::Frame(frame)) = cutter.next(&mut input) {
                black_box(frame.payload());
                *found += 1;
            }
        }
    };
    let mut found = 0;
    cut_all(&mut found);
    let taken = measure(|| cut_all(&mut found));
    assert_eq!(found, 2 * MESSAGES);
    assert_eq!(taken.count_total, 0);
}

#[test]
fn checking_headers_and_verifying_metadata_takes_no_memory() {
    let stream = messages();
    let mut cutter = FrameCutter::new(1 << 20, 1 << 20, usize::MAX);
    let taken = measure(|| {
        let mut input = &stream[..];
        while let Ok(Cut::Frame(frame)) = cutter.next(&mut input) {
            assert!(frame.header().check(0, 1 << 20, 1 << 20).is_ok());
            let metadata = frame.metadata();
            let Ok(Some(metadata)) = metadata else {
                panic!("the metadata verifies");
            };
            black_box(metadata.headers().count());
        }
    });
    assert_eq!(taken.count_total, 0);
}

#[test]
fn writing_messages_into_grown_memory_takes_none() {
    let mut out = Vec::with_capacity(messages().len());
    let header = Header::new(FrameKind::Message, 0, 0).with_topic(TopicId(3));
    let taken = measure(|| {
        for number in 1..=MESSAGES {
            let header = header.with_sequence(Sequence(number));
            FrameEncoder::message(&mut out, &header, &[], &[7; 100]);
        }
    });
    assert_eq!(out.len() as u64, MESSAGES * 152);
    assert_eq!(taken.count_total, 0);
}

#[test]
fn writing_metadata_takes_no_memory_once_the_builder_has_grown() {
    let mut builder = MetadataBuilder::default();
    let mut encode = || {
        black_box(builder.encode(
            Some("text/plain"),
            Some("42"),
            [("unit", b"celsius".as_slice()), ("place", b"boiler")],
        ));
    };
    encode();
    let taken = measure(|| {
        for _ in 0..MESSAGES {
            encode();
        }
    });
    assert_eq!(taken.count_total, 0);
}
