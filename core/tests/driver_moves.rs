//! Connections that move from one loop of a node to another after their first words, on real sockets.
#![cfg(feature = "uring")]

mod driver_rig;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use driver_rig::moving::{Moving, MovingGauges, Stayed, answer, stream};
use driver_rig::{
    Io, Rig, abstract_name, connect, connect_abstract, eventually, loopback, pattern,
};
use nexusd_core::io::listener::Listener;
use nexusd_core::io::ring::UringOptions;
use nexusd_core::{CloseReason, PeerAddress};
use socket2::SockRef;

/// The two loops of a node, of which the first accepts, and what can be watched of both.
struct Node {
    rigs: [Rig<Moving>; 2],
    gauges: [Arc<MovingGauges>; 2],
}

impl Node {
    fn start(io: Io, options: UringOptions, listeners: Vec<Listener>) -> Self {
        Self::with(io, options, listeners, Moving::pair())
    }

    fn with(
        io: Io,
        options: UringOptions,
        listeners: Vec<Listener>,
        services: [Moving; 2],
    ) -> Self {
        let gauges = services.each_ref().map(|service| Arc::clone(&service.gauges));
        Self { rigs: Rig::start_pair(io, options, listeners, services), gauges }
    }

    fn on_loopback(io: Io) -> Self {
        Self::start(io, UringOptions::default(), vec![loopback()])
    }

    fn address(&self) -> SocketAddr {
        self.rigs[0].tcp()
    }

    /// Waits until so many connections are over: those that move are so twice, once at each loop.
    fn wait_for_ends(&self, ends: u64) {
        eventually("all connections are over", || {
            self.gauges.iter().map(|gauges| gauges.closed.value()).sum::<u64>() == ends
        });
    }

    fn stop(self) -> [Moving; 2] {
        self.rigs.map(|rig| rig.stop().0)
    }
}

/// Says all of it, without waiting for anything, and waits for the answer.
fn converse(mut client: TcpStream, said: &[u8]) {
    for piece in said.chunks(50_000) {
        client.write_all(piece).expect("the loop reads on");
    }
    let mut heard = [0; 8];
    client.read_exact(&mut heard).expect("an answer");
    assert_eq!(heard, answer(said), "every byte came, in its place");
}

fn reasons(stayed: &[Stayed]) -> Vec<CloseReason> {
    stayed.iter().map(|stayed| stayed.reason).collect()
}

fn a_connection_that_moves_loses_no_byte_while_its_client_writes_on(io: Io) {
    const CLIENTS: u64 = 24;
    let node = Node::on_loopback(io);
    let address = node.address();
    thread::scope(|scope| {
        for seed in 0..CLIENTS {
            scope.spawn(move || {
                let len = 1_000 + seed as usize * 77_777;
                converse(connect(address), &stream((seed % 2) as u8, &pattern(seed, len)));
            });
        }
    });
    // Half of them stay where they are.
    node.wait_for_ends(CLIENTS + CLIENTS / 2);
    let [first, second] = node.stop();
    let is_moved = |reason: &CloseReason| *reason == CloseReason::Moved;
    assert_eq!(reasons(&first.stayed).iter().filter(|reason| is_moved(reason)).count(), 12);
    assert!(first.stayed.iter().all(|stayed| !stayed.is_moved));
    assert_eq!(reasons(&second.stayed), [CloseReason::EndOfStream; 12]);
    assert!(second.stayed.iter().all(|stayed| stayed.is_moved));
}

fn a_move_needs_no_more_than_the_first_words_however_they_are_cut(io: Io) {
    let node = Node::on_loopback(io);
    for cut in 1..10 {
        let mut client = connect(node.address());
        let said = stream(1, &pattern(cut, 20));
        let (before, behind) = said.split_at(cut as usize);
        let received = node.gauges[0].received.value();
        client.write_all(before).expect("room in the socket");
        eventually("the first words came", || node.gauges[0].received.value() > received);
        converse_on(client, behind, &said);
    }
    node.wait_for_ends(2 * 9);
    let [first, second] = node.stop();
    assert_eq!(reasons(&first.stayed), [CloseReason::Moved; 9]);
    assert_eq!(second.stayed.len(), 9);
}

/// The rest of what is said, and the answer to all of it.
fn converse_on(mut client: TcpStream, rest: &[u8], said: &[u8]) {
    client.write_all(rest).expect("the loop reads on");
    let mut heard = [0; 8];
    client.read_exact(&mut heard).expect("an answer");
    assert_eq!(heard, answer(said));
}

fn the_new_loop_is_told_the_same_peer_as_the_old_one(io: Io) {
    let node = Node::on_loopback(io);
    let client = connect(node.address());
    let peer = PeerAddress::Tcp(client.local_addr().expect("an address"));
    converse(client, &stream(1, b"hello"));
    node.wait_for_ends(2);
    for service in node.stop() {
        assert_eq!(service.stayed[0].peer, peer);
    }
}

/// What was said before the end is all there, and the end is seen behind it.
fn what_a_client_said_that_leaves_at_once_moves_with_the_end_behind_it(io: Io) {
    const CLIENTS: u64 = 40;
    let name = abstract_name();
    let unix = Listener::unix(name.clone()).expect("a listener");
    let node = Node::start(io, UringOptions::default(), vec![loopback(), unix]);
    let said = |seed| stream(1, &pattern(2 * seed, 30_000));
    for seed in 0..CLIENTS {
        if seed % 2 == 0 {
            connect(node.address()).write_all(&said(seed)).expect("room in the socket");
        } else {
            connect_abstract(&name).write_all(&said(seed)).expect("room in the socket");
        }
    }
    node.wait_for_ends(2 * CLIENTS);
    let [first, second] = node.stop();
    assert_eq!(reasons(&first.stayed), [CloseReason::Moved; CLIENTS as usize]);
    for seed in 0..CLIENTS {
        let said = said(seed);
        let came = second.stayed.iter().filter(|stayed| stayed.stream == said).count();
        assert_eq!(came, 1, "the words of client {seed}");
    }
}

