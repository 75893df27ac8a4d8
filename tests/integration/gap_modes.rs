//! What a client that comes back asks to be done about messages that its queue has dropped.

use nexusd_tests::{Account, Client, Daemon, Delivery, Heard, Subscribed};
use nexusd_wire::control::{DeliveryMode, GapMode};
use nexusd_wire::{FrameKind, Header, MessageFlags, SubscribeRequest};

/// Two shards: the topics may belong to the one that the subscription is not on.
const SHARDS: [&str; 2] = ["--shards", "2"];
/// Messages that the queue holds.
const QUEUED: u32 = 50;
/// Messages that the client has had.
const HAD: u64 = 10;
/// Messages that are published while it is away.
const AWAY: u64 = 200;
const TOPIC: &str = "gap/1";

/// A client that has had some messages and was away for more than its queue holds, and the answer to
/// its return.
fn come_back(daemon: &Daemon, mode: GapMode) -> (Client, Account, Subscribed) {
    let (mut publisher, mut subscriber) = (daemon.client(), daemon.client());
    let subscription = subscriber.subscribe_with(&SubscribeRequest {
        filters: &["gap/+"],
        counted: true,
        queue_messages: Some(QUEUED),
        ..SubscribeRequest::default()
    });
    let first = publisher.publish_accepted(TOPIC, b"had").sequence;
    let mut account = Account::new(subscription);
    account.begin_behind(TOPIC, first - 1);
    for _ in 1..HAD {
        publisher.publish_accepted(TOPIC, b"had");
    }
    while account.received() < HAD {
        account.take(&Heard::Message(subscriber.next_message()));
    }
    // Nothing is to be on its way when the line breaks: of that only the number would be told.
    subscriber.pause(subscription);
    drop(subscriber);
    for _ in 0..AWAY {
        publisher.publish_accepted(TOPIC, b"away");
    }
    let mut subscriber = Client::connect_for(&daemon.v4(), subscription);
    let asked = subscriber.ask_to_resume(subscription, HAD, mode);
    let answer = subscriber.subscribed(asked);
    assert!(answer.replay_started, "{answer:?}");
    (subscriber, account, answer)
}

#[test]
fn what_the_queue_dropped_is_told_or_replayed_as_the_client_asks() {
    let daemon = Daemon::start(&SHARDS);
    let [told, replayed] = [GapMode::None, GapMode::ReplayBuffer].map(|mode| {
        let (mut subscriber, mut account, answer) = come_back(&daemon, mode);
        while account.accounted() < HAD + AWAY {
            let heard = subscriber.next_delivery();
            if let Heard::Message(message) = &heard {
                assert_eq!(message.mode, DeliveryMode::Replay);
            }
            account.take(&heard);
        }
        assert_eq!(answer.missed, account.missed() as i64, "the Gaps are what was announced");
        assert_eq!(answer.gap_detected, account.missed() > 0);
        account.missed()
    });
    assert!(told >= AWAY - u64::from(QUEUED), "{told} do not fit the queue");
    assert_eq!(replayed, 0, "a daemon with nothing else to keep holds all of it");
    daemon.end_well();
}

/// Everything that is delivered up to the ReplayComplete.
fn until_complete(client: &mut Client) -> Vec<Delivery> {
    let mut delivered = Vec::new();
    loop {
        match client.hear() {
            Heard::Message(message) => delivered.push(message),
            Heard::ReplayComplete(_) => return delivered,
            Heard::Gap(loss) => assert!(loss.missed > 0),
            Heard::Warning(warning) => assert!(warning.dropped > 0),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn retained_values_make_up_for_a_gap_if_the_client_asks_for_them() {
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    let header = Header::new(FrameKind::Message, 0, 0)
        .with_flags(MessageFlags::ACK.with(MessageFlags::RETAIN));
    for topic in ["gap/retained", "elsewhere"] {
        let number = publisher.publish_with(topic, &header, &[], b"retained");
        assert_eq!(publisher.confirmation(number).sequence, 1);
    }
    let (mut subscriber, account, answer) = come_back(&daemon, GapMode::RetainedOnly);
    assert!(answer.gap_detected && answer.missed >= (AWAY - u64::from(QUEUED)) as i64);
    publisher.publish_accepted("gap/retained", b"live");
    let mut delivered = until_complete(&mut subscriber);
    while delivered.last().is_none_or(|last| last.payload != b"live") {
        delivered.push(subscriber.next_message());
    }
    let retained: Vec<&Delivery> =
        delivered.iter().filter(|message| message.mode == DeliveryMode::Retained).collect();
    let [value] = &retained[..] else { panic!("one topic that matches has one: {retained:?}") };
    assert_eq!((&*value.topic, &*value.payload), ("gap/retained", &b"retained"[..]));
    // It counts: who comes back with all of them has missed nothing.
    let subscription = account.subscription();
    let received = account.received() + delivered.len() as u64;
    drop(subscriber);
    let mut subscriber = Client::connect_for(&daemon.v4(), subscription);
    let asked = subscriber.ask_to_resume(subscription, received, GapMode::RetainedOnly);
    let answer = subscriber.subscribed(asked);
    assert_eq!((answer.gap_detected, answer.replay_started), (false, false));
    publisher.publish_accepted("gap/retained", b"again");
    let message = subscriber.next_message();
    assert_eq!((message.mode, &*message.payload), (DeliveryMode::Live, &b"again"[..]));
    daemon.end_well();
}
