//! What the host does for an enclave that seals under AWS KMS: it relays bytes, and hands out credentials.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use arca_host::{Config, CredentialSource, KMS_SOCKET, KmsConfig, STORAGE_SOCKET};
use arca_proto::v1::credential_service_client::CredentialServiceClient;
use arca_proto::v1::{GetCredentialsRequest, GetCredentialsResponse};
use common::{Running, channel_to, read, read_to_end, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tonic::{Code, Status};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn with_kms(config: &mut Config, endpoint: String, credentials: CredentialSource) {
    config.kms = Some(KmsConfig {
        region: "eu-central-1".into(),
        endpoint,
        credentials,
    });
}

fn instance(address: &str) -> CredentialSource {
    CredentialSource::Instance {
        address: address.to_owned(),
    }
}

async fn relaying() -> (Running, TcpListener) {
    let kms = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = kms.local_addr().unwrap().to_string();
    let host =
        Running::start_with(|config| with_kms(config, endpoint, instance("127.0.0.1:1"))).await;
    (host, kms)
}

async fn dial(host: &Running) -> UnixStream {
    soon(UnixStream::connect(host.socket(KMS_SOCKET)))
        .await
        .unwrap()
}

#[tokio::test]
async fn bytes_are_relayed_both_ways_and_so_are_ends() {
    let (host, kms) = relaying().await;
    let mut enclave = dial(&host).await;
    let (mut far, _) = soon(kms.accept()).await.unwrap();
    enclave.write_all(b"ClientHello").await.unwrap();
    assert_eq!(read(&mut far, 11).await, b"ClientHello");
    far.write_all(b"ServerHello").await.unwrap();
    assert_eq!(read(&mut enclave, 11).await, b"ServerHello");
    enclave.shutdown().await.unwrap();
    assert!(read_to_end(&mut far).await.is_empty());
    drop(far);
    assert!(read_to_end(&mut enclave).await.is_empty());
    let closed = [("flow", "kms"), ("end", "done")];
    host.metric_becomes("arca_host_connections_closed_total", &closed, 1.0)
        .await;
}

#[tokio::test]
async fn an_endpoint_that_is_down_ends_the_connection_and_is_counted() {
    let (host, kms) = relaying().await;
    let address = kms.local_addr().unwrap();
    drop(kms);
    assert!(read_to_end(&mut dial(&host).await).await.is_empty());
    let unreachable = [("reason", "unreachable")];
    host.metric_becomes("arca_host_kms_failures_total", &unreachable, 1.0)
        .await;

    let kms = TcpListener::bind(address).await.unwrap();
    let mut enclave = dial(&host).await;
    let (mut far, _) = soon(kms.accept()).await.unwrap();
    far.write_all(b"back").await.unwrap();
    assert_eq!(read(&mut enclave, 4).await, b"back");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let (host, kms) = relaying().await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push((dial(&host).await, soon(kms.accept()).await.unwrap()));
    }
    assert!(read_to_end(&mut dial(&host).await).await.is_empty());
    let limit = [("reason", "limit_reached")];
    host.metric_becomes("arca_host_kms_failures_total", &limit, 1.0)
        .await;
    drop(open.pop());
    host.metric_becomes("arca_host_connections_open", &[("flow", "kms")], 15.0)
        .await;
    let _enclave = dial(&host).await;
    soon(kms.accept()).await.unwrap();
}

#[tokio::test]
async fn without_a_configuration_there_is_no_relay_and_no_credential() {
    let host = Running::start().await;
    assert!(!host.socket(KMS_SOCKET).exists());
    let refused = credentials(&host).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("add [kms]"), "{refused}");
}

async fn credentials(host: &Running) -> Result<GetCredentialsResponse, Status> {
    let channel = channel_to(&host.socket(STORAGE_SOCKET)).await;
    let mut client = CredentialServiceClient::new(channel);
    let response = soon(client.get_credentials(GetCredentialsRequest {})).await?;
    Ok(response.into_inner())
}

