//! Limits per source address. All of 127.0.0.0/8 is this host, so one test has many sources.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nexusd_tests::{Address, Client, Daemon, Heard, eventually};
use nexusd_wire::control::{ErrorCode, PublishStatus};
use socket2::{Domain, Socket, Type};

/// A client whose address ends with `host`, not yet greeted.
fn open_from(daemon: &Daemon, host: u8) -> Client {
    let Address::Tcp(address) = daemon.v4() else { panic!("a TCP port") };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    socket.bind(&own.into()).expect("a loopback address");
    socket.connect(&address.into()).expect("a listener");
    socket.set_tcp_nodelay(true).expect("an option");
    Client::over(socket)
}

fn client_from(daemon: &Daemon, host: u8) -> Client {
    let mut client = open_from(daemon, host);
    client.hello();
    client.welcome();
    client
}

/// A client from there is refused; what it is told.
fn refused_from(daemon: &Daemon, host: u8) -> String {
    let mut outside = open_from(daemon, host);
    let complaint = outside.complaint();
    assert_eq!((complaint.code, complaint.fatal), (ErrorCode::LimitReached, true), "{complaint:?}");
    complaint.message
}

/// The counters, once `is_due` says that they are up to date.
fn wait_for_statistics(daemon: &Daemon, is_due: impl Fn(&dyn Fn(&str) -> u64) -> bool) {
    let mut watcher = Client::connect(&daemon.unix());
    watcher.subscribe(&["$SYS/+/stats"]);
    eventually("the statistics count it", || {
        let message = watcher.next_message();
        let document: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
        is_due(&|name| document["metrics"][name].as_u64().expect("a number"))
    });
}

#[test]
fn a_source_with_all_its_connections_is_told_so_while_others_connect() {
    let daemon = Daemon::start(&["--shards", "2", "--max-connections-per-source", "3"]);
    let mut inside: Vec<Client> = (0..3).map(|_| client_from(&daemon, 2)).collect();
    for _ in 0..20 {
        let told = refused_from(&daemon, 2);
        assert!(told.starts_with("127.0.0.2 has 3 connections"), "{told}");
        assert!(told.contains("--max-connections-per-source"), "{told}");
    }
    let mut others: Vec<Client> = (3..20).map(|host| client_from(&daemon, host)).collect();
    for _ in 0..5 {
        others.push(Client::connect(&daemon.unix()));
    }
    for client in inside.iter_mut().chain(&mut others) {
        client.catch_up();
    }
    wait_for_statistics(&daemon, |counted| counted("source_connections_refused") == 20);

    inside.pop();
    eventually("the place that became free is given away", || {
        let mut client = open_from(&daemon, 2);
        client.hello();
        client.flush();
        matches!(client.hear(), Heard::Welcome { .. })
    });
    daemon.end_well();
}

#[test]
fn ipv6_has_its_own_source() {
    let daemon = Daemon::start(&["--max-connections-per-source", "1"]);
    let _v4 = Client::connect(&daemon.v4());
    let _v6 = Client::connect(&daemon.v6());
    let complaint = Client::open(&daemon.v6()).complaint();
    assert!(complaint.message.starts_with("::/64 has 1 connections"), "{complaint:?}");
    daemon.end_well();
}

#[test]
fn a_source_that_connects_too_fast_is_told_so_while_others_connect() {
    let daemon = Daemon::start(&["--shards", "2", "--accept-rate-per-source", "5"]);
    let begun = Instant::now();
    let (mut welcomed, mut refused) = (0, 0);
    while refused < 20 {
        let mut client = open_from(&daemon, 2);
        client.hello();
        match client.try_flush().map(|()| client.hear()) {
            Ok(Heard::Welcome { .. }) => welcomed += 1,
            Ok(Heard::Error(complaint)) => {
                assert_eq!(complaint.code, ErrorCode::LimitReached, "{complaint:?}");
                assert!(complaint.message.contains("--accept-rate-per-source"), "{complaint:?}");
                refused += 1;
            }
            // It was refused and closed before it had said anything.
            Err(_) => refused += 1,
            Ok(other) => panic!("Welcome or a complaint, not {other:?}"),
        }
    }
    let most = 5.0 * (begun.elapsed().as_secs_f64() + 1.0);
    assert!(welcomed >= 5 && f64::from(welcomed) <= most, "{welcomed} of at most {most}");
    for host in 3..20 {
        client_from(&daemon, host).catch_up();
    }
    wait_for_statistics(&daemon, |counted| counted("source_accepts_refused") == 20);
    eventually("time has passed", || {
        let mut client = open_from(&daemon, 2);
        client.hello();
        client.try_flush().is_ok() && matches!(client.hear(), Heard::Welcome { .. })
    });
    daemon.end_well();
}

