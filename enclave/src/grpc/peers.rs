use std::{pin::Pin, sync::Arc, time::Duration};

use arca_channel::{Attested, Peer};
use arca_proto::v1::{
    self as wire, Claim, Frame, Grant, OpenSession, StateAnchor, frame::Body, open_session::Task,
    peer_service_server::PeerService,
};
use futures_util::{Stream, StreamExt as _};
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
    network::{LINK_QUEUE, LinkInfo, Opening},
    pairs, presignatures, quorum,
    session::PEER_PROTOCOL,
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
    greet(core, &membership, peer, &mut incoming, &outgoing).await?;
    let info = LinkInfo {
        boot_id: *peer.boot_id(),
        verified_at: peer.verified_at(),
    };
    let generation = core.network.attach(name, info, outgoing);
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
                if let Some(opening) = core.network.route(&membership.party, name, frame) {
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

/// Claims this instance's place with the peer, and decides about the peer's claim. See `lease.rs`.
async fn greet(
    core: &Arc<Core>,
    membership: &Membership,
    peer: &Attested,
    incoming: &mut Streaming<Frame>,
    outgoing: &mpsc::Sender<Frame>,
) -> Result<(), String> {
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
    say(Body::Claim(Claim {
        start: Some(start.into()),
        current: Some(current.into()),
    }))
    .await?;
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
                        say(Body::Grant(Grant {})).await?;
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
            Some(Body::Grant(_)) => {
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
    Ok(())
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
            core.state
                .store_remembered(&membership.owner)
                .await
                .map_err(|error| error.to_string())?;
            core.lease.sealed_grant(peer.name(), peer.boot_id());
            Ok(Ok(()))
        }
        Err(denial) => Ok(Err(denial)),
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
