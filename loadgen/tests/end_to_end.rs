//! The program as scripts use it: short runs against every target over loopback.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The first and the last core this process may use.
fn cores() -> (String, String) {
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("the cores we may use")
        .trim()
        .to_owned();
    let mut numbers = list.split([',', '-']);
    let first = numbers.next().expect("a core").to_owned();
    let last = numbers.next_back().unwrap_or(&first).to_owned();
    (first, last)
}

/// Runs the program, but never two at a time, whichever processes the tests run in: each run takes
/// all of two cores.
fn loadgen(arguments: &str) -> Output {
    let path = std::env::temp_dir().join("nexusd-loadgen-tests.lock");
    let one_at_a_time = File::create(path).expect("a lock file");
    one_at_a_time.lock().expect("a lock");
    loadgen_beside_others(arguments)
}

/// Runs what ends before anything is measured.
fn loadgen_beside_others(arguments: &str) -> Output {
    let (server_core, load_core) = cores();
    Command::new(env!("CARGO_BIN_EXE_nexusd-loadgen"))
        .args(arguments.split_whitespace())
        .args(["--server-core", &server_core, "--load-core", &load_core])
        .output()
        .expect("the program starts")
}

/// What a run measures.
const INTERVAL_MS: u64 = 250;

/// Messages of the interval at this many a second.
fn messages_at(rate: u64) -> u64 {
    rate * INTERVAL_MS / 1_000
}

/// Runs, and returns the runs it reports.
fn runs(arguments: &str) -> Vec<Value> {
    let times = format!("--duration {INTERVAL_MS}ms --warmup 50ms");
    let output = loadgen(&format!("{arguments} {times} --json -"));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!text.is_empty(), "{errors}");
    let runs: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object per line"))
        .collect();
    let all_valid = runs.iter().all(|run| run["valid"] == true);
    assert_eq!(output.status.success(), all_valid, "{errors}");
    runs
}

/// What holds for every run that counts, however busy the machine is.
fn assert_loss_free(run: &Value) {
    for fault in ["lost", "duplicated", "reordered", "foreign", "told_lost"] {
        assert_eq!(run[fault], 0, "{fault} in {run}");
    }
    assert!(run["sent"].as_u64() > Some(0), "{run}");
    assert!(run["server_rss_kb"].as_u64() > Some(0), "{run}");
}

