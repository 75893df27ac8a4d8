//! Beacons: datagrams by which nodes find each other. What is wrong with one is an error that says what;
//! the table is verified before anything of it is read, and in a cluster with a key nothing is before
//! its signature.

use std::net::IpAddr;

use flatbuffers::FlatBufferBuilder;
use thiserror::Error;

use crate::cluster_key::{ClusterKey, PROOF_BYTES};
use crate::generated::beacon_generated::nexusd::beacon as table;
use crate::ids::NodeId;
use crate::verify::verify;
use crate::{DecodeError, PROTOCOL_MAJOR, PROTOCOL_MINOR};

/// Longest beacon: it fits into one packet of any network.
pub const BEACON_BYTES_MAX: usize = 1_024;
/// What a beacon begins with; the fifth byte is the version of what follows.
const MAGIC: [u8; 8] = *b"NXDB\x01\0\0\0";

/// What a node tells everybody who may hear it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beacon<'a> {
    /// The node, new at each start.
    pub node: NodeId,
    /// When it started, microseconds since 1970 by its clock.
    pub start_us: u64,
    /// Its cluster.
    pub cluster: &'a str,
    /// Where other nodes reach it; `None`: where the datagram came from.
    pub mesh_address: Option<IpAddr>,
    /// TCP port for links.
    pub mesh_port: u16,
    /// TCP port for applications.
    pub app_port: u16,
    /// CRC-64/WE of what it wants.
    pub interest_hash: u64,
    /// Digest of its retained values.
    pub retained_digest: u64,
    /// It stops.
    pub is_goodbye: bool,
}

/// Why a datagram is not a beacon.
#[derive(Debug, Error)]
pub enum BeaconError {
    /// Something else, or a version that is not known.
    #[error("the datagram is no beacon of version {}", MAGIC[4])]
    Foreign,
    /// It is longer than any beacon.
    #[error("the datagram has more than {BEACON_BYTES_MAX} bytes, which no beacon has")]
    TooLong,
    /// Its sender does not have the cluster's key, or the datagram was changed.
    #[error("the beacon is not signed with this cluster's key (--cluster-key)")]
    Unsigned,
    /// Its table does not verify, or says what cannot be.
    #[error("the beacon is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// Its address is none.
    #[error("the beacon's mesh address is no IP address")]
    Address,
    /// Links to it cannot be spoken over.
    #[error("the beacon is of protocol version {0}, this node speaks {PROTOCOL_MAJOR}")]
    Version(u8),
}

impl<'a> Beacon<'a> {
    /// The datagram.
    pub fn encode(&self, key: Option<&ClusterKey>) -> Vec<u8> {
        let mut b = FlatBufferBuilder::new();
        let node = table::NodeId::new((self.node.0 >> 64) as u64, self.node.0 as u64);
        let args = table::BeaconArgs {
            major: PROTOCOL_MAJOR,
            minor: PROTOCOL_MINOR,
            node: Some(&node),
            start_us: self.start_us,
            cluster: Some(b.create_string(self.cluster)),
            mesh_address: self.mesh_address.map(|address| b.create_string(&address.to_string())),
            mesh_port: self.mesh_port,
            app_port: self.app_port,
            interest_hash: self.interest_hash,
            retained_digest: self.retained_digest,
            is_goodbye: self.is_goodbye,
        };
        let root = table::Beacon::create(&mut b, &args);
        b.finish_minimal(root);
        let body = b.finished_data();
        #[cfg(feature = "protocol-next")]
        let body = &*crate::next::grown(body);
        let mut datagram = MAGIC.to_vec();
        datagram.extend_from_slice(body);
        if let Some(key) = key {
            let proof = key.sign(&datagram);
            datagram.extend_from_slice(&proof);
        }
        datagram
    }

    /// Reads a datagram. Where there is no key, a signature is not looked at.
    pub fn decode(datagram: &'a [u8], key: Option<&ClusterKey>) -> Result<Self, BeaconError> {
        if datagram.len() > BEACON_BYTES_MAX {
            return Err(BeaconError::TooLong);
        }
        if !datagram.starts_with(&MAGIC) {
            return Err(BeaconError::Foreign);
        }
        let mut signed = datagram;
        if let Some(key) = key {
            let (bytes, proof) =
                datagram.split_last_chunk::<PROOF_BYTES>().ok_or(BeaconError::Unsigned)?;
            if !key.is_signed(bytes, proof) {
                return Err(BeaconError::Unsigned);
            }
            signed = bytes;
        }
        let body = signed.get(MAGIC.len()..).unwrap_or_default();
        let beacon = verify::<table::Beacon<'_>>(body, 0, "Beacon")?;
        if beacon.major() != PROTOCOL_MAJOR {
            return Err(BeaconError::Version(beacon.major()));
        }
        let mesh_address = beacon
            .mesh_address()
            .map(|text| text.parse().map_err(|_| BeaconError::Address))
            .transpose()?;
        let node = beacon.node();
        Ok(Self {
            node: NodeId(u128::from(node.high()) << 64 | u128::from(node.low())),
            start_us: beacon.start_us(),
            cluster: beacon.cluster(),
            mesh_address,
            mesh_port: beacon.mesh_port(),
            app_port: beacon.app_port(),
            interest_hash: beacon.interest_hash(),
            retained_digest: beacon.retained_digest(),
            is_goodbye: beacon.is_goodbye(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beacon() -> Beacon<'static> {
        Beacon {
            node: NodeId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            start_us: 1_700_000_000_000_000,
            cluster: "default",
            mesh_address: Some("fe80::1".parse().expect("an address")),
            mesh_port: 5671,
            app_port: 5672,
            interest_hash: u64::MAX,
            retained_digest: 3,
            is_goodbye: false,
        }
    }

    #[test]
    fn a_beacon_is_read_as_it_was_written() {
        let key = ClusterKey::new(b"secret");
        for key in [None, Some(&key)] {
            let datagram = beacon().encode(key);
            assert!(datagram.len() < BEACON_BYTES_MAX / 2, "{}", datagram.len());
            assert_eq!(Beacon::decode(&datagram, key).expect("whole"), beacon());
        }
    }

    #[test]
    fn a_stranger_without_the_key_is_not_read() {
        let key = ClusterKey::new(b"secret");
        for datagram in [beacon().encode(None), beacon().encode(Some(&ClusterKey::new(b"guess")))] {
            let error = Beacon::decode(&datagram, Some(&key)).expect_err("not of the cluster");
            assert!(matches!(error, BeaconError::Unsigned), "{error}");
        }
        let mut changed = beacon().encode(Some(&key));
        changed[40] ^= 1;
        assert!(Beacon::decode(&changed, Some(&key)).is_err());
    }

    #[test]
    fn a_node_without_a_key_reads_signed_beacons() {
        let signed = beacon().encode(Some(&ClusterKey::new(b"secret")));
        assert_eq!(Beacon::decode(&signed, None).expect("whole"), beacon());
    }

    #[test]
    fn no_datagram_cut_or_changed_in_a_byte_does_harm() {
        let datagram = beacon().encode(None);
        for len in 0..datagram.len() {
            assert!(Beacon::decode(&datagram[..len], None).is_err(), "{len} bytes are no beacon");
        }
        for at in 0..datagram.len() {
            for bit in 0..8 {
                let mut changed = datagram.clone();
                changed[at] ^= 1 << bit;
                // Whether it is read is left open: ports and hashes may be anything.
                let _ = Beacon::decode(&changed, None);
            }
        }
        assert!(matches!(Beacon::decode(&[0; 2_000], None), Err(BeaconError::TooLong)));
    }
}
