//! Steps 4 to 10 of evidence of HSMs: path, identity, signature, time, what it is bound to.

use arca_attestation::{
    CertificateFault, Error, Expectation, Expected, LIVE_SKEW, ReferenceValues, TrustAnchors,
    TrustClass, UnixMillis, verify_archive, verify_live,
};
use ciborium::Value;
use der::oid::AssociatedOid as _;
use p384::ecdsa::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

use super::hsm_forge::{HsmForge, of_archive, roots, verify};
use crate::forge::{
    self, NONCE, NOW, USER_DATA, basic_constraints, bytes, certificate, key_usage, spki, validity,
};

// Steps 4 and 5: the path.

#[test]
fn the_path_leads_to_one_of_the_given_roots() {
    let (ours, theirs) = (HsmForge::new(), HsmForge::of(8));
    let class = TrustClass::Hsm;
    let reference = roots(&theirs.root_der());
    let verdict = verify(&ours.document(), &reference, &ours.identity(), NOW);
    assert_eq!(verdict.unwrap_err(), Error::UntrustedRoot { class });

    let both = ReferenceValues::Hsm(vec![theirs.root_der(), ours.root_der()]);
    for forge in [&ours, &theirs] {
        verify(&forge.document(), &both, &forge.identity(), NOW).unwrap();
    }
    // The trusted root in front of somebody else's authorities.
    let mut mixed = HsmForge::of(8);
    let mut bundle: Vec<_> = theirs
        .certificates()
        .into_iter()
        .map(Value::Bytes)
        .collect();
    bundle.pop();
    bundle[0] = Value::Bytes(ours.root_der());
    mixed.set("cabundle", Value::Array(bundle));
    let verdict = verify(
        &mixed.document(),
        &roots(&ours.root_der()),
        &mixed.identity(),
        NOW,
    );
    assert_eq!(
        verdict.unwrap_err(),
        certificate(1, CertificateFault::Signature)
    );
}

#[test]
fn without_roots_nothing_verifies() {
    let forge = HsmForge::new();
    let (none, identity) = (ReferenceValues::Hsm(Vec::new()), forge.identity());
    let live = verify(&forge.document(), &none, &identity, NOW);
    assert_eq!(live.unwrap_err(), Error::NoHsmRoots);
    let expected = of_archive(&none, &identity);
    let archived = verify_archive(&forge.document(), &TrustAnchors::production(), &expected);
    assert_eq!(archived.unwrap_err(), Error::NoHsmRoots);
}

#[test]
fn every_certificate_is_valid_when_it_is_judged() {
    for position in 0..4 {
        for (from, to, fault) in [
            (1, 60, CertificateFault::NotYetValid),
            (-60, -1, CertificateFault::Expired),
        ] {
            let mut forge = HsmForge::new();
            forge.path[position].tbs.validity = validity(NOW, from, to);
            let error = certificate(position, fault);
            assert_eq!(forge.verify().unwrap_err(), error);
            // Of an archive: at the document's own time, which is the same here.
            let (roots, identity) = (roots(&forge.root_der()), forge.identity());
            let expected = of_archive(&roots, &identity);
            let archived = verify_archive(&forge.document(), &TrustAnchors::hsm_only(), &expected);
            assert_eq!(archived.unwrap_err(), error);
        }
    }
    // Years later the archive's verifier still says that it was true.
    let forge = HsmForge::new();
    let later = UnixMillis(NOW.0 + 365 * 24 * 3_600_000);
    let error = forge.verify_at(later).unwrap_err();
    assert_eq!(error, certificate(0, CertificateFault::Expired));
    let (roots, identity) = (roots(&forge.root_der()), forge.identity());
    let expected = of_archive(&roots, &identity);
    verify_archive(&forge.document(), &TrustAnchors::hsm_only(), &expected).unwrap();
}

