//! Thousands of connections, and one more than allowed.

use nexusd_tests::{Client, Daemon, Heard, eventually, open_files_limit, skip};
use nexusd_wire::SubscribeRequest;
use nexusd_wire::control::ErrorCode;

/// Files that a process needs beside those of its connections.
const FILES_BESIDE: u64 = 200;

#[test]
fn one_publish_reaches_5000_subscribers_on_connections_of_their_own() {
    const CONNECTIONS: u32 = 5_000;
    let limit = open_files_limit();
    if limit < u64::from(CONNECTIONS) + FILES_BESIDE {
        skip(&format!("5000 connections need more than the {limit} open files allowed here"));
        return;
    }
    let daemon = Daemon::start(&["--paused-subscription-ttl", "0"]);
    let ways = [daemon.v4(), daemon.v6(), daemon.unix()];
    let mut subscribers: Vec<Client> = (0..CONNECTIONS)
        .map(|number| {
            let mut client = Client::open(&ways[number as usize % ways.len()]);
            client.hello();
            let request = SubscribeRequest { filters: &["to/all"], ..Default::default() };
            client.ask_to_subscribe(&request);
            client.flush();
            client
        })
        .collect();
    for subscriber in &mut subscribers {
        subscriber.wait_for("SubscriptionInfo", |heard| {
            matches!(heard, Heard::Subscribed(_)).then_some(())
        });
    }
    let mut publisher = daemon.client();
    for number in 1..=3u64 {
        let accepted = publisher.publish_accepted("to/all", &number.to_le_bytes());
        assert_eq!(accepted.delivered, CONNECTIONS);
        for subscriber in &mut subscribers {
            let message = subscriber.next_message();
            assert_eq!((message.sequence, &*message.payload), (number, &number.to_le_bytes()[..]));
        }
    }
    let connected = daemon.usage();
    assert!(connected.rss < 64 << 20, "5000 clients take {} MiB", connected.rss >> 20);
    // All of them leave at once.
    drop(subscribers);
    eventually("nobody is subscribed", || publisher.publish_accepted("to/all", b"").delivered == 0);
    eventually("their files are closed", || daemon.usage().open_files < 100);
    daemon.end_well();
}

#[test]
fn a_connection_beyond_max_connections_is_told_the_limit() {
    let daemon = Daemon::start(&["--max-connections", "3"]);
    let ways = [daemon.v4(), daemon.v6(), daemon.unix()];
    let mut inside: Vec<Client> = ways.iter().map(Client::connect).collect();
    for way in &ways {
        let mut outside = Client::open(way);
        outside.hello();
        let complaint = outside.complaint();
        assert_eq!(complaint.code, ErrorCode::LimitReached, "{complaint:?}");
        assert!(complaint.message.contains("3 connections"), "{complaint:?}");
        assert!(complaint.message.contains("--max-connections"), "{complaint:?}");
    }
    for client in &mut inside {
        client.catch_up();
    }
    inside.pop();
    eventually("the place that became free is given away", || {
        let mut client = Client::open(&ways[0]);
        client.hello();
        client.flush();
        matches!(client.hear(), Heard::Welcome { .. })
    });
    daemon.end_well();
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let daemon = Daemon::start(&["--paused-subscription-ttl", "0"]);
    let mut publisher = daemon.client();
    let come_and_go = |count: usize| {
        for number in 0..count {
            let mut client = daemon.client();
            client.subscribe(&["t"]);
            client.publish(&format!("gone/{number}"), b"x");
            client.flush();
        }
    };
    come_and_go(500);
    eventually("they are gone", || daemon.usage().open_files < 100);
    let before = daemon.usage();
    come_and_go(2_000);
    eventually("nobody is subscribed", || publisher.publish_accepted("t", b"").delivered == 0);
    eventually("they are gone", || daemon.usage().open_files <= before.open_files);
    let grown = daemon.usage().rss.saturating_sub(before.rss);
    assert!(grown < 4 << 20, "2000 connections left {} KiB", grown >> 10);
    daemon.end_well();
}
