//! SIGKILL between any two of persist, log and send, and a host that holds, loses, delays or lies about writes.
//!
//! The write in question is the intent to sign: what has to be stored before a party's share leaves.

use std::collections::BTreeSet;

use arca_client::{DerivationPath, Key, NewKey, Payload, Scheme, SigningRequest, State, verify};
use arca_proto::v1::{StateAnchor, get_state_response::Standing};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::{
    common::{PATIENCE, Running, prepared, started},
    disk::{holds, lost},
    interposed::{Interposed, is_change, is_intent},
};

/// Whoever is killed or lied to, and who it signs with.
const VICTIM: &str = "ceo";
const OTHER: &str = "cto";
const PARTIES: [&str; 3] = ["ceo", "cloud", "cto"];

const LEVEL: &str = "arca_enclave_presignatures";
const MADE: &str = "arca_enclave_signatures_total";
const SIGNERS: &str = "signers=\"ceo,cto\"";
/// Presignatures of a full pool.
const FULL: u32 = 8;

/// A cluster whose `ceo` has us between its enclave and its host, and two keys that `ceo` and `cto` hold.
struct Scene {
    running: Running,
    interposed: Interposed,
    bip340: Key,
    ecdsa: Key,
    requests: u32,
    /// The nonces of all signatures so far.
    nonces: BTreeSet<Vec<u8>>,
    /// How many ECDSA signatures `cto` coordinated.
    by_other: u32,
}

impl Scene {
    async fn set() -> Self {
        let mut running = prepared();
        running.cluster = running.cluster.with_presignatures(FULL);
        let mut running = started(running).await;
        let interposed = running.interpose(VICTIM).await;
        running.state_when(VICTIM, holds).await;
        running.cluster.wait_connected(&PARTIES).await.unwrap();
        let mut keys = Vec::new();
        for scheme in [Scheme::Bip340, Scheme::EcdsaSecp256k1] {
            let key = NewKey {
                request_id: format!("{scheme:?}").to_lowercase(),
                display_name: "of two".into(),
                scheme,
                threshold: 2,
                parties: vec![VICTIM.into(), OTHER.into()],
                allow_raw_digest: true,
            };
            let client = running.client(VICTIM).await;
            keys.push(client.create_key(&key, PATIENCE).await.unwrap());
        }
        let mut scene = Self {
            running,
            interposed,
            ecdsa: keys.pop().unwrap(),
            bip340: keys.pop().unwrap(),
            requests: 0,
            nonces: BTreeSet::new(),
            by_other: 0,
        };
        // Both know that the keys are complete, and begin to make presignatures.
        scene.all_sign().await;
        scene
    }

    /// Asks for a signature.
    async fn ask(
        &mut self,
        key: &Key,
        coordinator: &str,
    ) -> JoinHandle<arca_client::Result<SigningRequest>> {
        self.requests += 1;
        let (id, payload) = (format!("r{}", self.requests), self.payload());
        let (client, name) = (self.running.client(coordinator).await, key.name.clone());
        tokio::spawn(async move { client.sign(&name, &id, &payload, PATIENCE).await })
    }

    fn payload(&self) -> Payload {
        let mut digest = [7; 32];
        digest[..4].copy_from_slice(&self.requests.to_be_bytes());
        Payload::Digest(digest)
    }

    /// Checks the signature of the last request, and that its nonce was in no other.
    fn check(&mut self, key: &Key, signed: &SigningRequest) {
        assert_eq!(signed.signers, [VICTIM, OTHER]);
        let path = DerivationPath::default();
        let intent = verify::decode(key, &path, &self.payload()).unwrap();
        verify::signatures(key, &path, &intent, signed).unwrap();
        let nonce = signed.signatures[0].signature[..32].to_vec();
        assert!(self.nonces.insert(nonce), "one nonce for two signatures");
        if signed.coordinator == OTHER && key.scheme == Scheme::EcdsaSecp256k1 {
            self.by_other += 1;
        }
    }

    async fn sign(&mut self, key: &Key, coordinator: &str) {
        let signed = self.ask(key, coordinator).await.await.unwrap().unwrap();
        self.check(key, &signed);
    }

