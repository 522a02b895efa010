//! A traitor among those who sign ECDSA: it makes checks fail, and plays with presignatures.

use std::{sync::Arc, time::Duration};

use arca_attestation::SigningAuthorization;
use arca_client::{Key, Payload, Scheme};
use arca_proto::v1::{
    CreateSigningRequestRequest, Frame, MakePairSetup, OpenSession, Presign, Sign, frame::Body,
    open_session::Task,
};
use arca_threshold::{Inbox, Transition};
use arca_threshold::{
    Participant, SessionId,
    ecdsa::{
        CurveId, DkgParams, KeyPackage, PairSetups, Path, Presignature, PresigningParams, Signable,
        Signed, SigningParams, dkg,
        pairwise::{PairSetup, PairSetupParams, pair_setup},
        presign, sign_online,
    },
};
use rand_core::{OsRng, RngCore as _};
use sha2::{Digest as _, Sha256};

use super::{Betrayed, ME, Stopped, aborted, betrayed, frame, key_context};
use crate::common::{PATIENCE, authorize_at, new_key};

/// The traitor's boot id, as `betrayed` has it.
const BOOT_ID: [u8; 16] = [6; 16];
const CEO: &str = "ceo";

fn index(participants: &[String], name: &str) -> Participant {
    let position = participants
        .iter()
        .position(|participant| participant == name);
    Participant::new(u16::try_from(position.unwrap() + 1).unwrap()).unwrap()
}

