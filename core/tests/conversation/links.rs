//! Conversations of nodes: links between desks, byte by byte, and what clients at their ends hear.

use nexusd_core::{
    ConnectionId, Door, Limits, LinkCommand, LinkDown, LinkRefusal, LinkReport, MeshConfig,
};
use nexusd_wire::control::OverflowPolicy;
use nexusd_wire::{ClusterKey, FrameEncoder, InterestChange, MessageFlags, NodeId, NodeStatePart};

use super::desk::{Desk, Heard};

const PLAIN: MessageFlags = MessageFlags(0);

/// Two nodes, and the connections between them.
pub(crate) struct Pair {
    pub(crate) desks: [Desk; 2],
    /// Both ends of each, by desk.
    pub(crate) wires: Vec<[ConnectionId; 2]>,
    /// They carry nothing.
    pub(crate) is_cut: bool,
    /// What the first one has sent so far.
    pub(crate) recorded: Vec<u8>,
}

pub(crate) fn id(desk: usize) -> NodeId {
    NodeId(0x1000 + desk as u128)
}

pub(crate) fn limits() -> Limits {
    Limits { memory_bytes: 16 << 20, ..Limits::default() }
}

pub(crate) fn mesh(key: Option<&str>) -> MeshConfig {
    let key = key.map(|secret| ClusterKey::new(secret.as_bytes()));
    MeshConfig {
        start_us: 7,
        mesh_port: 5671,
        app_port: 5672,
        key,
        is_on: true,
        ..MeshConfig::default()
    }
}

impl Pair {
    pub(crate) fn new(shards: usize) -> Self {
        Self::with_keys(shards, [None, None])
    }

    fn with_keys(shards: usize, keys: [Option<&str>; 2]) -> Self {
        let desk = |at: usize| Desk::of_node(id(at), mesh(keys[at]), limits(), shards);
        Self { desks: [desk(0), desk(1)], wires: Vec::new(), is_cut: false, recorded: Vec::new() }
    }

    /// Two nodes with a link, each knowing that the other wants nothing.
    pub(crate) fn linked(shards: usize) -> Self {
        let mut pair = Self::new(shards);
        pair.dial(0, true);
        pair.carry();
        for at in 0..2 {
            let reports = pair.desks[at].reports();
            assert!(matches!(reports[..], [LinkReport::Up { .. }]), "{reports:?}");
        }
        for at in 0..2 {
            pair.tell_interest(at, &[]);
            pair.desks[1 - at].reports();
        }
        pair
    }

    /// One node dials the other, knowing who that is or not. Returns the connection's number.
    pub(crate) fn dial(&mut self, from: usize, is_known: bool) -> usize {
        self.dial_node(from, id(1 - from), is_known)
    }

    /// The same, where the other one has an id of its own.
    pub(crate) fn dial_as(&mut self, from: usize, peer: NodeId) -> usize {
        self.dial_node(from, peer, true)
    }

    fn dial_node(&mut self, from: usize, peer: NodeId, is_known: bool) -> usize {
        let home = nexusd_core::home_of_node(peer, self.shards()).index();
        let door = Door::Dialled { dial: 1, peer: is_known.then_some(peer) };
        let dialled = self.desks[from].open_link(door, home);
        let accepted = self.desks[1 - from].open_link(Door::Mesh, 0);
        let wire = if from == 0 { [dialled, accepted] } else { [accepted, dialled] };
        self.wires.push(wire);
        self.wires.len() - 1
    }

    fn shards(&self) -> usize {
        self.desks[0].shards()
    }

    /// Carries what both ends of all connections send, until nothing is under way.
    pub(crate) fn carry(&mut self) {
        while !self.is_cut && self.carry_once() {}
    }

    fn carry_once(&mut self) -> bool {
        let mut is_busy = false;
        for at in 0..self.wires.len() {
            let wire = self.wires[at];
            for from in 0..2 {
                let bytes = self.desks[from].take(wire[from]);
                if from == 0 {
                    self.recorded.extend_from_slice(&bytes);
                }
                let to = &mut self.desks[1 - from];
                if !bytes.is_empty() && !to.is_closed(wire[1 - from]) {
                    is_busy = true;
                    to.say(wire[1 - from], &bytes);
                }
            }
            for from in 0..2 {
                let is_over = self.desks[from].is_closed(wire[from]);
                let other = &self.desks[1 - from];
                if is_over && !other.is_closed(wire[1 - from]) {
                    is_busy = true;
                    let last = self.desks[from].take(wire[from]);
                    self.desks[1 - from].say(wire[1 - from], &last);
                    let other = &mut self.desks[1 - from];
                    other.end(wire[1 - from]);
                }
            }
        }
        is_busy
    }

