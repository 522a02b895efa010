//! gRPC on top: real TCP, many connections, and the peer in every request.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arca_channel::{Channel, Endpoint, Error, Peer, Target, connect, incoming};
use arca_proto::v1::party_service_client::PartyServiceClient;
use arca_proto::v1::party_service_server::{PartyService, PartyServiceServer};
use arca_proto::v1::{
    AcceptLossRequest, AcceptLossResponse, EnrollRequest, EnrollResponse, GetEvidenceRequest,
    GetEvidenceResponse, GetStateRequest, GetStateResponse, ListPartiesRequest,
    ListPartiesResponse, PingRequest, PingResponse,
};
use hyper_util::rt::TokioIo;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Response, Status};

use crate::world::{World, observe, peer, service};

/// Answers whom the channel proved.
struct WhoAmI;

#[tonic::async_trait]
impl PartyService for WhoAmI {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        let peer = request.extensions().get::<Peer>();
        Err(Status::already_exists(match peer {
            Some(Peer::Party(party)) => format!("party {}", party.name()),
            Some(Peer::Principal(principal)) => format!("principal {}", principal.name()),
            Some(Peer::Visitor(_)) => "visitor".into(),
            Some(Peer::Candidate(_)) | None => "nobody".into(),
        }))
    }

    async fn get_evidence(
        &self,
        _: Request<GetEvidenceRequest>,
    ) -> Result<Response<GetEvidenceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn enroll(&self, _: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_parties(
        &self,
        _: Request<ListPartiesRequest>,
    ) -> Result<Response<ListPartiesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_state(
        &self,
        _: Request<GetStateRequest>,
    ) -> Result<Response<GetStateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn accept_loss(
        &self,
        _: Request<AcceptLossRequest>,
    ) -> Result<Response<AcceptLossResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Reasons for which connections came to nothing.
type Refusals = Arc<Mutex<Vec<String>>>;

async fn listen(
    world: &World,
    endpoint: Arc<Endpoint>,
    half_open: usize,
) -> (
    std::net::SocketAddr,
    Refusals,
    tokio_stream::wrappers::ReceiverStream<io::Result<Channel<TcpStream>>>,
) {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let refusals = Refusals::default();
    let heard = refusals.clone();
    let next = move || {
        let listener = listener.clone();
        async move { listener.accept().await.map(|(stream, _)| stream) }
    };
    let mut rng = world.rng();
    let generator = move || ChaCha20Rng::from_rng(&mut rng).ok();
    let channels = incoming(
        next,
        endpoint,
        generator,
        half_open,
        move |error: &Error| {
            heard.lock().unwrap().push(error.reason().to_owned());
        },
    );
    (address, refusals, channels)
}

async fn dial(
    world: &World,
    address: std::net::SocketAddr,
    endpoint: &Arc<Endpoint>,
    target: Target,
) -> Result<Channel<TcpStream>, Error> {
    let stream = TcpStream::connect(address).await.unwrap();
    connect(stream, endpoint, target, &mut world.rng()).await
}

/// What the service says of whoever comes over this channel.
async fn ask(channel: Channel<TcpStream>) -> String {
    let mut channel = Some(TokioIo::new(channel));
    let connector = tower::service_fn(move |_| {
        let channel = channel.take().ok_or(io::ErrorKind::NotConnected);
        async move { channel.map_err(io::Error::from) }
    });
    let transport = tonic::transport::Endpoint::from_static("http://arca")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let mut client = PartyServiceClient::new(transport);
    let status = client.ping(PingRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    status.message().to_owned()
}

#[tokio::test]
async fn handlers_know_the_peer() {
    let world = World::new();
    let (address, refusals, channels) = listen(&world, world.party(&world.ceo), 8).await;
    let server = tonic::transport::Server::builder()
        .add_service(PartyServiceServer::new(WhoAmI))
        .serve_with_incoming(channels);
    let server = tokio::spawn(server);

    let cto = world.party(&world.cto);
    let channel = dial(&world, address, &cto, peer("ceo")).await.unwrap();
    assert_eq!(ask(channel).await, "party cto");
    let client = world.client(&world.operator);
    let channel = dial(&world, address, &client, service("ceo"))
        .await
        .unwrap();
    assert_eq!(ask(channel).await, "principal treasury");
    let channel = dial(&world, address, &client, observe("ceo"))
        .await
        .unwrap();
    assert_eq!(ask(channel).await, "visitor");
    let stranger = world.client(&world.somebody());
    assert!(
        dial(&world, address, &stranger, service("ceo"))
            .await
            .is_err()
    );
    assert_eq!(*refusals.lock().unwrap(), ["UNKNOWN_PRINCIPAL"]);
    server.abort();
}

/// Silent connections displace each other and not those who speak.
#[tokio::test]
async fn a_flood_of_half_open_connections() {
    let world = World::new();
    let (address, refusals, mut channels) = listen(&world, world.party(&world.ceo), 4).await;
    let client = world.client(&world.operator);
    let mut silent = Vec::new();
    for _ in 0..10 {
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let dialled = dial(&world, address, &client, service("ceo"));
        let (near, far) = tokio::join!(dialled, channels.next());
        near.unwrap();
        assert!(far.unwrap().unwrap().peer().principal().is_some());
    }
    let crowded = refusals
        .lock()
        .unwrap()
        .iter()
        .filter(|reason| *reason == "CROWDED")
        .count();
    assert!(crowded >= 200 - 4, "{crowded} of 200 were dropped");
    // The oldest went first, and really went.
    for stream in &mut silent[..100] {
        closed(stream).await;
    }
}

/// Waits until the other side has closed; at most as long as a machine can be busy, and less than a handshake may take.
async fn closed(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(stream, &mut byte);
    let read = tokio::time::timeout(Duration::from_secs(5), read).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
}

/// When the server goes, so do the handshakes and the listener.
#[tokio::test]
async fn accepting_ends_with_the_server() {
    let world = World::new();
    let (address, _, channels) = listen(&world, world.party(&world.ceo), 4).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    drop(channels);
    closed(&mut silent).await;
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
