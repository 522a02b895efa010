//! ECDSA participants that deviate with care: every message well formed, addressed and timed.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use std::sync::Arc;

use arca_threshold::ecdsa::pairwise::{PairSetup, alice_message_bytes};
use arca_threshold::ecdsa::{
    Curve as _, CurveId, DkgParams, Path, Presignature, PresigningParams, Secp256k1, Signed,
    Signing, SigningParams, dkg, presign, sign, sign_online,
};
use arca_threshold::{AbortReason, Error, Outbox, Participant, Reject, SessionId, Transition};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{CryptoRng, CryptoRngCore, RngCore};
use sha2::{Digest as _, Sha256};

use support::ecdsa::*;
use support::tamper::suspects;
use support::*;

/// Where the parts start from round 2 on, after the echo of three broadcasts.
const AFTER_ECHO: usize = field::HEADER_END + 3 * 32;

// Key generation.

/// Replaces what 1 opens in key generation, with a commitment in round 1 that fits.
fn forge_opening(forge: impl Fn(&mut [u8]), reason: AbortReason) {
    let starts = || dkg_starts(CurveId::Secp256k1, &set([1, 2, 3]), 2, &mut rng(1));
    let mut opening = Vec::new();
    run_with(starts(), &mut rng(2), |round, letters| {
        let mine = letters.iter().find(|l| round == 2 && l.from == p(1));
        opening.extend(mine.iter().flat_map(|l| &l.bytes[AFTER_ECHO..]));
    });
    forge(&mut opening);

    let outcomes = run_with(starts(), &mut rng(2), |round, letters| {
        for letter in letters.iter_mut().filter(|l| l.from == p(1)) {
            let context = letter.bytes[field::CONTEXT].to_vec();
            let commitment = commit(&context, 1, &opening);
            match round {
                1 => letter.bytes[field::HEADER_END..].copy_from_slice(&commitment),
                2 => {
                    // 1 goes on pretending that it broadcast the forged commitment.
                    let echo = echo(&context, 1, 1, &commitment);
                    letter.bytes[field::HEADER_END..][..32].copy_from_slice(&echo);
                    letter.bytes[AFTER_ECHO..].copy_from_slice(&opening);
                }
                _ => {}
            }
        }
    });
    for honest in [2, 3] {
        assert_culprits(&outcomes[&p(honest)], reason, &[1]);
    }
}

fn commit(context: &[u8], from: u16, opening: &[u8]) -> [u8; 32] {
    let tag = "arca/v1/threshold/ecdsa/dkg-commitment";
    hash(tag, &[context, &from.to_be_bytes(), opening])
}

fn echo(context: &[u8], round: u8, from: u16, broadcast: &[u8]) -> [u8; 32] {
    let tag = "arca/v1/threshold/echo";
    hash(tag, &[context, &[round], &from.to_be_bytes(), broadcast])
}

fn hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in [tag.as_bytes()].iter().chain(parts) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[test]
fn a_false_proof_of_knowledge_is_named() {
    // An opening: two commitments, the proof's nonce point and response, part of the chain code.
    let response = 3 * 33..3 * 33 + 32;
    forge_opening(|o| o[response.end - 1] ^= 1, AbortReason::InvalidProof);
    // Someone else's constant term, which 1 knows no logarithm of: the curve's generator.
    let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let generator = hex::decode(generator).unwrap();
    forge_opening(
        |o| o[..33].copy_from_slice(&generator),
        AbortReason::InvalidProof,
    );
}

/// A proof of knowledge proves nothing in another session, nor for another participant.
#[test]
fn a_replayed_proof_of_knowledge_is_named() {
    let opening = |from: u16, seed: u64| {
        let starts = dkg_starts(CurveId::Secp256k1, &set([1, 2, 3]), 2, &mut rng(seed));
        let mut opening = Vec::new();
        run_with(starts, &mut rng(2), |round, letters| {
            let letter = letters.iter().find(|l| round == 2 && l.from == p(from));
            opening.extend(letter.iter().flat_map(|l| &l.bytes[AFTER_ECHO..]));
        });
        opening
    };
    for replayed in [opening(1, 50), opening(2, 1)] {
        forge_opening(|o| o.copy_from_slice(&replayed), AbortReason::InvalidProof);
    }
}

/// A generator whose first 64 bytes are a scalar of the test's choice.
struct Chosen(Option<[u8; 32]>, ChaCha20Rng);

