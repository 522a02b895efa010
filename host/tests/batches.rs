//! Several blobs in one call: all or none, and only if the guard is met.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use arca_proto::v1::storage_service_client::StorageServiceClient;
use arca_proto::v1::{GetBlobRequest, ListBlobsRequest, PutBlobsRequest, put_blobs_request::Guard};
use common::{Running, soon, to_put};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

type Storage = StorageServiceClient<Channel>;

const MIB: usize = 1024 * 1024;

async fn put(storage: &mut Storage, request: PutBlobsRequest) -> Result<(), Status> {
    soon(storage.put_blobs(request)).await.map(|_| ())
}

/// Stores `blobs` if the blob `name` is `expected`.
fn guarded(blobs: &[(&str, &[u8])], name: &str, expected: Option<&[u8]>) -> PutBlobsRequest {
    PutBlobsRequest {
        guard: Some(Guard {
            name: name.into(),
            sha256: expected.map_or_else(Vec::new, |blob| Sha256::digest(blob).to_vec()),
        }),
        ..to_put(blobs)
    }
}

async fn get(storage: &mut Storage, name: &str) -> Option<Vec<u8>> {
    let request = GetBlobRequest { name: name.into() };
    match soon(storage.get_blob(request)).await {
        Ok(response) => Some(response.into_inner().blob),
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status}");
            None
        }
    }
}

async fn names(storage: &mut Storage) -> Vec<String> {
    let request = ListBlobsRequest::default();
    let response = soon(storage.list_blobs(request)).await.unwrap();
    response.into_inner().names
}

#[tokio::test]
async fn all_of_a_batch_is_there_after_one_commit() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    put(&mut storage, to_put(&[("b", b"old")])).await.unwrap();
    let batch = to_put(&[("c", b"3"), ("a", b"1"), ("b", b"2")]);
    put(&mut storage, batch).await.unwrap();
    for (name, blob) in [("a", b"1"), ("b", b"2"), ("c", b"3")] {
        assert_eq!(get(&mut storage, name).await.unwrap(), blob);
    }
    let commits = running.metric("arca_host_storage_commits_total", &[]).await;
    assert_eq!(commits, 2.0);
    assert_eq!(running.metric("arca_host_storage_bytes", &[]).await, 6.0);
}

#[tokio::test]
async fn what_exceeds_a_limit_is_refused_whole_and_says_which() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    let many: Vec<String> = (0..1025).map(|i| format!("many/{i:04}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    let large = vec![7; MIB];
    let larger = vec![7; MIB + 1];
    let eight: [(&str, &[u8]); 8] =
        ["0", "1", "2", "3", "4", "5", "6", "7"].map(|name| (name, &large[..]));
    let mut nine: Vec<(&str, &[u8])> = eight.to_vec();
    nine.push(("8", b"x"));
    let digest_of_31 = PutBlobsRequest {
        guard: Some(Guard {
            name: "good".into(),
            sha256: vec![0; 31],
        }),
        ..to_put(&[("good", b"x")])
    };
    for (request, says) in [
        (to_put(&[]), "blobs are 0"),
        (to_put(&many), "1025"),
        (
            to_put(&[("good", b"x"), ("bad", &larger)]),
            "blob is 1048577",
        ),
        (to_put(&nine), "8388609 bytes long together"),
        (to_put(&[("good", b"x"), ("", b"y")]), "name is empty"),
        (to_put(&[("good", b"x"), ("B", b"y")]), "0x42 at offset 0"),
        (
            to_put(&[("good", b"x"), ("twice", b"y"), ("twice", b"y")]),
            "blobs name twice twice",
        ),
        (guarded(&[("good", b"x")], "", None), "guard.name is empty"),
        (guarded(&[("good", b"x")], "B", None), "guard.name has"),
        (digest_of_31, "guard.sha256: 32 bytes"),
    ] {
        let refused = put(&mut storage, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(says), "{refused}");
        assert_eq!(names(&mut storage).await, [""; 0], "{says}");
    }
    put(&mut storage, to_put(&many[..1024])).await.unwrap();
    put(&mut storage, to_put(&eight)).await.unwrap();
    assert!(get(&mut storage, "7").await.unwrap() == large);
    let refused = [("operation", "put"), ("outcome", "refused")];
    let operations = "arca_host_storage_operations_total";
    assert_eq!(running.metric(operations, &refused).await, 10.0);
}

#[tokio::test]
async fn the_longest_names_and_the_largest_blobs_fit_into_one_message() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    let blob = vec![1; 8 * MIB / 1024];
    let names: Vec<String> = (0..1024).map(|i| format!("{i:0256}")).collect();
    let blobs: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), &blob[..]))
        .collect();
    put(&mut storage, to_put(&blobs)).await.unwrap();
    let bytes = running.metric("arca_host_storage_bytes", &[]).await;
    assert_eq!(bytes, (8 * MIB + 1024 * 256) as f64);
}

