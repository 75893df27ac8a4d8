//! The memory in which a turn's sends are described to the kernel: iovecs and message headers.
//!
//! The kernel reads them while it takes a submission, not later (`IORING_FEAT_SUBMIT_STABLE`). So
//! they belong to the turn, not to connections: ten thousand connections need no more of them than
//! one, and they stay in cache. The bytes the iovecs point to are lent by the service until the
//! send has ended.
//!
//! Invariant: a slot does not change between its submission being queued and the kernel taking it;
//! the driver calls [`SendSlots::reuse`] only then.
#![allow(unsafe_code)]

use std::mem;

use io_uring::squeue::Entry;
use io_uring::{opcode, types::Fd};

use crate::io::driver::Service;
use crate::io::gathered::{Gathered, SEND_FLAGS};
use crate::limits::SENDS_PER_TURN;
use crate::shard::event::ConnectionId;

/// The slots of one turn.
pub(super) struct SendSlots {
    /// Boxed, so that a slot stays in place while their number grows.
    #[expect(clippy::vec_box, reason = "the kernel holds pointers to the slots")]
    slots: Vec<Box<SendSlot>>,
    used: usize,
}

/// What the kernel needs to know of one send.
struct SendSlot {
    gathered: Gathered,
    header: libc::msghdr,
}

/// A send ready to be submitted.
pub(super) struct GatheredSend {
    /// The submission, without user data.
    pub(super) entry: Entry,
    /// How many bytes it is to send.
    pub(super) bytes: u32,
}

impl SendSlots {
    /// Slots for the sends of an ordinary turn; more are made when needed, and kept.
    pub(super) fn new() -> Self {
        Self { slots: (0..=SENDS_PER_TURN).map(|_| Box::new(SendSlot::new())).collect(), used: 0 }
    }

    /// Gathers what `connection` sends next; `None` if that is nothing.
    pub(super) fn gather(
        &mut self,
        service: &mut impl Service,
        connection: ConnectionId,
        socket: i32,
    ) -> Option<GatheredSend> {
        if self.used == self.slots.len() {
            self.slots.push(Box::new(SendSlot::new()));
        }
        let slot = &mut self.slots[self.used];
        let bytes = slot.gathered.collect(service, connection);
        let entry = match slot.gathered.iovecs() {
            [] => return None,
            [one] => {
                opcode::Send::new(Fd(socket), one.iov_base.cast(), bytes).flags(SEND_FLAGS).build()
            }
            many => {
                slot.header.msg_iov = many.as_mut_ptr();
                slot.header.msg_iovlen = many.len() as _;
                self.used += 1;
                opcode::SendMsg::new(Fd(socket), &raw const slot.header)
                    .flags(SEND_FLAGS as u32)
                    .build()
            }
        };
        Some(GatheredSend { entry, bytes })
    }

    /// The kernel has taken every submission: all slots are free.
    #[inline]
    pub(super) fn reuse(&mut self) {
        self.used = 0;
    }
}

impl SendSlot {
    fn new() -> Self {
        Self {
            gathered: Gathered::new(),
            // SAFETY: all zeros is a header without name, iovecs and control data: null pointers
            // and lengths of zero. (Some C libraries have private padding in it, so it cannot be
            // written as a literal.)
            header: unsafe { mem::zeroed() },
        }
    }
}
