use std::{pin::Pin, sync::Arc};

use arca_channel::{Attested, Peer};
use arca_proto::v1::{Frame, frame::Body, open_session::Task, peer_service_server::PeerService};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use crate::{
    core::Core,
    error::Error,
    keygen,
    network::{LINK_QUEUE, LinkInfo, Opening},
    pairs, presignatures, quorum,
    session::PEER_PROTOCOL,
};

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
        tokio::spawn(async move { follow(&core, &peer, incoming, outgoing).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(Ok))))
    }
}

/// Takes a link into use and reads it until it ends.
pub async fn follow(
    core: &Arc<Core>,
    peer: &Attested,
    mut incoming: Streaming<Frame>,
    outgoing: mpsc::Sender<Frame>,
) {
    let Ok(membership) = core.membership() else {
        return;
    };
    let info = LinkInfo {
        boot_id: *peer.boot_id(),
        verified_at: peer.verified_at(),
    };
    let generation = core.network.attach(peer.name(), info, outgoing);
    tracing::info!(peer = peer.name(), "link up");
    let why = loop {
        match incoming.message().await {
            Ok(Some(frame)) => {
                if let Some(opening) = core.network.route(&membership.party, peer.name(), frame) {
                    join(core, opening);
                }
            }
            Ok(None) => break "closed".to_owned(),
            Err(status) => break status.message().escape_default().to_string(),
        }
    };
    core.network.detach(peer.name(), generation);
    tracing::info!(peer = peer.name(), why, "link down");
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
