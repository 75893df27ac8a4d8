//! Waits until the subscriptions of a run are known where its publishers are.
//!
//! At the node of each publisher, messages to its topic are published and acknowledged, one after the
//! other, until an acknowledgement counts every subscription that wants the topic; then each subscriber
//! reads up to that message. Where nothing is acknowledged, they are published until each subscriber has
//! had the last one. So nothing of the run is missed, and nothing of the probes is in its way.

use std::io;

use super::prober::{Probe, Prober};
use crate::clock;
use crate::connection::{Endpoint, Received};
use crate::error::LoadError;
use crate::target::{Framing, SubscriberEnd, Target, TargetFraming};

/// How long the nodes may take to learn of a subscription.
const TIMEOUT_NS: u64 = 10_000_000_000;
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// How long a message that nobody acknowledges is waited for, at first and in the end, before another one is
/// sent.
const PATIENCE_NS: u64 = 2_000_000;
const PATIENCE_NS_MAX: u64 = 200_000_000;

/// A publisher whose subscriptions are waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited<'a> {
    /// Its node.
    pub(crate) endpoint: &'a Endpoint,
    /// Its topic.
    pub(crate) topic: &'a str,
    /// Its subscribers, by their places among all of the run's.
    pub(crate) readers: &'a [usize],
}

/// Waits until a message of each publisher reaches all of its subscribers. Returns when the first
/// message of all arrived, on the run's clock.
pub(crate) fn await_routes(
    target: Target,
    awaited: &[Awaited<'_>],
    readers: &mut [SubscriberEnd<TargetFraming>],
) -> Result<Option<u64>, LoadError> {
    let deadline_ns = clock::now_ns() + TIMEOUT_NS;
    let mut first_ns = None;
    for (sender, awaited) in (0..).zip(awaited) {
        let topics = [awaited.topic.to_owned()];
        let mut prober = Prober::connect(target, awaited.endpoint, sender, &topics)?;
        let read_ns = if prober.is_answered() {
            probe_until_acknowledged(&mut prober, sender, awaited, readers, deadline_ns)?
        } else {
            probe_until_read(&mut prober, sender, awaited, readers, deadline_ns)?
        };
        first_ns = first_ns.or(read_ns);
        prober.leave();
    }
    Ok(first_ns)
}

/// Probes until one is acknowledged as delivered to all, and lets each read up to that. Returns when
/// anything came first.
fn probe_until_acknowledged(
    prober: &mut Prober,
    sender: u64,
    awaited: &Awaited<'_>,
    readers: &mut [SubscriberEnd<TargetFraming>],
    deadline_ns: u64,
) -> Result<Option<u64>, LoadError> {
    let Awaited { endpoint, topic, readers: places } = awaited;
    let wanted = places.len() as u32;
    loop {
        let delivered = prober.probe_and_wait(deadline_ns)?;
        if delivered >= wanted {
            break;
        }
        if clock::now_ns() > deadline_ns {
            return Err(LoadError::Mesh(format!(
                "the node at {endpoint} delivers {topic} to {delivered} of {wanted} subscriptions \
                 and nodes, {} s after they were made",
                TIMEOUT_NS / 1_000_000_000
            )));
        }
    }
    let last = Probe { sender, topic: 0, number: prober.sent() - 1 };
    let mut first_ns = None;
    for place in *places {
        let reading = read_up_to(&mut readers[*place], last, deadline_ns)?;
        if !reading.is_there {
            return Err(LoadError::Mesh(
                "a message that was acknowledged as delivered did not arrive".to_owned(),
            ));
        }
        first_ns = first_ns.or(reading.first_ns);
    }
    Ok(first_ns)
}

/// Probes until each has had the last one. Returns when anything came first.
fn probe_until_read(
    prober: &mut Prober,
    sender: u64,
    awaited: &Awaited<'_>,
    readers: &mut [SubscriberEnd<TargetFraming>],
    deadline_ns: u64,
) -> Result<Option<u64>, LoadError> {
    let Awaited { endpoint, topic, readers: places } = awaited;
    let (mut first_ns, mut patience_ns) = (None, PATIENCE_NS);
    loop {
        prober.probe(&[0], deadline_ns)?;
        prober.on_readable(&mut |_, _| {})?;
        let last = Probe { sender, topic: 0, number: prober.sent() - 1 };
        let until_ns = clock::now_ns() + patience_ns;
        let mut came = 0;
        for place in *places {
            let reading = read_up_to(&mut readers[*place], last, until_ns)?;
            came += usize::from(reading.is_there);
            first_ns = first_ns.or(reading.first_ns);
        }
        if came == places.len() {
            return Ok(first_ns);
        }
        if clock::now_ns() > deadline_ns {
            return Err(LoadError::Mesh(format!(
                "a message to {topic} at the server at {endpoint} reaches {came} of {} \
                 subscribers, {} s after they subscribed",
                places.len(),
                TIMEOUT_NS / 1_000_000_000
            )));
        }
        patience_ns = (patience_ns * 2).min(PATIENCE_NS_MAX);
    }
}

/// What a subscriber had until the time was up.
struct Reading {
    /// When anything came first.
    first_ns: Option<u64>,
    /// Whether the probe came that was waited for.
    is_there: bool,
}

/// Reads until a probe has come, or the time is up.
fn read_up_to(
    reader: &mut SubscriberEnd<TargetFraming>,
    last: Probe,
    until_ns: u64,
) -> Result<Reading, LoadError> {
    let mut buffer = vec![0; READ_BYTES];
    let mut reading = Reading { first_ns: None, is_there: false };
    while !reading.is_there {
        let now_ns = clock::now_ns();
        if now_ns >= until_ns {
            break;
        }
        reader.connection.wait_until_readable(until_ns - now_ns).map_err(lost)?;
        let bytes = match reader.connection.receive_now(&mut buffer).map_err(lost)? {
            Received::Bytes(bytes) => bytes,
            Received::Nothing => continue,
            Received::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
        };
        let now_ns = clock::now_ns();
        let Reading { first_ns, is_there } = &mut reading;
        reader
            .framing
            .on_bytes(&buffer[..bytes], &mut |payload| {
                first_ns.get_or_insert(now_ns);
                *is_there |= Probe::read(payload) == Some(last);
            })
            .map_err(|source| LoadError::Conversation { role: "subscriber", source })?;
        reader.connection.send_all(&reader.framing.take_reply(), || false).map_err(lost)?;
    }
    Ok(reading)
}

fn lost(source: io::Error) -> LoadError {
    LoadError::Connection { role: "subscriber", source }
}
