//! The host's blob storage, as the enclave reaches it: three calls, and no trust in any answer. And where numbers
//! go that the host shows.

use std::{sync::Arc, time::Duration};

use arca_proto::v1::{
    GetBlobRequest, GetLogFileRequest, ListBlobsRequest, PutBlobsRequest, ReportMetricsRequest,
    metrics_service_client::MetricsServiceClient, put_blobs_request,
    storage_service_client::StorageServiceClient,
};
use hyper_util::rt::TokioIo;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use crate::{
    error::Error,
    platform::{HostEndpoint, Platform},
};

/// A call that the host does not answer within this time counts as failed.
const DEADLINE: Duration = Duration::from_secs(10);
/// A batch is at most 8 MiB; this leaves room for the names.
const MAX_MESSAGE: usize = (8 << 20) + (1 << 19);

/// A connection to the host's `StorageService` that makes itself anew when it breaks.
#[derive(Clone)]
pub struct HostStorage(StorageServiceClient<Channel>, MetricsServiceClient<Channel>);

impl HostStorage {
    /// Connects at the first call.
    pub fn new(platform: Arc<dyn Platform>) -> Self {
        let connector = service_fn(move |_| {
            let platform = Arc::clone(&platform);
            async move {
                platform
                    .connect(HostEndpoint::Storage)
                    .await
                    .map(TokioIo::new)
            }
        });
        let channel = Endpoint::from_static("http://host")
            .timeout(DEADLINE)
            .connect_timeout(DEADLINE)
            .connect_with_connector_lazy(connector);
        let metrics = MetricsServiceClient::new(channel.clone());
        let storage = StorageServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self(storage, metrics)
    }

    /// Hands numbers to the host, to show.
    ///
    /// # Errors
    /// [`Error::Fault`] when it does not take them.
    pub async fn report(&self, request: ReportMetricsRequest) -> Result<(), Error> {
        let mut metrics = self.1.clone();
        match metrics.report_metrics(request).await {
            Ok(_) => Ok(()),
            Err(status) => Err(fault("show", "metrics", &status)),
        }
    }

    /// Stores blobs by name, all or none; durable, as far as the host tells the truth, when this returns.
    ///
    /// With `follows`, only while the blob of that name has that SHA-256, or there is none of that name.
    ///
    /// # Errors
    /// [`Error::Fault`] with reason `STORAGE_FULL`, `STORAGE_CONFLICT` (it does not follow) or
    /// `STORAGE_UNAVAILABLE`, and then the blobs may be stored or not, now or soon.
    pub async fn put(
        &self,
        blobs: Vec<(String, Vec<u8>)>,
        follows: Option<(&str, Option<[u8; 32]>)>,
    ) -> Result<(), Error> {
        let first = blobs
            .last()
            .map_or_else(String::new, |(name, _)| name.clone());
        let request = PutBlobsRequest {
            blobs: blobs
                .into_iter()
                .map(|(name, blob)| put_blobs_request::Blob { name, blob })
                .collect(),
            guard: follows.map(|(name, sha256)| put_blobs_request::Guard {
                name: name.to_owned(),
                sha256: sha256.map(|digest| digest.to_vec()).unwrap_or_default(),
            }),
        };
        self.0
            .clone()
            .put_blobs(request)
            .await
            .map_err(|status| fault("store", &first, &status))?;
        Ok(())
    }

    /// The blob of that name, or none.
    ///
    /// # Errors
    /// [`Error::Fault`] with reason `STORAGE_UNAVAILABLE`.
    pub async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let request = GetBlobRequest {
            name: name.to_owned(),
        };
        match self.0.clone().get_blob(request).await {
            Ok(response) => Ok(Some(response.into_inner().blob)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(fault("read", name, &status)),
        }
    }

    /// A file of the audit log, or none: "NUMBER/checkpoint", a tile, "files/DIGEST".
    ///
    /// # Errors
    /// [`Error::Fault`] with reason `STORAGE_UNAVAILABLE`.
    pub async fn log_file(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let request = GetLogFileRequest {
            path: path.to_owned(),
        };
        match self.0.clone().get_log_file(request).await {
            Ok(response) => Ok(Some(response.into_inner().content)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(fault("read", path, &status)),
        }
    }

    /// At most `limit` names with `prefix` that come after `after`, in ascending order.
    ///
    /// Names that do not fit the question are dropped, whatever the host sent.
    ///
    /// # Errors
    /// [`Error::Fault`] with reason `STORAGE_UNAVAILABLE`.
    pub async fn list(&self, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, Error> {
        let request = ListBlobsRequest {
            prefix: prefix.to_owned(),
            after: after.to_owned(),
            page_size: limit,
        };
        let response = self
            .0
            .clone()
            .list_blobs(request)
            .await
            .map_err(|status| fault("list", prefix, &status))?;
        let mut names = response.into_inner().names;
        names.retain(|name| name.starts_with(prefix) && name.as_str() > after);
        names.sort_unstable();
        names.dedup();
        names.truncate(limit as usize);
        Ok(names)
    }
}

fn fault(verb: &str, name: &str, status: &Status) -> Error {
    let (reason, remedy) = match status.code() {
        Code::ResourceExhausted => (
            "STORAGE_FULL",
            "make room on the host's disk or raise storage.quota_bytes",
        ),
        Code::Aborted => (
            "STORAGE_CONFLICT",
            "see that no other enclave uses this host",
        ),
        _ => (
            "STORAGE_UNAVAILABLE",
            "see whether the host process runs, and its log",
        ),
    };
    let said = status.message().escape_default().to_string();
    let said = said.get(..200).unwrap_or(&said);
    Error::Fault {
        reason,
        message: format!("the host could not {verb} {name}: {said}; {remedy}"),
    }
}
