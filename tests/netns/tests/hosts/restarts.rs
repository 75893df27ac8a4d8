//! A mesh whose nodes are restarted one after the other, as for an upgrade, while applications go on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nexusd_netns::{Network, on_a_network};
use nexusd_tests::{Address, Client, Daemon, Heard, Listened, Release, TurnOff, eventually};
use nexusd_wire::{NodeId, Position, Sequence, SubscribeRequest};

use crate::{all_linked, measured, reaches};

const NODES: usize = 5;
/// Time between two portions of a publisher.
const PACE: Duration = Duration::from_millis(3);
/// How long messages flow between two restarts.
const BETWEEN: Duration = Duration::from_millis(300);
/// The nodes keep what is published to a topic while one of them is restarted.
const WINDOW: [&str; 2] = ["--message-buffer-size", "20000"];
const PATIENCE: Duration = Duration::from_millis(50);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(20);

/// Messages that a publisher has under way at a time: `TESTS_NEXUSD_PORTION`, for more load than suits every
/// machine.
fn portion() -> u64 {
    std::env::var("TESTS_NEXUSD_PORTION").map_or(20, |it| it.parse().expect("a number"))
}

/// A message that a daemon has accepted.
struct Accepted {
    number: u64,
    /// Which connection it was published on; the first one ends with the first restart of its node.
    life: u32,
    /// To how many subscriptions and nodes it went; of those that Goodbye alone told of, nobody knows.
    delivered: Option<u32>,
}

/// What a subscriber has had of each publisher.
#[derive(Default)]
struct Received {
    numbers: HashMap<u64, HashSet<u64>>,
    newest: HashMap<u64, u64>,
    gaps: u64,
    /// How far it came, by topic and the node that accepted it: what it tells a daemon that it comes back to.
    positions: BTreeMap<(Arc<str>, NodeId), u64>,
    /// Daemons that said that nothing follows.
    ended: Vec<NodeId>,
}

/// A client of the daemon at this address, if there is one that stays, and that one's id.
fn try_meet(address: &Address) -> Option<(Client, NodeId)> {
    let mut client = Client::over(address.connect(None).ok()?);
    client.hello();
    client.try_flush().ok()?;
    match client.listen(ANSWER) {
        Listened::Heard(Heard::Welcome { node, .. }) => Some((client, node)),
        _ => None,
    }
}

/// Publishes until it is over, on as many connections as that takes.
fn publish(address: &Address, publisher: u64, is_going_on: &AtomicBool) -> Vec<Accepted> {
    let topic = format!("load/{publisher}");
    let (mut accepted, mut number, mut life) = (Vec::new(), 0, 0);
    while is_going_on.load(Ordering::Relaxed) {
        let Some((mut client, _)) = try_meet(address) else {
            thread::sleep(PACE);
            continue;
        };
        life += 1;
        while is_going_on.load(Ordering::Relaxed)
            && publish_portion(&mut client, &topic, publisher, (&mut number, life), &mut accepted)
        {
            thread::sleep(PACE);
        }
    }
    accepted
}

/// Publishes some messages and waits for what becomes of them; returns whether the daemon is still there.
fn publish_portion(
    client: &mut Client,
    topic: &str,
    publisher: u64,
    (number, life): (&mut u64, u32),
    accepted: &mut Vec<Accepted>,
) -> bool {
    // The daemon's name for each.
    let mut open = HashMap::new();
    for _ in 0..portion() {
        *number += 1;
        let payload = [publisher.to_le_bytes(), number.to_le_bytes()].concat();
        open.insert(client.publish_asking(topic, &payload), *number);
    }
    // The daemon may be gone; what it said before is there to be heard.
    let _ = client.try_flush();
    while !open.is_empty() {
        match client.listen(ANSWER) {
            Listened::Heard(Heard::PublishAck(entries)) => {
                for entry in entries.iter().filter(|entry| entry.sequence > 0) {
                    let number = open.remove(&entry.publisher_sequence).expect("an open one");
                    let delivered = Some(entry.delivered);
                    accepted.push(Accepted { number, life, delivered });
                }
            }
            Listened::Heard(Heard::Goodbye { last_accepted, .. }) => {
                let told = open.iter().filter(|(sequence, _)| **sequence <= last_accepted);
                for (_, &number) in told {
                    accepted.push(Accepted { number, life, delivered: None });
                }
                return false;
            }
            Listened::Heard(Heard::Error(complaint)) => panic!("{complaint:?}"),
            Listened::Heard(_) => {}
            Listened::End => panic!("an end without Goodbye"),
            Listened::Silence => panic!("no answer to {} messages of {topic}", open.len()),
        }
    }
    true
}