/// Fails unless nothing is objected to, but that a machine which others disturbed did not keep up with the rate.
fn assert_valid(run: &Value) {
    let objections = run["objections"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_of_rate = |objection: &Value| {
        objection.as_str().is_some_and(|text| text.contains("of the offered rate was"))
    };
    let is_excused = run["noisy"] == true && objections.iter().all(is_of_rate);
    assert!(run["valid"] == true || is_excused, "{run}");
}

fn assert_moves_messages_without_loss(target: &str) {
    for transport in ["tcp", "unix"] {
        let runs = runs(&format!("--target {target} --workload T1 --transport {transport}"));
        assert_eq!(runs.len(), 1);
        assert_loss_free(&runs[0]);
        assert_eq!(runs[0]["valid"], true, "{}", runs[0]);
        assert_eq!(runs[0]["target"], target);
        assert_eq!(runs[0]["transport"], transport);
        assert_eq!(runs[0]["window"], 8_192);
        assert!(runs[0]["messages_per_cpu_s"].as_f64() > Some(0.0));
    }
}

#[test]
fn the_pump_moves_messages_without_loss() {
    assert_moves_messages_without_loss("pump");
}

#[test]
fn the_relay_moves_messages_without_loss() {
    assert_moves_messages_without_loss("relay");
}

#[test]
fn the_daemon_moves_messages_without_loss() {
    assert_moves_messages_without_loss("nexusd");
}

/// Counts, order and payloads are checked by the generator itself; `workloads` are what the system can do. Each gives the
/// server more to do than the kernel's clock tick, in which CPU time is counted: 10 ms.
fn assert_other_system_is_driven(target: &str, workloads: &[&str]) {
    for workload in workloads {
        let runs = runs(&format!("--target {target} --spawn --workload {workload}"));
        for run in &runs {
            assert_loss_free(run);
            assert_eq!(run["target"], target);
            assert!(run["messages_per_cpu_s"].as_f64() > Some(0.0), "the server's own cost: {run}");
        }
    }
}

#[test]
#[ignore = "needs nats-server: `cargo xtask test --only peers`"]
fn nats_is_driven_without_loss() {
    let workloads = ["T1 --size 16,128,16K", "T2", "F16", "L --rate 20k", "K --topics 1k", "W"];
    assert_other_system_is_driven("nats", &workloads);
}

#[test]
#[ignore = "needs redis-server: `cargo xtask test --only peers`"]
fn redis_is_driven_without_loss() {
    let workloads = ["T1 --size 16,128,16K", "T2", "F16", "L --rate 20k", "K --topics 1k"];
    assert_other_system_is_driven("redis", &workloads);
}

#[test]
#[ignore = "needs mosquitto: `cargo xtask test --only peers`"]
fn mqtt_is_driven_without_loss() {
    let workloads = ["T1 --size 16,128,16K", "T2", "F16", "L --rate 20k", "K --topics 1k"];
    assert_other_system_is_driven("mqtt", &workloads);
}

#[test]
#[ignore = "needs zenohd: `cargo xtask setup zenoh`, and then `cargo xtask test --only peers`"]
fn zenoh_is_driven_without_loss() {
    let workloads = ["T1 --size 16,128,16K", "T2", "F16", "L --rate 20k", "K --topics 1k"];
    assert_other_system_is_driven("zenoh", &workloads);
}

#[test]
fn fan_out_and_many_topics_reach_everybody() {
    for target in ["nexusd", "pump", "relay"] {
        for (workload, subscribers) in [("T2", 8), ("F16", 16)] {
            let runs = runs(&format!("--target {target} --workload {workload}"));
            assert_loss_free(&runs[0]);
            assert_eq!(runs[0]["subscribers"], subscribers);
        }
    }
}

#[test]
fn payloads_from_the_smallest_to_the_largest_arrive_whole() {
    for target in ["nexusd", "relay"] {
        let runs = runs(&format!("--target {target} --workload T1 --size 16,17,16K,4M"));
        assert_eq!(runs.len(), 4);
        runs.iter().for_each(assert_loss_free);
    }
}

#[test]
fn latency_is_measured_for_every_message_of_the_interval() {
    let folder = std::env::temp_dir();
    let file = folder.join(format!("loadgen-{}.hgrm", std::process::id()));
    let runs = runs(&format!("--target relay --workload L --rate 2k --hgrm {}", file.display()));
    assert_loss_free(&runs[0]);
    assert_eq!(runs[0]["latency_us"]["count"], messages_at(2_000));
    assert_eq!(runs[0]["send_latency_us"]["count"], messages_at(2_000));
    let histogram = std::fs::read_to_string(&file).expect("a histogram");
    std::fs::remove_file(&file).expect("it can be removed");
    assert!(histogram.contains("Percentile"), "{histogram}");
}

#[test]
fn a_stalled_subscriber_is_told_exactly_what_it_lost() {
    let runs = runs("--target nexusd --workload B");
    assert_eq!(runs.len(), 2);
    runs.iter().for_each(assert_loss_free);
    assert!(runs[0]["stalled"].is_null());
    let stalled = &runs[1]["stalled"];
    assert_eq!(stalled["exact"], true, "{stalled}");
    assert_eq!((&stalled["untold_lost"], &stalled["cut_off"]), (&0.into(), &false.into()));
    assert!(stalled["told_lost"].as_u64() > Some(0), "{stalled}");
    assert!(runs[1]["without_stalled"]["received_ratio"].as_f64() > Some(0.0));
}

/// What became of the stalled one is said, and the others lose nothing. Returns that.
fn assert_others_lose_nothing_beside_a_stalled_one(target: &str) -> Value {
    let runs = runs(&format!("--target {target} --workload B"));
    assert_eq!(runs.len(), 2);
    runs.iter().for_each(assert_loss_free);
    let stalled = runs[1]["stalled"].clone();
    assert!(runs[0]["stalled"].is_null() && stalled["exact"].is_null(), "{stalled}");
    let count = |key: &str| stalled[key].as_u64().expect("a count");
    assert_eq!(count("received") + count("untold_lost"), count("sent"), "{stalled}");
    assert!(runs[1]["without_stalled"]["received_ratio"].is_number());
    stalled
}

#[test]
#[ignore = "needs nats-server, redis-server and mosquitto: `cargo xtask test --only peers`"]
fn beside_a_stalled_subscriber_of_another_system_the_others_lose_nothing() {
    for target in ["nats", "redis", "mqtt"] {
        assert_others_lose_nothing_beside_a_stalled_one(target);
    }
}

#[test]
#[ignore = "needs zenohd: `cargo xtask setup zenoh`, and then `cargo xtask test --only peers`"]
fn zenoh_cuts_a_stalled_subscriber_off_and_the_others_lose_nothing() {
    let stalled = assert_others_lose_nothing_beside_a_stalled_one("zenoh");
    assert_eq!(stalled["cut_off"], true, "{stalled}");
}

#[test]
fn a_quiet_pair_loses_nothing_beside_a_flood_and_is_stated_against_itself_alone() {
    for transport in ["tcp", "unix"] {
        let runs = runs(&format!("--workload Q --transport {transport}"));
        assert_eq!(runs.len(), 3);
        for run in &runs {
            assert_loss_free(run);
            assert_eq!(run["rate"], 1_000);
            assert_eq!(run["latency_us"]["count"], messages_at(1_000), "{run}");
        }
        assert!(runs[0]["flood"].is_null() && runs[0]["without_flood"].is_null());
        for (run, wanted_by) in [(&runs[1], "reader"), (&runs[2], "nobody")] {
            let flood = &run["flood"];
            assert_eq!(flood["wanted_by"], wanted_by);
            assert!(flood["sent_per_s"].as_f64() > Some(10_000.0), "{flood}");
            assert_eq!(flood["received_per_s"].as_f64() > Some(0.0), wanted_by == "reader");
            for ratio in ["p50_ratio", "p99_ratio"] {
                assert!(run["without_flood"][ratio].as_f64() > Some(0.0), "{run}");
            }
        }
    }
}

#[test]
fn very_many_topics_keep_their_order_in_every_order_of_publishing() {
    for target in ["nexusd", "relay"] {
        let runs = runs(&format!("--target {target} --workload K --topics 1,20k"));
        let topics: Vec<_> = runs.iter().map(|run| run["topics"].as_u64()).collect();
        assert_eq!(topics, [Some(1), Some(20_000), Some(20_000), Some(20_000)]);
        for run in &runs {
            assert_loss_free(run);
            assert_valid(run);
        }
        let orders: Vec<_> = runs.iter().map(|run| run["order"].as_str()).collect();
        assert_eq!(orders[1..], [Some("round-robin"), Some("random"), Some("zipf")]);
        assert!(runs[0]["first_run"].is_null());
        let share = &runs[3]["first_run"]["messages_per_cpu_s_ratio"];
        assert!(share.as_f64() > Some(0.0), "{share}");
    }
}

#[test]
fn every_message_reaches_exactly_two_of_a_hundred_subscribers() {
    let runs = runs("--workload W --rate 20k");
    let sizes: Vec<_> =
        runs.iter().map(|run| (run["filters"].as_u64(), run["topics"].as_u64())).collect();
    let [few, many] = [Some(10_000), Some(100_000)];
    assert_eq!(sizes, [(few, few), (many, few), (many, many)]);
    for run in &runs {
        assert_loss_free(run);
        assert_valid(run);
        // Each message of the interval, by its intended time, is delivered twice.
        assert_eq!(run["latency_us"]["count"], 2 * messages_at(20_000), "{run}");
    }
}

#[test]
fn every_message_that_asks_is_acknowledged_in_its_turn() {
    for workload in ["T1", "T2", "K --topics 500"] {
        for every in [1, 7] {
            let runs = runs(&format!("--workload {workload} --rate 4k --ack {every}"));
            for run in runs {
                assert_loss_free(&run);
                assert_valid(&run);
                // Of several publishers' messages, each one's first asks.
                let sent = run["sent"].as_u64().expect("a count");
                let publishers = run["publishers"].as_u64().expect("a count");
                let asked = sent.div_ceil(every)..=sent.div_ceil(every) + publishers - 1;
                let acked = run["acked"].as_u64().expect("a count");
                assert!(asked.contains(&acked), "{run}");
                assert!(run["ack_latency_us"]["count"].as_u64() > Some(0), "{run}");
            }
        }
    }
    let unlimited = &runs("--workload T1 --ack")[0];
    assert_eq!(unlimited["acked"], unlimited["sent"]);
    assert!(unlimited["ack_latency_us"].is_null());
    assert!(runs("--workload T1")[0]["acked"].is_null());
}

#[test]
fn every_policy_is_passed_on() {
    for policy in ["drop-oldest", "drop-newest", "block", "disconnect"] {
        let options = format!("--workload T1 --policy {policy}");
        let run = &runs(&options)[0];
        assert_eq!(run["policy"], policy);
        assert_loss_free(run);
    }
}

#[test]
fn subscribers_that_acknowledge_lose_nothing() {
    for (workload, subscribers) in [("T1", 1), ("F16", 16)] {
        let run = &runs(&format!("--workload {workload} --counted"))[0];
        assert_loss_free(run);
        assert_valid(run);
        let sent = run["sent"].as_u64().expect("a count");
        let acks = run["stream_acks"].as_u64().expect("a count");
        // One for every 512 messages, or for those of 64 KiB: 372 of 176 bytes.
        assert!(acks > 0 && acks <= subscribers * sent.div_ceil(372), "{run}");
        assert!(run["resumed"].is_null() && run["resume_latency_us"].is_null());
    }
    assert!(runs("--workload T1")[0]["stream_acks"].is_null());
}

#[test]
fn subscribers_whose_connections_break_come_back_and_miss_nothing() {
    for options in [
        "--workload T1",
        "--workload T1 --transport unix",
        "--workload T1 --rate 20k --transport unix",
        "--workload T1 --io epoll",
        "--workload T1 --size 16K",
        "--workload T2 --shards 2",
        "--workload F16 --shards 2 --io epoll",
        "--workload K --topics 500 --order random",
    ] {
        let run = &runs(&format!("{options} --resume 50ms"))[0];
        assert_loss_free(run);
        assert_eq!(run["gaps"], 0, "{run}");
        assert!(run["resumed"].as_u64() >= run["subscribers"].as_u64(), "{run}");
        assert!(run["resume_latency_us"]["count"].as_u64() > Some(0), "{run}");
        assert_valid(run);
    }
}

#[test]
fn idle_clients_all_come_back_and_each_gets_its_message() {
    for transport in ["tcp", "unix"] {
        // More than one process of them.
        let run = &runs(&format!("--workload S --clients 3k --transport {transport}"))[0];
        assert_loss_free(run);
        assert_valid(run);
        assert_eq!(run["clients"], 3_000);
        assert_eq!(run["sent"], 3_000);
        for figure in ["connect_s", "reconnect_s", "user_bytes_per_client"] {
            assert!(run[figure].as_f64() > Some(0.0), "{figure} in {run}");
        }
    }
}

fn assert_keeps_idle_clients(target: &str) {
    let run = &runs(&format!("--target {target} --workload S --clients 300"))[0];
    assert_loss_free(run);
    assert_valid(run);
    assert_eq!((&run["clients"], &run["sent"]), (&300.into(), &300.into()));
    for figure in ["connect_s", "reconnect_s", "user_bytes_per_client"] {
        assert!(run[figure].as_f64() > Some(0.0), "{figure} in {run}");
    }
}

#[test]
#[ignore = "needs nats-server, redis-server and mosquitto: `cargo xtask test --only peers`"]
fn idle_clients_of_other_systems_come_back_and_each_gets_its_message() {
    ["nats", "redis", "mqtt"].into_iter().for_each(assert_keeps_idle_clients);
}

#[test]
#[ignore = "needs zenohd: `cargo xtask setup zenoh`, and then `cargo xtask test --only peers`"]
fn idle_clients_of_zenoh_come_back_and_each_gets_its_message() {
    assert_keeps_idle_clients("zenoh");
}

#[test]
fn idle_clients_end_with_the_generator_even_if_it_is_killed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let mut generator = Command::new(env!("CARGO_BIN_EXE_nexusd-loadgen"))
        .args(["--workload", "S", "--clients", "1", "--load-core", &cores().1])
        .args(["--addr", &address.to_string()])
        .spawn()
        .expect("the program starts");
    // The client says hello and gets no answer, so that everybody waits.
    let (mut client, _) = listener.accept().expect("a client");
    let mut hello = [0; 48];
    client.read_exact(&mut hello).expect("a hello");
    generator.kill().expect("it can be killed");
    generator.wait().expect("it ends");
    // The connection ends when the process of clients does.
    drop(std::io::copy(&mut client, &mut std::io::sink()));
}

