//! The stand-in for a shard: takes frames of one publisher, checks and numbers each, and passes them to
//! one subscriber. What it does to a frame is the same over sockets and over rings.
//!
//! Frames pass as they come, piece by piece, so their size does not matter. Of what a ring holds only
//! private copies of headers are looked at.

use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nexusd_bench::shared_ring::{Connection, Event, Reader, ShmError, Until, Writer, wait};
use nexusd_wire::{DecodeError, HEADER_BYTES, Header, Sequence};
use rustix::net::{RecvFlags, recv};
use rustix::time::{ClockId, clock_gettime};

use crate::process::{self, Failure, PAGE_BYTES, PUBLISHER, RING_BYTES, SUBSCRIBER, WARM_UP, Way};

/// Longest frame passed on.
const FRAME_BYTES_MAX: u32 = 64 << 20;
/// What one turn moves at most: as much as one send of the daemon.
const TURN_BYTES: usize = 64 << 10;

/// Serves one publisher and one subscriber, and says what that cost.
pub(crate) fn serve(
    name: &str,
    way: Way,
    poll_for: Duration,
    receive_bytes: usize,
) -> Result<String, Failure> {
    process::pin(process::SERVER_CORE)?;
    let listener = UnixListener::bind_addr(&process::address(name)?)?;
    process::say("ready")?;
    let (mut publisher, mut subscriber) = (None, None);
    while publisher.is_none() || subscriber.is_none() {
        let (socket, _) = listener.accept()?;
        match process::receive_role(&socket)? {
            PUBLISHER => publisher = Some(socket),
            SUBSCRIBER => subscriber = Some(socket),
            other => return Err(format!("no such role: {other}").into()),
        }
    }
    let (Some(publisher), Some(subscriber)) = (publisher, subscriber) else {
        return Err("a client is missing".into());
    };
    let mut account = Account::default();
    if way == Way::Socket {
        over_sockets(&publisher, &subscriber, poll_for, receive_bytes, &mut account)?;
    } else {
        let source = Connection::offer(publisher, RING_BYTES)?;
        let sink = Connection::offer(subscriber, RING_BYTES)?;
        match way {
            Way::RingByLog => over_rings_by_log(source, sink, poll_for, &mut account)?,
            _ => over_rings(source, sink, poll_for, &mut account)?,
        }
    }
    Ok(account.report())
}

/// Frame boundaries and numbers of the stream.
#[derive(Default)]
struct Numbering {
    /// Bytes that are still to come of the frame that has begun.
    rest: usize,
    /// Position in the stream, for errors.
    at: u64,
    /// Frames numbered so far.
    numbered: u64,
}

impl Numbering {
    /// Checks a header and numbers its frame; bytes of the whole frame.
    #[inline]
    fn number(&mut self, header: &mut Header) -> Result<usize, DecodeError> {
        header.check(self.at, FRAME_BYTES_MAX, FRAME_BYTES_MAX)?;
        self.numbered += 1;
        *header = header.with_sequence(Sequence(self.numbered));
        self.at += header.stride() as u64;
        Ok(header.stride())
    }

    /// Numbers what stands in private memory; the bytes at the front that may go on. What stays behind
    /// is less than a header.
    fn number_in_place(&mut self, bytes: &mut [u8]) -> Result<usize, DecodeError> {
        let mut done = 0;
        loop {
            let step = self.rest.min(bytes.len() - done);
            self.rest -= step;
            done += step;
            if self.rest > 0 {
                return Ok(done);
            }
            let Some(header) = Header::peek_mut(&mut bytes[done..]) else {
                return Ok(done);
            };
            self.rest = self.number(header)?;
        }
    }

    /// Moves frames from ring to ring, one copy each; the bytes that were moved.
    fn move_frames(
        &mut self,
        source: &mut Reader,
        sink: &mut Writer,
    ) -> Result<usize, DecodeError> {
        let mut moved = 0;
        while moved < TURN_BYTES {
            if self.rest == 0 {
                if sink.room() < HEADER_BYTES {
                    break;
                }
                let Some(mut header) = source.peek_header() else {
                    break;
                };
                self.rest = self.number(&mut header)? - HEADER_BYTES;
                source.skip(HEADER_BYTES);
                moved += sink.write(header.bytes());
            }
            let step = source.copy_to(sink, self.rest);
            self.rest -= step;
            moved += step;
            if self.rest > 0 {
                break;
            }
        }
        Ok(moved)
    }

    /// Whether it is room that is wanting, not bytes.
    fn wants_room(&self, source: &Reader, sink: &Writer) -> bool {
        let step = if self.rest == 0 { HEADER_BYTES } else { 1 };
        source.available() >= step && sink.room() < step
    }
}

fn over_rings(
    mut source: Connection,
    mut sink: Connection,
    poll_for: Duration,
    account: &mut Account,
) -> Result<(), ShmError> {
    let mut numbering = Numbering::default();
    let mut source_is_gone = false;
    loop {
        source.reader.look()?;
        sink.writer.look()?;
        let moved = numbering.move_frames(&mut source.reader, &mut sink.writer)?;
        sink.publish()?;
        source.release()?;
        if moved > 0 {
            account.note(numbering.numbered);
            continue;
        }
        if numbering.wants_room(&source.reader, &sink.writer) {
            if wait([(&mut sink, Until::Room)], poll_for)? != Event::Ready {
                return Ok(());
            }
        } else if source_is_gone {
            return Ok(());
        } else {
            match wait_for_more(&mut source, &mut sink, poll_for)? {
                More::There => {}
                More::Last => source_is_gone = true,
                More::Unwanted => return Ok(()),
            }
        }
    }
}

