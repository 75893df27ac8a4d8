//! A daemon whose conditions are hard to bring about with a real one: a suspected peer, a slow consumer, lists that
//! were cut off, a node that does not answer, refusals. It serves the real service over a real socket; what it
//! answers is fixed, but counters grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nexusd_admin::proto::admin_service_server::{AdminService, AdminServiceServer};
use nexusd_admin::proto::*;
use tokio::runtime::Runtime;
use tonic::transport::Server as TonicServer;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// The id of the node, and of its peers.
pub(crate) const NODES: [&str; 3] = [
    "5f1c2d3e5f1c2d3e5f1c2d3e5f1c2d3e",
    "8a00b1c28a00b1c28a00b1c28a00b1c2",
    "c3d4e5f6c3d4e5f6c3d4e5f6c3d4e5f6",
];

/// A served daemon; ends when dropped.
pub(crate) struct Canned {
    pub(crate) address: String,
    /// Pings that came.
    pub(crate) pings: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Canned {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let _inside = runtime.enter();
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = incoming.local_addr().expect("bound").to_string();
        let answers = Answers::default();
        let pings = Arc::clone(&answers.pings);
        let service = AdminServiceServer::new(answers);
        let server = TonicServer::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(incoming));
        drop(_inside);
        Self { address, pings, _runtime: runtime }
    }
}

/// What it answers.
#[derive(Clone, Default)]
struct Answers {
    asked: Arc<AtomicU64>,
    pings: Arc<AtomicU64>,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(answer: T) -> Answer<T> {
    Ok(Response::new(answer))
}

fn metric(name: &str, kind: &str, value: u64) -> Metric {
    let help = format!("what {name} is");
    Metric { name: name.to_owned(), kind: kind.to_owned(), value, help }
}

fn peers() -> Vec<Peer> {
    let peer = |at: usize, status: &str, latency_us: Option<u64>| Peer {
        node_id: NODES[at].to_owned(),
        address: format!("10.0.0.{at}:5671"),
        status: status.to_owned(),
        is_linked: latency_us.is_some(),
        latency_us,
        is_synced: status == "alive",
        queued_messages: if status == "alive" { 0 } else { 12_345 },
        queued_bytes: if status == "alive" { 0 } else { 1_234_500 },
        filters: 3,
        last_seen_ms: 1_700_000_000_000,
        started_ms: 1_700_000_000_000,
        ..Peer::default()
    };
    vec![peer(1, "alive", Some(312)), peer(2, "suspected", None)]
}

#[tonic::async_trait]
impl AdminService for Answers {
    async fn ping(&self, _: Request<PingRequest>) -> Answer<PingResponse> {
        self.pings.fetch_add(1, Ordering::Relaxed);
        answer(PingResponse { node_id: NODES[0].to_owned(), timestamp_ms: 1_700_000_000_000 })
    }

    async fn get_info(&self, _: Request<GetInfoRequest>) -> Answer<Info> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let server = Server {
            version: "0.1.0".to_owned(),
            node_id: NODES[0].to_owned(),
            cluster: "default".to_owned(),
            state: "running".to_owned(),
            started_ms: 1_700_000_000_000,
            uptime_ms: 3_725_000,
            pid: 4_711,
            shards: 2,
            io: "uring".to_owned(),
            app_addresses: vec!["10.0.0.0:5672".to_owned()],
            mesh_addresses: vec!["10.0.0.0:5671".to_owned()],
            kernel: "6.12.0".to_owned(),
            peers: 2,
            topics: 1_234,
            subscriptions: 3,
            connections: 14,
            ..Server::default()
        };
        let setting = Setting {
            name: "log-level".to_owned(),
            value: "info".to_owned(),
            source: "default".to_owned(),
            is_reloadable: true,
        };
        answer(Info {
            server: Some(server),
            memory: Some(Memory {
                resident_bytes: 48 << 20,
                limit_bytes: 384 << 20,
                ..Memory::default()
            }),
            stats: vec![
                metric("messages_in", "counter", 5_000 * asked),
                metric("messages_out", "counter", 9_000 * asked),
                metric("queued_messages", "gauge", 10_012),
            ],
            config: vec![setting],
        })
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Answer<Peers> {
        answer(Peers { peers: peers() })
    }

    async fn get_topology(&self, _: Request<GetTopologyRequest>) -> Answer<Topology> {
        let asked = TopologyNode {
            node_id: NODES[0].to_owned(),
            address: "10.0.0.0:5671".to_owned(),
            version: "0.1.0".to_owned(),
            is_self: true,
            peers: peers(),
            ..TopologyNode::default()
        };
        let silent = TopologyNode {
            node_id: NODES[2].to_owned(),
            address: "10.0.0.2:5671".to_owned(),
            error: "no route to host".to_owned(),
            ..TopologyNode::default()
        };
        answer(Topology { nodes: vec![asked, silent] })
    }

