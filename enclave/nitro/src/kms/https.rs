//! One HTTPS request over the host's relay. TLS begins here and ends at KMS; the host carries bytes.

use std::{fmt, io, sync::Arc, time::Duration};

use arca_enclave::platform::HostEndpoint;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
    version::TLS13,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::KmsError;
use crate::{clock::Clock, transport::Transport};

/// Largest answer: a ciphertext of KMS has at most 6144 bytes, and an envelope less.
const MAX_ANSWER: usize = 64 * 1024;
/// Largest head of an answer; the least that hyper has.
const MAX_HEAD: usize = 8 * 1024;

/// Connects to one server, by one name, under given roots.
pub(crate) struct Https {
    transport: Arc<dyn Transport>,
    connector: TlsConnector,
    server: ServerName<'static>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) request_id: Option<String>,
    pub(crate) body: Bytes,
}

/// Certificates are judged by the NSM's clock. The host has none in this.
struct EnclaveTime(Arc<Clock>);

impl TimeProvider for EnclaveTime {
    fn current_time(&self) -> Option<UnixTime> {
        let now = Duration::from_millis(self.0.now().0);
        Some(UnixTime::since_unix_epoch(now))
    }
}

impl fmt::Debug for EnclaveTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnclaveTime")
    }
}

impl Https {
    /// For `server` under `roots`.
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<Clock>,
        server: &str,
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone())?;
        }
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(EnclaveTime(clock)))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = ServerName::try_from(server.to_owned())
            .map_err(|_| rustls::Error::General("the server's name is none".to_owned()))?;
        Ok(Self {
            transport,
            connector: TlsConnector::from(Arc::new(config)),
            server,
        })
    }

    /// Sends one request on a connection of its own. Bound it by a timeout.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, KmsError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        let asked = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| broken(&error))?;
            let status = response.status().as_u16();
            let request_id = response.headers().get("x-amzn-requestid");
            let request_id = request_id
                .and_then(|id| id.to_str().ok())
                .filter(|id| id.len() <= 64)
                .map(str::to_owned);
            let body = Limited::new(response.into_body(), MAX_ANSWER);
            let body = body.collect().await.map_err(|error| match error
                .downcast_ref::<http_body_util::LengthLimitError>(
            ) {
                Some(_) => KmsError::Answer(format!("it has more than {MAX_ANSWER} bytes")),
                None => unreachable(&error),
            })?;
            Ok(Answer {
                status,
                request_id,
                body: body.to_bytes(),
            })
        };
        tokio::pin!(asked, connection);
        tokio::select! {
            answer = &mut asked => answer,
            // It can end before what it has read is taken; what went wrong with it, the request says.
            _ = &mut connection => asked.await,
        }
    }

    async fn connect(&self) -> Result<TlsStream<arca_enclave::platform::BoxedStream>, KmsError> {
        let stream = self
            .transport
            .connect(HostEndpoint::Kms)
            .await
            .map_err(|error| unreachable(&error))?;
        self.connector
            .connect(self.server.clone(), stream)
            .await
            .map_err(|error| of_tls(&error))
    }
}

/// A TLS error, or the stream's.
fn of_tls(error: &io::Error) -> KmsError {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(tls) => KmsError::Tls(tls.to_string()),
        None => unreachable(error),
    }
}

/// The connection failed after TLS stood: by whatever carries it, or because what came is no HTTP.
fn broken(error: &hyper::Error) -> KmsError {
    if error.is_parse() {
        KmsError::Answer(error.to_string())
    } else {
        unreachable(error)
    }
}

fn unreachable(error: &dyn fmt::Display) -> KmsError {
    KmsError::Unreachable(error.to_string())
}