/// What waiting for the source came to.
enum More {
    /// It wrote.
    There,
    /// It is gone. What it wrote last may not have been seen yet.
    Last,
    /// The sink is gone.
    Unwanted,
}

fn wait_for_more(
    source: &mut Connection,
    sink: &mut Connection,
    poll_for: Duration,
) -> Result<More, ShmError> {
    Ok(match wait([(source, Until::MoreToRead), (sink, Until::Gone)], poll_for)? {
        Event::Ready => More::There,
        Event::Gone(0) => More::Last,
        Event::Gone(_) => More::Unwanted,
    })
}

fn over_rings_by_log(
    mut source: Connection,
    mut sink: Connection,
    poll_for: Duration,
    account: &mut Account,
) -> Result<(), ShmError> {
    let mut numbering = Numbering::default();
    let mut log = Log::new();
    let mut source_is_gone = false;
    loop {
        source.reader.look()?;
        let received = source.reader.read(log.space());
        source.release()?;
        if received > 0 {
            let mut ready = log.number(received, &mut numbering)?;
            loop {
                sink.writer.look()?;
                let written = sink.writer.write(ready);
                sink.publish()?;
                ready = &ready[written..];
                if ready.is_empty() {
                    break;
                }
                if wait([(&mut sink, Until::Room)], poll_for)? != Event::Ready {
                    return Ok(());
                }
            }
            account.note(numbering.numbered);
        } else if source_is_gone {
            return Ok(());
        } else {
            match wait_for_more(&mut source, &mut sink, poll_for)? {
                More::There => {}
                More::Last => source_is_gone = true,
                More::Unwanted => return Ok(()),
            }
        }
    }
}

fn over_sockets(
    mut source: &UnixStream,
    mut sink: &UnixStream,
    poll_for: Duration,
    receive_bytes: usize,
    account: &mut Account,
) -> Result<(), Failure> {
    let mut numbering = Numbering::default();
    let mut log = Log::new();
    loop {
        let space = &mut log.space()[..receive_bytes.min(TURN_BYTES)];
        let received = receive(&mut source, space, poll_for)?;
        if received == 0 {
            return Ok(());
        }
        let ready = log.number(received, &mut numbering)?;
        sink.write_all(ready)?;
        account.note(numbering.numbered);
    }
}

/// Reads what there is, asking for as long as `poll_for` before it sleeps.
fn receive(source: &mut &UnixStream, into: &mut [u8], poll_for: Duration) -> io::Result<usize> {
    if !poll_for.is_zero() {
        let since = Instant::now();
        while since.elapsed() < poll_for {
            match recv(*source, &mut *into, RecvFlags::DONTWAIT) {
                Ok((_, received)) => return Ok(received),
                Err(rustix::io::Errno::AGAIN) => std::hint::spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
    }
    io::Read::read(source, into)
}

/// Private memory that frames are received into, numbered in, and sent from.
struct Log {
    memory: Vec<u8>,
    /// Where a page begins in it.
    page: usize,
    /// Where the beginning of a header stands that is not to go on yet.
    held: Range<usize>,
}

impl Log {
    fn new() -> Self {
        let memory = vec![0; TURN_BYTES + 2 * PAGE_BYTES];
        let page = process::page_in(&memory);
        Self { memory, page, held: page..page }
    }

    /// Where the next bytes are to go: behind what is held, where a page begins.
    fn space(&mut self) -> &mut [u8] {
        let start = self.page - self.held.len();
        self.memory.copy_within(self.held.clone(), start);
        self.held = start..self.page;
        &mut self.memory[self.page..self.page + TURN_BYTES]
    }

    /// Numbers what was received, and lends what may go on.
    fn number(&mut self, received: usize, numbering: &mut Numbering) -> Result<&[u8], DecodeError> {
        let (start, end) = (self.held.start, self.page + received);
        let ready = numbering.number_in_place(&mut self.memory[start..end])?;
        self.held = start + ready..end;
        Ok(&self.memory[start..start + ready])
    }
}

/// What the server's process spent on how many messages, from the end of the warm-up on.
#[derive(Default)]
struct Account {
    first: Option<Instant>,
    begin: Option<Reading>,
    last: Option<Reading>,
}

#[derive(Clone, Copy)]
struct Reading {
    messages: u64,
    at: Instant,
    processor_ns: u64,
}

impl Account {
    /// So many messages have passed by now.
    fn note(&mut self, messages: u64) {
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        if self.begin.is_none() && now - first >= WARM_UP {
            self.begin = Some(Reading { messages, at: now, processor_ns: processor_ns() });
        }
        self.last = Some(Reading { messages, at: now, processor_ns: 0 });
    }

    fn report(&self) -> String {
        let total = self.last.map_or(0, |last| last.messages);
        let (Some(begin), Some(last)) = (self.begin, self.last) else {
            return format!("total={total}");
        };
        let messages = last.messages - begin.messages;
        let wall_ns = (last.at - begin.at).as_nanos();
        let spent_ns = processor_ns() - begin.processor_ns;
        format!("total={total} messages={messages} wall_ns={wall_ns} processor_ns={spent_ns}")
    }
}

/// User and system time of this process: what `/proc/PID/stat` says, not rounded to ticks.
fn processor_ns() -> u64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}
