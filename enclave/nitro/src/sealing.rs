//! Wraps data keys under keys of KMS without asking KMS each time.
//!
//! A start has one *boot key*: a data key of KMS. It wraps the data key of each blob here, in the enclave, and what
//! KMS gives it out again for goes along:
//!
//! ```text
//! version[1] lp(CiphertextBlob) nonce[12] ciphertext and tag[48]
//! ```
//!
//! A later start asks KMS once for each boot key that it meets, and remembers some.
//!
//! # Security
//! Whoever may call `kms:Encrypt` or an unattested `kms:GenerateDataKey` under the key can make a boot key that they
//! know, and with it blobs that unseal. The key's policy has to allow these to nobody; see `docs/nitro.md`.

use std::collections::VecDeque;

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use arca_enclave::platform::{DataKey, PlatformError};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::{
    kms::{Kms, KmsError, MAX_CIPHERTEXT},
    nsm::Nsm,
    tags,
};

const VERSION: u8 = 1;
const NONCE: usize = 12;
const WRAPPED_KEY: usize = 32 + 16;
/// Wraps under one boot key: far from where random nonces of 96 bits could meet (NIST SP 800-38D allows 2^32).
const WRAPS: u64 = 1 << 30;
/// Boot keys of earlier starts that are remembered.
const REMEMBERED: usize = 256;

const WRAPPING: &str = "wrapping a key under AWS KMS";
const UNWRAPPING: &str = "unwrapping a key under AWS KMS";

/// Wraps and unwraps.
pub(crate) struct Sealing {
    kms: Kms,
    nsm: Nsm,
    /// Held while KMS is asked, so that it is asked once.
    current: Mutex<Option<BootKey>>,
    earlier: Mutex<Earlier>,
}

struct BootKey {
    key: DataKey,
    ciphertext: Vec<u8>,
    wraps: u64,
}

/// Keys by the SHA-256 of their ciphertext, the oldest first.
#[derive(Default)]
struct Earlier(VecDeque<([u8; 32], DataKey)>);

impl Sealing {
    pub(crate) fn new(kms: Kms, nsm: Nsm) -> Self {
        Self {
            kms,
            nsm,
            current: Mutex::new(None),
            earlier: Mutex::default(),
        }
    }

    /// Gets the boot key, so that the first wrap does not have to.
    pub(crate) async fn prepare(&self) -> Result<(), PlatformError> {
        let mut current = self.current.lock().await;
        if current.is_none() {
            *current = Some(self.boot_key().await?);
        }
        Ok(())
    }

    pub(crate) async fn wrap(
        &self,
        key: &DataKey,
        header: &[u8],
    ) -> Result<Vec<u8>, PlatformError> {
        let failed = |cause: &str| PlatformError::Failed {
            operation: WRAPPING,
            cause: cause.to_owned(),
        };
        let mut nonce = [0; NONCE];
        self.nsm.random(&mut nonce)?;
        let mut current = self.current.lock().await;
        if current.as_ref().is_none_or(|boot| boot.wraps >= WRAPS) {
            *current = Some(self.boot_key().await?);
        }
        let boot = current
            .as_mut()
            .ok_or_else(|| failed("there is no boot key"))?;
        boot.wraps += 1;
        let ciphertext = cipher(&boot.key)
            .encrypt(
                &nonce.into(),
                Payload {
                    msg: key.expose(),
                    aad: &associated(header),
                },
            )
            .map_err(|_| failed("AES-GCM refused"))?;
        let length = u16::try_from(boot.ciphertext.len()).map_err(|_| failed("too long"))?;
        let mut wrapped = vec![VERSION];
        wrapped.extend_from_slice(&length.to_be_bytes());
        wrapped.extend_from_slice(&boot.ciphertext);
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(&ciphertext);
        Ok(wrapped)
    }

    pub(crate) async fn unwrap(
        &self,
        wrapped: &[u8],
        header: &[u8],
    ) -> Result<DataKey, PlatformError> {
        let Wrapped {
            boot_ciphertext,
            nonce,
            ciphertext,
        } = Wrapped::read(wrapped).ok_or(PlatformError::NotAuthentic)?;
        let payload = Payload {
            msg: ciphertext,
            aad: &associated(header),
        };
        let open = |boot: &DataKey| {
            let key = cipher(boot)
                .decrypt(nonce.into(), payload)
                .map(Zeroizing::new)
                .map_err(|_| PlatformError::NotAuthentic)?;
            let key: &[u8; 32] = key
                .as_slice()
                .try_into()
                .map_err(|_| PlatformError::NotAuthentic)?;
            Ok(DataKey::take(&mut Zeroizing::new(*key)))
        };
        if let Some(boot) = &*self.current.lock().await
            && boot.ciphertext == boot_ciphertext
        {
            return open(&boot.key);
        }
        // Held while KMS is asked: many blobs of one boot are read together.
        let mut earlier = self.earlier.lock().await;
        let name = Sha256::digest(boot_ciphertext).into();
        if let Some(boot) = earlier.get(&name) {
            return open(boot);
        }
        let boot = self
            .kms
            .decrypt(boot_ciphertext)
            .await
            .map_err(|error| error.into_platform(UNWRAPPING))?;
        // What opens nothing is not remembered: an answer that was spoilt on its way must not stay.
        let key = open(&boot)?;
        earlier.remember(name, boot);
        Ok(key)
    }

