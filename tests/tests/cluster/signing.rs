use arca_client::Scheme;

use crate::common::{PATIENCE, new_key, psbt_payload, running};

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_make_a_key_and_sign_with_it() {
    let running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k1").await;
    let signed = ceo.sign(&key.name, "s1", &psbt_payload(&key, 50_000), PATIENCE).await.unwrap();
    assert_eq!(signed.signers.len(), 2);
}
