//! A request and its signatures, as a certificate or an opening shows them: who asked, what for, and whether the
//! signatures are that.

use arca_attestation::manifest::{Manifest, Role};
use arca_attestation::{SigningAuthorization, request_commitment};
use arca_audit::certificate::{KeyRecord, Request, Signature};
use arca_policy::Intent;
use p256::ecdsa::VerifyingKey;
use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::DecodePublicKey as _;

use crate::client::Payload;
use crate::group_key::GroupKey;
use crate::path::DerivationPath;
use crate::resources::{self, EcdsaSigner, Key, KeyState, Scheme, State};
use crate::verify;

/// What went wrong, for people.
pub(super) type Problem = String;

/// A key as a document shows it.
pub(super) fn key(record: &KeyRecord) -> Result<Key, Problem> {
    let scheme = scheme(&record.scheme)?;
    let public_key = GroupKey::new(scheme, &record.public_key, &record.chain_code)
        .map_err(|cause| cause.to_string())?;
    let parties = record.parties.len();
    let mut names: Vec<&String> = record.parties.iter().collect();
    names.sort_unstable();
    names.dedup();
    if names.len() != parties || !(1..=parties).contains(&usize::from(record.threshold)) {
        return Err("its threshold is none of its parties', or it names a party twice".to_owned());
    }
    Ok(Key {
        name: record.name.clone(),
        display_name: record.name.clone(),
        scheme,
        state: KeyState::Enabled,
        threshold: record.threshold.into(),
        parties: record.parties.clone(),
        public_key,
        epoch: record.epoch,
        create_time: None,
        allow_raw_digest: record.allow_raw_digest,
    })
}

fn scheme(name: &str) -> Result<Scheme, Problem> {
    [
        Scheme::Bip340,
        Scheme::Ed25519,
        Scheme::EcdsaSecp256k1,
        Scheme::EcdsaP256,
    ]
    .into_iter()
    .find(|scheme| scheme.as_str() == name)
    .ok_or_else(|| "its scheme is not known".to_owned())
}

fn digest(cluster: &str, request: &Request) -> [u8; 32] {
    authorization(cluster, request).digest()
}

fn authorization<'a>(cluster: &'a str, request: &'a Request) -> SigningAuthorization<'a> {
    SigningAuthorization {
        cluster,
        initiator: &request.initiator,
        request_id: &request.request_id,
        key: &request.key,
        payload_kind: &request.payload_kind,
        payload: &request.payload.0,
        expire_ms: request.expire_ms,
        derivation_path: &request.derivation_path,
    }
}

/// What a log's entries name this request by.
pub(super) fn commitment(cluster: &str, request: &Request) -> [u8; 32] {
    request_commitment(&digest(cluster, request), &request.authorization.0)
}

/// The initiator is one of the manifest's, and has signed this request.
pub(super) fn authorized(manifest: &Manifest, request: &Request) -> Result<String, Problem> {
    let principal = manifest
        .principal(&request.initiator)
        .filter(|principal| principal.roles.contains(&Role::Initiator))
        .ok_or_else(|| format!("the manifest names no initiator {:?}", request.initiator))?;
    let key = VerifyingKey::from_public_key_der(&principal.identity)
        .map_err(|_| "the initiator's key in the manifest is no P-256 key".to_owned())?;
    let signature = p256::ecdsa::Signature::from_slice(&request.authorization.0)
        .map_err(|_| "the authorization is no ECDSA signature".to_owned())?;
    key.verify(
        &authorization(manifest.cluster(), request).message(),
        &signature,
    )
    .map_err(|_| {
        format!(
            "the authorization is not {}'s over this request",
            request.initiator
        )
    })?;
    Ok(format!(
        "{}, request {:?}",
        principal.name, request.request_id
    ))
}

/// What the payload does, decoded for this key by the code that the parties use.
pub(super) fn decode(key: &Key, request: &Request) -> Result<Intent, Problem> {
    if request.key != key.name {
        return Err(format!(
            "the request is for {}, the key is {}",
            request.key, key.name
        ));
    }
    let bytes = request.payload.0.clone();
    let payload = match request.payload_kind.as_str() {
        "psbt" => Payload::Psbt(bytes),
        "solana_message" => Payload::SolanaMessage(bytes),
        "ethereum_transaction" => Payload::EthereumTransaction(bytes),
        "digest" => Payload::Digest(
            bytes
                .try_into()
                .map_err(|_| "its digest is not 32 bytes".to_owned())?,
        ),
        _ => return Err("its kind of payload is not known".to_owned()),
    };
    let path = path(request)?;
    verify::decode(key, &path, &payload).map_err(|cause| cause.to_string())
}

/// Each signature is the one right one for what it stands for.
pub(super) fn signed(
    key: &Key,
    request: &Request,
    intent: &Intent,
    signatures: &[Signature],
) -> Result<(), Problem> {
    let signatures = signatures
        .iter()
        .map(|signature| of_resource(key.scheme, signature))
        .collect::<Result<_, _>>()?;
    let signed = resources::SigningRequest {
        name: format!("request {:?}", request.request_id),
        request_id: request.request_id.clone(),
        key: request.key.clone(),
        derivation_path: path(request)?,
        state: State::Signed,
        revision: 0,
        create_time: None,
        expire_time: None,
        initiator: request.initiator.clone(),
        summary: String::new(),
        signatures,
        signers: Vec::new(),
        failure: None,
        coordinator: String::new(),
    };
    verify::signatures(key, &signed.derivation_path, intent, &signed)
        .map_err(|cause| cause.to_string())
}

fn path(request: &Request) -> Result<DerivationPath, Problem> {
    DerivationPath::new(request.derivation_path.clone()).map_err(|cause| cause.to_string())
}

fn of_resource(scheme: Scheme, signature: &Signature) -> Result<resources::Signature, Problem> {
    let is_ecdsa = matches!(scheme, Scheme::EcdsaSecp256k1 | Scheme::EcdsaP256);
    let ecdsa = if is_ecdsa {
        let invalid = |_| "an ECDSA signature without a key or recovery id".to_owned();
        Some(EcdsaSigner {
            recovery_id: u8::try_from(signature.recovery_id).map_err(|_| invalid(()))?,
            public_key: signature
                .public_key
                .as_slice()
                .try_into()
                .map_err(|_| invalid(()))?,
        })
    } else if signature.public_key.is_empty() && signature.recovery_id == 0 {
        None
    } else {
        return Err("a signature of this scheme has no key and no recovery id".to_owned());
    };
    Ok(resources::Signature {
        signature: signature.signature.0,
        input: signature.input,
        ecdsa,
    })
}
