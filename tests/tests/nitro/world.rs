//! An enclave, its way to the host, and KMS behind it. All streams are in memory.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arca_enclave::platform::{BoxedStream, DataKey, HostEndpoint, PlatformError};
use arca_enclave_nitro::config::KmsConfig;
use arca_enclave_nitro::kms::Patience;
use arca_enclave_nitro::transport::Transport;
use arca_enclave_nitro::{Machine, NitroPlatform, StartError};
use arca_proto::v1::credential_service_server::{CredentialService, CredentialServiceServer};
use arca_proto::v1::{GetCredentialsRequest, GetCredentialsResponse};
use tonic::{Request, Response, Status};

use crate::nsm::{MEASUREMENTS, SIGNER, SoftwareNsm, anchors};
use crate::standin::{ACCESS_KEY_ID, Authority, KEY, Policy, SECRET, StandIn, TOKEN};

pub const POLICY: Policy = Policy {
    pcr0: MEASUREMENTS.pcr0,
    pcr8: SIGNER,
    allows_decrypt: true,
};

pub struct World {
    pub nsm: Arc<SoftwareNsm>,
    pub authority: Authority,
    pub kms: Arc<StandIn>,
    pub host: Arc<Host>,
    pub patience: Patience,
    pub config: KmsConfig,
}

type Answer = Result<(String, String, String), Status>;

/// The host as far as sealing needs it.
pub struct Host {
    kms: Arc<StandIn>,
    /// Whether the relay reaches KMS.
    up: AtomicBool,
    credentials: Arc<Mutex<Answer>>,
}

impl World {
    pub fn new() -> Self {
        let nsm = Arc::new(SoftwareNsm::new());
        let authority = Authority::new("root of the tests");
        let clock = Arc::clone(&nsm);
        let kms = StandIn::new(anchors(), &authority, POLICY, move || clock.now());
        let kms = Arc::new(kms);
        let credentials = (ACCESS_KEY_ID.into(), SECRET.into(), TOKEN.into());
        Self {
            nsm,
            authority,
            host: Arc::new(Host {
                kms: Arc::clone(&kms),
                up: AtomicBool::new(true),
                credentials: Arc::new(Mutex::new(Ok(credentials))),
            }),
            kms,
            patience: Patience {
                attempt: Duration::from_secs(20),
                attempts: 3,
                pause: Duration::from_millis(5),
            },
            config: KmsConfig {
                key: KEY.to_owned().try_into().unwrap(),
                cluster: Some("sim-test".into()),
                party: Some("ceo".into()),
            },
        }
    }

    /// Starts the enclave on its NSM, with a new key for replies each time.
    pub fn try_start(&self) -> Result<NitroPlatform, StartError> {
        let machine = Machine {
            nsm: Arc::clone(&self.nsm) as _,
            transport: Arc::clone(&self.host) as _,
            anchors: anchors(),
            kms_roots: vec![self.authority.root()],
            patience: self.patience,
        };
        NitroPlatform::danger_start_on(machine, &self.config)
    }

    pub fn start(&self) -> NitroPlatform {
        self.try_start().unwrap()
    }
}

impl Host {
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    pub fn set_credentials(&self, credentials: Result<(&str, &str, &str), Status>) {
        *self.credentials.lock().unwrap() =
            credentials.map(|(id, secret, token)| (id.into(), secret.into(), token.into()));
    }
}

struct Credentials(Arc<Mutex<Answer>>);

#[tonic::async_trait]
impl CredentialService for Credentials {
    async fn get_credentials(
        &self,
        _: Request<GetCredentialsRequest>,
    ) -> Result<Response<GetCredentialsResponse>, Status> {
        let (access_key_id, secret_access_key, session_token) = self.0.lock().unwrap().clone()?;
        Ok(Response::new(GetCredentialsResponse {
            access_key_id,
            secret_access_key,
            session_token,
        }))
    }
}

#[tonic::async_trait]
impl Transport for Host {
    async fn accept(&self) -> io::Result<BoxedStream> {
        std::future::pending().await
    }

    async fn connect(&self, endpoint: HostEndpoint) -> io::Result<BoxedStream> {
        let (near, far) = tokio::io::duplex(1 << 16);
        match endpoint {
            HostEndpoint::Kms if !self.up.load(Ordering::Relaxed) => {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            HostEndpoint::Kms => {
                tokio::spawn(Arc::clone(&self.kms).serve(far));
            }
            HostEndpoint::Storage => {
                let credentials = Credentials(Arc::clone(&self.credentials));
                let incoming = tokio_stream::once(Ok::<_, io::Error>(far));
                tokio::spawn(
                    tonic::transport::Server::builder()
                        .add_service(CredentialServiceServer::new(credentials))
                        .serve_with_incoming(incoming),
                );
            }
            HostEndpoint::Dial => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(Box::new(near))
    }
}

pub fn data_key(byte: u8) -> DataKey {
    DataKey::take(&mut [byte; 32])
}

/// The cause of a failure that will not pass.
pub fn failed<T>(result: Result<T, PlatformError>) -> String {
    match result {
        Err(PlatformError::Failed { cause, .. }) => cause,
        Err(other) => panic!("another failure: {other}"),
        Ok(_) => panic!("it succeeded"),
    }
}

/// The cause of a failure that may pass.
pub fn unavailable<T>(result: Result<T, PlatformError>) -> String {
    match result {
        Err(PlatformError::Unavailable { cause, .. }) => cause,
        Err(other) => panic!("another failure: {other}"),
        Ok(_) => panic!("it succeeded"),
    }
}
