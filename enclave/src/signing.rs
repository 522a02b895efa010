//! Signing requests at their coordinator: admitted, stored, worked on until they end, watched meanwhile.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use arca_audit::entry::{Event, Hex, Outcome};
use arca_proto::v1::{
    CreateSigningRequestRequest, SealedSigningRequest, SigningRequest, sealed_signing_request,
    signing_request::{Failure, State},
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, watch};
use tonic::Code;

use crate::{
    admission::{self, Admitted, admit},
    core::{Core, Membership},
    error::Error,
    key::Share,
    names,
    network::SessionKey,
    operations::other_body,
    presignatures,
    quorum::{self, Signed},
    state::LogPlace,
    stripes::Stripes,
    tags,
};

/// Requests that are worked on at the same time; more wait in QUEUED.
const CONCURRENT: usize = 128;
/// Requests that are open at a coordinator, waiting ones included.
const OPEN: usize = 8192;
/// Times that a request is tried, with fresh nonces each time.
const ATTEMPTS: u32 = 16;
/// How long admission waits for parties that are just connecting.
const GATHER: Duration = Duration::from_secs(5);
/// How long to wait, at most, before trying again when no peer came or went.
const RETRY: Duration = Duration::from_secs(1);
/// A request that has not ended by then is stored as it stands. One that ends sooner is stored once, with its end.
const STORED_AFTER: Duration = Duration::from_millis(250);

/// A request and whether a restart would find it.
#[derive(Clone)]
pub struct Progress {
    /// As it stands.
    pub request: SigningRequest,
    stage: Stage,
}

#[derive(Clone)]
enum Stage {
    /// Whoever created it waits.
    Unstored,
    /// What is stored may be an earlier state.
    Stored,
    /// It could not be stored, and will be forgotten.
    Lost {
        reason: &'static str,
        message: String,
    },
}

impl Progress {
    fn is_stored(&self) -> bool {
        matches!(self.stage, Stage::Stored)
    }
}

impl Stage {
    fn after(saved: Result<(), Error>) -> Self {
        match saved {
            Ok(()) => Self::Stored,
            Err(error) => Self::Lost {
                reason: match error {
                    Error::Fault { reason, .. } => reason,
                    Error::Abort { .. }
                    | Error::Reject { .. }
                    | Error::Unavailable { .. }
                    | Error::Bug(_) => "NOT_STORED",
                },
                message: error.to_string(),
            },
        }
    }
}

/// The requests that this coordinator is working on.
pub struct Requests {
    open: Mutex<HashMap<String, watch::Receiver<Progress>>>,
    places: Semaphore,
    creating: Stripes,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            places: Semaphore::new(CONCURRENT),
            creating: Stripes::default(),
        }
    }
}

/// Admits a request, starts on it, and stores it; or finds the one made before under the same id.
///
/// Returns when it is stored: with its end, if that comes at once.
///
/// # Errors
/// [`Error::Reject`] when it is refused, and then nothing is stored; [`Error::Unavailable`] when too few parties
/// are connected; [`Error::Fault`] when it could not be stored.
pub async fn create(
    core: &Arc<Core>,
    initiator: &str,
    request: CreateSigningRequestRequest,
) -> Result<SigningRequest, Error> {
    let membership = core.membership()?;
    names::check_request_id(&request.request_id)?;
    let id = names::derived_id(
        tags::SIGNING_REQUEST_ID,
        &[
            membership.manifest.cluster().as_bytes(),
            initiator.as_bytes(),
            request.request_id.as_bytes(),
        ],
    );
    let name = format!("{}{id}", names::SIGNING_REQUESTS);
    let one_at_a_time = core.requests.creating.lock(&name).await;
    let (known, admitted) = tokio::join!(
        find(core, &membership, &name),
        admit(core, &membership, initiator, &request)
    );
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            let commitment = admission::commitment(&membership, initiator, &request);
            quorum::note_refusal(core, initiator, &error, commitment);
            return Err(error);
        }
    };
    if let Some(known) = known? {
        let same = known.request.key == request.key
            && known.request.payload == request.payload
            && known.request.derivation_path == request.derivation_path;
        if !same {
            return Err(other_body());
        }
        let known = resume(core, known);
        drop(one_at_a_time);
        return known.stored().await;
    }
    if core.requests.open().len() >= OPEN {
        return Err(Error::reject(
            Code::ResourceExhausted,
            "TOO_MANY_OPEN_REQUESTS",
            format!(
                "{} has {OPEN} open signing requests; try again later",
                membership.party
            ),
        ));
    }
    let record = &admitted.held.record;
    let others: Vec<String> = record
        .parties
        .iter()
        .filter(|party| **party != membership.party)
        .cloned()
        .collect();
    core.network
        .wait_for(&others, usize::from(record.threshold) - 1, GATHER)
        .await?;

    let request = Stored {
        request: SigningRequest {
            name,
            request_id: request.request_id,
            key: request.key,
            payload: request.payload,
            state: State::Queued.into(),
            revision: 1,
            create_time: Some(names::timestamp(core.platform.now().0)),
            expire_time: request.expire_time,
            initiator: initiator.to_owned(),
            summary: admitted.intent.summary().to_owned(),
            coordinator: membership.party.clone(),
            derivation_path: request.derivation_path,
            ..SigningRequest::default()
        },
        authorization: request.authorization,
        signed: None,
    };
    let started = start(core, request, Stage::Unstored, Some(admitted));
    drop(one_at_a_time);
    started.stored().await
}