    /// Breaks a connection; what is on its way is lost.
    pub(crate) fn cut(&mut self, wire: usize) {
        for at in 0..2 {
            let end = self.wires[wire][at];
            self.desks[at].take(end);
            if !self.desks[at].is_closed(end) {
                self.desks[at].end(end);
            }
        }
    }

    /// A node tells the other all that it wants.
    pub(crate) fn tell_interest(&mut self, at: usize, filters: &[&str]) {
        let mut frames = Vec::new();
        let hash = filters.len() as u64;
        let part = NodeStatePart { hash, part: 0, is_last: true, filters, members: &[] };
        FrameEncoder::new().node_state(&mut frames, &part);
        self.send(at, frames);
    }

    fn send(&mut self, at: usize, frames: Vec<u8>) {
        self.desks[at].command(LinkCommand::Send { peer: id(1 - at), frames: frames.into() });
        self.carry();
    }

    pub(crate) fn pass(&mut self, us: u64) {
        let step = 100_000;
        for _ in 0..us / step {
            self.desks.iter_mut().for_each(|desk| desk.pass(step));
            self.carry();
        }
    }

    pub(crate) fn publish(&mut self, at: usize, publisher: ConnectionId, payload: &[u8]) {
        self.desks[at].publish(publisher, 0, payload, PLAIN);
        self.carry();
    }

    pub(crate) fn payloads(&mut self, at: usize, subscriber: ConnectionId) -> Vec<Vec<u8>> {
        let payload = |heard| match heard {
            Heard::Message { payload, .. } => Some(payload),
            _ => None,
        };
        self.desks[at].heard(subscriber).into_iter().filter_map(payload).collect()
    }
}

fn payloads(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(|number| number.to_le_bytes().to_vec()).collect()
}

fn is_gap(heard: &Heard) -> bool {
    matches!(heard, Heard::Gap { .. })
}

#[test]
fn a_message_goes_to_the_node_that_wants_it_and_says_where_it_is_from() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        let subscription = pair.desks[1].subscribe(subscriber, &["news/#"]);
        pair.tell_interest(1, &["news/#"]);
        pair.desks[0].bind(publisher, 0, "news/today");
        pair.desks[0].publish(publisher, 0, b"hello", MessageFlags::ACK);
        pair.carry();
        let acked = Heard::Ack { publisher_sequence: 1, sequence: 1, delivered: 1 };
        assert_eq!(pair.desks[0].heard(publisher), [acked], "a node counts as one");
        let heard = pair.desks[1].heard(subscriber);
        let [Heard::Bind { topic, name }, node, Heard::Deliver { subscription: whose }, message] =
            &heard[..]
        else {
            panic!("{heard:?}");
        };
        assert_eq!((name.as_str(), *whose), ("news/today", subscription));
        assert_eq!(*node, Heard::NodeBind { origin: 1, node: id(0) });
        let expected = Heard::Message { topic: *topic, sequence: 1, payload: b"hello".to_vec() };
        assert_eq!(*message, expected);
        assert_eq!(pair.desks[1].metrics().relayed, 1);
    }
}

#[test]
fn what_came_over_a_link_goes_over_none() {
    let mut pair = Pair::linked(1);
    let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
    pair.desks[1].subscribe(subscriber, &["a"]);
    // Both want it, so that the second could send it back.
    pair.tell_interest(1, &["a"]);
    pair.tell_interest(0, &["a"]);
    let own = pair.desks[0].greet();
    pair.desks[0].subscribe(own, &["a"]);
    pair.desks[0].bind(publisher, 0, "a");
    pair.publish(0, publisher, b"once");
    assert_eq!(pair.payloads(1, subscriber), [b"once"]);
    assert_eq!(pair.payloads(0, own), [b"once"]);
    assert_eq!(pair.desks[0].metrics().relayed, 0);
}

