//! Both drivers on real sockets.
#![cfg(feature = "uring")]

mod driver_rig;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use driver_rig::echo::Echo;
use driver_rig::fan_out::FanOut;
use driver_rig::sluggish::Sluggish;
use driver_rig::upload::{Upload, checksum};
use driver_rig::{
    Io, PATIENCE, Rig, abstract_name, connect, connect_abstract, eventually, exchange, loopback,
    pattern, ping,
};
use nexusd_core::io::listener::Listener;
use nexusd_core::io::ring::UringOptions;
use nexusd_core::limits::LINGER_US;
use nexusd_core::{CloseReason, Command, PeerAddress};
use socket2::SockRef;

const MIB: usize = 1 << 20;

fn echo_over_ipv4_returns_every_byte(io: Io) {
    let rig = Rig::on_loopback(io, Echo::default());
    let client = rig.connect();
    let sent = pattern(1, 24 * MIB);
    assert!(exchange(&client, TcpStream::try_clone, &sent) == sent);
    let local = client.local_addr().expect("an address");
    let (echo, _) = rig.stop();
    assert_eq!(echo.peers, [PeerAddress::Tcp(local)]);
}

fn echo_over_ipv6_returns_every_byte(io: Io) {
    let listener = Listener::tcp("[::1]:0".parse().expect("an address")).expect("a free port");
    let rig = Rig::start(io, UringOptions::default(), vec![listener], Echo::default());
    let client = rig.connect();
    let sent = pattern(2, 8 * MIB);
    assert!(exchange(&client, TcpStream::try_clone, &sent) == sent);
    let (echo, _) = rig.stop();
    assert!(matches!(echo.peers[0], PeerAddress::Tcp(SocketAddr::V6(_))));
}

fn echo_over_an_abstract_unix_socket_returns_every_byte(io: Io) {
    let name = abstract_name();
    let listener = Listener::unix(name.clone()).expect("the name");
    let rig = Rig::start(io, UringOptions::default(), vec![listener], Echo::default());
    let client = connect_abstract(&name);
    let sent = pattern(3, 24 * MIB);
    assert!(exchange(&client, |stream| stream.try_clone(), &sent) == sent);
    let (echo, _) = rig.stop();
    assert_eq!(echo.peers, [PeerAddress::Unix]);
}

fn one_loop_serves_all_its_listeners(io: Io) {
    let name = abstract_name();
    let listeners = vec![
        loopback(),
        Listener::tcp("[::1]:0".parse().expect("an address")).expect("a free port"),
        Listener::unix(name.clone()).expect("the name"),
    ];
    let rig = Rig::start(io, UringOptions::default(), listeners, Echo::default());
    for address in rig.addresses.iter().map(ToString::to_string) {
        match address.parse() {
            Ok(address) => ping(&mut connect(address)),
            Err(_) => ping(&mut connect_abstract(&name)),
        }
    }
    rig.stop();
}

fn spinning_before_sleeping_changes_nothing_but_the_waiting(io: Io) {
    let options = UringOptions { spin_us: 200, ..UringOptions::default() };
    let echo = Echo::with(|echo| echo.tick_us = Some(5_000));
    let gauges = Arc::clone(&echo.gauges);
    let rig = Rig::start(io, options, vec![loopback()], echo);
    let mut client = rig.connect();
    for _ in 0..100 {
        ping(&mut client);
    }
    let sent = pattern(4, 4 * MIB);
    assert!(exchange(&client, TcpStream::try_clone, &sent) == sent);
    let before = gauges.ticks.value();
    eventually("ticks go on", || gauges.ticks.value() > before + 3);
    rig.stop();
}

fn a_slow_reader_blocks_its_own_connection_and_gets_everything_in_the_end(io: Io) {
    let echo = Echo::with(|echo| echo.pause_at = usize::MAX);
    let gauges = Arc::clone(&echo.gauges);
    let rig = Rig::on_loopback(io, echo);
    let slow = rig.connect();
    let mut quick = rig.connect();
    let sent = pattern(5, 32 * MIB);
    (&slow).write_all(&sent).expect("the echo reads on");
    eventually("the slow reader blocks", || gauges.blocked.value() > 0);
    ping(&mut quick);
    let mut back = vec![0; sent.len()];
    (&slow).read_exact(&mut back).expect("the rest comes");
    assert!(back == sent);
    assert!(gauges.writable.value() > 0);
    rig.stop();
}