/// What holds for nodes that found each other.
fn assert_converged(run: &Value, nodes: usize) {
    assert_eq!(run["nodes"].as_array().map(Vec::len), Some(nodes), "{run}");
    assert_eq!(run["routes"].as_u64(), Some((nodes * (nodes - 1)) as u64), "{run}");
    let converged_s = run["converged_s"].as_f64();
    assert!(converged_s > Some(0.0) && converged_s < Some(60.0), "{run}");
    assert!(run["converged_after_ready_s"].as_f64() < converged_s, "{run}");
}

#[test]
fn nodes_that_start_at_once_come_to_route_to_each_other() {
    for (options, discovery) in
        [("", "multicast"), ("--seed", "seed"), ("--transport unix --io epoll", "multicast")]
    {
        let run = &runs(&format!("--workload C --nodes 3 {options}"))[0];
        assert_converged(run, 3);
        assert_loss_free(run);
        assert_valid(run);
        assert_eq!(run["discovery"], discovery);
    }
}

#[test]
fn messages_pass_from_node_to_node_without_loss_and_each_node_has_its_own_cost() {
    for options in ["", "--nodes 3", "--seed --counted --size 1K", "--resume 50ms"] {
        let run = &runs(&format!("--workload M1 {options}"))[0];
        let nodes = if options == "--nodes 3" { 3 } else { 2 };
        assert_converged(run, nodes);
        assert_loss_free(run);
        assert_valid(run);
        for node in run["nodes"].as_array().expect("a list of nodes") {
            for figure in ["server_cpu_s", "messages_per_cpu_s", "server_rss_kb"] {
                assert!(node[figure].as_f64() > Some(0.0), "{figure} in {run}");
            }
            // What all cost together cannot bring more than what one did.
            assert!(node["messages_per_cpu_s"].as_f64() > run["messages_per_cpu_s"].as_f64());
        }
        assert_eq!(run["subscribe_to_first_ms"].as_f64() > Some(0.0), nodes == 2, "{run}");
    }
}

