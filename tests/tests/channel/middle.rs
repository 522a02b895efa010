//! Somebody in the middle who ends TLS on both sides: relay, diversion, reflection, replay.

use std::sync::Arc;

use arca_channel::{Channel, Endpoint, Error, Identity, Target, accept, connect};
use arca_proto::v1::ChannelRole;
use arca_proto::v1::channel_message::Body;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};

use crate::raw::{Claims, Raw, hello};
use crate::world::{Met, World, candidate, peer, reason, service};
use arca_attestation::binder::Role;

/// Passes whole flights on, in turn, until one side closes.
async fn relay<A, B>(initiator: &mut Raw<A>, responder: &mut Raw<B>) -> Vec<Body>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut passed = Vec::new();
    loop {
        let Some(flight) = initiator.receive().await else {
            return passed;
        };
        passed.push(flight.clone());
        responder.send(flight).await;
        let Some(flight) = responder.receive().await else {
            return passed;
        };
        passed.push(flight.clone());
        initiator.send(flight).await;
    }
}

/// Initiator, attacker with a key towards each side, responder.
async fn relayed(
    world: &World,
    initiator: &Arc<Endpoint>,
    responder: &Arc<Endpoint>,
    target: Target,
    shown_to_initiator: &Identity,
    shown_to_responder: &Identity,
) -> (Met, Vec<Body>) {
    let (near, near_far) = duplex(1 << 16);
    let (far_near, far) = duplex(1 << 16);
    let attacker = async {
        let (mut left, mut right) = tokio::join!(
            Raw::accept(near_far, shown_to_initiator),
            Raw::connect(far_near, shown_to_responder),
        );
        relay(&mut left, &mut right).await
    };
    let (near, far, passed) = tokio::join!(
        connect(near, initiator, target, &mut world.rng()),
        accept(far, responder, &mut world.rng()),
        attacker,
    );
    ((near, far), passed)
}

fn is_hello(flight: &Body) -> bool {
    matches!(flight, Body::Hello(_))
}

#[tokio::test]
async fn relayed_evidence_under_the_attackers_key() {
    let world = World::new();
    let (ceo, cto) = (world.party(&world.ceo), world.party(&world.cto));
    let key = world.somebody();
    let ((near, far), passed) = relayed(&world, &ceo, &cto, peer("cto"), &key, &key).await;
    assert_eq!(reason(&near), "WRONG_IDENTITY");
    assert!(far.is_err());
    assert!(!passed.iter().any(is_hello), "not even the hello went out");
}

/// Before there is a manifest no key is known; the one in the evidence is.
#[tokio::test]
async fn relayed_evidence_of_a_candidate() {
    let world = World::new();
    let (client, fresh) = (world.stranger(&world.somebody()), world.fresh(&world.ceo));
    let key = world.somebody();
    let target = candidate();
    let ((near, _), _) = relayed(&world, &client, &fresh, target, &key, &key).await;
    assert!(matches!(
        near.unwrap_err(),
        Error::Evidence(arca_attestation::Error::PublicKeyMismatch)
    ));
}

/// An attacker with the identity keys of both sides, and no enclave: everything in the evidence fits but the
/// session.
#[tokio::test]
async fn relayed_evidence_under_stolen_keys() {
    let world = World::new();
    let (ceo, cto) = (world.party(&world.ceo), world.party(&world.cto));
    let client = world.client(&world.operator);
    for (initiator, key, target) in [
        (&ceo, &world.ceo.identity, peer("cto")),
        (&client, &world.operator, service("cto")),
    ] {
        let responder_key = &world.cto.identity;
        let ((near, _), passed) =
            relayed(&world, initiator, &cto, target, responder_key, key).await;
        assert!(matches!(
            near.unwrap_err(),
            Error::Evidence(arca_attestation::Error::UserDataMismatch)
        ));
        assert!(
            passed.iter().any(|flight| matches!(flight, Body::Proof(_))),
            "it was the responder's own evidence"
        );
    }
}

/// The other direction: an initiator's evidence, made for the attacker's session with it, shown elsewhere.
#[tokio::test]
async fn an_initiators_evidence_diverted_to_another_responder() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    let (near, far) = duplex(1 << 16);
    let (other_near, other_far) = duplex(1 << 16);
    let attacker = async {
        // The session that the evidence is really for: same two keys, same nonce.
        let (other, _) = tokio::join!(
            Raw::connect(other_near, &world.cto.identity),
            Raw::accept(other_far, &world.ceo.identity),
        );
        let mut raw = Raw::connect(near, &world.cto.identity).await;
        raw.send(Body::Hello(hello(ChannelRole::Party, "ceo")))
            .await;
        let asked = raw.receive_proof().await.nonce;
        let claims = Claims::honest(&world.cto, &other, Role::Initiator, &asked);
        let evidence = claims.evidence(&world.cto);
        raw.send(Body::Proof(claims.proof(&[], evidence))).await;
        raw.receive().await
    };
    let (_, outcome) = tokio::join!(attacker, accept(far, &ceo, &mut world.rng()));
    assert!(matches!(
        outcome.unwrap_err(),
        Error::Evidence(arca_attestation::Error::UserDataMismatch)
    ));
}

