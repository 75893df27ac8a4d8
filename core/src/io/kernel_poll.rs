//! The kernel's list of what is watched, and the one system call that waits for it.
//!
//! Owns the epoll instance. What is watched stays its owner's: a socket that closes is forgotten by the
//! kernel, and whatever was reported of it before names a slot's former generation.
//!
//! The wait is in whole milliseconds, rounded up, so that nothing is early and no newer call than
//! `epoll_pwait` is needed: a sandbox that refuses io_uring may well not know `epoll_pwait2` either.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Reports taken by one wait; further ones keep their turn in the kernel.
const REPORTS_MAX: usize = 256;
/// Longest single wait, in microseconds: what the call can say in an `int` of milliseconds.
const WAIT_US_MAX: u64 = 1_000_000_000_000;

/// What is watched for on a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Interest {
    /// There is something to read, or the end.
    pub(super) readable: bool,
    /// There is room in the send buffer again.
    pub(super) writable: bool,
}

impl Interest {
    pub(super) const READABLE: Self = Self { readable: true, writable: false };
    pub(super) const NONE: Self = Self { readable: false, writable: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.readable);
        flags.set(EventFlags::OUT, self.writable);
        flags
    }
}

/// That something which is watched is ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// What it was watched with.
    pub(super) user_data: u64,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// An epoll instance, and what it reported last.
pub(super) struct KernelPoll {
    epoll: OwnedFd,
    events: Box<[Event]>,
    reported: usize,
}

impl KernelPoll {
    /// Fails when file descriptors or memory run out.
    pub(super) fn new() -> io::Result<Self> {
        let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: vec![nothing; REPORTS_MAX].into_boxed_slice(),
            reported: 0,
        })
    }

    /// Changes what a socket is watched for. While it is watched for nothing, the kernel does not
    /// report its end either.
    pub(super) fn watch(
        &self,
        socket: BorrowedFd<'_>,
        user_data: u64,
        before: Interest,
        after: Interest,
    ) -> io::Result<()> {
        let data = EventData::new_u64(user_data);
        let epoll = self.epoll.as_fd();
        match (before, after) {
            _ if before == after => Ok(()),
            (Interest::NONE, _) => epoll::add(epoll, socket, data, after.flags()),
            (_, Interest::NONE) => epoll::delete(epoll, socket),
            _ => epoll::modify(epoll, socket, data, after.flags()),
        }
        .map_err(io::Error::from)
    }

    /// Watches an eventfd, which is reported once for each write to it, and never read.
    pub(super) fn watch_writes(&self, event: BorrowedFd<'_>, user_data: u64) -> io::Result<()> {
        let data = EventData::new_u64(user_data);
        Ok(epoll::add(self.epoll.as_fd(), event, data, EventFlags::IN | EventFlags::ET)?)
    }

    /// Waits for reports, so many microseconds at most (`u64::MAX`: without end), and returns how many
    /// came. Returns early on a signal.
    pub(super) fn wait(&mut self, wait_us: u64) -> io::Result<usize> {
        let us = wait_us.min(WAIT_US_MAX);
        let time =
            Timespec { tv_sec: (us / 1_000_000) as i64, tv_nsec: (us % 1_000_000 * 1_000) as _ };
        let timeout = (wait_us != u64::MAX).then_some(&time);
        self.reported = match epoll::wait(self.epoll.as_fd(), &mut *self.events, timeout) {
            Ok(reported) => reported,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(self.reported)
    }

    /// One of the reports of the last wait. The end of a connection, and its failure, count as both
    /// readable and writable: the call that follows will tell.
    #[inline]
    pub(super) fn report(&self, index: usize) -> Report {
        let Event { flags, data } = self.events[index];
        let is_over = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        Report {
            user_data: data.u64(),
            readable: is_over || flags.contains(EventFlags::IN),
            writable: is_over || flags.contains(EventFlags::OUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    const WRITABLE: Interest = Interest { readable: false, writable: true };

    #[test]
    fn what_is_watched_for_is_reported_until_it_is_over() {
        let mut poll = KernelPoll::new().expect("an epoll instance");
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        poll.watch(ours.as_fd(), 7, Interest::NONE, Interest::READABLE).expect("a watch");
        assert_eq!(poll.wait(0).expect("a wait"), 0);
        theirs.write_all(b"x").expect("a write");
        for _ in 0..2 {
            assert_eq!(poll.wait(u64::MAX).expect("a wait"), 1);
            let Report { user_data, readable, writable } = poll.report(0);
            assert_eq!((user_data, readable, writable), (7, true, false));
        }
        poll.watch(ours.as_fd(), 7, Interest::READABLE, WRITABLE).expect("a change");
        assert_eq!(poll.wait(u64::MAX).expect("a wait"), 1);
        assert!(poll.report(0).writable && !poll.report(0).readable);
    }

    #[test]
    fn the_end_of_a_socket_that_is_watched_for_nothing_is_not_reported() {
        let mut poll = KernelPoll::new().expect("an epoll instance");
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        poll.watch(ours.as_fd(), 7, Interest::NONE, Interest::READABLE).expect("a watch");
        poll.watch(ours.as_fd(), 7, Interest::READABLE, Interest::NONE).expect("a change");
        drop(theirs);
        assert_eq!(poll.wait(0).expect("a wait"), 0);
        poll.watch(ours.as_fd(), 7, Interest::NONE, WRITABLE).expect("a change");
        assert_eq!(poll.wait(u64::MAX).expect("a wait"), 1);
        assert!(poll.report(0).readable, "the end counts as both");
    }

    #[test]
    fn a_wait_is_never_shorter_than_asked_for() {
        let mut poll = KernelPoll::new().expect("an epoll instance");
        let begun = std::time::Instant::now();
        assert_eq!(poll.wait(1_300).expect("a wait"), 0);
        assert!(begun.elapsed().as_micros() >= 1_300);
    }
}
