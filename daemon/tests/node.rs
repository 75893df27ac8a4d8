//! A node as a library: started, spoken to, and ended inside the process of the test.
#![allow(dead_code, reason = "each test file uses its part of the harness")]

mod application;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use application::Application;
use nexusd::config::{DiscoveryMode, HttpPort, UnixSocket};
use nexusd::{Config, Node, StartError};
use nexusd_wire::FrameKind;

/// A node on its own, on a free port of the loopback address.
fn loopback() -> Config {
    Config {
        bind: vec![Ipv4Addr::LOCALHOST.into()],
        app_port: 0,
        health_port: HttpPort::At(0),
        metrics_port: HttpPort::At(0),
        discovery: DiscoveryMode::Off,
        ..Config::default()
    }
}

fn address(node: &Node) -> SocketAddr {
    *node.tcp_addresses().first().expect("an address")
}

#[test]
fn statistics_are_published_once_a_second() {
    let node = Node::start(loopback()).expect("a node");
    let mut subscriber = Application::connect(address(&node));
    let filter = format!("$SYS/{}/stats", node.node_id());
    subscriber.subscribe(&filter);
    let mut publisher = Application::connect(address(&node));
    publisher.publish("prices/wheat", b"250", 10);

    let mut document = || -> serde_json::Value {
        let message = subscriber.until(FrameKind::Message);
        serde_json::from_slice(&message.payload).expect("JSON")
    };
    let first = document();
    let second = document();
    assert_eq!(second["node"], node.node_id().to_string());
    assert_eq!(second["metrics"]["connections"], 2);
    assert_eq!(second["metrics"]["subscriptions"], 1);
    assert!(second["metrics"]["messages_in"].as_u64() >= Some(10), "{second}");
    assert!(second["rss_kb"].as_u64() > Some(0), "{second}");
    assert!(second["per_second"]["messages_in"].is_number(), "{second}");
    let uptime = |document: &serde_json::Value| document["uptime_s"].as_f64().expect("a number");
    let between = uptime(&second) - uptime(&first);
    assert!((0.9..5.0).contains(&between), "{between} s between two");
}

#[test]
fn a_drain_flushes_what_is_queued_for_a_slow_subscriber() {
    let node = Node::start(loopback()).expect("a node");
    let mut subscriber = Application::connect(address(&node));
    subscriber.subscribe("log");
    // More than the sockets between the two hold.
    let mut publisher = Application::connect(address(&node));
    publisher.publish("log", &[7; 4_096], 3_000);
    node.drain();
    publisher.until(FrameKind::Goodbye);
    for _ in 0..3_000 {
        subscriber.until(FrameKind::Message);
    }
    let stopped = node.wait().expect("a clean end");
    assert_eq!(stopped.unflushed_messages, 0);
    assert!(stopped.metrics.messages_out >= 3_000, "{stopped:?}");
}

#[test]
fn a_drain_ends_at_its_timeout_and_counts_what_was_left() {
    let config = Config { drain_timeout: Duration::from_millis(300), ..loopback() };
    let node = Node::start(config).expect("a node");
    let mut stuck = Application::connect(address(&node));
    stuck.subscribe("log");
    let mut publisher = Application::connect(address(&node));
    publisher.publish("log", &[7; 4_096], 3_000);
    let begun = Instant::now();
    node.drain();
    let stopped = node.wait().expect("a clean end");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(
        (1..3_000).contains(&stopped.unflushed_messages),
        "the sockets hold some, not all: {stopped:?}"
    );
}

#[test]
fn two_nodes_live_in_one_process_and_a_dropped_one_frees_its_port() {
    let one = Node::start(loopback()).expect("a node");
    let other = Node::start(loopback()).expect("a node");
    assert_ne!(one.node_id(), other.node_id());
    let freed = address(&one);
    let _client = Application::connect(freed);
    drop(one);
    let successor = Config { app_port: freed.port(), ..loopback() };
    let successor = Node::start(successor).expect("the port of the dropped node");
    assert_eq!(address(&successor), freed);
    Application::connect(address(&other));
}

#[test]
fn a_port_in_use_is_an_error_of_the_start() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let error = Node::start(Config { app_port: port, unix_socket: UnixSocket::None, ..loopback() })
        .expect_err("the port is taken");
    assert!(matches!(error, StartError::Listen { setting: "--app-port", .. }), "{error}");
}

#[test]
fn settings_made_in_code_are_checked() {
    let error = Node::start(Config { bind: Vec::new(), ..loopback() }).expect_err("no address");
    assert!(matches!(error, StartError::Config(_)), "{error}");
}
