//! Making a key: the coordinator's side and every other party's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arca_policy::Scheme;
use arca_proto::v1::{
    CreateKeyRequest, GenerateKey, Key, OpenSession, Operation, SealedKeyRequest,
    open_session::Task, operation::Result as Outcome,
};
use arca_threshold::{
    DkgParams, Participant, SessionId, dkg,
    ecdsa::{self, CurveId},
};
use prost::Message as _;
use rand_core::RngCore as _;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::{
    core::{Core, Membership},
    error::Error,
    key::{HeldKey, KeyRecord, Share},
    lane::Lane,
    names,
    network::{Opening, SessionKey},
    operations::{Begun, other_body},
    session::{Ended, MAX_SESSION, PEER_PROTOCOL, Roster, Session},
    tags,
};

/// How long a key generation may take: several rounds, and two durable writes at each party.
const KEY_GENERATION: Duration = Duration::from_secs(30);
/// How long to wait for parties that are just connecting.
const GATHER: Duration = Duration::from_secs(10);
/// Pause before a session that lost a party is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Begins a key generation that `administrator` asked for, or finds the one it asked for before.
///
/// # Errors
/// [`Error::Reject`] naming the field that is wrong.
pub async fn create(
    core: &Arc<Core>,
    administrator: &str,
    request: CreateKeyRequest,
) -> Result<Operation, Error> {
    let membership = core.membership()?;
    names::check_request_id(&request.request_id)?;
    draft(core, &membership, &SessionKey::default(), &request)?;
    let body = names::tagged_digest(
        tags::KEY_REQUEST_BODY,
        &[
            &request.scheme.to_be_bytes(),
            &request.threshold.to_be_bytes(),
            &[u8::from(request.allow_raw_digest)],
            request.display_name.as_bytes(),
            request.parties.join(",").as_bytes(),
        ],
    );
    let id = names::derived_id(
        tags::KEY_REQUEST_ID,
        &[
            membership.manifest.cluster().as_bytes(),
            administrator.as_bytes(),
            request.request_id.as_bytes(),
        ],
    );
    if let Some((made, done)) = made_before(core, &membership, &id).await? {
        return if made.body_digest == body {
            Ok(done)
        } else {
            Err(other_body())
        };
    }
    match core.operations.begin(&operation_name(&id), body)? {
        Begun::Known(operation) => Ok(operation),
        Begun::New(running, operation) => {
            let core = Arc::clone(core);
            tokio::spawn(async move {
                let outcome = coordinate(&core, &membership, &id, &request, body).await;
                match &outcome {
                    Ok(record) => tracing::info!(key = record.name, "made a key"),
                    Err(error) => tracing::warn!(%error, "a key generation failed"),
                }
                running.finish(outcome.map(|record| any(&record)));
            });
            Ok(operation)
        }
    }
}

/// An operation by name: of this boot, or told from what it made.
///
/// # Errors
/// [`Error::Reject`] when nothing is known of it.
pub async fn operation(core: &Core, name: &str) -> Result<Operation, Error> {
    let id = names::operation_id(name)?;
    if let Some(operation) = core.operations.get(name) {
        return Ok(operation.borrow().clone());
    }
    let membership = core.membership()?;
    match made_before(core, &membership, id).await? {
        Some((_, done)) => Ok(done),
        None => Err(Error::not_found(
            "OPERATION_NOT_FOUND",
            format!(
                "{name}: not known at {}, or interrupted by a restart; ask again under the same request_id",
                membership.party
            ),
        )),
    }
}

/// Takes part in a key generation that a peer coordinates.
pub async fn participate(core: Arc<Core>, opening: Opening, task: GenerateKey) {
    let from = opening.from.clone();
    match join(&core, opening, task).await {
        Ok(held) => {
            tracing::info!(
                key = held.record.name,
                coordinator = from,
                "holds a share of a new key"
            );
        }
        Err(ended) => {
            tracing::warn!(coordinator = from, error = %ended.error, "a key generation failed");
        }
    }
}

/// Turns a request into the record of the key to make.
fn draft(
    core: &Core,
    membership: &Membership,
    session: &SessionKey,
    request: &CreateKeyRequest,
) -> Result<KeyRecord, Error> {
    let mut parties = request.parties.clone();
    if parties.is_empty() {
        parties = membership
            .manifest
            .parties()
            .iter()
            .map(|party| party.name.clone())
            .collect();
    }
    let record = KeyRecord::from_wire(Key {
        name: key_name(session),
        display_name: request.display_name.clone(),
        scheme: request.scheme,
        threshold: request.threshold,
        parties,
        epoch: 1,
        create_time: Some(names::timestamp(core.platform.now().0)),
        allow_raw_digest: request.allow_raw_digest,
        ..Key::default()
    })?;
    check_parties(membership, &record)?;
    Ok(record)
}

