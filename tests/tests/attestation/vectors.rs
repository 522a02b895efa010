//! Documents that AWS made. See `tests/vectors/attestation/README.md`.

use arca_attestation::{
    ArchiveExpected, CertificateFault, Error, Expectation, Expected, Measurements, ReferenceValues,
    TrustAnchors, TrustClass, UnixMillis, inspect, verify_archive, verify_live,
};
use sha2::{Digest as _, Sha256};

use crate::forge::EXPECTED;

pub const PRODUCTION_2025: &[u8] =
    include_bytes!("../../vectors/attestation/nitro-production-2025.cose");
pub const DEBUG_2021: &[u8] = include_bytes!("../../vectors/attestation/nitro-debug-2021.cose");

/// The production document's own time: 6 January 2025, 16:07:05 UTC and 472 ms.
const MADE: UnixMillis = UnixMillis(1_736_179_625_472);

/// What the production document reports.
pub fn measurements() -> Measurements {
    let pcr = |text: &str| hex::decode(text).unwrap().try_into().unwrap();
    Measurements {
        pcr0: pcr(concat!(
            "8bb159f202bb95d6d4d98e0e103918246cea734f1d57cd26",
            "3e4fd56075ed53f6fa8c68854817a32749a241e11874c26b",
        )),
        pcr1: pcr(concat!(
            "3b4a7e1b5f13c5a1000b3ed32ef8995ee13e9876329f9bc7",
            "2650b918329ef9cf4e2e4d1e1e37375dab0ba56ba0974d03",
        )),
        pcr2: pcr(concat!(
            "f4e86b12ad3df5f9fea962ff706c23ee190b463740a32f1a",
            "679a3cd1070a7731ddd83328fe3db5e8143ea94344b6fb95",
        )),
    }
}

/// The expectation of an auditor who knows what code should have run, and nothing else.
pub fn whatever_is_bound(reference: &ReferenceValues) -> ArchiveExpected<'_> {
    ArchiveExpected {
        reference,
        nonce: Expectation::NotCompared,
        public_key: Expectation::NotCompared,
        user_data: Expectation::NotCompared,
    }
}

#[test]
fn the_pinned_root_is_the_one_that_aws_publishes() {
    let published = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";
    for document in [PRODUCTION_2025, DEBUG_2021] {
        let root = &inspect(document).unwrap().claimed_path[0];
        assert_eq!(hex::encode(Sha256::digest(root)), published);
    }
}

#[test]
fn a_real_production_document_verifies_at_its_own_time() {
    let references = ReferenceValues::Nitro(vec![measurements()]);
    let expected = whatever_is_bound(&references);
    let archived = verify_archive(PRODUCTION_2025, &TrustAnchors::production(), &expected).unwrap();
    assert_eq!(archived.class(), TrustClass::Nitro);
    assert_eq!(archived.measurements(), Some(&measurements()));
    assert_eq!(
        archived.module_id(),
        Some("i-0bee92034f3d60691-enc01943c5eaab3ad6a")
    );
    assert_eq!(archived.timestamp(), MADE);
    // 19:07:05 of that day: the leaf is the first to expire.
    assert_eq!(archived.not_after(), UnixMillis(1_736_190_425_000));
    assert_eq!(archived.pcrs().unwrap().len(), 16);
    assert_eq!(archived.nonce(), None);
    assert_eq!(archived.user_data(), None);
    // An RSA key, of 2048 bits.
    assert_eq!(archived.public_key().map(<[u8]>::len), Some(294));
    assert_eq!(archived.digest()[..], Sha256::digest(PRODUCTION_2025)[..]);
}

#[test]
fn an_auditor_compares_what_the_real_document_is_bound_to() {
    let references = ReferenceValues::Nitro(vec![measurements()]);
    let whatever = whatever_is_bound(&references);
    let verify = |expected: &ArchiveExpected<'_>| {
        verify_archive(PRODUCTION_2025, &TrustAnchors::production(), expected)
            .map(|archived| archived.digest())
    };
    let bound = inspect(PRODUCTION_2025)
        .unwrap()
        .claimed_public_key
        .unwrap();
    verify(&ArchiveExpected {
        public_key: Expectation::Equals(&bound),
        ..whatever
    })
    .unwrap();

    let other = Expectation::Equals(&bound[1..]);
    assert_eq!(
        verify(&ArchiveExpected {
            public_key: other,
            ..whatever
        }),
        Err(Error::PublicKeyMismatch)
    );
    assert_eq!(
        verify(&ArchiveExpected {
            user_data: other,
            ..whatever
        }),
        Err(Error::UserDataMismatch)
    );
    assert_eq!(
        verify(&ArchiveExpected {
            nonce: other,
            ..whatever
        }),
        Err(Error::NonceMissing)
    );
}

#[test]
fn a_real_document_of_other_code_is_refused() {
    let mut other = measurements();
    other.pcr2[0] ^= 1;
    let error = verify_archive(
        PRODUCTION_2025,
        &TrustAnchors::production(),
        &whatever_is_bound(&ReferenceValues::Nitro(vec![other])),
    )
    .unwrap_err();
    assert_eq!(error, Error::Measurements { references: 1 });
}

#[test]
fn a_real_document_is_no_live_evidence_later() {
    let references = ReferenceValues::Nitro(vec![measurements()]);
    let expected = Expected {
        reference: &references,
        ..*EXPECTED
    };
    let at = |now| {
        verify_live(PRODUCTION_2025, &TrustAnchors::production(), &expected, now).unwrap_err()
    };
    // Five hours later the leaf has expired; half an hour later the document is merely old.
    let expired = Error::Certificate {
        position: 4,
        fault: CertificateFault::Expired,
    };
    assert_eq!(at(UnixMillis(MADE.0 + 5 * 3_600_000)), expired);
    assert_eq!(
        at(UnixMillis(MADE.0 + 1_800_000)),
        Error::TooOld { by_ms: 1_800_000 }
    );
    // And at its own time it answers nobody's nonce.
    assert_eq!(at(MADE), Error::NonceMissing);
}

#[test]
fn a_real_document_in_debug_mode_is_refused_for_that_alone() {
    let anchors = TrustAnchors::production();
    let zero = ReferenceValues::Nitro(vec![Measurements {
        pcr0: [0; 48],
        pcr1: [0; 48],
        pcr2: [0; 48],
    }]);
    // Debug mode is judged after path and signature, so both are good.
    let error = verify_archive(DEBUG_2021, &anchors, &whatever_is_bound(&zero)).unwrap_err();
    assert_eq!(error, Error::DebugMode);

    let mut damaged = DEBUG_2021.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let error = verify_archive(&damaged, &anchors, &whatever_is_bound(&zero)).unwrap_err();
    assert_eq!(error, Error::Signature);
}
