use std::{pin::Pin, sync::Arc, time::Duration};

use arca_audit::entry::{Event, Hex, LogPoint};
use arca_channel::{Attested, Peer};
use arca_proto::v1::{
    self as wire, Claim, Frame, Grant, OpenSession, StateAnchor, frame::Body, open_session::Task,
    peer_service_server::PeerService,
};
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use crate::{
    core::{Core, Membership},
    error::Error,
    keygen,
    lease::{Anchor, Denial, Objection, Word},
    log::{Objection as LogObjection, Told},
    network::{LINK_QUEUE, LinkInfo, Opening},
    pairs, presignatures, quorum, records,
    session::PEER_PROTOCOL,
    state::LogPlace,
};

/// How long a session that a peer opens waits for this instance's lease.
const LEASE: Duration = Duration::from_secs(2);
/// How long two instances have to grant or deny each other.
const GREETING: Duration = Duration::from_secs(10);

#[tonic::async_trait]
impl PeerService for Services {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .and_then(Peer::party)
            .cloned()
            .ok_or_else(|| {
                Status::from(Error::Bug(
                    "a stream without a party passed the access table",
                ))
            })?;
        let (outgoing, frames) = mpsc::channel(LINK_QUEUE);
        let core = Arc::clone(&self.0);
        let incoming = request.into_inner();
        tokio::spawn(async move {
            if let Err(why) = follow(&core, &peer, incoming, outgoing).await {
                tracing::info!(peer = peer.name(), why, "no link");
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(Ok))))
    }
}

/// Takes a link into use once both sides have granted each other, and reads it until it ends.
///
/// # Errors
/// Why they have not.
pub async fn follow(
    core: &Arc<Core>,
    peer: &Attested,
    mut incoming: Streaming<Frame>,
    outgoing: mpsc::Sender<Frame>,
) -> Result<(), String> {
    let membership = core.membership().map_err(|error| error.to_string())?;
    let name = peer.name();
    let told = greet(core, &membership, peer, &mut incoming, &outgoing).await?;
    let facts = peer.evidence();
    core.note(Event::EvidenceVerified {
        peer: name.to_owned(),
        boot: Hex(*peer.boot_id()),
        evidence: Hex(facts.digest()),
        measurement: facts.measurements().map(|measured| {
            let hash = Sha256::new()
                .chain_update(measured.pcr0)
                .chain_update(measured.pcr1)
                .chain_update(measured.pcr2);
            Hex(hash.finalize().into())
        }),
    });
    let info = LinkInfo {
        boot_id: *peer.boot_id(),
        verified_at: peer.verified_at(),
    };
    let generation = core.network.attach(name, info, told, outgoing);
    core.log.news.notify_one();
    tracing::info!(peer = name, "link up");
    let why = loop {
        match incoming.message().await {
            // Of two links with one peer the newer one counts.
            Ok(Some(_)) if !core.network.is_current(name, generation) => {
                break "replaced".to_owned();
            }
            Ok(Some(mut frame)) => {
                if let Some(anchor) = frame.state.take() {
                    let seen = Anchor::try_from(anchor)
                        .map(|anchor| core.lease.observe(name, peer.boot_id(), anchor));
                    match seen {
                        Ok(Ok(())) => {}
                        Ok(Err(denial)) => break denial.objection.reason().to_owned(),
                        Err(()) => break "a malformed anchor".to_owned(),
                    }
                }
                if let Some(cosignature) = frame.cosignature.take()
                    && let Err(why) = core.log.heard(name, &cosignature)
                {
                    break why.to_owned();
                }
                if let Some(checkpoint) = frame.checkpoint.take()
                    && let Err(why) = witness(core, peer, &checkpoint)
                {
                    break why;
                }
                if let Some(Body::RecordRequest(request)) = frame.body {
                    let core = Arc::clone(core);
                    let (me, peer) = (membership.party.clone(), name.to_owned());
                    tokio::spawn(async move { answer(&core, me, peer, request).await });
                } else if let Some(opening) = core.network.route(&membership.party, name, frame) {
                    join(core, opening);
                }
            }
            Ok(None) => break "closed".to_owned(),
            Err(status) => break status.message().escape_default().to_string(),
        }
    };
    core.network.detach(name, generation);
    tracing::info!(peer = name, why, "link down");
    Ok(())
}

