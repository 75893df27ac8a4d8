//! A connection over shared memory: a unix socket, a ring to write to and a ring to read from.
//!
//! The daemon makes the memory and passes it over the socket; a client that made it could pass a file
//! whose pages never come. From then on the socket carries nothing but wake-ups, one byte each, and only
//! for a side that says that it sleeps. It is the wake-up because nobody can make it block: the mode of a
//! shared eventfd is the other side's to change, that of our end of a socket is not. And it ends when the
//! other process does, however that ends.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexusd_wire::DecodeError;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};

use super::{READER_SLEEPS, Reader, Ring, RingError, SharedMemory, WRITER_SLEEPS, Writer};

/// What the daemon's side says together with the memory: this, then the bytes of a ring.
const GREETING: [u8; 8] = *b"shm ring";
/// The ring from the client to the daemon, and the one back.
const FROM_CLIENT: usize = 0;
const TO_CLIENT: usize = 1;
const RINGS: usize = 2;
/// Longest ring that a client opens.
const RING_BYTES_MAX: u64 = 1 << 30;
/// How often a side that does not sleep yet looks at the memory before it looks at the clock.
const LOOKS_PER_CLOCK: u32 = 16;

/// Why a connection over shared memory ends, or does not come about.
#[derive(Debug, thiserror::Error)]
pub enum ShmError {
    /// The other side writes nonsense into the memory: end the connection.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The other side writes what is no frame: end the connection.
    #[error(transparent)]
    Frame(#[from] DecodeError),
    /// The kernel refused something.
    #[error("shared memory: {0}")]
    Io(#[from] Errno),
    /// The other side does not pass memory that can be used.
    #[error("the socket's other side does not offer shared memory")]
    NotOffered,
}

/// What a side waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// More to read than was there when it last looked.
    MoreToRead,
    /// Room to write half of a ring.
    Room,
    /// Only the end of the other side.
    Gone,
}

/// What [`wait`] saw first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// What one of the connections waited for.
    Ready,
    /// The other side of this one, as they are counted, is gone. What it wrote before can still be read.
    Gone(usize),
}

/// One side of a connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// What goes to the other side.
    pub writer: Writer,
    /// What comes from it.
    pub reader: Reader,
}

