//! What happens when the memory is used up.

use std::collections::HashMap;

use nexusd_core::Limits;
use nexusd_wire::control::OverflowPolicy;
use nexusd_wire::{FrameEncoder, FrameKind, MessageFlags};

use crate::desk::{Desk, Heard};

#[test]
fn messages_behind_a_running_send_make_room_instead_of_those_that_are_published() {
    const COUNT: u64 = 400;
    let mut desk = Desk::new();
    let subscriber = desk.greet();
    let publisher = desk.greet();
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::DropOldest, 0);
    desk.heard(subscriber);
    desk.bind(publisher, 0, "t");
    desk.hold_sends(subscriber);
    // Several times the memory there is; the send of the first message does not end meanwhile.
    for _ in 0..COUNT {
        desk.publish(publisher, 0, &[7; 60_000], MessageFlags::default());
    }
    assert_eq!(desk.heard(publisher), [], "nothing was refused");
    desk.let_go(subscriber);
    let mut next = 1;
    let mut gaps = 0;
    for heard in desk.heard(subscriber) {
        match heard {
            Heard::Message { sequence, .. } => {
                assert_eq!(sequence, next);
                next += 1;
            }
            Heard::Gap { entries, missed } => {
                assert!(next > 1, "what was being sent comes before the gap");
                assert_eq!(entries, [(0, next, next + missed - 1)]);
                next += missed;
                gaps += 1;
            }
            _ => {}
        }
    }
    assert_eq!((next, gaps), (COUNT + 1, 1), "all is delivered or told as lost, in order");
}

#[test]
fn whoever_has_the_most_waiting_ends_when_too_much_waits_and_others_do_not_notice() {
    const MEMORY: usize = 8 << 20;
    let mut desk = Desk::with_limits(Limits { memory_bytes: MEMORY, ..Limits::default() });
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe(subscriber, &["t"]);
    desk.heard(subscriber);
    desk.bind(publisher, 0, "t");
    let mut pings = Vec::new();
    for token in 0..6_000 {
        FrameEncoder::ping_or_pong(&mut pings, FrameKind::Ping, token);
    }
    // Each takes no answers, so what it says further waits.
    let greedy: Vec<_> = (0..8)
        .map(|number| {
            let client = desk.greet();
            desk.stall(client);
            desk.say(client, &pings);
            desk.say(client, &pings[..pings.len() - 48 * (8 - number)]);
            client
        })
        .collect();
    let ended: Vec<_> = greedy.iter().map(|client| desk.is_closed(*client)).collect();
    let count = ended.iter().filter(|is_ended| **is_ended).count();
    assert!((4..=6).contains(&count), "as many as do not fit: {ended:?}");
    assert!(!ended[0] && !ended[1], "they have the least waiting: {ended:?}");
    assert_eq!(desk.metrics().greedy_disconnected, count as u64);
    desk.publish(publisher, 0, b"x", MessageFlags::default());
    assert!(matches!(desk.heard(subscriber)[..], [.., Heard::Message { sequence: 1, .. }]));
}

#[test]
fn losses_that_may_have_to_be_told_again_take_a_share_of_the_memory_and_still_add_up() {
    const TOPICS: u32 = 80;
    const ROUNDS: u64 = 40;
    let limits = Limits { memory_bytes: 4 << 20, ..Limits::default() };
    let mut desk = Desk::with_limits(limits.clone());
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    let subscriptions: Vec<_> = (0..200)
        .map(|_| desk.subscribe_with(subscriber, &["t/#"], OverflowPolicy::DropOldest, 1))
        .collect();
    (0..TOPICS).for_each(|topic| desk.bind(publisher, topic, &format!("t/{topic}")));
    let mut told = 0;
    for _ in 0..ROUNDS {
        desk.stall(subscriber);
        (0..TOPICS).for_each(|t| desk.publish(publisher, t, b"x", MessageFlags::default()));
        desk.go_on(subscriber);
        told += desk.heard(subscriber).iter().map(missed).sum::<u64>();
        let most = (limits.memory_bytes / 4 * 3) as u64;
        assert!(desk.metrics().log_bytes <= most, "{} bytes", desk.metrics().log_bytes);
    }
    assert_eq!(told, 200 * ROUNDS * u64::from(TOPICS - 1), "all was told at first");
    // Nobody knows what the client has had of it: it is told again, if not what is not named any more.
    desk.end(subscriber);
    let again = desk.greet();
    for subscription in subscriptions {
        desk.resume(again, subscription, ROUNDS - 1);
        let told_again: u64 = desk.heard(again).iter().map(missed).sum();
        assert!(told_again >= u64::from(TOPICS - 1), "{told_again} of the last loss");
    }
}

fn missed(heard: &Heard) -> u64 {
    match heard {
        Heard::Gap { missed, .. } => *missed,
        _ => 0,
    }
}

#[test]
fn topics_that_too_many_subscriptions_match_forget_which_and_tell_their_names_again() {
    const SUBSCRIPTIONS: usize = 300;
    const TOPICS: u32 = 500;
    for shards in [1, 2] {
        let mut desk =
            Desk::with_shards(Limits { memory_bytes: 4 << 20, ..Limits::default() }, shards);
        let (subscriber, publisher) = (desk.greet(), desk.greet());
        for _ in 0..SUBSCRIPTIONS {
            desk.subscribe(subscriber, &["t/#"]);
        }
        (0..TOPICS).for_each(|topic| desk.bind(publisher, topic, &format!("t/{topic}")));
        let mut names = HashMap::new();
        for round in 1..=2 {
            let mut binds = 0;
            for topic in 0..TOPICS {
                desk.publish(
                    publisher,
                    topic,
                    format!("t/{topic}").as_bytes(),
                    MessageFlags::default(),
                );
                let mut messages = 0;
                for heard in desk.heard(subscriber) {
                    match heard {
                        Heard::Bind { topic, name } => {
                            binds += 1;
                            names.insert(topic, name);
                        }
                        Heard::Message { topic, sequence, payload } => {
                            messages += 1;
                            assert_eq!((names[&topic].as_bytes(), sequence), (&*payload, round));
                        }
                        _ => {}
                    }
                }
                assert_eq!(messages, SUBSCRIPTIONS, "each has its message");
            }
            assert!(binds > 0, "round {round}: there is no room to remember all that were told");
        }
    }
}