fn check_parties(membership: &Membership, record: &KeyRecord) -> Result<(), Error> {
    for party in &record.parties {
        if membership.manifest.party(party).is_none() {
            return Err(Error::invalid(
                "UNKNOWN_PARTY",
                format!(
                    "parties: the manifest has no party {}",
                    party.escape_default()
                ),
            ));
        }
    }
    if record.index_of(&membership.party).is_none() {
        return Err(Error::invalid(
            "NOT_A_PARTY_OF_THE_KEY",
            format!(
                "parties: {} coordinates and has to hold a share; ask one of the key's parties",
                membership.party
            ),
        ));
    }
    Ok(())
}

/// What a request made, in this boot or before.
async fn made_before(
    core: &Core,
    membership: &Membership,
    id: &str,
) -> Result<Option<(SealedKeyRequest, Operation)>, Error> {
    let Some(content) = core
        .state
        .read(&membership.owner, &request_object(id))
        .await?
    else {
        return Ok(None);
    };
    let made = SealedKeyRequest::decode(content.as_slice())
        .map_err(|_| Error::Bug("a sealed key request does not decode"))?;
    let held = core.key(&made.key).await?;
    let done = Operation {
        name: operation_name(id),
        done: true,
        result: Some(Outcome::Response(any(&held.record))),
    };
    Ok(Some((made, done)))
}

/// Generates the key and remembers which request made it. A session that loses a peer is tried again.
async fn coordinate(
    core: &Arc<Core>,
    membership: &Membership,
    id: &str,
    request: &CreateKeyRequest,
    body: [u8; 32],
) -> Result<KeyRecord, Error> {
    let until = Instant::now() + GATHER;
    let held = loop {
        let mut session = SessionKey::default();
        core.randomness
            .generator(&*core.platform)?
            .fill_bytes(&mut session);
        let record = draft(core, membership, &session, request)?;
        match generate(core, membership, session, record, until)
            .await
            .map_err(|ended| ended.error)
        {
            Err(Error::Unavailable { message, .. }) if Instant::now() < until => {
                tracing::info!(message, "a key generation lost a party; trying again");
                sleep(RETRY).await;
            }
            other => break other?,
        }
    };
    if matches!(held.share, Share::Ecdsa(_)) {
        core.presignatures.want(&membership.party, &held.record);
    }
    let made = SealedKeyRequest {
        body_digest: body.to_vec(),
        key: held.record.name.clone(),
    };
    core.state
        .write(
            &membership.owner,
            &request_object(id),
            0,
            &made.encode_to_vec(),
        )
        .await?;
    Ok(held.record.clone())
}

async fn generate(
    core: &Arc<Core>,
    membership: &Membership,
    session: SessionKey,
    record: KeyRecord,
    until: Instant,
) -> Result<Arc<HeldKey>, Ended> {
    let others: Vec<String> = record
        .parties
        .iter()
        .filter(|party| **party != membership.party)
        .cloned()
        .collect();
    core.network
        .wait_for(
            &others,
            others.len(),
            until.saturating_duration_since(Instant::now()),
        )
        .await?;
    let frames = core
        .network
        .open(session, &membership.party, &record.parties)?;
    let mut run = Session::new(
        Arc::clone(&core.network),
        roster(&record, session, &membership.party, KEY_GENERATION),
        frames,
    );
    run.open(&OpenSession {
        version: PEER_PROTOCOL,
        participants: record.parties.clone(),
        timeout_ms: u32::try_from(KEY_GENERATION.as_millis()).unwrap_or(u32::MAX),
        task: Some(Task::GenerateKey(GenerateKey {
            key: Some(record.to_wire()),
        })),
    })?;
    run_dkg(core, membership, session, record, run).await
}

async fn join(
    core: &Arc<Core>,
    opening: Opening,
    task: GenerateKey,
) -> Result<Arc<HeldKey>, Ended> {
    let checked = async {
        let membership = core.membership()?;
        let session = SessionKey::try_from(opening.frame.session.as_slice())
            .map_err(|_| Error::Bug("a session without an id was routed"))?;
        let record = KeyRecord::from_wire(task.key.unwrap_or_default())?;
        check_parties(&membership, &record)?;
        if record.index_of(&opening.from).is_none() {
            return Err(Error::invalid(
                "NOT_A_PARTY_OF_THE_KEY",
                "the coordinator holds no share",
            ));
        }
        // The name follows from the session, and a session id is good for one session: no key is ever made
        // in the place of another.
        let expected = key_name(&session);
        let open = opening.participants();
        if record.name != expected || record.enabled || record.epoch != 1 || open != record.parties
        {
            return Err(Error::invalid(
                "INVALID_OPENING",
                "the opening contradicts itself",
            ));
        }
        match core.key(&record.name).await {
            Err(Error::Reject {
                code: Code::NotFound,
                ..
            }) => Ok((membership, session, record)),
            Err(other) => Err(other),
            Ok(_) => Err(Error::reject(
                Code::AlreadyExists,
                "KEY_EXISTS",
                "that key exists",
            )),
        }
    };
    let (membership, session, record) = match checked.await {
        Ok(checked) => checked,
        Err(error) => {
            opening.refuse(&core.network, &error);
            return Err(error.into());
        }
    };
    let timeout = opening.timeout().min(MAX_SESSION);
    let run = Session::new(
        Arc::clone(&core.network),
        roster(&record, session, &membership.party, timeout),
        opening.inbox,
    );
    run_dkg(core, &membership, session, record, run).await
}