#[test]
fn a_delta_changes_what_a_node_gets_and_one_that_does_not_fit_asks_for_all() {
    let mut pair = Pair::linked(2);
    let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
    pair.desks[1].subscribe(subscriber, &["a"]);
    pair.desks[0].bind(publisher, 0, "a");
    pair.publish(0, publisher, b"early");
    let mut frames = Vec::new();
    let change = InterestChange { before: 0, hash: 5, added: &["a"], removed: &[] };
    FrameEncoder::new().interest_delta(&mut frames, &change);
    pair.desks[0].reports();
    pair.send(1, frames.clone());
    let stored = LinkReport::Stored { peer: id(1), hash: Some(5) };
    assert_eq!(pair.desks[0].reports(), [stored]);
    pair.publish(0, publisher, b"wanted");
    assert_eq!(pair.payloads(1, subscriber), [b"wanted"]);
    // The same once more starts from what is no longer so.
    pair.send(1, frames);
    let misfit = LinkReport::Stored { peer: id(1), hash: None };
    assert_eq!(pair.desks[0].reports(), [misfit]);
    pair.tell_interest(1, &[]);
    pair.publish(0, publisher, b"late");
    assert!(pair.payloads(1, subscriber).is_empty());
}

#[test]
fn a_link_that_breaks_goes_on_exactly_where_it_was() {
    for (shards, dialler) in [(1, 0), (1, 1), (3, 0), (3, 1)] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        let mut sent = 0;
        let mut publish = |pair: &mut Pair, count: u32| {
            for _ in 0..count {
                pair.publish(0, publisher, &u32::to_le_bytes(sent));
                sent += 1;
            }
        };
        publish(&mut pair, 5);
        // Some are on their way when it breaks, some come while there is none.
        pair.is_cut = true;
        publish(&mut pair, 5);
        pair.cut(0);
        publish(&mut pair, 5);
        pair.is_cut = false;
        let broken = LinkReport::Down { peer: id(1), reason: LinkDown::Broken };
        assert!(pair.desks[0].reports().contains(&broken));
        pair.dial(dialler, true);
        pair.carry();
        publish(&mut pair, 5);
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{heard:?}");
        let got: Vec<_> = heard
            .into_iter()
            .filter_map(|heard| match heard {
                Heard::Message { payload, .. } => Some(payload),
                _ => None,
            })
            .collect();
        assert_eq!(got, payloads(0..20), "{shards} shards, node {dialler} dials");
    }
}

#[test]
fn of_two_nodes_that_dial_each_other_one_connection_stays_and_nothing_is_lost_or_comes_twice() {
    for shards in [1, 2] {
        for order in 0..4 {
            let mut pair = Pair::new(shards);
            let first = order % 2;
            pair.dial(first, true);
            if order < 2 {
                // One was the link already, and carried something.
                pair.carry();
                pair.tell_interest(1, &["a"]);
            }
            let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
            pair.desks[1].subscribe(subscriber, &["a"]);
            pair.desks[0].bind(publisher, 0, "a");
            pair.publish(0, publisher, &0u32.to_le_bytes());
            pair.is_cut = true;
            pair.publish(0, publisher, &1u32.to_le_bytes());
            pair.dial(1 - first, true);
            pair.is_cut = false;
            pair.carry();
            pair.tell_interest(1, &["a"]);
            pair.publish(0, publisher, &2u32.to_le_bytes());
            let open = pair.wires.iter().filter(|wire| !pair.desks[0].is_closed(wire[0])).count();
            assert_eq!(open, 1, "order {order}");
            let first_is_kept = !pair.desks[0].is_closed(pair.wires[0][0]);
            assert_eq!(first_is_kept, first == 0, "the smaller node's dial stays");
            let got = pair.payloads(1, subscriber);
            let expected = if order < 2 { 0..3 } else { 2..3 };
            if order < 2 {
                assert_eq!(got, payloads(expected), "order {order}");
            } else {
                assert!(got.ends_with(&payloads(expected)), "order {order}: {got:?}");
            }
        }
    }
}

#[test]
fn a_connection_that_takes_over_before_anything_of_the_stream_was_heard_loses_nothing() {
    for shards in [1, 3] {
        let mut pair = Pair::new(shards);
        pair.dial(1, true);
        pair.carry();
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        // All of it is on its way when the other connection becomes the link.
        pair.is_cut = true;
        for number in 0..5u32 {
            pair.publish(0, publisher, &number.to_le_bytes());
        }
        let old = pair.wires[0][0];
        pair.desks[0].take(old);
        pair.is_cut = false;
        pair.dial(0, true);
        pair.carry();
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{heard:?}");
        let messages = heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
        assert_eq!(messages, 5, "{shards} shards");
    }
}

