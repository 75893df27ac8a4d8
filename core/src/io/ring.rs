//! The driver on io_uring: turns completions into events, and outputs into submissions.
//!
//! A turn is one [`Driver::wait`]: arm what has to be armed, enter the kernel once (which submits
//! all sends and sleeps if there is nothing else to do), read the clock once, feed what completed.
//! `ring/accept.rs`, `receive.rs`, `send.rs` and `close.rs` hold one kind of completion each.
//!
//! Per completion it allocates nothing, takes no lock and hashes nothing: user data names operation
//! and slot. Invariants: at most one send, one receive and one poll are in flight per connection;
//! memory of the service is in the kernel's hands only while `sending`, or while the receive is
//! `Receive::InPlace`; a slot is freed only when nothing is in flight on it.

mod accept;
mod close;
mod handover;
mod receive;
mod rest;
mod send;

use std::hint;
use std::io;

use self::accept::ListenerSlot;
use self::receive::Starved;
use self::rest::Rest;
use super::buffer_ring::BufferRing;
use super::clock;
use super::connection::ConnectionTable;
use super::counters::DriverCounters;
use super::driver::{self, Driver, Park, Service};
use super::edge::Edge;
use super::kernel_ring::{Completion, KernelRing, Wait};
use super::lingering::{self, Lingering};
use super::listener::Listener;
use super::mailbox::{CommandReceiver, CommandSender};
use super::neighbours::Neighbours;
use super::operation::{self, Operation, SLOTS_MAX};
use super::send_slots::SendSlots;
use super::setup_error::SetupError;
use crate::limits::{
    ACCEPT_COST_BYTES, ADOPTIONS_PER_TURN, COMMANDS_PER_TURN, LINGER_US, RECEIVE_BUFFER_BYTES,
    RECEIVE_BUFFERS, RECEIVE_BYTES_PER_TURN,
};
use crate::shard::event::{ConnectionId, Event, Now};
use crate::shard::output::{Output, Report};
use crate::shard::routing::ShardIndex;

/// Looks at the queues between two looks at the clock, while spinning.
const SPINS_PER_LOOK: u32 = 64;
/// How often, and how long each time (microseconds), a driver that is dropped waits for what is in
/// flight.
const LAST_WAITS: (u32, u64) = (50, 20_000);

/// How a driver is set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UringOptions {
    /// How long to look for something to do before sleeping, in microseconds (`--spin-us`). Buys
    /// latency with CPU time.
    pub spin_us: u32,
    /// Connections at a time. A few more are accepted so that the service can refuse them with a
    /// reason; beyond that they are closed at once.
    pub connections_max: usize,
    /// Receive buffers that all connections share; rounded up to a power of two.
    pub receive_buffers: u16,
    /// Bytes of each of them.
    pub receive_buffer_bytes: u32,
}

impl Default for UringOptions {
    fn default() -> Self {
        Self {
            spin_us: 0,
            connections_max: 10_000,
            receive_buffers: RECEIVE_BUFFERS,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
        }
    }
}

/// What the kernel has to grant for a driver, on the thread that made it: its queues and the receive
/// buffers. Had first, they tell whether there can be a driver before anything is handed to it.
pub struct UringQueues {
    ring: KernelRing,
    buffers: BufferRing,
}

impl UringQueues {
    /// Asks the kernel for them.
    pub fn set_up(options: &UringOptions) -> Result<Self, SetupError> {
        let ring = KernelRing::new()?;
        let buffers = BufferRing::register(
            &ring.submitter(),
            options.receive_buffers,
            options.receive_buffer_bytes,
        )?;
        Ok(Self { ring, buffers })
    }
}

/// Drives a service by io_uring, on the thread that made it.
///
/// While it lives, the kernel may be reading or filling memory that the service lent. Dropping it
/// ends that, so drop it before the service it drove; above all when [`Driver::wait`] failed.
pub struct UringDriver {
    // The kernel's queues go first when the driver is dropped: after that nothing below is in the
    // kernel's hands.
    ring: KernelRing,
    buffers: BufferRing,
    send_slots: SendSlots,
    connections: ConnectionTable,
    connections_max: usize,
    listeners: Vec<ListenerSlot>,
    commands: CommandReceiver,
    neighbours: Neighbours,
    on_report: Box<dyn FnMut(Report) + Send>,
    spin_us: u64,
    now: Now,
    rest: Rest,
    /// Requests whose last completion is still to come.
    in_flight: usize,
    starved: Starved,
    /// Connections that the service closed, or that came to their end, since the last turn.
    to_close: Vec<ConnectionId>,
    lingering: Lingering,
    counters: DriverCounters,
}

impl UringDriver {
    /// Sets up a driver on the calling thread, which has to be the one that runs it. `on_report`
    /// gets the answers to [`crate::Command::Sample`], on that thread.
    pub fn new(
        options: &UringOptions,
        listeners: Vec<Listener>,
        commands: CommandReceiver,
        on_report: Box<dyn FnMut(Report) + Send>,
    ) -> Result<Self, SetupError> {
        Ok(Self::on(UringQueues::set_up(options)?, options, listeners, commands, on_report))
    }