impl RngCore for Chosen {
    fn next_u32(&mut self) -> u32 {
        self.1.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.1.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        match self.0.take() {
            Some(scalar) => {
                bytes[..32].fill(0);
                bytes[32..].copy_from_slice(&scalar);
            }
            None => self.1.fill_bytes(bytes),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_chacha::rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Chosen {}

/// Generators that first give scalars which add up to zero.
fn cancelling() -> [Chosen; 2] {
    let one = Secp256k1::scalar_bytes(&k256::Scalar::from(7_u64));
    let other = Secp256k1::scalar_bytes(&-k256::Scalar::from(7_u64));
    [Chosen(Some(one), rng(1)), Chosen(Some(other), rng(2))]
}

/// What commitments keep a minority from, all together can do.
#[test]
fn contributions_that_cancel_give_no_key() {
    let start = |(me, mut rng): (u16, Chosen)| {
        let params = DkgParams {
            curve: CurveId::Secp256k1,
            session: SessionId::new([1; 32]),
            context: [0; 32],
            me: p(me),
            participants: set([1, 2]),
            threshold: 2,
        };
        let (protocol, outbox) = dkg(params, &mut rng).unwrap();
        (p(me), protocol, outbox)
    };
    let starts = (1..).zip(cancelling()).map(start).collect();
    for outcome in run(starts, &mut rng(3)).values() {
        let expected = Error::Bug("the key is the identity");
        assert_eq!(outcome.as_ref().unwrap_err(), &expected);
    }
}

/// The same for a nonce: shifted by a public number, it would be known to all.
#[test]
fn nonces_that_cancel_give_no_presignature() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 2, 3);
    let start = |(me, mut rng): (u16, Chosen)| {
        let params = PresigningParams {
            session: SessionId::new([1; 32]),
            binding: BINDING,
            signers: set([1, 2]),
            count: 1,
        };
        let key = Arc::clone(&keys[&p(me)]);
        let (protocol, outbox) = presign(key, &setups[&p(me)], params, &mut rng).unwrap();
        (p(me), protocol, outbox)
    };
    let starts = (1..).zip(cancelling()).map(start).collect();
    for outcome in run(starts, &mut rng(3)).values() {
        let expected = Error::Bug("the nonce is zero");
        assert_eq!(outcome.as_ref().unwrap_err(), &expected);
    }
}

#[test]
fn malformed_openings_are_named() {
    type Forgery<'a> = &'a dyn Fn(&mut [u8]);
    let forgeries: [Forgery<'_>; 6] = [
        // The identity, a point in compact form, one that is not on the curve.
        &|o| o[..33].fill(0),
        &|o| o[33] = 5,
        &|o| o[1..33].fill(0xff),
        // The proof's nonce point and response.
        &|o| o[66] = 4,
        &|o| o[66..99].fill(0),
        &|o| o[99..131].fill(0xff),
    ];
    for forge in forgeries {
        forge_opening(forge, AbortReason::Malformed);
    }
}

#[test]
fn a_share_meant_for_another_is_named() {
    for curve in CURVES {
        let starts = dkg_starts(curve, &set([1, 2, 3]), 2, &mut rng(1));
        let outcomes = run_with(starts, &mut rng(2), |round, letters| {
            if round == 3 {
                let for_three = letters.iter().find(|l| l.from == p(1) && l.to == p(3));
                let share = for_three.unwrap().bytes[AFTER_ECHO..].to_vec();
                let for_two = letters.iter_mut().find(|l| l.from == p(1) && l.to == p(2));
                for_two.unwrap().bytes[AFTER_ECHO..].copy_from_slice(&share);
            }
        });
        assert_culprits(&outcomes[&p(2)], AbortReason::InvalidShare, &[1]);
        // 2 never confirms, so nobody else accepts the key either.
        assert_culprits(&outcomes[&p(3)], AbortReason::Missing, &[2]);
    }
}

/// 1 commits to one contribution towards 2 and to another towards 3, and tells each what it told it.
#[test]
fn an_equivocated_commitment_is_caught_by_the_echo() {
    let cluster = cluster(CurveId::Secp256k1, 2, 3, 1);
    let generation = dkg_starts(CurveId::Secp256k1, &set([1, 2, 3]), 2, &mut rng(1));
    let presigning = presign_starts(&cluster.0, &cluster.1, &set([1, 2, 3]), 1, &mut rng(1));
    fn equivocate<O>(starts: Vec<Start<O>>) -> Vec<Option<Blame>>
    where
        O: std::fmt::Debug,
    {
        let other = [0xaa; 32];
        let outcomes = run_with(starts, &mut rng(2), |round, letters| {
            let to_three = letters.iter_mut().find(|l| l.from == p(1) && l.to == p(3));
            let Some(letter) = to_three else { return };
            let context = letter.bytes[field::CONTEXT].to_vec();
            let start = &mut letter.bytes[field::HEADER_END..][..32];
            match round {
                1 => start.copy_from_slice(&other),
                2 => start.copy_from_slice(&echo(&context, 1, 1, &other)),
                _ => {}
            }
        });
        [2, 3].map(|me| Some(blame(&outcomes[&p(me)]))).into()
    }
    // It is the word of 1 against that of the other; both know that one of the two lies.
    let expected = [[1, 3], [1, 2]].map(|suspects| {
        Some(Blame {
            reason: AbortReason::Equivocation,
            culprits: vec![],
            suspects: suspects.to_vec(),
        })
    });
    assert_eq!(equivocate(generation), expected);
    assert_eq!(equivocate(presigning), expected);
}

// Presigning and signing.

/// The presignature that the same random bytes give again and again.
fn same_pools(keys: &Keys, setups: &Setups, signers: &[u16], count: usize) -> Pools {
    presign_all(
        keys,
        setups,
        &set(signers.iter().copied()),
        count,
        &mut rng(7),
    )
}

type Change = Box<dyn Fn(&mut SigningParams)>;

/// Every way in which a signer's view of a request can differ from another's.
fn other_views(keys: &Keys) -> Vec<Change> {
    let derived = keys[&p(1)].derive(&Path::new(vec![1, 2]).unwrap()).unwrap();
    vec![
        Box::new(|s| s.messages[0].digest[31] ^= 1),
        Box::new(move |s| s.messages[0].key = derived.clone()),
        Box::new(|s| s.entropy[0] ^= 1),
        Box::new(|s| s.context[0] ^= 1),
        Box::new(|s| s.session = SessionId::new([0xcc; 32])),
        Box::new(|s| s.messages.reverse()),
    ]
}

/// One presignature, two requests: neither is answered, whichever the coordinator combines. The header
/// is made to fit, as a coordinator that deviates would.
#[test]
fn two_views_of_one_presignature_give_no_signature() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 3, 3);
    for signers in [&[1, 2][..], &[1, 2, 3]] {
        let messages = messages(&keys, 2);
        let all = set(signers.iter().copied());
        let one = signing_params(&all, p(1), &messages, &mut rng(4));
        for change in other_views(&keys) {
            let mut other = one.clone();
            change(&mut other);
            for coordinators in [&one, &other] {
                // The last signer has the other view, whatever the coordinator's is.
                let last = *all.last().unwrap();
                let view = |me: Participant| match me {
                    me if me == p(1) => coordinators.clone(),
                    me if me == last => other.clone(),
                    _ => one.clone(),
                };
                let pools = same_pools(&keys, &setups, signers, 2);
                let header = own_header(&keys, &setups, signers, coordinators);
                let signed = online_with(&keys, pools, view, &mut rng(5), |letters| {
                    for letter in letters.iter_mut() {
                        letter.bytes[field::SESSION].copy_from_slice(&header[..32]);
                        letter.bytes[field::CONTEXT].copy_from_slice(&header[32..]);
                    }
                });
                if all.len() == 2 && std::ptr::eq(coordinators, &other) {
                    // Both have the same view after all.
                    check(CurveId::Secp256k1, &other.messages, signatures(&signed));
                    continue;
                }
                let blame = blame(&signed);
                assert_eq!(blame.reason, AbortReason::InvalidSignatureShare);
                match signers {
                    [1, 2] => assert_eq!((blame.culprits, blame.suspects), (vec![2], vec![])),
                    _ => assert_eq!((blame.culprits, blame.suspects), (vec![], vec![2, 3])),
                }
            }
        }
    }
}