#[test]
fn a_node_that_stood_still_until_it_was_given_up_repeats_nothing_and_hands_over_what_it_had() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.publish(0, publisher, b"had");
        assert_eq!(pair.payloads(1, subscriber), [b"had"]);
        // The publisher's node stands still; what it took before is on its way nowhere.
        pair.is_cut = true;
        pair.desks[0].publish(publisher, 0, b"kept", PLAIN);
        pair.desks[0].take(pair.wires[0][0]);
        for _ in 0..60 {
            pair.desks[1].pass(100_000);
        }
        let is_silent = |report: &LinkReport| {
            matches!(report, LinkReport::Down { reason: LinkDown::Silent, .. })
        };
        assert!(pair.desks[1].reports().iter().any(is_silent));
        pair.desks[1].heard(subscriber);
        pair.cut(0);
        pair.is_cut = false;
        pair.dial(0, true);
        pair.carry();
        assert_eq!(pair.payloads(1, subscriber), [b"kept"], "{shards} shards");
    }
}

#[test]
fn a_peer_that_is_silent_is_suspected_then_dead_and_its_routes_go() {
    let mut pair = Pair::linked(2);
    let publisher = pair.desks[0].greet();
    pair.tell_interest(1, &["a"]);
    pair.desks[0].bind(publisher, 0, "a");
    pair.pass(3_000_000);
    pair.desks[0].reports();
    pair.is_cut = true;
    pair.pass(1_400_000);
    assert!(pair.desks[0].reports().is_empty(), "it may just be slow");
    pair.pass(500_000);
    assert_eq!(pair.desks[0].reports(), [LinkReport::Suspected { peer: id(1) }]);
    pair.is_cut = false;
    pair.pass(600_000);
    assert_eq!(pair.desks[0].reports(), [LinkReport::Trusted { peer: id(1) }]);
    pair.is_cut = true;
    pair.pass(5_700_000);
    let silent = LinkReport::Down { peer: id(1), reason: LinkDown::Silent };
    assert_eq!(pair.desks[0].reports(), [LinkReport::Suspected { peer: id(1) }, silent]);
    pair.desks[0].publish(publisher, 0, b"x", MessageFlags::ACK);
    let acked = Heard::Ack { publisher_sequence: 1, sequence: 1, delivered: 0 };
    assert_eq!(pair.desks[0].heard(publisher), [acked], "nobody is routed to");
}

#[test]
fn a_node_without_cpu_for_a_while_takes_nobody_for_dead() {
    let mut pair = Pair::linked(1);
    pair.pass(2_000_000);
    pair.desks[0].reports();
    for _ in 0..5 {
        // Both stand still; then one looks at its clock before anything arrives.
        pair.desks.iter_mut().for_each(|desk| desk.pass_unnoticed(4_000_000));
        pair.desks[0].rest();
        pair.pass(500_000);
    }
    assert!(pair.desks[0].reports().is_empty());
}

#[test]
fn a_link_that_does_not_come_back_makes_its_peer_dead_and_its_subscribers_are_told() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        let other = pair.desks[1].greet();
        pair.desks[1].subscribe(other, &["b"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.publish(0, publisher, b"x");
        pair.desks[1].heard(subscriber);
        pair.desks[1].heard(other);
        pair.cut(0);
        pair.desks[1].reports();
        pair.pass(5_500_000);
        assert_eq!(pair.desks[1].reports(), [LinkReport::Dead { peer: id(0) }]);
        let heard = pair.desks[1].heard(subscriber);
        let unknown = Heard::Gap { entries: Vec::new(), missed: u64::MAX };
        assert_eq!(heard, [unknown], "nobody knows how much was on its way");
        let heard_by_other = pair.desks[1].heard(other);
        assert!(matches!(heard_by_other[..], [Heard::Gap { missed: u64::MAX, .. }]), "nor of what");
    }
}

#[test]
fn the_first_messages_of_a_topic_that_die_with_their_node_are_told_to_all() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let publisher = pair.desks[0].greet();
        let filters = ["a", "b/c", "+/d", "#"];
        let subscribers = filters.map(|filter| {
            let subscriber = pair.desks[1].greet();
            pair.desks[1].subscribe(subscriber, &[filter]);
            subscriber
        });
        pair.tell_interest(1, &filters);
        pair.desks[0].bind(publisher, 0, "a");
        pair.is_cut = true;
        pair.publish(0, publisher, b"accepted, and never sent");
        pair.cut(0);
        pair.pass(5_500_000);
        for (subscriber, filter) in subscribers.into_iter().zip(filters) {
            let heard = pair.desks[1].heard(subscriber);
            assert!(
                matches!(heard[..], [Heard::Gap { missed: u64::MAX, .. }]),
                "{filter} on {shards} shards: {heard:?}"
            );
        }
    }
}

