//! Conversations with several shards: what crosses between them.

use nexusd_core::limits::{ADOPTED_BYTES_MIN, ASKED_MAX, PARCELS_PER_INBOX, SENDS_PER_TURN};
use nexusd_core::{Limits, Output, owner_of};
use nexusd_wire::control::{ErrorCode, OverflowPolicy};
use nexusd_wire::{FrameEncoder, FrameKind, Header, MessageFlags, Sequence, SubscribeRequest};

use crate::desk::{Desk, Heard, SeatId};

const SHARDS: usize = 3;

fn desk() -> Desk {
    Desk::with_shards(Limits { memory_bytes: 24 << 20, ..Limits::default() }, SHARDS)
}

/// A topic that the shard owns.
fn topic_of(shard: usize) -> String {
    let names = (0..).map(|number| format!("t/{number}"));
    let mut owned = names.filter(|name| owner_of(name, SHARDS, 7).index() == shard);
    owned.next().expect("every shard owns some")
}

fn messages(heard: &[Heard]) -> Vec<(u64, Vec<u8>)> {
    let message = |heard: &Heard| match heard {
        Heard::Message { sequence, payload, .. } => Some((*sequence, payload.clone())),
        _ => None,
    };
    heard.iter().filter_map(message).collect()
}

/// As many clients as there are shards; the one at `n` lives on shard `n`.
fn clients(desk: &mut Desk) -> Vec<SeatId> {
    (0..SHARDS).map(|_| desk.greet()).collect()
}

#[test]
fn every_shards_publisher_reaches_every_shards_subscriber_whoever_owns_the_topic() {
    for owner in 0..SHARDS {
        let mut desk = desk();
        let clients = clients(&mut desk);
        let topic = topic_of(owner);
        for &client in &clients {
            desk.subscribe(client, &["t/#"]);
            desk.bind(client, 0, &topic);
        }
        let mut expected = Vec::new();
        for round in 0..4_u8 {
            for (at, &client) in clients.iter().enumerate() {
                let payload = vec![round, at as u8];
                desk.publish(client, 0, &payload, MessageFlags::default());
                expected.push((expected.len() as u64 + 1, payload));
            }
        }
        for &client in &clients {
            let heard = desk.heard(client);
            assert_eq!(messages(&heard), expected);
            let binds = heard.iter().filter(|heard| matches!(heard, Heard::Bind { .. })).count();
            assert_eq!(binds, 1, "the name is told once");
        }
        assert_eq!(desk.metrics().queued_messages, 0);
    }
}

#[test]
fn an_acknowledgement_counts_the_queues_of_all_shards() {
    for owner in 0..SHARDS {
        for publisher in 0..SHARDS {
            let mut desk = desk();
            let clients = clients(&mut desk);
            for &client in &clients {
                desk.subscribe(client, &["#"]);
                desk.subscribe(client, &["t/+"]);
            }
            desk.subscribe(clients[1], &["other"]);
            clients.iter().for_each(|client| drop(desk.heard(*client)));
            desk.bind(clients[publisher], 0, &topic_of(owner));
            desk.bind(clients[publisher], 1, &topic_of((owner + 1) % SHARDS));
            for number in 0..6 {
                desk.publish(clients[publisher], number % 2, b"x", MessageFlags::ACK);
            }
            let heard = desk.heard(clients[publisher]);
            let acks: Vec<_> =
                heard.iter().filter(|heard| matches!(heard, Heard::Ack { .. })).cloned().collect();
            let ack = |number: u64| Heard::Ack {
                publisher_sequence: number + 1,
                sequence: number / 2 + 1,
                delivered: 2 * SHARDS as u32,
            };
            assert_eq!(acks, (0..6).map(ack).collect::<Vec<_>>());
        }
    }
}

