//! Seeds made of the golden vectors, and a few made by hand: hostile ones, and conversations that
//! reach far into a session.

use std::fs;
use std::path::Path;

use nexusd_wire::{FrameKind, HEADER_BYTES};

/// One file of `fuzz/seeds`.
pub(crate) struct Seed {
    pub(crate) target: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn made() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let golden = golden();
    for (name, bytes) in &golden {
        from_golden(name, bytes, &mut seeds);
    }
    let everything: Vec<u8> = golden
        .iter()
        .filter(|(name, _)| name != "metadata" && !name.starts_with("beacon"))
        .flat_map(|(_, bytes)| bytes.clone())
        .collect();
    let mut add = |target, name: &str, bytes: Vec<u8>| {
        seeds.push(Seed { target, name: name.to_owned(), bytes });
    };
    add("cutter", "all-in-pieces", [&[3, 2, 0, 46, 99], &everything[..]].concat());
    add("cutter", "all-by-byte", [&[0, 0, 0], &everything[..]].concat());
    add("cutter", "total-47", [&[0, 0, 6], &header(47, 19, 0, 0)[..]].concat());
    add("cutter", "total-0", [&[0, 0, 6], &[0; HEADER_BYTES][..]].concat());
    add("cutter", "total-max", [&[0, 0, 6], &header(u32::MAX, 19, 0, 0)[..]].concat());
    add("cutter", "metadata-overrun", [&[0, 0, 6], &header(50, 19, 0, 9)[..]].concat());
    add("cutter", "unknown-kind", [&[0, 0, 6], &header(48, 255, 0, 0)[..]].concat());
    add("cutter", "unknown-flags", [&[0, 0, 6], &header(48, 19, 0xC0, 0)[..]].concat());
    let (_, beacon) = golden.iter().find(|(name, _)| name == "beacon").expect("a beacon");
    add("beacons", "signed-by-a-stranger", [&[1], &beacon[..], &[0x55; 32]].concat());
    add("beacons", "signed-by-the-cluster", [&[3], &beacon[..]].concat());
    add("beacons", "signature-alone", [1; 33].to_vec());
    add("beacons", "version-2", b"\0NXDB\x02\0\0\0".to_vec());
    add("beacons", "magic-alone", b"\0NXDB\x01\0\0\0".to_vec());
    add("beacons", "too-long", vec![0; 1_026]);
    for (name, text) in FILTERS {
        add("filters", name, text.as_bytes().to_vec());
    }
    for (name, bytes) in SESSIONS {
        add("session", name, bytes.to_vec());
    }
    for (name, text) in CONFIGURATIONS {
        add("config", name, separated(text));
    }
    seeds
}

/// Name and bytes of each vector.
fn golden() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut vectors: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .expect("tests/golden")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a vector");
            let bytes = text
                .lines()
                .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
                .map(|digits| u8::from_str_radix(digits, 16).expect("hexadecimal"))
                .collect();
            (name, bytes)
        })
        .collect();
    vectors.sort();
    vectors
}

/// What a vector is good for as a seed of each target.
fn from_golden(name: &str, bytes: &[u8], seeds: &mut Vec<Seed>) {
    let mut add = |target, bytes| {
        seeds.push(Seed { target, name: format!("golden-{name}"), bytes });
    };
    if name == "metadata" {
        add("metadata", [&[0], bytes].concat());
        return;
    }
    if name.starts_with("beacon") {
        add("beacons", [&[0], bytes].concat());
        return;
    }
    // Open, greet, say the vector, deliver.
    let said = bytes.len().min(255);
    let session = [&[0x00, 0x0B, 0x01, said as u8], &bytes[..said], &[0x03]].concat();
    add("session", session);
    let metadata_len = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    if metadata_len > 0 {
        let metadata = &bytes[HEADER_BYTES..HEADER_BYTES + metadata_len];
        add("metadata", [&[3], metadata].concat());
    } else if bytes.len() > HEADER_BYTES && bytes[4] != FrameKind::Message.0 {
        let kinds = FrameKind::ENUM_VALUES;
        let kind = kinds.iter().position(|kind| kind.0 == bytes[4]).expect("a kind");
        add("bodies", [&[kind as u8, 3], &bytes[HEADER_BYTES..]].concat());
    }
}

fn header(total: u32, kind: u8, flags: u8, metadata_len: u16) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&total.to_le_bytes());
    bytes[4] = kind;
    bytes[5] = flags;
    bytes[6..8].copy_from_slice(&metadata_len.to_le_bytes());
    bytes
}

