//! ECDSA when everyone follows the protocol: keys of every size, signatures by every subset, with and
//! without presignatures, judged by code that is not ours.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use std::collections::BTreeSet;

use arca_threshold::ecdsa::{Curve, CurveId, P256, Secp256k1, Signable};
use arca_threshold::{MAX_BATCH, Participant};
use k256::elliptic_curve::{Field as _, PrimeField as _};
use proptest::prelude::*;
use rand_chacha::rand_core::RngCore as _;
use sha2::{Digest as _, Sha256};

use support::ecdsa::*;
use support::*;

fn subsets(n: u16, least: u16) -> Vec<BTreeSet<Participant>> {
    let masks = (0u32..1 << n).filter(|mask| mask.count_ones() >= u32::from(least));
    masks
        .map(|mask| set((1..=n).filter(|i| mask & (1 << (i - 1)) != 0)))
        .collect()
}

/// Signs the same messages with presignatures and without.
fn assert_signs(
    curve: CurveId,
    (keys, setups): &(Keys, Setups),
    signers: &BTreeSet<Participant>,
    coordinator: Participant,
    batch: usize,
    rng: &mut rand_chacha::ChaCha20Rng,
) {
    let messages = messages(keys, batch);
    let params = signing_params(signers, coordinator, &messages, rng);
    let pools = presign_all(keys, setups, signers, batch, rng);
    let signed = online(keys, pools, &params, rng);
    check(curve, &messages, signatures(&signed));
    let outcomes = run(sign_starts(keys, setups, &params, rng), rng);
    check(curve, &messages, coordinators(&outcomes, coordinator));
}

#[test]
fn every_subset_of_at_least_the_threshold_signs() {
    let mut rng = rng(1);
    for (curve, sizes) in [(CurveId::Secp256k1, [2, 3, 4]), (CurveId::P256, [2, 3, 3])] {
        let setups = pair_up(4, &mut rng);
        for n in sizes {
            for threshold in 2..=n {
                let cluster = (generate(curve, threshold, n, &mut rng), setups.clone());
                for signers in subsets(n, threshold) {
                    let coordinator = *signers.last().unwrap();
                    assert_signs(curve, &cluster, &signers, coordinator, 1, &mut rng);
                }
            }
        }
    }
}

#[test]
fn any_signer_coordinates_a_batch() {
    let mut rng = rng(2);
    for curve in CURVES {
        let cluster = cluster(curve, 2, 3, 2);
        for coordinator in [1, 3] {
            let signers = set([1, 3]);
            assert_signs(curve, &cluster, &signers, p(coordinator), 5, &mut rng);
        }
    }
}

#[test]
fn a_full_batch_gives_as_many_different_presignatures() {
    let mut rng = rng(3);
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 2, 3);
    let pools = presign_all(&keys, &setups, &set([1, 2]), MAX_BATCH, &mut rng);
    let names: Vec<Vec<_>> = pools
        .values()
        .map(|pool| pool.iter().map(|p| p.id()).collect())
        .collect();
    assert_eq!(names[0], names[1]);
    let distinct: BTreeSet<_> = names[0].iter().collect();
    assert_eq!(distinct.len(), MAX_BATCH);
    for presignature in pools.values().flatten() {
        assert_eq!(presignature.signers(), &set([1, 2]));
        assert_eq!(presignature.binding(), &BINDING);
        let key = &keys[&p(1)];
        assert_eq!(*presignature.key(), key.public_key_package_digest());
    }
    let messages = messages(&keys, MAX_BATCH);
    let params = signing_params(&set([1, 2]), p(2), &messages, &mut rng);
    let signed = online(&keys, pools, &params, &mut rng);
    check(CurveId::Secp256k1, &messages, signatures(&signed));
    let nonces: BTreeSet<_> = signatures(&signed).iter().map(|s| s.r).collect();
    assert_eq!(nonces.len(), MAX_BATCH);
}