fn a_connection_that_is_owed_much_is_read_no_further_until_it_reads(io: Io) {
    let echo = Echo::with(|echo| echo.pause_at = 256 << 10);
    let gauges = Arc::clone(&echo.gauges);
    let rig = Rig::on_loopback(io, echo);
    let client = rig.connect();
    let sent = pattern(6, 48 * MIB);
    thread::scope(|scope| {
        let writer = client.try_clone().expect("a second handle");
        let sent = &sent;
        scope.spawn(move || (&writer).write_all(sent).expect("the echo reads on"));
        eventually("reading is paused", || gauges.pauses.value() > 0);
        let mut back = vec![0; sent.len()];
        (&client).read_exact(&mut back).expect("the echo answers");
        assert!(back == *sent);
    });
    rig.stop();
}

fn a_paused_connection_is_not_read_until_it_is_resumed(io: Io) {
    let echo = Echo::with(|echo| echo.start_paused = true);
    let gauges = Arc::clone(&echo.gauges);
    let rig = Rig::on_loopback(io, echo);
    let mut paused = rig.connect();
    eventually("the connection is known", || gauges.opened.value() == 1);
    // Another connection's life shows that the loop has gone on since.
    for turn in 1..=3 {
        drop(rig.connect());
        eventually("a turn", || gauges.opened.value() == 1 + turn);
    }
    paused.write_all(b"ping").expect("a write");
    drop(rig.connect());
    eventually("a turn", || gauges.opened.value() == 5);
    assert_eq!(gauges.received.value(), 0);
    rig.commands.send(Command::Sample).expect("room");
    let mut back = [0; 4];
    paused.read_exact(&mut back).expect("the echo answers");
    assert_eq!(&back, b"ping");
    rig.stop();
}

fn a_paused_connection_whose_peer_has_gone_does_not_keep_the_loop_awake(io: Io) {
    let echo = Echo::with(|echo| {
        echo.start_paused = true;
        echo.tick_us = Some(10_000);
    });
    let gauges = Arc::clone(&echo.gauges);
    let rig = Rig::on_loopback(io, echo);
    let mut gone = rig.connect();
    let rude = rig.connect();
    eventually("the connections are known", || gauges.opened.value() == 2);
    gone.write_all(b"ping").expect("a write");
    drop(gone);
    SockRef::from(&rude).set_linger(Some(Duration::ZERO)).expect("the option");
    drop(rude);
    eventually("twenty ticks", || gauges.ticks.value() >= 20);
    assert_eq!((gauges.received.value(), gauges.closed.value()), (0, 0));
    rig.commands.send(Command::Sample).expect("room");
    eventually("their end shows once they are read", || gauges.closed.value() == 2);
    assert_eq!(gauges.received.value(), 4);
    let (_, counters) = rig.stop();
    assert!(counters.enters < 1_000, "sleeps between ticks: {} enters", counters.enters);
}

fn upload(client: &TcpStream, body: &[u8]) {
    let mut writer = client;
    writer.write_all(&(body.len() as u64).to_le_bytes()).expect("a write");
    writer.write_all(body).expect("a write");
    let mut answer = [0; 8];
    (&*client).read_exact(&mut answer).expect("an answer");
    assert_eq!(u64::from_le_bytes(answer), checksum(body));
}

fn a_large_frame_lands_in_the_memory_of_the_service(io: Io) {
    let service = Upload::default();
    let gauges = Arc::clone(&service.gauges);
    let rig = Rig::on_loopback(io, service);
    let client = rig.connect();
    for seed in 0..8 {
        upload(&client, &pattern(seed, 4 * MIB));
        upload(&client, &pattern(seed, 100));
    }
    assert!(
        gauges.landed.value() > gauges.received.value(),
        "most bytes are received in place: {} of {}",
        gauges.landed.value(),
        gauges.landed.value() + gauges.received.value(),
    );
    rig.stop();
}

fn frames_of_every_size_around_the_threshold_arrive_whole(io: Io) {
    let rig = Rig::on_loopback(io, Upload::default());
    let client = rig.connect();
    for len in
        [0, 1, 4_096, 65_528, 65_535, 65_536, 65_544, 131_072, 200_000, 262_144, 262_145, 1_000_003]
    {
        upload(&client, &pattern(len as u64, len));
    }
    rig.stop();
}

