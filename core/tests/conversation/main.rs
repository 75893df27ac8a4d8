//! Conversations with a shard, frame by frame, without sockets: what a client says and hears.

mod acknowledgements;
mod broken_links;
mod coming_back;
mod cut_sends;
#[allow(unreachable_pub)]
mod desk;
mod ending;
mod fetching;
mod heard;
mod hostile;
mod hostile_peers;
mod inspecting;
mod letting_go;
mod link_limits;
mod link_memory;
mod links;
mod memory;
mod moves;
mod other_limits;
mod other_protocols;
mod pair;
mod replay;
mod replication;
mod retained;
mod shards;
mod sources;

use desk::{Desk, Heard};
use nexusd_wire::MessageFlags;
use nexusd_wire::control::{ErrorCode, OverflowPolicy};

#[test]
fn a_published_message_reaches_its_subscriber_with_its_name_and_number() {
    let mut desk = Desk::new();
    let subscriber = desk.greet();
    let publisher = desk.greet();
    let subscription = desk.subscribe(subscriber, &["news/+"]);
    desk.bind(publisher, 0, "news/today");
    desk.publish(publisher, 0, b"one", MessageFlags::default());
    desk.publish(publisher, 0, b"two", MessageFlags::default());
    assert_eq!(
        desk.heard(subscriber),
        [
            Heard::Bind { topic: 0, name: "news/today".into() },
            Heard::Deliver { subscription },
            Heard::Message { topic: 0, sequence: 1, payload: b"one".to_vec() },
            Heard::Message { topic: 0, sequence: 2, payload: b"two".to_vec() },
        ]
    );
}

#[test]
fn an_acknowledged_publish_is_answered_with_its_number_and_count() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.subscribe(client, &["a"]);
    desk.subscribe(client, &["#"]);
    desk.heard(client);
    desk.bind(client, 0, "a");
    desk.publish(client, 0, b"x", MessageFlags::ACK);
    let heard = desk.heard(client);
    assert!(
        heard.contains(&Heard::Ack { publisher_sequence: 1, sequence: 1, delivered: 2 }),
        "{heard:?}"
    );
    assert_eq!(heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count(), 2);
}

#[test]
fn slow_subscriber_keeps_its_oldest_if_it_wants_and_learns_the_gap_behind_them() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::DropNewest, 4);
    desk.heard(subscriber);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..6 {
        desk.publish(publisher, 0, b"payload", MessageFlags::ACK);
    }
    let ack = |publisher_sequence| Heard::Ack {
        publisher_sequence,
        sequence: publisher_sequence,
        delivered: 1,
    };
    let dropped =
        |publisher_sequence| Heard::AckDropped { publisher_sequence, delivered: 0, dropped: 1 };
    assert_eq!(desk.heard(publisher), [ack(1), ack(2), ack(3), ack(4), dropped(5), dropped(6)]);
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    let gap = Heard::Gap { entries: vec![(0, 5, 6)], missed: 2 };
    let numbers: Vec<_> = heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Message { sequence, .. } => Some(*sequence),
            _ => None,
        })
        .collect();
    assert_eq!((numbers, heard.last()), (vec![1, 2, 3, 4], Some(&gap)));
    desk.publish(publisher, 0, b"payload", MessageFlags::default());
    assert!(matches!(desk.heard(subscriber)[..], [.., Heard::Message { sequence: 7, .. }]));
    assert_eq!(desk.metrics().dropped_slow_consumer, 2);
}

#[test]
fn what_a_full_queue_refuses_of_several_topics_is_told_for_each_of_them() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["#"], OverflowPolicy::DropNewest, 4);
    desk.bind(publisher, 0, "a");
    desk.bind(publisher, 1, "b");
    // Names are told with the first message; from the second on, both topics share a run.
    desk.publish_all(publisher, &[0, 1]);
    desk.heard(subscriber);
    desk.stall(subscriber);
    desk.publish_all(publisher, &[0, 0, 1, 0, 1, 1, 0]);
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    let came: Vec<_> = heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Message { topic, sequence, .. } => Some((*topic, *sequence)),
            _ => None,
        })
        .collect();
    assert_eq!(came, [(0, 2), (0, 3), (1, 2), (0, 4)]);
    let gap = Heard::Gap { entries: vec![(1, 3, 4), (0, 5, 5)], missed: 3 };
    assert_eq!(heard.last(), Some(&gap));
    desk.publish_all(publisher, &[1, 0]);
    let heard = desk.heard(subscriber);
    assert!(
        matches!(
            heard[..],
            [
                ..,
                Heard::Message { topic: 1, sequence: 5, .. },
                Heard::Message { topic: 0, sequence: 6, .. }
            ]
        ),
        "{heard:?}"
    );
}

#[test]
fn a_subscriber_that_would_rather_go_than_lose_is_disconnected_with_a_reason() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::Disconnect, 4);
    desk.heard(subscriber);
    desk.hold_sends(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..8 {
        desk.publish(publisher, 0, b"payload", MessageFlags::default());
    }
    desk.let_go(subscriber);
    let heard = desk.heard(subscriber);
    let last = Heard::Error { code: ErrorCode::LimitReached, fatal: true, offset: 0 };
    assert_eq!(heard.last(), Some(&last), "{heard:?}");
    assert!(desk.is_closed(subscriber));
    assert_eq!((desk.metrics().slow_disconnected, desk.metrics().queued_messages), (1, 0));
}