/// Takes a peer's checkpoint for the newest of its log, to be cosigned once that is sealed; or never deals with that
/// instance again.
fn witness(core: &Core, peer: &Attested, checkpoint: &wire::LogCheckpoint) -> Result<(), String> {
    let name = peer.name();
    let seen = core.lease.seen_log(name);
    match core.log.witness(name, checkpoint, seen.as_ref()) {
        Ok(now) => {
            let sealed = seen.as_ref() == Some(&now);
            core.lease.saw_log(name, peer.boot_id(), seen.as_ref(), now);
            if sealed {
                core.log.news.notify_one();
            }
            Ok(())
        }
        Err(LogObjection::Malformed(why)) => Err(why.to_owned()),
        Err(LogObjection::Conflict { cosigned, shown }) => {
            core.lease.contradicted(name, peer.boot_id());
            core.note(Event::LogConflict {
                peer: name.to_owned(),
                log: checkpoint.log,
                cosigned,
                shown,
            });
            core.note(fenced(name, peer.boot_id(), "LOG_CONFLICT"));
            let why = "its audit log contradicts the checkpoint of it that this party cosigned";
            tracing::error!(
                peer = name,
                log = checkpoint.log,
                "{why}; both are kept in this party's log (arca audit verify shows them): find out \
                 which of its storages is the true one"
            );
            Err(why.to_owned())
        }
    }
}

fn fenced(peer: &str, boot_id: &[u8; 16], reason: &str) -> Event {
    Event::Fenced {
        peer: peer.to_owned(),
        boot: Hex(*boot_id),
        reason: reason.to_owned(),
    }
}

/// Gives a peer what a certificate needs of this party's log.
async fn answer(core: &Arc<Core>, me: String, peer: String, request: wire::RecordRequest) {
    let place = LogPlace {
        log: request.log,
        index: request.index,
    };
    let place_to_answer = core.log.answer();
    let outcome = match <[u8; 32]>::try_from(request.session.as_slice()) {
        _ if place_to_answer.is_none() => Err(Error::reject(
            tonic::Code::ResourceExhausted,
            "TOO_MANY_QUESTIONS",
            "this party answers enough questions already; try again",
        )),
        Err(_) => Err(Error::invalid("INVALID_ARGUMENT", "session: 32 bytes")),
        Ok(session) => records::party(core, place, &session, std::slice::from_ref(&peer)).await,
    };
    let outcome = outcome.and_then(|party| {
        serde_json::to_vec(&party).map_err(|_| Error::Bug("a document has no JSON"))
    });
    let (party, reason, message) = match outcome {
        Ok(party) => (party, String::new(), String::new()),
        Err(error) => (Vec::new(), error.reason().to_owned(), error.to_string()),
    };
    let frame = Frame {
        from: me,
        to: peer,
        body: Some(Body::RecordResponse(wire::RecordResponse {
            token: request.token,
            party,
            reason,
            message,
        })),
        ..Frame::default()
    };
    // A peer that is gone needs no answer.
    let _ = core.network.send(frame);
}

/// Claims this instance's place with the peer, and decides about the peer's claim. See `lease.rs`. Says from where the
/// peer is told of this party's log.
async fn greet(
    core: &Arc<Core>,
    membership: &Membership,
    peer: &Attested,
    incoming: &mut Streaming<Frame>,
    outgoing: &mpsc::Sender<Frame>,
) -> Result<Option<Told>, String> {
    let name = peer.name();
    let say = async |body: Body| {
        let frame = Frame {
            from: membership.party.clone(),
            to: name.to_owned(),
            body: Some(body),
            ..Frame::default()
        };
        outgoing.send(frame).await.map_err(|_| "closed".to_owned())
    };
    let (start, current) = (core.lease.start(), *core.state.anchor().borrow());
    let (log, keys) = (
        core.log.point(),
        core.log.keys().map_err(|error| error.to_string())?,
    );
    say(Body::Claim(Claim {
        start: Some(start.into()),
        current: Some(current.into()),
        log: log.log,
        log_key: keys.log_key().to_vec(),
        witness_key: keys.witness_key().to_vec(),
    }))
    .await?;
    let mut remembered = None;
    let (mut we_granted, mut they_granted) = (false, false);
    let until = Instant::now() + GREETING;
    while !(we_granted && they_granted) {
        let frame = timeout_at(until, incoming.message())
            .await
            .map_err(|_| "it neither granted nor denied in time".to_owned())?
            .map_err(|status| status.message().escape_default().to_string())?
            .ok_or("closed")?;
        match frame.body {
            Some(Body::Claim(claim)) if !we_granted => {
                match decide(core, membership, peer, &claim).await? {
                    Ok(()) => {
                        core.log.meet(name, &claim)?;
                        let seen = core.lease.seen_log(name);
                        say(Body::Grant(Grant {
                            remembered: seen.map(|seen| wire::LogPoint {
                                log: seen.point.log,
                                size: seen.point.size,
                                root: seen.point.root.0.to_vec(),
                            }),
                        }))
                        .await?;
                        we_granted = true;
                    }
                    Err(denial) => {
                        say(Body::Denial(wire::Denial {
                            reason: denial.objection.reason().to_owned(),
                            known: Some(denial.known.into()),
                        }))
                        .await?;
                        // Its own end closes the link; until then it may read why.
                        let _ = timeout_at(until, incoming.message()).await;
                        return Err(format!(
                            "denied it: {} (its last known sequence is {})",
                            denial.objection.reason(),
                            denial.known.sequence
                        ));
                    }
                }
            }
            Some(Body::Grant(grant)) => {
                remembered = grant.remembered.map(log_point).transpose()?;
                core.lease.hear(name, Word::Granted);
                core.leasing.notify_one();
                they_granted = true;
            }
            Some(Body::Denial(denial)) => {
                let objection = Objection::of(&denial.reason).ok_or("an unknown objection")?;
                let known = denial.known.and_then(|known| known.try_into().ok());
                let known = known.ok_or("a malformed anchor")?;
                core.lease
                    .hear(name, Word::Denied(Denial { objection, known }));
                return Err(format!("it denied this instance: {}", denial.reason));
            }
            _ => return Err("it said something else than its claim".to_owned()),
        }
    }
    match records::resume(core, remembered).await {
        Ok((told, None)) => Ok(Some(told)),
        Ok((told, Some(first))) => {
            let frame = Frame {
                from: membership.party.clone(),
                to: name.to_owned(),
                checkpoint: Some(first),
                ..Frame::default()
            };
            outgoing
                .send(frame)
                .await
                .map_err(|_| "closed".to_owned())?;
            Ok(Some(told))
        }
        Err(why) => {
            tracing::error!(
                peer = name,
                why,
                "it cannot be told how this party's log goes on"
            );
            Ok(None)
        }
    }
}

