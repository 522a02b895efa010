//! ECDSA over secp256k1 and P-256: DKLs23 (ePrint 2023/765), with presignatures.
//!
//! Two enclaves that meet make a [`pairwise`] setup, once for all keys. [`dkg`] makes a key;
//! [`KeyPackage::derive`] gives the keys below it. [`presign`] computes ahead what needs no message,
//! [`sign_online`] signs with it in one round, and [`sign`] does both at once in three.
//!
//! The protocol step by step, its parameters and where it differs from the paper:
//! `docs/threshold-ecdsa.md`.

mod curve;
mod derive;
mod dkg;
mod key;
mod multiples;
pub mod pairwise;
mod presign;
mod presignature;
mod shamir;
mod sign;
mod verify;

use crate::{AbortReason, Error, Participant};

pub use self::curve::{Curve, CurveId, P256, POINT_BYTES, SCALAR_BYTES, Secp256k1};
pub use self::derive::{DerivedKey, MAX_PATH, Path};
pub use self::dkg::{Dkg, DkgParams, dkg};
pub use self::key::KeyPackage;
pub use self::presign::{Presigning, PresigningParams, presign};
pub use self::presignature::{PairSetups, Presignature, PresignatureId};
pub use self::sign::{Signable, Signature, Signed, Signing, SigningParams, sign, sign_online};
pub use self::verify::verify;

/// An abort by one of these: the culprit if there is one only, else all are suspects.
fn blame(reason: AbortReason, others: Vec<Participant>) -> Error {
    let (culprits, suspects) = match others.len() {
        1 => (others, Vec::new()),
        _ => (Vec::new(), others),
    };
    Error::Abort {
        reason,
        culprits,
        suspects,
    }
}
