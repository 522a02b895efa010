//! A party's AuditService, over its attested connection.

use arca_audit::checkpoint::Checkpoint;
use arca_audit::note::{SignedNote, VerifierKey};
use arca_proto::v1;

use crate::client::Client;
use crate::error::{Error, Result};

/// A log's newest checkpoint, as the party gave it.
#[derive(Clone, Debug)]
pub struct LogCheckpoint {
    /// The signed note with its cosignatures.
    pub note: Vec<u8>,
    /// What it says; signed by `log_key`.
    pub checkpoint: Checkpoint,
    /// The number of the log, and that of the current one.
    pub log: u64,
    /// The number of the log that the party writes now.
    pub current: u64,
    /// Signs the log.
    ///
    /// # Security
    /// The party's word, until evidence has shown it: see [`super::verify_export`].
    pub log_key: VerifierKey,
    /// Cosigns other logs.
    pub witness_key: VerifierKey,
}

/// Entries of a log.
#[derive(Clone, Debug)]
pub struct Page {
    /// Index of the first.
    pub from: u64,
    /// As logged.
    pub entries: Vec<Vec<u8>>,
    /// Entries in the log now.
    pub size: u64,
}

impl Client {
    /// The newest checkpoint of a log; of the current one for 0.
    ///
    /// # Errors
    /// What the party refuses, and [`Error::Bug`] for what it should not have sent.
    pub async fn log_checkpoint(&self, log: u64) -> Result<LogCheckpoint> {
        let object = format!("log of {}", self.party());
        let wrong =
            |field: &str| Error::bug(format!("{object}: a checkpoint with an invalid {field}"));
        let answer = self
            .audit_service()
            .get_checkpoint(v1::GetCheckpointRequest { log })
            .await
            .map_err(|status| self.error(&object, &status))?
            .into_inner();
        let log_key: VerifierKey = answer.log_key.parse().map_err(|_| wrong("log_key"))?;
        let note = SignedNote::parse(&answer.note).map_err(|_| wrong("note"))?;
        Ok(LogCheckpoint {
            checkpoint: Checkpoint::verify_note(&note, &log_key)
                .map_err(|cause| Error::unverified(&object, cause))?,
            note: answer.note,
            log: answer.log,
            current: answer.current_log,
            log_key,
            witness_key: answer
                .witness_key
                .parse()
                .map_err(|_| wrong("witness_key"))?,
        })
    }

    /// At most 1000 entries of a log from an index on; of the current log for 0.
    ///
    /// # Errors
    /// What the party refuses.
    pub async fn log_entries(&self, log: u64, from: u64, most: u32) -> Result<Page> {
        let request = v1::ListEntriesRequest {
            log,
            from,
            page_size: most,
        };
        let answer = self
            .audit_service()
            .list_entries(request)
            .await
            .map_err(|status| self.error(format!("log of {}", self.party()), &status))?
            .into_inner();
        Ok(Page {
            from: answer.from,
            entries: answer.entries,
            size: answer.size,
        })
    }

    /// One entry of a log and the C2SP tlog-proof of its place.
    ///
    /// # Errors
    /// What the party refuses.
    pub async fn log_proof(&self, log: u64, index: u64) -> Result<(Vec<u8>, Vec<u8>)> {
        let answer = self
            .audit_service()
            .get_proof(v1::GetProofRequest { log, index })
            .await
            .map_err(|status| self.error(format!("entry {index} of {}", self.party()), &status))?
            .into_inner();
        Ok((answer.entry, answer.proof))
    }

    /// The certificate of a request that this party coordinated and that is SIGNED: see
    /// [`super::certificate::verify`].
    ///
    /// # Errors
    /// What the party refuses.
    pub async fn certificate(&self, signing_request: &str) -> Result<Vec<u8>> {
        let request = v1::GetCertificateRequest {
            signing_request: signing_request.to_owned(),
        };
        let answer = self
            .audit_service()
            .get_certificate(request)
            .await
            .map_err(|status| self.error(signing_request, &status))?;
        Ok(answer.into_inner().certificate)
    }

    pub(super) async fn export_files(
        &self,
        log: u64,
        (from, to): (u64, u64),
    ) -> Result<tonic::Streaming<v1::ExportedFile>> {
        let answer = self
            .audit_service()
            .export(v1::ExportRequest { log, from, to })
            .await
            .map_err(|status| self.error(format!("log {log} of {}", self.party()), &status))?;
        Ok(answer.into_inner())
    }

    pub(super) async fn openings(&self, page_token: String) -> Result<v1::ListOpeningsResponse> {
        const OPENINGS: u32 = 200;
        let request = v1::ListOpeningsRequest {
            page_size: OPENINGS,
            page_token,
        };
        let answer = self
            .audit_service()
            .list_openings(request)
            .await
            .map_err(|status| self.error(format!("openings of {}", self.party()), &status))?;
        Ok(answer.into_inner())
    }
}
