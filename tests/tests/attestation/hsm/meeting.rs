//! Where evidence of HSMs meets an NSM's documents. One authority stands behind both here, which no organisation
//! should do.

use arca_attestation::{
    CborFault, Error, Expected, ReferenceValues, TrustAnchors, TrustClass, verify_live,
};
use ciborium::Value;

use super::hsm_forge::{EXTERNAL_AAD, HsmForge, roots, verify};
use crate::forge::{self, Forge, MEASUREMENTS, NONCE, NOW, USER_DATA, bytes, encode, spki};

#[test]
fn evidence_of_an_hsm_is_none_of_an_nsm() {
    let forge = HsmForge::new();
    let identity = forge.identity();
    let simulated = TrustAnchors::simulated(&forge.root_der()).unwrap();
    let as_simulated = ReferenceValues::Simulated(vec![MEASUREMENTS]);
    let expected = Expected {
        reference: &as_simulated,
        nonce: NONCE,
        public_key: &identity,
        user_data: USER_DATA,
    };
    for document in [forge.document(), {
        let mut forge = HsmForge::new();
        forge.external_aad.clear();
        forge.document()
    }] {
        let verdict = verify_live(&document, &simulated, &expected, NOW);
        assert_eq!(
            verdict.unwrap_err(),
            Error::MissingField { field: "module_id" }
        );
        let as_nitro = ReferenceValues::Nitro(vec![MEASUREMENTS]);
        let expected = Expected {
            reference: &as_nitro,
            ..expected
        };
        let verdict = verify_live(&document, &TrustAnchors::production(), &expected, NOW);
        assert_eq!(
            verdict.unwrap_err(),
            Error::MissingField { field: "module_id" }
        );
    }
}

/// An HSM's process signs an NSM's payload with its certified key, domain tag and all: no verifier of NSMs takes it.
#[test]
fn an_hsm_cannot_speak_for_an_nsm() {
    let nsm = Forge::new();
    let forge = HsmForge::new();
    let simulated = nsm.anchors();
    let payload = nsm.payload();
    assert_eq!(nsm.root_der(), forge.root_der());
    let document = forge.document_of(&payload);
    let verdict = verify_live(&document, &simulated, &forge::EXPECTED, NOW);
    assert_eq!(verdict.unwrap_err(), Error::Signature);
    assert_eq!(forge.external_aad, EXTERNAL_AAD);
    // The roots of HSMs are none of an NSM's either.
    let mut untagged = HsmForge::of(8);
    untagged.external_aad.clear();
    let document = untagged.document_of(&{
        let mut nsm = Forge::new();
        nsm.path = Forge::seeded(8).path;
        nsm.payload()
    });
    let class = TrustClass::Simulated;
    let verdict = verify_live(&document, &simulated, &forge::EXPECTED, NOW);
    assert_eq!(verdict.unwrap_err(), Error::UntrustedRoot { class });
}

#[test]
fn evidence_of_an_nsm_is_none_of_an_hsm() {
    let nsm = Forge::new();
    let mut with_a_p384_key = Forge::new();
    let identity = spki(&nsm.path[3].key);
    with_a_p384_key.set("public_key", bytes(&identity));
    let reference = roots(&nsm.root_der());
    for forge in [&nsm, &with_a_p384_key] {
        let verdict = verify(&forge.document(), &reference, &identity, NOW);
        assert!(matches!(
            verdict.unwrap_err(),
            Error::Cbor {
                part: "payload",
                fault: CborFault::Key,
                ..
            }
        ));
    }
    // An NSM that signs the payload of an HSM: it cannot sign with the domain tag.
    let hsm = HsmForge::new();
    let mut signed = Forge::new();
    signed.signer = Some(nsm.path[3].key.clone());
    let document = encode(&Value::Array(signed.envelope(hsm.payload()).into()), false);
    let verdict = verify(&document, &reference, &hsm.identity(), NOW);
    assert_eq!(verdict.unwrap_err(), Error::Signature);
}

#[test]
fn the_roots_of_hsms_say_nothing_of_nsms_and_the_other_way_round() {
    let (nsm, hsm) = (Forge::new(), HsmForge::of(8));
    // With only the NSM's root as anchor, and the HSM's as a root of HSMs, each verifies as itself alone.
    let anchors = nsm.anchors();
    let reference = roots(&hsm.root_der());
    let identity = hsm.identity();
    let expected = Expected {
        reference: &reference,
        nonce: NONCE,
        public_key: &identity,
        user_data: USER_DATA,
    };
    verify_live(&hsm.document(), &anchors, &expected, NOW).unwrap();
    verify_live(&nsm.document(), &anchors, &forge::EXPECTED, NOW).unwrap();
    // The anchor is no root of HSMs.
    let ours = HsmForge::new();
    let identity = ours.identity();
    let expected = Expected {
        public_key: &identity,
        ..expected
    };
    let class = TrustClass::Hsm;
    let verdict = verify_live(&ours.document(), &anchors, &expected, NOW);
    assert_eq!(verdict.unwrap_err(), Error::UntrustedRoot { class });
}
