//! BIP-340 and Ed25519 on the seeded network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arca_threshold::{
    DkgParams, Error, KeyPackage, Participant, Scheme, Signable, Signed, SigningParams, Tweak, dkg,
    sign,
};
use rand_chacha::ChaCha20Rng;

use super::{Start, run, session, set};

pub const SCHEMES: [Scheme; 2] = [Scheme::Bip340, Scheme::Ed25519];

pub fn dkg_starts(
    scheme: Scheme,
    participants: &BTreeSet<Participant>,
    threshold: u16,
    rng: &mut ChaCha20Rng,
) -> Vec<Start<KeyPackage>> {
    let session = session(rng);
    let start = |me: &Participant| {
        let params = DkgParams {
            scheme,
            session,
            context: [9; 32],
            me: *me,
            participants: participants.clone(),
            threshold,
        };
        let (protocol, outbox) = dkg(params, rng).unwrap();
        (*me, protocol, outbox)
    };
    participants.iter().map(start).collect()
}

pub type Keys = BTreeMap<Participant, Arc<KeyPackage>>;

/// A key shared among participants 1 to `n`.
pub fn generate(scheme: Scheme, threshold: u16, n: u16, rng: &mut ChaCha20Rng) -> Keys {
    let starts = dkg_starts(scheme, &set(1..=n), threshold, rng);
    let outcomes = run(starts, rng);
    let keys = outcomes
        .into_iter()
        .map(|(me, key)| (me, Arc::new(key.unwrap())));
    keys.collect()
}

/// Two or more messages; for BIP-340 with and without the taproot tweak.
pub fn messages(scheme: Scheme, count: usize) -> Vec<Signable> {
    let message = |i: usize| match scheme {
        Scheme::Bip340 => Signable {
            message: vec![i as u8; 32],
            tweak: [Tweak::TaprootKeyPath, Tweak::None][i % 2],
        },
        Scheme::Ed25519 => Signable {
            message: vec![0x5a; i * 7],
            tweak: Tweak::None,
        },
    };
    (0..count).map(message).collect()
}

pub fn sign_starts(
    keys: &Keys,
    signers: &BTreeSet<Participant>,
    coordinator: Participant,
    messages: &[Signable],
    rng: &mut ChaCha20Rng,
) -> Vec<Start<Signed>> {
    let params = SigningParams {
        session: session(rng),
        context: [3; 32],
        signers: signers.clone(),
        coordinator,
        messages: messages.to_vec(),
    };
    let start = |me: &Participant| {
        let (protocol, outbox) = sign(Arc::clone(&keys[me]), params.clone(), rng).unwrap();
        (*me, protocol, outbox)
    };
    signers.iter().map(start).collect()
}

/// The signatures in the coordinator's outcome.
pub fn signatures(outcome: &Result<Signed, Error>) -> &[[u8; 64]] {
    match outcome {
        Ok(Signed::Signatures(signatures)) => signatures,
        other => panic!("no signatures: {other:?}"),
    }
}

/// Verifies with libsecp256k1 or ring, which share no code with what signs.
pub fn check_signature(scheme: Scheme, public_key: &[u8; 32], signable: &Signable, sig: &[u8; 64]) {
    use bitcoin::key::TapTweak as _;
    use bitcoin::secp256k1::{Message, Secp256k1, XOnlyPublicKey, schnorr::Signature};
    match scheme {
        Scheme::Bip340 => {
            let secp = Secp256k1::verification_only();
            let key = XOnlyPublicKey::from_slice(public_key).unwrap();
            let key = match signable.tweak {
                Tweak::None => key,
                Tweak::TaprootKeyPath => key.tap_tweak(&secp, None).0.to_x_only_public_key(),
            };
            let message = Message::from_digest(signable.message.clone().try_into().unwrap());
            let signature = Signature::from_slice(sig).unwrap();
            secp.verify_schnorr(&signature, &message, &key).unwrap();
        }
        Scheme::Ed25519 => {
            use ring::signature::{ED25519, UnparsedPublicKey};
            let key = UnparsedPublicKey::new(&ED25519, public_key);
            key.verify(&signable.message, sig).unwrap();
        }
    }
}
