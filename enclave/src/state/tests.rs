use arca_audit::entry::{self, Entry, Hex};

use super::*;
use crate::log;
use crate::test_platform::TestPlatform;

struct Fixture {
    platform: Arc<TestPlatform>,
    state: SealedState,
    lease: Arc<Lease>,
    log: Arc<Log>,
    owner: Owner,
}

/// An instance alone in its cluster, which holds its lease at once.
async fn start(platform: Arc<TestPlatform>) -> Result<Fixture, Error> {
    let randomness = Arc::new(Randomness::new(&*platform).unwrap());
    let lease = Arc::new(Lease::default());
    let log = Arc::new(Log::default());
    log.begin(log::LogKeys::derive(&[5; 32]).unwrap(), [1; 16], false);
    let state = SealedState::new(
        platform.clone(),
        randomness,
        Arc::clone(&lease),
        Arc::clone(&log),
    );
    let owner = Owner {
        cluster: "sim-test".into(),
        party: "ceo".into(),
        manifest_digest: None,
        evidence: [0; 32],
    };
    state.open(&owner).await?;
    lease.set_peers("ceo", vec![]);
    let held = Event::LeaseHeld { boot: Hex([1; 16]) };
    state.record_first(&owner, held).await?;
    lease.hold();
    Ok(Fixture {
        platform,
        state,
        lease,
        log,
        owner,
    })
}

/// What a session records before a share of it leaves.
fn intent() -> Event {
    Event::SigningIntent(entry::SigningIntent {
        session: Hex([1; 32]),
        request: Hex([2; 32]),
        key: "keys/00".into(),
        epoch: 1,
        key_record: Hex([3; 32]),
        coordinator: "ceo".into(),
        signers: vec!["ceo".into()],
        seen: vec![],
    })
}

fn refusal(number: u64) -> Event {
    Event::Refused {
        from: "cto".into(),
        reason: format!("REASON_{number}"),
        request: None,
    }
}

async fn fixture() -> Fixture {
    start(Arc::new(TestPlatform::new())).await.unwrap()
}

impl Fixture {
    /// What the host has of a log, checked against the tree that the enclave keeps.
    fn entries(&self, number: u64) -> Vec<Event> {
        let prefix = format!("log/{number}/entries/");
        let disk = self.platform.disk();
        let bundles = disk.iter().filter(|(name, _)| name.starts_with(&prefix));
        let mut tree = Tree::new();
        let mut events = Vec::new();
        for (name, bundle) in bundles {
            let first = format!("{prefix}{:020}", tree.size());
            assert_eq!(*name, first);
            for bytes in arca_audit::tile::decode_entries(bundle).unwrap() {
                tree.append(arca_audit::leaf_hash(bytes));
                events.push(Entry::decode(bytes).unwrap().event);
            }
        }
        if self.log.point().log == number {
            assert_eq!(log::point(number, &tree), self.log.point());
        }
        events
    }

    /// The same disk and hardware after a restart.
    async fn restarted(&self) -> Fixture {
        start(self.platform.clone()).await.unwrap()
    }

    async fn write(&self, content: &[u8]) -> Result<(), Error> {
        let written = self.state.write(&self.owner, "signing/1", 0, content).await;
        written.map(|_| ())
    }

    async fn read(&self, object: &str) -> Result<Option<Vec<u8>>, Error> {
        let content = self.state.read(&self.owner, object).await?;
        Ok(content.map(|content| content.to_vec()))
    }

    fn anchor(&self) -> Anchor {
        *self.state.anchor().borrow()
    }

    fn set_blob(&self, object: &str, blob: Option<Vec<u8>>) {
        match blob {
            Some(blob) => self.platform.disk().insert(object.into(), blob),
            None => self.platform.disk().remove(object),
        };
    }

    fn blob(&self, object: &str) -> Option<Vec<u8>> {
        self.platform.disk().get(object).cloned()
    }
}

#[tokio::test]
async fn what_was_written_is_read_also_after_a_restart() {
    let f = fixture().await;
    assert_eq!(f.read("signing/1").await.unwrap(), None);
    f.write(b"one").await.unwrap();
    f.write(b"two").await.unwrap();
    assert_eq!(f.read("signing/1").await.unwrap().unwrap(), b"two");
    let before = f.anchor();
    let f = f.restarted().await;
    assert_eq!(f.lease.start(), before);
    assert_eq!(f.read("signing/1").await.unwrap().unwrap(), b"two");
}

