//! The life of a daemon process, from the ready line to the exit code.
#![allow(dead_code, reason = "each test file uses its part of the harness")]

mod application;
mod running;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;

use application::Application;
use nexusd_wire::FrameKind;
use running::{Daemon, run};
use rustix::process::Signal;

#[test]
fn the_ready_line_says_where_everything_is() {
    let mut daemon = Daemon::start(&["--cluster", "blue", "--shards", "3"]);
    let line = daemon.ready_line.clone();
    let address: SocketAddr = daemon.told("tcp").parse().expect("an address");
    assert_ne!(address.port(), 0);
    assert_eq!(daemon.told("unix"), format!("@nexusd/{}", address.port()));
    assert_eq!(daemon.told("node").len(), 32);
    assert_eq!(
        line,
        format!(
            "NexusD is ready tcp={address} unix=@nexusd/{} mesh=none health=none metrics=none node={} cluster=blue \
             version={} shards=3 io={}",
            address.port(),
            daemon.told("node"),
            env!("CARGO_PKG_VERSION"),
            daemon.told("io"),
        )
    );
    assert!(["uring", "epoll"].contains(&daemon.told("io")), "{line}");
    TcpStream::connect(address).expect("a listener");
    let name = format!("nexusd/{}", address.port());
    let name = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name");
    UnixStream::connect_addr(&name).expect("a listener");
    let (_, log) = daemon.terminate();
    assert!(log.contains(&line), "the log has it too: {log}");
}

#[test]
fn a_time_that_is_shorter_than_it_looks_is_logged_at_the_start() {
    let mut daemon = Daemon::start(&["--drain-timeout", "10"]);
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    let [warning] = warnings[..] else { panic!("one warning: {log}") };
    assert!(warning.contains("flag --drain-timeout: \"10\" is 10ms: "), "{warning}");
}

#[test]
fn every_address_of_bind_is_listened_on() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(
        file,
        "bind = ['127.0.0.2', '::1']\napp-port = 0\nmesh-port = 0\nunix-socket = 'none'"
    )
    .expect("space");
    let daemon = Daemon::start_with(&["--config", &file.path().to_string_lossy()]);
    assert_eq!(daemon.told("unix"), "none");
    let addresses: Vec<SocketAddr> =
        daemon.told("tcp").split(',').map(|address| address.parse().expect("an address")).collect();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        TcpStream::connect(address).expect("a listener");
    }
}

#[test]
fn sigterm_ends_it_with_success() {
    let mut daemon = Daemon::start(&[]);
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("NexusD has ended"), "{log}");
}

#[test]
fn sigint_ends_it_with_success() {
    let mut daemon = Daemon::start(&[]);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.end().0.code(), Some(0));
}

