//! A manifest with its administrators' signatures, and the ways to become sure of it.

use std::collections::BTreeSet;

use ed25519_dalek::{Signature, VerifyingKey};

use super::Manifest;
use crate::{Error, UnixMillis, tags};

/// The most signatures that are read: both quorums of a change of all administrators.
const MAX_SIGNATURES: usize = 64;

/// A manifest's exact bytes and signatures over them. Nothing is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    /// JSON.
    pub bytes: Vec<u8>,
    /// Ed25519 public keys of administrators, and their signatures over [`signing_bytes`].
    pub signatures: Vec<([u8; 32], [u8; 64])>,
}

/// What administrators sign (Ed25519) to put a manifest in force.
pub fn signing_bytes(manifest: &[u8]) -> Vec<u8> {
    framed(tags::MANIFEST_SIGNATURE, manifest)
}

/// A tag and a document, each after its length.
pub(crate) fn framed(tag: &str, document: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tag.len() + document.len() + 16);
    for part in [tag.as_bytes(), document] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

impl SignedManifest {
    /// For an enclave that has no manifest yet: the quorum of the manifest's own administrators has signed.
    ///
    /// # Errors
    /// See [`Error`]: shape, signatures, quorum, or time.
    ///
    /// # Security
    /// Whoever brings the first manifest decides who governs this enclave. It holds no secret yet; clients and
    /// the other parties decide whether they accept that manifest.
    pub fn verify_first(&self, now: UnixMillis) -> Result<Manifest, Error> {
        let manifest = self.verify_stored()?;
        check_time(&manifest, now)?;
        Ok(manifest)
    }

    /// For an enclave that has a manifest: quorums of the administrators in force and of the new ones have
    /// signed, the cluster is the same, and the epoch is greater.
    ///
    /// # Errors
    /// As [`verify_first`](Self::verify_first), and [`Error::OtherCluster`], [`Error::ManifestEpoch`].
    pub fn verify_next(&self, current: &Manifest, now: UnixMillis) -> Result<Manifest, Error> {
        let next = self.verify_stored()?;
        if next.cluster() != current.cluster() {
            return Err(Error::OtherCluster);
        }
        if next.epoch() <= current.epoch() {
            return Err(Error::ManifestEpoch {
                current: current.epoch(),
                offered: next.epoch(),
            });
        }
        self.check_quorum_of("current", current)?;
        check_time(&next, now)?;
        Ok(next)
    }

    /// For a client, which knows administrators' keys from its own profile: a quorum of those has signed, and the
    /// manifest's own quorum as well.
    ///
    /// # Errors
    /// As [`verify_first`](Self::verify_first), and [`Error::PinnedQuorum`].
    pub fn verify_pinned(
        &self,
        administrators: &[[u8; 32]],
        quorum: usize,
        now: UnixMillis,
    ) -> Result<Manifest, Error> {
        let pinned: BTreeSet<_> = administrators.iter().collect();
        if !(1..=pinned.len()).contains(&quorum) {
            return Err(Error::PinnedQuorum {
                quorum,
                administrators: pinned.len(),
            });
        }
        let manifest = self.verify_stored()?;
        let named = pinned.into_iter().map(|key| (key, hex::encode(key)));
        let message = signing_bytes(&self.bytes);
        check_quorum("pinned", named, quorum, &message, &self.signatures)?;
        check_time(&manifest, now)?;
        Ok(manifest)
    }

    /// For a manifest that an enclave accepted earlier and has just unsealed: signatures, and no time.
    ///
    /// # Errors
    /// As [`verify_first`](Self::verify_first), except for time.
    pub fn verify_stored(&self) -> Result<Manifest, Error> {
        check_count(&self.signatures)?;
        let manifest = Manifest::from_bytes(&self.bytes)?;
        self.check_quorum_of("own", &manifest)?;
        Ok(manifest)
    }

    fn check_quorum_of(&self, whose: &'static str, manifest: &Manifest) -> Result<(), Error> {
        check_quorum_of(
            whose,
            manifest,
            &signing_bytes(&self.bytes),
            &self.signatures,
        )
    }
}

/// A signer's Ed25519 public key and its signature.
pub type AdministratorSignature = ([u8; 32], [u8; 64]);

pub(crate) fn check_count(signatures: &[AdministratorSignature]) -> Result<(), Error> {
    if signatures.len() > MAX_SIGNATURES {
        return Err(Error::TooManySignatures {
            count: signatures.len(),
            max: MAX_SIGNATURES,
        });
    }
    Ok(())
}

/// Whether a quorum of a manifest's administrators has signed a message.
pub(crate) fn check_quorum_of(
    whose: &'static str,
    manifest: &Manifest,
    message: &[u8],
    signatures: &[AdministratorSignature],
) -> Result<(), Error> {
    let administrators = manifest.administrators();
    let named = administrators
        .keys
        .iter()
        .map(|key| (&key.public_key, key.name.clone()));
    let needed = usize::from(administrators.quorum);
    check_quorum(whose, named, needed, message, signatures)
}

/// Counts administrators, not signatures. A signature in the name of somebody else is no concern here; one
/// in an administrator's name that does not verify is a forgery, and refuses the whole.
fn check_quorum<'a>(
    whose: &'static str,
    administrators: impl Iterator<Item = (&'a [u8; 32], String)>,
    needed: usize,
    message: &[u8],
    signatures: &[AdministratorSignature],
) -> Result<(), Error> {
    let mut signed = 0;
    for (key, administrator) in administrators {
        let mut theirs = signatures
            .iter()
            .filter(|(signer, _)| signer == key)
            .peekable();
        if theirs.peek().is_none() {
            continue;
        }
        if !theirs.all(|(_, signature)| verifies(key, message, signature)) {
            return Err(Error::AdministratorSignature { administrator });
        }
        signed += 1;
    }
    if signed < needed {
        Err(Error::NoQuorum {
            whose,
            signed,
            needed,
        })
    } else {
        Ok(())
    }
}

/// RFC 8032 without its ambiguities: canonical scalars, no keys of small order.
fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .is_ok()
}

fn check_time(manifest: &Manifest, now: UnixMillis) -> Result<(), Error> {
    if now < manifest.not_before() {
        Err(Error::ManifestNotYetValid)
    } else if now > manifest.not_after() {
        Err(Error::ManifestExpired)
    } else {
        Ok(())
    }
}
