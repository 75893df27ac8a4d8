//! Nodes that take messages of different lengths, and links that end because a node breaks the protocol.

use nexusd_core::{Limits, LinkRefusal, LinkReport};
use nexusd_wire::{FrameEncoder, MessageFlags};

use super::desk::{Desk, Heard, SeatId};
use super::pair::{Pair, id, limits, mesh};

/// What the second node takes.
const PAYLOAD_MAX: usize = 1_000;

/// Two nodes of which the second takes little, with a subscription to "a" there and a publisher at the other.
fn unlike_nodes(shards: usize) -> (Pair, SeatId, SeatId) {
    let limits = Limits { payload_bytes: PAYLOAD_MAX as u32, ..limits() };
    let mut pair = Pair::with_limits(shards, limits);
    let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
    pair.desks[1].subscribe(subscriber, &["a"]);
    pair.tell_interest(1, &["a"]);
    pair.desks[0].bind(publisher, 0, "a");
    pair.desks.iter_mut().for_each(|desk| drop(desk.reports()));
    (pair, subscriber, publisher)
}

/// Messages by their length, and losses by their numbers.
fn lengths(heard: Vec<Heard>) -> Vec<Result<usize, u64>> {
    let mut lengths = Vec::new();
    for heard in heard {
        match heard {
            Heard::Message { payload, .. } => lengths.push(Ok(payload.len())),
            Heard::Gap { entries, missed } => {
                let [(_, first, last)] = entries[..] else { panic!("{entries:?}") };
                assert_eq!(missed, last - first + 1);
                lengths.extend((first..=last).map(Err));
            }
            _ => {}
        }
    }
    lengths
}

#[test]
fn messages_longer_than_a_node_takes_are_told_as_lost_at_their_place_and_others_arrive() {
    // The second is cut like any other, the third is received in place.
    for (long, shards) in [(PAYLOAD_MAX + 1, 1), (3 << 20, 1), (PAYLOAD_MAX + 1, 3), (3 << 20, 3)] {
        let (mut pair, subscriber, publisher) = unlike_nodes(shards);
        pair.publish(0, publisher, &[1; PAYLOAD_MAX]);
        pair.publish(0, publisher, &vec![2; long]);
        pair.publish(0, publisher, &vec![3; long]);
        pair.publish(0, publisher, b"later");
        let heard = lengths(pair.desks[1].heard(subscriber));
        assert_eq!(
            heard,
            [Ok(PAYLOAD_MAX), Err(2), Err(3), Ok(5)],
            "{long} bytes, {shards} shards"
        );
        let metrics = pair.desks[1].metrics();
        assert_eq!((metrics.lost_on_links, metrics.protocol_errors), (2, 0));
        let told = [LinkReport::TooLarge { peer: id(0), bytes: long }];
        assert_eq!(pair.desks[1].reports(), told, "once");
        pair.pass(1_000_000);
        assert!(!pair.desks[0].is_closed(pair.wires[0][0]), "the link stands");
    }
}

#[test]
fn that_messages_are_too_long_is_reported_again_after_a_minute() {
    let (mut pair, ..) = unlike_nodes(1);
    for minute in 0..3 {
        // One that says nothing for a minute goes.
        let publisher = pair.desks[0].greet();
        pair.desks[0].bind(publisher, 0, "a");
        for _ in 0..5 {
            pair.publish(0, publisher, &[2; PAYLOAD_MAX + 1]);
        }
        let reports = pair.desks[1].reports();
        assert_eq!(reports.len(), 1, "minute {minute}: {reports:?}");
        pair.pass(60_000_000);
    }
}

#[test]
fn a_message_that_is_too_long_is_not_sent_again_where_the_link_breaks_amid_it() {
    let (mut pair, subscriber, publisher) = unlike_nodes(1);
    let link = pair.wires[0][0];
    pair.desks[0].stall(link);
    pair.publish(0, publisher, &vec![2; 3 << 20]);
    pair.publish(0, publisher, b"later");
    pair.desks[0].go_on_for(link, 1 << 20);
    pair.carry();
    pair.cut(0);
    pair.dial(0, true);
    pair.carry();
    assert_eq!(lengths(pair.desks[1].heard(subscriber)), [Err(1), Ok(5)]);
    assert_eq!(pair.desks[1].metrics().lost_on_links, 1);
}

