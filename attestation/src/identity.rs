//! Identity keys as the manifest names them.

/// Whether `spki` is the one DER encoding (uncompressed point) of a P-256 or P-384 key.
///
/// One key has one encoding here, since identities are compared as bytes.
pub(crate) fn is_canonical(spki: &[u8]) -> bool {
    encoded_p256(spki)
        .or_else(|| encoded_p384(spki))
        .is_some_and(|encoded| encoded == spki)
}

fn encoded_p256(spki: &[u8]) -> Option<Vec<u8>> {
    use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
    let key = p256::PublicKey::from_public_key_der(spki).ok()?;
    key.to_public_key_der()
        .ok()
        .map(|der| der.as_bytes().to_vec())
}

fn encoded_p384(spki: &[u8]) -> Option<Vec<u8>> {
    use p384::pkcs8::{DecodePublicKey, EncodePublicKey};
    let key = p384::PublicKey::from_public_key_der(spki).ok()?;
    key.to_public_key_der()
        .ok()
        .map(|der| der.as_bytes().to_vec())
}