impl Connection {
    /// The daemon's side: makes two rings of `ring_bytes`, a power of two and at least a page, and
    /// passes them to whoever is at the socket's other end.
    pub fn offer(socket: UnixStream, ring_bytes: usize) -> Result<Self, ShmError> {
        let (memory, descriptor) = SharedMemory::create(Ring::memory_bytes(RINGS, ring_bytes))?;
        let mut greeting = [0; 16];
        greeting[..8].copy_from_slice(&GREETING);
        greeting[8..].copy_from_slice(&(ring_bytes as u64).to_ne_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor.as_fd()];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::NOBUFS.into());
        }
        sendmsg(&socket, &[IoSlice::new(&greeting)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(Self::new(socket, &Arc::new(memory), [FROM_CLIENT, TO_CLIENT], ring_bytes))
    }

    /// The client's side: waits for the offer and takes it.
    pub fn accept(socket: UnixStream) -> Result<Self, ShmError> {
        let mut greeting = [0; 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut greeting)];
        let received = recvmsg(&socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let (magic, ring_bytes) = greeting.split_at(8);
        let ring_bytes = u64::from_ne_bytes(ring_bytes.try_into().unwrap_or_default());
        let fits = ring_bytes.is_power_of_two() && (4096..=RING_BYTES_MAX).contains(&ring_bytes);
        let Some(descriptor) =
            descriptor.filter(|_| received.bytes == 16 && magic == GREETING && fits)
        else {
            return Err(ShmError::NotOffered);
        };
        let ring_bytes = ring_bytes as usize;
        let memory = SharedMemory::open(descriptor, Ring::memory_bytes(RINGS, ring_bytes))?;
        Ok(Self::new(socket, &Arc::new(memory), [TO_CLIENT, FROM_CLIENT], ring_bytes))
    }

    fn new(
        socket: UnixStream,
        memory: &Arc<SharedMemory>,
        [read, write]: [usize; RINGS],
        ring_bytes: usize,
    ) -> Self {
        Self {
            socket: socket.into(),
            reader: super::reader(memory, read, ring_bytes),
            writer: super::writer(memory, write, ring_bytes),
        }
    }

    /// Lets the other side see what was written, and wakes it if it sleeps.
    pub fn publish(&mut self) -> Result<(), ShmError> {
        if self.writer.publish() {
            self.wake_peer()?;
        }
        Ok(())
    }

    /// Gives the other side the room of what was read, and wakes it if it sleeps for want of it.
    pub fn release(&mut self) -> Result<(), ShmError> {
        if self.reader.release() {
            self.wake_peer()?;
        }
        Ok(())
    }

    /// Never waits. If nothing more fits into the socket, there is enough in it to wake anybody; if the
    /// other side is gone, [`wait`] tells.
    fn wake_peer(&self) -> Result<(), ShmError> {
        match send(&self.socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::AGAIN | Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_ready(&mut self, until: Until) -> Result<bool, RingError> {
        match until {
            Until::MoreToRead => self.reader.has_more(),
            Until::Room => self.writer.has_room(),
            Until::Gone => Ok(false),
        }
    }

    fn fall_asleep(&self, until: Until) {
        match until {
            Until::MoreToRead => self.reader.ring.fall_asleep(READER_SLEEPS),
            Until::Room => self.writer.ring.fall_asleep(WRITER_SLEEPS),
            Until::Gone => {}
        }
    }

    fn wake_up(&self, until: Until) {
        match until {
            Until::MoreToRead => self.reader.ring.wake_up(READER_SLEEPS),
            Until::Room => self.writer.ring.wake_up(WRITER_SLEEPS),
            Until::Gone => {}
        }
    }

    /// Takes wake-ups from the socket; whether the other side is gone. A flood of them is taken bit by
    /// bit, and each bit costs its sender as much as us.
    fn is_gone(&self) -> Result<bool, ShmError> {
        let mut wakeups = [0; 64];
        match recv(&self.socket, &mut wakeups, RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(true),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of `connections` has what it waits for, or its other side is gone: looks at the
/// memory for as long as `poll_for`, then sleeps.
pub fn wait<const N: usize>(
    mut connections: [(&mut Connection, Until); N],
    poll_for: Duration,
) -> Result<Event, ShmError> {
    if poll_briefly(&mut connections, poll_for)? {
        return Ok(Event::Ready);
    }
    loop {
        for (connection, until) in &connections {
            connection.fall_asleep(*until);
        }
        // Who wrote before it could see that this side sleeps is seen now.
        let ready = any_ready(&mut connections);
        let gone = if ready == Ok(false) { sleep(&connections) } else { Ok(None) };
        for (connection, until) in &connections {
            connection.wake_up(*until);
        }
        if ready? {
            return Ok(Event::Ready);
        }
        if let Some(which) = gone? {
            return Ok(Event::Gone(which));
        }
        if any_ready(&mut connections)? {
            return Ok(Event::Ready);
        }
    }
}

fn any_ready(connections: &mut [(&mut Connection, Until)]) -> Result<bool, RingError> {
    for (connection, until) in connections {
        if connection.is_ready(*until)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks at the memory for so long at most; whether there is something.
fn poll_briefly(
    connections: &mut [(&mut Connection, Until)],
    poll_for: Duration,
) -> Result<bool, RingError> {
    if poll_for.is_zero() {
        return any_ready(connections);
    }
    let since = Instant::now();
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if any_ready(connections)? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        if since.elapsed() >= poll_for {
            return Ok(false);
        }
    }
}

/// Sleeps until one of the sockets has a wake-up, or ends: then says which.
fn sleep(connections: &[(&mut Connection, Until)]) -> Result<Option<usize>, ShmError> {
    let mut sockets: Vec<_> = connections
        .iter()
        .map(|(connection, _)| PollFd::new(&connection.socket, PollFlags::IN))
        .collect();
    match poll(&mut sockets, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    for (which, socket) in sockets.iter().enumerate() {
        if !socket.revents().is_empty() && connections[which].0.is_gone()? {
            return Ok(Some(which));
        }
    }
    Ok(None)
}
