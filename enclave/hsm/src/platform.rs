//! The platform itself: evidence, identity and wrapping by keys in the token, Unix sockets to the host.

use std::{
    fmt, io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arca_attestation::{
    Expected, ReferenceValues, TrustAnchors, TrustClass, UnixMillis,
    hsm::{self, Statement, Token},
    verify_live,
};
use arca_enclave::{
    platform::{
        BoxedStream, DataKey, HardwareKey, HardwareKeyError, HostEndpoint, Platform, PlatformError,
    },
    unix::UnixSockets,
};
use cryptoki::{
    error::Error as CallError,
    mechanism::{Mechanism, aead::GcmParams},
    object::ObjectHandle,
    session::Session,
};
use rand_core::{OsRng, RngCore as _};
use sha2::{Digest as _, Sha384};
use zeroize::Zeroizing;

use crate::{
    Config, HsmError,
    certificates::CertificatePath,
    ec,
    keys::Names,
    module::{Module, brief, stated},
    pin::Pin,
    pool::{Failure, Open, Pool},
};

const IV: usize = 12;
const TAG: usize = 16;
const TAG_BITS: u64 = 128;
const DATA_KEY: usize = 32;
const WRAPPED: usize = IV + DATA_KEY + TAG;

const MAKING_EVIDENCE: &str = "making evidence";
const SIGNING: &str = "signing with the identity key";
const WRAPPING: &str = "wrapping a key";
const UNWRAPPING: &str = "unwrapping a key";
const DRAWING: &str = "drawing randomness";

/// A party whose keys are in one token.
pub struct HsmPlatform {
    identity: Arc<Identity>,
    token: Token,
    path: CertificatePath,
    kek_id: String,
    anchors: TrustAnchors,
    sockets: UnixSockets,
}

impl HsmPlatform {
    /// Loads the module, logs in, finds both keys and tries them, then listens. `anchors` are those under which peers
    /// with an NSM are verified. Call it inside a tokio runtime, once a process.
    ///
    /// # Errors
    /// [`HsmError`], naming the token, key or file and what to do.
    pub async fn start(config: &Config, pin: Pin, anchors: TrustAnchors) -> Result<Self, HsmError> {
        let (module, token) = blocking(config, pin).await?;
        let module = Arc::new(module);
        let (identity, kek_id) = spawn({
            let config = config.clone();
            move || open(&config, module)
        })
        .await?;
        let path = CertificatePath::load(&config.certificates, &identity.spki)?;
        let sockets = UnixSockets::listen(&config.sockets).map_err(|error| HsmError::File {
            path: error.path.display().to_string(),
            cause: error.cause.to_string(),
        })?;
        let platform = Self {
            identity: Arc::new(identity),
            token,
            path,
            kek_id,
            anchors,
            sockets,
        };
        platform.try_everything().await?;
        tracing::info!(token = %platform.token, kek = platform.kek_id, "the token is ready");
        Ok(platform)
    }

    /// What would fail later had better fail now.
    async fn try_everything(&self) -> Result<(), HsmError> {
        let mut nonce = [0; DATA_KEY];
        self.identity.draw(&mut nonce)?;
        let wrapped = self
            .wrap_key(Zeroizing::new(nonce.to_vec()), b"start")
            .await?;
        let key = self.unwrap_key(&wrapped, b"start").await?;
        if *key.expose() != nonce || self.unwrap_key(&wrapped, b"other").await.is_ok() {
            return Err(HsmError::WrongResult {
                label: self.kek_id.clone(),
                what: "the token's AES-GCM does not do what it should",
            });
        }
        let evidence = self.make_evidence(&nonce, b"start").await?;
        let reference = ReferenceValues::Hsm(vec![self.path.root()]);
        let expected = Expected {
            reference: &reference,
            nonce: &nonce,
            public_key: &self.identity.spki,
            user_data: b"start",
        };
        verify_live(&evidence, &TrustAnchors::hsm_only(), &expected, now()).map_err(|error| {
            HsmError::Certificates(format!(
                "no peer would accept this party's evidence: {error}"
            ))
        })?;
        Ok(())
    }

    async fn make_evidence(&self, nonce: &[u8], user_data: &[u8]) -> Result<Vec<u8>, HsmError> {
        let payload = Statement {
            token: self.token.clone(),
            timestamp: now(),
            nonce,
            user_data,
            public_key: &self.identity.spki,
            certificate: &self.path.leaf,
            cabundle: self.path.bundle.iter().map(Vec::as_slice).collect(),
        }
        .payload()?;
        let to_sign = hsm::to_sign(&payload);
        let identity = Arc::clone(&self.identity);
        let signature = spawn(move || identity.sign_raw(MAKING_EVIDENCE, &to_sign)).await?;
        Ok(hsm::document(&payload, &signature))
    }

    async fn wrap_key(&self, key: Zeroizing<Vec<u8>>, header: &[u8]) -> Result<Vec<u8>, HsmError> {
        let (identity, header) = (Arc::clone(&self.identity), header.to_vec());
        spawn(move || {
            identity.pool.call(WRAPPING, move |open| {
                Ok(encrypt(&open.session, open.keys.kek, &header, &key[..])?)
            })
        })
        .await
    }

    async fn unwrap_key(&self, wrapped: &[u8], header: &[u8]) -> Result<DataKey, HsmError> {
        let wrapped = <[u8; WRAPPED]>::try_from(wrapped).map_err(|_| HsmError::NotAuthentic)?;
        let (identity, header) = (Arc::clone(&self.identity), header.to_vec());
        spawn(move || {
            identity.pool.call(UNWRAPPING, move |open| {
                match decrypt(&open.session, open.keys.kek, &header, &wrapped) {
                    Ok(key) => Ok(key),
                    Err(error) => Err(judge(open, error)),
                }
            })
        })
        .await
    }
}

/// Modules have no code of their own for a tag that does not match. If the token can still encrypt and decrypt,
/// beside the session that may be spoilt now, then it was the tag.
fn judge(open: &Open, error: CallError) -> Failure {
    let trial = open.aside(|session| {
        let known = [0x5a; DATA_KEY];
        let encrypted = encrypt(session, open.keys.kek, b"trial", &known)?;
        let encrypted =
            <[u8; WRAPPED]>::try_from(encrypted).map_err(|_| CallError::InvalidValue)?;
        let decrypted = decrypt(session, open.keys.kek, b"trial", &encrypted)?;
        Ok(*decrypted.expose() == known)
    });
    match trial {
        Ok(true) => Failure::Final(HsmError::NotAuthentic),
        _ => Failure::Call(error),
    }
}

/// `iv || ciphertext || tag`, with a fresh IV that neither generator decides alone.
pub(crate) fn encrypt(
    session: &Session,
    kek: ObjectHandle,
    header: &[u8],
    key: &[u8],
) -> Result<Vec<u8>, CallError> {
    let mut iv = [0; IV];
    session.generate_random_slice(&mut iv)?;
    mix(&mut iv)?;
    let mut parameters = GcmParams::new(&mut iv, header, TAG_BITS.into())?;
    // Taken before the mechanism borrows them; some modules draw the IV themselves and write it back.
    let encrypted = {
        let mechanism = Mechanism::AesGcm(parameters);
        let encrypted = session.encrypt(&mechanism, kek, key)?;
        let Mechanism::AesGcm(back) = mechanism else {
            return Err(CallError::InvalidValue);
        };
        parameters = back;
        encrypted
    };
    let mut wrapped = parameters.iv().to_vec();
    wrapped.extend_from_slice(&encrypted);
    // Anything else cannot be read again: better noticed now.
    if wrapped.len() != WRAPPED {
        return Err(CallError::InvalidValue);
    }
    Ok(wrapped)
}

fn decrypt(
    session: &Session,
    kek: ObjectHandle,
    header: &[u8],
    wrapped: &[u8; WRAPPED],
) -> Result<DataKey, CallError> {
    let (iv, encrypted) = wrapped.split_at(IV);
    let mut iv = <[u8; IV]>::try_from(iv)?;
    let parameters = GcmParams::new(&mut iv, header, TAG_BITS.into())?;
    let key = session.decrypt(&Mechanism::AesGcm(parameters), kek, encrypted)?;
    let key = Zeroizing::new(key);
    DataKey::copy(&key).ok_or(CallError::InvalidValue)
}

/// Encrypts, decrypts, and sees that an altered tag or header is refused; for the probe.
pub(crate) fn try_gcm(session: &Session, key: ObjectHandle) -> Result<String, String> {
    let failed = |error: CallError| match error {
        CallError::InvalidValue => {
            "what comes back has another length than IV, key and tag".to_owned()
        }
        error => brief(&error),
    };
    let known = [0x5a; DATA_KEY];
    let wrapped = encrypt(session, key, b"probe", &known).map_err(failed)?;
    let wrapped = <[u8; WRAPPED]>::try_from(wrapped).map_err(|_| "another length".to_owned())?;
    let back = decrypt(session, key, b"probe", &wrapped).map_err(failed)?;
    if *back.expose() != known {
        return Err("it decrypts to something else".to_owned());
    }
    if decrypt(session, key, b"other", &wrapped).is_ok() {
        return Err("it accepts other associated data".to_owned());
    }
    Ok("12-byte IV, 128-bit tag, associated data".to_owned())
}

/// Adds the operating system's randomness to the token's.
fn mix(bytes: &mut [u8]) -> Result<(), CallError> {
    let mut ours = Zeroizing::new(vec![0; bytes.len()]);
    OsRng
        .try_fill_bytes(&mut ours)
        .map_err(|_| CallError::InvalidValue)?;
    for (byte, our) in bytes.iter_mut().zip(ours.iter()) {
        *byte ^= our;
    }
    Ok(())
}

/// The identity key, and the way to the token.
struct Identity {
    pool: Pool,
    spki: Vec<u8>,
    label: String,
}

impl Identity {
    fn sign_raw(&self, operation: &'static str, message: &[u8]) -> Result<[u8; 96], HsmError> {
        let digest: [u8; 48] = Sha384::digest(message).into();
        let raw = self.pool.call(operation, move |open| {
            Ok(open
                .session
                .sign(&Mechanism::Ecdsa, open.keys.identity, &digest)?)
        })?;
        ec::checked(&self.spki, &digest, &raw).ok_or_else(|| HsmError::WrongResult {
            label: self.label.clone(),
            what: "the token returned no signature of this key; it is not sent anywhere",
        })
    }

    /// Fills `out` with what neither the token nor the operating system decides alone.
    fn draw(&self, out: &mut [u8]) -> Result<(), HsmError> {
        let length = out.len();
        let drawn = self.pool.call(DRAWING, move |open| {
            let mut bytes = Zeroizing::new(vec![0; length]);
            open.session.generate_random_slice(&mut bytes)?;
            mix(&mut bytes)?;
            Ok(bytes)
        })?;
        out.copy_from_slice(&drawn);
        Ok(())
    }
}

impl HardwareKey for Identity {
    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, HardwareKeyError> {
        let raw = self
            .sign_raw(SIGNING, message)
            .map_err(|error| HardwareKeyError(error.to_string()))?;
        ec::der_signature(&raw)
            .ok_or_else(|| HardwareKeyError("the signature has no DER encoding".to_owned()))
    }
}

#[tonic::async_trait]
impl Platform for HsmPlatform {
    fn class(&self) -> TrustClass {
        TrustClass::Hsm
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
        if public_key != self.identity.spki {
            return Err(PlatformError::Failed {
                operation: MAKING_EVIDENCE,
                cause: "it is made for the token's identity key alone".to_owned(),
            });
        }
        self.make_evidence(nonce, user_data)
            .await
            .map_err(|error| error.into_platform(MAKING_EVIDENCE))
    }

    fn identity(&self) -> Option<Arc<dyn HardwareKey>> {
        Some(Arc::clone(&self.identity) as Arc<dyn HardwareKey>)
    }

    fn kek_id(&self) -> String {
        self.kek_id.clone()
    }

    async fn wrap(&self, key: &DataKey, header: &[u8]) -> Result<Vec<u8>, PlatformError> {
        self.wrap_key(Zeroizing::new(key.expose().to_vec()), header)
            .await
            .map_err(|error| error.into_platform(WRAPPING))
    }

    async fn unwrap(&self, wrapped: &[u8], header: &[u8]) -> Result<DataKey, PlatformError> {
        self.unwrap_key(wrapped, header)
            .await
            .map_err(|error| error.into_platform(UNWRAPPING))
    }

    fn random(&self, out: &mut [u8]) -> Result<(), PlatformError> {
        in_place(|| self.identity.draw(out)).map_err(|error| error.into_platform(DRAWING))
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

impl fmt::Debug for HsmPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HsmPlatform")
            .field("token", &self.token)
            .field("kek_id", &self.kek_id)
            .finish_non_exhaustive()
    }
}

/// Loads the module and finds the token, within the time of a call.
async fn blocking(config: &Config, pin: Pin) -> Result<(Module, Token), HsmError> {
    let timeout = config.call_timeout();
    let config = config.clone();
    let loading = spawn(move || {
        let module = Module::load(&config.module, &config.token, Some(pin))?;
        let (_, token) = module.find()?;
        let token = stated(&token);
        Ok((module, token))
    });
    tokio::time::timeout(timeout, loading)
        .await
        .unwrap_or(Err(HsmError::Timeout {
            operation: "loading the module and finding the token",
            after: timeout,
        }))
}

fn open(config: &Config, module: Arc<Module>) -> Result<(Identity, String), HsmError> {
    let names = names(config);
    let label = names.identity.clone();
    let pool = Pool::start(module, names, config.sessions, config.call_timeout())?;
    let known = pool.known();
    let (spki, kek_id) = (known.spki.clone(), kek_id(&known.kek_id));
    Ok((Identity { pool, spki, label }, kek_id))
}

pub(crate) fn names(config: &Config) -> Names {
    Names {
        token: config.token.to_string(),
        kek: config.kek_label(),
        identity: config.identity_label(),
    }
}

/// From the random CKA_ID that `init` gave the key: the same after a restore into another token.
pub(crate) fn kek_id(cka_id: &[u8]) -> String {
    let digest = Sha384::new()
        .chain_update(b"arca/v1/hsm-kek-id")
        .chain_update(cka_id)
        .finalize();
    let hex: String = hex::encode(digest).chars().take(32).collect();
    format!("hsm-{hex}")
}

async fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HsmError> + Send + 'static,
) -> Result<T, HsmError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(HsmError::Bug("a call to the token panicked")))
}

/// Blocks this thread while the runtime, if it has others, goes on with its tasks there.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
