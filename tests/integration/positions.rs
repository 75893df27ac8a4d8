//! Clients that subscribe anew and say how far they had come.

use std::time::{Duration, Instant};

use nexusd_tests::{Account, Client, Daemon, Heard, Loss, Mesh, Replayed, Subscribed, eventually};
use nexusd_wire::control::{DeliveryMode, ErrorCode, GapMode, GapReason};
use nexusd_wire::{NodeId, Position, Sequence, SubscribeRequest};

/// Two shards: topics of one filter belong to more than one.
const SHARDS: [&str; 2] = ["--shards", "2"];
/// Messages of each topic that the daemon keeps at least.
const KEPT: u64 = 5;

/// How far somebody had come in a topic.
fn position(topic: &str, sequence: u64, origin: Option<NodeId>) -> Position<'_> {
    Position { topic, sequence: Sequence(sequence), origin }
}

/// Subscribes from these positions.
fn subscribe_from(client: &mut Client, filter: &str, positions: &[Position<'_>]) -> Subscribed {
    let request = SubscribeRequest {
        filters: &[filter],
        counted: true,
        positions,
        ..SubscribeRequest::default()
    };
    let asked = client.ask_to_subscribe(&request);
    client.subscribed(asked)
}

fn publish(publisher: &mut Client, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let accepted = publisher.publish_accepted(topic, number.to_string().as_bytes());
        assert_eq!(accepted.sequence, number, "nobody else publishes here");
    }
}

/// What came of one topic ahead of a live message.
#[derive(Default, Debug)]
struct Past {
    gaps: Vec<Loss>,
    replayed: Vec<u64>,
    complete: Option<Replayed>,
}

