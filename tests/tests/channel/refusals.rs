//! Honest software at both ends that must not talk to each other.

use std::sync::Arc;

use arca_attestation::manifest::Draft;
use arca_attestation::{Measurements, ReferenceValues, TrustAnchors, TrustClass};
use arca_channel::{Attester, AttesterError, Endpoint, Error, Limits, Target};

use crate::world::{HOUR, START, World, candidate, image, observe, peer, reason, service};

fn other_image() -> Measurements {
    Measurements {
        pcr0: [7; 48],
        ..image()
    }
}

#[tokio::test]
async fn another_party_than_the_wanted_one() {
    let world = World::new();
    let (ceo, client) = (world.party(&world.ceo), world.client(&world.operator));
    let (near, far) = world.meet(&client, &ceo, service("cto")).await;
    assert_eq!(reason(&near), "WRONG_IDENTITY");
    assert_eq!(reason(&far), "WRONG_IDENTITY", "the initiator says why");
    assert!(matches!(far.unwrap_err(), Error::Refused { .. }));
}

#[tokio::test]
async fn a_party_that_the_manifest_does_not_name() {
    let world = World::new();
    let (ceo, client) = (world.party(&world.ceo), world.client(&world.operator));
    let (near, _) = world.meet(&client, &ceo, service("intern")).await;
    assert_eq!(reason(&near), "UNKNOWN_PARTY");
}

/// Same keys, same images, same epoch: only the cluster differs.
#[tokio::test]
async fn another_cluster() {
    let world = World::new();
    let cto = world.fresh(&world.cto);
    cto.set_manifest(world.manifest(|draft| draft.cluster = "sim-other".into()))
        .unwrap();
    let ceo = world.party(&world.ceo);
    for target in [peer("cto"), observe("cto")] {
        let (near, far) = world.meet(&ceo, &cto, target).await;
        assert_eq!(reason(&far), "WRONG_CLUSTER");
        assert_eq!(reason(&near), "WRONG_CLUSTER");
    }
}

#[tokio::test]
async fn another_image_of_the_responder() {
    let world = World::new();
    let impostor = arca_enclave(&world, &world.cto, &other_image());
    let (near, _) = world
        .meet(&world.party(&world.ceo), &impostor, peer("cto"))
        .await;
    assert!(matches!(
        near.unwrap_err(),
        Error::Evidence(arca_attestation::Error::Measurements { .. })
    ));
    let client = world.client(&world.operator);
    let (near, _) = world.meet(&client, &impostor, service("cto")).await;
    assert_eq!(reason(&near), "EVIDENCE_REFUSED");
}

#[tokio::test]
async fn another_image_of_the_initiator() {
    let world = World::new();
    let impostor = arca_enclave(&world, &world.cto, &other_image());
    let (near, far) = world
        .meet(&impostor, &world.party(&world.ceo), peer("ceo"))
        .await;
    assert!(matches!(
        far.unwrap_err(),
        Error::Evidence(arca_attestation::Error::Measurements { .. })
    ));
    assert_eq!(reason(&near), "EVIDENCE_REFUSED");
}

#[tokio::test]
async fn a_candidate_needs_an_expected_image() {
    let world = World::new();
    let client = world.stranger(&world.somebody());
    for expected in [vec![], vec![other_image()]] {
        let fresh = world.fresh(&world.ceo);
        let target = Target::Candidate(ReferenceValues::Simulated(expected));
        let (near, _) = world.meet(&client, &fresh, target).await;
        assert_eq!(reason(&near), "EVIDENCE_REFUSED");
    }
}

/// A simulated document never passes where production anchors are set up, and a simulated manifest is not taken.
#[tokio::test]
async fn a_simulated_enclave_where_production_is_expected() {
    let world = World::new();
    let client = world.client_with(&world.somebody(), TrustAnchors::production());
    let nitro = Target::Candidate(ReferenceValues::Nitro(vec![image()]));
    for target in [nitro.clone(), candidate()] {
        let (near, _) = world.meet(&client, &world.fresh(&world.ceo), target).await;
        assert_eq!(reason(&near), "EVIDENCE_REFUSED");
    }
    let (near, _) = world.meet(&client, &world.party(&world.ceo), nitro).await;
    assert_eq!(reason(&near), "TRUST_CLASS", "it says sim-treasury itself");
    assert!(client.set_manifest(world.sign(&world.draft())).is_err());
}

