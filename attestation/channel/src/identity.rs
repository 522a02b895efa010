//! The key that a party or a principal is known by.

use std::fmt;
use std::sync::Arc;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
use rand_core::CryptoRngCore;
use rustls::sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroizing;

use crate::Error;

/// A P-256 key that TLS handshakes are signed with; the manifest names its public half.
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

    /// The secret scalar, 32 bytes, big-endian, for sealing.
    pub fn to_scalar(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.0.to_bytes().into())
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
            key: IdentityKey(Arc::new(key)),
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

/// Whether these bytes are a P-256 public key in the one encoding that [`Identity::spki`] uses, so that a
/// key has one name only.
pub fn is_canonical_spki(spki: &[u8]) -> bool {
    p256::PublicKey::from_public_key_der(spki).is_ok_and(|key| {
        key.to_public_key_der()
            .is_ok_and(|canonical| canonical.as_bytes() == spki)
    })
}

/// Shares the one secret with rustls' signers, which outlive the borrow.
#[derive(Clone)]
struct IdentityKey(Arc<SigningKey>);

impl TlsSigningKey for IdentityKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for IdentityKey {
    /// Deterministic (RFC 6979): needs no randomness, so none can fail it.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signature: DerSignature = self
            .0
            .try_sign(message)
            .map_err(|_| rustls::Error::General("signing failed".into()))?;
        Ok(signature.as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(redacted)")
    }
}
