//! Very many clients that lose their connections at the same moment and come back at once.

use std::time::Instant;

use nexusd_tests::{Application, Bystanders, Daemon, Statistics, note, open_files_limit, skip};

/// Clients in all.
const CLIENTS: u64 = 10_000;
/// Processes that hold them.
const CROWDS: u64 = 4;
/// How often all of them come back.
const STORMS: u32 = 2;
/// What the daemon allows: room for those who come back while it still sees those who left.
const CONNECTIONS_MAX: u64 = 19_500;
/// What a parked subscription may take, in bytes.
const PARKED_BYTES: u64 = 1_500;
/// What the daemon may take more at the end than when all were there for the first time, in bytes.
const GROWTH_MAX: u64 = 8 << 20;
/// Bystanders, who tells them apart, and who watches.
const CONNECTIONS_BESIDE: u64 = 4;

/// All clients, subscribed to `topic`, in processes of their own.
fn come(daemon: &Daemon, topic: &str) -> Vec<Application> {
    let ways = [daemon.v4(), daemon.unix(), daemon.v6(), daemon.unix()].map(|way| way.to_string());
    let arguments = [vec![(CLIENTS / CROWDS).to_string(), topic.to_owned()], ways.to_vec()];
    let crowd = || Application::start(env!("CARGO_BIN_EXE_nexusd-crowd"), &arguments.concat());
    (0..CROWDS).map(|_| crowd()).collect()
}

#[test]
fn ten_thousand_clients_that_vanish_and_come_back_at_once_are_all_served_and_harm_nobody() {
    let limit = open_files_limit();
    if limit < CONNECTIONS_MAX {
        skip(&format!("a storm needs more than the {limit} open files allowed here"));
        return;
    }
    let most = CONNECTIONS_MAX.to_string();
    let parked = ["--paused-subscription-ttl", "500"];
    let flags = ["--shards", "2", "--max-connections", &most];
    let daemon = Daemon::start(&[&flags[..], &parked].concat());
    let bystanders = Bystanders::start(&daemon);
    let mut statistics = Statistics::of(&daemon);
    let mut caller = daemon.client();
    let before = daemon.usage();
    let mut crowds = come(&daemon, "roll/call/0");
    let mut first_call = None;
    for storm in 0..=STORMS {
        let since = Instant::now();
        crowds.iter().for_each(|crowd| crowd.wait_for("all are subscribed"));
        let topic = format!("roll/call/{storm}");
        let called = caller.publish_accepted(&topic, b"here?");
        assert_eq!(u64::from(called.delivered), CLIENTS, "each of those who came, and only they");
        crowds.iter().for_each(|crowd| crowd.wait_for("all have heard"));
        let usage = daemon.usage();
        note(&format!("{:?}: {} KiB resident", since.elapsed(), usage.rss >> 10));
        let first = *first_call.get_or_insert(usage.rss);
        // Subscriptions of those who vanished are parked for a while.
        let most = first + CLIENTS * PARKED_BYTES + GROWTH_MAX;
        assert!(usage.rss < most, "{} KiB more", (usage.rss - first) >> 10);
        // Without a word, and the next are on their way before the daemon has seen all of them go.
        crowds.iter_mut().for_each(Application::kill);
        crowds.clear();
        if storm < STORMS {
            crowds = come(&daemon, &format!("roll/call/{}", storm + 1));
        }
    }
    let gone = [("connections", CONNECTIONS_BESIDE), ("subscriptions", 2), ("parked", 0)];
    statistics.wait_for(&gone);
    let after = daemon.usage();
    note(&format!("{} KiB before, {} after", before.rss >> 10, after.rss >> 10));
    bystanders.unharmed();
    daemon.end_well();
}
