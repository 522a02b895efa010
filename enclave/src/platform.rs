//! What the enclave needs from the hardware under it, and nothing else.
//!
//! One implementation each for the simulated platform, AWS Nitro and PKCS#11, in crates of their own that
//! import this one.

use std::sync::Arc;

use arca_attestation::{TrustAnchors, TrustClass, UnixMillis};
pub use arca_channel::{HardwareKey, HardwareKeyError};
use arca_wipe::wiped;
use rand_core::CryptoRngCore;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A byte stream to or from the host.
pub trait HostStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> HostStream for S {}

/// An owned [`HostStream`].
pub type BoxedStream = Box<dyn HostStream>;

/// Where on the host a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEndpoint {
    /// The host's `StorageService`, gRPC without TLS.
    Storage,
    /// The host's dialler: takes a peer's name, then carries bytes to that peer.
    Dial,
    /// The host's relay to AWS KMS: carries bytes between the enclave and the region's endpoint.
    Kms,
}

/// Why the platform could not do what was asked. Never caused by a peer or a caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// The attestation device, the token or the key service failed.
    #[error("{operation} failed on this platform: {cause}")]
    Failed {
        /// What was asked of the platform.
        operation: &'static str,
        /// What the platform said, without any secret.
        cause: String,
    },
    /// The key service is out of reach or busy: the same may succeed in a moment.
    #[error("{operation} is not possible now: {cause}")]
    Unavailable {
        /// What was asked of the platform.
        operation: &'static str,
        /// What is missing and what to do about it, without any secret.
        cause: String,
    },
    /// A wrapped key did not authenticate: it is damaged, or belongs to other hardware or another blob.
    #[error("a wrapped key does not authenticate under this platform's key-encryption key")]
    NotAuthentic,
}

/// The key of one sealed blob: AES-256, used for one encryption.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DataKey(Box<[u8; 32]>);

impl DataKey {
    /// Takes 32 bytes over from `bytes` and zeroises them there.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let mut key = Box::new([0u8; 32]);
        key.copy_from_slice(bytes);
        bytes.zeroize();
        Self(key)
    }

    /// A copy of `bytes`, which has to be 32 bytes and is erased by the caller.
    pub fn copy(bytes: &[u8]) -> Option<Self> {
        let mut key = Box::new([0u8; 32]);
        if bytes.len() != key.len() {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(key))
    }

    /// A fresh key.
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        let mut key = Box::new([0u8; 32]);
        wiped(|| rng.fill_bytes(&mut key[..]));
        Self(key)
    }

    /// The key's 32 bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(redacted)")
    }
}

/// The hardware under an enclave.
#[tonic::async_trait]
pub trait Platform: Send + Sync + 'static {
    /// How this platform's evidence is to be understood.
    fn class(&self) -> TrustClass;

    /// The roots under which this enclave verifies its peers. A production platform has no way to be given
    /// the simulated NSM's root.
    fn anchors(&self) -> &TrustAnchors;

    /// Evidence over the three values, all of them inside what the hardware signs.
    ///
    /// `nonce` and `user_data` are at most 512 bytes, `public_key` at most 1024.
    async fn evidence(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, PlatformError>;

    /// The party's identity key, where the hardware holds it; `None` where the enclave makes one and seals it.
    fn identity(&self) -> Option<Arc<dyn HardwareKey>> {
        None
    }

    /// Fixes the manifest with this SHA-384 in the hardware's measurements, before the enclave serves under it.
    /// Called once a boot: a manifest that is accepted later is fixed at the next one.
    async fn bind_manifest(&self, _digest: &[u8; 48]) -> Result<(), PlatformError> {
        Ok(())
    }

    /// Names the key-encryption key in use, at most 64 bytes, so that a blob sealed under another one says so.
    fn kek_id(&self) -> String;

    /// Encrypts a data key under the platform's key-encryption key, with `header` authenticated.
    async fn wrap(&self, key: &DataKey, header: &[u8]) -> Result<Vec<u8>, PlatformError>;

    /// The inverse of [`wrap`](Self::wrap).
    ///
    /// # Errors
    /// [`PlatformError::NotAuthentic`] when the key was wrapped elsewhere or `header` differs.
    async fn unwrap(&self, wrapped: &[u8], header: &[u8]) -> Result<DataKey, PlatformError>;

    /// Fills `out` from the hardware's generator. The enclave hedges it; see `random.rs`.
    fn random(&self, out: &mut [u8]) -> Result<(), PlatformError>;

    /// The platform's clock.
    fn now(&self) -> UnixMillis;

    /// The next byte stream that the host carries in from the network.
    async fn accept(&self) -> std::io::Result<BoxedStream>;

    /// A new stream to the host itself.
    async fn connect(&self, endpoint: HostEndpoint) -> std::io::Result<BoxedStream>;
}