/// Session and context of an honest letter in this view.
fn own_header(keys: &Keys, setups: &Setups, signers: &[u16], view: &SigningParams) -> Vec<u8> {
    let pools = same_pools(keys, setups, signers, 2);
    let mut header = Vec::new();
    let _ = online_with(
        keys,
        pools,
        |_| view.clone(),
        &mut rng(5),
        |letters| {
            let letter = &letters[0].bytes;
            header = [&letter[field::SESSION], &letter[field::CONTEXT]].concat();
        },
    );
    header
}

/// Left alone, the messages themselves say that the views differ.
#[test]
fn signers_with_different_views_are_told_apart() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 3, 3);
    let params = signing_params(&set([1, 2, 3]), p(1), &messages(&keys, 2), &mut rng(4));
    for change in other_views(&keys) {
        let pools = same_pools(&keys, &setups, &[1, 2, 3], 2);
        let view = |me: Participant| {
            let mut view = params.clone();
            if me == p(3) {
                change(&mut view);
            }
            view
        };
        let signed = online_with(&keys, pools, view, &mut rng(5), |_| {});
        let blame = blame(&signed);
        match blame.reason {
            AbortReason::WrongSession => assert_eq!(blame.culprits, [3]),
            reason => {
                assert_eq!(reason, AbortReason::ContextMismatch);
                assert_eq!((blame.culprits, blame.suspects), (vec![], vec![3]));
            }
        }
    }
}