#[test]
fn slow_subscriber_drops_oldest_and_learns_the_gap() {
    let mut desk = Desk::new();
    let subscriber = desk.greet();
    let publisher = desk.greet();
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::DropOldest, 16);
    desk.heard(subscriber);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..40 {
        desk.publish(publisher, 0, b"payload", MessageFlags::default());
    }
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    let mut expected = 1;
    let mut missed = 0;
    for heard in &heard {
        match heard {
            Heard::Gap { entries, missed: count } => {
                for (_, first, last) in entries {
                    assert_eq!(*first, expected);
                    expected = last + 1;
                }
                missed += count;
            }
            Heard::Message { sequence, .. } => {
                assert_eq!(*sequence, expected);
                expected += 1;
            }
            _ => {}
        }
    }
    assert_eq!(expected, 41, "{heard:?}");
    assert!(missed >= 24, "{heard:?}");
}

#[test]
fn the_smallest_queue_keeps_the_newest_message() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::DropOldest, 1);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..40 {
        desk.publish(publisher, 0, b"payload", MessageFlags::default());
    }
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    let had = heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
    assert_eq!(had, 1, "{heard:?}");
    assert!(matches!(heard.last(), Some(Heard::Message { sequence: 40, .. })), "{heard:?}");
}

#[test]
fn a_full_block_queue_pauses_the_publisher_until_it_is_drained() {
    let mut desk = Desk::new();
    let subscriber = desk.greet();
    let publisher = desk.greet();
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::Block, 8);
    desk.heard(subscriber);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..20 {
        desk.publish(publisher, 0, b"payload", MessageFlags::default());
    }
    assert_eq!(desk.heard(publisher), [Heard::Pause]);
    desk.go_on(subscriber);
    let messages =
        desk.heard(subscriber).iter().filter(|h| matches!(h, Heard::Message { .. })).count();
    assert_eq!(messages, 20, "nothing is lost");
    assert_eq!(desk.heard(publisher), [Heard::Resume]);
}

#[test]
fn a_stalled_block_queue_drops_after_the_timeout() {
    let mut desk = Desk::new();
    let subscriber = desk.greet();
    let publisher = desk.greet();
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::Block, 8);
    desk.heard(subscriber);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..20 {
        desk.publish(publisher, 0, b"payload", MessageFlags::default());
    }
    assert_eq!(desk.heard(publisher), [Heard::Pause]);
    desk.pass(5_000_000);
    assert_eq!(desk.heard(publisher), [Heard::Resume]);
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    assert!(heard.iter().any(|h| matches!(h, Heard::Gap { missed: 13, .. })), "{heard:?}");
}

#[test]
fn unsubscribing_ends_delivery_and_a_second_time_is_not_found() {
    let mut desk = Desk::new();
    let client = desk.greet();
    let subscription = desk.subscribe(client, &["t"]);
    desk.bind(client, 0, "t");
    desk.unsubscribe(client, subscription);
    desk.unsubscribe(client, subscription);
    desk.publish(client, 0, b"late", MessageFlags::default());
    assert_eq!(
        desk.heard(client),
        [Heard::Unsubscribed { success: true }, Heard::Unsubscribed { success: false }]
    );
}

#[test]
fn a_message_to_an_unbound_topic_ends_the_connection_with_a_reason() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.publish(client, 3, b"x", MessageFlags::default());
    assert_eq!(
        desk.heard(client),
        [Heard::Error { code: ErrorCode::NotBound, fatal: true, offset: 112 }]
    );
    assert!(desk.is_closed(client));
}

#[test]
fn malformed_bytes_end_the_connection_and_their_place_is_told() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.say(client, &[0; 48]);
    let hello_bytes = 112;
    let code = ErrorCode::Malformed;
    assert_eq!(desk.heard(client), [Heard::Error { code, fatal: true, offset: hello_bytes }]);
    assert!(desk.is_closed(client));
}

#[test]
fn system_topics_are_refused_to_clients_but_not_to_the_daemon() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.subscribe(client, &["$SYS/#"]);
    desk.heard(client);
    desk.bind(client, 0, "$SYS/x");
    desk.publish(client, 0, b"forged", MessageFlags::default());
    assert_eq!(
        desk.heard(client),
        [Heard::Error { code: ErrorCode::Rejected, fatal: false, offset: 216 }]
    );
    desk.publish_own("$SYS/x", b"true");
    assert!(
        desk.heard(client)
            .iter()
            .any(|h| matches!(h, Heard::Message { payload, .. } if payload == b"true"))
    );
}

#[test]
fn a_large_message_lands_in_place_and_is_delivered_whole() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.subscribe(client, &["big"]);
    desk.heard(client);
    desk.bind(client, 0, "big");
    let payload: Vec<u8> = (0..1_000_000u32).map(|at| at as u8).collect();
    desk.publish(client, 0, &payload, MessageFlags::default());
    let heard = desk.heard(client);
    assert!(
        heard.iter().any(|h| matches!(h, Heard::Message { payload: got, .. } if *got == payload))
    );
}

#[test]
fn drain_says_goodbye_with_the_last_accepted_number_and_finishes() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.bind(client, 0, "t");
    desk.publish(client, 0, b"x", MessageFlags::default());
    desk.drain();
    assert_eq!(desk.heard(client), [Heard::CompleteGoodbye { last_accepted: 1 }]);
    assert!(desk.is_finished());
}

#[test]
fn silence_after_connecting_is_ended_after_five_seconds() {
    let mut desk = Desk::new();
    let client = desk.open();
    desk.pass(5_300_000);
    assert_eq!(
        desk.heard(client),
        [Heard::Error { code: ErrorCode::Timeout, fatal: true, offset: 0 }]
    );
}

#[test]
fn an_idle_client_is_pinged_and_dropped_when_it_does_not_answer() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.pass(30_500_000);
    assert_eq!(desk.heard(client), [Heard::Ping]);
    desk.pass(10_500_000);
    assert_eq!(
        desk.heard(client),
        [Heard::Error { code: ErrorCode::Timeout, fatal: true, offset: 0 }]
    );
}
