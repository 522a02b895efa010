//! The archive of the audit log in a bucket of a real S3 server, s3s-fs (`make s3`).

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use arca_host::{
    ArchivePlace, BucketConfig, BucketCredentials, Config, CredentialSource, Host, STORAGE_SOCKET,
};
use common::log::{TestLog, file, files_in, read_log};
use common::{Running, config_in, folder, soon};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const UNARCHIVED: &str = "arca_host_log_unarchived_entries";
const FAILURES: &str = "arca_host_archive_failures_total";
const UNAVAILABLE: &[(&str, &str)] = &[("reason", "unavailable")];

/// The server's program, unless it is to be done without.
fn program() -> Option<PathBuf> {
    let told = std::env::var("ARCA_S3").unwrap_or_default();
    if told == "none" {
        eprintln!("ARCA_S3=none: NOT TESTED on an S3 server");
        return None;
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/s3/bin/s3s-fs");
    let program = if told.is_empty() { built } else { told.into() };
    assert!(
        program.is_file(),
        "no S3 server for the tests: `make s3` builds one, ARCA_S3 names it (ARCA_S3=none: do without)"
    );
    Some(program)
}

/// A server with a bucket, and keys to it.
struct Server {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    running: Option<Child>,
}

impl Server {
    async fn start() -> Option<Self> {
        let program = program()?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let folder = folder();
        std::fs::create_dir_all(folder.path().join("audit-logs")).unwrap();
        let mut server = Self {
            program,
            folder,
            port,
            running: None,
        };
        server.run().await;
        Some(server)
    }

    async fn run(&mut self) {
        let child = Command::new(&self.program)
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--access-key", "AKTEST", "--secret-key", "the-secret"])
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        self.running = Some(child.unwrap());
        soon(async {
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn stop(&mut self) {
        self.running.take().unwrap().kill().await.unwrap();
    }

    /// A configuration that names the bucket, with a file of credentials.
    fn configure(&self, config: &mut Config, secret: &str) {
        let path = self.folder.path().join(format!(".credentials-{secret}"));
        let text =
            format!("[audit]\naws_access_key_id = AKTEST\naws_secret_access_key = {secret}\n");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        config.archive.quiet = Duration::ZERO;
        config.archive.place = ArchivePlace::Bucket(BucketConfig {
            bucket: "audit-logs".into(),
            prefix: "arca/ceo".into(),
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            region: "us-east-1".into(),
            credentials: BucketCredentials::Source(CredentialSource::File {
                path,
                profile: "audit".into(),
            }),
        });
    }

    fn objects(&self) -> PathBuf {
        self.folder.path().join("audit-logs/arca/ceo")
    }

    /// Waits until the bucket has the files of a log and no others.
    async fn has(&self, log: &TestLog) {
        let files = log.files();
        soon(async {
            while files_in(&self.objects()) != files {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

async fn put(running: &Running, log: &mut TestLog, count: usize) {
    let mut storage = running.storage().await;
    soon(storage.put_blobs(log.append(count))).await.unwrap();
}

async fn all_readable(running: &Running, log: &TestLog) {
    let mut storage = running.storage().await;
    for (path, content) in log.files() {
        let read = read_log(&mut storage, &path).await;
        assert_eq!(read.unwrap(), content, "{path}");
    }
}

async fn fails(running: &Running) {
    soon(async { while running.metric(FAILURES, UNAVAILABLE).await < 1.0 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_goes_into_a_bucket_and_is_read_back() {
    let Some(server) = Server::start().await else {
        return;
    };
    let folder = folder();
    let mut config = config_in(folder.path());
    server.configure(&mut config, "the-secret");
    let mut log = TestLog::new(1);
    let host = soon(Host::start(config.clone())).await.unwrap();
    let mut running = Running { host, folder };
    for count in [10, 600, 1, 400] {
        put(&running, &mut log, count).await;
        server.has(&log).await;
    }
    all_readable(&running, &log).await;
    running.metric_becomes(UNARCHIVED, &[], 0.0).await;
    soon(running.host.shutdown()).await;
    let host = soon(Host::start(config)).await.unwrap();
    running = Running { host, ..running };
    all_readable(&running, &log).await;
    put(&running, &mut log, 300).await;
    server.has(&log).await;

    let (path, blob) = file(b"a manifest");
    let request = arca_proto::v1::PutBlobsRequest {
        blobs: vec![blob],
        guard: None,
    };
    let mut storage = running.storage().await;
    soon(storage.put_blobs(request)).await.unwrap();
    let object = server.objects().join(&path);
    soon(async {
        while std::fs::read(&object).ok().as_deref() != Some(b"a manifest") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(read_log(&mut storage, &path).await.unwrap(), b"a manifest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_delays_the_archive_and_nothing_else() {
    let Some(mut server) = Server::start().await else {
        return;
    };
    let running = Running::start_with(|config| server.configure(config, "the-secret")).await;
    let enclave = running.enclave();
    let mut log = TestLog::new(1);
    put(&running, &mut log, 100).await;
    server.has(&log).await;
    // And the host has been told so.
    running.metric_becomes(UNARCHIVED, &[], 0.0).await;
    server.stop().await;
    put(&running, &mut log, 600).await;
    fails(&running).await;
    put(&running, &mut log, 20).await;
    // All but the 100 of the published checkpoint.
    running.metric_becomes(UNARCHIVED, &[], 620.0).await;
    all_readable(&running, &log).await;
    assert_eq!(running.get("/readyz").await.0, 200);
    drop(enclave);
    server.run().await;
    server.has(&log).await;
    running.metric_becomes(UNARCHIVED, &[], 0.0).await;
}

/// The first line in which a host says why it cannot archive, once its enclave has written 300 entries.
async fn complaint(change: impl FnOnce(&mut Config)) -> String {
    let folder = folder();
    let mut config = config_in(folder.path());
    change(&mut config);
    config.archive.quiet = Duration::from_secs(1);
    let file = folder.path().join("host.toml");
    std::fs::write(&file, config.to_string()).unwrap();
    let mut host = Command::new(env!("CARGO_BIN_EXE_arca-host"))
        .arg("--config")
        .arg(&file)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(host.stderr.take().unwrap()).lines();
    let mut told = false;
    loop {
        let line = soon(log.next_line()).await.unwrap();
        let line = line.expect("the host ended");
        if line.contains("cannot be archived at the moment") {
            return line;
        }
        if line.contains("host is running") && !told {
            told = true;
            let socket = folder.path().join("sockets").join(STORAGE_SOCKET);
            let mut storage = common::storage_at(&socket).await;
            let put = TestLog::new(1).append(300);
            soon(storage.put_blobs(put)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_and_wrong_credentials_say_what_to_do() {
    let Some(server) = Server::start().await else {
        return;
    };
    let missing = complaint(|config| {
        server.configure(config, "the-secret");
        if let ArchivePlace::Bucket(bucket) = &mut config.archive.place {
            bucket.bucket = "no-such-bucket".into();
        }
    });
    let wrong_secret = complaint(|config| server.configure(config, "another-secret"));
    let open_file = complaint(|config| {
        server.configure(config, "open-file");
        let file = server.folder.path().join(".credentials-open-file");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    });
    let nobody = complaint(|config| {
        server.configure(config, "the-secret");
        if let ArchivePlace::Bucket(bucket) = &mut config.archive.place {
            // Nobody listens there: it was taken and let go.
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            bucket.endpoint = Some(format!("http://{}", free.local_addr().unwrap()));
        }
    });
    let cases: [(String, &[&str]); 4] = [
        (
            missing.await,
            &[
                "s3://no-such-bucket/arca/ceo",
                "NoSuchBucket",
                "Make the bucket",
            ],
        ),
        (
            wrong_secret.await,
            &[
                "s3://audit-logs/arca/ceo",
                "SignatureDoesNotMatch",
                "archive.credentials",
            ],
        ),
        (
            open_file.await,
            &["chmod 600", "(archive.file)", "archive.credentials"],
        ),
        (nobody.await, &["refused", "archive.endpoint"]),
    ];
    for (line, parts) in cases {
        for part in parts {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("another-secret"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_other_entries_stops_the_log() {
    let Some(server) = Server::start().await else {
        return;
    };
    let bundle = server.objects().join("1/tile/entries/000");
    std::fs::create_dir_all(bundle.parent().unwrap()).unwrap();
    std::fs::write(&bundle, "other entries").unwrap();
    let running = Running::start_with(|config| server.configure(config, "the-secret")).await;
    let mut log = TestLog::new(1);
    put(&running, &mut log, 300).await;
    running
        .metric_becomes("arca_host_log_stopped", &[], 1.0)
        .await;
    assert_eq!(std::fs::read(&bundle).unwrap(), b"other entries");
    all_readable(&running, &log).await;
}