#[test]
fn authorities_issue_and_the_leaf_signs() {
    for position in 0..3 {
        let error = HsmForge::refusal(|forge| {
            forge.path[position].set_extension(BasicConstraints::OID, None);
        });
        assert_eq!(
            error,
            certificate(position, CertificateFault::NotAnAuthority)
        );
        let error =
            HsmForge::refusal(|forge| forge.path[position].set_extension(KeyUsage::OID, None));
        assert_eq!(error, certificate(position, CertificateFault::KeyUsage));
    }
    let too_short = BasicConstraints {
        ca: true,
        path_len_constraint: Some(1),
    };
    let error = HsmForge::refusal(|forge| {
        forge.path[0].set_extension(BasicConstraints::OID, Some(basic_constraints(too_short)));
    });
    assert_eq!(error, certificate(0, CertificateFault::PathLength));
    let authority = BasicConstraints {
        ca: true,
        path_len_constraint: None,
    };
    let error = HsmForge::refusal(|forge| {
        forge.path[3].set_extension(BasicConstraints::OID, Some(basic_constraints(authority)));
    });
    assert_eq!(error, certificate(3, CertificateFault::LeafIsAuthority));
    let agreement = key_usage(KeyUsages::KeyAgreement.into());
    let error = HsmForge::refusal(|forge| {
        forge.path[3].set_extension(KeyUsage::OID, Some(agreement));
    });
    assert_eq!(error, certificate(3, CertificateFault::KeyUsage));
}

#[test]
fn certificates_are_for_p384_and_signed_with_sha384() {
    let p256 = p256::SecretKey::from_slice(&[7; 32]).unwrap().public_key();
    let p256 = ::spki::SubjectPublicKeyInfoOwned::from_key(p256).unwrap();
    let error = HsmForge::refusal(|forge| forge.path[3].tbs.subject_public_key_info = p256);
    assert_eq!(error, certificate(3, CertificateFault::Key));
    let sha256 = forge::algorithm("1.2.840.10045.4.3.2", None);
    let error = HsmForge::refusal(|forge| {
        forge.path[3].tbs.signature = sha256.clone();
        forge.path[3].algorithm = sha256;
    });
    assert_eq!(error, certificate(3, CertificateFault::Algorithm));
}

// The identity: one key in the certificate, in the statement, and under the signature.

#[test]
fn the_identity_is_the_certified_key() {
    let other = SigningKey::random(&mut ChaCha20Rng::seed_from_u64(9));
    // Somebody who holds a certificate speaks for another key: signed by either of the two.
    for signer in [None, Some(other.clone())] {
        let mut forge = HsmForge::new();
        forge.set("public_key", Value::Bytes(spki(&other)));
        forge.signer = signer;
        let roots = roots(&forge.root_der());
        let verdict = verify(&forge.document(), &roots, &spki(&other), NOW);
        assert_eq!(verdict.unwrap_err(), Error::OtherKeyThanCertified);
    }
    // The same key in another encoding: compressed.
    let key = HsmForge::new().path.remove(3).key;
    let point = key.verifying_key().to_encoded_point(true);
    let mut compressed = HsmForge::new().identity();
    compressed.truncate(compressed.len() - 97);
    let length_at = compressed.len() - 2;
    compressed[1] -= 48;
    compressed[length_at] -= 48;
    compressed.extend_from_slice(point.as_bytes());
    use p384::pkcs8::DecodePublicKey as _;
    let decoded = p384::PublicKey::from_public_key_der(&compressed).unwrap();
    assert_eq!(decoded, key.verifying_key().into());
    let error = HsmForge::refusal(|forge| forge.set("public_key", Value::Bytes(compressed)));
    assert_eq!(error, Error::OtherKeyThanCertified);
}

#[test]
fn the_certified_key_signs() {
    let other = SigningKey::random(&mut ChaCha20Rng::seed_from_u64(9));
    let error = HsmForge::refusal(|forge| forge.signer = Some(other));
    assert_eq!(error, Error::Signature);
    // An authority of the path is not the leaf.
    let zone = HsmForge::new().path.remove(2).key;
    let error = HsmForge::refusal(|forge| forge.signer = Some(zone));
    assert_eq!(error, Error::Signature);
}

