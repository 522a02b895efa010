//! Manifests: who may bring one, and what becomes of the old one.

use arca_attestation::manifest::{Draft, Principal, Revocation, Role, SignedManifest, parse};
use arca_channel::{Identity, Target};
use arca_client::{Scheme, keyfile, manifest_file};
use arca_proto::v1::{
    self as wire, CreateKeyRequest, EnrollRequest, ListKeysRequest, ListPartiesRequest,
    key_service_client::KeyServiceClient, party_service_client::PartyServiceClient,
    signing_service_client::SigningServiceClient,
};
use rand_core::OsRng;
use tonic::{Code, Status};

use crate::common::{
    PATIENCE, Running, authorize, new_key, prepared, psbt_payload, reason, running,
};

const ADMINISTRATORS: [&str; 3] = ["alice", "bob", "carol"];

/// The manifest in force, to be changed.
fn draft(running: &Running) -> Draft {
    let file = running.file("manifest.signed.json");
    let signed = manifest_file::read(&file).unwrap();
    let mut draft = parse(&signed.bytes).unwrap();
    draft.epoch += 1;
    draft
}

fn sign(running: &Running, draft: &Draft, administrators: &[&str]) -> SignedManifest {
    sign_bytes(running, draft.to_bytes().unwrap(), administrators)
}

fn sign_bytes(running: &Running, bytes: Vec<u8>, administrators: &[&str]) -> SignedManifest {
    let signatures: Vec<_> = administrators
        .iter()
        .map(|name| keyfile::read_administrator(&running.file(&format!("{name}.pem"))).unwrap())
        .map(|key| manifest_file::sign(&bytes, &key))
        .collect();
    manifest_file::assemble(bytes, &signatures).unwrap()
}

fn to_wire(signed: &SignedManifest) -> EnrollRequest {
    let signatures = signed
        .signatures
        .iter()
        .map(|(administrator, signature)| wire::ManifestSignature {
            administrator: administrator.to_vec(),
            signature: signature.to_vec(),
        })
        .collect();
    EnrollRequest {
        manifest: Some(wire::SignedManifest {
            manifest: signed.bytes.clone(),
            signatures,
        }),
    }
}

