//! A mesh that has too little CPU: daemons with modest traffic, beside threads that take all the cores.
//!
//! `nexusd-overload [--nodes 5] [--busy 6] [--seconds 600]`: starts nodes on the loopback interface, lets each
//! publish to all, keeps so many threads busy, and looks what the nodes say of each other. Nobody may be
//! given up, and every message that was accepted comes to each node once: a node that gets no CPU is slow,
//! not dead. Ends with a table, and with an error if that does not hold.
//!
//! `cargo xtask soak overload` builds what it takes. It is no test of continuous integration, for it takes
//! minutes and the whole machine.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nexusd_tests::{Client, Daemon, Heard, Listened, Mesh, TurnOff};

/// Messages of a portion; the last one's acknowledgement is waited for.
const PORTION: u64 = 10;
/// Time between two portions.
const PACE: Duration = Duration::from_millis(20);
/// How often a subscriber looks whether it is over.
const PATIENCE: Duration = Duration::from_millis(50);
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(30);
/// How long the rest of the messages may take, when there is CPU again.
const REST: Duration = Duration::from_secs(60);
/// What a log says of a node that is not heard, and of one that was given up.
const SUSPECTED: &str = "is not heard; messages for it wait";
const LEFT: &str = " left: ";

struct Plan {
    nodes: usize,
    busy: usize,
    duration: Duration,
}

impl Plan {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self { nodes: 5, busy: 6, duration: Duration::from_secs(600) };
        while let Some(name) = arguments.next() {
            let value = arguments.next().and_then(|value| value.parse::<u32>().ok());
            let value = value.ok_or_else(|| format!("{name} takes a number"))?;
            match &*name {
                "--nodes" => plan.nodes = value.max(2) as usize,
                "--busy" => plan.busy = value as usize,
                "--seconds" => plan.duration = Duration::from_secs(value.into()),
                _ => return Err(format!("there is no {name}: --nodes, --busy, --seconds")),
            }
        }
        Ok(plan)
    }
}

/// What the subscriber at one node has had of all publishers.
struct Ledger {
    /// Number of the newest message of each.
    newest: Vec<AtomicU64>,
    received: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    gaps: AtomicU64,
    unknown_gaps: AtomicU64,
    /// The longest that nothing came, and that a message was under way, in milliseconds.
    longest_pause_ms: AtomicU64,
    longest_way_ms: AtomicU64,
}

impl Ledger {
    fn new(publishers: usize) -> Self {
        Self {
            newest: (0..publishers).map(|_| AtomicU64::new(0)).collect(),
            received: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            unknown_gaps: AtomicU64::new(0),
            longest_pause_ms: AtomicU64::new(0),
            longest_way_ms: AtomicU64::new(0),
        }
    }