    /// The same on queues that the kernel has granted already. They have to be the calling thread's.
    pub fn on(
        queues: UringQueues,
        options: &UringOptions,
        listeners: Vec<Listener>,
        commands: CommandReceiver,
        on_report: Box<dyn FnMut(Report) + Send>,
    ) -> Self {
        let mut driver = Self {
            ring: queues.ring,
            buffers: queues.buffers,
            send_slots: SendSlots::new(),
            connections: ConnectionTable::default(),
            connections_max: options.connections_max.min(SLOTS_MAX / 2),
            listeners: listeners.into_iter().map(ListenerSlot::new).collect(),
            commands,
            neighbours: Neighbours::default(),
            on_report,
            spin_us: u64::from(options.spin_us),
            now: clock::now(),
            rest: Rest::default(),
            in_flight: 0,
            starved: Starved::new(),
            to_close: Vec::new(),
            lingering: Lingering::default(),
            counters: DriverCounters::default(),
        };
        driver.watch_doorbell();
        for index in 0..driver.listeners.len() {
            driver.arm_accept(index);
        }
        driver
    }

    /// Makes it the driver of one of several shards: `shards` are the mailboxes of all their drivers,
    /// in order.
    pub fn among(mut self, shard: ShardIndex, shards: Vec<CommandSender>) -> Self {
        self.neighbours = Neighbours::of(shard, shards);
        self
    }

    /// Lets it give connections that speak HTTP/2 to the edge.
    pub fn beside(mut self, edge: Edge) -> Self {
        self.neighbours.add_edge(edge);
        self
    }

    /// What was counted so far.
    pub fn counters(&self) -> DriverCounters {
        self.counters
    }

    fn watch_doorbell(&mut self) {
        let descriptor = self.commands.descriptor();
        self.ring.push_poll_doorbell(descriptor, Operation::Doorbell.numbered(0));
        self.in_flight += 1;
    }

    /// Whether something waits that no completion will announce.
    fn has_more_to_do(&mut self) -> bool {
        !self.to_close.is_empty() || !self.starved.is_empty() || self.ring.completions() > 0
    }

    /// The earliest time, of the service's and our own, at which something is to be done.
    fn deadline(&self, wake_at: Option<u64>) -> u64 {
        let retry_at = self.listeners.iter().filter_map(ListenerSlot::retry_at).min();
        [wake_at, retry_at, self.lingering.until()].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Submits everything, and sleeps if `park` allows and nothing is to be done.
    fn submit_and_wait(&mut self, service: &impl Service, park: Park) -> io::Result<()> {
        let rest_us = match park {
            Park::Until(_) => self.rest.end_burst(),
            Park::Never => 0,
        };
        let deadline = match park {
            Park::Until(wake_at) if !self.has_more_to_do() => self.deadline(wake_at),
            _ => self.now.mono_us,
        };
        if deadline > self.now.mono_us && self.spin_us > 0 {
            return self.spin_then_wait(service, deadline);
        }
        if deadline > self.now.mono_us {
            let up_to_us = time_until(deadline, self.now.mono_us);
            self.sleep(service, Wait { rest_us, up_to_us })
        } else if !self.ring.is_submitted() || self.ring.has_deferred_work() {
            self.enter(None)
        } else {
            Ok(())
        }
    }

    /// Sleeps until something completes or the doorbell rings, unless something waits that another
    /// thread sent.
    fn sleep(&mut self, service: &impl Service, wait: Wait) -> io::Result<()> {
        self.commands.fall_asleep();
        let has_mail = self.commands.has_mail(service);
        let result = self.enter((!has_mail).then_some(wait));
        self.commands.wake_up();
        result
    }

    /// Looks for completions for a while before sleeping.
    fn spin_then_wait(&mut self, service: &impl Service, deadline: u64) -> io::Result<()> {
        if !self.ring.is_submitted() {
            self.enter(None)?;
        }
        let begun = clock::mono_us();
        let spin_until = deadline.min(begun.saturating_add(self.spin_us));
        let mut now = begun;
        loop {
            for _ in 0..SPINS_PER_LOOK {
                if self.ring.has_deferred_work() {
                    return self.enter(None);
                }
                if self.ring.completions() > 0 || self.commands.has_mail(service) {
                    return Ok(());
                }
                hint::spin_loop();
            }
            now = now.max(clock::mono_us());
            if now >= deadline {
                return Ok(());
            }
            if now >= spin_until {
                return self.sleep(service, Wait::up_to(time_until(deadline, now)));
            }
        }
    }

    fn enter(&mut self, wait: Option<Wait>) -> io::Result<()> {
        self.counters.enters += 1;
        self.ring.enter(wait)?;
        if self.ring.is_submitted() {
            self.send_slots.reuse();
        }
        Ok(())
    }

    /// Feeds completions to the service, until none is left or a turn's share of bytes is used up.
    fn feed(&mut self, service: &mut impl Service) {
        let mut bytes_left = RECEIVE_BYTES_PER_TURN;
        // What follows from handling them belongs to the next turn.
        for _ in 0..self.ring.completions() {
            let Some(completion) = self.ring.pop() else {
                break;
            };
            let bytes = self.on_completion(service, completion);
            if bytes >= bytes_left {
                break;
            }
            bytes_left -= bytes;
        }
        self.starved.end_turn();
    }

    /// Handles one completion and returns the bytes it received, or what it counts for.
    #[inline]
    fn on_completion(&mut self, service: &mut impl Service, completion: Completion) -> usize {
        let Some((operation, id)) = operation::unpack(completion.user_data) else {
            return 0;
        };
        if !completion.more() && operation != Operation::Cancel {
            self.in_flight -= 1;
        }
        match operation {
            Operation::Receive => return self.on_received(service, id, completion),
            Operation::ReceiveInPlace => return self.on_landed(service, id, completion.result),
            Operation::Send => self.on_sent(service, id, completion.result),
            Operation::Writable => self.on_writable(service, id),
            Operation::Accept => {
                self.on_accepted(service, id.index as usize, completion);
                return ACCEPT_COST_BYTES;
            }
            Operation::Doorbell => {
                if !completion.more() {
                    self.watch_doorbell();
                }
            }
            Operation::Cancel => {}
        }
        0
    }

    /// Feeds what other threads sent.
    fn take_mail(&mut self, service: &mut impl Service) {
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = self.commands.pop() else { break };
            service.on_event(self.now, Event::Command(command));
        }
        let mut bytes_left = RECEIVE_BYTES_PER_TURN;
        for _ in 0..ADOPTIONS_PER_TURN {
            let Some(arrival) = self.commands.pop_arrival() else { break };
            let bytes = self.adopt(service, arrival);
            if bytes >= bytes_left {
                break;
            }
            bytes_left -= bytes;
        }
        if service.has_mail() {
            service.on_event(self.now, Event::Inbox);
        }
    }
}

