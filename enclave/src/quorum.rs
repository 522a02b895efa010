//! One signing session: this party with enough others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arca_audit::entry::{Event, Hex, Outcome, SigningIntent};
use arca_policy::SigningKey;
use arca_proto::v1::{
    CreateSigningRequestRequest, OpenSession, Sign, Signature, open_session::Task,
};
use arca_threshold::{
    KeyPackage, Participant, SessionId, Signable, SigningParams, Transition, Tweak,
    ecdsa::{self, Presignature},
    sign,
};
use rand_core::RngCore as _;

use crate::{
    admission::{self, Admitted, admit},
    core::{Core, Membership},
    error::Error,
    key::{HeldKey, Share},
    keygen,
    lane::Lane,
    names,
    network::{Opening, SessionKey},
    presignatures,
    report::How,
    session::{Ended, MAX_SESSION, PEER_PROTOCOL, Roster, Session},
    state::{Footing, LogPlace},
    tags,
};

/// How long a signing session may take.
const SIGNING: Duration = Duration::from_secs(10);
/// How long an ECDSA signature without presignatures waits for pairwise setups that are being made.
const SETUPS: Duration = Duration::from_secs(4);
/// ECDSA messages in a session without presignatures that are still computed on the thread that serves calls.
const COMPUTED_HERE: usize = 2;

/// What a session yields.
pub struct Signed {
    /// One for each thing to sign, in the payload's order.
    pub signatures: Vec<Signature>,
    /// The parties that signed.
    pub signers: Vec<String>,
    /// The session.
    pub session: SessionKey,
    /// Where each signer's intent stands in its log.
    pub intents: Vec<(String, LogPlace)>,
}

/// Signs with `signers`, of whom this party is one.
///
/// # Errors
/// [`Ended`] says whom to leave out next time. Nonces are gone in any case.
pub async fn coordinate(
    core: &Arc<Core>,
    membership: &Membership,
    admitted: &Admitted,
    request: &CreateSigningRequestRequest,
    initiator: &str,
    signers: Vec<String>,
) -> Result<Signed, Ended> {
    let held = &admitted.held;
    if !held.record.enabled {
        return Err(Error::reject(
            tonic::Code::FailedPrecondition,
            "KEY_PENDING",
            format!(
                "{}: this party does not know yet that all others hold their shares; ask another party",
                held.record.name
            ),
        )
        .into());
    }
    let count = admitted.intent.signables().len();
    let ahead = take_ahead(core, membership, held, &signers, count)?;
    let mut session = SessionKey::default();
    core.randomness
        .generator(&*core.platform)
        .map_err(Error::from)?
        .fill_bytes(&mut session);
    let participants = held.record.indices(&signers)?;
    let frames = core.network.open(session, &membership.party, &signers)?;
    let mut run = Session::new(
        Arc::clone(&core.network),
        Roster {
            id: session,
            me: membership.party.clone(),
            key_epoch: held.record.epoch,
            participants: participants.clone(),
            timeout: SIGNING,
        },
        frames,
    );
    run.open(&OpenSession {
        version: PEER_PROTOCOL,
        participants: signers.clone(),
        timeout_ms: u32::try_from(SIGNING.as_millis()).unwrap_or(u32::MAX),
        task: Some(Task::Sign(Sign {
            public_key_package_digest: held.share.public_key_package_digest().to_vec(),
            initiator: initiator.to_owned(),
            request: Some(request.clone()),
            presignatures: ahead
                .iter()
                .map(|presignature| presignature.id().as_bytes().to_vec())
                .collect(),
        })),
    })?;
    let how = match &held.share {
        Share::Frost(_) => How::Frost,
        Share::Ecdsa(_) if ahead.is_empty() => How::Full,
        Share::Ecdsa(_) => How::Presignature,
    };
    let part = Part {
        admitted,
        session,
        participants: &participants,
        signers: &signers,
        coordinator: &membership.party,
    };
    let outcome = part.run(core, membership, ahead, &mut run).await;
    if let Err(ended) = &outcome
        && ended.ended_by(&["PRESIGNATURE_UNKNOWN"]).is_some()
    {
        let pool = presignatures::pool_name(&held.record, &signers);
        core.presignatures.clear(&pool);
    }
    let signatures = outcome?.ok_or(Error::Bug(
        "the coordinator of a signature did not receive it",
    ))?;
    core.counters.add(held.record.scheme, how, signatures.len());
    Ok(Signed {
        signatures,
        signers,
        session,
        intents: run.intents(),
    })
}

