//! What the enclave calls its host for: `arca.v1.StorageService`, and beside it the services of
//! [`crate::reported`] and [`crate::credentials`].

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arca_proto::v1::storage_service_server::{StorageService, StorageServiceServer};
use arca_proto::v1::{
    GetBlobRequest, GetBlobResponse, GetLogFileRequest, GetLogFileResponse, ListBlobsRequest,
    ListBlobsResponse, ListLogsRequest, ListLogsResponse, PutBlobsRequest, PutBlobsResponse,
};
use arca_proto::v1::{list_logs_response, put_blobs_request};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::names::NameError;
use super::{Batch, BlobName, Guard, MAX_BATCH, MAX_BLOB, NameFragment, StorageError, Store};
use crate::archive::{Archive, LogError, LogPath, NoLogPath};
use crate::config::CredentialSource;
use crate::credentials;
use crate::enclave::Listener;
use crate::metrics::{Metrics, Operation};
use crate::reported::{self, EnclaveStream};
use crate::stop::Stop;

/// Most names in a page, and the default.
const MAX_PAGE: u32 = 1000;
/// Room for names, and for a batch somewhat too large, so that it gets the answer that says so.
const MAX_MESSAGE: usize = MAX_BATCH.1 + 2 * MAX_BLOB;
/// Calls of one connection at once. The bound is on HTTP/2 streams, so that a call beyond it has not begun:
/// calls that had begun and waited for their turn would fill the connection's window with what nobody reads
/// yet, and those whose turn it is would starve.
const CONCURRENT_CALLS: u32 = 64;
/// A put of the largest blob flows without waiting for window updates.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// For calls in progress when the host stops.
const FINISH: Duration = Duration::from_secs(5);
/// After the system refused an accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until told to stop, then finishes what is in progress.
pub(crate) async fn serve(
    store: Store,
    archive: Archive,
    credentials: Option<CredentialSource>,
    metrics: Arc<Metrics>,
    listener: Listener,
    stop: Stop,
) {
    let reports = reported::service(Arc::clone(&metrics));
    let credentials = credentials::service(credentials, Arc::clone(&metrics));
    let service = StorageServiceServer::new(Service {
        store,
        archive,
        metrics,
    })
    .max_decoding_message_size(MAX_MESSAGE)
    .max_encoding_message_size(MAX_MESSAGE);
    let (accepted, incoming) = mpsc::channel(1);
    let mut accepting = JoinSet::new();
    accepting.spawn(accept(listener, accepted));
    let mut stopping = stop.clone();
    let serving = tonic::transport::Server::builder()
        .max_concurrent_streams(CONCURRENT_CALLS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(service)
        .add_service(reports)
        .add_service(credentials)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async move {
            stopping.stopping().await;
        });
    let mut stopping = stop;
    let finish = async {
        stopping.stopping().await;
        sleep(FINISH).await;
    };
    tokio::select! {
        served = serving => match served {
            Ok(()) => info!("storage service stopped"),
            Err(error) => warn!(%error, "storage service ended"),
        },
        () = finish => warn!("storage calls still in progress were cut off"),
    }
    accepting.shutdown().await;
}

