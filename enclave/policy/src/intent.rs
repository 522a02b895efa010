//! What a payload means.

use std::fmt;

use bitcoin::hex::DisplayHex;

use crate::canonical::Encoder;
use crate::{
    BitcoinSpend, EthereumTransaction, KeyFacts, PublicKey, Rejection, SolanaMessage, derive, tags,
};

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
    /// An Ethereum transaction that the key's account sends.
    Ethereum(EthereumTransaction),
    /// 32 bytes of which nothing is known.
    Digest([u8; 32]),
}

/// One message to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signable {
    /// What goes into the signature scheme: for Ed25519 the message's bytes, for the others a hash of 32 bytes.
    pub message: Vec<u8>,
    /// Whose signature it is.
    pub key: SigningKey,
    /// The PSBT input that the signature belongs to; 0 for other payloads.
    pub input: u32,
}

/// The key that a message is signed under, of all those that the group's shares can sign for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningKey {
    /// The group's key itself: BIP-340 and Ed25519.
    Group,
    /// The BIP-86 output key: the group's BIP-340 key tweaked with no script tree.
    TaprootKeyPath,
    /// The key at a path below the group's ECDSA key, or with an empty path that key.
    Derived {
        /// BIP-32, no step hardened.
        path: Vec<u32>,
        /// What this crate derives there, compressed. Whoever signs derives with its own code, and compares.
        public_key: [u8; 33],
    },
}

impl SigningKey {
    pub(crate) fn derived(key: &PublicKey, path: &[u32]) -> Result<Self, Rejection> {
        Ok(SigningKey::Derived {
            path: path.to_vec(),
            public_key: derive(key, path)?,
        })
    }

    fn encode(&self, encoder: Encoder) -> Encoder {
        match self {
            SigningKey::Group => encoder.variant(0),
            SigningKey::TaprootKeyPath => encoder.variant(1),
            SigningKey::Derived { path, public_key } => encoder
                .variant(2)
                .list(path, |encoder, step| encoder.number(*step))
                .bytes(public_key),
        }
    }
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
    /// units (satoshi, lamport, wei). The same at every party.
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
            Action::Ethereum(transaction) => transaction.fmt(f),
            Action::Digest(digest) => {
                write!(f, "Raw digest {}: its meaning is unknown", digest.as_hex())
            }
        }
    }
}

fn digest(key: &KeyFacts, action: &Action, signables: &[Signable]) -> [u8; 32] {
    let encoder = Encoder::new(tags::INTENT);
    let encoder = match &key.public_key {
        PublicKey::Bip340(key) => encoder.bytes(b"bip340").bytes(key),
        PublicKey::Ed25519(key) => encoder.bytes(b"ed25519").bytes(key),
        PublicKey::EcdsaSecp256k1 { key, chain_code } => encoder
            .bytes(b"ecdsa-secp256k1")
            .bytes(key)
            .bytes(chain_code),
        PublicKey::EcdsaP256 { key, chain_code } => {
            encoder.bytes(b"ecdsa-p256").bytes(key).bytes(chain_code)
        }
    };
    let encoder = match action {
        Action::Bitcoin(spend) => spend.encode(encoder.bytes(b"bitcoin")),
        Action::Solana(message) => message.encode(encoder.bytes(b"solana")),
        Action::Ethereum(transaction) => transaction.encode(encoder.bytes(b"ethereum")),
        Action::Digest(digest) => encoder.bytes(b"digest").bytes(digest),
    };
    encoder
        .list(signables, |encoder, signable| {
            let encoder = signable.key.encode(encoder.bytes(&signable.message));
            encoder.number(signable.input)
        })
        .finish()
}
