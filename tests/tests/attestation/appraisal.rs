//! Steps 6 to 10, one broken thing at a time: time, signature, measurements, what the evidence is bound to.

use arca_attestation::{
    ArchiveExpected, CertificateFault, Error, Expectation, Expected, LIVE_SKEW, ReferenceValues,
    TrustClass, UnixMillis, verify_archive, verify_live,
};
use ciborium::Value;

use crate::forge::{
    EXPECTED, EXPECTED_OF_ARCHIVE, Forge, MEASUREMENTS, NONCE, NOW, PUBLIC_KEY, USER_DATA, bytes,
    certificate, encode, pcr_map, refused_document, validity,
};

fn refused_expectation(expected: Expected<'_>) -> Error {
    let forge = Forge::new();
    verify_live(&forge.document(), &forge.anchors(), &expected, NOW).expect_err("verified")
}

#[test]
fn an_honest_document_verifies_and_says_what_it_says() {
    let forge = Forge::new();
    let evidence = forge.verify().unwrap();
    assert_eq!(evidence.class(), TrustClass::Simulated);
    assert_eq!(evidence.measurements(), Some(&MEASUREMENTS));
    assert_eq!(evidence.token(), None);
    assert_eq!(evidence.nonce(), Some(NONCE));
    assert_eq!(evidence.user_data(), Some(USER_DATA));
    assert_eq!(evidence.public_key(), Some(PUBLIC_KEY));
    assert_eq!(evidence.timestamp(), NOW);
    assert_eq!(evidence.pcrs().unwrap().len(), 16);
    assert_eq!(
        evidence.module_id(),
        Some("i-0123456789abcdef0-enc0123456789abcdef")
    );
    let archived =
        verify_archive(&forge.document(), &forge.anchors(), &EXPECTED_OF_ARCHIVE).unwrap();
    assert_eq!(archived.digest(), evidence.digest());
}

#[test]
fn the_path_ends_with_its_first_certificate_to_expire() {
    let mut forge = Forge::new();
    forge.path[2].tbs.validity = validity(NOW, -60, 60);
    assert_eq!(
        forge.verify().unwrap().not_after(),
        UnixMillis(NOW.0 + 60_000)
    );
}

// Step 6: time.

#[test]
fn live_evidence_is_neither_old_nor_from_the_future() {
    let forge = Forge::new();
    let at = |now| {
        verify_live(
            &forge.document(),
            &forge.anchors(),
            &EXPECTED,
            UnixMillis(now),
        )
    };
    at(NOW.0 + LIVE_SKEW).unwrap();
    at(NOW.0 - LIVE_SKEW).unwrap();
    let by_ms = LIVE_SKEW + 1;
    assert_eq!(at(NOW.0 + by_ms).unwrap_err(), Error::TooOld { by_ms });
    assert_eq!(
        at(NOW.0 - by_ms).unwrap_err(),
        Error::FromTheFuture { by_ms }
    );
}

#[test]
fn live_certificates_are_judged_by_the_verifier_and_archived_ones_by_the_document() {
    let mut forge = Forge::new();
    forge.path[3].tbs.validity = validity(NOW, -60, 60);
    let later = UnixMillis(NOW.0 + 61_000);
    let (document, anchors) = (forge.document(), forge.anchors());
    let error = verify_live(&document, &anchors, &EXPECTED, later).unwrap_err();
    assert_eq!(error, certificate(3, CertificateFault::Expired));
    verify_archive(&document, &anchors, &EXPECTED_OF_ARCHIVE).unwrap();

    forge.set("timestamp", Value::from(later.0));
    let error = verify_archive(&forge.document(), &anchors, &EXPECTED_OF_ARCHIVE).unwrap_err();
    assert_eq!(error, certificate(3, CertificateFault::Expired));
}

#[test]
fn times_at_the_end_of_the_scale_are_refused() {
    let forge = Forge::new();
    for now in [0, u64::MAX] {
        assert!(
            verify_live(
                &forge.document(),
                &forge.anchors(),
                &EXPECTED,
                UnixMillis(now)
            )
            .is_err()
        );
    }
    let error = Forge::refusal(|forge| forge.set("timestamp", Value::from(u64::MAX)));
    assert_eq!(
        error,
        Error::FromTheFuture {
            by_ms: u64::MAX - NOW.0
        }
    );
}

// Step 7: signature.

#[test]
fn a_document_signed_by_another_key_is_refused() {
    // The issuer's own key is not the leaf's either.
    for position in 0..3 {
        let error = Forge::refusal(|forge| forge.signer = Some(forge.path[position].key.clone()));
        assert_eq!(error, Error::Signature);
    }
}

#[test]
fn a_signature_over_another_payload_or_header_is_refused() {
    let forge = Forge::new();
    let mut other = Forge::new();
    other.set("nonce", bytes(&[9; 32]));
    let mut envelope = forge.envelope(forge.payload());
    envelope[3] = other.envelope(other.payload())[3].clone();
    assert_eq!(
        refused_document(&encode(&Value::Array(envelope.into()), false)),
        Error::Signature
    );

    // The same header in another encoding was not signed.
    let mut envelope = forge.envelope(forge.payload());
    envelope[0] = bytes(&[0xbf, 0x01, 0x38, 0x22, 0xff]);
    assert_eq!(
        refused_document(&encode(&Value::Array(envelope.into()), false)),
        Error::Signature
    );
}

#[test]
fn signatures_out_of_range_are_refused() {
    let forge = Forge::new();
    let mut envelope = forge.envelope(forge.payload());
    for byte in [0, 0xff] {
        envelope[3] = bytes(&[byte; 96]);
        assert_eq!(
            refused_document(&encode(&Value::Array(envelope.to_vec()), false)),
            Error::Signature
        );
    }
}

