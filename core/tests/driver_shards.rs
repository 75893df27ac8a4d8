//! Two loops, as a node with two shards has them, on real sockets.
#![cfg(feature = "uring")]

mod driver_rig;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use driver_rig::crossing::Crossing;
use driver_rig::{Io, PATIENCE, Rig, loopback};
use nexusd_core::io::ring::UringOptions;

/// The first accepts, and keeps the first connection; the other gets the second.
fn start(io: Io, options: UringOptions) -> ([Rig<Crossing>; 2], [TcpStream; 2]) {
    let rigs = Rig::start_pair(io, options, vec![loopback()], Crossing::pair());
    let clients = [rigs[0].connect(), rigs[0].connect()];
    (rigs, clients)
}

/// A message from one to the other, and one back.
fn cross([one, other]: &mut [TcpStream; 2]) {
    for (from, to) in [(&*one, &*other), (&*other, &*one)] {
        let (mut from, mut to, mut heard) = (from, to, [0; 5]);
        from.write_all(b"hello").expect("a write");
        to.read_exact(&mut heard).expect("the other hears of it");
        assert_eq!(&heard, b"hello");
    }
}

fn a_loop_hands_connections_over_and_messages_cross_both_ways(io: Io) {
    let (rigs, mut clients) = start(io, UringOptions::default());
    cross(&mut clients);
    let [(first, accepted), (second, adopted)] = rigs.map(Rig::stop);
    assert!(first.is_connected() && second.is_connected());
    assert_eq!((accepted.accepted, adopted.accepted), (2, 0));
}

/// Nothing but the ring can wake them: they have nothing to wait for, and each message finds the other
/// loop asleep or falling asleep.
fn a_loop_that_sleeps_is_woken_by_one_ring_and_an_idle_one_sleeps(io: Io) {
    const CROSSINGS: u64 = 2_000;
    let (rigs, mut clients) = start(io, UringOptions::default());
    for _ in 0..CROSSINGS / 2 {
        cross(&mut clients);
    }
    // Time in which nothing happens.
    thread::sleep(Duration::from_millis(200));
    for _ in 0..CROSSINGS / 2 {
        cross(&mut clients);
    }
    for (_, counters) in rigs.map(Rig::stop) {
        let enters = counters.enters;
        assert!(enters < 12 * CROSSINGS, "{enters} enters for {CROSSINGS} messages each way");
    }
}

fn loops_that_spin_see_at_once_what_the_other_sends(io: Io) {
    let spin_us = PATIENCE.as_micros() as u32;
    let (rigs, mut clients) = start(io, UringOptions { spin_us, ..UringOptions::default() });
    let begun = Instant::now();
    for _ in 0..100 {
        cross(&mut clients);
    }
    assert!(begun.elapsed() < PATIENCE, "nobody waited for the other's spinning to end");
    for rig in rigs {
        rig.stop();
    }
}

on_both_drivers! {
    a_loop_hands_connections_over_and_messages_cross_both_ways,
    a_loop_that_sleeps_is_woken_by_one_ring_and_an_idle_one_sleeps,
    loops_that_spin_see_at_once_what_the_other_sends,
}
