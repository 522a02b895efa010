//! The platform itself: evidence from the local NSM, wrapping under a key in a file, Unix sockets.

use std::{
    fmt, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{self, Aead, Payload},
};
use arca_attestation::{Measurements, TrustAnchors, TrustClass, UnixMillis};
use arca_enclave::{
    platform::{BoxedStream, DataKey, HostEndpoint, Platform, PlatformError},
    unix::{SocketError, UnixSockets},
};
use arca_wipe::wiped;
use rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    Config,
    files::{self, FileError},
    nsm::{LocalRoot, Nsm, NsmError, Request, measure},
};

/// The key-encryption key's file in the hardware's folder: 32 bytes, mode 0600.
const KEK_FILE: &str = "kek";
const KEK: usize = 32;
const NONCE: usize = 12;

/// Why the platform cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The local NSM or its root.
    #[error(transparent)]
    Nsm(#[from] NsmError),
    /// A file of the hardware's folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The socket to listen on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The root certificate cannot be used as a trust anchor.
    #[error("the local root: {0}")]
    Root(#[from] arca_attestation::Error),
}

/// One simulated machine with one enclave on it.
pub struct SimulatedPlatform {
    nsm: Nsm,
    anchors: TrustAnchors,
    kek: Zeroizing<Vec<u8>>,
    kek_id: String,
    sockets: UnixSockets,
}

impl SimulatedPlatform {
    /// Powers the machine on: loads the root, loads or makes the key-encryption key, measures this program,
    /// listens. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`], naming the file.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let root = LocalRoot::load(&config.root)?;
        let anchors = TrustAnchors::simulated(&root.certificate_der()?)?;
        let kek = load_or_make_kek(&config.hardware)?;
        let digest = Sha256::new()
            .chain_update(b"arca/v1/simulated-kek-id")
            .chain_update(&kek[..])
            .finalize();
        let kek_id: String = hex::encode(digest).chars().take(16).collect();
        let module_id = format!("i-simulated-enc{kek_id}");
        let nsm = Nsm::new(&root, &module_id, &measure_myself()?, &mut OsRng, now())?;
        let sockets = UnixSockets::listen(&config.sockets)?;
        Ok(Self {
            nsm,
            anchors,
            kek,
            kek_id,
            sockets,
        })
    }

    fn encrypt(&self, nonce: &[u8; NONCE], payload: Payload<'_, '_>) -> aead::Result<Vec<u8>> {
        wiped(|| Aes256Gcm::new(self.kek.as_slice().into()).encrypt(nonce.into(), payload))
    }

    fn decrypt(&self, nonce: &[u8], payload: Payload<'_, '_>) -> aead::Result<Vec<u8>> {
        wiped(|| Aes256Gcm::new(self.kek.as_slice().into()).decrypt(nonce.into(), payload))
    }
}

impl fmt::Debug for SimulatedPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedPlatform")
            .field("kek_id", &self.kek_id)
            .finish_non_exhaustive()
    }
}

/// PCR 0 is this very program; PCR 1 and 2 stand for a kernel and its first process, which do not exist here.
///
/// # Errors
/// When the program cannot read itself.
pub fn measure_myself() -> Result<Measurements, FileError> {
    let program = files::read(Path::new("/proc/self/exe"))?;
    Ok(measure_program(&program))
}

/// What [`measure_myself`] gives for a program with these bytes.
pub fn measure_program(program: &[u8]) -> Measurements {
    Measurements {
        pcr0: measure(program),
        pcr1: measure(b"arca simulated platform: no kernel of its own"),
        pcr2: measure(b"arca simulated platform: no init of its own"),
    }
}

#[tonic::async_trait]
impl Platform for SimulatedPlatform {
    fn class(&self) -> TrustClass {
        TrustClass::Simulated
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
        let request = Request {
            nonce: Some(nonce),
            user_data: Some(user_data),
            public_key: Some(public_key),
        };
        self.nsm
            .attest(&request, now(), &mut OsRng)
            .map_err(|error| PlatformError::Failed {
                operation: "making evidence",
                cause: error.to_string(),
            })
    }

    fn kek_id(&self) -> String {
        self.kek_id.clone()
    }

    async fn wrap(&self, key: &DataKey, header: &[u8]) -> Result<Vec<u8>, PlatformError> {
        let mut nonce = [0; NONCE];
        self.random(&mut nonce)?;
        let wrapped = self
            .encrypt(
                &nonce,
                Payload {
                    msg: key.expose(),
                    aad: header,
                },
            )
            .map_err(|_| PlatformError::Failed {
                operation: "wrapping a key",
                cause: "AES-GCM refused".to_owned(),
            })?;
        Ok([nonce.as_slice(), &wrapped].concat())
    }

    async fn unwrap(&self, wrapped: &[u8], header: &[u8]) -> Result<DataKey, PlatformError> {
        let (nonce, ciphertext) = wrapped
            .split_at_checked(NONCE)
            .ok_or(PlatformError::NotAuthentic)?;
        let key = self
            .decrypt(
                nonce,
                Payload {
                    msg: ciphertext,
                    aad: header,
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| PlatformError::NotAuthentic)?;
        DataKey::copy(&key).ok_or(PlatformError::NotAuthentic)
    }

    fn random(&self, out: &mut [u8]) -> Result<(), PlatformError> {
        OsRng
            .try_fill_bytes(out)
            .map_err(|error| PlatformError::Failed {
                operation: "drawing randomness",
                cause: error.to_string(),
            })
    }

    fn now(&self) -> UnixMillis {
        now()
    }

    async fn accept(&self) -> io::Result<BoxedStream> {
        self.sockets.accept().await
    }

    async fn connect(&self, endpoint: HostEndpoint) -> io::Result<BoxedStream> {
        self.sockets.connect(endpoint).await
    }
}

fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn load_or_make_kek(hardware: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    files::private_folder(hardware)?;
    let path = hardware.join(KEK_FILE);
    match files::read_private(&path)? {
        Some(kek) if kek.len() == KEK => Ok(kek),
        Some(_) => Err(FileError::contents(
            &path,
            "a key-encryption key of 32 bytes",
        )),
        None => {
            let mut kek = Zeroizing::new(vec![0; KEK]);
            OsRng.fill_bytes(&mut kek[..]);
            files::create_private(&path, &kek[..])?;
            Ok(kek)
        }
    }
}