/// SHA-256 over parts behind their lengths, as the enclaves hash; written down a second time so that a change
/// shows.
fn tagged(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

fn task(frame: &Frame) -> Option<&Task> {
    match &frame.body {
        Some(Body::Open(OpenSession {
            task: Some(task), ..
        })) => Some(task),
        _ => None,
    }
}

impl Betrayed {
    /// Takes part, honestly, in the generation of an ECDSA key that a client asks of `ceo`.
    async fn make_ecdsa_key(&mut self) -> (Key, Arc<KeyPackage>) {
        let client = self.running.client(CEO).await;
        let made = tokio::spawn(async move { new_key(&client, Scheme::EcdsaSecp256k1, "k").await });
        let (opening, participants, key) = loop {
            let frame = self.ceo.receive_any().await;
            if let Some(Body::Open(open)) = &frame.body
                && let Some(Task::GenerateKey(task)) = &open.task
            {
                let (participants, key) = (open.participants.clone(), task.key.clone().unwrap());
                break (frame, participants, key);
            }
        };
        let params = DkgParams {
            curve: CurveId::Secp256k1,
            session: SessionId::new(opening.session.clone().try_into().unwrap()),
            context: key_context(&key),
            me: index(&participants, ME),
            participants: participants
                .iter()
                .map(|name| index(&participants, name))
                .collect(),
            threshold: 2,
        };
        let start = dkg(params, &mut OsRng).unwrap();
        let package = self.run(&opening, &participants, start).await.unwrap();
        self.confirm_stored(&opening, package.public_key_package_digest())
            .await;
        (made.await.unwrap(), Arc::new(package))
    }

    /// The next session that `ceo` opens about this.
    async fn opened(&mut self, wanted: impl Fn(&Task) -> bool) -> Frame {
        loop {
            let frame = self.ceo.receive_any().await;
            if task(&frame).is_some_and(&wanted) {
                return frame;
            }
        }
    }

    /// Answers the next pairwise setup that `ceo` begins.
    async fn pair_up(&mut self) -> PairSetup {
        let opening = self
            .opened(|task| matches!(task, Task::MakePairSetup(_)))
            .await;
        let participants = [CEO.to_owned(), ME.to_owned()];
        let params = PairSetupParams {
            session: SessionId::new(opening.session.clone().try_into().unwrap()),
            context: tagged(&[
                b"arca/v1/pair-setup",
                self.running.cluster.id().as_bytes(),
                CEO.as_bytes(),
                &self.ceo.boot_id,
                ME.as_bytes(),
                &BOOT_ID,
            ]),
            me: Participant::new(2).unwrap(),
            peer: Participant::new(1).unwrap(),
        };
        let start = pair_setup(params, &mut OsRng).unwrap();
        self.run(&opening, &participants, start).await.unwrap()
    }

    fn binding(&self, key: &Key) -> [u8; 32] {
        tagged(&[
            b"arca/v1/presignature-binding",
            self.running.cluster.id().as_bytes(),
            key.name.as_bytes(),
            &key.epoch.to_be_bytes(),
            CEO.as_bytes(),
            &self.ceo.boot_id,
            ME.as_bytes(),
            &BOOT_ID,
        ])
    }

    /// Takes part in a presigning session with `ceo`, of whoever opened it.
    async fn presign(
        &mut self,
        opening: &Frame,
        key: &Key,
        package: &Arc<KeyPackage>,
        setup: &Arc<PairSetup>,
        count: usize,
        alter: impl FnMut(u32, &mut Vec<u8>),
    ) -> Result<Vec<Presignature>, Stopped> {
        let ceo = index(&key.parties, CEO);
        let params = PresigningParams {
            session: SessionId::new(opening.session.clone().try_into().unwrap()),
            binding: self.binding(key),
            signers: [ceo, package.me()].into(),
            count,
        };
        let setups = PairSetups::from([(ceo, Arc::clone(setup))]);
        let start = presign(Arc::clone(package), &setups, params, &mut OsRng).unwrap();
        self.run_altered(opening, &key.parties, start, alter).await
    }

    /// Makes presignatures that the traitor may coordinate with.
    async fn presign_as_owner(
        &mut self,
        key: &Key,
        package: &Arc<KeyPackage>,
        setup: &Arc<PairSetup>,
        count: usize,
    ) -> Vec<Presignature> {
        let open = OpenSession {
            version: 1,
            participants: vec![CEO.into(), ME.into()],
            timeout_ms: 30_000,
            task: Some(Task::Presign(Presign {
                key: key.name.clone(),
                public_key_package_digest: package.public_key_package_digest().to_vec(),
                count: u32::try_from(count).unwrap(),
            })),
        };
        let opening = frame(&random(), key.epoch, CEO, 1, Body::Open(open));
        self.ceo.send(opening.clone()).await;
        let made = self
            .presign(&opening, key, package, setup, count, |_, _| ())
            .await
            .unwrap();
        self.confirm_held(&opening, &made).await;
        made
    }

    /// Says that a batch is held, and hears the same from `ceo`.
    async fn confirm_held(&mut self, opening: &Frame, made: &[Presignature]) {
        let names: Vec<[u8; 32]> = made.iter().map(|made| *made.id().as_bytes()).collect();
        let names = tagged(&[b"arca/v1/presignature-names", names.as_flattened()]);
        let held = Body::Stored(names.to_vec());
        self.ceo
            .send(frame(
                &opening.session,
                opening.key_epoch,
                CEO,
                1000,
                held.clone(),
            ))
            .await;
        assert_eq!(self.receive_of(CEO, &opening.session).await, held);
    }

    /// Opens a signing session that names presignatures. Session id, and what comes back.
    async fn open_online(
        &mut self,
        key: &Key,
        package: &KeyPackage,
        request: &CreateSigningRequestRequest,
        ids: &[&[u8]],
    ) -> ([u8; 32], Body) {
        let session = random();
        let open = OpenSession {
            version: 1,
            participants: vec![CEO.into(), ME.into()],
            timeout_ms: 5_000,
            task: Some(Task::Sign(Sign {
                public_key_package_digest: package.public_key_package_digest().to_vec(),
                initiator: "treasury".into(),
                request: Some(request.clone()),
                presignatures: ids.iter().map(|id| id.to_vec()).collect(),
            })),
        };
        let opening = frame(&session, key.epoch, CEO, 1, Body::Open(open));
        self.ceo.send(opening).await;
        let answer = self.receive_of(CEO, &session).await;
        (session, answer)
    }

    /// What the traitor, as coordinator, says that is signed.
    fn params(
        &self,
        key: &Key,
        package: &KeyPackage,
        session: [u8; 32],
        request: &CreateSigningRequestRequest,
        digest: [u8; 32],
    ) -> SigningParams {
        let message = SigningAuthorization {
            cluster: self.running.cluster.id(),
            initiator: "treasury",
            request_id: &request.request_id,
            key: &key.name,
            payload_kind: "digest",
            payload: &digest,
            expire_ms: {
                let time = request.expire_time.unwrap();
                u64::try_from(time.seconds * 1000 + i64::from(time.nanos) / 1_000_000).unwrap()
            },
            derivation_path: &request.derivation_path,
        };
        let asked = message.digest();
        let path = Path::new(request.derivation_path.clone()).unwrap();
        SigningParams {
            session: SessionId::new(session),
            context: tagged(&[b"arca/v1/signing-context", &asked, &self.binding(key)]),
            signers: [index(&key.parties, CEO), package.me()].into(),
            coordinator: package.me(),
            entropy: tagged(&[b"arca/v1/signing-entropy", &asked, &request.authorization]),
            messages: vec![Signable {
                digest,
                key: package.derive(&path).unwrap(),
            }],
        }
    }

    fn request(
        &self,
        key: &Key,
        path: &[u32],
        id: &str,
        digest: [u8; 32],
    ) -> CreateSigningRequestRequest {
        authorize_at(
            &self.running.treasury(),
            self.running.cluster.id(),
            "treasury",
            &key.name,
            path,
            id,
            &Payload::Digest(digest),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_check_spoils_the_setup_and_three_quarantine_the_culprit() {
    let mut betrayed = betrayed().await;
    let mut setup = Arc::new(betrayed.pair_up().await);
    let (key, package) = betrayed.make_ecdsa_key().await;
    for attempt in 0..3 {
        if attempt > 0 {
            // The one before is gone, so `ceo` begins another before anything else.
            let next = Arc::new(betrayed.pair_up().await);
            assert_ne!(next.id(), setup.id());
            setup = next;
        }
        let opening = betrayed
            .opened(|task| matches!(task, Task::Presign(_)))
            .await;
        // In the answer as Alice, where the vector OLE's check has to see it.
        let spoil = |round, message: &mut Vec<u8>| {
            if round == 2 {
                let middle = message.len() / 2;
                message[middle] ^= 1;
            }
        };
        let ended = betrayed
            .presign(&opening, &key, &package, &setup, 16, spoil)
            .await;
        assert!(
            matches!(&ended, Err(Stopped::ByPeer(reason)) if reason == "CONSISTENCY_CHECK"),
            "attempt {attempt}: {ended:?}"
        );
    }
    // Left alone from now on: it may not even begin anew.
    let setup = OpenSession {
        version: 1,
        participants: vec![CEO.into(), ME.into()],
        timeout_ms: 5_000,
        task: Some(Task::MakePairSetup(MakePairSetup {})),
    };
    let session = random();
    betrayed
        .ceo
        .send(frame(&session, 0, CEO, 1, Body::Open(setup)))
        .await;
    let answer = betrayed.receive_of(CEO, &session).await;
    assert_eq!(aborted(Some(answer)), "PEER_QUARANTINED");

    // The others sign without it, every time.
    let client = betrayed.running.client(CEO).await;
    for index in 0..6_u8 {
        let payload = Payload::Digest([index + 1; 32]);
        let signed = client
            .sign(&key.name, &format!("r{index}"), &payload, PATIENCE)
            .await
            .unwrap();
        assert_eq!(signed.signers, ["ceo", "cloud"]);
    }
    // When nobody else comes in time, a request says why it was not signed.
    betrayed
        .running
        .cluster
        .party_mut("cloud")
        .unwrap()
        .kill()
        .await;
    let payload = Payload::Digest([99; 32]);
    let failed = client
        .sign(&key.name, "alone", &payload, Duration::from_secs(3))
        .await;
    let failed = failed.unwrap_err().to_string();
    assert!(
        failed.contains("cto") && failed.contains("consistency"),
        "{failed}"
    );

    let log = std::fs::read_to_string(&betrayed.running.cluster.party(CEO).unwrap().logs()[1].1);
    let log = log.unwrap();
    assert!(log.contains("quarantined") && log.contains("cto"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presignature_is_spent_by_being_named_whatever_comes_of_it() {
    let mut betrayed = betrayed().await;
    let setup = Arc::new(betrayed.pair_up().await);
    let (key, package) = betrayed.make_ecdsa_key().await;
    let mut made = betrayed
        .presign_as_owner(&key, &package, &setup, 4)
        .await
        .into_iter();
    let mut next = || {
        let presignature = made.next().unwrap();
        (*presignature.id().as_bytes(), presignature)
    };

    // What the treasury asked for is signed with the first, by the traitor as coordinator.
    let path = [44, 60, 0, 0, 7];
    let request = betrayed.request(&key, &path, "r", [7; 32]);
    let (id, presignature) = next();
    let (session, answer) = betrayed.open_online(&key, &package, &request, &[&id]).await;
    let Body::Round(share) = answer else {
        panic!("no share: {answer:?}")
    };
    let params = betrayed.params(&key, &package, session, &request, [7; 32]);
    let start = sign_online(
        Arc::clone(&package),
        &betrayed.binding(&key),
        vec![presignature],
        params,
    );
    let Transition::Continue(run, _) = start.unwrap() else {
        panic!("the coordinator awaits a share")
    };
    let mut inbox: Inbox = run.inbox();
    inbox.insert(index(&key.parties, CEO), share.body).unwrap();
    let Transition::Done(Signed::Signatures(signatures), _) =
        run.advance(inbox, &mut OsRng).unwrap()
    else {
        panic!("no signature")
    };
    let derived = package.derive(&Path::new(path.to_vec()).unwrap()).unwrap();
    let secp = bitcoin::secp256k1::Secp256k1::verification_only();
    let compact = [signatures[0].r, signatures[0].s].concat();
    secp.verify_ecdsa(
        &bitcoin::secp256k1::Message::from_digest([7; 32]),
        &bitcoin::secp256k1::ecdsa::Signature::from_compact(&compact).unwrap(),
        &bitcoin::secp256k1::PublicKey::from_slice(&derived.public_key()).unwrap(),
    )
    .unwrap();

    // Once more, for the same and for another request: there is no second share.
    let other = betrayed.request(&key, &path, "other", [8; 32]);
    for request in [&request, &other] {
        let (_, answer) = betrayed.open_online(&key, &package, request, &[&id]).await;
        assert_eq!(aborted(Some(answer)), "PRESIGNATURE_UNKNOWN");
    }

    // Named in a request that is refused: spent all the same. Nobody asked for that path, nor for that digest.
    let mut elsewhere = request.clone();
    elsewhere.derivation_path = vec![44, 60, 0, 0, 8];
    let mut swapped = request.clone();
    swapped.payload.clone_from(&other.payload);
    for refused in [elsewhere, swapped] {
        let (id, _) = next();
        let (_, answer) = betrayed.open_online(&key, &package, &refused, &[&id]).await;
        assert_eq!(aborted(Some(answer)), "NOT_AUTHORIZED_BY_INITIATOR");
        let (_, answer) = betrayed.open_online(&key, &package, &request, &[&id]).await;
        assert_eq!(aborted(Some(answer)), "PRESIGNATURE_UNKNOWN");
    }

    // Twice in one request, or more than there is to sign: refused, not signed in part.
    let (id, _) = next();
    let (_, answer) = betrayed
        .open_online(&key, &package, &request, &[&id, &id])
        .await;
    assert_eq!(aborted(Some(answer)), "PRESIGNATURE_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_of_a_presignature_may_name_it() {
    let mut betrayed = betrayed().await;
    let setup = Arc::new(betrayed.pair_up().await);
    let (key, package) = betrayed.make_ecdsa_key().await;
    // `ceo` makes these to coordinate with them itself.
    let opening = betrayed
        .opened(|task| matches!(task, Task::Presign(_)))
        .await;
    let ceos = betrayed
        .presign(&opening, &key, &package, &setup, 16, |_, _| ())
        .await
        .unwrap();
    betrayed.confirm_held(&opening, &ceos).await;
    // Another batch, so that those of the first are in `ceo`'s pool for certain.
    betrayed
        .opened(|task| matches!(task, Task::Presign(_)))
        .await;
    let request = betrayed.request(&key, &[], "r", [7; 32]);
    let id = *ceos[0].id().as_bytes();
    let (_, answer) = betrayed.open_online(&key, &package, &request, &[&id]).await;
    assert_eq!(aborted(Some(answer)), "PRESIGNATURE_UNKNOWN");
    let (_, answer) = betrayed
        .open_online(&key, &package, &request, &[b"short"])
        .await;
    assert_eq!(aborted(Some(answer)), "PRESIGNATURE_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_for_different_views_of_one_presignature_make_no_signature() {
    let mut betrayed = betrayed().await;
    let setup = Arc::new(betrayed.pair_up().await);
    let (key, package) = betrayed.make_ecdsa_key().await;
    let made = betrayed.presign_as_owner(&key, &package, &setup, 2).await;
    // `ceo` is shown one request, and the traitor computes with another: digest or path. Both were asked for.
    for (presignature, (path, digest)) in made
        .into_iter()
        .zip([([44_u32, 60].as_slice(), [8; 32]), (&[44, 61], [7; 32])])
    {
        let shown = betrayed.request(&key, &[44, 60], "shown", [7; 32]);
        let other = betrayed.request(&key, path, "other", digest);
        let id = *presignature.id().as_bytes();
        let (session, answer) = betrayed.open_online(&key, &package, &shown, &[&id]).await;
        let Body::Round(share) = answer else {
            panic!("no share: {answer:?}")
        };
        let params = betrayed.params(&key, &package, session, &other, digest);
        let binding = betrayed.binding(&key);
        let start = sign_online(Arc::clone(&package), &binding, vec![presignature], params);
        let Transition::Continue(run, outbox) = start.unwrap() else {
            panic!("the coordinator awaits a share")
        };
        drop(outbox);
        let mut inbox = run.inbox();
        let outcome = inbox
            .insert(index(&key.parties, CEO), share.body)
            .and_then(|()| run.advance(inbox, &mut OsRng).map(|_| ()));
        assert!(outcome.is_err(), "two views made one signature");
    }
}