/// The same for signing without presignatures: nobody gets as far as a share.
#[test]
fn signers_with_different_views_do_not_start() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 3, 3);
    let params = signing_params(&set([1, 2, 3]), p(1), &messages(&keys, 2), &mut rng(4));
    for change in other_views(&keys) {
        let mut other = params.clone();
        change(&mut other);
        let mut starts = sign_starts(&keys, &setups, &params, &mut rng(5));
        let key = Arc::clone(&keys[&p(3)]);
        let (protocol, outbox) = sign(key, &setups[&p(3)], other, &mut rng(6)).unwrap();
        starts[2] = (p(3), protocol, outbox);
        let outcomes = run(starts, &mut rng(7));
        for outcome in outcomes.values() {
            let reason = blame(outcome).reason;
            let expected = [AbortReason::ContextMismatch, AbortReason::WrongSession];
            assert!(expected.contains(&reason));
        }
    }
}

/// Shares made with other presignatures than the coordinator's.
#[test]
fn exchanged_presignatures_give_no_signature() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 2, 3);
    let params = signing_params(&set([1, 2]), p(1), &messages(&keys, 2), &mut rng(4));
    let mut pools = same_pools(&keys, &setups, &[1, 2], 2);
    pools.get_mut(&p(2)).unwrap().reverse();
    let header = own_header(&keys, &setups, &[1, 2], &params);
    let signed = online_with(
        &keys,
        pools,
        |_| params.clone(),
        &mut rng(5),
        |letters| {
            letters[0].bytes[field::CONTEXT].copy_from_slice(&header[32..]);
        },
    );
    assert_culprits(&signed, AbortReason::InvalidSignatureShare, &[2]);
}

/// One-round signing: every field of a share's message, and the message itself.
#[test]
fn bad_shares_name_their_sender() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 2, 3);
    let params = signing_params(&set([1, 2]), p(1), &messages(&keys, 2), &mut rng(4));
    let sign = |adversary: &dyn Fn(&mut Vec<Letter>)| {
        let pools = same_pools(&keys, &setups, &[1, 2], 2);
        online_with(&keys, pools, |_| params.clone(), &mut rng(5), adversary)
    };
    let shares = field::HEADER_END;
    for offset in 0..shares + 4 * 32 {
        let signed = sign(&|letters| letters[0].bytes[offset] ^= 1 << (offset % 8));
        let blame = blame(&signed);
        let expected = match offset {
            o if o < 1 => AbortReason::Malformed,
            o if o < field::SESSION.end => AbortReason::WrongSession,
            o if field::ROUND.contains(&o) => AbortReason::WrongRound,
            o if o < field::TO.end => AbortReason::Misaddressed,
            o if o < shares => AbortReason::ContextMismatch,
            _ => AbortReason::InvalidSignatureShare,
        };
        assert_eq!(blame.reason, expected, "offset {offset}");
        match expected {
            AbortReason::ContextMismatch => assert_eq!(blame.suspects, [2]),
            _ => assert_eq!(blame.culprits, [2]),
        }
    }
    let signed = sign(&|letters| letters[0].bytes[shares..shares + 32].fill(0xff));
    assert_culprits(&signed, AbortReason::Malformed, &[2]);
    let signed = sign(&|letters| {
        let (one, two) = letters[0].bytes[shares..].split_at_mut(64);
        one.swap_with_slice(two);
    });
    assert_culprits(&signed, AbortReason::InvalidSignatureShare, &[2]);
    for len in [0, shares, shares + 127, shares + 129] {
        let signed = sign(&|letters| letters[0].bytes.resize(len, 0));
        assert_culprits(&signed, AbortReason::Malformed, &[2]);
    }
    let signed = sign(&|letters| letters.clear());
    assert_culprits(&signed, AbortReason::Missing, &[2]);
    // Of another request for the same presignatures, as a message and as bare shares.
    let mut replayed = Vec::new();
    let other = signing_params(&set([1, 2]), p(1), &params.messages, &mut rng(6));
    let pools = same_pools(&keys, &setups, &[1, 2], 2);
    let _ = online_with(
        &keys,
        pools,
        |_| other.clone(),
        &mut rng(5),
        |letters| {
            replayed.extend(letters[0].bytes.clone());
        },
    );
    let signed = sign(&|letters| letters[0].bytes.clone_from(&replayed));
    assert_culprits(&signed, AbortReason::WrongSession, &[2]);
    let signed = sign(&|letters| {
        letters[0].bytes[shares..].copy_from_slice(&replayed[shares..]);
    });
    assert_culprits(&signed, AbortReason::InvalidSignatureShare, &[2]);
}

