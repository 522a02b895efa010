//! ECDSA on the seeded network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arca_threshold::ecdsa::pairwise::{PairSetup, PairSetupParams, pair_setup};
use arca_threshold::ecdsa::{
    CurveId, DkgParams, KeyPackage, PairSetups, Path, Presignature, PresigningParams, Signable,
    Signature, Signed, SigningParams, dkg, presign, sign, sign_online,
};
use arca_threshold::{Error, Outbox, Participant, Transition};
use rand_chacha::ChaCha20Rng;

use super::{Letter, Outcomes, Start, rng, run, session, set};

pub const CURVES: [CurveId; 2] = [CurveId::Secp256k1, CurveId::P256];
pub const BINDING: [u8; 32] = [5; 32];

pub type Keys = BTreeMap<Participant, Arc<KeyPackage>>;
/// For each participant, its setups with the others.
pub type Setups = BTreeMap<Participant, PairSetups>;
/// For each signer, its presignatures.
pub type Pools = BTreeMap<Participant, Vec<Presignature>>;

pub fn dkg_starts(
    curve: CurveId,
    participants: &BTreeSet<Participant>,
    threshold: u16,
    rng: &mut ChaCha20Rng,
) -> Vec<Start<KeyPackage>> {
    let session = session(rng);
    let start = |me: &Participant| {
        let params = DkgParams {
            curve,
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

/// A key shared among participants 1 to `n`.
pub fn generate(curve: CurveId, threshold: u16, n: u16, rng: &mut ChaCha20Rng) -> Keys {
    let outcomes = run(dkg_starts(curve, &set(1..=n), threshold, rng), rng);
    let keys = outcomes
        .into_iter()
        .map(|(me, key)| (me, Arc::new(key.unwrap())));
    keys.collect()
}

pub fn pair_starts(a: Participant, b: Participant, rng: &mut ChaCha20Rng) -> Vec<Start<PairSetup>> {
    let session = session(rng);
    let start = |(me, peer)| {
        let params = PairSetupParams {
            session,
            context: [8; 32],
            me,
            peer,
        };
        let (protocol, outbox) = pair_setup(params, rng).unwrap();
        (me, protocol, outbox)
    };
    [(a, b), (b, a)].map(start).into()
}

/// Setups of every pair among participants 1 to `n`.
pub fn pair_up(n: u16, rng: &mut ChaCha20Rng) -> Setups {
    pair_up_all(&set(1..=n), rng)
}

pub fn pair_up_all(participants: &BTreeSet<Participant>, rng: &mut ChaCha20Rng) -> Setups {
    let mut setups = Setups::new();
    let pairs = participants
        .iter()
        .flat_map(|a| participants.range(*a..).skip(1).map(|b| (*a, *b)));
    for (a, b) in pairs {
        for (me, setup) in run(pair_starts(a, b, rng), rng) {
            let peer = if me == a { b } else { a };
            let setups = setups.entry(me).or_default();
            setups.insert(peer, Arc::new(setup.unwrap()));
        }
    }
    setups
}

pub fn presign_starts(
    keys: &Keys,
    setups: &Setups,
    signers: &BTreeSet<Participant>,
    count: usize,
    rng: &mut ChaCha20Rng,
) -> Vec<Start<Vec<Presignature>>> {
    let params = PresigningParams {
        session: session(rng),
        binding: BINDING,
        signers: signers.clone(),
        count,
    };
    let start = |me: &Participant| {
        let (protocol, outbox) =
            presign(Arc::clone(&keys[me]), &setups[me], params.clone(), rng).unwrap();
        (*me, protocol, outbox)
    };
    signers.iter().map(start).collect()
}

pub fn presign_all(
    keys: &Keys,
    setups: &Setups,
    signers: &BTreeSet<Participant>,
    count: usize,
    rng: &mut ChaCha20Rng,
) -> Pools {
    let outcomes = run(presign_starts(keys, setups, signers, count, rng), rng);
    let pools = outcomes.into_iter().map(|(me, pool)| (me, pool.unwrap()));
    pools.collect()
}

/// Messages under the group's key and under derived ones.
pub fn messages(keys: &Keys, count: usize) -> Vec<Signable> {
    let key = keys.values().next().unwrap();
    let message = |i: usize| Signable {
        digest: [i as u8 + 1; 32],
        key: key.derive(&Path::new(vec![7; i % 3]).unwrap()).unwrap(),
    };
    (0..count).map(message).collect()
}

pub fn signing_params(
    signers: &BTreeSet<Participant>,
    coordinator: Participant,
    messages: &[Signable],
    rng: &mut ChaCha20Rng,
) -> SigningParams {
    SigningParams {
        session: session(rng),
        context: [3; 32],
        signers: signers.clone(),
        coordinator,
        entropy: *session(rng).as_bytes(),
        messages: messages.to_vec(),
    }
}

pub fn sign_starts(
    keys: &Keys,
    setups: &Setups,
    params: &SigningParams,
    rng: &mut ChaCha20Rng,
) -> Vec<Start<Signed>> {
    let start = |me: &Participant| {
        let (protocol, outbox) =
            sign(Arc::clone(&keys[me]), &setups[me], params.clone(), rng).unwrap();
        (*me, protocol, outbox)
    };
    params.signers.iter().map(start).collect()
}

/// One-round signing, where each signer has its own view of what is signed; the adversary sees and
/// changes the shares. What the coordinator ends with.
pub fn online_with(
    keys: &Keys,
    pools: Pools,
    view: impl Fn(Participant) -> SigningParams,
    rng: &mut ChaCha20Rng,
    adversary: impl FnOnce(&mut Vec<Letter>),
) -> Result<Signed, Error> {
    let mut letters = Vec::new();
    let mut coordinator = None;
    for (me, pool) in pools {
        match sign_online(Arc::clone(&keys[&me]), &BINDING, pool, view(me))? {
            Transition::Continue(protocol, outbox) => {
                assert!(outbox.is_empty());
                coordinator = Some(protocol);
            }
            Transition::Done(signed, outbox) => {
                assert_eq!(signed, Signed::Released);
                letters.extend(post(me, outbox));
            }
        }
    }
    adversary(&mut letters);
    let coordinator = coordinator.unwrap();
    let mut inbox = coordinator.inbox();
    for letter in letters {
        inbox.insert(letter.from, letter.bytes)?;
    }
    match coordinator.advance(inbox, rng)? {
        Transition::Done(signed, outbox) => {
            assert!(outbox.is_empty());
            Ok(signed)
        }
        Transition::Continue(..) => panic!("one round"),
    }
}

pub fn online(
    keys: &Keys,
    pools: Pools,
    params: &SigningParams,
    rng: &mut ChaCha20Rng,
) -> Result<Signed, Error> {
    online_with(keys, pools, |_| params.clone(), rng, |_| {})
}

fn post(from: Participant, outbox: Outbox) -> Vec<Letter> {
    let letter = |(to, bytes): (Participant, zeroize::Zeroizing<Vec<u8>>)| Letter {
        round: 1,
        from,
        to,
        bytes: bytes.to_vec(),
    };
    outbox.into_iter().map(letter).collect()
}

/// The signatures in a coordinator's outcome.
pub fn signatures(outcome: &Result<Signed, Error>) -> &[Signature] {
    match outcome {
        Ok(Signed::Signatures(signatures)) => signatures,
        other => panic!("no signatures: {other:?}"),
    }
}

/// The coordinator's of many outcomes; all others must have released their shares.
pub fn coordinators(outcomes: &Outcomes<Signed>, coordinator: Participant) -> &[Signature] {
    for (me, outcome) in outcomes {
        assert!(
            *me == coordinator || *outcome == Ok(Signed::Released),
            "{outcome:?}"
        );
    }
    signatures(&outcomes[&coordinator])
}

/// Verifies signatures, and what they recover to, with libsecp256k1, which shares no code with
/// what signs, or by the equation of a signature.
pub fn check(curve: CurveId, messages: &[Signable], signatures: &[Signature]) {
    assert_eq!(messages.len(), signatures.len());
    for (message, signature) in messages.iter().zip(signatures) {
        match curve {
            CurveId::Secp256k1 => check_secp256k1(message, signature),
            CurveId::P256 => check_p256(message, signature),
        }
    }
}

fn check_secp256k1(message: &Signable, signature: &Signature) {
    use bitcoin::secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
    use bitcoin::secp256k1::{Message, PublicKey, Secp256k1};
    let secp = Secp256k1::verification_only();
    let bytes = [signature.r, signature.s].concat();
    let id = RecoveryId::from_i32(signature.recovery_id.into()).unwrap();
    let recoverable = RecoverableSignature::from_compact(&bytes, id).unwrap();
    let digest = Message::from_digest(message.digest);
    let key = PublicKey::from_slice(&message.key.public_key()).unwrap();
    // Refuses high `s`.
    secp.verify_ecdsa(&digest, &recoverable.to_standard(), &key)
        .unwrap();
    assert_eq!(secp.recover_ecdsa(&digest, &recoverable).unwrap(), key);
}

fn check_p256(message: &Signable, signature: &Signature) {
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    use p256::elliptic_curve::PrimeField as _;
    use p256::elliptic_curve::bigint::U256;
    use p256::elliptic_curve::ops::Reduce;
    use p256::{EncodedPoint, ProjectivePoint, Scalar};
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&message.key.public_key()).unwrap();
    let parsed = p256::ecdsa::Signature::from_scalars(signature.r, signature.s).unwrap();
    assert!(parsed.normalize_s().is_none());
    key.verify_prehash(&message.digest, &parsed).unwrap();

    // One x-coordinate in 2^32 is not below the order.
    assert!(signature.recovery_id < 2);
    let nonce = [[2 + signature.recovery_id].as_slice(), &signature.r].concat();
    let nonce = p256::PublicKey::try_from(EncodedPoint::from_bytes(nonce).unwrap()).unwrap();
    let digest = <Scalar as Reduce<U256>>::reduce_bytes(&message.digest.into());
    let scalar = |bytes: [u8; 32]| Scalar::from_repr(bytes.into()).unwrap();
    let key = ProjectivePoint::from(*key.as_affine());
    let (left, right) = (
        nonce.to_projective() * scalar(signature.s),
        ProjectivePoint::GENERATOR * digest + key * scalar(signature.r),
    );
    assert_eq!(left, right);
}

/// Keys and setups of participants 1 to `n`.
pub fn cluster(curve: CurveId, threshold: u16, n: u16, seed: u64) -> (Keys, Setups) {
    let mut rng = rng(seed);
    let keys = generate(curve, threshold, n, &mut rng);
    (keys, pair_up(n, &mut rng))
}
