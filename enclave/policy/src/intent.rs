//! What a payload means.

use std::fmt;

use bitcoin::hex::DisplayHex;

use crate::canonical::Encoder;
use crate::{BitcoinSpend, KeyFacts, Scheme, SolanaMessage, tags};

/// A decoded payload: what it does, and the exact messages that signing it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    action: Action,
    signables: Vec<Signable>,
    summary: String,
    digest: [u8; 32],
}

/// What the payload does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// A Bitcoin transaction that spends outputs of the key.
    Bitcoin(BitcoinSpend),
    /// A Solana message that the key is a required signer of.
    Solana(SolanaMessage),
    /// 32 bytes of which nothing is known.
    Digest([u8; 32]),
}

/// One message to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signable {
    /// What goes into the signature scheme: the 32-byte BIP-341 signature hash, or the message's bytes.
    pub message: Vec<u8>,
    /// Whether it is signed under the BIP-86 output key instead of the key itself.
    pub taproot_key_path: bool,
    /// The PSBT input that the signature belongs to; 0 for other payloads.
    pub input: u32,
}

impl Intent {
    pub(crate) fn new(key: &KeyFacts, action: Action, signables: Vec<Signable>) -> Self {
        let summary = action.to_string();
        let digest = digest(key, &action, &signables);
        Self {
            action,
            signables,
            summary,
            digest,
        }
    }

    /// What the payload does, in numbers.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// What the payload does, in words: a few lines of printable ASCII. Amounts are decimal numbers of base
    /// units (satoshi, lamport). The same at every party.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// What there is to sign, at least one and at most [`crate::MAX_SIGNED_INPUTS`], in the order of the inputs.
    pub fn signables(&self) -> &[Signable] {
        &self.signables
    }

    /// SHA-256 over the canonical encoding of the intent under its domain tag.
    ///
    /// It covers scheme, key, every field of the action, and what is signed. Two encodings of one
    /// transaction have the same digest.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Bitcoin(spend) => spend.fmt(f),
            Action::Solana(message) => message.fmt(f),
            Action::Digest(digest) => {
                write!(f, "Raw digest {}: its meaning is unknown", digest.as_hex())
            }
        }
    }
}

fn digest(key: &KeyFacts, action: &Action, signables: &[Signable]) -> [u8; 32] {
    let scheme = match key.scheme {
        Scheme::Bip340 => "bip340",
        Scheme::Ed25519 => "ed25519",
    };
    let encoder = Encoder::new(tags::INTENT)
        .bytes(scheme.as_bytes())
        .bytes(&key.public_key);
    let encoder = match action {
        Action::Bitcoin(spend) => spend.encode(encoder.bytes(b"bitcoin")),
        Action::Solana(message) => message.encode(encoder.bytes(b"solana")),
        Action::Digest(digest) => encoder.bytes(b"digest").bytes(digest),
    };
    encoder
        .list(signables, |encoder, signable| {
            encoder
                .bytes(&signable.message)
                .flag(signable.taproot_key_path)
                .number(signable.input)
        })
        .finish()
}
