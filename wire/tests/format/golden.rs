//! Golden byte vectors: `tests/golden/` holds one or more frames of every kind, and beacons, for the
//! implementations of every language. The encoder must write exactly these bytes and the decoder must read them.
//!
//! `NEXUSD_BLESS=1 cargo test -p nexusd-wire --test format golden` writes the files anew, and the
//! vectors shown in `docs/PROTOCOL.md` with them. A difference that shows up in review is a change
//! of the protocol.

mod beacons;
mod interest_hash;
mod links;
mod vectors;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use beacons::beacon_vectors;
use nexusd_wire::{
    Beacon, ClusterKey, Cut, FrameCutter, FrameKind, HEADER_BYTES, Metadata, PROTOCOL_MINOR,
    aligned,
};
use serde_json::{Value, json};
use vectors::{Vector, metadata_vector, vectors};

use crate::sample::{MetadataSample, Sample};
use crate::schema::{Reading, Schema, hex};

const METADATA_FILE: &str = "metadata.hex";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn golden(file: &str) -> PathBuf {
    root().join("tests/golden").join(file)
}

fn blessing() -> bool {
    std::env::var_os("NEXUSD_BLESS").is_some_and(|value| value == "1")
}

/// Compares a committed file with what it should be, or writes it.
fn assert_file(path: &Path, wanted: &str) {
    if blessing() {
        fs::write(path, wanted).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let found = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}; NEXUSD_BLESS=1 writes it", path.display()));
    assert_eq!(found, wanted, "{} is not current; NEXUSD_BLESS=1 writes it anew", path.display());
}

/// The bytes in an annotated file: of every line what stands before `#`.
fn bytes_of(file: &str) -> Vec<u8> {
    let path = golden(file);
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; NEXUSD_BLESS=1 writes it", path.display()));
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .map(|digits| u8::from_str_radix(digits, 16).expect("hexadecimal bytes"))
        .collect()
}

/// Reads a frame by the schemas alone: its annotation and its entry in the index.
fn read_plainly(
    schema: &Schema,
    vector: &Vector,
    bytes: &[u8],
) -> (String, Value, BTreeSet<String>) {
    let mut reading = Reading::new(schema, bytes);
    let kind = u64::from(bytes[4]);
    let name = schema.names("FrameKind")[&kind].clone();
    let header = reading.structure("Header", 0, "");
    for note in &mut reading.notes {
        match note.start {
            0 => note.text.push_str(", exact; the next frame starts at the next multiple of 8"),
            4 => note.text.push_str(&format!(" ({name})")),
            _ => {}
        }
    }
    let length = |field: &str| header[field].as_u64().expect("a length") as usize;
    let (total, metadata_len) = (length("total"), length("metadata_len"));
    let metadata = match metadata_len {
        0 => Value::Null,
        _ => reading.root("Metadata", HEADER_BYTES),
    };
    let start = HEADER_BYTES + aligned(metadata_len);
    let (mut body, mut payload) = (Value::Null, Value::Null);
    if matches!(name.as_str(), "Message" | "Request" | "Reply") {
        reading.note(start, total - start, "payload");
        payload = json!(hex(&bytes[start..total]));
    } else if total > start {
        body = reading.root(&name, start);
    }
    let annotation = format!(
        "# {name}: {}.\n# Sent by the {}.\n{}",
        vector.says,
        vector.sender,
        reading.annotated()
    );
    let entry = json!({
        "file": vector.file,
        "kind": name,
        "says": vector.says,
        "sender": vector.sender,
        "header": header,
        "metadata": metadata,
        "body": body,
        "payload": payload,
    });
    (annotation, entry, reading.seen)
}

fn read_metadata_plainly(schema: &Schema, bytes: &[u8]) -> (String, Value, BTreeSet<String>) {
    let mut reading = Reading::new(schema, bytes);
    let metadata = reading.root("Metadata", 0);
    let annotation = format!(
        "# A metadata table with every field, as it stands behind a header; its padding is not part \
         of it.\n{}",
        reading.annotated()
    );
    let entry = json!({ "file": METADATA_FILE, "metadata": metadata });
    (annotation, entry, reading.seen)
}

