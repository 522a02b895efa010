//! Threshold ECDSA through the whole system: presignatures, signing without them, restarts.

use std::time::{Duration, Instant};

use arca_client::{Client, DerivationPath, Key, Payload, Scheme, SigningRequest, verify};

use crate::common::{PATIENCE, Running, new_key, running};

const PARTIES: [&str; 3] = ["ceo", "cloud", "cto"];

/// Has a digest signed at a path, and everything about it verified.
async fn sign(client: &Client, key: &Key, path: &str, id: &str, digest: u8) -> SigningRequest {
    let path: DerivationPath = path.parse().unwrap();
    let payload = Payload::Digest([digest; 32]);
    let intent = verify::decode(key, &path, &payload).unwrap();
    let signed = client
        .sign(key.at(&path), id, &payload, PATIENCE)
        .await
        .unwrap();
    verify::signatures(key, &path, &intent, &signed).unwrap();
    let other = verify::decode(key, &path, &Payload::Digest([digest ^ 0x80; 32])).unwrap();
    assert!(
        verify::signatures(key, &path, &other, &signed).is_err(),
        "the judge accepts anything"
    );
    signed
}

impl Running {
    /// The value of a metric that the party's enclave reported, summed over its series that have `label`.
    pub async fn metric(&self, party: &str, name: &str, label: &str) -> f64 {
        let page = self.cluster.party(party).unwrap().metrics().await.unwrap();
        let of_metric = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('{'))
                && line.contains(label)
        };
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        page.lines().filter(of_metric).filter_map(value).sum()
    }

    /// Waits until a metric is what it should be. The enclave reports once in a second.
    pub async fn until_metric(
        &self,
        party: &str,
        name: &str,
        label: &str,
        is: impl Fn(f64) -> bool,
    ) {
        let started = Instant::now();
        let mut next_look = tokio::time::interval(Duration::from_millis(50));
        loop {
            next_look.tick().await;
            let value = self.metric(party, name, label).await;
            if is(value) {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{name} with {label} at {party} stays at {value}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_signs_on_both_curves_and_after_a_restart_of_everything() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let k256 = new_key(&ceo, Scheme::EcdsaSecp256k1, "k").await;
    let p256 = new_key(&ceo, Scheme::EcdsaP256, "p").await;
    for absent in PARTIES {
        running.cluster.party_mut(absent).unwrap().stop().await;
        let pair: Vec<&str> = PARTIES.into_iter().filter(|p| *p != absent).collect();
        let client = running.client(pair[0]).await;
        let ids = [format!("k-{absent}"), format!("p-{absent}")];
        let signed = [
            sign(&client, &k256, "m/44/60/0/0/7", &ids[0], 1).await,
            sign(&client, &p256, "m", &ids[1], 2).await,
        ];
        for signed in signed {
            let signers: std::collections::BTreeSet<&str> =
                signed.signers.iter().map(String::as_str).collect();
            assert!(signers.into_iter().eq(pair.iter().copied()));
            assert_eq!(signed.coordinator, pair[0]);
        }
        running.cluster.start_party(absent).await.unwrap();
        running.cluster.wait_connected(&PARTIES).await.unwrap();
    }
    running.cluster.kill_all().await;
    for party in PARTIES {
        let party = running.cluster.party_mut(party).unwrap();
        party.start_both().await.unwrap();
    }
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    for party in PARTIES {
        let client = running.client(party).await;
        sign(&client, &k256, "m/1", &format!("k-after-{party}"), 3).await;
        sign(&client, &p256, "m", &format!("p-after-{party}"), 4).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_fill_are_used_run_dry_and_fill_again() {
    const LEVEL: &str = "arca_enclave_presignatures";
    const SIGNED: &str = "arca_enclave_signatures_total";
    let running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::EcdsaSecp256k1, "k").await;
    let full = 256.0;
    for signers in ["signers=\"ceo,cloud\"", "signers=\"ceo,cto\""] {
        running
            .until_metric("ceo", LEVEL, signers, |level| level >= full)
            .await;
    }
    sign(&ceo, &key, "m", "first", 1).await;
    running
        .until_metric("ceo", SIGNED, "how=\"presignature\"", |count| count == 1.0)
        .await;
    running
        .until_metric("ceo", LEVEL, "key=", |level| level == 2.0 * full - 1.0)
        .await;

    // The others coordinate with nothing made ahead, and begin to make it.
    let cto = running.client("cto").await;
    sign(&cto, &key, "m", "without", 2).await;
    running
        .until_metric("cto", SIGNED, "how=\"full\"", |count| count == 1.0)
        .await;
    running
        .until_metric("cto", LEVEL, "key=", |level| level >= full)
        .await;
    sign(&cto, &key, "m", "with", 3).await;
    running
        .until_metric("cto", SIGNED, "how=\"presignature\"", |count| count == 1.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_party_has_lost_its_presignatures_and_the_others_notice() {
    const LEVEL: &str = "arca_enclave_presignatures";
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::EcdsaSecp256k1, "k").await;
    let full = 256.0;
    for signers in ["signers=\"ceo,cloud\"", "signers=\"ceo,cto\""] {
        running
            .until_metric("ceo", LEVEL, signers, |level| level >= full)
            .await;
    }
    running.cluster.party_mut("cto").unwrap().kill().await;
    running.cluster.start_party("cto").await.unwrap();
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    running
        .until_metric("ceo", LEVEL, "signers=\"ceo,cto\"", |level| level == 0.0)
        .await;
    // And with the third down the pair that has nothing signs all the same.
    running.cluster.party_mut("cloud").unwrap().kill().await;
    for index in 0..4_u8 {
        let signed = sign(&ceo, &key, "m", &format!("r{index}"), index + 1).await;
        assert_eq!(signed.signers, ["ceo", "cto"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_all_end_signed() {
    let running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::EcdsaSecp256k1, "k").await;
    let mut requests = tokio::task::JoinSet::new();
    for index in 0..100_u8 {
        let (ceo, key) = (ceo.clone(), key.clone());
        requests.spawn(async move {
            let path = format!("m/0/{index}");
            sign(&ceo, &key, &path, &format!("r{index}"), index + 1).await
        });
    }
    let mut seen = std::collections::BTreeSet::new();
    for signed in requests.join_all().await {
        assert!(
            seen.insert(signed.signatures[0].signature[..32].to_vec()),
            "one nonce for two signatures"
        );
    }
}
