//! `arca party accept-loss` against a real cluster: a backup is restored, and people let the party go on from it.
//!
//! Needs the programs beside `arca`: `cargo build -p arca-host -p arca-enclave-simulated`.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use arca_client::local::{Binaries, LocalCluster};
use serde_json::Value;

fn arca(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_arca"))
        .args(["--output", "json", "--profile", "profile.toml"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = arca(folder, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn failure(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = arca(folder, arguments);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    let reason = error["error"]["reason"].as_str().unwrap().to_owned();
    (output.status.code().unwrap(), reason)
}

/// Repeats `arca status` until it ends with this code and this standing of the ceo.
async fn status(folder: &Path, code: i32, standing: &str) -> Value {
    let end = Instant::now() + Duration::from_secs(60);
    let mut pause = tokio::time::interval(Duration::from_millis(200));
    loop {
        pause.tick().await;
        let output = arca(folder, &["status"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let parties = status["parties"].as_array().unwrap();
        let ceo = parties
            .iter()
            .find(|party| party["party"] == "ceo")
            .unwrap();
        if output.status.code() == Some(code) && ceo["state"]["standing"] == standing {
            return ceo.clone();
        }
        assert!(Instant::now() < end, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_goes_on_from_a_backup_when_the_administrators_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("cluster");
    let beside = Path::new(env!("CARGO_BIN_EXE_arca")).parent().unwrap();
    let binaries = Binaries::in_folder(beside).unwrap();
    let mut cluster = LocalCluster::bring_up(&folder, binaries).await.unwrap();
    let serving = status(&folder, 0, "held").await;
    assert!(!serving["protections"].as_array().unwrap().is_empty());
    let draft = [
        "party",
        "accept-loss",
        "draft",
        "ceo",
        "loss.json",
        "--reason",
        "a test",
    ];
    assert_eq!(failure(&folder, &draft).0, 3, "it serves");

    // Yesterday's disk, and what happened since.
    let storage = cluster.party("ceo").unwrap().paths().storage;
    let backup = folder.join("backup");
    cluster.party_mut("ceo").unwrap().stop().await;
    std::fs::copy(&storage, &backup).unwrap();
    cluster.start_party("ceo").await.unwrap();
    status(&folder, 0, "held").await;
    let create = [
        "key",
        "create",
        "--threshold",
        "2",
        "--scheme",
        "ed25519",
        "--name",
        "k",
    ];
    json(&folder, &create);
    cluster.party_mut("ceo").unwrap().stop().await;
    std::fs::copy(&backup, &storage).unwrap();
    cluster
        .party_mut("ceo")
        .unwrap()
        .start_both()
        .await
        .unwrap();
    let lost = status(&folder, 6, "lost").await;
    assert!(
        lost["state"]["message"].as_str().unwrap().contains("ceo"),
        "{lost}"
    );

    let drafted = json(&folder, &draft);
    let acceptance = &drafted["acceptance"];
    let sequence = |name: &str| acceptance[name].as_u64().unwrap();
    assert_eq!(drafted["simulated"], true);
    assert!(
        sequence("lost_sequence") > sequence("found_sequence"),
        "{drafted}"
    );
    assert_eq!(drafted["seen_by"].as_array().unwrap().len(), 2);
    for name in ["alice", "bob"] {
        let (signature, key) = (format!("{name}.loss.json"), format!("{name}.pem"));
        let sign = [
            "party",
            "accept-loss",
            "sign",
            "loss.json",
            &signature,
            "--key",
            &key,
        ];
        json(&folder, &sign);
    }
    let submit = [
        "party",
        "accept-loss",
        "submit",
        "loss.json",
        "alice.loss.json",
    ];
    let (code, reason) = failure(&folder, &submit);
    assert_eq!((code, reason.as_str()), (5, "NOT_VERIFIED"), "one of two");
    let twice = [&submit[..], &["alice.loss.json"]].concat();
    assert_eq!(failure(&folder, &twice).0, 5, "nor is the same one twice");
    let both = [&submit[..], &["bob.loss.json"]].concat();
    let submitted = json(&folder, &both);
    let resumed = submitted["resumed"]["sequence"].as_u64().unwrap();
    assert!(resumed > sequence("lost_sequence"));
    status(&folder, 0, "held").await;
    let (code, reason) = failure(&folder, &both);
    assert_eq!((code, reason.as_str()), (6, "NOTHING_LOST"));
    cluster.stop().await;
}