/// The initiator's own evidence, obtained in a parallel session that asks it as a responder, with its own nonce.
#[tokio::test]
async fn reflected_evidence() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    type Expected = fn(&Error) -> bool;
    let keys: [(&Identity, Expected); 2] = [
        // With the wanted party's stolen key: the evidence is over another key.
        (&world.cto.identity, |error| {
            matches!(
                error,
                Error::Evidence(arca_attestation::Error::PublicKeyMismatch)
            )
        }),
        // With the initiator's own stolen key: the evidence would fit, and is its own.
        (&world.ceo.identity, |error| {
            matches!(error, Error::Reflection)
        }),
    ];
    for (key, expected) in keys {
        let (near, far) = duplex(1 << 16);
        let (asker, asked) = duplex(1 << 16);
        let attacker = async {
            let mut raw = Raw::accept(far, key).await;
            let Some(Body::Hello(theirs)) = raw.receive().await else {
                return;
            };
            let mut parallel = Raw::connect(asker, &world.somebody()).await;
            let mut ours = hello(ChannelRole::Visitor, "ceo");
            ours.nonce = theirs.nonce;
            parallel.send(Body::Hello(ours)).await;
            let mut proof = parallel.receive_proof().await;
            proof.party = "cto".into();
            proof.nonce = vec![9; 32];
            raw.send(Body::Proof(proof)).await;
            raw.receive().await;
        };
        let (outcome, _, ()) = tokio::join!(
            connect(near, &ceo, peer("cto"), &mut world.rng()),
            accept(asked, &ceo, &mut world.rng()),
            attacker,
        );
        let error = outcome.unwrap_err();
        assert!(expected(&error), "{error:?}");
    }
}

/// A responder's whole proof from an older connection, by an attacker with its key.
#[tokio::test]
async fn replayed_evidence() {
    let world = World::new();
    let (ceo, cto) = (world.party(&world.ceo), world.party(&world.cto));
    let recorded = recorded_proof(&world, &cto).await;
    let (outcome, nonces) = replayed(&world, &ceo, recorded, &mut world.rng()).await;
    assert!(matches!(
        outcome.unwrap_err(),
        Error::Evidence(arca_attestation::Error::NonceMismatch)
    ));
    assert_ne!(nonces.0, nonces.1);
}

/// The same against a verifier whose random generator repeats itself: the session is another one.
#[tokio::test]
async fn replayed_evidence_under_a_repeated_nonce() {
    let world = World::new();
    let (ceo, cto) = (world.party(&world.ceo), world.party(&world.cto));
    let recorded = recorded_proof(&world, &cto).await;
    let mut same = ChaCha20Rng::seed_from_u64(1);
    let (outcome, nonces) = replayed(&world, &ceo, recorded, &mut same).await;
    assert_eq!(nonces.0, nonces.1);
    assert!(matches!(
        outcome.unwrap_err(),
        Error::Evidence(arca_attestation::Error::UserDataMismatch)
    ));
}

/// The nonce that was asked with and the proof over it, as the ceo's stolen key got it from the real cto.
async fn recorded_proof(
    world: &World,
    cto: &Arc<Endpoint>,
) -> (Vec<u8>, arca_proto::v1::ChannelProof) {
    let mut first = [0; 32];
    rand_core::RngCore::fill_bytes(&mut ChaCha20Rng::seed_from_u64(1), &mut first);
    let (near, far) = duplex(1 << 16);
    let recording = async {
        let mut raw = Raw::connect(near, &world.ceo.identity).await;
        let mut asks = hello(ChannelRole::Party, "cto");
        asks.nonce = first.to_vec();
        raw.send(Body::Hello(asks)).await;
        raw.receive_proof().await
    };
    let (proof, _) = tokio::join!(recording, accept(far, cto, &mut world.rng()));
    (first.to_vec(), proof)
}

async fn replayed(
    world: &World,
    ceo: &Arc<Endpoint>,
    (recorded_nonce, proof): (Vec<u8>, arca_proto::v1::ChannelProof),
    rng: &mut ChaCha20Rng,
) -> (Result<Channel<DuplexStream>, Error>, (Vec<u8>, Vec<u8>)) {
    let (near, far) = duplex(1 << 16);
    let attacker = async {
        let mut raw = Raw::accept(far, &world.cto.identity).await;
        let hello = raw.receive_hello().await;
        raw.send(Body::Proof(proof)).await;
        raw.receive().await;
        hello.nonce
    };
    let (outcome, nonce) = tokio::join!(connect(near, ceo, peer("cto"), rng), attacker);
    (outcome, (recorded_nonce, nonce))
}
