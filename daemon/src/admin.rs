//! What operators ask this node: the answers of the admin service, made of what the shards and the mesh thread
//! say (`inspector.rs`), of the settings, and of the process around.

mod entries;
mod reload;
mod sidecar;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nexusd_admin::proto::{
    Client, Clients, DrainResponse, Gossip, GossipPeer, Info, KillClientRequest,
    KillClientResponse, ListClientsRequest, ListRetainedRequest, ListSubscriptionsRequest,
    ListTopicsRequest, LogLevel, Memory, Peer, Peers, PingResponse, ReloadResponse, RetainedValues,
    Server, SetClientNameRequest, SetClientNameResponse, SetLogLevelRequest, Setting,
    Subscriptions, Topic, Topics,
};
use nexusd_admin::{Family, Fault, Health};
use nexusd_core::Metrics;
use nexusd_core::inspection::{
    Answer, Entries, LinkEntry, Request, Subject, TopicEntry, WantedEntry,
};
use nexusd_core::io::clock;
use nexusd_grpc::Refusals;
use nexusd_wire::{NodeId, check_filter};
use prost::Message;

use crate::catalogue::{self, MeshFigures, ProcessFigures};
use crate::config::{self, Config};
use crate::drainer::Drainer;
use crate::engine::Engine;
use crate::inspector::{Inspector, LIST_BYTES_MAX, Listed, Listing, Unanswered};
use crate::mesh::PeerPicture;
use crate::node::Process;
use crate::process;
use crate::settings::Settings;
use entries::ClientId;
pub use reload::Reloader;

/// Bytes of a KiB, as the kernel counts memory.
const KIB: u64 = 1_024;

/// Answers for a node.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) node: NodeId,
    pub(crate) settings: Arc<Settings>,
    /// What the edge refused.
    pub(crate) refusals: Arc<Refusals>,
    /// Held while the configuration is read again.
    pub(crate) reloading: tokio::sync::Mutex<()>,
    /// Asks for that beside the callers of the services.
    pub(crate) reloader: Reloader,
    pub(crate) engine: Engine,
    pub(crate) addresses: Addresses,
    pub(crate) started: Instant,
    /// Microseconds since 1970.
    pub(crate) start_us: u64,
    pub(crate) inspector: Inspector,
    pub(crate) drainer: Drainer,
    pub(crate) process: Process,
}

/// Where a node is reached.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) apps: Vec<SocketAddr>,
    pub(crate) unix: Option<String>,
    pub(crate) mesh: Vec<SocketAddr>,
}

impl From<Unanswered> for Fault {
    fn from(cause: Unanswered) -> Self {
        Self::Unavailable(cause.to_string())
    }
}

