//! What goes wrong is one sentence on stderr that says what to do; 1 is a failure, 2 is bad usage.

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::atomic::Ordering;

use crate::canned::Canned;
use crate::cli::{Running, command, run, said};

/// The sentence of a command that fails.
fn sentence(address: &str, words: &[&str]) -> String {
    for words in [words.to_vec(), [&["--json"], words].concat()] {
        let said = run(address, &words);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{words:?}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{words:?}: {}", said.err);
    }
    run(address, words).err
}

#[test]
fn nobody_there_is_told_with_what_helps() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closed.local_addr().expect("bound").to_string();
    drop(closed);
    for words in
        [&["info"][..], &["publish", "t", "x"], &["subscribe", "#"], &["monitor"], &["ping"]]
    {
        let expected = format!(
            "error: no daemon answers at {address} (Connection refused (os error 111)): is nexusd running there? `nexusd-cli discover` \
             finds daemons\n"
        );
        assert_eq!(sentence(&address, words), expected);
    }
}

#[test]
fn somebody_who_closes_the_connection_is_not_nobody() {
    let closing = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closing.local_addr().expect("bound").to_string();
    std::thread::spawn(move || closing.incoming().for_each(drop));
    for words in [&["info"][..], &["publish", "t", "x"], &["monitor"], &["ping"]] {
        let told = sentence(&address, words);
        let expected = format!("error: {address} took the connection and closed it: another port ");
        assert!(told.starts_with(&expected), "{told}");
    }
}

#[test]
fn a_port_for_http_is_told_as_such() {
    let http = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = http.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for mut connection in http.incoming().flatten() {
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            // Closed with bytes unread it would be reset, and the answer lost.
            std::thread::spawn(move || std::io::copy(&mut connection, &mut std::io::sink()));
        }
    });
    let told = sentence(&address, &["publish", "t", "x"]);
    let expected = format!("error: {address} is no port for applications: it is a port for HTTP (");
    assert!(told.starts_with(&expected), "{told}");
}

#[test]
fn a_daemon_without_room_for_a_connection_is_told_from_none() {
    let daemon = nexusd_tests::Daemon::start(&["--max-connections", "1"]);
    let _first = daemon.client();
    let address = daemon.told("tcp").split(',').next().expect("an address").to_owned();
    let told = sentence(&address, &["ping"]);
    assert!(told.contains("(--max-connections)"), "{told}");
}

#[test]
fn numbers_of_subscriptions_are_for_topics_alone() {
    let daemon = Canned::start();
    let told = sentence(&daemon.address, &["pubsub", "numsub", "plant/mill/speed", "plant/+"]);
    assert!(told.starts_with("error: `plant/+` is no topic: "), "{told}");
}

#[test]
fn silence_ends_at_the_timeout() {
    // It accepts connections, in its backlog, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let mut command = command(&address, &["ping"]);
    command.args(["--timeout", "300"]);
    let said = said(command);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains(&format!("{address} did not answer within 300 ms")), "{}", said.err);
}

#[test]
fn what_the_daemon_refuses_is_told_in_its_words() {
    let daemon = Canned::start();
    let told = sentence(&daemon.address, &["debug", "drain", "--yes"]);
    assert!(told.ends_with(" says: drain is taken from this host alone\n"), "{told}");
    let told = sentence(&daemon.address, &["pubsub", "topics", "a/#/b"]);
    assert!(told.contains("# stands at the end only"), "{told}");
}

#[test]
fn clients_that_are_not_there_are_told() {
    let daemon = Canned::start();
    for words in [
        &["client", "info", "9-9-9"][..],
        &["client", "kill", "9-9-9"],
        &["client", "setname", "9-9-9", "x"],
    ] {
        let told = sentence(&daemon.address, words);
        assert!(told.starts_with("error: there is no client 9-9-9 at "), "{told}");
    }
}

#[test]
fn what_is_for_the_prompt_says_so() {
    let daemon = Canned::start();
    assert!(sentence(&daemon.address, &["CONNECT", "x"]).contains("CONNECT is for the prompt"));
    assert!(sentence(&daemon.address, &["DISCONNECT"]).contains("DISCONNECT is for the prompt"));
}

#[test]
fn what_cannot_be_done_here_says_why() {
    let daemon = Canned::start();
    assert!(
        sentence(&daemon.address, &["request", "t", "x"]).contains("request/reply is not part")
    );
    assert!(sentence(&daemon.address, &["top"]).contains("TOP draws on a terminal"));
    assert!(sentence(&daemon.address, &["debug", "drain"]).contains("--yes"));
}

#[test]
fn what_is_no_text_is_no_argument() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut command = command("127.0.0.1", &["publish", "t"]);
    command.arg(std::ffi::OsStr::from_bytes(b"\xff"));
    let said = said(command);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    let expected = "error: what is no UTF-8 cannot be given as a word; pass bytes through `-`\n";
    assert_eq!(said.err, expected);
}

#[test]
fn ctrl_c_ends_a_subscription_that_is_not_there_yet() {
    // It accepts connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    for command in ["subscribe", "monitor"] {
        let mut running = Running::start(&address, &[command, "t"]);
        let questions = silent.accept().expect("a connection");
        let messages = silent.accept().expect("a connection");
        running.interrupt();
        assert_eq!(running.ended(), Some(0));
        drop((questions, messages));
    }
}

#[test]
fn ctrl_c_ends_a_measurement_with_what_was_measured() {
    let daemon = Canned::start();
    let words = ["debug", "ping", "--count", "100000", "--interval", "1ms"];
    let mut running = Running::start(&daemon.address, &words);
    // The first one has its answer once there is a second one.
    nexusd_tests::eventually("it measures", || daemon.pings.load(Ordering::Relaxed) >= 2);
    running.interrupt();
    let line = running.line().expect("a summary");
    assert!(line.contains(" of node ") && line.contains(": min "), "{line}");
    assert_eq!(running.ended(), Some(0));
}

#[test]
fn a_second_signal_ends_what_does_not_come_to_its_end() {
    let daemon = Canned::start();
    let mut running = Running::script(&daemon.address);
    // More than a pipe holds, and nobody reads it.
    running.write(&"help\n".repeat(1_000));
    assert!(running.line().is_some());
    nexusd_tests::eventually("it is ended", || {
        running.interrupt();
        running.has_ended()
    });
    assert_eq!(running.ended(), Some(130));
}

#[test]
fn bad_usage_is_another_exit_code() {
    for words in [&["publish", "t"][..], &["nonsense"], &["mesh", "up"], &["info", "--port", "0"]] {
        let said = run("127.0.0.1", words);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{words:?}: {}", said.err);
    }
    let said = run("a/b", &["info"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{}", said.err);
    assert!(said.err.starts_with("error: bad address `a/b`: "), "{}", said.err);
}
