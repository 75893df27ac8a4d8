//! What other nodes can reach of a daemon, and what of it an operator sees.
#![allow(dead_code, reason = "each test file uses its part of the harness")]

mod application;
mod running;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use application::Application;
use nexusd_wire::FrameKind;
use running::{Daemon, run};

/// Longest wait for anything a daemon should do soon.
const SOON: Duration = Duration::from_secs(20);

/// A port of multicast groups that no other test uses.
fn free_port() -> String {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    socket.local_addr().expect("bound").port().to_string()
}

/// A daemon on free ports of the loopback address, which other nodes can reach.
fn reachable(args: &[&str]) -> Daemon {
    let ports = ["--bind", "127.0.0.1", "--app-port", "0", "--mesh-port", "0"];
    Daemon::start_with(&[&ports, args].concat())
}

/// Statistics of the mesh, once they suit.
fn statistics(daemon: &Daemon, suit: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let mut watcher = Application::connect(daemon.told("tcp").parse().expect("an address"));
    watcher.subscribe(&format!("$SYS/{}/stats", daemon.told("node")));
    let deadline = Instant::now() + SOON;
    loop {
        let message = watcher.until(FrameKind::Message);
        let mut document: serde_json::Value =
            serde_json::from_slice(&message.payload).expect("JSON");
        let mesh = document["mesh"].take();
        if suit(&mesh) {
            return mesh;
        }
        assert!(Instant::now() < deadline, "{mesh}");
    }
}

#[test]
fn the_ready_line_says_where_other_nodes_connect_and_there_they_can() {
    let mut daemon = reachable(&["--discovery", "static"]);
    let address: SocketAddr = daemon.told("mesh").parse().expect("an address");
    assert_ne!(daemon.told("tcp"), daemon.told("mesh"));
    TcpStream::connect(address).expect("a listener");
    UdpSocket::bind(address).expect_err("beacons are received there");
    assert_eq!(daemon.terminate().0.code(), Some(0));
    UdpSocket::bind(address).expect("free after the end");
}

#[test]
fn a_daemon_on_its_own_is_not_reached_by_other_nodes() {
    let daemon = Daemon::start(&[]);
    assert_eq!(daemon.told("mesh"), "none");
    let mesh = statistics(&daemon, |_| true);
    assert!(mesh.is_null(), "{mesh}");
}

#[test]
fn a_mesh_port_in_use_is_one_sentence_and_exit_code_1() {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    for taken in [tcp.local_addr().expect("bound"), udp.local_addr().expect("bound")] {
        let port = taken.port().to_string();
        let args = ["--bind", "127.0.0.1", "--app-port", "0", "--mesh-port", &port];
        let output = run(&[&args[..], &["--log-level", "warn"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&format!("{taken}: the address is already in use")), "{stderr}");
    }
}

#[test]
fn a_group_port_in_use_is_one_sentence_and_exit_code_1() {
    let keeper = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let port = keeper.local_addr().expect("bound").port().to_string();
    let args = ["--bind", "127.0.0.1", "--app-port", "0", "--mesh-port", "0"];
    let output = run(&[&args[..], &["--mcast-port", &port, "--log-level", "error"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("UDP 239.255.42.1:{port}: ")), "{stderr}");
    assert!(stderr.contains("--mcast-port"), "{stderr}");
}

#[test]
fn a_daemon_says_on_which_interfaces_it_looks_for_others() {
    let mut daemon = reachable(&["--mcast-port", &free_port()]);
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("looked for by multicast on lo (127.0.0.1)"), "{log}");
}

#[test]
fn an_interface_that_is_not_there_is_no_reason_not_to_start() {
    let mut daemon = reachable(&["--interface", "not-there", "--mcast-port", &free_port()]);
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 2, "{log}");
    assert!(warnings[0].contains("interface not-there (--interface) is not there"), "{log}");
    assert!(warnings[1].contains("no interface can be used for multicast"), "{log}");
}

#[test]
fn the_key_of_the_cluster_is_not_in_the_log() {
    let key = "nobody knows it, nobody at all";
    let args = ["--cluster-key", key, "--log-level", "trace", "--mcast-port", &free_port()];
    let mut daemon = reachable(&args);
    let (_, log) = daemon.terminate();
    assert!(log.contains("cluster-key") && !log.contains(key), "{log}");
}
