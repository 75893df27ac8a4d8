//! MESH TOPOLOGY as a tree: each node, and below it the others as it sees them.

use nexusd_admin::proto::{Peer, Topology, TopologyNode};

use super::mesh::latency;
use crate::console::Console;
use crate::format::{count, printable};

/// Characters of an id that are shown.
const ID_SHOWN: usize = 12;

pub(crate) fn tree(console: &Console, topology: &Topology) -> String {
    let mut lines = vec![console.bold(&count(topology.nodes.len() as u64, "node"))];
    for (at, node) in topology.nodes.iter().enumerate() {
        let is_last = at + 1 == topology.nodes.len();
        let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(format!("{branch}{}", node_line(console, node)));
        for (at, peer) in node.peers.iter().enumerate() {
            let branch = if at + 1 == node.peers.len() { "└─ " } else { "├─ " };
            lines.push(format!("{below}{branch}{}", peer_line(console, peer)));
        }
    }
    lines.join("\n")
}

fn node_line(console: &Console, node: &TopologyNode) -> String {
    let mut parts = vec![console.bold(short(&node.node_id)), printable(&node.address).into_owned()];
    if node.version.is_empty() {
        let reason = if node.error.is_empty() { "no reason known" } else { &node.error };
        parts.push(console.yellow(&format!("does not answer: {reason}")));
    } else {
        parts.push(printable(&node.version).into_owned());
    }
    if node.is_self {
        parts.push(console.dim("(asked)"));
    }
    parts.join("  ")
}

fn peer_line(console: &Console, peer: &Peer) -> String {
    let status =
        if peer.status == "alive" { peer.status.clone() } else { console.yellow(&peer.status) };
    let plain = |text| printable(text).into_owned();
    let mut parts = vec![plain(short(&peer.node_id)), plain(&peer.address), status];
    if peer.is_idle {
        parts.push("idle".to_owned());
        return parts.join("  ");
    }
    parts.push(if peer.is_linked { latency(peer) } else { "not linked".to_owned() });
    if !peer.is_synced {
        parts.push(console.yellow("not synced"));
    }
    parts.join("  ")
}

/// What tells a node from the others of a mesh, on a line that should not be folded.
fn short(id: &str) -> &str {
    id.get(..ID_SHOWN).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: &str, status: &str) -> Peer {
        Peer {
            node_id: id.to_owned(),
            address: format!("{id}:5671"),
            status: status.to_owned(),
            is_linked: status == "alive",
            is_synced: status == "alive",
            latency_us: Some(250),
            ..Peer::default()
        }
    }

    fn node(id: &str, peers: Vec<Peer>) -> TopologyNode {
        TopologyNode {
            node_id: id.to_owned(),
            address: format!("{id}:5671"),
            version: "0.1.0".to_owned(),
            is_self: id == "a",
            peers,
            ..TopologyNode::default()
        }
    }

    #[test]
    fn what_nodes_say_cannot_move_the_cursor() {
        let evil = "\u{1b}[2J\n";
        let mut said = node(evil, vec![peer(evil, evil)]);
        said.version = evil.to_owned();
        let silent =
            TopologyNode { version: String::new(), error: evil.to_owned(), ..said.clone() };
        let text = tree(&Console::plain(), &Topology { nodes: vec![said, silent] });
        assert_eq!(text.lines().count(), 5, "{text:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn every_node_has_its_peers_below_it() {
        let silent = TopologyNode {
            version: String::new(),
            error: "no route to host".to_owned(),
            ..node("c", Vec::new())
        };
        let nodes = vec![
            node("a", vec![peer("b", "alive"), peer("c", "suspected")]),
            node("b", vec![peer("a", "alive")]),
            silent,
        ];
        let expected = "\
3 nodes
├─ a  a:5671  0.1.0  (asked)
│  ├─ b  b:5671  alive  250 µs
│  └─ c  c:5671  suspected  not linked  not synced
├─ b  b:5671  0.1.0
│  └─ a  a:5671  alive  250 µs
└─ c  c:5671  does not answer: no route to host";
        assert_eq!(tree(&Console::plain(), &Topology { nodes }), expected);
    }
}