/// As many presignatures as there is to sign; empty for other schemes, and when there are not so many.
fn take_ahead(
    core: &Core,
    membership: &Membership,
    held: &HeldKey,
    signers: &[String],
    count: usize,
) -> Result<Vec<Presignature>, Error> {
    match &held.share {
        Share::Frost(_) => Ok(Vec::new()),
        Share::Ecdsa(_) => {
            let binding = presignatures::binding(core, membership, &held.record, signers)?;
            let pool = presignatures::pool_name(&held.record, signers);
            let taken = core.presignatures.take(&pool, &binding, count);
            Ok(taken.unwrap_or_default())
        }
    }
}

/// Takes part in a signing session that a peer coordinates.
pub async fn participate(core: Arc<Core>, opening: Opening, task: Sign) {
    let from = opening.from.clone();
    if let Err(ended) = join(&core, opening, task).await {
        tracing::info!(coordinator = from, error = %ended.error, "a signing session ended");
    }
}

async fn join(core: &Arc<Core>, opening: Opening, task: Sign) -> Result<(), Ended> {
    // Spent by being named, whatever follows.
    let ahead = core
        .presignatures
        .take_lent(&opening.from, &task.presignatures);
    let signers = opening.participants();
    let commitment = core.membership().ok().and_then(|membership| {
        let request = task.request.as_ref()?;
        admission::commitment(&membership, &task.initiator, request)
    });
    let checked = async {
        let membership = core.membership()?;
        let session = SessionKey::try_from(opening.frame.session.as_slice())
            .map_err(|_| Error::Bug("a session without an id was routed"))?;
        let request = task.request.unwrap_or_default();
        let admitted = admit(core, &membership, &task.initiator, &request).await?;
        let held = &admitted.held;
        if task.public_key_package_digest != held.share.public_key_package_digest()
            || opening.frame.key_epoch != held.record.epoch
        {
            return Err(Error::invalid(
                "OTHER_KEY",
                "the coordinator holds another key of this name",
            ));
        }
        let participants = held.record.indices(&signers)?;
        let revoked = |signer: &String| membership.manifest.party(signer).is_none();
        if participants.len() != signers.len()
            || signers.iter().any(revoked)
            || !signers.contains(&membership.party)
            || !signers.contains(&opening.from)
        {
            return Err(Error::invalid(
                "INVALID_OPENING",
                "the opening contradicts itself",
            ));
        }
        if ahead.len() != task.presignatures.len() {
            return Err(Error::invalid(
                "PRESIGNATURE_UNKNOWN",
                "this party does not have these presignatures, or not any more",
            ));
        }
        // Only a coordinator that knows the key to be complete opens a session with it.
        keygen::enable(core, held).await?;
        Ok((membership, session, admitted, participants))
    };
    let (membership, session, admitted, participants) = match checked.await {
        Ok(checked) => checked,
        Err(error) => {
            note_refusal(core, &opening.from, &error, commitment);
            opening.refuse(&core.network, &error);
            return Err(error.into());
        }
    };
    let coordinator = opening.from.clone();
    let mut run = Session::new(
        Arc::clone(&core.network),
        Roster {
            id: session,
            me: membership.party.clone(),
            key_epoch: admitted.held.record.epoch,
            participants: participants.clone(),
            timeout: opening.timeout().min(MAX_SESSION),
        },
        opening.inbox,
    );
    let part = Part {
        admitted: &admitted,
        session,
        participants: &participants,
        signers: &signers,
        coordinator: &coordinator,
    };
    part.run(core, &membership, ahead, &mut run).await?;
    Ok(())
}

/// Enters into the log that something was refused that was asked for.
pub fn note_refusal(core: &Core, from: &str, error: &Error, request: Option<[u8; 32]>) {
    if let Error::Reject { reason, .. } = error {
        core.note(Event::Refused {
            from: from.to_owned(),
            reason: (*reason).to_owned(),
            request: request.map(Hex),
        });
    }
}

