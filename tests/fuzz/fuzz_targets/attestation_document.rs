//! Attestation documents: any bytes are refused, or say what a real document says. The production document of
//! `tests/vectors/attestation` is among the seeds: another encoding of its envelope may verify, another
//! statement never. The same bytes are tried as a root certificate.

#![no_main]

use std::sync::LazyLock;

use arca_attestation::{
    ArchiveExpected, ArchivedEvidence, Expectation, Measurements, ReferenceValues, TrustAnchors,
    inspect, verify_archive,
};
use libfuzzer_sys::fuzz_target;

const REAL: &[u8] = include_bytes!("../../vectors/attestation/nitro-production-2025.cose");

static REFERENCES: LazyLock<ReferenceValues> = LazyLock::new(|| {
    let pcrs = inspect(REAL).expect("well-formed").claimed_pcrs;
    ReferenceValues::Nitro(vec![Measurements {
        pcr0: pcrs[&0],
        pcr1: pcrs[&1],
        pcr2: pcrs[&2],
    }])
});

static STATEMENT: LazyLock<String> = LazyLock::new(|| statement(&verify(REAL).expect("genuine")));

fuzz_target!(|bytes: &[u8]| {
    let inspection = inspect(bytes);
    match verify(bytes) {
        Ok(evidence) => assert_eq!(statement(&evidence), *STATEMENT),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // Evidence of an HSM can be looked at too, and has no PCRs: see `hsm_evidence`.
    if let Ok(inspection) = inspection
        && inspection.claimed_token.is_none()
    {
        let pcrs = inspection.claimed_pcrs.keys();
        assert!((1..=32).contains(&pcrs.len()) && pcrs.max() < Some(&32));
        assert!(inspection.claimed_path.len() >= 2);
    }
    let _ = TrustAnchors::simulated(bytes);
});

fn verify(document: &[u8]) -> Result<ArchivedEvidence, arca_attestation::Error> {
    let expected = ArchiveExpected {
        reference: &REFERENCES,
        nonce: Expectation::NotCompared,
        public_key: Expectation::NotCompared,
        user_data: Expectation::NotCompared,
    };
    verify_archive(document, &TrustAnchors::production(), &expected)
}

fn statement(evidence: &ArchivedEvidence) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        evidence.module_id(),
        evidence.timestamp(),
        evidence.pcrs(),
        evidence.public_key(),
        evidence.user_data(),
        evidence.nonce(),
    )
}
