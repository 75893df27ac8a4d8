//! The flood of workload Q: a connection that publishes as fast as its socket takes it, to a topic of
//! its own, beside the pair that is measured.
//!
//! Its messages are counted and not checked: where a subscriber reads them, it falls behind and loses
//! some, which it is told. Its threads share a core with the pair's and are the nicest there are, so
//! that what the pair feels of them is the server's doing, but for system calls that cannot be
//! interrupted.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::Serialize;

use crate::clients::{Times, join, spawn};
use crate::connection::{Connection, Endpoint, Received};
use crate::error::LoadError;
use crate::lane::{Lane, RunState};
use crate::pinning;
use crate::publisher::{Ears, Pace, Publisher, PublisherPlan, PublisherReport};
use crate::target::{
    Framing, Introduction, PublisherEnd, SubscriberEnd, Target, TargetFraming, TopicNames, Wish,
};
use crate::workload::Case;

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// Who wants the flood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Flooded {
    /// A subscriber that reads it as fast as it can.
    Reader,
    /// Nobody.
    Nobody,
}

/// A flood that is connected.
pub(crate) struct Flood {
    wanted_by: Flooded,
    publisher: PublisherEnd<TargetFraming>,
    reader: Option<SubscriberEnd<TargetFraming>>,
}

/// A flood that runs, or is about to.
pub(crate) struct RunningFlood {
    wanted_by: Flooded,
    seconds: f64,
    publisher: JoinHandle<Result<PublisherReport, LoadError>>,
    reader: Option<JoinHandle<Result<Taken, LoadError>>>,
}

/// What the flood was.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct FloodReport {
    /// Who wanted it.
    pub(crate) wanted_by: Flooded,
    /// Messages handed to its socket per second.
    pub(crate) sent_per_s: f64,
    /// Messages its subscriber received, per second.
    pub(crate) received_per_s: f64,
    /// Messages that its subscriber was told it had lost.
    pub(crate) told_lost: u64,
}

/// What the subscriber of a flood got of it.
#[derive(Clone, Copy, Default, Debug)]
struct Taken {
    received: u64,
    told_lost: u64,
}

impl Flood {
    /// Connects the flood of a case, behind the pair.
    pub(crate) fn connect(
        wanted_by: Flooded,
        case: &Case,
        target: Target,
        endpoint: &Endpoint,
        run_name: &str,
    ) -> Result<Self, LoadError> {
        let lane = case.shape.publishers as u32;
        let introduction = Introduction { endpoint, lane, payload_bytes: case.size };
        let topic = format!("{run_name}/flood");
        let reader = match wanted_by {
            Flooded::Reader => {
                let wish = Wish { filters: &[&topic], ..Wish::default() };
                Some(target.subscribe(&introduction, &wish)?)
            }
            Flooded::Nobody => None,
        };
        let name = |_| topic.clone();
        let mut topics = TopicNames { count: 1, name: &name, watch: &mut |_| {} };
        let publisher = target.publish(&introduction, &mut topics)?;
        Ok(Self { wanted_by, publisher, reader })
    }

    /// Starts its threads; it lasts from the pair's first message to its last.
    pub(crate) fn start(self, times: &Times) -> Result<RunningFlood, LoadError> {
        // Its own: its failure is told when it is asked for, and nobody counts its messages among the pair's.
        let state = Arc::new(RunState::default());
        let lane = Arc::new(Lane::new(u64::MAX));
        let PublisherEnd { connection, framing, template } = self.publisher;
        let plan = PublisherPlan {
            template,
            batch: None,
            pace: Pace::Window,
            walk: None,
            ack_every: None,
            first_topic: 0,
        };
        let publisher = Publisher::new(
            Arc::new(connection),
            Ears::Own(framing),
            plan,
            Arc::clone(&lane),
            Arc::clone(&state),
        );
        let (start_ns, end_ns) = (times.start_ns, times.end_ns);
        let publisher = spawn("flood".to_owned(), &state, move || {
            pinning::give_way();
            publisher.run(start_ns, end_ns)
        })?;
        let read = |end: SubscriberEnd<TargetFraming>| {
            spawn("flooded".to_owned(), &state, move || {
                pinning::give_way();
                take_all(&end.connection, end.framing, &lane)
            })
        };
        Ok(RunningFlood {
            wanted_by: self.wanted_by,
            seconds: (end_ns - start_ns) as f64 / 1e9,
            publisher,
            reader: self.reader.map(read).transpose()?,
        })
    }
}

impl RunningFlood {
    /// Waits for its end, which comes with that of the pair.
    pub(crate) fn finish(self) -> Result<FloodReport, LoadError> {
        let published = join(self.publisher, "flood")?;
        let taken = match self.reader {
            Some(reader) => join(reader, "flooded subscriber")?,
            None => Taken::default(),
        };
        Ok(FloodReport {
            wanted_by: self.wanted_by,
            sent_per_s: published.sent as f64 / self.seconds,
            received_per_s: taken.received as f64 / self.seconds,
            told_lost: taken.told_lost,
        })
    }
}

/// Reads until the publisher has ended and nothing more comes.
fn take_all(
    connection: &Connection,
    mut framing: TargetFraming,
    lane: &Lane,
) -> Result<Taken, LoadError> {
    let mut buffer = vec![0; READ_BYTES];
    let mut received = 0;
    loop {
        let has_ended = lane.total().is_some();
        match connection.receive_waiting(&mut buffer).map_err(lost)? {
            Received::Bytes(bytes) => {
                framing.on_bytes(&buffer[..bytes], &mut |_| received += 1).map_err(|source| {
                    LoadError::Conversation { role: "flooded subscriber", source }
                })?;
                let reply = framing.take_reply();
                connection.send_all(&reply, || false).map_err(lost)?;
            }
            Received::Nothing if has_ended => {
                return Ok(Taken { received, told_lost: framing.totals().told_lost });
            }
            Received::Nothing => {}
            Received::End => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn lost(source: io::Error) -> LoadError {
    LoadError::Connection { role: "flooded subscriber", source }
}
