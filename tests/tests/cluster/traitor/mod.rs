//! A party of the cluster that does not follow the protocol.
//!
//! It has everything that a broken enclave would give to whoever broke it: an identity key that the manifest
//! names, evidence with the right measurements, and a share of every key. What it must not get is a signature
//! that nobody asked for, or the power to stop the others.

mod ecdsa;
mod log;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use arca_attestation::{
    TrustAnchors, TrustClass,
    manifest::{Manifest, SignedManifest},
};
use arca_channel::{Attester, AttesterError, Endpoint, Identity, Limits, Peer};
use arca_client::{Connection, Key, Payload, Scheme, clock};
use arca_enclave_simulated::nsm::{LocalRoot, Nsm, Request as NsmRequest};
use arca_proto::v1::{
    AcceptLossRequest, AcceptLossResponse, Claim, CreateSigningRequestRequest, EnrollRequest,
    EnrollResponse, Frame, GetEvidenceRequest, GetEvidenceResponse, GetStateRequest,
    GetStateResponse, Grant, ListPartiesRequest, ListPartiesResponse, OpenSession, PingRequest,
    PingResponse, RoundMessage, Sign, StateAnchor,
    frame::Body,
    open_session::Task,
    party_service_server::{PartyService, PartyServiceServer},
    peer_service_server::{PeerService, PeerServiceServer},
};
use arca_threshold::{
    DkgParams, Error, KeyPackage, Outbox, Participant, Protocol, SessionId, Transition, dkg,
};
use rand_core::{OsRng, RngCore as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::common::{PATIENCE, Running, authorize, new_key, prepared, psbt, psbt_payload};

const ME: &str = "cto";

/// A link that another enclave has made to the traitor.
struct Link {
    peer: String,
    /// The peer's running instance, as its channel proved.
    boot_id: [u8; 16],
    /// Pairwise setups that the traitor leaves unanswered.
    unanswered: HashSet<Vec<u8>>,
    incoming: Streaming<Frame>,
    outgoing: mpsc::Sender<Result<Frame, Status>>,
}

impl Link {
    async fn send(&self, frame: Frame) {
        self.outgoing.send(Ok(frame)).await.unwrap();
    }

    /// The next frame that is not about a pairwise setup.
    async fn receive(&mut self) -> Frame {
        loop {
            let frame = self.receive_any().await;
            if is_pair_setup(&frame) {
                self.unanswered.insert(frame.session);
            } else if !self.unanswered.contains(&frame.session) {
                return frame;
            }
        }
    }

    /// The next frame that says more than how far its sender's state has come.
    async fn receive_any(&mut self) -> Frame {
        loop {
            let received = tokio::time::timeout(PATIENCE, self.incoming.message());
            let frame = received
                .await
                .expect("a frame comes")
                .unwrap()
                .expect("the link is up");
            if frame.body.is_some() {
                return frame;
            }
        }
    }

    /// Claims the place of the only traitor, grants the peer its own, and sees both granted.
    async fn greet(&mut self) {
        let state = StateAnchor {
            sequence: 0,
            head: vec![0; 32],
        };
        let claim = Claim {
            start: Some(state.clone()),
            current: Some(state),
            log: 1,
            log_key: log_key().verifying_key().to_bytes().to_vec(),
            witness_key: witness_key().verifying_key().to_bytes().to_vec(),
        };
        for body in [Body::Claim(claim), Body::Grant(Grant::default())] {
            self.outgoing
                .send(Ok(frame(&[], 0, &self.peer.clone(), 0, body)))
                .await
                .unwrap();
        }
        let said = [self.receive_any().await, self.receive_any().await];
        let said = said.map(|frame| frame.body.unwrap());
        assert!(matches!(said, [Body::Claim(_), Body::Grant(_)]), "{said:?}");
    }
}

/// The traitor's side of the service: enrols like an enclave, and hands its links to the test.
#[derive(Clone)]
struct Traitor {
    endpoint: Arc<Endpoint>,
    /// Used once the enrolling client has its answer, whose channel that ends.
    accepted: Arc<Mutex<Option<Manifest>>>,
    links: mpsc::Sender<Link>,
}

struct TraitorNsm(Nsm);

#[tonic::async_trait]
impl Attester for TraitorNsm {
    async fn evidence(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, AttesterError> {
        let request = NsmRequest {
            nonce: Some(nonce),
            user_data: Some(user_data),
            public_key: Some(public_key),
        };
        Ok(self.0.attest(&request, clock::now(), &mut OsRng).unwrap())
    }
}

#[tonic::async_trait]
impl PartyService for Traitor {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let signed = request.into_inner().manifest.unwrap();
        let signatures = signed
            .signatures
            .into_iter()
            .map(|s| {
                (
                    s.administrator.try_into().unwrap(),
                    s.signature.try_into().unwrap(),
                )
            })
            .collect();
        let signed = SignedManifest {
            bytes: signed.manifest,
            signatures,
        };
        let manifest = signed.verify_first(clock::now()).unwrap();
        let manifest_epoch = manifest.epoch();
        *self.accepted.lock().unwrap() = Some(manifest);
        Ok(Response::new(EnrollResponse {
            party: ME.into(),
            manifest_epoch,
        }))
    }

    async fn get_evidence(
        &self,
        _: Request<GetEvidenceRequest>,
    ) -> Result<Response<GetEvidenceResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn list_parties(
        &self,
        _: Request<ListPartiesRequest>,
    ) -> Result<Response<ListPartiesResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn get_state(
        &self,
        _: Request<GetStateRequest>,
    ) -> Result<Response<GetStateResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn accept_loss(
        &self,
        _: Request<AcceptLossRequest>,
    ) -> Result<Response<AcceptLossResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(PingResponse {}))
    }
}