#[test]
fn a_source_that_publishes_too_fast_is_refused_what_is_too_much_and_others_are_not() {
    const RATE: u64 = 200;
    let daemon = Daemon::start(&["--shards", "2", "--publish-rate-per-source", "200"]);
    let mut subscriber = Client::connect(&daemon.unix());
    subscriber.subscribe(&["fast", "slow"]);
    // Two connections, which live on different shards.
    let mut fast = [client_from(&daemon, 2), client_from(&daemon, 2)];
    let mut slow = client_from(&daemon, 3);
    let begun = Instant::now();
    for publisher in &mut fast {
        for _ in 0..1_000 {
            publisher.publish_asking("fast", b"x");
        }
        publisher.flush();
    }
    let mut accepted = 0;
    for publisher in &mut fast {
        let mut answered = 0;
        while answered < 1_000 {
            let Heard::PublishAck(entries) = publisher.hear() else { panic!("an answer") };
            for entry in entries {
                answered += 1;
                assert_eq!(entry.publisher_sequence, answered, "in order");
                match entry.status {
                    PublishStatus::Accepted => accepted += 1,
                    status => assert_eq!(status, PublishStatus::LimitReached, "{entry:?}"),
                }
            }
        }
    }
    // Each of two shards may take a second's worth before it hears of the other.
    let most = RATE as f64 * (begun.elapsed().as_secs_f64() + 2.0);
    assert!(accepted >= RATE && (accepted as f64) <= most, "{accepted} of at most {most}");
    for _ in 0..100 {
        slow.publish_accepted("slow", b"y");
    }
    let mut delivered = [0, 0];
    for _ in 0..accepted + 100 {
        delivered[usize::from(&*subscriber.next_message().topic == "slow")] += 1;
    }
    assert_eq!(delivered, [accepted, 100], "what was accepted, and nothing else");
    let refused = 2_000 - accepted;
    wait_for_statistics(&daemon, |counted| {
        counted("source_messages_refused") == refused && counted("rejected") == refused
    });
    daemon.end_well();
}

#[test]
fn a_flood_that_wants_no_acknowledgement_is_told_once_a_second() {
    let daemon = Daemon::start(&["--publish-rate-per-source", "100"]);
    let mut publisher = client_from(&daemon, 2);
    let begun = Instant::now();
    let mut told = Vec::new();
    while begun.elapsed() < Duration::from_millis(2_500) {
        for _ in 0..1_000 {
            publisher.publish("flood", b"x");
        }
        publisher.ping(7);
        publisher.flush();
        loop {
            match publisher.hear() {
                Heard::Error(complaint) => told.push(complaint),
                Heard::Pong(7) => break,
                other => panic!("a complaint or the pong, not {other:?}"),
            }
        }
    }
    let seconds = begun.elapsed().as_secs() as usize;
    assert!((2..=seconds + 1).contains(&told.len()), "{seconds} s: {told:?}");
    for complaint in &told {
        assert_eq!((complaint.code, complaint.fatal), (ErrorCode::LimitReached, false));
        assert!(complaint.message.contains("more than 100 messages a second"), "{complaint:?}");
    }
    assert!(told[1].message.contains("more were refused since"), "{told:?}");
    publisher.catch_up();
    daemon.end_well();
}
