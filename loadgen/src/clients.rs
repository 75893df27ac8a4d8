//! The clients of one run: all publishers and subscribers, first connected, then running.
//!
//! Subscribers are connected and confirmed before the first publisher is, so nothing is published
//! that somebody might miss; where there are several nodes, those of the publishers must have learnt of
//! the subscriptions as well. Threads: one per publisher, one for all subscribers, and one per
//! publisher that wants acknowledgements.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::acks::{AckReader, AckRecording, AckReport};
use crate::comebacks::BreakPlan;
use crate::connection::{Connection, Endpoint};
use crate::delivery_check::{CrowdCheck, DeliveryCheck, LaneCheck};
use crate::error::LoadError;
use crate::lane::{Lane, RunState};
use crate::mesh::first_message::{Awaited, await_routes};
use crate::policy::Policy;
use crate::publisher::{Ears, Pace, Publisher, PublisherPlan, PublisherReport};
use crate::quantity::Rate;
use crate::schedule::Schedule;
use crate::stalled::{StalledReport, StalledSubscriber};
use crate::subscriber::{Recording, Subscribers, SubscribersReport};
use crate::target::{
    Introduction, PublisherEnd, SubscriberEnd, Target, TargetFraming, TopicNames, Wish,
};
use crate::topic_check::TopicCheck;
use crate::topic_tree::TopicTree;
use crate::topic_walk::TopicWalk;
use crate::workload::{Case, Shape, Spread};

/// Bytes a server may queue for a subscriber that reads: as much as NATS grants by default.
const QUEUE_BYTES: u64 = 64 << 20;
/// At an unlimited rate one message in this many is timed; a power of two.
const SAMPLE_ONE_IN: u64 = 64;
/// On a schedule at most about so many deliveries a second are timed: beyond it the entries in histograms would take a
/// good part of the subscribers' core, which is what ends first there.
const TIMED_PER_S_MAX: u64 = 1_000_000;

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
    /// Subscribers that read: those of each lane together, in the order of the lanes.
    readers: Vec<SubscriberEnd<TargetFraming>>,
    /// Where the server of each of them listens.
    reader_endpoints: Vec<Endpoint>,
    stalled: Vec<StalledSubscriber>,
    subscribe_to_first_ms: Option<f64>,
}

#[derive(Debug)]
struct ConnectedLane {
    publisher: PublisherEnd<TargetFraming>,
    /// Over its topics, if it has several.
    walk: Option<TopicWalk>,
}

/// Clients whose threads run.
#[derive(Debug)]
pub(crate) struct RunningClients {
    lanes: Vec<Arc<Lane>>,
    state: Arc<RunState>,
    /// Of the publishers. One that is closed with something unread, such as a sign of life, takes what it has
    /// not sent yet with it.
    connections: Vec<Arc<Connection>>,
    publishers: Vec<JoinHandle<Result<PublisherReport, LoadError>>>,
    subscribers: JoinHandle<Result<SubscribersReport, LoadError>>,
    ack_readers: Vec<JoinHandle<Result<AckReport, LoadError>>>,
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
    /// What acknowledgements said, if they were asked for.
    pub(crate) acks: Option<AckReport>,
}

