//! A host that goes back on part of what it stored: single blobs deleted, cut or replayed, and two parties taken
//! back at once.

use arca_client::{Key, NewKey, Scheme, State};
use arca_proto::v1::{GetStateResponse, peer_state::Word};

use crate::{
    common::{PATIENCE, Running, new_key, psbt_payload, running},
    disk::{holds, lost},
    storage::get,
};

const PARTIES: [&str; 3] = ["ceo", "cloud", "cto"];

/// What a blob becomes; `None`: nothing.
type Edit<'a> = (&'a str, Option<&'a [u8]>);

/// Stops `ceo`, changes its disk, and starts it again; what was there before.
async fn tamper(running: &mut Running, edits: &[Edit<'_>]) -> Vec<(String, Vec<u8>)> {
    running.cluster.party_mut("ceo").unwrap().kill().await;
    let before = running.edit_disk("ceo", edits);
    running.cluster.start_party("ceo").await.unwrap();
    before
}

/// Puts back what was there.
async fn undo(running: &mut Running, before: &[(String, Vec<u8>)]) {
    let edits: Vec<Edit<'_>> = before
        .iter()
        .map(|(name, blob)| (name.as_str(), Some(&blob[..])))
        .collect();
    tamper(running, &edits).await;
    running.state_when("ceo", holds).await;
    running.cluster.wait_connected(&PARTIES).await.unwrap();
}

/// Two others hold shares of the key and sign with it.
async fn others_sign(running: &Running, key: &Key, id: &str) {
    let cto = running.client("cto").await;
    let payload = psbt_payload(key, 40_000);
    let signed = cto.sign(&key.name, id, &payload, PATIENCE).await.unwrap();
    assert_eq!(signed.signers, ["cto", "cloud"]);
}

async fn sign(running: &Running, key: &Key, id: &str) {
    let ceo = running.client("ceo").await;
    let payload = psbt_payload(key, 40_000);
    let signed = ceo.sign(&key.name, id, &payload, PATIENCE).await.unwrap();
    assert_eq!(signed.state, State::Signed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_request_that_is_deleted_cut_or_replayed_is_named_and_never_used() {
    let mut running = running().await;
    let interposed = running.interpose("ceo").await;
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    let ceo = running.client("ceo").await;
    let asked_for = NewKey {
        request_id: "k".into(),
        display_name: "k".into(),
        scheme: Scheme::Bip340,
        threshold: 2,
        parties: Vec::new(),
        allow_raw_digest: false,
    };
    let key = ceo.create_key(&asked_for, PATIENCE).await.unwrap();
    let untouched = new_key(&ceo, Scheme::Bip340, "untouched").await;
    // A request that takes long is stored twice: as it is under way, and as it ended.
    interposed.links.hold();
    let payload = psbt_payload(&untouched, 30_000);
    let asked = ceo
        .request_signature(&untouched.name, "s", &payload, PATIENCE)
        .await
        .unwrap();
    interposed.links.release();
    let signed = ceo.watch(asked, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(signed.state, State::Signed);

    let key_object = key.name.replace("keys/", "key/");
    let signing_object = signed.name.replace("signingRequests/", "signing/");
    let requests = running.names("ceo", "request/").await;
    let mut request_object = None;
    for name in requests {
        // Of the two, the one that was stored first.
        let stored = interposed.storage.stored_at(&name);
        request_object = request_object.max(Some((std::cmp::Reverse(stored), name)));
    }
    let (_, request_object) = request_object.unwrap();
    let objects = [
        key_object.as_str(),
        signing_object.as_str(),
        request_object.as_str(),
    ];
    let older = objects.map(|object| {
        let versions = interposed.storage.versions(object);
        (versions.len() > 1).then(|| versions[0].clone())
    });
    assert!(
        older[0].is_some() && older[1].is_some(),
        "two versions each"
    );

    for round in ["deleted", "cut", "replayed"] {
        let mut newest = Vec::new();
        for object in objects {
            newest.push(get(&running, "ceo", object).await);
        }
        let edits = objects.iter().zip(&newest).zip(&older);
        let edits = edits.filter_map(|((object, newest), older)| match round {
            "deleted" => Some((*object, None)),
            "cut" => Some((*object, newest.get(..newest.len() - 1))),
            _ => older.as_deref().map(|older| (*object, Some(older))),
        });
        let edits: Vec<Edit<'_>> = edits.collect();
        let before = tamper(&mut running, &edits).await;
        running.state_when("ceo", holds).await;
        running.cluster.wait_connected(&PARTIES).await.unwrap();

        let ceo = running.client("ceo").await;
        let payload = psbt_payload(&untouched, 30_000);
        let fresh = psbt_payload(&key, 40_000);
        let mut refused = vec![
            (key_object.as_str(), ceo.key(&key.name).await.unwrap_err()),
            (
                key_object.as_str(),
                ceo.sign(&key.name, round, &fresh, PATIENCE)
                    .await
                    .unwrap_err(),
            ),
            // Neither shown as another than it is, nor signed once more.
            (
                signing_object.as_str(),
                ceo.signing_request(&signed.name).await.unwrap_err(),
            ),
            (
                signing_object.as_str(),
                ceo.sign(&untouched.name, "s", &payload, PATIENCE)
                    .await
                    .unwrap_err(),
            ),
        ];
        if edits.len() == 3 {
            // Nor is a second key made.
            let again = ceo.create_key(&asked_for, PATIENCE).await;
            refused.push((request_object.as_str(), again.unwrap_err()));
        }
        for (object, error) in refused {
            let text = error.to_string();
            assert!(text.contains(object), "{round} {object}: {text}");
            assert!(text.contains("restore"), "{round} {object}: {text}");
            if round == "cut" {
                assert_eq!(error.reason(), "SEALED_BLOB_NOT_AUTHENTIC", "{text}");
                continue;
            }
            assert_eq!(error.reason(), "SEALED_STATE_ROLLED_BACK", "{text}");
            if round == "replayed" {
                assert!(text.contains("sequence 1, but the newest"), "{text}");
            }
            assert!(text.contains("with sequence "), "{text}");
        }
        others_sign(&running, &key, round).await;
        sign(&running, &untouched, round).await;
        undo(&mut running, &before).await;
    }
    sign(&running, &key, "restored").await;
    let ceo = running.client("ceo").await;
    assert_eq!(ceo.signing_request(&signed.name).await.unwrap(), signed);
    assert_eq!(ceo.create_key(&asked_for, PATIENCE).await.unwrap(), key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_of_the_index_that_is_deleted_cut_or_another_partys_is_named_and_nothing_is_signed()
{
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let newest = get(&running, "ceo", "index/root").await;
    let anothers = get(&running, "cto", "index/root").await;
    for (round, blob) in [
        ("deleted", None),
        ("cut", newest.get(..newest.len() - 1)),
        ("anothers", Some(&anothers[..])),
    ] {
        let before = tamper(&mut running, &[("index/root", blob)]).await;
        running.state_when("ceo", holds).await;
        running.cluster.wait_connected(&PARTIES).await.unwrap();
        let ceo = running.client("ceo").await;
        let payload = psbt_payload(&key, 40_000);
        for refused in [
            ceo.key(&key.name).await.map(drop),
            ceo.sign(&key.name, round, &payload, PATIENCE)
                .await
                .map(drop),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.reason(), "SEALED_STATE_ROLLED_BACK", "{refused}");
            let state = running.state_when("ceo", holds).await;
            let sequence = state.current.unwrap().sequence;
            for part in [
                "index/root".to_owned(),
                format!("anchor, sequence {sequence}"),
                "restore".to_owned(),
            ] {
                assert!(refused.to_string().contains(&part), "{part}: {refused}");
            }
        }
        others_sign(&running, &key, round).await;
        undo(&mut running, &before).await;
    }
    sign(&running, &key, "restored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_anchor_a_party_is_not_dealt_with_and_with_another_it_does_not_start() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    let seen = seen_of(&running, "cto", "ceo").await;

    // As if there had never been any state.
    let before = tamper(&mut running, &[("anchor", None)]).await;
    let state = running.state_when("ceo", lost).await;
    assert_eq!(state.start.clone().unwrap().sequence, 0);
    for part in [
        "anchor has sequence 0 ".to_owned(),
        format!("saw sequence {seen}"),
        "restore".to_owned(),
        "accept-loss".to_owned(),
    ] {
        assert!(state.message.contains(&part), "{part}: {}", state.message);
    }
    let ceo = running.client("ceo").await;
    let payload = psbt_payload(&key, 40_000);
    let refused = ceo.sign(&key.name, "none", &payload, PATIENCE).await;
    assert_eq!(refused.unwrap_err().reason(), "STATE_ROLLED_BACK");
    others_sign(&running, &key, "none").await;

    let newest = before[0].1.clone();
    let anothers = get(&running, "cto", "anchor").await;
    for (blob, says) in [
        (&newest[..newest.len() - 1], "does not authenticate"),
        (&newest[..20], "cut short"),
        (&anothers[..], "belongs to another party"),
    ] {
        running.cluster.party_mut("ceo").unwrap().kill().await;
        running.edit_disk("ceo", &[("anchor", Some(blob))]);
        let refused = running.cluster.start_party("ceo").await.unwrap_err();
        let ended = format!("{refused:?}");
        let text = ended.rsplit_once("arca-enclave-simulated: ").unwrap().1;
        for part in ["anchor: ", says, "restore"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    undo(&mut running, &before).await;
    sign(&running, &key, "restored").await;
}

/// The furthest that a party saw of a peer's state, once that is all that there is.
async fn seen_of(running: &Running, party: &str, peer: &str) -> u64 {
    let current = running.state_when(peer, holds).await.current.unwrap();
    let remembered = |state: &GetStateResponse| {
        let peers = state.peers.iter();
        let mut of_peer = peers.filter(|remembered| remembered.name == peer);
        of_peer.find_map(|peer| Some(peer.remembered.as_ref()?.sequence))
    };
    let caught_up = |state: &GetStateResponse| remembered(state) >= Some(current.sequence);
    let state = running.state_when(party, caught_up).await;
    remembered(&state).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_whose_memory_of_its_peers_was_deleted_still_finds_out_a_peer_that_went_back() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    running.keep_disk("cto", "yesterday").await;
    running.cluster.start_party("cto").await.unwrap();
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    new_key(&running.client("cto").await, Scheme::Bip340, "newer").await;
    let seen = seen_of(&running, "ceo", "cto").await;
    // With its next change, `ceo` seals what it saw.
    sign(&running, &key, "next").await;
    running.keep_disk("cto", "today").await;

    tamper(&mut running, &[("peers", None)]).await;
    running.cluster.party_mut("cto").unwrap().kill().await;
    std::fs::copy(running.file("yesterday"), running.database("cto")).unwrap();
    running.cluster.start_party("cto").await.unwrap();
    let denied_by_ceo = |state: &GetStateResponse| {
        let peers = &mut state.peers.iter();
        peers.any(|peer| peer.name == "ceo" && peer.word() == Word::Denied)
    };
    let state = running.state_when("cto", denied_by_ceo).await;
    assert!(lost(&state));
    let ceo = state.peers.iter().find(|peer| peer.name == "ceo").unwrap();
    assert_eq!(ceo.denial_reason, "STATE_ROLLED_BACK");
    assert!(ceo.denial_known.as_ref().unwrap().sequence >= seen);

    running.restore_disk("cto", "today").await;
    for party in PARTIES {
        running.state_when(party, holds).await;
    }
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    sign(&running, &key, "restored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_parties_taken_back_together_are_both_stopped_by_the_third() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    for party in ["ceo", "cto"] {
        running
            .keep_disk(party, &format!("{party}-yesterday"))
            .await;
    }
    for party in ["ceo", "cto"] {
        running.cluster.start_party(party).await.unwrap();
    }
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    sign(&running, &key, "today").await;
    let seen = [
        seen_of(&running, "cloud", "ceo").await,
        seen_of(&running, "cloud", "cto").await,
    ];
    for party in ["ceo", "cto"] {
        running.keep_disk(party, &format!("{party}-today")).await;
    }

    for party in ["ceo", "cto"] {
        running
            .restore_disk(party, &format!("{party}-yesterday"))
            .await;
    }
    for (party, seen) in ["ceo", "cto"].into_iter().zip(seen) {
        let state = running.state_when(party, lost).await;
        assert!(state.start.unwrap().sequence < seen);
        let says = format!("cloud saw sequence {seen}");
        assert!(state.message.contains(&says), "{says}: {}", state.message);
        let client = running.client(party).await;
        let payload = psbt_payload(&key, 50_000);
        let refused = client.sign(&key.name, "stale", &payload, PATIENCE).await;
        assert_eq!(refused.unwrap_err().reason(), "STATE_ROLLED_BACK");
    }

    for party in ["ceo", "cto"] {
        running.restore_disk(party, &format!("{party}-today")).await;
    }
    for party in PARTIES {
        running.state_when(party, holds).await;
    }
    running.cluster.wait_connected(&PARTIES).await.unwrap();
    sign(&running, &key, "restored").await;
}
