//! What simulated messages carry: bytes that tell whose they are.
//!
//! A payload is a stretch of one fixed noise, chosen by the publication's index, with the index in
//! its first four bytes; so a message that arrives names itself, and every byte of it can be
//! compared. Payloads too short for that name themselves by their key hash.

use std::sync::OnceLock;

use nexusd_wire::{FrameEncoder, Header, MetadataBuilder};

use crate::dice::Dice;

/// Bytes of a payload that name its publication.
pub const NAME_BYTES: usize = 4;

const NOISE_BYTES: usize = 512 << 10;
const NOISE_OFFSETS: usize = 64 << 10;

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut dice = Dice::new(0x006e_6f69_7365);
        let words = (NOISE_BYTES + NOISE_OFFSETS) / size_of::<u64>();
        (0..words).flat_map(|_| dice.bits().to_le_bytes()).collect()
    })
}

fn stretch(publication: u32, len: usize) -> &'static [u8] {
    let start = publication.wrapping_mul(2_654_435_761) as usize % NOISE_OFFSETS;
    &noise()[start..start + len.min(NOISE_BYTES)]
}

/// Appends the message frame of a publication.
pub fn encode(out: &mut Vec<u8>, header: &Header, metadata: &[u8], publication: u32, len: usize) {
    FrameEncoder::message(out, header, metadata, stretch(publication, len));
    if len >= NAME_BYTES {
        let payload_end = out.len() - (nexusd_wire::aligned(len) - len);
        let payload_start = payload_end - len;
        out[payload_start..payload_start + NAME_BYTES].copy_from_slice(&publication.to_le_bytes());
    }
}

/// A payload of the daemon's own.
pub fn bytes(publication: u32, len: usize) -> Vec<u8> {
    let mut bytes = stretch(publication, len).to_vec();
    if let Some(name) = bytes.first_chunk_mut::<NAME_BYTES>() {
        *name = publication.to_le_bytes();
    }
    bytes
}

/// The publication that a delivered message says it is.
pub fn publication_of(header: &Header, payload: &[u8]) -> u32 {
    payload.first_chunk::<NAME_BYTES>().map_or(header.key_hash(), |name| u32::from_le_bytes(*name))
}

/// Whether a payload is what the publication was sent with.
pub fn is_intact(publication: u32, payload: &[u8]) -> bool {
    match payload.split_first_chunk::<NAME_BYTES>() {
        Some((name, rest)) => {
            *name == publication.to_le_bytes()
                && rest == &stretch(publication, payload.len())[NAME_BYTES..]
        }
        None => payload == stretch(publication, payload.len()),
    }
}

/// A few metadata tables that messages are sent with; the first is none at all.
#[derive(Debug)]
pub struct MetadataShelf {
    tables: Vec<Vec<u8>>,
}

impl Default for MetadataShelf {
    /// Encodes the tables.
    fn default() -> Self {
        let mut builder = MetadataBuilder::default();
        let long = [b'x'; 900];
        let tables = vec![
            Vec::new(),
            builder.encode(Some("text/plain"), None, []).to_vec(),
            builder.encode(None, Some("order-17"), [("trace", &b"\x00\xff"[..])]).to_vec(),
            builder
                .encode(Some("application/octet-stream"), None, [("k", &long[..]), ("k", &[])])
                .to_vec(),
        ];
        Self { tables }
    }
}

impl MetadataShelf {
    /// The index of any of them.
    pub fn pick(&self, dice: &mut Dice) -> usize {
        dice.below(self.tables.len())
    }

    /// One of them.
    pub fn table(&self, index: usize) -> &[u8] {
        self.tables.get(index).map_or(&[], Vec::as_slice)
    }
}