#[test]
fn latency_from_node_to_node_is_measured_for_every_message_of_the_interval() {
    let run = &runs("--workload M1 --rate 2k")[0];
    assert_loss_free(run);
    assert_eq!(run["latency_us"]["count"], messages_at(2_000));
}

#[test]
fn everybody_gets_what_is_published_at_every_node() {
    for options in ["", "--rate 3k --ack", "--resume 50ms"] {
        let run = &runs(&format!("--workload M3 {options}"))[0];
        assert_converged(run, 3);
        assert_loss_free(run);
        assert_valid(run);
        assert_eq!((&run["publishers"], &run["subscribers"]), (&3.into(), &3.into()));
    }
}

/// Nodes are started one after the other, and each has its own cost.
fn assert_passes_from_node_to_node(target: &str) {
    for (workload, nodes) in [("M1", 2), ("M3", 3)] {
        let run = &runs(&format!("--target {target} --workload {workload}"))[0];
        assert_converged(run, nodes);
        assert_loss_free(run);
        assert_eq!(
            (&run["valid"], &run["discovery"]),
            (&true.into(), &"addresses".into()),
            "{run}"
        );
        for node in run["nodes"].as_array().expect("a list of nodes") {
            assert!(node["server_cpu_s"].as_f64() > Some(0.0), "{run}");
        }
    }
}