#[tonic::async_trait]
impl PeerService for Traitor {
    type ExchangeStream = ReceiverStream<Result<Frame, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .and_then(Peer::party)
            .unwrap();
        let (peer, boot_id) = (peer.name().to_owned(), *peer.boot_id());
        let (outgoing, frames) = mpsc::channel(64);
        let mut link = Link {
            peer,
            boot_id,
            unanswered: HashSet::new(),
            incoming: request.into_inner(),
            outgoing,
        };
        let links = self.links.clone();
        tokio::spawn(async move {
            link.greet().await;
            // The test may be over.
            let _ = links.send(link).await;
        });
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}

/// `ceo` and `cloud` as processes, and the links that both have made to the traitor.
struct Betrayed {
    running: Running,
    ceo: Link,
    cloud: Link,
}

async fn betrayed() -> Betrayed {
    let mut running = prepared();
    running.cluster.start().await.unwrap();
    let mut candidates = running.cluster.collect().await.unwrap();
    running.cluster.party_mut(ME).unwrap().kill().await;

    let root = LocalRoot::load(&running.file("root")).unwrap();
    let anchors = TrustAnchors::simulated(&root.certificate_der().unwrap()).unwrap();
    let measurements = running.cluster.measurements();
    let nsm = Nsm::new(&root, "i-traitor", measurements, &mut OsRng, clock::now()).unwrap();
    let identity = Arc::new(Identity::generate(&mut OsRng).unwrap());
    for candidate in candidates
        .iter_mut()
        .filter(|candidate| candidate.party == ME)
    {
        candidate.identity = identity.spki().to_vec();
    }
    let attester = Arc::new(TraitorNsm(nsm));
    let clock = Arc::new(clock::now);
    let endpoint = Endpoint::enclave(
        identity,
        attester,
        [6; 16],
        TrustClass::Simulated,
        anchors,
        clock,
        Limits::default(),
    )
    .unwrap();
    let (links, mut made) = mpsc::channel(8);
    let endpoint = Arc::new(endpoint);
    let accepted = Arc::new(Mutex::new(None));
    let traitor = Traitor {
        endpoint: endpoint.clone(),
        accepted: accepted.clone(),
        links,
    };
    let listener = TcpListener::bind(running.address(ME)).await.unwrap();
    tokio::spawn(serve(traitor, listener));

    running.cluster.enroll(&candidates, &[0, 1]).await.unwrap();
    let manifest = accepted.lock().unwrap().take().unwrap();
    endpoint.set_manifest(Arc::new(manifest)).unwrap();
    running
        .cluster
        .wait_connected(&["ceo", "cloud"])
        .await
        .unwrap();
    let mut by_peer = BTreeMap::new();
    while by_peer.len() < 2 {
        let link = tokio::time::timeout(PATIENCE, made.recv())
            .await
            .unwrap()
            .unwrap();
        by_peer.insert(link.peer.clone(), link);
    }
    // Both have taken their link to the traitor into use, which is after they made it.
    for party in ["ceo", "cloud"] {
        let client = running.client(party).await;
        let mut next_look = tokio::time::interval(Duration::from_millis(20));
        let connected = async {
            loop {
                next_look.tick().await;
                let seen = client.parties().await.unwrap().parties;
                let traitor = seen.iter().find(|seen| seen.name == ME).unwrap();
                if traitor.connection == Connection::Up {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, connected).await.unwrap();
    }
    let (ceo, cloud) = (
        by_peer.remove("ceo").unwrap(),
        by_peer.remove("cloud").unwrap(),
    );
    Betrayed {
        running,
        ceo,
        cloud,
    }
}

async fn serve(traitor: Traitor, listener: TcpListener) {
    let (accepted, incoming) = mpsc::channel::<arca_channel::Channel<TcpStream>>(8);
    let endpoint = traitor.endpoint.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handshake = arca_channel::accept(stream, &endpoint, &mut OsRng);
            let accepted = accepted.clone();
            tokio::spawn(async move {
                if let Ok(channel) = handshake.await {
                    let _ = accepted.send(channel).await;
                }
            });
        }
    });
    Server::builder()
        .add_service(PartyServiceServer::new(traitor.clone()))
        .add_service(PeerServiceServer::new(traitor))
        .serve_with_incoming(ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>))
        .await
        .unwrap();
}