#[test]
fn presignatures_serve_in_any_order_and_sessions() {
    let mut rng = rng(4);
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 3, 4);
    let signers = set([2, 3]);
    let mut pools = presign_all(&keys, &setups, &signers, 3, &mut rng);
    for taken in [1, 0, 0] {
        let one = pools
            .iter_mut()
            .map(|(me, pool)| (*me, vec![pool.remove(taken)]));
        let messages = messages(&keys, 1);
        let params = signing_params(&signers, p(2), &messages, &mut rng);
        let signed = online(&keys, one.collect(), &params, &mut rng);
        check(CurveId::Secp256k1, &messages, signatures(&signed));
    }
}

/// ring shares no code with `p256`, which signs.
#[test]
fn ring_takes_p256_signatures() {
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    let mut rng = rng(5);
    let (keys, setups) = cluster(CurveId::P256, 2, 2, 5);
    let texts = [b"one".as_slice(), b"two", b""];
    let mut messages = messages(&keys, 3);
    for (message, text) in messages.iter_mut().zip(texts) {
        message.digest = Sha256::digest(text).into();
    }
    let params = signing_params(&set([1, 2]), p(1), &messages, &mut rng);
    let outcomes = run(sign_starts(&keys, &setups, &params, &mut rng), &mut rng);
    let signatures = coordinators(&outcomes, p(1));
    for ((message, text), signature) in messages.iter().zip(texts).zip(signatures) {
        // ring reads no compressed points.
        let key = p256::PublicKey::from_sec1_bytes(&message.key.public_key()).unwrap();
        let key = key.to_encoded_point(false);
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.as_bytes());
        key.verify(text, &[signature.r, signature.s].concat())
            .unwrap();
    }
}

#[test]
fn digests_are_taken_modulo_the_order() {
    let mut rng = rng(6);
    for curve in CURVES {
        let (keys, setups) = cluster(curve, 2, 2, 6);
        let mut messages = messages(&keys, 2);
        messages[0].digest = [0xff; 32];
        messages[1].digest = [0; 32];
        messages[1].digest[31] = 1;
        let params = signing_params(&set([1, 2]), p(1), &messages, &mut rng);
        let outcomes = run(sign_starts(&keys, &setups, &params, &mut rng), &mut rng);
        check(curve, &messages, coordinators(&outcomes, p(1)));
    }
}

#[test]
fn indices_need_not_be_contiguous() {
    let mut rng = rng(7);
    let participants = set([7, 300, 65535]);
    let starts = dkg_starts(CurveId::Secp256k1, &participants, 2, &mut rng);
    let keys: Keys = run(starts, &mut rng)
        .into_iter()
        .map(|(me, key)| (me, key.unwrap().into()))
        .collect();
    let setups = pair_up_all(&participants, &mut rng);
    let signers = set([7, 65535]);
    assert_signs(
        CurveId::Secp256k1,
        &(keys, setups),
        &signers,
        p(7),
        1,
        &mut rng,
    );
}

/// The same signature from the same presignatures would be a nonce used for two messages.
#[test]
fn nonces_are_shifted_by_everything_that_is_signed() {
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 2, 8);
    let signers = set([1, 2]);
    let base = signing_params(&signers, p(1), &messages(&keys, 1), &mut rng(8));
    let mut nonces = BTreeSet::new();
    let changes: [&dyn Fn(&mut arca_threshold::ecdsa::SigningParams); 4] = [
        &|_| {},
        &|params| params.messages[0].digest[0] ^= 1,
        &|params| params.entropy[0] ^= 1,
        &|params| params.messages[0].key = messages(&keys, 2)[1].key.clone(),
    ];
    for change in changes {
        // The same random bytes give the same presignature.
        let pools = presign_all(&keys, &setups, &signers, 1, &mut rng(9));
        let mut params = base.clone();
        change(&mut params);
        let signed = online(&keys, pools, &params, &mut rng(10));
        check(CurveId::Secp256k1, &params.messages, signatures(&signed));
        assert!(nonces.insert(signatures(&signed)[0].r));
    }
}

