//! The kernel's two queues: submissions in, completions out, and the one system call between.
//!
//! Owns the io_uring instance. `SINGLE_ISSUER | DEFER_TASKRUN`: only the thread that made it enters
//! it, and the kernel works for it only inside [`KernelRing::enter`] and, when the queue is full,
//! [`KernelRing::push`]; so nothing moves behind our back elsewhere. Invariant: submissions reach the
//! kernel in the order they were pushed.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Submitter, cqueue, opcode};

use super::operation::Operation;
use super::setup_error::SetupError;

/// Submissions that wait for the next enter. A turn rarely needs more; when it does, it enters
/// early.
const SUBMISSIONS: u32 = 256;
/// Completions that fit before the kernel has to keep them elsewhere.
const COMPLETIONS: u32 = 4_096;

/// An io_uring instance.
pub(super) struct KernelRing {
    uring: IoUring,
    enter_flags: u32,
    /// Whether it can rest before it looks for completions (Linux 6.12).
    can_rest: bool,
    /// Submissions the kernel had no room for; nearly always empty.
    backlog: VecDeque<Entry>,
}

impl KernelRing {
    /// Sets up a ring that this thread alone may use.
    pub(super) fn new() -> Result<Self, SetupError> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(|error| {
                SetupError::from_errno("the ring", error.raw_os_error().unwrap_or(libc::EIO))
            })?;
        let features = uring.params();
        if !(features.is_feature_ext_arg()
            && features.is_feature_nodrop()
            && features.is_feature_submit_stable()
            && features.is_feature_skip_cqe_on_success())
        {
            return Err(SetupError::too_old());
        }
        // Deferred work runs only in an enter that asks for events.
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if features.is_feature_no_iowait() {
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let can_rest = features.is_feature_min_timeout();
        Ok(Self { enter_flags: enter_flags.bits(), can_rest, backlog: VecDeque::new(), uring })
    }

    /// For registering buffers.
    pub(super) fn submitter(&self) -> Submitter<'_> {
        self.uring.submitter()
    }

    /// Queues a submission for the next enter.
    ///
    /// # Safety
    ///
    /// Memory that `entry` lends to the kernel stays valid, in place, and is touched by nobody else
    /// in conflict, until the completion was popped. Message headers and iovecs are read while the
    /// kernel takes the submission (`IORING_FEAT_SUBMIT_STABLE`, checked at set-up), so these must
    /// last until [`Self::is_submitted`] only.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: &Entry) {
        if self.backlog.is_empty() {
            // SAFETY: passed on to our caller.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            // An error leaves the queue full, and the entry goes to the backlog.
            let _ = self.uring.submit();
            // SAFETY: passed on to our caller.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry.clone());
    }

    /// Queues a multishot accept.
    pub(super) fn push_accept(&mut self, listener: i32, user_data: u64) {
        let entry = opcode::AcceptMulti::new(Fd(listener))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(user_data);
        // SAFETY: the entry lends no memory.
        unsafe { self.push(&entry) };
    }

    /// Queues a multishot receive into the buffers of `group`.
    #[inline]
    pub(super) fn push_receive(&mut self, socket: i32, group: u16, user_data: u64) {
        let entry = opcode::RecvMulti::new(Fd(socket), group).build().user_data(user_data);
        // SAFETY: the entry itself lends no memory; the group's buffers are lent by `BufferRing`.
        unsafe { self.push(&entry) };
    }

    /// Queues a poll that ends once, when the socket takes bytes or is broken.
    #[inline]
    pub(super) fn push_poll_writable(&mut self, socket: i32, user_data: u64) {
        let entry =
            opcode::PollAdd::new(Fd(socket), libc::POLLOUT as u32).build().user_data(user_data);
        // SAFETY: the entry lends no memory.
        unsafe { self.push(&entry) };
    }

    /// Queues a poll that tells of every write to an eventfd.
    pub(super) fn push_poll_doorbell(&mut self, event: i32, user_data: u64) {
        let entry = opcode::PollAdd::new(Fd(event), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(user_data);
        // SAFETY: the entry lends no memory.
        unsafe { self.push(&entry) };
    }

    /// Queues the cancellation of the request with this user data. What comes of it shows in that
    /// request's own completion.
    pub(super) fn push_cancel(&mut self, user_data: u64) {
        self.push_cancellation(CancelBuilder::user_data(user_data));
    }

    /// Queues the cancellation of everything in flight.
    pub(super) fn push_cancel_all(&mut self) {
        self.push_cancellation(CancelBuilder::any());
    }

    fn push_cancellation(&mut self, which: CancelBuilder) {
        let entry = opcode::AsyncCancel2::new(which)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(Operation::Cancel.numbered(0));
        // SAFETY: the entry lends no memory.
        unsafe { self.push(&entry) };
    }

    /// Hands all submissions to the kernel and lets it work. With `wait`, sleeps until there is a
    /// completion.
    ///
    /// Returns early on a signal. An error means that the ring is beyond use.
    pub(super) fn enter(&mut self, wait: Option<Wait>) -> io::Result<()> {
        self.unload_backlog();
        let pending = self.uring.submission().len() as u32;
        let timeout;
        let mut args = SubmitArgs::new();
        if let Some(Wait { up_to_us: us, .. }) = wait
            && us != u64::MAX
        {
            timeout = Timespec::new().sec(us / 1_000_000).nsec((us % 1_000_000) as u32 * 1_000);
            args = args.timespec(&timeout);
        }
        // With submissions that found no room there is more to do than to wait.
        let mut wanted = u32::from(wait.is_some() && self.backlog.is_empty());
        if let Some(Wait { rest_us: rest_us @ 1.., up_to_us }) = wait
            && self.can_rest
            && wanted > 0
        {
            // More than there will be: the kernel lets the time pass first.
            wanted = COMPLETIONS;
            args = args.min_wait_usec(rest_us.min(u32::try_from(up_to_us).unwrap_or(u32::MAX)));
        }
        // SAFETY: `args` is what EXT_ARG promises, and lives, with the timeout it points to, until
        // the call returns. The submissions' own memory is vouched for by `push`.
        let entered =
            unsafe { self.uring.submitter().enter(pending, wanted, self.enter_flags, Some(&args)) };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The time is up; a signal came; or the kernel wants completions taken, or memory
                // freed, before it takes more: the next turn tries again.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn unload_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: whoever pushed the entry vouched for it.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Whether the kernel has taken every submission.
    #[inline]
    pub(super) fn is_submitted(&mut self) -> bool {
        self.backlog.is_empty() && self.uring.submission().is_empty()
    }

    /// Whether the kernel has work that an enter would do: deferred, or completions it could not
    /// post yet.
    #[inline]
    pub(super) fn has_deferred_work(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Completions that can be popped.
    #[inline]
    pub(super) fn completions(&mut self) -> usize {
        self.uring.completion().len()
    }

    /// Takes the oldest completion.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Completion> {
        self.uring.completion().next().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        })
    }
}

