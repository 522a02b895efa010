//! Verification, by other libraries than those that make the signatures.

use k256::elliptic_curve::PrimeField as _;
use k256::elliptic_curve::sec1::ToEncodedPoint as _;
use k256::{FieldBytes, ProjectivePoint, PublicKey, Scalar, schnorr};
use sha2::{Digest as _, Sha256};

use crate::{Error, Reject};

use super::{Scheme, Signable, Tweak};

/// Verifies a signature under a group's key, tweaked as the signable says.
///
/// BIP-340 as the BIP says, for messages of any length. Ed25519 strictly: canonical encodings, no keys
/// or nonce points of small order.
///
/// # Errors
///
/// [`Reject::PublicKey`], [`Reject::Tweak`] or [`Reject::Signature`].
pub fn verify(
    scheme: Scheme,
    public_key: &[u8; 32],
    signable: &Signable,
    signature: &[u8; 64],
) -> Result<(), Error> {
    let verdict = match (scheme, signable.tweak) {
        (Scheme::Bip340, Tweak::None) => bip340(public_key, &signable.message, signature),
        (Scheme::Bip340, Tweak::TaprootKeyPath) => taproot_output_key(public_key)
            .and_then(|output_key| bip340(&output_key, &signable.message, signature)),
        (Scheme::Ed25519, Tweak::None) => ed25519(public_key, &signable.message, signature),
        (Scheme::Ed25519, Tweak::TaprootKeyPath) => Err(Reject::Tweak),
    };
    Ok(verdict?)
}

fn bip340(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), Reject> {
    let key = schnorr::VerifyingKey::from_bytes(public_key).map_err(|_| Reject::PublicKey)?;
    let signature =
        schnorr::Signature::try_from(signature.as_slice()).map_err(|_| Reject::Signature)?;
    key.verify_raw(message, &signature)
        .map_err(|_| Reject::Signature)
}

fn ed25519(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), Reject> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(public_key).map_err(|_| Reject::PublicKey)?;
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    key.verify_strict(message, &signature)
        .map_err(|_| Reject::Signature)
}

/// `Q = P + int(hash_TapTweak(x(P)))·G`, as an x-only key (BIP-341, without a script tree).
fn taproot_output_key(internal_key: &[u8; 32]) -> Result<[u8; 32], Reject> {
    let internal =
        schnorr::VerifyingKey::from_bytes(internal_key).map_err(|_| Reject::PublicKey)?;
    let tag = Sha256::digest(b"TapTweak");
    let hash: FieldBytes = Sha256::new()
        .chain_update(tag)
        .chain_update(tag)
        .chain_update(internal_key)
        .finalize();
    let tweak: Scalar = Option::from(Scalar::from_repr(hash)).ok_or(Reject::PublicKey)?;
    let output = ProjectivePoint::from(*internal.as_affine()) + ProjectivePoint::GENERATOR * tweak;
    let output = PublicKey::from_affine(output.to_affine()).map_err(|_| Reject::PublicKey)?;
    let encoded = output.to_encoded_point(true);
    encoded.x().map(|x| (*x).into()).ok_or(Reject::PublicKey)
}
