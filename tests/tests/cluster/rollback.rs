//! A host that goes back: the party that wakes up with less than its peers saw does nothing, and says so.

use arca_client::{Scheme, State, local::LocalCluster};
use arca_proto::v1::{
    AcceptLossRequest, ManifestSignature, get_state_response::Standing,
    party_service_client::PartyServiceClient,
};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::{
    common::{PATIENCE, Running, new_key, psbt_payload, reason, running},
    disk::{holds, lost},
    storage::{get, put, restart_enclave},
};

async fn connected(cluster: &LocalCluster) {
    cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn yesterdays_database_is_refused_and_todays_is_taken_up_again() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    running.keep_disk("ceo", "yesterday").await;
    running.cluster.start_party("ceo").await.unwrap();
    connected(&running.cluster).await;
    let ceo = running.client("ceo").await;
    let newer = new_key(&ceo, Scheme::Bip340, "newer").await;
    ceo.sign(&key.name, "r", &psbt_payload(&key, 40_000), PATIENCE)
        .await
        .unwrap();
    let seen = running
        .state_when("cto", |state| {
            state
                .peers
                .iter()
                .any(|peer| peer.name == "ceo" && peer.remembered.is_some())
        })
        .await;
    let seen = seen.peers.iter().find(|peer| peer.name == "ceo").unwrap();
    let seen = seen.remembered.clone().unwrap().sequence;
    running.keep_disk("ceo", "today").await;

    running.restore_disk("ceo", "yesterday").await;
    let state = running.state_when("ceo", lost).await;
    let found = state.start.unwrap().sequence;
    assert!(found < seen);
    for part in [
        "anchor".to_owned(),
        format!("sequence {found} "),
        format!(
            "saw sequence {}",
            state
                .peers
                .iter()
                .filter_map(|peer| peer.denial_known.clone())
                .map(|known| known.sequence)
                .next()
                .unwrap()
        ),
        "accept-loss".to_owned(),
    ] {
        assert!(state.message.contains(&part), "{part}: {}", state.message);
    }
    // It does nothing, asked by a client or by a peer; the others go on without it.
    let ceo = running.client("ceo").await;
    for (key, request) in [(&key, "stale"), (&newer, "stale-too")] {
        let payload = psbt_payload(key, 50_000);
        let refused = ceo.sign(&key.name, request, &payload, PATIENCE).await;
        assert_eq!(refused.unwrap_err().reason(), "STATE_ROLLED_BACK");
        let cto = running.client("cto").await;
        let signed = cto
            .sign(&key.name, request, &payload, PATIENCE)
            .await
            .unwrap();
        assert_eq!(signed.signers, ["cto", "cloud"]);
    }
    assert_eq!(ceo.keys().await.unwrap_err().reason(), "STATE_ROLLED_BACK");

    running.restore_disk("ceo", "today").await;
    running.state_when("ceo", holds).await;
    connected(&running.cluster).await;
    let ceo = running.client("ceo").await;
    for (key, request) in [(&key, "again"), (&newer, "again-too")] {
        let signed = ceo
            .sign(&key.name, request, &psbt_payload(key, 60_000), PATIENCE)
            .await;
        assert_eq!(signed.unwrap().state, State::Signed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_from_before_a_share_left_is_refused_at_a_party_that_only_helped() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    running.keep_disk_of_running("cto", "before").await;
    running.cluster.start_party("cto").await.unwrap();
    connected(&running.cluster).await;
    running.cluster.party_mut("cloud").unwrap().kill().await;
    let signed = ceo
        .sign(&key.name, "r", &psbt_payload(&key, 40_000), PATIENCE)
        .await
        .unwrap();
    assert_eq!(signed.signers, ["ceo", "cto"]);
    running.restore_disk("cto", "before").await;
    let state = running.state_when("cto", lost).await;
    assert!(state.message.contains("ceo saw"), "{}", state.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_anchor_or_a_piece_of_an_older_index_is_refused() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let (anchor, index) = (
        get(&running, "ceo", "anchor").await,
        get(&running, "ceo", "index/root").await,
    );
    ceo.sign(&key.name, "r", &psbt_payload(&key, 40_000), PATIENCE)
        .await
        .unwrap();
    new_key(&ceo, Scheme::Bip340, "newer").await;
    // Alone, the piece of the index contradicts the anchor, which is the newest.
    let newest = get(&running, "ceo", "index/root").await;
    put(&running, "ceo", "index/root", index).await;
    restart_enclave(&mut running, "ceo").await;
    let ceo = running.client("ceo").await;
    let refused = ceo.key(&key.name).await.unwrap_err();
    assert_eq!(refused.reason(), "SEALED_STATE_ROLLED_BACK", "{refused}");
    assert!(refused.to_string().contains("index/root"), "{refused}");
    put(&running, "ceo", "index/root", newest).await;

    // An older anchor contradicts what the peers remember.
    let newest = get(&running, "ceo", "anchor").await;
    put(&running, "ceo", "anchor", anchor).await;
    for (blob, as_wanted) in [(None, lost as fn(&_) -> _), (Some(newest), holds)] {
        if let Some(blob) = blob {
            put(&running, "ceo", "anchor", blob).await;
        }
        let ceo = running.cluster.party_mut("ceo").unwrap();
        ceo.kill_enclave().await;
        running.cluster.start_party("ceo").await.unwrap();
        let state = running.state_when("ceo", as_wanted).await;
        assert_eq!(holds(&state), !state.message.contains("anchor"));
    }
    connected(&running.cluster).await;
    let ceo = running.client("ceo").await;
    let signed = ceo
        .sign(&key.name, "s", &psbt_payload(&key, 50_000), PATIENCE)
        .await;
    assert_eq!(signed.unwrap().state, State::Signed);
}

/// An acceptance of what `ceo` has, signed by these administrators.
async fn acceptance(running: &Running, signers: &[&str]) -> AcceptLossRequest {
    let state = running.state_when("ceo", |_| true).await;
    let current = state.current.unwrap();
    let known = state
        .peers
        .iter()
        .filter_map(|peer| peer.denial_known.as_ref());
    let lost = known.map(|known| known.sequence).max();
    let draft = arca_attestation::loss::Draft {
        version: 1,
        cluster: running.cluster.id().to_owned(),
        manifest_epoch: 1,
        party: "ceo".into(),
        lost_sequence: lost.unwrap_or(current.sequence),
        found_sequence: current.sequence,
        found_head: current.head.try_into().unwrap(),
        waived_peers: vec![],
        boot_id: None,
        reason: "its disk burnt, this is the newest backup".into(),
    };
    let acceptance = draft.to_bytes().unwrap();
    let message = arca_attestation::loss::signing_bytes(&acceptance);
    let signatures = signers.iter().map(|name| {
        let file = running.file(&format!("{name}.pem"));
        let key: SigningKey = arca_client::keyfile::read_administrator(&file).unwrap();
        ManifestSignature {
            administrator: key.verifying_key().to_bytes().to_vec(),
            signature: key.sign(&message).to_bytes().to_vec(),
        }
    });
    AcceptLossRequest {
        acceptance,
        signatures: signatures.collect(),
    }
}

/// Has two administrators accept that `ceo` goes on from what it has.
pub async fn accept_loss(running: &Running) {
    let accepted = acceptance(running, &["alice", "bob"]).await;
    let mut service = PartyServiceClient::new(running.raw_treasury("ceo").await);
    service.accept_loss(accepted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_accepted_by_the_administrators_quorum_once_and_by_nobody_else() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    running.keep_disk("ceo", "backup").await;
    running.cluster.start_party("ceo").await.unwrap();
    connected(&running.cluster).await;
    let ceo = running.client("ceo").await;
    let gone = new_key(&ceo, Scheme::Bip340, "gone").await;
    running.restore_disk("ceo", "backup").await;
    running.state_when("ceo", lost).await;

    let treasury = running.raw_treasury("ceo").await;
    let mut service = PartyServiceClient::new(treasury);
    let one_signature = acceptance(&running, &["alice"]).await;
    let mut altered = acceptance(&running, &["alice", "bob"]).await;
    *altered.acceptance.last_mut().unwrap() = b' ';
    for refused in [one_signature, altered] {
        let refused = service.accept_loss(refused).await.unwrap_err();
        assert_eq!(reason(&refused).1, "LOSS_ACCEPTANCE_REFUSED");
    }
    let accepted = acceptance(&running, &["alice", "bob"]).await;
    service.accept_loss(accepted.clone()).await.unwrap();
    running.state_when("ceo", holds).await;
    connected(&running.cluster).await;
    let ceo = running.client("ceo").await;
    let signed = ceo
        .sign(&key.name, "r", &psbt_payload(&key, 40_000), PATIENCE)
        .await;
    assert_eq!(signed.unwrap().state, State::Signed);
    // The share made since is lost here and nowhere else.
    assert_eq!(
        ceo.key(&gone.name).await.unwrap_err().reason(),
        "KEY_NOT_FOUND"
    );
    let cto = running.client("cto").await;
    let signed = cto
        .sign(&gone.name, "r", &psbt_payload(&gone, 40_000), PATIENCE)
        .await;
    assert_eq!(signed.unwrap().signers, ["cto", "cloud"]);

    // The same acceptance over the same backup once more: the peers have seen further since.
    let again = service.accept_loss(accepted.clone()).await.unwrap_err();
    assert_eq!(reason(&again).1, "NOTHING_LOST");
    running.restore_disk("ceo", "backup").await;
    running.state_when("ceo", lost).await;
    let mut service = PartyServiceClient::new(running.raw_treasury("ceo").await);
    service.accept_loss(accepted).await.unwrap();
    let state = running.state_when("ceo", lost).await;
    assert_eq!(state.standing(), Standing::Lost);
    assert!(state.message.contains("anchor"), "{}", state.message);
}