#[test]
fn a_retained_value_that_is_too_long_is_missing_where_nodes_compare_and_nobody_is_told_of_a_loss() {
    for long in [PAYLOAD_MAX + 1, 1 << 20] {
        let mut pair = Pair::new(1);
        let publisher = pair.desks[0].greet();
        for (topic, name, len) in [(0, "a", long), (1, "b", 5)] {
            pair.desks[0].bind(publisher, topic, name);
            pair.desks[0].publish(publisher, topic, &vec![1; len], MessageFlags::RETAIN);
        }
        let limits = Limits { payload_bytes: PAYLOAD_MAX as u32, ..limits() };
        pair.desks[1] = Desk::of_node(id(1), mesh(None), limits, 1);
        let subscriber = pair.desks[1].greet();
        pair.desks[1].subscribe(subscriber, &["#"]);
        pair.dial(0, true);
        pair.carry();
        for _ in 0..50 {
            pair.desks.iter_mut().for_each(Desk::rest);
            pair.carry();
        }
        assert_eq!(lengths(pair.desks[1].heard(subscriber)), [Ok(5)], "{long} bytes");
        assert_eq!(pair.desks[1].metrics().retained, 1);
        assert!(!pair.desks[0].is_closed(pair.wires[0][0]), "the link stands");
    }
}

/// A frame that no node sends over a link.
fn nonsense() -> Vec<u8> {
    let mut frames = Vec::new();
    FrameEncoder::new().unsubscribe_result(&mut frames, 1, None, 0);
    frames
}

/// For how long a node keeps the link shut, and why, as it reports it.
fn shut(desk: &mut Desk) -> (u64, String) {
    let violated = desk.reports().into_iter().find_map(|report| match report {
        LinkReport::Violated { reason, pause_us, .. } => Some((pause_us, reason.into())),
        _ => None,
    });
    violated.expect("the link ended for a reason")
}

#[test]
fn a_link_that_ends_for_what_a_node_says_again_and_again_is_shut_ever_longer() {
    let mut pair = Pair::linked(1);
    for time in 0..4 {
        pair.send(0, nonsense());
        let pause_us = 100_000 << time;
        let (offender, offended) = (shut(&mut pair.desks[0]), shut(&mut pair.desks[1]));
        assert_eq!((offender.0, offended.0), (pause_us, pause_us));
        assert!(offended.1.starts_with("nodes do not send"), "{offended:?}");
        assert!(offender.1.starts_with("it says: nodes do not send"), "{offender:?}");
        for from in 0..2 {
            pair.dial(from, true);
            pair.carry();
            for desk in &mut pair.desks {
                let reports = desk.reports();
                let [LinkReport::Refused { reason: LinkRefusal::Closed, .. }] = reports[..] else {
                    panic!("{reports:?}");
                };
            }
        }
        pair.pass(pause_us);
        pair.dial(0, true);
        pair.carry();
        for desk in &mut pair.desks {
            let reports = desk.reports();
            assert!(matches!(reports[..], [LinkReport::Up { .. }, ..]), "{reports:?}");
        }
    }
    pair.pass(60_000_000);
    pair.send(0, nonsense());
    assert_eq!(shut(&mut pair.desks[1]).0, 100_000, "a link that stood for long begins anew");
}

#[test]
fn where_a_link_ends_for_what_a_node_says_each_time_it_stands_what_is_queued_is_given_up() {
    let mut pair = Pair::linked(1);
    for time in 0..7 {
        pair.send(0, nonsense());
        let pause_us = shut(&mut pair.desks[1]).0;
        assert_eq!(pause_us, 100_000 << time);
        pair.pass(pause_us);
        let is_given_up = pause_us > 5_000_000;
        for (at, desk) in pair.desks.iter_mut().enumerate() {
            let is_told = desk.reports().contains(&LinkReport::Dead { peer: id(1 - at) });
            assert_eq!(is_told, is_given_up, "after {pause_us} us");
        }
        pair.dial(0, true);
        pair.carry();
        assert!(matches!(pair.desks[1].reports()[..], [LinkReport::Up { .. }, ..]));
    }
}
