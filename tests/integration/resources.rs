//! What the daemon takes of the machine, when idle and when flooded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nexusd_tests::{Account, Bystanders, Client, Daemon, Heard, SOON, TurnOff, note};
use nexusd_wire::SubscribeRequest;

#[test]
fn an_idle_daemon_takes_less_than_1_percent_of_a_cpu_and_16_mib() {
    let daemon = Daemon::start(&[]);
    // Clients that say nothing make it no less idle.
    let mut clients: Vec<Client> = (0..20).map(|_| daemon.client()).collect();
    for client in &mut clients {
        client.subscribe(&["never"]);
    }
    let (before, since) = (daemon.usage(), Instant::now());
    thread::sleep(Duration::from_secs(3));
    let after = daemon.usage();
    let share = (after.cpu - before.cpu).as_secs_f64() / since.elapsed().as_secs_f64();
    assert!(share < 0.01, "{:.2} % of a CPU", share * 100.0);
    assert!(after.rss <= 16 << 20, "{} KiB resident", after.rss >> 10);
    daemon.end_well();
}

/// Connections whose reader stalls with a few old messages left in the daemon.
const HOLDERS: usize = 100;
/// Connections whose reader stalls and whose queue the flood fills again and again.
const DROWNED: usize = 10;
const MEMORY_LIMIT: u64 = 64 << 20;

/// Stalled readers sip this often: one that shows no life for 40 s, or takes nothing for 60 s, is
/// given up.
const SIP_INTERVAL: Duration = Duration::from_secs(20);
/// Bytes that a holder sips: what its unix socket holds, so that the daemon sees it take something.
const HOLDERS_SIP_BYTES: usize = 256 << 10;
/// The same for the drowned: TCP tells the daemon late that there is room again.
const DROWNED_SIP_BYTES: usize = 4 << 20;
/// Messages of 4,000 bytes that a reader who stalls is sent: more than its unix socket holds.
const STALLING_MESSAGES: usize = 80;

/// A client that does not read, and what it is owed.
struct Stalled {
    client: Client,
    account: Account,
    topic: String,
}

/// Fills what the kernel takes in for a client that does not read, and a little more, which stays in
/// the daemon.
fn stall(daemon: &Daemon, publisher: &mut Client, number: usize) -> Stalled {
    let mut client = Client::connect(&daemon.unix());
    let topic = format!("held/{number}");
    let subscription = client.subscribe_to_all(&[&topic]);
    for _ in 0..STALLING_MESSAGES {
        publisher.publish(&topic, &[7; 4_000]);
    }
    publisher.catch_up();
    Stalled { client, account: Account::new(subscription), topic }
}

