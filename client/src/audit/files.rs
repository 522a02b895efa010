//! What entries name by digest: evidence, manifests, acceptances of loss.

use std::collections::BTreeMap;

use arca_attestation::loss::{self, SignedLossAcceptance};
use arca_attestation::manifest::{self, SignedManifest};
use arca_audit::certificate::{self, AdministratorSignature, file_name};
use sha2::{Digest as _, Sha256, Sha384};

use super::finding::{Code, Finding, Findings};
use super::source::Source;

/// The longest file: a manifest in base64 and its signatures.
const MAX_BYTES: usize = 1 << 20;

/// What the parties' files hold, but for evidence, which is read when it is needed.
#[derive(Default)]
pub(super) struct Files {
    /// Every copy of a manifest, by SHA-384 of its bytes: they may differ in signatures.
    pub manifests: BTreeMap<[u8; 48], Vec<SignedManifest>>,
    /// By SHA-384 of their bytes.
    pub acceptances: BTreeMap<[u8; 48], Vec<SignedLossAcceptance>>,
}

/// A manifest as `arca_attestation` has it.
pub(super) fn signed_manifest(file: &certificate::SignedManifest) -> SignedManifest {
    SignedManifest {
        bytes: file.manifest.0.clone(),
        signatures: signatures(&file.signatures),
    }
}

/// Stricter than a quorum: a file has no signature that is none, so that every byte of it counts.
pub(super) fn every_signature(
    message: &[u8],
    signatures: &[([u8; 32], [u8; 64])],
) -> Result<(), String> {
    use ed25519_dalek::{Signature, VerifyingKey};
    for (administrator, signature) in signatures {
        VerifyingKey::from_bytes(administrator)
            .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
            .map_err(|_| {
                format!(
                    "the signature of {} on it does not verify",
                    hex::encode(administrator)
                )
            })?;
    }
    Ok(())
}

fn signatures(of: &[AdministratorSignature]) -> Vec<([u8; 32], [u8; 64])> {
    of.iter()
        .map(|signature| (signature.administrator.0, signature.signature.0))
        .collect()
}

impl Files {
    /// Looks at all files of a party.
    pub fn collect(
        &mut self,
        source: &dyn Source,
        party: &str,
        findings: &mut Findings,
    ) -> std::io::Result<()> {
        let folder = format!("{party}/files");
        for name in source.list(&folder)? {
            let path = format!("{folder}/{name}");
            let malformed = |why: &str| Finding::new(Code::FileMalformed, format!("{path}: {why}"));
            let content = match source.read(&path, MAX_BYTES) {
                Ok(Some(content)) => content,
                Ok(None) => continue,
                Err(cause) => {
                    findings.add(malformed(&cause.to_string()));
                    continue;
                }
            };
            if file_name(&content) != name {
                findings.add(malformed("its name is not its digest"));
                continue;
            }
            if let Err(why) = self.take(&content) {
                findings.add(malformed(&why));
            }
        }
        Ok(())
    }

    /// Evidence is CBOR, which does not begin as JSON does. What is neither is nothing that an entry can name.
    fn take(&mut self, content: &[u8]) -> Result<(), String> {
        if let Ok(file) = serde_json::from_slice::<certificate::SignedManifest>(content) {
            let signed = signed_manifest(&file);
            every_signature(&manifest::signing_bytes(&signed.bytes), &signed.signatures)?;
            let digest = Sha384::digest(&signed.bytes).into();
            self.manifests.entry(digest).or_default().push(signed);
        } else if let Ok(file) = serde_json::from_slice::<certificate::SignedAcceptance>(content) {
            let signed = SignedLossAcceptance {
                bytes: file.acceptance.0,
                signatures: signatures(&file.signatures),
            };
            every_signature(&loss::signing_bytes(&signed.bytes), &signed.signatures)?;
            let digest = Sha384::digest(&signed.bytes).into();
            self.acceptances.entry(digest).or_default().push(signed);
        }
        Ok(())
    }
}

/// A file of a party by its digest; `None` when it is missing or is another.
pub(super) fn read(source: &dyn Source, party: &str, digest: &[u8; 32]) -> Option<Vec<u8>> {
    let path = format!("{party}/files/{}", hex::encode(digest));
    let content = source.read(&path, MAX_BYTES).ok().flatten()?;
    (<[u8; 32]>::from(Sha256::digest(&content)) == *digest).then_some(content)
}
