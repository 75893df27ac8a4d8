//! The driver on epoll: for hosts where io_uring is refused. Turns readiness into events, and outputs
//! into system calls.
//!
//! A turn is one [`Driver::wait`]: wait for what is ready, read the clock once, accept and receive what
//! there is. Sends are made while outputs are carried out, so a burst costs one wait, one receive and
//! one send. `epoll/accept.rs`, `receive.rs`, `send.rs` and `close.rs` hold one kind of call each.
//!
//! No call on a socket ever blocks, and none outlasts its call: memory that the service lends is in the
//! kernel's hands only within [`Driver::apply`] and [`Driver::wait`]. Watching is level-triggered: for
//! reading as long as the service wants to read, for writing only while a send was cut short.
//!
//! Per event it allocates nothing, takes no lock and hashes nothing.

mod accept;
mod close;
mod handover;
mod receive;
mod send;

use std::collections::VecDeque;
use std::io;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use self::accept::ListenerSlot;
use super::clock;
use super::connection::{Connection, ConnectionTable, Receive};
use super::counters::DriverCounters;
use super::driver::{self, Driver, Park, Service};
use super::edge::Edge;
use super::gathered::Gathered;
use super::kernel_poll::{Interest, KernelPoll};
use super::lingering::{self, Lingering};
use super::listener::Listener;
use super::mailbox::{CommandReceiver, CommandSender};
use super::neighbours::Neighbours;
use super::operation::{self, Operation, SLOTS_MAX};
use crate::limits::{
    ADOPTIONS_PER_TURN, COMMANDS_PER_TURN, EPOLL_BYTES_PER_TURN, LINGER_US, SENDS_PER_TURN,
};
use crate::shard::event::{CloseReason, ConnectionId, Event, Now};
use crate::shard::output::{Output, Report};
use crate::shard::routing::ShardIndex;

const PAGE_BYTES: usize = 4_096;

/// How a driver is set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpollOptions {
    /// How long to look for something to do before sleeping, in microseconds (`--spin-us`). Buys
    /// latency with CPU time.
    pub spin_us: u32,
    /// Connections at a time. A few more are accepted so that the service can refuse them with a
    /// reason; beyond that they are closed at once.
    pub connections_max: usize,
    /// Bytes of the one buffer that everything but large frames is received into.
    pub receive_buffer_bytes: u32,
}

impl Default for EpollOptions {
    fn default() -> Self {
        Self {
            spin_us: 0,
            connections_max: 10_000,
            receive_buffer_bytes: EPOLL_BYTES_PER_TURN as u32,
        }
    }
}

/// What the receive buffer is made of, so that it begins where a page does, as the memory of sent bytes
/// in the kernel mostly does: a copy to a place that lies a few bytes further in its page takes some
/// processors several times as long.
#[derive(Clone, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// At least so many bytes.
fn zeroed_pages(bytes: usize) -> Box<[Page]> {
    vec![Page([0; PAGE_BYTES]); bytes.div_ceil(PAGE_BYTES)].into_boxed_slice()
}

/// Drives a service by epoll.
pub struct EpollDriver {
    poll: KernelPoll,
    buffer: Box<[Page]>,
    gathered: Gathered,
    connections: ConnectionTable,
    connections_max: usize,
    listeners: Vec<ListenerSlot>,
    commands: CommandReceiver,
    neighbours: Neighbours,
    on_report: Box<dyn FnMut(Report) + Send>,
    spin_us: u64,
    now: Now,
    /// Connections that have something to read, in the order of their turn; none of them twice.
    line: VecDeque<ConnectionId>,
    /// Long sends since the last turn, and the bytes that the sockets took.
    sent: Vec<(ConnectionId, usize)>,
    /// Connections that the service closed, or that came to their end, since the last turn.
    to_close: Vec<ConnectionId>,
    lingering: Lingering,
    counters: DriverCounters,
}