#[test]
fn every_frame_kind_has_a_vector() {
    let shown: BTreeSet<u8> = vectors().iter().map(|vector| vector.sample.kind().0).collect();
    for kind in FrameKind::ENUM_VALUES {
        assert!(shown.contains(&kind.0), "no vector of {kind:?}");
    }
}

#[test]
fn every_field_of_every_table_stands_in_a_vector() {
    let schema = Schema::read();
    let mut seen = read_metadata_plainly(&schema, &metadata_vector().bytes()).2;
    for vector in vectors() {
        seen.extend(read_plainly(&schema, &vector, &vector.sample.bytes()).2);
    }
    for vector in beacon_vectors() {
        seen.extend(vector.read_plainly(&schema, &vector.bytes()).2);
    }
    if PROTOCOL_MINOR == 0 {
        // What is 0 is not written, and beacons are written with our own version alone.
        seen.insert("Beacon.minor".to_owned());
    }
    let missing: Vec<_> = schema.table_fields().difference(&seen).cloned().collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_encoder_writes_the_golden_bytes() {
    if blessing() {
        return;
    }
    for vector in vectors() {
        assert_eq!(hex(&vector.sample.bytes()), hex(&bytes_of(vector.file)), "{}", vector.file);
    }
    for vector in beacon_vectors() {
        assert_eq!(hex(&vector.bytes()), hex(&bytes_of(vector.file)), "{}", vector.file);
    }
    assert_eq!(hex(&metadata_vector().bytes()), hex(&bytes_of(METADATA_FILE)));
}

#[test]
fn the_decoder_reads_the_golden_values() {
    if blessing() {
        return;
    }
    for vector in vectors() {
        let bytes = bytes_of(vector.file);
        let mut input = &bytes[..];
        let mut cutter = FrameCutter::new(u32::MAX, u32::MAX, usize::MAX);
        let Ok(Cut::Frame(frame)) = cutter.next(&mut input) else {
            panic!("{} is not a frame", vector.file);
        };
        let decoded = Sample::decode(&frame).unwrap_or_else(|error| {
            panic!("{}: {error}", vector.file);
        });
        assert_eq!(decoded, vector.sample, "{}", vector.file);
        assert!(input.is_empty(), "{} holds one frame", vector.file);
    }
    for vector in beacon_vectors() {
        let bytes = bytes_of(vector.file);
        let decoded = Beacon::decode(&bytes, vector.key().as_ref());
        assert_eq!(decoded.expect("a beacon"), vector.beacon, "{}", vector.file);
    }
    let bytes = bytes_of(METADATA_FILE);
    let view = Metadata::decode(&bytes).expect("the metadata verifies");
    assert_eq!(
        MetadataSample::decode(&view, &bytes).expect("the metadata verifies"),
        metadata_vector()
    );
}

#[test]
fn files_say_what_a_reader_with_nothing_but_the_schemas_finds() {
    let schema = Schema::read();
    let mut files: BTreeSet<String> = BTreeSet::from(["index.json".into(), "README.md".into()]);
    let mut frames = Vec::new();
    for vector in vectors() {
        let (annotation, entry, _) = read_plainly(&schema, &vector, &vector.sample.bytes());
        assert_file(&golden(vector.file), &annotation);
        frames.push(entry);
        assert!(files.insert(vector.file.to_owned()), "{} twice", vector.file);
    }
    let mut beacons = Vec::new();
    for vector in beacon_vectors() {
        let (annotation, entry, _) = vector.read_plainly(&schema, &vector.bytes());
        assert_file(&golden(vector.file), &annotation);
        beacons.push(entry);
        assert!(files.insert(vector.file.to_owned()), "{} twice", vector.file);
    }
    let (annotation, entry, _) = read_metadata_plainly(&schema, &metadata_vector().bytes());
    assert_file(&golden(METADATA_FILE), &annotation);
    files.insert(METADATA_FILE.to_owned());
    let index = json!({ "frames": frames, "tables": [entry], "beacons": beacons });
    let index = serde_json::to_string_pretty(&index).expect("an index");
    assert_file(&golden("index.json"), &format!("{index}\n"));

    let found: BTreeSet<String> = fs::read_dir(golden(""))
        .expect("tests/golden")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, files);
}