/// This party's part in a session, the same at every signer.
struct Part<'a> {
    admitted: &'a Admitted,
    session: SessionKey,
    participants: &'a BTreeMap<Participant, String>,
    /// Names, in the order of the key's parties.
    signers: &'a [String],
    coordinator: &'a str,
}

impl Part<'_> {
    /// Signs. The signatures come out at the coordinator alone.
    async fn run(
        &self,
        core: &Arc<Core>,
        membership: &Membership,
        ahead: Vec<Presignature>,
        run: &mut Session,
    ) -> Result<Option<Vec<Signature>>, Ended> {
        let record = &self.admitted.held.record;
        let intent = Event::SigningIntent(SigningIntent {
            session: Hex(self.session),
            request: Hex(self.admitted.commitment),
            key: record.name.clone(),
            epoch: record.epoch,
            key_record: Hex(record.to_certificate().digest()),
            coordinator: self.coordinator.to_owned(),
            signers: self.signers.to_vec(),
            seen: Vec::new(),
        });
        let stored = match core.state.record(&membership.owner, intent).await {
            Ok(stored) => stored,
            Err(error) => {
                run.abort(&error);
                return Err(error.into());
            }
        };
        let outcome = match &self.admitted.held.share {
            Share::Frost(package) => self.frost(core, package, run, stored).await,
            Share::Ecdsa(package) if ahead.is_empty() => {
                self.dkls(core, membership, package, run, stored).await
            }
            Share::Ecdsa(package) => {
                self.dkls_online(core, membership, package, ahead, run, stored)
                    .await
            }
        };
        let result = match &outcome {
            // Goes into the log with the end of the request.
            Ok(Some(_)) => return outcome,
            Ok(None) => Outcome::Released,
            Err(ended) => Outcome::Failed {
                reason: ended.error.reason().to_owned(),
                culprits: ended.error.culprits().to_vec(),
            },
        };
        core.note(Event::SigningOutcome {
            session: Hex(self.session),
            result,
        });
        outcome
    }

    async fn frost(
        &self,
        core: &Core,
        package: &Arc<KeyPackage>,
        run: &mut Session,
        stored: Footing,
    ) -> Result<Option<Vec<Signature>>, Ended> {
        let signables = self.admitted.intent.signables();
        let messages = signables.iter().map(|signable| {
            let tweak = match signable.key {
                SigningKey::Group => Tweak::None,
                SigningKey::TaprootKeyPath => Tweak::TaprootKeyPath,
                SigningKey::Derived { .. } => {
                    return Err(Error::Bug("a FROST key has no keys below it"));
                }
            };
            Ok(Signable {
                message: signable.message.clone(),
                tweak,
            })
        });
        let params = SigningParams {
            session: SessionId::new(self.session),
            context: self.admitted.digest,
            signers: self.participants.keys().copied().collect(),
            coordinator: self.coordinator()?,
            messages: messages.collect::<Result<_, Error>>()?,
        };
        let mut rng = core
            .randomness
            .generator(&*core.platform)
            .map_err(Error::from)?;
        let start = sign(Arc::clone(package), params, &mut rng);
        match run.run(start, rng, Lane::Here, stored).await? {
            arca_threshold::Signed::Released => Ok(None),
            arca_threshold::Signed::Signatures(signatures) => Ok(Some(
                signatures
                    .iter()
                    .zip(signables)
                    .map(|(signature, signable)| Signature {
                        signature: signature.to_vec(),
                        input: signable.input,
                        ..Signature::default()
                    })
                    .collect(),
            )),
        }
    }

    /// In one round.
    async fn dkls_online(
        &self,
        core: &Arc<Core>,
        membership: &Membership,
        package: &Arc<ecdsa::KeyPackage>,
        ahead: Vec<Presignature>,
        run: &mut Session,
        stored: Footing,
    ) -> Result<Option<Vec<Signature>>, Ended> {
        let record = &self.admitted.held.record;
        let start = presignatures::binding(core, membership, record, self.signers)
            .and_then(|binding| Ok((binding, self.dkls_params(&binding)?)));
        let (binding, params) = match start {
            Ok(start) => start,
            Err(error) => {
                run.abort(&error);
                return Err(error.into());
            }
        };
        let rng = core
            .randomness
            .generator(&*core.platform)
            .map_err(Error::from)?;
        let start: Result<Transition<_>, _> =
            ecdsa::sign_online(Arc::clone(package), &binding, ahead, params);
        let signed = run.run_from(start, rng, Lane::Here, stored).await?;
        Ok(self.signatures(signed))
    }

    /// In three rounds.
    async fn dkls(
        &self,
        core: &Arc<Core>,
        membership: &Membership,
        package: &Arc<ecdsa::KeyPackage>,
        run: &mut Session,
        stored: Footing,
    ) -> Result<Option<Vec<Signature>>, Ended> {
        let record = &self.admitted.held.record;
        let start = async {
            let setups =
                presignatures::setups(core, membership, record, self.signers, SETUPS).await?;
            let binding = presignatures::binding(core, membership, record, self.signers)?;
            Ok::<_, Error>((setups, self.dkls_params(&binding)?))
        };
        let (setups, params) = match start.await {
            Ok(start) => start,
            Err(error) => {
                run.abort(&error);
                return Err(error.into());
            }
        };
        let lane = if params.messages.len() <= COMPUTED_HERE {
            Lane::Here
        } else {
            Lane::Apart
        };
        let mut rng = core
            .randomness
            .generator(&*core.platform)
            .map_err(Error::from)?;
        let (package, with) = (Arc::clone(package), setups.clone());
        let (start, rng) = lane
            .run(move || (ecdsa::sign(package, &with, params, &mut rng), rng))
            .await?;
        match run.run(start, rng, lane, stored).await {
            Ok(signed) => Ok(self.signatures(signed)),
            Err(ended) => {
                presignatures::clean_up(core, self.participants, &setups, &ended);
                Err(ended)
            }
        }
    }

    /// What every signer has to see alike. Each key is derived here by the protocol's own code, and must be the one
    /// that decoding the payload came to. `binding`: the key's epoch and the signers' instances.
    fn dkls_params(&self, binding: &[u8; 32]) -> Result<ecdsa::SigningParams, Error> {
        let messages = self.admitted.intent.signables().iter().map(|signable| {
            let SigningKey::Derived { path, public_key } = &signable.key else {
                return Err(Error::Bug("an ECDSA signature is made under a derived key"));
            };
            let key = self.admitted.held.derive(path)?;
            if key.public_key() != *public_key {
                return Err(Error::Bug("two derivations of one key differ"));
            }
            let digest = signable
                .message
                .as_slice()
                .try_into()
                .map_err(|_| Error::Bug("ECDSA signs a digest of 32 bytes"))?;
            Ok(ecdsa::Signable { digest, key })
        });
        Ok(ecdsa::SigningParams {
            session: SessionId::new(self.session),
            context: names::tagged_digest(tags::SIGNING_CONTEXT, &[&self.admitted.digest, binding]),
            signers: self.participants.keys().copied().collect(),
            coordinator: self.coordinator()?,
            entropy: self.admitted.entropy,
            messages: messages.collect::<Result<_, Error>>()?,
        })
    }

    fn signatures(&self, signed: ecdsa::Signed) -> Option<Vec<Signature>> {
        let ecdsa::Signed::Signatures(signatures) = signed else {
            return None;
        };
        let signables = self.admitted.intent.signables();
        let signatures = signatures.iter().zip(signables);
        let signatures = signatures.map(|(signature, signable)| Signature {
            signature: [signature.r, signature.s].concat(),
            input: signable.input,
            recovery_id: u32::from(signature.recovery_id),
            public_key: match &signable.key {
                SigningKey::Derived { public_key, .. } => public_key.to_vec(),
                SigningKey::Group | SigningKey::TaprootKeyPath => Vec::new(),
            },
        });
        Some(signatures.collect())
    }

    fn coordinator(&self) -> Result<Participant, Error> {
        self.admitted
            .held
            .record
            .index_of(self.coordinator)
            .ok_or(Error::Bug("the coordinator is no signer"))
    }
}
