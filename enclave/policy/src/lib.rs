//! Payloads decoded into intents, and what may be signed; pure.
//!
//! A party never signs bytes that it was merely handed. It decodes the payload itself with [`decode`],
//! which answers with an [`Intent`]: what the payload does, in words and in numbers, together with the
//! exact messages to sign. What cannot be decoded completely is a [`Rejection`]; nothing in between exists.
//!
//! | payload | scheme | what is signed |
//! | --- | --- | --- |
//! | [`Payload::Psbt`] | BIP-340 | the BIP-341 signature hash of every input of the key |
//! | [`Payload::SolanaMessage`] | Ed25519 | the message's bytes |
//! | [`Payload::Digest`] | either | the 32 bytes, for keys with the grant alone |
//!
//! The crate has no clock, no randomness and no I/O, so that every party that decodes the same payload for
//! the same key comes to the same intent and the same [`Intent::digest`].

#![forbid(unsafe_code)]

mod canonical;
mod intent;
mod psbt;
mod rejection;
mod solana;
mod tags;

pub use intent::{Action, Intent, Signable};
pub use psbt::{
    BitcoinInput, BitcoinOutput, BitcoinSpend, MAX_INPUTS, MAX_OUTPUTS, MAX_PSBT_BYTES,
    MAX_SIGNED_INPUTS,
};
pub use rejection::Rejection;
pub use solana::{
    MAX_SOLANA_BYTES, SolanaAccount, SolanaInstruction, SolanaMessage, SolanaVersion,
};

/// What a caller wants signed, as it came over the wire and not yet looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A partially signed Bitcoin transaction, BIP-174 version 0, binary. At most [`MAX_PSBT_BYTES`].
    Psbt(Vec<u8>),
    /// A serialised Solana message, legacy or version 0, without signatures. At most [`MAX_SOLANA_BYTES`].
    SolanaMessage(Vec<u8>),
    /// 32 bytes that are signed as they are.
    Digest([u8; 32]),
}

/// The signature schemes that intents are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Schnorr signatures over secp256k1, BIP-340.
    Bip340,
    /// Ed25519, RFC 8032.
    Ed25519,
}

impl std::fmt::Display for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Scheme::Bip340 => "BIP-340",
            Scheme::Ed25519 => "Ed25519",
        })
    }
}

/// What decoding needs to know of the key that shall sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFacts {
    /// The key's scheme.
    pub scheme: Scheme,
    /// BIP-340: the x coordinate of the untweaked internal key. Ed25519: the key as in RFC 8032.
    pub public_key: [u8; 32],
    /// Whether the key carries the grant to sign raw digests.
    pub allow_raw_digest: bool,
}

/// Decodes a payload into what it means for this key.
///
/// Total and deterministic: any bytes give an intent or a rejection, and the same bytes always the same one.
///
/// # Errors
///
/// A [`Rejection`] that names what is wrong and where.
///
/// # Security
///
/// A raw digest is opaque: whoever may have one signed may have anything signed that the key's untweaked
/// form can sign. It cannot stand in for the other payloads of the same key: a BIP-341 key-path spend is
/// signed under the *tweaked* key and a digest under the untweaked one, and no Solana message is as short
/// as 32 bytes.
pub fn decode(payload: &Payload, key: &KeyFacts) -> Result<Intent, Rejection> {
    match payload {
        Payload::Psbt(bytes) => {
            require_scheme("a PSBT", Scheme::Bip340, key)?;
            let (spend, signables) = psbt::decode(bytes, &key.public_key)?;
            Ok(Intent::new(key, Action::Bitcoin(spend), signables))
        }
        Payload::SolanaMessage(bytes) => {
            require_scheme("a Solana message", Scheme::Ed25519, key)?;
            let message = solana::decode(bytes, &key.public_key)?;
            let signable = Signable {
                message: bytes.clone(),
                taproot_key_path: false,
                input: 0,
            };
            Ok(Intent::new(key, Action::Solana(message), vec![signable]))
        }
        Payload::Digest(digest) => {
            if !key.allow_raw_digest {
                return Err(Rejection::RawDigestNotAllowed);
            }
            let signable = Signable {
                message: digest.to_vec(),
                taproot_key_path: false,
                input: 0,
            };
            Ok(Intent::new(key, Action::Digest(*digest), vec![signable]))
        }
    }
}

fn require_scheme(
    payload: &'static str,
    expected: Scheme,
    key: &KeyFacts,
) -> Result<(), Rejection> {
    if key.scheme == expected {
        Ok(())
    } else {
        Err(Rejection::SchemeMismatch {
            payload,
            expected,
            actual: key.scheme,
        })
    }
}