/// A request as it stands. One that a restart interrupted is taken up again.
///
/// # Errors
/// [`Error::Reject`] when there is none of that name at this party.
pub async fn get(core: &Arc<Core>, name: &str) -> Result<SigningRequest, Error> {
    names::signing_request_id(name)?;
    let membership = core.membership()?;
    match find(core, &membership, name).await? {
        Some(known) => Ok(resume(core, known).request()),
        None => Err(Error::not_found(
            "SIGNING_REQUEST_NOT_FOUND",
            format!(
                "{name}: not at {}; ask the party that coordinates it",
                membership.party
            ),
        )),
    }
}

/// A request that was signed, and what the logs say of it.
pub struct SignedRecord {
    /// As it ended.
    pub request: SigningRequest,
    /// As its initiator sent it.
    pub sent: CreateSigningRequestRequest,
    /// The session that signed it.
    pub session: SessionKey,
    /// Where each signer's intent stands in its log.
    pub intents: Vec<(String, LogPlace)>,
}

/// A request that this party coordinated and that is stored as SIGNED; `None` when it is not.
///
/// # Errors
/// [`Error::Fault`] when it cannot be read.
pub async fn signed_record(core: &Core, name: &str) -> Result<Option<SignedRecord>, Error> {
    let membership = core.membership()?;
    let Some(stored) = read(core, &membership, name).await? else {
        return Ok(None);
    };
    let sent = stored.as_sent();
    Ok(stored.signed.map(|session| SignedRecord {
        request: stored.request,
        sent,
        session: session.id,
        intents: session.intents,
    }))
}

/// Follows a request that is being worked on; `None` when it has ended.
///
/// # Errors
/// As [`get`].
pub async fn watch(
    core: &Arc<Core>,
    name: &str,
) -> Result<(SigningRequest, Option<watch::Receiver<Progress>>), Error> {
    let current = get(core, name).await?;
    Ok((current, core.requests.open().get(name).cloned()))
}

/// Whether a request has ended.
pub fn has_ended(request: &SigningRequest) -> bool {
    match State::try_from(request.state) {
        Ok(State::Signed | State::Denied | State::Expired | State::Failed | State::Cancelled) => {
            true
        }
        Ok(
            State::Unspecified
            | State::PendingPolicy
            | State::AwaitingApproval
            | State::Queued
            | State::Signing,
        )
        | Err(_) => false,
    }
}

/// Name under which the host files a signing request.
pub fn request_object(id: &str) -> String {
    format!("signing/{id}")
}

/// A request with what is needed to go on with it.
struct Stored {
    request: SigningRequest,
    authorization: Vec<u8>,
    signed: Option<Session>,
}

/// The session that signed a request, and where the signers' intents stand in their logs.
#[derive(Clone)]
struct Session {
    id: SessionKey,
    intents: Vec<(String, LogPlace)>,
}