#[test]
fn a_second_daemon_on_the_same_port_is_refused_with_exit_code_1() {
    let mut first = Daemon::start(&["--unix-socket", "none"]);
    let address: SocketAddr = first.told("tcp").parse().expect("an address");
    let port = address.port().to_string();
    let args = ["--bind", "127.0.0.1", "--app-port", &port, "--discovery", "off"];
    let second = run(&[&args[..], &["--log-level", "warn"]].concat());
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert!(stderr.starts_with(&format!("nexusd: cannot listen on {address}: ")), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(first.terminate().0.code(), Some(0), "the first one lives on");
}

#[test]
fn all_ports_that_are_taken_are_told_at_once() {
    let taken = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a port"));
    let [app, health, metrics] = taken.each_ref().map(|it| it.local_addr().expect("bound"));
    let port = |address: SocketAddr| address.port().to_string();
    let output = run(&[
        &["--bind", "127.0.0.1", "--discovery", "off", "--app-port", &port(app)][..],
        &["--health-port", &port(health), "--metrics-port", &port(metrics)],
    ]
    .concat());
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "nexusd: cannot listen on {app} (--app-port), {health} (--health-port), {metrics} (--metrics-port): these \
         addresses are already in use; stop the program that uses them or choose others\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}

#[test]
fn who_listens_beyond_this_host_is_warned_once() {
    let args = ["--bind", "0.0.0.0", "--app-port", "0", "--discovery", "off"];
    let mut daemon = Daemon::start_with(&args);
    let port = daemon.told("tcp").rsplit(':').next().expect("a port").to_owned();
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    let [warning] = warnings[..] else { panic!("one warning: {log}") };
    let told = format!("no authentication yet: whoever reaches port {port} may publish");
    assert!(warning.contains(&told), "{warning}");
}

#[test]
fn the_port_is_free_again_after_the_end() {
    let mut first = Daemon::start(&[]);
    let address = first.told("tcp").to_owned();
    // A connection that the daemon closes first would hold the port without SO_REUSEADDR.
    let _client = TcpStream::connect(&*address).expect("a listener");
    assert_eq!(first.terminate().0.code(), Some(0));
    let port = address.rsplit(':').next().expect("a port");
    let second =
        Daemon::start_with(&["--bind", "127.0.0.1", "--app-port", port, "--discovery", "off"]);
    assert_eq!(second.told("tcp"), address);
}

#[test]
fn a_socket_file_is_listened_on_and_removed_in_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nexusd.sock");
    let mut daemon = Daemon::start(&["--unix-socket", &path.to_string_lossy()]);
    assert_eq!(daemon.told("unix"), path.to_string_lossy());
    UnixStream::connect(&path).expect("a listener");
    assert_eq!(daemon.terminate().0.code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn the_ready_line_appears_even_when_nothing_is_logged() {
    let mut daemon = Daemon::start(&["--log-level", "off"]);
    assert!(daemon.ready_line.starts_with("NexusD is ready tcp=127.0.0.1:"));
    let (status, log) = daemon.terminate();
    assert_eq!((status.code(), &*log), (Some(0), ""));
}

#[test]
fn json_logs_are_an_object_per_line() {
    let mut daemon = Daemon::start(&["--log-format", "json", "--log-level", "debug"]);
    let ready_line = daemon.ready_line.clone();
    let (_, log) = daemon.terminate();
    let events: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("JSON: {line}")))
        .collect();
    assert!(events.iter().any(|event| event["message"] == *ready_line), "{log}");
    for event in &events {
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{event}");
    }
}

#[test]
fn connections_leave_no_trace_in_the_log_at_info() {
    let mut daemon = Daemon::start(&["--log-level", "info"]);
    for _ in 0..50 {
        TcpStream::connect(daemon.told("tcp")).expect("a listener");
    }
    let (_, log) = daemon.terminate();
    assert!(log.lines().count() < 10, "{log}");
}

#[test]
fn a_memory_limit_beyond_the_hosts_memory_is_warned_about() {
    for (limit, count) in [("100000G", 1), ("64M", 0)] {
        let mut daemon = Daemon::start(&["--memory-limit", limit]);
        let (_, log) = daemon.terminate();
        let warnings = log.lines().filter(|line| line.contains("--memory-limit is")).count();
        assert_eq!(warnings, count, "{log}");
    }
}

#[test]
fn a_limit_on_files_below_max_connections_is_warned_about_once() {
    let mut daemon = Daemon::start(&["--max-connections", "1000000"]);
    let (_, log) = daemon.terminate();
    let warnings = log.lines().filter(|line| line.contains("--max-connections 1000000")).count();
    assert_eq!(warnings, 1, "{log}");
}

#[test]
fn what_subscribers_did_not_take_in_time_is_logged() {
    let mut daemon = Daemon::start(&["--drain-timeout", "200ms", "--subscriber-queue-limit", "0"]);
    let address: SocketAddr = daemon.told("tcp").parse().expect("an address");
    let mut stuck = Application::connect(address);
    stuck.subscribe("log");
    let mut publisher = Application::connect(address);
    publisher.publish("log", &[7; 4_096], 3_000);
    let (status, log) = daemon.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    let line = log.lines().find(|line| line.contains("WARN"));
    assert!(line.is_some_and(|line| line.contains("messages=")), "{log}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut daemon = Daemon::start(&["--drain-timeout", "1h", "--subscriber-queue-limit", "0"]);
    let address: SocketAddr = daemon.told("tcp").parse().expect("an address");
    let mut stuck = Application::connect(address);
    stuck.subscribe("log");
    let mut publisher = Application::connect(address);
    publisher.publish("log", &[7; 4_096], 3_000);
    daemon.signal(Signal::TERM);
    publisher.until(FrameKind::Goodbye);
    let (status, _) = daemon.terminate();
    assert_eq!(status.code(), Some(128 + 15));
}

#[test]
fn with_json_logs_a_fault_of_the_start_is_an_event() {
    let args = ["--bind", "192.0.2.1", "--app-port", "0", "--log-format", "json"];
    let output = run(&[&args[..], &["--log-level", "error"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let event: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert_eq!(event["level"], "ERROR");
    assert_eq!(event["message"], "cannot listen on 192.0.2.1:0: this host has no such address");
}

#[test]
fn an_idle_daemon_takes_less_than_16_mib_and_1_percent_of_a_cpu() {
    let daemon = Daemon::start(&[]);
    let mut watcher = Application::connect(daemon.told("tcp").parse().expect("an address"));
    watcher.subscribe("$SYS/+/stats");
    let mut document = || -> serde_json::Value {
        let message = watcher.until(FrameKind::Message);
        serde_json::from_slice(&message.payload).expect("JSON")
    };
    // The first one looks back on the start.
    document();
    let idle = document();
    assert!(idle["rss_kb"].as_u64().is_some_and(|kb| kb < 16 << 10), "{idle}");
    // What else runs on the machine can only add to a second's share.
    let mut shares = vec![idle];
    while shares.len() < 8
        && shares.last().is_some_and(|idle| idle["cpu_percent"].as_f64() >= Some(1.0))
    {
        shares.push(document());
    }
    let least = shares.last().and_then(|idle| idle["cpu_percent"].as_f64());
    assert!(least.is_some_and(|percent| percent < 1.0), "{shares:?}");
}
