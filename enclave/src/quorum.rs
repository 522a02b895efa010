//! One signing session: this party with enough others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arca_proto::v1::{
    CreateSigningRequestRequest, OpenSession, Sign, Signature, open_session::Task,
};
use arca_threshold::{Participant, SessionId, Signable, SigningParams, Tweak, sign};
use rand_core::RngCore as _;

use crate::{
    admission::{Admitted, admit},
    core::{Core, Membership},
    error::Error,
    keygen,
    network::{Opening, SessionKey},
    session::{Ended, MAX_SESSION, PEER_PROTOCOL, Roster, Session},
};

/// How long a signing session may take.
const SIGNING: Duration = Duration::from_secs(10);

/// What a session yields.
pub struct Signed {
    /// One for each thing to sign, in the payload's order.
    pub signatures: Vec<Signature>,
    /// The parties that signed.
    pub signers: Vec<String>,
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
    let mut session = SessionKey::default();
    core.randomness
        .generator(&*core.platform)
        .map_err(Error::from)?
        .fill_bytes(&mut session);
    let participants = indices(admitted, &signers)?;
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
            public_key_package_digest: held.package.public_key_package_digest().to_vec(),
            initiator: initiator.to_owned(),
            request: Some(request.clone()),
        })),
    })?;
    match run_signing(
        core,
        admitted,
        session,
        &participants,
        &membership.party,
        run,
    )
    .await?
    {
        arca_threshold::Signed::Signatures(signatures) => {
            let inputs = admitted
                .intent
                .signables()
                .iter()
                .map(|signable| signable.input);
            let signatures = signatures
                .into_iter()
                .zip(inputs)
                .map(|(signature, input)| Signature {
                    signature: signature.to_vec(),
                    input,
                })
                .collect();
            Ok(Signed {
                signatures,
                signers,
            })
        }
        arca_threshold::Signed::Released => {
            Err(Error::Bug("the coordinator of a signature did not receive it").into())
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
    let signers = opening.participants();
    let checked = async {
        let membership = core.membership()?;
        let session = SessionKey::try_from(opening.frame.session.as_slice())
            .map_err(|_| Error::Bug("a session without an id was routed"))?;
        let request = task.request.unwrap_or_default();
        let admitted = admit(core, &membership, &task.initiator, &request).await?;
        let held = &admitted.held;
        if task.public_key_package_digest != held.package.public_key_package_digest()
            || opening.frame.key_epoch != held.record.epoch
        {
            return Err(Error::invalid(
                "OTHER_KEY",
                "the coordinator holds another key of this name",
            ));
        }
        let participants = indices(&admitted, &signers)?;
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
        // Only a coordinator that knows the key to be complete opens a session with it.
        keygen::enable(core, held).await?;
        Ok((membership, session, admitted, participants))
    };
    let (membership, session, admitted, participants) = match checked.await {
        Ok(checked) => checked,
        Err(error) => {
            opening.refuse(&core.network, &error);
            return Err(error.into());
        }
    };
    let coordinator = opening.from.clone();
    let run = Session::new(
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
    run_signing(core, &admitted, session, &participants, &coordinator, run).await?;
    Ok(())
}

/// The protocol itself, the same at every signer.
async fn run_signing(
    core: &Arc<Core>,
    admitted: &Admitted,
    session: SessionKey,
    participants: &BTreeMap<Participant, String>,
    coordinator: &str,
    mut run: Session,
) -> Result<arca_threshold::Signed, Ended> {
    let coordinator = admitted
        .held
        .record
        .index_of(coordinator)
        .ok_or(Error::Bug("the coordinator is no signer"))?;
    let params = SigningParams {
        session: SessionId::new(session),
        context: admitted.digest,
        signers: participants.keys().copied().collect(),
        coordinator,
        messages: admitted
            .intent
            .signables()
            .iter()
            .map(|signable| Signable {
                message: signable.message.clone(),
                tweak: if signable.taproot_key_path {
                    Tweak::TaprootKeyPath
                } else {
                    Tweak::None
                },
            })
            .collect(),
    };
    let mut rng = core
        .randomness
        .generator(&*core.platform)
        .map_err(Error::from)?;
    let start = sign(Arc::clone(&admitted.held.package), params, &mut rng);
    run.run(start, &mut rng).await
}

/// Share index of each signer.
fn indices(
    admitted: &Admitted,
    signers: &[String],
) -> Result<BTreeMap<Participant, String>, Error> {
    signers
        .iter()
        .map(|name| {
            let index = admitted.held.record.index_of(name).ok_or_else(|| {
                Error::invalid(
                    "NOT_A_PARTY_OF_THE_KEY",
                    format!("{} holds no share", name.escape_default()),
                )
            })?;
            Ok((index, name.clone()))
        })
        .collect()
}