/// A commitment to nonce points is of no use in another session, nor to another signer.
#[test]
fn replayed_commitments_to_nonces_are_named() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 3, 3);
    let signers = set([1, 2, 3]);
    let starts = |seed| presign_starts(&keys, &setups, &signers, 1, &mut rng(seed));
    let nonces = AFTER_ECHO..AFTER_ECHO + 33;
    // Commitment and opening.
    let replayed = |from: u16, seed| {
        let mut parts = [Vec::new(), Vec::new()];
        run_with(starts(seed), &mut rng(2), |round, letters| {
            let letter = letters.iter().find(|l| l.from == p(from)).unwrap();
            match round {
                1 => parts[0] = letter.bytes[field::HEADER_END..][..32].to_vec(),
                2 => parts[1] = letter.bytes[nonces.clone()].to_vec(),
                _ => {}
            }
        });
        parts
    };
    for [commitment, opening] in [replayed(1, 50), replayed(2, 1)] {
        let outcomes = run_with(starts(1), &mut rng(2), |round, letters| {
            for letter in letters.iter_mut().filter(|l| l.from == p(1)) {
                let context = letter.bytes[field::CONTEXT].to_vec();
                let start = &mut letter.bytes[field::HEADER_END..][..32];
                match round {
                    1 => start.copy_from_slice(&commitment),
                    2 => {
                        start.copy_from_slice(&echo(&context, 1, 1, &commitment));
                        letter.bytes[nonces.clone()].copy_from_slice(&opening);
                    }
                    _ => {}
                }
            }
        });
        for honest in [2, 3] {
            assert_culprits(&outcomes[&p(honest)], AbortReason::CommitmentMismatch, &[1]);
        }
    }
}

/// The points of key shares that signers broadcast: made new for each presignature by shares of zero, so that
/// they say nothing about the share.
#[test]
fn key_shares_are_new_in_each_presignature() {
    const COUNT: usize = 3;
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 2, 3);
    let point = |bytes: &[u8]| {
        let key = k256::PublicKey::from_sec1_bytes(bytes).unwrap();
        key.to_projective()
    };
    let mut sums = [k256::ProjectivePoint::IDENTITY; COUNT];
    let mut seen = Vec::new();
    // The verifying shares, from where `KeyPackage::to_bytes` says that they are, times their coefficients.
    let package = keys[&p(1)].to_bytes();
    for (index, lagrange) in [(0, k256::Scalar::from(2_u64)), (1, -k256::Scalar::ONE)] {
        seen.push(point(&package[71 + 35 * index + 2..][..33]) * lagrange);
    }
    let starts = presign_starts(&keys, &setups, &set([1, 2]), COUNT, &mut rng(5));
    run_with(starts, &mut rng(6), |round, letters| {
        for letter in letters.iter().filter(|_| round == 2) {
            let start = field::HEADER_END + 2 * 32 + COUNT * 33;
            let points = letter.bytes[start..][..COUNT * 33].chunks(33);
            for (sum, bytes) in sums.iter_mut().zip(points) {
                *sum += point(bytes);
                assert!(!seen.contains(&point(bytes)));
                seen.push(point(bytes));
            }
        }
    });
    assert_eq!(seen.len(), 2 + 2 * COUNT);
    assert_eq!(sums, [point(&keys[&p(1)].public_key()); COUNT]);
}