#[tokio::test]
async fn a_blob_that_is_older_missing_cut_or_anothers_is_refused_also_after_a_restart() {
    let f = fixture().await;
    f.write(b"one").await.unwrap();
    let old = f.blob("signing/1").unwrap();
    f.write(b"two").await.unwrap();
    let written = f.state.write(&f.owner, "signing/2", 0, b"other").await;
    written.unwrap();
    let new = f.blob("signing/1").unwrap();
    let other = f.blob("signing/2").unwrap();
    for f in [f.restarted().await, f] {
        let cut = new[..new.len() - 1].to_vec();
        for (blob, reason, says) in [
            (Some(old.clone()), "SEALED_STATE_ROLLED_BACK", "sequence 1"),
            (None, "SEALED_STATE_ROLLED_BACK", "no such blob"),
            (Some(cut), "SEALED_BLOB_NOT_AUTHENTIC", "signing/1"),
            (Some(other.clone()), "SEALED_BLOB_MISPLACED", "signing/2"),
        ] {
            f.set_blob("signing/1", blob);
            let error = f.read("signing/1").await.unwrap_err();
            assert_eq!(error.reason(), reason, "{error}");
            assert!(error.to_string().contains(says), "{error}");
            assert!(error.to_string().contains("signing/1"), "{error}");
        }
        f.set_blob("signing/1", Some(new.clone()));
        assert_eq!(f.read("signing/1").await.unwrap().unwrap(), b"two");
    }
}

#[tokio::test]
async fn a_blob_that_the_state_does_not_know_is_not_there() {
    let f = fixture().await;
    f.write(b"one").await.unwrap();
    let planted = f.blob("signing/1");
    f.set_blob("signing/9", planted);
    assert_eq!(f.read("signing/9").await.unwrap(), None);
}

#[tokio::test]
async fn an_index_that_does_not_fit_the_anchor_is_refused() {
    let f = fixture().await;
    f.write(b"one").await.unwrap();
    let old = f.blob("index/root");
    f.write(b"two").await.unwrap();
    let f = f.restarted().await;
    for blob in [old, None] {
        f.set_blob("index/root", blob);
        let error = f.read("signing/1").await.unwrap_err();
        assert_eq!(error.reason(), "SEALED_STATE_ROLLED_BACK");
        assert!(error.to_string().contains("index/root"), "{error}");
        assert!(f.write(b"three").await.is_err());
    }
}

#[tokio::test]
async fn a_whole_older_disk_shows_in_what_the_peers_are_told() {
    let f = fixture().await;
    f.write(b"one").await.unwrap();
    let yesterday = f.platform.disk().clone();
    f.write(b"two").await.unwrap();
    let seen = f.anchor();
    *f.platform.disk() = yesterday;
    // Alone it cannot tell; a peer that saw more can.
    let f = f.restarted().await;
    let peer = Lease::default();
    peer.judge("ceo", &[1; 16], seen, seen).unwrap();
    let denial = peer.judge("ceo", &[2; 16], f.lease.start(), f.anchor());
    assert_eq!(
        denial.unwrap_err().objection,
        crate::lease::Objection::RolledBack
    );
}

#[tokio::test]
async fn every_change_makes_another_head() {
    let f = fixture().await;
    let mut heads = vec![f.anchor().head];
    f.write(b"one").await.unwrap();
    heads.push(f.anchor().head);
    f.state.record(&f.owner, intent()).await.unwrap();
    heads.push(f.anchor().head);
    let sequence = f.anchor().sequence;
    f.write(b"two").await.unwrap();
    assert_eq!(f.anchor().sequence, sequence + 1);
    heads.push(f.anchor().head);
    heads.sort_unstable();
    heads.dedup();
    assert_eq!(heads.len(), 4);
}

#[tokio::test]
async fn without_the_lease_nothing_is_read_written_recorded_or_stood_on() {
    let f = fixture().await;
    f.write(b"one").await.unwrap();
    let before = f.platform.disk().clone();
    f.lease.set_peers("ceo", vec!["cto".into(), "cloud".into()]);
    for peer in ["cto", "cloud"] {
        let known = Anchor {
            sequence: 99,
            head: [9; 32],
        };
        f.lease.hear(
            peer,
            crate::lease::Word::Denied(crate::lease::Denial {
                objection: crate::lease::Objection::Fenced,
                known,
            }),
        );
    }
    for refused in [
        f.read("signing/1").await.map(|_| ()),
        f.write(b"two").await,
        f.state.record(&f.owner, intent()).await.map(|_| ()),
        f.state.footing().map(|_| ()),
        f.state.list("signing/", "", 10).await.map(|_| ()),
    ] {
        assert_eq!(refused.unwrap_err().reason(), "FENCED");
    }
    assert_eq!(*f.platform.disk(), before);
}

