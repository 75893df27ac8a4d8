//! Subscribers that read more slowly than others publish: what they lose, and what they are told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nexusd_tests::{Account, Bystanders, Client, Daemon, Heard, eventually};
use nexusd_wire::SubscribeRequest;
use nexusd_wire::control::{GapReason, OverflowPolicy};

/// Publishes `count` messages to each topic in turn; each carries its number.
fn publish_in_turn(publisher: &mut Client, topics: &[String], count: u64, bytes: usize) {
    let mut payload = vec![0; bytes];
    for number in 1..=count {
        payload[..8].copy_from_slice(&number.to_le_bytes());
        for topic in topics {
            publisher.publish(topic, &payload);
        }
        publisher.flush();
    }
    publisher.catch_up();
}

/// Reads until `owed` messages are delivered or lost.
fn settle(subscriber: &mut Client, account: &mut Account, owed: u64) {
    while account.accounted() < owed {
        match subscriber.next_delivery() {
            Heard::Message(message) => {
                let number = u64::from_le_bytes(message.payload[..8].try_into().expect("a number"));
                assert_eq!(message.sequence, number, "each message is itself");
                account.take(&Heard::Message(message));
            }
            Heard::Gap(loss) => {
                assert_eq!(loss.reason, GapReason::SlowConsumer);
                account.take(&Heard::Gap(loss));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(account.accounted(), owed);
}

fn topics(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("fast/{number}")).collect()
}

/// A stalled subscriber, filled beyond its bounds: everything is received or told as lost.
fn overflow_is_told(request: &SubscribeRequest<'_>, topic_count: usize, count: u64, bytes: usize) {
    let daemon = Daemon::start(&[]);
    let bystanders = Bystanders::start(&daemon);
    for way in [daemon.v4(), daemon.unix()] {
        let mut subscriber = Client::connect_narrow(&way);
        let mut healthy = daemon.client();
        let subscription = subscriber.subscribe_with(request);
        let unharmed = healthy.subscribe_to_all(request.filters);
        let topics: Vec<String> =
            topics(topic_count).iter().map(|topic| format!("{topic}/{way}")).collect();
        let mut publisher = daemon.client();
        let owed = count * topic_count as u64;
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut account = Account::new(unharmed);
                settle(&mut healthy, &mut account, owed);
                assert_eq!(account.missed(), 0, "a healthy one loses nothing beside it");
            });
            publish_in_turn(&mut publisher, &topics, count, bytes);
        });
        let mut account = Account::new(subscription);
        settle(&mut subscriber, &mut account, owed);
        assert!(account.missed() > 0 && account.received() > 0, "{account:?}");
        assert!(account.gaps() > 0, "{account:?}");
        // Live again: what is published now arrives.
        let again = format!("fast/again/{way}");
        publish_in_turn(&mut publisher, std::slice::from_ref(&again), 1, bytes);
        settle(&mut subscriber, &mut account, owed + 1);
        assert_eq!(account.newest(&again), 1);
    }
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn a_queue_bounded_by_messages_drops_its_oldest_and_tells_which() {
    let request = SubscribeRequest {
        filters: &["fast/#"],
        queue_messages: Some(100),
        policy: Some(OverflowPolicy::DropOldest),
        ..SubscribeRequest::default()
    };
    overflow_is_told(&request, 1, 20_000, 1_000);
}

#[test]
fn a_queue_bounded_by_bytes_drops_its_oldest_and_tells_which() {
    let request = SubscribeRequest {
        filters: &["fast/#"],
        queue_messages: Some(0),
        queue_bytes: Some(256 << 10),
        ..SubscribeRequest::default()
    };
    overflow_is_told(&request, 5, 1_000, 4_000);
}

#[test]
fn losses_of_more_topics_than_a_gap_names_are_counted() {
    let request = SubscribeRequest {
        filters: &["fast/#"],
        queue_messages: Some(500),
        ..SubscribeRequest::default()
    };
    overflow_is_told(&request, 200, 100, 1_000);
}

#[test]
fn the_daemons_defaults_bound_a_queue_that_names_no_bounds() {
    let daemon =
        Daemon::start(&["--subscriber-queue-limit", "50", "--subscriber-queue-bytes", "1M"]);
    let (mut subscriber, mut publisher) = (Client::connect_narrow(&daemon.v4()), daemon.client());
    let subscription = subscriber.subscribe(&["fast/#"]);
    publish_in_turn(&mut publisher, &topics(1), 10_000, 1_000);
    let mut account = Account::new(subscription);
    settle(&mut subscriber, &mut account, 10_000);
    assert!(account.missed() > 0);
    daemon.end_well();
}

/// Messages of 1,000 bytes that no kernel's buffers hold: 32 MiB of a receiver and 4 MiB of a sender, and another
/// 4 MiB on the way to the subscriber.
const BEYOND_BUFFERS: u64 = 50_000;

