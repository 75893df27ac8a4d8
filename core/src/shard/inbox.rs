//! The way from one shard to another: a bounded ring with one sender and one receiver.
//!
//! Neither ever waits: a full ring hands the parcel back, an empty one gives nothing. Waking a shard
//! that sleeps is its driver's business (`io/doorbell.rs`); what was sent before the bell is rung is
//! seen behind it.
//!
//! Invariant: `head ≤ tail ≤ head + capacity`; the places from `head` up to `tail` hold parcels,
//! which only the receiver touches, and all others are empty, which only the sender touches. Each
//! end is the only writer of its counter.
#![allow(unsafe_code)]

use std::fmt;

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};
#[cfg(not(loom))]
use std::{
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The standard cell with the face of loom's, which checks every access.
#[cfg(not(loom))]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

struct Ring<T> {
    places: Box<[Place<T>]>,
    /// Parcels taken so far.
    head: Line<AtomicUsize>,
    /// Parcels sent so far.
    tail: Line<AtomicUsize>,
}

/// A cache line of its own, so that the two ends do not slow each other down.
#[repr(align(128))]
struct Line<T>(T);

struct Place<T>(UnsafeCell<Option<T>>);

// SAFETY: a place is touched by one end at a time; the counters hand it over (see `Sender::send` and
// `Receiver::receive`).
unsafe impl<T: Send> Sync for Place<T> {}

/// The sender's end.
pub(crate) struct Sender<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    /// The receiver was there when it was last looked up.
    head: usize,
}

/// The receiver's end.
pub(crate) struct Receiver<T> {
    ring: Arc<Ring<T>>,
    head: usize,
}

/// A ring that holds up to `capacity` parcels, a power of two.
pub(crate) fn ring<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity.is_power_of_two(), "places are found by a mask");
    let ring = Arc::new(Ring {
        places: (0..capacity).map(|_| Place(UnsafeCell::new(None))).collect(),
        head: Line(AtomicUsize::new(0)),
        tail: Line(AtomicUsize::new(0)),
    });
    (Sender { ring: Arc::clone(&ring), tail: 0, head: 0 }, Receiver { ring, head: 0 })
}

impl<T> Ring<T> {
    fn place(&self, number: usize) -> &UnsafeCell<Option<T>> {
        &self.places[number & (self.places.len() - 1)].0
    }
}

impl<T> Sender<T> {
    /// Puts a parcel in, or hands it back if the ring is full.
    pub(crate) fn send(&mut self, parcel: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head) == self.ring.places.len() {
            self.head = self.ring.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head) == self.ring.places.len() {
                return Err(parcel);
            }
        }
        // SAFETY: the place is empty: the receiver emptied it before it moved `head`, which was
        // acquired, and does not touch it again before `tail` has moved past it.
        self.ring.place(self.tail).with_mut(|place| unsafe { *place = Some(parcel) });
        self.tail = self.tail.wrapping_add(1);
        self.ring.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T> Sender<T> {
    /// Whether nobody is there to receive any more.
    pub(crate) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.ring) == 1
    }
}

impl<T> Receiver<T> {
    /// Takes the next parcel.
    pub(crate) fn receive(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: the sender filled the place before it moved `tail`, which was acquired, and does
        // not touch it again before `head` has moved past it.
        let parcel = self.ring.place(self.head).with_mut(|place| unsafe { (*place).take() });
        self.head = self.head.wrapping_add(1);
        self.ring.head.0.store(self.head, Ordering::Release);
        parcel
    }

    /// Whether there is nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.tail.0.load(Ordering::Acquire) == self.head
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender of {} parcels", self.tail)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver of {} parcels", self.head)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn parcels_arrive_in_order_and_a_full_ring_hands_them_back() {
        let (mut sender, mut receiver) = ring(2);
        for round in 0..10 {
            assert_eq!(sender.send(3 * round), Ok(()));
            assert_eq!(sender.send(3 * round + 1), Ok(()));
            assert_eq!(sender.send(3 * round + 2), Err(3 * round + 2));
            assert_eq!(receiver.receive(), Some(3 * round));
            assert_eq!(receiver.receive(), Some(3 * round + 1));
            assert_eq!(receiver.receive(), None);
        }
    }

    #[test]
    fn what_was_sent_and_not_taken_is_freed_with_the_ring() {
        let parcel = Arc::new(());
        let (mut sender, receiver) = ring(4);
        for _ in 0..3 {
            assert!(sender.send(Arc::clone(&parcel)).is_ok());
        }
        drop((sender, receiver));
        assert_eq!(Arc::strong_count(&parcel), 1);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::thread;

    use super::*;
    use crate::io::sleeper::Sleeper;

    #[test]
    fn every_parcel_arrives_once_and_in_order_however_the_threads_run() {
        loom::model(|| {
            let (mut sender, mut receiver) = ring(2);
            let sending = thread::spawn(move || {
                let mut sent = 0;
                while sent < 3 {
                    match sender.send(Box::new(sent)) {
                        Ok(()) => sent += 1,
                        Err(_) => thread::yield_now(),
                    }
                }
            });
            let mut expected = 0;
            while expected < 3 {
                match receiver.receive() {
                    Some(parcel) => {
                        assert_eq!(*parcel, expected);
                        expected += 1;
                    }
                    None => thread::yield_now(),
                }
            }
            assert!(receiver.receive().is_none());
            sending.join().expect("no panic");
        });
    }

    /// A receiver that sleeps though there is a parcel for it would never end, which the model tells.
    #[test]
    fn no_doorbell_is_lost() {
        loom::model(|| {
            let (mut sender, mut receiver) = ring(2);
            let sleeper = Arc::new(Sleeper::default());
            let (sleeper_there, loop_thread) = (Arc::clone(&sleeper), thread::current());
            let sending = thread::spawn(move || {
                for parcel in 0..2 {
                    assert!(sender.send(parcel).is_ok(), "there is room");
                    if sleeper_there.is_to_be_woken() {
                        loop_thread.unpark();
                    }
                }
            });
            let mut received = 0;
            while received < 2 {
                if receiver.receive().is_some() {
                    received += 1;
                    continue;
                }
                sleeper.fall_asleep();
                if receiver.is_empty() {
                    thread::park();
                }
                sleeper.wake_up();
            }
            sending.join().expect("no panic");
        });
    }
}
