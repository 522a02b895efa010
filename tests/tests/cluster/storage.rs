//! A host that does to sealed blobs what it likes.

use arca_client::{Key, Payload, Scheme, State};
use arca_proto::v1::{GetBlobRequest, ListBlobsRequest, PutBlobsRequest, put_blobs_request};

use crate::common::{PATIENCE, Running, new_key, psbt_payload, running};

pub async fn get(running: &Running, party: &str, name: &str) -> Vec<u8> {
    let request = GetBlobRequest {
        name: name.to_owned(),
    };
    running
        .blobs(party)
        .await
        .get_blob(request)
        .await
        .unwrap()
        .into_inner()
        .blob
}

impl Running {
    /// Names of what a host has stored.
    pub async fn names(&self, party: &str, prefix: &str) -> Vec<String> {
        let request = ListBlobsRequest {
            prefix: prefix.to_owned(),
            ..ListBlobsRequest::default()
        };
        let mut blobs = self.blobs(party).await;
        let names = blobs.list_blobs(request).await.unwrap();
        names.into_inner().names
    }
}

pub async fn put(running: &Running, party: &str, name: &str, blob: Vec<u8>) {
    let request = PutBlobsRequest {
        blobs: vec![put_blobs_request::Blob {
            name: name.to_owned(),
            blob,
        }],
        guard: None,
    };
    running.blobs(party).await.put_blobs(request).await.unwrap();
}

fn object(key: &Key) -> String {
    key.name.replace("keys/", "key/")
}

