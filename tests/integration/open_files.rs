//! A daemon that has run out of file descriptors.

use std::time::{Duration, Instant};

use nexusd_tests::http2::WIDEST;
use nexusd_tests::{Bystanders, Client, Daemon, Heard, Http2, Listened, eventually};

/// What the daemon may open: enough to start, with few connections.
const OPEN_FILES: u32 = 120;
/// Longest wait for a Welcome before a connection counts as not accepted.
const PATIENCE: Duration = Duration::from_millis(500);

/// Connects until a connection is not accepted; returns those that are, and those that wait.
fn use_up(daemon: &Daemon) -> (Vec<Client>, Vec<Client>) {
    let mut accepted = Vec::new();
    loop {
        let mut client = say_hello(daemon);
        match client.listen(PATIENCE) {
            Listened::Heard(Heard::Welcome { .. }) => accepted.push(client),
            Listened::Silence => {
                let mut waiting = vec![client];
                waiting.extend((0..20).map(|_| say_hello(daemon)));
                return (accepted, waiting);
            }
            other => panic!("{other:?}"),
        }
        assert!(accepted.len() < OPEN_FILES as usize, "descriptors should have run out");
    }
}

fn say_hello(daemon: &Daemon) -> Client {
    let mut client = Client::open(&daemon.v4());
    client.hello();
    client.flush();
    client
}

#[test]
fn out_of_file_descriptors_clients_go_on_and_new_ones_wait_until_some_are_free() {
    let daemon = Daemon::start_with_open_files(OPEN_FILES, &[]);
    let bystanders = Bystanders::start(&daemon);
    let (mut accepted, mut waiting) = use_up(&daemon);
    assert!(accepted.len() > 10, "{} connections", accepted.len());
    for client in &mut accepted {
        client.catch_up();
    }
    // Each that leaves makes room for one that waits.
    accepted.truncate(accepted.len() - waiting.len().min(accepted.len()));
    for client in &mut waiting {
        client.welcome();
        client.catch_up();
    }
    for client in &mut accepted {
        client.catch_up();
    }
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn a_flood_of_grpc_leaves_the_files_of_native_clients_alone() {
    let daemon = Daemon::start_with_open_files(400, &[]);
    let told =
        "at most 252 of --max-connections 10000 can be had, and 21 of 1024 connections and calls";
    assert!(daemon.log().contains(told), "{}", daemon.log());
    let flood: Vec<_> = [daemon.v4(), daemon.unix()]
        .iter()
        .flat_map(|address| (0..300).map(|_| Http2::connect(address, WIDEST)))
        .collect();
    let mut natives: Vec<Client> = (0..200).map(|_| say_hello(&daemon)).collect();
    for client in &mut natives {
        client.welcome();
    }
    drop(flood);
    daemon.end_well();
}

#[test]
fn out_of_file_descriptors_the_daemon_does_not_spin() {
    let daemon = Daemon::start_with_open_files(OPEN_FILES, &[]);
    let (mut accepted, waiting) = use_up(&daemon);
    let (before, since) = (daemon.usage().cpu, Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let used = daemon.usage().cpu - before;
    let share = used.as_secs_f64() / since.elapsed().as_secs_f64();
    assert!(share < 0.05, "{:.1} % of a CPU while nothing can be accepted", share * 100.0);
    for client in &mut accepted {
        client.catch_up();
    }
    // Those that gave up waiting are no burden either.
    drop(waiting);
    drop(accepted);
    eventually("the daemon accepts again", || {
        let mut client = say_hello(&daemon);
        matches!(client.listen(PATIENCE), Listened::Heard(Heard::Welcome { .. }))
    });
    daemon.end_well();
}
