//! Datagrams that may be beacons.

use std::sync::LazyLock;

use nexusd_wire::{BEACON_BYTES_MAX, Beacon, ClusterKey};

use crate::input::Input;

static KEY: LazyLock<ClusterKey> = LazyLock::new(|| ClusterKey::new(b"secret"));

/// Takes any bytes as a datagram. What is read says the same when it is written again.
///
/// Bytes: a choice (bit 0: the node has a key; bit 1: who sent the datagram has it, too), the datagram.
pub fn beacons(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let key = (choice & 1 != 0).then_some(&*KEY);
    let mut datagram = input.0.to_vec();
    if choice & 2 != 0 {
        let signature = KEY.sign(&datagram);
        datagram.extend_from_slice(&signature);
    }
    match Beacon::decode(&datagram, key) {
        Ok(beacon) => {
            let again = beacon.encode(key);
            // Parts of a table may share bytes, so it may be longer when it is written plainly.
            if again.len() <= BEACON_BYTES_MAX {
                assert_eq!(Beacon::decode(&again, key).expect("what was written"), beacon);
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}
