//! Signature certificates, put together at the coordinator when they are asked for.

use std::{sync::Arc, time::Duration};

use arca_audit::certificate::{
    Base64, Certificate, Opening, Party, Request, Signature, SignedManifest, VERSION, file_name,
};
use arca_audit::entry::Hex;
use futures_util::future::join_all;
use tonic::Code;

use crate::{
    admission,
    core::Core,
    error::Error,
    names, records,
    signing::{self, SignedRecord},
    state::LogPlace,
};

/// How long a peer has to give its part.
const PART: Duration = Duration::from_secs(8);

/// The certificate of a request that this party coordinated.
///
/// # Errors
/// [`Error::Reject`] when there is none of that name or it is not signed; [`Error::Unavailable`] when a signer is not
/// connected, or nobody has cosigned its log so far.
pub async fn assemble(core: &Arc<Core>, name: &str) -> Result<Certificate, Error> {
    names::signing_request_id(name)?;
    let membership = core.membership()?;
    let record = signing::signed_record(core, name).await?.ok_or_else(|| {
        Error::reject(
            Code::FailedPrecondition,
            "NOT_SIGNED",
            format!(
                "{name}: no signed request of that name at {}; ask its coordinator, when it is SIGNED",
                membership.party
            ),
        )
    })?;
    let (_, opening) = opening(core, &record).await?;
    let others = |party: &str| -> Vec<String> {
        let signers = record.intents.iter().map(|(signer, _)| signer);
        signers.filter(|signer| *signer != party).cloned().collect()
    };
    let parts = record.intents.iter().map(|(party, place)| {
        let (core, membership) = (Arc::clone(core), Arc::clone(&membership));
        let others = others(party);
        async move {
            if *party == membership.party {
                return records::party(&core, *place, &record.session, &others).await;
            }
            let answer = core
                .network
                .ask_record(&membership.party, party, *place, &record.session, PART)
                .await?;
            let part: Party = serde_json::from_slice(&answer).map_err(|_| Error::Unavailable {
                reason: "PEER_RECORD_UNAVAILABLE",
                message: format!("{party} gave something else than its part of a certificate"),
                parties: vec![party.clone()],
            })?;
            Ok(part)
        }
    });
    let parties = join_all(parts)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, Error>>()?;
    let manifest = manifest(core, &parties).await?;
    Ok(Certificate {
        version: VERSION,
        request: opening.request,
        key: opening.key,
        session: opening.session,
        signatures: opening.signatures,
        manifest,
        parties,
    })
}

/// The manifest under which the intents were logged.
async fn manifest(core: &Core, parties: &[Party]) -> Result<SignedManifest, Error> {
    let entry = parties
        .first()
        .and_then(|party| arca_audit::entry::Entry::decode(party.entry.as_bytes()).ok())
        .ok_or(Error::Bug("a certificate without an entry"))?;
    let path = format!("files/{}", entry.manifest);
    let damaged = || Error::Fault {
        reason: "LOG_DAMAGED",
        message: format!("the host does not return {path}; restore the host's archive"),
    };
    let file = core.state.storage().log_file(&path).await?;
    let file = file.ok_or_else(damaged)?;
    if file_name(&file) != entry.manifest.to_string() {
        return Err(damaged());
    }
    serde_json::from_slice(&file).map_err(|_| damaged())
}

/// What the commitment of a signed request stands for, and where its intent stands in this party's logs.
///
/// # Errors
/// [`Error::Fault`] when the key cannot be read.
pub async fn opening(core: &Core, record: &SignedRecord) -> Result<(LogPlace, Opening), Error> {
    let membership = core.membership()?;
    let own = record
        .intents
        .iter()
        .find(|(party, _)| *party == membership.party);
    let (_, place) = own.ok_or(Error::Bug("a request was signed without its coordinator"))?;
    let held = core.key(&record.request.key).await?;
    let (payload_kind, payload) = admission::payload_of(&record.sent)?;
    let request = &record.request;
    let signatures = request.signatures.iter().map(|signed| {
        Ok(Signature {
            signature: Hex(signed
                .signature
                .as_slice()
                .try_into()
                .map_err(|_| Error::Bug("a signature has 64 bytes"))?),
            input: signed.input,
            recovery_id: signed.recovery_id,
            public_key: signed.public_key.clone(),
        })
    });
    let opening = Opening {
        index: place.index,
        session: Hex(record.session),
        request: Request {
            initiator: request.initiator.clone(),
            request_id: request.request_id.clone(),
            key: request.key.clone(),
            payload_kind: payload_kind.to_owned(),
            payload: Base64(payload),
            expire_ms: names::millis(request.expire_time.as_ref())
                .ok_or(Error::Bug("a stored request has no time"))?,
            derivation_path: request.derivation_path.clone(),
            authorization: Hex(record
                .sent
                .authorization
                .as_slice()
                .try_into()
                .map_err(|_| Error::Bug("an authorization has 64 bytes"))?),
        },
        key: held.record.to_certificate(),
        signatures: signatures.collect::<Result<_, Error>>()?,
    };
    Ok((*place, opening))
}
