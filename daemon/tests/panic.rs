//! A panic in a shard ends the process. The process that panics is this test binary itself, run once
//! more for the one test that is otherwise left out.

use std::process::Command;
use std::thread;

use nexusd::config::{LogFormat, LogLevel};
use nexusd::{logging, panic_hook};

#[test]
fn a_panic_in_a_shard_ends_the_process_and_the_log_says_which_and_why() {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "panicking_process", "--ignored", "--nocapture"])
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(panic_hook::EXIT_CODE)), "{stderr}");
    let line = stderr
        .lines()
        .find(|line| line.contains("shard-0 panicked: the log lost a segment"))
        .unwrap_or_else(|| panic!("the reason in {stderr}"));
    assert!(line.contains("ERROR") && line.contains("tests/panic.rs"), "{line}");
}

#[test]
#[ignore = "ends its process; run by the test above"]
fn panicking_process() {
    logging::start(LogLevel::Info, LogFormat::Text);
    panic_hook::end_process_on_panic();
    let shard = thread::Builder::new()
        .name("shard-0".to_owned())
        .spawn(|| panic!("the log lost a segment"))
        .expect("a thread");
    let _ = shard.join();
    unreachable!("the panic should have ended the process");
}