#[tokio::test]
async fn a_dozen_of_the_largest_batches_at_once_get_through() {
    let running = Running::start().await;
    let storage = running.storage().await;
    let mut puts = JoinSet::new();
    for batch in 0..12_u8 {
        let mut storage = storage.clone();
        puts.spawn(async move {
            let blob = vec![batch; MIB];
            let names: Vec<String> = (0..8).map(|i| format!("{batch}/{i}")).collect();
            let blobs: Vec<(&str, &[u8])> = names
                .iter()
                .map(|name| (name.as_str(), &blob[..]))
                .collect();
            put(&mut storage, to_put(&blobs)).await.unwrap();
        });
    }
    soon(puts.join_all()).await;
    assert_eq!(names(&mut storage.clone()).await.len(), 96);
}

#[tokio::test]
async fn a_batch_that_runs_into_the_quota_leaves_nothing_and_disturbs_nobody() {
    let running = Running::start_with(|config| config.storage.quota_bytes = 1000).await;
    let mut storage = running.storage().await;
    let start = to_put(&[("a", &[1; 399]), ("b", &[2; 399])]);
    put(&mut storage, start).await.unwrap();
    // The first two would fit, the third does not; the first alone would replace.
    let batch = to_put(&[("a", &[9; 399]), ("c", &[9; 99]), ("d", &[9; 200])]);
    let refused = put(&mut storage, batch).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused
            .message()
            .contains("800 of 1000 bytes stored, 301 more"),
        "{refused}"
    );
    assert_eq!(names(&mut storage).await, ["a", "b"]);
    assert_eq!(get(&mut storage, "a").await.unwrap(), [1; 399]);
    assert_eq!(running.metric("arca_host_storage_bytes", &[]).await, 800.0);

    // Together they grow by nothing, although for a moment, one by one, they would not fit.
    let swap = to_put(&[("a", &[3; 799]), ("b", &[])]);
    put(&mut storage, swap).await.unwrap();
    assert_eq!(running.metric("arca_host_storage_bytes", &[]).await, 801.0);

    // Refused ones and others share transactions.
    let mut puts = JoinSet::new();
    for i in 0..100_u8 {
        let mut storage = storage.clone();
        puts.spawn(async move {
            if i % 2 == 0 {
                let fits = to_put(&[("x", &[i; 9]), ("y", &[i; 9])]);
                put(&mut storage, fits).await.unwrap();
            } else {
                let exceeds = to_put(&[("x", &[i; 9]), ("y", &[i; 9]), ("z", &[i; 200])]);
                let refused = put(&mut storage, exceeds).await.unwrap_err();
                assert_eq!(refused.code(), Code::ResourceExhausted);
            }
        });
    }
    soon(puts.join_all()).await;
    let x = get(&mut storage, "x").await.unwrap();
    assert!(x[0] % 2 == 0, "of a refused batch: {x:?}");
    assert_eq!(get(&mut storage, "y").await.unwrap(), x);
    assert_eq!(get(&mut storage, "z").await, None);
    assert_eq!(running.metric("arca_host_storage_bytes", &[]).await, 821.0);
}

