//! What the shards keep of a node whose link has closed because nobody wants anything.

use nexusd_core::{LinkCommand, LinkReport};
use nexusd_wire::NodeId;

use super::desk::Desk;
use super::pair::{Pair, limits, mesh};

const PEERS: u128 = 256;
/// Of that, the desk takes a part for the seat of each connection.
const BYTES_MAX: i64 = 1 << 10;

#[test]
fn a_peer_over_whose_closed_link_nothing_is_wanted_takes_less_than_a_kilobyte() {
    let mut pair = Pair::new(1);
    let mut link_and_close = |peers: std::ops::Range<u128>| {
        for peer in peers.map(|number| NodeId(0x2000 + number)) {
            pair.desks[1] = Desk::of_node(peer, mesh(None), limits(), 1);
            pair.dial_as(0, peer);
            pair.carry();
            let reports = pair.desks[0].reports();
            assert!(matches!(reports[..], [LinkReport::Up { .. }]), "{reports:?}");
            pair.desks[0].command(LinkCommand::CloseIdle { peer });
            pair.carry();
            assert!(pair.desks[0].is_closed(pair.wires[0][0]));
            pair.desks[0].reports();
            pair.wires.clear();
            pair.recorded = Vec::new();
        }
    };
    // What is made once.
    link_and_close(0..PEERS);
    let taken = allocation_counter::measure(|| link_and_close(PEERS..2 * PEERS));
    let bytes = taken.bytes_current / PEERS as i64;
    assert!(bytes < BYTES_MAX, "{bytes} bytes a peer");
}