#[tokio::test]
async fn another_root_of_the_same_class() {
    let (world, elsewhere) = (World::new(), World::seeded(8));
    let client = world.client_with(&world.operator, elsewhere.anchors());
    client.set_manifest(world.sign(&world.draft())).unwrap();
    let (near, _) = world
        .meet(&client, &world.party(&world.ceo), service("ceo"))
        .await;
    assert_eq!(reason(&near), "EVIDENCE_REFUSED");
}

#[tokio::test]
async fn a_principal_that_nobody_knows() {
    let world = World::new();
    let client = world.client(&world.somebody());
    let (near, far) = world
        .meet(&client, &world.party(&world.ceo), service("ceo"))
        .await;
    assert_eq!(reason(&far), "UNKNOWN_PRINCIPAL");
    assert_eq!(reason(&near), "UNKNOWN_PRINCIPAL");
}

#[tokio::test]
async fn a_party_in_the_role_of_a_principal() {
    let world = World::new();
    let cto = world.party(&world.cto);
    let (_, far) = world
        .meet(&cto, &world.party(&world.ceo), service("ceo"))
        .await;
    assert_eq!(reason(&far), "UNKNOWN_PRINCIPAL");
}

#[tokio::test]
async fn a_revoked_principal() {
    let world = World::new();
    let ceo = world.fresh(&world.ceo);
    ceo.set_manifest(world.revoking(&world.operator)).unwrap();
    let client = world.client(&world.operator);
    let (near, far) = world.meet(&client, &ceo, service("ceo")).await;
    assert_eq!(reason(&far), "REVOKED");
    assert_eq!(reason(&near), "REVOKED");
}

#[tokio::test]
async fn a_revoked_party_in_either_direction() {
    let world = World::new();
    let ceo = world.fresh(&world.ceo);
    ceo.set_manifest(world.revoking(&world.cto.identity))
        .unwrap();
    let cto = world.party(&world.cto);
    let (_, far) = world.meet(&cto, &ceo, peer("ceo")).await;
    assert_eq!(reason(&far), "REVOKED");
    let (near, _) = world.meet(&ceo, &cto, peer("cto")).await;
    assert_eq!(reason(&near), "UNKNOWN_PARTY");
    let cto = world.fresh(&world.cto);
    assert!(
        cto.set_manifest(world.revoking(&world.cto.identity))
            .is_err()
    );
}

#[tokio::test]
async fn a_revoked_image() {
    let world = World::new();
    let ceo = world.fresh(&world.ceo);
    let revoking = |draft: &mut Draft| {
        draft.revoked = vec![arca_attestation::manifest::Revocation::Pcr0(image().pcr0)];
    };
    ceo.set_manifest(world.manifest(revoking)).unwrap();
    let (near, _) = world
        .meet(&ceo, &world.party(&world.cto), peer("cto"))
        .await;
    assert_eq!(reason(&near), "EVIDENCE_REFUSED");
}

/// A host that gives its enclave an old sealed manifest isolates it.
#[tokio::test]
async fn parties_under_different_epochs() {
    let world = World::new();
    let ahead = world.fresh(&world.ceo);
    let second = world.manifest(|draft| draft.epoch = 2);
    ahead.set_manifest(second.clone()).unwrap();
    let behind = world.party(&world.cto);
    let (near, _) = world.meet(&ahead, &behind, peer("cto")).await;
    assert_eq!(reason(&near), "MANIFEST_EPOCH");
    let (near, _) = world.meet(&behind, &ahead, peer("ceo")).await;
    assert_eq!(reason(&near), "MANIFEST_EPOCH");

    // A client gets through, and sees it.
    let client = world.client(&world.operator);
    client.set_manifest(second).unwrap();
    let (near, _) = world.meet(&client, &behind, service("cto")).await;
    assert_eq!(near.unwrap().peer().party().unwrap().manifest_epoch(), 1);
}

#[tokio::test]
async fn nobody_but_a_visitor_before_a_manifest() {
    let world = World::new();
    let fresh = world.fresh(&world.cto);
    for (initiator, target) in [
        (world.party(&world.ceo), peer("cto")),
        (world.client(&world.operator), service("cto")),
        (world.client(&world.operator), observe("cto")),
    ] {
        let (near, far) = world.meet(&initiator, &fresh, target).await;
        assert_eq!(reason(&far), "NOT_ENROLLED");
        assert_eq!(reason(&near), "NOT_ENROLLED");
    }
    let (near, _) = world
        .meet(&fresh, &world.party(&world.ceo), peer("ceo"))
        .await;
    assert_eq!(reason(&near), "NOT_ENROLLED");
}

