//! Runs in which everyone follows the protocol, over every network that delivers.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use std::collections::BTreeSet;

use arca_threshold::{Participant, Scheme, Signed, Transition};
use proptest::prelude::*;
use rand_chacha::rand_core::RngCore as _;

use support::schnorr::*;
use support::*;

fn subsets(n: u16, size: usize) -> Vec<BTreeSet<Participant>> {
    let masks = 0u32..1 << n;
    let of_size = masks.filter(|mask| mask.count_ones() as usize == size);
    of_size
        .map(|mask| set((1..=n).filter(|i| mask & (1 << (i - 1)) != 0)))
        .collect()
}

fn assert_signs(
    keys: &Keys,
    signers: &BTreeSet<Participant>,
    coordinator: Participant,
    batch: usize,
    rng: &mut rand_chacha::ChaCha20Rng,
) {
    let key = &keys[&coordinator];
    let messages = messages(key.scheme(), batch);
    let outcomes = run(sign_starts(keys, signers, coordinator, &messages, rng), rng);
    assert_eq!(outcomes.len(), signers.len());
    for (me, outcome) in &outcomes {
        if *me != coordinator {
            assert_eq!(outcome, &Ok(Signed::Released));
        }
    }
    let signatures = signatures(&outcomes[&coordinator]);
    assert_eq!(signatures.len(), batch);
    for (signable, signature) in messages.iter().zip(signatures) {
        check_signature(key.scheme(), &key.public_key(), signable, signature);
    }
}

#[test]
fn all_participants_derive_one_key() {
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 3, &mut rng(1));
        let first = &keys[&p(1)];
        for (me, key) in &keys {
            assert_eq!(key.me(), *me);
            assert_eq!(key.scheme(), scheme);
            assert_eq!(key.threshold(), 2);
            assert_eq!(key.participants(), &set([1, 2, 3]));
            assert_eq!(key.public_key(), first.public_key());
            assert_eq!(
                key.public_key_package_digest(),
                first.public_key_package_digest()
            );
        }
    }
}

#[test]
fn every_threshold_subset_signs_up_to_five() {
    let mut rng = rng(2);
    for scheme in SCHEMES {
        for n in 2..=5 {
            for threshold in 2..=n {
                let keys = generate(scheme, threshold, n, &mut rng);
                for signers in subsets(n, usize::from(threshold)) {
                    let coordinator = *signers.last().unwrap();
                    assert_signs(&keys, &signers, coordinator, 1, &mut rng);
                }
            }
        }
    }
}

#[test]
fn more_signers_than_the_threshold_sign() {
    let mut rng = rng(3);
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 4, &mut rng);
        for size in 3..=4 {
            for signers in subsets(4, size) {
                assert_signs(&keys, &signers, *signers.first().unwrap(), 1, &mut rng);
            }
        }
    }
}

#[test]
fn a_full_batch_signs_and_any_signer_coordinates() {
    let mut rng = rng(4);
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 3, &mut rng);
        assert_signs(
            &keys,
            &set([1, 3]),
            p(1),
            arca_threshold::MAX_BATCH,
            &mut rng,
        );
        assert_signs(&keys, &set([1, 3]), p(3), 2, &mut rng);
    }
}

#[test]
fn indices_need_not_be_contiguous() {
    let mut rng = rng(5);
    for scheme in SCHEMES {
        let starts = dkg_starts(scheme, &set([7, 300, 65535]), 2, &mut rng);
        let keys: Keys = run(starts, &mut rng)
            .into_iter()
            .map(|(me, key)| (me, key.unwrap().into()))
            .collect();
        assert_signs(&keys, &set([7, 65535]), p(65535), 2, &mut rng);
        assert_signs(&keys, &set([7, 300]), p(7), 2, &mut rng);
    }
}

