//! The standing workloads, and the runs each of them consists of.
//!
//! A workload is turned into cases: one case is one run with one size, rate, fan-out and transport,
//! and one line of the result. What the command line says overrides what the workload says.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::ValueEnum;

use crate::flood::Flooded;
use crate::policy::Policy;
use crate::quantity::Rate;
use crate::topic_tree::{PER_ROOM, ROOM_SUBSCRIBERS, TopicTree};
use crate::topic_walk::Order;

/// Messages undelivered at a time at an unlimited rate, unless told otherwise.
const WINDOW: u64 = 8_192;
/// Bytes that a default window may amount to: with large messages it is smaller.
const WINDOW_BYTES: u64 = 8 << 20;
/// Bytes that a default window may amount to over all subscribers: what the kernel can be asked to
/// hold in their sockets.
const WINDOW_BYTES_ALL: u64 = 256 << 20;
/// Bytes of a frame beside its payload, for sizing windows alike for all targets.
const FRAME_OVERHEAD: u64 = 48;
/// Latency workload: rates when none is given.
const LATENCY_RATES: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Sparse workload.
const SPARSE_RATE: u64 = 20_000;
const SPARSE_FAN_OUTS: [usize; 2] = [1, 64];
/// Quiet pair: its rate when none is given, and the floods beside it.
const QUIET_RATE: u64 = 1_000;
const FLOODS: [Option<Flooded>; 3] = [None, Some(Flooded::Reader), Some(Flooded::Nobody)];
/// Many-topics workload.
const TOPICS: [u32; 3] = [1, 1_000, 1_000_000];
const ORDERS: [Order; 3] = [Order::RoundRobin, Order::Random, Order::Zipf];
/// Idle clients.
const CLIENTS: usize = 10_000;
/// Nodes of the workloads that have several.
const PAIR_NODES: usize = 2;
const CROWD_NODES: usize = 3;
const CONVERGING_NODES: usize = 10;
/// Workload of many filters: rooms that have filters, and of them those that have messages. What ten
/// times the filters cost is seen between the first two, what ten times the topics cost between the
/// last two.
const ROOMS: [(u32, u32); 3] = [(2_500, 2_500), (25_000, 2_500), (25_000, 25_000)];

/// A standing workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Workload {
    /// One publisher to one subscriber, as fast as it goes.
    #[value(name = "T1")]
    T1,
    /// Eight publishers to eight subscribers over eight topics, as fast as it goes.
    #[value(name = "T2")]
    T2,
    /// One publisher to 16 subscribers.
    #[value(name = "F16")]
    F16,
    /// One publisher to 64 subscribers.
    #[value(name = "F64")]
    F64,
    /// One publisher to 1,000 subscribers.
    #[value(name = "F1000")]
    F1000,
    /// Sparse: 20 k messages/s, each sent alone, to 1 and to 64 subscribers, over TCP and unix
    /// socket.
    #[value(name = "P")]
    P,
    /// Latency at 10 k, 100 k and 1 M messages/s.
    #[value(name = "L")]
    L,
    /// 16 subscribers of which one stalls, beside the same run without it.
    #[value(name = "B")]
    B,
    /// A quiet pair: alone, beside a flood that is read, and beside one that nobody wants.
    #[value(name = "Q")]
    Q,
    /// One publisher over very many topics to one subscriber with a wildcard.
    #[value(name = "K")]
    K,
    /// One publisher over very many topics to 100 subscribers with very many filters.
    #[value(name = "W")]
    W,
    /// Very many idle clients, dropped all at once and connected again.
    #[value(name = "S")]
    S,
    /// A publisher at one node, a subscriber at another.
    #[value(name = "M1")]
    M1,
    /// A publisher and a subscriber to everything at each of three nodes.
    #[value(name = "M3")]
    M3,
    /// Many nodes that start at once, until each routes to each other one.
    #[value(name = "C")]
    C,
}

/// TCP or unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Transport {
    /// TCP on loopback.
    Tcp,
    /// The unix socket.
    Unix,
    /// One run over each.
    Both,
}

/// Who publishes to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Publishers, each with topics of its own.
    pub(crate) publishers: usize,
    /// Subscribers of each publisher that read.
    pub(crate) fan_out: usize,
    /// Subscribers of each publisher that do not read while the others are measured.
    pub(crate) stalled: usize,
    /// The topics of a publisher, and who gets which.
    pub(crate) tree: TopicTree,
    /// In which order a publisher goes over them.
    pub(crate) order: Order,
    /// At which nodes publishers and subscribers are.
    pub(crate) spread: Spread,
}

