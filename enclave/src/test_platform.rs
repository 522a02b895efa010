//! A platform for this crate's unit tests: no network, no evidence, a key and a host's disk in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use arca_attestation::{TrustAnchors, TrustClass, UnixMillis};
use arca_proto::v1::{
    GetBlobRequest, GetBlobResponse, GetLogFileRequest, GetLogFileResponse, ListBlobsRequest,
    ListBlobsResponse, ListLogsRequest, ListLogsResponse, PutBlobsRequest, PutBlobsResponse,
    storage_service_server::{StorageService, StorageServiceServer},
};
use rand_core::{OsRng, RngCore};
use tonic::{Request, Response, Status, transport::Server};

use crate::platform::{BoxedStream, DataKey, HostEndpoint, Platform, PlatformError};

pub struct TestPlatform {
    kek: [u8; 32],
    stuck: bool,
    anchors: TrustAnchors,
    disk: Arc<Mutex<Disk>>,
    lose_answer: Arc<AtomicBool>,
}

type Disk = BTreeMap<String, Vec<u8>>;

impl TestPlatform {
    pub fn new() -> Self {
        let mut kek = [0; 32];
        OsRng.fill_bytes(&mut kek);
        Self {
            kek,
            stuck: false,
            anchors: TrustAnchors::production(),
            disk: Arc::default(),
            lose_answer: Arc::default(),
        }
    }

    /// What the host has stored.
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// The next blobs are stored, and the enclave does not hear of it.
    pub fn lose_next_answer(&self) {
        self.lose_answer.store(true, Ordering::Relaxed);
    }

    pub fn with_stuck_random() -> Self {
        Self {
            stuck: true,
            ..Self::new()
        }
    }
}

#[tonic::async_trait]
impl Platform for TestPlatform {
    fn class(&self) -> TrustClass {
        TrustClass::Simulated
    }

    fn anchors(&self) -> &TrustAnchors {
        &self.anchors
    }

    async fn evidence(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<Vec<u8>, PlatformError> {
        Err(PlatformError::Failed {
            operation: "evidence",
            cause: "none here".into(),
        })
    }

    fn kek_id(&self) -> String {
        "test".into()
    }

    async fn wrap(&self, key: &DataKey, header: &[u8]) -> Result<Vec<u8>, PlatformError> {
        Ok(Aes256Gcm::new(&self.kek.into())
            .encrypt(
                &[0; 12].into(),
                Payload {
                    msg: key.expose(),
                    aad: header,
                },
            )
            .unwrap())
    }

    async fn unwrap(&self, wrapped: &[u8], header: &[u8]) -> Result<DataKey, PlatformError> {
        let bytes = Aes256Gcm::new(&self.kek.into())
            .decrypt(
                &[0; 12].into(),
                Payload {
                    msg: wrapped,
                    aad: header,
                },
            )
            .map_err(|_| PlatformError::NotAuthentic)?;
        let mut key = <[u8; 32]>::try_from(bytes).map_err(|_| PlatformError::NotAuthentic)?;
        Ok(DataKey::take(&mut key))
    }

    fn random(&self, out: &mut [u8]) -> Result<(), PlatformError> {
        if self.stuck {
            out.fill(4);
        } else {
            OsRng.fill_bytes(out);
        }
        Ok(())
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }

    async fn accept(&self) -> std::io::Result<BoxedStream> {
        std::future::pending().await
    }

    async fn connect(&self, endpoint: HostEndpoint) -> std::io::Result<BoxedStream> {
        assert_eq!(endpoint, HostEndpoint::Storage);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let storage =
            StorageServiceServer::new(MemoryHost(self.disk.clone(), self.lose_answer.clone()));
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(theirs));
        tokio::spawn(
            Server::builder()
                .add_service(storage)
                .serve_with_incoming(incoming),
        );
        Ok(Box::new(ours))
    }
}

struct MemoryHost(Arc<Mutex<Disk>>, Arc<AtomicBool>);

#[tonic::async_trait]
impl StorageService for MemoryHost {
    async fn put_blobs(
        &self,
        request: Request<PutBlobsRequest>,
    ) -> Result<Response<PutBlobsResponse>, Status> {
        let request = request.into_inner();
        let mut disk = self.0.lock().unwrap();
        if let Some(guard) = request.guard {
            let there = disk
                .get(&guard.name)
                .map(|blob| crate::sealing::digest(blob).to_vec());
            if there.unwrap_or_default() != guard.sha256 {
                return Err(Status::aborted("something else is there"));
            }
        }
        disk.extend(request.blobs.into_iter().map(|blob| (blob.name, blob.blob)));
        if self.1.swap(false, Ordering::Relaxed) {
            return Err(Status::unavailable("lost"));
        }
        Ok(Response::new(PutBlobsResponse {}))
    }

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<GetBlobResponse>, Status> {
        let blob = self
            .0
            .lock()
            .unwrap()
            .get(&request.into_inner().name)
            .cloned();
        let blob = blob.ok_or_else(|| Status::not_found("none"))?;
        Ok(Response::new(GetBlobResponse { blob }))
    }

    async fn list_blobs(
        &self,
        _: Request<ListBlobsRequest>,
    ) -> Result<Response<ListBlobsResponse>, Status> {
        let names = self.0.lock().unwrap().keys().cloned().collect();
        Ok(Response::new(ListBlobsResponse { names }))
    }

    async fn get_log_file(
        &self,
        _: Request<GetLogFileRequest>,
    ) -> Result<Response<GetLogFileResponse>, Status> {
        Err(Status::unimplemented("no log"))
    }

    async fn list_logs(
        &self,
        _: Request<ListLogsRequest>,
    ) -> Result<Response<ListLogsResponse>, Status> {
        Err(Status::unimplemented("no log"))
    }
}
