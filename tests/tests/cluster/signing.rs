use arca_client::Payload;
use arca_client::{Key, Scheme, SigningRequest, State, psbt::Signed};
use arca_proto::v1::{ListSigningRequestsRequest, signing_service_client::SigningServiceClient};
use bitcoin::Transaction;
use tonic::Code;

use crate::common::{
    PATIENCE, Running, new_key, psbt, psbt_payload, reason, running, solana_transfer,
};

const PARTIES: [&str; 3] = ["ceo", "cloud", "cto"];

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_signs_while_the_third_is_down_and_after_a_restart_of_everything() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let bitcoin = new_key(&ceo, Scheme::Bip340, "bitcoin").await;
    let solana = new_key(&ceo, Scheme::Ed25519, "solana").await;

    for absent in PARTIES {
        running.cluster.party_mut(absent).unwrap().stop().await;
        let pair: Vec<&str> = PARTIES
            .into_iter()
            .filter(|party| *party != absent)
            .collect();
        sign_both(&running, &bitcoin, &solana, &pair, absent).await;
        running.cluster.start_party(absent).await.unwrap();
        running.cluster.wait_connected(&PARTIES).await.unwrap();
    }

    running.cluster.stop().await;
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
    sign_both(&running, &bitcoin, &solana, &PARTIES, "after-restart").await;
    for party in PARTIES {
        let mut held = running.client(party).await.keys().await.unwrap();
        held.sort_by_key(|key| key.display_name.clone());
        assert_eq!(held, [bitcoin.clone(), solana.clone()], "at {party}");
    }
}

/// Has `parties[0]` coordinate a Bitcoin spend and a Solana transfer, and has others' code judge them.
async fn sign_both(running: &Running, bitcoin: &Key, solana: &Key, parties: &[&str], id: &str) {
    let client = running.client(parties[0]).await;

    let (unsigned, spent) = psbt(bitcoin.public_key.bip340().unwrap(), 2, 60_000);
    let payload = Payload::Psbt(unsigned.serialize());
    let signed = client
        .sign(&bitcoin.name, &format!("b-{id}"), &payload, PATIENCE)
        .await
        .unwrap();
    assert_signers(&signed, parties);
    let signatures: Vec<_> = signed
        .signatures
        .iter()
        .map(|s| (s.input, s.signature))
        .collect();
    let Signed::Final(spend) =
        arca_client::psbt::finalise(unsigned, bitcoin.public_key.bip340().unwrap(), &signatures)
            .unwrap()
    else {
        panic!("an input is left open");
    };
    let script = &spent[0].script_pubkey;
    let judge = |spend: &Transaction| arca_client::psbt::verify(spend, &spent, script, &[0, 1]);
    judge(&spend.transaction).expect("libsecp256k1 accepts the spend");
    let mut other = spend.transaction.clone();
    other.output[0].value = bitcoin::Amount::from_sat(1);
    assert!(judge(&other).is_err(), "the judge accepts anything");

    let message = solana_transfer(solana.public_key.ed25519().unwrap(), 1_000);
    let payload = Payload::SolanaMessage(message.clone());
    let signed = client
        .sign(&solana.name, &format!("s-{id}"), &payload, PATIENCE)
        .await
        .unwrap();
    assert_signers(&signed, parties);
    let key =
        ed25519_dalek::VerifyingKey::from_bytes(solana.public_key.ed25519().unwrap()).unwrap();
    let signature = ed25519_dalek::Signature::from_bytes(&signed.signatures[0].signature);
    key.verify_strict(&message, &signature).unwrap();
}

fn assert_signers(signed: &SigningRequest, parties: &[&str]) {
    assert_eq!(signed.state, State::Signed);
    assert_eq!(signed.signers.len(), 2);
    assert!(
        signed
            .signers
            .iter()
            .all(|signer| parties.contains(&signer.as_str())),
        "{signed:?}"
    );
    assert_eq!(signed.coordinator, parties[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_names_one_request_for_ever() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let first = ceo
        .sign(&key.name, "once", &psbt_payload(&key, 9_000), PATIENCE)
        .await
        .unwrap();
    let again = ceo
        .sign(&key.name, "once", &psbt_payload(&key, 9_000), PATIENCE)
        .await
        .unwrap();
    assert_eq!(
        first, again,
        "the same request gives the same resource, signature included"
    );

    let mut service = SigningServiceClient::new(running.raw_treasury("ceo").await);
    let other = running.authorized(&key.name, "once", &psbt_payload(&key, 8_000));
    let refused = service.create_signing_request(other).await.unwrap_err();
    assert_eq!(
        reason(&refused),
        (Code::AlreadyExists, "REQUEST_ID_REUSED".into())
    );

    running.cluster.party_mut("ceo").unwrap().stop().await;
    running.cluster.start_party("ceo").await.unwrap();
    let ceo = running.client("ceo").await;
    let after = ceo
        .sign(&key.name, "once", &psbt_payload(&key, 9_000), PATIENCE)
        .await
        .unwrap();
    assert_eq!(first, after, "also after a restart");

    assert_eq!(
        new_key(&ceo, Scheme::Bip340, "k").await,
        key,
        "the same holds for keys"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_all_end_signed_and_are_listed() {
    let running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let mut requests = tokio::task::JoinSet::new();
    for index in 0..40u64 {
        let (ceo, key) = (ceo.clone(), key.clone());
        requests.spawn(async move {
            let payload = psbt_payload(&key, 10_000 + index);
            ceo.sign(&key.name, &format!("r{index}"), &payload, PATIENCE)
                .await
                .unwrap()
        });
    }
    let mut names: Vec<String> = requests
        .join_all()
        .await
        .into_iter()
        .map(|r| r.name)
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 40);

    let mut service = SigningServiceClient::new(running.raw_treasury("ceo").await);
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = ListSigningRequestsRequest {
            page_size: 17,
            page_token,
        };
        let page = service
            .list_signing_requests(page)
            .await
            .unwrap()
            .into_inner();
        assert!(page.signing_requests.len() <= 17);
        listed.extend(
            page.signing_requests
                .into_iter()
                .map(|request| request.name),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, names, "pages hold every request once, in order");
}
