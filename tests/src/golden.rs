//! The golden vectors: the bytes of at least one frame of every kind.

use std::path::Path;

/// One vector.
#[derive(Clone, Debug)]
pub struct Vector {
    /// The file's name without its extension.
    pub name: String,
    /// The frame's kind, by name.
    pub kind: String,
    /// Whether clients send it.
    pub from_client: bool,
    /// The frame, padded to its stride.
    pub bytes: Vec<u8>,
}

/// All vectors, in the order of the index.
///
/// # Panics
/// If they are not where they belong, or not what they should be.
pub fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let index: serde_json::Value = serde_json::from_str(&read("index.json")).expect("JSON");
    let frames = index["frames"].as_array().expect("a list of frames");
    frames
        .iter()
        .map(|frame| {
            let text = |key: &str| frame[key].as_str().expect("a text").to_owned();
            let file = text("file");
            Vector {
                bytes: unhex(&read(&file)),
                name: file.trim_end_matches(".hex").to_owned(),
                kind: text("kind"),
                from_client: text("sender").contains("client"),
            }
        })
        .collect()
}

/// The bytes of a `.hex` file: hexadecimal, with comments behind `#`.
fn unhex(text: &str) -> Vec<u8> {
    text.lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte in hexadecimal"))
        .collect()
}