/// At which nodes publishers and subscribers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spread {
    /// All at one.
    Together,
    /// The one publisher at the first, and a subscriber at each other.
    Apart,
    /// At each a publisher, and a subscriber that wants what all of them publish.
    Everywhere,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What tells it apart from the workload's other runs, for people.
    pub(crate) label: String,
    /// Who publishes to whom.
    pub(crate) shape: Shape,
    /// Servers: one, or the nodes of a mesh.
    pub(crate) nodes: usize,
    /// A connection that floods the server meanwhile.
    pub(crate) flood: Option<Flooded>,
    /// Bytes of a payload.
    pub(crate) size: usize,
    /// Offered rate.
    pub(crate) rate: Rate,
    /// Most messages in one write; `None` is as many as fit.
    pub(crate) batch: Option<u64>,
    /// Messages undelivered at a time, over all publishers; only at an unlimited rate.
    pub(crate) window: u64,
    /// How the clients connect: never [`Transport::Both`].
    pub(crate) transport: Transport,
    /// An acknowledgement is wanted of one message of this many.
    pub(crate) ack_every: Option<NonZeroU64>,
    /// What subscribers ask to happen when their queues are full; `None` leaves it to the server.
    pub(crate) policy: Option<Policy>,
    /// Whether subscribers that read acknowledge what they had.
    pub(crate) counted: bool,
    /// How often the connection of each of them is broken, so that it comes back; only where they
    /// acknowledge.
    pub(crate) resume_every: Option<Duration>,
}

/// What the command line says instead of the workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// Payload sizes; empty is 128.
    pub(crate) sizes: Vec<usize>,
    /// Rate.
    pub(crate) rate: Option<Rate>,
    /// Most messages in one write.
    pub(crate) batch: Option<u64>,
    /// Window.
    pub(crate) window: Option<u64>,
    /// Transport.
    pub(crate) transport: Option<Transport>,
    /// Fan-outs of the sparse workload.
    pub(crate) fan_outs: Vec<usize>,
    /// Topics of the many-topics workload.
    pub(crate) topics: Vec<u32>,
    /// Filters of the workload of many filters, over the topics of the fewest rooms.
    pub(crate) filters: Vec<u32>,
    /// Orders in which they are gone over.
    pub(crate) orders: Vec<Order>,
    /// An acknowledgement is wanted of one message of this many.
    pub(crate) ack_every: Option<NonZeroU64>,
    /// Overflow policy of subscribers.
    pub(crate) policy: Option<Policy>,
    /// Whether subscribers acknowledge what they had.
    pub(crate) counted: bool,
    /// How often their connections are broken.
    pub(crate) resume_every: Option<Duration>,
    /// Idle clients.
    pub(crate) clients: Option<usize>,
    /// Nodes of the workloads that have several.
    pub(crate) nodes: Option<usize>,
}