fn log_point(point: wire::LogPoint) -> Result<LogPoint, String> {
    let root = point.root.try_into().map_err(|_| "a malformed point")?;
    Ok(LogPoint {
        log: point.log,
        size: point.size,
        root: Hex(root),
    })
}

/// Takes an instance of a peer for its only one, or does not. What is taken is sealed before it is said.
async fn decide(
    core: &Core,
    membership: &Membership,
    peer: &Attested,
    claim: &Claim,
) -> Result<Result<(), Denial>, String> {
    let anchor = |anchor: &Option<StateAnchor>| {
        let anchor = anchor.clone().and_then(|anchor| anchor.try_into().ok());
        anchor.ok_or("a malformed claim")
    };
    let (start, current) = (anchor(&claim.start)?, anchor(&claim.current)?);
    match core
        .lease
        .judge(peer.name(), peer.boot_id(), start, current)
    {
        Ok(false) => Ok(Ok(())),
        Ok(true) => {
            core.network.drop_link(peer.name());
            if let Some(older) = core.lease.remembered().get(peer.name())
                && let Some(older) = older.fenced.last()
            {
                core.note(fenced(peer.name(), older, "NEWER_INSTANCE"));
            }
            core.note(Event::LeaseGranted {
                peer: peer.name().to_owned(),
                boot: Hex(*peer.boot_id()),
            });
            core.state
                .store_remembered(&membership.owner)
                .await
                .map_err(|error| error.to_string())?;
            core.lease.sealed_grant(peer.name(), peer.boot_id());
            Ok(Ok(()))
        }
        Err(denial) => {
            let (name, boot_id) = (peer.name(), peer.boot_id());
            if core.lease.is_news(name, boot_id, denial.objection) {
                core.note(fenced(name, boot_id, denial.objection.reason()));
            }
            Ok(Err(denial))
        }
    }
}

/// Starts this party's part in a session that a peer opened.
fn join(core: &Arc<Core>, opening: Opening) {
    let Some(Body::Open(open)) = opening.frame.body.clone() else {
        return;
    };
    if open.version != PEER_PROTOCOL {
        let message = format!("this party speaks version {PEER_PROTOCOL} of the peers' protocol");
        opening.refuse(&core.network, &Error::invalid("VERSION", message));
        return;
    }
    let core = Arc::clone(core);
    tokio::spawn(async move {
        // A link can be up before the last grant has come in.
        match core.lease.wait(LEASE).await {
            Ok(()) => begin(core, opening, open),
            Err(error) => opening.refuse(&core.network, &error),
        }
    });
}

fn begin(core: Arc<Core>, opening: Opening, open: OpenSession) {
    match open.task {
        Some(Task::GenerateKey(task)) => {
            tokio::spawn(keygen::participate(core, opening, task));
        }
        Some(Task::Sign(task)) => {
            tokio::spawn(quorum::participate(core, opening, task));
        }
        Some(Task::MakePairSetup(_)) => {
            tokio::spawn(pairs::participate(core, opening));
        }
        Some(Task::Presign(task)) => {
            tokio::spawn(presignatures::participate(core, opening, task));
        }
        None => {
            opening.refuse(&core.network, &Error::invalid("INVALID_OPENING", "no task"));
        }
    }
}
