//! Evidence of HSMs: any bytes are refused, or say what the honest seed says. Only the signature may be another, since
//! ECDSA lets anybody make a second one from the first.

#![no_main]

use std::sync::LazyLock;

use arca_attestation::{
    ArchiveExpected, ArchivedEvidence, Expectation, ReferenceValues, TrustAnchors, inspect,
    verify_archive,
};
use libfuzzer_sys::fuzz_target;

const HONEST: &[u8] = include_bytes!("../seeds/hsm_evidence/honest.cose");

static ROOTS: LazyLock<ReferenceValues> = LazyLock::new(|| {
    let mut path = inspect(HONEST).expect("well-formed").claimed_path;
    ReferenceValues::Hsm(vec![path.remove(0)])
});

static STATEMENT: LazyLock<String> = LazyLock::new(|| statement(&verify(HONEST).expect("genuine")));

fuzz_target!(|bytes: &[u8]| {
    match verify(bytes) {
        Ok(evidence) => {
            assert_eq!(statement(&evidence), *STATEMENT);
            // There is one encoding: all but the signature at the end is the same.
            assert_eq!(bytes.len(), HONEST.len());
            assert_eq!(bytes[..bytes.len() - 96], HONEST[..HONEST.len() - 96]);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(inspection) = inspect(bytes)
        && let Some(token) = inspection.claimed_token
    {
        assert!((2..=9).contains(&inspection.claimed_path.len()));
        assert!(
            token
                .to_string()
                .bytes()
                .all(|byte| matches!(byte, b' '..=b'~'))
        );
        assert!(inspection.claimed_pcrs.is_empty() && inspection.claimed_module_id.is_none());
    }
});

fn verify(document: &[u8]) -> Result<ArchivedEvidence, arca_attestation::Error> {
    let expected = ArchiveExpected {
        reference: &ROOTS,
        nonce: Expectation::NotCompared,
        public_key: Expectation::NotCompared,
        user_data: Expectation::NotCompared,
    };
    verify_archive(document, &TrustAnchors::hsm_only(), &expected)
}

fn statement(evidence: &ArchivedEvidence) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        evidence.class(),
        evidence.token(),
        evidence.timestamp(),
        evidence.public_key(),
        evidence.user_data(),
        evidence.nonce(),
    )
}