fn pausing_in_the_middle_of_a_large_frame_loses_no_byte(io: Io) {
    let rig = Rig::on_loopback(io, Upload::with(|upload| upload.fidgets = true));
    let client = rig.connect();
    for seed in 0..8 {
        upload(&client, &pattern(seed, 4 * MIB));
    }
    rig.stop();
}

fn a_peer_that_vanishes_in_the_middle_of_a_large_frame_frees_the_landing_zone(io: Io) {
    let rig = Rig::on_loopback(io, Upload::default());
    for _ in 0..20 {
        let mut client = rig.connect();
        client.write_all(&(4 * MIB as u64).to_le_bytes()).expect("a write");
        client.write_all(&pattern(9, 300_000)).expect("a write");
        drop(client);
    }
    upload(&rig.connect(), &pattern(10, 4 * MIB));
    rig.stop();
}

fn closing_in_the_middle_of_a_large_frame_gives_the_landing_zone_back_at_once(io: Io) {
    let service = Upload::with(|upload| upload.close_on_sample = true);
    let gauges = Arc::clone(&service.gauges);
    let rig = Rig::on_loopback(io, service);
    let mut client = rig.connect();
    client.write_all(&(4 * MIB as u64).to_le_bytes()).expect("a write");
    client.write_all(&pattern(9, MIB)).expect("a write");
    eventually("bytes land in place", || gauges.landed.value() > 0);
    rig.commands.send(Command::Sample).expect("room");
    eventually("it is closed", || gauges.closed.value() == 1);
    // The service has its memory back although the peer is still listened to for a while: a
    // socket that was gone would answer the first write with a reset that fails the others.
    for _ in 0..3 {
        client.write_all(b"more").expect("a socket that lingers");
    }
    assert_eq!(client.read(&mut [0; 1]).expect("an orderly end"), 0);
    rig.stop();
}

fn every_subscriber_gets_the_whole_stream_out_of_the_shared_log(io: Io) {
    let rig = Rig::on_loopback(io, FanOut::default());
    let known = |count: u64| {
        rig.commands.send(Command::Sample).expect("room");
        rig.metrics.recv_timeout(PATIENCE).expect("a sample").connections == count
    };
    let publisher = rig.connect();
    eventually("the publisher is known", || known(1));
    let subscribers: Vec<_> = (0..40).map(|_| rig.connect()).collect();
    eventually("the subscribers are known", || known(41));
    let sent = pattern(7, 4 * MIB);
    thread::scope(|scope| {
        for subscriber in &subscribers {
            scope.spawn(|| {
                let mut got = vec![0; sent.len()];
                (&*subscriber).read_exact(&mut got).expect("the stream");
                assert!(got == sent);
            });
        }
        (&publisher).write_all(&sent).expect("the service reads on");
    });
    rig.stop();
}

fn five_hundred_connections_come_and_go_and_each_is_opened_and_closed_once(io: Io) {
    let echo = Echo::default();
    let gauges = Arc::clone(&echo.gauges);
    let rig = Rig::on_loopback(io, echo);
    let address = rig.tcp();
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(move || {
                let mut open: Vec<_> = (0..50).map(|_| connect(address)).collect();
                open.iter_mut().for_each(ping);
                drop(open);
                for _ in 0..50 {
                    ping(&mut connect(address));
                }
            });
        }
    });
    eventually("all are closed", || gauges.closed.value() == 500);
    assert_eq!(gauges.opened.value(), 500);
    let (echo, counters) = rig.stop();
    assert_eq!(counters.accepted, 500);
    assert!(echo.reasons.iter().all(|reason| *reason == CloseReason::EndOfStream));
}

fn a_peer_that_resets_while_it_is_sent_to_is_closed_once_and_hurts_nobody(io: Io) {
    let echo = Echo::with(|echo| echo.pause_at = usize::MAX);
    let gauges = Arc::clone(&echo.gauges);
    let rig = Rig::on_loopback(io, echo);
    let mut healthy = rig.connect();
    for round in 1..=10 {
        let rude = rig.connect();
        let blocked = gauges.blocked.value();
        (&rude).write_all(&pattern(8, 12 * MIB)).expect("the echo reads on");
        eventually("the rude one blocks", || gauges.blocked.value() > blocked);
        SockRef::from(&rude).set_linger(Some(Duration::ZERO)).expect("the option");
        drop(rude);
        eventually("it is closed", || gauges.closed.value() == round);
        ping(&mut healthy);
    }
    let (echo, _) = rig.stop();
    assert!(
        echo.reasons.iter().all(|reason| matches!(reason, CloseReason::Failed(_))),
        "{:?}",
        echo.reasons
    );
}

