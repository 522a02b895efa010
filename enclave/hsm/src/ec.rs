//! P-384 between PKCS#11's encodings and those of X.509.

use der::{Decode as _, asn1::OctetStringRef};
use p384::{
    ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier as _},
    pkcs8::{DecodePublicKey as _, EncodePublicKey as _},
};

/// Length of `r || s`.
const SIGNATURE: usize = 96;
/// Length of an uncompressed point.
const POINT: usize = 97;

/// CKA_EC_POINT as a SubjectPublicKeyInfo: the standard wraps the point in an OCTET STRING, some modules do not.
pub(crate) fn spki(point: &[u8]) -> Option<Vec<u8>> {
    let sec1 = if point.len() == POINT {
        point
    } else {
        OctetStringRef::from_der(point).ok()?.as_bytes()
    };
    // Uncompressed only, and on the curve.
    if sec1.len() != POINT {
        return None;
    }
    let key = VerifyingKey::from_sec1_bytes(sec1).ok()?;
    Some(key.to_public_key_der().ok()?.into_vec())
}

/// What CKM_ECDSA returned, if it is a signature of `digest` under the key `spki`.
///
/// A token that computes wrongly, or with another key, must not go unnoticed: faulty signatures can give a key away.
pub(crate) fn checked(spki: &[u8], digest: &[u8; 48], raw: &[u8]) -> Option<[u8; SIGNATURE]> {
    let raw = <[u8; SIGNATURE]>::try_from(raw).ok()?;
    let signature = Signature::from_slice(&raw).ok()?;
    let key = VerifyingKey::from_public_key_der(spki).ok()?;
    key.verify_prehash(digest, &signature).ok()?;
    Some(raw)
}

/// `r || s` as an ECDSA-Sig-Value.
pub(crate) fn der_signature(raw: &[u8; SIGNATURE]) -> Option<Vec<u8>> {
    let signature = Signature::from_slice(raw).ok()?;
    Some(signature.to_der().as_bytes().to_vec())
}
