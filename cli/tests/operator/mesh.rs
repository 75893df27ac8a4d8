//! Real daemons, under load: every command's document, and TOP on a real terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nexusd_tests::{Address, Client, Daemon, Mesh, eventually};
use serde_json::Value;

use crate::cli::{Running, document, run, said};
use crate::documents::{QUESTIONS, check};
use crate::screen::Screen;

/// Payloads that fill the buffers of a connection nobody reads within a moment.
const PAYLOAD: [u8; 8_192] = [b'x'; 8_192];

fn address(daemon: &Daemon) -> String {
    daemon.told("tcp").to_owned()
}

/// Waits until a node is synced with so many others.
fn wait_for_peers(address: &str, peers: u64) {
    eventually("the mesh is whole", || document(address, &["mesh", "status"])["synced"] == peers);
}

/// From an acknowledgement to the next message. Three who publish without it keep two cores busy, and a kernel that
/// shares cores out by sessions may leave the session of a terminal waiting for seconds then.
const PAUSE: Duration = Duration::from_millis(1);

/// Somebody who publishes to a topic until dropped, some hundred messages a second, each acknowledged.
struct Load {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    fn start(address: Address, topic: &'static str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut publisher = Client::connect(&address);
            while !told.load(Ordering::Relaxed) {
                publisher.publish_accepted(topic, &PAYLOAD);
                thread::sleep(PAUSE);
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the load went on to the end");
        }
    }
}

#[test]
fn every_command_of_a_real_daemon_answers_with_the_document_of_its_schema() {
    let mesh = Mesh::new();
    let (first, second) = (mesh.node(), mesh.node());
    let (here, there) = (address(&first), address(&second));
    wait_for_peers(&here, 1);
    let retained = ["publish", "plant/mill/speed", "345", "--retain", "--ttl", "1h"];
    check("publish", &document(&here, &retained));
    let mut subscriber = Running::start(&here, &["--json", "subscribe", "plant/#", "--retained"]);
    assert!(subscriber.line().is_some_and(|line| line.contains("retained")));

    for (schema, line) in QUESTIONS {
        let words: Vec<&str> = line.split(' ').collect();
        check(schema, &document(&here, &words));
    }
    let topics = document(&here, &["pubsub", "topics", "plant/#"]);
    assert_eq!(topics["topics"][0]["name"], "plant/mill/speed");
    assert_eq!(topics["topics"][0]["is_retained"], true);
    let wanted = document(&here, &["pubsub", "numsub", "plant/mill/speed", "plant/new", "x"]);
    let counts: Vec<_> = wanted["topics"].as_array().expect("a list").iter().collect();
    assert_eq!(counts.iter().map(|it| &it["subscriptions"]).collect::<Vec<_>>(), [1, 1, 0]);
    let retained = document(&there, &["pubsub", "retained", "plant/+/speed"]);
    check("pubsub-retained", &retained);
    assert_eq!(retained["values"][0]["origin"], first.told("node"));
    let topology = document(&there, &["mesh", "topology"]);
    assert_eq!(topology["nodes"].as_array().map(Vec::len), Some(2), "{topology:#}");
    let subscriptions = document(&here, &["debug", "subscriptions"]);
    check("debug-subscriptions", &subscriptions);
    assert_eq!(subscriptions["subscriptions"][0]["filters"][0], "plant/#");

    check("debug-log", &document(&here, &["debug", "log", "debug"]));
    assert_eq!(document(&here, &["debug", "log"])["level"], "debug");
    check("debug-reload", &document(&here, &["debug", "reload"]));

    let clients = document(&here, &["client", "list"]);
    let id = clients["clients"][0]["client_id"].as_str().expect("the subscriber").to_owned();
    check("client-setname", &document(&here, &["client", "setname", &id, "the reader"]));
    let client = document(&here, &["client", "info", &id]);
    check("client-info", &client);
    assert_eq!(client["name"], "the reader");
    check("client-kill", &document(&here, &["client", "kill", &id]));
    let is_gone = || run(&here, &["client", "info", &id]).err.contains("there is no client");
    eventually("the client is gone", is_gone);
    drop(subscriber);

    let drained = document(&there, &["debug", "drain", "--yes"]);
    check("debug-drain", &drained);
    assert_eq!(drained["was_running"], true);
    let mut second = second;
    assert_eq!(second.wait().status.code(), Some(0));
}

