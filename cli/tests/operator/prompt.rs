//! The prompt without a terminal: a script of commands.

use std::net::TcpListener;

use rustix::process::Signal;

use crate::canned::{Canned, NODES};
use crate::cli::{Running, script};

#[test]
fn a_script_does_one_command_after_the_other() {
    let daemon = Canned::start();
    let said = script(&daemon.address, "# a remark\nping\n\nMESH status\nQUIT\nping\n");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_eq!(said.out.matches("PONG").count(), 1, "{}", said.out);
    assert!(said.out.contains("queued for them  12,345 messages"), "{}", said.out);
}

#[test]
fn a_script_goes_on_behind_a_failure_and_tells_it_at_the_end() {
    let daemon = Canned::start();
    let said = script(&daemon.address, "client info 9-9-9\nmesh up\nnonsense\nping 'x\nping\n");
    assert_eq!(said.code, Some(1));
    assert!(said.out.starts_with("PONG"), "{}", said.out);
    for part in ["there is no client 9-9-9", "'up'", "'nonsense'", "a quote is not closed"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
}

#[test]
fn the_prompt_turns_to_other_daemons() {
    let (first, second) = (Canned::start(), Canned::start());
    let lines = format!("disconnect\nping\nCONNECT {}\nping\nhelp client kill\n", second.address);
    let said = script(&first.address, &lines);
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.err,
        "error: not connected: CONNECT HOST:PORT, or CONNECT and a number that DISCOVER shows\n  in line 2\n"
    );
    assert!(said.out.contains(&format!("disconnected from {}\n", first.address)), "{}", said.out);
    let connected = format!("connected to node {} at {}\n", NODES[0], second.address);
    assert!(said.out.contains(&connected), "{}", said.out);
    assert!(said.out.contains(&format!("PONG from node {} at {}", NODES[0], second.address)));
    assert!(said.out.contains("Ends its connection"), "{}", said.out);
}

#[test]
fn a_command_does_not_read_the_lines_of_its_script() {
    let daemon = Canned::start();
    let said = script(&daemon.address, "publish t -\ndebug drain\nping\n");
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.err,
        "error: the standard input holds commands here; `-` is for a command of its own\n  in line 1\n\
         error: DEBUG DRAIN asks before it does anything; where nobody can answer, --yes does\n  in line 2\n"
    );
    assert!(said.out.starts_with("PONG"), "{}", said.out);
}

#[test]
fn what_follows_a_failed_connect_is_for_nobody() {
    let daemon = Canned::start();
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = closed.local_addr().expect("bound").to_string();
    drop(closed);
    for connect in
        [&format!("connect {nobody}"), "CONNECT a/b", "connect", "Connect 'x", "connect x y"]
    {
        let said = script(&daemon.address, format!("{connect}\nping\n"));
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{connect}: {}", said.err);
        assert!(said.err.contains("error: not connected: CONNECT"), "{connect}: {}", said.err);
    }
}

#[test]
fn a_line_that_is_no_text_is_told_and_the_next_one_is_done() {
    let daemon = Canned::start();
    let said = script(&daemon.address, b"publish t \xff\nping\n");
    assert_eq!(said.code, Some(1));
    let expected =
        "error: what is no UTF-8 cannot be given as a word; pass bytes through `-`\n  in line 1\n";
    assert_eq!(said.err, expected);
    assert!(said.out.starts_with("PONG"), "{}", said.out);
}

#[test]
fn a_signal_ends_a_script() {
    let daemon = Canned::start();
    // Between two lines, and amid a command.
    for lines in ["ping\n", "ping\ndebug ping --count 2 --interval 1h\nping\n"] {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
            let mut running = Running::script(&daemon.address);
            running.write(lines);
            assert!(running.line().is_some_and(|line| line.starts_with("PONG")));
            running.signal(signal);
            assert_eq!(running.ended(), Some(code));
            let rest = std::iter::from_fn(|| running.line());
            assert_eq!(rest.filter(|line| line.starts_with("PONG")).count(), 0);
        }
    }
}
