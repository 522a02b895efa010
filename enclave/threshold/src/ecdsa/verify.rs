//! Verification of signatures.

use crate::{Error, Reject};

use super::curve::{Curve, CurveId, P256, POINT_BYTES, Secp256k1};

/// Verifies a signature over a digest (FIPS 186-4, section 6.4) under a compressed key. Takes `s` of both
/// halves; whether a chain takes high ones is the caller's to know.
///
/// # Errors
///
/// [`Reject::PublicKey`] or [`Reject::Signature`].
pub fn verify(
    curve: CurveId,
    public_key: &[u8; POINT_BYTES],
    digest: &[u8; 32],
    r: &[u8; 32],
    s: &[u8; 32],
) -> Result<(), Error> {
    match curve {
        CurveId::Secp256k1 => verify_on::<Secp256k1>(public_key, digest, r, s),
        CurveId::P256 => verify_on::<P256>(public_key, digest, r, s),
    }
}

fn verify_on<C: Curve>(
    public_key: &[u8; POINT_BYTES],
    digest: &[u8; 32],
    r: &[u8; 32],
    s: &[u8; 32],
) -> Result<(), Error> {
    C::decode(public_key).ok_or(Reject::PublicKey)?;
    if C::verify(public_key, digest, r, s) {
        Ok(())
    } else {
        Err(Reject::Signature.into())
    }
}