impl Stored {
    /// The request as its initiator sent it.
    fn as_sent(&self) -> CreateSigningRequestRequest {
        CreateSigningRequestRequest {
            request_id: self.request.request_id.clone(),
            key: self.request.key.clone(),
            payload: self.request.payload.clone(),
            expire_time: self.request.expire_time,
            authorization: self.authorization.clone(),
            derivation_path: self.request.derivation_path.clone(),
        }
    }
}

async fn find(core: &Core, membership: &Membership, name: &str) -> Result<Option<Stored>, Error> {
    if let Some(open) = core.requests.open().get(name) {
        return Ok(Some(Stored {
            request: open.borrow().request.clone(),
            authorization: Vec::new(),
            signed: None,
        }));
    }
    read(core, membership, name).await
}

/// A request as it is stored.
async fn read(core: &Core, membership: &Membership, name: &str) -> Result<Option<Stored>, Error> {
    let id = names::signing_request_id(name)?;
    let Some(content) = core
        .state
        .read(&membership.owner, &request_object(id))
        .await?
    else {
        return Ok(None);
    };
    let sealed = SealedSigningRequest::decode(content.as_slice())
        .map_err(|_| Error::Bug("a sealed signing request does not decode"))?;
    let request = sealed
        .signing_request
        .filter(|request| request.name == name);
    let request = request.ok_or(Error::Bug("a sealed signing request holds another one"))?;
    let intents = sealed.intents.into_iter().map(|intent| {
        let place = LogPlace {
            log: intent.log,
            index: intent.index,
        };
        (intent.party, place)
    });
    let intents = intents.collect();
    let session = SessionKey::try_from(sealed.session).ok();
    Ok(Some(Stored {
        request,
        authorization: sealed.authorization,
        signed: session.map(|id| Session { id, intents }),
    }))
}

async fn store(
    core: &Core,
    membership: &Membership,
    stored: &Stored,
    events: Vec<Event>,
) -> Result<(), Error> {
    let id = names::signing_request_id(&stored.request.name)?;
    let signed = stored.signed.as_ref();
    let intents = signed.map(|session| session.intents.as_slice());
    let intents = intents.unwrap_or_default().iter();
    let intents = intents.map(|(party, place)| sealed_signing_request::Intent {
        party: party.clone(),
        log: place.log,
        index: place.index,
    });
    let sealed = SealedSigningRequest {
        signing_request: Some(stored.request.clone()),
        authorization: stored.authorization.clone(),
        session: signed
            .map(|session| session.id.to_vec())
            .unwrap_or_default(),
        intents: intents.collect(),
    };
    core.state
        .write_with(
            &membership.owner,
            &request_object(id),
            0,
            &sealed.encode_to_vec(),
            events,
        )
        .await?;
    Ok(())
}

/// A request that was found, or is being worked on.
enum Found {
    Ended(Box<SigningRequest>),
    Running(watch::Receiver<Progress>),
}

impl Found {
    fn request(self) -> SigningRequest {
        match self {
            Self::Ended(request) => *request,
            Self::Running(progress) => progress.borrow().request.clone(),
        }
    }

    /// Waits until a restart would find it.
    async fn stored(self) -> Result<SigningRequest, Error> {
        let mut progress = match self {
            Self::Ended(request) => return Ok(*request),
            Self::Running(progress) => progress,
        };
        let settled = progress.wait_for(|progress| !matches!(progress.stage, Stage::Unstored));
        let settled = settled
            .await
            .map_err(|_| Error::Bug("a signing request was let go of before it was stored"))?;
        match &settled.stage {
            Stage::Unstored | Stage::Stored => Ok(settled.request.clone()),
            Stage::Lost { reason, message } => Err(Error::Fault {
                reason,
                message: message.clone(),
            }),
        }
    }
}

/// Goes on with a request that nobody is working on.
fn resume(core: &Arc<Core>, stored: Stored) -> Found {
    if has_ended(&stored.request) {
        return Found::Ended(Box::new(stored.request));
    }
    start(core, stored, Stage::Stored, None)
}

