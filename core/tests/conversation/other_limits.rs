//! Limits that change while the shard runs: what they hold for, and what keeps those that it began with.

use nexusd_core::Limits;
use nexusd_core::inspection::{Answer, Request};
use nexusd_wire::MessageFlags;
use nexusd_wire::control::OverflowPolicy;

use crate::desk::{Desk, Heard};

fn take_on(desk: &mut Desk, limits: &Limits) {
    for shard in 0..desk.shards() {
        let request = Request::TakeOn(Box::new(limits.clone()));
        assert_eq!(desk.ask(shard, request), Answer::Done(true));
    }
}

#[test]
fn a_shorter_time_to_block_lets_publishers_that_wait_already_go_on_earlier() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::Block, 8);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..20 {
        desk.publish(publisher, 0, b"x", MessageFlags::default());
    }
    assert_eq!(desk.heard(publisher), [Heard::Pause]);
    take_on(&mut desk, &Limits { block_timeout_us: 100_000, ..Limits::default() });
    desk.pass(100_000);
    assert_eq!(desk.heard(publisher), [Heard::Resume]);
}

#[test]
fn a_shorter_time_between_searches_for_expired_messages_holds_at_once() {
    let mut desk =
        Desk::with_limits(Limits { reaper_interval_us: 3_600_000_000, ..Limits::default() });
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe(subscriber, &["t"]);
    desk.heard(subscriber);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..3 {
        desk.publish_for(publisher, 0, b"x", 10);
    }
    desk.pass(1_000_000);
    let before = desk.metrics().ttl_expired;
    for _ in 0..3 {
        desk.publish_for(publisher, 0, b"y", 10);
    }
    desk.pass(1_000_000);
    assert_eq!(desk.metrics().ttl_expired, before, "the next search is an hour away");
    take_on(&mut desk, &Limits { reaper_interval_us: 100_000, ..Limits::default() });
    desk.pass(200_000);
    assert!(desk.metrics().ttl_expired >= before + 3);
}

#[test]
fn a_default_time_to_live_holds_for_messages_from_then_on() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe(subscriber, &["t"]);
    desk.heard(subscriber);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    // The first is on its way to the socket, whatever happens.
    for payload in [b"1", b"2"] {
        desk.publish(publisher, 0, payload, MessageFlags::default());
    }
    take_on(&mut desk, &Limits { default_ttl_ms: 50, ..Limits::default() });
    desk.publish(publisher, 0, b"3", MessageFlags::default());
    desk.pass(2_000_000);
    desk.go_on(subscriber);
    let had = |heard: Vec<Heard>| {
        let payload = |heard: Heard| match heard {
            Heard::Message { payload, .. } => Some(payload),
            _ => None,
        };
        heard.into_iter().filter_map(payload).collect::<Vec<_>>()
    };
    assert_eq!(had(desk.heard(subscriber)), [b"1", b"2"]);
    assert_eq!(desk.metrics().ttl_expired, 1);
    take_on(&mut desk, &Limits::default());
    desk.stall(subscriber);
    for payload in [b"4", b"5"] {
        desk.publish(publisher, 0, payload, MessageFlags::default());
    }
    desk.pass(2_000_000);
    desk.go_on(subscriber);
    assert_eq!(had(desk.heard(subscriber)), [b"4", b"5"]);
}
