//! PUBLISH and SUBSCRIBE with a real daemon.

use nexusd_tests::Daemon;
use rustix::process::Signal;
use serde_json::Value;

use crate::cli::{Running, document, run, said};
use crate::documents::check;
use crate::wire::Wire;

fn address(daemon: &Daemon) -> String {
    format!(
        "127.0.0.1:{}",
        daemon.told("tcp").split(',').find_map(|it| it.strip_prefix("127.0.0.1:")).expect("a port")
    )
}

fn parsed(line: Option<String>) -> Value {
    serde_json::from_str(&line.expect("a line")).expect("a document on a line")
}

#[test]
fn a_published_message_arrives_with_everything_that_belongs_to_it() {
    let daemon = Daemon::start(&[]);
    let address = address(&daemon);
    // The retained value is there before anybody asks, and tells the subscriber to be ready.
    let published = document(&address, &["publish", "plant/state", "up", "--retain"]);
    check("publish", &published);
    let mut subscriber =
        Running::start(&address, &["--json", "SUBSCRIBE", "plant/#", "--retained", "--count", "2"]);
    let first = parsed(subscriber.line());
    check("subscribe", &first);
    assert_eq!((&first["delivery"], &first["payload"]), (&"retained".into(), &"up".into()));

    let published = document(
        &address,
        &[
            "PUBLISH",
            "plant/Mill",
            "Fast",
            "--type",
            "text/plain",
            "--ttl",
            "1h",
            "--header",
            "unit=rpm",
        ],
    );
    check("publish", &published);
    assert_eq!(published["delivered"], 1);
    let second = parsed(subscriber.line());
    check("subscribe", &second);
    assert_eq!((&second["topic"], &second["payload"]), (&"plant/Mill".into(), &"Fast".into()));
    assert_eq!(
        (&second["content_type"], &second["ttl_ms"]),
        (&"text/plain".into(), &3_600_000.into())
    );
    assert_eq!((&second["headers"]["unit"], &second["delivery"]), (&"rpm".into(), &"live".into()));
    assert_eq!(subscriber.line(), None);
    assert_eq!(subscriber.ended(), Some(0));
}

#[test]
fn a_payload_that_is_no_text_is_told_as_bytes_and_cannot_move_the_cursor() {
    let daemon = Daemon::start(&[]);
    let address = address(&daemon);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), b"\xff\x1b[2J").expect("written");
    let mut command = crate::cli::command(&address, &["publish", "raw", "-", "--retain"]);
    let output = command.stdin(std::fs::File::open(file.path()).expect("readable")).output();
    assert!(output.expect("the binary runs").status.success());
    let subscribe = ["subscribe", "raw", "--retained", "--count", "1"];
    let message = document(&address, &subscribe);
    check("subscribe", &message);
    assert_eq!(message["payload"], Value::Null);
    assert_eq!(message["payload_bytes"], serde_json::json!([0xff, 0x1b, 0x5b, 0x32, 0x4a]));
    let text = run(&address, &subscribe).out;
    assert_eq!(text, "raw #1 (retained): \\xff\\u{1b}[2J\n");
}

#[test]
fn ctrl_c_ends_a_subscription_in_good_order() {
    let daemon = Daemon::start(&[]);
    let address = address(&daemon);
    document(&address, &["publish", "t", "x", "--retain"]);
    let mut subscriber = Running::start(&address, &["subscribe", "t", "--retained"]);
    assert_eq!(subscriber.line().as_deref(), Some("t #1 (retained): x\n"));
    subscriber.interrupt();
    assert_eq!(subscriber.ended(), Some(0));
}

#[test]
fn what_is_probably_not_meant_is_told_beside_the_answer() {
    let daemon = Daemon::start(&[]);
    let address = address(&daemon);
    let said = run(&address, &["--json", "publish", "t", "x", "--ttl", "5"]);
    let told = "warning: --ttl 5 is 5ms: a number without a unit is in milliseconds; write 5s for seconds\n";
    assert_eq!((said.code, said.err.as_str()), (Some(0), told));
    document(&address, &["publish", "t", "x", "--retain"]);
    let subscribe = ["subscribe", "t", "a.b.*", "--retained", "--count", "1"];
    let said = run(&address, &subscribe);
    assert_eq!(said.out, "t #2 (retained): x\n");
    assert!(said.err.starts_with("note: `a.b.*` matches that name alone: "), "{}", said.err);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
}