#[test]
fn a_node_that_never_stood_linked_loses_nothing_when_it_is_given_up() {
    let mut pair = Pair::new(1);
    let subscriber = pair.desks[1].greet();
    pair.desks[1].subscribe(subscriber, &["#"]);
    let wire = pair.dial(0, true);
    let [dialled, accepted] = pair.wires[wire];
    // All but the count with which the link begins.
    let hello = pair.desks[0].take(dialled);
    pair.desks[1].say(accepted, &hello);
    pair.cut(wire);
    pair.desks[1].command(LinkCommand::Forget { peer: id(0) });
    pair.pass(6_000_000);
    assert!(pair.desks[1].heard(subscriber).is_empty());
}

#[test]
fn what_is_under_way_from_a_node_that_was_started_anew_comes_first() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        let (own_publisher, own_filter) = (pair.desks[1].greet(), "b");
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.tell_interest(0, &[own_filter]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.is_cut = true;
        pair.publish(0, publisher, b"last");
        pair.desks[1].command(LinkCommand::Retire { peer: id(0) });
        // It is no more: nothing goes there.
        pair.desks[1].bind(own_publisher, 0, own_filter);
        pair.desks[1].publish(own_publisher, 0, b"late", MessageFlags::ACK);
        let acked = Heard::Ack { publisher_sequence: 1, sequence: 1, delivered: 0 };
        assert_eq!(pair.desks[1].heard(own_publisher), [acked]);
        pair.is_cut = false;
        pair.desks[0].drain();
        pair.carry();
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{shards} shards: {heard:?}");
        assert!(heard.iter().any(|heard| matches!(heard, Heard::Message { .. })), "{heard:?}");
        let ending = LinkReport::Down { peer: id(0), reason: LinkDown::Ending };
        assert!(pair.desks[1].reports().contains(&ending));
    }
}

#[test]
fn a_node_that_was_started_anew_and_says_nothing_is_given_up_soon() {
    for breaks in [false, true] {
        let mut pair = Pair::linked(1);
        let subscriber = pair.desks[1].greet();
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[1].command(LinkCommand::Retire { peer: id(0) });
        pair.is_cut = true;
        pair.desks[1].reports();
        if breaks {
            pair.cut(0);
            assert_eq!(pair.desks[1].reports(), [LinkReport::Dead { peer: id(0) }]);
        } else {
            pair.pass(3_500_000);
            let forgotten = LinkReport::Down { peer: id(0), reason: LinkDown::Forgotten };
            assert!(pair.desks[1].reports().contains(&forgotten));
        }
        let heard = pair.desks[1].heard(subscriber);
        assert!(matches!(heard[..], [Heard::Gap { missed: u64::MAX, .. }]), "{heard:?}");
    }
}

#[test]
fn two_nodes_that_gave_each_other_up_tell_it_once() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a", "b"]);
        pair.tell_interest(1, &["a", "b"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.cut(0);
        pair.publish(0, publisher, b"lost");
        pair.pass(5_500_000);
        let unknown = Heard::Gap { entries: Vec::new(), missed: u64::MAX };
        assert_eq!(pair.desks[1].heard(subscriber), [unknown]);
        pair.dial(0, true);
        pair.carry();
        pair.tell_interest(1, &["a", "b"]);
        pair.publish(0, publisher, b"behind");
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{shards} shards: {heard:?}");
        assert!(heard.iter().any(|heard| matches!(heard, Heard::Message { .. })), "{heard:?}");
    }
}

#[test]
fn a_node_that_was_given_up_without_its_knowledge_tells_its_subscribers_that_it_missed_something() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.publish(0, publisher, b"before");
        assert_eq!(pair.payloads(1, subscriber), [b"before"]);
        // One is dead for the other; it stood still, and only sees a connection that broke.
        pair.desks[0].command(LinkCommand::Forget { peer: id(1) });
        pair.desks[0].publish(publisher, 0, b"meanwhile", PLAIN);
        pair.cut(0);
        pair.dial(1, true);
        pair.carry();
        let heard = pair.desks[1].heard(subscriber);
        let unknown = Heard::Gap { entries: Vec::new(), missed: u64::MAX };
        assert_eq!(heard, [unknown], "{shards} shards");
        pair.tell_interest(1, &["a"]);
        pair.publish(0, publisher, b"behind");
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "it is told once: {heard:?}");
        assert!(
            matches!(heard.last(), Some(Heard::Message { payload, .. }) if payload == b"behind")
        );
    }
}

