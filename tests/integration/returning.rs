//! Subscriptions that outlive their connection, and clients that come back to them.

use std::time::{Duration, Instant};

use nexusd_tests::{
    Account, Bystanders, Client, Daemon, Heard, Listened, Replay, Subscribed, eventually,
};
use nexusd_wire::control::{ErrorCode, GapMode, GapReason};
use nexusd_wire::{SubscribeRequest, SubscriptionId};

/// Two shards: some connections come in where the subscription is not.
const SHARDS: [&str; 2] = ["--shards", "2"];

/// A counted subscription.
fn counted<'a>(filters: &'a [&'a str]) -> SubscribeRequest<'a> {
    SubscribeRequest { filters, counted: true, ..SubscribeRequest::default() }
}

/// Publishes so many messages, which are in all queues when this returns.
fn publish(publisher: &mut Client, topic: &str, count: usize) {
    for _ in 1..count {
        publisher.publish(topic, &[7; 100]);
    }
    publisher.publish_accepted(topic, &[7; 100]);
}

/// Reads until so many messages of the subscription are accounted for.
fn read(client: &mut Client, account: &mut Account, owed: u64) {
    while account.accounted() < owed {
        account.take(&client.next_delivery());
    }
    assert_eq!(account.accounted(), owed);
}

/// Reads the replay that this answer announces, if it does.
fn read_replay(client: &mut Client, account: &mut Account, answer: &Subscribed) -> Replay {
    let mut replay = Replay::new(answer);
    while !replay.is_over() {
        let heard = client.hear();
        account.take(&heard);
        replay.take(&heard);
    }
    replay
}

/// What the old connection of a subscription that was taken over hears: nothing of the messages
/// published since, and the end.
fn is_closed(client: &mut Client) {
    let rest = client.rest();
    let is_message = |heard: &Heard| matches!(heard, Heard::Message(_));
    assert!(!rest.iter().any(is_message), "{rest:?}");
}

/// A new connection for the subscription, and what the daemon answered to its Resume.
fn come_back(daemon: &Daemon, account: &Account) -> (Client, Subscribed) {
    let mut client = Client::connect_for(&daemon.v4(), account.subscription());
    let answer = client.resume(account.subscription(), account.received());
    (client, answer)
}

/// What a Resume is refused with.
fn refused(client: &mut Client, subscription: SubscriptionId, received: u64) -> ErrorCode {
    let asked = client.ask_to_resume(subscription, received, GapMode::None);
    let complaint = client.refusal(asked);
    assert!(!complaint.fatal, "{complaint:?}");
    complaint.code
}

#[test]
fn what_was_published_while_a_client_was_away_is_replayed_and_then_comes_what_is_live() {
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    for way in [daemon.v4(), daemon.v6(), daemon.unix()] {
        let topics = ["one", "two", "three"].map(|name| format!("away/{name}/{way}"));
        let filter = format!("away/+/{way}");
        let mut subscriber = Client::connect(&way);
        let mut account = Account::new(subscriber.subscribe_with(&counted(&[&filter])));
        topics.iter().for_each(|topic| publish(&mut publisher, topic, 10));
        read(&mut subscriber, &mut account, 30);
        drop(subscriber);
        // Parked or not yet, it goes on queueing.
        for topic in &topics {
            publish(&mut publisher, topic, 9);
            assert_eq!(publisher.publish_accepted(topic, &[]).delivered, 1);
        }
        let (mut subscriber, answer) = come_back(&daemon, &account);
        assert_eq!((answer.gap_detected, answer.missed, answer.replay_started), (false, 0, true));
        let replay = read_replay(&mut subscriber, &mut account, &answer);
        assert_eq!((account.received(), replay.replayed()), (60, 30));
        topics.iter().for_each(|topic| publish(&mut publisher, topic, 10));
        read(&mut subscriber, &mut account, 90);
        assert_eq!((account.received(), account.missed()), (90, 0));
        drop(subscriber);
        // With nothing missed, nothing is replayed.
        let (mut subscriber, answer) = come_back(&daemon, &account);
        assert_eq!((answer.gap_detected, answer.missed, answer.replay_started), (false, 0, false));
        publish(&mut publisher, &topics[0], 1);
        read(&mut subscriber, &mut account, 91);
        assert_eq!(account.received(), 91);
    }
    daemon.end_well();
}

#[test]
fn what_was_sent_and_not_acknowledged_is_kept_and_comes_again_to_who_did_not_have_it() {
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    for had in [0, 1, 499, 500, 501, 999, 1_000] {
        let topic = format!("kept/{had}");
        let mut subscriber = daemon.client();
        let subscription = subscriber.subscribe_with(&counted(&[&topic]));
        publish(&mut publisher, &topic, 1_000);
        let mut account = Account::new(subscription);
        for _ in 0..1_000 {
            let message = subscriber.next_message();
            if message.sequence <= had {
                account.take(&Heard::Message(message));
            }
        }
        subscriber.acknowledge(&[(subscription, had.min(500))]);
        subscriber.catch_up();
        drop(subscriber);
        let (mut subscriber, answer) = come_back(&daemon, &account);
        assert_eq!((answer.missed, answer.replay_started), (0, had < 1_000));
        let replay = read_replay(&mut subscriber, &mut account, &answer);
        assert_eq!(replay.replayed(), 1_000 - had);
        publish(&mut publisher, &topic, 1);
        read(&mut subscriber, &mut account, 1_001);
        assert_eq!((account.received(), account.missed()), (1_001, 0));
    }
    daemon.end_well();
}

#[test]
fn what_was_on_its_way_to_who_does_not_acknowledge_is_told_as_lost_by_its_number() {
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    let mut subscriber = daemon.client();
    let subscription = subscriber.subscribe(&["lost"]);
    publish(&mut publisher, "lost", 1_000);
    let mut account = Account::new(subscription);
    for _ in 0..1_000 {
        let message = subscriber.next_message();
        // The rest has arrived, but not where it matters.
        if message.sequence <= 600 {
            account.take(&Heard::Message(message));
        }
    }
    subscriber.pause(subscription);
    drop(subscriber);
    publish(&mut publisher, "lost", 10);
    let (mut subscriber, answer) = come_back(&daemon, &account);
    assert_eq!((answer.gap_detected, answer.missed), (true, 400));
    match subscriber.next_delivery() {
        Heard::Gap(loss) => {
            assert_eq!((loss.reason, loss.missed), (GapReason::LinkLost, 400), "{loss:?}");
            account.take(&Heard::Gap(loss));
        }
        other => panic!("a Gap should come first: {other:?}"),
    }
    read(&mut subscriber, &mut account, 1_010);
    assert_eq!((account.received(), account.missed(), account.newest("lost")), (610, 400, 1_010));
    daemon.end_well();
}

#[test]
fn a_line_cut_under_traffic_costs_who_does_not_acknowledge_a_gap_that_adds_up() {
    const MESSAGES: u64 = 20_000;
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    for way in [daemon.v4(), daemon.unix()] {
        let topic = format!("cut/{way}");
        let mut subscriber = Client::connect_narrow(&way);
        let mut account = Account::new(subscriber.subscribe_to_all(&[&topic]));
        for _ in 0..MESSAGES {
            publisher.publish(&topic, &[7; 1_000]);
        }
        publisher.catch_up();
        read(&mut subscriber, &mut account, 100);
        // Much is between the daemon and the client, and more than that still in the daemon.
        drop(subscriber);
        let (mut subscriber, answer) = come_back(&daemon, &account);
        assert!(answer.gap_detected && answer.replay_started, "{answer:?}");
        read(&mut subscriber, &mut account, MESSAGES);
        assert_eq!(account.missed(), u64::try_from(answer.missed).expect("a known number"));
        assert!(account.missed() > 0 && account.newest(&topic) == MESSAGES, "{account:?}");
    }
    daemon.end_well();
}

#[test]
fn a_subscription_whose_old_connection_still_stands_is_taken_over() {
    let daemon = Daemon::start(&SHARDS);
    let bystanders = Bystanders::start(&daemon);
    let mut publisher = daemon.client();
    // Wherever the connections come in, they end up where the subscription is.
    for round in 0..8 {
        let topic = format!("taken/{round}");
        let mut old = daemon.client();
        let mut account = Account::new(old.subscribe_with(&counted(&[&topic])));
        let mut beside = Account::new(old.subscribe_with(&counted(&["beside"])));
        let first_beside = publisher.publish_accepted("beside", b"").sequence;
        beside.begin_behind("beside", first_beside - 1);
        publish(&mut publisher, &topic, 10);
        for _ in 0..11 {
            let heard = old.next_delivery();
            account.take(&heard);
            beside.take(&heard);
        }
        let (mut new, answer) = come_back(&daemon, &account);
        assert_eq!((answer.missed, answer.replay_started), (0, false));
        publish(&mut publisher, &topic, 10);
        publish(&mut publisher, "beside", 5);
        read(&mut new, &mut account, 20);
        is_closed(&mut old);
        // What else the old one had is parked, and comes to whoever asks for it.
        let answer = new.resume(beside.subscription(), beside.received());
        assert_eq!((answer.missed, answer.replay_started), (0, true));
        read_replay(&mut new, &mut beside, &answer);
        assert_eq!((beside.received(), beside.missed()), (6, 0));
        // And back again, so that the next round finds the shards as they were.
        assert_eq!(new.unsubscribe(account.subscription()), (true, String::new()));
        assert_eq!(new.unsubscribe(beside.subscription()), (true, String::new()));
    }
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn a_subscription_taken_over_amid_a_flood_goes_on_without_a_hole() {
    const MESSAGES: u64 = 20_000;
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    let mut client = Client::connect_narrow(&daemon.v4());
    let subscription = client.subscribe_with(&SubscribeRequest {
        queue_messages: Some(0),
        queue_bytes: Some(64 << 20),
        ..counted(&["flood/+"])
    });
    for number in 0..MESSAGES {
        publisher.publish(&format!("flood/{}", number % 5), &[7; 1_000]);
    }
    publisher.flush();
    let mut account = Account::new(subscription);
    // Each reads a part of what it was sent, and is then taken over while it still stands.
    for part in 1..=4 {
        while account.received() < part * MESSAGES / 5 {
            account.take(&client.next_delivery());
        }
        let received = account.received();
        let ways = [daemon.unix(), daemon.v4()];
        let mut next = Client::connect_for(&ways[part as usize % 2], subscription);
        let answer = next.resume(subscription, received);
        assert_eq!((answer.missed, answer.replay_started), (0, true));
        // It was closed behind a whole frame, or amid one, as the socket took it.
        client = next;
    }
    read(&mut client, &mut account, MESSAGES);
    assert_eq!((account.received(), account.missed()), (MESSAGES, 0));
    daemon.end_well();
}

#[test]
fn a_paused_subscription_queues_and_goes_on_when_it_is_resumed() {
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    let mut subscriber = daemon.client();
    let subscription = subscriber.subscribe_with(&counted(&["paused"]));
    let mut account = Account::new(subscription);
    let mut owed = 0;
    for _ in 0..3 {
        publish(&mut publisher, "paused", 10);
        owed += 10;
        read(&mut subscriber, &mut account, owed);
        assert_eq!(subscriber.pause(subscription), 300_000, "five minutes");
        publish(&mut publisher, "paused", 10);
        assert_eq!(publisher.publish_accepted("paused", b"").delivered, 1, "it queues");
        owed += 11;
        subscriber.catch_up();
        let silence = subscriber.listen(Duration::from_millis(50));
        assert_eq!(silence, Listened::Silence, "nothing comes of a paused subscription");
        // On the connection that it had, which still stands.
        let answer = subscriber.resume(subscription, account.received());
        assert_eq!((answer.missed, answer.replay_started), (0, true));
        let replay = read_replay(&mut subscriber, &mut account, &answer);
        assert_eq!((replay.replayed(), account.received()), (11, owed));
    }
    // On a connection of its own.
    subscriber.pause(subscription);
    publish(&mut publisher, "paused", 10);
    let (mut subscriber, answer) = come_back(&daemon, &account);
    read_replay(&mut subscriber, &mut account, &answer);
    assert_eq!(account.received(), owed + 10);
    // Whoever was parked can be given up as well, and is gone then.
    subscriber.pause(subscription);
    assert_eq!(refused(&mut subscriber, SubscriptionId(1), 0), ErrorCode::NotFound);
    daemon.end_well();
}

#[test]
fn a_parked_queue_that_overflows_tells_what_it_dropped() {
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    let mut subscriber = daemon.client();
    let subscription = subscriber
        .subscribe_with(&SubscribeRequest { queue_messages: Some(100), ..counted(&["full/+"]) });
    let mut account = Account::new(subscription);
    publish(&mut publisher, "full/1", 10);
    read(&mut subscriber, &mut account, 10);
    drop(subscriber);
    for _ in 0..1_000 {
        publish(&mut publisher, "full/1", 1);
        publish(&mut publisher, "full/2", 1);
    }
    let (mut subscriber, answer) = come_back(&daemon, &account);
    assert!(answer.gap_detected && answer.replay_started, "{answer:?}");
    assert!(answer.missed >= 1_900, "{answer:?}");
    read(&mut subscriber, &mut account, 2_010);
    assert_eq!(account.missed(), answer.missed as u64, "the Gaps are what was announced");
    assert_eq!((account.newest("full/1"), account.newest("full/2")), (1_010, 1_000));
    publish(&mut publisher, "full/2", 1);
    read(&mut subscriber, &mut account, 2_011);
    daemon.end_well();
}

#[test]
fn a_parked_subscription_that_nobody_comes_back_to_expires() {
    let daemon = Daemon::start(&["--shards", "2", "--paused-subscription-ttl", "500"]);
    let mut publisher = daemon.client();
    let mut paused = daemon.client();
    let by_request = paused.subscribe_with(&counted(&["parked"]));
    let mut broken = daemon.client();
    let by_breaking = broken.subscribe_with(&counted(&["parked"]));
    assert_eq!(publisher.publish_accepted("parked", b"").delivered, 2);
    let since = Instant::now();
    assert_eq!(paused.pause(by_request), 500);
    drop(broken);
    assert_eq!(publisher.publish_accepted("parked", b"").delivered, 2, "they queue");
    eventually("they expire", || publisher.publish_accepted("parked", b"").delivered == 0);
    let expired = since.elapsed();
    assert!(expired >= Duration::from_millis(500), "{expired:?}");
    for subscription in [by_request, by_breaking] {
        let mut late = Client::connect_for(&daemon.v4(), subscription);
        assert_eq!(refused(&mut late, subscription, 0), ErrorCode::NotFound);
        late.subscribe_with(&counted(&["parked"]));
    }
    daemon.end_well();
}

#[test]
fn a_resume_that_cannot_be_is_refused_and_harms_nobody() {
    let daemon = Daemon::start(&SHARDS);
    let mut publisher = daemon.client();
    let mut subscriber = daemon.client();
    let subscription = subscriber.subscribe_with(&counted(&["mine"]));
    publish(&mut publisher, "mine", 10);
    let mut account = Account::new(subscription);
    read(&mut subscriber, &mut account, 10);
    assert_eq!(refused(&mut subscriber, subscription, 10), ErrorCode::Rejected, "it has it");
    assert_eq!(refused(&mut subscriber, SubscriptionId(7), 0), ErrorCode::NotFound);
    // One who claims more than was sent does not get it, and the one who has it keeps it.
    let mut liar = Client::connect_for(&daemon.v4(), subscription);
    assert_eq!(refused(&mut liar, subscription, 11), ErrorCode::Rejected);
    publish(&mut publisher, "mine", 10);
    read(&mut subscriber, &mut account, 20);
    // One that was given up is no more.
    assert_eq!(subscriber.unsubscribe(subscription), (true, String::new()));
    assert_eq!(refused(&mut liar, subscription, 0), ErrorCode::NotFound);
    assert_eq!(publisher.publish_accepted("mine", b"").delivered, 0);
    // So is one whose client said goodbye.
    let parting = liar.subscribe_with(&counted(&["mine"]));
    liar.goodbye();
    liar.flush();
    liar.rest();
    let mut late = Client::connect_for(&daemon.v4(), parting);
    assert_eq!(refused(&mut late, parting, 0), ErrorCode::NotFound);
    daemon.end_well();
}
