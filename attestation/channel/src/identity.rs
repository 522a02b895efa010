//! The key that a party or a principal is known by.

use std::fmt;
use std::sync::Arc;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
use rand_core::CryptoRngCore;
use rustls::sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use tokio::runtime::{Handle, RuntimeFlavor};
use zeroize::Zeroizing;

use crate::Error;

/// The key that TLS handshakes are signed with; the manifest names its public half. P-256 in memory, or P-384 in
/// hardware.
///
/// A principal signs its requests with it too. The two uses cannot be confused: what TLS 1.3 signs begins with 64
/// spaces (RFC 8446, 4.4.3), a request with a domain tag.
///
/// Not `Clone`: share it in an [`Arc`]. A secret in memory has one copy on the heap and is zeroised when the last
/// user drops it.
pub struct Identity {
    key: IdentityKey,
    spki: Vec<u8>,
}

impl Identity {
    /// A new key, in memory.
    pub fn generate(rng: &mut dyn CryptoRngCore) -> Result<Self, Error> {
        Self::from_key(SigningKey::random(&mut { rng }))
    }

    /// The key with this secret scalar, 32 bytes, big-endian.
    ///
    /// # Errors
    /// [`Error::SecretKey`] when it is zero or not below the group's order.
    pub fn from_scalar(scalar: &Zeroizing<[u8; 32]>) -> Result<Self, Error> {
        let key = SigningKey::from_slice(scalar.as_ref()).map_err(|_| Error::SecretKey)?;
        Self::from_key(key)
    }

    /// A key that stays where it is. Each handshake asks for one signature.
    ///
    /// # Errors
    /// [`Error::SecretKey`] when it is no P-384 key in canonical encoding.
    pub fn hardware(key: Arc<dyn HardwareKey>) -> Result<Self, Error> {
        let spki = key.spki().to_vec();
        if curve_of(&spki) != Some(Curve::P384) {
            return Err(Error::SecretKey);
        }
        Ok(Self {
            key: IdentityKey::Hardware(key),
            spki,
        })
    }

    /// The secret scalar, 32 bytes, big-endian, for sealing; `None` when it is in hardware.
    pub fn to_scalar(&self) -> Option<Zeroizing<[u8; 32]>> {
        match &self.key {
            IdentityKey::Memory(key) => Some(Zeroizing::new(key.to_bytes().into())),
            IdentityKey::Hardware(_) => None,
        }
    }

    /// The public key as DER of a `SubjectPublicKeyInfo` (RFC 5280, RFC 5480), uncompressed point.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn from_key(key: SigningKey) -> Result<Self, Error> {
        let spki = key
            .verifying_key()
            .to_public_key_der()
            .map_err(|_| Error::SecretKey)?
            .into_vec();
        Ok(Self {
            key: IdentityKey::Memory(Arc::new(key)),
            spki,
        })
    }

    /// The raw public key (RFC 7250) and the signer, as rustls wants them.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::new(CertifiedKey::new(
            vec![self.spki.clone().into()],
            Arc::new(self.key.clone()),
        ))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(redacted)")
    }
}

/// A P-384 identity key that stays in hardware.
pub trait HardwareKey: Send + Sync {
    /// The public key as DER of a `SubjectPublicKeyInfo` (RFC 5280, RFC 5480), uncompressed point.
    fn spki(&self) -> &[u8];

    /// ECDSA with SHA-384 over `message`, in DER. May take as long as the hardware takes.
    ///
    /// # Errors
    /// [`HardwareKeyError`] when the hardware does not sign.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, HardwareKeyError>;
}

/// What the hardware said, without any secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HardwareKeyError(pub String);

/// Whether these bytes are a P-256 or P-384 public key in the one encoding that [`Identity::spki`] uses, so that a
/// key has one name only.
pub fn is_canonical_spki(spki: &[u8]) -> bool {
    curve_of(spki).is_some()
}

/// Which curve a key is on; `None` for any but the canonical encoding.
pub(crate) fn curve_of(spki: &[u8]) -> Option<Curve> {
    let p256 = p256::PublicKey::from_public_key_der(spki)
        .ok()
        .and_then(|key| key.to_public_key_der().ok());
    if p256.is_some_and(|canonical| canonical.as_bytes() == spki) {
        return Some(Curve::P256);
    }
    let p384 = p384::PublicKey::from_public_key_der(spki)
        .ok()
        .and_then(|key| key.to_public_key_der().ok());
    if p384.is_some_and(|canonical| canonical.as_bytes() == spki) {
        return Some(Curve::P384);
    }
    None
}

/// The curves of identity keys, each with one way to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    pub fn scheme(self) -> SignatureScheme {
        match self {
            Self::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::P384 => SignatureScheme::ECDSA_NISTP384_SHA384,
        }
    }
}

/// Shares the one secret with rustls' signers, which outlive the borrow.
#[derive(Clone)]
enum IdentityKey {
    Memory(Arc<SigningKey>),
    Hardware(Arc<dyn HardwareKey>),
}

impl IdentityKey {
    fn curve(&self) -> Curve {
        match self {
            Self::Memory(_) => Curve::P256,
            Self::Hardware(_) => Curve::P384,
        }
    }
}

impl TlsSigningKey for IdentityKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&self.curve().scheme())
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for IdentityKey {
    /// In memory deterministic (RFC 6979): needs no randomness, so none can fail it.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        match self {
            Self::Memory(key) => {
                let signature: DerSignature = key
                    .try_sign(message)
                    .map_err(|_| rustls::Error::General("signing failed".into()))?;
                Ok(signature.as_bytes().to_vec())
            }
            Self::Hardware(key) => off_the_runtime(|| key.sign(message))
                .map_err(|error| rustls::Error::General(error.to_string())),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.curve().scheme()
    }
}

/// Runs what may take as long as hardware takes while the runtime's other tasks go on elsewhere.
fn off_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    let flavour = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavour {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(redacted)")
    }
}