    /// A boot key that KMS has been seen to give out again. Without that, everything sealed under it would be lost
    /// at the next start: because the policy allows the one and not the other, say.
    async fn boot_key(&self) -> Result<BootKey, PlatformError> {
        let fresh = self
            .kms
            .generate()
            .await
            .map_err(|error| error.into_platform(WRAPPING))?;
        let again = self.kms.decrypt(&fresh.ciphertext).await.map_err(|error| {
            let error = match error {
                KmsError::NotAuthentic => {
                    KmsError::Answer("KMS does not open what it has just made".to_owned())
                }
                error => error,
            };
            error.into_platform("opening a new key of AWS KMS again")
        })?;
        if !bool::from(again.expose().ct_eq(fresh.key.expose())) {
            let error = KmsError::Answer("a new key is another one when opened again".to_owned());
            return Err(error.into_platform(WRAPPING));
        }
        tracing::info!("sealing under AWS KMS");
        Ok(BootKey {
            key: fresh.key,
            ciphertext: fresh.ciphertext,
            wraps: 0,
        })
    }
}

impl Earlier {
    fn get(&self, name: &[u8; 32]) -> Option<&DataKey> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, key)| key)
    }

    fn remember(&mut self, name: [u8; 32], key: DataKey) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((name, key));
    }
}

struct Wrapped<'a> {
    boot_ciphertext: &'a [u8],
    nonce: &'a [u8; NONCE],
    ciphertext: &'a [u8],
}

impl<'a> Wrapped<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, high, low], rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (boot_ciphertext, rest) = rest.split_at_checked(length)?;
        let (nonce, ciphertext) = rest.split_first_chunk()?;
        let valid = version == VERSION
            && (1..=MAX_CIPHERTEXT).contains(&length)
            && ciphertext.len() == WRAPPED_KEY;
        valid.then_some(Self {
            boot_ciphertext,
            nonce,
            ciphertext,
        })
    }
}

fn cipher(key: &DataKey) -> Aes256Gcm {
    Aes256Gcm::new(key.expose().into())
}

fn associated(header: &[u8]) -> Vec<u8> {
    [tags::WRAP, header].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> DataKey {
        DataKey::take(&mut [byte; 32])
    }

    #[test]
    fn the_oldest_boot_key_is_forgotten_first() {
        let mut earlier = Earlier::default();
        for at in 0..=u8::MAX {
            earlier.remember([at; 32], key(at));
        }
        assert_eq!(earlier.get(&[0; 32]).unwrap().expose(), &[0; 32]);
        let mut name = [7; 32];
        name[0] = 8;
        earlier.remember(name, key(9));
        assert!(earlier.get(&[0; 32]).is_none());
        assert_eq!(earlier.get(&[1; 32]).unwrap().expose(), &[1; 32]);
        assert_eq!(earlier.get(&name).unwrap().expose(), &[9; 32]);
        assert_eq!(earlier.0.len(), REMEMBERED);
    }

    #[test]
    fn only_the_exact_form_is_read() {
        let mut good = vec![1, 0, 3, 7, 7, 7];
        good.extend_from_slice(&[8; NONCE]);
        good.extend_from_slice(&[9; WRAPPED_KEY]);
        let wrapped = Wrapped::read(&good).unwrap();
        assert_eq!(wrapped.boot_ciphertext, [7; 3]);
        assert_eq!(wrapped.nonce, &[8; NONCE]);
        assert_eq!(wrapped.ciphertext, [9; WRAPPED_KEY]);
        for length in 0..good.len() {
            assert!(Wrapped::read(&good[..length]).is_none(), "{length}");
        }
        for (at, value) in [(0, 0), (0, 2), (1, 1), (2, 2), (2, 4)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Wrapped::read(&bad).is_none(), "{at} {value}");
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert!(Wrapped::read(&longer).is_none());
        let empty = [&[1, 0, 0][..], &[8; NONCE], &[9; WRAPPED_KEY]].concat();
        assert!(Wrapped::read(&empty).is_none());
    }
}
