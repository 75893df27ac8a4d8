//! The whole mesh: every node as it sees the others, asked by this one.
//!
//! A peer is asked at its port for applications, with a short deadline, a few at a time; one that does not
//! answer is named with the reason. What peers say is believed, and bounded.

use std::collections::VecDeque;

use prost::Message;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;

use crate::limits::{
    TOPOLOGY_ASKED_AT_A_TIME, TOPOLOGY_BYTES_MAX, TOPOLOGY_NODE_BYTES_MAX, TOPOLOGY_TIMEOUT,
    TOPOLOGY_TIMEOUT_IN_ALL,
};
use crate::proto::admin_service_client::AdminServiceClient;
use crate::proto::{GetInfoRequest, ListPeersRequest, Peer, Topology, TopologyNode};
use crate::{Fault, Node};

/// One is made at a time: it asks every other node.
static TURN: Semaphore = Semaphore::const_new(1);

/// Asks all peers of a node.
pub(crate) async fn of(node: &dyn Node) -> Result<Topology, Fault> {
    let Ok(Ok(_turn)) = timeout(TOPOLOGY_TIMEOUT_IN_ALL, TURN.acquire()).await else {
        return Err(Fault::Unavailable("others ask for the topology already".to_owned()));
    };
    let deadline = Instant::now() + TOPOLOGY_TIMEOUT_IN_ALL;
    let server = node.info().await?.server.unwrap_or_default();
    let peers = node.peers().await?.peers;
    let own = TopologyNode {
        node_id: server.node_id,
        address: server.mesh_addresses.into_iter().next().unwrap_or_default(),
        app_address: server.app_addresses.into_iter().next().unwrap_or_default(),
        version: server.version,
        is_self: true,
        error: String::new(),
        peers: peers.clone(),
    };
    let mut bytes = own.encoded_len();
    let mut nodes = vec![own];
    let mut waiting: VecDeque<Peer> = peers.into();
    let mut asked = JoinSet::new();
    loop {
        while asked.len() < TOPOLOGY_ASKED_AT_A_TIME
            && let Some(peer) = waiting.pop_front()
        {
            asked.spawn(ask(peer));
        }
        // Each of those that were asked answers by its own deadline.
        let Some(answered) = asked.join_next().await else { break };
        if Instant::now() > deadline {
            let untold = waiting.drain(..);
            nodes.extend(untold.map(|peer| silent(&peer, "there was no time to ask it")));
        }
        if let Ok(mut node) = answered {
            bytes += node.encoded_len();
            if bytes > TOPOLOGY_BYTES_MAX {
                node.peers.clear();
                "its peers are left out: the mesh is too large to show all"
                    .clone_into(&mut node.error);
            }
            nodes.push(node);
        }
    }
    Ok(Topology { nodes })
}

/// Asks one peer.
async fn ask(peer: Peer) -> TopologyNode {
    if peer.app_address.is_empty() {
        return silent(&peer, "its port for applications is not known");
    }
    match timeout(TOPOLOGY_TIMEOUT, ask_at(&peer.app_address)).await {
        Ok(Ok((version, peers))) => TopologyNode { version, peers, ..silent(&peer, "") },
        Ok(Err(reason)) => silent(&peer, &reason),
        Err(_) => silent(&peer, &format!("it did not answer within {TOPOLOGY_TIMEOUT:?}")),
    }
}

/// Its version and its peers.
async fn ask_at(address: &str) -> Result<(String, Vec<Peer>), String> {
    let unreachable = |error: tonic::transport::Error| {
        // The cause says what is wrong; the error itself only that something is.
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("it cannot be reached at {address}: {}", cause.unwrap_or_else(|| error.to_string()))
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(unreachable)?;
    let channel = endpoint.connect().await.map_err(unreachable)?;
    let mut client =
        AdminServiceClient::new(channel).max_decoding_message_size(TOPOLOGY_NODE_BYTES_MAX);
    let refused = |status: tonic::Status| format!("it did not say: {}", status.message());
    let info = client.get_info(GetInfoRequest {}).await.map_err(refused)?.into_inner();
    let peers = client.list_peers(ListPeersRequest {}).await.map_err(refused)?.into_inner();
    Ok((info.server.unwrap_or_default().version, peers.peers))
}

/// A peer of which nothing is known but what this node sees of it.
fn silent(peer: &Peer, error: &str) -> TopologyNode {
    TopologyNode {
        node_id: peer.node_id.clone(),
        address: peer.address.clone(),
        app_address: peer.app_address.clone(),
        version: String::new(),
        is_self: false,
        error: error.to_owned(),
        peers: Vec::new(),
    }
}
