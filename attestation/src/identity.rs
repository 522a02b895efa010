//! Identity keys as the manifest names them.

/// The curve of an identity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityCurve {
    /// NIST P-256: keys that a program generated and keeps sealed or in a file.
    P256,
    /// NIST P-384: keys in hardware.
    P384,
}

/// The curve of the key that `spki` encodes (SubjectPublicKeyInfo, RFC 5480), if it is on one of these and `spki` is its
/// one DER encoding with an uncompressed point.
///
/// One key has one encoding here, since identities are compared as bytes.
pub fn identity_curve(spki: &[u8]) -> Option<IdentityCurve> {
    if encoded_p256(spki).is_some_and(|encoded| encoded == spki) {
        Some(IdentityCurve::P256)
    } else if encoded_p384(spki).is_some_and(|encoded| encoded == spki) {
        Some(IdentityCurve::P384)
    } else {
        None
    }
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