/// The secret share in a key package: its last 32 bytes.
fn share<C: Curve>(keys: &Keys, of: Participant) -> C::Scalar {
    let bytes = keys[&of].to_bytes();
    C::scalar(bytes.last_chunk().unwrap()).unwrap()
}

/// The point that these participants' shares interpolate to.
fn interpolated<C: Curve>(keys: &Keys, holders: &[u16]) -> [u8; 33] {
    let mut secret = C::Scalar::ZERO;
    for i in holders {
        let mut term = share::<C>(keys, p(*i));
        for j in holders.iter().filter(|j| *j != i) {
            let [i, j] = [*i, *j].map(|index| C::Scalar::from_u128(u128::from(index)));
            term *= j * (j - i).invert().unwrap();
        }
        secret += term;
    }
    C::encode(&C::base(&secret))
}

fn assert_is_a_shared_key<C: Curve>(threshold: u16, n: u16, seed: u64) {
    let mut rng = rng(seed);
    let keys = generate(C::ID, threshold, n, &mut rng);
    let first = &keys[&p(1)];
    for (me, key) in &keys {
        assert_eq!((key.me(), key.curve()), (*me, C::ID));
        assert_eq!(
            (key.threshold(), key.participants().len()),
            (threshold, usize::from(n))
        );
        assert_eq!(key.public_key(), first.public_key());
        assert_eq!(key.chain_code(), first.chain_code());
        assert_eq!(
            key.public_key_package_digest(),
            first.public_key_package_digest()
        );
    }
    let mut holders: Vec<u16> = (1..=n).collect();
    for i in (1..holders.len()).rev() {
        holders.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
    let (enough, too_few) = (usize::from(threshold), usize::from(threshold) - 1);
    assert_eq!(
        interpolated::<C>(&keys, &holders[..enough]),
        first.public_key()
    );
    assert_ne!(
        interpolated::<C>(&keys, &holders[..too_few]),
        first.public_key()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_threshold_of_any_number_shares_a_key(seed: u64, n in 2u16..=16, t in 0u16..16) {
        let threshold = 2 + t % (n - 1);
        assert_is_a_shared_key::<Secp256k1>(threshold, n, seed);
    }
}

#[test]
fn keys_of_the_largest_group_are_shared() {
    for threshold in [2, 16] {
        assert_is_a_shared_key::<Secp256k1>(threshold, 16, 11);
    }
    assert_is_a_shared_key::<P256>(3, 5, 12);
}

/// What one participant contributes changes key and chain code.
#[test]
fn everyone_contributes_to_key_and_chain_code() {
    let base = generate(CurveId::Secp256k1, 2, 3, &mut rng(13));
    for changed in 1..=3 {
        let mut all = dkg_starts(CurveId::Secp256k1, &set([1, 2, 3]), 2, &mut rng(13));
        let mut others = rng(14);
        let session = session(&mut rng(13));
        let params = arca_threshold::ecdsa::DkgParams {
            curve: CurveId::Secp256k1,
            session,
            context: [9; 32],
            me: p(changed),
            participants: set([1, 2, 3]),
            threshold: 2,
        };
        let (protocol, outbox) = arca_threshold::ecdsa::dkg(params, &mut others).unwrap();
        all[usize::from(changed) - 1] = (p(changed), protocol, outbox);
        for outcome in run(all, &mut rng(15)).values() {
            let key = outcome.as_ref().unwrap();
            assert_ne!(key.public_key(), base[&p(1)].public_key());
            assert_ne!(key.chain_code(), base[&p(1)].chain_code());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let both = [7, 7, 8].map(|seed| {
        let mut rng = rng(seed);
        let (keys, setups) = cluster(CurveId::Secp256k1, 2, 2, seed);
        let messages: Vec<Signable> = messages(&keys, 2);
        let params = signing_params(&set([1, 2]), p(1), &messages, &mut rng);
        let outcomes = run(sign_starts(&keys, &setups, &params, &mut rng), &mut rng);
        coordinators(&outcomes, p(1)).to_vec()
    });
    assert_eq!(both[0], both[1]);
    assert_ne!(both[0], both[2]);
}
