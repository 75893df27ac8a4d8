//! The prompt and TOP on a real terminal.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nexusd_tests::eventually;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::canned::Canned;
use crate::screen::Screen;

const BINARY: &str = env!("CARGO_BIN_EXE_nexusd-cli");

/// The prompt in a terminal, with its history in this folder.
fn prompt(address: &str, state: &str) -> Screen {
    let screen = Screen::start(&[("XDG_STATE_HOME", state)]);
    screen.enter(&format!("{BINARY} -h {address}"));
    screen.wait_for(&format!("nexusd {address}>"));
    screen
}

/// Gives the line up, and waits for an empty one.
fn cancel(screen: &Screen) {
    screen.press("C-c");
    screen.wait("an empty line", |text| text.trim_end().ends_with('>'));
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn the_prompt_completes_commands_and_names_the_daemon_knows() {
    let daemon = Canned::start();
    let state = tempfile::tempdir().expect("a folder");
    let screen = prompt(&daemon.address, &state.path().display().to_string());
    screen.wait_for("connected to node");

    // The only one that begins so is completed at once, in the case it was begun in.
    screen.type_text("MES");
    screen.press("Tab");
    screen.wait_for("> MESH");
    screen.type_text("T");
    screen.press("Tab");
    screen.wait_for("> MESH TOPOLOGY");
    screen.press("Enter");
    screen.wait_for("does not answer: no route to host");

    // Several are offered.
    screen.type_text("p");
    screen.press("Tab");
    screen.wait("publish and pubsub are offered", |text| {
        text.contains("publish") && text.contains("pubsub")
    });
    cancel(&screen);

    // Topics and clients come from the daemon.
    screen.type_text("subscribe plant/b");
    screen.press("Tab");
    screen.wait_for("> subscribe plant/boiler/temperature");
    cancel(&screen);
    screen.type_text("CLIENT INFO ");
    screen.press("Tab");
    screen.wait_for("0-2-1");
    cancel(&screen);

    screen.enter("QUIT");
    screen.wait("the shell is back", |text| text.trim_end().ends_with('$'));
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn the_prompt_remembers_lines_from_one_start_to_the_next() {
    let daemon = Canned::start();
    let state = tempfile::tempdir().expect("a folder");
    let state = state.path().display().to_string();
    let screen = prompt(&daemon.address, &state);
    screen.enter("mesh status");
    screen.wait_for("queued for them");
    screen.press("C-d");
    screen.wait("the shell is back", |text| text.trim_end().ends_with('$'));
    drop(screen);

    let screen = prompt(&daemon.address, &state);
    screen.press("Up");
    screen.wait_for("> mesh status");
    screen.press("Enter");
    screen.wait_for("queued for them");
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn the_prompt_ends_with_its_terminal() {
    let daemon = Canned::start();
    let state = tempfile::tempdir().expect("a folder");
    let file = state.path().join("pid");
    let screen = Screen::start(&[("XDG_STATE_HOME", &state.path().display().to_string())]);
    let (pid, address) = (file.display(), &daemon.address);
    screen.enter(&format!("sh -c 'echo $$ > {pid}; exec {BINARY} -h {address}'"));
    // TOP catches the signal of a terminal that goes, and has ended.
    screen.wait_for(&format!("nexusd {address}>"));
    screen.enter("top");
    screen.wait_for("Slow consumers: 1");
    screen.press("q");
    screen.wait_for(&format!("nexusd {address}>"));
    let pid = std::fs::read_to_string(&file).expect("written before");
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process");
    drop(screen);
    eventually("it has ended", || test_kill_process(pid).is_err());
    let history = std::fs::read_to_string(state.path().join("nexusd/cli_history"));
    assert_eq!(history.expect("kept line by line"), "top\n");
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn ctrl_c_of_a_command_is_over_with_it() {
    let daemon = Canned::start();
    let state = tempfile::tempdir().expect("a folder");
    let file = state.path().join("pid");
    let screen = Screen::start(&[("XDG_STATE_HOME", &state.path().display().to_string())]);
    let (pid, address) = (file.display(), &daemon.address);
    screen.enter(&format!("sh -c 'echo $$ > {pid}; exec {BINARY} -h {address}'"));
    screen.wait_for(&format!("nexusd {address}>"));
    screen.enter("debug ping --count 2 --interval 1h");
    eventually("it measures", || daemon.pings.load(Ordering::Relaxed) >= 2);
    screen.press("C-c");
    screen.wait("the prompt is back", |text| text.trim_end().ends_with('>'));
    let pid = std::fs::read_to_string(&file).expect("written before");
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process");
    // Until a second one would count, and beyond.
    let until = Instant::now() + Duration::from_millis(600);
    while Instant::now() < until {
        kill_process(pid, Signal::INT).expect("it runs");
        screen.text();
    }
    // What the daemon knows comes through the thread that is told of signals: it has been told of all.
    screen.type_text("client info ");
    screen.press("Tab");
    screen.wait_for("0-2-1");
    cancel(&screen);
    screen.enter("mesh status");
    screen.wait_for("queued for them");
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn drain_asks_first() {
    let daemon = Canned::start();
    let state = tempfile::tempdir().expect("a folder");
    let screen = prompt(&daemon.address, &state.path().display().to_string());
    screen.enter("debug drain");
    screen.wait_for("[y/N]");
    screen.enter("no");
    screen.wait_for("nothing was done");
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn ctrl_c_ends_what_reads_from_the_terminal_and_the_prompt_reads_again() {
    let daemon = Canned::start();
    let state = tempfile::tempdir().expect("a folder");
    let screen = prompt(&daemon.address, &state.path().display().to_string());
    for (number, line, shown) in [(1, "debug drain", "[y/N]"), (2, "publish t -", "publish t -\n")]
    {
        screen.enter(line);
        screen.wait_for(shown);
        screen.press("C-c");
        screen.wait("the prompt is back", |text| {
            text.lines().rev().find(|line| !line.is_empty()).is_some_and(|it| it.ends_with('>'))
        });
        // Nothing that is typed goes anywhere else.
        screen.enter("mesh status");
        screen.wait("an answer", |text| text.matches("queued for them").count() == number);
    }
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn top_shows_a_daemon_live_and_gives_the_terminal_back() {
    let daemon = Canned::start();
    let screen = Screen::start(&[]);
    screen.enter("echo before");
    screen.wait_for("before\n");
    screen.enter(&format!("{BINARY} -h {} TOP --interval 200ms", daemon.address));
    screen.wait_for("Slow consumers: 1");
    // Once there is a difference there are rates.
    screen.wait("rates", |text| {
        text.lines().any(|line| line.contains("plant/boiler/temperature") && line.contains("/s"))
    });
    // Each view is told by what no other one shows.
    screen.press("Tab");
    screen.wait_for("order (rate)");
    screen.press("Tab");
    let text = screen.wait_for("order (queue)");
    assert!(text.contains("0-1-1"), "{text}");
    screen.press("4");
    let text = screen.wait_for("order (address)");
    assert!(text.contains("suspected"), "{text}");
    screen.press("s");
    screen.wait_for("order (queue)");
    // Any key closes the list of keys, and does nothing else.
    screen.press("?");
    let text = screen.wait_for("these keys");
    assert!(text.contains("any key closes this"), "{text}");
    screen.press("q");
    screen.wait("the list is closed", |text| {
        !text.contains("these keys") && text.contains("order (queue)")
    });
    // A narrow terminal keeps names, and gives up what matters less.
    screen.press("2");
    screen.wait_for("RETAINED");
    screen.resize(40, 15);
    let text =
        screen.wait("a narrow table", |text| text.contains("RATE") && !text.contains("MESSAGES"));
    assert!(text.contains("plant/boiler/temperature"), "{text}");
    screen.press("q");
    screen.wait("what was there before is back", |text| {
        text.contains("before") && !text.contains("q quit")
    });
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn top_gives_the_terminal_back_when_it_is_terminated() {
    let daemon = Canned::start();
    for is_in_the_prompt in [false, true] {
        let state = tempfile::tempdir().expect("a folder");
        let file = state.path().join("pid");
        let screen = Screen::start(&[("XDG_STATE_HOME", &state.path().display().to_string())]);
        let (pid, address) = (file.display(), &daemon.address);
        let command = if is_in_the_prompt { "" } else { "top" };
        screen.enter(&format!("sh -c 'echo $$ > {pid}; exec {BINARY} -h {address} {command}'"));
        if is_in_the_prompt {
            screen.wait_for(&format!("nexusd {address}>"));
            screen.enter("top");
        }
        screen.wait_for("Slow consumers: 1");
        let pid = std::fs::read_to_string(&file).expect("written before");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::TERM).expect("it runs");
        screen.wait("what was there before is back", |text| !text.contains("Slow consumers"));
        // Lines are edited by the kernel again, and what is typed is shown.
        screen.enter("stty -a");
        screen.wait("the terminal's modes", |text| {
            text.contains(" icanon") && text.contains(" echo ")
        });
    }
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn colours_come_only_where_they_are_wanted() {
    let daemon = Canned::start();
    for (variable, value, is_coloured) in
        [("NO_COLOR", "", true), ("NO_COLOR", "1", false), ("TERM", "dumb", false)]
    {
        let screen = Screen::start(&[]);
        let address = &daemon.address;
        screen.enter(&format!("{variable}={value} {BINARY} -h {address} mesh; echo done"));
        screen.wait_for("\ndone");
        assert_eq!(screen.coloured().contains('\x1b'), is_coloured, "{variable}={value}");
    }
}
