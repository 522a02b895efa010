//! A platform for this crate's unit tests: no network, no evidence, a key in memory.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use arca_attestation::{TrustAnchors, TrustClass, UnixMillis};
use rand_core::{OsRng, RngCore};

use crate::platform::{BoxedStream, DataKey, HostEndpoint, Platform, PlatformError};

pub struct TestPlatform {
    kek: [u8; 32],
    stuck: bool,
    anchors: TrustAnchors,
}

impl TestPlatform {
    pub fn new() -> Self {
        let mut kek = [0; 32];
        OsRng.fill_bytes(&mut kek);
        Self {
            kek,
            stuck: false,
            anchors: TrustAnchors::production(),
        }
    }

    pub fn with_stuck_random() -> Self {
        Self {
            stuck: true,
            ..Self::new()
        }
    }
}

#[tonic::async_trait]
impl Platform for TestPlatform {
    fn class(&self) -> TrustClass {
        TrustClass::Simulated
    }

    fn anchors(&self) -> &TrustAnchors {
        &self.anchors
    }

    async fn evidence(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<Vec<u8>, PlatformError> {
        Err(PlatformError::Failed {
            operation: "evidence",
            cause: "none here".into(),
        })
    }

    fn kek_id(&self) -> String {
        "test".into()
    }

    async fn wrap(&self, key: &DataKey, header: &[u8]) -> Result<Vec<u8>, PlatformError> {
        Ok(Aes256Gcm::new(&self.kek.into())
            .encrypt(
                &[0; 12].into(),
                Payload {
                    msg: key.expose(),
                    aad: header,
                },
            )
            .unwrap())
    }

    async fn unwrap(&self, wrapped: &[u8], header: &[u8]) -> Result<DataKey, PlatformError> {
        let bytes = Aes256Gcm::new(&self.kek.into())
            .decrypt(
                &[0; 12].into(),
                Payload {
                    msg: wrapped,
                    aad: header,
                },
            )
            .map_err(|_| PlatformError::NotAuthentic)?;
        let mut key = <[u8; 32]>::try_from(bytes).map_err(|_| PlatformError::NotAuthentic)?;
        Ok(DataKey::take(&mut key))
    }

    fn random(&self, out: &mut [u8]) -> Result<(), PlatformError> {
        if self.stuck {
            out.fill(4);
        } else {
            OsRng.fill_bytes(out);
        }
        Ok(())
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }

    async fn accept(&self) -> std::io::Result<BoxedStream> {
        std::future::pending().await
    }

    async fn connect(&self, _: HostEndpoint) -> std::io::Result<BoxedStream> {
        Err(std::io::ErrorKind::NotConnected.into())
    }
}
