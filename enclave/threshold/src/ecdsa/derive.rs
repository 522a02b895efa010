//! Derivation of keys from the group's key: BIP-32 on secp256k1, SLIP-10 on P-256, non-hardened steps
//! only. A derived key is the group's key plus a public tweak times the generator, so the shares need no
//! change: signers add the tweak where the key enters the signature.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, Mac as _};
use k256::elliptic_curve::Field as _;
use k256::elliptic_curve::group::Group as _;
use sha2::Sha512;

use crate::{Error, Reject};

use super::curve::{Curve, CurveId, P256, POINT_BYTES, Secp256k1};
use super::key::{KeyPackage, Stored};

/// Most steps of a path.
pub const MAX_PATH: usize = 16;

const HARDENED: u32 = 1 << 31;

/// A derivation path of non-hardened steps, as `m/44/60/0/0/7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Path(Vec<u32>);

impl Path {
    /// # Errors
    ///
    /// [`Reject::DerivationPath`] for a hardened step (2^31 or more) or more than [`MAX_PATH`] steps.
    pub fn new(steps: Vec<u32>) -> Result<Self, Error> {
        if steps.len() > MAX_PATH || steps.iter().any(|step| *step >= HARDENED) {
            return Err(Reject::DerivationPath.into());
        }
        Ok(Self(steps))
    }

    /// The steps from the group's key, each below 2^31. None: the group's key itself.
    pub fn steps(&self) -> &[u32] {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        self.0.iter().try_for_each(|step| write!(f, "/{step}"))
    }
}

impl FromStr for Path {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('/');
        if parts.next() != Some("m") {
            return Err(Reject::DerivationPath.into());
        }
        // `u32::from_str` also takes a plus sign.
        let step = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse().ok(),
            false => None,
        };
        let steps = parts.map(step).collect::<Option<_>>();
        Self::new(steps.ok_or(Reject::DerivationPath)?)
    }
}

/// A key below a group's key. Public data, for a key package to make and its signers to sign under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivedKey {
    /// The key package it is derived from.
    root: [u8; 32],
    path: Path,
    tweak: [u8; 32],
    public_key: [u8; POINT_BYTES],
    chain_code: [u8; 32],
}

impl DerivedKey {
    /// The path from the group's key.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key (SEC 1, compressed).
    pub fn public_key(&self) -> [u8; POINT_BYTES] {
        self.public_key
    }

    /// The key's chain code.
    pub fn chain_code(&self) -> [u8; 32] {
        self.chain_code
    }

    /// The public key package digest of the key package it is derived from.
    pub(super) fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// The private key less the group's, big-endian, canonical.
    pub(super) fn tweak(&self) -> &[u8; 32] {
        &self.tweak
    }
}

#[cfg(test)]
impl DerivedKey {
    /// One that no derivation gives.
    pub(super) fn forged(root: [u8; 32], tweak: [u8; 32], public_key: [u8; POINT_BYTES]) -> Self {
        Self {
            root,
            path: Path::default(),
            tweak,
            public_key,
            chain_code: [0; 32],
        }
    }
}

impl KeyPackage {
    /// The key at a path below the group's key. Costs a base-point multiplication for each step: keep the
    /// result.
    ///
    /// # Errors
    ///
    /// [`Reject::DerivationPath`] where BIP-32 has no key; that takes 2^127 paths to happen.
    pub fn derive(&self, path: &Path) -> Result<DerivedKey, Error> {
        match self.curve() {
            CurveId::Secp256k1 => self.derive_on::<Secp256k1>(path),
            CurveId::P256 => self.derive_on::<P256>(path),
        }
    }

    fn derive_on<C: Stored>(&self, path: &Path) -> Result<DerivedKey, Error> {
        let mut node = Node::<C> {
            key: self.share::<C>()?.key,
            tweak: C::Scalar::ZERO,
            public_key: self.public_key(),
            chain_code: self.chain_code(),
        };
        for step in path.steps() {
            node = node.child(*step)?;
        }
        Ok(DerivedKey {
            root: self.public_key_package_digest(),
            path: path.clone(),
            tweak: C::scalar_bytes(&node.tweak),
            public_key: node.public_key,
            chain_code: node.chain_code,
        })
    }
}

struct Node<C: Curve> {
    key: C::Point,
    tweak: C::Scalar,
    public_key: [u8; POINT_BYTES],
    chain_code: [u8; 32],
}

impl<C: Curve> Node<C> {
    /// CKDpub of BIP-32, and of SLIP-10 for P-256.
    fn child(&self, index: u32) -> Result<Self, Error> {
        let index = index.to_be_bytes();
        let mut hash = hmac(&self.chain_code, &[&self.public_key, &index])?;
        loop {
            let (left, right) = hash;
            if let Some(child) = self.tweaked(&left, right) {
                return Ok(child);
            }
            match C::ID {
                CurveId::Secp256k1 => return Err(Reject::DerivationPath.into()),
                // One in 2^32 of P-256's hashes is not below the order.
                CurveId::P256 => hash = hmac(&self.chain_code, &[&[1], &right, &index])?,
            }
        }
    }

    fn tweaked(&self, left: &[u8; 32], chain_code: [u8; 32]) -> Option<Self> {
        let tweak = C::scalar(left)?;
        let key = self.key + C::base_public(&tweak);
        if key.is_identity().into() {
            return None;
        }
        Some(Self {
            key,
            tweak: self.tweak + tweak,
            public_key: C::encode(&key),
            chain_code,
        })
    }
}

/// HMAC-SHA512, in halves.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Result<([u8; 32], [u8; 32]), Error> {
    let mut mac = Hmac::<Sha512>::new_from_slice(key)
        .map_err(|_| Error::Bug("HMAC takes keys of any length"))?;
    for part in parts {
        mac.update(part);
    }
    let hash: [u8; 64] = mac.finalize().into_bytes().into();
    let (halves, _) = hash.as_chunks::<32>();
    match halves {
        [left, right] => Ok((*left, *right)),
        _ => Err(Error::Bug("64 bytes are two halves")),
    }
}
