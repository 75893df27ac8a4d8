//! What must hold when sends end short, frames arrive in parts, and connections end in between.

use nexusd_core::Limits;
use nexusd_wire::control::{ErrorCode, OverflowPolicy};
use nexusd_wire::{
    FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, Sequence, SubscribeRequest,
    TopicId,
};

use crate::desk::{Desk, Heard};

#[test]
fn a_confirmation_comes_before_messages_even_behind_a_cut_frame() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe(subscriber, &["a"]);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "a");
    desk.publish(publisher, 0, b"one", MessageFlags::default());
    // The first frame to be sent is the bind: it is cut.
    desk.go_on_for(subscriber, 8);
    let mut subscribe = Vec::new();
    let request = SubscribeRequest { request: 2, filters: &["#"], ..SubscribeRequest::default() };
    FrameEncoder::new().subscribe(&mut subscribe, &request);
    desk.say(subscriber, &subscribe);
    desk.publish(publisher, 0, b"two", MessageFlags::default());
    desk.go_on(subscriber);
    let heard = desk.heard(subscriber);
    let confirmed = heard.iter().find_map(|heard| match heard {
        Heard::Subscribed { subscription } => Some(*subscription),
        _ => None,
    });
    let place = |wanted: &Heard| heard.iter().position(|heard| heard == wanted);
    let subscription = confirmed.expect("a confirmation");
    let confirmation = place(&Heard::Subscribed { subscription });
    assert!(confirmation < place(&Heard::Deliver { subscription }), "{heard:?}");
}

#[test]
fn a_goodbye_is_preceded_by_the_acks_owed() {
    let mut desk = Desk::new();
    let client = desk.greet();
    desk.bind(client, 0, "a");
    let header = Header::new(FrameKind::Message, 0, 0)
        .with_sequence(Sequence(7))
        .with_flags(MessageFlags::ACK);
    let mut bytes = Vec::new();
    FrameEncoder::message(&mut bytes, &header, &[], b"last");
    FrameEncoder::new().goodbye(&mut bytes, "done", 0);
    desk.say(client, &bytes);
    let ack = Heard::Ack { publisher_sequence: 7, sequence: 1, delivered: 0 };
    assert_eq!(desk.heard(client), [ack]);
    assert!(desk.is_closed(client));
}

#[test]
fn a_subscription_may_end_while_one_send_reads_from_it_in_two_places() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    let first = desk.subscribe(subscriber, &["a"]);
    desk.subscribe(subscriber, &["b"]);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "a");
    desk.bind(publisher, 1, "b");
    for topic in [0, 0, 0, 1, 1] {
        desk.publish(publisher, topic, &[b'x'; 400], MessageFlags::default());
    }
    // Cut in the first message, whose rest goes first in the next send; its queue's turn comes last.
    desk.go_on_for(subscriber, 400);
    desk.hold_sends(subscriber);
    desk.go_on(subscriber);
    desk.unsubscribe(subscriber, first);
    desk.let_go(subscriber);
    let heard = desk.heard(subscriber);
    assert_eq!(heard.last(), Some(&Heard::Unsubscribed { success: true }), "{heard:?}");
}

#[test]
fn nothing_is_said_behind_a_fatal_error() {
    let mut desk = Desk::new();
    let (subscriber, publisher) = (desk.greet(), desk.greet());
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::Block, 2);
    desk.stall(subscriber);
    desk.bind(publisher, 0, "t");
    for _ in 0..3 {
        desk.publish(publisher, 0, b"payload", MessageFlags::default());
    }
    assert_eq!(desk.heard(publisher), [Heard::Pause]);
    desk.stall(publisher);
    desk.publish(publisher, 9, b"to nowhere", MessageFlags::default());
    desk.go_on(subscriber);
    desk.go_on(publisher);
    let heard = desk.heard(publisher);
    assert!(
        matches!(heard.as_slice(), [Heard::Error { code: ErrorCode::NotBound, fatal: true, .. }]),
        "{heard:?}"
    );
}

#[test]
fn a_message_of_the_daemons_own_that_is_given_up_leaves_no_hole() {
    let mut desk = Desk::with_limits(Limits {
        memory_bytes: 8 << 20,
        payload_bytes: 8 << 20,
        ..Limits::default()
    });
    let subscriber = desk.greet();
    desk.subscribe(subscriber, &["$SYS/#"]);
    // A large message that does not arrive holds what the log has.
    let publisher = desk.greet();
    desk.bind(publisher, 0, "large");
    let mut head = Vec::new();
    let header = Header::new(FrameKind::Message, 0, 5_400_000).with_topic(TopicId(0));
    FrameEncoder::bare(&mut head, &header);
    assert_eq!(head.len(), HEADER_BYTES);
    desk.say(publisher, &head);
    desk.publish_own("$SYS/x", b"given up");
    assert_eq!(desk.heard(subscriber), []);
    desk.pass(60_000_000);
    desk.heard(subscriber);
    let subscriber = desk.greet();
    desk.subscribe(subscriber, &["$SYS/#"]);
    desk.publish_own("$SYS/x", b"kept");
    let heard = desk.heard(subscriber);
    assert!(
        heard.iter().any(|heard| matches!(heard, Heard::Message { sequence: 1, .. })),
        "{heard:?}"
    );
}
