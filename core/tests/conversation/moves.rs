//! Clients that come back for a subscription: their connections move to the shard that keeps it.

use nexusd_core::Limits;
use nexusd_wire::control::{ErrorCode, Role};
use nexusd_wire::{MessageFlags, SubscriptionId};

use crate::desk::{Desk, Heard};

const SHARDS: usize = 3;

fn desk() -> Desk {
    Desk::with_shards(Limits { memory_bytes: 24 << 20, ..Limits::default() }, SHARDS)
}

/// A subscription that the shard keeps, or would.
fn kept_by(shard: u128) -> SubscriptionId {
    SubscriptionId(0xABCD_EF01 << 64 | 77 << 6 | shard)
}

fn hello_to(desk: &mut Desk, shard: u128) -> Vec<u8> {
    desk.hello_again(Role::Client, kept_by(shard))
}

#[test]
fn a_client_that_comes_back_is_welcomed_once_by_the_shard_that_keeps_its_subscription() {
    let mut desk = desk();
    let client = desk.open();
    assert_eq!(desk.home(client), 0);
    let hello = hello_to(&mut desk, 2);
    desk.say(client, &hello);
    assert_eq!(desk.heard(client), [Heard::Welcome]);
    assert_eq!(desk.home(client), 2);
    let subscription = desk.subscribe(client, &["#"]);
    assert_eq!(subscription.0 & 63, 2, "what it makes now is of that shard");
    let metrics = desk.metrics();
    assert_eq!((metrics.connections, metrics.connections_moved), (1, 1));
}

#[test]
fn an_id_that_a_shard_gave_leads_back_to_it() {
    let mut desk = desk();
    for shard in 0..SHARDS {
        let first = desk.greet();
        assert_eq!(desk.home(first), shard);
        let subscription = desk.subscribe(first, &["#"]);
        let again = desk.open();
        let hello = desk.hello_again(Role::Client, subscription);
        desk.say(again, &hello);
        assert_eq!(desk.heard(again), [Heard::Welcome]);
        assert_eq!(desk.home(again), shard);
        desk.end(again);
    }
}

#[test]
fn a_client_without_a_subscription_of_another_shard_stays_where_it_is() {
    let mut desk = desk();
    for shard in [0, SHARDS as u128, 63] {
        let client = desk.open();
        assert_eq!(desk.home(client), 0);
        let hello = hello_to(&mut desk, shard);
        desk.say(client, &hello);
        assert_eq!(desk.heard(client), [Heard::Welcome]);
        assert_eq!(desk.home(client), 0, "{shard}");
        desk.end(client);
    }
    assert_eq!(desk.metrics().connections_moved, 0);
}

#[test]
fn all_that_is_said_behind_hello_moves_with_it_and_in_its_order() {
    let mut desk = desk();
    let subscriber = desk.greet();
    desk.subscribe(subscriber, &["t"]);
    let mut said = hello_to(&mut desk, 0);
    let publisher = desk.open();
    assert_eq!(desk.home(publisher), 1);
    said.extend(desk.bytes_of_bind(0, "t"));
    for payload in [&b"one"[..], b"two", b"three", b"four"] {
        said.extend(desk.message(publisher, 0, payload, MessageFlags::ACK));
    }
    desk.hold_moves();
    // Neither Hello nor a message comes in one piece, and some comes while the connection moves.
    for piece in said.chunks(37) {
        desk.say(publisher, piece);
    }
    assert_eq!((desk.heard(publisher), desk.home(publisher)), (vec![], 1));
    desk.let_move();
    assert_eq!(desk.home(publisher), 0);
    let ack = |number| Heard::Ack { publisher_sequence: number, sequence: number, delivered: 1 };
    let heard = desk.heard(publisher);
    assert_eq!(heard, [Heard::Welcome, ack(1), ack(2), ack(3), ack(4)]);
    let heard = desk.heard(subscriber);
    let payloads: Vec<_> = heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Message { payload, .. } => Some(payload.as_slice()),
            _ => None,
        })
        .collect();
    assert_eq!(payloads, [&b"one"[..], b"two", b"three", b"four"]);
}

#[test]
fn an_error_behind_a_move_tells_its_place_in_the_whole_stream() {
    let mut desk = desk();
    let client = desk.open();
    let mut said = hello_to(&mut desk, 1);
    let offset = said.len() as u64;
    said.extend([0; 48]);
    desk.say(client, &said);
    let malformed = Heard::Error { code: ErrorCode::Malformed, fatal: true, offset };
    assert_eq!(desk.heard(client), [Heard::Welcome, malformed]);
    assert_eq!(desk.home(client), 1);
    assert!(desk.is_closed(client));
}

#[test]
fn a_hello_that_is_refused_is_refused_where_it_is() {
    let mut desk = desk();
    let client = desk.open();
    let hello = desk.hello_again(Role::Node, kept_by(1));
    desk.say(client, &hello);
    let refusal = Heard::Error { code: ErrorCode::Unsupported, fatal: true, offset: 0 };
    assert_eq!(desk.heard(client), [refusal]);
    assert_eq!((desk.home(client), desk.metrics().connections_moved), (0, 0));
}

