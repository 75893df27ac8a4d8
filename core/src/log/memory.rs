//! The bytes of one segment: its shard writes them, other shards read what they were lent.
//!
//! A segment is written from its start to its end, and what was written is not touched again until
//! the log writes the segment anew. So writer and readers never meet on the same bytes, and no lock
//! stands between them; the memory itself lives as long as anybody holds it. That the readers are
//! done before it is written anew is the log's to see to (`lend` and `take_back` in `log/lending.rs`).
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

/// Bytes that [`Sole::prefetch_to_write`] has fetched: eight lines of a cache.
pub(crate) const PREFETCHED_BYTES: usize = 512;

/// Memory that one shard writes and several may read. A clone is the same memory.
#[derive(Clone)]
pub(crate) struct Memory {
    start: NonNull<u8>,
    len: usize,
    /// Keeps what `start` points to.
    _cells: Arc<Cells>,
}

struct Cells(Box<[UnsafeCell<u8>]>);

// SAFETY: shared access goes through `Memory::bytes` and `Memory::bytes_mut`, whose callers see to
// it that no byte is written while it is read.
unsafe impl Sync for Cells {}

// SAFETY: `start` points into `_cells`, which may be sent and shared (see above).
unsafe impl Send for Memory {}

impl Memory {
    /// `len` bytes of zeroes.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self::from_bytes(vec![0; len])
    }

    /// These bytes.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        let bytes = Box::into_raw(bytes.into_boxed_slice());
        // SAFETY: `UnsafeCell<u8>` has the layout of `u8`, and the box was just given up.
        let cells = Arc::new(Cells(unsafe { Box::from_raw(bytes as *mut [UnsafeCell<u8>]) }));
        let start = NonNull::from(&*cells.0).cast();
        Self { start, len: cells.0.len(), _cells: cells }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes from `start` to `end`, if there are so many.
    ///
    /// # Safety
    ///
    /// They are not written while the slice is in use.
    #[inline]
    pub(crate) unsafe fn bytes(&self, start: usize, end: usize) -> Option<&[u8]> {
        if start > end || end > self.len {
            return None;
        }
        // SAFETY: inside the allocation that `_cells` keeps.
        let first = unsafe { self.start.add(start) };
        // SAFETY: so is all of the range, and nobody writes it (the caller).
        Some(unsafe { slice::from_raw_parts(first.as_ptr(), end - start) })
    }

    /// The same, to be written.
    ///
    /// # Safety
    ///
    /// Nobody else reads or writes them while the slice is in use.
    #[inline]
    pub(crate) unsafe fn bytes_mut(&mut self, start: usize, end: usize) -> Option<&mut [u8]> {
        if start > end || end > self.len {
            return None;
        }
        // SAFETY: inside the allocation that `_cells` keeps.
        let first = unsafe { self.start.add(start) };
        // SAFETY: so is all of the range, and nobody else reads or writes it (the caller). The bytes
        // are in cells, so they may be written through a shared pointer.
        Some(unsafe { slice::from_raw_parts_mut(first.as_ptr(), end - start) })
    }
}

/// Memory that nobody else has: its holder may write all of it.
#[derive(Debug)]
pub(crate) struct Sole(Memory);

impl Sole {
    /// `len` bytes of zeroes.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self(Memory::zeroed(len))
    }

    /// This memory; `None` if somebody else has it too.
    pub(crate) fn of(mut memory: Memory) -> Option<Self> {
        Arc::get_mut(&mut memory._cells).is_some().then_some(Self(memory))
    }

    pub(crate) fn into_memory(self) -> Memory {
        self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes from `start` to `end`, if there are so many.
    #[inline]
    pub(crate) fn bytes(&self, start: usize, end: usize) -> Option<&[u8]> {
        // SAFETY: nobody else has the memory, and it cannot be written while it is borrowed.
        unsafe { self.0.bytes(start, end) }
    }

    /// The same, to be written.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, start: usize, end: usize) -> Option<&mut [u8]> {
        // SAFETY: nobody else has the memory, and it is borrowed once.
        unsafe { self.0.bytes_mut(start, end) }
    }

    /// Has the processor fetch the [`PREFETCHED_BYTES`] from `start`, if there are so many, to be written:
    /// another core has read them. A hint that changes nothing else.
    #[inline(always)]
    pub(crate) fn prefetch_to_write(&mut self, start: usize) {
        #[cfg(target_arch = "x86_64")]
        if start + PREFETCHED_BYTES <= self.len() {
            let lines = self.0.start.addr().get() + start;
            // SAFETY: the instruction reads and writes nothing as far as the program can tell.
            unsafe {
                std::arch::asm!(
                    "prefetchw [{lines}]",
                    "prefetchw [{lines} + 64]",
                    "prefetchw [{lines} + 128]",
                    "prefetchw [{lines} + 192]",
                    "prefetchw [{lines} + 256]",
                    "prefetchw [{lines} + 320]",
                    "prefetchw [{lines} + 384]",
                    "prefetchw [{lines} + 448]",
                    lines = in(reg) lines,
                    options(nomem, nostack, preserves_flags)
                );
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = start;
    }
}

/// Has the processor fetch the header at `at`, if there is one: it lies in another core's cache. A hint
/// that changes nothing else.
#[inline(always)]
pub(crate) fn prefetch_header(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        use nexusd_wire::{FRAME_ALIGNMENT, HEADER_BYTES};

        let Some(header) = bytes.get(at..at + HEADER_BYTES) else { return };
        let start = header.as_ptr().cast::<i8>();
        // It may lie across two lines; frames are aligned, so its last word lies in one.
        let last = start.wrapping_add(HEADER_BYTES - FRAME_ALIGNMENT);
        // SAFETY: nothing is read as far as the program can tell, and this is in bounds.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start) };
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(last) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, at);
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_sole_only_while_nobody_else_has_it() {
        let memory = Memory::zeroed(64);
        let lent = memory.clone();
        assert!(Sole::of(memory).is_none());
        assert!(Sole::of(lent).is_some());
    }

    #[test]
    fn a_reader_sees_what_was_written_before_it_was_lent_while_more_is_written() {
        let mut memory = Memory::zeroed(64);
        // SAFETY: nobody else has the memory.
        unsafe { memory.bytes_mut(0, 8) }.expect("8 bytes").copy_from_slice(b"first on");
        let lent = memory.clone();
        let reader = std::thread::spawn(move || {
            // SAFETY: the writer goes on behind these bytes.
            unsafe { lent.bytes(0, 8) }.expect("8 bytes").to_vec()
        });
        // SAFETY: the reader reads the bytes before these.
        unsafe { memory.bytes_mut(8, 16) }.expect("8 bytes").copy_from_slice(b"and next");
        assert_eq!(reader.join().expect("no panic"), b"first on");
    }
}