// Steps 8 and 9: measurements.

#[test]
fn debug_mode_is_refused_whatever_is_expected() {
    for zero in 0..3 {
        let mut forge = Forge::new();
        let pcr = |index: usize| {
            if index == zero {
                [0; 48]
            } else {
                [u8::try_from(index).unwrap() + 1; 48]
            }
        };
        forge.set("pcrs", pcr_map((0..3).map(|index| (index, pcr(index)))));
        let reported = arca_attestation::Measurements {
            pcr0: pcr(0),
            pcr1: pcr(1),
            pcr2: pcr(2),
        };
        for measurements in [vec![reported], vec![]] {
            let expected = Expected {
                reference: &ReferenceValues::Simulated(measurements),
                ..*EXPECTED
            };
            let error =
                verify_live(&forge.document(), &forge.anchors(), &expected, NOW).unwrap_err();
            assert_eq!(error, Error::DebugMode);
        }
    }
}

#[test]
fn pcrs_0_to_2_are_demanded() {
    for missing in 0..3u8 {
        let present = (0..3).filter(|index| *index != usize::from(missing));
        let pcrs = pcr_map(present.map(|index| (index, [1u8; 48])));
        let error = Forge::refusal(|forge| forge.set("pcrs", pcrs));
        assert_eq!(error, Error::MissingPcr { index: missing });
    }
}

#[test]
fn without_reference_values_nothing_verifies() {
    assert_eq!(
        refused_expectation(Expected {
            reference: &ReferenceValues::Simulated(Vec::new()),
            ..*EXPECTED
        }),
        Error::NoReferenceValues
    );
    let forge = Forge::new();
    let expected = ArchiveExpected {
        reference: &ReferenceValues::Simulated(Vec::new()),
        ..*EXPECTED_OF_ARCHIVE
    };
    let error = verify_archive(&forge.document(), &forge.anchors(), &expected).unwrap_err();
    assert_eq!(error, Error::NoReferenceValues);
}

#[test]
fn one_reference_value_has_to_match_in_all_three_pcrs() {
    let mut near = [MEASUREMENTS; 3];
    near[0].pcr0[47] ^= 1;
    near[1].pcr1[47] ^= 1;
    near[2].pcr2[47] ^= 1;
    let error = refused_expectation(Expected {
        reference: &ReferenceValues::Simulated(near.into()),
        ..*EXPECTED
    });
    assert_eq!(error, Error::Measurements { references: 3 });

    let forge = Forge::new();
    let with_the_right_one = ReferenceValues::Simulated(vec![near[0], near[1], MEASUREMENTS]);
    let expected = Expected {
        reference: &with_the_right_one,
        ..*EXPECTED
    };
    verify_live(&forge.document(), &forge.anchors(), &expected, NOW).unwrap();
}

// Step 10: what the evidence is bound to.

#[test]
fn every_bound_value_is_compared() {
    let other = [0x44; 48];
    assert_eq!(
        refused_expectation(Expected {
            nonce: &other,
            ..*EXPECTED
        }),
        Error::NonceMismatch
    );
    assert_eq!(
        refused_expectation(Expected {
            nonce: &NONCE[..31],
            ..*EXPECTED
        }),
        Error::NonceMismatch
    );
    assert_eq!(
        refused_expectation(Expected {
            public_key: &other,
            ..*EXPECTED
        }),
        Error::PublicKeyMismatch
    );
    assert_eq!(
        refused_expectation(Expected {
            user_data: &other,
            ..*EXPECTED
        }),
        Error::UserDataMismatch
    );

    let forge = Forge::new();
    let other = Expectation::Equals(&other);
    let refused =
        |expected| verify_archive(&forge.document(), &forge.anchors(), &expected).unwrap_err();
    assert_eq!(
        refused(ArchiveExpected {
            nonce: other,
            ..*EXPECTED_OF_ARCHIVE
        }),
        Error::NonceMismatch
    );
    assert_eq!(
        refused(ArchiveExpected {
            public_key: other,
            ..*EXPECTED_OF_ARCHIVE
        }),
        Error::PublicKeyMismatch
    );
    assert_eq!(
        refused(ArchiveExpected {
            user_data: other,
            ..*EXPECTED_OF_ARCHIVE
        }),
        Error::UserDataMismatch
    );
}

#[test]
fn an_empty_expectation_refuses_instead_of_matching_an_empty_field() {
    for field in ["nonce", "public_key", "user_data"] {
        let mut forge = Forge::new();
        forge.set(field, bytes(b""));
        let mut expected = *EXPECTED;
        match field {
            "nonce" => expected.nonce = b"",
            "public_key" => expected.public_key = b"",
            _ => expected.user_data = b"",
        }
        let error = verify_live(&forge.document(), &forge.anchors(), &expected, NOW).unwrap_err();
        assert_eq!(error, Error::MissingExpectation { field });
    }
    let forge = Forge::new();
    let expected = ArchiveExpected {
        nonce: Expectation::Equals(b""),
        ..*EXPECTED_OF_ARCHIVE
    };
    let error = verify_archive(&forge.document(), &forge.anchors(), &expected).unwrap_err();
    assert_eq!(error, Error::MissingExpectation { field: "nonce" });
}

#[test]
fn a_live_nonce_has_16_bytes_at_least() {
    let mut forge = Forge::new();
    let short = [5; 15];
    forge.set("nonce", bytes(&short));
    let expected = Expected {
        nonce: &short,
        ..*EXPECTED
    };
    let error = verify_live(&forge.document(), &forge.anchors(), &expected, NOW).unwrap_err();
    assert_eq!(error, Error::MissingExpectation { field: "nonce" });
}
