//! A ring of bytes in memory that two processes share, with one writer and one reader: the prototype
//! of a shared-memory transport (`docs/adr/0024-shared-memory-transport.md`). No part of the daemon.
//!
//! The bytes are a stream, as on a socket: frames lie one behind the other, may wrap, and may be longer
//! than the ring. Each end keeps its own index to itself and never reads it back; of the other end's
//! index it believes nothing before it has checked it ([`RingError`]).
//!
//! Invariants: `head ≤ tail ≤ head + capacity` for the private indexes of each end, whatever is written
//! into the shared memory; indexes count bytes from the beginning of the stream, in whole words. The
//! other side may change any word at any time, so every word is read once, atomically, into private
//! memory, and only the private copy is looked at.

#[cfg(not(loom))]
mod connection;
mod memory;
#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(not(loom))]
pub use connection::{Connection, Event, ShmError, Until, wait};
pub use memory::SharedMemory;

use std::sync::Arc;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nexusd_wire::{FRAME_ALIGNMENT, HEADER_BYTES, Header};

/// Bytes of the words that the memory is read and written by.
const WORD_BYTES: u64 = 8;
// Frames begin and end at words, so no word belongs to two of them.
const _: () = assert!(FRAME_ALIGNMENT as u64 == WORD_BYTES);

/// Words from one shared number to the next: two cache lines, which processors like to fetch together.
const LINE: usize = 16;
/// Bytes written so far; the writer's to write.
const TAIL: usize = 0;
/// Bytes done with so far; the reader's to write.
const HEAD: usize = LINE;
/// Not 0: the reader sleeps until there is more to read.
const READER_SLEEPS: usize = 2 * LINE;
/// Not 0: the writer sleeps until half of the ring is free.
const WRITER_SLEEPS: usize = 3 * LINE;
/// Words before the bytes of a ring: one page, or what a model needs.
const CONTROL_WORDS: usize = if cfg!(loom) { 4 * LINE } else { 512 };

/// Why a ring's other end is not to be dealt with any longer. What to do about it: end the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RingError {
    /// An index inside a word.
    #[error("the peer's index {index} is not a multiple of {WORD_BYTES}")]
    Unaligned {
        /// What the peer wrote.
        index: u64,
    },
    /// An index that is lower than it was.
    #[error("the peer's index went back from {before} to {index}")]
    Backwards {
        /// Where it stood.
        before: u64,
        /// What the peer wrote.
        index: u64,
    },
    /// An index that claims more than the ring holds, or than was written.
    #[error("the peer's index {index} is beyond {limit}")]
    Beyond {
        /// What the peer wrote.
        index: u64,
        /// The highest that it may be.
        limit: u64,
    },
}

/// Where one ring lies in the memory.
#[derive(Debug)]
struct Ring {
    memory: Arc<SharedMemory>,
    /// The word where its shared numbers begin.
    start: usize,
    /// Bytes that it holds, a power of two.
    capacity: u64,
}

/// The end of a ring that bytes go in at.
#[derive(Debug)]
pub struct Writer {
    ring: Ring,
    /// Bytes written so far.
    tail: u64,
    /// As many of them as the reader has been told of.
    published: u64,
    /// How far the reader had come when it was last looked up.
    head: u64,
}

/// The end of a ring that bytes come out of.
#[derive(Debug)]
pub struct Reader {
    ring: Ring,
    /// Bytes read so far.
    head: u64,
    /// As many of them as the writer has been told of.
    released: u64,
    /// How far the writer had come when it was last looked up.
    tail: u64,
}

impl Ring {
    /// Bytes of memory that `count` rings of `capacity` bytes need.
    fn memory_bytes(count: usize, capacity: usize) -> usize {
        count * (CONTROL_WORDS * WORD_BYTES as usize + capacity)
    }

    /// Ring `number` of those of `capacity` bytes that the memory holds.
    fn new(memory: &Arc<SharedMemory>, number: usize, capacity: usize) -> Self {
        assert!(capacity.is_power_of_two(), "positions are found by a mask");
        assert!(capacity as u64 >= WORD_BYTES, "a ring holds a word at least");
        let end = Self::memory_bytes(number + 1, capacity);
        assert!(end <= memory.words().len() * WORD_BYTES as usize, "the ring lies in the memory");
        Self {
            memory: Arc::clone(memory),
            start: Self::memory_bytes(number, capacity) / WORD_BYTES as usize,
            capacity: capacity as u64,
        }
    }

