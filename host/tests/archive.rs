//! The archive of the audit log in a folder, as enclave, operator and auditor see it.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_audit::tile::{TileKind, TilePath};
use arca_host::{ArchivePlace, Config, Error, Host};
use arca_proto::v1::{GetBlobRequest, ListBlobsRequest, ListLogsRequest, PutBlobsRequest};
use common::log::{TestLog, file, files_in, read_log};
use common::{PATIENCE, Running, config_in, folder, soon, to_put};
use tonic::Code;

const UNARCHIVED: &str = "arca_host_log_unarchived_entries";
const STOPPED: &str = "arca_host_log_stopped";

/// Publishes as soon as it can.
fn eager(config: &mut Config) {
    config.archive.quiet = Duration::ZERO;
}

/// Publishes at shutdown alone.
fn lazy(config: &mut Config) {
    config.archive.quiet = Duration::from_secs(3600);
    config.archive.every = Duration::from_secs(3600);
}

fn archive_of(folder: &Path) -> PathBuf {
    folder.join("log/ceo")
}

async fn put(running: &Running, request: PutBlobsRequest) {
    let mut storage = running.storage().await;
    soon(storage.put_blobs(request)).await.unwrap();
}

/// Waits until an archive's checkpoint is this log's newest.
async fn published(folder: &Path, log: &TestLog) {
    let path = archive_of(folder).join(format!("{}/checkpoint", log.number));
    let wanted = log.checkpoint().to_bytes();
    soon(async {
        while std::fs::read(&path).ok().as_ref() != Some(&wanted) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until an archive has these files and no others.
async fn archive_becomes(archive: &Path, files: &BTreeMap<String, Vec<u8>>) {
    let wait = async {
        while files_in(archive) != *files {
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        let names: Vec<_> = files.keys().collect();
        let there = files_in(archive);
        panic!("{:?} instead of {names:?}", there.keys());
    }
}

async fn blobs(running: &Running, prefix: &str) -> Vec<String> {
    let request = ListBlobsRequest {
        prefix: prefix.into(),
        ..ListBlobsRequest::default()
    };
    let listed = soon(running.storage().await.list_blobs(request)).await;
    listed.unwrap().into_inner().names
}

#[tokio::test]
async fn entries_become_tiles_and_leave_the_storage_file() {
    let running = Running::start_with(eager).await;
    let mut log = TestLog::new(1);
    // Transactions of many sizes, that end within tiles and at their ends.
    for count in [1, 3, 252, 256, 1, 511, 700, 2, 77] {
        put(&running, log.append(count)).await;
    }
    published(running.folder.path(), &log).await;
    archive_becomes(&archive_of(running.folder.path()), &log.files()).await;
    running.metric_becomes(UNARCHIVED, &[], 0.0).await;
    assert_eq!(running.metric("arca_host_log_entries", &[]).await, 1803.0);
    // What is not in a full tile stays: 1803 is 7 * 256 + 11.
    let entries = blobs(&running, "log/1/entries/").await;
    assert_eq!(entries, ["log/1/entries/00000000000000001726"]);

    let logs = running.storage().await.list_logs(ListLogsRequest {}).await;
    let logs = logs.unwrap().into_inner().logs;
    assert_eq!(logs.len(), 1);
    let known = (
        logs[0].number,
        logs[0].size,
        logs[0].checkpoint_size,
        logs[0].archived,
    );
    assert_eq!(known, (1, 1803, 1803, 1803));
}

#[tokio::test]
async fn every_width_of_every_tile_is_answered_at_once_and_the_same_once_archived() {
    let folder = folder();
    let mut config = config_in(folder.path());
    lazy(&mut config);
    let host = soon(Host::start(config.clone())).await.unwrap();
    let mut running = Running { host, folder };
    let mut log = TestLog::new(3);
    put(&running, log.append(255)).await;
    put(&running, log.append(400)).await;
    for restarted in [false, true] {
        let mut storage = running.storage().await;
        let files = log.files();
        for kind in [
            TileKind::Entries,
            TileKind::Hashes { level: 0 },
            TileKind::Hashes { level: 1 },
        ] {
            for index in 0..3 {
                for width in (1..=256).step_by(if index == 2 { 1 } else { 15 }) {
                    let path = TilePath::new(kind, index, width).unwrap();
                    let full = TilePath::in_log(kind, index, 655);
                    let expected = full.filter(|full| full.width() >= width).map(|full| {
                        let widest = &files[&format!("3/{full}")];
                        path.narrow(widest).unwrap().to_vec()
                    });
                    let answer = read_log(&mut storage, &format!("3/{path}")).await;
                    match expected {
                        Some(expected) => assert_eq!(answer.unwrap(), expected, "{path}"),
                        None => assert_eq!(answer.unwrap_err().code(), Code::NotFound, "{path}"),
                    }
                }
            }
        }
        let checkpoint = read_log(&mut storage, "3/checkpoint").await.unwrap();
        assert_eq!(checkpoint, log.checkpoint().to_bytes());
        if !restarted {
            soon(running.host.shutdown()).await;
            // Published at shutdown, quiet or not.
            let archive = files_in(&archive_of(running.folder.path()));
            assert_eq!(archive, log.files());
            let host = soon(Host::start(config.clone())).await.unwrap();
            running = Running { host, ..running };
        }
    }
}

#[tokio::test]
async fn a_log_goes_on_after_a_restart_and_outgrown_partial_tiles_go() {
    let folder = folder();
    let mut config = config_in(folder.path());
    eager(&mut config);
    let mut log = TestLog::new(1);
    for count in [10, 250, 300, 5, 507] {
        let host = soon(Host::start(config.clone())).await.unwrap();
        let running = Running {
            host,
            folder: common::folder(),
        };
        let socket = folder
            .path()
            .join("sockets")
            .join(arca_host::STORAGE_SOCKET);
        let mut storage = common::storage_at(&socket).await;
        soon(storage.put_blobs(log.append(count))).await.unwrap();
        soon(running.host.shutdown()).await;
        assert_eq!(files_in(&archive_of(folder.path())), log.files());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_may_come_while_others_are_moved() {
    let running = Running::start_with(eager).await;
    let mut storage = running.storage().await;
    let mut log = TestLog::new(1);
    let batches: Vec<_> = (0..300).map(|_| log.append(64)).collect();
    for batch in batches {
        soon(storage.put_blobs(batch)).await.unwrap();
    }
    published(running.folder.path(), &log).await;
    archive_becomes(&archive_of(running.folder.path()), &log.files()).await;
    running.metric_becomes(UNARCHIVED, &[], 0.0).await;
}

#[tokio::test]
async fn paths_are_checked_and_what_is_not_there_is_not_found() {
    let running = Running::start_with(eager).await;
    let mut log = TestLog::new(1);
    put(&running, log.append(300)).await;
    std::fs::write(running.folder.path().join("log/secret"), "x").unwrap();
    let mut storage = running.storage().await;
    for path in [
        "",
        "1",
        "../secret",
        "1/../../secret",
        "/1/checkpoint",
        "1/tile/0/0",
        ".lock",
        "files/..",
    ] {
        let refused = read_log(&mut storage, path).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}");
    }
    let file = format!("files/{}", "0".repeat(64));
    for path in [
        "2/checkpoint",
        "2/tile/0/000.p/1",
        "1/tile/0/002",
        "1/cosignatures",
        &file,
    ] {
        let missing = read_log(&mut storage, path).await.unwrap_err();
        assert_eq!(missing.code(), Code::NotFound, "{path}");
    }
}

#[tokio::test]
async fn files_that_entries_name_move_and_stay_readable() {
    let running = Running::start_with(eager).await;
    let (path, blob) = file(b"an evidence document");
    let name = blob.name.clone();
    let mut wrong = file(b"another").1;
    wrong.blob = b"not what it is named by".to_vec();
    let request = PutBlobsRequest {
        blobs: vec![blob, wrong.clone()],
        guard: None,
    };
    put(&running, request).await;
    let mut storage = running.storage().await;
    assert_eq!(
        read_log(&mut storage, &path).await.unwrap(),
        b"an evidence document"
    );
    soon(async { while blobs(&running, &name).await != Vec::<String>::new() {} }).await;
    assert_eq!(
        read_log(&mut storage, &path).await.unwrap(),
        b"an evidence document"
    );
    let archived = std::fs::read(archive_of(running.folder.path()).join(&path)).unwrap();
    assert_eq!(archived, b"an evidence document");
    // What is no such file stays where it is.
    let request = GetBlobRequest {
        name: wrong.name.clone(),
    };
    let left = soon(storage.get_blob(request)).await.unwrap();
    assert_eq!(left.into_inner().blob, wrong.blob);
}

#[tokio::test]
async fn several_logs_are_kept_apart() {
    let running = Running::start_with(eager).await;
    let mut logs = [TestLog::new(1), TestLog::new(2), TestLog::new(10)];
    for log in &mut logs {
        put(&running, log.append(300)).await;
    }
    for log in &logs {
        published(running.folder.path(), log).await;
    }
    let expected = logs.iter().flat_map(TestLog::files).collect();
    let archive = archive_of(running.folder.path());
    archive_becomes(&archive, &expected).await;
    let listed = running.storage().await.list_logs(ListLogsRequest {}).await;
    let numbers = listed
        .unwrap()
        .into_inner()
        .logs
        .into_iter()
        .map(|log| log.number);
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 10]);
}

#[tokio::test]
async fn an_archive_with_other_entries_stops_that_log_and_loses_nothing() {
    let running = Running::start_with(eager).await;
    let archive = archive_of(running.folder.path());
    std::fs::create_dir_all(archive.join("1/tile/entries")).unwrap();
    std::fs::write(archive.join("1/tile/entries/001"), "other entries").unwrap();
    let mut log = TestLog::new(1);
    let mut other = TestLog::new(2);
    put(&running, log.append(700)).await;
    put(&running, other.append(300)).await;
    running.metric_becomes(STOPPED, &[], 1.0).await;
    // The other log goes on, and so does the enclave with this one.
    published(running.folder.path(), &other).await;
    put(&running, log.append(100)).await;
    let there = std::fs::read(archive.join("1/tile/entries/001")).unwrap();
    assert_eq!(there, b"other entries");
    assert!(!archive.join("1/checkpoint").exists());
    let mut storage = running.storage().await;
    for (path, content) in log.files() {
        assert_eq!(
            read_log(&mut storage, &path).await.unwrap(),
            content,
            "{path}"
        );
    }
}

/// Ends a host as a kill would, and waits until its files are free.
async fn kill(running: Running) -> tempfile::TempDir {
    let Running { host, folder } = running;
    drop(host);
    folder
}

async fn start(folder: tempfile::TempDir, change: impl Fn(&mut Config)) -> Running {
    let start = async {
        loop {
            let mut config = config_in(folder.path());
            change(&mut config);
            // What the dropped one held is free soon.
            if let Ok(host) = Host::start(config).await {
                return host;
            }
        }
    };
    let host = soon(start).await;
    Running { host, folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_file_taken_back_stops_the_log_once_it_differs() {
    let running = Running::start_with(eager).await;
    let mut log = TestLog::new(1);
    put(&running, log.append(300)).await;
    published(running.folder.path(), &log).await;
    let folder = running.folder;
    soon(running.host.shutdown()).await;
    let storage = folder.path().join("ceo.redb");
    let backup = std::fs::read(&storage).unwrap();

    let running = start(folder, eager).await;
    let mut newer = log.clone();
    put(&running, newer.append(300)).await;
    published(running.folder.path(), &newer).await;
    let folder = running.folder;
    soon(running.host.shutdown()).await;

    // Back to the backup: what the archive has beyond it is still served.
    std::fs::write(&storage, &backup).unwrap();
    let running = start(folder, eager).await;
    let mut reads = running.storage().await;
    for (path, content) in newer.files() {
        assert_eq!(
            read_log(&mut reads, &path).await.unwrap(),
            content,
            "{path}"
        );
    }
    // The same again is no conflict.
    put(&running, log.clone().append(300)).await;
    let (folder, running) = {
        let folder = running.folder;
        soon(running.host.shutdown()).await;
        assert_eq!(files_in(&archive_of(folder.path())), newer.files());
        std::fs::write(&storage, &backup).unwrap();
        let running = start(folder, eager).await;
        (running.folder.path().to_owned(), running)
    };
    // Another history is one, and the archive stays as it was.
    put(&running, log.append_marked(400, "forked ")).await;
    running.metric_becomes(STOPPED, &[], 1.0).await;
    assert_eq!(files_in(&archive_of(&folder)), newer.files());
}

#[tokio::test]
async fn a_lost_archive_is_not_begun_anew() {
    let running = Running::start_with(eager).await;
    let mut log = TestLog::new(1);
    put(&running, log.append(300)).await;
    published(running.folder.path(), &log).await;
    let folder = running.folder;
    soon(running.host.shutdown()).await;
    let archive = archive_of(folder.path());
    let elsewhere = folder.path().join("elsewhere");
    std::fs::rename(&archive, &elsewhere).unwrap();

    let running = start(folder, eager).await;
    running.metric_becomes(STOPPED, &[], 1.0).await;
    let lost = read_log(&mut running.storage().await, "1/tile/0/000").await;
    let lost = lost.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss);
    assert!(lost.message().contains("1/tile/0/000"), "{lost}");
    let folder = running.folder;
    soon(running.host.shutdown()).await;

    std::fs::remove_dir_all(&archive).unwrap();
    std::fs::rename(&elsewhere, &archive).unwrap();
    let running = start(folder, eager).await;
    put(&running, log.append(300)).await;
    published(running.folder.path(), &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_hosts_lose_no_entry() {
    let mut running = Running::start_with(eager).await;
    let mut log = TestLog::new(1);
    for round in 0..6 {
        for _ in 0..8 {
            put(&running, log.append(90 + round)).await;
        }
        let folder = kill(running).await;
        running = start(folder, eager).await;
    }
    let mut storage = running.storage().await;
    for (path, content) in log.files() {
        assert_eq!(
            read_log(&mut storage, &path).await.unwrap(),
            content,
            "{path}"
        );
    }
    published(running.folder.path(), &log).await;
    let archive = archive_of(running.folder.path());
    archive_becomes(&archive, &log.files()).await;
}

#[tokio::test]
async fn two_hosts_cannot_have_one_archive() {
    let running = Running::start().await;
    let other = folder();
    let mut config = config_in(other.path());
    config.archive.place = ArchivePlace::Folder(archive_of(running.folder.path()));
    let refused = soon(Host::start(config)).await.unwrap_err();
    assert!(matches!(refused, Error::Archive { .. }), "{refused}");
    assert!(
        refused.to_string().contains("another host archives there"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_archive_that_cannot_be_written_leaves_entries_in_the_storage_file() {
    let running = Running::start_with(eager).await;
    let archive = archive_of(running.folder.path());
    let mut log = TestLog::new(1);
    put(&running, log.append(10)).await;
    published(running.folder.path(), &log).await;
    // A file where a folder has to be: nobody, root included, can write below it.
    std::fs::remove_dir_all(archive.join("1")).unwrap();
    std::fs::write(archive.join("1"), "in the way").unwrap();
    put(&running, log.append(1000)).await;
    running.metric_becomes(UNARCHIVED, &[], 1000.0).await;
    let failures = "arca_host_archive_failures_total";
    soon(async { while running.metric(failures, &[("reason", "unavailable")]).await == 0.0 {} })
        .await;
    put(&running, log.append(5)).await;
    running.metric_becomes(UNARCHIVED, &[], 1005.0).await;
    let mut storage = running.storage().await;
    for (path, content) in log.files() {
        assert_eq!(
            read_log(&mut storage, &path).await.unwrap(),
            content,
            "{path}"
        );
    }
    std::fs::remove_file(archive.join("1")).unwrap();
    published(running.folder.path(), &log).await;
    running.metric_becomes(UNARCHIVED, &[], 0.0).await;
}

/// Not a test: `cargo test --release -p arca-host --test archive -- --ignored --nocapture how_fast`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn how_fast() {
    const TRANSACTIONS: u64 = 2000;
    const ENTRIES: u64 = 64;
    let blob = vec![7; 1500];
    let running = Running::start_with(|_| {}).await;
    let mut storage = running.storage().await;
    // What a signature costs the host without the log: a few blobs of sealed state in one transaction.
    let state = |step: u64| {
        let name = |what: &str| format!("{what}/{}", step % 100);
        to_put(&[
            (&name("signing"), &blob),
            (&name("index"), &blob),
            ("anchor", &blob),
        ])
    };
    let transactions = |of_log: bool, count: u64| {
        let storage = running.storage();
        let mut log = TestLog::new(1);
        async move {
            let mut storage = storage.await;
            let mut requests = Vec::new();
            for step in 0..count {
                let mut request = state(step);
                if of_log {
                    request.blobs.extend(log.append(2).blobs);
                }
                requests.push(request);
            }
            let since = std::time::Instant::now();
            for request in requests {
                storage.put_blobs(request).await.unwrap();
            }
            since.elapsed().as_secs_f64() / count as f64 * 1e6
        }
    };
    println!(
        "a transaction without entries: {:.0} µs",
        transactions(false, 2000).await
    );
    println!(
        "with two entries and a checkpoint: {:.0} µs",
        transactions(true, 2000).await
    );
    println!("without, again: {:.0} µs", transactions(false, 2000).await);

    let mut log = TestLog::new(2);
    let batches: Vec<_> = (0..TRANSACTIONS)
        .map(|_| log.append(ENTRIES as usize))
        .collect();
    let since = std::time::Instant::now();
    for batch in batches {
        storage.put_blobs(batch).await.unwrap();
    }
    let written = since.elapsed().as_secs_f64();
    running
        .metric_becomes(
            "arca_host_log_entries",
            &[],
            (4000 + TRANSACTIONS * ENTRIES) as f64,
        )
        .await;
    soon(async { while running.metric(UNARCHIVED, &[]).await > 255.0 {} }).await;
    let archived = since.elapsed().as_secs_f64();
    let entries = (TRANSACTIONS * ENTRIES) as f64;
    println!(
        "written {:.0} entries/s, archived {:.0} entries/s",
        entries / written,
        entries / archived
    );
}