impl Betrayed {
    fn link(&mut self, peer: &str) -> &mut Link {
        if peer == "ceo" {
            &mut self.ceo
        } else {
            &mut self.cloud
        }
    }

    /// Takes part, honestly for once, in the key generation that a client asks of `ceo`.
    async fn make_key(&mut self) -> (Key, KeyPackage) {
        let client = self.running.client("ceo").await;
        let made = tokio::spawn(async move { new_key(&client, Scheme::Bip340, "k").await });
        let opening = self.ceo.receive().await;
        let Some(Body::Open(OpenSession {
            participants, task, ..
        })) = opening.body.clone()
        else {
            panic!("not an opening: {opening:?}");
        };
        let Some(Task::GenerateKey(task)) = task else {
            panic!("not a key generation")
        };
        let key = task.key.unwrap();
        let index = |name: &str| {
            let position = participants
                .iter()
                .position(|participant| participant == name);
            Participant::new(u16::try_from(position.unwrap() + 1).unwrap()).unwrap()
        };
        let params = DkgParams {
            scheme: arca_threshold::Scheme::Bip340,
            session: SessionId::new(opening.session.clone().try_into().unwrap()),
            context: key_context(&key),
            me: index(ME),
            participants: ["ceo", "cloud", ME].map(index).into(),
            threshold: 2,
        };
        let start = dkg(params, &mut OsRng).unwrap();
        let package = self.run(&opening, &participants, start).await.unwrap();
        self.confirm_stored(&opening, package.public_key_package_digest())
            .await;
        (made.await.unwrap(), package)
    }

    /// Says that the key is stored, and hears the same from the others.
    async fn confirm_stored(&mut self, opening: &Frame, digest: [u8; 32]) {
        for peer in ["ceo", "cloud"] {
            let stored = Body::Stored(digest.to_vec());
            let stored = frame(&opening.session, 1, peer, 1000, stored);
            self.link(peer).send(stored).await;
            let answer = self.receive_of(peer, &opening.session).await;
            assert!(matches!(answer, Body::Stored(_)), "{answer:?}");
        }
    }

    /// The next frame of a session from one of its participants.
    async fn receive_of(&mut self, peer: &str, session: &[u8]) -> Body {
        // Other sessions go on meanwhile, so the time is for this one's frame and not for any.
        let of_session = async {
            loop {
                let frame = self.link(peer).receive_any().await;
                if frame.session == session {
                    return frame.body.expect("a frame has a body");
                }
            }
        };
        tokio::time::timeout(PATIENCE, of_session)
            .await
            .unwrap_or_else(|_| panic!("nothing of the session came from {peer}"))
    }

    /// Takes part in a session, honestly for once.
    async fn run<O>(
        &mut self,
        opening: &Frame,
        participants: &[String],
        start: (Protocol<O>, Outbox),
    ) -> Result<O, Stopped> {
        self.run_altered(opening, participants, start, |_, _| ())
            .await
    }