#[test]
#[ignore = "needs nats-server: `cargo xtask test --only peers`"]
fn a_nats_cluster_passes_messages_from_server_to_server_without_loss() {
    assert_passes_from_node_to_node("nats");
}

#[test]
#[ignore = "needs zenohd: `cargo xtask setup zenoh`, and then `cargo xtask test --only peers`"]
fn zenoh_routers_pass_messages_from_one_to_another_without_loss() {
    assert_passes_from_node_to_node("zenoh");
}

/// Processes that this one has started, by their ids.
fn children_of(process: u32) -> Vec<String> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn nodes_end_with_the_generator_even_if_it_is_killed() {
    let (server_core, load_core) = cores();
    let mut generator = Command::new(env!("CARGO_BIN_EXE_nexusd-loadgen"))
        .args(["--workload", "M1", "--nodes", "3", "--rate", "10", "--duration", "60s"])
        .args(["--server-core", &server_core, "--load-core", &load_core])
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut nodes = Vec::new();
    while nodes.len() < 3 {
        nodes = children_of(generator.id());
        nodes.retain(|node| has_thread(node, "mesh"));
        assert!(Instant::now() < deadline, "{nodes:?}");
    }
    generator.kill().expect("it can be killed");
    generator.wait().expect("it ends");
    while nodes.iter().any(|node| is_generator(node)) {
        assert!(Instant::now() < deadline, "{nodes:?}");
    }
}

