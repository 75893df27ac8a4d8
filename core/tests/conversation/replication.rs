//! Retained values are the same on every node: set, cleared, brought to nodes that come later, and healed
//! after nodes could not hear each other.

use nexusd_core::LinkCommand;
use nexusd_wire::{MessageFlags, SubscribeRequest};

use super::desk::{Desk, Heard, SeatId};
use super::pair::{Pair, id, limits, mesh};

/// The values that a subscriber who comes now gets of a filter, by topic.
fn retained(desk: &mut Desk, filter: &str) -> Vec<(String, Vec<u8>)> {
    let subscriber = desk.greet();
    let request = SubscribeRequest {
        request: 1,
        filters: &[filter],
        receive_retained: true,
        ..SubscribeRequest::default()
    };
    desk.ask_to_subscribe(subscriber, &request);
    desk.rest();
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for heard in desk.heard(subscriber) {
        match heard {
            Heard::Bind { topic, name } => names.push((topic, name)),
            Heard::Message { topic, payload, .. } => {
                let name = names.iter().rfind(|(bound, _)| *bound == topic);
                values.push((name.expect("named before").1.clone(), payload));
            }
            _ => {}
        }
    }
    desk.end(subscriber);
    values.sort();
    values
}

struct Writer {
    connection: SeatId,
    topics: Vec<String>,
}

impl Writer {
    fn at(desk: &mut Desk) -> Self {
        Self { connection: desk.greet(), topics: Vec::new() }
    }

    fn set(&mut self, desk: &mut Desk, topic: &str, value: &[u8]) {
        let at = self.topics.iter().position(|known| known == topic).unwrap_or_else(|| {
            self.topics.push(topic.to_owned());
            let at = self.topics.len() - 1;
            desk.bind(self.connection, at as u32, topic);
            at
        });
        desk.publish(self.connection, at as u32, value, MessageFlags::RETAIN);
    }
}

fn rest(pair: &mut Pair) {
    for _ in 0..50 {
        pair.desks.iter_mut().for_each(Desk::rest);
        pair.carry();
    }
}

fn value(topic: &str, payload: &[u8]) -> (String, Vec<u8>) {
    (topic.to_owned(), payload.to_vec())
}

#[test]
fn a_value_is_on_every_node_though_nobody_there_subscribes_and_so_is_its_clearing() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        let mut writer = Writer::at(&mut pair.desks[0]);
        for number in 0..20 {
            writer.set(&mut pair.desks[0], &format!("state/{number}"), b"first");
        }
        writer.set(&mut pair.desks[0], "state/3", b"second");
        writer.set(&mut pair.desks[0], "state/4", b"");
        pair.carry();
        let values = retained(&mut pair.desks[1], "state/#");
        assert_eq!(values.len(), 19, "{shards} shards");
        assert_eq!(values, retained(&mut pair.desks[0], "state/#"));
        assert!(values.contains(&value("state/3", b"second")));
    }
}

#[test]
fn a_node_that_comes_later_gets_all_values_of_whichever_node_they_are() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        for at in 0..2 {
            let mut writer = Writer::at(&mut pair.desks[at]);
            for number in 0..200 {
                writer.set(&mut pair.desks[at], &format!("of/{at}/{number}"), &[at as u8; 100]);
            }
            // One that is received where it stays.
            writer.set(&mut pair.desks[at], &format!("of/{at}/large"), &[at as u8; 100_000]);
        }
        pair.carry();
        // The second node is gone; another one finds the first, and has the values of both.
        pair.cut(0);
        pair.pass(6_000_000);
        pair.desks[1] = Desk::of_node(id(2), mesh(None), limits(), shards);
        pair.wires.clear();
        pair.dial_as(0, id(2));
        rest(&mut pair);
        let values = retained(&mut pair.desks[1], "of/#");
        assert_eq!(values.len(), 402, "{shards} shards");
        assert_eq!(values, retained(&mut pair.desks[0], "of/#"));
        // Once more there is nothing to tell: both know them as the same.
        let relayed = pair.desks.iter().map(|desk| desk.metrics().relayed).sum::<u64>();
        pair.cut(0);
        pair.dial_as(0, id(2));
        rest(&mut pair);
        let again = pair.desks.iter().map(|desk| desk.metrics().relayed).sum::<u64>();
        assert_eq!(again, relayed, "{shards} shards");
    }
}