impl EpollDriver {
    /// Sets up a driver. `on_report` gets the answers to [`crate::Command::Sample`], on the thread
    /// that runs it. Fails when file descriptors or memory run out.
    pub fn new(
        options: &EpollOptions,
        listeners: Vec<Listener>,
        commands: CommandReceiver,
        on_report: Box<dyn FnMut(Report) + Send>,
    ) -> io::Result<Self> {
        let poll = KernelPoll::new()?;
        poll.watch_writes(commands.doorbell(), Operation::Doorbell.numbered(0))?;
        let mut driver = Self {
            poll,
            buffer: zeroed_pages(options.receive_buffer_bytes as usize),
            gathered: Gathered::new(),
            connections: ConnectionTable::default(),
            connections_max: options.connections_max.min(SLOTS_MAX / 2),
            listeners: listeners.into_iter().map(ListenerSlot::new).collect::<io::Result<_>>()?,
            commands,
            neighbours: Neighbours::default(),
            on_report,
            spin_us: u64::from(options.spin_us),
            now: clock::now(),
            line: VecDeque::new(),
            sent: Vec::with_capacity(SENDS_PER_TURN + 1),
            to_close: Vec::new(),
            lingering: Lingering::default(),
            counters: DriverCounters::default(),
        };
        for index in 0..driver.listeners.len() {
            driver.watch_listener(index)?;
        }
        Ok(driver)
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

    /// Whether something waits that no report will announce.
    fn has_more_to_do(&self) -> bool {
        !self.sent.is_empty() || !self.to_close.is_empty() || !self.line.is_empty()
    }

    /// The earliest time, of the service's and our own, at which something is to be done.
    fn deadline(&self, wake_at: Option<u64>) -> u64 {
        let retry_at = self.listeners.iter().filter_map(ListenerSlot::retry_at).min();
        [wake_at, retry_at, self.lingering.until()].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Asks what is ready, and sleeps if `park` allows and nothing is to be done. Returns the number
    /// of reports.
    fn look(&mut self, service: &impl Service, park: Park) -> io::Result<usize> {
        let deadline = match park {
            Park::Until(wake_at) if !self.has_more_to_do() => self.deadline(wake_at),
            _ => self.now.mono_us,
        };
        let mut now = self.now.mono_us;
        if deadline > now && self.spin_us > 0 {
            now = clock::mono_us();
            let spin_until = deadline.min(now.saturating_add(self.spin_us));
            while now < spin_until {
                let reports = self.enter(0)?;
                if reports > 0 || self.commands.has_mail(service) {
                    return Ok(reports);
                }
                now = clock::mono_us();
            }
        }
        match deadline {
            u64::MAX => self.sleep(service, u64::MAX),
            _ if deadline > now => self.sleep(service, deadline - now),
            _ => self.enter(0),
        }
    }

    /// Sleeps until something is ready or the doorbell rings, for `wait_us` at most, unless something
    /// waits that another thread sent.
    fn sleep(&mut self, service: &impl Service, wait_us: u64) -> io::Result<usize> {
        self.commands.fall_asleep();
        let has_mail = self.commands.has_mail(service);
        let result = self.enter(if has_mail { 0 } else { wait_us });
        self.commands.wake_up();
        result
    }

    fn enter(&mut self, wait_us: u64) -> io::Result<usize> {
        self.counters.enters += 1;
        self.poll.wait(wait_us)
    }

    /// Goes on with every connection that is ready, or that the last turn left something to do for.
    fn turn(&mut self, service: &mut impl Service, park: Park) -> io::Result<()> {
        let reports = self.look(service, park)?;
        self.now = clock::now();
        self.tell_sent(service);
        self.close_asked(service);
        self.feed(service, reports);
        self.end_lingering(service);
        Ok(())
    }

    /// Accepts and receives what there is, until nothing is left or a turn's share of bytes is used
    /// up. However many come, whoever is first in line is served.
    fn feed(&mut self, service: &mut impl Service, reports: usize) {
        let mut bytes_left = EPOLL_BYTES_PER_TURN;
        for index in 0..reports {
            let report = self.poll.report(index);
            match operation::unpack(report.user_data) {
                Some((Operation::Receive, id)) => self.on_ready(service, id, report),
                Some((Operation::Accept, id)) => {
                    let cost = self.accept(service, id.index as usize, bytes_left / 2);
                    bytes_left = bytes_left.saturating_sub(cost);
                }
                // The doorbell has done its work: the mail is looked after in every turn.
                _ => {}
            }
        }
        while let Some(id) = self.line.pop_front() {
            let bytes = self.receive(service, id);
            if bytes >= bytes_left {
                break;
            }
            bytes_left -= bytes;
        }
    }

    /// Changes a connection, and then what it is watched for. If the kernel has no room for that, the
    /// connection ends.
    fn change(
        &mut self,
        service: &mut impl Service,
        id: ConnectionId,
        change: impl FnOnce(&mut Connection),
    ) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        let before = interest(connection);
        change(connection);
        let after = interest(connection);
        let Some(socket) = connection.socket() else {
            return;
        };
        if let Err(error) = self.poll.watch(socket, Operation::Receive.on(id), before, after) {
            connection.receive = Receive::Idle;
            connection.polling_writable = false;
            self.end(service, id, CloseReason::Failed(error.raw_os_error().unwrap_or(libc::EIO)));
        }
    }

    /// Feeds what other threads sent.
    fn take_mail(&mut self, service: &mut impl Service) {
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = self.commands.pop() else { break };
            service.on_event(self.now, Event::Command(command));
        }
        let mut bytes_left = EPOLL_BYTES_PER_TURN;
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

/// What the kernel watches a connection for.
fn interest(connection: &Connection) -> Interest {
    Interest {
        readable: connection.receive == Receive::Shared,
        writable: connection.polling_writable,
    }
}

impl Driver for EpollDriver {
    type Error = io::Error;

    fn wait(&mut self, service: &mut impl Service, park: Park) -> io::Result<()> {
        self.turn(service, park)?;
        self.take_mail(service);
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
            self.turn(service, Park::Until(Some(until)))?;
            driver::drain_outputs(self, service);
        }
        Ok(())
    }
}

impl Drop for EpollDriver {
    fn drop(&mut self) {
        for socket in self.connections.sockets() {
            lingering::discard_unread(socket);
        }
    }
}
