//! A subscriber whose process is killed goes on where its diary ends.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nexusd_tests::{Address, Application, Bystanders, Client, Daemon, TurnOff, eventually};

/// How often it is killed.
const DEATHS: usize = 5;
/// Lines that it writes at least between two deaths.
const LINES_BETWEEN: usize = 300;
/// Topics, so that more than one shard has some.
const TOPICS: usize = 4;
/// Messages to each topic between two rests.
const BATCH: u32 = 10;
/// Length of a rest.
const REST: Duration = Duration::from_millis(2);
/// Longest filling of a payload: one that gets a segment of its own.
const FILLING_MAX: usize = 40_000;

fn topic(number: usize) -> String {
    format!("diary/{number}")
}

/// The text of message `number`: now and then a long one.
fn text(number: u64) -> String {
    let filling = if number.is_multiple_of(499) { FILLING_MAX } else { number as usize % 200 };
    format!("{number} {}", "x".repeat(filling))
}

/// Publishes to all topics until told to stop; returns how many messages each topic has.
fn publish(mut publisher: Client, goes_on: &AtomicBool) -> u64 {
    let mut number = 0;
    while goes_on.load(Ordering::Relaxed) {
        for _ in 0..BATCH {
            number += 1;
            for at in 0..TOPICS {
                publisher.publish(&topic(at), text(number).as_bytes());
            }
        }
        publisher.catch_up();
        thread::sleep(REST);
    }
    number
}

/// Lines of a diary that are finished.
fn lines(diary: &Path) -> usize {
    std::fs::read(diary).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count())
}

/// Starts and kills the subscriber in turn, while messages flow.
fn nothing_is_lost_and_nothing_comes_twice(daemon: &Daemon, way: &Address) {
    let bystanders = Bystanders::start(daemon);
    let folder = tempfile::tempdir().expect("a folder");
    let diary = folder.path().join("diary");
    let start = || {
        let arguments =
            [way.to_string(), "diary/+".to_owned(), diary.to_string_lossy().into_owned()];
        Application::start(env!("CARGO_BIN_EXE_nexusd-diarist"), &arguments)
    };
    let mut diarist = start();
    diarist.wait_for("is subscribed");
    let goes_on = AtomicBool::new(true);
    let published = thread::scope(|scope| {
        let turn_off = TurnOff(&goes_on);
        let publishing = scope.spawn(|| publish(daemon.client(), &goes_on));
        for _ in 0..DEATHS {
            let enough = lines(&diary) + LINES_BETWEEN;
            eventually("messages are written down", || lines(&diary) >= enough);
            diarist.kill();
            diarist = start();
            diarist.wait_for("goes on");
        }
        drop(turn_off);
        publishing.join().expect("no panic")
    });
    let written = 1 + published as usize * TOPICS;
    eventually("everything is written down", || lines(&diary) >= written);
    let text_of_diary = std::fs::read_to_string(&diary).expect("a diary");
    let mut newest = vec![0; TOPICS];
    for line in text_of_diary.lines().skip(1) {
        let mut parts = line.splitn(3, ' ');
        let mut part = || parts.next().expect("topic, number and payload");
        let (of, sequence, payload) = (part(), part(), part());
        let at = (0..TOPICS).find(|at| of == topic(*at)).expect("one of the topics");
        newest[at] += 1;
        assert_eq!(sequence, newest[at].to_string(), "{of}: once, in order, without a hole");
        assert!(payload == text(newest[at]), "{of}: message {sequence} is itself");
    }
    assert_eq!(newest, vec![published; TOPICS]);
    bystanders.unharmed();
}

#[test]
fn a_subscriber_killed_again_and_again_goes_on_where_its_diary_ends_over_tcp() {
    let daemon = Daemon::start(&["--shards", "2"]);
    nothing_is_lost_and_nothing_comes_twice(&daemon, &daemon.v4());
    daemon.end_well();
}

#[test]
fn a_subscriber_killed_again_and_again_goes_on_where_its_diary_ends_over_the_unix_socket() {
    let daemon = Daemon::start(&["--shards", "2"]);
    nothing_is_lost_and_nothing_comes_twice(&daemon, &daemon.unix());
    daemon.end_well();
}
