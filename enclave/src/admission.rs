//! What has to hold before this party lends its share to a signature, checked alike at every signer.

use std::sync::Arc;

use arca_attestation::{SigningAuthorization, manifest::Role, request_commitment};
use arca_policy::{Intent, Payload, Rejection};
use arca_proto::v1::{CreateSigningRequestRequest, SigningPayload, signing_payload};
use p256::pkcs8::DecodePublicKey;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::{
    core::{Core, Membership},
    error::Error,
    key::HeldKey,
    names, tags,
};

/// Longest time that a request may be signed in.
const MAX_LIFETIME_MS: u64 = 60 * 60 * 1000;
/// By how much two parties' clocks may differ.
const CLOCK_SKEW_MS: u64 = 60 * 1000;

/// A request that this party would sign.
pub struct Admitted {
    /// The key with this party's share.
    pub held: Arc<HeldKey>,
    /// What the payload does, as this party decoded it.
    pub intent: Intent,
    /// What the initiator signed.
    pub digest: [u8; 32],
    /// What the log names the request by.
    pub commitment: [u8; 32],
    /// What nobody but the initiator could know before it made this request: depends on its signature.
    pub entropy: [u8; 32],
}

/// Checks a request for a signature: who asks, until when, for which key, and what it would do.
///
/// # Errors
/// [`Error::Reject`] with the reason.
///
/// # Security
/// The coordinator's word counts for nothing here. The initiator's own signature is verified under the key that
/// *this* party's manifest gives it, and the payload is decoded here.
pub async fn admit(
    core: &Core,
    membership: &Membership,
    initiator: &str,
    request: &CreateSigningRequestRequest,
) -> Result<Admitted, Error> {
    names::check_request_id(&request.request_id)?;
    names::key_id(&request.key)?;
    let (kind, payload) = payload(request.payload.as_ref())?;
    let expire_ms = names::millis(request.expire_time.as_ref())
        .ok_or_else(|| Error::invalid("INVALID_ARGUMENT", "expire_time: not a time after 1970"))?;
    let now = core.platform.now().0;
    if expire_ms <= now {
        return Err(Error::reject(
            Code::DeadlineExceeded,
            "EXPIRED",
            "expire_time: has passed",
        ));
    }
    if expire_ms > now.saturating_add(MAX_LIFETIME_MS + CLOCK_SKEW_MS) {
        return Err(Error::invalid(
            "INVALID_ARGUMENT",
            "expire_time: at most an hour from now",
        ));
    }

    let unauthorized = |why: &str| {
        let message = format!("{}: {why}", initiator.escape_default());
        Error::reject(
            Code::PermissionDenied,
            "NOT_AUTHORIZED_BY_INITIATOR",
            message,
        )
    };
    let principal = membership
        .manifest
        .principal(initiator)
        .filter(|principal| principal.roles.contains(&Role::Initiator))
        .ok_or_else(|| unauthorized("the manifest names no such initiator"))?;
    let message = authorization(membership, initiator, request, kind, &payload)
        .ok_or(Error::Bug("a time was read that cannot be read"))?
        .message();
    let key = p256::PublicKey::from_public_key_der(&principal.identity)
        .map_err(|_| unauthorized("its key in the manifest is not a P-256 key"))?
        .to_sec1_bytes();
    // By the TLS library's code, which is several times as fast as `p256`.
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(&message, &request.authorization)
        .map_err(|_| unauthorized("authorization: does not verify over this request"))?;
    let digest: [u8; 32] = Sha256::digest(&message).into();
    let entropy = names::tagged_digest(
        tags::SIGNING_ENTROPY,
        &[&digest, request.authorization.as_slice()],
    );

    let commitment = request_commitment(&digest, &request.authorization);
    let held = core.key(&request.key).await?;
    let facts = held.record.facts()?;
    let intent = arca_policy::decode(&payload, &facts, &request.derivation_path)
        .map_err(|rejection| refused(&rejection))?;
    Ok(Admitted {
        held,
        intent,
        digest,
        commitment,
        entropy,
    })
}

/// What the log names a request by, admitted or not; `None` for one without a payload.
pub fn commitment(
    membership: &Membership,
    initiator: &str,
    request: &CreateSigningRequestRequest,
) -> Option<[u8; 32]> {
    let (kind, payload) = payload(request.payload.as_ref()).ok()?;
    let digest = authorization(membership, initiator, request, kind, &payload)?.digest();
    Some(request_commitment(&digest, &request.authorization))
}

fn authorization<'a>(
    membership: &'a Membership,
    initiator: &'a str,
    request: &'a CreateSigningRequestRequest,
    payload_kind: &'a str,
    payload: &'a Payload,
) -> Option<SigningAuthorization<'a>> {
    Some(SigningAuthorization {
        cluster: membership.manifest.cluster(),
        initiator,
        request_id: &request.request_id,
        key: &request.key,
        payload_kind,
        payload: payload_bytes(payload),
        expire_ms: names::millis(request.expire_time.as_ref())?,
        derivation_path: &request.derivation_path,
    })
}

/// Kind and bytes of a request's payload.
///
/// # Errors
/// [`Error::Reject`] when it has none.
pub fn payload_of(request: &CreateSigningRequestRequest) -> Result<(&'static str, Vec<u8>), Error> {
    let (kind, payload) = payload(request.payload.as_ref())?;
    Ok((kind, payload_bytes(&payload).to_vec()))
}

fn payload(payload: Option<&SigningPayload>) -> Result<(&'static str, Payload), Error> {
    use signing_payload::Payload as Wire;
    match payload.and_then(|payload| payload.payload.as_ref()) {
        Some(Wire::Psbt(bytes)) => Ok(("psbt", Payload::Psbt(bytes.clone()))),
        Some(Wire::SolanaMessage(bytes)) => {
            Ok(("solana_message", Payload::SolanaMessage(bytes.clone())))
        }
        Some(Wire::Digest(bytes)) => <[u8; 32]>::try_from(bytes.as_slice())
            .map(|digest| ("digest", Payload::Digest(digest)))
            .map_err(|_| Error::invalid("INVALID_ARGUMENT", "payload.digest: 32 bytes")),
        Some(Wire::EthereumTransaction(bytes)) => Ok((
            "ethereum_transaction",
            Payload::EthereumTransaction(bytes.clone()),
        )),
        None => Err(Error::invalid(
            "INVALID_ARGUMENT",
            "payload: one of psbt, solana_message, ethereum_transaction, digest",
        )),
    }
}

fn payload_bytes(payload: &Payload) -> &[u8] {
    match payload {
        Payload::Psbt(bytes)
        | Payload::SolanaMessage(bytes)
        | Payload::EthereumTransaction(bytes) => bytes,
        Payload::Digest(digest) => digest,
    }
}

fn refused(rejection: &Rejection) -> Error {
    let code = match rejection {
        Rejection::RawDigestNotAllowed => Code::PermissionDenied,
        _ => Code::InvalidArgument,
    };
    Error::reject(code, rejection.reason(), rejection.to_string())
}
