//! Between an enclave and its host: calls of the storage that are held, altered or not made, and outgoing bytes
//! that are held. What a malicious host can do to the order of things, and where a kill can come.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use arca_host::{DIAL_SOCKET, ENCLAVE_SOCKET, STORAGE_SOCKET};
use arca_proto::v1::{
    GetBlobRequest, GetBlobResponse, GetLogFileRequest, GetLogFileResponse, ListBlobsRequest,
    ListBlobsResponse, ListLogsRequest, ListLogsResponse, PutBlobsRequest, PutBlobsResponse,
    ReportMetricsRequest, ReportMetricsResponse,
    metrics_service_client::MetricsServiceClient,
    metrics_service_server::{MetricsService, MetricsServiceServer},
    storage_service_client::StorageServiceClient,
    storage_service_server::{StorageService, StorageServiceServer},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{oneshot, watch},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server},
};

use crate::common::{PATIENCE, Running};

/// What stands between one party's enclave and its host.
pub struct Interposed {
    pub storage: Storage,
    pub links: Links,
}

impl Running {
    /// Restarts a party with its enclave's sockets led through this process.
    pub async fn interpose(&mut self, party: &str) -> Interposed {
        self.cluster.party_mut(party).unwrap().stop().await;
        let (hosts, enclaves) = (
            self.file(&format!("{party}/run")),
            self.file(&format!("{party}/led")),
        );
        let mut folder = fs::DirBuilder::new();
        folder.mode(0o700).create(&enclaves).unwrap();
        let config = self.cluster.party(party).unwrap().paths().enclave;
        let text = fs::read_to_string(&config).unwrap();
        let led = text.replace(hosts.to_str().unwrap(), enclaves.to_str().unwrap());
        assert_ne!(led, text);
        fs::write(config, led).unwrap();
        // What the enclave listened on stays behind.
        fs::remove_file(hosts.join(ENCLAVE_SOCKET)).unwrap();
        std::os::unix::fs::symlink(enclaves.join(ENCLAVE_SOCKET), hosts.join(ENCLAVE_SOCKET))
            .unwrap();
        let interposed = Interposed {
            storage: Storage::listen(&enclaves, &hosts),
            links: Links::listen(&enclaves, &hosts),
        };
        self.cluster.start_party(party).await.unwrap();
        interposed
    }
}

/// The storage as the enclave sees it. What is not told otherwise goes to the host.
#[derive(Clone)]
pub struct Storage {
    host: StorageServiceClient<Channel>,
    metrics: MetricsServiceClient<Channel>,
    rules: Arc<Mutex<Rules>>,
}

#[derive(Default)]
struct Rules {
    hold: VecDeque<Hold>,
    /// What every put that is not held is answered, instead of being made.
    refusal: Option<Status>,
    /// Every put that went to the host and was taken.
    stored: Vec<PutBlobsRequest>,
}

struct Hold {
    which: fn(&PutBlobsRequest) -> bool,
    held: oneshot::Sender<Held>,
}

/// A put that the host has not seen, and whose caller waits. One that is dropped is answered as lost.
pub struct Held {
    pub request: PutBlobsRequest,
    storage: Storage,
    answer: Option<oneshot::Sender<Result<(), Status>>>,
}

impl Held {
    /// Has the host carry it out, now, whoever waits or does not.
    pub async fn deliver(&self) -> Result<(), Status> {
        self.storage.make(self.request.clone()).await
    }

    /// Tells the caller.
    pub fn answer(&mut self, answer: Result<(), Status>) {
        // A caller that was killed does not hear it.
        let _ = self.answer.take().expect("one answer").send(answer);
    }
}

/// Whether a put makes nothing but an entry of the state's history, such as the intent to sign.
pub fn is_entry(put: &PutBlobsRequest) -> bool {
    names(put) == ["anchor"]
}

/// Whether a put changes the sealed state.
pub fn is_change(put: &PutBlobsRequest) -> bool {
    names(put).contains(&"anchor")
}

fn names(put: &PutBlobsRequest) -> Vec<&str> {
    put.blobs.iter().map(|blob| blob.name.as_str()).collect()
}

impl Storage {
    fn listen(enclaves: &Path, hosts: &Path) -> Self {
        let socket = format!("unix://{}", hosts.join(STORAGE_SOCKET).display());
        let channel = Endpoint::from_shared(socket).unwrap().connect_lazy();
        let storage = Self {
            host: StorageServiceClient::new(channel.clone()),
            metrics: MetricsServiceClient::new(channel),
            rules: Arc::default(),
        };
        let listener = UnixListener::bind(enclaves.join(STORAGE_SOCKET)).unwrap();
        let server = Server::builder()
            .add_service(
                StorageServiceServer::new(storage.clone()).max_decoding_message_size(1 << 24),
            )
            .add_service(MetricsServiceServer::new(storage.clone()));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        storage
    }

    /// Holds the next put of this kind.
    pub fn arm(&self, which: fn(&PutBlobsRequest) -> bool) -> Armed {
        let (held, armed) = oneshot::channel();
        self.rules().hold.push_back(Hold { which, held });
        Armed(armed)
    }

    /// Answers every put with this and stores nothing, until it is told otherwise.
    pub fn refuse(&self, refusal: Option<Status>) {
        self.rules().refusal = refusal;
    }

    /// Every version of a blob that the host ever took, the oldest first.
    pub fn versions(&self, name: &str) -> Vec<Vec<u8>> {
        let rules = self.rules();
        let blobs = rules.stored.iter().flat_map(|put| &put.blobs);
        let versions = blobs.filter(|blob| blob.name == name);
        versions.map(|blob| blob.blob.clone()).collect()
    }

