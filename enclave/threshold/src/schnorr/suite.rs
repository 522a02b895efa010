//! What the two FROST ciphersuites have in common, and where they differ.

use std::collections::BTreeSet;

use frost_core::keys::{self, PublicKeyPackage};
use frost_core::{Ciphersuite, Identifier};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use frost_secp256k1_tr::keys::Tweak as _;

use crate::{AbortReason, Error, Participant};

use super::Scheme;
use super::key::SchemeShare;

/// Bytes of an encoded scalar, in both suites.
pub(super) const SCALAR_BYTES: usize = 32;
/// Bytes of an encoded signature, in both suites.
pub(super) const SIGNATURE_BYTES: usize = 64;

/// A FROST ciphersuite this crate serves.
pub(super) trait Suite: Ciphersuite {
    const SCHEME: Scheme;
    /// Bytes of an encoded group element.
    const ELEMENT_BYTES: usize;

    fn into_scheme(share: Box<Share<Self>>) -> SchemeShare;

    /// The share as this suite's, if it is.
    fn from_scheme(share: &SchemeShare) -> Option<&Share<Self>>;

    /// The share of the taproot output key without a script tree (BIP-341), if the suite has one.
    fn taproot_key_path(share: &Share<Self>) -> Option<Share<Self>>;
}

/// One participant's share of a key, with what all participants know about the key.
pub(super) struct Share<C: Ciphersuite> {
    pub(super) secret: keys::KeyPackage<C>,
    pub(super) public: PublicKeyPackage<C>,
}

impl Suite for Secp256K1Sha256TR {
    const SCHEME: Scheme = Scheme::Bip340;
    const ELEMENT_BYTES: usize = 33;

    fn into_scheme(share: Box<Share<Self>>) -> SchemeShare {
        SchemeShare::Bip340(share)
    }

    fn from_scheme(share: &SchemeShare) -> Option<&Share<Self>> {
        match share {
            SchemeShare::Bip340(share) => Some(share),
            SchemeShare::Ed25519(_) => None,
        }
    }

    fn taproot_key_path(share: &Share<Self>) -> Option<Share<Self>> {
        Some(Share {
            secret: share.secret.clone().tweak::<&[u8]>(None),
            public: share.public.clone().tweak::<&[u8]>(None),
        })
    }
}

impl Suite for Ed25519Sha512 {
    const SCHEME: Scheme = Scheme::Ed25519;
    const ELEMENT_BYTES: usize = 32;

    fn into_scheme(share: Box<Share<Self>>) -> SchemeShare {
        SchemeShare::Ed25519(share)
    }

    fn from_scheme(share: &SchemeShare) -> Option<&Share<Self>> {
        match share {
            SchemeShare::Ed25519(share) => Some(share),
            SchemeShare::Bip340(_) => None,
        }
    }

    fn taproot_key_path(_: &Share<Self>) -> Option<Share<Self>> {
        None
    }
}

pub(super) fn identifier<C: Suite>(participant: Participant) -> Result<Identifier<C>, Error> {
    Identifier::try_from(participant.get()).map_err(|_| Error::Bug("an index is never zero"))
}

/// Turns an error of the FROST library into ours: an abort where it names culprits, else a bug, since
/// everything that peers send is checked before the library sees it.
pub(super) fn frost_error<C: Suite>(
    error: &frost_core::Error<C>,
    participants: &BTreeSet<Participant>,
) -> Error {
    let reason = match error {
        frost_core::Error::InvalidProofOfKnowledge { .. } => AbortReason::InvalidProof,
        frost_core::Error::InvalidSecretShare { .. } => AbortReason::InvalidShare,
        frost_core::Error::InvalidSignatureShare { .. } => AbortReason::InvalidSignatureShare,
        _ => return Error::Bug("FROST refused checked input"),
    };
    let named = error.culprits();
    let is_named = |p: &Participant| identifier::<C>(*p).is_ok_and(|id| named.contains(&id));
    let culprits = participants.iter().copied().filter(is_named).collect();
    Error::abort_all(reason, culprits)
}
