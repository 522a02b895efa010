//! Domain separation: every hash and signature of this crate has its own tag, and every field a length.

use sha2::Digest;

/// What goes into `user_data` of evidence that opens a channel.
pub(crate) const CHANNEL_BINDER: &str = "arca/v1/channel-binder";
/// What goes into `user_data` of evidence that answers a question outside the handshake.
pub(crate) const EVIDENCE_STATEMENT: &str = "arca/v1/evidence-statement";
/// What goes into `user_data` of evidence that stands in a party's log.
pub(crate) const LOG_EVIDENCE: &str = "arca/v1/log-evidence";
/// `external_aad` of an HSM's evidence. That of an NSM is empty, so neither is ever taken for the other.
pub(crate) const HSM_EVIDENCE: &str = "arca/v1/hsm-evidence";
/// What administrators sign.
pub(crate) const MANIFEST_SIGNATURE: &str = "arca/v1/manifest-signature";
/// What administrators sign to let a party go on from an older state.
pub(crate) const LOSS_ACCEPTANCE: &str = "arca/v1/loss-acceptance";
/// The head of a state that goes on from there.
pub(crate) const RESUMED_HEAD: &str = "arca/v1/resumed-head";
/// What an initiator signs.
pub(crate) const SIGNING_AUTHORIZATION: &str = "arca/v1/signing-authorization";
/// What a log names a request by.
pub(crate) const REQUEST_COMMITMENT: &str = "arca/v1/request-commitment";

/// Hashes each part after its length (8 bytes, big-endian), so that no two lists of parts collide.
pub(crate) fn update_framed<D: Digest>(hash: &mut D, parts: &[&[u8]]) {
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
}