/// The driver reads ahead of the service that has just paused, and comes to the end.
fn the_end_of_a_stream_waits_for_a_service_that_has_paused(io: Io) {
    const BUFFER: usize = 4_096;
    let options = UringOptions { receive_buffer_bytes: BUFFER as u32, ..UringOptions::default() };
    let service = Sluggish::with(|service| {
        service.starts_paused = true;
        service.pauses_again = true;
        service.resumes = true;
    });
    let gauges = Arc::clone(&service.gauges);
    let rig = Rig::start(io, options, vec![loopback()], service);
    let mut client = rig.connect();
    client.write_all(&pattern(1, 8 * BUFFER)).expect("room in the socket");
    drop(client);
    eventually("all is read and then it is closed", || {
        rig.commands.send(Command::Sample).expect("room");
        rig.metrics.try_recv().ok();
        thread::sleep(Duration::from_millis(1));
        gauges.closed.value() == 1
    });
    assert_eq!(gauges.received.value(), 8 * BUFFER as u64);
    assert_eq!(gauges.closed_while_paused.value(), 0);
    assert_eq!(rig.stop().0.reasons, [CloseReason::EndOfStream]);
}

fn what_a_peer_said_before_it_left_arrives_although_a_send_found_it_gone(io: Io) {
    let name = abstract_name();
    let listener = Listener::unix(name.clone()).expect("a listener");
    let service = Sluggish::with(|service| {
        service.starts_paused = true;
        service.sends = true;
        service.resumes = true;
    });
    let gauges = Arc::clone(&service.gauges);
    let rig = Rig::start(io, UringOptions::default(), vec![listener], service);
    let mut client = connect_abstract(&name);
    client.write_all(&pattern(1, 32 << 10)).expect("room in the socket");
    drop(client);
    eventually("it is opened", || gauges.opened.value() == 1);
    rig.commands.send(Command::Sample).expect("room");
    eventually("it is closed", || gauges.closed.value() == 1);
    assert_eq!(gauges.received.value(), 32 << 10);
    assert_eq!(rig.stop().0.reasons, [CloseReason::Failed(libc::EPIPE)]);
}

fn a_peer_that_is_gone_is_not_waited_for_longer_than_a_while(io: Io) {
    let name = abstract_name();
    let listener = Listener::unix(name.clone()).expect("a listener");
    let service = Sluggish::with(|service| {
        service.starts_paused = true;
        service.sends = true;
    });
    let gauges = Arc::clone(&service.gauges);
    let rig = Rig::start(io, UringOptions::default(), vec![listener], service);
    // The driver may find out that the peer is gone as soon as it has accepted it.
    let begun = Instant::now();
    drop(connect_abstract(&name));
    eventually("it is opened", || gauges.opened.value() == 1);
    rig.commands.send(Command::Sample).expect("room");
    eventually("it is closed", || gauges.closed.value() == 1);
    assert!(begun.elapsed() >= Duration::from_micros(LINGER_US));
    let (service, counters) = rig.stop();
    assert_eq!(service.reasons, [CloseReason::Failed(libc::EPIPE)]);
    assert!(counters.enters < 100, "sleeps meanwhile: {} enters", counters.enters);
}

fn the_last_words_before_a_close_arrive_although_the_peer_keeps_talking(io: Io) {
    let rig = Rig::on_loopback(
        io,
        Echo::with(|echo| {
            echo.farewell = Some(b"goodbye, and here is why");
        }),
    );
    for seed in 0..20 {
        let mut client = rig.connect();
        let talker = client.try_clone().expect("a second handle");
        thread::scope(|scope| {
            // Ends with an error once the service has closed; how much it got rid of is its affair.
            scope.spawn(move || (&talker).write_all(&pattern(seed, 256 << 10)));
            let mut words = Vec::new();
            client.read_to_end(&mut words).expect("an orderly end");
            assert_eq!(words, b"goodbye, and here is why");
        });
    }
    let (echo, _) = rig.stop();
    assert_eq!(echo.reasons, [CloseReason::Asked; 20]);
}

