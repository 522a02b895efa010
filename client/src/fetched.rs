//! Evidence that a party makes for this client, fetched over its attested connection.

use arca_attestation::binder::Statement;
use arca_attestation::{Expected, verify_live};
use arca_proto::v1;
use rand_core::{OsRng, RngCore};
use serde::Serialize;

use crate::appraisal::{self, Question, Reference};
use crate::client::{Client, Judgement};
use crate::clock;
use crate::error::{Error, Result};

/// Evidence that a party made for this client, verified.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The attestation document, for an archive.
    pub document: Vec<u8>,
    /// What it says.
    pub evidence: arca_attestation::Evidence,
    /// This client's nonce.
    pub nonce: Vec<u8>,
    /// Of the party's running enclave.
    pub boot_id: [u8; 16],
    /// Of the manifest that the party holds; 0 for none.
    pub manifest_epoch: u64,
    /// What the party's process asked of its kernel.
    pub protections: Vec<Protection>,
}

/// What a party's process asked of its kernel, and whether it was granted.
///
/// # Security
/// The party's own word over the attested channel. Evidence of an enclave covers the code that gives it, and not these;
/// that of an HSM covers neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// Stable, in kebab-case.
    pub name: String,
    /// Whether it is in force.
    pub in_force: bool,
    /// What it keeps off, or why it is not in force.
    pub detail: String,
}

/// What a party answered. Nothing of it is verified yet.
#[derive(Clone, Debug)]
pub struct Answer {
    document: Vec<u8>,
    nonce: Vec<u8>,
    boot_id: [u8; 16],
    manifest_epoch: u64,
    protections: Vec<Protection>,
    object: String,
    judgement: Judgement,
    identity: Vec<u8>,
    user_data: [u8; 48],
}

impl Client {
    /// Fresh evidence over a nonce of this client's, verified.
    ///
    /// # Errors
    /// [`Error::Unverified`] when it does not show what the connection showed.
    pub async fn evidence(&self) -> Result<Evidence> {
        let mut nonce = [0; 32];
        OsRng.fill_bytes(&mut nonce);
        self.ask_evidence(&nonce).await?.verify()
    }

    /// Fresh evidence over `nonce`, 16 to 64 bytes, as the party answers.
    ///
    /// # Errors
    /// [`Error::Unverified`] when the answer speaks for another party than the connection.
    ///
    /// # Security
    /// A nonce that is not fresh and one's own lets the party answer with what it said to somebody else.
    pub async fn ask_evidence(&self, nonce: &[u8]) -> Result<Answer> {
        let object = format!("evidence of {}", self.party());
        let request = v1::GetEvidenceRequest {
            nonce: nonce.to_vec(),
        };
        let answer = self
            .party_service()
            .get_evidence(request)
            .await
            .map_err(|status| self.error(&object, &status))?
            .into_inner();
        let attested = self.attested()?;
        let boot_id: [u8; 16] = answer
            .boot_id
            .try_into()
            .map_err(|_| Error::unverified(&object, "its boot id is not 16 bytes"))?;
        if answer.cluster != attested.cluster() || answer.party != attested.name() {
            return Err(Error::unverified(
                &object,
                "it speaks for another party than the connection",
            ));
        }
        let statement = Statement {
            nonce,
            cluster: &answer.cluster,
            party: &answer.party,
            boot_id: &boot_id,
            manifest_epoch: answer.manifest_epoch,
        };
        Ok(Answer {
            user_data: statement.digest(),
            document: answer.evidence,
            nonce: nonce.to_vec(),
            boot_id,
            manifest_epoch: answer.manifest_epoch,
            protections: answer
                .protections
                .into_iter()
                .map(Protection::from)
                .collect(),
            object,
            judgement: self.judgement().clone(),
            identity: attested.identity().to_vec(),
        })
    }
}

impl Answer {
    /// The attestation document.
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// The nonce that was asked with.
    pub fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// What the document has to be bound to: the party's statement over this nonce.
    pub fn user_data(&self) -> &[u8; 48] {
        &self.user_data
    }

    /// The identity that the connection proved, and the document has to name: `SubjectPublicKeyInfo` in DER.
    pub fn identity(&self) -> &[u8] {
        &self.identity
    }

    /// Of the party's running enclave.
    pub fn boot_id(&self) -> &[u8; 16] {
        &self.boot_id
    }

    /// Of the manifest that the party holds; 0 for none.
    pub fn manifest_epoch(&self) -> u64 {
        self.manifest_epoch
    }

    /// What the party's process asked of its kernel.
    pub fn protections(&self) -> &[Protection] {
        &self.protections
    }

    /// Verifies it as live evidence of the party, against the manifest.
    ///
    /// # Errors
    /// [`Error::Unverified`] with the first check that fails.
    pub fn verify(self) -> Result<Evidence> {
        let expected = Expected {
            reference: &self.judgement.reference,
            nonce: &self.nonce,
            public_key: &self.identity,
            user_data: &self.user_data,
        };
        let evidence = verify_live(
            &self.document,
            &self.judgement.anchors,
            &expected,
            clock::now(),
        )
        .map_err(|cause| Error::unverified(&self.object, cause))?;
        Ok(Evidence {
            document: self.document,
            evidence,
            nonce: self.nonce,
            boot_id: self.boot_id,
            manifest_epoch: self.manifest_epoch,
            protections: self.protections,
        })
    }

    /// The same, with every check and every field.
    pub fn appraise(&self) -> appraisal::Appraisal {
        let question = Question {
            anchors: &self.judgement.anchors,
            reference: Reference::Values(&self.judgement.reference),
            further_pcrs: &Default::default(),
            nonce: Some(&self.nonce),
            public_key: Some(&self.identity),
            user_data: Some(&self.user_data),
            now: Some(clock::now()),
        };
        appraisal::appraise(&self.document, &question)
    }
}

impl From<v1::Protection> for Protection {
    fn from(protection: v1::Protection) -> Self {
        Self {
            name: protection.name,
            in_force: protection.in_force,
            detail: protection.detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use arca_attestation::{ClusterKind, ReferenceValues, TrustAnchors};

    use super::*;
    use crate::appraisal::Verdict;

    #[test]
    fn an_answer_that_is_somebody_elses_is_refused() {
        let document =
            include_bytes!("../../tests/vectors/attestation/nitro-production-2025.cose").to_vec();
        let answer = Answer {
            document,
            nonce: vec![1; 32],
            boot_id: [2; 16],
            manifest_epoch: 1,
            protections: Vec::new(),
            object: "evidence of ceo".to_owned(),
            judgement: Judgement {
                anchors: TrustAnchors::production(),
                reference: ReferenceValues::enclave(ClusterKind::Production, Vec::new()),
            },
            identity: vec![3; 91],
            user_data: [4; 48],
        };
        assert_eq!(answer.appraise().verdict, Verdict::Refused);
        assert!(matches!(answer.verify(), Err(Error::Unverified { .. })));
    }
}