#[test]
fn a_hello_that_never_comes_whole_moves_nothing_and_times_out() {
    let mut desk = desk();
    let client = desk.open();
    let hello = hello_to(&mut desk, 1);
    desk.say(client, &hello[..hello.len() - 1]);
    desk.pass(5_300_000);
    let timeout = Heard::Error { code: ErrorCode::Timeout, fatal: true, offset: 0 };
    assert_eq!((desk.heard(client), desk.home(client)), (vec![timeout], 0));
}

#[test]
fn a_connection_that_moves_is_counted_once_and_is_not_refused_for_others_that_are_too_many() {
    let mut desk = Desk::with_shards(
        Limits { memory_bytes: 24 << 20, connections: 2, ..Limits::default() },
        SHARDS,
    );
    let stays = desk.greet();
    let moves = desk.open();
    desk.hold_moves();
    let hello = hello_to(&mut desk, 2);
    desk.say(moves, &hello);
    // Refused, but it does not read that and so is still there when the other arrives.
    let refused = desk.open_stalled();
    desk.let_move();
    assert_eq!((desk.heard(moves), desk.home(moves)), (vec![Heard::Welcome], 2));
    desk.go_on(refused);
    let too_many = [Heard::Error { code: ErrorCode::LimitReached, fatal: true, offset: 0 }];
    assert_eq!(desk.heard(refused), too_many);
    assert!(desk.is_closed(refused));
    // Two are there, and each that ends makes room for exactly one.
    for leaving in [moves, stays] {
        let beyond = desk.open();
        assert_eq!(desk.heard(beyond), too_many);
        desk.end(leaving);
        let hello = hello_to(&mut desk, 1);
        let next = desk.open();
        desk.say(next, &hello);
        assert_eq!((desk.heard(next), desk.home(next)), (vec![Heard::Welcome], 1));
    }
    assert_eq!(desk.metrics().connections, 2);
}

#[test]
fn a_client_that_ends_while_it_moves_leaves_nothing_behind() {
    let mut desk = Desk::with_shards(
        Limits { memory_bytes: 24 << 20, connections: 1, ..Limits::default() },
        SHARDS,
    );
    let client = desk.open();
    desk.hold_moves();
    let hello = hello_to(&mut desk, 1);
    desk.say(client, &hello);
    desk.end(client);
    desk.let_move();
    assert_eq!((desk.metrics().connections, desk.metrics().connections_moved), (0, 0));
    // There is room for one again.
    desk.greet();
    desk.drain();
    assert!(desk.is_finished());
}

#[test]
fn a_drain_closes_a_connection_that_moves_without_a_word_and_finishes() {
    let mut desk = desk();
    let client = desk.open();
    desk.hold_moves();
    let hello = hello_to(&mut desk, 1);
    desk.say(client, &hello);
    desk.drain();
    assert!(desk.is_closed(client) && desk.is_finished());
    desk.let_move();
    assert_eq!((desk.heard(client), desk.home(client)), (vec![], 0));
    assert_eq!(desk.metrics().connections, 0);
}

#[test]
fn a_connection_that_arrives_at_a_shard_that_drains_is_told_so() {
    let mut desk = desk();
    let client = desk.open();
    desk.hold_moves();
    let hello = hello_to(&mut desk, 1);
    desk.say(client, &hello);
    desk.drain_shard(1);
    desk.let_move();
    let draining = Heard::Error { code: ErrorCode::Draining, fatal: true, offset: 0 };
    assert_eq!((desk.heard(client), desk.home(client)), (vec![draining], 1));
    assert!(desk.is_closed(client));
    desk.drain();
    assert!(desk.is_finished());
}

#[test]
fn a_client_that_speaks_http2_goes_to_the_edge_with_all_it_has_said() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for first in [0, 1, 3, 4, 5, PREFACE.len()] {
        let mut desk = desk();
        let client = desk.open();
        let (beginning, rest) = PREFACE.split_at(first);
        for piece in beginning.chunks(1).chain([rest]) {
            if !desk.is_closed(client) {
                desk.say(client, piece);
            }
        }
        let gone = desk.edge();
        let said = if first < 4 { PREFACE } else { &PREFACE[..4] };
        assert_eq!(gone, [said], "after {first} single bytes");
        assert_eq!(desk.heard(client), [], "no frame is said to it");
        let metrics = desk.metrics();
        assert_eq!((metrics.connections, metrics.connections_moved), (0, 1));
    }
}

#[test]
fn what_only_begins_like_http2_is_a_frame() {
    let mut desk = desk();
    let client = desk.open();
    desk.say(client, b"PRJ ");
    desk.say(client, &[0; 44]);
    let heard = desk.heard(client);
    assert!(matches!(heard[..], [Heard::Error { fatal: true, .. }]), "{heard:?}");
    let client = desk.greet();
    desk.say(client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and more than a header has");
    let heard = desk.heard(client);
    assert!(matches!(heard[..], [Heard::Error { fatal: true, .. }]), "{heard:?}");
    assert!(desk.edge().is_empty());
}
