//! Domain separation: every hash of this crate, and nothing else, is tagged here.

use sha2::{Digest as _, Sha256};

/// What a run is about: parameters that all participants must share.
pub(crate) const CONTEXT: &str = "arca/v1/threshold/context";
/// One participant's broadcast of one round, as its receivers echo it.
pub(crate) const ECHO: &str = "arca/v1/threshold/echo";
/// Commitment to a participant's contribution to a key.
pub(crate) const DKG_COMMITMENT: &str = "arca/v1/threshold/dkg-commitment";
/// Public key package: key, threshold, verifying shares.
pub(crate) const PUBLIC_KEY_PACKAGE: &str = "arca/v1/threshold/public-key-package";

/// SHA-256 over the tag and the parts, each with its length before it, so that no two lists of parts
/// give the same input.
pub(crate) fn hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in [tag.as_bytes()].iter().chain(parts) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}
