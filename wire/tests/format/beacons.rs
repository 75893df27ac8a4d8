//! Beacons come back as they were written, and no datagram does harm.

use std::net::IpAddr;

use nexusd_wire::{BEACON_BYTES_MAX, Beacon, BeaconError, ClusterKey, NodeId};
use proptest::prelude::*;

/// What every beacon begins with.
const MAGIC: &[u8] = b"NXDB\x01\0\0\0";

/// Everything but the cluster's name.
type Numbers = (u128, u64, Option<IpAddr>, u16, u16, u64, u64, bool);

fn beacon(cluster: &str, numbers: Numbers) -> Beacon<'_> {
    let (node, start_us, mesh_address, mesh_port, app_port, interest_hash, digest, is_goodbye) =
        numbers;
    Beacon {
        node: NodeId(node),
        start_us,
        cluster,
        mesh_address,
        mesh_port,
        app_port,
        interest_hash,
        retained_digest: digest,
        is_goodbye,
    }
}

/// Reads a datagram with every choice of a key. Errors are one line.
fn read(datagram: &[u8]) {
    let key = ClusterKey::new(b"secret");
    let signed = [datagram, &key.sign(datagram)].concat();
    for (datagram, key) in [(datagram, None), (datagram, Some(&key)), (&signed, Some(&key))] {
        if let Err(error) = Beacon::decode(datagram, key) {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        cluster in "\\PC{0,60}",
        numbers in any::<Numbers>(),
        secret in any::<Option<[u8; 20]>>(),
    ) {
        let key = secret.map(|secret| ClusterKey::new(&secret));
        let written = beacon(&cluster, numbers);
        let datagram = written.encode(key.as_ref());
        prop_assert!(datagram.len() <= BEACON_BYTES_MAX);
        prop_assert!(datagram.starts_with(MAGIC));
        prop_assert_eq!(Beacon::decode(&datagram, key.as_ref()).expect("whole"), written);
    }

    #[test]
    fn any_bytes_behind_the_magic_are_refused_or_read_safely(
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        read(&body);
        read(&[MAGIC, &body].concat());
    }

    /// Also one that somebody with the key made.
    #[test]
    fn damaged_beacons_are_refused_or_read_safely(numbers in any::<Numbers>(), bit in 0_u8..8) {
        let mut datagram = beacon("default", numbers).encode(None);
        for at in 0..datagram.len() {
            read(&datagram[..at]);
            datagram[at] ^= 1 << bit;
            read(&datagram);
            datagram[at] ^= 1 << bit;
        }
    }

    /// No bit of a signed beacon may change.
    #[test]
    fn a_beacon_changed_on_its_way_is_not_of_the_cluster(
        numbers in any::<Numbers>(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let key = ClusterKey::new(b"secret");
        let mut datagram = beacon("default", numbers).encode(Some(&key));
        let at = MAGIC.len() + at.index(datagram.len() - MAGIC.len());
        datagram[at] ^= 1 << bit;
        let refused = Beacon::decode(&datagram, Some(&key));
        prop_assert!(matches!(refused, Err(BeaconError::Unsigned)), "{refused:?}");
    }
}
