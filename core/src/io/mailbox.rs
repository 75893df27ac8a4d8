//! The way other threads reach a shard: a bounded queue of commands, and a doorbell.
//!
//! Any number of threads send, one loop receives. Sending never blocks: a full queue hands the
//! command back. Commands of one thread arrive in order.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

use super::doorbell::Doorbell;
use crate::shard::event::Command;

/// Makes a mailbox that holds up to `capacity` commands (at least one). Fails when the kernel gives
/// no eventfd.
pub fn mailbox(capacity: usize) -> io::Result<(CommandSender, CommandReceiver)> {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        doorbell: Doorbell::new()?,
        gone: AtomicBool::new(false),
    });
    Ok((CommandSender { shared: Arc::clone(&shared) }, CommandReceiver { shared }))
}

#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<Command>,
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

    /// To be called before the commands that a ring announced are taken.
    pub(super) fn answer(&self) {
        self.shared.doorbell.answer();
    }

    /// What the loop's ring polls.
    pub(super) fn descriptor(&self) -> RawFd {
        self.doorbell().as_raw_fd()
    }

    /// What the loop watches: written to when a command was put in.
    pub(super) fn doorbell(&self) -> BorrowedFd<'_> {
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
