//! What happens when the memory is used up.

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
