//! What a retained value takes, counted. A binary of its own, because the counter sees the whole
//! process.

use nexusd_bench::BenchShards;
use nexusd_core::Limits;
use nexusd_wire::{FrameEncoder, FrameKind, Header, MessageFlags, Sequence, TopicId};

const TOPICS: u32 = 1_000_000;
const PAYLOAD: [u8; 16] = [7; 16];
/// What a topic with a retained value may take beside its name and its payload.
const BYTES_MAX: u64 = 300;

#[test]
fn a_million_retained_values_take_less_than_300_bytes_each() {
    let limits = Limits { memory_bytes: 8 << 30, ..Limits::default() };
    let mut shards = BenchShards::with_limits(1, limits);
    let publisher = shards.connect();
    let mut names = 0;
    let counted = allocation_counter::measure(|| {
        let (mut encoder, mut bytes) = (FrameEncoder::new(), Vec::new());
        for topic in 0..TOPICS {
            let name = format!("site/{}/sensor/{topic}", topic % 100);
            names += name.len() as u64;
            bytes.clear();
            encoder.topic_bind(&mut bytes, TopicId(0), &name);
            let header = Header::new(FrameKind::Message, 0, 0)
                .with_sequence(Sequence(u64::from(topic) + 1))
                .with_flags(MessageFlags::RETAIN);
            FrameEncoder::message(&mut bytes, &header, &[], &PAYLOAD);
            shards.receive(publisher, &bytes);
        }
    });
    let metrics = shards.metrics();
    assert_eq!(metrics.retained, u64::from(TOPICS));
    let beside = counted.bytes_current as u64 - names - PAYLOAD.len() as u64 * u64::from(TOPICS);
    let each = beside / u64::from(TOPICS);
    assert!(each < BYTES_MAX, "{each} bytes each, the log's history included");
}
