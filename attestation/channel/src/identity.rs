//! The key that a party or a principal is known by.

use std::fmt;
use std::sync::Arc;

use arca_attestation::{IdentityCurve, identity_curve};
use arca_wipe::wiped;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use rand_core::CryptoRngCore;
use rustls::sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use tokio::runtime::{Handle, RuntimeFlavor};
use zeroize::Zeroizing;

use crate::Error;

/// The key that TLS handshakes are signed with; the manifest names its public half. Either a P-256 key that this
/// program holds, or a P-384 key in hardware.
///
/// A principal signs its requests with it too. The two uses cannot be confused: what TLS 1.3 signs begins with 64
/// spaces (RFC 8446, 4.4.3), a request with a domain tag.
///
/// Not `Clone`: share it in an [`Arc`]. The secret has one copy on the heap and is zeroised when the last
/// user drops it.
pub struct Identity {
    key: IdentityKey,
    spki: Vec<u8>,
}

impl Identity {
    /// A new key.
    pub fn generate(rng: &mut dyn CryptoRngCore) -> Result<Self, Error> {
        wiped(|| Self::from_key(SigningKey::random(&mut { rng })))
    }

    /// The key with this secret scalar, 32 bytes, big-endian.
    ///
    /// # Errors
    /// [`Error::SecretKey`] when it is zero or not below the group's order.
    pub fn from_scalar(scalar: &Zeroizing<[u8; 32]>) -> Result<Self, Error> {
        wiped(|| {
            let key = SigningKey::from_slice(scalar.as_ref()).map_err(|_| Error::SecretKey)?;
            Self::from_key(key)
        })
    }

    /// The secret scalar, 32 bytes, big-endian, for sealing. There is none of a key in hardware.
    pub fn to_scalar(&self) -> Option<Zeroizing<Vec<u8>>> {
        match &self.key {
            IdentityKey::Software(key) => Some(wiped(|| Zeroizing::new(key.to_bytes().to_vec()))),
            IdentityKey::Hardware(_) => None,
        }
    }

    /// The public key as DER of a `SubjectPublicKeyInfo` (RFC 5280, RFC 5480), uncompressed point.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// A key that hardware holds. [`HardwareKey::sign`] is called for each handshake, by whichever thread drives it:
    /// in a runtime with several threads as blocking work. Such a runtime must not drive handshakes in a
    /// `LocalSet`.
    ///
    /// # Errors
    /// [`Error::HardwareKey`] when its public key is not the canonical encoding of a P-384 key.
    pub fn hardware(key: Arc<dyn HardwareKey>) -> Result<Self, Error> {
        let spki = key.spki().to_vec();
        if identity_curve(&spki) != Some(IdentityCurve::P384) {
            return Err(Error::HardwareKey);
        }
        Ok(Self {
            key: IdentityKey::Hardware(key),
            spki,
        })
    }

    fn from_key(key: SigningKey) -> Result<Self, Error> {
        let spki = key
            .verifying_key()
            .to_public_key_der()
            .map_err(|_| Error::SecretKey)?
            .into_vec();
        Ok(Self {
            key: IdentityKey::Software(Arc::new(key)),
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

/// Shares the one key with rustls' signers, which outlive the borrow.
#[derive(Clone)]
enum IdentityKey {
    Software(Arc<SigningKey>),
    Hardware(Arc<dyn HardwareKey>),
}

impl TlsSigningKey for IdentityKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&Signer::scheme(self))
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for IdentityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        match self {
            // Deterministic (RFC 6979): needs no randomness, so none can fail it.
            Self::Software(key) => wiped(|| {
                key.try_sign(message)
                    .map(|signature: DerSignature| signature.as_bytes().to_vec())
                    .map_err(|_| rustls::Error::General("signing failed".into()))
            }),
            Self::Hardware(key) => blocking(|| key.sign(message)).map_err(|error| {
                rustls::Error::General(format!("the hardware did not sign: {error}"))
            }),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        scheme(match self {
            Self::Software(_) => IdentityCurve::P256,
            Self::Hardware(_) => IdentityCurve::P384,
        })
    }
}

/// The one scheme that a key on this curve signs with. RFC 8446, 4.2.3, ties each to its curve.
pub(crate) fn scheme(curve: IdentityCurve) -> SignatureScheme {
    match curve {
        IdentityCurve::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
        IdentityCurve::P384 => SignatureScheme::ECDSA_NISTP384_SHA384,
    }
}

/// Lets a runtime with several threads go on with its other tasks meanwhile; elsewhere there is nothing to hand them
/// to.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(redacted)")
    }
}
