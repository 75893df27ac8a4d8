//! What operators ask a running daemon, over HTTP and over gRPC, and what they can do to it.
#![allow(dead_code, reason = "each test file uses its part of the harness")]

#[path = "../application/mod.rs"]
mod application;
mod description;
#[path = "../running/mod.rs"]
mod running;
mod sidecar;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use application::Application;
use nexusd_admin::proto::admin_service_client::AdminServiceClient;
use nexusd_admin::proto::{
    GetInfoRequest, GetTopologyRequest, KillClientRequest, ListClientsRequest, ListPeersRequest,
    ListSubscriptionsRequest, ListTopicsRequest,
};
use nexusd_grpc::proto::{GetTopicsRequest, GetTopicsResponse};
use nexusd_wire::FrameKind;
use running::Daemon;
use rustix::process::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for anything a daemon should do soon.
const SOON: Duration = Duration::from_secs(20);

/// What came back: the status, the head, and the body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {:?}", self.body))
    }
}

/// Says these bytes, and hears until the other side closes.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    // It may be closed before all is said.
    let _ = stream.write_all(bytes);
    let mut heard = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut heard);
    String::from_utf8_lossy(&heard).into_owned()
}

fn call_with(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let heard = exchange(address, request.as_bytes());
    let (head, body) = heard.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{heard:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let headers = format!("Host: {address}\r\nContent-Type: application/json\r\n");
    call_with(address, method, path, &headers, body)
}

fn get(address: SocketAddr, path: &str) -> Value {
    let answer = call(address, "GET", path, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn health(daemon: &Daemon) -> SocketAddr {
    daemon.told("health").parse().expect("one address")
}

fn metrics(daemon: &Daemon) -> SocketAddr {
    daemon.told("metrics").parse().expect("one address")
}

fn apps(daemon: &Daemon) -> SocketAddr {
    daemon.told("tcp").parse().expect("one address")
}

/// Asks again until the answer suits.
fn eventually(what: &str, mut ask: impl FnMut() -> Value, suits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let answer = ask();
        if suits(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: {answer}");
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

async fn admin(address: SocketAddr) -> AdminServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    AdminServiceClient::new(endpoint.connect().await.expect("a connection"))
}

/// Free ports for HTTP.
const PORTS: [&str; 4] = ["--health-port", "0", "--metrics-port", "0"];

/// A daemon on its own that serves HTTP.
fn start(args: &[&str]) -> Daemon {
    Daemon::start(&[&PORTS[..], args].concat())
}

/// A daemon that other nodes can reach, and that serves HTTP.
fn start_node(args: &[&str]) -> Daemon {
    let flags =
        ["--bind", "127.0.0.1", "--app-port", "0", "--mesh-port", "0", "--discovery", "static"];
    Daemon::start_with(&[&flags[..], &PORTS, args].concat())
}

/// A daemon with a subscriber and a publisher, whose messages have come.
fn with_traffic(args: &[&str]) -> (Daemon, Application, Application) {
    let daemon = start(args);
    let (subscriber, publisher) = exchange_messages(&daemon);
    (daemon, subscriber, publisher)
}

fn exchange_messages(daemon: &Daemon) -> (Application, Application) {
    let mut subscriber = Application::connect(apps(daemon));
    subscriber.subscribe("prices/#");
    let mut publisher = Application::connect(apps(daemon));
    publisher.publish("prices/wheat", b"250", 3);
    for _ in 0..3 {
        subscriber.until(FrameKind::Message);
    }
    (subscriber, publisher)
}

#[test]
fn lists_show_what_there_is() {
    let (daemon, mut subscriber, _publisher) = with_traffic(&["--shards", "2"]);
    let health = health(&daemon);
    let topics = get(health, "/api/v1/topics?filter=prices/%23");
    assert_eq!(
        topics,
        json!({"is_truncated": false, "topics": [{
            "name": "prices/wheat", "subscriptions": 1, "messages": 3, "is_retained": false, "peers": 0,
        }]})
    );
    let subscriptions = get(health, "/api/v1/subscriptions");
    let listed = &subscriptions["subscriptions"][0];
    assert_eq!(listed["filters"], json!(["prices/#"]));
    assert_eq!((&listed["sent_messages"], &listed["state"]), (&json!(3), &json!("connected")));
    let clients = get(health, "/api/v1/clients");
    let clients = clients["clients"].as_array().expect("a list");
    assert_eq!(clients.len(), 2);
    let publisher = clients.iter().find(|client| client["messages_in"] == 3).expect("a publisher");
    assert_eq!((&publisher["name"], &publisher["protocol"]), (&json!("test"), &json!("native")));
    let reader = clients.iter().find(|client| client["messages_out"] == 3).expect("a subscriber");
    assert_eq!(reader["client_id"], listed["client_id"]);
    let id = reader["client_id"].as_str().expect("an id");

    let one = get(health, &format!("/api/v1/clients?client_id={id}"));
    assert_eq!(one["clients"][0]["client_id"], reader["client_id"]);
    let nobody = get(health, "/api/v1/clients?client_id=63-0-0");
    assert_eq!(nobody["clients"], json!([]));
    let first = get(health, "/api/v1/clients?limit=1");
    assert_eq!(first["clients"].as_array().map(Vec::len), Some(1));
    assert_eq!(first["is_truncated"], true);

    let renamed =
        call(health, "POST", &format!("/api/v1/clients/{id}/name"), r#"{"name":"reader"}"#);
    assert_eq!(renamed.json(), json!({"is_renamed": true}));
    let one = get(health, &format!("/api/v1/clients?client_id={id}"));
    assert_eq!(one["clients"][0]["name"], "reader");
    let killed = call(health, "POST", &format!("/api/v1/clients/{id}/kill"), "");
    assert_eq!(killed.json(), json!({"is_killed": true}));
    subscriber.until(FrameKind::Error);
    let gone = || {
        let path = format!("/api/v1/clients/{id}/kill");
        json!(call(health, "POST", &path, "").status)
    };
    eventually("it is gone", gone, |status| *status == 404);
    let parked = get(health, "/api/v1/subscriptions");
    assert_eq!(parked["subscriptions"][0]["state"], "parked");
}

#[test]
fn a_daemon_tells_who_it_is_and_where_its_settings_come_from() {
    let daemon = start(&["--max-topics", "1234", "--cluster-key", "sixteen bytes and more"]);
    let info = get(health(&daemon), "/api/v1/info");
    let server = &info["server"];
    assert_eq!(server["node_id"], daemon.told("node"));
    assert_eq!(
        (&server["state"], &server["version"]),
        (&json!("running"), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(server["app_addresses"], json!([daemon.told("tcp")]));
    assert_eq!(server["unix_socket"], daemon.told("unix"));
    assert!(info["memory"]["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20));
    let setting = |name: &str| {
        let settings = info["config"].as_array().expect("settings");
        settings.iter().find(|setting| setting["name"] == name).expect(name).clone()
    };
    let expected = |name, value, source, is_reloadable| json!({"name": name, "value": value, "source": source, "is_reloadable": is_reloadable});
    assert_eq!(setting("max-topics"), expected("max-topics", "1234", "flag", true));
    assert_eq!(setting("health-port"), expected("health-port", "0", "flag", false));
    assert_eq!(setting("log-level"), expected("log-level", "info", "default", true));
    assert_eq!(setting("cluster-key"), expected("cluster-key", "set", "flag", false));
    assert!(!info.to_string().contains("sixteen bytes"), "a secret is not told");
    let stats = info["stats"].as_array().expect("statistics");
    assert!(
        stats.iter().all(|metric| metric["help"].as_str().is_some_and(|help| !help.is_empty()))
    );
}

#[test]
fn a_draining_daemon_lives_and_is_not_ready() {
    let daemon = start(&["--drain-timeout", "20s"]);
    let address = health(&daemon);
    for path in ["/livez", "/healthz", "/readyz"] {
        assert_eq!(call(address, "GET", path, "").status, 200, "{path}");
    }
    // A subscriber that takes nothing more keeps the drain going.
    let mut subscriber = Application::connect(apps(&daemon));
    subscriber.subscribe("t");
    let mut publisher = Application::connect(apps(&daemon));
    publisher.publish("t", &vec![7; 1 << 20], 12);
    let queued = || get(address, "/api/v1/info")["memory"]["queued_bytes"].clone();
    eventually("it is queued", queued, |bytes| bytes.as_u64().is_some_and(|bytes| bytes > 0));
    let drained = call(address, "POST", "/api/v1/drain", "");
    assert_eq!(drained.json(), json!({"was_running": true}));
    assert_eq!(call(address, "POST", "/api/v1/drain", "").json(), json!({"was_running": false}));
    let ready = call(address, "GET", "/readyz", "");
    assert_eq!((ready.status, &ready.json()["state"]), (503, &json!("draining")));
    assert_eq!(call(address, "GET", "/healthz", "").status, 200);
    assert_eq!(call(address, "GET", "/livez", "").status, 200);
}

#[test]
fn a_web_page_changes_nothing() {
    let daemon = start(&[]);
    let address = health(&daemon);
    for headers in [
        "Host: evil.example\r\n".to_owned(),
        format!("Host: {address}\r\nOrigin: http://evil.example\r\n"),
        format!("Host: {address}\r\nOrigin: null\r\n"),
        format!("Host: {address}\r\nSec-Fetch-Site: cross-site\r\n"),
    ] {
        let answer = call_with(address, "POST", "/api/v1/drain", &headers, "");
        assert_eq!(answer.status, 403, "{headers}");
        assert!(answer.json()["error"].as_str().is_some_and(|said| said.contains("web page")));
    }
    assert_eq!(call(address, "GET", "/readyz", "").status, 200, "it was not drained");
    let own = format!("Host: {address}\r\nOrigin: http://{address}\r\n");
    assert_eq!(call_with(address, "POST", "/api/v1/drain", &own, "").status, 200);
}

#[test]
fn hostile_bytes_harm_nobody() {
    let daemon = start(&[]);
    let address = health(&daemon);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    assert!(!exchange(address, long.as_bytes()).contains(" 200 "));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1_000));
    assert!(!exchange(address, many.as_bytes()).contains(" 200 "));
    let large = call(address, "POST", "/api/v1/log-level", &"x".repeat(1 << 20));
    assert_eq!(large.status, 413, "{}", large.body);
    exchange(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    exchange(address, &[0xff; 4_096]);
    exchange(
        address,
        b"POST /api/v1/log-level HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    );
    assert_eq!(call(address, "GET", "/readyz", "").status, 200);
}

/// A connection from another address of this host.
fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this host");
    socket.connect(&address.into()).expect("a listener");
    socket.into()
}

#[test]
fn one_source_that_holds_connections_open_leaves_room_for_others() {
    let daemon = start(&[]);
    let address = health(&daemon);
    let held: Vec<_> = (0..100).map(|_| connect_from([127, 0, 0, 2], address)).collect();
    // One beyond the share is told so at once, and closed.
    let refused = held.iter().rev().take(84).map(|mut stream| {
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("a clean end");
        said
    });
    for said in refused {
        assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("too many"), "{said:?}");
    }
    assert_eq!(call(address, "GET", "/readyz", "").status, 200, "another source is served");
    drop(held);
}

#[test]
fn questions_that_nobody_waits_for_hold_nobody_up() {
    let (daemon, _subscriber, _publisher) = with_traffic(&[]);
    let address = health(&daemon);
    for number in 0..600 {
        let path = ["/healthz", "/api/v1/topics", "/api/v1/info"][number % 3];
        let mut stream = TcpStream::connect(address).expect("a listener");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it is read");
    }
    // Those that have gone may still have their places.
    let lists = || {
        let answer = call(address, "GET", "/api/v1/topics?filter=prices/%23", "");
        if answer.status == 200 { answer.json() } else { Value::Null }
    };
    eventually("topics are listed", lists, |topics| topics["topics"][0]["name"] == "prices/wheat");
    assert_eq!(call(address, "GET", "/healthz", "").status, 200);
}

#[test]
fn what_only_this_host_can_reach_is_not_shown_under_a_public_name() {
    let daemon = start(&[]);
    let address = health(&daemon);
    let other = "Host: rebound.example:8080\r\n";
    let refused = call_with(address, "GET", "/api/v1/info", other, "");
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(refused.body.contains("rebound.example"), "{}", refused.body);
    for (path, host) in [("/api/v1/info", "node-7:8080"), ("/livez", "rebound.example:8080")] {
        let answer = call_with(address, "GET", path, &format!("Host: {host}\r\n"), "");
        assert_eq!(answer.status, 200, "{path} {host}: {}", answer.body);
    }
}

#[test]
fn metrics_are_what_the_daemon_counted() {
    let (daemon, _subscriber, _publisher) = with_traffic(&["--metrics-path", "/m/etrics"]);
    let address = metrics(&daemon);
    let page = call(address, "GET", "/m/etrics", "");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/plain; version=0.0.4"), "{}", page.head);
    for line in [
        "nexusd_published_messages_total 3",
        "nexusd_delivered_messages_total 3",
        "nexusd_forwarded_messages_total 0",
        "nexusd_dropped_messages_total{reason=\"slow_consumer\"} 0",
        "nexusd_connections 2",
        "nexusd_subscriptions 1",
        "# TYPE nexusd_queued_bytes gauge",
    ] {
        assert!(page.body.lines().any(|it| it == line), "{line} in {}", page.body);
    }
    assert_eq!(call(address, "GET", "/metrics", "").status, 404);
    assert_eq!(call(address, "GET", "/api/v1/info", "").status, 404, "that is another port");
}

#[test]
fn connections_of_grpc_beyond_a_sources_share_are_counted() {
    let daemon = start(&[]);
    let at = metrics(&daemon);
    let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let held: Vec<_> = (0..260)
        .map(|_| {
            let mut stream = TcpStream::connect(apps(&daemon)).expect("a listener");
            // One beyond the share may be closed by then.
            let _ = stream.write_all(&hello);
            stream
        })
        .collect();
    let refused = || {
        let page = call(at, "GET", "/metrics", "").body;
        let line =
            page.lines().find(|line| line.starts_with("nexusd_refused_grpc_connections_total"));
        Value::from(line.expect("a metric").rsplit(' ').next().expect("a value"))
    };
    eventually("four are counted", refused, |count| count == "4");
    drop(held);
}

#[test]
fn ports_that_are_off_are_not_there() {
    let flags = ["--health-port", "off", "--metrics-port", "0", "--metrics-enabled", "false"];
    let daemon = Daemon::start(&flags);
    assert_eq!((daemon.told("health"), daemon.told("metrics")), ("none", "none"));
}

#[test]
fn a_taken_port_is_one_clear_sentence() {
    let first = start(&[]);
    let port = health(&first).port().to_string();
    let flags = [&running::ALONE[..], &["--health-port", &port]].concat();
    let refused = running::run(&flags);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        said,
        format!(
            "nexusd: cannot listen on 127.0.0.1:{port}: the address is already in use; stop the \
             program that uses it or choose another --health-port\n"
        )
    );
}

#[test]
fn what_is_logged_changes_while_it_runs() {
    let mut daemon = start(&["--log-level", "warn"]);
    let address = health(&daemon);
    assert_eq!(get(address, "/api/v1/log-level"), json!({"level": "warn"}));
    let changed = call(address, "POST", "/api/v1/log-level", r#"{"level": "info"}"#);
    assert_eq!(changed.json(), json!({"level": "info"}));
    assert_eq!(get(address, "/api/v1/log-level"), json!({"level": "info"}));
    let (_, log) = daemon.terminate();
    assert!(log.contains("draining"), "what was not logged at first is now: {log}");
}

#[test]
fn a_changed_file_is_read_again_and_what_needs_a_restart_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nexusd.toml");
    let write = |text: &str| std::fs::write(&path, text).expect("a file");
    write("log-level = 'info'\nmax-payload = '1M'\n");
    let daemon = start(&["--config", path.to_str().expect("UTF-8")]);
    let address = health(&daemon);
    let reload = || call(address, "POST", "/api/v1/reload", "");
    assert_eq!(reload().json(), json!({"applied": [], "need_restart": []}));
    write("log-level = 'debug'\nmax-payload = '2M'\ncluster-key = 'sixteen bytes and more'\n");
    assert_eq!(
        reload().json(),
        json!({"applied": ["log-level"], "need_restart": ["cluster-key", "max-payload"]})
    );
    assert_eq!(get(address, "/api/v1/log-level"), json!({"level": "debug"}));
    write("max-topics = 'many'\n");
    let refused = reload();
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("max-topics"), "{}", refused.body);
    assert_eq!(get(address, "/api/v1/log-level"), json!({"level": "debug"}), "nothing changed");
}

#[test]
fn sighup_reads_the_file_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nexusd.toml");
    let write = |text: &str| std::fs::write(&path, text).expect("a file");
    write("");
    let mut daemon = start(&["--config", path.to_str().expect("UTF-8")]);
    let address = health(&daemon);
    write("log-level = 'debug'\n");
    daemon.signal(Signal::HUP);
    let level = || get(address, "/api/v1/log-level");
    eventually("it is read", level, |level| *level == json!({"level": "debug"}));
    let (status, _) = daemon.terminate();
    assert!(status.success());
}

#[test]
fn limits_that_a_file_changes_hold_for_what_comes_from_then_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nexusd.toml");
    let write = |text: &str| std::fs::write(&path, text).expect("a file");
    write("subscriber-queue-bytes = '1M'\n");
    let daemon = start(&["--shards", "2", "--config", path.to_str().expect("UTF-8")]);
    let address = health(&daemon);
    let mut subscribers =
        [Application::connect(apps(&daemon)), Application::connect(apps(&daemon))];
    subscribers[0].subscribe("a");
    write(
        "subscriber-queue-bytes = '7K'\nbackpressure-policy = 'drop-newest'\ndrain-timeout = '3s'\n",
    );
    let applied = ["drain-timeout", "subscriber-queue-bytes", "backpressure-policy"];
    let answer = call(address, "POST", "/api/v1/reload", "").json();
    assert_eq!(answer, json!({"applied": applied, "need_restart": []}));
    subscribers[1].subscribe("b");
    let listed = get(address, "/api/v1/subscriptions");
    let limits = |filter: &str| {
        let all = listed["subscriptions"].as_array().expect("a list");
        let one = all.iter().find(|one| one["filters"] == json!([filter])).expect("a subscription");
        (one["limit_bytes"].clone(), one["policy"].clone())
    };
    assert_eq!(limits("a"), (json!(1 << 20), json!("drop-oldest")), "it keeps what it began with");
    assert_eq!(limits("b"), (json!(7 << 10), json!("drop-newest")));
    let info = get(address, "/api/v1/info");
    let settings = info["config"].as_array().expect("settings");
    let named = |name: &str| settings.iter().find(|it| it["name"] == name).expect(name).clone();
    assert_eq!(
        named("subscriber-queue-bytes"),
        json!({"name": "subscriber-queue-bytes", "value": "7K", "source": "file", "is_reloadable": true})
    );
    write("");
    call(address, "POST", "/api/v1/reload", "");
    let info = get(address, "/api/v1/info");
    let settings = info["config"].as_array().expect("settings");
    let back =
        settings.iter().find(|it| it["name"] == "subscriber-queue-bytes").expect("it is there");
    assert_eq!((&back["value"], &back["source"]), (&json!("16M"), &json!("default")));
}

#[test]
fn grpc_answers_the_same() {
    let (daemon, mut subscriber, _publisher) = with_traffic(&[]);
    block_on(async {
        let mut admin = admin(apps(&daemon)).await;
        let info = admin.get_info(GetInfoRequest {}).await.expect("an answer").into_inner();
        let server = info.server.expect("who it is");
        assert_eq!((server.node_id.as_str(), server.topics), (daemon.told("node"), 1));
        let all = ListTopicsRequest { filter: "prices/+".to_owned(), limit: 0 };
        let topics = admin.list_topics(all).await.expect("an answer").into_inner().topics;
        assert_eq!((topics[0].name.as_str(), topics[0].messages), ("prices/wheat", 3));
        let many = ListTopicsRequest { filter: String::new(), limit: 10_001 };
        let refused = admin.list_topics(many).await.expect_err("too many");
        assert_eq!(refused.code(), Code::InvalidArgument);
        let clients = admin.list_clients(ListClientsRequest::default()).await.expect("an answer");
        let clients = clients.into_inner().clients;
        let reader = clients.iter().find(|client| client.messages_out == 3).expect("a subscriber");
        let kill = KillClientRequest { client_id: reader.client_id.clone() };
        assert!(admin.kill_client(kill).await.expect("from this host").into_inner().is_killed);
    });
    subscriber.until(FrameKind::Error);
}

#[test]
fn a_list_too_long_for_a_grpc_client_is_cut_and_says_so() {
    let daemon = start(&[]);
    let mut subscriber = Application::connect(apps(&daemon));
    let long = "x".repeat(200);
    for number in 0..16 {
        let filters: Vec<_> = (0..1_000).map(|at| format!("{number}/{at}/{long}")).collect();
        subscriber.subscribe_to(&filters.iter().map(String::as_str).collect::<Vec<_>>());
    }
    block_on(async {
        let mut admin = admin(apps(&daemon)).await;
        let request = ListSubscriptionsRequest { limit: 10_000 };
        let listed = admin.list_subscriptions(request).await.expect("not too long").into_inner();
        let count = listed.subscriptions.len();
        assert!(listed.is_truncated && (1..16).contains(&count), "{count}");
        let endpoint = Endpoint::from_shared(format!("http://{}", apps(&daemon)));
        let channel = endpoint.expect("an address").connect().await.expect("a connection");
        let mut sidecar = tonic::client::Grpc::new(channel);
        sidecar.ready().await.expect("a connection");
        // The client made for tests bounds the fields of what it reads, as the daemon does.
        let codec = tonic_prost::ProstCodec::<_, GetTopicsResponse>::default();
        let asked = tonic::Request::new(GetTopicsRequest { include_counts: true });
        let path = PathAndQuery::from_static("/nexusd.sidecar.SidecarService/GetTopics");
        let topics = sidecar.unary(asked, path, codec).await.expect("not too long").into_inner();
        let count = topics.topics.len();
        assert!(topics.is_truncated && (10_000..16_000).contains(&count), "{count}");
    });
}

#[test]
fn a_node_that_stands_still_is_named_with_a_reason_and_holds_nobody_up() {
    let first = start_node(&[]);
    let peers = ["--peers", first.told("mesh")];
    let (second, still) = (start_node(&peers), start_node(&peers));
    let at = health(&first);
    let is_whole = |topology: &Value| {
        let nodes = topology["nodes"].as_array().expect("a list");
        nodes.len() == 3 && nodes.iter().all(|node| node["error"] == "")
    };
    eventually("all are there", || get(at, "/api/v1/topology"), is_whole);
    let error = |topology: &Value, id: &str| {
        let nodes = topology["nodes"].as_array().expect("a list");
        nodes.iter().find(|node| node["node_id"] == id).expect("a node")["error"].clone()
    };
    still.signal(Signal::STOP);
    // Its threads stop one by one, so the first question may still be answered.
    let is_named = |topology: &Value| error(topology, still.told("node")) != "";
    let topology = eventually("it is named", || get(at, "/api/v1/topology"), is_named);
    still.signal(Signal::CONT);
    assert_eq!(error(&topology, still.told("node")), "it did not answer within 1s");
    assert_eq!(error(&topology, second.told("node")), "");
}

#[test]
fn nodes_see_each_other_and_any_of_them_shows_the_whole_mesh() {
    let first = start_node(&[]);
    let peers = ["--peers", first.told("mesh")];
    let (second, third) = (start_node(&peers), start_node(&peers));
    let mut subscriber = Application::connect(apps(&second));
    subscriber.subscribe("news/#");
    let at = health(&first);
    // The first heartbeat after half a second asks for an answer, whose time is the latency.
    let is_well = |peer: &Value| {
        peer["is_linked"] == true && peer["is_synced"] == true && peer["latency_us"].is_u64()
    };
    let all = eventually(
        "both are linked and measured",
        || get(at, "/api/v1/peers"),
        |answer| {
            let peers = answer["peers"].as_array().expect("a list");
            peers.len() == 2 && peers.iter().all(is_well)
        },
    );
    let peers = all["peers"].as_array().expect("a list");
    let seen = peers.iter().find(|peer| peer["node_id"] == second.told("node")).expect("a peer");
    assert_eq!(seen["address"], second.told("mesh"));
    assert_eq!(
        (&seen["app_address"], &seen["status"]),
        (&json!(second.told("tcp")), &json!("alive"))
    );
    let wants = || get(at, "/api/v1/gossip");
    let gossip = eventually("it is known what the second wants", wants, |gossip| {
        let peers = gossip["peers"].as_array().expect("a list");
        peers.iter().any(|peer| peer["filters"] == 1 && peer["told_hash"] == peer["known_hash"])
    });
    assert_eq!(gossip["interest_filters"], 0);

    let mut publisher = Application::connect(apps(&first));
    publisher.publish("news/today", b"x", 1);
    subscriber.until(FrameKind::Message);
    let topics = get(at, "/api/v1/topics?filter=news/today");
    assert_eq!(
        (&topics["topics"][0]["peers"], &topics["topics"][0]["subscriptions"]),
        (&json!(1), &json!(0))
    );
    let page = call(metrics(&first), "GET", "/metrics", "").body;
    assert!(page.contains("\nnexusd_forwarded_messages_total 1\n"), "{page}");
    assert!(page.contains("\nnexusd_delivered_messages_total 0\n"), "{page}");

    let topology = get(health(&third), "/api/v1/topology");
    let nodes = topology["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3, "{topology}");
    for node in nodes {
        assert_eq!(
            (&node["error"], &node["version"]),
            (&json!(""), &json!(env!("CARGO_PKG_VERSION")))
        );
        assert_eq!(node["peers"].as_array().map(Vec::len), Some(2));
        assert_eq!(node["is_self"] == true, node["node_id"] == third.told("node"));
    }
    block_on(async {
        let mut admin = admin(apps(&second)).await;
        let peers = admin.list_peers(ListPeersRequest {}).await.expect("an answer").into_inner();
        assert_eq!(peers.peers.len(), 2);
        let all = admin.get_topology(GetTopologyRequest {}).await.expect("an answer").into_inner();
        assert_eq!(all.nodes.len(), 3);
    });
}