fn many_senders_share_a_pool_of_two_small_buffers(io: Io) {
    let options =
        UringOptions { receive_buffers: 2, receive_buffer_bytes: 4_096, ..UringOptions::default() };
    let rig = Rig::start(io, options, vec![loopback()], Echo::default());
    let address = rig.tcp();
    thread::scope(|scope| {
        for seed in 0..32 {
            scope.spawn(move || {
                let client = connect(address);
                let sent = pattern(seed, MIB / 2);
                assert!(exchange(&client, TcpStream::try_clone, &sent) == sent);
            });
        }
    });
    let (_, counters) = rig.stop();
    // epoll has one buffer, which is free again before the next receive.
    assert_eq!(counters.receives_starved > 0, io == Io::Uring, "whether the pool was ever empty");
}

fn connections_beyond_the_limit_are_closed_at_once_and_counted(io: Io) {
    let options = UringOptions { connections_max: 4, ..UringOptions::default() };
    let rig = Rig::start(io, options, vec![loopback()], Echo::default());
    let slack = nexusd_core::limits::REFUSALS_AT_A_TIME;
    let mut served: Vec<_> = (0..4 + slack).map(|_| rig.connect()).collect();
    served.iter_mut().for_each(ping);
    let mut refused = rig.connect();
    let end = refused.read(&mut [0; 1]);
    assert!(matches!(end, Ok(0)) || end.is_err(), "{end:?}");
    drop(served.pop());
    eventually("there is room again", || {
        let mut client = rig.connect();
        client.write_all(b"?").is_ok() && matches!(client.read(&mut [0; 1]), Ok(1))
    });
    served.iter_mut().for_each(ping);
    let (_, counters) = rig.stop();
    assert!(counters.refused >= 1);
}

/// What a badly behaved client may do in its short life.
fn misbehave(address: SocketAddr, mut choice: u64) {
    let client = connect(address);
    let mut pick = |of: u64| {
        choice =
            choice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (choice >> 33) % of
    };
    for _ in 0..pick(6) {
        let len = [1, 700, 66_000, 400_000][pick(4) as usize];
        // The service may have ended the connection already; that is its right.
        if (&client).write_all(&pattern(len, len as usize)).is_err() {
            return;
        }
        if pick(3) == 0 {
            let mut back = vec![0; len as usize / 2];
            let _ = (&client).read(&mut back);
        }
    }
    match pick(4) {
        0 => SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("the option"),
        1 => client.shutdown(Shutdown::Write).expect("half an end"),
        2 => {
            client.shutdown(Shutdown::Write).expect("half an end");
            let _ = (&client).read_to_end(&mut Vec::new());
        }
        _ => {}
    }
}

fn whatever_clients_do_each_is_opened_and_closed_once_and_the_loop_serves_on(io: Io) {
    let options = UringOptions {
        receive_buffers: 4,
        receive_buffer_bytes: 16_384,
        ..UringOptions::default()
    };
    let echo = Echo::with(|echo| echo.pause_at = 200_000);
    let gauges = Arc::clone(&echo.gauges);
    let rig = Rig::start(io, options, vec![loopback()], echo);
    let address = rig.tcp();
    let mut healthy = rig.connect();
    thread::scope(|scope| {
        for thread in 0..8u64 {
            scope.spawn(move || (0..60).for_each(|round| misbehave(address, thread << 32 | round)));
        }
        for _ in 0..100 {
            ping(&mut healthy);
        }
    });
    // Connections are accepted in their order, so this one comes after all of them. (One that was
    // reset before it was accepted may never have been opened.)
    ping(&mut rig.connect());
    assert!(gauges.opened.value() > 240);
    eventually("all others are closed", || gauges.closed.value() + 1 == gauges.opened.value());
    ping(&mut healthy);
    rig.stop();
}

fn a_command_wakes_a_loop_that_sleeps_without_end(io: Io) {
    let rig = Rig::on_loopback(io, Echo::default());
    for _ in 0..100 {
        rig.commands.send(Command::Sample).expect("room");
        rig.metrics.recv_timeout(PATIENCE).expect("a sample");
    }
    rig.stop();
}

fn commands_of_many_threads_all_arrive(io: Io) {
    let rig = Rig::on_loopback(io, Echo::default());
    thread::scope(|scope| {
        for _ in 0..8 {
            let commands = rig.commands.clone();
            scope.spawn(move || {
                for _ in 0..1_000 {
                    while commands.send(Command::Sample).is_err() {
                        thread::yield_now();
                    }
                }
            });
        }
        for _ in 0..8_000 {
            rig.metrics.recv_timeout(PATIENCE).expect("a sample");
        }
    });
    rig.stop();
}