#[tokio::test]
async fn a_guard_that_is_not_met_keeps_everything_as_it_was() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    put(
        &mut storage,
        guarded(&[("head", b"1"), ("a", b"one")], "head", None),
    )
    .await
    .unwrap();
    let next = guarded(&[("a", b"two"), ("head", b"2")], "head", Some(b"1"));
    put(&mut storage, next.clone()).await.unwrap();

    // The same call once more, as of a transport that doubles; one that was given up long ago; one from before
    // there was anything; one whose guard names what is nowhere, or what came after.
    for late in [
        next,
        guarded(&[("a", b"one and a half"), ("b", b"x")], "head", Some(b"1")),
        guarded(&[("head", b"1"), ("a", b"one")], "head", None),
        guarded(&[("a", b"x"), ("b", b"x")], "nowhere", Some(b"")),
        guarded(&[("a", b"x"), ("b", b"x")], "head", Some(b"3")),
        guarded(&[("a", b"x"), ("b", b"x")], "a", None),
    ] {
        let guard = late.guard.clone().unwrap().name;
        let refused = put(&mut storage, late).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted, "{refused}");
        assert!(refused.message().contains(&guard), "{refused}");
        assert_eq!(names(&mut storage).await, ["a", "head"]);
        assert_eq!(get(&mut storage, "a").await.unwrap(), b"two");
        assert_eq!(get(&mut storage, "head").await.unwrap(), b"2");
    }
    let conflict = [("operation", "put"), ("outcome", "conflict")];
    let operations = "arca_host_storage_operations_total";
    assert_eq!(running.metric(operations, &conflict).await, 6.0);

    // The guard may be about what the call does not touch; and an empty blob is not the same as none.
    put(&mut storage, guarded(&[("b", b"")], "head", Some(b"2")))
        .await
        .unwrap();
    let none = guarded(&[("c", b"x")], "b", None);
    assert_eq!(
        put(&mut storage, none).await.unwrap_err().code(),
        Code::Aborted
    );
    put(&mut storage, guarded(&[("c", b"x")], "b", Some(b"")))
        .await
        .unwrap();
}

#[tokio::test]
async fn of_many_callers_with_the_same_guard_one_stores() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    for (round, before) in [None, Some(0_u8), Some(1), Some(2)].into_iter().enumerate() {
        let mut winner = JoinSet::new();
        for caller in 0..60_u8 {
            let mut storage = storage.clone();
            winner.spawn(async move {
                let expected = before.map(|before| [before]);
                let expected = expected.as_ref().map(|head| &head[..]);
                let blobs: &[(&str, &[u8])] = &[("head", &[round as u8]), ("by", &[caller])];
                match put(&mut storage, guarded(blobs, "head", expected)).await {
                    Ok(()) => Some(caller),
                    Err(status) => {
                        assert_eq!(status.code(), Code::Aborted, "{status}");
                        None
                    }
                }
            });
        }
        let winners: Vec<u8> = soon(winner.join_all())
            .await
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(get(&mut storage, "by").await.unwrap(), winners);
    }
    let commits = running.metric("arca_host_storage_commits_total", &[]).await;
    assert!(commits <= 120.0, "240 calls took {commits} commits");
}

#[tokio::test]
async fn counting_by_guards_loses_no_count() {
    let running = Running::start().await;
    let storage = running.storage().await;
    let mut callers = JoinSet::new();
    for caller in 0..8_u32 {
        let mut storage = storage.clone();
        callers.spawn(async move {
            let mut counted = 0;
            while counted < 25 {
                let found = get(&mut storage, "count").await;
                let count = found.as_ref().map_or(0, |found| {
                    u32::from_be_bytes(found.as_slice().try_into().unwrap())
                });
                let place = format!("{}", count + 1);
                let blobs: &[(&str, &[u8])] = &[
                    ("count", &(count + 1).to_be_bytes()),
                    (&place, &caller.to_be_bytes()),
                ];
                if put(&mut storage, guarded(blobs, "count", found.as_deref()))
                    .await
                    .is_ok()
                {
                    counted += 1;
                }
            }
        });
    }
    soon(callers.join_all()).await;
    let mut storage = storage;
    let count = get(&mut storage, "count").await.unwrap();
    assert_eq!(count, 200_u32.to_be_bytes());
    assert_eq!(names(&mut storage).await.len(), 201);
}
