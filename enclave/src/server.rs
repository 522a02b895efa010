//! Runs the service: takes in connections, keeps links to the peers, ends in order.

use std::{future::Future, sync::Arc, time::Duration};

use arca_channel::{Channel, Target};
use arca_proto::v1::{
    audit_service_server::AuditServiceServer, key_service_server::KeyServiceServer,
    operation_service_server::OperationServiceServer, party_service_server::PartyServiceServer,
    peer_service_client::PeerServiceClient, peer_service_server::PeerServiceServer,
    signing_service_server::SigningServiceServer,
};
use hyper_util::rt::TokioIo;
use rand_core::RngCore as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};

use crate::{
    Settings,
    access::AccessLayer,
    core::Core,
    error::Error,
    grpc::{self, Services},
    lease,
    network::LINK_QUEUE,
    pairs,
    platform::{BoxedStream, HostEndpoint, Platform},
    presignatures, report,
};

/// Connections that may be in their handshake at a time.
const HALF_OPEN: usize = 256;
/// Calls that one connection may have under way.
const STREAMS: u32 = 256;
/// Largest message of a caller or peer.
const MAX_MESSAGE: usize = 1 << 20;
/// Largest frame between enclaves: a round of 64 ECDSA signatures without presignatures is some 2.6 MB.
const MAX_FRAME: usize = 4 << 20;
/// HTTP/2 windows.
const WINDOW: u32 = 1 << 20;
/// A connection whose other end does not answer pings this often and this fast is gone.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// Shortest and longest pause before a peer is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How long calls may still run after the order to stop.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves until `stop` resolves.
///
/// # Errors
/// When the sealed state cannot be used, or the platform fails. A host that is not there yet is waited for.
pub async fn serve(
    platform: Arc<dyn Platform>,
    settings: Settings,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    tokio::pin!(stop);
    let core = tokio::select! {
        core = start(platform, &settings) => core?,
        () = &mut stop => return Ok(()),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_links(Arc::clone(&core)));
    tasks.spawn(lease::keep(Arc::clone(&core)));
    tasks.spawn(lease::keep_told(Arc::clone(&core)));
    tasks.spawn(lease::keep_sealed(Arc::clone(&core)));
    tasks.spawn(pairs::keep(Arc::clone(&core)));
    tasks.spawn(presignatures::keep_filled(Arc::clone(&core)));
    tasks.spawn(report::keep(Arc::clone(&core)));
    let (drain, draining) = tokio::sync::oneshot::channel::<()>();
    let serving = router(&core)?.serve_with_incoming_shutdown(channels(&core), async {
        let _ = draining.await;
    });
    tokio::pin!(serving);
    tokio::select! {
        outcome = &mut serving => {
            outcome.map_err(|_| Error::Bug("the gRPC server ended by itself"))?;
        }
        () = &mut stop => {
            tracing::info!("stopping");
            tasks.shutdown().await;
            core.network.close();
            let _ = drain.send(());
            let _ = timeout(DRAIN, serving).await;
        }
    }
    Ok(())
}

/// Opens the sealed state, as soon as the host is there to hand it over.
async fn start(platform: Arc<dyn Platform>, settings: &Settings) -> Result<Arc<Core>, Error> {
    let mut told = false;
    loop {
        match Core::start(Arc::clone(&platform), settings).await {
            Err(Error::Fault {
                reason: "STORAGE_UNAVAILABLE" | "PLATFORM_UNAVAILABLE",
                message,
            }) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("waiting for the host: {message}");
                }
                sleep(REDIAL.0).await;
            }
            other => return other,
        }
    }
}

fn router(
    core: &Arc<Core>,
) -> Result<
    tonic::transport::server::Router<
        tower::layer::util::Stack<AccessLayer, tower::layer::util::Identity>,
    >,
    Error,
