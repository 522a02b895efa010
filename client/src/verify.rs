//! What a payload means, and whether the signatures that came back are the ones that were asked for.
//!
//! [`decode`] is the parties' own decoder: what it refuses, no party signs. [`signatures`] believes a party
//! nothing: it derives the key that has to have signed, and verifies with code that no party signs with.

use arca_policy::{Intent, KeyFacts, SigningKey};
use bitcoin::key::{Secp256k1, TapTweak};
use bitcoin::secp256k1::{Message, XOnlyPublicKey, schnorr};

use crate::client::Payload;
use crate::error::{Error, Result};
use crate::path::DerivationPath;
use crate::resources::{EcdsaSigner, Key, Scheme, Signature, SigningRequest, State};
use crate::{address, ecdsa, solana};

/// Decodes a payload for this key, or the one at `path` below it, as every party will.
///
/// # Errors
/// [`Error::Declined`] with the reason that the parties would give.
pub fn decode(key: &Key, path: &DerivationPath, payload: &Payload) -> Result<Intent> {
    let (what, wire) = match payload {
        Payload::Psbt(psbt) => ("PSBT", arca_policy::Payload::Psbt(psbt.clone())),
        Payload::SolanaMessage(message) => (
            "Solana message",
            arca_policy::Payload::SolanaMessage(message.clone()),
        ),
        Payload::EthereumTransaction(transaction) => (
            "Ethereum transaction",
            arca_policy::Payload::EthereumTransaction(transaction.clone()),
        ),
        Payload::Digest(digest) => ("digest", arca_policy::Payload::Digest(*digest)),
    };
    let facts = KeyFacts {
        public_key: key.public_key.policy(),
        allow_raw_digest: key.allow_raw_digest,
    };
    arca_policy::decode(&wire, &facts, path.steps()).map_err(|rejection| {
        let at = if path.is_root() {
            String::new()
        } else {
            format!(" at {path}")
        };
        Error::declined(format!("{what} for {}{at}", key.name), &rejection)
    })
}

/// Verifies that a signing request is SIGNED, is for this key and path, and holds the one right signature for
/// each message of the intent: under the key derived here, ECDSA with low s and the right recovery id.
///
/// # Errors
/// [`Error::Unverified`] with the first thing that does not fit.
pub fn signatures(
    key: &Key,
    path: &DerivationPath,
    intent: &Intent,
    signed: &SigningRequest,
) -> Result<()> {
    let wrong = |problem: &str| Err(Error::unverified(&signed.name, problem));
    if signed.state != State::Signed {
        return wrong("it is not signed");
    }
    if signed.key != key.name || signed.derivation_path != *path {
        return wrong("it is of another key than the one that was asked for");
    }
    if signed.signatures.len() != intent.signables().len() {
        return wrong("it does not have one signature for each thing that was to be signed");
    }
    for (signable, signature) in intent.signables().iter().zip(&signed.signatures) {
        if signature.input != signable.input {
            return wrong("its signatures are of other inputs than those to be signed");
        }
        one(key, &signable.key, &signable.message, signature)?;
    }
    Ok(())
}

/// What [`signatures`] verifies with, for people.
pub fn verifier(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Bip340 => "libsecp256k1, BIP-340",
        Scheme::Ed25519 => solana::VERIFIER,
        Scheme::EcdsaSecp256k1 => ecdsa::SECP256K1_VERIFIER,
        Scheme::EcdsaP256 => ecdsa::P256_VERIFIER,
    }
}

fn one(key: &Key, signer: &SigningKey, message: &[u8], signature: &Signature) -> Result<()> {
    let digest = || {
        <[u8; 32]>::try_from(message)
            .map_err(|_| Error::bug("what is to be signed is no hash of 32 bytes"))
    };
    let bytes = &signature.signature;
    match (signer, key.scheme) {
        (SigningKey::Group, Scheme::Ed25519) => {
            solana::verify(key.public_key.ed25519()?, message, bytes)
        }
        (SigningKey::Group, _) => {
            let internal = address::internal(key.public_key.bip340()?)?;
            schnorr(&internal, &digest()?, bytes)
        }
        (SigningKey::TaprootKeyPath, _) => {
            let secp = Secp256k1::verification_only();
            let internal = address::internal(key.public_key.bip340()?)?;
            let (output_key, _) = internal.tap_tweak(&secp, None);
            schnorr(&output_key.to_x_only_public_key(), &digest()?, bytes)
        }
        (SigningKey::Derived { path, .. }, scheme) => {
            let expected = key.public_key.derive(&DerivationPath::new(path.clone())?)?;
            let Some(EcdsaSigner { recovery_id, .. }) =
                signature.ecdsa.filter(|ecdsa| ecdsa.public_key == expected)
            else {
                return Err(Error::unverified(
                    "ECDSA signature",
                    "it is of another key than the one at the path that was asked for",
                ));
            };
            let signer = EcdsaSigner {
                recovery_id,
                public_key: expected,
            };
            match scheme {
                Scheme::EcdsaP256 => ecdsa::verify_p256(&signer, &digest()?, bytes),
                _ => ecdsa::verify_secp256k1(&signer, &digest()?, bytes),
            }
        }
    }
}

fn schnorr(key: &XOnlyPublicKey, digest: &[u8; 32], signature: &[u8; 64]) -> Result<()> {
    let failed = || {
        Error::unverified(
            "BIP-340 signature",
            "it is not this key's over this message",
        )
    };
    let signature = schnorr::Signature::from_slice(signature).map_err(|_| failed())?;
    Secp256k1::verification_only()
        .verify_schnorr(&signature, &Message::from_digest(*digest), key)
        .map_err(|_| failed())
}