impl Workload {
    /// The name as given on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::T1 => "T1",
            Self::T2 => "T2",
            Self::F16 => "F16",
            Self::F64 => "F64",
            Self::F1000 => "F1000",
            Self::P => "P",
            Self::L => "L",
            Self::B => "B",
            Self::Q => "Q",
            Self::K => "K",
            Self::W => "W",
            Self::S => "S",
            Self::M1 => "M1",
            Self::M3 => "M3",
            Self::C => "C",
        }
    }

    /// Whether it is about nodes that find each other.
    pub(crate) fn is_meshed(self) -> bool {
        matches!(self, Self::M1 | Self::M3 | Self::C)
    }

    fn nodes(self, overrides: &Overrides) -> usize {
        let default = match self {
            Self::M1 => PAIR_NODES,
            Self::M3 => CROWD_NODES,
            Self::C => CONVERGING_NODES,
            _ => return 1,
        };
        overrides.nodes.unwrap_or(default)
    }

    fn shapes(self, overrides: &Overrides) -> Vec<Shape> {
        let fan_out = |fan_out| Shape {
            publishers: 1,
            fan_out,
            stalled: 0,
            tree: TopicTree::Single,
            order: Order::RoundRobin,
            spread: Spread::Together,
        };
        let nodes = self.nodes(overrides);
        match self {
            Self::T1 | Self::L | Self::Q => vec![fan_out(1)],
            Self::T2 => vec![Shape { publishers: 8, ..fan_out(1) }],
            Self::F16 => vec![fan_out(16)],
            Self::F64 => vec![fan_out(64)],
            Self::F1000 => vec![fan_out(1_000)],
            Self::P if overrides.fan_outs.is_empty() => SPARSE_FAN_OUTS.map(fan_out).to_vec(),
            Self::P => overrides.fan_outs.iter().copied().map(fan_out).collect(),
            Self::B => vec![fan_out(15), Shape { stalled: 1, ..fan_out(15) }],
            Self::S => vec![fan_out(overrides.clients.unwrap_or(CLIENTS))],
            Self::M1 => vec![Shape { spread: Spread::Apart, ..fan_out(nodes - 1) }],
            Self::M3 | Self::C => {
                let spread = Spread::Everywhere;
                vec![Shape { publishers: nodes, spread, ..fan_out(nodes) }]
            }
            Self::K => {
                let shape =
                    |topics, order| Shape { tree: TopicTree::Wide { topics }, order, ..fan_out(1) };
                let orders = or(&overrides.orders, &ORDERS);
                let mut shapes = Vec::new();
                for topics in or(&overrides.topics, &TOPICS) {
                    // Over one topic there is one order.
                    let orders = if topics == 1 { &orders[..1] } else { &orders };
                    shapes.extend(orders.iter().map(|order| shape(topics, *order)));
                }
                shapes
            }
            Self::W => {
                let shape = |rooms, lively, order| Shape {
                    tree: TopicTree::Rooms { rooms, lively },
                    order,
                    ..fan_out(ROOM_SUBSCRIBERS)
                };
                let mut shapes = Vec::new();
                let few = ROOM_SUBSCRIBERS as u32;
                let given: Vec<_> =
                    overrides.filters.iter().map(|filters| (filters / PER_ROOM, few)).collect();
                let rooms = or(&given, &ROOMS);
                for order in or(&overrides.orders, &[Order::Random]) {
                    shapes
                        .extend(rooms.iter().map(|(rooms, lively)| shape(*rooms, *lively, order)));
                }
                shapes
            }
        }
    }

    fn rates(self, overrides: &Overrides) -> Vec<Rate> {
        match (overrides.rate, self) {
            (Some(rate), _) => vec![rate],
            (None, Self::L) => LATENCY_RATES.map(Rate::PerSecond).to_vec(),
            (None, Self::P) => vec![Rate::PerSecond(SPARSE_RATE)],
            (None, Self::Q) => vec![Rate::PerSecond(QUIET_RATE)],
            (None, _) => vec![Rate::Max],
        }
    }

    fn floods(self) -> &'static [Option<Flooded>] {
        match self {
            Self::Q => &FLOODS,
            _ => &[None],
        }
    }

    fn transports(self, overrides: &Overrides) -> Vec<Transport> {
        let default = match self {
            Self::P => Transport::Both,
            _ => Transport::Tcp,
        };
        match overrides.transport.unwrap_or(default) {
            Transport::Both => vec![Transport::Tcp, Transport::Unix],
            one => vec![one],
        }
    }

    /// The runs, in the order to do them. Of workload B the run without the stalled subscriber comes
    /// right before the one with it; of workload Q that without a flood comes first.
    pub(crate) fn cases(self, overrides: &Overrides) -> Vec<Case> {
        let sizes = match overrides.sizes.as_slice() {
            [] => vec![128],
            sizes => sizes.to_vec(),
        };
        let mut cases = Vec::new();
        for transport in self.transports(overrides) {
            for size in &sizes {
                for rate in self.rates(overrides) {
                    let floods = self.floods().iter().copied();
                    let shapes = self.shapes(overrides).into_iter();
                    for (shape, flood) in
                        shapes.flat_map(|shape| floods.clone().map(move |flood| (shape, flood)))
                    {
                        cases.push(Case {
                            label: self.label(shape, flood, transport),
                            shape,
                            nodes: self.nodes(overrides),
                            flood,
                            size: *size,
                            rate,
                            batch: overrides.batch.or((self == Self::P).then_some(1)),
                            window: overrides
                                .window
                                .unwrap_or_else(|| default_window(*size, shape)),
                            transport,
                            ack_every: overrides.ack_every,
                            policy: overrides.policy,
                            counted: overrides.counted,
                            resume_every: overrides.resume_every,
                        });
                    }
                }
            }
        }
        cases
    }

    fn label(self, shape: Shape, flood: Option<Flooded>, transport: Transport) -> String {
        let text = match self {
            Self::S => {
                format!("{} idle clients, {}", grouped(shape.fan_out), transport.name())
            }
            Self::C => format!("{} nodes, {}", shape.publishers, transport.name()),
            _ => label(shape, transport),
        };
        match flood {
            None => text,
            Some(Flooded::Reader) => text + ", beside a flood that is read",
            Some(Flooded::Nobody) => text + ", beside a flood nobody wants",
        }
    }
}

