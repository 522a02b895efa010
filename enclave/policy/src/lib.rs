//! Payloads decoded into intents, and what may be signed; pure.
//!
//! A party never signs bytes that it was merely handed. It decodes the payload itself with [`decode`],
//! which answers with an [`Intent`]: what the payload does, in words and in numbers, together with the
//! exact messages to sign. What cannot be decoded completely is a [`Rejection`]; nothing in between exists.
//!
//! | payload | scheme | what is signed |
//! | --- | --- | --- |
//! | [`Payload::Psbt`] | BIP-340 | the BIP-341 signature hash of every input of the key |
//! | | ECDSA secp256k1 | the BIP-143 signature hash of every input of the key and of keys below it |
//! | [`Payload::SolanaMessage`] | Ed25519 | the message's bytes |
//! | [`Payload::EthereumTransaction`] | ECDSA secp256k1 | the Keccak-256 hash of the payload |
//! | [`Payload::Digest`] | any | the 32 bytes, for keys with the grant alone |
//!
//! The crate has no clock, no randomness and no I/O, so that every party that decodes the same payload for
//! the same key comes to the same intent and the same [`Intent::digest`].

#![forbid(unsafe_code)]

mod canonical;
mod ethereum;
mod intent;
mod key;
mod psbt;
mod rejection;
mod solana;
mod tags;

pub use ethereum::{
    EthereumAccess, EthereumKind, EthereumTransaction, MAX_ACCESS_LIST_ADDRESSES,
    MAX_ACCESS_LIST_KEYS, MAX_BLOBS, MAX_ETHEREUM_BYTES, U256, ethereum_address, ethereum_checksum,
};
pub use intent::{Action, Intent, Signable, SigningKey};
pub use key::{KeyFacts, MAX_PATH_STEPS, PublicKey, Scheme, derive, p2wpkh_script};
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
    /// An unsigned Ethereum transaction, exactly the bytes whose Keccak-256 hash is signed: legacy with a chain id
    /// (EIP-155), EIP-2930, EIP-1559 or EIP-4844. At most [`MAX_ETHEREUM_BYTES`].
    EthereumTransaction(Vec<u8>),
}

/// Decodes a payload into what it means for this key.
///
/// `path` is the derivation path below the group's key (BIP-32, no step hardened, at most [`MAX_PATH_STEPS`])
/// whose key shall sign; empty for the group's key itself, and always for schemes other than ECDSA over
/// secp256k1.
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
/// form can sign. For BIP-340 and Ed25519 it cannot stand in for the other payloads of the same key: a BIP-341
/// key-path spend is signed under the *tweaked* key and a digest under the untweaked one, and no Solana message
/// is as short as 32 bytes. **For ECDSA it can**: the digest may be the hash of any Ethereum transaction or
/// Bitcoin input of the key and of every key below it. That is what the grant is for, and a key that holds
/// money should not have it.
pub fn decode(payload: &Payload, key: &KeyFacts, path: &[u32]) -> Result<Intent, Rejection> {
    key::check_path(&key.public_key, path)?;
    match (payload, &key.public_key) {
        (Payload::Psbt(bytes), PublicKey::Bip340(internal)) => {
            let (spend, signables) = psbt::decode_taproot(bytes, internal)?;
            Ok(Intent::new(key, Action::Bitcoin(spend), signables))
        }
        (Payload::Psbt(bytes), public_key @ PublicKey::EcdsaSecp256k1 { .. }) => {
            let (spend, signables) = psbt::decode_p2wpkh(bytes, public_key, path)?;
            Ok(Intent::new(key, Action::Bitcoin(spend), signables))
        }
        (Payload::Psbt(_), _) => Err(mismatch("a PSBT", "BIP-340 or ECDSA secp256k1", key)),
        (Payload::SolanaMessage(bytes), PublicKey::Ed25519(account)) => {
            let message = solana::decode(bytes, account)?;
            let signable = Signable {
                message: bytes.clone(),
                key: SigningKey::Group,
                input: 0,
            };
            Ok(Intent::new(key, Action::Solana(message), vec![signable]))
        }
        (Payload::SolanaMessage(_), _) => Err(mismatch("a Solana message", "Ed25519", key)),
        (Payload::EthereumTransaction(bytes), public_key @ PublicKey::EcdsaSecp256k1 { .. }) => {
            let child = derive(public_key, path)?;
            let transaction = ethereum::decode(bytes, ethereum_address(&child)?)?;
            let signable = Signable {
                message: ethereum::keccak256(bytes).to_vec(),
                key: SigningKey::Derived {
                    path: path.to_vec(),
                    public_key: child,
                },
                input: 0,
            };
            let action = Action::Ethereum(transaction);
            Ok(Intent::new(key, action, vec![signable]))
        }
        (Payload::EthereumTransaction(_), _) => {
            Err(mismatch("an Ethereum transaction", "ECDSA secp256k1", key))
        }
        (Payload::Digest(digest), public_key) => {
            if !key.allow_raw_digest {
                return Err(Rejection::RawDigestNotAllowed);
            }
            let signing_key = match public_key {
                PublicKey::Bip340(_) | PublicKey::Ed25519(_) => SigningKey::Group,
                PublicKey::EcdsaSecp256k1 { .. } | PublicKey::EcdsaP256 { .. } => {
                    // Anybody can make up signatures over it, so that one proves nothing.
                    if *digest == [0; 32] {
                        return Err(Rejection::ZeroDigest);
                    }
                    SigningKey::derived(public_key, path)?
                }
            };
            let signable = Signable {
                message: digest.to_vec(),
                key: signing_key,
                input: 0,
            };
            Ok(Intent::new(key, Action::Digest(*digest), vec![signable]))
        }
    }
}

fn mismatch(payload: &'static str, expected: &'static str, key: &KeyFacts) -> Rejection {
    Rejection::SchemeMismatch {
        payload,
        expected,
        actual: key.public_key.scheme(),
    }
}
