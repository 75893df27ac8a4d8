//! Small services, and a rig that runs one on a driver in its own thread, on real sockets.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its own part of the rig"
)]

pub mod crossing;
pub mod echo;
pub mod fan_out;
pub mod moving;
pub mod sluggish;
pub mod upload;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nexusd_core::io::counters::DriverCounters;
use nexusd_core::io::epoll::{EpollDriver, EpollOptions};
use nexusd_core::io::listener::{ListenAddress, Listener, UnixAddress};
use nexusd_core::io::mailbox::{CommandReceiver, CommandSender, mailbox};
use nexusd_core::io::ring::{UringDriver, UringOptions};
use nexusd_core::{Command, Driver, Metrics, Report, Service, ShardIndex, run};

/// How long anything here may take before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The driver that a test runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    Uring,
    Epoll,
}

/// Makes a test on each driver out of functions that take an [`Io`].
#[macro_export]
macro_rules! on_both_drivers {
    ($($name:ident,)*) => {
        mod on_io_uring {
            $(#[test] fn $name() { super::$name($crate::driver_rig::Io::Uring); })*
        }
        mod on_epoll {
            $(#[test] fn $name() { super::$name($crate::driver_rig::Io::Epoll); })*
        }
    };
}

/// What epoll has of these options.
pub fn epoll_options(options: &UringOptions) -> EpollOptions {
    EpollOptions {
        spin_us: options.spin_us,
        connections_max: options.connections_max,
        receive_buffer_bytes: options.receive_buffer_bytes,
    }
}

/// A service on a driver, in a thread of its own.
pub struct Rig<S> {
    pub addresses: Vec<ListenAddress>,
    pub commands: CommandSender,
    pub metrics: mpsc::Receiver<Metrics>,
    thread: JoinHandle<(S, DriverCounters)>,
}

impl<S: Service + Send + 'static> Rig<S> {
    pub fn start(io: Io, options: UringOptions, listeners: Vec<Listener>, service: S) -> Self {
        Self::start_among(io, options, listeners, service, 0, Vec::new(), new_mailbox())
    }

    /// Two loops that know each other; the first one accepts.
    pub fn start_pair(
        io: Io,
        options: UringOptions,
        listeners: Vec<Listener>,
        services: [S; 2],
    ) -> [Self; 2] {
        let mailboxes = [new_mailbox(), new_mailbox()];
        let shards: Vec<_> = mailboxes.iter().map(|(commands, _)| commands.clone()).collect();
        let ([first, second], [first_mailbox, second_mailbox]) = (services, mailboxes);
        [
            Self::start_among(
                io,
                options.clone(),
                listeners,
                first,
                0,
                shards.clone(),
                first_mailbox,
            ),
            Self::start_among(io, options, Vec::new(), second, 1, shards, second_mailbox),
        ]
    }

    fn start_among(
        io: Io,
        options: UringOptions,
        listeners: Vec<Listener>,
        mut service: S,
        own: usize,
        shards: Vec<CommandSender>,
        (commands, receiver): (CommandSender, CommandReceiver),
    ) -> Self {
        let addresses = listeners.iter().map(Listener::local_address).collect();
        let own = ShardIndex::new(own);
        let (metrics_in, metrics) = mpsc::channel();
        let thread = thread::spawn(move || {
            let on_report = Box::new(move |report| {
                if let Report::Metrics(sample) = report {
                    let _ = metrics_in.send(*sample);
                }
            });
            let counters = match io {
                Io::Uring => {
                    let driver = UringDriver::new(&options, listeners, receiver, on_report);
                    let driver = driver.expect("a driver").among(own, shards);
                    run_counted(driver, &mut service, UringDriver::counters)
                }
                Io::Epoll => {
                    let options = epoll_options(&options);
                    let driver = EpollDriver::new(&options, listeners, receiver, on_report);
                    let driver = driver.expect("a driver").among(own, shards);
                    run_counted(driver, &mut service, EpollDriver::counters)
                }
            };
            (service, counters)
        });
        Self { addresses, commands, metrics, thread }
    }

    /// A rig that listens on a free port of 127.0.0.1.
    pub fn on_loopback(io: Io, service: S) -> Self {
        Self::start(io, UringOptions::default(), vec![loopback()], service)
    }

    pub fn tcp(&self) -> SocketAddr {
        self.addresses
            .iter()
            .find_map(|address| match address {
                ListenAddress::Tcp(address) => Some(*address),
                ListenAddress::Unix(_) => None,
            })
            .expect("a TCP listener")
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.tcp())
    }

    /// Ends the loop and hands back the service.
    pub fn stop(self) -> (S, DriverCounters) {
        self.commands.send(Command::Drain { deadline_us: 0 }).expect("room in the mailbox");
        self.thread.join().expect("a loop that ended well")
    }
}

fn new_mailbox() -> (CommandSender, CommandReceiver) {
    mailbox(1_024).expect("a mailbox")
}

fn run_counted<D: Driver<Error = io::Error>>(
    mut driver: D,
    service: &mut impl Service,
    counters: fn(&D) -> DriverCounters,
) -> DriverCounters {
    run(&mut driver, service).expect("a loop without errors");
    counters(&driver)
}

pub fn loopback() -> Listener {
    Listener::tcp("127.0.0.1:0".parse().expect("an address")).expect("a free port")
}

/// A name that no other test has.
pub fn abstract_name() -> UnixAddress {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    UnixAddress::Abstract(format!("nexusd-test/{}/{number}", std::process::id()))
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

pub fn connect_abstract(address: &UnixAddress) -> UnixStream {
    let UnixAddress::Abstract(name) = address else {
        panic!("an abstract name");
    };
    let address = UnixSocketAddr::from_abstract_name(name).expect("a name");
    let stream = UnixStream::connect_addr(&address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "still not so: {what}");
        thread::yield_now();
    }
}

/// A number one thread writes and another watches.
#[derive(Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes in which a displaced, lost or doubled piece shows.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes `bytes` from another thread while reading as many back, and returns what came.
pub fn exchange<T>(stream: &T, try_clone: fn(&T) -> io::Result<T>, bytes: &[u8]) -> Vec<u8>
where
    T: Send + Sync,
    for<'a> &'a T: Read + Write,
{
    let writer = try_clone(stream).expect("a second handle");
    thread::scope(|scope| {
        scope.spawn(move || (&writer).write_all(bytes).expect("the echo reads on"));
        let mut back = vec![0; bytes.len()];
        (&*stream).read_exact(&mut back).expect("the echo answers");
        back
    })
}

/// Sends a few bytes and waits until they come back.
pub fn ping(stream: &mut (impl Read + Write)) {
    let mut back = [0; 4];
    stream.write_all(b"ping").expect("a write");
    stream.read_exact(&mut back).expect("the echo answers");
    assert_eq!(&back, b"ping");
}
