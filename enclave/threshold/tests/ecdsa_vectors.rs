//! The verifier against Wycheproof's vectors.

// A panic is how a test fails.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use arca_threshold::ecdsa::{CurveId, verify};
use sha2::{Digest as _, Sha256};
use wycheproof::TestResult;
use wycheproof::ecdsa::{TestName, TestSet};

/// `r` and `s` in 32 bytes each; other lengths do not get as far as the verifier.
fn verifies(curve: CurveId, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = match curve {
        CurveId::Secp256k1 => {
            use k256::elliptic_curve::sec1::ToEncodedPoint as _;
            let key = k256::PublicKey::from_sec1_bytes(key).unwrap();
            key.to_encoded_point(true).as_bytes().to_vec()
        }
        CurveId::P256 => {
            use p256::elliptic_curve::sec1::ToEncodedPoint as _;
            let key = p256::PublicKey::from_sec1_bytes(key).unwrap();
            key.to_encoded_point(true).as_bytes().to_vec()
        }
    };
    let digest = Sha256::digest(message).into();
    let (parts, rest) = signature.as_chunks::<32>();
    match parts {
        [r, s] if rest.is_empty() => verify(curve, &key.try_into().unwrap(), &digest, r, s).is_ok(),
        _ => false,
    }
}

#[test]
fn wycheproof_vectors_are_judged_as_published() {
    for (curve, name) in [
        (CurveId::Secp256k1, TestName::EcdsaSecp256k1Sha256P1363),
        (CurveId::P256, TestName::EcdsaSecp256r1Sha256P1363),
    ] {
        let mut judged = [0, 0];
        for group in TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let valid = verifies(curve, &group.key.key, &test.msg, &test.sig);
                match test.result {
                    TestResult::Valid => assert!(valid, "test {}: {}", test.tc_id, test.comment),
                    TestResult::Invalid => assert!(!valid, "test {}: {}", test.tc_id, test.comment),
                    TestResult::Acceptable => {}
                }
                judged[usize::from(valid)] += 1;
            }
        }
        assert!(judged.iter().all(|count| *count > 50), "{judged:?}");
    }
}