/// Whether that process has a thread of that name.
fn has_thread(process: &str, name: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    threads.into_iter().flatten().flatten().any(|thread| {
        std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    })
}

/// Whether that process still runs. Another one may have got its id.
fn is_generator(process: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/cmdline"))
        .is_ok_and(|line| line.contains("nexusd-loadgen\0serve"))
}

/// Waits until the process is no longer one whose command line has this in it.
fn assert_ends(process: &str, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let path = format!("/proc/{process}/cmdline");
    while std::fs::read_to_string(&path).is_ok_and(|line| line.contains(text)) {
        assert!(Instant::now() < deadline, "{process} still runs");
    }
}

#[test]
fn a_dependent_program_ends_with_its_parent_even_if_that_is_killed() {
    // The shell asks for a program that would outlive it, says its id, and waits.
    let script = format!(
        "'{}' dependent --parent $$ -- sleep 600 & echo $!; read line",
        env!("CARGO_BIN_EXE_nexusd-loadgen")
    );
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut lines = BufReader::new(shell.stdout.take().expect("its output")).lines();
    let process = lines.next().expect("a line").expect("an id");
    let deadline = Instant::now() + Duration::from_secs(10);
    let path = format!("/proc/{process}/comm");
    while !std::fs::read_to_string(&path).is_ok_and(|name| name.trim() == "sleep") {
        assert!(Instant::now() < deadline, "{process} never became another program");
    }
    shell.kill().expect("it can be killed");
    shell.wait().expect("it ends");
    assert_ends(&process, "sleep");
}

/// Starts the servers of other systems as a run does, and kills what started them.
fn assert_ends_with_its_starter(targets: &[(&str, &str)]) {
    for (target, program) in targets {
        let mut serve = Command::new(env!("CARGO_BIN_EXE_nexusd-loadgen"))
            .args(["serve", target])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(serve.stdout.take().expect("its output")).lines();
        let line = lines.next().expect("a line").expect("its addresses");
        let addresses: Value = serde_json::from_str(&line).expect("a JSON object");
        let process = addresses["pid"].to_string();
        let cmdline = std::fs::read_to_string(format!("/proc/{process}/cmdline"));
        assert!(cmdline.is_ok_and(|line| line.contains(program)), "{addresses}");
        serve.kill().expect("it can be killed");
        serve.wait().expect("it ends");
        assert_ends(&process, program);
    }
}

#[test]
#[ignore = "needs nats-server, redis-server and mosquitto: `cargo xtask test --only peers`"]
fn servers_of_others_end_with_the_process_that_started_them() {
    let targets = [("nats", "nats-server"), ("redis", "redis-server"), ("mqtt", "mosquitto")];
    assert_ends_with_its_starter(&targets);
}

