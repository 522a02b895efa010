//! The key that shall sign: what is known of it, and its children by BIP-32.

use std::fmt;

use bitcoin::NetworkKind;
use bitcoin::bip32::{ChainCode, ChildNumber, Fingerprint, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::key::Secp256k1;
use bitcoin::{ScriptBuf, WPubkeyHash, secp256k1};

use crate::Rejection;

/// Steps of a derivation path.
pub const MAX_PATH_STEPS: usize = 16;

/// What decoding needs to know of the key that shall sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFacts {
    /// The key, and with it its scheme.
    pub public_key: PublicKey,
    /// Whether the key carries the grant to sign raw digests.
    pub allow_raw_digest: bool,
}

/// The public key of a group of parties, as its scheme writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicKey {
    /// The x coordinate of the untweaked internal key, BIP-340.
    Bip340([u8; 32]),
    /// The key as in RFC 8032.
    Ed25519([u8; 32]),
    /// A point of secp256k1, compressed (SEC 1, 2.3.3), and the chain code of BIP-32: the root of a tree of keys.
    EcdsaSecp256k1 {
        /// The point.
        key: [u8; 33],
        /// The chain code.
        chain_code: [u8; 32],
    },
    /// A point of P-256, compressed (SEC 1, 2.3.3). Its chain code is not used yet.
    EcdsaP256 {
        /// The point.
        key: [u8; 33],
        /// The chain code.
        chain_code: [u8; 32],
    },
}

impl PublicKey {
    /// What this key signs with.
    pub fn scheme(&self) -> Scheme {
        match self {
            PublicKey::Bip340(_) => Scheme::Bip340,
            PublicKey::Ed25519(_) => Scheme::Ed25519,
            PublicKey::EcdsaSecp256k1 { .. } => Scheme::EcdsaSecp256k1,
            PublicKey::EcdsaP256 { .. } => Scheme::EcdsaP256,
        }
    }
}

/// The signature schemes that intents are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Schnorr signatures over secp256k1, BIP-340.
    Bip340,
    /// Ed25519, RFC 8032.
    Ed25519,
    /// ECDSA over secp256k1, SEC 1 and SEC 2.
    EcdsaSecp256k1,
    /// ECDSA over P-256, FIPS 186-5.
    EcdsaP256,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Bip340 => "BIP-340",
            Scheme::Ed25519 => "Ed25519",
            Scheme::EcdsaSecp256k1 => "ECDSA secp256k1",
            Scheme::EcdsaP256 => "ECDSA P-256",
        })
    }
}

/// The public key at this path below the group's key, compressed; an empty path is the group's key itself.
///
/// BIP-32, public derivation (CKDpub), by libsecp256k1: the threshold protocol derives with other code, and
/// whoever signs compares.
///
/// # Errors
///
/// [`Rejection::DerivationPath`]: the path has more than [`MAX_PATH_STEPS`] steps, a hardened one (2^31 or
/// more), or any at all for a key that is no root of a tree: those for BIP-340, Ed25519 and P-256.
/// [`Rejection::InvalidKey`]: the key is no point of secp256k1. A P-256 key is given back unchecked.
/// [`Rejection::SchemeMismatch`]: the key is none for ECDSA, and has no compressed point.
pub fn derive(key: &PublicKey, path: &[u32]) -> Result<[u8; 33], Rejection> {
    check_path(key, path)?;
    if let PublicKey::EcdsaP256 { key, .. } = key {
        return Ok(*key);
    }
    let child = Root::of(key)?.child(path).ok_or(Rejection::InvalidKey)?;
    Ok(child.serialize())
}

/// The script of a P2WPKH output of this compressed key (BIP-141): a zero, and the hash of the key.
pub fn p2wpkh_script(public_key: &[u8; 33]) -> Vec<u8> {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(public_key)).into_bytes()
}

/// Whether the path may be used with the key at all.
pub(crate) fn check_path(key: &PublicKey, path: &[u32]) -> Result<(), Rejection> {
    let refused = |detail| Err(Rejection::DerivationPath { detail });
    match key.scheme() {
        _ if path.is_empty() => Ok(()),
        Scheme::Bip340 | Scheme::Ed25519 => refused("only ECDSA keys have keys below them"),
        Scheme::EcdsaP256 => refused("keys below a P-256 key are not offered"),
        Scheme::EcdsaSecp256k1 if path.len() > MAX_PATH_STEPS => refused("more than 16 steps"),
        Scheme::EcdsaSecp256k1 if path.iter().any(|step| step >> 31 != 0) => {
            refused("a hardened step (2^31 or more) cannot be derived from a public key")
        }
        Scheme::EcdsaSecp256k1 => Ok(()),
    }
}

/// The root of a tree of secp256k1 keys.
pub(crate) struct Root(Xpub);

impl Root {
    pub(crate) fn of(key: &PublicKey) -> Result<Self, Rejection> {
        let PublicKey::EcdsaSecp256k1 { key, chain_code } = key else {
            return Err(Rejection::SchemeMismatch {
                payload: "what a derived key signs",
                expected: "ECDSA secp256k1",
                actual: key.scheme(),
            });
        };
        let public_key =
            secp256k1::PublicKey::from_slice(key).map_err(|_| Rejection::InvalidKey)?;
        Ok(Self(Xpub {
            // Neither is hashed into a child's key.
            network: NetworkKind::Main,
            child_number: ChildNumber::Normal { index: 0 },
            depth: 0,
            parent_fingerprint: Fingerprint::default(),
            public_key,
            chain_code: ChainCode::from(*chain_code),
        }))
    }

    /// The first four bytes of the key's HASH160 (BIP-32, "Key identifiers").
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint()
    }

    /// The key at a path; none when a step is hardened, there are too many, or one gives no key (one in 2^127).
    pub(crate) fn child(&self, path: &[u32]) -> Option<secp256k1::PublicKey> {
        if path.len() > MAX_PATH_STEPS {
            return None;
        }
        let steps: Vec<_> = path.iter().map(|step| ChildNumber::from(*step)).collect();
        let child = self.0.derive_pub(&Secp256k1::verification_only(), &steps);
        Some(child.ok()?.public_key)
    }
}