/// Starts a worker for a request, unless there is one. `admitted` is what admission found a moment ago.
fn start(core: &Arc<Core>, stored: Stored, stage: Stage, admitted: Option<Admitted>) -> Found {
    let mut open = core.requests.open();
    if let Some(running) = open.get(&stored.request.name) {
        return Found::Running(running.clone());
    }
    let (progress, receiver) = watch::channel(Progress {
        request: stored.request.clone(),
        stage,
    });
    open.insert(stored.request.name.clone(), receiver.clone());
    drop(open);
    let core = Arc::clone(core);
    tokio::spawn(async move {
        let name = stored.request.name.clone();
        let _listed = Listed {
            core: &core,
            name: &name,
        };
        work(&core, stored, admitted, &progress).await;
    });
    Found::Running(receiver)
}

/// Takes a request off the list of open ones when its worker ends, however it ends.
struct Listed<'a> {
    core: &'a Core,
    name: &'a str,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.core.requests.open().remove(self.name);
    }
}

/// Works on a request until it has ended, and stores how.
async fn work(
    core: &Arc<Core>,
    mut stored: Stored,
    admitted: Option<Admitted>,
    progress: &watch::Sender<Progress>,
) {
    let signing = async {
        // Whoever had to wait for a place is admitted again when it has one.
        let places = &core.requests.places;
        let (_place, admitted) = match places.try_acquire() {
            Ok(place) => (place, admitted),
            Err(_) => {
                let place = places.acquire().await;
                (place.map_err(|_| Error::Bug("no more places"))?, None)
            }
        };
        progress.send_modify(|progress| {
            progress.request.state = State::Signing.into();
            progress.request.revision += 1;
        });
        attempt_until_done(core, &stored, admitted).await
    };
    let outcome = {
        tokio::pin!(signing);
        let limit = if progress.borrow().is_stored() {
            Duration::MAX
        } else {
            STORED_AFTER
        };
        match tokio::time::timeout(limit, &mut signing).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let storing = async {
                    let saved = save(core, &stored, vec![]).await;
                    progress.send_modify(|progress| progress.stage = Stage::after(saved));
                };
                tokio::join!(signing, storing).0
            }
        }
    };
    stored.request.revision = progress.borrow().request.revision + 1;
    let mut events = Vec::new();
    match outcome {
        Ok(signed) => {
            let digests = signed.signatures.iter();
            let digests = digests.map(|signed| Hex(Sha256::digest(&signed.signature).into()));
            events.push(Event::SigningOutcome {
                session: Hex(signed.session),
                result: Outcome::Signed {
                    signatures: digests.collect(),
                },
            });
            stored.request.state = State::Signed.into();
            stored.request.signatures = signed.signatures;
            stored.request.signers = signed.signers;
            stored.signed = Some(Session {
                id: signed.session,
                intents: signed.intents,
            });
        }
        Err(error) => {
            let expired = error.reason() == "EXPIRED";
            stored.request.state = if expired {
                State::Expired
            } else {
                State::Failed
            }
            .into();
            stored.request.failure = Some(failure(&error));
            tracing::warn!(request = stored.request.name, %error, "a signing request failed");
        }
    }
    let saved = save(core, &stored, events).await;
    let mut stage = Stage::Stored;
    if let Err(error) = saved {
        // Nothing is shown that a restart would take back. A request that the host has stays QUEUED there, and
        // whoever asks for it next sets it going again.
        tracing::error!(request = stored.request.name, %error, "the outcome could not be stored");
        stored.request.state = State::Queued.into();
        stored.request.signatures.clear();
        stored.request.signers.clear();
        if let Some(session) = stored.signed.take() {
            core.note(Event::SigningOutcome {
                session: Hex(session.id),
                result: Outcome::Failed {
                    reason: "NOT_STORED".to_owned(),
                    culprits: Vec::new(),
                },
            });
        }
        stored.request.failure = Some(failure(&error));
        if !progress.borrow().is_stored() {
            stage = Stage::after(Err(error));
        }
    }
    progress.send_replace(Progress {
        request: stored.request,
        stage,
    });
}

async fn save(core: &Core, stored: &Stored, events: Vec<Event>) -> Result<(), Error> {
    let membership = core.membership()?;
    store(core, &membership, stored, events).await
}

