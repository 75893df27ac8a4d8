//! What may stand between a message's header and its payload: content type, correlation id, user
//! headers, trace context.

use flatbuffers::{FlatBufferBuilder, WIPOffset};

use crate::error::DecodeError;
use crate::frame::one_line;
use crate::generated::metadata_generated::nexusd::metadata as table;

/// A verified view of a metadata table.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a>(table::Metadata<'a>);

impl<'a> Metadata<'a> {
    /// Verifies `bytes` as one metadata table.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        flatbuffers::root::<table::Metadata<'_>>(bytes)
            .map(Self)
            .map_err(|cause| DecodeError::Body {
                at: 0,
                what: "metadata",
                cause: one_line(&cause),
            })
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
        self.0
            .headers()
            .into_iter()
            .flatten()
            .map(|entry| (entry.key(), entry.value().bytes()))
    }
}

/// Writes metadata tables. Reusable: after the first messages it allocates nothing.
#[derive(Default)]
pub struct MetadataBuilder {
    builder: FlatBufferBuilder<'static>,
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
        let builder = &mut self.builder;
        builder.reset();
        let content_type = content_type.map(|text| builder.create_string(text));
        let correlation_id = correlation_id.map(|text| builder.create_string(text));
        let entries: Vec<WIPOffset<table::HeaderEntry<'_>>> = headers
            .into_iter()
            .map(|(key, value)| {
                let key = Some(builder.create_string(key));
                let value = Some(builder.create_vector(value));
                table::HeaderEntry::create(builder, &table::HeaderEntryArgs { key, value })
            })
            .collect();
        let headers = (!entries.is_empty()).then(|| builder.create_vector(&entries));
        let root = table::Metadata::create(
            builder,
            &table::MetadataArgs {
                content_type,
                correlation_id,
                headers,
                ..Default::default()
            },
        );
        builder.finish_minimal(root);
        builder.finished_data()
    }
}