impl Clients {
    /// Connects all clients of a case. Topics are named after `run_name`, which is new for each run,
    /// so that no run sees another's messages. `endpoints` are where each node listens. `watch` is told
    /// which share of a publisher's topics is bound.
    pub(crate) fn connect(
        case: &Case,
        target: Target,
        endpoints: &[Endpoint],
        run_name: &str,
        watch: &mut dyn FnMut(f64),
    ) -> Result<Self, LoadError> {
        let Shape { publishers, fan_out, stalled: stalling, tree, order, spread } = case.shape;
        let bases: Vec<String> = (0..publishers).map(|lane| format!("{run_name}/{lane}")).collect();
        let introduction = |lane: usize, node: usize| Introduction {
            endpoint: &endpoints[node],
            lane: lane as u32,
            payload_bytes: case.size,
        };
        let subscribe = |lane: usize,
                         node: usize,
                         filters: &[String],
                         queue_bytes: Option<u64>,
                         counted: bool| {
            let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
            let policy = case.policy.map(Policy::on_the_wire);
            let wish = Wish { filters: &filters, queue_bytes, policy, counted };
            target.subscribe(&introduction(lane, node), &wish)
        };
        let mut readers = Vec::new();
        let mut reader_nodes = Vec::new();
        let mut stalled = Vec::new();
        let audiences = match spread {
            Spread::Together | Spread::Apart => publishers,
            Spread::Everywhere => 1,
        };
        for (lane, base) in bases.iter().enumerate().take(audiences) {
            for subscriber in 0..fan_out {
                let of_lane = || tree.filters_of(base, subscriber);
                let (node, filters) = match spread {
                    Spread::Together => (0, of_lane()),
                    Spread::Apart => (subscriber + 1, of_lane()),
                    Spread::Everywhere => (subscriber, vec![format!("{run_name}/+")]),
                };
                readers.push(subscribe(lane, node, &filters, Some(QUEUE_BYTES), case.counted)?);
                reader_nodes.push(node);
            }
            for _ in 0..stalling {
                // The limits of the server itself: it has to overflow by them.
                let filters = tree.filters_of(base, 0);
                stalled.push(StalledSubscriber::new(subscribe(lane, 0, &filters, None, false)?));
            }
        }
        let lanes: Result<Vec<_>, LoadError> = (0..publishers)
            .map(|lane| {
                let name = |topic| tree.topic(&bases[lane], topic);
                let mut topics =
                    TopicNames { count: tree.topics(), name: &name, watch: &mut *watch };
                let node = publisher_node(spread, lane);
                let publisher = target.publish(&introduction(lane, node), &mut topics)?;
                let walk = match tree {
                    TopicTree::Single => None,
                    _ => Some(TopicWalk::new(tree.topics(), order)),
                };
                Ok(ConnectedLane { publisher, walk })
            })
            .collect();
        let mut clients = Self {
            lanes: lanes?,
            readers,
            reader_endpoints: reader_nodes.iter().map(|node| endpoints[*node].clone()).collect(),
            stalled,
            subscribe_to_first_ms: None,
        };
        if spread != Spread::Together {
            clients.await_routes(target, spread, endpoints, &bases)?;
        }
        Ok(clients)
    }

    /// Waits until the publishers' nodes know what the subscribers want.
    fn await_routes(
        &mut self,
        target: Target,
        spread: Spread,
        endpoints: &[Endpoint],
        topics: &[String],
    ) -> Result<(), LoadError> {
        // One publisher, or subscribers that want what all publish.
        let all: Vec<usize> = (0..self.readers.len()).collect();
        let awaited: Vec<_> = topics
            .iter()
            .enumerate()
            .map(|(lane, topic)| Awaited {
                endpoint: &endpoints[publisher_node(spread, lane)],
                topic,
                readers: &all,
            })
            .collect();
        let first_ns = await_routes(target, &awaited, &mut self.readers)?;
        // Of several, some have waited for others to be connected.
        if let ([reader], [_], Some(first_ns)) = (self.readers.as_slice(), topics, first_ns) {
            self.subscribe_to_first_ms =
                Some(first_ns.saturating_sub(reader.asked_ns) as f64 / 1e6);
        }
        Ok(())
    }

    /// From the one Subscribe at a node to the first message from the one publisher at another.
    pub(crate) fn subscribe_to_first_ms(&self) -> Option<f64> {
        self.subscribe_to_first_ms
    }

    /// Starts all threads.
    pub(crate) fn start(self, case: &Case, times: &Times) -> Result<RunningClients, LoadError> {
        let state = Arc::new(RunState::default());
        let count = self.lanes.len() as u64;
        let (mut lanes, mut publishers, mut ack_readers) = (Vec::new(), Vec::new(), Vec::new());
        let mut connections = Vec::new();
        for (number, connected) in (0..).zip(self.lanes) {
            let lane = Arc::new(Lane::new(case.window / count));
            let schedule = match case.rate {
                Rate::Max => None,
                Rate::PerSecond(rate) => {
                    Some(Schedule::new(times.start_ns, rate).share(number, count))
                }
            };
            let PublisherEnd { connection, framing, template } = connected.publisher;
            let connection = Arc::new(connection);
            connections.push(Arc::clone(&connection));
            let ears = match case.ack_every {
                None => Ears::Own(framing),
                Some(every) => {
                    let recording =
                        AckRecording { schedule, interval_ns: times.from_ns..times.to_ns };
                    let reader = AckReader::new(
                        Arc::clone(&connection),
                        framing,
                        every,
                        recording,
                        Arc::clone(&lane),
                        Arc::clone(&state),
                    );
                    let replies = reader.replies();
                    ack_readers
                        .push(spawn(format!("acks-{number}"), &state, move || reader.run())?);
                    Ears::Reader(replies)
                }
            };
            let plan = PublisherPlan {
                template,
                batch: case.batch,
                pace: schedule.map_or(Pace::Window, Pace::Schedule),
                walk: connected.walk,
                ack_every: case.ack_every,
                first_topic: match case.shape.spread {
                    Spread::Together | Spread::Apart => 0,
                    Spread::Everywhere => number as u32,
                },
            };
            let publisher =
                Publisher::new(connection, ears, plan, Arc::clone(&lane), Arc::clone(&state));
            let (start_ns, end_ns) = (times.start_ns, times.end_ns);
            publishers.push(spawn(format!("publisher-{number}"), &state, move || {
                publisher.run(start_ns, end_ns)
            })?);
            lanes.push(lane);
        }
        let recording = Recording {
            interval_ns: times.from_ns..times.to_ns,
            sampling_mask: timed_one_in(case.rate, case.shape.tree.copies(case.shape.fan_out)) - 1,
        };
        let breaks = case.resume_every.map(|every| BreakPlan {
            endpoints: self.reader_endpoints,
            every,
            start_ns: times.start_ns,
        });
        let Shape { publishers: count, fan_out, tree, spread, .. } = case.shape;
        let readers = Readers {
            ends: self.readers,
            lanes: lanes.clone(),
            size: case.size,
            recording,
            breaks,
        };
        let subscribers = match (tree, spread) {
            (TopicTree::Single, Spread::Everywhere) => {
                readers.start(CrowdCheck::new(fan_out, count), &state)?
            }
            (TopicTree::Single, Spread::Together | Spread::Apart) => {
                readers.start(LaneCheck::new(&vec![fan_out; count]), &state)?
            }
            (tree, _) => readers.start(TopicCheck::new(tree), &state)?,
        };
        Ok(RunningClients {
            lanes,
            state,
            connections,
            publishers,
            subscribers,
            ack_readers,
            stalled: self.stalled,
        })
    }
}

