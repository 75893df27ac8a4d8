//! What a node that is known takes of this one's memory.

#![allow(clippy::print_stdout, reason = "tests say what they measure")]

#[allow(dead_code, reason = "it is made for other tests")]
#[path = "node/rig.rs"]
mod rig;

use nexusd_discovery::LinkDown;
use nexusd_wire::Beacon;
use rig::{Rig, SECOND_US, beacon};

/// As many as have an address of their own in the rig.
const PEERS: u128 = 200;
const BYTES_MAX: i64 = 2 << 10;

#[test]
fn a_peer_over_whose_closed_link_nothing_is_wanted_takes_less_than_two_kilobytes() {
    let mut rig = Rig::new();
    let taken = allocation_counter::measure(|| {
        for node in 1..=PEERS {
            rig.up(node);
            rig.stored(node, Some(0));
        }
        // Nobody wants anything, so each link closes; the beacons go on.
        for second in 0..90 {
            for node in 1..=PEERS {
                rig.hear(&Beacon { interest_hash: 0, ..beacon(node) });
                if second == 61 {
                    rig.down(node, LinkDown::Idle);
                }
            }
            rig.run_for(SECOND_US);
            rig.outputs = Vec::new();
        }
    });
    assert!((1..=PEERS).all(|node| rig.knows(node)), "they are known while they are heard");
    assert_eq!(rig.discovery.links(), 0);
    let bytes = taken.bytes_current / PEERS as i64;
    println!("{bytes} bytes a peer");
    assert!(bytes < BYTES_MAX, "{bytes} bytes a peer");
}
