//! Wire messages and gRPC stubs of package `arca.v1`.
//!
//! These are shapes, not meaning: each consumer converts a message into its own validated type once, at
//! the edge, and works with that.

#![forbid(unsafe_code)]

/// Package `arca.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]
pub mod v1 {
    tonic::include_proto!("arca.v1");
}

impl std::fmt::Debug for v1::GetCredentialsResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetCredentialsResponse")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// The encoded descriptors of `arca.v1`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/arca.v1.bin"));