impl Shape {
    /// Subscribers that read.
    pub(crate) fn readers(&self) -> usize {
        match self.spread {
            Spread::Together | Spread::Apart => self.publishers * self.fan_out,
            Spread::Everywhere => self.fan_out,
        }
    }

    /// Filters of all subscribers that read.
    pub(crate) fn filters(&self) -> usize {
        match self.spread {
            Spread::Together | Spread::Apart => self.publishers * self.tree.filters(self.fan_out),
            Spread::Everywhere => self.fan_out,
        }
    }

    /// Deliveries of each message to subscribers that read.
    pub(crate) fn copies(&self) -> usize {
        self.tree.copies(self.fan_out)
    }
}

impl Transport {
    /// `tcp` or `unix`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp | Self::Both => "tcp",
        }
    }
}

fn label(shape: Shape, transport: Transport) -> String {
    let publishers = shape.publishers;
    let subscribers = shape.readers();
    let transport = transport.name();
    let stalled = match shape.stalled {
        0 => String::new(),
        stalled => format!(" + {stalled} stalled"),
    };
    let topics = match shape.tree {
        TopicTree::Single => String::new(),
        TopicTree::Wide { topics: 1 } => ", 1 topic".to_owned(),
        TopicTree::Wide { topics } => {
            format!(", {} topics {}", grouped(topics as usize), shape.order.name())
        }
        tree @ TopicTree::Rooms { .. } => format!(
            ", {} filters, {} topics {}",
            grouped(tree.filters(shape.fan_out)),
            grouped(tree.topics() as usize),
            shape.order.name()
        ),
    };
    let nodes = match shape.spread {
        Spread::Together => String::new(),
        Spread::Apart => format!(", {} nodes", subscribers + 1),
        Spread::Everywhere => format!(", each to all, {subscribers} nodes"),
    };
    format!("{publishers} → {subscribers}{stalled}{topics}{nodes}, {transport}")
}

/// What the command line gives, or else what the workload does.
fn or<T: Clone>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() { default.to_vec() } else { given.to_vec() }
}

