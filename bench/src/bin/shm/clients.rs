//! The publisher and the subscriber: the same code over sockets and over rings, but for the way in and out.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nexusd_bench::shared_ring::{Connection, Event, Until, wait};
use nexusd_wire::{Cut, FrameCutter, FrameEncoder, Header, Sequence, TopicId};

use crate::process::{
    self, CHUNK_BYTES, Failure, LOAD_CORE, PAGE_BYTES, PUBLISHER, SUBSCRIBER, Way,
};

/// Bytes of a payload that say when its message was to be sent.
const STAMP_BYTES: usize = 8;

/// Clients share a core, so they do not poll: one would keep the other from what it waits for.
const POLL_FOR: Duration = Duration::ZERO;

/// One end of a client's connection.
enum Line {
    Socket(UnixStream),
    Ring(Connection),
}

impl Line {
    fn open(name: &str, role: u8, way: Way) -> Result<Self, Failure> {
        process::pin(LOAD_CORE)?;
        let socket = process::connect(name, role)?;
        Ok(match way {
            Way::Socket => Self::Socket(socket),
            Way::Ring | Way::RingByLog => Self::Ring(Connection::accept(socket)?),
        })
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Socket(socket) => socket.write_all(bytes)?,
            Self::Ring(ring) => loop {
                ring.writer.look()?;
                let written = ring.writer.write(bytes);
                ring.publish()?;
                bytes = &bytes[written..];
                if bytes.is_empty() {
                    break;
                }
                if wait([(ring, Until::Room)], POLL_FOR)? != Event::Ready {
                    return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
                }
            },
        }
        Ok(())
    }

    /// Waits for bytes; 0 at the end.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        match self {
            Self::Socket(socket) => Ok(socket.read(into)?),
            Self::Ring(ring) => {
                let mut is_gone = false;
                loop {
                    ring.reader.look()?;
                    let received = ring.reader.read(into);
                    ring.release()?;
                    if received > 0 || is_gone {
                        return Ok(received);
                    }
                    let event = wait([(ring, Until::MoreToRead)], POLL_FOR)?;
                    is_gone = event != Event::Ready;
                }
            }
        }
    }
}

/// Publishes as fast as it can for so long.
pub(crate) fn publish_for(
    name: &str,
    way: Way,
    payload_bytes: usize,
    duration: Duration,
) -> Result<String, Failure> {
    let mut line = Line::open(name, PUBLISHER, way)?;
    let mut chunk = Vec::new();
    append_message(&mut chunk, payload_bytes);
    let stride = chunk.len();
    let chunk = chunk.repeat(process::write_bytes(payload_bytes) / stride);
    let mut memory = vec![0; chunk.len() + 2 * PAGE_BYTES];
    let page = process::page_in(&memory);
    let chunk = {
        memory[page..page + chunk.len()].copy_from_slice(&chunk);
        &mut memory[page..page + chunk.len()]
    };
    let until_ns = process::now_ns() + duration.as_nanos() as u64;
    let mut sent = 0;
    while process::now_ns() < until_ns {
        for frame in chunk.chunks_exact_mut(stride) {
            sent += 1;
            number(frame, sent);
        }
        line.write_all(chunk)?;
    }
    Ok(format!("sent={sent}"))
}

/// Publishes one message every `interval`, whatever becomes of those before.
pub(crate) fn publish_at(
    name: &str,
    way: Way,
    payload_bytes: usize,
    interval: Duration,
    messages: u64,
) -> Result<String, Failure> {
    process::wake_on_time();
    let mut line = Line::open(name, PUBLISHER, way)?;
    let mut frame = Vec::new();
    append_message(&mut frame, payload_bytes);
    let payload = frame.len() - nexusd_wire::aligned(payload_bytes);
    let interval_ns = interval.as_nanos() as u64;
    let begin_ns = process::now_ns();
    let mut intended_ns = begin_ns;
    for sent in 1..=messages {
        intended_ns += interval_ns;
        process::sleep_until(intended_ns);
        number(&mut frame, sent);
        frame[payload..payload + STAMP_BYTES].copy_from_slice(&intended_ns.to_ne_bytes());
        line.write_all(&frame)?;
    }
    let took = (process::now_ns() - begin_ns) as f64 / (messages * interval_ns) as f64;
    Ok(format!("sent={messages} took={took:.4}"))
}

fn append_message(out: &mut Vec<u8>, payload_bytes: usize) {
    let header = Header::new(nexusd_wire::FrameKind::Message, 0, 0).with_topic(TopicId(1));
    FrameEncoder::message(out, &header, &[], &vec![0x5A; payload_bytes.max(STAMP_BYTES)]);
}

/// Gives a frame the publisher's number.
fn number(frame: &mut [u8], sequence: u64) {
    if let Some(header) = Header::peek_mut(frame) {
        *header = header.with_origin_sequence(Sequence(sequence));
    }
}

/// Reads until the end; whether all came and in order, and the latencies behind the first `skipped`.
pub(crate) fn subscribe(name: &str, way: Way, skipped: Option<u64>) -> Result<String, Failure> {
    let mut line = Line::open(name, SUBSCRIBER, way)?;
    let mut cutter = FrameCutter::new(u32::MAX, u32::MAX, usize::MAX);
    let mut memory = vec![0; CHUNK_BYTES + 2 * PAGE_BYTES];
    let page = process::page_in(&memory);
    let mut latencies_ns = Vec::new();
    let (mut received, mut misplaced) = (0, 0_u64);
    loop {
        let mut bytes = match line.read(&mut memory[page..page + CHUNK_BYTES])? {
            0 => break,
            read => &memory[page..page + read],
        };
        let now_ns = process::now_ns();
        while let Cut::Frame(frame) = cutter.next(&mut bytes)? {
            received += 1;
            let header = frame.header();
            // The server's number and the publisher's.
            let in_place = header.sequence() == Sequence(received)
                && header.origin_sequence() == Sequence(received);
            misplaced += u64::from(!in_place);
            if skipped.is_some_and(|skipped| received > skipped) {
                let stamp = frame.payload().first_chunk().map_or(0, |at| u64::from_ne_bytes(*at));
                latencies_ns.push(now_ns.saturating_sub(stamp));
            }
        }
    }
    latencies_ns.sort_unstable();
    let at = |share: f64| {
        let which = (latencies_ns.len() as f64 * share) as usize;
        latencies_ns.get(which).map_or(f64::NAN, |ns| *ns as f64 / 1000.0)
    };
    let (p50, p99) = (at(0.5), at(0.99));
    Ok(format!(
        "received={received} misplaced={misplaced} stashed={} p50_us={p50} p99_us={p99}",
        cutter.stashed()
    ))
}
