//! Several daemons of one host as a mesh: they find each other, pass messages on, and notice who is gone.
//!
//! They meet on the loopback interface, on a port and in a cluster of each test's own. What takes a
//! network that can be broken stands in `tests/netns`.

use std::thread;
use std::time::{Duration, Instant};

use nexusd_tests::{Account, Client, Daemon, Heard, Mesh, Relay, Statistics, note, soon};
use nexusd_wire::NodeId;
use nexusd_wire::control::GapReason;

/// Within this a node that comes is linked, and one that is gone is given up.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What a log says of a node that has come.
const JOINED: &str = " joined";

fn id(daemon: &Daemon) -> NodeId {
    NodeId(u128::from_str_radix(daemon.told("node"), 16).expect("an id"))
}

/// A subscriber on one node and a publisher on another, between which messages go.
fn pair(to: &Daemon, from: &Daemon, filter: &str, probe: &str) -> (Client, Account, Client) {
    let (mut subscriber, mut publisher) = (to.client(), from.client());
    let subscription = subscriber.subscribe_to_all(&[filter]);
    publisher.publish_until_delivered(probe, 1);
    (subscriber, Account::new(subscription), publisher)
}

/// Takes what comes until a message has this payload.
fn hear_until(subscriber: &mut Client, account: &mut Account, payload: &[u8]) {
    loop {
        let heard = subscriber.next_delivery();
        account.take(&heard);
        if matches!(heard, Heard::Message(message) if message.payload == payload) {
            return;
        }
    }
}

#[test]
fn nodes_find_each_other_by_multicast_and_pass_messages_on_in_order() {
    let mesh = Mesh::new();
    let one = mesh.node();
    let begun = Instant::now();
    let other = mesh.node();
    one.wait_for_line(JOINED, 1);
    other.wait_for_line(JOINED, 1);
    note(&format!("found by multicast in {:?}, start included", begun.elapsed()));
    assert!(one.log().contains(&format!("node {} at {}", other.told("node"), other.mesh())));

    let (mut subscriber, mut account, mut publisher) = pair(&one, &other, "t/#", "t/probe");
    for number in 1..=5_000u64 {
        publisher.publish("t/numbers", &number.to_le_bytes());
        if number % 64 == 0 {
            publisher.flush();
        }
    }
    publisher.publish("t/numbers", b"end");
    publisher.catch_up();
    let mut next = 1u64;
    loop {
        let heard = subscriber.next_delivery();
        account.take(&heard);
        let Heard::Message(message) = heard else { panic!("{heard:?}") };
        assert_eq!(message.origin, Some(id(&other)), "who accepted it");
        if &*message.topic != "t/numbers" {
            continue;
        }
        assert_eq!(message.origin_sequence, next, "its number there");
        if message.payload == b"end" {
            break;
        }
        assert_eq!(message.payload, next.to_le_bytes());
        next += 1;
    }
    assert_eq!((next, account.missed()), (5_001, 0));
    one.end_well();
    other.end_well();
}

#[test]
fn one_seed_is_enough_to_find_all_others() {
    let mesh = Mesh::new();
    let seed = mesh.node_with_seeds(&[]);
    let others: Vec<Daemon> = (0..3).map(|_| mesh.node_with_seeds(&[seed.mesh()])).collect();
    let begun = Instant::now();
    for node in others.iter().chain([&seed]) {
        node.wait_for_line(JOINED, 3);
    }
    note(&format!("4 nodes were linked by one seed {:?} after the last started", begun.elapsed()));
    let mut subscribers: Vec<Client> = others[1..].iter().map(Daemon::client).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe(&["t"]);
    }
    let mut publisher = others[0].client();
    publisher.publish_until_delivered("t", 2);
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next_message().origin, Some(id(&others[0])), "straight from there");
    }
}

#[test]
fn an_acknowledgement_counts_the_subscriptions_of_this_node_and_each_interested_node_once() {
    let mesh = Mesh::new();
    let nodes = [mesh.node(), mesh.node(), mesh.node()];
    let mut here = nodes[0].client();
    let mut there = nodes[1].client();
    let mut elsewhere = nodes[2].client();
    let mut publisher = nodes[0].client();
    here.subscribe(&["t"]);
    here.subscribe(&["+"]);
    assert_eq!(publisher.publish_accepted("t", b"").delivered, 2);
    there.subscribe(&["t"]);
    there.subscribe(&["#"]);
    publisher.publish_until_delivered("t", 3);
    elsewhere.subscribe(&["other"]);
    publisher.publish_until_delivered("other", 3);
    assert_eq!(publisher.publish_accepted("t", b"").delivered, 3);
    elsewhere.subscribe(&["t"]);
    publisher.publish_until_delivered("t", 4);
}

