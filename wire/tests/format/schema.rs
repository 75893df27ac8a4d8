//! A plain reader of FlatBuffers: it knows nothing but `wire/schema/*.fbs`, which it reads as text,
//! and the rules that `docs/PROTOCOL.md` gives to people without a FlatBuffers library. What it
//! finds in the golden bytes becomes their annotation and their entry in the index, so the
//! generated code and the document are checked by a reading that shares nothing with either.
//!
//! It trusts its bytes; only vectors of our own are read with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

const SCHEMAS: [&str; 4] = [
    include_str!("../../schema/frame.fbs"),
    include_str!("../../schema/metadata.fbs"),
    include_str!("../../schema/control.fbs"),
    include_str!("../../schema/beacon.fbs"),
];

/// Fields that hold hashes: all 64 bits of them matter, which a number in JSON may not keep.
const HASHES: [&str; 4] = ["hash", "before", "interest_hash", "retained_digest"];

struct Field {
    name: String,
    /// As the schema writes it, with `required`.
    declared: String,
    kind: Kind,
    /// `= null`: an absent scalar is not its default but absent.
    optional: bool,
}

#[derive(Clone)]
enum Kind {
    Unsigned(usize),
    Hash,
    Signed(usize),
    Bool,
    Text,
    Vector(Box<Kind>),
    Named(String),
}

/// Everything the schemas define.
pub(crate) struct Schema {
    /// Bytes of the underlying integer, and names by number.
    enums: BTreeMap<String, (usize, BTreeMap<u64, String>)>,
    structs: BTreeMap<String, Vec<Field>>,
    tables: BTreeMap<String, Vec<Field>>,
}

impl Schema {
    pub(crate) fn read() -> Self {
        let mut schema =
            Self { enums: BTreeMap::new(), structs: BTreeMap::new(), tables: BTreeMap::new() };
        for text in SCHEMAS {
            let plain: String = text
                .lines()
                .map(|line| line.split("//").next().unwrap_or_default())
                .collect::<Vec<_>>()
                .join(" ");
            for block in plain.split('}') {
                let Some((head, inside)) = block.split_once('{') else {
                    continue;
                };
                let words: Vec<&str> =
                    head.rsplit(';').next().unwrap_or_default().split_whitespace().collect();
                match words[..] {
                    ["enum", name, ":", kind] => {
                        let values = inside
                            .split(',')
                            .filter_map(|entry| entry.split_once('='))
                            .map(|(name, number)| {
                                let number = number.trim().parse().expect("an enum number");
                                (number, name.trim().to_owned())
                            })
                            .collect();
                        let (Kind::Unsigned(bytes) | Kind::Signed(bytes)) = kind_of(kind) else {
                            panic!("{name} is not an integer");
                        };
                        schema.enums.insert(name.to_owned(), (bytes, values));
                    }
                    ["struct", name] => {
                        schema.structs.insert(name.to_owned(), fields(inside));
                    }
                    ["table", name] => {
                        schema.tables.insert(name.to_owned(), fields(inside));
                    }
                    _ => panic!("a block this reader does not know: {head}"),
                }
            }
        }
        schema
    }

    /// Names of an enum by number.
    pub(crate) fn names(&self, name: &str) -> &BTreeMap<u64, String> {
        &self.enums[name].1
    }

    /// The tables and, for each, its fields as the columns of a line in the protocol document.
    pub(crate) fn table_lines(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        self.tables.iter().map(|(table, fields)| {
            let lines = fields
                .iter()
                .enumerate()
                .map(|(index, field)| {
                    format!("| `{}` | {index} | {} |", field.name, field.declared)
                })
                .collect();
            (table.as_str(), lines)
        })
    }

    /// Every `Table.field`.
    pub(crate) fn table_fields(&self) -> BTreeSet<String> {
        self.tables
            .iter()
            .flat_map(|(table, fields)| {
                fields.iter().map(move |field| format!("{table}.{}", field.name))
            })
            .collect()
    }

    /// Size and alignment of something that lies in place.
    fn layout(&self, kind: &Kind) -> (usize, usize) {
        match kind {
            Kind::Unsigned(bytes) | Kind::Signed(bytes) => (*bytes, *bytes),
            Kind::Hash => (8, 8),
            Kind::Bool => (1, 1),
            Kind::Text | Kind::Vector(_) => (4, 4),
            Kind::Named(name) => {
                if let Some((bytes, _)) = self.enums.get(name) {
                    return (*bytes, *bytes);
                }
                let Some(fields) = self.structs.get(name) else {
                    return (4, 4);
                };
                let mut size: usize = 0;
                let mut alignment = 1;
                for field in fields {
                    let (bytes, field_alignment) = self.layout(&field.kind);
                    size = size.next_multiple_of(field_alignment) + bytes;
                    alignment = alignment.max(field_alignment);
                }
                (size.next_multiple_of(alignment), alignment)
            }
        }
    }
}