    /// One of the shared numbers.
    fn number(&self, which: usize) -> &AtomicU64 {
        &self.memory.words()[self.start + which]
    }

    /// The words for `bytes` from position `at` on, as far as they lie in one piece.
    #[inline]
    fn piece(&self, at: u64, bytes: u64) -> &[AtomicU64] {
        let data = self.start + CONTROL_WORDS;
        let offset = at & (self.capacity - 1);
        let len = bytes.min(self.capacity - offset);
        let first = data + (offset / WORD_BYTES) as usize;
        &self.memory.words()[first..first + (len / WORD_BYTES) as usize]
    }

    /// Reads an index of the other end, which was at `before` and may be up to `limit`.
    fn index(&self, which: usize, before: u64, limit: u64) -> Result<u64, RingError> {
        let index = self.number(which).load(Ordering::Acquire);
        if !index.is_multiple_of(WORD_BYTES) {
            return Err(RingError::Unaligned { index });
        }
        // Indexes may pass 2⁶⁴, so it is distances that are compared.
        if index.wrapping_sub(before) <= limit.wrapping_sub(before) {
            return Ok(index);
        }
        if before.wrapping_sub(index) <= u64::MAX / 2 {
            return Err(RingError::Backwards { before, index });
        }
        Err(RingError::Beyond { index, limit })
    }

    /// Says that this end sleeps. Behind it, it has to look once more before it does.
    fn fall_asleep(&self, which: usize) {
        // A swap stands behind every earlier one of the other end, for whoever checks the order.
        self.number(which).swap(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    fn wake_up(&self, which: usize) {
        self.number(which).store(0, Ordering::Relaxed);
    }

    /// Whether the other end, which has just been given something, is to be woken.
    fn sleeps(&self, which: usize) -> bool {
        fence(Ordering::SeqCst);
        let sleeps = self.number(which);
        sleeps.load(Ordering::SeqCst) != 0 && sleeps.swap(0, Ordering::SeqCst) != 0
    }
}

impl Writer {
    /// Bytes that fit, as far as is known.
    #[inline]
    pub fn room(&self) -> usize {
        debug_assert!(self.tail.wrapping_sub(self.head) <= self.ring.capacity, "within the ring");
        (self.ring.capacity - self.tail.wrapping_sub(self.head)) as usize
    }

    /// Looks how far the reader has come; the bytes that fit.
    pub fn look(&mut self) -> Result<usize, RingError> {
        self.head = self.ring.index(HEAD, self.head, self.published)?;
        Ok(self.room())
    }

    /// Writes as many whole words of `bytes` as fit, and says how many bytes that was. The reader hears
    /// of them with [`Self::publish`].
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let (words, _) = bytes.as_chunks::<{ WORD_BYTES as usize }>();
        let words = &words[..words.len().min(self.room() / WORD_BYTES as usize)];
        let mut rest = words;
        while !rest.is_empty() {
            let places = self.ring.piece(self.tail, rest.len() as u64 * WORD_BYTES);
            let written = places.len();
            for (place, word) in places.iter().zip(rest) {
                place.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            }
            self.tail = self.tail.wrapping_add(written as u64 * WORD_BYTES);
            rest = &rest[written..];
        }
        words.len() * WORD_BYTES as usize
    }

    /// Lets the reader see what was written. Whether it sleeps and is to be woken.
    pub fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        self.ring.number(TAIL).store(self.tail, Ordering::Release);
        self.ring.sleeps(READER_SLEEPS)
    }

    /// Whether there is room enough to go on: half of the ring.
    fn has_room(&mut self) -> Result<bool, RingError> {
        Ok(self.look()? as u64 >= self.ring.capacity / 2)
    }
}

impl Reader {
    /// Bytes that may be read, as far as is known.
    #[inline]
    pub fn available(&self) -> usize {
        debug_assert!(self.tail.wrapping_sub(self.head) <= self.ring.capacity, "within the ring");
        self.tail.wrapping_sub(self.head) as usize
    }

