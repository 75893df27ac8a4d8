//! How a daemon starts, speaks of itself and ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nexusd_tests::{
    Account, Address, Bystanders, Client, Daemon, Heard, Listened, SOON, TurnOff, eventually,
    nexusd,
};
use nexusd_wire::SubscribeRequest;

/// Runs a daemon that cannot start; returns its one sentence.
fn refused(flags: &[&str]) -> String {
    let alone = ["--bind", "127.0.0.1", "--discovery", "off"];
    let output = nexusd().args(alone).args(flags).output().expect("it runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(output.stdout.is_empty(), "it never was ready");
    assert_eq!(complaint.lines().count(), 1, "one sentence: {complaint}");
    complaint
}

fn port(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.port().to_string(),
        Address::Unix(name) => panic!("{name} has no port"),
    }
}

#[test]
fn a_second_daemon_on_the_same_port_fails_and_the_first_goes_on() {
    let first = Daemon::start(&[]);
    let bystanders = Bystanders::start(&first);
    let port = port(&first.v4());
    let complaint = refused(&["--app-port", &port, "--unix-socket", "none", "--log-level", "warn"]);
    assert!(complaint.contains(&format!("127.0.0.1:{port}")), "{complaint}");
    assert!(complaint.contains("in use"), "{complaint}");
    bystanders.unharmed();
    first.end_well();
}

#[test]
fn a_second_daemon_on_the_same_unix_socket_fails_and_the_first_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let name = format!("@nexusd-tests/{}", std::process::id());
    for socket in [name.as_str(), &path.to_string_lossy()] {
        let first = Daemon::start(&["--unix-socket", socket]);
        let bystanders = Bystanders::start(&first);
        let complaint =
            refused(&["--app-port", "0", "--unix-socket", socket, "--log-level", "warn"]);
        assert!(complaint.contains(socket) && complaint.contains("in use"), "{complaint}");
        Client::connect(&Address::Unix(socket.to_owned())).catch_up();
        bystanders.unharmed();
        first.end_well();
    }
}

#[test]
fn a_socket_file_that_a_killed_daemon_left_is_taken_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket").to_string_lossy().into_owned();
    drop(Daemon::start(&["--unix-socket", &path]));
    assert!(std::fs::exists(&path).expect("a folder"), "a killed daemon cleans nothing up");
    // The kernel takes a moment to end what a killed process had in flight on its ring.
    let left_behind = Address::Unix(path.clone());
    eventually("nobody listens there", || left_behind.connect(None).is_err());
    let second = Daemon::start(&["--unix-socket", &path]);
    Client::connect(&second.unix()).catch_up();
    second.end_well();
}

#[test]
fn a_file_that_is_no_socket_is_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("letters").to_string_lossy().into_owned();
    std::fs::write(&path, "dear").expect("a file");
    let complaint = refused(&["--app-port", "0", "--unix-socket", &path, "--log-level", "warn"]);
    assert!(complaint.contains(&path) && complaint.contains("in use"), "{complaint}");
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "dear");
}

/// What one publisher knows when the daemon has ended.
struct Published {
    topic: String,
    /// Highest number that was acknowledged.
    acknowledged: u64,
    /// What Goodbye said.
    last_accepted: u64,
}

