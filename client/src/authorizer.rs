//! A principal's own signature over what it asks for.

use std::time::Duration;

use arca_attestation::SigningAuthorization;
use arca_channel::Identity;
use arca_proto::v1;
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::hazmat::PrehashSigner;

use crate::client::Payload;
use crate::clock;
use crate::error::{Error, Result};
use crate::resources::KeyRef;

/// Signs requests with the principal's key, so that every party can check who asked.
pub(crate) struct Authorizer {
    cluster: String,
    principal: String,
    key: SigningKey,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer")
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

impl Authorizer {
    pub fn new(cluster: &str, principal: &str, identity: &Identity) -> Result<Self> {
        Ok(Self {
            cluster: cluster.to_owned(),
            principal: principal.to_owned(),
            // This program makes its identity itself, in memory.
            key: SigningKey::from_slice(identity.to_scalar().unwrap_or_default().as_slice())
                .map_err(Error::bug)?,
        })
    }

    pub fn authorize(
        &self,
        key: &KeyRef<'_>,
        request_id: &str,
        payload: &Payload,
        timeout: Duration,
    ) -> Result<v1::CreateSigningRequestRequest> {
        use v1::signing_payload::Payload as Wire;
        let (payload_kind, bytes, wire) = match payload {
            Payload::Psbt(psbt) => ("psbt", psbt.as_slice(), Wire::Psbt(psbt.clone())),
            Payload::SolanaMessage(message) => (
                "solana_message",
                message.as_slice(),
                Wire::SolanaMessage(message.clone()),
            ),
            Payload::EthereumTransaction(transaction) => (
                "ethereum_transaction",
                transaction.as_slice(),
                Wire::EthereumTransaction(transaction.clone()),
            ),
            Payload::Digest(digest) => ("digest", digest.as_slice(), Wire::Digest(digest.to_vec())),
        };
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let expire_ms = clock::now().0.saturating_add(timeout_ms);
        let digest = SigningAuthorization {
            cluster: &self.cluster,
            initiator: &self.principal,
            request_id,
            key: key.name,
            payload_kind,
            payload: bytes,
            expire_ms,
            derivation_path: key.path.steps(),
        }
        .digest();
        let signature: p256::ecdsa::Signature =
            self.key.sign_prehash(&digest).map_err(Error::bug)?;
        Ok(v1::CreateSigningRequestRequest {
            request_id: request_id.to_owned(),
            key: key.name.to_owned(),
            payload: Some(v1::SigningPayload {
                payload: Some(wire),
            }),
            expire_time: Some(prost_types::Timestamp {
                seconds: i64::try_from(expire_ms / 1000).map_err(Error::bug)?,
                nanos: i32::try_from(expire_ms % 1000).map_err(Error::bug)? * 1_000_000,
            }),
            authorization: signature.to_bytes().to_vec(),
            derivation_path: key.path.steps().to_vec(),
        })
    }
}
