//! Waits until the subscriptions of a run are known where its publishers are.
//!
//! At the node of each publisher, messages to its topic are published and acknowledged, one after the
//! other, until an acknowledgement counts every subscription that wants the topic; then each subscriber
//! reads up to that message. So nothing of the run is missed, and nothing of the probes is in its way.

use std::io;

use super::prober::{Probe, Prober};
use crate::clock;
use crate::connection::{Endpoint, Received};
use crate::error::LoadError;
use crate::target::{Framing, SubscriberEnd, TargetFraming};

/// How long the nodes may take to learn of a subscription.
const TIMEOUT_NS: u64 = 10_000_000_000;
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

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
    awaited: &[Awaited<'_>],
    readers: &mut [SubscriberEnd<TargetFraming>],
) -> Result<Option<u64>, LoadError> {
    let deadline_ns = clock::now_ns() + TIMEOUT_NS;
    let mut first_ns = None;
    for (sender, Awaited { endpoint, topic, readers: places }) in (0..).zip(awaited) {
        let mut prober = Prober::connect(endpoint, sender, &[(*topic).to_owned()])?;
        let wanted = places.len() as u32;
        loop {
            let delivered = prober.probe_and_wait(deadline_ns)?;
            if delivered >= wanted {
                break;
            }
            if clock::now_ns() > deadline_ns {
                return Err(LoadError::Mesh(format!(
                    "the node at {endpoint} delivers {topic} to {delivered} of {wanted} \
                     subscriptions and nodes, {} s after they were made",
                    TIMEOUT_NS / 1_000_000_000
                )));
            }
        }
        let last = Probe { sender, topic: 0, number: prober.sent() - 1 };
        for place in *places {
            let read_ns = read_up_to(&mut readers[*place], last, deadline_ns)?;
            first_ns = first_ns.or(Some(read_ns));
        }
        prober.leave();
    }
    Ok(first_ns)
}

/// Reads until a probe has come. Returns when anything came first.
fn read_up_to(
    reader: &mut SubscriberEnd<TargetFraming>,
    last: Probe,
    deadline_ns: u64,
) -> Result<u64, LoadError> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut first_ns, mut is_there) = (None, false);
    while !is_there {
        let bytes = match reader.connection.receive_waiting(&mut buffer).map_err(lost)? {
            Received::Bytes(bytes) => bytes,
            Received::Nothing if clock::now_ns() > deadline_ns => {
                return Err(LoadError::Mesh(
                    "a message that was acknowledged as delivered did not arrive".to_owned(),
                ));
            }
            Received::Nothing => continue,
            Received::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
        };
        let now_ns = clock::now_ns();
        reader
            .framing
            .on_bytes(&buffer[..bytes], &mut |payload| {
                first_ns.get_or_insert(now_ns);
                is_there |= Probe::read(payload) == Some(last);
            })
            .map_err(|source| LoadError::Conversation { role: "subscriber", source })?;
        reader.connection.send_all(&reader.framing.take_reply(), || false).map_err(lost)?;
    }
    Ok(first_ns.unwrap_or_else(clock::now_ns))
}

fn lost(source: io::Error) -> LoadError {
    LoadError::Connection { role: "subscriber", source }
}
