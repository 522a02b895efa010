//! BIP-340 and Ed25519: FROST (RFC 9591) over the audited `frost-*` crates.

mod dkg;
mod key;
mod sign;
mod suite;
mod verify;

pub use self::dkg::{Dkg, DkgParams, dkg};
pub use self::key::KeyPackage;
pub use self::sign::{MAX_BATCH, MAX_MESSAGE_BYTES, Nonces, Signed, Signing, SigningParams, sign};
pub use self::verify::verify;

/// A Schnorr signature scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Schnorr over secp256k1 with x-only keys: Bitcoin taproot.
    Bip340,
    /// Ed25519 (RFC 8032), pure, without context or prehash: Solana and others.
    Ed25519,
}

impl Scheme {
    fn to_byte(self) -> u8 {
        match self {
            Self::Bip340 => 1,
            Self::Ed25519 => 2,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Bip340),
            2 => Some(Self::Ed25519),
            _ => None,
        }
    }
}

/// What is signed, and under which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signable {
    /// BIP-340: the 32-byte signature hash. Ed25519: the message itself.
    pub message: Vec<u8>,
    /// The key that the signature verifies under.
    pub tweak: Tweak,
}

/// How the signing key follows from the group's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tweak {
    /// It is the group's key.
    None,
    /// It is the taproot output key for the group's key as internal key, without a script tree
    /// (BIP-341 key path, BIP-86). BIP-340 only.
    TaprootKeyPath,
}

impl Tweak {
    fn to_byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::TaprootKeyPath => 1,
        }
    }
}