    fn take(&self, heard: &Heard, epoch: Instant) {
        match heard {
            Heard::Message(message) => {
                let Some([publisher, number, sent_ms]) = numbers(&message.payload) else { return };
                let newest = &self.newest[publisher as usize];
                let expected = newest.load(Ordering::Relaxed) + 1;
                self.received.fetch_add(1, Ordering::Relaxed);
                if number < expected {
                    self.doubled.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                self.lost.fetch_add(number - expected, Ordering::Relaxed);
                newest.store(number, Ordering::Relaxed);
                let way_ms = (epoch.elapsed().as_millis() as u64).saturating_sub(sent_ms);
                self.longest_way_ms.fetch_max(way_ms, Ordering::Relaxed);
            }
            Heard::Gap(loss) => {
                self.gaps.fetch_add(1, Ordering::Relaxed);
                self.unknown_gaps.fetch_add(u64::from(loss.is_unknown()), Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

fn numbers(payload: &[u8]) -> Option<[u64; 3]> {
    match payload.as_chunks::<8>() {
        (&[one, two, three], []) => Some([one, two, three].map(u64::from_le_bytes)),
        _ => None,
    }
}

fn topic(publisher: usize) -> String {
    format!("load/{publisher}")
}

/// Publishes until it is over; returns how many messages were accepted.
fn publish(daemon: &Daemon, publisher: usize, is_on: &AtomicBool, epoch: Instant) -> u64 {
    let (mut client, topic, mut number) = (daemon.client(), topic(publisher), 0);
    while is_on.load(Ordering::Relaxed) {
        for at in 1..=PORTION {
            number += 1;
            let sent_ms = epoch.elapsed().as_millis() as u64;
            let payload = [publisher as u64, number, sent_ms].map(u64::to_le_bytes).concat();
            if at < PORTION {
                client.publish(&topic, &payload);
            } else {
                client.publish_accepted(&topic, &payload);
            }
        }
        thread::sleep(PACE);
    }
    number
}

/// Takes what comes until it is over.
fn listen(mut client: Client, ledger: &Ledger, is_on: &AtomicBool, epoch: Instant) {
    let mut last = Instant::now();
    while is_on.load(Ordering::Relaxed) {
        match client.listen(PATIENCE) {
            Listened::Heard(heard) => {
                let pause_ms = last.elapsed().as_millis() as u64;
                ledger.longest_pause_ms.fetch_max(pause_ms, Ordering::Relaxed);
                last = Instant::now();
                ledger.take(&heard, epoch);
            }
            Listened::Silence => {}
            Listened::End => panic!("a daemon has closed its subscriber's connection"),
        }
    }
}

fn main() -> ExitCode {
    let plan = match Plan::from_arguments(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(fault) => {
            say(&fault);
            return ExitCode::from(2);
        }
    };
    match run(&plan) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Whether all went well.
fn run(plan: &Plan) -> bool {
    let mesh = Mesh::new();
    let nodes: Vec<Daemon> = (0..plan.nodes).map(|_| mesh.node()).collect();
    for node in &nodes {
        node.wait_for_line(" joined", plan.nodes - 1);
    }
    let epoch = Instant::now();
    let ledgers: Vec<Ledger> = nodes.iter().map(|_| Ledger::new(plan.nodes)).collect();
    let flags = [const { AtomicBool::new(true) }; 3];
    let [is_publishing, is_busy, is_listening] = &flags;
    let published = thread::scope(|scope| {
        // With a failure everything ends.
        let _stop = [is_publishing, is_busy, is_listening].map(TurnOff);
        for (node, ledger) in nodes.iter().zip(&ledgers) {
            let mut client = node.client();
            client.subscribe_to_all(&["load/#"]);
            scope.spawn(move || listen(client, ledger, is_listening, epoch));
        }
        for (at, node) in nodes.iter().enumerate() {
            node.client().publish_until_delivered(&topic(at), plan.nodes as u32);
        }
        say(&format!(
            "{} nodes know each other; {} threads are busy for {:?}",
            plan.nodes, plan.busy, plan.duration
        ));
        let publishers: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| scope.spawn(move || publish(node, at, is_publishing, epoch)))
            .collect();
        for _ in 0..plan.busy {
            scope.spawn(|| while is_busy.load(Ordering::Relaxed) {});
        }
        let begun = Instant::now();
        while begun.elapsed() < plan.duration {
            thread::sleep(PROGRESS.min(plan.duration.saturating_sub(begun.elapsed())));
            say(&progress(begun.elapsed(), &nodes, &ledgers));
        }
        is_busy.store(false, Ordering::Relaxed);
        is_publishing.store(false, Ordering::Relaxed);
        let published: Vec<u64> =
            publishers.into_iter().map(|it| it.join().expect("it was answered")).collect();
        wait_for_the_rest(&ledgers, &published);
        published
    });
    let is_well = report(&nodes, &ledgers, &published);
    nodes.into_iter().for_each(Daemon::end_well);
    is_well
}

/// Waits until all has come that was accepted, or it is clear that it does not.
fn wait_for_the_rest(ledgers: &[Ledger], published: &[u64]) {
    let has_all = |ledger: &Ledger| {
        let newest = ledger.newest.iter().map(|newest| newest.load(Ordering::Relaxed));
        newest.eq(published.iter().copied())
    };
    let begun = Instant::now();
    while !ledgers.iter().all(has_all) && begun.elapsed() < REST {
        thread::sleep(PATIENCE);
    }
    // What would come twice comes now.
    thread::sleep(10 * PATIENCE);
}

fn said(node: &Daemon, text: &str) -> usize {
    node.log().matches(text).count()
}

fn sum(ledgers: &[Ledger], of: fn(&Ledger) -> &AtomicU64) -> u64 {
    ledgers.iter().map(|ledger| of(ledger).load(Ordering::Relaxed)).sum()
}

fn progress(elapsed: Duration, nodes: &[Daemon], ledgers: &[Ledger]) -> String {
    let said = |text| nodes.iter().map(|node| said(node, text)).sum::<usize>();
    format!(
        "{:>4} s: {} messages delivered, {} lost, {} doubled, {} gaps, {} suspicions, {} deaths",
        elapsed.as_secs(),
        sum(ledgers, |it| &it.received),
        sum(ledgers, |it| &it.lost),
        sum(ledgers, |it| &it.doubled),
        sum(ledgers, |it| &it.gaps),
        said(SUSPECTED),
        said(LEFT),
    )
}

/// Prints what became of all; returns whether nobody was given up and nothing lost, doubled or told as lost.
fn report(nodes: &[Daemon], ledgers: &[Ledger], published: &[u64]) -> bool {
    let mut table = String::from(
        "\nnode  published  received   missing  doubled  gaps  of unknown size  suspected others  \
         gave up  CPU s  longest pause  longest way\n",
    );
    let mut is_well = true;
    for (at, (node, ledger)) in nodes.iter().zip(ledgers).enumerate() {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let newest = ledger.newest.iter().map(of);
        let not_come: u64 = published.iter().zip(newest).map(|(all, newest)| all - newest).sum();
        let (missing, gave_up) = (of(&ledger.lost) + not_come, said(node, LEFT));
        let (doubled, gaps) = (of(&ledger.doubled), of(&ledger.gaps));
        is_well &= (missing, doubled, gaps, gave_up) == (0, 0, 0, 0);
        let _ = writeln!(
            table,
            "{at:>4}{:>11}{:>10}{missing:>10}{doubled:>9}{gaps:>6}{:>17}{:>18}{gave_up:>9}{:>7.1}{:>12} ms{:>10} ms",
            published[at],
            of(&ledger.received),
            of(&ledger.unknown_gaps),
            said(node, SUSPECTED),
            node.usage().cpu.as_secs_f64(),
            of(&ledger.longest_pause_ms),
            of(&ledger.longest_way_ms),
        );
    }
    let verdict = if is_well { "nobody was given up, nothing was lost" } else { "FAILED" };
    say(&format!("{table}{verdict}"));
    if !is_well {
        nodes.iter().for_each(|node| say(&node.log()));
    }
    is_well
}

fn say(text: &str) {
    // Whoever closed stdout still learns how it ends.
    let _ = writeln!(io::stdout(), "{text}");
}
