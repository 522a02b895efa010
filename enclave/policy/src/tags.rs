//! Domain tags of this crate.

/// Prefix of what [`Intent::digest`](crate::Intent::digest) hashes.
pub(crate) const INTENT: &str = "arca/v1/intent";