fn write_credentials(path: &Path, key: &str) {
    let text = format!(
        "[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\naws_session_token = t0ken\n"
    );
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_file_is_read_anew_for_each_request() {
    let folder = common::folder();
    let path = folder.path().join("credentials");
    let source = CredentialSource::File {
        path: path.clone(),
        profile: "default".into(),
    };
    let host = Running::start_with(|config| with_kms(config, "127.0.0.1:1".into(), source)).await;

    let missing = credentials(&host).await.unwrap_err();
    assert_eq!(missing.code(), Code::Unavailable);
    assert!(missing.message().contains("kms.file"), "{missing}");

    for key in ["AKIAFIRST", "AKIASECOND"] {
        write_credentials(&path, key);
        let found = credentials(&host).await.unwrap();
        assert_eq!(found.access_key_id, key);
        assert_eq!(found.secret_access_key, SECRET);
        assert_eq!(found.session_token, "t0ken");
        let shown = format!("{found:?}");
        assert!(shown.contains(key) && !shown.contains(SECRET) && !shown.contains("t0ken"));
    }

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let open = credentials(&host).await.unwrap_err();
    assert!(open.message().contains("chmod 600"), "{open}");
    let failed = [("reason", "credentials")];
    host.metric_becomes("arca_host_kms_failures_total", &failed, 2.0)
        .await;
}

/// Answers each connection's one request as the next line of the script says; what was asked comes back.
async fn metadata_service(listener: TcpListener, script: &[(&str, &str)]) -> Vec<String> {
    let mut asked = Vec::new();
    for (status, body) in script {
        let (mut stream, _) = soon(listener.accept()).await.unwrap();
        asked.push(head(&mut stream).await);
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    asked
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn at_an_instance() -> (Running, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let host = Running::start_with(|config| {
        with_kms(config, "127.0.0.1:1".into(), instance(&address));
    })
    .await;
    (host, listener)
}

#[tokio::test]
async fn an_instances_role_is_asked_for_by_version_2() {
    let (host, listener) = at_an_instance().await;
    let answer = format!(
        "{{\"Code\":\"Success\",\"LastUpdated\":\"2026-01-01T00:00:00Z\",\"Type\":\"AWS-HMAC\",\
         \"AccessKeyId\":\"ASIAROLE\",\"SecretAccessKey\":\"{SECRET}\",\"Token\":\"t0ken\",\
         \"Expiration\":\"2026-01-01T06:00:00Z\"}}"
    );
    let script = [
        ("200 OK", "metadata-token"),
        ("200 OK", "arca-role"),
        ("200 OK", &answer),
    ];
    let (found, asked) = tokio::join!(credentials(&host), metadata_service(listener, &script));
    let found = found.unwrap();
    assert_eq!(
        (
            &*found.access_key_id,
            &*found.secret_access_key,
            &*found.session_token
        ),
        ("ASIAROLE", SECRET, "t0ken")
    );
    assert!(
        asked[0].starts_with("PUT /latest/api/token HTTP/1.1\r\n"),
        "{asked:?}"
    );
    assert!(
        asked[0].contains("x-aws-ec2-metadata-token-ttl-seconds: 60\r\n"),
        "{asked:?}"
    );
    let roles = "GET /latest/meta-data/iam/security-credentials/";
    assert!(
        asked[1].starts_with(&format!("{roles} HTTP/1.1\r\n")),
        "{asked:?}"
    );
    assert!(
        asked[2].starts_with(&format!("{roles}arca-role HTTP/1.1\r\n")),
        "{asked:?}"
    );
    for later in &asked[1..] {
        assert!(
            later.contains("x-aws-ec2-metadata-token: metadata-token\r\n"),
            "{asked:?}"
        );
    }
}

#[tokio::test]
async fn an_instance_without_a_role_or_with_nonsense_says_so() {
    let large = "x".repeat(70_000);
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("403 Forbidden", "")], "403 Forbidden"),
        (
            &[("200 OK", "t"), ("404 Not Found", "")],
            "attach an instance profile",
        ),
        (
            &[("200 OK", "t"), ("200 OK", "../../user-data\n")],
            "attach an instance profile",
        ),
        (
            &[("200 OK", "t"), ("200 OK", "r"), ("200 OK", "{")],
            "answer is none",
        ),
        (
            &[
                ("200 OK", "t"),
                ("200 OK", "r"),
                ("200 OK", r#"{"Code":"AssumeRoleUnauthorizedAccess"}"#),
            ],
            "AssumeRoleUnauthorizedAccess",
        ),
        (&[("200 OK", "t"), ("200 OK", &large)], "length limit"),
    ];
    for (script, problem) in cases {
        let (host, listener) = at_an_instance().await;
        let (refused, _) = tokio::join!(credentials(&host), metadata_service(listener, script));
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains(problem), "{problem}: {refused}");
    }
}

/// Everything logged, at the level at which libraries log what passes through them.
#[tokio::test]
async fn no_log_has_a_secret() {
    let folder = common::folder();
    let path = folder.path().join("credentials");
    write_credentials(&path, "AKIALOGGED");
    let mut config = common::config_in(folder.path());
    let source = CredentialSource::File {
        path,
        profile: "default".into(),
    };
    with_kms(&mut config, "127.0.0.1:1".into(), source);
    let file = folder.path().join("host.toml");
    fs::write(&file, config.to_string()).unwrap();
    let mut host = tokio::process::Command::new(env!("CARGO_BIN_EXE_arca-host"))
        .arg("--config")
        .arg(&file)
        .args(["--log", "trace"])
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stderr = host.stderr.take().unwrap();
    let mut log = Vec::new();
    while !String::from_utf8_lossy(&log).contains("host is running") {
        log.push(soon(stderr.read_u8()).await.unwrap());
    }
    let reading = tokio::spawn(async move {
        stderr.read_to_end(&mut log).await.unwrap();
        log
    });
    let channel = channel_to(&common::sockets_of(&config).join(STORAGE_SOCKET)).await;
    let mut client = CredentialServiceClient::new(channel);
    let found = soon(client.get_credentials(GetCredentialsRequest {})).await;
    assert_eq!(found.unwrap().into_inner().secret_access_key, SECRET);
    drop(client);
    let pid = i32::try_from(host.id().unwrap()).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(soon(host.wait()).await.unwrap().success());
    let log = String::from_utf8(soon(reading).await.unwrap()).unwrap();
    assert!(log.contains("TRACE"), "{log}");
    assert!(!log.contains(SECRET) && !log.contains("t0ken"), "{log}");
}
