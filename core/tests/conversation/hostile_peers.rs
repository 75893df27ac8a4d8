//! Other nodes that say anything: no bytes of theirs may harm this one.

use nexusd_core::Door;
use nexusd_wire::MessageFlags;

use super::desk::{Desk, Heard};
use super::pair::{Pair, id, limits, mesh};

const PLAIN: MessageFlags = MessageFlags(0);

/// What a node says over a link in a short life: everything that there is to say.
fn recording(shards: usize) -> Vec<u8> {
    let mut pair = Pair::new(shards);
    pair.dial(0, true);
    pair.carry();
    pair.tell_interest(1, &["a/#"]);
    pair.tell_interest(0, &["b", "c/+"]);
    let publisher = pair.desks[0].greet();
    pair.desks[0].bind(publisher, 0, "a/b");
    pair.desks[0].bind(publisher, 1, "state");
    for number in 0..5u32 {
        pair.publish(0, publisher, &number.to_le_bytes());
        pair.desks[0].publish(publisher, 1, b"value", MessageFlags::RETAIN);
        pair.desks[0].publish_for(publisher, 0, b"short", 1_000);
    }
    let link = pair.wires[0][0];
    pair.desks[0].stall(link);
    for _ in 0..1_200 {
        pair.desks[0].publish(publisher, 0, &[1; 20 << 10], PLAIN);
    }
    pair.desks[0].go_on_for(link, 64 << 10);
    pair.carry();
    pair.pass(1_000_000);
    pair.recorded
}

/// Numbers that look random, from a seed.
fn dice(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below.max(1)
    }
}

#[test]
fn no_bytes_of_a_peer_do_harm() {
    for shards in [1, 3] {
        let whole = recording(shards);
        for seed in 0..400 {
            let mut dice = dice(seed);
            let mut bytes = whole[..whole.len().min(100 << 10)].to_vec();
            for _ in 0..=dice(6) {
                let at = dice(bytes.len());
                match dice(4) {
                    0 => bytes[at] ^= 1 << dice(8),
                    1 => bytes[at] = dice(256) as u8,
                    2 => bytes.truncate(at & !7),
                    _ => {
                        let from = dice(bytes.len()) & !7;
                        let part = bytes[from..(from + 8 * dice(64)).min(bytes.len())].to_vec();
                        let at = at & !7;
                        bytes.splice(at..at, part);
                    }
                }
                if bytes.is_empty() {
                    break;
                }
            }
            let mut desk = Desk::of_node(id(1), mesh(None), limits(), shards);
            let subscriber = desk.greet();
            desk.subscribe(subscriber, &["#"]);
            let link = desk.open_link(Door::Mesh, 0);
            for piece in bytes.chunks(1 + dice(5_000)) {
                if !desk.is_closed(link) {
                    desk.say(link, piece);
                }
            }
            // The shards check what must hold after every event; then the node still serves.
            desk.pass(7_000_000);
            let publisher = desk.greet();
            desk.bind(publisher, 0, "own");
            desk.heard(subscriber);
            desk.publish(publisher, 0, b"still there", PLAIN);
            let heard = desk.heard(subscriber);
            assert!(
                matches!(heard.last(), Some(Heard::Message { payload, .. }) if payload == b"still there"),
                "seed {seed}, {shards} shards: {heard:?}"
            );
        }
    }
}