#[test]
fn the_domain_tag_is_part_of_what_is_signed() {
    for aad in [&b""[..], b"arca/v1/hsm-evidenc", b"arca/v2/hsm-evidence"] {
        let error = HsmForge::refusal(|forge| forge.external_aad = aad.to_vec());
        assert_eq!(error, Error::Signature);
    }
}

// Step 6: time.

#[test]
fn live_evidence_is_minutes_old_at_most() {
    let mut forge = HsmForge::new();
    forge
        .path
        .iter_mut()
        .for_each(|certificate| certificate.tbs.validity = validity(NOW, -7200, 7200));
    let at = |offset: i64| {
        let now = UnixMillis(NOW.0.checked_add_signed(offset).unwrap());
        forge.verify_at(now).map(|_| ())
    };
    let skew = i64::try_from(LIVE_SKEW).unwrap();
    assert_eq!(at(skew), Ok(()));
    assert_eq!(at(-skew), Ok(()));
    let by_ms = LIVE_SKEW + 1;
    assert_eq!(at(skew + 1), Err(Error::TooOld { by_ms }));
    assert_eq!(at(-skew - 1), Err(Error::FromTheFuture { by_ms }));
}

#[test]
fn it_is_good_for_as_long_as_the_whole_path() {
    for position in 0..4 {
        let mut forge = HsmForge::new();
        forge.path[position].tbs.validity = validity(NOW, -60, 600);
        let evidence = forge.verify().unwrap();
        assert_eq!(evidence.not_after(), UnixMillis(NOW.0 + 600_000));
    }
}

// Step 10: what it is bound to.

#[test]
fn nonce_key_and_user_data_are_compared() {
    let forge = HsmForge::new();
    let (roots, identity) = (roots(&forge.root_der()), forge.identity());
    let honest = Expected {
        reference: &roots,
        nonce: NONCE,
        public_key: &identity,
        user_data: USER_DATA,
    };
    let refused = |expected: Expected<'_>| {
        let anchors = TrustAnchors::production();
        verify_live(&forge.document(), &anchors, &expected, NOW).unwrap_err()
    };
    let other = HsmForge::of(8).identity();
    let cases = [
        (
            Expected {
                nonce: &[9; 32],
                ..honest
            },
            Error::NonceMismatch,
        ),
        (
            Expected {
                nonce: &NONCE[..15],
                ..honest
            },
            Error::MissingExpectation { field: "nonce" },
        ),
        (
            Expected {
                public_key: &other,
                ..honest
            },
            Error::PublicKeyMismatch,
        ),
        (
            Expected {
                public_key: &[],
                ..honest
            },
            Error::MissingExpectation {
                field: "public_key",
            },
        ),
        (
            Expected {
                user_data: &[9; 48],
                ..honest
            },
            Error::UserDataMismatch,
        ),
        (
            Expected {
                user_data: &[],
                ..honest
            },
            Error::MissingExpectation { field: "user_data" },
        ),
    ];
    for (expected, error) in cases {
        assert_eq!(refused(expected), error);
    }
    let error = HsmForge::refusal(|forge| forge.set("nonce", bytes(b"")));
    assert_eq!(error, Error::NonceMissing);

    let whatever = arca_attestation::ArchiveExpected {
        nonce: Expectation::NotCompared,
        public_key: Expectation::NotCompared,
        user_data: Expectation::NotCompared,
        ..of_archive(&roots, &identity)
    };
    verify_archive(&forge.document(), &TrustAnchors::hsm_only(), &whatever).unwrap();
    let other = arca_attestation::ArchiveExpected {
        user_data: Expectation::Equals(b"other"),
        ..whatever
    };
    let archived = verify_archive(&forge.document(), &TrustAnchors::hsm_only(), &other);
    assert_eq!(archived.unwrap_err(), Error::UserDataMismatch);
}
