//! ECDSA key packages as bytes.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use arca_threshold::ecdsa::{CurveId, KeyPackage};
use arca_threshold::{Error, Reject};

use support::ecdsa::*;
use support::*;

// The layout that `KeyPackage::to_bytes` documents.
const CURVE: usize = 1;
const THRESHOLD: usize = 3;
const COUNT: usize = 5;
const KEY: usize = 6;
const CHAIN_CODE: std::ops::Range<usize> = 39..71;
const ENTRY: usize = 35;

/// Where the entry of the `i`-th participant starts, from 0.
fn entry(i: usize) -> usize {
    CHAIN_CODE.end + i * ENTRY
}

fn assert_refused(bytes: &[u8], what: &str) {
    let error = KeyPackage::from_bytes(bytes).map(|key| format!("{key:?}"));
    assert_eq!(error, Err(Error::Reject(Reject::KeyPackage)), "{what}");
}

#[test]
fn a_package_survives_its_bytes_and_signs() {
    let mut rng = rng(1);
    for curve in CURVES {
        let (keys, setups) = cluster(curve, 2, 3, 1);
        let again: Keys = keys
            .iter()
            .map(|(me, key)| {
                let read = KeyPackage::from_bytes(&key.to_bytes()).unwrap();
                assert_eq!(*read.to_bytes(), *key.to_bytes());
                assert_eq!((read.me(), read.curve()), (key.me(), key.curve()));
                assert_eq!(read.threshold(), key.threshold());
                assert_eq!(read.participants(), key.participants());
                assert_eq!(read.public_key(), key.public_key());
                assert_eq!(read.chain_code(), key.chain_code());
                let digest = KeyPackage::public_key_package_digest;
                assert_eq!(digest(&read), digest(key));
                (*me, read.into())
            })
            .collect();
        let messages = messages(&again, 2);
        let params = signing_params(&set([1, 3]), p(3), &messages, &mut rng);
        let outcomes = run(sign_starts(&again, &setups, &params, &mut rng), &mut rng);
        check(curve, &messages, coordinators(&outcomes, p(3)));
    }
}

#[test]
fn a_package_is_small() {
    let keys = generate(CurveId::Secp256k1, 2, 3, &mut rng(2));
    assert_eq!(keys[&p(1)].to_bytes().len(), 210);
    for key in generate(CurveId::Secp256k1, 16, 16, &mut rng(2)).values() {
        let bytes = key.to_bytes();
        assert!(bytes.len() < 700);
        assert_eq!(*KeyPackage::from_bytes(&bytes).unwrap().to_bytes(), *bytes);
    }
}

/// All but the chain code is bound together by the key itself; the chain code by the digest that the
/// participants compare.
#[test]
fn every_flipped_byte_is_refused_or_changes_the_digest() {
    for curve in CURVES {
        let keys = generate(curve, 2, 3, &mut rng(3));
        let key = &keys[&p(2)];
        for offset in 0..key.to_bytes().len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = key.to_bytes();
                bytes[offset] ^= flip;
                if CHAIN_CODE.contains(&offset) {
                    let read = KeyPackage::from_bytes(&bytes).unwrap();
                    let digest = KeyPackage::public_key_package_digest;
                    assert_ne!(digest(&read), digest(key));
                } else {
                    assert_refused(&bytes, &format!("offset {offset}, flip {flip:#x}"));
                }
            }
        }
    }
}

#[test]
fn every_other_length_is_refused() {
    let keys = generate(CurveId::P256, 2, 3, &mut rng(4));
    let bytes = keys[&p(2)].to_bytes();
    for len in 0..bytes.len() {
        assert_refused(&bytes[..len], &format!("{len} bytes"));
    }
    assert_refused(&[bytes.as_slice(), &[0]].concat(), "one byte more");
}

#[test]
fn a_package_of_another_threshold_or_count_is_refused() {
    let keys = generate(CurveId::Secp256k1, 3, 5, &mut rng(5));
    for wrong in [0, 1, 2, 4, 5, 6, 255] {
        let mut bytes = keys[&p(2)].to_bytes();
        bytes[THRESHOLD] = wrong;
        assert_refused(&bytes, &format!("threshold {wrong}"));
    }
    for wrong in [0, 1, 4, 6, 17, 255] {
        let mut bytes = keys[&p(2)].to_bytes();
        bytes[COUNT] = wrong;
        assert_refused(&bytes, &format!("{wrong} participants"));
    }
    for wrong in [0, 2, 3] {
        let mut bytes = keys[&p(2)].to_bytes();
        bytes[CURVE] = wrong;
        assert_refused(&bytes, &format!("curve {wrong}"));
    }
}

#[test]
fn packages_put_together_from_several_are_refused() {
    let mut rng = rng(6);
    for curve in CURVES {
        let (keys, others) = (
            generate(curve, 2, 3, &mut rng),
            generate(curve, 2, 3, &mut rng),
        );
        let mine = keys[&p(1)].to_bytes();
        let (me, share) = (entry(3), entry(3) + 2);
        let put = |range: std::ops::Range<usize>, from: &[u8]| {
            let mut forged = mine.to_vec();
            forged[range].copy_from_slice(from);
            forged
        };
        let forged = put(me..share, &2u16.to_be_bytes());
        assert_refused(&forged, "own share under another's index");
        for donor in [&keys[&p(2)], &others[&p(1)]] {
            let forged = put(share..mine.len(), &donor.to_bytes()[share..]);
            assert_refused(&forged, "another's share");
        }
        // A share and its verifying share that fit each other, but not the key.
        let other = others[&p(1)].to_bytes();
        let mut forged = put(entry(0)..entry(1), &other[entry(0)..entry(1)]);
        forged[share..].copy_from_slice(&other[share..]);
        assert_refused(&forged, "a share of another key");
        let forged = put(KEY..CHAIN_CODE.start, &other[KEY..CHAIN_CODE.start]);
        assert_refused(&forged, "another key above the shares");
        for order in [[1, 0, 2], [0, 2, 1], [0, 0, 1], [0, 1, 1]] {
            let entries = order
                .map(|i| mine[entry(i)..entry(i + 1)].to_vec())
                .concat();
            assert_refused(
                &put(entry(0)..entry(3), &entries),
                &format!("entries {order:?}"),
            );
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    let mut rng = rng(9);
    let (keys, setups) = cluster(CurveId::Secp256k1, 2, 3, 9);
    let key = &keys[&p(1)];
    let bytes = key.to_bytes();
    let share = &bytes[entry(3) + 2..];
    let shown = format!("{key:?}");
    assert!(shown.contains("threshold: 2"));
    for piece in [hex::encode(share), format!("{:?}", &share[..4])] {
        assert!(!shown.contains(piece.trim_matches(['[', ']'])), "{shown}");
    }
    for (_, protocol, outbox) in presign_starts(&keys, &setups, &set([1, 2]), 1, &mut rng) {
        assert!(format!("{protocol:?}").len() < 300);
        assert_eq!(format!("{outbox:?}").matches("Participant").count(), 1);
    }
    let pools = presign_all(&keys, &setups, &set([1, 2]), 1, &mut rng);
    let presignature = &pools[&p(1)][0];
    let shown = format!("{presignature:?}");
    assert!(shown.starts_with("Presignature { id: PresignatureId("));
    assert!(shown.len() < 200, "{shown}");
}