#[test]
#[ignore = "needs zenohd: `cargo xtask setup zenoh`, and then `cargo xtask test --only peers`"]
fn a_zenoh_router_ends_with_the_process_that_started_it() {
    assert_ends_with_its_starter(&[("zenoh", "zenohd")]);
}

#[test]
fn bad_flags_end_with_one_sentence_and_code_2() {
    for arguments in [
        "--workload T1 --size 8",
        "--workload T1 --addr not-an-address",
        "--workload B --target pump",
        "--workload T1 --topics 7",
        "--workload W --target relay",
        "--workload T1 --target relay --ack",
        "--workload T1 --target relay --counted",
        "--workload B --resume",
        "--workload T1 --nodes 2",
        "--workload C --rate 5",
        "--target redis --workload M1",
        "--target mqtt --workload M3",
        "--target nats --workload C",
        "--target zenoh --workload Q",
        "--target zenoh --workload W",
        "--target nats --workload M1 --seed",
    ] {
        let output = loadgen_beside_others(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn a_core_this_process_may_not_use_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_nexusd-loadgen"))
        .args(["--workload", "T1", "--load-core", "1023"])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("core 1023"), "{errors}");
}

#[test]
fn a_server_that_is_not_there_is_named_in_one_sentence() {
    // A port that was free a moment ago, and that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    for target in ["nexusd", "relay"] {
        let output = loadgen(&format!("--target {target} --workload T1 --addr 127.0.0.1:{port}"));
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains(&format!("127.0.0.1:{port}")), "{errors}");
    }
}

#[test]
fn a_server_of_another_kind_is_told_apart() {
    // Accepts, and closes at once.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    let output = loadgen(&format!("--workload T1 --addr {address}"));
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("right kind of server"), "{errors}");
}

#[test]
fn a_payload_the_daemon_would_refuse_is_refused_before_the_run() {
    let output = loadgen("--workload T1 --size 5M");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("--max-payload"), "{errors}");
}

/// What a faulty server does to the frames of a publisher before it passes them on.
type Fault = fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>;

/// A server for `--target relay` with a fault: it collects `frames` frames, and passes on what the
/// fault makes of them. Returns its address.
fn faulty_relay(fault: Fault, frames: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        // The subscriber comes first; both are greeted by returning what they say.
        let mut ends = listener.incoming().map(|stream| {
            let mut stream = stream.expect("a connection");
            let mut greeting = [0; 8];
            stream.read_exact(&mut greeting).expect("a greeting");
            stream.write_all(&greeting).expect("it is taken");
            stream
        });
        let mut subscriber = ends.next().expect("a subscriber");
        let mut publisher = ends.next().expect("a publisher");
        let read: Vec<Vec<u8>> = (0..frames)
            .map(|_| {
                let mut frame = vec![0; 48 + 128];
                publisher.read_exact(&mut frame).expect("a frame");
                frame
            })
            .collect();
        subscriber.write_all(&fault(read).concat()).expect("they are taken");
        // The rest goes on unharmed, until the generator is done.
        drop(std::io::copy(&mut publisher, &mut subscriber));
    });
    address
}

#[test]
fn a_server_that_loses_duplicates_or_reorders_is_found_out() {
    let faults: [(&str, Fault); 3] = [
        ("lost", |mut frames| {
            frames.remove(7);
            frames
        }),
        ("duplicated", |mut frames| {
            frames.insert(7, frames[3].clone());
            frames
        }),
        ("reordered", |mut frames| {
            frames.swap(7, 8);
            frames
        }),
    ];
    for (name, fault) in faults {
        let address = faulty_relay(fault, 20);
        let runs = runs(&format!("--target relay --workload T1 --rate 1k --addr {address}"));
        assert_eq!(runs[0]["valid"], false, "{}", runs[0]);
        for fault in ["lost", "duplicated", "reordered"] {
            assert_eq!(runs[0][fault], u64::from(fault == name), "{}", runs[0]);
        }
    }
}

#[test]
fn a_rate_that_is_not_reached_is_not_valid() {
    let runs = runs("--target pump --workload T1 --size 1K --rate 900M");
    assert_eq!(runs[0]["valid"], false);
    let objections = runs[0]["objections"].to_string();
    assert!(objections.contains("of the offered rate"), "{objections}");
}