/// `1000000` → `1,000,000`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same for every target: it follows from size and fan-out alone.
fn default_window(size: usize, shape: Shape) -> u64 {
    let frame = size as u64 + FRAME_OVERHEAD;
    WINDOW
        .min(WINDOW_BYTES / frame)
        .min(WINDOW_BYTES_ALL / frame / shape.copies() as u64)
        .max(2 * shape.publishers as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_runs_at_three_rates_unless_one_is_given() {
        let cases = Workload::L.cases(&Overrides::default());
        let rates: Vec<Rate> = cases.iter().map(|case| case.rate).collect();
        assert_eq!(rates, LATENCY_RATES.map(Rate::PerSecond));
        let one = Overrides { rate: Some(Rate::PerSecond(5)), ..Overrides::default() };
        assert_eq!(Workload::L.cases(&one).len(), 1);
    }

    #[test]
    fn sparse_sends_every_message_alone_over_both_transports() {
        let cases = Workload::P.cases(&Overrides::default());
        let runs: Vec<_> =
            cases.iter().map(|case| (case.transport, case.shape.fan_out, case.batch)).collect();
        let expected = [
            (Transport::Tcp, 1, Some(1)),
            (Transport::Tcp, 64, Some(1)),
            (Transport::Unix, 1, Some(1)),
            (Transport::Unix, 64, Some(1)),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn a_stalled_subscriber_is_measured_right_behind_the_run_without_it() {
        let cases = Workload::B.cases(&Overrides::default());
        let stalled: Vec<usize> = cases.iter().map(|case| case.shape.stalled).collect();
        assert_eq!(stalled, [0, 1]);
        assert_eq!(cases[0].shape.fan_out, cases[1].shape.fan_out);
    }

    #[test]
    fn a_quiet_pair_is_measured_alone_and_beside_both_floods() {
        let cases = Workload::Q.cases(&Overrides::default());
        let floods: Vec<_> = cases.iter().map(|case| case.flood).collect();
        assert_eq!(floods, [None, Some(Flooded::Reader), Some(Flooded::Nobody)]);
        assert!(cases.iter().all(|case| case.rate == Rate::PerSecond(1_000)));
        assert_eq!(cases[1].label, "1 → 1, tcp, beside a flood that is read");
    }

    #[test]
    fn many_topics_are_gone_over_in_three_orders_and_one_topic_in_one() {
        let labels = |overrides: &Overrides| -> Vec<String> {
            Workload::K.cases(overrides).into_iter().map(|case| case.label).collect()
        };
        let all = labels(&Overrides::default());
        assert_eq!(all.len(), 7);
        assert_eq!(all[0], "1 → 1, 1 topic, tcp");
        assert_eq!(all[6], "1 → 1, 1,000,000 topics zipf, tcp");
        let some = Overrides {
            topics: vec![1, 50_000],
            orders: vec![Order::Random],
            ..Overrides::default()
        };
        assert_eq!(labels(&some), ["1 → 1, 1 topic, tcp", "1 → 1, 50,000 topics random, tcp"]);
    }

    #[test]
    fn ten_times_the_filters_are_measured_with_the_same_topics_and_with_ten_times_as_many() {
        let cases = Workload::W.cases(&Overrides::default());
        let sizes: Vec<_> = cases
            .iter()
            .map(|case| (case.shape.tree.filters(100), case.shape.tree.topics()))
            .collect();
        assert_eq!(sizes, [(10_000, 10_000), (100_000, 10_000), (100_000, 100_000)]);
        assert!(cases.iter().all(|case| case.shape.copies() == 2 && case.window == 8_192));
    }

    #[test]
    fn a_number_of_filters_lies_over_the_fewest_topics() {
        let some = Overrides { filters: vec![400, 40_000], ..Overrides::default() };
        let cases = Workload::W.cases(&some);
        let sizes: Vec<_> = cases
            .iter()
            .map(|case| (case.shape.tree.filters(100), case.shape.tree.topics()))
            .collect();
        assert_eq!(sizes, [(400, 400), (40_000, 400)]);
    }

    #[test]
    fn a_mesh_has_its_publisher_and_subscribers_at_different_nodes() {
        let case = &Workload::M1.cases(&Overrides::default())[0];
        assert_eq!((case.nodes, case.label.as_str()), (2, "1 → 1, 2 nodes, tcp"));
        let five = Overrides { nodes: Some(5), ..Overrides::default() };
        let case = &Workload::M1.cases(&five)[0];
        assert_eq!((case.nodes, case.shape.readers(), case.shape.copies()), (5, 4, 4));
        let case = &Workload::M3.cases(&Overrides::default())[0];
        assert_eq!((case.nodes, case.label.as_str()), (3, "3 → 3, each to all, 3 nodes, tcp"));
        // Each message comes to each of the three; nine topics would be another workload.
        assert_eq!((case.shape.copies(), case.shape.filters()), (3, 3));
        let case = &Workload::C.cases(&Overrides::default())[0];
        assert_eq!((case.nodes, case.label.as_str()), (10, "10 nodes, tcp"));
        assert_eq!(Workload::T1.cases(&five)[0].nodes, 1);
    }

    #[test]
    fn the_default_window_is_8192_and_smaller_only_for_large_messages_or_many_subscribers() {
        let window = |workload: Workload, size| {
            let sizes = Overrides { sizes: vec![size], ..Overrides::default() };
            workload.cases(&sizes)[0].window
        };
        assert_eq!(window(Workload::T1, 128), 8_192);
        assert_eq!(window(Workload::F64, 128), 8_192);
        assert_eq!(window(Workload::T1, 16_384), 510);
        assert_eq!(window(Workload::F1000, 128), 1_525);
        assert_eq!(window(Workload::T1, 4 << 20), 2);
    }
}
