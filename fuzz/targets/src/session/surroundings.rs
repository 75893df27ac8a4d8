//! A driver made of nothing: sockets are byte vectors that take as much as the steps allow.
//!
//! It keeps the contract between driver and state machine (`core/src/io/driver.rs`): one send at a
//! time per connection, `Closed` once and last, nothing received while paused but what was already
//! on its way. After every event it checks what the service says about itself.

use nexusd_core::{
    CloseReason, Command, ConnectionId, Destination, Door, Event, Now, Output, PeerAddress, Service,
};
use nexusd_wire::SubscriptionId;

use super::audience::Audience;

/// What a client may have said without its having arrived; more is not said.
const UNDELIVERED_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
struct Seat {
    generation: u32,
    is_open: bool,
    /// The service asked to close it, or the peer has closed it.
    closing: Option<CloseReason>,
    /// Said by the client, not yet received by the service.
    undelivered: Vec<u8>,
    is_paused: bool,
    /// Bytes that were on their way when the service paused may still arrive: one delivery.
    grace_used: bool,
    receives_in_place: bool,
    /// What the socket takes before it blocks.
    room: usize,
    is_blocked: bool,
    /// Sends end only when a step says so.
    is_delayed: bool,
    /// What the running send lends.
    in_flight: Option<Vec<u8>>,
    audience: Audience,
    published: u64,
}

/// Everything around one service.
pub(crate) struct Surroundings<S> {
    service: S,
    check: fn(&S),
    seats: Vec<Seat>,
    now: Now,
    accepts: bool,
}

impl<S: Service> Surroundings<S> {
    pub(crate) fn new(service: S, seats: usize, check: fn(&S)) -> Self {
        Self {
            service,
            check,
            seats: (0..seats).map(|_| Seat::default()).collect(),
            now: Now { mono_us: 1, wall_us: 1_700_000_000_000_000 },
            accepts: true,
        }
    }

    pub(crate) fn into_service(self) -> S {
        self.service
    }

    pub(crate) fn open(&mut self, seat: usize) {
        let place = &mut self.seats[seat];
        if place.is_open || !self.accepts {
            return;
        }
        *place = Seat {
            generation: place.generation + 1,
            is_open: true,
            room: usize::MAX,
            ..Seat::default()
        };
        let connection = self.id(seat);
        self.service.place();
        self.event(Event::Opened {
            connection,
            peer: PeerAddress::Unix,
            door: Door::Apps,
            is_moved: false,
        });
    }

    /// The client says something; it arrives when it is delivered.
    pub(crate) fn say(&mut self, seat: usize, bytes: &[u8]) {
        let place = &mut self.seats[seat];
        if place.is_open && place.undelivered.len() + bytes.len() <= UNDELIVERED_BYTES_MAX {
            place.undelivered.extend_from_slice(bytes);
        }
    }

    /// Up to `bytes` of what was said arrive.
    pub(crate) fn deliver(&mut self, seat: usize, bytes: usize) {
        let connection = self.id(seat);
        let place = &mut self.seats[seat];
        if !place.is_open || place.closing.is_some() || place.undelivered.is_empty() {
            return;
        }
        if place.is_paused && std::mem::replace(&mut place.grace_used, true) {
            return;
        }
        let mut arrived = bytes.min(place.undelivered.len());
        let zone = match place.receives_in_place {
            true => self.service.landing_zone(connection),
            false => None,
        };
        if let Some(zone) = zone {
            assert!(!zone.is_empty(), "a zone that is full is no zone");
            arrived = arrived.min(zone.len());
            zone[..arrived].copy_from_slice(&place.undelivered[..arrived]);
            place.undelivered.drain(..arrived);
            self.event(Event::Landed { connection, bytes: arrived });
        } else {
            place.receives_in_place = false;
            let received: Vec<u8> = place.undelivered.drain(..arrived).collect();
            self.event(Event::Received { connection, bytes: &received });
        }
    }

    /// Time passes; the service is woken whenever it asked for it.
    pub(crate) fn pass(&mut self, us: u64) {
        let end = self.now.mono_us + us;
        let mut wakes = 0;
        while let Some(at) = self.service.wake_at().filter(|at| *at <= end) {
            let reached = at.max(self.now.mono_us);
            self.now.wall_us += reached - self.now.mono_us;
            self.now.mono_us = reached;
            self.event(Event::Tick);
            wakes += 1;
            assert!(wakes < 10_000, "the service wakes again and again for nothing");
        }
        self.now.wall_us += end - self.now.mono_us;
        self.now.mono_us = end;
    }

    /// From now on the client's socket takes `bytes` and then blocks.
    pub(crate) fn set_room(&mut self, seat: usize, bytes: usize) {
        let connection = self.id(seat);
        let place = &mut self.seats[seat];
        if !place.is_open || place.closing.is_some() {
            return;
        }
        place.room = bytes;
        if bytes > 0 && place.in_flight.is_none() && std::mem::take(&mut place.is_blocked) {
            self.event(Event::Writable { connection });
        }
    }