const FILTERS: [(&str, &str); 6] = [
    ("mqtt", "+sport/#\n+sport/+/player1\n+#\nsport\nsport/tennis/player1\nsport/"),
    ("system", "+#\n+$SYS/#\n++/x\n$SYS\n$SYS/x\nx"),
    ("empty-levels", "+a//b\n+/+\n++\n+/\n/\n//\na//b\n/a"),
    ("come-and-go", "+a/b\n+a/#\na/b\n-a/b\na/b\n-a/#\na/b\n+a/b/c/d\n-a/b/c/d"),
    ("bad", "+\n+a#\n+#/a\n+a+/b\na+\na#b\n\u{1}\n+\u{85}"),
    (
        "long",
        concat!(
            "+",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/#\n",
            "////////////////////////////////////////////////////////////////"
        ),
    ),
];

/// Steps as `fuzz/targets/src/session.rs` reads them; the upper half of a step is the seat.
const SESSIONS: [(&str, &[u8]); 8] = [
    // HTTP/1 in pieces, to a socket that takes the answer in pieces.
    (
        "http1",
        b"\x00\x05\x02\x00\x01\x10GET / HTTP/1.1\r\n\x02\x02\x00\x02\x00\x00\x03\x05\x01\x00\x06\x03",
    ),
    // Seat 0 subscribes to all; seat 1 binds "a/b" and publishes small and large messages with acks.
    (
        "publish-and-subscribe",
        &[
            0x00, 0x0B, 0x0C, 0x00, 0x00, 0x03, 0x10, 0x1B, 0x1D, 0x01, 0x1E, 0x82, 0x05, 0x1E,
            0x84, 0x02, 0x13, 0x12, 0xFF, 0x7F, 0x13, 0x13, 0x13,
        ],
    ),
    // A blocked queue holds the publisher back until the block times out.
    (
        "block",
        &[
            0x00, 0x0B, 0x0C, 0x00, 0x31, 0x03, 0x05, 0x10, 0x00, 0x10, 0x1B, 0x1D, 0x01, 0x1E,
            0x82, 0x0F, 0x1E, 0x82, 0x0F, 0x13, 0x13, 0x04, 0xD0, 0x07, 0x06, 0x13,
        ],
    ),
    // The socket takes 16 bytes; the queue overflows; then it takes all.
    (
        "overflow",
        &[
            0x00, 0x0B, 0x0C, 0x00, 0x00, 0x03, 0x05, 0x10, 0x00, 0x10, 0x1B, 0x1D, 0x00, 0x1E,
            0x03, 0x0F, 0x1E, 0x03, 0x0F, 0x13, 0x06,
        ],
    ),
    // Sends that take time, while the subscriber unsubscribes and the peer leaves.
    (
        "leave-during-send",
        &[
            0x00, 0x0B, 0x0C, 0x00, 0x00, 0x03, 0x08, 0x01, 0x10, 0x1B, 0x1D, 0x00, 0x1E, 0x04,
            0x03, 0x13, 0x0F, 0x04, 0x03, 0x07, 0x07, 0x09, 0x07,
        ],
    ),
    // Nothing is said, then nothing is answered: Hello, ping and pong time out.
    ("silence", &[0x00, 0x04, 0xFF, 0xFF, 0x10, 0x1B, 0x13, 0x04, 0xFF, 0xFF, 0x04, 0xFF, 0xFF]),
    // The daemon stops in the middle of it.
    (
        "drain",
        &[
            0x00, 0x0B, 0x0C, 0x00, 0x00, 0x03, 0x10, 0x1B, 0x1D, 0x00, 0x1E, 0x03, 0x0F, 0x12,
            0x00, 0x02, 0x0A, 0x08, 0x13, 0x04, 0xFF, 0xFF,
        ],
    ),
    // More connections than there may be.
    ("too-many", &[0x00, 0x10, 0x20, 0x30, 0x0B, 0x1B, 0x2B, 0x3B, 0x03, 0x13, 0x23, 0x33]),
];

/// `|` ends a word, `¦` a part.
const CONFIGURATIONS: [(&str, &str); 6] = [
    ("flags", "--app-port=0|--bind|127.0.0.1,::1|--memory-limit|64M"),
    ("environment", "¦NEXUSD_APP_PORT=7|NEXUSD_LOG_LEVEL=debug|OTHER=x"),
    ("file", "--config|f.toml¦¦app-port = 5673\nlog-format = \"json\"\nspin-us = 20\n"),
    ("bad-values", "--app-port=70000|--memory-limit=1Z¦NEXUSD_NOPE=1¦x = ["),
    ("help", "--help"),
    ("unknown", "--memroy-limit=1G|--|extra"),
];

fn separated(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for character in text.chars() {
        match character {
            '|' => bytes.push(0),
            '¦' => bytes.push(0xFF),
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}
