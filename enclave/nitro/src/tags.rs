//! Every domain tag of this crate. A tag names one purpose and is never used for another.

/// AES-GCM associated data, before a blob's header: wrapping the blob's data key under a boot key.
pub(crate) const WRAP: &[u8] = b"arca/v1/nitro-wrap";
