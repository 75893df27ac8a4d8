//! Subscribers that read one byte a second while others publish as fast as they can.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nexusd_tests::{Account, Bystanders, Client, Daemon, Heard, TurnOff, note};
use nexusd_wire::SubscribeRequest;
use nexusd_wire::control::OverflowPolicy;

/// How long they read a byte a second under the flood.
const FLOOD_SECONDS: u32 = 10;
/// And behind it.
const CALM_SECONDS: u32 = 2;
/// Topics of the flood.
const TOPICS: u64 = 5;
/// Messages of each topic between two looks at what the one who keeps up has got.
const ROUND: u64 = 50;
/// Longest such a round may take. Behind a reader of one byte a second it would take an hour.
const ROUND_MAX: Duration = Duration::from_secs(5);
const MEMORY_LIMIT: u64 = 64 << 20;

/// The payload of message `number` of a topic: of a length and a content that follow from it.
fn payload(topic: u64, number: u64) -> Vec<u8> {
    let length = 8 + (number * 37 + topic * 501) % 3_000;
    let mut payload = vec![(number % 251) as u8; length as usize];
    payload[..8].copy_from_slice(&(number << 8 | topic).to_le_bytes());
    payload
}

fn topic(number: u64) -> String {
    format!("flood/{number}")
}

/// Takes what is delivered next: every message is itself, whole.
fn take_next(client: &mut Client, account: &mut Account) {
    let heard = client.next_delivery();
    if let Heard::Message(message) = &heard {
        let number = message.topic.strip_prefix("flood/").expect("a topic of the flood");
        let number = number.parse().expect("its number");
        assert!(message.payload == payload(number, message.sequence), "{}", message.sequence);
    }
    account.take(&heard);
}

/// Publishes to all topics and waits until the reader has everything, again and again; returns how
/// many messages that were and the longest round.
fn flood(daemon: &Daemon, goes_on: &AtomicBool, published: &AtomicU64) -> Duration {
    let (mut publisher, mut reader) = (daemon.client(), daemon.client());
    let mut account = Account::new(reader.subscribe_to_all(&["flood/#"]));
    let topics: Vec<String> = (0..TOPICS).map(topic).collect();
    let (mut longest, mut number) = (Duration::ZERO, 0);
    while goes_on.load(Ordering::Relaxed) {
        let since = Instant::now();
        for _ in 0..ROUND {
            number += 1;
            for (at, topic) in (0..).zip(&topics) {
                publisher.publish(topic, &payload(at, number));
            }
            publisher.flush();
        }
        while account.received() < number * TOPICS {
            take_next(&mut reader, &mut account);
        }
        assert_eq!((account.received(), account.missed()), (number * TOPICS, 0));
        longest = longest.max(since.elapsed());
        published.store(number * TOPICS, Ordering::Relaxed);
    }
    longest
}

/// A subscriber that reads a byte a second.
struct Sluggish {
    client: Client,
    account: Account,
}

impl Sluggish {
    fn new(mut client: Client, policy: OverflowPolicy) -> Self {
        let request = SubscribeRequest {
            filters: &["flood/#"],
            policy: Some(policy),
            queue_messages: Some(2_000),
            ..SubscribeRequest::default()
        };
        let account = Account::new(client.subscribe_with(&request));
        Self { client, account }
    }
}

/// Has each of them read a byte, and waits until the second is over, so often.
fn read_a_byte_a_second(sluggish: &mut [Sluggish], seconds: u32) {
    for _ in 0..seconds {
        let since = Instant::now();
        sluggish.iter_mut().for_each(|reader| reader.client.take_a_byte());
        thread::sleep(Duration::from_secs(1).saturating_sub(since.elapsed()));
    }
}

#[test]
fn readers_of_one_byte_a_second_slow_nobody_and_get_whole_frames_or_a_gap_that_adds_up() {
    let limit = (MEMORY_LIMIT >> 20).to_string() + "M";
    let daemon = Daemon::start(&["--shards", "2", "--memory-limit", &limit]);
    let bystanders = Bystanders::start(&daemon);
    let mut sluggish = [
        Sluggish::new(Client::connect_narrow(&daemon.v4()), OverflowPolicy::DropOldest),
        Sluggish::new(Client::connect_narrow(&daemon.v6()), OverflowPolicy::DropNewest),
        Sluggish::new(Client::connect(&daemon.unix()), OverflowPolicy::DropOldest),
        Sluggish::new(Client::connect(&daemon.unix()), OverflowPolicy::DropNewest),
    ];
    let (goes_on, published) = (AtomicBool::new(true), AtomicU64::new(0));
    thread::scope(|scope| {
        let turn_off = TurnOff(&goes_on);
        let flooding = scope.spawn(|| flood(&daemon, &goes_on, &published));
        read_a_byte_a_second(&mut sluggish, FLOOD_SECONDS);
        drop(turn_off);
        let longest = flooding.join().expect("no panic");
        assert!(longest < ROUND_MAX, "{longest:?} until everybody else had got what was published");
        note(&format!("the longest round took {longest:?}"));
    });
    bystanders.unharmed();

    // Full queues, and sockets with a byte of room, are no reason to be busy.
    let (before, since) = (daemon.usage(), Instant::now());
    read_a_byte_a_second(&mut sluggish, CALM_SECONDS);
    let share = (daemon.usage().cpu - before.cpu).as_secs_f64() / since.elapsed().as_secs_f64();
    assert!(share < 0.05, "{:.1} % of a CPU for a byte a second", share * 100.0);

    // Now they read as fast as they can.
    let published = published.load(Ordering::Relaxed);
    for Sluggish { client, account } in &mut sluggish {
        while account.accounted() < published {
            take_next(client, account);
        }
        assert_eq!(account.accounted(), published, "{account:?}");
        assert!(account.received() > 0 && account.missed() > 0, "{account:?}");
        note(&format!("{} received, {} missed", account.received(), account.missed()));
    }
    let peak = daemon.usage().peak_rss;
    note(&format!("{published} messages, at most {} KiB resident", peak >> 10));
    assert!(peak <= MEMORY_LIMIT, "{} KiB resident at the peak", peak >> 10);
    daemon.end_well();
}
