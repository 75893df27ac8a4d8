//! What the processes of a run agree on, and what each of them does first.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU64;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use nexusd_wire::{HEADER_BYTES, aligned};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{
    CpuSet, clock_nanosleep_absolute, sched_setaffinity, set_current_timer_slack,
};
use rustix::time::{ClockId, Timespec, clock_gettime};

pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const LOAD_CORE: usize = 1;
/// One ring; a unix socket holds about as much.
pub(crate) const RING_BYTES: usize = 256 << 10;
/// What a client writes or reads at once.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// The epoll driver's receive buffer begins where a page does: the kernel copies faster from and to there.
pub(crate) const PAGE_BYTES: usize = 4096;
/// What the beginning of a run is not counted for.
pub(crate) const WARM_UP: Duration = Duration::from_millis(100);
/// No process of a run lives longer.
const LIFE_MAX: Duration = Duration::from_secs(20);

/// What a client says first: who it is.
pub(crate) const PUBLISHER: u8 = b'P';
pub(crate) const SUBSCRIBER: u8 = b'S';

/// Anything that ends a run.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// How frames get from process to process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Over unix sockets.
    Socket,
    /// Through rings, copied from ring to ring.
    Ring,
    /// Through rings, copied into private memory, as a shard's log is, and from there.
    RingByLog,
}

impl Way {
    const NAMES: [(&str, Self); 3] =
        [("socket", Self::Socket), ("ring", Self::Ring), ("ring-by-log", Self::RingByLog)];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, way)| *way == self).map_or("", |(name, _)| name)
    }

    pub(crate) fn from_name(wanted: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == wanted).map(|(_, way)| *way)
    }
}

/// An address that is gone with its listener.
pub(crate) fn address(name: &str) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

/// The socket of a client, which says who it is.
pub(crate) fn connect(name: &str, role: u8) -> std::io::Result<UnixStream> {
    let mut socket = UnixStream::connect_addr(&address(name)?)?;
    socket.write_all(&[role])?;
    Ok(socket)
}

pub(crate) fn receive_role(mut socket: &UnixStream) -> std::io::Result<u8> {
    let mut role = [0];
    socket.read_exact(&mut role)?;
    Ok(role[0])
}

/// What a publisher writes at once: whole messages of so many bytes. A server that receives as much at once
/// sees each write as it was made, which is the best that can happen to a socket.
pub(crate) fn write_bytes(payload_bytes: usize) -> usize {
    let stride = HEADER_BYTES + aligned(payload_bytes);
    if stride > CHUNK_BYTES { stride } else { CHUNK_BYTES / stride * stride }
}

/// Where a page begins in `memory`, at least a page behind its start.
pub(crate) fn page_in(memory: &[u8]) -> usize {
    memory.as_ptr().align_offset(PAGE_BYTES) + PAGE_BYTES
}

/// A line for the process that started this one.
pub(crate) fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// This process ends with the one that started it, and lives only so long in any case.
pub(crate) fn bound_life() {
    // Refused by no kernel; without it a run is still bounded in time.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    std::thread::spawn(|| {
        std::thread::sleep(LIFE_MAX);
        std::process::exit(3);
    });
}

pub(crate) fn pin(core: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)
        .map_err(|cause| format!("core {core} is needed and cannot be had: {cause}").into())
}

/// Nanoseconds of the clock that all processes share.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Has the kernel wake this thread when it asks to be, not up to 50 µs later.
pub(crate) fn wake_on_time() {
    // Refused only where there is no slack.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}

pub(crate) fn sleep_until(deadline_ns: u64) {
    let deadline = Timespec {
        tv_sec: (deadline_ns / 1_000_000_000) as i64,
        tv_nsec: (deadline_ns % 1_000_000_000) as i64,
    };
    while clock_nanosleep_absolute(ClockId::Monotonic, &deadline) == Err(rustix::io::Errno::INTR) {}
}