fn time_until(deadline: u64, now: u64) -> u64 {
    match deadline {
        u64::MAX => u64::MAX,
        _ => deadline - now,
    }
}

impl Driver for UringDriver {
    type Error = io::Error;

    fn wait(&mut self, service: &mut impl Service, park: Park) -> io::Result<()> {
        self.rearm_starved(service);
        self.submit_and_wait(service, park)?;
        self.now = clock::now();
        self.close_asked(service);
        self.feed(service);
        self.take_mail(service);
        self.end_lingering(service);
        self.retry_accepts();
        if service.wake_at().is_some_and(|at| at <= self.now.mono_us) {
            service.on_event(self.now, Event::Tick);
        }
        Ok(())
    }

    fn apply(&mut self, service: &mut impl Service, output: Output) {
        match output {
            Output::Send(id) => self.send(service, id),
            Output::Close(id) => self.ask_to_close(id),
            Output::PauseReceive(id) => self.pause_receive(id),
            Output::ResumeReceive(id) => self.resume_receive(service, id),
            Output::ReceiveInPlace(id) => self.receive_in_place(service, id),
            Output::Move { connection, to } => self.begin_move(service, connection, to),
            Output::Ring(shard) => self.neighbours.ring(shard),
            Output::StopAccepting => self.stop_accepting(),
            Output::Report(mut report) => {
                if let Report::Metrics(metrics) = &mut report {
                    metrics.connections_refused += self.counters.refused;
                    metrics.accepts_failed += self.counters.accepts_failed;
                }
                (self.on_report)(report);
            }
        }
    }

    fn finish(&mut self, service: &mut impl Service) -> io::Result<()> {
        self.commands.close();
        let until = clock::mono_us() + LINGER_US;
        while !self.lingering.is_empty() && clock::mono_us() < until {
            self.submit_and_wait(service, Park::Until(Some(until)))?;
            self.now = clock::now();
            self.close_asked(service);
            self.feed(service);
            self.end_lingering(service);
            driver::drain_outputs(self, service);
        }
        Ok(())
    }
}

impl Drop for UringDriver {
    /// Ends everything in flight, so that ports are free and the service's memory is its own again
    /// when this returns.
    fn drop(&mut self) {
        let (waits, wait_us) = LAST_WAITS;
        for _ in 0..waits {
            if self.in_flight == 0 {
                break;
            }
            self.ring.push_cancel_all();
            if self.ring.enter(Some(Wait::up_to(wait_us))).is_err() {
                break;
            }
            while let Some(completion) = self.ring.pop() {
                self.abandon(completion);
            }
        }
        for socket in self.connections.sockets() {
            lingering::discard_unread(socket);
        }
    }
}

impl UringDriver {
    /// Takes note of a completion that nobody is there to hear of.
    fn abandon(&mut self, completion: Completion) {
        match operation::unpack(completion.user_data) {
            None | Some((Operation::Cancel, _)) => return,
            Some((Operation::Accept, _)) => drop(accept::accepted(completion.result)),
            Some(_) => {}
        }
        if !completion.more() {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }
}