/// Publishes as fast as acknowledgements come, with at most 64 messages unanswered, until the daemon
/// says goodbye and closes.
fn publish_until_the_end(mut client: Client, topic: String, bytes: usize) -> Published {
    let payload = vec![0; bytes];
    let (mut published, mut acknowledged, mut last_accepted) = (0, 0, None);
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < SOON, "the daemon should have ended");
        while last_accepted.is_none() && published < acknowledged + 64 {
            published = client.publish_asking(&topic, &payload);
        }
        // Fails once the daemon has closed; what it said before is still there to read.
        let _ = client.try_flush();
        match client.listen(SOON) {
            Listened::Heard(Heard::PublishAck(entries)) => {
                assert_eq!(last_accepted, None, "acks come before goodbye");
                acknowledged = entries.last().expect("an entry").publisher_sequence;
            }
            Listened::Heard(Heard::Goodbye { last_accepted: last, .. }) => {
                last_accepted = Some(last);
            }
            Listened::End => {
                let last_accepted = last_accepted.expect("goodbye before the end");
                return Published { topic, acknowledged, last_accepted };
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sigterm_under_load_delivers_every_accepted_message_and_says_which_was_the_last() {
    let mut daemon = Daemon::start(&["--drain-timeout", "10s"]);
    let ways = [daemon.v4(), daemon.v6(), daemon.unix()];
    thread::scope(|scope| {
        let subscribers: Vec<_> = ways
            .iter()
            .map(|way| {
                let mut client = Client::connect(way);
                let subscription = client.subscribe_to_all(&["load/#"]);
                scope.spawn(move || {
                    let mut account = Account::new(subscription);
                    for heard in client.rest() {
                        account.take(&heard);
                    }
                    account
                })
            })
            .collect();
        let mut watcher = daemon.client();
        let subscription = watcher.subscribe_to_all(&["load/#"]);
        let mut account = Account::new(subscription);
        let publishers: Vec<_> = ways
            .iter()
            .enumerate()
            .map(|(number, way)| {
                let client = Client::connect(way);
                let bytes = [100, 2_000, 1_000][number];
                let topic = format!("load/{number}");
                scope.spawn(move || publish_until_the_end(client, topic, bytes))
            })
            .collect();
        while account.received() < 3_000 {
            account.take(&Heard::Message(watcher.next_message()));
        }
        daemon.terminate();
        for heard in watcher.rest() {
            account.take(&heard);
        }
        let published: Vec<Published> =
            publishers.into_iter().map(|publisher| publisher.join().expect("no panic")).collect();
        let mut accounts: Vec<Account> = subscribers
            .into_iter()
            .map(|subscriber| subscriber.join().expect("no panic"))
            .collect();
        accounts.push(account);
        for Published { topic, acknowledged, last_accepted } in &published {
            assert!(*acknowledged > 0, "{topic} was under load");
            assert_eq!(last_accepted, acknowledged, "{topic}: all that was accepted is acked");
            for account in &accounts {
                assert_eq!(account.newest(topic), *last_accepted, "{topic}");
            }
        }
        assert!(accounts.iter().all(|account| account.missed() == 0));
    });
    let ended = daemon.wait();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    assert!(ended.took < Duration::from_secs(10), "{:?}", ended.took);
    assert!(!ended.log.contains("did not take everything"), "{}", ended.log);
}

#[test]
fn a_draining_daemon_waits_for_a_subscriber_that_reads_on() {
    let mut daemon = Daemon::start(&["--drain-timeout", "30s"]);
    let mut subscriber = Client::connect_narrow(&daemon.v4());
    let subscription = subscriber.subscribe_to_all(&["t"]);
    let mut publisher = daemon.client();
    for _ in 0..5_000 {
        publisher.publish("t", &[0; 2_000]);
    }
    publisher.catch_up();
    daemon.terminate();
    publisher.wait_for("Goodbye", |heard| match heard {
        Heard::Goodbye { last_accepted, .. } => {
            assert_eq!(*last_accepted, 5_000);
            Some(())
        }
        _ => None,
    });
    assert!(daemon.is_running(), "ten megabytes are on their way");
    let mut account = Account::new(subscription);
    let rest = subscriber.rest();
    rest.iter().for_each(|heard| account.take(heard));
    assert_eq!((account.received(), account.missed()), (5_000, 0));
    let last_word = Heard::Goodbye { last_accepted: 0, is_complete: true };
    assert_eq!(rest.last(), Some(&last_word), "nothing follows");
    assert_eq!(daemon.wait().status.code(), Some(0));
}

#[test]
fn a_subscriber_that_does_not_read_holds_the_end_up_no_longer_than_the_grace_period() {
    let mut daemon = Daemon::start(&["--drain-timeout", "1s"]);
    let mut stalled = Client::connect_narrow(&daemon.v4());
    stalled.subscribe_to_all(&["t"]);
    let mut publisher = daemon.client();
    for _ in 0..5_000 {
        publisher.publish("t", &[0; 2_000]);
    }
    publisher.catch_up();
    daemon.terminate();
    let ended = daemon.wait();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    assert!(ended.took > Duration::from_millis(900), "{:?}", ended.took);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    assert!(ended.log.contains("did not take everything"), "{}", ended.log);
}

#[test]
fn a_draining_daemon_accepts_nobody() {
    let daemon = Daemon::start(&["--drain-timeout", "30s"]);
    let mut stalled = Client::connect_narrow(&daemon.v4());
    stalled.subscribe_to_all(&["t"]);
    let mut publisher = daemon.client();
    for _ in 0..5_000 {
        publisher.publish("t", &[0; 2_000]);
    }
    publisher.catch_up();
    daemon.terminate();
    publisher.wait_for("Goodbye", |heard| matches!(heard, Heard::Goodbye { .. }).then_some(()));
    eventually("the ports are closed", || {
        [daemon.v4(), daemon.v6(), daemon.unix()].iter().all(|way| way.connect(None).is_err())
    });
}

#[test]
fn statistics_come_once_a_second_and_are_json() {
    let daemon = Daemon::start(&[]);
    let mut watcher = daemon.client();
    let statistics = watcher.subscribe(&["$SYS/+/stats"]);
    // A leading wildcard does not match what is the daemon's.
    let everything = watcher.subscribe(&["#", "+/+/+"]);
    let mut publisher = daemon.client();
    let topic = daemon.statistics_topic();
    let mut times = Vec::new();
    for round in 0..4u64 {
        let message = watcher.next_message();
        times.push(Instant::now());
        assert_eq!((message.subscription, &*message.topic), (statistics, &*topic));
        let document: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
        assert_eq!(document["node"], daemon.told("node"));
        let counted = |name: &str| document["metrics"][name].as_u64().expect("a number");
        assert_eq!((counted("connections"), counted("subscriptions")), (2, 2), "{document}");
        if round > 0 {
            assert!(counted("messages_in") >= round * 10, "{document}");
        }
        for _ in 0..10 {
            assert_eq!(publisher.publish_accepted("counted/by/it", b"").delivered, 1);
            assert_eq!(watcher.next_message().subscription, everything);
        }
    }
    for pair in times.windows(2) {
        let between = pair[1] - pair[0];
        assert!(between > Duration::from_millis(700), "{between:?}");
        assert!(between < Duration::from_millis(1_800), "{between:?}");
    }
    daemon.end_well();
}

#[test]
fn a_daemon_survives_clients_that_come_and_go_while_it_ends() {
    let mut daemon = Daemon::start(&[]);
    let ways = [daemon.v4(), daemon.unix()];
    let coming = AtomicBool::new(true);
    thread::scope(|scope| {
        for way in &ways {
            scope.spawn(|| {
                while coming.load(Ordering::Relaxed) {
                    let Ok(socket) = way.connect(None) else { continue };
                    let mut client = Client::over(socket);
                    client.hello();
                    let request = SubscribeRequest { filters: &["#"], ..Default::default() };
                    client.ask_to_subscribe(&request);
                    client.publish("t", &[0; 10_000]);
                    // The daemon may be gone at any point.
                    let _ = client.try_flush();
                    let _ = client.listen(Duration::from_millis(1));
                }
            });
        }
        let _stop = TurnOff(&coming);
        thread::sleep(Duration::from_millis(300));
        daemon.terminate();
        let ended = daemon.wait();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
        assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    });
}