#[test]
fn what_is_lost_because_one_node_alone_gave_the_other_up_is_told() {
    for shards in [1, 3] {
        for breaks_before in [false, true] {
            let mut pair = Pair::linked(shards);
            let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
            pair.desks[1].subscribe(subscriber, &["a"]);
            pair.tell_interest(1, &["a"]);
            pair.desks[0].bind(publisher, 0, "a");
            pair.publish(0, publisher, b"first");
            if breaks_before {
                // The topic is bound on a connection that is no more, and not on the one that follows.
                pair.cut(0);
                pair.dial(0, true);
                pair.carry();
            }
            pair.desks[1].heard(subscriber);
            pair.is_cut = true;
            pair.publish(0, publisher, b"lost");
            pair.desks[0].command(LinkCommand::Forget { peer: id(1) });
            pair.publish(0, publisher, b"lost, too");
            pair.cut(pair.wires.len() - 1);
            pair.is_cut = false;
            pair.dial(1, true);
            pair.carry();
            pair.tell_interest(1, &["a"]);
            pair.publish(0, publisher, b"last");
            let heard = pair.desks[1].heard(subscriber);
            let gap =
                heard.iter().position(|heard| matches!(heard, Heard::Gap { missed: u64::MAX, .. }));
            let last = heard.iter().position(|heard| matches!(heard, Heard::Message { .. }));
            assert!(gap.is_some() && gap < last, "{shards} shards: {heard:?}");
        }
    }
}

#[test]
fn a_link_that_breaks_before_anything_has_come_over_it_loses_nothing() {
    for (shards, dialler) in [(1, 0), (1, 1), (3, 0), (3, 1)] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        for number in 0..3u32 {
            // The very first messages of the link, each time on their way when it breaks.
            pair.is_cut = true;
            pair.publish(0, publisher, &number.to_le_bytes());
            pair.cut(pair.wires.len() - 1);
            pair.is_cut = false;
            pair.dial(dialler, true);
            pair.is_cut = number < 2;
            pair.carry();
            if pair.is_cut {
                pair.cut(pair.wires.len() - 1);
                pair.is_cut = false;
                pair.dial(dialler, true);
            }
            pair.carry();
        }
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{heard:?}");
        let got = heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
        assert_eq!(got, 3, "{shards} shards, node {dialler} dials: {heard:?}");
    }
}

#[test]
fn a_count_that_another_connection_has_overtaken_does_not_count() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.publish(0, publisher, &0u32.to_le_bytes());
        pair.cut(0);
        // The other node dials, and what it says of its count is long on its way.
        pair.dial(1, true);
        let slow = pair.wires.pop().expect("it was dialled");
        let hello = pair.desks[1].take(slow[1]);
        pair.desks[0].say(slow[0], &hello);
        let welcome = pair.desks[0].take(slow[0]);
        pair.desks[1].say(slow[1], &welcome);
        let count = pair.desks[1].take(slow[1]);
        // Meanwhile another connection is the link for a moment.
        pair.dial(0, true);
        pair.carry();
        pair.publish(0, publisher, &1u32.to_le_bytes());
        pair.cut(pair.wires.len() - 1);
        pair.desks[0].stall(slow[0]);
        pair.desks[0].say(slow[0], &count);
        pair.dial(0, true);
        pair.carry();
        pair.publish(0, publisher, &2u32.to_le_bytes());
        assert_eq!(pair.payloads(1, subscriber), payloads(0..3), "{shards} shards");
    }
}

