//! What may stand between a message's header and its payload: content type, correlation id, user
//! headers, trace context.

use flatbuffers::{FlatBufferBuilder, WIPOffset};

use crate::error::DecodeError;
use crate::generated::metadata_generated::nexusd::metadata as table;
use crate::verify::verify;

/// A verified view of a metadata table.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a>(table::Metadata<'a>);

impl<'a> Metadata<'a> {
    /// Verifies `bytes` as one metadata table.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Self::decode_at(bytes, 0)
    }

    /// The same for the metadata of the frame at stream position `at`, for the error.
    pub(crate) fn decode_at(bytes: &'a [u8], at: u64) -> Result<Self, DecodeError> {
        verify::<table::Metadata<'_>>(bytes, at, "metadata").map(Self)
    }

    /// Media type of the payload.
    pub fn content_type(&self) -> Option<&'a str> {
        self.0.content_type()
    }

    /// Links a message to another one; opaque to the mesh.
    pub fn correlation_id(&self) -> Option<&'a str> {
        self.0.correlation_id()
    }

    /// W3C `traceparent`.
    pub fn trace_parent(&self) -> Option<&'a str> {
        self.0.trace_parent()
    }

    /// W3C `tracestate`.
    pub fn trace_state(&self) -> Option<&'a str> {
        self.0.trace_state()
    }

    /// The user's headers, in the order they were given; keys may repeat.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.0.headers().into_iter().flatten().map(|entry| (entry.key(), entry.value().bytes()))
    }
}

/// Writes metadata tables. Reusable: after the first messages it allocates nothing.
#[derive(Default)]
pub struct MetadataBuilder {
    builder: FlatBufferBuilder<'static>,
    entries: Vec<WIPOffset<table::HeaderEntry<'static>>>,
}

impl MetadataBuilder {
    /// Encodes one table; the bytes are valid until the next call. Absent and empty is the same for
    /// `headers`.
    pub fn encode<'h>(
        &mut self,
        content_type: Option<&str>,
        correlation_id: Option<&str>,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> &[u8] {
        let Self { builder, entries } = self;
        builder.reset();
        entries.clear();
        let content_type = content_type.map(|text| builder.create_string(text));
        let correlation_id = correlation_id.map(|text| builder.create_string(text));
        for (key, value) in headers {
            let key = Some(builder.create_string(key));
            let value = Some(builder.create_vector(value));
            let entry = table::HeaderEntryArgs { key, value };
            entries.push(table::HeaderEntry::create(builder, &entry));
        }
        let headers = (!entries.is_empty()).then(|| builder.create_vector(entries));
        let root = table::Metadata::create(
            builder,
            &table::MetadataArgs { content_type, correlation_id, headers, ..Default::default() },
        );
        builder.finish_minimal(root);
        builder.finished_data()
    }
}