#[test]
fn wildcards_reach_over_links_and_nothing_else_does() {
    let mesh = Mesh::new();
    let (one, other) = (mesh.node(), mesh.node());
    let (mut subscriber, mut account, mut publisher) = pair(&one, &other, "a/+/c", "a/probe/c");
    let wide = subscriber.subscribe(&["b/#"]);
    publisher.publish_until_delivered("b/probe", 1);
    for (topic, delivered) in [("a/b", 0), ("a/x/c", 1), ("a/x/c/d", 0), ("b", 1), ("b/x/y", 1)] {
        assert_eq!(publisher.publish_accepted(topic, topic.as_bytes()).delivered, delivered);
    }
    publisher.publish_accepted("a/end/c", b"end");
    let mut topics = Vec::new();
    while topics.len() < 4 {
        let message = subscriber.next_message();
        account.take(&Heard::Message(message.clone()));
        if message.payload != b"probe" {
            topics.push((message.subscription == wide, message.topic.to_string()));
        }
    }
    topics.sort();
    let named = |is_wide, topic: &str| (is_wide, topic.to_owned());
    let expected =
        [named(false, "a/end/c"), named(false, "a/x/c"), named(true, "b"), named(true, "b/x/y")];
    assert_eq!(topics, expected);
    one.end_well();
    other.end_well();
}

#[test]
fn a_topic_that_nobody_there_wants_any_more_is_no_longer_passed_on() {
    let mesh = Mesh::new();
    let (one, other) = (mesh.node(), mesh.node());
    let (mut subscriber, mut publisher) = (one.client(), other.client());
    let subscriptions = [subscriber.subscribe(&["t"]), subscriber.subscribe(&["t"])];
    publisher.publish_until_delivered("t", 1);
    subscriber.unsubscribe(subscriptions[0]);
    subscriber.subscribe(&["marker"]);
    publisher.publish_until_delivered("marker", 1);
    assert_eq!(publisher.publish_accepted("t", b"").delivered, 1, "somebody still wants it");
    subscriber.unsubscribe(subscriptions[1]);
    let took = publisher.publish_until_delivered("t", 0);
    note(&format!("not passed on any more {took:?} after it was given up"));
    // A client that goes away gives up what it wanted, too.
    let mut passing = one.client();
    passing.subscribe(&["t"]);
    publisher.publish_until_delivered("t", 1);
    passing.goodbye();
    passing.flush();
    passing.rest();
    publisher.publish_until_delivered("t", 0);
}

#[test]
fn a_node_that_ends_hands_over_what_is_queued_and_is_gone_at_once() {
    const MESSAGES: u64 = 20_000;
    let mesh = Mesh::new();
    let (stays, mut ends) = (mesh.node(), mesh.node());
    let (mut subscriber, mut account, mut publisher) = pair(&stays, &ends, "t/#", "t/probe");
    let mut statistics = Statistics::of(&stays);
    statistics.wait_for_mesh(&[("peers", 1), ("linked", 1), ("synced", 1), ("links_max", 4_096)]);
    statistics.wait_for(&[("links", 1)]);
    for number in 1..=MESSAGES {
        publisher.publish("t/load", &[number as u8; 500]);
        if number % 64 == 0 {
            publisher.flush();
        }
    }
    publisher.publish_asking("t/load", b"end");
    publisher.flush();
    // What it accepts from now on is what it says goodbye with.
    publisher.catch_up();
    let reader = thread::spawn(move || {
        hear_until(&mut subscriber, &mut account, b"end");
        account
    });
    ends.terminate();
    let took = stays.wait_for_line("left: it said goodbye", 1);
    let ended = ends.wait();
    note(&format!("gone for its peer {took:?} after SIGTERM, ended {:?} later", ended.took));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    assert!(!ended.log.contains("did not take everything"), "{}", ended.log);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let account = reader.join().expect("no panic");
    assert_eq!((account.newest("t/load"), account.gaps()), (MESSAGES + 1, 0));
    statistics.wait_for_mesh(&[("peers", 0), ("linked", 0)]);
    stays.end_well();
}

#[test]
fn a_node_that_is_killed_is_given_up_at_once_and_what_may_be_lost_is_told() {
    let mesh = Mesh::new();
    let (stays, mut killed) = (mesh.node(), mesh.node());
    let (mut subscriber, mut account, mut publisher) = pair(&stays, &killed, "t/#", "t/probe");
    let mut answers = killed.client();
    answers.subscribe(&["answers"]);
    let mut asker = stays.client();
    asker.publish_until_delivered("answers", 1);
    publisher.publish_accepted("t/x", b"last");
    hear_until(&mut subscriber, &mut account, b"last");

    let begun = Instant::now();
    killed.kill();
    stays.wait_for_line("left: nobody listens there any more", 1);
    note(&format!("given up {:?} after kill -9", begun.elapsed()));
    // On a busy machine the kernel takes a while to end what a killed process had in flight on its ring,
    // and with that its sockets. It is not their silence that is waited for.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(asker.publish_accepted("answers", b"").delivered, 0, "no way leads there");
    let Heard::Gap(loss) = subscriber.next_delivery() else { panic!("a Gap should come") };
    account.take(&Heard::Gap(loss.clone()));
    assert!(loss.is_unknown(), "{loss:?}");
    assert_eq!(loss.reason, GapReason::LinkLost, "{loss:?}");
    stays.end_well();
}