#[test]
fn nodes_that_could_not_hear_each_other_agree_again_on_the_newest_values() {
    for shards in [1, 2] {
        let mut pair = Pair::linked(shards);
        let (subscriber, mut writers) =
            (pair.desks[0].greet(), [0, 1].map(|at| Writer::at(&mut pair.desks[at])));
        for topic in ["both", "cleared", "kept", "brought back"] {
            writers[0].set(&mut pair.desks[0], topic, b"old");
        }
        pair.carry();
        pair.desks[0].subscribe(subscriber, &["#"]);
        pair.cut(0);
        pair.pass(6_000_000);
        pair.desks.iter_mut().for_each(|desk| desk.set_clock(6_000_000));
        writers[0].set(&mut pair.desks[0], "both", b"earlier");
        writers[0].set(&mut pair.desks[0], "brought back", b"");
        pair.desks.iter_mut().for_each(|desk| desk.set_clock(1_000));
        writers[1].set(&mut pair.desks[1], "both", b"later");
        writers[1].set(&mut pair.desks[1], "cleared", b"");
        writers[1].set(&mut pair.desks[1], "brought back", b"again");
        writers[1].set(&mut pair.desks[1], "new", b"there");
        pair.desks[0].heard(subscriber);
        pair.dial(0, true);
        rest(&mut pair);
        let expected =
            [("both", "later"), ("brought back", "again"), ("kept", "old"), ("new", "there")]
                .map(|(topic, payload)| value(topic, payload.as_bytes()));
        for desk in &mut pair.desks {
            assert_eq!(retained(desk, "#"), expected, "{shards} shards");
        }
        // Whoever is there hears what has changed, and that alone.
        let heard = pair.desks[0].heard(subscriber);
        let messages = heard.iter().filter(|heard| matches!(heard, Heard::Message { .. })).count();
        assert_eq!(messages, 4, "{heard:?}");
        // Once more there is nothing to tell.
        let relayed = pair.desks.iter().map(|desk| desk.metrics().relayed).sum::<u64>();
        pair.cut(1);
        pair.dial(1, true);
        rest(&mut pair);
        let again = pair.desks.iter().map(|desk| desk.metrics().relayed).sum::<u64>();
        assert_eq!(again, relayed);
    }
}

#[test]
fn a_value_from_a_clock_that_is_far_ahead_is_not_kept() {
    let mut pair = Pair::linked(1);
    let mut writer = Writer::at(&mut pair.desks[0]);
    pair.desks[0].set_clock(120_000_000);
    writer.set(&mut pair.desks[0], "a", b"from the future");
    pair.carry();
    assert!(retained(&mut pair.desks[1], "a").is_empty());
    assert_eq!(pair.desks[1].metrics().rejected, 1);
}

#[test]
fn the_newer_value_stays_however_late_the_older_one_comes() {
    let mut pair = Pair::linked(2);
    let mut writers = [0, 1].map(|at| Writer::at(&mut pair.desks[at]));
    pair.is_cut = true;
    writers[0].set(&mut pair.desks[0], "a", b"older");
    pair.desks[1].set_clock(1_000);
    writers[1].set(&mut pair.desks[1], "a", b"newer");
    pair.is_cut = false;
    pair.carry();
    for desk in &mut pair.desks {
        assert_eq!(retained(desk, "a"), [value("a", b"newer")]);
    }
}

#[test]
fn comparisons_that_cross_come_to_an_end() {
    for shards in [1, 3] {
        let mut pair = Pair::linked(shards);
        pair.is_cut = true;
        for _ in 0..3 {
            for at in 0..2 {
                pair.desks[at].command(LinkCommand::CompareRetained { peer: id(1 - at) });
            }
        }
        pair.is_cut = false;
        // It would carry them back and forth for ever.
        pair.carry();
    }
}

#[test]
fn what_a_node_that_has_just_started_retained_comes_once_and_in_order() {
    for shards in [1, 3] {
        let mut pair = Pair::with_fresh_node(shards, 0);
        let subscriber = pair.desks[1].greet();
        pair.desks[1].subscribe(subscriber, &["#"]);
        let mut writer = Writer::at(&mut pair.desks[0]);
        writer.set(&mut pair.desks[0], "a", b"first");
        writer.set(&mut pair.desks[0], "a", b"second");
        pair.dial(0, true);
        rest(&mut pair);
        // The link stands, and the other node has not told what it wants.
        writer.set(&mut pair.desks[0], "a", b"third");
        rest(&mut pair);
        pair.tell_interest(1, &["#"]);
        rest(&mut pair);
        let values = pair.payloads(1, subscriber);
        assert_eq!(values, [&b"first"[..], b"second", b"third"], "{shards} shards");
    }
}