#[test]
fn monitor_tells_rates_of_what_is_published() {
    let daemon = Daemon::start_node(&["--discovery", "off"]);
    let here = address(&daemon);
    let load = Load::start(daemon.v4(), "plant/mill/speed");
    let words = ["--json", "monitor", "plant/#", "--interval", "200ms", "--count", "3"];
    let mut monitor = Running::start(&here, &words);
    let mut last = Value::Null;
    while let Some(line) = monitor.line() {
        last = serde_json::from_str(&line).expect("a document on a line");
        check("monitor", &last);
    }
    assert_eq!(monitor.ended(), Some(0));
    drop(load);
    assert_eq!(last["topics"][0]["topic"], "plant/mill/speed");
    let rate = last["topics"][0]["messages_per_second"].as_f64().expect("a number");
    let (messages, ms) = (&last["messages"], &last["elapsed_ms"]);
    let expected = 1e3 * messages.as_f64().expect("a number") / ms.as_f64().expect("a number");
    // The document rounds the time to a millisecond.
    assert!((rate / expected - 1.0).abs() < 0.02, "{last:#}");
    assert!(last["daemon"]["in_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{last:#}");
}

#[test]
fn discover_finds_the_daemons_of_a_cluster_and_n_chooses_one() {
    let mesh = Mesh::new();
    let nodes = [mesh.node(), mesh.node()];
    let mut addresses: Vec<String> = nodes.iter().map(address).collect();
    addresses.sort_by_key(|it| it.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()));
    let ask = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nexusd-cli"));
        command.args(["--mcast-port", mesh.port(), "--cluster", mesh.cluster(), "--json"]);
        command.args(words);
        let said = said(command);
        (said.code, serde_json::from_str::<Value>(&said.out).unwrap_or_default(), said.err)
    };
    let (code, found, error) = ask(&["DISCOVER"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    check("discover", &found);
    let daemons = found["daemons"].as_array().expect("a list");
    let told: Vec<_> = daemons.iter().map(|it| it["address"].as_str().expect("one")).collect();
    assert_eq!(told, addresses);
    assert!(daemons.iter().all(|it| it["status"] == "running"), "{found:#}");

    let (code, pong, error) = ask(&["-n", "2", "ping"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(pong["address"], addresses[1]);
    // The time for an answer is none for beacons, which come once a second.
    let (code, pong, error) = ask(&["--timeout", "400", "-n", "2", "ping"]);
    assert_eq!((code, &pong["address"]), (Some(0), &addresses[1].as_str().into()), "{error}");
    let (code, _, error) = ask(&["-n", "3", "ping"]);
    assert_eq!(code, Some(1));
    assert!(error.starts_with("error: there is no daemon 3: 2 were found;"), "{error}");
}

#[test]
#[ignore = "needs tmux: `cargo xtask test --only terminal`"]
fn top_shows_three_loaded_nodes_and_who_is_slow() {
    let mesh = Mesh::new();
    let nodes = [mesh.node(), mesh.node(), mesh.node()];
    let here = address(&nodes[0]);
    for node in &nodes {
        wait_for_peers(&address(node), 2);
    }
    // On each of the others somebody who reads; here somebody who never does.
    let readers = [&nodes[1], &nodes[2]].map(|node| {
        Running::start(&address(node), &["--json", "monitor", "plant/#", "--interval", "1h"])
    });
    let mut sleeper = Client::connect_narrow(&nodes[0].v4());
    sleeper.subscribe(&["plant/#"]);
    let load = nodes.each_ref().map(|node| Load::start(node.v4(), "plant/mill/speed"));

    let screen = Screen::start(&[]);
    screen.enter(&format!(
        "{} -h {here} top --interval 200ms --timeout 20s",
        env!("CARGO_BIN_EXE_nexusd-cli")
    ));
    let shown = |line: &str, parts: &[&str]| parts.iter().all(|part| line.contains(part));
    screen.wait("the slow consumer and rates on the overview", |text| {
        text.contains("Slow consumers: 1")
            && text.lines().any(|line| shown(line, &["plant/mill/speed", "/s"]))
    });
    screen.press("3");
    screen.wait("who is slow", |text| text.lines().any(|line| shown(line, &["plant/#", "losing"])));
    screen.press("4");
    screen.wait("both peers, with their own rates", |text| {
        text.lines().filter(|line| shown(line, &["alive", "/s"])).count() == 2
    });
    screen.press("q");
    screen.wait("the shell is back", |text| !text.contains("q quit"));
    drop(load);
    drop(readers);
}