fn a_client_that_resets_while_it_moves_is_over_everywhere(io: Io) {
    const CLIENTS: u64 = 60;
    let node = Node::on_loopback(io);
    for seed in 0..CLIENTS {
        let mut client = connect(node.address());
        let arrived = node.gauges[1].opened.value();
        client.write_all(&stream(1, &pattern(seed, 10_000))).expect("room in the socket");
        if seed % 3 == 0 {
            eventually("it has moved", || node.gauges[1].opened.value() > arrived);
        }
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("the option");
    }
    converse(connect(node.address()), &stream(1, b"still there"));
    eventually("whatever was opened is over, and what was let go arrived", || {
        let [first, second] = &node.gauges;
        first.opened.value() == first.closed.value()
            && second.opened.value() == first.moved.value()
            && second.opened.value() == second.closed.value()
    });
    let [first, second] = node.stop();
    assert!(first.stayed.len() > 20 && second.stayed.len() > 20);
}

fn a_pool_of_two_small_buffers_is_enough_for_many_that_move_at_once(io: Io) {
    let options =
        UringOptions { receive_buffers: 2, receive_buffer_bytes: 4_096, ..UringOptions::default() };
    let node = Node::start(io, options, vec![loopback()]);
    let address = node.address();
    thread::scope(|scope| {
        for seed in 0..32 {
            scope.spawn(move || {
                converse(connect(address), &stream(1, &pattern(seed, 200_000)));
            });
        }
    });
    node.wait_for_ends(2 * 32);
    let [first, second] = node.stop();
    assert_eq!(reasons(&first.stayed), [CloseReason::Moved; 32]);
    assert_eq!(second.stayed.len(), 32);
}

fn a_connection_that_moved_leaves_its_slot_to_the_next(io: Io) {
    const CLIENTS: usize = 200;
    let node = Node::on_loopback(io);
    for seed in 0..CLIENTS as u64 {
        converse(connect(node.address()), &stream(1, &pattern(seed, 100)));
    }
    node.wait_for_ends(2 * CLIENTS as u64);
    let [first, second] = node.stop();
    assert_eq!((first.stayed.len(), first.highest_slot), (CLIENTS, 0));
    assert_eq!(second.stayed.len(), CLIENTS);
}

/// Of a move and a close, the one that the driver begins with while nothing forbids it is what counts.
fn a_connection_that_is_closed_while_it_moves_is_told_to_be_over_once(io: Io) {
    const CLIENTS: u64 = 20;
    let mut services = Moving::pair();
    services[0].regrets = true;
    let node = Node::with(io, UringOptions::default(), vec![loopback()], services);
    let (mut ended, mut answered) = (0, 0);
    for seed in 0..CLIENTS {
        let mut client = connect(node.address());
        client.write_all(&stream(1, &pattern(seed, 1_000))).expect("room in the socket");
        let mut heard = Vec::new();
        client.shutdown(Shutdown::Write).expect("an open socket");
        client.read_to_end(&mut heard).expect("an orderly end");
        match heard.len() {
            0 => ended += 1,
            _ => answered += 1,
        }
    }
    node.wait_for_ends(CLIENTS + answered);
    let [first, second] = node.stop();
    let of = |reason| reasons(&first.stayed).iter().filter(|told| **told == reason).count() as u64;
    assert_eq!((of(CloseReason::Asked), of(CloseReason::Moved)), (ended, answered));
    assert_eq!(second.stayed.len() as u64, answered);
}

/// A connection that cannot move ends, and its loop goes on.
fn a_connection_to_a_loop_that_has_ended_ends_too(io: Io) {
    let Node { rigs: [first, second], gauges } = Node::on_loopback(io);
    second.stop();
    for seed in 0..20 {
        let mut client = first.connect();
        client.write_all(&stream(1, &pattern(seed, 10_000))).expect("room in the socket");
        let end = client.read(&mut [0]);
        let is_over = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        assert!(
            end.as_ref().map_or_else(|error| is_over(error.kind()), |read| *read == 0),
            "{end:?}"
        );
    }
    converse(first.connect(), &stream(0, b"still there"));
    eventually("all are over", || gauges[0].closed.value() == 21);
    let (service, _) = first.stop();
    assert_eq!(reasons(&service.stayed)[..20], [CloseReason::Asked; 20]);
}

on_both_drivers! {
    a_connection_that_moves_loses_no_byte_while_its_client_writes_on,
    a_move_needs_no_more_than_the_first_words_however_they_are_cut,
    the_new_loop_is_told_the_same_peer_as_the_old_one,
    what_a_client_said_that_leaves_at_once_moves_with_the_end_behind_it,
    a_client_that_resets_while_it_moves_is_over_everywhere,
    a_pool_of_two_small_buffers_is_enough_for_many_that_move_at_once,
    a_connection_that_moved_leaves_its_slot_to_the_next,
    a_connection_that_is_closed_while_it_moves_is_told_to_be_over_once,
    a_connection_to_a_loop_that_has_ended_ends_too,
}