/// How long an enter may sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wait {
    /// Microseconds in which completions do not end the sleep, where the kernel can do that.
    pub(super) rest_us: u32,
    /// Microseconds after which it ends without one; `u64::MAX` is never.
    pub(super) up_to_us: u64,
}

impl Wait {
    /// Until there is a completion, or for so many microseconds.
    pub(super) fn up_to(us: u64) -> Self {
        Self { rest_us: 0, up_to_us: us }
    }
}

/// How a request went, or one step of a multishot request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    /// What the submission carried.
    pub(super) user_data: u64,
    /// The result, or a negated error number.
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// The request goes on; more completions follow.
    #[inline]
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that was filled.
    #[inline]
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The kernel goes on filling the same buffer.
    #[inline]
    pub(super) fn buffer_more(self) -> bool {
        cqueue::buffer_more(self.flags)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Sleeps in a ring that has a completion to give, and says for how long.
    fn slept(ring: &mut KernelRing, wait: Wait) -> Duration {
        // There is nothing to cancel, which its completion says at once.
        ring.push_cancel(Operation::Receive.numbered(7));
        let begun = Instant::now();
        ring.enter(Some(wait)).expect("the ring can be used");
        let slept = begun.elapsed();
        assert!(ring.pop().is_some(), "the completion is there after {slept:?}");
        slept
    }

    #[test]
    fn a_completion_does_not_end_a_rest_but_any_other_sleep() {
        let mut ring = KernelRing::new().expect("io_uring");
        let rest = Duration::from_millis(20);
        if ring.can_rest {
            let wait = Wait { rest_us: 20_000, ..Wait::up_to(u64::MAX) };
            assert!(slept(&mut ring, wait) >= rest);
            let wait = Wait { rest_us: 20_000, up_to_us: 60_000_000 };
            assert!(slept(&mut ring, wait) >= rest);
        }
        // Without an end, were the completion not to end it.
        slept(&mut ring, Wait::up_to(u64::MAX));
    }

    #[test]
    fn a_rest_is_not_longer_than_the_sleep_may_be() {
        let mut ring = KernelRing::new().expect("io_uring");
        let wait = Wait { rest_us: 60_000_000, up_to_us: 1_000 };
        assert!(slept(&mut ring, wait) < Duration::from_secs(30));
    }
}