    /// Takes part in a session; `alter` is shown each round and message before it is sent.
    async fn run_altered<O>(
        &mut self,
        opening: &Frame,
        participants: &[String],
        (mut run, outbox): (Protocol<O>, Outbox),
        mut alter: impl FnMut(u32, &mut Vec<u8>),
    ) -> Result<O, Stopped> {
        let mut sent = 1;
        let mut round = run.round();
        let mut outbox = altered(round, outbox, &mut alter);
        loop {
            for (to, body) in outbox {
                sent += 1;
                let peer = &participants[usize::from(to.get()) - 1];
                let message = Body::Round(RoundMessage {
                    round,
                    body,
                    intent: None,
                });
                let message = frame(&opening.session, opening.key_epoch, peer, sent, message);
                self.link(peer).send(message).await;
            }
            let mut inbox = run.inbox();
            for from in inbox.missing() {
                let peer = &participants[usize::from(from.get()) - 1];
                match self.receive_of(peer, &opening.session).await {
                    Body::Round(message) => {
                        assert_eq!(message.round, run.round());
                        inbox.insert(from, message.body).map_err(Stopped::Here)?;
                    }
                    Body::Abort(abort) => return Err(Stopped::ByPeer(abort.reason)),
                    other => panic!("{other:?}"),
                }
            }
            match run.advance(inbox, &mut OsRng).map_err(Stopped::Here)? {
                Transition::Continue(next, messages) => {
                    run = next;
                    round = run.round();
                    outbox = altered(round, messages, &mut alter);
                }
                Transition::Done(output, messages) => {
                    for (to, body) in altered(round + 1, messages, &mut alter) {
                        sent += 1;
                        let peer = &participants[usize::from(to.get()) - 1];
                        let message = Body::Round(RoundMessage {
                            round: round + 1,
                            body,
                            intent: None,
                        });
                        let message =
                            frame(&opening.session, opening.key_epoch, peer, sent, message);
                        self.link(peer).send(message).await;
                    }
                    return Ok(output);
                }
            }
        }
    }

    /// Opens a signing session at `ceo` and returns what comes back.
    async fn open_signing(&mut self, package: &KeyPackage, sign: Sign) -> Option<Body> {
        let mut session = vec![0; 32];
        OsRng.fill_bytes(&mut session);
        let sign = Sign {
            public_key_package_digest: package.public_key_package_digest().to_vec(),
            ..sign
        };
        let open = OpenSession {
            version: 1,
            participants: vec!["ceo".into(), ME.into()],
            timeout_ms: 5_000,
            task: Some(Task::Sign(sign)),
        };
        self.ceo
            .send(frame(&session, 1, "ceo", 1, Body::Open(open)))
            .await;
        let answer = self.ceo.receive().await;
        assert_eq!(answer.session, session);
        answer.body
    }
}

/// How a session ended that the traitor took part in.
#[derive(Debug)]
enum Stopped {
    /// A peer ended it, for this reason.
    ByPeer(String),
    /// The traitor itself found something wrong.
    Here(#[expect(dead_code, reason = "shown when a test fails")] Error),
}

fn altered(
    round: u32,
    outbox: Outbox,
    alter: &mut impl FnMut(u32, &mut Vec<u8>),
) -> Vec<(Participant, Vec<u8>)> {
    let altered = outbox.into_iter().map(|(to, message)| {
        let mut message = message.to_vec();
        alter(round, &mut message);
        (to, message)
    });
    altered.collect()
}

fn is_pair_setup(frame: &Frame) -> bool {
    matches!(
        &frame.body,
        Some(Body::Open(OpenSession {
            task: Some(Task::MakePairSetup(_)),
            ..
        }))
    )
}

fn frame(session: &[u8], key_epoch: u64, to: &str, sequence: u64, body: Body) -> Frame {
    let (session, from, to) = (session.to_vec(), ME.to_owned(), to.to_owned());
    Frame {
        session,
        key_epoch,
        from,
        to,
        sequence,
        body: Some(body),
        ..Frame::default()
    }
}

/// The keys of the traitor's audit log.
fn log_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[7; 32])
}

fn witness_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[8; 32])
}

/// What the enclaves hash of a key before it is made; written down here a second time so that a change shows.
fn key_context(key: &arca_proto::v1::Key) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    let text = |hash: &mut Sha256, text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    text(&mut hash, "arca/v1/key-context");
    text(&mut hash, &key.name);
    text(&mut hash, &key.display_name);
    hash.update([u8::from(key.allow_raw_digest)]);
    hash.update(key.epoch.to_be_bytes());
    let time = key.create_time.unwrap();
    let millis = time.seconds * 1000 + i64::from(time.nanos) / 1_000_000;
    hash.update(millis.to_be_bytes());
    for party in &key.parties {
        text(&mut hash, party);
    }
    hash.finalize().into()
}