    /// When a blob was first stored, in the order of puts.
    pub fn stored_at(&self, name: &str) -> Option<usize> {
        let rules = self.rules();
        let has = |put: &PutBlobsRequest| put.blobs.iter().any(|blob| blob.name == name);
        rules.stored.iter().position(has)
    }

    async fn make(&self, put: PutBlobsRequest) -> Result<(), Status> {
        self.host.clone().put_blobs(put.clone()).await?;
        self.rules().stored.push(put);
        Ok(())
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap()
    }
}

/// A hold that no put has reached yet.
pub struct Armed(oneshot::Receiver<Held>);

impl Armed {
    pub async fn reached(self) -> Held {
        tokio::time::timeout(PATIENCE, self.0)
            .await
            .expect("no such put came")
            .unwrap()
    }
}

#[tonic::async_trait]
impl StorageService for Storage {
    async fn put_blobs(
        &self,
        request: Request<PutBlobsRequest>,
    ) -> Result<Response<PutBlobsResponse>, Status> {
        let put = request.into_inner();
        let (hold, refusal) = {
            let mut rules = self.rules();
            let wanted = rules.hold.iter().position(|hold| (hold.which)(&put));
            let hold = wanted.and_then(|position| rules.hold.remove(position));
            (hold, rules.refusal.clone())
        };
        if let Some(hold) = hold {
            let (answer, answered) = oneshot::channel();
            let held = Held {
                request: put,
                storage: self.clone(),
                answer: Some(answer),
            };
            // A test that has ended needs no more calls.
            let _ = hold.held.send(held);
            answered
                .await
                .unwrap_or_else(|_| Err(Status::unavailable("lost")))?;
        } else if let Some(refusal) = refusal {
            return Err(refusal);
        } else {
            self.make(put).await?;
        }
        Ok(Response::new(PutBlobsResponse {}))
    }

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<GetBlobResponse>, Status> {
        self.host.clone().get_blob(request.into_inner()).await
    }

    async fn list_blobs(
        &self,
        request: Request<ListBlobsRequest>,
    ) -> Result<Response<ListBlobsResponse>, Status> {
        self.host.clone().list_blobs(request.into_inner()).await
    }

    async fn get_log_file(
        &self,
        request: Request<GetLogFileRequest>,
    ) -> Result<Response<GetLogFileResponse>, Status> {
        self.host.clone().get_log_file(request.into_inner()).await
    }

    async fn list_logs(
        &self,
        request: Request<ListLogsRequest>,
    ) -> Result<Response<ListLogsResponse>, Status> {
        self.host.clone().list_logs(request.into_inner()).await
    }
}

#[tonic::async_trait]
impl MetricsService for Storage {
    async fn report_metrics(
        &self,
        request: Request<ReportMetricsRequest>,
    ) -> Result<Response<ReportMetricsResponse>, Status> {
        let mut metrics = self.metrics.clone();
        metrics.report_metrics(request.into_inner()).await
    }
}

/// The links that the enclave dials. What goes out can be held.
pub struct Links {
    gate: Arc<watch::Sender<Gate>>,
    held: watch::Receiver<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Held,
    /// The links that were held are gone, with what they held.
    Cut,
}

impl Links {
    fn listen(enclaves: &Path, hosts: &Path) -> Self {
        let listener = UnixListener::bind(enclaves.join(DIAL_SOCKET)).unwrap();
        let host = hosts.join(DIAL_SOCKET);
        let gate = Arc::new(watch::Sender::new(Gate::Open));
        let (count, held) = watch::channel(0);
        let (from, count) = (Arc::clone(&gate), Arc::new(count));
        tokio::spawn(async move {
            while let Ok((enclave, _)) = listener.accept().await {
                tokio::spawn(carry(
                    enclave,
                    host.clone(),
                    from.subscribe(),
                    Arc::clone(&count),
                ));
            }
        });
        Self { gate, held }
    }

    /// Lets nothing out any more.
    pub fn hold(&self) {
        self.gate.send_replace(Gate::Held);
    }

    /// Waits until the enclave has tried to send something.
    pub async fn something_held(&mut self) {
        let some = self.held.wait_for(|held| *held > 0);
        tokio::time::timeout(PATIENCE, some).await.unwrap().unwrap();
    }

    /// Lets out what is held, and what follows.
    pub fn release(&self) {
        self.gate.send_replace(Gate::Open);
    }

    /// What is held is lost, and its links with it; new ones are carried again.
    pub async fn lose_held(&mut self) {
        self.gate.send_replace(Gate::Cut);
        let none = self.held.wait_for(|held| *held == 0);
        tokio::time::timeout(PATIENCE, none).await.unwrap().unwrap();
        self.gate.send_replace(Gate::Open);
    }
}

/// Carries one link; counts among `held` while it holds something.
async fn carry(
    enclave: UnixStream,
    host: PathBuf,
    mut gate: watch::Receiver<Gate>,
    held: Arc<watch::Sender<usize>>,
) {
    let Ok(host) = UnixStream::connect(host).await else {
        return;
    };
    let (mut from_enclave, mut to_enclave) = enclave.into_split();
    let (mut from_host, mut to_host) = host.into_split();
    let inward = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_host, &mut to_enclave).await;
    });
    let mut buffer = vec![0; 1 << 14];
    while let Ok(length) = from_enclave.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        if *gate.borrow() != Gate::Open {
            held.send_modify(|count| *count += 1);
            let opened = gate.wait_for(|gate| *gate != Gate::Held).await;
            let cut = opened.is_ok_and(|gate| *gate == Gate::Cut);
            held.send_modify(|count| *count -= 1);
            if cut {
                break;
            }
        }
        if to_host.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    inward.abort();
}
