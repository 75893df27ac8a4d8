//! What the driver does when file descriptors run out. A binary of its own, since the limit is the
//! process's.
#![cfg(feature = "uring")]

mod driver_rig;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use driver_rig::echo::Echo;
use driver_rig::{Io, PATIENCE, Rig, eventually, ping};
use nexusd_core::Command;
use nexusd_core::limits::ACCEPT_RETRY_US;

fn accepts_failed(rig: &Rig<Echo>) -> u64 {
    rig.commands.send(Command::Sample).expect("room");
    rig.metrics.recv_timeout(PATIENCE).expect("a sample").accepts_failed
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("this process's descriptors").count()
}

fn run_out_of_descriptors(io: Io) {
    let descriptors_at_first = open_descriptors();
    let echo = Echo::default();
    let gauges = Arc::clone(&echo.gauges);
    let rig = Rig::on_loopback(io, echo);
    let mut before = rig.connect();
    ping(&mut before);

    // Take every descriptor but the one that the next client needs.
    let mut fillers = Vec::new();
    while let Ok(filler) = File::open("/dev/null") {
        fillers.push(filler);
    }
    fillers.pop();
    let mut waiting = rig.connect();
    waiting.write_all(b"ping").expect("a write");

    let begun = Instant::now();
    eventually("accepting fails", || accepts_failed(&rig) >= 1);
    let first = accepts_failed(&rig);
    eventually("it is tried again", || accepts_failed(&rig) >= first + 3);
    assert!(
        begun.elapsed() >= Duration::from_micros(2 * ACCEPT_RETRY_US),
        "tried again in a hurry"
    );
    ping(&mut before);
    assert_eq!(gauges.opened.value(), 1);

    // A closed connection of the driver's own frees a descriptor as well.
    drop(before);
    let mut back = [0; 4];
    std::io::Read::read_exact(&mut waiting, &mut back).expect("the echo answers");
    assert_eq!(&back, b"ping");

    fillers.clear();
    let mut after: Vec<_> = (0..20).map(|_| rig.connect()).collect();
    after.iter_mut().for_each(ping);
    drop((waiting, after));
    eventually("all are closed", || gauges.closed.value() == gauges.opened.value());
    rig.stop();
    assert_eq!(open_descriptors(), descriptors_at_first);
}

/// One after the other, since the limit is shared.
#[test]
fn a_listener_without_descriptors_waits_calmly_and_accepts_when_there_are_some() {
    for io in [Io::Uring, Io::Epoll] {
        run_out_of_descriptors(io);
    }
}
