//! Participants that deviate with care: every message well formed, addressed and timed.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use std::sync::Arc;

use arca_threshold::{
    AbortReason, DkgParams, Error, Reject, Scheme, SigningParams, Tweak, dkg, sign,
};
use sha2::{Digest as _, Sha256};

use support::schnorr::*;
use support::*;

/// Bytes of a compressed group element.
fn element_bytes(scheme: Scheme) -> usize {
    match scheme {
        Scheme::Bip340 => 33,
        Scheme::Ed25519 => 32,
    }
}

/// Where the parts start from round 2 on, after the echo of three broadcasts.
const AFTER_ECHO: usize = field::HEADER_END + 3 * 32;

/// Replaces what 1 opens in key generation, with a commitment in round 1 that fits.
fn forge_opening(forge: impl Fn(Scheme, &mut [u8]), reason: AbortReason) {
    for scheme in SCHEMES {
        let starts = |seed| dkg_starts(scheme, &set([1, 2, 3]), 2, &mut rng(seed));
        let mut opening = Vec::new();
        run_with(starts(1), &mut rng(2), |round, letters| {
            let mine = letters.iter().find(|l| round == 2 && l.from == p(1));
            opening.extend(mine.iter().flat_map(|l| &l.bytes[AFTER_ECHO..]));
        });
        forge(scheme, &mut opening);

        let outcomes = run_with(starts(1), &mut rng(2), |round, letters| {
            for letter in letters.iter_mut().filter(|l| l.from == p(1)) {
                match round {
                    1 => {
                        let context = letter.bytes[field::CONTEXT].to_vec();
                        let commitment = commit(&context, 1, &opening);
                        letter.bytes[field::HEADER_END..].copy_from_slice(&commitment);
                    }
                    2 => {
                        // 1 goes on pretending that it broadcast the forged commitment.
                        let context = letter.bytes[field::CONTEXT].to_vec();
                        let commitment = commit(&context, 1, &opening);
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
}

fn commit(context: &[u8], from: u16, opening: &[u8]) -> [u8; 32] {
    let tag = "arca/v1/threshold/dkg-commitment";
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
    forge_opening(
        |_, opening| *opening.last_mut().unwrap() ^= 1,
        AbortReason::InvalidProof,
    );
    // Someone else's constant term, which 1 knows no logarithm of: the curve's generator.
    forge_opening(
        |scheme, opening| {
            let generator = match scheme {
                Scheme::Bip340 => {
                    "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
                }
                Scheme::Ed25519 => {
                    "5866666666666666666666666666666666666666666666666666666666666666"
                }
            };
            let generator = hex::decode(generator).unwrap();
            opening[..generator.len()].copy_from_slice(&generator);
        },
        AbortReason::InvalidProof,
    );
}

/// 1 waits for what 2 sends and sends the same for its own.
#[test]
fn a_copied_contribution_is_named() {
    for scheme in SCHEMES {
        let starts = dkg_starts(scheme, &set([1, 2, 3]), 2, &mut rng(1));
        let mut copied = Vec::new();
        let outcomes = run_with(starts, &mut rng(2), |round, letters| {
            let part = if round == 1 {
                field::HEADER_END
            } else {
                AFTER_ECHO
            };
            let original = letters.iter().find(|l| l.from == p(2)).unwrap();
            let body = original.bytes[part..].to_vec();
            for letter in letters.iter_mut().filter(|l| l.from == p(1)) {
                if round == 2 {
                    let context = letter.bytes[field::CONTEXT].to_vec();
                    let echo = echo(&context, 1, 1, &copied);
                    letter.bytes[field::HEADER_END..][..32].copy_from_slice(&echo);
                }
                letter.bytes[part..].copy_from_slice(&body);
            }
            copied = body;
        });
        for honest in [2, 3] {
            assert_culprits(&outcomes[&p(honest)], AbortReason::CommitmentMismatch, &[1]);
        }
    }
}

#[test]
fn non_canonical_and_weak_commitments_are_named() {
    forge_opening(
        |scheme, opening| match scheme {
            // SEC 1 compact form, which k256 reads as well.
            Scheme::Bip340 => opening[0] = 5,
            // The identity.
            Scheme::Ed25519 => {
                opening[..32].fill(0);
                opening[0] = 1;
            }
        },
        AbortReason::Malformed,
    );
    // Not on the curve, or a point of order 8 (both from the curves' definitions).
    forge_opening(
        |scheme, opening| match scheme {
            Scheme::Bip340 => opening[1..33].fill(0xff),
            Scheme::Ed25519 => {
                let order_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
                opening[..32].copy_from_slice(&hex::decode(order_8).unwrap());
            }
        },
        AbortReason::Malformed,
    );
    // A response that is not below the group's order.
    forge_opening(
        |_, opening| {
            let start = opening.len() - 32;
            opening[start..].fill(0xff);
        },
        AbortReason::Malformed,
    );
}

#[test]
fn a_share_meant_for_another_is_named() {
    for scheme in SCHEMES {
        let starts = dkg_starts(scheme, &set([1, 2, 3]), 2, &mut rng(1));
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
fn an_equivocated_broadcast_in_key_generation_is_caught_by_the_echo() {
    for scheme in SCHEMES {
        let mut starts = dkg_starts(scheme, &set([1, 2, 3]), 2, &mut rng(1));
        let other_commitment = [0xaa; 32];
        let mut context = Vec::new();
        let outcomes = run_with(
            std::mem::take(&mut starts),
            &mut rng(2),
            |round, letters| {
                let to_three = letters.iter_mut().find(|l| l.from == p(1) && l.to == p(3));
                let Some(letter) = to_three else { return };
                context.clear();
                context.extend_from_slice(&letter.bytes[field::CONTEXT]);
                match round {
                    1 => letter.bytes[field::HEADER_END..].copy_from_slice(&other_commitment),
                    2 => {
                        let echo = echo(&context, 1, 1, &other_commitment);
                        letter.bytes[field::HEADER_END..][..32].copy_from_slice(&echo);
                    }
                    _ => {}
                }
            },
        );
        // It is the word of 1 against that of the other; both know that one of the two lies.
        for (honest, dispute) in [(2, vec![1, 3]), (3, vec![1, 2])] {
            let blame = blame(&outcomes[&p(honest)]);
            assert_eq!(blame.reason, AbortReason::Equivocation);
            assert_eq!((blame.culprits, blame.suspects), (vec![], dispute));
        }
    }
}

/// With four participants the same, and a second liar who backs the first: still nobody goes on.
#[test]
fn a_coalition_cannot_hide_an_equivocation() {
    for scheme in SCHEMES {
        let starts = dkg_starts(scheme, &set([1, 2, 3, 4]), 3, &mut rng(1));
        let other_commitment = [0xaa; 32];
        let outcomes = run_with(starts, &mut rng(2), |round, letters| {
            for letter in letters.iter_mut().filter(|l| l.to == p(3)) {
                let context = letter.bytes[field::CONTEXT].to_vec();
                match (round, letter.from.get()) {
                    (1, 1) => letter.bytes[field::HEADER_END..].copy_from_slice(&other_commitment),
                    (2, 1 | 4) => {
                        let echo = echo(&context, 1, 1, &other_commitment);
                        letter.bytes[field::HEADER_END..][..32].copy_from_slice(&echo);
                    }
                    _ => {}
                }
            }
        });
        let expected = |suspects: &[u16]| Blame {
            reason: AbortReason::Equivocation,
            culprits: vec![],
            suspects: suspects.to_vec(),
        };
        assert_eq!(blame(&outcomes[&p(2)]), expected(&[1, 3]));
        assert_eq!(blame(&outcomes[&p(3)]), expected(&[1, 2]));
    }
}

#[test]
fn every_bad_signature_share_is_named() {
    for scheme in SCHEMES {
        let mut rng = rng(1);
        let keys = generate(scheme, 3, 4, &mut rng);
        let messages = messages(scheme, 2);
        let signers = set([1, 2, 3, 4]);
        let starts = sign_starts(&keys, &signers, p(2), &messages, &mut rng);
        let outcomes = run_with(starts, &mut rng, |round, letters| {
            let bad = |l: &&mut Letter| round == 2 && l.from != p(3);
            for letter in letters.iter_mut().filter(bad) {
                // The two messages' shares exchanged: valid scalars, invalid shares.
                let shares = &mut letter.bytes[field::HEADER_END + 4 * 32..];
                let (one, two) = shares.split_at_mut(32);
                one.swap_with_slice(two);
            }
        });
        assert_culprits(
            &outcomes[&p(2)],
            AbortReason::InvalidSignatureShare,
            &[1, 4],
        );
    }
}

#[test]
fn non_canonical_nonce_commitments_are_named() {
    for scheme in SCHEMES {
        let mut rng = rng(1);
        let keys = generate(scheme, 2, 2, &mut rng);
        let messages = messages(scheme, 2);
        for at in [0, 1, 2, 3] {
            let starts = sign_starts(&keys, &set([1, 2]), p(2), &messages, &mut rng);
            let outcomes = run_with(starts, &mut rng, |round, letters| {
                let hit = |l: &&mut Letter| round == 1 && l.from == p(1);
                for letter in letters.iter_mut().filter(hit) {
                    let start = field::HEADER_END + at * element_bytes(scheme);
                    let element = &mut letter.bytes[start..start + element_bytes(scheme)];
                    match scheme {
                        Scheme::Bip340 => element[0] = 5,
                        Scheme::Ed25519 => {
                            element.fill(0);
                            element[0] = 1;
                        }
                    }
                }
            });
            assert_culprits(&outcomes[&p(2)], AbortReason::Malformed, &[1]);
        }
    }
}

/// One signer is told something else than the others: nobody releases a share.
#[test]
fn signers_with_different_views_release_nothing() {
    for scheme in SCHEMES {
        let mut rng = rng(1);
        let keys = generate(scheme, 2, 3, &mut rng);
        let other_keys = generate(scheme, 2, 3, &mut rng);
        let base = SigningParams {
            session: session(&mut rng),
            context: [3; 32],
            signers: set([1, 2, 3]),
            coordinator: p(1),
            messages: messages(scheme, 2),
        };
        let with = |change: &dyn Fn(&mut SigningParams)| {
            let mut params = base.clone();
            change(&mut params);
            params
        };
        let mut views = vec![
            (with(&|s| s.context = [4; 32]), &keys),
            (with(&|s| s.coordinator = p(2)), &keys),
            (with(&|s| s.coordinator = p(3)), &keys),
            (with(&|s| s.messages.reverse()), &keys),
            (with(&|s| s.messages[1].message = vec![0xee; 32]), &keys),
            (with(&|_| {}), &other_keys),
        ];
        if scheme == Scheme::Bip340 {
            views.push((with(&|s| s.messages[0].tweak = Tweak::None), &keys));
        }
        for (view, keys_of_three) in views {
            let mut starts = Vec::new();
            for (me, keys, params) in [
                (1, &keys, &base),
                (2, &keys, &base),
                (3, keys_of_three, &view),
            ] {
                let (protocol, outbox) =
                    sign(Arc::clone(&keys[&p(me)]), params.clone(), &mut rng).unwrap();
                starts.push((p(me), protocol, outbox));
            }
            let outcomes = run(starts, &mut rng);
            for (me, others) in [(1, vec![3]), (2, vec![3])] {
                let blame = blame(&outcomes[&p(me)]);
                assert_eq!(blame.reason, AbortReason::ContextMismatch);
                assert_eq!((blame.culprits, blame.suspects), (vec![], others));
            }
            assert_eq!(blame(&outcomes[&p(3)]).reason, AbortReason::ContextMismatch);
        }
    }
}

#[test]
fn participants_with_different_parameters_make_no_key() {
    let mut rng = rng(1);
    let base = DkgParams {
        scheme: Scheme::Bip340,
        session: session(&mut rng),
        context: [1; 32],
        me: p(3),
        participants: set([1, 2, 3]),
        threshold: 2,
    };
    let views: [&dyn Fn(&mut DkgParams); 4] = [
        &|d| d.context = [2; 32],
        &|d| d.threshold = 3,
        &|d| d.scheme = Scheme::Ed25519,
        &|d| d.participants = set([1, 2, 3, 4]),
    ];
    for change in views {
        let starts = [1, 2, 3].map(|me| {
            let mut params = base.clone();
            if me == 3 {
                change(&mut params);
            }
            params.me = p(me);
            let (protocol, outbox) = dkg(params, &mut rng).unwrap();
            (p(me), protocol, outbox)
        });
        let outcomes = run_with(starts.into(), &mut rng, |_, letters| {
            letters.retain(|l| l.to != p(4));
        });
        for me in [1, 2] {
            let blame = blame(&outcomes[&p(me)]);
            assert_eq!(blame.reason, AbortReason::ContextMismatch);
            assert_eq!(blame.suspects, [3]);
        }
        assert!(outcomes[&p(3)].is_err());
    }
}

#[test]
fn outsiders_cannot_end_a_run() {
    let mut rng = rng(1);
    let mut starts = dkg_starts(Scheme::Ed25519, &set([1, 2]), 2, &mut rng);
    let (_, _, from_two) = starts.pop().unwrap();
    let (_, one, _) = starts.pop().unwrap();
    let mut inbox = one.inbox();
    for (_, message) in from_two {
        for stranger in [p(1), p(3), p(65535)] {
            assert_eq!(
                inbox.insert(stranger, message.clone()),
                Err(Error::Reject(Reject::UnexpectedSender))
            );
        }
        inbox.insert(p(2), message).unwrap();
    }
    one.advance(inbox, &mut rng).unwrap();
}

#[test]
fn an_inbox_of_another_run_is_refused() {
    let mut rng = rng(1);
    let mut start = || dkg_starts(Scheme::Ed25519, &set([1, 2]), 2, &mut rng).remove(0);
    let ((_, one, _), (_, other, _)) = (start(), start());
    let result = one.advance(other.inbox(), &mut rng);
    assert!(matches!(result, Err(Error::Bug(_))));
}

#[test]
fn requests_that_cannot_be_served_are_refused() {
    let mut rng = rng(1);
    let params = |participants: Vec<u16>, me: u16, threshold| DkgParams {
        scheme: Scheme::Bip340,
        session: session(&mut support::rng(2)),
        context: [0; 32],
        me: p(me),
        participants: set(participants),
        threshold,
    };
    let key_cases = [
        (params(vec![1], 1, 2), Reject::Participants),
        (params(vec![], 1, 2), Reject::Participants),
        (params((1..=17).collect(), 1, 2), Reject::Participants),
        (params(vec![1, 2, 3], 1, 0), Reject::Threshold),
        (params(vec![1, 2, 3], 1, 1), Reject::Threshold),
        (params(vec![1, 2, 3], 1, 4), Reject::Threshold),
        (params(vec![1, 2, 3], 1, u16::MAX), Reject::Threshold),
        (params(vec![1, 2, 3], 4, 2), Reject::NotAParticipant),
    ];
    for (params, reject) in key_cases {
        assert_eq!(dkg(params, &mut rng).unwrap_err(), Error::Reject(reject));
    }

    for scheme in SCHEMES {
        let keys = generate(scheme, 3, 4, &mut rng);
        let base = SigningParams {
            session: session(&mut rng),
            context: [0; 32],
            signers: set([1, 2, 3]),
            coordinator: p(2),
            messages: messages(scheme, 2),
        };
        let too_many = |s: &mut SigningParams| s.messages = messages(scheme, 65);
        type Change<'a> = &'a dyn Fn(&mut SigningParams);
        let mut cases: Vec<(Change<'_>, Reject)> = vec![
            // One fewer than the threshold cannot even start.
            (&|s| s.signers = set([1, 2]), Reject::TooFewSigners),
            (&|s| s.signers = set([1, 2, 5]), Reject::UnknownSigner),
            (&|s| s.signers = set([2, 3, 4]), Reject::NotAParticipant),
            (&|s| s.coordinator = p(4), Reject::Coordinator),
            (&|s| s.messages.clear(), Reject::Batch),
            (&too_many, Reject::Batch),
        ];
        match scheme {
            Scheme::Bip340 => {
                cases.push((&|s| s.messages[0].message.push(0), Reject::MessageLength));
                cases.push((&|s| s.messages[1].message.clear(), Reject::MessageLength));
            }
            Scheme::Ed25519 => {
                cases.push((
                    &|s| s.messages[1].message = vec![0; 65_537],
                    Reject::MessageLength,
                ));
                cases.push((
                    &|s| s.messages[1].tweak = Tweak::TaprootKeyPath,
                    Reject::Tweak,
                ));
            }
        }
        for (change, reject) in cases {
            let mut params = base.clone();
            change(&mut params);
            let result = sign(Arc::clone(&keys[&p(1)]), params, &mut rng);
            assert_eq!(result.unwrap_err(), Error::Reject(reject));
        }
    }
}
