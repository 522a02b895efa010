//! Parties whose keys are in a PKCS#11 token: whole clusters on SoftHSM and on Kryoptic, and mixed ones.

use std::time::Instant;

use arca_attestation::TrustClass;
use arca_client::{
    Client, Error, Payload, Scheme, State,
    local::{PARTIES, SoftToken},
};

use crate::common::{PATIENCE, Running, new_key, prepared, psbt_payload};

/// A cluster of which these parties have tokens; none where the module is known not to be had.
async fn with_tokens(parties: &[&str], token: Result<SoftToken, Error>) -> Option<Running> {
    let variable = |name| std::env::var(name).is_ok_and(|module| module == "none");
    let token = match token {
        Ok(token) => token,
        Err(_) if variable("ARCA_SOFTHSM") || variable("ARCA_KRYOPTIC") => {
            eprintln!("NOT TESTED: there is no such PKCS#11 module");
            return None;
        }
        Err(error) => panic!("{error}; {}", error.advice()),
    };
    Some(prepared().map(|cluster| cluster.with_tokens(parties, &token).unwrap()))
}

async fn signs_before_and_after_a_restart(running: Option<Running>) {
    let Some(mut running) = running else { return };
    running.cluster.start().await.unwrap();
    let candidates = running.cluster.collect().await.unwrap();
    running.cluster.enroll(&candidates, &[0, 1]).await.unwrap();
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    for (round, party) in PARTIES.into_iter().enumerate() {
        let client = running.client(party).await;
        let signed = client
            .sign(
                &key.name,
                &format!("r{round}"),
                &psbt_payload(&key, 40_000),
                PATIENCE,
            )
            .await;
        assert_eq!(signed.unwrap().state, State::Signed, "at {party}");
    }
    running.cluster.kill_all().await;
    for party in PARTIES {
        running
            .cluster
            .party_mut(party)
            .unwrap()
            .start_both()
            .await
            .unwrap();
    }
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    let cto = running.client("cto").await;
    let signed = cto
        .sign(&key.name, "after", &psbt_payload(&key, 50_000), PATIENCE)
        .await;
    assert_eq!(signed.unwrap().state, State::Signed);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_parties_on_softhsm_sign_before_and_after_a_restart() {
    signs_before_and_after_a_restart(with_tokens(&PARTIES, SoftToken::softhsm()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_parties_on_kryoptic_sign_before_and_after_a_restart() {
    signs_before_and_after_a_restart(with_tokens(&PARTIES, SoftToken::kryoptic()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_party_on_softhsm_and_two_on_a_simulated_nsm_sign_before_and_after_a_restart() {
    signs_before_and_after_a_restart(with_tokens(&["cto"], SoftToken::softhsm()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_production_runs_refuses_a_manifest_with_a_simulated_party() {
    let Some(mut running) = with_tokens(&PARTIES, SoftToken::softhsm()).await else {
        return;
    };
    running.cluster.start().await.unwrap();
    let honest = running.cluster.collect().await.unwrap();
    let mut candidates = honest.clone();
    let simulated = candidates
        .iter_mut()
        .find(|candidate| candidate.party == "cloud");
    let simulated = simulated.unwrap();
    simulated.class = TrustClass::Simulated;
    simulated.measurements = Some(*running.cluster.measurements());
    let refused = running
        .cluster
        .enroll(&candidates, &[0, 1])
        .await
        .unwrap_err();
    assert_eq!(refused.reason(), "MANIFEST_REFUSED", "{refused}");
    assert!(refused.to_string().contains("no trust anchor"), "{refused}");
    // Nothing of it was stored: the honest one is still the first.
    running.cluster.enroll(&honest, &[0, 1]).await.unwrap();
}

/// A token goes away under a running party and comes back: the others sign without it meanwhile, and with it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_vanishes_takes_one_party_out_and_brings_it_back() {
    let Some(mut running) = with_tokens(&PARTIES, SoftToken::softhsm()).await else {
        return;
    };
    running.cluster.start().await.unwrap();
    let candidates = running.cluster.collect().await.unwrap();
    running.cluster.enroll(&candidates, &[0, 1]).await.unwrap();
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;

    let tokens = running.file("cto/hardware/tokens");
    let away = running.file("cto/hardware/away");
    std::fs::rename(&tokens, &away).unwrap();
    sign_until_signed(&ceo, &key.name, "without", &psbt_payload(&key, 40_000)).await;
    std::fs::rename(&away, &tokens).unwrap();
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    let cto = running.client("cto").await;
    sign_until_signed(&cto, &key.name, "with", &psbt_payload(&key, 50_000)).await;
}

/// A request whose signers lose one on the way fails; the next one takes others.
async fn sign_until_signed(client: &Client, key: &str, id: &str, payload: &Payload) {
    let begin = Instant::now();
    for attempt in 0.. {
        match client
            .sign(key, &format!("{id}-{attempt}"), payload, PATIENCE)
            .await
        {
            Ok(signed) if signed.state == State::Signed => return,
            other => assert!(begin.elapsed() < PATIENCE, "{id}: {other:?}"),
        }
    }
}