    /// With both keys, whoever coordinates.
    async fn all_sign(&mut self) {
        for coordinator in [VICTIM, OTHER] {
            for key in [self.bip340.clone(), self.ecdsa.clone()] {
                self.sign(&key, coordinator).await;
            }
        }
    }

    /// Waits until there are presignatures to coordinate with.
    async fn wait_presignatures(&self, coordinator: &str, is: impl Fn(f64) -> bool) {
        self.running
            .until_metric(coordinator, LEVEL, SIGNERS, is)
            .await;
    }

    /// How many ECDSA signatures the other coordinated, with presignatures and without, once it has reported all.
    async fn made_by_other(&self) -> [f64; 2] {
        let all = f64::from(self.by_other);
        self.running
            .until_metric(OTHER, MADE, "scheme=\"ecdsa", |made| made == all)
            .await;
        let online = self.running.metric(OTHER, MADE, "how=\"presignature\"");
        let online = online.await;
        [online, all - online]
    }

    /// Waits until the peers know all of the victim's state; that state.
    async fn quiet(&self) -> StateAnchor {
        loop {
            let state = self.running.state_when(VICTIM, holds).await;
            let current = state.current.unwrap();
            for peer in [OTHER, "cloud"] {
                let knows = |state: &_| remembered(state).sequence >= current.sequence;
                self.running.state_when(peer, knows).await;
            }
            let after = self.running.state_when(VICTIM, holds).await;
            if after.current.as_ref() == Some(&current) {
                return current;
            }
        }
    }

    /// The furthest that a peer saw of the victim's state.
    async fn seen_by(&self, peer: &str) -> StateAnchor {
        remembered(&self.running.state_when(peer, |_| true).await)
    }

    async fn kill(&mut self) {
        let victim = self.running.cluster.party_mut(VICTIM).unwrap();
        victim.kill_enclave().await;
    }

    /// Starts the victim again; the state that it found.
    async fn restart(&mut self) -> StateAnchor {
        self.running.cluster.start_party(VICTIM).await.unwrap();
        let state = self.running.state_when(VICTIM, holds).await;
        state.start.unwrap()
    }

    /// Has a signature asked for, and kills the victim at this moment of storing its intent.
    async fn killed(&mut self, key: &Key, coordinator: &str, moment: Moment) {
        if key.scheme == Scheme::EcdsaSecp256k1 {
            // After a restart the first one is made without, and has more made.
            self.sign(key, coordinator).await;
            self.wait_presignatures(coordinator, |level| level >= 1.0)
                .await;
        }
        let before = self.quiet().await;
        let made = self.made_by_other().await;
        let armed = self.interposed.storage.arm(is_intent);
        let asked = self.ask(key, coordinator).await;
        let mut held = armed.reached().await;
        match moment {
            Moment::Unstored => {}
            Moment::Unanswered => held.deliver().await.unwrap(),
            Moment::Unsent => {
                self.interposed.links.hold();
                held.deliver().await.unwrap();
                held.answer(Ok(()));
                let heard = |state: &arca_proto::v1::GetStateResponse| {
                    state.current.as_ref().unwrap().sequence > before.sequence
                };
                self.running.state_when(VICTIM, heard).await;
                self.interposed.links.something_held().await;
            }
        }
        self.kill().await;
        self.interposed.links.lose_held().await;
        // Whatever leaves after a change says so: nothing has.
        for peer in [OTHER, "cloud"] {
            assert_eq!(self.seen_by(peer).await, before, "{moment:?}");
        }

        let found = self.restart().await;
        let stored = found.sequence - before.sequence;
        match moment {
            Moment::Unstored => assert_eq!(stored, 0),
            Moment::Unanswered => assert_eq!(stored, 1),
            // A request whose signature takes long is stored meanwhile.
            Moment::Unsent => assert!(stored >= 1),
        }
        let signed = asked.await.unwrap().unwrap();
        self.check(key, &signed);
        if key.scheme == Scheme::EcdsaSecp256k1 && coordinator == OTHER {
            // One message of the victim makes a signature with a presignature, and it was not sent: this signature
            // is of a session after the restart, for which there was none.
            let [online, full] = made;
            assert_eq!(self.made_by_other().await, [online, full + 1.0]);
        }
        if moment == Moment::Unstored {
            // The host finds the call after all, and is too late.
            let late = held.deliver().await.unwrap_err();
            assert_eq!(late.code(), Code::Aborted, "{late}");
        }
    }