/// Tries until there is a signature or nobody is left to try with. Every attempt but the first, which follows
/// admission at once, admits the request again: time passes and manifests change.
async fn attempt_until_done(
    core: &Arc<Core>,
    stored: &Stored,
    mut admitted: Option<Admitted>,
) -> Result<Signed, Error> {
    let sent = stored.as_sent();
    let mut refused = BTreeSet::new();
    let mut slow = BTreeSet::new();
    let mut last = None;
    let mut changes = core.network.changes();
    for _ in 0..ATTEMPTS {
        changes.mark_unchanged();
        let membership = core.membership()?;
        let initiator = &stored.request.initiator;
        let admitted = match admitted.take() {
            Some(admitted) => admitted,
            None => match admit(core, &membership, initiator, &sent).await {
                Ok(admitted) => admitted,
                Err(error) if error.reason() == "EXPIRED" => return Err(expired(last.as_ref())),
                Err(error) => return Err(error),
            },
        };
        if matches!(admitted.held.share, Share::Ecdsa(_)) {
            for party in &admitted.held.record.parties {
                if let Err(quarantined) = core.pairs.check_quarantine(party) {
                    refused.insert(party.clone());
                    last = Some(quarantined);
                }
            }
        }
        let Some(signers) = choose(core, &membership, &admitted, &refused, &slow) else {
            let record = &admitted.held.record;
            let willing = record.parties.len().saturating_sub(1 + refused.len());
            if willing + 1 < usize::from(record.threshold) {
                return Err(last.unwrap_or(Error::Bug("nobody refused, and nobody is left")));
            }
            slow.clear();
            // Either somebody connects, or the time is over and the next round says so.
            let _ = tokio::time::timeout(RETRY, changes.changed()).await;
            continue;
        };
        match quorum::coordinate(
            core,
            &membership,
            &admitted,
            &sent,
            &stored.request.initiator,
            signers,
        )
        .await
        {
            Ok(signed) => return Ok(signed),
            Err(ended) => {
                match &ended.error {
                    Error::Abort { .. } => refused.extend(ended.without),
                    Error::Unavailable { .. } => slow.extend(ended.without),
                    Error::Reject { .. } | Error::Fault { .. } | Error::Bug(_) => {
                        return Err(ended.error);
                    }
                }
                tracing::info!(error = %ended.error, "a signing session ended; trying again");
                last = Some(ended.error);
            }
        }
    }
    Err(last.unwrap_or_else(|| expired(None)))
}

/// This party and enough of the connected ones, spread over them; `None` when there are too few.
fn choose(
    core: &Core,
    membership: &Membership,
    admitted: &Admitted,
    refused: &BTreeSet<String>,
    slow: &BTreeSet<String>,
) -> Option<Vec<String>> {
    let record = &admitted.held.record;
    let links = core.network.links();
    let mut candidates: Vec<&String> = record
        .parties
        .iter()
        .filter(|party| links.contains_key(*party))
        .filter(|party| !refused.contains(*party) && !slow.contains(*party))
        .collect();
    let needed = usize::from(record.threshold).checked_sub(1)?;
    if candidates.len() < needed {
        return None;
    }
    let turn = admitted.digest.first().map_or(0, |byte| usize::from(*byte));
    let count = candidates.len().max(1);
    candidates.rotate_left(turn % count);
    let with = |others: &[&String]| -> Vec<String> {
        let signs = |party: &&String| **party == membership.party || others.contains(party);
        record.parties.iter().filter(signs).cloned().collect()
    };
    // Those with whom there are presignatures go before those whose turn it is.
    let to_sign = admitted.intent.signables().len();
    let turns = (0..candidates.len()).map(|turn| {
        let mut others = candidates.clone();
        others.rotate_left(turn);
        others.truncate(needed);
        with(&others)
    });
    let ahead = turns.into_iter().find(|signers| {
        core.presignatures
            .level(&presignatures::pool_name(record, signers))
            >= to_sign
    });
    candidates.truncate(needed);
    Some(ahead.unwrap_or_else(|| with(&candidates)))
}

fn expired(last: Option<&Error>) -> Error {
    let why = last.map_or_else(String::new, |error| format!("; last: {error}"));
    Error::reject(
        Code::DeadlineExceeded,
        "EXPIRED",
        format!("the request's expire_time has passed{why}"),
    )
}

fn failure(error: &Error) -> Failure {
    Failure {
        reason: error.reason().to_owned(),
        message: error.to_string(),
        culprits: error.culprits().to_vec(),
    }
}

impl Requests {
    fn open(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Progress>>> {
        self.open
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
