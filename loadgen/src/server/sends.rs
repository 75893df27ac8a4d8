//! How many sends a daemon makes and how large they are, from its own statistics.
//!
//! A connection of its own subscribes to the statistics that the daemon publishes once a second and
//! is read after the run, so that nothing of this runs while the load does. What counts are the
//! documents published within the measured interval: two at the least, so short runs have none.

use std::ops::Range;

use nexusd_wire::FrameKind;
use serde::Deserialize;

use super::SendTotals;
use crate::connection::{Connection, Endpoint, Received};
use crate::error::LoadError;
use crate::target::{Introduction, SubscriberEnd, Target, TargetFraming, Wish};

/// Every daemon's statistics: those of one come over the others of its mesh, too.
const TOPIC: &str = "$SYS/+/stats";

/// What the daemon says about its sends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct SendCounts {
    /// Sends carried out per second.
    pub(crate) sends_per_s: f64,
    /// Bytes that one of them takes along, on average.
    pub(crate) bytes_per_send: f64,
}

/// A subscription to a daemon's statistics.
#[derive(Debug)]
pub(crate) struct SendWatch {
    connection: Connection,
    framing: TargetFraming,
}

/// The part of a document that is read.
#[derive(Clone, PartialEq, Debug, Deserialize)]
struct Statistics {
    node: String,
    uptime_s: f64,
    metrics: Counters,
}

#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
struct Counters {
    sends: u64,
    bytes_out: u64,
}

impl SendWatch {
    /// Subscribes to the daemon's statistics.
    pub(crate) fn connect(endpoint: &Endpoint) -> Result<Self, LoadError> {
        let introduction = Introduction { endpoint, lane: 0, payload_bytes: 0 };
        let wish = Wish { filters: &[TOPIC], ..Wish::default() };
        let SubscriberEnd { connection, framing, .. } =
            Target::Nexusd.subscribe(&introduction, &wish)?;
        Ok(Self { connection, framing })
    }

    /// What was counted within an interval, in microseconds of the wall clock. `None` if the daemon
    /// told too little.
    pub(crate) fn within(mut self, interval_us: &Range<u64>) -> Option<SendCounts> {
        let own = self.framing.node()?.to_string();
        let mut documents = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(Received::Bytes(bytes)) = self.connection.receive_now(&mut buffer) {
            let read = self.framing.on_frames(&buffer[..bytes], &mut |frame| {
                if frame.kind() == FrameKind::Message
                    && interval_us.contains(&frame.header().timestamp_us())
                {
                    let document = serde_json::from_slice::<Statistics>(frame.payload());
                    documents.extend(document.ok().filter(|document| document.node == own));
                }
                Ok(())
            });
            // What came before stays true when the daemon stops or says something odd.
            if read.is_err() {
                break;
            }
        }
        counts(documents.first()?, documents.last()?)
    }
}

impl SendCounts {
    /// What happened between two counts; `None` if nothing was sent.
    pub(crate) fn between(first: SendTotals, last: SendTotals, elapsed_s: f64) -> Option<Self> {
        let sends = last.sends.checked_sub(first.sends)?;
        let bytes = last.bytes.checked_sub(first.bytes)?;
        (elapsed_s > 0.0 && sends > 0).then(|| Self {
            sends_per_s: sends as f64 / elapsed_s,
            bytes_per_send: bytes as f64 / sends as f64,
        })
    }
}

fn counts(first: &Statistics, last: &Statistics) -> Option<SendCounts> {
    let totals = |document: &Statistics| SendTotals {
        sends: document.metrics.sends,
        bytes: document.metrics.bytes_out,
    };
    SendCounts::between(totals(first), totals(last), last.uptime_s - first.uptime_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Statistics {
        serde_json::from_str(text).expect("a document")
    }

    #[test]
    fn sends_are_the_difference_of_two_documents() {
        let first = document(
            r#"{"node":"a","uptime_s":1.5,"metrics":{"sends":100,"bytes_out":1000,"x":1}}"#,
        );
        let last =
            document(r#"{"node":"a","uptime_s":3.5,"metrics":{"sends":300,"bytes_out":41000}}"#);
        let expected = SendCounts { sends_per_s: 100.0, bytes_per_send: 200.0 };
        assert_eq!(counts(&first, &last), Some(expected));
    }

    #[test]
    fn one_document_is_not_enough() {
        let only =
            document(r#"{"node":"a","uptime_s":1.5,"metrics":{"sends":100,"bytes_out":1000}}"#);
        assert_eq!(counts(&only, &only), None);
    }
}
