//! The receive buffers that all connections share, and the ring in which the kernel takes them.
//!
//! A buffer belongs either to the kernel, or to the one completion that names it until that was
//! handled. Where the kernel can (6.12), it fills a buffer by and by: small receives then take bytes
//! from the pool instead of whole buffers.
//!
//! A buffer begins somewhere else in its first page each time it is provided ([`START_STEP_BYTES`]).
//! Over loopback the kernel copies from pages that are filled as continuously as our buffers are, and
//! so the two would stay the same distance apart for a thousand sends or so; where that is 1 to 15 bytes past a
//! multiple of a page, AMD's `rep movsb` moves 3 GB/s and not 50.
//!
//! Invariants: a buffer is provided again only after all its completions were handled
//! ([`BufferRing::release`]), and the memory outlives the io_uring instance: the driver drops its
//! ring first.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::setup_error::SetupError;

/// `IOU_PBUF_RING_INC`: buffers are filled by and by.
const INCREMENTAL: u16 = 2;
/// The kernel wants the ring on a page of its own.
const PAGE_BYTES: usize = 4_096;
/// How much later in its first page a buffer begins than the one provided before. An odd multiple of 8:
/// every multiple of 8 has its turn.
const START_STEP_BYTES: usize = 8 * 197;
const _: () = assert!((START_STEP_BYTES / 8) % 2 == 1 && START_STEP_BYTES.is_multiple_of(8));

/// A ring of provided buffers, registered as [`BufferRing::GROUP`].
pub(super) struct BufferRing {
    /// `count` entries; the first one's reserved field is the tail.
    entries: NonNull<BufRingEntry>,
    /// `count` × (`buffer_bytes` and a page).
    memory: NonNull<u8>,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    /// Where the buffer that is provided next begins in its first page.
    next_start: usize,
    shares: Box<[Share]>,
}

/// One buffer's part of the memory.
#[derive(Clone, Copy, Default)]
struct Share {
    /// Where the buffer begins in its first page.
    start: u32,
    /// How much of the buffer was handled.
    handled: u32,
}

impl BufferRing {
    /// The group that receives name.
    pub(super) const GROUP: u16 = 0;

    /// Registers `count` buffers (a power of two) of `buffer_bytes` each and provides them all.
    pub(super) fn register(
        submitter: &Submitter<'_>,
        count: u16,
        buffer_bytes: u32,
    ) -> Result<Self, SetupError> {
        let count = count.clamp(1, 1 << 14).next_power_of_two();
        let mut ring = Self {
            entries: allocate(entries_layout(count)).cast(),
            memory: allocate(memory_layout(count, buffer_bytes)),
            count,
            buffer_bytes,
            tail: 0,
            next_start: 0,
            shares: vec![Share::default(); usize::from(count)].into(),
        };
        ring.announce(submitter, INCREMENTAL)
            .or_else(|_| ring.announce(submitter, 0))
            .map_err(|errno| SetupError::from_errno("the ring of receive buffers", errno))?;
        for buffer in 0..count {
            ring.provide(buffer);
        }
        Ok(ring)
    }

    fn announce(&self, submitter: &Submitter<'_>, flags: u16) -> Result<(), i32> {
        let address = self.entries.as_ptr() as u64;
        // SAFETY: `entries` is page-aligned, holds `count` zeroed entries, and lives until the ring
        // is destroyed (see the invariants above).
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, Self::GROUP, flags) }
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The `bytes` that a completion says were received into `buffer`.
    #[inline]
    pub(super) fn received(&self, buffer: u16, bytes: usize) -> &[u8] {
        let buffer = usize::from(buffer & (self.count - 1));
        let Share { start, handled } = self.shares[buffer];
        let len = bytes.min((self.buffer_bytes - handled) as usize);
        let at = self.share_bytes() * buffer + start as usize + handled as usize;
        // SAFETY: `at + len` lies inside the buffer's share of `memory`: `start` is below a page, and
        // `handled + len` at most `buffer_bytes`.
        let start = unsafe { self.memory.add(at) };
        // SAFETY: the bytes were initialised at the latest by the kernel, which does not touch them
        // again before `release` (exclusive, so not while this slice lives) provides the buffer; what
        // it still may fill lies behind them.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// The `bytes` in `buffer` were handled; with `kernel_goes_on` it keeps filling the rest,
    /// otherwise the buffer is provided again.
    #[inline]
    pub(super) fn release(&mut self, buffer: u16, bytes: usize, kernel_goes_on: bool) {
        let Some(share) = self.shares.get_mut(usize::from(buffer)) else {
            return;
        };
        if kernel_goes_on {
            share.handled = self.buffer_bytes.min(share.handled + bytes as u32);
        } else {
            self.provide(buffer);
        }
    }

    /// Gives the buffer to the kernel.
    fn provide(&mut self, buffer: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        let start = self.next_start;
        self.next_start = (start + START_STEP_BYTES) % PAGE_BYTES;
        self.shares[usize::from(buffer)] = Share { start: start as u32, handled: 0 };
        let at = self.share_bytes() * usize::from(buffer) + start;
        // SAFETY: `buffer` is below `count` and `start` below a page, so this lies inside `memory`.
        let start = unsafe { self.memory.add(at) };
        // SAFETY: `slot` is below `count`.
        let mut entry = unsafe { self.entries.add(slot) };
        // SAFETY: the kernel reads and writes entries between its head and the tail only; with at
        // most `count` buffers in it this one lies outside, until the store below.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(start.as_ptr() as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the ring's first entry, which is initialised.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is two-byte aligned memory of ours that the kernel only reads; no
        // reference to the first entry is alive here.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn share_bytes(&self) -> usize {
        share_bytes(self.buffer_bytes)
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and no longer in use by the kernel: the io_uring
        // instance it was registered with is gone, or registering it failed.
        unsafe { dealloc(self.entries.as_ptr().cast(), entries_layout(self.count)) };
        // SAFETY: as above.
        unsafe {
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.buffer_bytes));
        }
    }
}

fn entries_layout(count: u16) -> Layout {
    page_aligned(usize::from(count) * size_of::<BufRingEntry>())
}

fn memory_layout(count: u16, buffer_bytes: u32) -> Layout {
    page_aligned(usize::from(count) * share_bytes(buffer_bytes))
}

/// Bytes of memory for one buffer, which begins anywhere in the first page.
fn share_bytes(buffer_bytes: u32) -> usize {
    buffer_bytes as usize + PAGE_BYTES
}

/// At least a page, since nothing may be allocated with no bytes.
fn page_aligned(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(PAGE_BYTES), PAGE_BYTES)
        .expect("at most 2¹⁴ × 4 GiB, which an isize holds")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here has size zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
