//! What an initiator signs when it asks for a signature, so that every party can check it for itself.

use sha2::{Digest, Sha256};

use crate::tags;

/// A request for a signature, as the digest sees it.
#[derive(Clone, Copy, Debug)]
pub struct SigningAuthorization<'a> {
    /// The cluster that is asked.
    pub cluster: &'a str,
    /// The initiator's name in the manifest.
    pub initiator: &'a str,
    /// Idempotency key of the request.
    pub request_id: &'a str,
    /// Resource name of the key, `keys/...`.
    pub key: &'a str,
    /// Field name of the payload's kind in `arca.v1.SigningPayload`.
    pub payload_kind: &'a str,
    /// The payload's bytes.
    pub payload: &'a [u8],
    /// Until when parties may sign, in milliseconds since 1970.
    pub expire_ms: u64,
    /// The BIP-32 steps from the key to the one that signs.
    pub derivation_path: &'a [u32],
}

impl SigningAuthorization<'_> {
    /// The domain tag and every field, strings and bytes behind an eight-byte big-endian length; then the expiry
    /// (eight bytes, big-endian), and each step of the path (four bytes, big-endian) behind the length of them all.
    ///
    /// The initiator signs this with ECDSA over P-256 and SHA-256 (64-byte r and s).
    pub fn message(&self) -> Vec<u8> {
        let mut message = Vec::new();
        let mut framed = |part: &[u8]| {
            message.extend_from_slice(&(part.len() as u64).to_be_bytes());
            message.extend_from_slice(part);
        };
        framed(tags::SIGNING_AUTHORIZATION.as_bytes());
        framed(self.cluster.as_bytes());
        framed(self.initiator.as_bytes());
        framed(self.request_id.as_bytes());
        framed(self.key.as_bytes());
        framed(self.payload_kind.as_bytes());
        framed(self.payload);
        message.extend_from_slice(&self.expire_ms.to_be_bytes());
        let path: Vec<u8> = self
            .derivation_path
            .iter()
            .flat_map(|step| step.to_be_bytes())
            .collect();
        message.extend_from_slice(&(path.len() as u64).to_be_bytes());
        message.extend_from_slice(&path);
        message
    }

    /// SHA-256 of [`message`](Self::message), for signing and verifying it prehashed.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.message()).into()
    }
}

/// What a log names a request by: SHA-256 over a tag, the request's [digest](SigningAuthorization::digest) and the
/// initiator's signature, each after its length.
///
/// # Security
/// It hides the request from everybody who lacks the signature: nobody but the initiator can make that, so no guess
/// can be tested.
pub fn request_commitment(digest: &[u8; 32], authorization: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    tags::update_framed(
        &mut hash,
        &[tags::REQUEST_COMMITMENT.as_bytes(), digest, authorization],
    );
    hash.finalize().into()
}
