//! Very many counted subscriptions whose connections break at the same moment, under traffic.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nexusd_tests::{
    Account, Address, Bystanders, Client, Daemon, Heard, Line, Listened, Replay, SOON, TurnOff,
    eventually,
};
use nexusd_wire::SubscribeRequest;
use nexusd_wire::control::GapMode;

const CONNECTIONS: usize = 50;
/// Subscriptions of each connection.
const SUBSCRIPTIONS: usize = 20;
const TOPICS: usize = 40;
/// Of so many subscriptions of a connection one takes a tenth of all topics, and the others one.
const WIDE_ONE_OF: usize = 10;
/// How often all connections break.
const CUTS: usize = 3;
/// Time between two messages to each topic.
const PACE: Duration = Duration::from_millis(20);
/// Messages that a subscription acknowledges together.
const ACKNOWLEDGED_TOGETHER: u64 = 20;
/// Messages that every connection hears before all are cut.
const HEARD_BETWEEN: u64 = 500;

fn topic(number: usize) -> String {
    format!("cut/{}/{number}", number % 10)
}

/// The topics of one subscription, and the filter that matches them.
fn wanted(connection: usize, subscription: usize) -> (String, Vec<String>) {
    let number = connection * SUBSCRIPTIONS + subscription;
    if subscription.is_multiple_of(WIDE_ONE_OF) {
        let tenth = (0..TOPICS).filter(|topic| topic % 10 == number % 10).map(topic).collect();
        (format!("cut/{}/+", number % 10), tenth)
    } else {
        (topic(number % TOPICS), vec![topic(number % TOPICS)])
    }
}

/// What all threads know.
struct Stage<'a> {
    ways: &'a [Address],
    /// The connections, to be cut.
    lines: Vec<Mutex<Option<Line>>>,
    /// What each connection has heard since it stands.
    heard: Vec<AtomicU64>,
    /// Messages of each topic once the publisher has stopped; 0 before.
    published: AtomicU64,
}

/// One subscription and what it is owed.
struct Member {
    account: Account,
    acknowledged: u64,
    topics: Vec<String>,
    replay: Option<Replay>,
}

impl Member {
    fn has_everything(&self, published: u64) -> bool {
        published > 0 && self.topics.iter().all(|topic| self.account.newest(topic) == published)
    }
}

impl Stage<'_> {
    /// The connection of this number stands, and may be cut.
    fn enter(&self, number: usize, client: &mut Client) {
        self.heard[number].store(0, Ordering::Relaxed);
        *self.lines[number].lock().expect("no panic") = Some(client.line());
    }

    /// Waits until every connection stands and has heard something on it.
    fn wait_for_all(&self, what: &str, messages: u64) {
        eventually(what, || {
            let stands = |line: &Mutex<Option<Line>>| line.lock().expect("no panic").is_some();
            let has_heard = |heard: &AtomicU64| heard.load(Ordering::Relaxed) >= messages;
            self.lines.iter().all(stands) && self.heard.iter().all(has_heard)
        });
    }

    /// Cuts all connections at once.
    fn cut_all(&self) {
        let line = |line: &Mutex<Option<Line>>| line.lock().expect("no panic").take();
        let lines: Vec<Line> = self.lines.iter().filter_map(line).collect();
        assert_eq!(lines.len(), CONNECTIONS);
        lines.iter().for_each(Line::cut);
    }
}

/// One connection after the other, with the same subscriptions.
fn come_back_again_and_again(number: usize, stage: &Stage<'_>) {
    let way = |cuts: usize| &stage.ways[(number + cuts) % stage.ways.len()];
    let mut client = Client::connect(way(0));
    let mut members: Vec<Member> =
        (0..SUBSCRIPTIONS).map(|at| subscribe(&mut client, wanted(number, at))).collect();
    for cut in 1..=CUTS {
        stage.enter(number, &mut client);
        read_until_cut(number, &mut client, &mut members, stage);
        // Not always the first one leads the connection to where all of them are kept.
        let any = members[(number + cut) % SUBSCRIPTIONS].account.subscription();
        client = Client::connect_for(way(cut), any);
        resume_all(&mut client, &mut members);
    }
    stage.enter(number, &mut client);
    let published = read_to_the_end(number, &mut client, &mut members, stage);
    for Member { account, topics, replay, .. } in &members {
        let owed = published * topics.len() as u64;
        assert_eq!((account.received(), account.missed()), (owed, 0));
        assert!(replay.as_ref().is_some_and(Replay::is_over), "{replay:?}");
    }
}