/// Takes what comes until it is over, on as many connections as that takes.
fn subscribe(address: &Address, received: &Mutex<Received>, is_going_on: &AtomicBool) {
    while is_going_on.load(Ordering::Relaxed) {
        let Some((mut client, node)) = try_meet(address) else {
            thread::sleep(PACE);
            continue;
        };
        let (known, gone): (Vec<_>, _) = {
            let received = received.lock().expect("no panic");
            let known = received.positions.iter().map(|(key, last)| (key.clone(), *last));
            (known.collect(), received.ended.clone())
        };
        let positions: Vec<_> = known
            .iter()
            .map(|((topic, origin), last)| Position {
                topic,
                sequence: Sequence(*last),
                origin: Some(*origin),
            })
            .collect();
        client.ask_to_subscribe(&SubscribeRequest {
            filters: &["load/#"],
            positions: &positions,
            ended: &gone,
            queue_messages: Some(0),
            queue_bytes: Some(64 << 20),
            ..SubscribeRequest::default()
        });
        if client.try_flush().is_err() {
            continue;
        }
        while is_going_on.load(Ordering::Relaxed) {
            match client.listen(PATIENCE) {
                Listened::Heard(Heard::Message(message)) => {
                    let Some(&[publisher, number]) = numbers(&message.payload).as_deref() else {
                        continue;
                    };
                    let mut received = received.lock().expect("no panic");
                    let origin = message.origin.unwrap_or(node);
                    let topic = message.topic;
                    received.positions.insert((topic, origin), message.origin_sequence);
                    let newest = received.newest.insert(publisher, number).unwrap_or(0);
                    assert!(
                        number > newest,
                        "{number} of publisher {publisher}, {:?} by way of {node}, comes behind {newest}; \
                         had before: {known:?}",
                        (message.mode, origin, message.origin_sequence)
                    );
                    received.numbers.entry(publisher).or_default().insert(number);
                }
                Listened::Heard(Heard::Goodbye { is_complete: true, .. }) => {
                    received.lock().expect("no panic").ended.push(node);
                }
                Listened::Heard(Heard::Gap(_)) => received.lock().expect("no panic").gaps += 1,
                Listened::Heard(_) | Listened::Silence => {}
                Listened::End => break,
            }
        }
    }
}

/// The two numbers in a payload, if it is not a probe's.
fn numbers(payload: &[u8]) -> Option<Vec<u64>> {
    let (halves, []) = payload.as_chunks::<8>() else { return None };
    Some(halves.iter().map(|half| u64::from_le_bytes(*half)).collect())
}

#[test]
fn a_rolling_restart_under_load_loses_nothing_that_was_acknowledged_and_repeats_nothing() {
    on_a_network(NODES as u8, |network| restart_each(&network, Release::This));
}

#[test]
fn a_rolling_upgrade_to_a_later_protocol_loses_nothing_either() {
    on_a_network(NODES as u8, |network| restart_each(&network, Release::Next));
}

