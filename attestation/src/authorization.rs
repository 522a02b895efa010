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
}

impl SigningAuthorization<'_> {
    /// SHA-256 over the domain tag and every field, strings and bytes with an eight-byte big-endian length.
    ///
    /// The initiator signs this digest with ECDSA over P-256 (prehashed, 64-byte r and s).
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [
            tags::SIGNING_AUTHORIZATION.as_bytes(),
            self.cluster.as_bytes(),
            self.initiator.as_bytes(),
            self.request_id.as_bytes(),
            self.key.as_bytes(),
            self.payload_kind.as_bytes(),
            self.payload,
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(self.expire_ms.to_be_bytes());
        hash.finalize().into()
    }
}