#[test]
fn what_a_link_loses_takes_numbers_and_is_told_at_its_place() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe_with(subscriber, &["a"], OverflowPolicy::DropOldest, 0);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.publish(0, publisher, b"first");
        let first = pair.payloads(1, subscriber);
        assert_eq!(first, [b"first"]);
        // More than the memory for it comes while nobody takes it.
        let link = pair.wires[0][0];
        pair.desks[0].stall(link);
        let large = vec![7; 20 << 10];
        for _ in 0..2_000 {
            pair.desks[0].publish(publisher, 0, &large, PLAIN);
        }
        pair.desks[0].go_on(link);
        pair.carry();
        let mut next = 2;
        let (mut lost, mut got) = (0, 0);
        for heard in pair.desks[1].heard(subscriber) {
            match heard {
                Heard::Gap { entries, missed } => {
                    let [(_, first, last)] = entries[..] else { panic!("{entries:?}") };
                    assert_eq!((first, last - first + 1), (next, missed));
                    next = last + 1;
                    lost += missed;
                }
                Heard::Message { sequence, .. } => {
                    assert_eq!(sequence, next);
                    next += 1;
                    got += 1;
                }
                _ => {}
            }
        }
        assert_eq!(lost + got, 2_000);
        assert!(lost > 0 && got > 0, "{lost} {got}");
        assert!(pair.desks[1].metrics().lost_on_links >= lost);
    }
}

#[test]
fn strangers_are_turned_away_and_both_ends_say_why() {
    let mut pair = Pair::with_keys(1, [Some("one secret"), Some("another")]);
    pair.dial(0, true);
    pair.carry();
    for at in 0..2 {
        let reports = pair.desks[at].reports();
        assert!(
            matches!(reports[..], [LinkReport::Refused { reason: LinkRefusal::WrongKey, .. }]),
            "an operator should look at the key: {reports:?}"
        );
    }
    let mut pair = Pair::with_keys(2, [Some("secret"), Some("secret")]);
    pair.dial(0, true);
    pair.carry();
    assert!(matches!(pair.desks[1].reports()[..], [LinkReport::Up { .. }]));
}

#[test]
fn a_node_that_dials_itself_learns_it() {
    let mut desk = Desk::of_node(id(0), mesh(None), limits(), 1);
    let ends =
        [Door::Dialled { dial: 4, peer: None }, Door::Mesh].map(|door| desk.open_link(door, 0));
    for _ in 0..4 {
        for (from, to) in [(0, 1), (1, 0)] {
            let bytes = desk.take(ends[from]);
            if !desk.is_closed(ends[to]) {
                desk.say(ends[to], &bytes);
            }
        }
    }
    let own = |dial| {
        move |report: &LinkReport| {
            matches!(report, LinkReport::Refused { dial: told, reason: LinkRefusal::OwnNode, .. }
            if *told == dial)
        }
    };
    let reports = desk.reports();
    assert!(reports.iter().any(own(Some(4))), "{reports:?}");
}

#[test]
fn a_seed_whose_link_another_shard_keeps_is_to_be_dialled_again_by_its_id() {
    let mut pair = Pair::new(3);
    let home = nexusd_core::home_of_node(id(1), 3).index();
    let elsewhere = (home + 1) % 3;
    let dialled = pair.desks[0].open_link(Door::Dialled { dial: 9, peer: None }, elsewhere);
    let accepted = pair.desks[1].open_link(Door::Mesh, 0);
    pair.wires.push([dialled, accepted]);
    pair.carry();
    let reports = pair.desks[0].reports();
    assert!(
        matches!(reports[..], [LinkReport::Refused { dial: Some(9), peer: Some(peer), reason: LinkRefusal::Unexpected, .. }] if peer == id(1)),
        "{reports:?}"
    );
    pair.dial(0, true);
    pair.carry();
    assert!(matches!(pair.desks[0].reports()[..], [LinkReport::Up { .. }]));
}

#[test]
fn a_node_that_stops_hands_over_what_is_queued_and_is_gone_at_once() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["a"]);
        pair.tell_interest(1, &["a"]);
        pair.desks[0].bind(publisher, 0, "a");
        pair.is_cut = true;
        for number in 0..50u32 {
            pair.desks[0].publish(publisher, 0, &number.to_le_bytes(), PLAIN);
        }
        pair.desks[0].drain();
        assert!(!pair.desks[0].is_finished(), "the peer has not had it yet");
        pair.is_cut = false;
        pair.carry();
        assert!(pair.desks[0].is_finished());
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "nothing was lost");
        let messages = heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
        assert_eq!(messages, 50);
        let ending = LinkReport::Down { peer: id(0), reason: LinkDown::Ending };
        let reports = pair.desks[1].reports();
        assert!(reports.contains(&ending), "{reports:?}");
    }
}

