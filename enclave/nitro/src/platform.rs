//! The platform itself: one enclave on an NSM, with KMS behind its host.

use std::{io, sync::Arc, time::Instant};

use arca_attestation::{TrustAnchors, TrustClass, UnixMillis};
use arca_enclave::platform::{BoxedStream, DataKey, HostEndpoint, Platform, PlatformError};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    Config,
    clock::{self, Clock, Dates},
    config::KmsConfig,
    kms::{self, Kms, Patience},
    nsm::{DevNsm, Nsm, NsmDevice},
    sealing::Sealing,
    transport::{Transport, VsockTransport},
};

/// First value of every encryption context.
const CONTEXT_VERSION: &str = "v1";

/// Why the platform cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no NSM.
    #[error(
        "/dev/nsm cannot be opened: this program runs inside an AWS Nitro enclave, as root and on a kernel with the NSM driver"
    )]
    NoNsm,
    /// The enclave was started in debug mode.
    #[error(
        "PCR0 is zero: the enclave runs in debug mode, where its host can read its console and nothing proves its \
         code; start it without --debug-mode"
    )]
    DebugMode,
    /// The trust anchors hold no NSM's root.
    #[error("the trust anchors have no root of NSMs")]
    NoNsmRoot,
    /// The host cannot be listened for.
    #[error("vsock port {port} cannot be listened on: {cause}")]
    Vsock {
        /// `vsock.enclave_port`.
        port: u32,
        /// What the system said.
        cause: io::Error,
    },
    /// The NSM failed, or says of itself what does not verify.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// What a platform stands on.
pub struct Machine {
    /// The NSM.
    pub nsm: Arc<dyn NsmDevice>,
    /// The way to the host.
    pub transport: Arc<dyn Transport>,
    /// The root of NSMs, for this enclave's own evidence and that of its peers.
    pub anchors: TrustAnchors,
    /// The roots of KMS' certificate.
    pub kms_roots: Vec<CertificateDer<'static>>,
    /// How long KMS is waited for.
    pub patience: Patience,
}

/// An enclave on an NSM, which seals under AWS KMS.
pub struct NitroPlatform {
    nsm: Nsm,
    anchors: TrustAnchors,
    class: TrustClass,
    clock: Arc<Clock>,
    transport: Arc<dyn Transport>,
    sealing: Arc<Sealing>,
    kek_id: String,
    _background: JoinSet<()>,
}

impl NitroPlatform {
    /// Starts on this enclave's own NSM, under AWS' roots. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let nsm = DevNsm::open().ok_or(StartError::NoNsm)?;
        let transport =
            VsockTransport::listen(config.vsock.clone()).map_err(|cause| StartError::Vsock {
                port: config.vsock.enclave_port,
                cause,
            })?;
        let machine = Machine {
            nsm: Arc::new(nsm),
            transport: Arc::new(transport),
            anchors: TrustAnchors::production(),
            kms_roots: kms::amazon(),
            patience: Patience::default(),
        };
        Self::danger_start_on(machine, &config.kms)
    }

    /// Starts on any NSM, under any roots.
    ///
    /// # Security
    /// For tests. Whoever chooses the NSM's root can forge this enclave and its peers, and whoever chooses the roots
    /// of KMS gets to choose the keys that everything is sealed under.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn danger_start_on(machine: Machine, sealing: &KmsConfig) -> Result<Self, StartError> {
        let nsm = Nsm::new(machine.nsm);
        nsm.check()?;
        let measurements = nsm.measurements()?;
        if measurements.is_debug() {
            return Err(StartError::DebugMode);
        }
        if !nsm.image_is_signed()? {
            tracing::warn!(
                "the image is not signed (PCR8 is zero): a key policy can name its PCR0 alone"
            );
        }
        let class = machine.anchors.nsm_class().ok_or(StartError::NoNsmRoot)?;
        let dates = Dates::new(nsm.clone(), machine.anchors.clone(), measurements)
            .ok_or(StartError::NoNsmRoot)?;
        // What verifies here would verify at a peer too.
        let (said, at): (UnixMillis, Instant) = dates.read()?;
        let clock = Arc::new(Clock::start(said, at));
        let kms = Kms::new(kms::Parts {
            key: sealing.key.clone(),
            context: context(sealing),
            transport: Arc::clone(&machine.transport),
            roots: machine.kms_roots,
            nsm: nsm.clone(),
            clock: Arc::clone(&clock),
            patience: machine.patience,
        })?;
        let mut background = JoinSet::new();
        background.spawn(clock::keep(Arc::clone(&clock), dates));
        let sealing_keys = Arc::new(Sealing::new(kms, nsm.clone()));
        background.spawn(prepare(Arc::clone(&sealing_keys)));
        Ok(Self {
            nsm,
            anchors: machine.anchors,
            class,
            clock,
            transport: machine.transport,
            sealing: sealing_keys,
            kek_id: sealing.key.kek_id(),
            _background: background,
        })
    }
}

/// Tells of trouble with KMS when it can be mended in peace, and not when the first blob is to be sealed.
async fn prepare(sealing: Arc<Sealing>) {
    if let Err(error) = sealing.prepare().await {
        tracing::warn!(%error, "nothing can be sealed yet; it is tried again when something has to be");
    }
}

fn context(config: &KmsConfig) -> serde_json::Value {
    let mut context = json!({ "arca": CONTEXT_VERSION });
    if let Some(fields) = context.as_object_mut() {
        for (name, value) in [("cluster", &config.cluster), ("party", &config.party)] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value.as_str().into());
            }
        }
    }
    context
}

impl std::fmt::Debug for NitroPlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NitroPlatform")
            .field("class", &self.class)
            .field("kek_id", &self.kek_id)
            .finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl Platform for NitroPlatform {
    fn class(&self) -> TrustClass {
        self.class
    }

    fn anchors(&self) -> &TrustAnchors {
        &self.anchors
    }

    async fn evidence(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, PlatformError> {
        let nsm = self.nsm.clone();
        let [nonce, user_data, public_key] = [nonce, user_data, public_key].map(<[u8]>::to_vec);
        tokio::task::spawn_blocking(move || nsm.attest(&nonce, &user_data, &public_key))
            .await
            .map_err(|error| PlatformError::Failed {
                operation: "making evidence",
                cause: error.to_string(),
            })?
    }

    async fn bind_manifest(&self, digest: &[u8; 48]) -> Result<(), PlatformError> {
        let (nsm, digest) = (self.nsm.clone(), *digest);
        tokio::task::spawn_blocking(move || nsm.bind(&digest))
            .await
            .map_err(|error| PlatformError::Failed {
                operation: "fixing the manifest in PCR16",
                cause: error.to_string(),
            })??;
        tracing::info!("the manifest is fixed in PCR16, and all PCRs are locked");
        Ok(())
    }

    fn kek_id(&self) -> String {
        self.kek_id.clone()
    }

    async fn wrap(&self, key: &DataKey, header: &[u8]) -> Result<Vec<u8>, PlatformError> {
        self.sealing.wrap(key, header).await
    }

    async fn unwrap(&self, wrapped: &[u8], header: &[u8]) -> Result<DataKey, PlatformError> {
        self.sealing.unwrap(wrapped, header).await
    }

    fn random(&self, out: &mut [u8]) -> Result<(), PlatformError> {
        self.nsm.random(out)
    }

    fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    async fn accept(&self) -> io::Result<BoxedStream> {
        self.transport.accept().await
    }

    async fn connect(&self, endpoint: HostEndpoint) -> io::Result<BoxedStream> {
        self.transport.connect(endpoint).await
    }
}