/// Restarts the party's enclave so that it reads its blobs anew.
pub async fn restart_enclave(running: &mut Running, party: &str) {
    running
        .cluster
        .party_mut(party)
        .unwrap()
        .kill_enclave()
        .await;
    running.cluster.start_party(party).await.unwrap();
    running
        .cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_misplaced_blob_is_named_and_the_others_go_on_signing() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let one = new_key(&ceo, Scheme::Bip340, "one").await;
    let two = new_key(&ceo, Scheme::Bip340, "two").await;
    let original = get(&running, "ceo", &object(&one)).await;

    let mut flipped = original.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let cut_in_the_header = original[..100].to_vec();
    let cut_by_a_byte = original[..original.len() - 1].to_vec();
    let of_another_key = get(&running, "ceo", &object(&two)).await;
    let of_another_party = get(&running, "cto", &object(&one)).await;
    for (round, (blob, expected)) in [
        (flipped, "SEALED_BLOB_NOT_AUTHENTIC"),
        (cut_by_a_byte, "SEALED_BLOB_NOT_AUTHENTIC"),
        (cut_in_the_header, "SEALED_BLOB_MALFORMED"),
        (b"garbage".to_vec(), "SEALED_BLOB_MALFORMED"),
        (Vec::new(), "SEALED_BLOB_MALFORMED"),
        (of_another_key, "SEALED_BLOB_MISPLACED"),
        (of_another_party, "SEALED_BLOB_MISPLACED"),
    ]
    .into_iter()
    .enumerate()
    {
        put(&running, "ceo", &object(&one), blob).await;
        restart_enclave(&mut running, "ceo").await;
        let ceo = running.client("ceo").await;
        let refused = ceo.key(&one.name).await.unwrap_err();
        assert_eq!(refused.reason(), expected, "{refused}");
        assert!(refused.to_string().contains(&object(&one)), "{refused}");
        // The key beside it is untouched, and two other parties hold shares of this one.
        let request = format!("r{round}");
        ceo.sign(&two.name, &request, &psbt_payload(&two, 40_000), PATIENCE)
            .await
            .unwrap();
        let cto = running.client("cto").await;
        let signed = cto
            .sign(&one.name, &request, &psbt_payload(&one, 40_000), PATIENCE)
            .await;
        assert_eq!(signed.unwrap().signers, ["cto", "cloud"]);
    }
    put(&running, "ceo", &object(&one), original).await;
    restart_enclave(&mut running, "ceo").await;
    let ceo = running.client("ceo").await;
    ceo.sign(&one.name, "restored", &psbt_payload(&one, 40_000), PATIENCE)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_identity_stops_the_enclave_and_is_not_overwritten() {
    let mut running = running().await;
    let original = get(&running, "cto", "party").await;
    let mut flipped = original.clone();
    flipped[200] ^= 1;
    put(&running, "cto", "party", flipped.clone()).await;
    running
        .cluster
        .party_mut("cto")
        .unwrap()
        .kill_enclave()
        .await;
    let failed = running.cluster.start_party("cto").await.unwrap_err();
    assert!(failed.to_string().contains("enclave"), "{failed}");
    assert!(failed.advice().contains("log") || !failed.advice().is_empty());
    assert_eq!(get(&running, "cto", "party").await, flipped);

    put(&running, "cto", "party", original).await;
    running
        .cluster
        .party_mut("cto")
        .unwrap()
        .kill_enclave()
        .await;
    running.cluster.start_party("cto").await.unwrap();
    running
        .cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_whose_identity_is_hidden_from_it_is_nobody() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let cto = running.cluster.party_mut("cto").unwrap();
    cto.kill().await;
    std::fs::remove_file(cto.paths().storage).unwrap();
    cto.start_both().await.unwrap();
    let refused = running.cluster.cluster().unwrap().party("cto").await;
    // Whoever answers there is an enclave without a place in the manifest, or nobody yet.
    assert!(refused.is_err());
    let signed = ceo
        .sign(&key.name, "r", &psbt_payload(&key, 40_000), PATIENCE)
        .await
        .unwrap();
    assert_eq!(signed.signers, ["ceo", "cloud"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_work_and_loses_nothing() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let before = ceo
        .sign(&key.name, "before", &psbt_payload(&key, 40_000), PATIENCE)
        .await
        .unwrap();

    set_quota(&mut running, "ceo", 1).await;
    let ceo = running.client("ceo").await;
    let refused = ceo
        .sign(&key.name, "full", &psbt_payload(&key, 40_000), PATIENCE)
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.reason(), "STORAGE_FULL", "{refused}");
    assert_eq!(
        ceo.signing_request(&before.name).await.unwrap(),
        before,
        "reading goes on"
    );
    // As one of the signers it needs no room.
    let cto = running.client("cto").await;
    let signed = cto
        .sign(&key.name, "via-cto", &psbt_payload(&key, 40_000), PATIENCE)
        .await;
    assert_eq!(signed.unwrap().state, State::Signed);
    let no_room = arca_client::NewKey {
        request_id: "full".into(),
        display_name: "no room".into(),
        scheme: Scheme::Ed25519,
        threshold: 2,
        parties: Vec::new(),
        allow_raw_digest: false,
    };
    let failed = cto.create_key(&no_room, PATIENCE).await.unwrap_err();
    assert!(failed.to_string().contains("STORAGE_FULL"), "{failed}");

    set_quota(&mut running, "ceo", 1 << 30).await;
    let ceo = running.client("ceo").await;
    let payload: Payload = psbt_payload(&key, 40_000);
    ceo.sign(&key.name, "full", &payload, PATIENCE)
        .await
        .unwrap();
    running
        .client("cto")
        .await
        .create_key(&no_room, PATIENCE)
        .await
        .unwrap();
    let listed = running.names("ceo", "key/").await;
    assert_eq!(
        listed.len(),
        2,
        "a key whose generation failed at this party left nothing: {listed:?}"
    );
}

async fn set_quota(running: &mut Running, party: &str, bytes: u64) {
    let host = running.cluster.party_mut(party).unwrap();
    host.stop().await;
    let file = host.paths().host;
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text
        .lines()
        .map(|line| match line.strip_prefix("quota_bytes") {
            Some(_) => format!("quota_bytes = {bytes}"),
            None => line.to_owned(),
        });
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    running.cluster.start_party(party).await.unwrap();
    running
        .cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
}
