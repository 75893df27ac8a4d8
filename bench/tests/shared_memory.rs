//! The shared-memory prototype between real processes.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use nexusd_bench::shared_ring::{Connection, Event, Until, wait};
use nexusd_wire::{Cut, FrameCutter, Sequence};

const BINARY: &str = env!("CARGO_BIN_EXE_nexusd-shm");
const RING_BYTES: usize = 64 << 10;

/// A run fails by itself if a message is lost, repeated, misplaced or numbered wrongly.
fn run(way: &str) {
    for bytes in ["16", "5000", "400000"] {
        let output = Command::new(BINARY).args(["run", way, bytes, "100"]).output().expect("a run");
        assert!(output.status.success(), "{way} {bytes}: {output:?}");
    }
}

#[test]
fn frames_go_through_three_processes_over_sockets() {
    run("socket");
}

#[test]
fn frames_go_through_three_processes_from_ring_to_ring() {
    run("ring");
}

#[test]
fn frames_go_through_three_processes_by_way_of_a_log() {
    run("ring-by-log");
}

#[test]
fn a_killed_publisher_is_noticed_and_what_it_wrote_is_still_read() {
    let name = format!("nexusd-shm-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("a listener");
    let mut publisher = Command::new(BINARY)
        .args(["publisher", &name, "ring", "128", "15000"])
        .stderr(Stdio::null())
        .spawn()
        .expect("a publisher");
    let (mut socket, _) = listener.accept().expect("a connection");
    std::io::Read::read_exact(&mut socket, &mut [0]).expect("its role");
    let mut connection = Connection::offer(socket, RING_BYTES).expect("an offer");
    let mut cutter = FrameCutter::new(1 << 20, 1 << 20, usize::MAX);
    let mut buffer = vec![0; RING_BYTES];
    let mut received = 0;
    let mut is_gone = false;
    loop {
        connection.reader.look().expect("an honest client");
        let read = connection.reader.read(&mut buffer);
        connection.release().expect("never waits");
        let mut bytes = &buffer[..read];
        while let Cut::Frame(frame) = cutter.next(&mut bytes).expect("whole frames") {
            received += 1;
            assert_eq!(frame.header().origin_sequence(), Sequence(received));
            if received == 1000 {
                publisher.kill().expect("it runs");
            }
        }
        if read > 0 {
            continue;
        }
        if is_gone {
            break;
        }
        let wanted = [(&mut connection, Until::MoreToRead)];
        is_gone = wait(wanted, Duration::ZERO).expect("an event") != Event::Ready;
    }
    publisher.wait().expect("its end");
    assert!(received >= 1000, "what it wrote is read: {received}");
}

#[test]
fn nonsense_on_the_command_line_is_an_error_and_no_panic() {
    for arguments in [&["--pairs", "0"][..], &["run", "carrier-pigeon", "1", "1"], &["what"]] {
        let output = Command::new(BINARY).args(arguments).output().expect("a run");
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.is_empty() && !said.contains("panicked"), "{said}");
    }
}