fn subscribe(client: &mut Client, (filter, topics): (String, Vec<String>)) -> Member {
    let subscription = client.subscribe_with(&SubscribeRequest {
        filters: &[&filter],
        counted: true,
        ..SubscribeRequest::default()
    });
    Member { account: Account::new(subscription), acknowledged: 0, topics, replay: None }
}

/// Asks for all at once and then waits for the answers.
fn resume_all(client: &mut Client, members: &mut [Member]) {
    let asked: Vec<u64> = members
        .iter()
        .map(|Member { account, .. }| {
            client.ask_to_resume(account.subscription(), account.received(), GapMode::None)
        })
        .collect();
    for (member, asked) in members.iter_mut().zip(asked) {
        let answer = client.subscribed(asked);
        assert_eq!(answer.subscription, member.account.subscription(), "its id stays");
        assert_eq!((answer.gap_detected, answer.missed), (false, 0), "nothing is lost");
        member.replay = Some(Replay::new(&answer));
    }
}

fn read_until_cut(number: usize, client: &mut Client, members: &mut [Member], stage: &Stage<'_>) {
    loop {
        match client.listen(SOON) {
            Listened::Heard(heard) => take(client, members, &heard),
            Listened::End => return,
            Listened::Silence => panic!("messages should flow until the connection is cut"),
        }
        stage.heard[number].fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads until everybody has all that was published; returns how many messages of each topic.
fn read_to_the_end(
    number: usize,
    client: &mut Client,
    members: &mut [Member],
    stage: &Stage<'_>,
) -> u64 {
    let deadline = Instant::now() + SOON;
    loop {
        let published = stage.published.load(Ordering::Relaxed);
        if members.iter().all(|member| member.has_everything(published)) {
            return published;
        }
        assert!(Instant::now() < deadline, "connection {number} waits for more");
        if let Listened::Heard(heard) = client.listen(PACE) {
            take(client, members, &heard);
            stage.heard[number].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Gives what was heard to whom it concerns, and acknowledges.
fn take(client: &mut Client, members: &mut [Member], heard: &Heard) {
    let subscription = match heard {
        Heard::Message(message) => message.subscription,
        Heard::ReplayComplete(replayed) => replayed.subscription,
        other => panic!("{other:?}"),
    };
    let member = members.iter_mut().find(|member| member.account.subscription() == subscription);
    let member = member.expect("a subscription of this connection");
    member.account.take(heard);
    if let Some(replay) = &mut member.replay {
        replay.take(heard);
    }
    let received = member.account.received();
    if received >= member.acknowledged + ACKNOWLEDGED_TOGETHER {
        member.acknowledged = received;
        client.acknowledge(&[(subscription, received)]);
        // The line may be cut at any time.
        let _ = client.try_flush();
    }
}

/// Publishes to all topics until told to stop; returns how many messages each has.
fn publish(mut publisher: Client, goes_on: &AtomicBool) -> u64 {
    let mut number = 0;
    while goes_on.load(Ordering::Relaxed) {
        number += 1;
        for at in 0..TOPICS {
            publisher.publish(&topic(at), &[7; 100]);
        }
        publisher.catch_up();
        thread::sleep(PACE);
    }
    number
}

#[test]
fn a_thousand_subscriptions_cut_at_once_and_back_at_once_lose_nothing_and_hear_nothing_twice() {
    let daemon = Daemon::start(&["--shards", "2"]);
    let bystanders = Bystanders::start(&daemon);
    let stage = Stage {
        ways: &[daemon.v4(), daemon.unix(), daemon.v6()],
        lines: (0..CONNECTIONS).map(|_| Mutex::new(None)).collect(),
        heard: (0..CONNECTIONS).map(|_| AtomicU64::new(0)).collect(),
        published: AtomicU64::new(0),
    };
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let turn_off = TurnOff(&goes_on);
        for number in 0..CONNECTIONS {
            let stage = &stage;
            scope.spawn(move || come_back_again_and_again(number, stage));
        }
        stage.wait_for_all("all are subscribed", 0);
        let publishing = scope.spawn(|| publish(daemon.client(), &goes_on));
        for _ in 0..CUTS {
            stage.wait_for_all("all have heard a lot", HEARD_BETWEEN);
            stage.cut_all();
        }
        stage.wait_for_all("all are back", HEARD_BETWEEN);
        drop(turn_off);
        let published = publishing.join().expect("no panic");
        stage.published.store(published, Ordering::Relaxed);
    });
    bystanders.unharmed();
    daemon.end_well();
}
