//! How a daemon comes to its driver: what was asked for, and what the host allows. The sandboxes are
//! real: a seccomp filter, as container runtimes install it.
#![allow(dead_code, reason = "each test file uses its part of the harness")]

mod application;
mod running;

use std::net::SocketAddr;
use std::thread;

use application::Application;
use nexusd_wire::FrameKind;
use running::{Daemon, nexusd, run};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What sandboxes answer: those that know the call and refuse it, and those that do not know it.
const REFUSALS: [i32; 2] = [libc::EPERM, libc::ENOSYS];

/// Runs `inside` where io_uring is refused with this error number, to it and to whatever it starts.
fn without_io_uring<T: Send>(errno: i32, inside: impl FnOnce() -> T + Send) -> T {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let filter = SeccompFilter::new(
        calls.into_iter().map(|call| (call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with seccomp"),
    );
    let program: BpfProgram = filter.and_then(|filter| filter.try_into()).expect("a filter");
    thread::scope(|scope| {
        let confined = scope.spawn(move || {
            // Holds for this thread and its children alone.
            seccompiler::apply_filter(&program).expect("a kernel with seccomp");
            inside()
        });
        confined.join().expect("no panic")
    })
}

fn lines_with<'a>(log: &'a str, text: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(text)).collect()
}

/// A message goes through it, and its statistics come.
fn assert_serves(daemon: &Daemon) {
    let address: SocketAddr = daemon.told("tcp").parse().expect("an address");
    let mut subscriber = Application::connect(address);
    subscriber.subscribe("prices/#");
    let mut publisher = Application::connect(address);
    publisher.publish("prices/wheat", b"250", 1);
    assert_eq!(subscriber.until(FrameKind::Message).payload, b"250");
    let mut watcher = Application::connect(address);
    watcher.subscribe("$SYS/+/stats");
    watcher.until(FrameKind::Message);
}

#[test]
fn where_io_uring_is_refused_auto_takes_epoll_and_says_why_in_one_line() {
    for errno in REFUSALS {
        let mut daemon = without_io_uring(errno, || Daemon::start(&[]));
        assert_eq!(daemon.told("io"), "epoll");
        assert_serves(&daemon);
        let (status, log) = daemon.terminate();
        assert_eq!(status.code(), Some(0), "{log}");
        let [warning] = lines_with(&log, "WARN")[..] else {
            panic!("one warning: {log}");
        };
        assert!(warning.contains("io_uring cannot be used: "), "{warning}");
        assert!(warning.contains("runs on epoll instead"), "{warning}");
    }
}

#[test]
fn where_io_uring_is_refused_uring_is_no_start() {
    for errno in REFUSALS {
        let output =
            without_io_uring(errno, || run(&[&running::ALONE[..], &["--io", "uring"]].concat()));
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty(), "it never was ready");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.starts_with("nexusd: io_uring cannot be used: "), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn epoll_can_be_chosen_and_warns_of_nothing() {
    for errno in REFUSALS {
        let mut daemon = without_io_uring(errno, || Daemon::start(&["--io", "epoll"]));
        assert_eq!(daemon.told("io"), "epoll");
        assert_serves(&daemon);
        let (status, log) = daemon.terminate();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(lines_with(&log, "WARN").is_empty(), "{log}");
        assert_eq!(lines_with(&log, "runs on epoll").len(), 1, "{log}");
    }
}

#[test]
fn where_only_glommio_lacks_memory_auto_goes_on_without_it_and_says_so_in_one_line() {
    let mut shell = running::without_settings("sh");
    shell.args(["-c", "ulimit -l 64 && exec \"$0\" \"$@\""]);
    shell.arg(nexusd().get_program()).args(running::ALONE);
    let mut daemon = Daemon::start_command(shell);
    assert_eq!(daemon.told("io"), "uring");
    assert_serves(&daemon);
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    let [warning] = lines_with(&log, "WARN")[..] else {
        panic!("one warning: {log}");
    };
    assert!(warning.contains("the control thread "), "{warning}");
    assert!(warning.contains("goes on without glommio"), "{warning}");
}
