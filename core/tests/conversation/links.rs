//! Links between nodes: what goes over them, how they begin and how they end.

use nexusd_core::{Door, LinkCommand, LinkDown, LinkRefusal, LinkReport};
use nexusd_wire::{FrameEncoder, InterestChange, MessageFlags};

use super::desk::{Desk, Heard};
use super::pair::{PLAIN, Pair, id, is_gap, limits, mesh, payloads};

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
        let [node, Heard::Bind { topic, name }, Heard::Deliver { subscription: whose }, message] =
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
fn a_dial_that_another_connection_overtakes_is_over() {
    for shards in [1, 3] {
        let mut pair = Pair::new(shards);
        let own = pair.dial(1, true);
        let [accepted, dialled] = pair.wires[own];
        let hello = pair.desks[1].take(dialled);
        pair.desks[0].say(accepted, &hello);
        let welcome = pair.desks[0].take(accepted);
        pair.desks[1].say(dialled, &welcome);
        // Its count does not arrive any more.
        pair.desks[1].take(dialled);
        assert!(pair.desks[1].reports().is_empty());
        pair.dial(0, true);
        pair.carry();
        let reports = pair.desks[1].reports();
        let [
            LinkReport::Refused { dial: Some(1), reason: LinkRefusal::Superseded, .. },
            LinkReport::Up { dial: None, .. },
        ] = &reports[..]
        else {
            panic!("{shards} shards: {reports:?}");
        };
    }
}

#[test]
fn strangers_are_turned_away_and_both_ends_say_why() {
    for keys in [[Some("one secret"), Some("another")], [None, Some("a secret")]] {
        for from in 0..2 {
            let mut pair = Pair::with_keys(1, keys);
            pair.dial(from, true);
            pair.carry();
            for at in 0..2 {
                let reports = pair.desks[at].reports();
                assert!(
                    matches!(
                        reports[..],
                        [LinkReport::Refused { reason: LinkRefusal::WrongKey, .. }]
                    ),
                    "an operator should look at the key: {reports:?}"
                );
            }
        }
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
        let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
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
fn a_link_that_was_to_close_as_idle_stays_if_it_is_wanted_by_then() {
    for shards in [1, 3] {
        let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
        pair.is_cut = true;
        pair.publish(0, publisher, b"on its way");
        pair.desks[0].command(LinkCommand::CloseIdle { peer: id(1) });
        pair.is_cut = false;
        pair.carry();
        pair.publish(0, publisher, b"wanted");
        let expected = [&b"on its way"[..], b"wanted"];
        assert_eq!(pair.payloads(1, subscriber), expected, "{shards} shards");
    }
}

#[test]
fn nothing_is_told_as_lost_where_the_end_of_an_idle_link_was_not_heard() {
    for shards in [1, 3] {
        let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
        pair.publish(0, publisher, b"one");
        pair.tell_interest(1, &[]);
        pair.desks[0].command(LinkCommand::CloseIdle { peer: id(1) });
        let [ends, stays] = pair.wires[0];
        let idle = LinkReport::Down { peer: id(1), reason: LinkDown::Idle };
        for _ in 0..9 {
            if pair.desks[0].reports().contains(&idle) {
                break;
            }
            let said = pair.desks[0].take(ends);
            pair.desks[1].say(stays, &said);
            let answer = pair.desks[1].take(stays);
            pair.desks[0].say(ends, &answer);
        }
        pair.desks[0].take(ends);
        assert!(!pair.desks[1].is_closed(stays), "it knows nothing of it");
        pair.dial(0, true);
        pair.carry();
        pair.tell_interest(1, &["a"]);
        pair.publish(0, publisher, b"two");
        let heard = pair.desks[1].heard(subscriber);
        assert!(!heard.iter().any(is_gap), "{shards} shards: {heard:?}");
        assert!(
            heard
                .iter()
                .any(|it| matches!(it, Heard::Message { payload, .. } if payload == b"two"))
        );
    }
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
fn a_clock_that_is_set_while_a_message_waits_for_a_link_neither_ends_nor_prolongs_it() {
    for ahead_us in [0, 3_600_000_000, 3_600_000_000_u64.wrapping_neg()] {
        for shards in [1, 3] {
            let (mut pair, subscriber, publisher) = Pair::with_subscription(shards);
            let link = pair.wires[0][0];
            pair.desks[0].stall(link);
            pair.desks[0].publish_for(publisher, 0, b"soon over", 1_000);
            pair.desks[0].publish_for(publisher, 0, b"lives on", 60_000);
            pair.desks.iter_mut().for_each(|desk| desk.pass(900_000));
            pair.desks[0].set_clock(ahead_us);
            pair.desks[1].stall(subscriber);
            pair.desks[0].go_on(link);
            pair.carry();
            pair.desks[1].set_clock(ahead_us);
            pair.desks[1].pass(200_000);
            pair.desks[1].go_on(subscriber);
            assert_eq!(pair.payloads(1, subscriber), [b"lives on"], "{shards} shards, {ahead_us}");
        }
    }
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

#[test]
fn messages_of_topics_that_a_node_has_no_room_for_are_told_as_lost() {
    for shards in [1, 3] {
        let mut pair = Pair::with_topics(shards, 1);
        let (subscriber, publisher) = (pair.desks[1].greet(), pair.desks[0].greet());
        pair.desks[1].subscribe(subscriber, &["#"]);
        pair.tell_interest(1, &["#"]);
        let publish = |pair: &mut Pair| {
            for topic in 0..8u32 {
                pair.desks[0].publish(publisher, topic, b"x", PLAIN);
                pair.carry();
            }
            pair.pass(1_000_000);
            let heard = pair.desks[1].heard(subscriber);
            let messages = heard.iter().filter(|heard| matches!(heard, Heard::Message { .. }));
            (messages.count(), heard.iter().filter(|heard| is_gap(heard)).count())
        };
        for topic in 0..8u32 {
            pair.desks[0].bind(publisher, topic, &format!("t/{topic}"));
        }
        let (messages, gaps) = publish(&mut pair);
        assert!(
            messages <= shards && (1..=2 * shards).contains(&gaps),
            "{messages} and {gaps} gaps"
        );
        let (messages_later, gaps) = publish(&mut pair);
        assert_eq!(messages_later, messages, "the same topics have room");
        assert!((1..=2 * shards).contains(&gaps), "{gaps} gaps on {shards} shards");
    }
}