/// Nobody is a party after the manifest's end, and an operator can bring the next one.
#[tokio::test]
async fn no_party_after_the_manifests_end() {
    let world = World::new();
    let (ceo, cto) = (world.party(&world.ceo), world.party(&world.cto));
    let client = world.client(&world.operator);
    let longer = world.manifest(|draft| draft.not_after.0 = START + 3000 * HOUR);
    let late = world.fresh(&world.cto);
    late.set_manifest(longer.clone()).unwrap();
    let successor = world.stranger(&world.operator);
    successor.set_manifest(longer).unwrap();

    world.clock.set(START + 1000 * HOUR);
    assert!(world.meet(&client, &ceo, service("ceo")).await.1.is_ok());
    assert!(world.meet(&late, &ceo, peer("ceo")).await.1.is_ok());
    world.clock.set(START + 1000 * HOUR + 1);
    for (initiator, target) in [
        (&client, service("ceo")),
        (&client, observe("ceo")),
        (&cto, peer("ceo")),
    ] {
        let (near, _) = world.meet(initiator, &ceo, target).await;
        assert!(matches!(near.unwrap_err(), Error::ManifestExpired));
    }
    let (_, far) = world.meet(&late, &ceo, peer("ceo")).await;
    assert!(matches!(far.unwrap_err(), Error::ManifestExpired));
    let (_, far) = world.meet(&successor, &ceo, service("ceo")).await;
    assert!(far.unwrap().peer().principal().is_some());
}

#[tokio::test]
async fn no_party_before_the_manifests_beginning() {
    let world = World::new();
    let (ceo, client) = (world.party(&world.ceo), world.client(&world.operator));
    world.clock.set(START - HOUR - 1);
    let (near, _) = world.meet(&client, &ceo, service("ceo")).await;
    assert_eq!(reason(&near), "MANIFEST_EXPIRED");
}

/// Two copies of one enclave, or a host that connects an enclave to itself.
#[tokio::test]
async fn its_own_key() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    for target in [peer("ceo"), observe("ceo"), candidate()] {
        let (near, far) = world.meet(&ceo, &ceo, target).await;
        assert_eq!(reason(&near), "REFLECTION");
        assert_eq!(reason(&far), "REFLECTION");
    }
}

/// The other side hears that something failed here, and not what.
#[tokio::test]
async fn a_platform_that_makes_no_evidence() {
    struct Broken;
    #[tonic::async_trait]
    impl Attester for Broken {
        async fn evidence(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<Vec<u8>, AttesterError> {
            Err(AttesterError("/dev/nsm is on fire".into()))
        }
    }
    let world = World::new();
    let clock = world.clock.clone();
    let broken = Endpoint::enclave(
        world.ceo.identity.clone(),
        Arc::new(Broken),
        world.ceo.boot_id,
        TrustClass::Simulated,
        world.anchors(),
        Arc::new(move || clock.now()),
        Limits::default(),
    );
    let broken = Arc::new(broken.unwrap());
    let client = world.stranger(&world.somebody());
    let target = candidate();
    let (near, far) = world.meet(&client, &broken, target).await;
    assert!(far.unwrap_err().to_string().contains("/dev/nsm"));
    let Err(Error::Refused { reason, message }) = near else {
        panic!("{near:?}");
    };
    assert_eq!((reason.as_str(), message.as_str()), ("INTERNAL", ""));
}

#[tokio::test]
async fn a_client_cannot_accept_or_be_a_party() {
    let world = World::new();
    let client = world.client(&world.operator);
    let ceo = world.party(&world.ceo);
    let (_, far) = world.meet(&ceo, &client, peer("ceo")).await;
    assert!(matches!(far.unwrap_err(), Error::NoAttester));
    let (near, far) = world.meet(&client, &ceo, peer("ceo")).await;
    assert_eq!(reason(&far), "NOT_A_PARTY");
    assert!(near.is_err());
}

fn arca_enclave(
    world: &World,
    identity_of: &crate::world::Enclave,
    runs: &Measurements,
) -> Arc<Endpoint> {
    let mut enclave = world.enclave(identity_of.name, runs);
    enclave.identity = identity_of.identity.clone();
    world.party(&enclave)
}