/// Presigning has no check for `ψ`; the signature does, and with two signers names who sent it.
#[test]
fn a_wrong_psi_gives_no_signature() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 2, 3);
    let starts = presign_starts(&keys, &setups, &set([1, 2]), 1, &mut rng(5));
    let outcomes = run_with(starts, &mut rng(6), |round, letters| {
        let psi = field::HEADER_END + 2 * 32 + 2 * 33 + alice_message_bytes(1) + 2 * 33;
        for letter in letters.iter_mut().filter(|l| round == 2 && l.from == p(2)) {
            letter.bytes[psi + 31] ^= 1;
        }
    });
    let pools = outcomes.into_iter().map(|(me, pool)| (me, pool.unwrap()));
    let params = signing_params(&set([1, 2]), p(1), &messages(&keys, 1), &mut rng(4));
    let signed = online(&keys, pools.collect(), &params, &mut rng(7));
    assert_culprits(&signed, AbortReason::InvalidSignatureShare, &[2]);
}

/// A failed check spends the setup of the pair, and every presignature that rests on it.
#[test]
fn a_failed_check_spends_the_setup() {
    let mut rng = rng(1);
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 3, 3);
    let pools = presign_all(&keys, &setups, &set([1, 2]), 1, &mut rng);
    let starts = presign_starts(&keys, &setups, &set([1, 2, 3]), 1, &mut rng);
    let outcomes = run_with(starts, &mut rng, |round, letters| {
        // 1's Γ for 2: a point, but the wrong one.
        let keys = AFTER_ECHO + 33;
        let gamma = AFTER_ECHO + 2 * 33 + alice_message_bytes(1);
        let hit = |l: &&mut Letter| round == 2 && l.from == p(1) && l.to == p(2);
        for letter in letters.iter_mut().filter(hit) {
            letter.bytes.copy_within(keys..keys + 33, gamma);
        }
    });
    assert_culprits(&outcomes[&p(2)], AbortReason::ConsistencyCheck, &[1]);
    assert!(setups[&p(2)][&p(1)].is_poisoned());
    assert!(!setups[&p(2)][&p(3)].is_poisoned());

    let key = &keys[&p(2)];
    let params = PresigningParams {
        session: session(&mut rng),
        binding: BINDING,
        signers: set([1, 2]),
        count: 1,
    };
    let refused = presign(Arc::clone(key), &setups[&p(2)], params, &mut rng);
    assert_eq!(refused.unwrap_err(), Error::Reject(Reject::SetupPoisoned));
    let params = signing_params(&set([1, 2]), p(1), &messages(&keys, 1), &mut rng);
    let refused = sign(Arc::clone(key), &setups[&p(2)], params.clone(), &mut rng);
    assert_eq!(refused.unwrap_err(), Error::Reject(Reject::SetupPoisoned));
    let pool = pools.into_iter().find(|(me, _)| *me == p(2)).unwrap().1;
    assert!(pool.iter().all(Presignature::is_poisoned));
    let refused = sign_online(Arc::clone(key), &BINDING, pool, params);
    assert_eq!(refused.unwrap_err(), Error::Reject(Reject::SetupPoisoned));
}

/// Two honest signers that hold different setups with each other: each suspects the other, neither is
/// convicted, and nothing is poisoned.
#[test]
fn different_setups_convict_nobody() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 3, 3);
    let others = pair_up(3, &mut rng(99));
    let mut mixed = setups.clone();
    let of_three = mixed.get_mut(&p(3)).unwrap();
    of_three.insert(p(1), Arc::clone(&others[&p(3)][&p(1)]));
    let signers = set([1, 2, 3]);

    fn assert_suspects<O: std::fmt::Debug>(outcomes: &Outcomes<O>) {
        for (me, other) in [(1, 3), (3, 1)] {
            let expected = suspects(AbortReason::ContextMismatch, &[other]);
            assert_eq!(blame(&outcomes[&p(me)]), expected);
        }
        assert_culprits(&outcomes[&p(2)], AbortReason::Missing, &[1, 3]);
    }
    let starts = presign_starts(&keys, &mixed, &signers, 1, &mut rng(1));
    assert_suspects(&run(starts, &mut rng(2)));
    let params = signing_params(&signers, p(1), &messages(&keys, 1), &mut rng(3));
    let starts = sign_starts(&keys, &mixed, &params, &mut rng(4));
    assert_suspects(&run(starts, &mut rng(5)));

    let mut all = mixed.values().chain(others.values());
    assert!(all.all(|setups| setups.values().all(|setup| !setup.is_poisoned())));
}

