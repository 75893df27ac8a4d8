//! What operators ask a node, and tell it.

/// The messages and services of `proto/admin.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("nexusd.admin");

    /// The description that reflection serves.
    pub const DESCRIPTION: &[u8] = tonic::include_file_descriptor_set!("admin");
}