/// The node of a lane's publisher.
fn publisher_node(spread: Spread, lane: usize) -> usize {
    match spread {
        Spread::Together | Spread::Apart => 0,
        Spread::Everywhere => lane,
    }
}

/// All subscribers that read, before it is known how they are checked.
struct Readers {
    ends: Vec<SubscriberEnd<TargetFraming>>,
    lanes: Vec<Arc<Lane>>,
    size: usize,
    recording: Recording,
    breaks: Option<BreakPlan>,
}

impl Readers {
    fn start(
        self,
        check: impl DeliveryCheck + 'static,
        state: &Arc<RunState>,
    ) -> Result<JoinHandle<Result<SubscribersReport, LoadError>>, LoadError> {
        let Self { ends, lanes, size, recording, breaks } = self;
        let shared = Arc::clone(state);
        let subscribers = Subscribers::new(ends, check, lanes, shared, size, recording, breaks);
        spawn("subscribers".to_owned(), state, move || subscribers.run())
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
        drop(self.connections);
        // Where acknowledgements are read, their reader knows why its publisher failed.
        let mut acks = None;
        for reader in self.ack_readers {
            acks.get_or_insert_with(AckReport::default).add(&join(reader, "acknowledgements")?);
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        let mut stalled = None;
        for (subscriber, lane) in self.stalled.into_iter().zip(&self.lanes) {
            stalled = Some(subscriber.read_all(lane.sent())?);
        }
        Ok(ClientsReport { published, subscribers, stalled, acks })
    }
}

/// Starts a thread; if that fails, the run is given up.
pub(crate) fn spawn<T: Send + 'static>(
    name: String,
    state: &Arc<RunState>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, LoadError> {
    thread::Builder::new().name(name).spawn(body).map_err(|source| {
        state.give_up();
        LoadError::System { what: "cannot start a thread", source }
    })
}

/// Waits for a thread's end.
pub(crate) fn join<T>(
    thread: JoinHandle<Result<T, LoadError>>,
    what: &'static str,
) -> Result<T, LoadError> {
    thread.join().unwrap_or_else(|_| {
        Err(LoadError::System { what, source: std::io::Error::other("its thread panicked") })
    })
}

/// One message in how many is timed, each of which is delivered so often: a power of two.
fn timed_one_in(rate: Rate, copies: usize) -> u64 {
    match rate {
        Rate::Max => SAMPLE_ONE_IN,
        Rate::PerSecond(rate) => {
            rate.saturating_mul(copies as u64).div_ceil(TIMED_PER_S_MAX).max(1).next_power_of_two()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_messages_are_timed_up_to_a_million_deliveries_a_second() {
        for (rate, fan_out, wanted) in [
            (1, 1, 1),
            (1_000_000, 1, 1),
            (1_000_001, 1, 2),
            (20_000, 64, 2),
            (2_340_000, 1, 4),
            (8_000_000, 1, 8),
            (u64::MAX, 2, 1 << 45),
        ] {
            assert_eq!(timed_one_in(Rate::PerSecond(rate), fan_out), wanted, "{rate} to {fan_out}");
        }
        assert_eq!(timed_one_in(Rate::Max, 1), SAMPLE_ONE_IN);
    }
}