async fn enroll(running: &Running, party: &str, signed: &SignedManifest) -> Result<u64, Status> {
    let mut service = PartyServiceClient::new(running.raw_treasury(party).await);
    Ok(service
        .enroll(to_wire(signed))
        .await?
        .into_inner()
        .manifest_epoch)
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, expected: &str) {
    let status = outcome.map(|_| ()).expect_err(expected);
    assert_eq!(reason(&status), (code, expected.to_owned()), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_manifest_needs_the_quorum_in_force_and_a_higher_epoch() {
    let running = running().await;
    let next = draft(&running);
    let refuse = async |draft: &Draft, signers: &[&str]| {
        let outcome = enroll(&running, "ceo", &sign(&running, draft, signers)).await;
        refused(outcome, Code::FailedPrecondition, "MANIFEST_REFUSED");
    };
    refuse(&next, &[]).await;
    refuse(&next, &["alice"]).await;
    refuse(&next, &["alice", "alice"]).await;
    let later = arca_attestation::UnixMillis(next.not_after.0 + 1);
    refuse(
        &Draft {
            epoch: 1,
            not_after: later,
            ..next.clone()
        },
        &ADMINISTRATORS,
    )
    .await;
    refuse(
        &Draft {
            cluster: "sim-other".into(),
            ..next.clone()
        },
        &ADMINISTRATORS,
    )
    .await;
    let long_ago = [1_000_000_000_000, 1_100_000_000_000].map(arca_attestation::UnixMillis);
    let [not_before, not_after] = long_ago;
    refuse(
        &Draft {
            not_before,
            not_after,
            ..next.clone()
        },
        &ADMINISTRATORS,
    )
    .await;
    // Properly signed, and simulated parties in what calls itself production.
    let text = String::from_utf8(next.to_bytes().unwrap()).unwrap();
    let text = text.replace(running.cluster.id(), "production");
    let signed = sign_bytes(&running, text.into_bytes(), &ADMINISTRATORS);
    let outcome = enroll(&running, "ceo", &signed).await;
    refused(outcome, Code::FailedPrecondition, "MANIFEST_REFUSED");

    // Somebody else's administrators cannot depose the ones in force.
    let mut usurped = next.clone();
    let usurper = ed25519_dalek::SigningKey::generate(&mut OsRng);
    usurped.administrators.keys.truncate(1);
    usurped.administrators.keys[0].public_key = usurper.verifying_key().to_bytes();
    usurped.administrators.quorum = 1;
    let bytes = usurped.to_bytes().unwrap();
    let signature = manifest_file::sign(&bytes, &usurper);
    let signed = manifest_file::assemble(bytes, &[signature]).unwrap();
    let outcome = enroll(&running, "ceo", &signed).await;
    refused(outcome, Code::FailedPrecondition, "MANIFEST_REFUSED");

    // Nor can the party be written out of its own manifest, or given measurements that it does not have.
    let mut without = next.clone();
    without.parties.retain(|party| party.name != "ceo");
    let outcome = enroll(&running, "ceo", &sign(&running, &without, &ADMINISTRATORS)).await;
    refused(
        outcome,
        Code::FailedPrecondition,
        "MANIFEST_WITHOUT_THIS_PARTY",
    );
    let mut other_code = next.clone();
    for party in &mut other_code.parties {
        party.measurements[0].pcr0 = [7; 48];
    }
    let outcome = enroll(
        &running,
        "ceo",
        &sign(&running, &other_code, &ADMINISTRATORS),
    )
    .await;
    refused(
        outcome,
        Code::FailedPrecondition,
        "MANIFEST_REFUSES_THIS_ENCLAVE",
    );

    let parties = running.client("ceo").await.parties().await.unwrap();
    assert_eq!(parties.manifest_epoch, 1, "nothing of this was accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_brings_a_principal_with_one_role_and_revokes_another() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let auditor = || {
        let scalar = [0x11; 32];
        Identity::from_scalar(&scalar.into()).unwrap()
    };
    let mut next = draft(&running);
    next.principals.push(Principal {
        name: "auditor".into(),
        identity: auditor().spki().to_vec(),
        roles: vec![Role::Auditor],
    });
    let signed = sign(&running, &next, &["bob", "carol"]);
    for party in ["ceo", "cloud", "cto"] {
        assert_eq!(enroll(&running, party, &signed).await.unwrap(), 2);
    }
    running
        .cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
    // The old one is no way back, and the same one again changes nothing.
    let old = manifest_file::read(&running.file("manifest.signed.json")).unwrap();
    let outcome = enroll(&running, "ceo", &old).await;
    refused(outcome, Code::FailedPrecondition, "MANIFEST_REFUSED");
    assert_eq!(enroll(&running, "ceo", &signed).await.unwrap(), 2);

    let channel = running
        .raw("ceo", auditor(), Target::Service("ceo".into()))
        .await;
    let mut keys = KeyServiceClient::new(channel.clone());
    assert_eq!(
        keys.list_keys(ListKeysRequest::default())
            .await
            .unwrap()
            .into_inner()
            .keys
            .len(),
        1
    );
    let outcome = keys.create_key(CreateKeyRequest::default()).await;
    refused(outcome, Code::PermissionDenied, "ROLE_MISSING");
    let mut parties = PartyServiceClient::new(channel.clone());
    parties.list_parties(ListPartiesRequest {}).await.unwrap();
    refused(
        parties.enroll(to_wire(&signed)).await,
        Code::PermissionDenied,
        "ROLE_MISSING",
    );
    let payload = psbt_payload(&key, 20_000);
    let request = authorize(
        &auditor(),
        running.cluster.id(),
        "auditor",
        &key.name,
        "a",
        &payload,
    );
    let mut signing = SigningServiceClient::new(channel);
    let outcome = signing.create_signing_request(request).await;
    refused(outcome, Code::PermissionDenied, "ROLE_MISSING");

    // Restarted enclaves are under the newest manifest, and the keys are there.
    running.cluster.stop().await;
    for party in ["ceo", "cloud", "cto"] {
        running
            .cluster
            .party_mut(party)
            .unwrap()
            .start_both()
            .await
            .unwrap();
    }
    running
        .cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
    let ceo = running.client("ceo").await;
    assert_eq!(ceo.parties().await.unwrap().manifest_epoch, 2);
    ceo.sign(&key.name, "after", &psbt_payload(&key, 20_000), PATIENCE)
        .await
        .unwrap();

    // A revoked principal is out at the first word.
    let mut last = next.clone();
    last.epoch += 1;
    last.revoked
        .push(Revocation::Identity(running.treasury().spki().to_vec()));
    let signed = sign(&running, &last, &["alice", "carol"]);
    assert_eq!(enroll(&running, "ceo", &signed).await.unwrap(), 3);
    let ended = ceo
        .sign(&key.name, "revoked", &psbt_payload(&key, 20_000), PATIENCE)
        .await;
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_was_never_enrolled_does_nothing_but_prove_itself_and_enroll() {
    let mut running = prepared();
    running.cluster.start().await.unwrap();
    let candidates = running.cluster.collect().await.unwrap();
    assert!(
        candidates
            .iter()
            .all(|candidate| candidate.manifest_epoch == 0)
    );
    let too_few = running.cluster.enroll(&candidates, &[2]).await.unwrap_err();
    assert_eq!(too_few.reason(), "MANIFEST_REFUSED", "{too_few}");
    running.cluster.enroll(&candidates, &[0, 2]).await.unwrap();
    running
        .cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
}
