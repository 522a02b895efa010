//! Evidence of HSMs.
//!
//! - `format`, `appraisal`: one broken thing at a time, in the order of the verifier's steps.
//! - `meeting`: where it meets an NSM's documents.

mod appraisal;
mod format;
mod hsm_forge;
mod meeting;

use arca_attestation::hsm::{self, Token};
use arca_attestation::{
    Error, Expected, TrustAnchors, TrustClass, UnixMillis, inspect, verify_archive, verify_live,
};
use ciborium::Value;
use p384::ecdsa::signature::Signer as _;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::forge::{Forge, NONCE, NOW, USER_DATA};
use hsm_forge::{HsmForge, of_archive, roots, verify};

#[test]
fn honest_evidence_verifies_and_says_what_it_says() {
    let forge = HsmForge::new();
    let evidence = forge.verify().unwrap();
    assert_eq!(evidence.class(), TrustClass::Hsm);
    assert_eq!(evidence.measurements(), None);
    assert_eq!(evidence.pcrs(), None);
    assert_eq!(evidence.module_id(), None);
    assert_eq!(evidence.token().unwrap().serial(), "0123456789abcdef");
    assert_eq!(
        evidence.token().unwrap().to_string(),
        "Example Secure Modules Vault 7, serial 0123456789abcdef, firmware 7.8.4"
    );
    assert_eq!(evidence.timestamp(), NOW);
    // The leaf of the forge is the first to expire, an hour from now.
    assert_eq!(evidence.not_after(), UnixMillis(NOW.0 + 3_600_000));
    assert_eq!(evidence.public_key(), Some(&forge.identity()[..]));
    assert_eq!(evidence.user_data(), Some(USER_DATA));
    assert_eq!(evidence.nonce(), Some(NONCE));

    let (roots, identity) = (roots(&forge.root_der()), forge.identity());
    let expected = of_archive(&roots, &identity);
    for anchors in [TrustAnchors::hsm_only(), TrustAnchors::production()] {
        let archived = verify_archive(&forge.document(), &anchors, &expected).unwrap();
        assert_eq!(archived.class(), TrustClass::Hsm);
        assert_eq!(archived.digest(), evidence.digest());
    }
}

/// What the fuzzer begins with is this forge's honest evidence.
#[test]
fn the_fuzzers_seed_is_honest_evidence() {
    let seed = include_bytes!("../../../fuzz/seeds/hsm_evidence/honest.cose");
    assert_eq!(seed[..], HsmForge::new().document());
}

/// Two encoders that know nothing of each other.
#[test]
fn the_crate_writes_what_the_format_says() {
    let forge = HsmForge::new();
    let (identity, path) = (forge.identity(), forge.certificates());
    let payload = forge.statement(&identity, &path).payload().unwrap();
    assert_eq!(payload, forge.payload());
    assert_eq!(hsm::to_sign(&payload), forge.signed(&payload));
    let key = &forge.path[3].key;
    let signature: p384::ecdsa::Signature = key.sign(&hsm::to_sign(&payload));
    let document = hsm::document(
        &payload,
        &<[u8; 96]>::try_from(&signature.to_bytes()[..]).unwrap(),
    );
    assert_eq!(document, forge.document());
}

// Display.

#[test]
fn it_can_be_looked_at_unverified() {
    let forge = HsmForge::new();
    let inspection = inspect(&forge.document()).unwrap();
    assert_eq!(inspection.claimed_token.unwrap().model(), "Vault 7");
    assert_eq!(inspection.claimed_module_id, None);
    assert!(inspection.claimed_pcrs.is_empty());
    assert_eq!(inspection.claimed_public_key, Some(forge.identity()));
    assert_eq!(inspection.claimed_path, forge.certificates());
    assert_eq!(inspection.claimed_timestamp, NOW);
    assert_eq!(inspection.claimed_nonce.as_deref(), Some(NONCE));
    assert_eq!(inspection.claimed_user_data.as_deref(), Some(USER_DATA));
    assert_eq!(
        inspect(&Forge::new().document()).unwrap().claimed_token,
        None
    );

    // What is wrong is said of the format that it is in.
    let mut broken = HsmForge::new();
    broken.set("timestamp", Value::from(0));
    assert_eq!(inspect(&broken.document()).unwrap_err(), Error::Timestamp);
    let mut broken = Forge::new();
    broken.remove("digest");
    assert_eq!(
        inspect(&broken.document()).unwrap_err(),
        Error::MissingField { field: "digest" }
    );
}

// Damage.

#[test]
fn evidence_damaged_anywhere_is_refused() {
    let forge = HsmForge::new();
    let (document, reference, identity) =
        (forge.document(), roots(&forge.root_der()), forge.identity());
    for position in (0..document.len()).step_by(19) {
        let mut damaged = document.clone();
        damaged[position] ^= 1 << (position % 8);
        assert!(
            verify(&damaged, &reference, &identity, NOW).is_err(),
            "at {position}"
        );
    }
    for length in (0..document.len()).step_by(37) {
        assert!(verify(&document[..length], &reference, &identity, NOW).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_the_format_allows_comes_out_as_it_went_in(
        nonce in vec(any::<u8>(), 16..=512),
        user_data in vec(any::<u8>(), 1..=512),
        texts in vec("[ -~]{0,64}", 4),
    ) {
        let forge = HsmForge::new();
        let (identity, path) = (forge.identity(), forge.certificates());
        let [manufacturer, model, serial, firmware] = &texts[..] else { unreachable!() };
        let statement = hsm::Statement {
            token: Token::new(manufacturer, model, serial, firmware),
            nonce: &nonce,
            user_data: &user_data,
            ..forge.statement(&identity, &path)
        };
        let payload = statement.payload().unwrap();
        let signature: p384::ecdsa::Signature = forge.path[3].key.sign(&hsm::to_sign(&payload));
        let document = hsm::document(&payload, &<[u8; 96]>::try_from(&signature.to_bytes()[..]).unwrap());
        let expected = Expected {
            reference: &roots(&forge.root_der()),
            nonce: &nonce,
            public_key: &identity,
            user_data: &user_data,
        };
        let evidence = verify_live(&document, &TrustAnchors::hsm_only(), &expected, NOW).unwrap();
        prop_assert_eq!(evidence.nonce(), Some(&nonce[..]));
        prop_assert_eq!(evidence.user_data(), Some(&user_data[..]));
        prop_assert_eq!(evidence.token(), Some(&statement.token));
    }
}
