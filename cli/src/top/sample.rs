//! What the daemon and its peers say at one time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nexusd_admin::proto::{
    GetInfoRequest, Info, ListPeersRequest, ListSubscriptionsRequest, ListTopicsRequest, Metric,
    Peer, Peers, Subscriptions, Topics,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::error::CliError;
use crate::remote::Remote;
use crate::target::Target;

/// Entries of a list that are asked for: as many as a daemon gives.
const ENTRIES_MAX: u32 = 10_000;
/// Peers that are asked for their own counters.
const PEERS_ASKED_MAX: usize = 64;
/// How long a peer may take: those that do not answer must not hold the others up.
const PEER_ANSWER: Duration = Duration::from_millis(500);

/// Answers that belong together.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) info: Info,
    pub(super) topics: Topics,
    pub(super) subscriptions: Subscriptions,
    pub(super) peers: Vec<Peer>,
    /// What peers count, by their ids; of those that answered.
    pub(super) peer_stats: HashMap<String, PeerStats>,
}

/// What a peer counts.
#[derive(Clone, Debug)]
pub(super) struct PeerStats {
    /// When it answered.
    pub(super) at: Instant,
    pub(super) metrics: Vec<Metric>,
}

/// Asks a daemon again and again.
pub(super) struct Asker {
    remote: Remote,
    peers: HashMap<String, Remote>,
}

impl Asker {
    pub(super) fn new(remote: Remote) -> Self {
        Self { remote, peers: HashMap::new() }
    }

    /// Asks at every interval, until nobody wants to know.
    pub(super) async fn run(
        mut self,
        every: Duration,
        samples: mpsc::Sender<Result<Sample, CliError>>,
    ) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if samples.send(self.ask().await).await.is_err() {
                return;
            }
        }
    }

    async fn ask(&mut self) -> Result<Sample, CliError> {
        let remote = &self.remote;
        let topics = ListTopicsRequest { filter: String::new(), limit: ENTRIES_MAX };
        let (info, topics, subscriptions, Peers { peers }) = tokio::try_join!(
            remote.get_info(GetInfoRequest {}),
            remote.list_topics(topics),
            remote.list_subscriptions(ListSubscriptionsRequest { limit: ENTRIES_MAX }),
            remote.list_peers(ListPeersRequest {}),
        )?;
        let at = Instant::now();
        let peer_stats = self.ask_peers(&peers).await;
        Ok(Sample { at, info, topics, subscriptions, peers, peer_stats })
    }

    /// Asks the peers that are alive and whose address for applications is known.
    async fn ask_peers(&mut self, peers: &[Peer]) -> HashMap<String, PeerStats> {
        let mut asked = JoinSet::new();
        let alive = peers.iter().filter(|peer| peer.status == "alive");
        for peer in alive.take(PEERS_ASKED_MAX) {
            let Ok(target) = peer.app_address.parse::<Target>() else { continue };
            let known = self.peers.get(&peer.node_id).cloned();
            let id = peer.node_id.clone();
            asked.spawn(async move {
                let remote = match known {
                    Some(remote) => remote,
                    None => Remote::connect(target, PEER_ANSWER).await.ok()?,
                };
                let info = remote.get_info(GetInfoRequest {}).await.ok()?;
                // At that address there may be another one by now.
                let server = info.server.as_ref()?;
                let stats = PeerStats { at: Instant::now(), metrics: info.stats };
                (server.node_id == id).then_some((id, remote, stats))
            });
        }
        let mut stats = HashMap::new();
        self.peers.clear();
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some((id, remote, peer_stats))) = answer {
                self.peers.insert(id.clone(), remote);
                stats.insert(id, peer_stats);
            }
        }
        stats
    }
}