/// The protocol itself, the same at every party: generate, store, learn that all have stored, enable.
async fn run_dkg(
    core: &Arc<Core>,
    membership: &Membership,
    session: SessionKey,
    record: KeyRecord,
    mut run: Session,
) -> Result<Arc<HeldKey>, Ended> {
    let me = record
        .index_of(&membership.party)
        .ok_or(Error::Bug("not a party of this key"))?;
    let stored = core.state.footing()?;
    let mut rng = core
        .randomness
        .generator(&*core.platform)
        .map_err(Error::from)?;
    let share = match record.scheme {
        Scheme::Bip340 => {
            let params = frost(arca_threshold::Scheme::Bip340, &record, session, me);
            Share::Frost(Arc::new(
                run.run(dkg(params, &mut rng), rng, Lane::Here, stored)
                    .await?,
            ))
        }
        Scheme::Ed25519 => {
            let params = frost(arca_threshold::Scheme::Ed25519, &record, session, me);
            Share::Frost(Arc::new(
                run.run(dkg(params, &mut rng), rng, Lane::Here, stored)
                    .await?,
            ))
        }
        Scheme::EcdsaSecp256k1 => {
            let params = dkls(CurveId::Secp256k1, &record, session, me);
            let start = ecdsa::dkg(params, &mut rng);
            Share::Ecdsa(Arc::new(run.run(start, rng, Lane::Here, stored).await?))
        }
        Scheme::EcdsaP256 => {
            let params = dkls(CurveId::P256, &record, session, me);
            let start = ecdsa::dkg(params, &mut rng);
            Share::Ecdsa(Arc::new(run.run(start, rng, Lane::Here, stored).await?))
        }
    };
    let digest = share.public_key_package_digest();
    let mut record = record;
    record.public_key = Some(share.public_key());
    let held = Arc::new(HeldKey::new(record, share));
    let stored = match core.store_key(Arc::clone(&held)).await {
        Ok(stored) => stored,
        Err(error) => {
            run.abort(&error);
            return Err(error.into());
        }
    };
    run.confirm_stored(digest, stored).await?;
    Ok(enable(core, &held).await?)
}

/// Records that every party holds its share.
///
/// # Errors
/// [`Error::Fault`] when it could not be stored.
pub async fn enable(core: &Core, held: &Arc<HeldKey>) -> Result<Arc<HeldKey>, Error> {
    if held.record.enabled {
        return Ok(Arc::clone(held));
    }
    let record = KeyRecord {
        enabled: true,
        ..held.record.clone()
    };
    let held = Arc::new(HeldKey::new(record, held.share.clone()));
    core.store_key(Arc::clone(&held)).await?;
    Ok(held)
}

fn frost(
    scheme: arca_threshold::Scheme,
    record: &KeyRecord,
    session: SessionKey,
    me: Participant,
) -> DkgParams {
    DkgParams {
        scheme,
        session: SessionId::new(session),
        context: record.context(),
        me,
        participants: participants(record).into_keys().collect(),
        threshold: record.threshold,
    }
}

fn dkls(
    curve: CurveId,
    record: &KeyRecord,
    session: SessionKey,
    me: Participant,
) -> ecdsa::DkgParams {
    ecdsa::DkgParams {
        curve,
        session: SessionId::new(session),
        context: record.context(),
        me,
        participants: participants(record).into_keys().collect(),
        threshold: record.threshold,
    }
}

fn key_name(session: &SessionKey) -> String {
    format!(
        "{}{}",
        names::KEYS,
        names::derived_id(tags::KEY_ID, &[session])
    )
}

fn operation_name(id: &str) -> String {
    format!("{}{id}", names::OPERATIONS)
}

fn request_object(id: &str) -> String {
    format!("request/{id}")
}

fn participants(record: &KeyRecord) -> BTreeMap<Participant, String> {
    record
        .parties
        .iter()
        .filter_map(|party| Some((record.index_of(party)?, party.clone())))
        .collect()
}

fn roster(record: &KeyRecord, id: SessionKey, me: &str, timeout: Duration) -> Roster {
    Roster {
        id,
        me: me.to_owned(),
        key_epoch: record.epoch,
        participants: participants(record),
        timeout,
    }
}

fn any(record: &KeyRecord) -> prost_types::Any {
    prost_types::Any {
        type_url: "type.googleapis.com/arca.v1.Key".to_owned(),
        value: record.to_wire().encode_to_vec(),
    }
}