    async fn get_gossip(&self, _: Request<GetGossipRequest>) -> Answer<Gossip> {
        let peer = GossipPeer {
            node_id: NODES[2].to_owned(),
            address: "10.0.0.2:5671".to_owned(),
            status: "suspected".to_owned(),
            told_hash: u64::MAX,
            ..GossipPeer::default()
        };
        let counters = vec![metric("gossip_repairs", "counter", 1)];
        answer(Gossip { interest_hash: u64::MAX, peers: vec![peer], counters, ..Gossip::default() })
    }

    async fn list_topics(&self, request: Request<ListTopicsRequest>) -> Answer<Topics> {
        let request = request.into_inner();
        if request.filter == "a/#/b" {
            return Err(Status::invalid_argument("`a/#/b`: # stands at the end only"));
        }
        let asked = self.asked.load(Ordering::Relaxed);
        let topic = |name: &str, messages, is_retained| Topic {
            name: name.to_owned(),
            subscriptions: 2,
            messages,
            is_retained,
            peers: 1,
        };
        let mut topics = vec![
            topic("plant/mill/speed", 345 * asked, false),
            topic("plant/boiler/temperature", 12_000 * asked, true),
        ];
        topics.retain(|topic| request.filter.is_empty() || topic.name == request.filter);
        answer(Topics { topics, is_truncated: request.limit == 2 })
    }

    async fn list_subscriptions(
        &self,
        _: Request<ListSubscriptionsRequest>,
    ) -> Answer<Subscriptions> {
        let asked = self.asked.load(Ordering::Relaxed);
        let subscription = |number: u64, queued, dropped| Subscription {
            subscription_id: format!("{number:032x}"),
            client_id: format!("0-{number}-1"),
            filters: vec!["plant/+/temperature".to_owned()],
            state: "connected".to_owned(),
            policy: "drop-oldest".to_owned(),
            queued_messages: queued,
            limit_messages: 10_000,
            limit_bytes: 16 << 20,
            sent_messages: 9_000 * asked,
            dropped_messages: dropped,
            ..Subscription::default()
        };
        let parked = Subscription {
            client_id: String::new(),
            state: "parked".to_owned(),
            parked_for_ms: Some(250_000),
            ..subscription(3, 0, 0)
        };
        let subscriptions =
            vec![subscription(1, 12, 0), subscription(2, 10_000, 250 * asked), parked];
        answer(Subscriptions { subscriptions, is_truncated: false })
    }

    async fn list_retained(&self, _: Request<ListRetainedRequest>) -> Answer<RetainedValues> {
        let value = |topic: &str, expires_ms| RetainedValue {
            topic: topic.to_owned(),
            payload_bytes: 12,
            timestamp_ms: 1_700_000_000_000,
            origin: NODES[1].to_owned(),
            expires_ms,
        };
        let values =
            vec![value("plant/mill/state", None), value("plant/boiler/state", Some(90_000))];
        answer(RetainedValues { values, is_truncated: false })
    }

    async fn list_clients(&self, request: Request<ListClientsRequest>) -> Answer<Clients> {
        let client = |number: u64| Client {
            client_id: format!("0-{number}-1"),
            name: "boiler".to_owned(),
            software: "nexusd-client 0.1.0".to_owned(),
            address: format!("127.0.0.1:4000{number}"),
            protocol: "native".to_owned(),
            connected_ms: 125_000,
            subscriptions: 1,
            messages_out: 1_234,
            ..Client::default()
        };
        let mut clients = vec![client(1), client(2)];
        let wanted = request.into_inner().client_id;
        clients.retain(|client| wanted.is_empty() || client.client_id == wanted);
        answer(Clients { clients, is_truncated: false })
    }

    async fn kill_client(&self, request: Request<KillClientRequest>) -> Answer<KillClientResponse> {
        answer(KillClientResponse { is_killed: request.into_inner().client_id == "0-1-1" })
    }

    async fn set_client_name(
        &self,
        request: Request<SetClientNameRequest>,
    ) -> Answer<SetClientNameResponse> {
        answer(SetClientNameResponse { is_renamed: request.into_inner().client_id == "0-1-1" })
    }

    async fn get_log_level(&self, _: Request<GetLogLevelRequest>) -> Answer<LogLevel> {
        answer(LogLevel { level: "info".to_owned() })
    }

    async fn set_log_level(&self, request: Request<SetLogLevelRequest>) -> Answer<LogLevel> {
        answer(LogLevel { level: request.into_inner().level })
    }

    async fn reload(&self, _: Request<ReloadRequest>) -> Answer<ReloadResponse> {
        let need_restart = vec!["shards".to_owned()];
        answer(ReloadResponse { applied: vec!["log-level".to_owned()], need_restart })
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Answer<DrainResponse> {
        Err(Status::permission_denied("drain is taken from this host alone"))
    }
}
