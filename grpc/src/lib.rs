//! The gRPC shim of a node.

/// The messages and services of `proto/sidecar.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("nexusd.sidecar");

    /// The description that reflection serves.
    pub const DESCRIPTION: &[u8] = tonic::include_file_descriptor_set!("sidecar");
}