/// Restarts all nodes one after the other, each as one of the later release, and accounts for all messages.
fn restart_each(network: &Network, later: Release) {
    let mut nodes: Vec<Daemon> = network.hosts().iter().map(|host| host.node(&WINDOW)).collect();
    all_linked(&nodes);
    let addresses: Vec<Address> = nodes.iter().map(Daemon::unix).collect();
    let received: Vec<Mutex<Received>> = (0..NODES).map(|_| Mutex::default()).collect();
    let [is_publishing, is_listening] = [AtomicBool::new(true), AtomicBool::new(true)];
    let (mut longest, mut took) = (Duration::ZERO, Duration::ZERO);
    let accepted = thread::scope(|scope| {
        let _stop = [TurnOff(&is_publishing), TurnOff(&is_listening)];
        for (address, received) in addresses.iter().zip(&received) {
            let is_listening = &is_listening;
            scope.spawn(move || subscribe(address, received, is_listening));
        }
        for node in &nodes {
            reaches(node, "load/probe", NODES as u32);
        }
        let publishers: Vec<_> = (0..NODES)
            .map(|at| {
                let (address, is_going_on) = (&addresses[at], &is_publishing);
                scope.spawn(move || publish(address, at as u64, is_going_on))
            })
            .collect();
        eventually("everybody has had something of everybody", || {
            received.iter().all(|it| it.lock().expect("no panic").newest.len() == NODES)
        });
        let begun = Instant::now();
        for (at, host) in network.hosts().iter().enumerate() {
            let begun = Instant::now();
            nodes[at].terminate();
            let ended = nodes[at].wait();
            assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
            assert!(!ended.log.contains("did not take everything"), "{}", ended.log);
            nodes[at] = host.node_of(later, &WINDOW);
            for node in &nodes {
                reaches(node, "load/probe", NODES as u32);
            }
            longest = longest.max(begun.elapsed());
            // The next one goes when everything flows again, and has for a while.
            let before = total(&received);
            let flows = Instant::now();
            eventually("messages flow", || {
                total(&received) > before + 5_000 && flows.elapsed() > BETWEEN
            });
        }
        is_publishing.store(false, Ordering::Relaxed);
        took = begun.elapsed();
        let accepted: Vec<_> =
            publishers.into_iter().map(|it| it.join().expect("no panic")).collect();
        for (publisher, accepted) in accepted.iter().enumerate() {
            let last = accepted.iter().map(|it| it.number).max().expect("it published");
            for (at, received) in received.iter().enumerate() {
                eventually(&format!("{at} has had all of {publisher}"), || {
                    received.lock().expect("no panic").newest.get(&(publisher as u64))
                        == Some(&last)
                });
            }
        }
        is_listening.store(false, Ordering::Relaxed);
        accepted
    });
    let published: usize = accepted.iter().map(Vec::len).sum();
    measured(&format!(
        "{published} messages were acknowledged meanwhile, {:.0} a second; {longest:?} at most from SIGTERM \
         until everybody reached everybody again",
        published as f64 / took.as_secs_f64()
    ));
    for (publisher, accepted) in accepted.iter().enumerate() {
        for (subscriber, received) in received.iter().enumerate() {
            let received = received.lock().expect("no panic");
            account(publisher, accepted, subscriber, &received);
        }
    }
}

fn total(received: &[Mutex<Received>]) -> usize {
    let of_one = |received: &Mutex<Received>| -> usize {
        received.lock().expect("no panic").numbers.values().map(HashSet::len).sum()
    };
    received.iter().map(of_one).sum()
}

/// Checks that a subscriber has had all that a publisher was promised, and nothing else.
fn account(publisher: usize, accepted: &[Accepted], subscriber: usize, received: &Received) {
    // Of nodes that ended before its own one nobody tells the next that they ended well: that is told once.
    assert!(received.gaps <= 1, "subscriber {subscriber} was told of {} losses", received.gaps);
    let had = &received.numbers[&(publisher as u64)];
    let missing: Vec<_> = accepted
        .iter()
        .filter(|it| !had.contains(&it.number))
        .map(|it| (it.number, it.life, it.delivered))
        .collect();
    assert!(
        missing.is_empty(),
        "{subscriber} has not had {} messages of {publisher}, such as {:?}",
        missing.len(),
        &missing[..missing.len().min(5)]
    );
    let accepted: HashSet<u64> = accepted.iter().map(|it| it.number).collect();
    let refused: Vec<_> = had.difference(&accepted).collect();
    assert!(
        refused.is_empty(),
        "{subscriber} has had what {publisher} may publish anew: {refused:?}"
    );
}