/// A generator that stands for another run, which fails over this setup as soon as it is used.
struct OtherRunFails<'a>(ChaCha20Rng, &'a PairSetup);

impl RngCore for OtherRunFails<'_> {
    fn next_u32(&mut self) -> u32 {
        self.1.poison();
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.1.poison();
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.1.poison();
        self.0.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_chacha::rand_core::Error> {
        self.1.poison();
        self.0.try_fill_bytes(bytes)
    }
}

impl CryptoRng for OtherRunFails<'_> {}

/// The setup is poisoned after the last multiplication has passed, while the rest is checked: no share is
/// released, nor is there an answer to whether the rest was right.
#[test]
fn a_setup_that_was_poisoned_meanwhile_gives_no_share_and_no_answer() {
    fn step(
        run: Signing,
        from: Participant,
        outbox: Outbox,
        change: impl Fn(&mut [u8]),
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Transition<Signed>, Error> {
        let mut inbox = run.inbox();
        for (_, mut message) in outbox {
            change(&mut message);
            inbox.insert(from, message).unwrap();
        }
        run.advance(inbox, rng)
    }
    fn go_on(transition: Result<Transition<Signed>, Error>) -> (Signing, Outbox) {
        match transition {
            Ok(Transition::Continue(run, outbox)) => (run, outbox),
            other => panic!("{other:?}"),
        }
    }
    fn honest(_: &mut [u8]) {}
    // Γ in its place: a point, but the wrong one.
    fn wrong(message: &mut [u8]) {
        let keys = field::HEADER_END + 2 * 32 + 33;
        message.copy_within(keys..keys + 33, keys + 33 + alice_message_bytes(1));
    }
    for change in [honest, wrong as fn(&mut [u8])] {
        let (keys, setups) = cluster(CurveId::Secp256k1, 2, 2, 3);
        let params = signing_params(&set([1, 2]), p(1), &messages(&keys, 1), &mut rng(4));
        let mut starts = sign_starts(&keys, &setups, &params, &mut rng(5)).into_iter();
        let (one, two) = (starts.next().unwrap(), starts.next().unwrap());
        let (low, to_high) = go_on(step(one.1, p(2), two.2, honest, &mut rng(6)));
        let (high, to_low) = go_on(step(two.1, p(1), one.2, honest, &mut rng(7)));
        for (me, other, run, outbox) in [(1, 2, low, to_low), (2, 1, high, to_high)] {
            let setup = &setups[&p(me)][&p(other)];
            let mut rng = OtherRunFails(rng(8), setup);
            let result = step(run, p(other), outbox, change, &mut rng);
            assert!(setup.is_poisoned());
            assert_eq!(result.unwrap_err(), Error::Reject(Reject::SetupPoisoned));
        }
    }
}

#[test]
fn presignatures_are_refused_for_anything_else_than_what_they_are_bound_to() {
    let mut rng = rng(1);
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 3, 3);
    let others = generate(CurveId::Secp256k1, 2, 3, &mut rng);
    let on_p256 = generate(CurveId::P256, 2, 3, &mut rng);
    let base = signing_params(&set([1, 2]), p(1), &messages(&keys, 2), &mut rng);
    let refused = |keys: &Keys, binding: &[u8; 32], spare: usize, params: SigningParams| {
        let pool = same_pools(
            &self::cluster(CurveId::Secp256k1, 2, 3, 3).0,
            &setups,
            &[1, 2],
            2,
        );
        let mut pool = pool.into_iter().find(|(me, _)| *me == p(2)).unwrap().1;
        pool.truncate(2 - spare);
        sign_online(Arc::clone(&keys[&p(2)]), binding, pool, params).unwrap_err()
    };
    let expected = Error::Reject(Reject::Presignature);
    assert_eq!(refused(&keys, &[6; 32], 0, base.clone()), expected);
    assert_eq!(refused(&keys, &BINDING, 1, base.clone()), expected);
    for (signers, coordinator) in [(set([1, 2, 3]), 1), (set([2, 3]), 2)] {
        let mut params = base.clone();
        params.signers = signers;
        params.coordinator = p(coordinator);
        assert_eq!(refused(&keys, &BINDING, 0, params), expected);
    }
    for others in [&others, &on_p256] {
        let mut params = base.clone();
        params.messages = messages(others, 2);
        assert_eq!(refused(others, &BINDING, 0, params), expected);
        // A derived key of another key.
        let reject = Error::Reject(Reject::DerivationPath);
        assert_eq!(refused(others, &BINDING, 0, base.clone()), reject);
    }
}