fn aborted(body: Option<Body>) -> String {
    match body {
        Some(Body::Abort(abort)) => abort.reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_gets_no_share_for_what_no_initiator_asked_for() {
    let mut betrayed = betrayed().await;
    let (key, package) = betrayed.make_key().await;
    let cluster = betrayed.running.cluster.id().to_owned();
    let treasury = betrayed.running.treasury();
    let payload = psbt_payload(&key, 50_000);
    let honest = authorize(&treasury, &cluster, "treasury", &key.name, "r", &payload);
    let sign = |request: &CreateSigningRequestRequest| Sign {
        initiator: "treasury".into(),
        request: Some(request.clone()),
        ..Sign::default()
    };

    // Its own signature, another transaction, a digest in its place, a later expiry, another initiator.
    let own = Identity::generate(&mut OsRng).unwrap();
    let forged = authorize(&own, &cluster, "treasury", &key.name, "r", &payload);
    let mut other = honest.clone();
    let theft = psbt(key.public_key.bip340().unwrap(), 1, 50_001)
        .0
        .serialize();
    other.payload = authorize(&own, "", "", "", "", &Payload::Psbt(theft)).payload;
    let mut digest = honest.clone();
    digest.payload = authorize(&own, "", "", "", "", &Payload::Digest([1; 32])).payload;
    let mut later = honest.clone();
    later.expire_time.as_mut().unwrap().seconds += 60;
    for request in [&forged, &other, &digest, &later] {
        let answer = betrayed.open_signing(&package, sign(request)).await;
        assert_eq!(aborted(answer), "NOT_AUTHORIZED_BY_INITIATOR");
    }
    let answer = betrayed
        .open_signing(
            &package,
            Sign {
                initiator: ME.into(),
                ..sign(&honest)
            },
        )
        .await;
    assert_eq!(aborted(answer), "NOT_AUTHORIZED_BY_INITIATOR");
    let answer = betrayed
        .open_signing(
            &package,
            Sign {
                request: None,
                ..sign(&honest)
            },
        )
        .await;
    assert_eq!(aborted(answer), "INVALID_REQUEST_ID");

    // What the treasury did ask for is signed by whoever coordinates it: round 1 comes back.
    let answer = betrayed.open_signing(&package, sign(&honest)).await;
    assert!(
        matches!(answer, Some(Body::Round(RoundMessage { round: 1, .. }))),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_in_anothers_name_and_openings_that_contradict_themselves_are_refused() {
    let mut betrayed = betrayed().await;
    let (key, package) = betrayed.make_key().await;
    let cluster = betrayed.running.cluster.id().to_owned();
    let treasury = betrayed.running.treasury();
    let payload = psbt_payload(&key, 50_000);
    let request = authorize(&treasury, &cluster, "treasury", &key.name, "r", &payload);
    let sign = Sign {
        initiator: "treasury".into(),
        request: Some(request),
        public_key_package_digest: package.public_key_package_digest().to_vec(),
        presignatures: Vec::new(),
    };
    let open = |participants: &[&str], sign: Sign| OpenSession {
        version: 1,
        participants: participants.iter().map(|name| (*name).to_owned()).collect(),
        timeout_ms: 5_000,
        task: Some(Task::Sign(sign)),
    };
    let good = open(&["ceo", ME], sign.clone());

    // In another's name: dropped without an answer. The next frame that comes back is for the one after it.
    let mut in_anothers_name = frame(&[1; 32], 1, "ceo", 1, Body::Open(good.clone()));
    in_anothers_name.from = "cloud".into();
    betrayed.ceo.send(in_anothers_name).await;

    let other_key = Sign {
        public_key_package_digest: vec![0; 32],
        ..sign.clone()
    };
    let cases = [
        (2u8, 1, open(&["ceo", ME], other_key), "OTHER_KEY"),
        (3, 2, good.clone(), "OTHER_KEY"),
        (
            4,
            1,
            open(&["ceo", "cloud"], sign.clone()),
            "INVALID_OPENING",
        ),
        (5, 1, open(&["cloud", ME], sign.clone()), "INVALID_OPENING"),
        (
            6,
            1,
            open(&["ceo", ME, ME], sign.clone()),
            "INVALID_OPENING",
        ),
        (
            7,
            1,
            open(&["ceo", "cfo"], sign.clone()),
            "NOT_A_PARTY_OF_THE_KEY",
        ),
        (8, 1, open(&[], sign.clone()), "INVALID_OPENING"),
        (
            9,
            1,
            OpenSession {
                version: 2,
                ..good.clone()
            },
            "VERSION",
        ),
        (
            10,
            1,
            OpenSession {
                task: None,
                ..good.clone()
            },
            "INVALID_OPENING",
        ),
        (11, 1, open(&[ME, "ceo", ME], sign), "INVALID_OPENING"),
    ];
    for (session, key_epoch, open, expected) in cases {
        let session = [session; 32];
        betrayed
            .ceo
            .send(frame(&session, key_epoch, "ceo", 1, Body::Open(open)))
            .await;
        let answer = betrayed.ceo.receive().await;
        assert_eq!(answer.session, session);
        assert_eq!(aborted(answer.body), expected, "session {session:?}");
    }

    // A key in the place of one that exists: the name follows from the session, so it cannot be chosen.
    let wire_key = arca_proto::v1::Key {
        name: key.name.clone(),
        scheme: 1,
        threshold: 2,
        parties: vec!["ceo".into(), ME.into()],
        epoch: 1,
        create_time: Some(crate::common::timestamp(clock::now().0)),
        ..Default::default()
    };
    let generate = arca_proto::v1::GenerateKey {
        key: Some(wire_key),
    };
    let open = OpenSession {
        version: 1,
        participants: vec!["ceo".into(), ME.into()],
        timeout_ms: 5_000,
        task: Some(Task::GenerateKey(generate)),
    };
    betrayed
        .ceo
        .send(frame(&[12; 32], 1, "ceo", 1, Body::Open(open)))
        .await;
    assert_eq!(
        aborted(betrayed.ceo.receive().await.body),
        "INVALID_OPENING"
    );

    // A session that is over stays over: its id opens nothing again, and the link lives on.
    betrayed
        .ceo
        .send(frame(&[12; 32], 1, "ceo", 1, Body::Open(good.clone())))
        .await;
    betrayed
        .ceo
        .send(frame(&[13; 32], 1, "ceo", 1, Body::Open(good)))
        .await;
    assert_eq!(betrayed.ceo.receive().await.session, [13; 32]);
}

/// What the traitor answers when it is asked to sign.
enum Conduct {
    Garbage,
    WrongRound,
    Silence,
    Refusal,
}

async fn sign_against(conduct: Conduct) {
    let mut betrayed = betrayed().await;
    let (key, _package) = betrayed.make_key().await;
    let client = betrayed.running.client("ceo").await;
    let asked = Arc::new(Mutex::new(0));
    let (
        Link {
            mut incoming,
            outgoing,
            ..
        },
        count,
    ) = (betrayed.ceo, asked.clone());
    tokio::spawn(async move {
        while let Ok(Some(opening)) = incoming.message().await {
            if !matches!(opening.body, Some(Body::Open(_))) || is_pair_setup(&opening) {
                continue;
            }
            *count.lock().unwrap() += 1;
            let round = |round, body| {
                Body::Round(RoundMessage {
                    round,
                    body,
                    intent: None,
                })
            };
            let body = match conduct {
                Conduct::Garbage => round(1, vec![0xab; 300]),
                Conduct::WrongRound => round(7, Vec::new()),
                Conduct::Refusal => Body::Abort(arca_proto::v1::AbortSession {
                    reason: "I_WILL_NOT\u{1b}[31m".into(),
                    message: "x".repeat(100_000),
                    culprits: vec!["ceo".into(), "cloud".into()],
                }),
                Conduct::Silence => continue,
            };
            let answer = frame(&opening.session, opening.key_epoch, "ceo", 1, body);
            if outgoing.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    });
    // Which of the two others is asked first follows from the request; of eight, some ask the traitor.
    for index in 0..8u64 {
        let payload = psbt_payload(&key, 50_000 + index);
        let signed = client
            .sign(&key.name, &format!("r{index}"), &payload, PATIENCE)
            .await
            .unwrap();
        assert_eq!(signed.signers, ["ceo", "cloud"]);
    }
    assert!(
        *asked.lock().unwrap() > 0,
        "the traitor was never asked; nothing was tested"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_sends_garbage_is_left_out() {
    sign_against(Conduct::Garbage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_runs_ahead_is_left_out() {
    sign_against(Conduct::WrongRound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_is_silent_is_left_out() {
    sign_against(Conduct::Silence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_refuses_and_blames_others_is_left_out() {
    sign_against(Conduct::Refusal).await;
}