fn kind_of(name: &str) -> Kind {
    match name {
        "ubyte" => Kind::Unsigned(1),
        "ushort" => Kind::Unsigned(2),
        "uint" => Kind::Unsigned(4),
        "ulong" => Kind::Unsigned(8),
        "long" => Kind::Signed(8),
        "bool" => Kind::Bool,
        "string" => Kind::Text,
        other => match other.strip_prefix('[') {
            Some(element) => Kind::Vector(Box::new(kind_of(element.trim_end_matches(']')))),
            None => Kind::Named(other.to_owned()),
        },
    }
}

fn fields(inside: &str) -> Vec<Field> {
    inside
        .split(';')
        .filter_map(|field| field.split_once(':'))
        .map(|(name, rest)| {
            let name = name.trim().to_owned();
            let kind = rest.split_whitespace().next().unwrap_or_default();
            let required = if rest.contains("(required)") { ", required" } else { "" };
            let is_hash = HASHES.contains(&name.as_str());
            Field {
                declared: format!("{kind}{required}"),
                kind: if is_hash { Kind::Hash } else { kind_of(kind) },
                optional: rest.contains("= null"),
                name,
            }
        })
        .collect()
}

/// Some bytes and what they mean.
pub(crate) struct Note {
    pub start: usize,
    pub end: usize,
    pub text: String,
}