> {
    let services = Services(Arc::clone(core));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(arca_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|_| Error::Bug("the descriptors of arca.v1 do not decode"))?;
    let (_, health) = tonic_health::server::health_reporter();
    Ok(Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(STREAMS))
        .initial_stream_window_size(Some(WINDOW))
        .initial_connection_window_size(Some(4 * WINDOW))
        .layer(AccessLayer(Arc::clone(core)))
        .add_service(
            AuditServiceServer::new(services.clone()).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(KeyServiceServer::new(services.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(
            OperationServiceServer::new(services.clone()).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            PartyServiceServer::new(services.clone()).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(PeerServiceServer::new(services.clone()).max_decoding_message_size(MAX_FRAME))
        .add_service(SigningServiceServer::new(services).max_decoding_message_size(MAX_MESSAGE))
        .add_service(reflection)
        .add_service(health))
}

/// Takes in what the host carries in; only verified channels come out.
fn channels(core: &Arc<Core>) -> ReceiverStream<std::io::Result<Channel<BoxedStream>>> {
    let (carrying, drawing) = (Arc::clone(core), Arc::clone(core));
    arca_channel::incoming(
        move || {
            let core = Arc::clone(&carrying);
            async move { core.platform.accept().await }
        },
        Arc::clone(&core.endpoint),
        move || drawing.randomness.generator(&*drawing.platform).ok(),
        HALF_OPEN,
        |error| tracing::info!(reason = error.reason(), %error, "refused a connection"),
    )
}

/// Keeps one link to each peer: of two parties, the one whose name comes first dials.
async fn keep_links(core: Arc<Core>) {
    let mut follow = core.follow_membership();
    loop {
        let membership = follow.borrow_and_update().clone();
        let mut dials = JoinSet::new();
        if let Some(membership) = &membership {
            for party in membership.manifest.parties() {
                if membership.party < party.name {
                    dials.spawn(keep_link(Arc::clone(&core), party.name.clone()));
                }
            }
        }
        if follow.changed().await.is_err() {
            return;
        }
    }
}

async fn keep_link(core: Arc<Core>, peer: String) {
    let mut pause = REDIAL.0;
    let mut told = String::new();
    loop {
        match dial(&core, &peer).await {
            Ok(()) => {
                pause = REDIAL.0;
                told.clear();
            }
            Err(why) if why != told => {
                tracing::warn!(peer, why, "no link");
                told = why;
            }
            Err(_) => {}
        }
        let jitter = core
            .randomness
            .generator(&*core.platform)
            .map_or(0, |mut rng| rng.next_u64());
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(1);
        sleep(Duration::from_millis(pause_ms / 2 + jitter % pause_ms)).await;
        pause = (pause * 2).min(REDIAL.1);
    }
}

/// Dials a peer and follows the link until it ends.
async fn dial(core: &Arc<Core>, peer: &str) -> Result<(), String> {
    let mut rng = core
        .randomness
        .generator(&*core.platform)
        .map_err(|error| error.to_string())?;
    let stream = carried(&*core.platform, peer).await?;
    let target = Target::Peer(peer.to_owned());
    let channel = arca_channel::connect(stream, &core.endpoint, target, &mut rng)
        .await
        .map_err(|error| error.to_string())?;
    let attested = channel
        .peer()
        .party()
        .cloned()
        .ok_or("the channel proved no party")?;
    let mut channel = Some(TokioIo::new(channel));
    let connector = tower::service_fn(move |_| {
        let channel = channel
            .take()
            .ok_or_else(|| std::io::Error::other("one channel, one use"));
        std::future::ready(channel)
    });
    let transport = Endpoint::from_static("http://peer")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| error.to_string())?;
    let (outgoing, frames) = mpsc::channel(LINK_QUEUE);
    let incoming = PeerServiceClient::new(transport)
        .max_decoding_message_size(MAX_FRAME)
        .exchange(ReceiverStream::new(frames))
        .await
        .map_err(|status| status.message().escape_default().to_string())?
        .into_inner();
    grpc::follow(core, &attested, incoming, outgoing).await
}

/// Asks the host for a byte stream to a peer.
async fn carried(platform: &dyn Platform, peer: &str) -> Result<BoxedStream, String> {
    let ask = async {
        let mut stream = platform.connect(HostEndpoint::Dial).await?;
        let length = u8::try_from(peer.len()).map_err(std::io::Error::other)?;
        let mut request = vec![length];
        request.extend_from_slice(peer.as_bytes());
        stream.write_all(&request).await?;
        let status = stream.read_u8().await?;
        Ok::<_, std::io::Error>((stream, status))
    };
    let (stream, status) = timeout(Duration::from_secs(15), ask)
        .await
        .map_err(|_| "the host does not answer".to_owned())?
        .map_err(|error| format!("the host's dialler: {error}"))?;
    match status {
        0 => Ok(stream),
        1 => Err("the host knows no address of it; add it to [peers] in host.toml".to_owned()),
        2 => Err("the host cannot reach it".to_owned()),
        3 => Err("the host has too many connections".to_owned()),
        _ => Err("the host's dialler answered something unknown".to_owned()),
    }
}