/// BIP-340 keys are x-only: both parities of the group's key, of the output key and of the nonce must
/// come out right. Twenty keys with two messages each miss one of the cases once in a million.
#[test]
fn every_parity_of_key_and_nonce_signs() {
    let mut rng = rng(6);
    for _ in 0..20 {
        let keys = generate(Scheme::Bip340, 2, 2, &mut rng);
        assert_signs(&keys, &set([1, 2]), p(1), 2, &mut rng);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for scheme in SCHEMES {
        let both = [7, 7, 8].map(|seed| {
            let mut rng = rng(seed);
            let keys = generate(scheme, 2, 3, &mut rng);
            let messages = messages(scheme, 2);
            let starts = sign_starts(&keys, &set([1, 2]), p(1), &messages, &mut rng);
            let outcomes = run(starts, &mut rng);
            let bytes = keys.values().map(|key| key.to_bytes().unwrap().to_vec());
            (
                bytes.collect::<Vec<_>>(),
                signatures(&outcomes[&p(1)]).to_vec(),
            )
        });
        assert_eq!(both[0], both[1]);
        assert_ne!(both[0].0, both[2].0);
        assert_ne!(both[0].1, both[2].1);
    }
}

#[test]
fn nonces_are_fresh_in_every_session() {
    let mut rng = rng(9);
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 2, &mut rng);
        let messages = messages(scheme, 2);
        let mut nonces = BTreeSet::new();
        for _ in 0..4 {
            let starts = sign_starts(&keys, &set([1, 2]), p(1), &messages, &mut rng);
            let outcomes = run(starts, &mut rng);
            for signature in signatures(&outcomes[&p(1)]) {
                assert!(nonces.insert(signature[..32].to_vec()));
            }
        }
    }
}

#[test]
fn duplicates_of_the_same_bytes_change_nothing() {
    let mut rng = rng(10);
    for scheme in SCHEMES {
        let starts = dkg_starts(scheme, &set([1, 2, 3]), 2, &mut rng);
        let outcomes = run_with(starts, &mut rng, |_, letters| {
            let copies = letters.clone();
            letters.extend(copies);
        });
        assert!(outcomes.values().all(Result::is_ok));
    }
}

#[test]
fn an_inbox_says_who_is_awaited() {
    let mut rng = rng(11);
    let mut starts = dkg_starts(Scheme::Ed25519, &set([1, 2, 3]), 2, &mut rng);
    let (_, _, from_three) = starts.pop().unwrap();
    let (_, _, from_two) = starts.pop().unwrap();
    let (_, one, _) = starts.pop().unwrap();
    let mut inbox = one.inbox();
    assert_eq!(inbox.missing(), [p(2), p(3)]);
    for (to, message) in from_three {
        if to == p(1) {
            inbox.insert(p(3), message).unwrap();
        }
    }
    assert_eq!(inbox.missing(), [p(2)]);
    assert!(!inbox.is_complete());
    for (to, message) in from_two {
        if to == p(1) {
            inbox.insert(p(2), message).unwrap();
        }
    }
    assert!(inbox.is_complete());
    let next = one.advance(inbox, &mut rng).unwrap();
    assert!(matches!(next, Transition::Continue(next, _) if next.round() == 2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Any t and n within the limits, any t or more of them, any coordinator.
    #[test]
    fn any_group_signs(seed: u64, bip340: bool, n in 2u16..=16, t in 0u16..16, more in 0usize..16) {
        let mut rng = rng(seed);
        let scheme = if bip340 { Scheme::Bip340 } else { Scheme::Ed25519 };
        let threshold = 2 + t % (n - 1);
        let keys = generate(scheme, threshold, n, &mut rng);
        let mut signers: Vec<u16> = (1..=n).collect();
        for i in (1..signers.len()).rev() {
            signers.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
        }
        signers.truncate(usize::from(threshold) + more % usize::from(n - threshold + 1));
        let coordinator = p(signers[seed as usize % signers.len()]);
        assert_signs(&keys, &set(signers), coordinator, 2, &mut rng);
    }
}
