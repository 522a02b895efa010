//! Presignatures: what signers computed ahead, for one signature each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::{Error, Participant, tags};

use super::curve::{Curve, P256, Secp256k1};
use super::key::Stored;
use super::pairwise::{Multiply, PairSetup};

/// The setups of this party with each other signer. More than the signers is no harm.
pub type PairSetups = BTreeMap<Participant, Arc<PairSetup>>;

/// One signer's part of a signature that waits for its message.
///
/// It moves: [`sign_online`](super::sign_online) consumes it whatever comes of it, and dropping it erases
/// it. It can be neither cloned nor serialised, and lives in memory only.
///
/// It belongs to one key package, one [`binding`](super::PresigningParams::binding), one set of signers
/// and their pairwise setups; with anything else it is refused, and spent.
///
/// # Security
///
/// Two signatures from one presignature give the private key away. That is why it moves; nothing but
/// the types must be trusted for it.
pub struct Presignature {
    pub(super) id: PresignatureId,
    /// The key's public key package digest.
    pub(super) key: [u8; 32],
    pub(super) binding: [u8; 32],
    pub(super) signers: BTreeSet<Participant>,
    /// With the other signers, and nobody else.
    pub(super) setups: Arc<PairSetups>,
    pub(super) secret: CurveSecret,
}

/// Names a presignature: the same at all its signers, and no two have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PresignatureId([u8; 32]);

impl PresignatureId {
    pub(super) fn new(transcript: &[u8; 32], position: usize) -> Self {
        let position = (position as u64).to_be_bytes();
        Self(tags::hash(tags::PRESIGNATURE, &[transcript, &position]))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PresignatureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresignatureId(")?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// The secret part, in its curve's types.
pub(super) enum CurveSecret {
    Secp256k1(Secret<Secp256k1>),
    P256(Secret<P256>),
}

/// What DKLs23 calls `R`, `φ_i`, `u_i` and `v_i`: over all signers, the `u_i` add up to the nonce times
/// the sum of the `φ_i`, and the `v_i` to the key times the same.
pub(super) struct Secret<C: Curve> {
    pub(super) nonce_point: C::Point,
    pub(super) scalars: Box<Zeroizing<[C::Scalar; 3]>>,
}

/// A curve whose presignatures there are.
pub(super) trait Presigned: Stored + Multiply {
    fn into_curve_secret(secret: Secret<Self>) -> CurveSecret;

    /// The secret as this curve's, if it is.
    fn from_curve_secret(secret: CurveSecret) -> Option<Secret<Self>>;
}

impl Presigned for Secp256k1 {
    fn into_curve_secret(secret: Secret<Self>) -> CurveSecret {
        CurveSecret::Secp256k1(secret)
    }

    fn from_curve_secret(secret: CurveSecret) -> Option<Secret<Self>> {
        match secret {
            CurveSecret::Secp256k1(secret) => Some(secret),
            CurveSecret::P256(_) => None,
        }
    }
}

impl Presigned for P256 {
    fn into_curve_secret(secret: Secret<Self>) -> CurveSecret {
        CurveSecret::P256(secret)
    }

    fn from_curve_secret(secret: CurveSecret) -> Option<Secret<Self>> {
        match secret {
            CurveSecret::P256(secret) => Some(secret),
            CurveSecret::Secp256k1(_) => None,
        }
    }
}

impl Presignature {
    /// Its name, for the signers to say which one they mean.
    pub fn id(&self) -> PresignatureId {
        self.id
    }

    /// Public key package digest of the key it is for.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// What it was bound to.
    pub fn binding(&self) -> &[u8; 32] {
        &self.binding
    }

    /// Who must sign with it: exactly these.
    pub fn signers(&self) -> &BTreeSet<Participant> {
        &self.signers
    }

    /// Whether a failed check has spent a pairwise setup it rests on. Drop it then: signing with it is
    /// refused.
    pub fn is_poisoned(&self) -> bool {
        self.setups.values().any(|setup| setup.is_poisoned())
    }

    pub(super) fn into_secret<C: Presigned>(self) -> Result<Secret<C>, Error> {
        C::from_curve_secret(self.secret).ok_or(Error::Bug("the types follow the key's curve"))
    }
}

impl fmt::Debug for Presignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presignature")
            .field("id", &self.id)
            .field("signers", &self.signers)
            .finish_non_exhaustive()
    }
}
