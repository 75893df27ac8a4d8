//! The way other threads reach a shard's loop: a bounded queue of commands, connections that another
//! loop accepted for it, and its doorbell.
//!
//! Any number of threads send, one loop receives. Sending never blocks: a full queue hands the
//! command back. Commands of one thread arrive in order.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::{ArrayQueue, SegQueue};

use super::doorbell::Doorbell;
use crate::shard::event::{Command, PeerAddress};

/// Makes a mailbox that holds up to `capacity` commands (at least one). Fails when the kernel gives
/// no eventfd.
pub fn mailbox(capacity: usize) -> io::Result<(CommandSender, CommandReceiver)> {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        accepted: SegQueue::new(),
        doorbell: Doorbell::new()?,
        gone: AtomicBool::new(false),
    });
    Ok((CommandSender { shared: Arc::clone(&shared) }, CommandReceiver { shared }))
}

#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<Command>,
    /// Bounded by the node's connections.
    accepted: SegQueue<(OwnedFd, PeerAddress)>,
    doorbell: Doorbell,
    gone: AtomicBool,
}

/// The senders' end.
#[derive(Clone, Debug)]
pub struct CommandSender {
    shared: Arc<Shared>,
}

impl CommandSender {
    /// Puts a command in and wakes the loop. Hands the command back when the mailbox is full, or
    /// when the loop has ended.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        if self.shared.gone.load(Ordering::Acquire) {
            return Err(command);
        }
        self.shared.queue.push(command)?;
        self.shared.doorbell.ring();
        Ok(())
    }

    /// Whether the loop has ended.
    pub fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Wakes the loop if it sleeps: there is something in its shard's inbox.
    pub(super) fn ring(&self) {
        self.shared.doorbell.ring();
    }

    /// Gives a connection that was accepted elsewhere to the loop. If that has ended, so does the
    /// connection.
    pub(super) fn hand_over(&self, socket: OwnedFd, peer: PeerAddress) {
        if !self.shared.gone.load(Ordering::Acquire) {
            self.shared.accepted.push((socket, peer));
            self.shared.doorbell.ring();
        }
    }
}

/// The loop's end. Dropped with the loop, after which senders get their commands back.
#[derive(Debug)]
pub struct CommandReceiver {
    shared: Arc<Shared>,
}

impl CommandReceiver {
    /// Takes the next command.
    pub(super) fn pop(&self) -> Option<Command> {
        self.shared.queue.pop()
    }

    /// Takes the next connection that another loop accepted for this one.
    pub(super) fn pop_accepted(&self) -> Option<(OwnedFd, PeerAddress)> {
        self.shared.accepted.pop()
    }

    /// Whether nothing is there to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.shared.queue.is_empty() && self.shared.accepted.is_empty()
    }

    /// The loop is about to sleep. It has to look whether anything is there once more.
    pub(super) fn fall_asleep(&self) {
        self.shared.doorbell.fall_asleep();
    }

    /// The loop does not sleep any more.
    pub(super) fn wake_up(&self) {
        self.shared.doorbell.wake_up();
    }

    /// What the loop's ring polls.
    pub(super) fn descriptor(&self) -> RawFd {
        self.shared.doorbell.descriptor()
    }
}

impl Drop for CommandReceiver {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_arrive_in_order_and_a_full_mailbox_hands_them_back() {
        let (sender, receiver) = mailbox(2).expect("an eventfd");
        sender.send(Command::Drain { deadline_us: 1 }).expect("room");
        sender.send(Command::Sample).expect("room");
        assert_eq!(sender.send(Command::Sample), Err(Command::Sample));
        assert_eq!(receiver.pop(), Some(Command::Drain { deadline_us: 1 }));
        assert_eq!(receiver.pop(), Some(Command::Sample));
        assert_eq!(receiver.pop(), None);
    }

    #[test]
    fn a_command_to_a_loop_that_ended_is_handed_back() {
        let (sender, receiver) = mailbox(2).expect("an eventfd");
        drop(receiver);
        assert_eq!(sender.send(Command::Sample), Err(Command::Sample));
    }
}
