//! What an operator sees: metrics, health, readiness.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use arca_host::{ENCLAVE_SOCKET, STORAGE_SOCKET};
use common::{Running, read_to_end, request, soon, to_put};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn every_metric_is_there_from_the_start_with_help_type_and_party() {
    let running = Running::start_with(|config| {
        config.peers.insert("cto".into(), "127.0.0.1:1".into());
    })
    .await;
    let (status, page) = running.get("/metrics").await;
    assert_eq!(status, 200);
    for name in [
        "arca_host_connections_open",
        "arca_host_connections_total",
        "arca_host_connections_closed_total",
        "arca_host_connections_refused_total",
        "arca_host_bytes_total",
        "arca_host_dials_total",
        "arca_host_storage_operations_total",
        "arca_host_storage_commits_total",
        "arca_host_storage_reopens_total",
        "arca_host_storage_bytes",
        "arca_host_storage_quota_bytes",
        "arca_host_storage_file_bytes",
        "arca_host_log_entries",
        "arca_host_log_unarchived_entries",
        "arca_host_log_stopped",
        "arca_host_archive_failures_total",
        "arca_host_enclave_reports_total",
        "arca_host_enclave_report_age_seconds",
        "arca_host_start_time_seconds",
        "arca_host_build_info",
    ] {
        assert!(
            page.contains(&format!("# HELP {name} ")),
            "no help: {name}\n{page}"
        );
        assert!(page.contains(&format!("# TYPE {name} ")), "no type: {name}");
        assert!(
            page.contains(&format!("\n{name}{{party=\"ceo\"")),
            "no series: {name}\n{page}"
        );
    }
    let guide = include_str!("../../docs/operations.md");
    for name in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = name.split(' ').next().unwrap();
        assert!(
            guide.contains(&format!("| `{name}` |")),
            "not in the guide: {name}"
        );
    }
    assert_eq!(
        running.metric("arca_host_storage_quota_bytes", &[]).await,
        1_073_741_824.0
    );
    assert!(running.metric("arca_host_storage_file_bytes", &[]).await > 0.0);
}

#[tokio::test]
async fn storage_calls_are_counted_and_timed() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    let put = |name: &str| to_put(&[(name, &[1; 100])]);
    storage.put_blobs(put("abc")).await.unwrap();
    storage.put_blobs(put("NOT A NAME")).await.unwrap_err();
    let operations = "arca_host_storage_operations_total";
    assert_eq!(
        running
            .metric(operations, &[("operation", "put"), ("outcome", "ok")])
            .await,
        1.0
    );
    let refused = [("operation", "put"), ("outcome", "refused")];
    assert_eq!(running.metric(operations, &refused).await, 1.0);
    assert_eq!(running.metric("arca_host_storage_bytes", &[]).await, 103.0);
    assert_eq!(
        running.metric("arca_host_storage_commits_total", &[]).await,
        1.0
    );
    let timed = running
        .metric("arca_host_storage_seconds_count", &[("operation", "put")])
        .await;
    assert_eq!(timed, 2.0);
}

#[tokio::test]
async fn alive_is_not_ready_and_ready_means_that_the_enclave_answers() {
    let running = Running::start().await;
    assert_eq!(running.get("/healthz").await.0, 200);
    let (status, why) = running.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(why.contains("enclave"), "{why}");

    let enclave = running.enclave();
    soon(async { while running.get("/readyz").await.0 != 200 {} }).await;
    drop(enclave);
    soon(async { while running.get("/readyz").await.0 != 503 {} }).await;
    std::fs::remove_file(running.socket(ENCLAVE_SOCKET)).unwrap();
    assert_eq!(running.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn other_paths_methods_and_garbage_get_their_answers() {
    let running = Running::start().await;
    let address = running.host.metrics_address().unwrap();
    assert_eq!(running.get("/").await.0, 404);
    let post =
        "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(request(address, post).await.0, 405);

    let mut garbage = soon(TcpStream::connect(address)).await.unwrap();
    garbage
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        .await
        .unwrap();
    read_to_end(&mut garbage).await;
    let _silent = soon(TcpStream::connect(address)).await.unwrap();
    assert_eq!(running.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn without_a_metrics_section_there_is_no_listener() {
    let running = Running::start_with(|config| config.metrics = None).await;
    assert_eq!(running.host.metrics_address(), None);
    assert!(running.socket(STORAGE_SOCKET).exists());
}
