//! The way other threads reach a shard's loop: a bounded queue of commands, connections that come from
//! other loops, and its doorbell.
//!
//! Any number of threads send, one loop receives. Sending never blocks: a full queue hands the
//! command back. Commands of one thread arrive in order.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::{ArrayQueue, SegQueue};
use nexusd_wire::NodeId;

use super::arrival::Arrival;
use super::doorbell::Doorbell;
use super::driver::Service;
use super::retransmission;
use crate::shard::event::{Command, Door, PeerAddress};

/// Makes a mailbox that holds up to `capacity` commands (at least one). Fails when the kernel gives
/// no eventfd.
pub fn mailbox(capacity: usize) -> io::Result<(CommandSender, CommandReceiver)> {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        arrivals: SegQueue::new(),
        doorbell: Doorbell::new()?,
        gone: AtomicBool::new(false),
    });
    Ok((CommandSender { shared: Arc::clone(&shared) }, CommandReceiver { shared }))
}

#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<Command>,
    /// Bounded by the node's connections.
    arrivals: SegQueue<Arrival>,
    doorbell: Doorbell,
    gone: AtomicBool,
}

impl Shared {
    /// Of a loop that ends and a sender, at least one sees the other, so no connection stays behind.
    fn drop_arrivals_if_gone(&self) {
        fence(Ordering::SeqCst);
        if self.gone.load(Ordering::Acquire) {
            while self.arrivals.pop().is_some() {}
        }
    }
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

    /// Gives the loop a connection to another node that the caller has opened; `dial` is the number
    /// of the attempt, `peer` the node that should be there. To be given to the shard that keeps the
    /// peer's link ([`crate::shard::routing::home_of_node`]), or any while the peer is not known. If the
    /// loop has ended, so does the connection.
    pub fn dialled(&self, socket: TcpStream, dial: u64, peer: Option<NodeId>) -> io::Result<()> {
        let address = socket.peer_addr()?;
        socket.set_nodelay(true)?;
        // Where the kernel cannot, the link lives through less.
        retransmission::bound(socket.as_fd());
        let door = Door::Dialled { dial, peer };
        self.hand_over(Arrival::accepted(socket.into(), PeerAddress::Tcp(address), door));
        Ok(())
    }

    /// Gives the loop a connection of the daemon's own edge, for an application at `peer`; the caller has the
    /// other end. If the loop has ended, so does the connection.
    pub fn connect(&self, peer: PeerAddress) -> io::Result<UnixStream> {
        let (own, theirs) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        self.hand_over(Arrival::accepted(theirs.into(), peer, Door::Edge));
        Ok(own)
    }

    /// Whether the loop has ended.
    pub fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Wakes the loop if it sleeps: there is something in its shard's inbox.
    pub(super) fn ring(&self) {
        self.shared.doorbell.ring();
    }

    /// Gives a connection of another loop to this one. If that has ended, so does the connection.
    pub(super) fn hand_over(&self, arrival: Arrival) {
        if !self.shared.gone.load(Ordering::Acquire) {
            self.shared.arrivals.push(arrival);
            self.shared.doorbell.ring();
            self.shared.drop_arrivals_if_gone();
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

    /// Takes the next connection that another loop gave to this one.
    pub(super) fn pop_arrival(&self) -> Option<Arrival> {
        self.shared.arrivals.pop()
    }

    /// Whether something waits that other threads sent: to the loop, or to its service.
    pub(super) fn has_mail(&self, service: &impl Service) -> bool {
        let shared = &self.shared;
        let is_empty = shared.queue.is_empty() && shared.arrivals.is_empty();
        (!is_empty || service.has_mail()) && !shared.gone.load(Ordering::Relaxed)
    }

    /// From now on nothing is taken: senders get their commands back, and connections that are handed
    /// over end.
    pub(super) fn close(&self) {
        self.shared.gone.store(true, Ordering::Release);
        self.shared.drop_arrivals_if_gone();
    }

    /// The loop is about to sleep. It has to look once more whether it [`Self::has_mail`].
    pub(super) fn fall_asleep(&self) {
        self.shared.doorbell.fall_asleep();
    }

    /// The loop does not sleep any more.
    pub(super) fn wake_up(&self) {
        self.shared.doorbell.wake_up();
    }

    /// What the loop's ring polls.
    pub(super) fn descriptor(&self) -> RawFd {
        self.doorbell().as_raw_fd()
    }

    /// What the loop watches: written to when the loop sleeps and something is there for it.
    pub(super) fn doorbell(&self) -> BorrowedFd<'_> {
        self.shared.doorbell.descriptor()
    }
}

impl Drop for CommandReceiver {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::shard::handover::Handover;

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
    fn a_connection_for_a_loop_that_ended_ends_too() {
        let (sender, receiver) = mailbox(2).expect("an eventfd");
        let (early, its_peer) = UnixStream::pair().expect("sockets");
        sender.hand_over(Arrival::accepted(early.into(), PeerAddress::Unix, Door::Apps));
        drop(receiver);
        let (late, anothers_peer) = UnixStream::pair().expect("sockets");
        let handover = Handover { peer: PeerAddress::Unix, door: Door::Apps, bytes: vec![1] };
        sender.hand_over(Arrival::moved(late.into(), handover));
        for mut peer in [its_peer, anothers_peer] {
            assert_eq!(peer.read(&mut [0]).expect("an end"), 0);
        }
    }

    #[test]
    fn a_command_to_a_loop_that_ended_is_handed_back() {
        let (sender, receiver) = mailbox(2).expect("an eventfd");
        drop(receiver);
        assert_eq!(sender.send(Command::Sample), Err(Command::Sample));
    }
}