#[test]
fn more_is_received_of_a_publisher_only_when_all_that_came_before_is_dealt_with() {
    const COUNT: u64 = 600;
    let mut desk = desk();
    let clients = clients(&mut desk);
    desk.subscribe(clients[2], &["#"]);
    desk.bind(clients[0], 0, &topic_of(1));
    desk.hold_inbox(1);
    // Far more than the batches there are: it waits for each of them that comes back.
    let messages = (0..COUNT)
        .flat_map(|_| desk.message(clients[0], 0, &[7; 4_000], MessageFlags::default()))
        .collect::<Vec<_>>();
    desk.say(clients[0], &messages);
    assert_eq!(desk.pauses(clients[0]), (1, 0));
    desk.let_inbox();
    assert_eq!(desk.pauses(clients[0]), (1, 1), "what waits again is not received meanwhile");
    assert_eq!(desk.metrics().messages_in, COUNT, "nothing is lost");
}

#[test]
fn who_asks_faster_than_other_shards_listen_is_read_no_further_until_they_do() {
    const SUBSCRIPTIONS: usize = 4_000;
    let mut desk = desk();
    let clients = clients(&mut desk);
    desk.hold_inbox(1);
    // More than a ring of parcels takes: one parcel with each event.
    for number in 0..PARCELS_PER_INBOX {
        desk.ask_to_subscribe(clients[0], &request(&[&format!("first/{number}")]));
    }
    let before = desk.pauses(clients[0]);
    let asked: Vec<u8> = (0..SUBSCRIPTIONS)
        .flat_map(|number| desk.bytes_of_subscribe(&request(&[&format!("then/{number}")])))
        .collect();
    desk.say(clients[0], &asked);
    assert_eq!((before, desk.pauses(clients[0])), ((0, 0), (1, 0)));
    let read = desk.metrics().subscriptions as usize - PARCELS_PER_INBOX;
    assert!(read <= ASKED_MAX, "{read} were read though nobody listens");
    // Who comes meanwhile, on whichever shard, is greeted in its turn.
    let late: Vec<_> = clients.iter().map(|_| desk.open()).collect();
    let hello = desk.bytes_of_hello();
    late.iter().for_each(|client| desk.say(*client, &hello));
    desk.let_inbox();
    desk.pass(1_000_000);
    assert_eq!(desk.pauses(clients[0]), (1, 1));
    let heard = desk.heard(clients[0]);
    let confirmed = heard.iter().filter(|heard| matches!(heard, Heard::Subscribed { .. })).count();
    assert_eq!(confirmed, PARCELS_PER_INBOX + SUBSCRIPTIONS, "all are answered");
    assert!(late.iter().all(|client| desk.heard(*client) == [Heard::Welcome]));
}

