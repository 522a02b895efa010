//! SIGKILL at any moment: what was admitted ends, and the keys are there.

use std::time::Duration;

use arca_client::{Scheme, State};
use tokio::task::JoinSet;

use crate::common::{PATIENCE, new_key, psbt_payload, running};

/// Which process of which party dies while requests are under way at `ceo`.
async fn kill_during_signatures(party: &str, host: bool) {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;

    let (admitted, mut first) = tokio::sync::mpsc::channel(64);
    let mut requests = JoinSet::new();
    for index in 0..24u64 {
        let (ceo, key, admitted) = (ceo.clone(), key.clone(), admitted.clone());
        requests.spawn(async move {
            let (id, payload) = (format!("r{index}"), psbt_payload(&key, 10_000 + index));
            let mut next_try = tokio::time::interval(Duration::from_millis(50));
            let request = loop {
                next_try.tick().await;
                let asked = ceo.request_signature(&key.name, &id, &payload, PATIENCE);
                match asked.await {
                    Ok(request) => break request,
                    // What was not stored was not admitted, and is asked for again.
                    Err(error) => assert_eq!(error.reason(), "STORAGE_UNAVAILABLE", "{error}"),
                }
            };
            admitted.send(()).await.unwrap();
            ceo.watch(request, PATIENCE, |_| ()).await.unwrap()
        });
    }
    first.recv().await.unwrap();
    let killed = running.cluster.party_mut(party).unwrap();
    if host {
        killed.kill_host().await
    } else {
        killed.kill_enclave().await
    }
    running.cluster.start_party(party).await.unwrap();

    for request in requests.join_all().await {
        assert_eq!(request.state, State::Signed, "{request:?}");
    }
    running
        .cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
    for coordinator in ["ceo", "cloud", "cto"] {
        let client = running.client(coordinator).await;
        assert_eq!(
            client.keys().await.unwrap(),
            std::slice::from_ref(&key),
            "at {coordinator}"
        );
        let payload = psbt_payload(&key, 70_000);
        client
            .sign(&key.name, "afterwards", &payload, PATIENCE)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinators_enclave_is_killed() {
    kill_during_signatures("ceo", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinators_host_is_killed() {
    kill_during_signatures("ceo", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_signers_enclave_is_killed() {
    kill_during_signatures("cto", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_signers_host_is_killed() {
    kill_during_signatures("cloud", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_generation_that_loses_a_party_fails_whole_and_can_be_asked_for_again() {
    let mut running = running().await;
    running.cluster.party_mut("cto").unwrap().kill().await;
    let ceo = running.client("ceo").await;
    let key = arca_client::NewKey {
        request_id: "k".into(),
        display_name: "interrupted".into(),
        scheme: Scheme::Ed25519,
        threshold: 2,
        parties: Vec::new(),
        allow_raw_digest: false,
    };
    let failed = ceo.create_key(&key, PATIENCE).await.unwrap_err();
    assert_eq!(failed.reason(), "TOO_FEW_PARTIES", "{failed}");
    assert!(failed.to_string().contains("cto"), "{failed}");
    assert!(ceo.keys().await.unwrap().is_empty());

    running.cluster.start_party("cto").await.unwrap();
    let made = ceo.create_key(&key, PATIENCE).await.unwrap();
    assert_eq!(
        running.client("cto").await.key(&made.name).await.unwrap(),
        made
    );
}