fn ticks_come_when_they_are_due(io: Io) {
    let echo = Echo::with(|echo| echo.tick_us = Some(10_000));
    let gauges = Arc::clone(&echo.gauges);
    let begun = Instant::now();
    let rig = Rig::on_loopback(io, echo);
    eventually("ten ticks", || gauges.ticks.value() >= 10);
    assert!(begun.elapsed() >= Duration::from_millis(90));
    let (_, counters) = rig.stop();
    assert!(counters.enters < 1_000, "sleeps between ticks: {} enters", counters.enters);
}

fn after_stop_accepting_the_port_refuses_and_open_connections_go_on(io: Io) {
    let rig = Rig::on_loopback(io, Echo::with(|echo| echo.stop_on_sample = true));
    let address = rig.tcp();
    let mut client = rig.connect();
    ping(&mut client);
    rig.commands.send(Command::Sample).expect("room");
    eventually("the port is closed", || {
        TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    ping(&mut client);
    drop(Listener::tcp(address).expect("the port, while the loop still runs"));
    rig.stop();
}

fn a_service_that_is_flooded_with_connections_serves_those_it_has(io: Io) {
    let rig = Rig::on_loopback(io, Echo::default());
    let address = rig.tcp();
    let mut client = rig.connect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // The backlog may be full, or ports scarce; more floods come.
                    drop(TcpStream::connect(address));
                }
            });
        }
        for _ in 0..200 {
            ping(&mut client);
        }
        done.store(true, Ordering::Relaxed);
    });
    rig.stop();
}

fn the_port_is_free_again_as_soon_as_the_loop_has_ended(io: Io) {
    let rig = Rig::on_loopback(io, Echo::default());
    let address = rig.tcp();
    let mut clients: Vec<_> = (0..10).map(|_| rig.connect()).collect();
    clients.iter_mut().for_each(ping);
    rig.stop();
    for client in &mut clients {
        assert_eq!(client.read(&mut [0; 1]).expect("an orderly end"), 0);
    }
    for _ in 0..20 {
        let rig = Rig::start(
            io,
            UringOptions::default(),
            vec![Listener::tcp(address).expect("the port again")],
            Echo::default(),
        );
        ping(&mut rig.connect());
        rig.stop();
    }
}

on_both_drivers! {
    echo_over_ipv4_returns_every_byte,
    echo_over_ipv6_returns_every_byte,
    echo_over_an_abstract_unix_socket_returns_every_byte,
    one_loop_serves_all_its_listeners,
    spinning_before_sleeping_changes_nothing_but_the_waiting,
    a_slow_reader_blocks_its_own_connection_and_gets_everything_in_the_end,
    a_connection_that_is_owed_much_is_read_no_further_until_it_reads,
    a_paused_connection_is_not_read_until_it_is_resumed,
    a_paused_connection_whose_peer_has_gone_does_not_keep_the_loop_awake,
    a_large_frame_lands_in_the_memory_of_the_service,
    frames_of_every_size_around_the_threshold_arrive_whole,
    pausing_in_the_middle_of_a_large_frame_loses_no_byte,
    a_peer_that_vanishes_in_the_middle_of_a_large_frame_frees_the_landing_zone,
    closing_in_the_middle_of_a_large_frame_gives_the_landing_zone_back_at_once,
    every_subscriber_gets_the_whole_stream_out_of_the_shared_log,
    five_hundred_connections_come_and_go_and_each_is_opened_and_closed_once,
    a_peer_that_resets_while_it_is_sent_to_is_closed_once_and_hurts_nobody,
    the_end_of_a_stream_waits_for_a_service_that_has_paused,
    what_a_peer_said_before_it_left_arrives_although_a_send_found_it_gone,
    a_peer_that_is_gone_is_not_waited_for_longer_than_a_while,
    the_last_words_before_a_close_arrive_although_the_peer_keeps_talking,
    many_senders_share_a_pool_of_two_small_buffers,
    connections_beyond_the_limit_are_closed_at_once_and_counted,
    whatever_clients_do_each_is_opened_and_closed_once_and_the_loop_serves_on,
    a_command_wakes_a_loop_that_sleeps_without_end,
    commands_of_many_threads_all_arrive,
    ticks_come_when_they_are_due,
    after_stop_accepting_the_port_refuses_and_open_connections_go_on,
    a_service_that_is_flooded_with_connections_serves_those_it_has,
    the_port_is_free_again_as_soon_as_the_loop_has_ended,
}