#[test]
fn a_node_that_is_started_again_in_its_place_is_linked_again_at_once() {
    let mesh = Mesh::new();
    let (stays, mut first) = (mesh.node(), mesh.node());
    let port = first.mesh().port();
    let (mut subscriber, mut account, publisher) = pair(&stays, &first, "t/#", "t/probe");
    drop(publisher);
    for (round, is_killed) in [(1, true), (2, false), (3, true)] {
        if is_killed {
            first.kill();
        } else {
            first.terminate();
            first.wait();
        }
        let begun = Instant::now();
        first = mesh.node_again(port);
        let ready = begun.elapsed();
        let mut publisher = first.client();
        let took = publisher.publish_until_delivered("t/again", 1);
        let how = if is_killed { "kill -9" } else { "SIGTERM" };
        note(&format!("after {how}: ready in {ready:?}, messages reach its peer {took:?} later"));
        assert!(took < AT_ONCE, "{took:?}");
        let end = format!("end {round}");
        publisher.publish("t/again", end.as_bytes());
        publisher.catch_up();
        hear_until(&mut subscriber, &mut account, end.as_bytes());
    }
    assert_eq!(account.missed(), 0);
    // Of a node that said goodbye nothing is lost.
    assert!(account.unknown_gaps() <= 2, "{account:?}");
    stays.end_well();
    first.end_well();
}

#[test]
fn a_node_of_another_cluster_or_without_the_key_is_refused_and_both_say_so() {
    let (mesh, other_mesh) = (Mesh::new(), Mesh::new());
    let keyed = |mesh: &Mesh, key: &str| mesh.node_with(&["--cluster-key", key]);
    let home = keyed(&mesh, "a key of this cluster");
    let seed = home.mesh().to_string();
    let flags = ["--discovery", "static", "--peers", &seed, "--cluster-key"];
    let with_key = |mesh: &Mesh, key| mesh.node_with(&[&flags[..], &[key]].concat());
    let stranger = with_key(&other_mesh, "a key of this cluster");
    stranger.wait_for_line("is of another cluster (--cluster)", 1);
    home.wait_for_line("is of another cluster (--cluster)", 1);
    let unsigned = with_key(&mesh, "a key of something else");
    unsigned.wait_for_line("and this one do not have the same key (--cluster-key)", 1);
    home.wait_for_line("and this one do not have the same key (--cluster-key)", 1);
    let keyless = mesh.node_with(&flags[..4]);
    keyless.wait_for_line("and this one do not have the same key (--cluster-key)", 1);
    let member = with_key(&mesh, "a key of this cluster");
    member.wait_for_line(JOINED, 1);
    for node in [&stranger, &unsigned, &keyless] {
        assert!(!node.log().contains(JOINED), "{}", node.log());
    }
    assert_eq!(home.log().matches(JOINED).count(), 1, "{}", home.log());
}

#[test]
fn messages_longer_than_a_node_takes_are_told_as_lost_there_and_what_follows_arrives() {
    let mesh = Mesh::new();
    let large = mesh.node_with(&["--max-payload", "8M", "--memory-limit", "256M"]);
    let small = mesh.node_with(&["--max-payload", "1M"]);
    let (mut subscriber, mut account, mut publisher) = pair(&small, &large, "t", "t");
    publisher.publish("t", b"before");
    for payload in [&vec![1; 6_000_000], &vec![2; (1 << 20) + 1]] {
        publisher.publish_accepted("t", payload);
    }
    publisher.publish("t", b"behind");
    publisher.catch_up();
    hear_until(&mut subscriber, &mut account, b"before");
    hear_until(&mut subscriber, &mut account, b"behind");
    assert_eq!((account.missed(), account.unknown_gaps()), (2, 0));
    small.wait_for_line(
        "sent a message of 6000000 bytes, more than this node takes (--max-payload)",
        1,
    );
    // It was the same link all the time, and nobody took another's bytes for a breach of the protocol.
    for node in [&large, &small] {
        assert_eq!(node.log().matches(JOINED).count(), 1, "{}", node.log());
        let document = Statistics::of(node).next_document();
        assert_eq!(document["metrics"]["protocol_errors"], 0, "{document}");
    }
    large.end_well();
    small.end_well();
}

