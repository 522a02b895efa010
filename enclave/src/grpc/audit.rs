use std::{collections::BTreeSet, sync::Arc};

use arca_audit::{
    entry::Entry,
    note::SignedNote,
    tile::{TILE_WIDTH, TileKind, TilePath},
};
use arca_proto::v1::{
    ExportRequest, ExportedFile, GetCertificateRequest, GetCertificateResponse,
    GetCheckpointRequest, GetCheckpointResponse, GetProofRequest, GetProofResponse,
    ListEntriesRequest, ListEntriesResponse, ListOpeningsRequest, ListOpeningsResponse, Opening,
    audit_service_server::AuditService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Services, page_size};
use crate::{certificate, core::Core, error::Error, names, records, signing};

/// Files of an export that wait for their reader.
const AHEAD: usize = 8;

type Files = mpsc::Sender<Result<ExportedFile, Status>>;

#[tonic::async_trait]
impl AuditService for Services {
    type ExportStream = ReceiverStream<Result<ExportedFile, Status>>;

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        let core = &self.0;
        let (log, note, _) = records::checkpoint(core, request.into_inner().log).await?;
        let (current_log, _, witness_key) = core
            .log
            .verifier_keys()
            .ok_or(Error::Bug("a log without keys"))?;
        let log_key = core
            .log
            .key_of(log)
            .ok_or(Error::Bug("a log without keys"))?;
        Ok(Response::new(GetCheckpointResponse {
            note: note.to_bytes(),
            log,
            current_log,
            log_key: log_key.to_string(),
            witness_key: witness_key.to_string(),
        }))
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        let request = request.into_inner();
        let (log, _, checkpoint) = records::checkpoint(&self.0, request.log).await?;
        let wanted = page_size(request.page_size) as usize;
        let mut entries = Vec::new();
        while entries.len() < wanted {
            let from = request.from.saturating_add(entries.len() as u64);
            let more = records::entries(&self.0, log, &checkpoint, from).await?;
            if more.is_empty() {
                break;
            }
            entries.extend(more);
        }
        entries.truncate(wanted);
        Ok(Response::new(ListEntriesResponse {
            from: request.from,
            entries,
            size: checkpoint.size,
        }))
    }

    async fn get_proof(
        &self,
        request: Request<GetProofRequest>,
    ) -> Result<Response<GetProofResponse>, Status> {
        let request = request.into_inner();
        let core = &self.0;
        let (log, mut note, mut checkpoint) = records::checkpoint(core, request.log).await?;
        let (current, log_key, _) = core
            .log
            .verifier_keys()
            .ok_or(Error::Bug("a log without keys"))?;
        // One that was cosigned says more than a newer one.
        if log == current
            && let Some((_, cosigned, _)) = core.log.cosigned_over(request.index, &[])
        {
            checkpoint = arca_audit::checkpoint::Checkpoint::verify_note(&cosigned, &log_key)
                .map_err(|_| Error::Bug("a checkpoint of ours does not verify"))?;
            note = cosigned;
        }
        let (entry, proof) = records::prove(core, log, &note, &checkpoint, request.index).await?;
        Ok(Response::new(GetProofResponse {
            proof: proof.to_bytes(),
            entry,
        }))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let request = request.into_inner();
        let (log, note, checkpoint) = records::checkpoint(&self.0, request.log).await?;
        let to = match request.to {
            0 => checkpoint.size,
            to => to.min(checkpoint.size),
        };
        if request.from > to {
            return Err(Error::invalid(
                "INVALID_ARGUMENT",
                format!("from: beyond {to}, where the range ends"),
            )
            .into());
        }
        let (files, stream) = mpsc::channel(AHEAD);
        let core = Arc::clone(&self.0);
        tokio::spawn(async move {
            let range = (request.from, to, checkpoint.size);
            if let Err(status) = export(&core, log, &note, range, &files).await {
                // A reader that is gone does not need to know.
                let _ = files.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_openings(
        &self,
        request: Request<ListOpeningsRequest>,
    ) -> Result<Response<ListOpeningsResponse>, Status> {
        let core = &self.0;
        let request = request.into_inner();
        let size = page_size(request.page_size);
        let after = names::page_token(&request.page_token, "signing/")?;
        let objects = core.state.list("signing/", &after, size).await?;
        let mut openings = Vec::new();
        for object in &objects {
            let Some(id) = object.strip_prefix("signing/") else {
                continue;
            };
            let name = format!("{}{id}", names::SIGNING_REQUESTS);
            let Some(record) = signing::signed_record(core, &name).await? else {
                continue;
            };
            let (place, opening) = certificate::opening(core, &record).await?;
            openings.push(Opening {
                log: place.log,
                index: place.index,
                json: serde_json::to_vec(&opening)
                    .map_err(|_| Error::Bug("an opening has no JSON"))?,
            });
        }
        let next_page_token = names::next_page(&objects, size, "signing/");
        Ok(Response::new(ListOpeningsResponse {
            openings,
            next_page_token,
        }))
    }

    async fn get_certificate(
        &self,
        request: Request<GetCertificateRequest>,
    ) -> Result<Response<GetCertificateResponse>, Status> {
        let name = request.into_inner().signing_request;
        let certificate = certificate::assemble(&self.0, &name).await?;
        Ok(Response::new(GetCertificateResponse {
            certificate: certificate.encode(),
        }))
    }
}

/// Sends bundles and the tiles over them, then the files that entries name, then the checkpoint.
async fn export(
    core: &Core,
    log: u64,
    note: &SignedNote,
    (from, to, size): (u64, u64, u64),
    files: &Files,
) -> Result<(), Status> {
    let width = u64::from(TILE_WIDTH);
    let send = async |path: String, content: Vec<u8>, complete_to: u64| {
        let file = ExportedFile {
            path,
            content,
            complete_to,
        };
        files
            .send(Ok(file))
            .await
            .map_err(|_| Status::cancelled("closed"))
    };
    let mut named = BTreeSet::new();
    let bundles = (from / width)..to.div_ceil(width);
    for bundle in bundles.clone() {
        let Some(path) = TilePath::in_log(TileKind::Entries, bundle, size) else {
            break;
        };
        let content = records::tile(core, log, path).await?;
        let mut new = Vec::new();
        for entry in path
            .entries(&content)
            .map_err(|_| Error::Bug("a bundle does not decode"))?
        {
            if let Ok(entry) = Entry::decode(entry) {
                for digest in [entry.evidence.to_string(), entry.manifest.to_string()] {
                    if named.insert(digest.clone()) {
                        new.push(digest);
                    }
                }
                if let arca_audit::entry::Event::LossAccepted { acceptance, .. } = entry.event {
                    new.push(acceptance.to_string());
                }
            }
        }
        for digest in new {
            let path = format!("files/{digest}");
            // What is missing is missing: the auditor says so.
            if let Some(content) = core.state.storage().log_file(&path).await? {
                send(path, content, 0).await?;
            }
        }
        let hashes = TilePath::in_log(TileKind::Hashes { level: 0 }, bundle, size);
        if let Some(path) = hashes {
            let content = records::tile(core, log, path).await?;
            send(format!("{log}/{path}"), content, 0).await?;
        }
        let complete_to = (bundle + 1).saturating_mul(width).min(size);
        send(format!("{log}/{path}"), content, complete_to).await?;
    }
    for level in 1..8 {
        let covers = 8 * u32::from(level);
        let (first, last) = (
            (bundles.start.saturating_mul(width) >> covers) / width,
            (to >> covers).div_ceil(width),
        );
        for index in first..last {
            if let Some(path) = TilePath::in_log(TileKind::Hashes { level }, index, size) {
                let content = records::tile(core, log, path).await?;
                send(format!("{log}/{path}"), content, 0).await?;
            }
        }
    }
    send(format!("{log}/checkpoint"), note.to_bytes(), to).await
}