fn request<'a>(filters: &'a [&'a str]) -> SubscribeRequest<'a> {
    SubscribeRequest { request: 1, filters, ..SubscribeRequest::default() }
}

#[test]
fn a_full_batch_stays_whole_where_it_lies_and_messages_behind_it_do_not_touch_it() {
    let mut desk = desk();
    let clients = clients(&mut desk);
    for client in [clients[0], clients[1], clients[2]] {
        desk.subscribe(client, &["#"]);
        desk.heard(client);
    }
    desk.stall(clients[2]);
    for client in [clients[0], clients[1]] {
        desk.bind(client, 0, &topic_of(1));
    }
    let payload = |number: u64| vec![number as u8; 100 + number as usize % 7 * 60];
    let mut bytes = Vec::new();
    for number in 1..=200 {
        let flags = if number % 50 == 0 { MessageFlags::ACK } else { MessageFlags::default() };
        let header =
            Header::new(FrameKind::Message, 0, 0).with_sequence(Sequence(number)).with_flags(flags);
        FrameEncoder::message(&mut bytes, &header, &[], &payload(number));
    }
    assert!(bytes.len() > ADOPTED_BYTES_MIN, "the batch is not copied");
    desk.say(clients[0], &bytes);
    for number in 201..=400 {
        desk.publish(clients[1], 0, &payload(number), MessageFlags::default());
    }
    desk.go_on(clients[2]);
    let expected: Vec<_> = (1..=400).map(|number| (number, payload(number))).collect();
    let heard = desk.heard(clients[0]);
    let acks = heard.iter().filter_map(|heard| match heard {
        Heard::Ack { publisher_sequence, sequence, delivered } => {
            Some((*publisher_sequence, *sequence, *delivered))
        }
        _ => None,
    });
    let acks: Vec<_> = acks.collect();
    assert_eq!(acks, [(50, 50, 3), (100, 100, 3), (150, 150, 3), (200, 200, 3)]);
    assert!(messages(&heard) == expected, "the publisher's shard has all");
    for client in [clients[1], clients[2]] {
        assert!(messages(&desk.heard(client)) == expected, "the others have all");
    }
    assert_eq!(desk.metrics().queued_messages, 0);
}

#[test]
fn what_a_publishers_shard_numbered_ahead_is_numbered_anew_where_others_published_between() {
    let mut desk = desk();
    let clients = clients(&mut desk);
    let topic = topic_of(2);
    desk.subscribe(clients[1], &["#"]);
    desk.heard(clients[1]);
    for &client in &clients {
        desk.bind(client, 0, &topic);
    }
    let payload = |number: u64| vec![number as u8; 300];
    let mut published = 0;
    // Two in turn, then one alone, which is right about the numbers again, then its owner's own.
    for publisher in [0, 1, 0, 1, 1, 0, 0, 0, 2, 0, 0] {
        let mut bytes = Vec::new();
        for _ in 0..120 {
            published += 1;
            let flags =
                if published % 70 == 0 { MessageFlags::ACK } else { MessageFlags::default() };
            let header = Header::new(FrameKind::Message, 0, 0)
                .with_sequence(Sequence(published))
                .with_flags(flags);
            FrameEncoder::message(&mut bytes, &header, &[], &payload(published));
        }
        assert!(bytes.len() > ADOPTED_BYTES_MIN, "the batch is not copied");
        desk.say(clients[publisher], &bytes);
    }
    let expected: Vec<_> = (1..=published).map(|number| (number, payload(number))).collect();
    assert!(messages(&desk.heard(clients[1])) == expected, "each has its number, in order");
}

#[test]
fn a_large_message_crosses_between_shards_in_its_place() {
    let mut desk = desk();
    let clients = clients(&mut desk);
    desk.subscribe(clients[2], &["#"]);
    desk.heard(clients[2]);
    desk.bind(clients[0], 0, &topic_of(1));
    let large = vec![7; 1 << 20];
    for payload in [&b"before"[..], &large, b"after"] {
        desk.publish(clients[0], 0, payload, MessageFlags::default());
    }
    let heard = messages(&desk.heard(clients[2]));
    let lengths: Vec<_> =
        heard.iter().map(|(sequence, payload)| (*sequence, payload.len())).collect();
    assert_eq!(lengths, [(1, 6), (2, 1 << 20), (3, 5)]);
    assert_eq!(heard[1].1, large);
}

#[test]
fn a_full_queue_holds_back_publishers_of_other_shards_and_lets_them_go_on() {
    let mut desk = desk();
    let clients = clients(&mut desk);
    desk.subscribe_with(clients[0], &["t/#"], OverflowPolicy::Block, 8);
    desk.heard(clients[0]);
    desk.stall(clients[0]);
    desk.bind(clients[1], 0, &topic_of(2));
    for _ in 0..20 {
        desk.publish(clients[1], 0, b"x", MessageFlags::default());
    }
    let heard = desk.heard(clients[1]);
    assert_eq!(heard, [Heard::Pause]);
    desk.go_on(clients[0]);
    assert_eq!(messages(&desk.heard(clients[0])).len(), 20, "nothing is dropped");
    assert_eq!(desk.heard(clients[1]), [Heard::Resume]);
}

#[test]
fn memory_that_another_shards_stalled_reader_holds_comes_back_and_the_loss_is_told() {
    let mut desk = Desk::with_shards(Limits { memory_bytes: 6 << 20, ..Limits::default() }, SHARDS);
    let clients = clients(&mut desk);
    let (publisher, reader) = (clients[1], clients[0]);
    desk.subscribe_with(reader, &["t/#"], OverflowPolicy::DropOldest, 1_000_000);
    desk.heard(reader);
    desk.stall(reader);
    desk.bind(publisher, 0, &topic_of(1));
    let sent = 4_000;
    for _ in 0..sent {
        desk.publish(publisher, 0, &[0; 1_000], MessageFlags::default());
        let errors = desk.heard(publisher);
        assert!(errors.is_empty(), "nothing is refused: {errors:?}");
    }
    desk.go_on(reader);
    let heard = desk.heard(reader);
    let missed: u64 = heard
        .iter()
        .map(|heard| if let Heard::Gap { missed, .. } = heard { *missed } else { 0 })
        .sum();
    assert!(missed > 0, "the log is smaller than what was sent");
    assert_eq!(missed + messages(&heard).len() as u64, sent);
    assert_eq!(desk.metrics().dropped_memory, missed);
}

#[test]
fn a_topic_beyond_the_limit_is_refused_by_whoever_owns_it() {
    for owner in 0..SHARDS {
        let limits = Limits { topics: 2, memory_bytes: 24 << 20, ..Limits::default() };
        let mut desk = Desk::with_shards(limits, SHARDS);
        let clients = clients(&mut desk);
        desk.bind(clients[0], 0, "one");
        desk.bind(clients[1], 0, "two");
        let client = clients[2];
        desk.bind(client, 0, &topic_of(owner));
        let heard = desk.heard(client);
        let [Heard::Error { code: ErrorCode::LimitReached, fatal: false, .. }] = heard[..] else {
            panic!("no refusal but {heard:?}");
        };
        desk.publish(client, 0, b"x", MessageFlags::default());
        assert_eq!(desk.heard(client), [], "it was told");
        desk.publish(client, 0, b"x", MessageFlags::ACK);
        let refused = Heard::Ack { publisher_sequence: 2, sequence: 0, delivered: 0 };
        assert_eq!(desk.heard(client), [refused]);
    }
}

#[test]
fn a_goodbye_waits_for_the_acknowledgements_of_other_shards() {
    let mut desk = desk();
    let clients = clients(&mut desk);
    desk.bind(clients[0], 0, &topic_of(1));
    desk.publish(clients[0], 0, b"x", MessageFlags::ACK);
    desk.drain();
    let heard = desk.heard(clients[0]);
    let [Heard::Ack { sequence: 1, .. }, Heard::CompleteGoodbye { last_accepted: 1 }] = heard[..]
    else {
        panic!("{heard:?}");
    };
    assert!(desk.is_finished());
}

#[test]
fn a_topic_that_its_owner_forgets_is_unbound_everywhere() {
    let mut desk = desk();
    let clients = clients(&mut desk);
    let subscription = desk.subscribe(clients[0], &["#"]);
    desk.bind(clients[1], 0, &topic_of(2));
    desk.publish(clients[1], 0, b"x", MessageFlags::default());
    desk.unsubscribe(clients[0], subscription);
    let bound = desk.heard(clients[0]).iter().find_map(|heard| match heard {
        Heard::Bind { topic, .. } => Some(*topic),
        _ => None,
    });
    desk.end(clients[1]);
    // Its client stays, so that it is not given up for silence.
    for _ in 0..12 {
        desk.pass(10_000_000);
        let ping = desk.heard(clients[0]);
        if ping.contains(&Heard::Ping) {
            desk.pong(clients[0]);
            desk.pong(clients[2]);
        }
        if ping.contains(&Heard::Unbind { topic: bound.expect("a name") }) {
            return;
        }
    }
    panic!("the topic is not forgotten");
}

#[test]
fn other_shards_are_told_though_there_is_more_to_send_than_a_turn_takes() {
    let mut desk = desk();
    // Those at 0, 3, 6, … live on the first shard.
    let clients: Vec<_> = (0..SHARDS * 2 * SENDS_PER_TURN).map(|_| desk.greet()).collect();
    let (publisher, busy, other) = (clients[0], topic_of(0), topic_of(1));
    for &subscriber in clients.iter().step_by(SHARDS) {
        desk.subscribe(subscriber, &[&busy]);
    }
    desk.bind(publisher, 0, &busy);
    desk.bind(publisher, 1, &other);
    desk.feed_publish(publisher, 1, b"elsewhere");
    desk.feed_publish(publisher, 0, b"here");
    let turn: Vec<_> = (0..SENDS_PER_TURN).map_while(|_| desk.poll_first_shard()).collect();
    assert!(turn.iter().any(|output| matches!(output, Output::Ring(_))), "{turn:?}");
}
