//! When a channel ends by itself.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use arca_channel::{Endpoint, Limits, accept, connect};
use arca_proto::v1::ChannelRole;
use arca_proto::v1::channel_message::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::Instant;

use crate::raw::{Claims, Raw, hello};
use crate::world::{HOUR, START, World, echo, peer, reason, service};
use arca_attestation::TrustClass;
use arca_attestation::binder::Role;

#[tokio::test(start_paused = true)]
async fn it_ends_at_its_maximal_age() {
    let world = World::new();
    let (ceo, client) = (world.party(&world.ceo), world.client(&world.operator));
    let begin = Instant::now();
    let (near, far) = world.meet(&client, &ceo, service("ceo")).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let age = Limits::default().max_age;
    assert_eq!(near.expires_at(), begin + age);
    assert_eq!(far.expires_at(), begin + age);
    echo(&mut near, &mut far).await;

    // Both wait for bytes that do not come; the end wakes them.
    let (one, other) = tokio::join!(near.read_u8(), far.read_u8());
    assert_eq!(begin.elapsed(), age);
    assert_eq!(one.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(other.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    let written = near.write_all(b"more").await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

/// Leaves of the local NSM live for three hours, as AWS's do, and are replaced at half of that.
#[tokio::test(start_paused = true)]
async fn it_ends_before_the_evidence_does() {
    let world = World::new();
    let limits = Limits {
        max_age: Duration::from_secs(24 * 60 * 60),
        ..Limits::default()
    };
    let ceo = with_limits(&world, limits);
    let cto = world.party(&world.cto);
    let (near, _far) = world.meet(&ceo, &cto, peer("cto")).await;
    let near = near.unwrap();
    let evidence = near.peer().party().unwrap().evidence();
    let left = Duration::from_millis(evidence.not_after().0 - START);
    assert!(left <= Duration::from_millis(3 * HOUR), "{left:?}");
    assert_eq!(
        near.expires_at(),
        Instant::now() + left - limits.expiry_margin
    );
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_manifest() {
    let world = World::new();
    let (ceo, cto) = (world.party(&world.ceo), world.party(&world.cto));
    world.clock.set(START + 1000 * HOUR - 5000);
    let (near, far) = world.meet(&ceo, &cto, peer("cto")).await;
    let end = Instant::now() + Duration::from_secs(5);
    assert_eq!(near.unwrap().expires_at(), end);
    assert_eq!(far.unwrap().expires_at(), end);
}

#[tokio::test]
async fn it_does_not_begin_on_evidence_that_is_about_to_expire() {
    let world = World::new();
    let limits = Limits {
        expiry_margin: Duration::from_millis(3 * HOUR),
        ..Limits::default()
    };
    let ceo = with_limits(&world, limits);
    let cto = world.party(&world.cto);
    let (near, far) = world.meet(&ceo, &cto, peer("cto")).await;
    assert_eq!(reason(&near), "EVIDENCE_EXPIRING");
    assert!(far.is_err());
    let (near, far) = world.meet(&cto, &ceo, peer("ceo")).await;
    assert_eq!(reason(&far), "EVIDENCE_EXPIRING");
    assert!(near.is_err());
}

#[tokio::test]
async fn it_ends_when_the_manifest_changes() {
    let world = World::new();
    let (ceo, client) = (world.party(&world.ceo), world.client(&world.operator));
    let (near, far) = world.meet(&client, &ceo, service("ceo")).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    // Taking the same one again is no change.
    ceo.set_manifest(world.sign(&world.draft())).unwrap();
    echo(&mut near, &mut far).await;

    let waiting = tokio::spawn(async move {
        let read = far.read_u8().await;
        let written = far.write_all(b"more").await;
        (read, written)
    });
    tokio::task::yield_now().await;
    ceo.set_manifest(world.manifest(|draft| draft.epoch = 2))
        .unwrap();
    let (read, written) = waiting.await.unwrap();
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(written.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

/// A side that only writes notices as well.
#[tokio::test(start_paused = true)]
async fn a_writer_notices_either_end() {
    let world = World::new();
    let (ceo, client) = (world.party(&world.ceo), world.client(&world.operator));
    let (near, far) = world.meet(&client, &ceo, service("ceo")).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    ceo.set_manifest(world.manifest(|draft| draft.epoch = 2))
        .unwrap();
    let written = far.write_all(b"more").await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::ConnectionAborted);

    near.write_all(b"more").await.unwrap();
    tokio::time::advance(Limits::default().max_age).await;
    let written = near.write_all(b"more").await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

/// A handshake that began under one manifest does not end under another.
#[tokio::test]
async fn a_manifest_change_refuses_handshakes_under_way() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    let (near, far) = duplex(1 << 16);
    let slow = async {
        let mut raw = Raw::connect(near, &world.cto.identity).await;
        raw.send(Body::Hello(hello(ChannelRole::Party, "ceo")))
            .await;
        let asked = raw.receive_proof().await.nonce;
        let revoking = world.manifest(|draft| {
            draft.epoch = 2;
            draft.parties.pop();
        });
        ceo.set_manifest(revoking).unwrap();
        let claims = Claims::honest(&world.cto, &raw, Role::Initiator, &asked);
        let evidence = claims.evidence(&world.cto);
        raw.send(Body::Proof(claims.proof(&[], evidence))).await;
        raw.receive().await
    };
    let (outcome, answer) = tokio::join!(accept(far, &ceo, &mut world.rng()), slow);
    assert_eq!(reason(&outcome), "MANIFEST_CHANGED");
    assert!(matches!(answer, Some(Body::Refusal(_))));
}

#[tokio::test]
async fn manifests_only_go_forward() {
    let world = World::new();
    let ceo = world.fresh(&world.ceo);
    let refused = |change: fn(&mut arca_attestation::manifest::Draft)| {
        ceo.set_manifest(world.manifest(change))
            .unwrap_err()
            .reason()
            .to_owned()
    };
    // Which of them is a party is decided by the key.
    assert_eq!(refused(|draft| drop(draft.parties.remove(0))), "MANIFEST");
    ceo.set_manifest(world.manifest(|draft| draft.epoch = 5))
        .unwrap();
    assert_eq!(refused(|draft| draft.epoch = 4), "MANIFEST");
    assert_eq!(
        refused(|draft| {
            draft.epoch = 5;
            draft.not_after.0 += 1;
        }),
        "MANIFEST"
    );
    assert_eq!(
        refused(|draft| {
            draft.epoch = 6;
            draft.cluster = "sim-other".into();
        }),
        "MANIFEST"
    );
    assert_eq!(ceo.manifest().unwrap().epoch(), 5);
}

/// A channel outlives the endpoint that opened it, and still ends in time.
#[tokio::test(start_paused = true)]
async fn it_needs_no_endpoint() {
    let world = World::new();
    let (ceo, client) = (world.party(&world.ceo), world.client(&world.operator));
    let (near, far) = duplex(1 << 16);
    let (near, far) = tokio::join!(
        connect(near, &client, service("ceo"), &mut world.rng()),
        accept(far, &ceo, &mut world.rng()),
    );
    drop((ceo, client));
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    echo(&mut near, &mut far).await;
    let begin = Instant::now();
    assert!(near.read_u8().await.is_err());
    assert_eq!(begin.elapsed(), Limits::default().max_age);
}

fn with_limits(world: &World, limits: Limits) -> Arc<Endpoint> {
    let clock = world.clock.clone();
    let endpoint = Endpoint::enclave(
        world.ceo.identity.clone(),
        world.ceo.attester.clone(),
        world.ceo.boot_id,
        TrustClass::Simulated,
        world.anchors(),
        Arc::new(move || clock.now()),
        limits,
    )
    .unwrap();
    endpoint.set_manifest(world.sign(&world.draft())).unwrap();
    Arc::new(endpoint)
}
