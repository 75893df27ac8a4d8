//! The NexusD wire format: bytes to typed frames and back.
//!
//! Client connections and mesh links carry the same frames: a fixed 48-byte [`Header`], an optional
//! FlatBuffers [`Metadata`] table, then a payload (of messages) or a FlatBuffers body (of control
//! frames). `docs/PROTOCOL.md` describes the format for people who write clients;
//! `wire/schema/*.fbs` is its source.
//!
//! * [`FrameCutter`] cuts whole frames out of a byte stream and lends them without copying.
//! * [`Frame`] is a borrowed, checked view; [`Frame::body`] verifies a control body.
//! * [`FrameEncoder`] writes frames into a byte vector.
//! * [`Beacon`] is what nodes tell each other by datagram, [`ClusterKey`] what signs it.
//!
//! This crate does no I/O, asks no clock, holds no hand-written `unsafe`, and never panics on bytes
//! from outside: what is wrong with them is a [`DecodeError`] that says what and where.

mod beacon;
mod cluster_key;
mod encode;
mod error;
mod frame;
mod header;
mod ids;
mod metadata;
mod names;
#[cfg(feature = "protocol-next")]
mod next;
mod verify;

#[allow(
    unsafe_code,
    unused_imports,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    mismatched_lifetime_syntaxes,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::semicolon_if_nothing_returned
)]
mod generated {
    pub mod beacon_generated;
    pub mod control_generated;
    pub mod frame_generated;
    pub mod metadata_generated;
}

/// The bodies of control frames, generated from `wire/schema/control.fbs`.
pub use generated::control_generated::nexusd::control;
/// The metadata table behind [`Metadata`], generated from `wire/schema/metadata.fbs`.
pub use generated::metadata_generated::nexusd::metadata as metadata_table;

pub use beacon::{BEACON_BYTES_MAX, Beacon, BeaconError};
pub use cluster_key::{CHALLENGE_BYTES, ClusterKey, PROOF_BYTES};
pub use encode::{
    ErrorReport, FrameEncoder, GapReport, InterestChange, Introduction, Member, NodeStatePart,
    Position, RETAINED_BUCKETS, SubscribeRequest, SubscriptionReport, WarningReport,
};
pub use error::DecodeError;
pub use frame::{Cut, Frame, FrameCutter};
pub use header::{
    FRAME_ALIGNMENT, FrameKind, HEADER_BYTES, Header, MessageFlags, PROTOCOL_MAJOR, PROTOCOL_MINOR,
    aligned,
};
pub use ids::{NodeId, Sequence, SubscriptionId, TopicId};
pub use metadata::{Metadata, MetadataBuilder};
pub use names::{NameError, TOPIC_BYTES_MAX, check_filter, check_topic, filter_matches};
#[cfg(feature = "protocol-next")]
pub use next::{NEXT_FLAG, NEXT_KIND};

/// What the Error says that ends a connection because an operator had it ended. Its code, LimitReached, has other
/// causes.
pub const CLOSED_BY_OPERATOR: &str = "an operator closed the connection";
