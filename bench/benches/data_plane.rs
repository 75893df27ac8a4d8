//! Criterion benchmarks of the data plane's parts.

#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nexusd_bench::{Order, Traffic, Workload};
use nexusd_core::SubscriptionIndex;
use nexusd_wire::{Cut, FrameCutter, FrameEncoder, FrameKind, Header, TopicId};
use std::hint::black_box;

const PAYLOAD: [u8; 128] = [7; 128];

fn frame_decode(c: &mut Criterion) {
    let mut bytes = Vec::new();
    let header = Header::new(FrameKind::Message, 0, 0).with_topic(TopicId(1));
    for _ in 0..360 {
        FrameEncoder::message(&mut bytes, &header, &[], &PAYLOAD);
    }
    let mut group = c.benchmark_group("frame decode");
    group.throughput(Throughput::Elements(360));
    group.bench_function("360 frames of 176 bytes", |b| {
        let mut cutter = FrameCutter::new(1 << 20, 1 << 20, usize::MAX);
        b.iter(|| {
            let mut input = bytes.as_slice();
            while let Ok(Cut::Frame(frame)) = cutter.next(&mut input) {
                black_box(frame.header().sequence());
            }
        });
    });
    group.finish();
}

fn filter_match(c: &mut Criterion) {
    let mut index = SubscriptionIndex::new(7);
    for queue in 0..100_000u32 {
        let (site, sensor) = (queue / 100, queue % 100);
        let filter = match queue % 2 {
            0 => format!("site/{site}/sensor/{sensor}"),
            _ => format!("site/{site}/+/{sensor}"),
        };
        index.insert(&filter, queue);
    }
    let mut found = Vec::new();
    let mut at = 0u32;
    let topics: Vec<String> =
        (0..1000).map(|site| format!("site/{site}/sensor/{}", (site * 7) % 100)).collect();
    c.bench_function("filter match, 100 k filters, half with a wildcard", |b| {
        b.iter(|| {
            at = (at + 1) % 1000;
            index.matches(&topics[at as usize], &mut found);
            black_box(found.len())
        });
    });
}

fn log_append(c: &mut Criterion) {
    let mut group = c.benchmark_group("log append");
    group.throughput(Throughput::Elements(40_000));
    group.sample_size(20);
    group.bench_function("no subscriber, 128 B", |b| {
        b.iter_batched_ref(
            || Traffic::new(Workload::FanOut(0)),
            |traffic| traffic.run(40_000),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out, 128 B");
    group.sample_size(20);
    for subscribers in [1, 16, 64, 1_000] {
        let mut traffic = Traffic::new(Workload::FanOut(subscribers));
        group.throughput(Throughput::Elements(8_000 * subscribers as u64));
        group.bench_function(format!("to {subscribers}"), |b| b.iter(|| traffic.run(8_000)));
    }
    group.finish();
}

fn many_topics(c: &mut Criterion) {
    let mut group = c.benchmark_group("topics, 128 B");
    group.sample_size(20);
    group.throughput(Throughput::Elements(80_000));
    for topics in [1, 1_000, 1_000_000] {
        for order in [Order::RoundRobin, Order::Random, Order::Zipf] {
            let mut traffic = None;
            group.bench_function(format!("{topics}, {order:?}"), |b| {
                let traffic = traffic.get_or_insert_with(|| {
                    let mut traffic = Traffic::new(Workload::Topics(topics, order));
                    // Each topic has had messages, and what is kept for replay is as much as may be.
                    traffic.run(3 * u64::from(topics));
                    traffic
                });
                b.iter(|| traffic.run(80_000));
            });
        }
    }
    group.finish();
}

/// What of a message to one of a million topics is memory alone: the publisher's binding, the topic's line, which is
/// changed, and an entry of the history. There is nothing else to do, and all lines of 512 messages are asked for
/// before they are used, so the processor has as many on their way as it can.
fn memory_of_topics(c: &mut Criterion) {
    const TOPICS: usize = 1_000_000;
    const ENTRIES: usize = 280_000;
    const ROUND: usize = 512;
    let mut group = c.benchmark_group("memory of a million topics");
    group.throughput(Throughput::Elements(ROUND as u64));
    let bindings: Vec<[u32; 2]> = (0..TOPICS as u32).map(|topic| [0, topic]).collect();
    let mut topics = vec![[1u64; 16]; TOPICS];
    let mut entries = vec![[1u64; 6]; ENTRIES];
    for order in [Order::RoundRobin, Order::Random] {
        let (mut count, mut state) = (0, 0u32);
        group.bench_function(format!("{order:?}"), |b| {
            b.iter(|| {
                let round: [usize; ROUND] = std::array::from_fn(|at| match order {
                    Order::RoundRobin => (count + at) % TOPICS,
                    Order::Random | Order::Zipf => {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        ((u64::from(state) * TOPICS as u64) >> 32) as usize
                    }
                });
                let ids = round.map(|at| bindings[at][1] as usize);
                black_box(ids.iter().map(|&topic| topics[topic][0]).sum::<u64>());
                for topic in ids {
                    topics[topic][0] += 1;
                    entries[count % ENTRIES] = [topics[topic][0]; 6];
                    count += 1;
                }
            });
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    frame_decode,
    filter_match,
    log_append,
    fan_out,
    many_topics,
    memory_of_topics
);
criterion_main!(benches);