#[test]
fn a_node_that_freezes_is_suspected_then_dead_and_comes_back_when_it_thaws() {
    let mesh = Mesh::new();
    let (stays, freezes) = (mesh.node(), mesh.node());
    let (mut here, mut account, mut there) = pair(&stays, &freezes, "from/frozen", "from/frozen");
    let (mut frozen, mut frozen_account, mut publisher) =
        pair(&freezes, &stays, "to/frozen", "to/frozen");
    there.publish_accepted("from/frozen", b"before");
    hear_until(&mut here, &mut account, b"before");
    publisher.publish_accepted("to/frozen", b"before");
    hear_until(&mut frozen, &mut frozen_account, b"before");

    let begun = Instant::now();
    freezes.freeze();
    stays.wait_for_line("is not heard; messages for it wait", 1);
    let suspected = begun.elapsed();
    // It waits for it until it is dead.
    assert_eq!(publisher.publish_accepted("to/frozen", b"meanwhile").delivered, 1);
    stays.wait_for_line("left: its link was silent for too long", 1);
    let dead = begun.elapsed();
    note(&format!("frozen: suspected after {suspected:?}, dead after {dead:?}"));
    assert!(suspected < Duration::from_secs(2), "{suspected:?}");
    assert!(dead > Duration::from_millis(4_200) && dead < Duration::from_millis(6_500), "{dead:?}");
    let none = soon("no way leads there", || {
        publisher.publish_accepted("to/frozen", b"nowhere").delivered == 0
    });
    assert!(none < AT_ONCE, "{none:?}");
    let Heard::Gap(loss) = here.next_delivery() else { panic!("a Gap should come") };
    assert!(loss.is_unknown() && loss.reason == GapReason::LinkLost, "{loss:?}");
    account.take(&Heard::Gap(loss));

    let thawed = Instant::now();
    freezes.thaw();
    let out = publisher.publish_until_delivered("to/frozen", 1);
    let back = there.publish_until_delivered("from/frozen", 1);
    note(&format!("thawed: reached after {out:?}, reaches others after {:?}", thawed.elapsed()));
    assert!(out < AT_ONCE && back < AT_ONCE, "{out:?}, {back:?}");
    // Both hear of a loss that nobody can count, and then go on.
    for (publisher, subscriber, account, topic) in [
        (&mut publisher, &mut frozen, &mut frozen_account, "to/frozen"),
        (&mut there, &mut here, &mut account, "from/frozen"),
    ] {
        publisher.publish_accepted(topic, b"after");
        hear_until(subscriber, account, b"after");
        assert!(account.unknown_gaps() >= 1, "{topic}: {account:?}");
        assert_eq!(account.missed(), 0, "{topic}: {account:?}");
    }
    stays.end_well();
    freezes.end_well();
}

#[test]
fn a_link_that_breaks_under_load_loses_nothing_and_repeats_nothing() {
    /// Messages before the link breaks, and behind that.
    const PART: u64 = 20_000;
    let mesh = Mesh::new();
    let one = mesh.node_with_seeds(&[]);
    // The first connection goes through it; who dials anew goes straight to the peer's own address.
    let relay = Relay::to(one.mesh());
    let other = mesh.node_with_seeds(&[relay.address()]);
    let (mut subscriber, mut account, mut publisher) = pair(&one, &other, "t/#", "t/probe");
    let reader = thread::spawn(move || {
        hear_until(&mut subscriber, &mut account, b"end");
        account
    });
    let mut number = 0u64;
    let mut publish = |publisher: &mut Client| {
        for _ in 0..PART / 100 {
            for _ in 0..100 {
                number += 1;
                publisher.publish("t/load", &[number as u8; 300]);
            }
            publisher.flush();
            thread::sleep(Duration::from_millis(1));
        }
    };
    publish(&mut publisher);
    let lost = thread::scope(|scope| {
        let breaks = scope.spawn(move || relay.break_after_losing(64 << 10));
        publish(&mut publisher);
        breaks.join().expect("no panic")
    });
    publish(&mut publisher);
    publisher.publish("t/load", b"end");
    publisher.catch_up();
    let account = reader.join().expect("no panic");
    note(&format!("the link lost {lost} bytes under way, and its streams went on"));
    assert_eq!(account.newest("t/load"), 3 * PART + 1);
    assert_eq!((account.gaps(), account.missed()), (0, 0));
    // It was the same link all the time.
    for node in [&one, &other] {
        assert_eq!(node.log().matches(JOINED).count(), 1, "{}", node.log());
        assert!(!node.log().contains(" left: "), "{}", node.log());
    }
    one.end_well();
    other.end_well();
}
