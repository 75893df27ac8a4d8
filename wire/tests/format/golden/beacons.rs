//! The beacons that `tests/golden/` shows.

use std::collections::BTreeSet;

use nexusd_wire::{Beacon, ClusterKey, PROOF_BYTES};
use serde_json::{Value, json};

use super::interest_hash::interest_hash;
use super::links::KEY;
use super::vectors::{NODE, START_US};
use crate::schema::{Reading, Schema, hex};

/// Bytes in front of the table.
const MAGIC_BYTES: usize = 8;

/// One file.
pub(crate) struct BeaconVector {
    pub file: &'static str,
    pub says: &'static str,
    /// The cluster's secret.
    pub secret: Option<&'static str>,
    pub beacon: Beacon<'static>,
}

impl BeaconVector {
    pub(crate) fn key(&self) -> Option<ClusterKey> {
        self.secret.map(|secret| ClusterKey::new(secret.as_bytes()))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.beacon.encode(self.key().as_ref())
    }

    /// Reads the datagram by the schema alone: its annotation and its entry in the index.
    pub(crate) fn read_plainly(
        &self,
        schema: &Schema,
        bytes: &[u8],
    ) -> (String, Value, BTreeSet<String>) {
        let mut reading = Reading::new(schema, bytes);
        reading.note(0, 4, "\"NXDB\"");
        reading.note(4, 1, "version 1");
        reading.note(5, 3, "zeroes");
        let beacon = reading.root("Beacon", MAGIC_BYTES);
        let mut signature = Value::Null;
        if let Some(secret) = self.secret {
            let start = bytes.len() - PROOF_BYTES;
            let note = format!("HMAC-SHA-256 of all before, with the key {secret:?}");
            reading.note(start, PROOF_BYTES, note);
            signature = json!(hex(&bytes[start..]));
        }
        let annotation =
            format!("# Beacon: {}.\n# Sent by a node.\n{}", self.says, reading.annotated());
        let entry = json!({
            "file": self.file,
            "says": self.says,
            "key": self.secret,
            "beacon": beacon,
            "signature": signature,
        });
        (annotation, entry, reading.seen)
    }
}

/// All beacons.
pub(crate) fn beacon_vectors() -> Vec<BeaconVector> {
    let beacon = Beacon {
        node: NODE,
        start_us: START_US,
        cluster: "default",
        mesh_address: None,
        mesh_port: 5671,
        app_port: 5672,
        interest_hash: interest_hash(&["plant/#"]),
        retained_digest: 0,
        is_goodbye: false,
    };
    vec![
        BeaconVector {
            file: "beacon.hex",
            says: "a node that is found where its datagrams come from, and wants plant/#",
            secret: None,
            beacon: beacon.clone(),
        },
        BeaconVector {
            file: "beacon_signed.hex",
            says: "a node that says where it is found, in a cluster with a key",
            secret: Some(KEY),
            beacon: Beacon {
                mesh_address: Some("2001:db8::1".parse().expect("an address")),
                retained_digest: 0x0123_4567_89ab_cdef,
                ..beacon.clone()
            },
        },
        BeaconVector {
            file: "beacon_goodbye.hex",
            says: "the last beacon of a node that stops",
            secret: None,
            beacon: Beacon { is_goodbye: true, ..beacon },
        },
    ]
}
