//! Clients that come back for a subscription: their connections move to the thread that keeps it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nexusd_tests::{Account, Bystanders, Client, Daemon, Heard, Listened, TurnOff, eventually};
use nexusd_wire::{SubscribeRequest, SubscriptionId};

/// A daemon of two shards, whatever the host has.
fn start() -> Daemon {
    Daemon::start(&["--shards", "2"])
}

/// An id as the shard gives them; of a subscription that is no more, or never was.
fn of_shard(shard: u128) -> SubscriptionId {
    SubscriptionId(0xFEED << 64 | shard)
}

fn shard_of(subscription: SubscriptionId) -> u128 {
    subscription.0 & 63
}

#[test]
fn clients_that_come_back_live_where_their_subscription_is_kept_and_nothing_they_say_is_lost() {
    const ROUNDS: u64 = 30;
    const MESSAGES: u64 = 40;
    let daemon = start();
    let ways = [daemon.v4(), daemon.v6(), daemon.unix()];
    let mut watcher = daemon.client();
    let subscription = watcher.subscribe_to_all(&["said/#"]);
    let mut account = Account::new(subscription);
    let watched = watcher.subscribe(&["$SYS/+/stats"]);
    for round in 0..ROUNDS {
        let shard = u128::from(round % 2);
        let mut client = Client::open(&ways[round as usize % ways.len()]);
        client.hello_for(of_shard(shard));
        // Said without waiting for anything, so that much of it stands behind Hello.
        let topic = format!("said/{round}");
        for _ in 0..MESSAGES {
            client.publish_asking(&topic, &[7; 5_000]);
        }
        client.flush();
        client.welcome();
        assert_eq!(client.confirmation(MESSAGES).sequence, MESSAGES);
        // What a shard makes bears its name.
        assert_eq!(shard_of(client.subscribe(&["other"])), shard);
    }
    let mut moved = 0;
    while account.received() < ROUNDS * MESSAGES || moved == 0 {
        let message = watcher.next_message();
        if message.subscription == watched {
            let document: serde_json::Value =
                serde_json::from_slice(&message.payload).expect("JSON");
            moved = document["metrics"]["connections_moved"].as_u64().expect("a number");
        } else {
            account.take(&Heard::Message(message));
        }
    }
    assert_eq!((account.received(), account.missed()), (ROUNDS * MESSAGES, 0));
    assert!(moved <= ROUNDS, "each moves at most once");
    daemon.end_well();
}

#[test]
fn a_client_that_says_all_it_has_and_leaves_is_heard_though_it_moves() {
    const MESSAGES: u64 = 20;
    let daemon = start();
    let ways = [daemon.v4(), daemon.unix()];
    let mut watcher = daemon.client();
    let subscription = watcher.subscribe_to_all(&["t"]);
    let mut account = Account::new(subscription);
    for round in 0..20 {
        let mut client = Client::open(&ways[round % ways.len()]);
        client.hello_for(of_shard(round as u128 / 2 % 2));
        for _ in 0..MESSAGES {
            client.publish("t", &[1; 3_000]);
        }
        client.goodbye();
        client.flush();
        client.shut_down();
        let heard = client.rest();
        assert!(matches!(heard.first(), Some(Heard::Welcome { .. })), "{heard:?}");
        for _ in 0..MESSAGES {
            account.take(&Heard::Message(watcher.next_message()));
        }
    }
    assert_eq!((account.received(), account.missed()), (20 * MESSAGES, 0));
    daemon.end_well();
}

/// Some go before their Hello is whole, some behind it, some with much unread.
#[test]
fn clients_that_go_while_they_move_leave_no_file_behind_and_harm_nobody() {
    let daemon = start();
    let bystanders = Bystanders::start(&daemon);
    let ways = [daemon.v4(), daemon.v6(), daemon.unix()];
    let before = daemon.usage().open_files;
    for round in 0..600 {
        let mut client = Client::open(&ways[round % ways.len()]);
        client.hello_for(of_shard(round as u128 / 3 % 2));
        if round % 5 > 1 {
            client.ask_to_subscribe(&SubscribeRequest { filters: &["#"], ..Default::default() });
        }
        for _ in 0..round % 5 * 3 {
            client.publish("gone", &[0; 20_000]);
        }
        let mut said = client.take_outgoing();
        if round % 7 == 0 {
            said.truncate(60);
        }
        client.raw(&said);
        // The daemon may have ended it before it has said all.
        let _ = client.try_flush();
    }
    eventually("their files are closed", || daemon.usage().open_files <= before);
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn a_daemon_ends_well_while_connections_move() {
    let mut daemon = start();
    let ways = [daemon.v4(), daemon.unix()];
    let coming = AtomicBool::new(true);
    thread::scope(|scope| {
        for (shard, way) in (0..).zip(&ways) {
            let coming = &coming;
            scope.spawn(move || {
                while coming.load(Ordering::Relaxed) {
                    let Ok(socket) = way.connect(None) else { continue };
                    let mut client = Client::over(socket);
                    client.hello_for(of_shard(shard));
                    client.publish("t", &[0; 10_000]);
                    // The daemon may be gone at any point.
                    let _ = client.try_flush();
                    let _ = client.listen(Duration::from_millis(1));
                }
            });
        }
        let _stop = TurnOff(&coming);
        let mut welcomed = 0;
        while welcomed < 200 {
            let mut client = Client::open(&ways[welcomed % 2]);
            client.hello_for(of_shard(welcomed as u128 % 2));
            client.flush();
            let heard = client.listen(Duration::from_secs(30));
            assert!(matches!(heard, Listened::Heard(Heard::Welcome { .. })), "{heard:?}");
            welcomed += 1;
        }
        daemon.terminate();
        let ended = daemon.wait();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
        assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    });
}

#[test]
fn a_connection_beyond_the_limit_does_not_move_and_one_that_moved_keeps_its_place() {
    let daemon = Daemon::start(&["--shards", "2", "--max-connections", "4"]);
    let mut inside: Vec<Client> = (0..4)
        .map(|number| {
            let mut client = Client::open(&daemon.v4());
            client.hello_for(of_shard(number / 2));
            client.welcome();
            client
        })
        .collect();
    for shard in [0, 1, 0, 1] {
        let mut outside = Client::open(&daemon.v4());
        outside.hello_for(of_shard(shard));
        let complaint = outside.complaint();
        assert!(complaint.message.contains("4 connections"), "{complaint:?}");
    }
    for client in &mut inside {
        client.catch_up();
    }
    inside.clear();
    // All places are free again, and no more than there were.
    let mut again = Vec::new();
    eventually("four are let in", || {
        let mut client = Client::open(&daemon.v4());
        client.hello_for(of_shard(1));
        client.flush();
        if matches!(client.hear(), Heard::Welcome { .. }) {
            again.push(client);
        }
        again.len() == 4
    });
    let mut outside = Client::open(&daemon.v4());
    outside.hello_for(of_shard(0));
    outside.complaint();
    daemon.end_well();
}
