//! The steady state allocates nothing: counted, not believed. A binary of its own, because the
//! counter sees the whole process.

use nexusd_bench::{Traffic, Workload};

fn allocations_over_a_million_messages(workload: Workload) -> u64 {
    let mut traffic = Traffic::new(workload);
    let before = traffic.sent_bytes();
    let counted = allocation_counter::measure(|| {
        traffic.run(1_000_000);
    });
    assert!(traffic.sent_bytes() > before, "messages went through");
    counted.count_total
}

#[test]
fn a_million_messages_to_one_subscriber_allocate_nothing() {
    assert_eq!(allocations_over_a_million_messages(Workload::T1), 0);
}

#[test]
fn a_million_messages_to_sixteen_subscribers_allocate_nothing() {
    assert_eq!(allocations_over_a_million_messages(Workload::FanOut(16)), 0);
}