/// One reading of one vector.
pub(crate) struct Reading<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
    /// In the order read; may name the same bytes twice where a table shares them.
    pub notes: Vec<Note>,
    /// Every `Table.field` that was present.
    pub seen: BTreeSet<String>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(schema: &'a Schema, bytes: &'a [u8]) -> Self {
        Self { schema, bytes, notes: Vec::new(), seen: BTreeSet::new() }
    }

    pub(crate) fn note(&mut self, start: usize, bytes: usize, text: impl Into<String>) {
        self.notes.push(Note { start, end: start + bytes, text: text.into() });
    }

    fn integer(&self, at: usize, bytes: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(&self.bytes[at..at + bytes]);
        u64::from_le_bytes(wide)
    }

    /// The struct at `at`.
    pub(crate) fn structure(&mut self, name: &str, at: usize, prefix: &str) -> Value {
        let schema = self.schema;
        if let [high, low] = &schema.structs[name][..]
            && high.name == "high"
            && low.name == "low"
        {
            let id = (u128::from(self.integer(at, 8)) << 64) | u128::from(self.integer(at + 8, 8));
            self.note(at, 8, format!("{prefix}.high = {:#018x}", (id >> 64) as u64));
            self.note(at + 8, 8, format!("{prefix}.low = {:#018x}", id as u64));
            return json!(format!("{id:032x}"));
        }
        let mut found = Map::new();
        let mut position = at;
        for field in &schema.structs[name] {
            let (size, alignment) = schema.layout(&field.kind);
            position = at + (position - at).next_multiple_of(alignment);
            let label = match prefix {
                "" => field.name.clone(),
                prefix => format!("{prefix}.{}", field.name),
            };
            found.insert(field.name.clone(), self.value(&field.kind, position, &label));
            position += size;
        }
        Value::Object(found)
    }

    /// The table that starts at `at`.
    pub(crate) fn table(&mut self, name: &str, at: usize, prefix: &str) -> Value {
        let schema = self.schema;
        let distance = self.integer(at, 4) as u32 as i32;
        let vtable = (at as i64 - i64::from(distance)) as usize;
        let vtable_bytes = self.integer(vtable, 2) as usize;
        let mut slots = format!("vtable of {name}: its bytes, the table's bytes");
        for (index, field) in schema.tables[name].iter().enumerate() {
            if 4 + 2 * index < vtable_bytes {
                slots.push_str(", ");
                slots.push_str(&field.name);
            }
        }
        self.note(vtable, vtable_bytes, slots);
        self.note(
            at,
            4,
            match distance {
                0.. => format!("table {name}: its vtable is {distance} bytes before"),
                _ => format!("table {name}: its vtable is {} bytes ahead", -distance),
            },
        );
        let mut found = Map::new();
        for (index, field) in schema.tables[name].iter().enumerate() {
            let slot = 4 + 2 * index;
            let offset = match slot < vtable_bytes {
                true => self.integer(vtable + slot, 2) as usize,
                false => 0,
            };
            let value = if offset == 0 {
                absent(field, schema)
            } else {
                self.seen.insert(format!("{name}.{}", field.name));
                let label = match prefix {
                    "" => field.name.clone(),
                    prefix => format!("{prefix}.{}", field.name),
                };
                self.value(&field.kind, at + offset, &label)
            };
            found.insert(field.name.clone(), value);
        }
        Value::Object(found)
    }

    /// The root table of the FlatBuffers bytes that start at `at`.
    pub(crate) fn root(&mut self, name: &str, at: usize) -> Value {
        let offset = self.integer(at, 4) as usize;
        self.note(at, 4, format!("root table {name} is {offset} bytes ahead"));
        self.table(name, at + offset, "")
    }

    /// What stands in place at `at`, or what the offset there leads to.
    fn value(&mut self, kind: &Kind, at: usize, label: &str) -> Value {
        match kind {
            Kind::Unsigned(bytes) => {
                let value = self.integer(at, *bytes);
                self.note(at, *bytes, format!("{label} = {value}"));
                json!(value)
            }
            Kind::Hash => {
                let value = self.integer(at, 8);
                self.note(at, 8, format!("{label} = {value:#018x}"));
                json!(format!("{value:016x}"))
            }
            Kind::Signed(bytes) => {
                let value = self.integer(at, *bytes).cast_signed();
                self.note(at, *bytes, format!("{label} = {value}"));
                json!(value)
            }
            Kind::Bool => {
                let value = self.bytes[at] != 0;
                self.note(at, 1, format!("{label} = {value}"));
                json!(value)
            }
            Kind::Text => {
                let start = self.follow(at, label);
                let length = self.integer(start, 4) as usize;
                let text = std::str::from_utf8(&self.bytes[start + 4..start + 4 + length])
                    .expect("texts are UTF-8");
                assert_eq!(self.bytes[start + 4 + length], 0, "texts end with a zero byte");
                self.note(start, 4, format!("{label}: {length} bytes"));
                self.note(start + 4, length + 1, format!("{text:?} and a zero byte"));
                json!(text)
            }
            Kind::Vector(element) => {
                let start = self.follow(at, label);
                let length = self.integer(start, 4) as usize;
                self.note(start, 4, format!("{label}: {length} elements"));
                if matches!(**element, Kind::Unsigned(1)) {
                    self.note(start + 4, length, format!("{label}: the bytes"));
                    return json!(hex(&self.bytes[start + 4..start + 4 + length]));
                }
                let (size, _) = self.schema.layout(element);
                (0..length)
                    .map(|index| {
                        let at = start + 4 + index * size;
                        self.value(element, at, &format!("{label}[{index}]"))
                    })
                    .collect()
            }
            Kind::Named(name) => {
                if let Some((bytes, names)) = self.schema.enums.get(name) {
                    let value = self.integer(at, *bytes);
                    let said = names.get(&value).map_or("?", String::as_str);
                    self.note(at, *bytes, format!("{label} = {value} ({said})"));
                    json!(value)
                } else if self.schema.structs.contains_key(name) {
                    self.structure(name, at, label)
                } else {
                    let start = self.follow(at, label);
                    self.table(name, start, label)
                }
            }
        }
    }

    fn follow(&mut self, at: usize, label: &str) -> usize {
        let offset = self.integer(at, 4) as usize;
        self.note(at, 4, format!("{label} is {offset} bytes ahead"));
        at + offset
    }

    /// All bytes with their notes, as text: hexadecimal, then `#`, the position and the note.
    pub(crate) fn annotated(&mut self) -> String {
        self.notes.sort_by_key(|note| (note.start, note.end));
        let mut text = String::new();
        let mut position = 0;
        for note in &self.notes {
            if note.start > position {
                line(&mut text, self.bytes, position, note.start, "padding");
                position = note.start;
            }
            if note.start == position && note.end > position {
                line(&mut text, self.bytes, position, note.end, &note.text);
                position = note.end;
            }
        }
        if position < self.bytes.len() {
            line(&mut text, self.bytes, position, self.bytes.len(), "padding");
        }
        text
    }
}

fn absent(field: &Field, schema: &Schema) -> Value {
    match &field.kind {
        Kind::Unsigned(_) | Kind::Signed(_) if !field.optional => json!(0),
        Kind::Hash => json!(format!("{:016x}", 0)),
        Kind::Bool => json!(false),
        Kind::Named(name) if schema.enums.contains_key(name) && !field.optional => json!(0),
        _ => Value::Null,
    }
}

fn line(text: &mut String, bytes: &[u8], start: usize, end: usize, note: &str) {
    const PER_LINE: usize = 16;
    for (index, row) in bytes[start..end].chunks(PER_LINE).enumerate() {
        let digits: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let at = start + index * PER_LINE;
        let said = if index == 0 { note } else { "…" };
        text.push_str(&format!("{:<47}  # {at:#06x} {said}\n", digits.join(" ")));
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