/// Hands on the enclave's streams for as long as somebody takes them.
async fn accept(listener: Listener, accepted: mpsc::Sender<io::Result<EnclaveStream>>) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                if accepted.send(Ok(EnclaveStream::new(stream))).await.is_err() {
                    // The server is stopping; the listener stays until it has.
                    return std::future::pending().await;
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept storage connections; is the limit on open files too low?");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[derive(Debug)]
struct Service {
    store: Store,
    archive: Archive,
    metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl StorageService for Service {
    async fn put_blobs(
        &self,
        request: Request<PutBlobsRequest>,
    ) -> Result<Response<PutBlobsResponse>, Status> {
        self.measured(Operation::Put, async {
            self.store.put(batch(request.into_inner())?).await?;
            Ok(PutBlobsResponse {})
        })
        .await
    }

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<GetBlobResponse>, Status> {
        let GetBlobRequest { name } = request.into_inner();
        self.measured(Operation::Get, async {
            let name = BlobName::try_from(name).map_err(|error| refused("name", error))?;
            match self.store.get(name).await? {
                Some(blob) => Ok(GetBlobResponse { blob }),
                None => Err(Status::not_found("no blob of that name")),
            }
        })
        .await
    }

    async fn list_blobs(
        &self,
        request: Request<ListBlobsRequest>,
    ) -> Result<Response<ListBlobsResponse>, Status> {
        let ListBlobsRequest {
            prefix,
            after,
            page_size,
        } = request.into_inner();
        self.measured(Operation::List, async {
            let prefix =
                NameFragment::try_from(prefix).map_err(|error| refused("prefix", error))?;
            let after = NameFragment::try_from(after).map_err(|error| refused("after", error))?;
            let count = if page_size == 0 {
                MAX_PAGE
            } else {
                page_size.min(MAX_PAGE)
            };
            let names = self.store.list(prefix, after, count as usize).await?;
            Ok(ListBlobsResponse { names })
        })
        .await
    }

    async fn get_log_file(
        &self,
        request: Request<GetLogFileRequest>,
    ) -> Result<Response<GetLogFileResponse>, Status> {
        let GetLogFileRequest { path } = request.into_inner();
        self.measured(Operation::Log, async {
            let path: LogPath = path
                .parse()
                .map_err(|error: NoLogPath| Status::invalid_argument(format!("path {error}")))?;
            match self.archive.read(path).await? {
                Some(content) => Ok(GetLogFileResponse { content }),
                None => Err(Status::not_found("the log has no such file")),
            }
        })
        .await
    }

    async fn list_logs(
        &self,
        _: Request<ListLogsRequest>,
    ) -> Result<Response<ListLogsResponse>, Status> {
        self.measured(Operation::Log, async {
            let extents = self.archive.extents().await?.into_iter();
            let logs = extents.map(|extent| list_logs_response::Log {
                number: extent.number,
                size: extent.size,
                checkpoint_size: extent.checkpoint_size,
                archived: extent.archived,
            });
            Ok(ListLogsResponse {
                logs: logs.collect(),
            })
        })
        .await
    }
}

impl Service {
    async fn measured<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let since = Instant::now();
        let result = call.await;
        let outcome = match &result {
            Ok(_) => "ok",
            Err(status) => match status.code() {
                tonic::Code::InvalidArgument => "refused",
                tonic::Code::NotFound => "not_found",
                tonic::Code::ResourceExhausted => "full",
                tonic::Code::Aborted => "conflict",
                tonic::Code::Unavailable => "stopping",
                _ => "fault",
            },
        };
        self.metrics.stored(operation, outcome, since);
        result.map(Response::new)
    }
}

/// The batch of a request, within all bounds.
fn batch(request: PutBlobsRequest) -> Result<Batch, Status> {
    let invalid = |message: String| Err(Status::invalid_argument(message));
    let (most, most_bytes) = MAX_BATCH;
    if request.blobs.is_empty() || request.blobs.len() > most {
        return invalid(format!(
            "blobs are {}, not 1 to {most}",
            request.blobs.len()
        ));
    }
    let mut names = BTreeSet::new();
    let mut bytes = 0usize;
    let mut blobs = Vec::with_capacity(request.blobs.len());
    for put_blobs_request::Blob { name, blob } in request.blobs {
        if blob.len() > MAX_BLOB {
            return invalid(format!(
                "blob is {} bytes long, the most is {MAX_BLOB}",
                blob.len()
            ));
        }
        bytes = bytes.saturating_add(blob.len());
        if !names.insert(name.clone()) {
            return invalid(format!("blobs name {} twice", name.escape_default()));
        }
        let name = BlobName::try_from(name).map_err(|error| refused("name", error))?;
        blobs.push((name, blob));
    }
    if bytes > most_bytes {
        return invalid(format!(
            "blobs are {bytes} bytes long together, the most is {most_bytes}"
        ));
    }
    let guard =
        match request.guard {
            None => None,
            Some(put_blobs_request::Guard { name, sha256 }) => Some(Guard {
                name: BlobName::try_from(name).map_err(|error| refused("guard.name", error))?,
                sha256: match sha256.as_slice() {
                    [] => None,
                    bytes => Some(bytes.try_into().map_err(|_| {
                        Status::invalid_argument("guard.sha256: 32 bytes, or none")
                    })?),
                },
            }),
        };
    Ok(Batch {
        blobs,
        guard,
        ..Batch::default()
    })
}

fn refused(field: &str, error: NameError) -> Status {
    Status::invalid_argument(format!("{field} {error}"))
}

impl From<StorageError> for Status {
    fn from(error: StorageError) -> Self {
        let message = error.to_string();
        match error {
            StorageError::Quota { .. } | StorageError::Full(_) => Self::resource_exhausted(message),
            StorageError::Conflict(_) => Self::aborted(message),
            StorageError::Fault(_) => Self::internal(message),
            StorageError::Stopped => Self::unavailable(message),
        }
    }
}

impl From<LogError> for Status {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Storage(error) => error.into(),
            LogError::Files(error) => Self::unavailable(error.to_string()),
            LogError::Damage(damage) => Self::data_loss(damage.to_string()),
        }
    }
}