#[test]
fn what_the_daemon_does_not_take_is_told() {
    let daemon = Daemon::start(&["--max-payload", "1K"]);
    let address = address(&daemon);
    let large = "x".repeat(2_000);
    for words in [&["publish", "a/#", "x"][..], &["publish", "t", &large], &["subscribe", "a/#/b"]]
    {
        let said = run(&address, words);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let daemon = Daemon::start(&[]);
    let address = address(&daemon);
    document(&address, &["publish", "t", "x", "--retain"]);
    let mut command = std::process::Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_nexusd-cli");
    // `true` reads nothing; the exit code that is printed is the one of the writer.
    command
        .args(["-c", "{ \"$0\" -h \"$1\" subscribe t --retained --count 1; echo $? >&2; } | true"]);
    command.args([binary, &address]);
    let said = said(command);
    assert_eq!(said.err, "0\n");
}

#[test]
fn a_subscription_outlives_its_connection_and_says_so() {
    let daemon = Daemon::start(&[]);
    let address = address(&daemon);
    let wire = Wire::to(&address);
    document(&address, &["publish", "t", "x", "--retain"]);
    let subscribe = ["subscribe", "t", "--retained", "--count", "2"];
    let mut subscriber = Running::start(&wire.address, &subscribe);
    assert_eq!(subscriber.line().as_deref(), Some("t #1 (retained): x\n"));
    wire.cut();
    document(&address, &["publish", "t", "y"]);
    assert!(subscriber.line().is_some_and(|line| line.ends_with(": y\n")));
    assert_eq!(subscriber.ended(), Some(0));
    let told = subscriber.told();
    assert!(told.contains("; trying again"), "{told}");
    assert!(told.contains("-- connected to node "), "{told}");
}

/// The subscriptions that the daemon knows, parked ones, too.
fn subscriptions(address: &str) -> usize {
    let document = document(address, &["debug", "subscriptions"]);
    document["subscriptions"].as_array().expect("a list").len()
}

#[test]
fn whatever_ends_a_subscription_leaves_nothing_behind() {
    let daemon = Daemon::start(&[]);
    let address = address(&daemon);
    document(&address, &["publish", "t", "x", "--retain"]);
    let subscribe = &["subscribe", "t", "--retained"][..];
    let monitor = &["monitor", "t", "--interval", "100ms"][..];
    for words in [subscribe, monitor] {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let mut running = Running::start(&address, words);
            assert!(running.line().is_some());
            assert_eq!(subscriptions(&address), 1);
            running.signal(signal);
            assert_eq!(running.ended(), Some(0));
            assert_eq!(subscriptions(&address), 0, "{words:?} {signal:?}");
        }
    }
    // Ended by an error: one of its filters is none.
    assert_eq!(run(&address, &["subscribe", "t", "a/#/b"]).code, Some(1));
    assert_eq!(subscriptions(&address), 0);
}

#[test]
fn monitor_goes_on_behind_a_silence_of_the_daemon() {
    let daemon = Daemon::start(&[]);
    let address = address(&daemon);
    let words = ["monitor", "t", "--interval", "100ms", "--timeout", "1s"];
    let mut monitor = Running::start_plainly(&address, &words);
    assert!(monitor.line().is_some());
    daemon.freeze();
    let told = monitor.told_line();
    assert!(told.starts_with("-- no report: the daemon at "), "{told}");
    daemon.thaw();
    assert_eq!(monitor.told_line(), "-- the daemon answers again\n");
    assert!(monitor.line().is_some());
    monitor.interrupt();
    assert_eq!(monitor.ended(), Some(0));
}

#[test]
fn an_address_may_name_its_interface() {
    let daemon = Daemon::start(&[]);
    let port = daemon.told("tcp").split(',').find_map(|it| it.strip_prefix("[::1]:"));
    let port = port.expect("a port");
    // The first one of each Linux is the one of the host itself.
    let said = run(&format!("[::1%1]:{port}"), &["ping"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains(&format!(" at [::1%1]:{port} after ")), "{}", said.out);
}

#[test]
fn what_becomes_of_the_retained_value_is_told() {
    let daemon = Daemon::start(&[]);
    let address = address(&daemon);
    for (payload, end) in
        [("x", ", retained, for nobody now\n"), ("", "clears the retained value, for nobody now\n")]
    {
        let said = run(&address, &["publish", "t", payload, "--retain"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.ends_with(end), "{}", said.out);
    }
}
