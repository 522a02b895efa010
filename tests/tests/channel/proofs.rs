//! Evidence that is genuine and made for something else: every field of the binder, in both directions.
//!
//! The attacker here has stolen a party's TLS key and can have its real platform sign any three values. Only the
//! binding is left to stop it, one field at a time.

use arca_attestation::binder::Role;
use arca_channel::{Error, accept, connect};
use arca_proto::v1::channel_message::Body;
use arca_proto::v1::{ChannelAccept, ChannelRole};
use tokio::io::duplex;

use crate::raw::{Claims, Raw, hello};
use crate::world::{World, peer};

/// Changes what evidence is made over, and leaves what the proof says.
type Lie = fn(&mut Claims);

const LIES: [(&str, Lie); 9] = [
    ("role", |claims| claims.role = claims.role.peer()),
    ("exporter", |claims| claims.exporter[31] ^= 1),
    ("nonce", |claims| claims.nonce[0] ^= 1),
    ("own key", |claims| {
        claims.own_spki = claims.peer_spki.clone()
    }),
    ("peer's key", |claims| {
        claims.peer_spki = claims.own_spki.clone()
    }),
    ("cluster", |claims| claims.cluster = "sim-other".into()),
    ("party", |claims| claims.party = "cloud".into()),
    ("boot id", |claims| claims.boot_id[0] ^= 1),
    ("manifest epoch", |claims| claims.manifest_epoch += 1),
];

/// The raw `cto` connects to the real `ceo`.
async fn as_initiator(world: &World, lie: Lie) -> Result<(), Error> {
    let ceo = world.party(&world.ceo);
    let (near, far) = duplex(1 << 16);
    let attacker = async {
        let mut raw = Raw::connect(near, &world.cto.identity).await;
        raw.send(Body::Hello(hello(ChannelRole::Party, "ceo")))
            .await;
        let asked = raw.receive_proof().await.nonce;
        let honest = Claims::honest(&world.cto, &raw, Role::Initiator, &asked);
        let mut claims = honest.clone();
        lie(&mut claims);
        let evidence = claims.evidence(&world.cto);
        raw.send(Body::Proof(honest.proof(&[], evidence))).await;
        raw.receive().await
    };
    let (answer, outcome) = tokio::join!(attacker, accept(far, &ceo, &mut world.rng()));
    assert_eq!(
        matches!(answer, Some(Body::Accept(_))),
        outcome.is_ok(),
        "{answer:?}"
    );
    outcome.map(drop)
}

/// The real `ceo` connects to the raw `cto`.
async fn as_responder(world: &World, lie: Lie) -> Result<(), Error> {
    let ceo = world.party(&world.ceo);
    let (near, far) = duplex(1 << 16);
    let attacker = async {
        let mut raw = Raw::accept(far, &world.cto.identity).await;
        let asked = raw.receive_hello().await.nonce;
        let honest = Claims::honest(&world.cto, &raw, Role::Responder, &asked);
        let mut claims = honest.clone();
        lie(&mut claims);
        let evidence = claims.evidence(&world.cto);
        raw.send(Body::Proof(honest.proof(&[9; 32], evidence)))
            .await;
        let answer = raw.receive().await;
        raw.send(Body::Accept(ChannelAccept {})).await;
        answer
    };
    let connecting = connect(near, &ceo, peer("cto"), &mut world.rng());
    let (answer, outcome) = tokio::join!(attacker, connecting);
    assert_eq!(
        matches!(answer, Some(Body::Proof(_))),
        outcome.is_ok(),
        "the initiator proves itself only to a proven responder: {answer:?}"
    );
    outcome.map(drop)
}

/// Without a lie the harness is a good party: what is refused below is refused for the lie.
#[tokio::test]
async fn the_truth_is_accepted() {
    let world = World::new();
    as_initiator(&world, |_| ()).await.unwrap();
    as_responder(&world, |_| ()).await.unwrap();
}

#[tokio::test]
async fn evidence_for_anything_else_is_refused() {
    let world = World::new();
    for (field, lie) in LIES {
        for outcome in [
            as_initiator(&world, lie).await,
            as_responder(&world, lie).await,
        ] {
            let Err(Error::Evidence(error)) = outcome else {
                panic!("another {field}: {outcome:?}");
            };
            let expected = match field {
                "nonce" => arca_attestation::Error::NonceMismatch,
                "own key" => arca_attestation::Error::PublicKeyMismatch,
                _ => arca_attestation::Error::UserDataMismatch,
            };
            assert_eq!(error, expected, "another {field}");
        }
    }
}

/// And what the proof says must be what the evidence was made over.
#[tokio::test]
async fn a_proof_that_says_something_else_is_refused() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    let said: [(&str, Lie); 4] = [
        ("WRONG_CLUSTER", |claims| {
            claims.cluster = "sim-other".into()
        }),
        ("WRONG_PARTY", |claims| claims.party = "ceo".into()),
        ("EVIDENCE_REFUSED", |claims| claims.boot_id = [0; 16]),
        ("MANIFEST_EPOCH", |claims| claims.manifest_epoch = 7),
    ];
    for (reason, lie) in said {
        let (near, far) = duplex(1 << 16);
        let attacker = async {
            let mut raw = Raw::connect(near, &world.cto.identity).await;
            raw.send(Body::Hello(hello(ChannelRole::Party, "ceo")))
                .await;
            let asked = raw.receive_proof().await.nonce;
            let mut claims = Claims::honest(&world.cto, &raw, Role::Initiator, &asked);
            let evidence = claims.evidence(&world.cto);
            lie(&mut claims);
            raw.send(Body::Proof(claims.proof(&[], evidence))).await;
            raw.receive().await
        };
        let (answer, outcome) = tokio::join!(attacker, accept(far, &ceo, &mut world.rng()));
        assert_eq!(outcome.unwrap_err().reason(), reason);
        let Some(Body::Refusal(refusal)) = answer else {
            panic!("no refusal but {answer:?}");
        };
        assert_eq!(refusal.reason, reason);
    }
}

/// Consistent from end to end, and a lie all the same: a real enclave under another name or in another cluster.
#[tokio::test]
async fn one_party_does_not_pass_for_another() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    let lies: [(&str, Lie); 3] = [
        ("WRONG_PARTY", |claims| claims.party = "ceo".into()),
        ("WRONG_CLUSTER", |claims| {
            claims.cluster = "sim-other".into();
        }),
        ("MANIFEST_EPOCH", |claims| claims.manifest_epoch = 2),
    ];
    for (reason, lie) in lies {
        let (near, far) = duplex(1 << 16);
        let attacker = async {
            let mut raw = Raw::connect(near, &world.cto.identity).await;
            raw.send(Body::Hello(hello(ChannelRole::Party, "ceo")))
                .await;
            let asked = raw.receive_proof().await.nonce;
            let mut claims = Claims::honest(&world.cto, &raw, Role::Initiator, &asked);
            lie(&mut claims);
            let evidence = claims.evidence(&world.cto);
            raw.send(Body::Proof(claims.proof(&[], evidence))).await;
            raw.receive().await
        };
        let (_, outcome) = tokio::join!(attacker, accept(far, &ceo, &mut world.rng()));
        assert_eq!(outcome.unwrap_err().reason(), reason);
    }
}