/// Hears everything of one topic up to the live message of this number.
fn hear_past(client: &mut Client, live: u64) -> Past {
    let mut past = Past::default();
    loop {
        match client.hear() {
            Heard::Gap(loss) => {
                assert!(past.replayed.is_empty(), "a Gap ahead of what is behind it: {past:?}");
                past.gaps.push(loss);
            }
            Heard::ReplayComplete(replayed) => {
                assert_eq!(past.complete, None, "{replayed:?}");
                past.complete = Some(replayed);
            }
            Heard::Message(message) if message.mode == DeliveryMode::Replay => {
                assert_eq!(message.payload, message.sequence.to_string().as_bytes());
                assert_eq!(past.complete, None, "{message:?}");
                past.replayed.push(message.sequence);
            }
            Heard::Message(message) => {
                assert_eq!((message.mode, message.sequence), (DeliveryMode::Live, live));
                return past;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_comes_back_to_an_expired_subscription_goes_on_from_its_positions() {
    let daemon = Daemon::start(&["--shards", "2", "--paused-subscription-ttl", "500"]);
    let (mut publisher, mut client) = (daemon.client(), daemon.client());
    let subscription = client.subscribe_with(&SubscribeRequest {
        filters: &["road/+", "probe"],
        counted: true,
        ..SubscribeRequest::default()
    });
    let topics = ["road/1", "road/2", "road/3"];
    topics.iter().for_each(|topic| publish(&mut publisher, topic, 1..=10));
    let mut account = Account::new(subscription);
    while account.received() < 30 {
        account.take(&Heard::Message(client.next_message()));
    }
    drop(client);
    // One topic goes on by what is kept in any case, another by more, one not at all.
    publish(&mut publisher, "road/1", 11..=10 + KEPT);
    publish(&mut publisher, "road/2", 11..=100);
    eventually("it expires", || publisher.publish_accepted("probe", b"").delivered == 0);
    let mut client = Client::open(&daemon.v4());
    client.hello_for(subscription);
    let (node, _) = client.welcome();
    let asked = client.ask_to_resume(subscription, account.received(), GapMode::ReplayBuffer);
    assert_eq!(client.refusal(asked).code, ErrorCode::NotFound);
    let positions = topics.map(|topic| position(topic, account.newest(topic), Some(node)));
    let answer = subscribe_from(&mut client, "road/+", &positions);
    assert!(answer.replay_started, "{answer:?}");
    let mut account = Account::new(answer.subscription);
    topics.iter().for_each(|topic| account.begin_behind(topic, 10));
    publish(&mut publisher, "road/1", 11 + KEPT..=11 + KEPT);
    publish(&mut publisher, "road/2", 101..=101);
    publish(&mut publisher, "road/3", 11..=11);
    let mut complete = Vec::new();
    while account.accounted() < KEPT + 1 + 91 + 1 {
        let heard = client.hear();
        account.take(&heard);
        match &heard {
            Heard::Gap(loss) => assert_eq!(loss.reason, GapReason::ReplayWindow, "{loss:?}"),
            Heard::ReplayComplete(replayed) => complete.push(replayed.clone()),
            Heard::Message(message) if message.mode == DeliveryMode::Live => {
                let is_complete = complete.iter().any(|replayed| replayed.topic == message.topic);
                assert!(is_complete || &*message.topic == "road/3", "{message:?}");
            }
            _ => {}
        }
    }
    assert_eq!(account.missed(), u64::try_from(answer.missed).expect("a known number"));
    assert_eq!(answer.gap_detected, account.missed() > 0);
    let told = |topic: &str| complete.iter().find(|replayed| &*replayed.topic == topic);
    let first = told("road/1").expect("a ReplayComplete");
    assert_eq!((first.count, first.latest), (KEPT, 10 + KEPT), "all of it is kept");
    let second = told("road/2").expect("a ReplayComplete");
    assert!(second.count >= KEPT && second.latest == 100, "{second:?}");
    assert_eq!(complete.len(), 2, "nothing of road/3 was missed: {complete:?}");
    daemon.end_well();
}

#[test]
fn a_position_of_zero_asks_for_the_newest_message_alone() {
    let daemon = Daemon::start(&SHARDS);
    let (mut publisher, mut client) = (daemon.client(), daemon.client());
    publish(&mut publisher, "road", 1..=20);
    let answer = subscribe_from(&mut client, "road", &[position("road", 0, None)]);
    assert_eq!((answer.gap_detected, answer.replay_started), (false, true));
    publish(&mut publisher, "road", 21..=21);
    let past = hear_past(&mut client, 21);
    assert_eq!((past.gaps.len(), past.replayed), (0, vec![20]));
    let complete = past.complete.expect("a ReplayComplete");
    assert_eq!((complete.count, complete.latest), (1, 20));
    daemon.end_well();
}

#[test]
fn a_position_at_the_newest_message_or_of_an_unknown_topic_replays_nothing() {
    let daemon = Daemon::start(&SHARDS);
    let (mut publisher, mut client) = (daemon.client(), daemon.client());
    publish(&mut publisher, "road", 1..=20);
    let positions = [position("road", 20, None), position("road/nobody/went", 7, None)];
    let answer = subscribe_from(&mut client, "road/#", &positions);
    assert_eq!((answer.gap_detected, answer.missed, answer.replay_started), (false, 0, false));
    publish(&mut publisher, "road", 21..=21);
    let past = hear_past(&mut client, 21);
    assert!(past.gaps.is_empty() && past.replayed.is_empty(), "{past:?}");
    assert_eq!(past.complete, None);
    daemon.end_well();
}

#[test]
fn a_position_behind_what_is_kept_gets_a_gap_of_the_rest() {
    // So little is kept that the first messages have gone.
    let daemon = Daemon::start(&["--shards", "2", "--max-buffer-memory", "1M"]);
    let (mut publisher, mut client) = (daemon.client(), daemon.client());
    publish(&mut publisher, "road", 1..=100);
    for number in 0..2_000 {
        publisher.publish(&format!("noise/{}", number % 50), &[7; 10_000]);
    }
    publisher.catch_up();
    publish(&mut publisher, "road", 101..=110);
    let answer = subscribe_from(&mut client, "road", &[position("road", 10, None)]);
    assert!(answer.gap_detected && answer.replay_started, "{answer:?}");
    publish(&mut publisher, "road", 111..=111);
    let past = hear_past(&mut client, 111);
    let [gap] = &past.gaps[..] else { panic!("one Gap: {past:?}") };
    let oldest = past.replayed[0];
    assert_eq!(gap.reason, GapReason::ReplayWindow);
    assert_eq!(gap.missed, answer.missed as u64);
    let [(topic, first, last)] = &gap.entries[..] else { panic!("one entry: {gap:?}") };
    assert_eq!((&**topic, *first, *last), ("road", 11, oldest - 1));
    let rest: Vec<u64> = (oldest..=110).collect();
    assert_eq!(past.replayed, rest, "without a hole");
    assert!(rest.len() as u64 >= KEPT, "{rest:?}");
    daemon.end_well();
}

#[test]
fn a_position_of_a_daemon_that_was_restarted_gets_all_that_is_held_behind_a_gap_of_unknown_size() {
    let before = Daemon::start(&SHARDS);
    let (mut publisher, mut client) = (before.client(), Client::open(&before.v4()));
    client.hello();
    let (node, _) = client.welcome();
    let subscription = client.subscribe(&["road"]);
    publish(&mut publisher, "road", 1..=7);
    assert_eq!(client.next_message().sequence, 1);
    // Killed, not ended.
    drop(before);
    let after = Daemon::start(&SHARDS);
    let mut publisher = after.client();
    publish(&mut publisher, "road", 1..=3);
    let mut client = Client::open(&after.v4());
    client.hello_for(subscription);
    let (new_node, _) = client.welcome();
    assert_ne!(node, new_node);
    let asked = client.ask_to_resume(subscription, 1, GapMode::ReplayBuffer);
    assert_eq!(client.refusal(asked).code, ErrorCode::NotFound, "another daemon's");
    let answer = subscribe_from(&mut client, "road", &[position("road", 1, Some(node))]);
    assert_eq!((answer.gap_detected, answer.missed, answer.replay_started), (true, -1, true));
    publish(&mut publisher, "road", 4..=4);
    let past = hear_past(&mut client, 4);
    let [gap] = &past.gaps[..] else { panic!("one Gap: {past:?}") };
    assert_eq!((gap.reason, gap.missed), (GapReason::ReplayWindow, u64::MAX));
    assert_eq!(past.replayed, [1, 2, 3], "whatever the number was");
    let complete = past.complete.expect("a ReplayComplete");
    assert_eq!((complete.count, complete.latest), (3, 3));
    after.end_well();
}

/// The first life of a node: what a client that had seven messages of "road" was told at last.
fn end_of_life(mut daemon: Daemon, is_killed: bool) -> (NodeId, Heard) {
    let (mut publisher, mut client) = (daemon.client(), Client::open(&daemon.v4()));
    client.hello();
    let (node, _) = client.welcome();
    client.subscribe(&["road"]);
    publish(&mut publisher, "road", 1..=7);
    (1..=7).for_each(|number| assert_eq!(client.next_message().sequence, number));
    if is_killed {
        daemon.kill();
        return (node, Heard::Goodbye { last_accepted: 0, is_complete: false });
    }
    daemon.terminate();
    let last_word = client.rest().pop().expect("a last word");
    assert_eq!(daemon.wait().status.code(), Some(0));
    (node, last_word)
}

#[test]
fn a_subscription_goes_on_at_once_and_without_a_gap_where_its_daemon_ended_well() {
    let mesh = Mesh::new();
    let starts: [&dyn Fn() -> Daemon; 2] = [&|| Daemon::start(&SHARDS), &|| mesh.node()];
    for (is_meshed, start) in starts.iter().enumerate() {
        let (node, last_word) = end_of_life(start(), false);
        assert_eq!(last_word, Heard::Goodbye { last_accepted: 0, is_complete: true });
        let after = start();
        let mut publisher = after.client();
        publish(&mut publisher, "road", 1..=3);
        let mut client = after.client();
        let begun = Instant::now();
        let positions = [position("road", 7, Some(node))];
        let request = SubscribeRequest {
            filters: &["road"],
            positions: &positions,
            ended: &[node],
            ..SubscribeRequest::default()
        };
        let asked = client.ask_to_subscribe(&request);
        let answer = client.subscribed(asked);
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        assert_eq!((answer.gap_detected, answer.missed, answer.replay_started), (false, 0, true));
        publish(&mut publisher, "road", 4..=4);
        let past = hear_past(&mut client, 4);
        assert!(past.gaps.is_empty(), "{past:?}, meshed: {is_meshed}");
        assert_eq!(past.replayed, [1, 2, 3], "meshed: {is_meshed}");
        after.end_well();
    }
}

#[test]
fn a_node_that_was_killed_is_waited_for_and_what_it_may_have_had_is_told_as_lost() {
    let mesh = Mesh::new();
    let (node, _) = end_of_life(mesh.node(), true);
    let after = mesh.node();
    let mut publisher = after.client();
    publish(&mut publisher, "road", 1..=3);
    let mut client = after.client();
    let begun = Instant::now();
    let answer = subscribe_from(&mut client, "road", &[position("road", 7, Some(node))]);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!((answer.gap_detected, answer.missed, answer.replay_started), (true, -1, true));
    publish(&mut publisher, "road", 4..=4);
    let past = hear_past(&mut client, 4);
    assert_eq!((past.gaps.len(), &past.replayed[..]), (1, &[1, 2, 3][..]));
    after.end_well();
}

#[test]
fn more_than_1024_positions_are_refused() {
    let daemon = Daemon::start(&SHARDS);
    let mut client = daemon.client();
    let topics: Vec<String> = (0..1_025).map(|number| format!("road/{number}")).collect();
    let positions: Vec<Position<'_>> =
        topics.iter().map(|topic| position(topic, 1, None)).collect();
    let request = |positions| SubscribeRequest {
        filters: &["road/+"],
        positions,
        ..SubscribeRequest::default()
    };
    let asked = client.ask_to_subscribe(&request(&positions));
    let complaint = client.refusal(asked);
    assert_eq!((complaint.code, complaint.fatal), (ErrorCode::LimitReached, false));
    client.subscribe_with(&request(&positions[..1_024]));
    daemon.end_well();
}
