//! What the tests of the host share: a host in a folder of its own, a stand-in for its enclave, an HTTP
//! visitor. Every wait is for an event and gives up after [`PATIENCE`].

#![allow(dead_code)]

pub mod exposition;
pub mod log;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_host::{Config, ENCLAVE_SOCKET, Handle, Host, STORAGE_SOCKET, Transport};
use arca_proto::v1::metrics_service_client::MetricsServiceClient;
use arca_proto::v1::storage_service_client::StorageServiceClient;
use arca_proto::v1::{PutBlobsRequest, put_blobs_request::Blob};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint};

/// Far beyond what anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for an event, but not for ever.
pub async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event)
        .await
        .expect("nothing happened for a minute")
}

/// A folder that goes when the test goes.
pub fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("arca-host")
        .tempdir()
        .unwrap()
}

/// A configuration in a folder, on free ports.
pub fn config_in(folder: &Path) -> Config {
    let text = format!(
        "party = \"ceo\"\nlisten = \"127.0.0.1:0\"\nsockets = {sockets:?}\n\
         [storage]\npath = {storage:?}\n[metrics]\nlisten = \"127.0.0.1:0\"\n",
        sockets = folder.join("sockets"),
        storage = folder.join("ceo.redb"),
    );
    Config::from_toml(&text, Path::new("test.toml")).unwrap()
}

/// The folder of a configuration's sockets.
pub fn sockets_of(config: &Config) -> &Path {
    match &config.transport {
        Transport::Unix(folder) => folder,
        Transport::Vsock(_) => panic!("the tests' hosts have sockets"),
    }
}

/// A running host with its folder.
pub struct Running {
    pub host: Handle,
    pub folder: TempDir,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = folder();
        let mut config = config_in(folder.path());
        change(&mut config);
        let host = soon(Host::start(config)).await.unwrap();
        Self { host, folder }
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join("sockets").join(name)
    }

    /// Listens where the enclave would.
    pub fn enclave(&self) -> UnixListener {
        UnixListener::bind(self.socket(ENCLAVE_SOCKET)).unwrap()
    }

    pub async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.host.listen_address()))
            .await
            .unwrap()
    }

    pub async fn storage(&self) -> StorageServiceClient<Channel> {
        storage_at(&self.socket(STORAGE_SOCKET)).await
    }

    /// A connection of its own, over which the enclave would report its metrics.
    pub async fn reports(&self) -> MetricsServiceClient<Channel> {
        MetricsServiceClient::new(channel_to(&self.socket(STORAGE_SOCKET)).await)
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.host.metrics_address().unwrap(), path).await
    }

    /// Value of a series; 0 when it is not there. `labels` in any order, without the party.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let (_, page) = self.get("/metrics").await;
        let series = page.lines().find(|line| {
            (line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")))
                && labels
                    .iter()
                    .all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        });
        series.map_or(0.0, |line| {
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        })
    }

    /// Waits until a series has a value.
    pub async fn metric_becomes(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let wait = async { while self.metric(name, labels).await != value {} };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let now = self.metric(name, labels).await;
            panic!("{name}{labels:?} is {now}, not {value}");
        }
    }
}

pub async fn storage_at(socket: &Path) -> StorageServiceClient<Channel> {
    StorageServiceClient::new(channel_to(socket).await)
}

/// A call that stores these, whatever is there.
pub fn to_put(blobs: &[(&str, &[u8])]) -> PutBlobsRequest {
    let blobs = blobs.iter().map(|&(name, blob)| Blob {
        name: name.into(),
        blob: blob.into(),
    });
    PutBlobsRequest {
        blobs: blobs.collect(),
        guard: None,
    }
}

/// A new connection to a socket that speaks gRPC.
pub async fn channel_to(socket: &Path) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    soon(endpoint.connect()).await.unwrap()
}

/// One HTTP request; status and body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"),
    )
    .await
}

pub async fn request(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let status = answer.get(9..12).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

/// Accepts one connection, as the enclave would.
pub async fn accept(listener: &UnixListener) -> UnixStream {
    soon(listener.accept()).await.unwrap().0
}

/// Reads exactly so many bytes.
pub async fn read(stream: &mut (impl AsyncReadExt + Unpin), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// Waits for the other side to end; what came before it. A reset is an end too.
pub async fn read_to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    bytes
}