/// Floods a daemon for `time` beside stalled readers that each hold a few old messages; its memory
/// stays inside the limit, a reader that keeps up loses nothing, and what each stalled one lost it
/// is told.
fn memory_stays_inside_its_limit(time: Duration) {
    let daemon = Daemon::start(&["--memory-limit", "64M"]);
    let bystanders = Bystanders::start(&daemon);
    let mut publisher = daemon.client();
    let mut holders: Vec<Stalled> =
        (0..HOLDERS).map(|number| stall(&daemon, &mut publisher, number)).collect();
    let mut drowned: Vec<(Client, Account)> = (0..DROWNED)
        .map(|_| {
            let mut client = Client::connect_narrow(&daemon.v4());
            let subscription = client.subscribe_to_all(&["flood/#"]);
            (client, Account::new(subscription))
        })
        .collect();

    let flooding = AtomicBool::new(true);
    let flooded = thread::scope(|scope| {
        let turn_off = TurnOff(&flooding);
        let mut reader = daemon.client();
        let subscription = reader.subscribe_to_all(&["flood/#", "last"]);
        let reading = scope.spawn(move || {
            let mut account = Account::new(subscription);
            loop {
                let heard = reader.next_delivery();
                account.take(&heard);
                if matches!(&heard, Heard::Message(message) if &*message.topic == "last") {
                    return account;
                }
            }
        });
        let flood = scope.spawn(|| {
            let mut client = daemon.client();
            let mut published = 0;
            let payload = vec![1; 60_000];
            while flooding.load(Ordering::Relaxed) {
                // Sizes that make small runs, whole segments, and segments of their own.
                for bytes in [100, 100, 2_000, 30_000, 100] {
                    let topic = format!("flood/{}", published % 7);
                    client.publish(&topic, &payload[..bytes]);
                    published += 1;
                }
                if published % 100 == 0 {
                    // The pace of the slowest is not ours, but what we publish is to be accepted.
                    client.catch_up();
                }
            }
            client.catch_up();
            if client.is_keeping() {
                panic!("every message should have been accepted: {:?}", client.hear());
            }
            published
        });
        // Each stalled reader gets another message now and then.
        let begun = Instant::now();
        let mut sipped = begun;
        while begun.elapsed() < time {
            let sip = sipped.elapsed() >= SIP_INTERVAL;
            for holder in &mut holders {
                publisher.publish(&holder.topic, &[7; 500]);
                if sip {
                    holder.client.sip(HOLDERS_SIP_BYTES);
                    for _ in 0..STALLING_MESSAGES {
                        publisher.publish(&holder.topic, &[7; 4_000]);
                    }
                }
            }
            if sip {
                drowned.iter_mut().for_each(|(client, _)| client.sip(DROWNED_SIP_BYTES));
                sipped = Instant::now();
            }
            publisher.catch_up();
            thread::sleep(Duration::from_millis(200));
        }
        drop(turn_off);
        let published: u64 = flood.join().expect("no panic");
        publisher.publish_accepted("last", b"");
        let account = reading.join().expect("no panic");
        assert_eq!(account.accounted(), published + 1);
        published
    });
    // The program's own pages are the file's, and as many as the compiler made.
    let usage = daemon.usage();
    let peak = usage.peak_rss.saturating_sub(usage.program);
    note(&format!(
        "{flooded} messages, at most {} KiB resident, and {} KiB of the program",
        peak >> 10,
        usage.program >> 10
    ));
    assert!(peak <= MEMORY_LIMIT, "{} KiB resident at the peak", peak >> 10);

    // Now everybody reads, and everything is accounted for.
    let mut held = 0;
    for holder in &mut holders {
        let newest = publisher.publish_accepted(&holder.topic, &[7; 500]).sequence;
        while holder.account.accounted() < newest {
            let heard = holder.client.next_delivery();
            holder.account.take(&heard);
        }
        assert_eq!(holder.account.newest(&holder.topic), newest);
        held += holder.account.received();
    }
    assert!(held > 0);
    for (client, account) in &mut drowned {
        let since = Instant::now();
        while account.accounted() < flooded {
            assert!(since.elapsed() < SOON);
            let heard = client.next_delivery();
            account.take(&heard);
        }
        assert_eq!(account.accounted(), flooded);
        assert!(account.missed() > 0, "the flood was too small");
    }
    bystanders.unharmed();
    daemon.end_well();
}

/// Each subscription keeps up so far that its losses are told, again and again.
#[test]
fn losses_that_are_told_to_many_subscriptions_do_not_fill_the_memory() {
    const SUBSCRIPTIONS: usize = 400;
    const TOPICS: usize = 80;
    const ROUNDS: usize = 40;
    let daemon = Daemon::start(&["--memory-limit", "16M", "--shards", "1"]);
    let mut reader = daemon.client();
    for _ in 0..SUBSCRIPTIONS {
        let queue_messages = Some(1);
        let request = SubscribeRequest { filters: &["g/#"], queue_messages, ..Default::default() };
        reader.subscribe_with(&request);
    }
    let mut publisher = daemon.client();
    let last = format!("g/{}", TOPICS - 1);
    for _ in 0..ROUNDS {
        for topic in 0..TOPICS {
            publisher.publish(&format!("g/{topic}"), b"x");
        }
        publisher.catch_up();
        let mut complete = 0;
        while complete < SUBSCRIPTIONS {
            let heard = reader.next_delivery();
            complete +=
                usize::from(matches!(&heard, Heard::Message(message) if *message.topic == *last));
        }
    }
    let peak = daemon.usage().peak_rss;
    note(&format!("at most {} KiB resident", peak >> 10));
    assert!(peak <= 22 << 20, "{} KiB resident at the peak", peak >> 10);
}

#[test]
fn memory_stays_inside_its_limit_through_a_flood_with_stalled_readers() {
    memory_stays_inside_its_limit(Duration::from_secs(8));
}

#[test]
#[ignore = "takes 60 s: a flood long enough for anything that grows to show"]
fn memory_stays_inside_its_limit_through_a_long_flood_with_stalled_readers() {
    memory_stays_inside_its_limit(Duration::from_secs(60));
}