/// The proofs are made of nothing but what the vectors before them say.
#[test]
fn links_in_a_cluster_with_a_key_prove_that_they_have_it() {
    let introduction = |file: &str| {
        let vector = vectors().into_iter().find(|vector| vector.file == file);
        match vector.expect(file).sample {
            Sample::Hello { introduction, .. } | Sample::Welcome { introduction, .. } => {
                introduction.expect("a node's")
            }
            other => panic!("{other:?}"),
        }
    };
    let dialler = introduction("hello_node_challenge.hex");
    let dialled = introduction("welcome_node_proof.hex");
    let ack = vectors().into_iter().find(|vector| vector.file == "link_ack_proof.hex");
    let Some(Sample::LinkAck { proof: Some(last_proof), .. }) = ack.map(|vector| vector.sample)
    else {
        panic!("a proof");
    };
    let key = ClusterKey::new(links::KEY.as_bytes());
    let challenge = dialler.challenge.expect("a challenge");
    let proof = dialled.proof.expect("a proof");
    assert!(key.is_answer(&challenge, dialled.node, dialler.node, &proof));
    let challenge = dialled.challenge.expect("a challenge");
    assert!(key.is_answer(&challenge, dialler.node, dialled.node, &last_proof));
    // As the protocol document says it.
    let ids = [dialler.node.0.to_le_bytes(), dialled.node.0.to_le_bytes()].concat();
    assert_eq!(key.sign(&[b"nexusd link", &challenge[..], &ids].concat()), last_proof[..]);
}

fn annotation_of(schema: &Schema, file: &str) -> String {
    let beacon = beacon_vectors().into_iter().find(|vector| vector.file == file);
    if let Some(vector) = beacon {
        return vector.read_plainly(schema, &vector.bytes()).0;
    }
    let frame = vectors().into_iter().find(|vector| vector.file == file);
    let vector = frame.unwrap_or_else(|| panic!("{file} is not a vector"));
    read_plainly(schema, &vector, &vector.sample.bytes()).0
}

/// `docs/PROTOCOL.md` shows vectors in code blocks behind lines `<!-- golden: FILE -->`.
#[test]
fn the_protocol_document_shows_the_golden_files() {
    const MARK: &str = "<!-- golden: ";
    const FENCE: &str = "```";
    let schema = Schema::read();
    let path = root().join("docs/PROTOCOL.md");
    let text = fs::read_to_string(&path).expect("docs/PROTOCOL.md");
    let mut current = String::new();
    let mut shown = BTreeSet::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        current.push_str(line);
        current.push('\n');
        let Some(file) = line.strip_prefix(MARK).and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        let annotation = annotation_of(&schema, file);
        assert_eq!(lines.next(), Some("```text"), "behind {line}");
        lines.by_ref().find(|line| *line == FENCE).expect("the end of the block");
        current.push_str(&format!("```text\n{annotation}{FENCE}\n"));
        shown.insert(file);
    }
    assert!(shown.len() >= 7, "the worked example shows whole frames");
    assert_file(&path, &current);
}

#[test]
fn the_protocol_document_names_every_kind_field_and_number() {
    let schema = Schema::read();
    let text = fs::read_to_string(root().join("docs/PROTOCOL.md")).expect("docs/PROTOCOL.md");
    for name in [
        "FrameKind",
        "ErrorCode",
        "PublishStatus",
        "OverflowPolicy",
        "DeliveryMode",
        "GapReason",
        "GapMode",
        "Role",
        "Farewell",
    ] {
        for (number, value) in schema.names(name) {
            let row = format!("| {number} | `{value}` |");
            assert!(text.contains(&row), "{name} {value}: no line {row:?}");
        }
    }
    for kind in FrameKind::ENUM_VALUES {
        let name = kind.variant_name().expect("a name");
        let heading = format!("\n#### {name} ({})\n", kind.0);
        assert!(text.contains(&heading), "no heading {heading:?}");
    }
    for (table, lines) in schema.table_lines() {
        // Tables of metadata have no heading of their own.
        let heading = format!("\n#### {table} (");
        let section = text
            .split_once(&heading)
            .map_or(&text[..], |(_, behind)| behind.split("\n#").next().unwrap_or_default());
        for line in lines {
            assert!(section.contains(&line), "{table}: no line {line:?}");
        }
    }
}
