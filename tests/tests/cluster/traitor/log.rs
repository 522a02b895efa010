//! A traitor that shows its peers a log which contradicts itself.

use arca_audit::{
    Hash, Tree,
    checkpoint::Checkpoint,
    consistency_proof,
    entry::{Entry, Event, origin},
    leaf_hash,
    note::VerifierKey,
};
use arca_proto::v1::{LogCheckpoint, LogCosignature};

use super::*;

/// A checkpoint of the traitor's log over these leaves, with the proof that it continues the first `older`.
fn checkpoint(cluster: &str, leaves: &[Hash], older: u64) -> LogCheckpoint {
    let tree: Tree = leaves.iter().copied().collect();
    let checkpoint = Checkpoint {
        origin: origin("simulated", cluster, ME, 1).parse().unwrap(),
        size: tree.size(),
        root: tree.root(),
    };
    let proof = consistency_proof(leaves, older).unwrap();
    LogCheckpoint {
        log: 1,
        note: checkpoint.sign(&log_key()).to_bytes(),
        consistency: proof.iter().map(|hash| hash.to_vec()).collect(),
    }
}

impl Link {
    async fn show(&self, checkpoint: LogCheckpoint) {
        let shown = Frame {
            from: ME.into(),
            to: self.peer.clone(),
            checkpoint: Some(checkpoint),
            ..Frame::default()
        };
        self.send(shown).await;
    }

    /// The next frame that brings a cosignature; `None` when the link ends.
    async fn cosignature(&mut self) -> Option<LogCosignature> {
        let waiting = async {
            while let Ok(Some(frame)) = self.incoming.message().await {
                if frame.cosignature.is_some() {
                    return frame.cosignature;
                }
            }
            None
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap()
    }
}

fn leaves(of: &[&str]) -> Vec<Hash> {
    of.iter().map(|entry| leaf_hash(entry.as_bytes())).collect()
}

/// The conflicts that a party's log holds.
async fn conflicts(running: &Running, party: &str) -> Vec<(String, String)> {
    let client = running.client(party).await;
    let mut next_look = tokio::time::interval(Duration::from_millis(100));
    let looking = async {
        loop {
            next_look.tick().await;
            let entries = client.log_entries(1, 0, 1000).await.unwrap().entries;
            let found: Vec<_> = entries
                .iter()
                .filter_map(|entry| match Entry::decode(entry).unwrap().event {
                    Event::LogConflict {
                        peer,
                        cosigned,
                        shown,
                        ..
                    } => {
                        assert_eq!(peer, ME);
                        Some((cosigned, shown))
                    }
                    _ => None,
                })
                .collect();
            if !found.is_empty() {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_is_cosigned_and_one_that_forks_is_refused_with_proof() {
    let mut betrayed = betrayed().await;
    let cluster = betrayed.running.cluster.id().to_owned();
    let honest = leaves(&["a", "b", "c"]);
    let log_key: VerifierKey = VerifierKey::of_signing_key(
        origin("simulated", &cluster, ME, 1).parse().unwrap(),
        arca_audit::note::KeyKind::Ed25519,
        &log_key(),
    );
    // It grows, with proofs: each peer cosigns what it was shown.
    for size in [1, 3] {
        let older = if size == 1 { 0 } else { 1 };
        let shown = checkpoint(&cluster, &honest[..size], older);
        for link in [&mut betrayed.ceo, &mut betrayed.cloud] {
            link.show(shown.clone()).await;
            let cosignature = link.cosignature().await.expect("the link is up");
            assert_eq!((cosignature.log, cosignature.size), (1, size as u64));
            let mut note = arca_audit::note::SignedNote::parse(&shown.note).unwrap();
            note.add(cosignature.line.parse().unwrap()).unwrap();
            Checkpoint::verify_note(&note, &log_key).unwrap();
        }
    }

    // Another log of four entries: the proof is a good one, of that other log.
    let forked = checkpoint(&cluster, &leaves(&["a", "b", "C", "d"]), 3);
    betrayed.ceo.show(forked.clone()).await;
    assert!(betrayed.ceo.cosignature().await.is_none(), "the link ended");
    // A shorter one, to the other peer.
    let shrunk = checkpoint(&cluster, &honest[..2], 2);
    betrayed.cloud.show(shrunk.clone()).await;
    assert!(betrayed.cloud.cosignature().await.is_none());

    let cosigned = checkpoint(&cluster, &honest, 1).note;
    let text = |note: &[u8]| String::from_utf8(note.to_vec()).unwrap();
    for (party, shown) in [("ceo", forked), ("cloud", shrunk)] {
        let found = conflicts(&betrayed.running, party).await;
        assert_eq!(found, [(text(&cosigned), text(&shown.note))]);
        // Both are signed by the same key, for anybody to see.
        for note in [&cosigned, &shown.note] {
            Checkpoint::verify(note, &log_key).unwrap();
        }
        // And that instance is not dealt with any more.
        let client = betrayed.running.client(party).await;
        let mut next_look = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..5 {
            next_look.tick().await;
            let seen = client.parties().await.unwrap().parties;
            let traitor = seen.iter().find(|seen| seen.name == ME).unwrap();
            assert_eq!(traitor.connection, Connection::Down);
        }
    }
    // The two that are left sign.
    let ceo = betrayed.running.client("ceo").await;
    let seen = ceo.parties().await.unwrap();
    let up = seen.parties.iter();
    let up = up.filter(|party| party.connection == Connection::Up);
    assert_eq!(
        up.map(|party| party.name.as_str()).collect::<Vec<_>>(),
        ["cloud"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_its_log_did_not_sign_or_a_cosignature_that_is_none_ends_the_link() {
    let mut betrayed = betrayed().await;
    let cluster = betrayed.running.cluster.id().to_owned();
    let honest = leaves(&["a"]);
    let mut unsigned = checkpoint(&cluster, &honest, 0);
    let last = unsigned.note.len() - 10;
    unsigned.note[last] ^= 1;
    betrayed.ceo.show(unsigned).await;
    assert!(betrayed.ceo.cosignature().await.is_none());

    // What the peer told of its own log, cosigned by another key.
    let told = loop {
        let frame = betrayed.cloud.incoming.message().await.unwrap().unwrap();
        if let Some(told) = frame.checkpoint {
            break told;
        }
    };
    let text = String::from_utf8(told.note).unwrap();
    let (body, _) = text.split_once("\n\n").unwrap();
    let of_peer: Checkpoint = format!("{body}\n").parse().unwrap();
    let name = arca_audit::entry::witness_name("simulated", &cluster, ME);
    let line = arca_audit::cosignature::cosign(&of_peer, 7, &name.parse().unwrap(), &log_key());
    let forged = Frame {
        from: ME.into(),
        to: "cloud".into(),
        cosignature: Some(LogCosignature {
            log: told.log,
            size: of_peer.size,
            line: line.unwrap().to_string(),
        }),
        ..Frame::default()
    };
    betrayed.cloud.send(forged).await;
    assert!(betrayed.cloud.cosignature().await.is_none());
}