    /// The same for both schemes, the victim coordinating and not.
    async fn killed_in_all_roles(moment: Moment) {
        let mut scene = Self::set().await;
        for coordinator in [VICTIM, OTHER] {
            for key in [scene.bip340.clone(), scene.ecdsa.clone()] {
                scene.killed(&key, coordinator, moment).await;
            }
        }
        scene.all_sign().await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The host has not got it.
    Unstored,
    /// The host has stored it, and the enclave has not heard so.
    Unanswered,
    /// The enclave has heard so, and nothing that followed has left.
    Unsent,
}

fn remembered(state: &arca_proto::v1::GetStateResponse) -> StateAnchor {
    let peer = state.peers.iter().find(|peer| peer.name == VICTIM);
    peer.unwrap().remembered.clone().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_intent_is_stored_nothing_was_sent_and_nothing_is_lost() {
    Scene::killed_in_all_roles(Moment::Unstored).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_stored_and_answered_nothing_was_sent_and_nothing_is_lost() {
    Scene::killed_in_all_roles(Moment::Unanswered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_answered_and_sent_no_share_left_and_nothing_is_lost() {
    Scene::killed_in_all_roles(Moment::Unsent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_come_late_or_through_in_silence_neither_go_back_nor_stop_the_party() {
    let mut scene = Scene::set().await;
    let key = scene.bip340.clone();

    // Given up, and carried out by the host after others.
    scene.quiet().await;
    let armed = scene.interposed.storage.arm(is_intent);
    let asked = scene.ask(&key, VICTIM).await;
    let mut late = armed.reached().await;
    late.answer(Err(Status::unavailable("lost")));
    let _ = asked.await.unwrap();
    scene.all_sign().await;
    let refused = late.deliver().await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    scene.all_sign().await;

    // Given up, and carried out while the next one is on its way.
    let armed = scene.interposed.storage.arm(is_intent);
    let asked = scene.ask(&key, VICTIM).await;
    let mut silent = armed.reached().await;
    silent.deliver().await.unwrap();
    silent.answer(Err(Status::unavailable("lost")));
    let _ = asked.await.unwrap();
    scene.all_sign().await;

    let before = scene.quiet().await;
    scene.kill().await;
    assert_eq!(scene.restart().await, before);
    scene.all_sign().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_only_says_that_it_stored_is_found_out_by_the_peers() {
    let mut scene = Scene::set().await;
    let key = scene.bip340.clone();
    let before = scene.quiet().await;
    let armed = scene.interposed.storage.arm(is_intent);
    let asked = scene.ask(&key, VICTIM).await;
    let mut withheld = armed.reached().await;
    withheld.answer(Ok(()));
    // The share has left on the host's word. The next change contradicts what the host has.
    let outcome = asked.await.unwrap();
    if let Err(error) = &outcome {
        assert!(error.to_string().contains("anchor"), "{error}");
    }
    let saw = |state: &_| remembered(state).sequence > before.sequence;
    let seen = remembered(&scene.running.state_when(OTHER, saw).await).sequence;

    // With what the host has, the party is not dealt with.
    scene.kill().await;
    scene.running.cluster.start_party(VICTIM).await.unwrap();
    let state = scene.running.state_when(VICTIM, lost).await;
    assert_eq!(state.start.unwrap(), before);
    for part in [
        "anchor".to_owned(),
        format!("sequence {} ", before.sequence),
        format!("saw sequence {seen}"),
        "restore".to_owned(),
        "accept-loss".to_owned(),
    ] {
        assert!(state.message.contains(&part), "{part}: {}", state.message);
    }
    let client = scene.running.client(VICTIM).await;
    let payload = scene.payload();
    let refused = client.sign(&key.name, "stale", &payload, PATIENCE).await;
    assert_eq!(refused.unwrap_err().reason(), "STATE_ROLLED_BACK");

    // With what it withheld, everything is there.
    withheld.deliver().await.unwrap();
    scene.kill().await;
    let found = scene.restart().await;
    assert_eq!(found.sequence, seen);
    scene.all_sign().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_says_that_it_is_full_and_stored_stops_the_party_and_takes_it_nowhere() {
    let mut scene = Scene::set().await;
    let key = scene.bip340.clone();
    let before = scene.quiet().await;
    let armed = scene.interposed.storage.arm(is_intent);
    let asked = scene.ask(&key, VICTIM).await;
    let mut stored = armed.reached().await;
    stored.deliver().await.unwrap();
    stored.answer(Err(Status::resource_exhausted("no space left, it says")));
    asked.await.unwrap().unwrap_err();
    let client = scene.running.client(VICTIM).await;
    let payload = scene.payload();
    let refused = client.sign(&key.name, "next", &payload, PATIENCE).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.reason(), "STORAGE_CONFLICT", "{refused}");
    assert!(refused.to_string().contains("anchor"), "{refused}");
    assert_eq!(scene.seen_by(OTHER).await, before);

    scene.kill().await;
    assert_eq!(scene.restart().await.sequence, before.sequence + 1);
    scene.all_sign().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_no_share_leaves_and_a_presignature_that_was_taken_is_spent() {
    let mut scene = Scene::set().await;
    let full = f64::from(FULL);
    for party in [VICTIM, OTHER] {
        scene
            .wait_presignatures(party, |level| level >= full / 2.0)
            .await;
    }
    let before = scene.quiet().await;
    let level = scene.running.metric(VICTIM, LEVEL, SIGNERS).await;
    let keys = [scene.bip340.clone(), scene.ecdsa.clone()];
    let full = || Status::resource_exhausted("the host's disk is full");
    scene.interposed.storage.refuse(Some(full()));
    let client = scene.running.client(VICTIM).await;
    for attempt in 1..=2_u32 {
        for key in &keys {
            let id = format!("full{attempt}");
            let refused = client
                .sign(&key.name, &id, &scene.payload(), PATIENCE)
                .await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.reason(), "STORAGE_FULL", "{refused}");
            assert!(refused.to_string().contains("quota_bytes"), "{refused}");
        }
        // Taken once for each attempt, and never put back.
        let left = level - f64::from(attempt);
        scene
            .wait_presignatures(VICTIM, |level| level == left)
            .await;
    }
    // Nor does it give its share to others, of whom this key has none but cto.
    let asked = scene.ask(&keys[0], OTHER).await;
    let failed = asked.await.unwrap().unwrap_err();
    assert!(failed.to_string().contains("STORAGE_FULL"), "{failed}");
    for peer in [OTHER, "cloud"] {
        assert_eq!(scene.seen_by(peer).await, before);
    }

    // A restart on the full disk: it says what it waits for.
    scene.kill().await;
    scene.running.cluster.start_party(VICTIM).await.unwrap();
    let granted = |state: &arca_proto::v1::GetStateResponse| {
        let granted = |peer: &&arca_proto::v1::PeerState| {
            peer.word() == arca_proto::v1::peer_state::Word::Granted
        };
        state.peers.iter().filter(granted).count() == 2
    };
    let state = scene.running.state_when(VICTIM, granted).await;
    assert_eq!(state.standing(), Standing::Waiting);
    for part in ["not stored", "host"] {
        assert!(state.message.contains(part), "{part}: {}", state.message);
    }

    scene.interposed.storage.refuse(None);
    scene.running.state_when(VICTIM, holds).await;
    scene.all_sign().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_a_replaced_instance_sent_is_dropped_when_it_arrives() {
    let mut scene = Scene::set().await;
    let key = scene.bip340.clone();
    scene.quiet().await;
    let armed = scene.interposed.storage.arm(is_change);
    let asked = scene.ask(&key, OTHER).await;
    let mut held = armed.reached().await;
    scene.interposed.links.hold();
    held.deliver().await.unwrap();
    held.answer(Ok(()));
    scene.interposed.links.something_held().await;
    scene.kill().await;
    scene.interposed.links.release();
    scene.restart().await;
    let signed = asked.await.unwrap().unwrap();
    assert_eq!(signed.state, State::Signed);
    scene.check(&key, &signed);
    scene.all_sign().await;
}
