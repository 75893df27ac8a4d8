//! MESH: who else is there, as this node sees it.

use nexusd_admin::proto::{
    GetGossipRequest, GetInfoRequest, GetTopologyRequest, Gossip, ListPeersRequest, Peer,
};
use serde::Serialize;

use super::topology;
use crate::arguments::MeshSection;
use crate::console::Console;
use crate::error::CliError;
use crate::format::{bytes, number, yes};
use crate::remote::Remote;
use crate::table::Column::{Id, Number, Text};
use crate::table::{list, table};

pub(crate) async fn run(
    section: MeshSection,
    remote: &Remote,
    console: Console,
) -> Result<(), CliError> {
    match section {
        MeshSection::Peers => {
            let peers = remote.list_peers(ListPeersRequest {}).await?;
            console.show(&peers, || peers_text(&console, &peers.peers))
        }
        MeshSection::Status => {
            let info = remote.get_info(GetInfoRequest {}).await?;
            let server = info.server.unwrap_or_default();
            let peers = remote.list_peers(ListPeersRequest {}).await?.peers;
            let status = Status::new(server.node_id, server.cluster, server.mesh_addresses, &peers);
            console.show(&status, || status_text(&console, &status))
        }
        MeshSection::Topology => {
            let topology = remote.get_topology(GetTopologyRequest {}).await?;
            console.show(&topology, || topology::tree(&console, &topology))
        }
        MeshSection::Gossip => {
            let gossip = remote.get_gossip(GetGossipRequest {}).await?;
            console.show(&gossip, || gossip_text(&console, &gossip))
        }
    }
}

/// How long it takes to a peer and back.
pub(crate) fn latency(peer: &Peer) -> String {
    match peer.latency_us {
        Some(us) => crate::format::duration(std::time::Duration::from_micros(us)),
        None => "-".to_owned(),
    }
}

/// Whether it is known what a peer wants; `idle` if neither node wants anything, and so there is no link.
fn synced(is_synced: bool, is_idle: bool) -> String {
    if is_idle { "idle" } else { yes(is_synced) }.to_owned()
}

fn peers_text(console: &Console, peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "no other node is known".to_owned();
    }
    let columns = [Id("ID"), Text("ADDRESS"), Text("STATUS"), Number("LATENCY"), Text("SYNCED")];
    let rows = peers.iter().map(|peer| {
        let (id, address) = (peer.node_id.clone(), peer.address.clone());
        let synced = synced(peer.is_synced, peer.is_idle);
        vec![id, address, peer.status.clone(), latency(peer), synced]
    });
    table(console, &columns, rows)
}

/// The mesh at a glance.
#[derive(Serialize, Debug)]
struct Status {
    node_id: String,
    cluster: String,
    mesh_addresses: Vec<String>,
    peers: usize,
    alive: usize,
    suspected: usize,
    linked: usize,
    synced: usize,
    idle: usize,
    queued_messages: u64,
    queued_bytes: u64,
}

impl Status {
    fn new(node_id: String, cluster: String, mesh_addresses: Vec<String>, peers: &[Peer]) -> Self {
        let are = |status: &str| peers.iter().filter(|peer| peer.status == status).count();
        Self {
            node_id,
            cluster,
            mesh_addresses,
            peers: peers.len(),
            alive: are("alive"),
            suspected: are("suspected"),
            linked: peers.iter().filter(|peer| peer.is_linked).count(),
            synced: peers.iter().filter(|peer| peer.is_synced).count(),
            idle: peers.iter().filter(|peer| peer.is_idle).count(),
            queued_messages: peers.iter().map(|peer| peer.queued_messages).sum(),
            queued_bytes: peers.iter().map(|peer| peer.queued_bytes).sum(),
        }
    }
}

fn status_text(console: &Console, status: &Status) -> String {
    let entries = [
        ("node", status.node_id.clone()),
        ("cluster", status.cluster.clone()),
        ("address", status.mesh_addresses.join(", ")),
        ("peers", status.peers.to_string()),
        ("alive", status.alive.to_string()),
        ("suspected", status.suspected.to_string()),
        ("linked", status.linked.to_string()),
        ("synced", status.synced.to_string()),
        ("idle", status.idle.to_string()),
        (
            "queued for them",
            format!("{} messages, {}", number(status.queued_messages), bytes(status.queued_bytes)),
        ),
    ];
    list(console, "Mesh", &entries)
}

fn gossip_text(console: &Console, gossip: &Gossip) -> String {
    let entries = [
        ("interest", format!("{:016x}", gossip.interest_hash)),
        ("filters", number(gossip.interest_filters)),
        ("retained", format!("{:016x}", gossip.retained_digest)),
    ];
    let own = list(console, "This node", &entries);
    let columns =
        [Id("ID"), Text("STATUS"), Text("SYNCED"), Text("TOLD"), Text("KNOWN"), Number("FILTERS")];
    let rows = gossip.peers.iter().map(|peer| {
        vec![
            peer.node_id.clone(),
            peer.status.clone(),
            synced(peer.is_synced, peer.is_idle),
            format!("{:016x}", peer.told_hash),
            format!("{:016x}", peer.known_hash),
            number(peer.filters),
        ]
    });
    let peers = table(console, &columns, rows);
    let columns = [Text("COUNTER"), Number("VALUE"), Text("MEANING")];
    let rows = gossip
        .counters
        .iter()
        .map(|metric| vec![metric.name.clone(), number(metric.value), metric.help.clone()]);
    let counters = table(console, &columns, rows);
    format!("{own}\n\n{peers}\n\n{counters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: &str, status: &str) -> Peer {
        Peer {
            node_id: id.to_owned(),
            address: "10.0.0.2:5671".to_owned(),
            status: status.to_owned(),
            is_linked: true,
            is_synced: status == "alive",
            latency_us: (status == "alive").then_some(312),
            queued_messages: 700,
            queued_bytes: 1_024,
            ..Peer::default()
        }
    }

    #[test]
    fn peers_have_the_columns_that_are_promised() {
        let text =
            peers_text(&Console::plain(), &[peer("5f1c", "alive"), peer("8a00", "suspected")]);
        let expected = "\
ID    ADDRESS        STATUS     LATENCY  SYNCED
5f1c  10.0.0.2:5671  alive       312 µs  yes
8a00  10.0.0.2:5671  suspected        -  no";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_peer_of_which_nothing_is_wanted_is_idle_and_not_unsynced() {
        let without_link =
            Peer { is_linked: false, is_synced: false, latency_us: None, ..peer("5f1c", "alive") };
        let idle = Peer { is_idle: true, ..without_link };
        let text = peers_text(&Console::plain(), std::slice::from_ref(&idle));
        assert!(text.ends_with("alive         -  idle"), "{text}");
        let status = Status::new(String::new(), String::new(), Vec::new(), &[idle]);
        assert_eq!((status.linked, status.synced, status.idle), (0, 0, 1));
    }

    #[test]
    fn the_mesh_is_summed_up() {
        let peers = [peer("a", "alive"), peer("b", "suspected"), peer("c", "alive")];
        let status = Status::new(String::new(), "default".to_owned(), Vec::new(), &peers);
        assert_eq!((status.peers, status.alive, status.suspected), (3, 2, 1));
        let text = status_text(&Console::plain(), &status);
        assert!(text.contains("queued for them  2,100 messages, 3 KiB"), "{text}");
    }
}
