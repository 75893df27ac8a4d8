//! The receive buffers that all connections share, and the ring in which the kernel takes them.
//!
//! A buffer belongs either to the kernel, or to the one completion that names it until that was
//! handled. Where the kernel can (6.12), it fills a buffer by and by: small receives then take bytes
//! from the pool instead of whole buffers.
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

/// A ring of provided buffers, registered as [`BufferRing::GROUP`].
pub(super) struct BufferRing {
    /// `count` entries; the first one's reserved field is the tail.
    entries: NonNull<BufRingEntry>,
    /// `count` × `buffer_bytes`.
    memory: NonNull<u8>,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    /// Per buffer, how much of it was handled.
    handled: Box<[u32]>,
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
            handled: vec![0; usize::from(count)].into(),
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
        let from = self.handled.get(usize::from(buffer)).copied().unwrap_or(0) as usize;
        let len = bytes.min(self.buffer_bytes as usize - from);
        let at = usize::from(buffer & (self.count - 1)) * self.buffer_bytes as usize + from;
        // SAFETY: `at + len` lies inside the buffer's share of `memory`, by the two lines above.
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
        let Some(handled) = self.handled.get_mut(usize::from(buffer)) else {
            return;
        };
        if kernel_goes_on {
            *handled = self.buffer_bytes.min(*handled + bytes as u32);
        } else {
            *handled = 0;
            self.provide(buffer);
        }
    }

    /// Gives the buffer to the kernel.
    fn provide(&mut self, buffer: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        let at = usize::from(buffer) * self.buffer_bytes as usize;
        // SAFETY: `buffer` is below `count`, so this lies inside `memory`.
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
    page_aligned(usize::from(count) * buffer_bytes as usize)
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
