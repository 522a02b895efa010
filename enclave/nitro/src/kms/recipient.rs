//! The key to which KMS encrypts its replies, and how they are opened.

use aes::{
    Aes256,
    cipher::{BlockDecrypt as _, KeyInit as _},
};
use arca_enclave::{Generator, platform::DataKey};
use rsa::{Oaep, RsaPrivateKey, pkcs8::EncodePublicKey as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::envelope;

/// Every published reply of KMS is to a key of this size, and it is the second layer: the reply comes over TLS.
const KEY_BITS: usize = 2048;
const KEY_BYTES: usize = KEY_BITS / 8;
const BLOCK: usize = 16;
/// A data key of 32 bytes and its padding (PKCS #7), a block of its own.
const CONTENT: usize = 32 + BLOCK;
const PADDING: [u8; BLOCK] = [16; BLOCK];

/// Made at each start, known to nobody else, and gone with this boot.
///
/// # Security
/// RustCrypto's `rsa` is not constant-time in every step (RUSTSEC-2023-0071, "Marvin"). It is used with blinding, on
/// a key that lives for one boot, once for each reply of an authenticated KMS: nobody can have chosen ciphertexts
/// decrypted and take the time.
pub(crate) struct RecipientKey {
    private: RsaPrivateKey,
    public_der: Vec<u8>,
}

/// Why a reply cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("CiphertextForRecipient is not what KMS writes: {0:?}")]
    Envelope(envelope::Fault),
    #[error("CiphertextForRecipient is not for this enclave's key, or was altered")]
    NotAuthentic,
}

impl RecipientKey {
    /// Draws a key. Takes a tenth of a second to a second.
    pub(crate) fn generate(rng: &mut Generator) -> Result<Self, rsa::Error> {
        let private = RsaPrivateKey::new(rng, KEY_BITS)?;
        let public_der = private
            .to_public_key()
            .to_public_key_der()
            .map_err(|error| rsa::Error::Pkcs8(error.into()))?
            .into_vec();
        Ok(Self {
            private,
            public_der,
        })
    }

    /// SubjectPublicKeyInfo (DER), for the attestation document.
    pub(crate) fn public_der(&self) -> &[u8] {
        &self.public_der
    }

    /// The data key in a `CiphertextForRecipient`.
    ///
    /// # Security
    /// Nothing in it says who wrote it: anybody can encrypt to a public key. That it came from KMS is known from
    /// the connection alone.
    pub(crate) fn open(&self, bytes: &[u8], rng: &mut Generator) -> Result<DataKey, OpenError> {
        let envelope = envelope::read(bytes).map_err(OpenError::Envelope)?;
        if envelope.encrypted_key.len() != KEY_BYTES || envelope.content.len() != CONTENT {
            return Err(OpenError::NotAuthentic);
        }
        let content_key = self
            .private
            .decrypt_blinded(rng, Oaep::new::<Sha256>(), envelope.encrypted_key)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::NotAuthentic)?;
        let content_key: &[u8; 32] = content_key
            .as_slice()
            .try_into()
            .map_err(|_| OpenError::NotAuthentic)?;
        let mut content = Zeroizing::new([0; CONTENT]);
        decrypt_cbc(
            content_key,
            &envelope.iv,
            &envelope.content,
            &mut content[..],
        );
        let (key, padding) = content
            .split_first_chunk::<32>()
            .ok_or(OpenError::NotAuthentic)?;
        if !bool::from(padding.ct_eq(&PADDING)) {
            return Err(OpenError::NotAuthentic);
        }
        Ok(DataKey::take(&mut Zeroizing::new(*key)))
    }
}

impl std::fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecipientKey(redacted)")
    }
}

/// AES-256 in CBC mode (NIST SP 800-38A, section 6.2), of whole blocks; `out` has the content's length.
fn decrypt_cbc(key: &[u8; 32], iv: &[u8; BLOCK], content: &[u8], out: &mut [u8]) {
    let cipher = Aes256::new(key.into());
    let (blocks, _) = content.as_chunks::<BLOCK>();
    let (outs, _) = out.as_chunks_mut::<BLOCK>();
    let mut before = iv;
    for (block, out) in blocks.iter().zip(outs) {
        *out = *block;
        cipher.decrypt_block(out.into());
        for (byte, before) in out.iter_mut().zip(before) {
            *byte ^= before;
        }
        before = block;
    }
}