#[test]
fn a_node_that_stops_while_its_link_begins_says_so() {
    for shards in [1, 3] {
        let mut pair = Pair::new(shards);
        let subscriber = pair.desks[1].greet();
        pair.desks[1].subscribe(subscriber, &["a"]);
        let wire = pair.dial(0, true);
        let [dialled, accepted] = pair.wires[wire];
        // Its count is on its way, so that the link stands for the other one.
        let hello = pair.desks[0].take(dialled);
        pair.desks[1].say(accepted, &hello);
        let welcome = pair.desks[1].take(accepted);
        pair.desks[0].say(dialled, &welcome);
        pair.desks[0].drain();
        pair.carry();
        assert!(pair.desks[0].is_finished());
        let ending = LinkReport::Down { peer: id(0), reason: LinkDown::Ending };
        let reports = pair.desks[1].reports();
        assert!(reports.contains(&ending), "{shards} shards: {reports:?}");
        assert!(pair.desks[1].heard(subscriber).is_empty(), "nothing was lost");
    }
}

#[test]
fn a_link_that_breaks_while_its_node_stops_does_not_keep_it() {
    for shards in [1, 3] {
        for is_first in [false, true] {
            let mut pair = Pair::linked(shards);
            let publisher = pair.desks[0].greet();
            pair.tell_interest(1, &["a"]);
            pair.desks[0].bind(publisher, 0, "a");
            pair.is_cut = true;
            pair.publish(0, publisher, b"on its way");
            if is_first {
                // It is told of the end of one shard only.
                pair.desks[0].drain_shard(nexusd_core::home_of_node(id(1), shards).index());
                pair.cut(0);
            }
            pair.desks[0].drain();
            if !is_first {
                assert!(!pair.desks[0].is_finished(), "the peer has not had it yet");
                pair.cut(0);
            }
            assert!(pair.desks[0].is_finished(), "{shards} shards, {is_first}");
        }
    }
}

#[test]
fn an_idle_link_closes_by_agreement_and_another_one_takes_its_place() {
    let mut pair = Pair::linked(1);
    pair.desks[0].command(LinkCommand::CloseIdle { peer: id(1) });
    pair.carry();
    for (at, desk) in pair.desks.iter_mut().enumerate() {
        let idle = LinkReport::Down { peer: id(1 - at), reason: LinkDown::Idle };
        assert!(desk.reports().contains(&idle), "at node {at}");
    }
    pair.dial(1, true);
    pair.carry();
    assert!(matches!(pair.desks[0].reports()[..], [LinkReport::Up { .. }]));
}

#[test]
fn clients_and_nodes_have_a_port_each() {
    let mut desk = Desk::of_node(id(0), mesh(None), limits(), 1);
    let client = desk.open_link(Door::Mesh, 0);
    let hello = desk.bytes_of_hello();
    desk.say(client, &hello);
    desk.heard(client);
    assert!(desk.complaint(client).contains("--app-port"), "{}", desk.complaint(client));
    let mut pair = Pair::new(1);
    let dialled = pair.desks[0].open_link(Door::Dialled { dial: 1, peer: None }, 0);
    let hello = pair.desks[0].take(dialled);
    let node = desk.open();
    desk.say(node, &hello);
    desk.heard(node);
    assert!(desk.complaint(node).contains("--mesh-port"), "{}", desk.complaint(node));
}

#[test]
fn a_message_that_is_old_already_ends_when_its_time_has_come_whatever_the_clocks_say() {
    let mut pair = Pair::linked(1);
    let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
    pair.desks[1].subscribe(subscriber, &["a"]);
    pair.tell_interest(1, &["a"]);
    pair.desks[0].bind(publisher, 0, "a");
    // An hour between the clocks.
    pair.desks[1].set_clock(3_600_000_000);
    pair.desks[0].publish_for(publisher, 0, b"fresh", 1_000);
    pair.carry();
    assert_eq!(pair.payloads(1, subscriber), [b"fresh"]);
    // Half of its time is over when it is sent.
    let link = pair.wires[0][0];
    pair.desks[0].stall(link);
    pair.desks[0].publish_for(publisher, 0, b"old", 1_000);
    for desk in &mut pair.desks {
        desk.pass(500_000);
        desk.set_clock(500_000);
    }
    pair.desks[1].stall(subscriber);
    pair.desks[0].go_on(link);
    pair.carry();
    pair.desks[1].pass(600_000);
    pair.desks[1].go_on(subscriber);
    assert!(pair.payloads(1, subscriber).is_empty());
}
