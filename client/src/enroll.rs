//! The administrators' side: from running enclaves to a cluster.
//!
//! Collect each party's evidence, draft a manifest from it, have the administrators sign it (each on a machine
//! of their own, see [`manifest_file`](crate::manifest_file)), and hand it to every party.

use std::path::Path;
use std::time::Duration;

use arca_attestation::manifest::{Administrators, Draft, Party, Principal, SignedManifest};
use arca_attestation::{Measurements, ReferenceValues, TrustAnchors, TrustClass, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::cluster::candidate;
use crate::error::{Error, Result};
use crate::manifest_file::read_bytes;

/// An enclave whose evidence was verified and that may become a party.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// The name that it is to have.
    pub party: String,
    /// Where it answered.
    pub address: String,
    /// What its evidence means.
    pub class: TrustClass,
    /// The reference values that its evidence equals. Evidence of an HSM has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measurements: Option<Measurements>,
    /// Its identity key, `SubjectPublicKeyInfo` in DER.
    #[serde(with = "hex::serde")]
    pub identity: Vec<u8>,
    /// Drawn when its enclave started.
    #[serde(with = "hex::serde")]
    pub boot_id: [u8; 16],
    /// Epoch of the manifest that it already holds; 0 for none.
    pub manifest_epoch: u64,
    /// When the evidence was made.
    pub evidence_time: UnixMillis,
    /// SHA-256 of the evidence.
    #[serde(with = "hex::serde")]
    pub evidence_digest: [u8; 32],
}

/// Connects to an enclave as nobody and verifies its evidence against `reference`.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::Untrusted`].
pub async fn collect(
    party: &str,
    address: &str,
    anchors: &TrustAnchors,
    reference: &ReferenceValues,
) -> Result<Candidate> {
    let client = candidate(party, address, anchors, reference).await?;
    let attested = client.attested()?;
    let evidence = attested.evidence();
    Ok(Candidate {
        party: party.to_owned(),
        address: address.to_owned(),
        class: evidence.class(),
        measurements: evidence.measurements().copied(),
        identity: attested.identity().to_vec(),
        boot_id: *attested.boot_id(),
        manifest_epoch: attested.manifest_epoch(),
        evidence_time: evidence.timestamp(),
        evidence_digest: evidence.digest(),
    })
}

/// A first manifest over these candidates. `hsm_roots` are those under which the candidates of class `hsm` verified.
pub fn draft(
    cluster: &str,
    candidates: &[Candidate],
    hsm_roots: Vec<Vec<u8>>,
    administrators: Administrators,
    principals: Vec<Principal>,
    not_before: UnixMillis,
    validity: Duration,
) -> Draft {
    let validity = u64::try_from(validity.as_millis()).unwrap_or(u64::MAX);
    Draft {
        version: Draft::VERSION,
        cluster: cluster.to_owned(),
        epoch: 1,
        not_before,
        not_after: UnixMillis(not_before.0.saturating_add(validity)),
        parties: candidates
            .iter()
            .map(|candidate| Party {
                name: candidate.party.clone(),
                class: candidate.class,
                identity: candidate.identity.clone(),
                measurements: candidate.measurements.into_iter().collect(),
            })
            .collect(),
        hsm_roots,
        administrators,
        principals,
        policy_digest: None,
        revoked: Vec::new(),
    }
}

/// Hands a signed manifest to a party and checks that it took the place meant for it.
///
/// # Errors
/// What the party refuses; [`Error::Unverified`] when it says that it is another party.
pub async fn apply(
    client: &Client,
    party: &Party,
    manifest: &SignedManifest,
    epoch: u64,
) -> Result<()> {
    let object = format!("manifest at {}", party.name);
    if client.attested()?.identity() != party.identity {
        return Err(Error::unverified(
            object,
            "the enclave that answers has another identity than the manifest gives to this party",
        ));
    }
    let (name, accepted) = client.enroll(manifest).await?;
    if name != party.name || accepted != epoch {
        return Err(Error::unverified(
            object,
            format!("it answered as party {name:?} with epoch {accepted}"),
        ));
    }
    Ok(())
}

/// Reads reference values: `{"pcr0": …, "pcr1": …, "pcr2": …}` in hex, or what `nitro-cli build-enclave`
/// prints, with these under `Measurements` in capitals.
///
/// # Errors
/// [`Error::Config`] when the file is neither.
pub fn read_measurements(path: &Path) -> Result<Measurements> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Plain(Measurements),
        NitroCli {
            #[serde(rename = "Measurements")]
            measurements: NitroCli,
        },
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    struct NitroCli {
        #[serde(with = "hex::serde")]
        pcr0: [u8; 48],
        #[serde(with = "hex::serde")]
        pcr1: [u8; 48],
        #[serde(with = "hex::serde")]
        pcr2: [u8; 48],
    }
    let form = serde_json::from_slice(&read_bytes(path)?).map_err(|_| {
        Error::config(
            path.display(),
            "holds no measurements",
            "it has to be JSON with pcr0, pcr1 and pcr2 in hex, or the output of `nitro-cli build-enclave`",
        )
    })?;
    Ok(match form {
        Form::Plain(measurements) => measurements,
        Form::NitroCli { measurements } => Measurements {
            pcr0: measurements.pcr0,
            pcr1: measurements.pcr1,
            pcr2: measurements.pcr2,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_are_read_in_both_forms() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("measurements.json");
        let [a, b, c] = ["aa".repeat(48), "bb".repeat(48), "cc".repeat(48)];
        for text in [
            format!(r#"{{"pcr0": "{a}", "pcr1": "{b}", "pcr2": "{c}"}}"#),
            format!(
                r#"{{"Measurements": {{"HashAlgorithm": "Sha384", "PCR0": "{a}", "PCR1": "{b}", "PCR2": "{c}"}}}}"#
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let measurements = read_measurements(&path).unwrap();
            assert_eq!(
                (measurements.pcr0, measurements.pcr2),
                ([0xaa; 48], [0xcc; 48])
            );
        }
        for text in ["{}", "", r#"{"pcr0": "aa", "pcr1": "bb", "pcr2": "cc"}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(read_measurements(&path).is_err());
        }
    }
}