#[tokio::test]
async fn changes_at_the_same_time_are_all_kept_and_share_transactions() {
    let f = Arc::new(fixture().await);
    let start = f.anchor().sequence;
    let writes = (0..200).map(|number: usize| {
        let f = Arc::clone(&f);
        tokio::spawn(async move {
            let object = format!("signing/{}", number % 150);
            let content = number.to_be_bytes();
            let written = f.state.write(&f.owner, &object, 0, &content).await;
            written.unwrap();
        })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    let taken = f.anchor().sequence - start;
    assert!((1..200).contains(&taken), "{taken} transactions");
    let f = f.restarted().await;
    for number in 0..150 {
        let content = f.read(&format!("signing/{number}")).await.unwrap();
        assert!(content.is_some(), "signing/{number}");
    }
}

#[tokio::test]
async fn a_write_that_was_given_up_and_comes_through_late_is_found() {
    let f = fixture().await;
    f.write(b"one").await.unwrap();
    f.platform.lose_next_answer();
    let error = f.write(b"two").await.unwrap_err();
    assert_eq!(error.reason(), "STORAGE_UNAVAILABLE");
    // It is on the disk, and the next change follows it.
    f.state.record(&f.owner, intent()).await.unwrap();
    assert_eq!(f.read("signing/1").await.unwrap().unwrap(), b"two");
    f.write(b"three").await.unwrap();
    let f = f.restarted().await;
    assert_eq!(f.read("signing/1").await.unwrap().unwrap(), b"three");
}

#[tokio::test]
async fn two_instances_on_one_disk_do_not_write_over_each_other() {
    let f = fixture().await;
    f.write(b"one").await.unwrap();
    let other = f.restarted().await;
    other.write(b"theirs").await.unwrap();
    assert_eq!(
        f.write(b"ours").await.unwrap_err().reason(),
        "STORAGE_CONFLICT"
    );
    assert_eq!(other.read("signing/1").await.unwrap().unwrap(), b"theirs");
}

#[tokio::test]
async fn a_jump_goes_on_from_there_with_all_objects() {
    let f = fixture().await;
    f.write(b"one").await.unwrap();
    let to = Anchor {
        sequence: 1000,
        head: [7; 32],
    };
    // Not from a state that it is not in any more.
    let earlier = f.lease.start();
    let refused = f.state.jump(&f.owner, (earlier, to), vec![]).await;
    assert_eq!(refused.unwrap_err().reason(), "LOSS_ACCEPTANCE_REFUSED");
    let present = f.anchor();
    f.state
        .jump(&f.owner, (present, to), vec![refusal(7)])
        .await
        .unwrap();
    assert_eq!(f.anchor(), to);
    // Another log begins there, numbered so that no peer has seen one of that number.
    assert_eq!(f.log.point().log, 1000);
    assert_eq!(f.entries(1000), [refusal(7)]);
    let f = f.restarted().await;
    assert_eq!(f.lease.start(), to);
    assert_eq!(f.log.point().log, 1000);
    assert_eq!(f.log.point().size, 2);
    assert_eq!(f.read("signing/1").await.unwrap().unwrap(), b"one");
}

#[tokio::test]
async fn a_blob_that_does_not_open_is_never_written_over() {
    let f = fixture().await;
    f.state
        .write_outside(&f.owner, "party", b"one")
        .await
        .unwrap();
    let f = f.restarted().await;
    f.set_blob("party", Some(b"garbage".to_vec()));
    let written = f.state.write_outside(&f.owner, "party", b"two").await;
    assert!(written.is_err());
    assert_eq!(f.blob("party").as_deref(), Some(&b"garbage"[..]));
}

#[tokio::test]
async fn outside_the_anchor_one_boot_cannot_be_taken_back() {
    let f = fixture().await;
    f.state
        .write_outside(&f.owner, "party", b"one")
        .await
        .unwrap();
    let old = f.blob("party");
    f.state
        .write_outside(&f.owner, "party", b"two")
        .await
        .unwrap();
    for gone_back in [old, None] {
        f.set_blob("party", gone_back);
        let read = f.state.read_outside(&f.owner, "party").await;
        assert_eq!(read.unwrap_err().reason(), "SEALED_STATE_ROLLED_BACK");
    }
}

#[tokio::test]
async fn each_blob_names_the_one_before_it() {
    let f = fixture().await;
    f.write(b"one").await.unwrap();
    let first = f.blob("signing/1").unwrap();
    // A restart in between does not break the chain.
    let f = f.restarted().await;
    f.write(b"two").await.unwrap();
    let blob = f.blob("signing/1").unwrap();
    let opened = sealing::unseal(&*f.platform, "sim-test", "ceo", "signing/1", &blob).await;
    let (header, _) = opened.unwrap();
    assert_eq!(header.sequence, 2);
    assert_eq!(header.predecessor, sealing::digest(&first));
}

#[tokio::test]
async fn what_is_recorded_stands_in_the_log_in_its_place_before_anybody_goes_on() {
    let f = fixture().await;
    let held = Event::LeaseHeld { boot: Hex([1; 16]) };
    assert_eq!(f.entries(1), vec![held.clone()]);
    let footing = f.state.record(&f.owner, intent()).await.unwrap();
    assert_eq!(footing.place(), Some(LogPlace { log: 1, index: 1 }));
    assert_eq!(f.entries(1), [held.clone(), intent()]);
    let written = f.state.write_with(
        &f.owner,
        "signing/1",
        0,
        b"one",
        vec![refusal(1), refusal(2)],
    );
    assert_eq!(written.await.unwrap().place().unwrap().index, 2);
    let footing = f.state.write(&f.owner, "signing/1", 0, b"two").await;
    assert_eq!(footing.unwrap().place(), None);
    let f = f.restarted().await;
    let expected = [held.clone(), intent(), refusal(1), refusal(2), held];
    assert_eq!(f.entries(1), expected);
}

#[tokio::test]
async fn what_is_noted_goes_with_the_next_transaction_or_soon_with_its_own() {
    let f = fixture().await;
    f.state.note(&f.owner, refusal(1));
    f.state.keep_file(&[7; 32], b"evidence".to_vec());
    f.write(b"one").await.unwrap();
    assert_eq!(f.entries(1)[1..], [refusal(1)]);
    let file = format!("log/files/{}", "07".repeat(32));
    assert_eq!(f.platform.disk().get(&file).unwrap(), b"evidence");
    f.state.note(&f.owner, refusal(2));
    let mut anchor = f.state.anchor();
    anchor.mark_unchanged();
    anchor.changed().await.unwrap();
    assert_eq!(f.entries(1)[1..], [refusal(1), refusal(2)]);
}

#[tokio::test]
async fn what_was_noted_stands_in_the_log_once_whatever_became_of_its_transaction() {
    let f = fixture().await;
    f.state.note(&f.owner, refusal(1));
    f.platform.lose_next_answer();
    f.write(b"one").await.unwrap_err();
    f.state.note(&f.owner, refusal(2));
    f.state.record(&f.owner, refusal(3)).await.unwrap();
    let all = [refusal(1), refusal(2), refusal(3)];
    assert_eq!(f.entries(1)[1..], all);
}

#[tokio::test]
async fn a_peers_checkpoint_is_cosigned_once_an_anchor_holds_it_and_never_an_older_one_after_it() {
    let f = fixture().await;
    let other = log::LogKeys::derive(&[6; 32]).unwrap();
    let claim = arca_proto::v1::Claim {
        log: 1,
        log_key: other.log_key().to_vec(),
        witness_key: other.witness_key().to_vec(),
        ..Default::default()
    };
    f.log.meet("cto", &claim).unwrap();
    let start = Anchor::default();
    f.lease.judge("cto", &[2; 16], start, start).unwrap();
    let seen = |size| log::SeenLog {
        point: entry::LogPoint {
            log: 1,
            size,
            root: Hex([9; 32]),
        },
        note: b"a checkpoint".to_vec(),
    };
    let now = || f.platform.now();
    assert!(f.lease.saw_log("cto", &[2; 16], None, seen(9)));
    // What stands beside the anchor can be taken back by the host.
    f.state.store_remembered(&f.owner).await.unwrap();
    assert!(f.log.has_unanchored(&f.lease.remembered()));
    assert_eq!(f.log.cosignature("cto", now()), None);
    let before = f.lease.remembered();
    f.state.anchor_remembered(&f.owner).await.unwrap();
    assert!(!f.log.has_unanchored(&f.lease.remembered()));
    assert_eq!(f.log.cosignature("cto", now()).unwrap().size, 9);
    assert_eq!(f.log.cosignature("cto", now()), None);
    assert!(f.lease.saw_log("cto", &[2; 16], Some(&seen(9)), seen(12)));
    f.state.record(&f.owner, intent()).await.unwrap();
    assert_eq!(f.log.cosignature("cto", now()).unwrap().size, 12);
    f.log.anchored(&before);
    assert_eq!(f.log.cosignature("cto", now()), None);
}

#[tokio::test]
async fn an_intent_says_what_is_sealed_of_the_peers_logs() {
    let f = fixture().await;
    let start = Anchor::default();
    f.lease.judge("cto", &[2; 16], start, start).unwrap();
    let point = entry::LogPoint {
        log: 1,
        size: 9,
        root: Hex([9; 32]),
    };
    let note = b"a checkpoint".to_vec();
    let seen = log::SeenLog { point, note };
    assert!(f.lease.saw_log("cto", &[2; 16], None, seen));
    f.state.record(&f.owner, intent()).await.unwrap();
    let Some(Event::SigningIntent(logged)) = f.entries(1).pop() else {
        panic!("no intent");
    };
    assert_eq!(logged.seen[0].party, "cto");
    assert_eq!(logged.seen[0].size, 9);
    let f = f.restarted().await;
    assert_eq!(f.lease.seen_log("cto").unwrap().point, point);
}
