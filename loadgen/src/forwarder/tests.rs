//! Pump and relay as pure state machines, driven by hand.

use nexusd_core::{CloseReason, Door, PeerAddress};

use super::*;
use crate::pump::Pump;
use crate::relay::Relay;
use crate::target::native::message_template;

/// A forwarder, and what its sockets took.
struct Bench<C: Copying> {
    service: Forwarder<C>,
    taken: Vec<Vec<u8>>,
    /// Sends that have not ended.
    in_flight: Vec<ConnectionId>,
    paused: Vec<ConnectionId>,
    closed: Vec<ConnectionId>,
}

impl<C: Copying> Bench<C> {
    fn new(service: Forwarder<C>) -> Self {
        Self {
            service,
            taken: Vec::new(),
            in_flight: Vec::new(),
            paused: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn event(&mut self, event: Event<'_>) {
        self.service.on_event(Now::default(), event);
        while let Some(output) = self.service.poll_output() {
            match output {
                Output::Send(connection) => {
                    assert!(!self.in_flight.contains(&connection), "a second send is in flight");
                    self.in_flight.push(connection);
                }
                Output::PauseReceive(connection) => self.paused.push(connection),
                Output::ResumeReceive(connection) => {
                    self.paused.retain(|other| *other != connection);
                }
                Output::Close(connection) => self.closed.push(connection),
                other => panic!("unexpected output {other:?}"),
            }
        }
    }

    fn open(&mut self, index: u32) -> ConnectionId {
        let connection = ConnectionId { index, generation: 1 };
        self.taken.resize_with(index as usize + 1, Vec::new);
        self.event(Event::Opened {
            connection,
            peer: PeerAddress::Unix,
            door: Door::Apps,
            is_moved: false,
        });
        connection
    }

    fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.event(Event::Received { connection, bytes });
    }

    /// Opens a connection, greets, and takes the answer.
    fn join(&mut self, index: u32, role: Role, lane: u32) -> ConnectionId {
        let connection = self.open(index);
        let greeting = Greeting { role, lane }.encode();
        self.receive(connection, &greeting);
        self.finish_sends(usize::MAX);
        assert_eq!(std::mem::take(&mut self.taken[index as usize]), greeting);
        connection
    }

    /// Lets sends end, each taking at most `bytes_max` bytes, until nothing is in flight.
    fn finish_sends(&mut self, bytes_max: usize) {
        while let Some(connection) = self.in_flight.pop() {
            let bytes = self.take_some(connection, bytes_max);
            self.event(Event::Sent { connection, bytes, blocked: false });
        }
    }

    fn take_some(&mut self, connection: ConnectionId, bytes_max: usize) -> usize {
        let taken = &mut self.taken[connection.index as usize];
        let before = taken.len();
        self.service.gather(connection, &mut |slice| {
            let room = bytes_max - (taken.len() - before).min(bytes_max);
            taken.extend_from_slice(&slice[..slice.len().min(room)]);
        });
        taken.len() - before
    }
}

fn messages(count: usize) -> Vec<u8> {
    let mut bytes = message_template(100).bytes.repeat(count);
    for (at, byte) in bytes.iter_mut().enumerate().skip(48) {
        if at % 152 >= 48 && at % 152 < 148 {
            *byte = at as u8;
        }
    }
    bytes
}

fn forwards_to_every_subscriber_of_its_lane<C: Copying>(service: Forwarder<C>) {
    let mut bench = Bench::new(service);
    bench.join(0, Role::Subscriber, 0);
    bench.join(1, Role::Subscriber, 0);
    bench.join(2, Role::Subscriber, 1);
    let publisher = bench.join(3, Role::Publisher, 0);
    let bytes = messages(20);
    for chunk in bytes.chunks(333) {
        bench.receive(publisher, chunk);
        bench.finish_sends(100);
    }
    assert_eq!(bench.taken[0], bytes);
    assert_eq!(bench.taken[1], bytes);
    assert!(bench.taken[2].is_empty());
    assert!(bench.taken[3].is_empty());
}

#[test]
fn the_pump_forwards_bytes_to_every_subscriber_of_the_lane() {
    forwards_to_every_subscriber_of_its_lane(Pump::default());
}

#[test]
fn the_relay_forwards_frames_to_every_subscriber_of_the_lane() {
    forwards_to_every_subscriber_of_its_lane(Relay::default());
}

#[test]
fn the_relay_sends_whole_frames_only() {
    let mut bench = Bench::new(Relay::default());
    bench.join(0, Role::Subscriber, 0);
    let publisher = bench.join(1, Role::Publisher, 0);
    let bytes = messages(2);
    bench.receive(publisher, &bytes[..200]);
    bench.finish_sends(usize::MAX);
    assert_eq!(bench.taken[0], bytes[..152]);
    bench.receive(publisher, &bytes[200..]);
    bench.finish_sends(usize::MAX);
    assert_eq!(bench.taken[0], bytes);
}

#[test]
fn what_is_in_flight_stays_in_place_while_more_arrives() {
    let mut bench = Bench::new(Pump::default());
    let subscriber = bench.join(0, Role::Subscriber, 0);
    let publisher = bench.join(1, Role::Publisher, 0);
    bench.receive(publisher, b"first");
    let mut lent = None;
    bench.service.gather(subscriber, &mut |slice| lent = Some((slice.as_ptr(), slice.len())));
    bench.receive(publisher, &[7; 100_000]);
    let mut again = None;
    bench.service.gather(subscriber, &mut |slice| again = Some((slice.as_ptr(), slice.len())));
    assert_eq!(lent, again);
    assert_eq!(bench.in_flight, [subscriber]);
}

#[test]
fn a_full_socket_is_not_sent_to_until_it_is_writable() {
    let mut bench = Bench::new(Pump::default());
    let connection = bench.join(0, Role::Subscriber, 0);
    let publisher = bench.join(1, Role::Publisher, 0);
    bench.receive(publisher, b"0123456789");
    bench.in_flight.clear();
    let bytes = bench.take_some(connection, 4);
    bench.event(Event::Sent { connection, bytes, blocked: true });
    bench.receive(publisher, b"abc");
    assert!(bench.in_flight.is_empty());
    bench.event(Event::Writable { connection });
    bench.finish_sends(usize::MAX);
    assert_eq!(bench.taken[0], b"0123456789abc");
}

#[test]
fn a_subscriber_that_falls_behind_pauses_its_publishers_until_it_has_caught_up() {
    let mut bench = Bench::new(Relay::default());
    let slow = bench.join(0, Role::Subscriber, 0);
    let publisher = bench.join(1, Role::Publisher, 0);
    let other = bench.join(2, Role::Publisher, 1);
    bench.receive(publisher, &messages(PAUSE_BYTES / 152 + 1));
    assert_eq!(bench.paused, [publisher]);
    assert!(!bench.paused.contains(&other));
    bench.in_flight.clear();
    let bytes = bench.take_some(slow, PAUSE_BYTES - RESUME_BYTES - 1_000);
    bench.event(Event::Sent { connection: slow, bytes, blocked: false });
    assert_eq!(bench.paused, [publisher], "still too much waits");
    bench.finish_sends(10_000);
    assert!(bench.paused.is_empty());
}

#[test]
fn a_slow_subscriber_that_leaves_lets_the_publishers_go_on() {
    let mut bench = Bench::new(Pump::default());
    let connection = bench.join(0, Role::Subscriber, 0);
    let publisher = bench.join(1, Role::Publisher, 0);
    bench.receive(publisher, &vec![0; PAUSE_BYTES + 1]);
    assert_eq!(bench.paused, [publisher]);
    bench.event(Event::Closed { connection, reason: CloseReason::EndOfStream });
    assert!(bench.paused.is_empty());
}

#[test]
fn a_greeting_may_arrive_in_pieces_and_with_messages_behind_it() {
    let mut bench = Bench::new(Relay::default());
    bench.join(0, Role::Subscriber, 5);
    let publisher = bench.open(1);
    let mut bytes = Greeting { role: Role::Publisher, lane: 5 }.encode().to_vec();
    bytes.extend(messages(1));
    bench.receive(publisher, &bytes[..3]);
    bench.receive(publisher, &bytes[3..]);
    bench.finish_sends(usize::MAX);
    assert_eq!(bench.taken[0], messages(1));
}

#[test]
fn a_connection_that_greets_wrongly_is_closed() {
    let mut bench = Bench::new(Pump::default());
    let connection = bench.open(0);
    bench.receive(connection, b"GET / HTTP/1.1\r\n");
    assert_eq!(bench.closed, [connection]);
}

#[test]
fn a_publisher_of_broken_frames_is_closed_by_the_relay() {
    let mut bench = Bench::new(Relay::default());
    bench.join(0, Role::Subscriber, 0);
    let publisher = bench.join(1, Role::Publisher, 0);
    bench.receive(publisher, &[0xFF; 48]);
    assert_eq!(bench.closed, [publisher]);
    assert!(bench.taken[0].is_empty());
}

#[test]
fn a_drain_ends_the_service() {
    let mut bench = Bench::new(Pump::default());
    assert!(!bench.service.is_finished());
    bench.event(Event::Command(Command::Drain { deadline_us: 0 }));
    assert!(bench.service.is_finished());
}
