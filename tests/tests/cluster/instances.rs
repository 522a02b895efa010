//! Two enclaves of one party: at most one of them is dealt with, whatever its host lets it reach.

use arca_client::{Scheme, State};
use arca_proto::v1::{
    ListKeysRequest, get_state_response::Standing, key_service_client::KeyServiceClient,
    peer_state::Word,
};

use crate::{
    common::{PATIENCE, new_key, psbt_payload, reason, running},
    disk::{Second, holds, lost},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_on_an_older_copy_gets_nowhere_and_the_first_goes_on() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    running.keep_disk("ceo", "copy").await;
    running.cluster.start_party("ceo").await.unwrap();
    running
        .cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
    running.keep_disk("ceo", "newest").await;
    running.restore_disk("ceo", "newest").await;
    running.state_when("ceo", holds).await;
    let first_boot = running.state_when("ceo", holds).await.boot_id;

    // One on an older copy gets nowhere, and the one in service goes on.
    let stale = Second::start(&running, "ceo", "copy", &["cto", "cloud"]).await;
    let state = stale.state_when(&running, lost).await;
    assert_ne!(state.boot_id, first_boot);
    assert!(state.message.contains("ceo"), "{}", state.message);
    let channel = stale.service(&running).await;
    let refused = KeyServiceClient::new(channel)
        .list_keys(ListKeysRequest::default())
        .await
        .unwrap_err();
    assert_eq!(reason(&refused).1, "STATE_ROLLED_BACK");
    let ceo = running.client("ceo").await;
    let signed = ceo
        .sign(&key.name, "r", &psbt_payload(&key, 40_000), PATIENCE)
        .await;
    assert_eq!(signed.unwrap().state, State::Signed);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_on_the_same_disk_the_peers_deal_with_the_newer_and_the_older_stops() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    // What it has stored is all that its peers have seen.
    running.keep_disk_of_running("ceo", "copy").await;

    let second = Second::start(&running, "ceo", "copy", &["cto", "cloud"]).await;
    let newer = second.state_when(&running, holds).await.boot_id;
    running.cluster.start_party("ceo").await.unwrap();
    let older = running.state_when("ceo", lost).await;
    assert!(older.message.contains("newer enclave"), "{}", older.message);
    let ceo = running.client("ceo").await;
    let refused = ceo
        .sign(&key.name, "r", &psbt_payload(&key, 40_000), PATIENCE)
        .await;
    assert_eq!(refused.unwrap_err().reason(), "FENCED");
    // A peer that restarts knows it still.
    restart_enclave_of(&mut running, "cto").await;
    running
        .state_when("cto", |state| {
            let ceo = state.peers.iter().find(|peer| peer.name == "ceo").unwrap();
            assert_eq!(ceo.remembered_boot_id, newer);
            holds(state)
        })
        .await;
}

async fn restart_enclave_of(running: &mut crate::common::Running, party: &str) {
    let killed = running.cluster.party_mut(party).unwrap();
    killed.kill_enclave().await;
    running.cluster.start_party(party).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_from_one_peer_a_second_instance_never_gets_enough_grants() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    running.keep_disk_of_running("ceo", "copy").await;

    let second = Second::start(&running, "ceo", "copy", &["cto"]).await;
    // cto grants it and cloud is not reached: it waits, and says for whom.
    let state = second
        .state_when(&running, |state| {
            state.peers.iter().any(|peer| peer.word() == Word::Granted)
        })
        .await;
    assert_eq!(state.standing(), Standing::Waiting);
    assert!(state.message.contains("cloud"), "{}", state.message);
    let channel = second.service(&running).await;
    let refused = KeyServiceClient::new(channel)
        .list_keys(ListKeysRequest::default())
        .await
        .unwrap_err();
    assert_eq!(reason(&refused).1, "LEASE_NOT_HELD");
    // The one in service has cloud still, and signs with it.
    running.cluster.start_party("ceo").await.unwrap();
    running
        .cluster
        .wait_connected(&["ceo", "cloud"])
        .await
        .unwrap();
    let ceo = running.client("ceo").await;
    let signed = ceo
        .sign(&key.name, "r", &psbt_payload(&key, 40_000), PATIENCE)
        .await
        .unwrap();
    assert_eq!(signed.signers, ["ceo", "cloud"]);
}
