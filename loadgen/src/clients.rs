//! The clients of one run: all publishers and subscribers, first connected, then running.
//!
//! Subscribers are connected and confirmed before the first publisher is, so nothing is published
//! that somebody might miss. Threads: one per publisher, and one for all subscribers.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::connection::Endpoint;
use crate::error::LoadError;
use crate::lane::{Lane, RunState};
use crate::publisher::{Pace, Publisher, PublisherReport};
use crate::quantity::Rate;
use crate::schedule::Schedule;
use crate::stalled::{StalledReport, StalledSubscriber};
use crate::subscriber::{Recording, Subscribers, SubscribersReport};
use crate::target::native::NativeFraming;
use crate::target::{Introduction, PublisherEnd, SubscriberEnd, Target};
use crate::workload::Case;

/// Bytes a server may queue for a subscriber that reads: as much as NATS grants by default.
const QUEUE_BYTES: u64 = 64 << 20;
/// At an unlimited rate one message in this many is timed; a power of two.
const SAMPLE_ONE_IN: u64 = 64;

/// When things happen, in nanoseconds of the run's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The first message.
    pub(crate) start_ns: u64,
    /// The beginning of the measured interval.
    pub(crate) from_ns: u64,
    /// Its end.
    pub(crate) to_ns: u64,
    /// The last message.
    pub(crate) end_ns: u64,
}

/// Clients that are connected.
#[derive(Debug)]
pub(crate) struct Clients {
    lanes: Vec<ConnectedLane>,
    stalled: Vec<StalledSubscriber>,
}

#[derive(Debug)]
struct ConnectedLane {
    publisher: PublisherEnd<NativeFraming>,
    subscribers: Vec<SubscriberEnd<NativeFraming>>,
}

/// Clients whose threads run.
#[derive(Debug)]
pub(crate) struct RunningClients {
    lanes: Vec<Arc<Lane>>,
    state: Arc<RunState>,
    publishers: Vec<JoinHandle<Result<PublisherReport, LoadError>>>,
    subscribers: JoinHandle<Result<SubscribersReport, LoadError>>,
    stalled: Vec<StalledSubscriber>,
}

/// What the clients saw, once all of them have ended.
#[derive(Debug)]
pub(crate) struct ClientsReport {
    /// What the publishers did, together.
    pub(crate) published: PublisherReport,
    /// What the subscribers that read saw.
    pub(crate) subscribers: SubscribersReport,
    /// What the stalled subscriber saw, if there was one.
    pub(crate) stalled: Option<StalledReport>,
}

impl Clients {
    /// Connects all clients of a case. Topics are named after `run_name`, which is new for each run,
    /// so that no run sees another's messages.
    pub(crate) fn connect(
        case: &Case,
        target: Target,
        endpoint: &Endpoint,
        run_name: &str,
    ) -> Result<Self, LoadError> {
        let topics: Vec<String> =
            (0..case.shape.publishers).map(|lane| format!("{run_name}/{lane}")).collect();
        let introduction = |lane: usize| Introduction {
            endpoint,
            lane: lane as u32,
            topic: &topics[lane],
            payload_bytes: case.size,
            queue_bytes: Some(QUEUE_BYTES),
        };
        let mut subscribers = Vec::new();
        let mut stalled = Vec::new();
        for lane in 0..topics.len() {
            let of_lane: Result<Vec<_>, _> =
                (0..case.shape.fan_out).map(|_| target.subscribe(&introduction(lane))).collect();
            subscribers.push(of_lane?);
            for _ in 0..case.shape.stalled {
                // The limits of the server itself: it has to overflow by them.
                let own_limits = Introduction { queue_bytes: None, ..introduction(lane) };
                stalled.push(StalledSubscriber::new(target.subscribe(&own_limits)?));
            }
        }
        let lanes: Result<Vec<_>, LoadError> = subscribers
            .into_iter()
            .enumerate()
            .map(|(lane, subscribers)| {
                Ok(ConnectedLane { publisher: target.publish(&introduction(lane))?, subscribers })
            })
            .collect();
        Ok(Self { lanes: lanes?, stalled })
    }

    /// Starts all threads.
    pub(crate) fn start(self, case: &Case, times: &Times) -> Result<RunningClients, LoadError> {
        let state = Arc::new(RunState::default());
        let count = self.lanes.len() as u64;
        let (mut lanes, mut publishers, mut readers) = (Vec::new(), Vec::new(), Vec::new());
        for (number, connected) in (0..).zip(self.lanes) {
            let lane = Arc::new(Lane::new(case.window / count));
            let pace = match case.rate {
                Rate::Max => Pace::Window,
                Rate::PerSecond(rate) => {
                    Pace::Schedule(Schedule::new(times.start_ns, rate).share(number, count))
                }
            };
            let publisher = Publisher::new(
                connected.publisher,
                case.batch,
                Arc::clone(&lane),
                Arc::clone(&state),
                pace,
            );
            let (start_ns, end_ns) = (times.start_ns, times.end_ns);
            publishers.push(spawn(format!("publisher-{number}"), &state, move || {
                publisher.run(start_ns, end_ns)
            })?);
            readers.push((Arc::clone(&lane), connected.subscribers));
            lanes.push(lane);
        }
        let recording = Recording {
            interval_ns: times.from_ns..times.to_ns,
            sampling_mask: match case.rate {
                Rate::Max => SAMPLE_ONE_IN - 1,
                Rate::PerSecond(_) => 0,
            },
        };
        let readers = Subscribers::new(readers, Arc::clone(&state), case.size, recording);
        let subscribers = spawn("subscribers".to_owned(), &state, move || readers.run())?;
        Ok(RunningClients { lanes, state, publishers, subscribers, stalled: self.stalled })
    }
}

impl RunningClients {
    /// Messages handed to sockets so far.
    pub(crate) fn sent(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.sent()).sum()
    }

    /// Messages received so far by the subscribers that read.
    pub(crate) fn received(&self) -> u64 {
        self.state.received()
    }

    /// Whether a thread has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.is_given_up()
    }

    /// Waits for everybody to end; then lets the stalled subscriber read.
    pub(crate) fn finish(self) -> Result<ClientsReport, LoadError> {
        let mut published = PublisherReport::default();
        let mut failure = None;
        for publisher in self.publishers {
            match join(publisher, "publisher") {
                Ok(report) => {
                    published.sent += report.sent;
                    published.unsent += report.unsent;
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let subscribers = join(self.subscribers, "subscribers")?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let mut stalled = None;
        for (subscriber, lane) in self.stalled.into_iter().zip(&self.lanes) {
            stalled = Some(subscriber.read_all(lane.sent())?);
        }
        Ok(ClientsReport { published, subscribers, stalled })
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    state: &Arc<RunState>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, LoadError> {
    thread::Builder::new().name(name).spawn(body).map_err(|source| {
        state.give_up();
        LoadError::System { what: "cannot start a thread", source }
    })
}

fn join<T>(thread: JoinHandle<Result<T, LoadError>>, what: &'static str) -> Result<T, LoadError> {
    thread.join().unwrap_or_else(|_| {
        Err(LoadError::System { what, source: std::io::Error::other("its thread panicked") })
    })
}