impl Admin {
    fn state(&self) -> &'static str {
        if self.drainer.is_draining() { "draining" } else { "running" }
    }

    fn memory(&self, metrics: &Metrics) -> Memory {
        Memory {
            resident_bytes: process::rss_kb().unwrap_or(0) * KIB,
            limit_bytes: self.settings.limits().memory_bytes as u64,
            log_bytes: metrics.log_bytes,
            queued_bytes: metrics.queued_bytes,
            retained_bytes: metrics.retained_bytes,
        }
    }

    fn server(&self, metrics: &Metrics, peers: usize) -> Server {
        let shown = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect();
        Server {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node_id: self.node.to_string(),
            cluster: self.settings.cluster(),
            state: self.state().to_owned(),
            started_ms: entries::milliseconds(self.start_us),
            uptime_ms: i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX),
            pid: std::process::id(),
            shards: u32::try_from(self.inspector.shards()).unwrap_or(u32::MAX),
            io: self.engine.to_string(),
            app_addresses: shown(&self.addresses.apps),
            unix_socket: self.addresses.unix.clone().unwrap_or_default(),
            mesh_addresses: shown(&self.addresses.mesh),
            kernel: kernel(),
            peers: u32::try_from(peers).unwrap_or(u32::MAX),
            topics: metrics.topics,
            subscriptions: metrics.subscriptions,
            connections: metrics.connections,
        }
    }

    fn shown_settings(&self) -> Vec<Setting> {
        let level = self.process.log.as_ref().map(|log| log.level().to_string());
        let config = self.settings.config();
        let settings = config.settings().map(|(name, value)| Setting {
            name: name.to_owned(),
            value: match &level {
                Some(level) if name == "log-level" => level.clone(),
                _ => value,
            },
            source: config.sources.of_setting(name).name().to_owned(),
            is_reloadable: Config::is_reloadable(name),
        });
        settings.collect()
    }

    /// What the shards counted, and the messages that the edge refused for them.
    async fn count(&self) -> Result<Metrics, Unanswered> {
        let mut metrics = self.inspector.count().await?;
        metrics.rejected += self.refusals.publishes();
        Ok(metrics)
    }

    /// The links that the shards keep, by peer.
    async fn links(&self) -> Result<HashMap<NodeId, LinkEntry>, Unanswered> {
        self.links_with(0).await
    }

    /// The same; each names at most so many of the filters that its peer wants, as long as there is room in an
    /// answer. With filters a link may be missing, if another one ended meanwhile.
    async fn links_with(&self, filters: usize) -> Result<HashMap<NodeId, LinkEntry>, Unanswered> {
        let named_bytes = AtomicUsize::new(0);
        let within_room = |_, page| {
            let Entries::Links(mut links) = page else { return Vec::new() };
            for link in &mut links {
                let bytes: usize =
                    link.named.iter().map(|filter| filter.len() + FILTER_BYTES).sum();
                if named_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > LIST_BYTES_MAX {
                    link.named = Box::default();
                }
            }
            links
        };
        let subject = Subject::Links { filters };
        let listed = self.inspector.list(subject, usize::MAX, within_room, for_here).await?;
        // A peer without the link that it has would be a wrong answer.
        if listed.is_truncated {
            return Err(Unanswered::Busy);
        }
        Ok(listed.entries.into_iter().map(|link| (link.peer, link)).collect())
    }
}

/// Entries that are told as they were found.
async fn as_they_are<T: Message>(
    _: &Listing<'_>,
    page: Vec<T>,
) -> Result<(Vec<T>, usize), Unanswered> {
    let weight = page.iter().map(Message::encoded_len).sum();
    Ok((page, weight))
}

/// The same for what goes on to be joined here.
async fn for_here<T>(_: &Listing<'_>, page: Vec<T>) -> Result<(Vec<T>, usize), Unanswered> {
    Ok((page, 0))
}

/// Bytes that a filter takes in an answer beside its text.
const FILTER_BYTES: usize = 16;

#[tonic::async_trait]
impl nexusd_admin::Node for Admin {
    fn ping(&self) -> PingResponse {
        PingResponse {
            node_id: self.node.to_string(),
            timestamp_ms: entries::milliseconds(clock::now().wall_us),
        }
    }

    async fn health(&self) -> Health {
        let is_draining = self.drainer.is_draining();
        let silent = self.inspector.pulse().await.err();
        let mut reason = silent.map(|silent| silent.to_string()).unwrap_or_default();
        let is_healthy = reason.is_empty();
        if is_healthy && is_draining {
            "the node is stopping: it takes no connections".clone_into(&mut reason);
        }
        Health {
            state: self.state().to_owned(),
            is_healthy,
            is_ready: is_healthy && !is_draining,
            reason,
        }
    }

    fn stuck(&self) -> Option<String> {
        self.inspector.stuck().map(|silent| silent.to_string())
    }

    async fn info(&self) -> Result<Info, Fault> {
        let metrics = self.count().await?;
        let peers = self.inspector.mesh().await?.map_or(0, |mesh| mesh.peers.len());
        Ok(Info {
            server: Some(self.server(&metrics, peers)),
            memory: Some(self.memory(&metrics)),
            stats: catalogue::statistics(&metrics),
            config: self.shown_settings(),
        })
    }

    async fn peers(&self) -> Result<Peers, Fault> {
        let Some(mesh) = self.inspector.mesh().await? else { return Ok(Peers::default()) };
        let links = self.links().await?;
        let now_us = clock::now().wall_us;
        let peer = |peer: &PeerPicture| entries::peer(peer, links.get(&peer.node), now_us);
        Ok(Peers { peers: mesh.peers.iter().map(peer).collect::<Vec<Peer>>() })
    }

