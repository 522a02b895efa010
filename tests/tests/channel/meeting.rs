//! Who is let in, and what each end then knows of the other.

use arca_attestation::TrustClass;
use arca_attestation::manifest::Role;
use arca_channel::Peer;

use crate::world::{CLUSTER, World, candidate, echo, image, observe, peer, service};

#[tokio::test]
async fn two_parties_know_each_other() {
    let world = World::new();
    let (ceo, cto) = (world.party(&world.ceo), world.party(&world.cto));
    let (near, far) = world.meet(&ceo, &cto, peer("cto")).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());

    for (channel, enclave) in [(&near, &world.cto), (&far, &world.ceo)] {
        let Peer::Party(party) = channel.peer() else {
            panic!("not a party: {:?}", channel.peer());
        };
        assert_eq!(party.name(), enclave.name);
        assert_eq!(party.cluster(), CLUSTER);
        assert_eq!(party.identity(), enclave.identity.spki());
        assert_eq!(party.boot_id(), &enclave.boot_id);
        assert_eq!(party.manifest_epoch(), 1);
        assert_eq!(party.verified_at(), world.clock.now());
        assert_eq!(party.evidence().class(), TrustClass::Simulated);
        assert_eq!(party.evidence().measurements(), Some(&image()));
    }
    echo(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_principal_knows_the_party_and_is_known_by_its_name_and_roles() {
    let world = World::new();
    let (client, ceo) = (world.client(&world.operator), world.party(&world.ceo));
    let (near, far) = world.meet(&client, &ceo, service("ceo")).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());

    assert_eq!(near.peer().party().unwrap().name(), "ceo");
    let principal = far.peer().principal().unwrap();
    assert_eq!(principal.name(), "treasury");
    assert_eq!(principal.roles(), [Role::Operator, Role::Initiator]);
    assert_eq!(principal.identity(), world.operator.spki());
    echo(&mut near, &mut far).await;
}

/// The role decides, not the key: asking for less gives less.
#[tokio::test]
async fn a_visitor_sees_the_evidence_and_is_nobody() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    for identity in [world.somebody(), world.operator.clone()] {
        let client = world.client(&identity);
        let (near, far) = world.meet(&client, &ceo, observe("ceo")).await;
        let (near, far) = (near.unwrap(), far.unwrap());
        assert_eq!(near.peer().party().unwrap().name(), "ceo");
        assert!(matches!(far.peer(), Peer::Visitor(_)));
        assert_eq!(far.peer().identity(), identity.spki());
        assert!(far.peer().principal().is_none() && far.peer().party().is_none());
    }
}

#[tokio::test]
async fn an_administrator_sees_a_future_partys_evidence() {
    let world = World::new();
    let (client, fresh) = (world.stranger(&world.somebody()), world.fresh(&world.ceo));
    let target = candidate();
    let (near, far) = world.meet(&client, &fresh, target).await;
    let (near, far) = (near.unwrap(), far.unwrap());

    let Peer::Candidate(candidate) = near.peer() else {
        panic!("not a candidate: {:?}", near.peer());
    };
    assert_eq!((candidate.cluster(), candidate.name()), ("", ""));
    assert_eq!(candidate.manifest_epoch(), 0);
    assert_eq!(candidate.identity(), world.ceo.identity.spki());
    assert_eq!(candidate.evidence().measurements(), Some(&image()));
    assert!(near.peer().party().is_none());
    assert!(matches!(far.peer(), Peer::Visitor(_)));
}

/// So that an administrator can bring a cluster's own enclaves into view before trusting any manifest.
#[tokio::test]
async fn a_candidate_that_is_a_party_already_says_which() {
    let world = World::new();
    let (client, ceo) = (world.stranger(&world.somebody()), world.party(&world.ceo));
    let target = candidate();
    let (near, _far) = world.meet(&client, &ceo, target).await;
    let near = near.unwrap();
    let Peer::Candidate(candidate) = near.peer() else {
        panic!("not a candidate: {:?}", near.peer());
    };
    assert_eq!((candidate.cluster(), candidate.name()), (CLUSTER, "ceo"));
    assert_eq!(candidate.manifest_epoch(), 1);
}
