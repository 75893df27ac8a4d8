//! The process that idle clients live in: it connects all of them at once, keeps them, drops them,
//! and counts what they receive, as it is told on its standard input.
//!
//! One thread, one epoll, nothing blocks: hundreds of handshakes are under way at a time. Pings are
//! answered while it waits for orders. It ends with its standard input.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Answer, topic};
use crate::clock;
use crate::connection::{Connection, Endpoint, Received};
use crate::error::LoadError;
use crate::stamp::Stamp;
use crate::target::{Framing, Target, TargetFraming, Wish};

const EVENTS_PER_ROUND: usize = 256;
/// How long a round waits while connections have to be tried again.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// The number of standard input among the clients'.
const ORDERS: u64 = u64::MAX;

/// Runs clients `first` to `first + count` until standard input ends.
pub(crate) fn run(
    target: Target,
    endpoint: Endpoint,
    run_name: &str,
    first: usize,
    count: usize,
) -> Result<(), LoadError> {
    let most = getrlimit(Resource::Nofile).maximum;
    // A refusal leaves the limit as it was; what cannot be opened says so itself.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    let failed = |source| LoadError::System { what: "cannot watch idle clients", source };
    let clients = (first..first + count).map(|number| IdleClient::new(run_name, number)).collect();
    let mut process = IdleProcess::new(target, endpoint, clients).map_err(failed)?;
    process.run().map_err(failed)
}

struct IdleProcess {
    target: Target,
    endpoint: Endpoint,
    clients: Vec<IdleClient>,
    watch: OwnedFd,
    /// Clients whose connection could not be begun yet: the server's queue was full.
    waiting: Vec<usize>,
    subscribed: usize,
}

struct IdleClient {
    number: usize,
    filter: String,
    open: Option<Open>,
    /// Messages that came, and those of them that were its own.
    received: u64,
    own: u64,
}

/// A connection.
struct Open {
    connection: Connection,
    /// What it says first.
    opening: Vec<u8>,
    framing: TargetFraming,
    is_subscribed: bool,
}

impl IdleClient {
    fn new(run_name: &str, number: usize) -> Self {
        Self { number, filter: topic(run_name, number), open: None, received: 0, own: 0 }
    }

    /// The socket takes bytes for the first time: it is connected, or that has failed.
    fn on_connected(&self) -> Result<(), String> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        open.connection.send_all(&open.opening, || true).map_err(|error| error.to_string())
    }

    /// Reads what is there. Says whether the client has become subscribed by it.
    fn on_readable(&mut self, buffer: &mut [u8]) -> Result<bool, String> {
        let Some(open) = &mut self.open else {
            return Ok(false);
        };
        let bytes = match open.connection.receive_now(buffer) {
            Ok(Received::Bytes(bytes)) => bytes,
            Ok(Received::Nothing) => return Ok(false),
            Ok(Received::End) => return Err("the server closed a connection".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let (received, own, number) = (&mut self.received, &mut self.own, self.number);
        open.framing
            .on_bytes(&buffer[..bytes], &mut |payload| {
                *received += 1;
                let topic = Stamp::read(payload).map(|stamp| stamp.topic as usize);
                *own += u64::from(topic == Some(number));
            })
            .map_err(|error| error.to_string())?;
        let reply = open.framing.take_reply();
        open.connection.send_all(&reply, || true).map_err(|error| error.to_string())?;
        let has_become = !open.is_subscribed && open.framing.is_subscribed(1);
        open.is_subscribed |= has_become;
        Ok(has_become)
    }
}

impl IdleProcess {
    fn new(target: Target, endpoint: Endpoint, clients: Vec<IdleClient>) -> io::Result<Self> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let orders = epoll::EventData::new_u64(ORDERS);
        epoll::add(&watch, io::stdin(), orders, epoll::EventFlags::IN)?;
        Ok(Self { target, endpoint, clients, watch, waiting: Vec::new(), subscribed: 0 })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_PER_ROUND);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let timeout = (!self.waiting.is_empty()).then_some(&RETRY);
            events.clear();
            match epoll::wait(&self.watch, spare_capacity(&mut events), timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                if data.u64() != ORDERS {
                    self.on_event(data.u64() as usize, flags, &mut buffer)?;
                    continue;
                }
                let bytes = rustix::io::read(io::stdin(), &mut buffer[..])?;
                if bytes == 0 {
                    return Ok(());
                }
                for order in String::from_utf8_lossy(&buffer[..bytes]).lines() {
                    self.on_order(order)?;
                }
            }
            for index in std::mem::take(&mut self.waiting) {
                self.begin(index)?;
            }
        }
    }

    fn on_order(&mut self, order: &str) -> io::Result<()> {
        match order {
            "connect" => {
                for index in 0..self.clients.len() {
                    self.begin(index)?;
                }
                Ok(())
            }
            "drop" => {
                self.drop_all();
                answer(&Answer::Dropped)
            }
            "count" => answer(&Answer::Received {
                messages: self.clients.iter().map(|client| client.received).sum(),
                exactly: self
                    .clients
                    .iter()
                    .filter(|client| (client.received, client.own) == (1, 1))
                    .count() as u64,
            }),
            _ => Ok(()),
        }
    }

    fn drop_all(&mut self) {
        self.waiting.clear();
        self.subscribed = 0;
        for client in &mut self.clients {
            // Closing takes the socket out of the epoll as well.
            client.open = None;
        }
    }

    /// Begins to connect a client.
    fn begin(&mut self, index: usize) -> io::Result<()> {
        let connection = match Connection::begin(&self.endpoint) {
            Ok(connection) => connection,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.waiting.push(index);
                return Ok(());
            }
            Err(error) => return self.fail(&error.to_string()),
        };
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.watch, &connection, data, epoll::EventFlags::OUT)?;
        let client = &mut self.clients[index];
        let filters = [client.filter.as_str()];
        let wish = Wish { filters: &filters, ..Wish::default() };
        let (opening, framing) = self.target.greet_as_subscriber(&wish, clock::now_ns());
        client.open = Some(Open { connection, opening, framing, is_subscribed: false });
        Ok(())
    }

    fn on_event(
        &mut self,
        index: usize,
        flags: epoll::EventFlags,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let client = &mut self.clients[index];
        if flags.contains(epoll::EventFlags::OUT) {
            if let Err(cause) = client.on_connected() {
                return self.fail(&cause);
            }
            if let Some(open) = &client.open {
                let data = epoll::EventData::new_u64(index as u64);
                epoll::modify(&self.watch, &open.connection, data, epoll::EventFlags::IN)?;
            }
            return Ok(());
        }
        match client.on_readable(buffer) {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.subscribed += 1;
                if self.subscribed == self.clients.len() {
                    return answer(&Answer::Subscribed);
                }
                Ok(())
            }
            Err(cause) => self.fail(&cause),
        }
    }

    /// One client that cannot go on is the end of the measurement: nothing else is tried.
    fn fail(&mut self, cause: &str) -> io::Result<()> {
        self.drop_all();
        answer(&Answer::Failed(cause.to_owned()))
    }
}

fn answer(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