    /// Whether sends take time: they end at [`Self::complete_send`].
    pub(crate) fn set_delayed(&mut self, seat: usize, is_delayed: bool) {
        self.seats[seat].is_delayed = is_delayed;
        if !is_delayed {
            self.complete_send(seat);
        }
    }

    /// The running send ends.
    pub(crate) fn complete_send(&mut self, seat: usize) {
        let connection = self.id(seat);
        let place = &mut self.seats[seat];
        let Some(lent) = place.in_flight.take() else {
            return;
        };
        if let Some(reason) = place.closing {
            self.closed(seat, reason);
            return;
        }
        let bytes = lent.len().min(place.room);
        let blocked = bytes < lent.len();
        if place.room != usize::MAX {
            place.room -= bytes;
        }
        place.is_blocked = blocked;
        place.audience.hear(&lent[..bytes]);
        self.event(Event::Sent { connection, bytes, blocked });
    }

    /// The client closes its end.
    pub(crate) fn close(&mut self, seat: usize) {
        self.begin_close(seat, CloseReason::EndOfStream);
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.event(Event::Command(command));
    }

    /// Number of the client's next publish.
    pub(crate) fn next_sequence(&mut self, seat: usize) -> u64 {
        let place = &mut self.seats[seat];
        place.published += 1;
        place.published
    }

    /// One of the subscriptions that were confirmed to the client.
    pub(crate) fn subscription(&self, seat: usize, choice: usize) -> Option<SubscriptionId> {
        let held = self.seats[seat].audience.subscriptions();
        held.get(choice % held.len().max(1)).copied()
    }

    /// Everything under way ends and everybody leaves.
    pub(crate) fn leave(&mut self) {
        for seat in 0..self.seats.len() {
            self.set_delayed(seat, false);
            self.set_room(seat, usize::MAX);
            self.close(seat);
        }
    }

    fn id(&self, seat: usize) -> ConnectionId {
        ConnectionId { index: seat as u32, generation: self.seats[seat].generation }
    }

    fn begin_close(&mut self, seat: usize, reason: CloseReason) {
        let place = &mut self.seats[seat];
        if !place.is_open || place.closing.is_some() {
            return;
        }
        place.closing = Some(reason);
        if place.in_flight.is_none() {
            self.closed(seat, reason);
        }
    }

    fn closed(&mut self, seat: usize, reason: CloseReason) {
        let connection = self.id(seat);
        self.seats[seat].is_open = false;
        self.event(Event::Closed { connection, reason });
    }

    fn event(&mut self, event: Event<'_>) {
        self.service.on_event(self.now, event);
        (self.check)(&self.service);
        while let Some(output) = self.service.poll_output() {
            self.apply(&output);
            (self.check)(&self.service);
        }
    }

    fn apply(&mut self, output: &Output) {
        match output {
            Output::Send(id) => self.send(*id),
            Output::Close(id) => {
                if let Some(seat) = self.seat_of(*id) {
                    self.begin_close(seat, CloseReason::Asked);
                }
            }
            Output::PauseReceive(id) => {
                if let Some(seat) = self.seat_of(*id) {
                    self.seats[seat].is_paused = true;
                    self.seats[seat].grace_used = false;
                }
            }
            Output::ResumeReceive(id) => {
                if let Some(seat) = self.seat_of(*id) {
                    self.seats[seat].is_paused = false;
                }
            }
            Output::ReceiveInPlace(id) => {
                if let Some(seat) = self.seat_of(*id) {
                    self.seats[seat].receives_in_place = true;
                }
            }
            Output::StopAccepting => self.accepts = false,
            Output::Ring(_) | Output::Report(_) => {}
            Output::Move { connection, to } => {
                assert_eq!(*to, Destination::Edge, "there is no other shard");
                if let Some(seat) = self.seat_of(*connection) {
                    self.move_to_edge(seat);
                }
            }
        }
    }

    /// A connection that speaks HTTP/2 goes, unless its end has begun.
    fn move_to_edge(&mut self, seat: usize) {
        let id = self.id(seat);
        if self.seats[seat].closing.is_none() && self.service.hand_over(id).is_some() {
            self.closed(seat, CloseReason::Moved);
        }
    }

    fn send(&mut self, id: ConnectionId) {
        let seat = self.seat_of(id).expect("sends are asked for open connections alone");
        let mut lent = Vec::new();
        let mut slices = 0;
        self.service.gather(id, &mut |slice| {
            lent.extend_from_slice(slice);
            slices += 1;
        });
        assert!(slices <= nexusd_core::limits::IOVECS_PER_SEND);
        let place = &mut self.seats[seat];
        assert!(place.in_flight.is_none(), "one send at a time");
        assert!(!place.is_blocked, "no send before the socket is writable");
        place.in_flight = Some(lent);
        if !place.is_delayed || place.closing.is_some() {
            self.complete_send(seat);
        }
    }

    /// The seat of a connection, unless it has been closed since the output was written.
    fn seat_of(&self, id: ConnectionId) -> Option<usize> {
        let seat = id.index as usize;
        (self.id(seat) == id && self.seats[seat].is_open).then_some(seat)
    }
}
