//! One start of an enclave: what its evidence shows of the keys that sign for its log.

use arca_attestation::binder::LogStatement;
use arca_attestation::manifest::Manifest;
use arca_attestation::{ArchiveExpected, ArchivedEvidence, Expectation, verify_archive};
use sha2::{Digest as _, Sha256};

use super::request::Problem;
use super::trust::Trust;

/// What an instance says of itself, wherever it says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub party: &'a str,
    pub boot: &'a [u8; 16],
    pub log_key: &'a [u8; 32],
    pub witness_key: &'a [u8; 32],
}

/// The evidence is of that party under this manifest, made by code or hardware that the manifest allows, and names this
/// boot and these keys. Judged at the evidence's own time.
pub(super) fn verify(
    trust: &Trust,
    manifest: &Manifest,
    claim: Claim<'_>,
    evidence: &[u8],
) -> Result<ArchivedEvidence, Problem> {
    let party = manifest
        .party(claim.party)
        .ok_or_else(|| format!("the manifest names no party {:?}", claim.party))?;
    let reference = manifest
        .reference_values(claim.party)
        .ok_or_else(|| format!("the manifest names no party {:?}", claim.party))?;
    let statement = LogStatement {
        cluster: manifest.cluster(),
        party: claim.party,
        boot_id: claim.boot,
        manifest_digest: &manifest.digest(),
        log_key: claim.log_key,
        witness_key: claim.witness_key,
    };
    let expected = ArchiveExpected {
        reference: &reference,
        nonce: Expectation::Equals(claim.boot),
        public_key: Expectation::Equals(&party.identity),
        user_data: Expectation::Equals(&statement.digest()),
    };
    verify_archive(evidence, trust.anchors(), &expected).map_err(|cause| cause.to_string())
}

/// SHA-256 over PCR 0, 1 and 2: how entries name a measurement.
pub(super) fn measurement(measurements: &arca_attestation::Measurements) -> [u8; 32] {
    Sha256::new()
        .chain_update(measurements.pcr0)
        .chain_update(measurements.pcr1)
        .chain_update(measurements.pcr2)
        .finalize()
        .into()
}