#[test]
fn a_zero_digest_is_refused() {
    let mut rng = rng(1);
    let orders = [
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    ];
    for (curve, order) in CURVES.into_iter().zip(orders) {
        let (keys, setups) = cluster(curve, 2, 2, 3);
        let order: [u8; 32] = hex::decode(order).unwrap().try_into().unwrap();
        for digest in [[0; 32], order] {
            let mut messages = messages(&keys, 2);
            messages[1].digest = digest;
            let params = signing_params(&set([1, 2]), p(1), &messages, &mut rng);
            let key = Arc::clone(&keys[&p(1)]);
            let refused = sign(Arc::clone(&key), &setups[&p(1)], params.clone(), &mut rng);
            assert_eq!(refused.unwrap_err(), Error::Reject(Reject::ZeroDigest));
            let mut pools = presign_all(&keys, &setups, &set([1, 2]), 2, &mut rng);
            let pool = pools.remove(&p(1)).unwrap();
            let refused = sign_online(key, &BINDING, pool, params);
            assert_eq!(refused.unwrap_err(), Error::Reject(Reject::ZeroDigest));
        }
    }
}

#[test]
fn requests_that_cannot_be_served_are_refused() {
    let mut rng = rng(1);
    let params = |participants: Vec<u16>, me: u16, threshold| arca_threshold::ecdsa::DkgParams {
        curve: CurveId::P256,
        session: session(&mut support::rng(2)),
        context: [0; 32],
        me: p(me),
        participants: set(participants),
        threshold,
    };
    for (params, reject) in [
        (params(vec![1], 1, 2), Reject::Participants),
        (params((1..=17).collect(), 1, 2), Reject::Participants),
        (params(vec![1, 2, 3], 1, 1), Reject::Threshold),
        (params(vec![1, 2, 3], 1, 4), Reject::Threshold),
        (params(vec![1, 2, 3], 4, 2), Reject::NotAParticipant),
    ] {
        assert_eq!(dkg(params, &mut rng).unwrap_err(), Error::Reject(reject));
    }

    let (keys, setups) = cluster(CurveId::Secp256k1, 3, 4, 3);
    let (key, setups) = (&keys[&p(1)], &setups[&p(1)]);
    let base = signing_params(&set([1, 2, 3]), p(2), &messages(&keys, 1), &mut rng);
    let too_many = |s: &mut SigningParams| s.messages = messages(&keys, 65);
    type Change<'a> = &'a dyn Fn(&mut SigningParams);
    let cases: [(Change<'_>, Reject); 6] = [
        // One fewer than the threshold cannot even start.
        (&|s| s.signers = set([1, 2]), Reject::TooFewSigners),
        (&|s| s.signers = set([1, 2, 5]), Reject::UnknownSigner),
        (&|s| s.signers = set([2, 3, 4]), Reject::NotAParticipant),
        (&|s| s.coordinator = p(4), Reject::Coordinator),
        (&|s| s.messages.clear(), Reject::Batch),
        (&too_many, Reject::Batch),
    ];
    for (change, reject) in cases {
        let mut params = base.clone();
        change(&mut params);
        let refused = sign(Arc::clone(key), setups, params.clone(), &mut rng);
        assert_eq!(refused.unwrap_err(), Error::Reject(reject));
        let refused = sign_online(Arc::clone(key), &BINDING, Vec::new(), params.clone());
        assert_eq!(refused.unwrap_err(), Error::Reject(reject));
        let params = PresigningParams {
            session: params.session,
            binding: BINDING,
            signers: params.signers,
            count: params.messages.len(),
        };
        if reject != Reject::Coordinator {
            let refused = presign(Arc::clone(key), setups, params, &mut rng);
            assert_eq!(refused.unwrap_err(), Error::Reject(reject));
        }
    }

    let mut fewer = setups.clone();
    fewer.remove(&p(3));
    let refused = sign(Arc::clone(key), &fewer, base, &mut rng);
    assert_eq!(refused.unwrap_err(), Error::Reject(Reject::PairSetup));
}