    /// Looks how far the writer has come; the bytes that may be read.
    pub fn look(&mut self) -> Result<usize, RingError> {
        // What was read and not yet released is still the writer's to leave alone.
        let limit = self.released.wrapping_add(self.ring.capacity);
        self.tail = self.ring.index(TAIL, self.tail, limit)?;
        Ok(self.available())
    }

    /// A private copy of the next 48 bytes, which stay where they are. What is checked is what is used.
    #[inline]
    pub fn peek_header(&self) -> Option<Header> {
        if self.available() < HEADER_BYTES {
            return None;
        }
        let mut copy = [0; HEADER_BYTES];
        self.copy_out(&mut copy);
        Header::peek(&copy).copied()
    }

    /// Reads as many bytes as there are, in whole words, and says how many. The writer gets the room with
    /// [`Self::release`].
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let whole = into.len() - into.len() % WORD_BYTES as usize;
        let len = whole.min(self.available());
        self.copy_out(&mut into[..len]);
        self.skip(len);
        len
    }

    /// Takes bytes that are known to be there as read.
    ///
    /// # Panics
    /// If they are not there, or no whole words.
    #[inline]
    pub fn skip(&mut self, bytes: usize) {
        assert!(bytes <= self.available(), "no more than there is");
        assert!((bytes as u64).is_multiple_of(WORD_BYTES), "whole words");
        self.head = self.head.wrapping_add(bytes as u64);
    }

    /// Moves up to `bytes` bytes to another ring, as many whole words as there are and as fit there, and
    /// says how many.
    #[inline]
    pub fn copy_to(&mut self, writer: &mut Writer, bytes: usize) -> usize {
        let len = bytes.min(self.available()).min(writer.room()) as u64 / WORD_BYTES * WORD_BYTES;
        let mut rest = len;
        while rest > 0 {
            let from = self.ring.piece(self.head, rest);
            let to = writer.ring.piece(writer.tail, rest);
            let moved = from.len().min(to.len()) as u64 * WORD_BYTES;
            for (to, from) in to.iter().zip(from) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            self.head = self.head.wrapping_add(moved);
            writer.tail = writer.tail.wrapping_add(moved);
            rest -= moved;
        }
        len as usize
    }

    /// Gives the writer the room of what was read. Whether it sleeps and is to be woken.
    pub fn release(&mut self) -> bool {
        if self.released == self.head {
            return false;
        }
        self.released = self.head;
        self.ring.number(HEAD).store(self.head, Ordering::Release);
        // A writer that waits has published all it has written. If more of that than is known here is
        // still unread, it is read sooner or later, and this is asked again.
        self.ring.capacity - self.available() as u64 >= self.ring.capacity / 2
            && self.ring.sleeps(WRITER_SLEEPS)
    }

    /// Whether the writer has come further since it was last looked up.
    fn has_more(&mut self) -> Result<bool, RingError> {
        let before = self.tail;
        self.look()?;
        Ok(self.tail != before)
    }

    /// Copies what is next; the caller knows that it is there.
    #[inline]
    fn copy_out(&self, into: &mut [u8]) {
        let (mut words, _) = into.as_chunks_mut::<{ WORD_BYTES as usize }>();
        let mut at = self.head;
        while !words.is_empty() {
            let places = self.ring.piece(at, words.len() as u64 * WORD_BYTES);
            let (now, later) = words.split_at_mut(places.len());
            for (word, place) in now.iter_mut().zip(places) {
                *word = place.load(Ordering::Relaxed).to_ne_bytes();
            }
            at = at.wrapping_add(places.len() as u64 * WORD_BYTES);
            words = later;
        }
    }
}

/// Both ends of ring `number`, as one process has them that shares it with nobody: for tests.
#[cfg(test)]
fn both_ends(memory: &Arc<SharedMemory>, number: usize, capacity: usize) -> (Writer, Reader) {
    (writer(memory, number, capacity), reader(memory, number, capacity))
}

/// The end of a new ring that bytes go in at.
fn writer(memory: &Arc<SharedMemory>, number: usize, capacity: usize) -> Writer {
    Writer { ring: Ring::new(memory, number, capacity), tail: 0, published: 0, head: 0 }
}

/// The end of a new ring that bytes come out of.
fn reader(memory: &Arc<SharedMemory>, number: usize, capacity: usize) -> Reader {
    Reader { ring: Ring::new(memory, number, capacity), head: 0, released: 0, tail: 0 }
}