/// A subscription that blocks publishers when 100 messages are queued.
const BLOCKING: SubscribeRequest<'_> = SubscribeRequest {
    request: 0,
    filters: &["fast/#"],
    policy: Some(OverflowPolicy::Block),
    queue_messages: Some(100),
    queue_bytes: None,
    receive_retained: false,
    counted: false,
    positions: &[],
    wait_mesh: false,
    ended: &[],
};

/// Waits until a count has stood still for a while.
fn wait_for_standstill(what: &str, count: impl Fn() -> u64) -> u64 {
    let (mut seen, mut since) = (count(), Instant::now());
    eventually(what, || {
        let now = count();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        seen > 0 && since.elapsed() > Duration::from_millis(500)
    });
    seen
}

#[test]
fn a_full_queue_that_blocks_holds_its_publisher_back_and_loses_nothing() {
    const COUNT: u64 = BEYOND_BUFFERS;
    let daemon = Daemon::start(&["--block-timeout-ms", "60s"]);
    let bystanders = Bystanders::start(&daemon);
    let mut subscriber = Client::connect_narrow(&daemon.v4());
    let subscription = subscriber.subscribe_with(&BLOCKING);
    // Another connection that publishes elsewhere is not held back.
    let mut elsewhere = daemon.client();
    let published = AtomicU64::new(0);
    thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut publisher = daemon.client();
            let mut payload = vec![0; 1_000];
            for number in 1..=COUNT {
                payload[..8].copy_from_slice(&number.to_le_bytes());
                publisher.publish("fast/0", &payload);
                publisher.flush();
                published.store(number, Ordering::Relaxed);
            }
            publisher.catch_up();
            publisher
        });
        let held_at =
            wait_for_standstill("the publisher is held back", || published.load(Ordering::Relaxed));
        assert!(held_at < COUNT, "the publisher was not held back");
        elsewhere.publish_accepted("elsewhere", b"");

        let mut account = Account::new(subscription);
        settle(&mut subscriber, &mut account, COUNT);
        assert_eq!((account.missed(), account.gaps()), (0, 0), "nothing is lost");
        let mut publisher = publishing.join().expect("no panic");
        let mut told = Vec::new();
        // The last resumption may still be on its way.
        while publisher.is_keeping() || told.len() % 2 == 1 {
            told.push(publisher.hear());
        }
        let is_pair = |pair: &[Heard]| pair == [Heard::PublishPause, Heard::PublishResume];
        assert!(!told.is_empty() && told.chunks(2).all(is_pair), "{told:?}");
    });
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn a_publisher_that_is_held_back_still_has_its_pings_answered() {
    let daemon = Daemon::start(&["--block-timeout-ms", "60s"]);
    let mut subscriber = Client::connect_narrow(&daemon.v4());
    let subscription = subscriber.subscribe_with(&BLOCKING);
    let mut publisher = daemon.client();
    let mut payload = vec![0; 4_000];
    let mut published = 0u64;
    // It minds the pause, as a good client does.
    loop {
        published += 1;
        payload[..8].copy_from_slice(&published.to_le_bytes());
        publisher.publish("fast/0", &payload);
        publisher.catch_up();
        if publisher.is_keeping() {
            assert_eq!(publisher.hear(), Heard::PublishPause);
            break;
        }
        assert!(published < 10_000, "the queue should be full");
    }
    for _ in 0..100 {
        publisher.catch_up();
    }
    let mut account = Account::new(subscription);
    settle(&mut subscriber, &mut account, published);
    assert_eq!(account.missed(), 0);
    publisher.wait_for("PublishResume", |heard| (*heard == Heard::PublishResume).then_some(()));
    daemon.end_well();
}

#[test]
fn a_queue_that_blocks_for_too_long_drops_its_oldest_and_tells_which() {
    const COUNT: u64 = 20_000;
    let daemon = Daemon::start(&["--block-timeout-ms", "300"]);
    let mut subscriber = Client::connect_narrow(&daemon.v4());
    let subscription = subscriber.subscribe_with(&BLOCKING);
    let mut publisher = daemon.client();
    // Ends only if the publisher is let go although nobody reads.
    publish_in_turn(&mut publisher, &topics(1), COUNT, 1_000);
    let mut account = Account::new(subscription);
    settle(&mut subscriber, &mut account, COUNT);
    assert!(account.missed() > 0, "{account:?}");
    daemon.end_well();
}

#[test]
fn a_publisher_is_let_go_when_the_subscriber_that_blocked_it_dies() {
    let daemon = Daemon::start(&["--block-timeout-ms", "60s"]);
    let mut subscriber = Client::connect_narrow(&daemon.v4());
    subscriber.subscribe_with(&BLOCKING);
    let published = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = daemon.client();
            for number in 1..=BEYOND_BUFFERS {
                publisher.publish("fast/0", &[0; 1_000]);
                publisher.flush();
                published.store(number, Ordering::Relaxed);
            }
            publisher.catch_up();
        });
        let held_at =
            wait_for_standstill("the publisher is held back", || published.load(Ordering::Relaxed));
        assert!(held_at < BEYOND_BUFFERS, "the publisher was not held back");
        drop(subscriber);
    });
    daemon.end_well();
}