    async fn gossip(&self) -> Result<Gossip, Fault> {
        let Some(mesh) = self.inspector.mesh().await? else { return Ok(Gossip::default()) };
        let links = self.links().await?;
        let peer = |peer: &PeerPicture| GossipPeer {
            node_id: peer.node.to_string(),
            address: peer.address.to_string(),
            status: entries::status(peer).to_owned(),
            is_synced: peer.is_synced,
            told_hash: peer.told_hash.or(peer.known_hash).unwrap_or(0),
            known_hash: peer.known_hash.unwrap_or(0),
            filters: links.get(&peer.node).map_or(0, |link| link.filters),
            is_idle: peer.is_idle,
        };
        Ok(Gossip {
            interest_hash: mesh.interest_hash,
            interest_filters: mesh.interest_filters,
            retained_digest: mesh.retained_digest,
            peers: mesh.peers.iter().map(peer).collect(),
            counters: catalogue::gossip_counters(&mesh.counters),
        })
    }

    async fn topics(&self, request: ListTopicsRequest) -> Result<Topics, Fault> {
        let subject = Subject::Topics(filter(&request.filter)?);
        let of_page = |_, page| match page {
            Entries::Topics(topics) => topics,
            _ => Vec::new(),
        };
        // Who wants a topic, all shards know together.
        let complete = async |listing: &Listing<'_>, page: Vec<_>| {
            let named = page.iter().map(|topic: &TopicEntry| topic.name.clone());
            let subject = Subject::Wanted(named.collect());
            let wanted = listing.sum_up(&subject, page.len(), add_wanted).await?;
            let topic = |(topic, wanted): (TopicEntry, WantedEntry)| Topic {
                name: topic.name.into_string(),
                subscriptions: wanted.subscriptions,
                messages: topic.messages,
                is_retained: topic.is_retained,
                peers: wanted.peers,
            };
            let page: Vec<_> = page.into_iter().zip(wanted).map(topic).collect();
            as_they_are(listing, page).await
        };
        let Listed { entries: topics, is_truncated } =
            self.inspector.list(subject, request.limit as usize, of_page, complete).await?;
        Ok(Topics { topics, is_truncated })
    }

    async fn subscriptions(
        &self,
        request: ListSubscriptionsRequest,
    ) -> Result<Subscriptions, Fault> {
        let of_page = |shard, page| match page {
            Entries::Subscriptions(page) => {
                page.into_iter().map(|entry| entries::subscription(shard, entry)).collect()
            }
            _ => Vec::new(),
        };
        let limit = request.limit as usize;
        let subject = Subject::Subscriptions;
        let Listed { entries: subscriptions, is_truncated } =
            self.inspector.list(subject, limit, of_page, as_they_are).await?;
        Ok(Subscriptions { subscriptions, is_truncated })
    }

    async fn retained(&self, request: ListRetainedRequest) -> Result<RetainedValues, Fault> {
        let subject = Subject::Retained(filter(&request.filter)?);
        let of_page = |_, page| match page {
            Entries::Retained(page) => page.into_iter().map(entries::retained).collect(),
            _ => Vec::new(),
        };
        let Listed { entries: values, is_truncated } =
            self.inspector.list(subject, request.limit as usize, of_page, as_they_are).await?;
        Ok(RetainedValues { values, is_truncated })
    }

    async fn clients(&self, request: ListClientsRequest) -> Result<Clients, Fault> {
        let of_page = |shard, page| match page {
            Entries::Clients(page) => {
                page.into_iter().map(|entry| entries::client(shard, entry)).collect::<Vec<Client>>()
            }
            _ => Vec::new(),
        };
        if !request.client_id.is_empty() {
            let ClientId { shard, connection } = request.client_id.parse()?;
            if shard >= self.inspector.shards() {
                return Ok(Clients::default());
            }
            let subject = Subject::Clients(Some(connection));
            let request = Request::List { subject, cursor: 0, entries: 1 };
            let clients = match self.inspector.ask(shard, request).await? {
                Answer::Page { entries, .. } => of_page(shard, entries),
                _ => Vec::new(),
            };
            return Ok(Clients { clients, is_truncated: false });
        }
        let (subject, limit) = (Subject::Clients(None), request.limit as usize);
        let Listed { entries: clients, is_truncated } =
            self.inspector.list(subject, limit, of_page, as_they_are).await?;
        Ok(Clients { clients, is_truncated })
    }

    async fn kill_client(&self, request: KillClientRequest) -> Result<KillClientResponse, Fault> {
        let ClientId { shard, connection } = request.client_id.parse()?;
        let is_killed = self.inspector.act(shard, Request::Close(connection)).await?;
        if is_killed {
            tracing::info!("client {} was disconnected by an operator", request.client_id);
        }
        Ok(KillClientResponse { is_killed })
    }

    async fn set_client_name(
        &self,
        request: SetClientNameRequest,
    ) -> Result<SetClientNameResponse, Fault> {
        let ClientId { shard, connection } = request.client_id.parse()?;
        let name = entries::client_name(&request.name)?;
        let request = Request::Rename { client: connection, name };
        Ok(SetClientNameResponse { is_renamed: self.inspector.act(shard, request).await? })
    }

    fn log_level(&self) -> Result<LogLevel, Fault> {
        let log = self.process.log.as_ref().ok_or_else(no_log)?;
        Ok(LogLevel { level: log.level().to_string() })
    }

    fn set_log_level(&self, request: SetLogLevelRequest) -> Result<LogLevel, Fault> {
        let log = self.process.log.as_ref().ok_or_else(no_log)?;
        let level = config::LogLevel::named(&request.level).ok_or_else(|| {
            let shown: String = request.level.chars().take(entries::SHOWN_MAX).collect();
            Fault::Invalid(format!(
                "{shown:?} is not a level; choose off, error, warn, info, debug or trace"
            ))
        })?;
        log.set(level);
        tracing::info!("an operator has what is logged begin at {level}");
        Ok(LogLevel { level: level.to_string() })
    }

    async fn reload(&self) -> Result<ReloadResponse, Fault> {
        self.take_on_changes().await
    }

    fn drain(&self) -> DrainResponse {
        let was_running = self.drainer.begin();
        if was_running {
            let drainer = self.drainer.clone();
            // It may wait.
            let telling =
                thread::Builder::new().name("drain".to_owned()).spawn(move || drainer.tell());
            if let Err(error) = telling {
                tracing::warn!("no thread to drain from: {error}; this one does");
                self.drainer.tell();
            }
        }
        DrainResponse { was_running }
    }

    async fn metrics(&self) -> Result<Vec<Family>, Fault> {
        let metrics = self.count().await?;
        let mesh = self.inspector.mesh().await?.map(|mesh| {
            let count = |is: fn(&PeerPicture) -> bool| {
                mesh.peers.iter().filter(|peer| is(peer)).count() as u64
            };
            MeshFigures {
                peers: mesh.peers.len() as u64,
                suspected: count(|peer| peer.is_suspected),
                synced: count(|peer| peer.is_synced),
                idle: count(|peer| peer.is_idle),
                counters: mesh.counters,
            }
        });
        let process = ProcessFigures {
            uptime_s: self.started.elapsed().as_secs_f64(),
            cpu_s: process::cpu_time().as_secs_f64(),
            resident_bytes: process::rss_kb().unwrap_or(0) * KIB,
            limit_bytes: self.settings.limits().memory_bytes as u64,
            refused_connections: self.refusals.connections(),
            refused_calls: self.refusals.calls(),
        };
        Ok(catalogue::families(&metrics, process, mesh, env!("CARGO_PKG_VERSION")))
    }
}

fn no_log() -> Fault {
    Fault::Unsupported("this node runs inside a program that keeps the log itself".to_owned())
}

/// Adds what a shard said of the topics that it was asked about.
fn add_wanted(sums: &mut [WantedEntry], page: Entries) -> usize {
    let Entries::Wanted(page) = page else { return 0 };
    for (sum, wanted) in sums.iter_mut().zip(&page) {
        sum.subscriptions += wanted.subscriptions;
        sum.peers += wanted.peers;
    }
    page.len()
}

/// The filter of a list; empty is all.
fn filter(text: &str) -> Result<Option<Box<str>>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    match check_filter(text) {
        Ok(()) => Ok(Some(text.into())),
        Err(cause) => {
            let shown: String = text.chars().take(entries::SHOWN_MAX).collect();
            Err(Fault::Invalid(format!("filter {shown:?}: {cause}")))
        }
    }
}

/// The version of the kernel.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}
