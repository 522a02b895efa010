//! The program as an operator runs it: start, signals, kill, exit codes.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use arca_host::{Config, DIAL_SOCKET, ENCLAVE_SOCKET, STORAGE_SOCKET, Transport};
use arca_proto::v1::storage_service_client::StorageServiceClient;
use arca_proto::v1::{GetBlobRequest, ListBlobsRequest, put_blobs_request::Guard};
use common::{config_in, folder, get, read, read_to_end, sockets_of, soon, storage_at, to_put};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixListener};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tonic::transport::Channel;

const PROGRAM: &str = env!("CARGO_BIN_EXE_arca-host");

/// A host as a process of its own, running.
struct Process {
    child: Child,
    listen: String,
    metrics: String,
}

impl Process {
    async fn start(config: &Config, folder: &Path) -> Self {
        let file = folder.join("host.toml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut child = Command::new(PROGRAM)
            .arg("--config")
            .arg(&file)
            .args(["--log-format", "json"])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let fields = loop {
            let line = soon(log.next_line())
                .await
                .unwrap()
                .expect("the host ended at its start");
            if line.contains("host is running") {
                break line;
            }
        };
        // Nobody may be left holding the other end of the log.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        let field = |name: &str| {
            let (_, rest) = fields.split_once(&format!("\"{name}\":\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        Self {
            child,
            listen: field("listen"),
            metrics: field("metrics"),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    async fn exit_code(&mut self) -> Option<i32> {
        soon(self.child.wait()).await.unwrap().code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_while_writing_loses_no_acknowledged_blob() {
    let folder = folder();
    let config = config_in(folder.path());
    let socket = sockets_of(&config).join(STORAGE_SOCKET);
    let mut acknowledged = BTreeMap::new();
    for round in 0..4_u8 {
        let mut process = Process::start(&config, folder.path()).await;
        let storage = storage_at(&socket).await;
        let mut puts = JoinSet::new();
        for writer in 0..8_u8 {
            let mut storage = storage.clone();
            puts.spawn(async move {
                let mut acknowledged = Vec::new();
                for step in 0_u32.. {
                    let name = format!("blob/{writer}/{round}/{step}");
                    let blob = vec![writer ^ round; 1 + (step as usize * 977) % 9000];
                    let put = to_put(&[(&name, &blob)]);
                    if storage.put_blobs(put).await.is_err() {
                        break;
                    }
                    acknowledged.push((name, blob));
                }
                acknowledged
            });
        }
        // In the thick of it: a number of commits that differs from round to round.
        let metrics = process.metrics.parse().unwrap();
        soon(commits(metrics, 20 + 7 * u32::from(round))).await;
        process.signal(Signal::SIGKILL);
        process.exit_code().await;
        acknowledged.extend(soon(puts.join_all()).await.into_iter().flatten());
    }
    assert!(
        acknowledged.len() > 80,
        "only {} blobs acknowledged",
        acknowledged.len()
    );

    let mut process = Process::start(&config, folder.path()).await;
    let mut storage = storage_at(&socket).await;
    for (name, blob) in acknowledged {
        let found = storage
            .get_blob(GetBlobRequest { name: name.clone() })
            .await;
        assert!(found.expect(&name).into_inner().blob == blob, "{name}");
    }
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code().await, Some(0));
}

/// What each writer stores in one call: a step's two parts, and the head that names the step. The head as it
/// was is the guard, as of an enclave whose every write builds on the one before.
#[tokio::test(flavor = "multi_thread")]
async fn kill_while_writing_leaves_every_batch_whole_or_absent() {
    let folder = folder();
    let config = config_in(folder.path());
    let socket = sockets_of(&config).join(STORAGE_SOCKET);
    let mut acknowledged = 0;
    for round in 0..5_u32 {
        let mut process = Process::start(&config, folder.path()).await;
        let mut storage = storage_at(&socket).await;
        let mut writers = JoinSet::new();
        for writer in 0..6_u8 {
            let found = whole_steps(&mut storage, writer).await;
            let mut storage = storage.clone();
            writers.spawn(async move {
                let mut head = found.map(u32::to_be_bytes);
                let first = found.map_or(0, |step| step + 1);
                for step in first.. {
                    let (a, b) = parts(writer, step);
                    let next = step.to_be_bytes();
                    let mut put = to_put(&[(&a, &blob(step, 1)), (&b, &blob(step, 2))]);
                    put.blobs.extend(to_put(&[(&head_of(writer), &next)]).blobs);
                    put.guard = Some(Guard {
                        name: head_of(writer),
                        sha256: head.map_or_else(Vec::new, |head| Sha256::digest(head).to_vec()),
                    });
                    match storage.put_blobs(put).await {
                        Ok(_) => head = Some(next),
                        Err(status) => {
                            assert_ne!(status.code(), tonic::Code::Aborted, "{status}");
                            return (writer, step.checked_sub(1), step - first);
                        }
                    }
                }
                unreachable!()
            });
        }
        let metrics = process.metrics.parse().unwrap();
        soon(commits(metrics, 10 + 9 * round)).await;
        process.signal(Signal::SIGKILL);
        process.exit_code().await;
        let done = soon(writers.join_all()).await;

        let mut process = Process::start(&config, folder.path()).await;
        let mut storage = storage_at(&socket).await;
        for (writer, last, steps) in done {
            let found = whole_steps(&mut storage, writer).await;
            // The step under way may have been stored before its answer could be given.
            let next = last.map_or(0, |last| last + 1);
            assert!(
                found == last || found == Some(next),
                "{writer}: {last:?} acknowledged, {found:?} found"
            );
            acknowledged += steps;
        }
        process.signal(Signal::SIGTERM);
        assert_eq!(process.exit_code().await, Some(0));
    }
    assert!(acknowledged > 100, "only {acknowledged} steps");
}

fn head_of(writer: u8) -> String {
    format!("head/{writer}")
}

fn parts(writer: u8, step: u32) -> (String, String) {
    // One comes before the head in the file's order, one after it.
    (format!("a/{writer}/{step}"), format!("z/{writer}/{step}"))
}

fn blob(step: u32, part: u8) -> Vec<u8> {
    vec![part; 1 + (step as usize * 977) % 9000]
}

/// Checks that there are all parts of all steps up to the one that the head names, and no others; that step.
async fn whole_steps(storage: &mut StorageServiceClient<Channel>, writer: u8) -> Option<u32> {
    let head = fetch(storage, &head_of(writer)).await;
    let head = head.map(|head| u32::from_be_bytes(head.try_into().unwrap()));
    let steps = head.map_or(0, |head| head + 1);
    for step in 0..steps {
        let (a, b) = parts(writer, step);
        for (name, part) in [(a, 1), (b, 2)] {
            let found = fetch(storage, &name).await;
            assert!(found == Some(blob(step, part)), "{name} of {head:?}");
        }
    }
    for prefix in ["a", "z"] {
        let list = ListBlobsRequest {
            prefix: format!("{prefix}/{writer}/"),
            ..ListBlobsRequest::default()
        };
        let names = storage.list_blobs(list).await.unwrap().into_inner().names;
        assert_eq!(names.len() as u32, steps, "{writer}: {names:?}");
    }
    head
}

async fn fetch(storage: &mut StorageServiceClient<Channel>, name: &str) -> Option<Vec<u8>> {
    let get = GetBlobRequest { name: name.into() };
    match storage.get_blob(get).await {
        Ok(found) => Some(found.into_inner().blob),
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
            None
        }
    }
}

/// Waits until so many transactions were committed.
async fn commits(metrics: SocketAddr, count: u32) {
    loop {
        let page = get(metrics, "/metrics").await.1;
        let line = page
            .lines()
            .find(|line| line.starts_with("arca_host_storage_commits_total{"));
        let found = line.and_then(|line| line.rsplit_once(' ')?.1.parse::<u32>().ok());
        if found >= Some(count) {
            return;
        }
    }
}

#[tokio::test]
async fn a_signal_stops_it_with_exit_code_0_and_without_sockets_left() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let folder = folder();
        let config = config_in(folder.path());
        let mut process = Process::start(&config, folder.path()).await;
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(sockets_of(&config))
                .unwrap()
                .permissions(),
        );
        assert_eq!(mode & 0o777, 0o700);
        process.signal(signal);
        assert_eq!(process.exit_code().await, Some(0));
        assert_eq!(std::fs::read_dir(sockets_of(&config)).unwrap().count(), 0);
        TcpStream::connect(&process.listen).await.unwrap_err();
    }
}

#[tokio::test]
async fn sockets_left_by_a_killed_host_are_replaced() {
    let folder = folder();
    let config = config_in(folder.path());
    let mut process = Process::start(&config, folder.path()).await;
    process.signal(Signal::SIGKILL);
    assert_eq!(process.exit_code().await, None);
    assert!(sockets_of(&config).join(DIAL_SOCKET).exists());
    let mut process = Process::start(&config, folder.path()).await;
    storage_at(&sockets_of(&config).join(STORAGE_SOCKET)).await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test]
async fn connections_in_use_are_drained_and_quiet_ones_closed() {
    let folder = folder();
    let config = config_in(folder.path());
    let mut process = Process::start(&config, folder.path()).await;
    let enclave = UnixListener::bind(sockets_of(&config).join(ENCLAVE_SOCKET)).unwrap();
    let mut client = TcpStream::connect(&process.listen).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let mut inside = common::accept(&enclave).await;
    read(&mut inside, 1).await;
    let mut quiet = TcpStream::connect(&process.listen).await.unwrap();
    quiet.write_all(b"x").await.unwrap();
    let _quiet_inside = common::accept(&enclave).await;
    let mut storage = storage_at(&sockets_of(&config).join(STORAGE_SOCKET)).await;

    process.signal(Signal::SIGTERM);
    // The one goes on for as long as it talks; the enclave can still store; no new ones come in.
    let mut quiet_ended = Box::pin(read_to_end(&mut quiet));
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
    loop {
        tokio::select! {
            _ = &mut quiet_ended => break,
            _ = ticks.tick() => {
                inside.write_all(b"t").await.unwrap();
                assert_eq!(read(&mut client, 1).await, b"t");
            }
        }
    }
    TcpStream::connect(&process.listen).await.unwrap_err();
    storage.put_blobs(to_put(&[("last", &[1])])).await.unwrap();
    assert_eq!(
        get(process.metrics.parse().unwrap(), "/readyz").await.1,
        "not ready: shutting down\n"
    );
    drop((client, inside));
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_connection_that_never_rests_is_cut_off_at_the_deadline() {
    let folder = folder();
    let mut config = config_in(folder.path());
    config.limits.drain = std::time::Duration::from_secs(1);
    let mut process = Process::start(&config, folder.path()).await;
    let enclave = UnixListener::bind(sockets_of(&config).join(ENCLAVE_SOCKET)).unwrap();
    let mut client = TcpStream::connect(&process.listen).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let mut inside = common::accept(&enclave).await;
    let (mut client_read, _client_write) = client.split();
    process.signal(Signal::SIGTERM);
    let chatter = async { while inside.write_all(&[0; 1000]).await.is_ok() {} };
    let listening = read_to_end(&mut client_read);
    soon(async { tokio::join!(chatter, listening) }).await;
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_waiting() {
    let folder = folder();
    let mut config = config_in(folder.path());
    config.limits.drain = std::time::Duration::from_secs(3600);
    let mut process = Process::start(&config, folder.path()).await;
    let enclave = UnixListener::bind(sockets_of(&config).join(ENCLAVE_SOCKET)).unwrap();
    let mut client = TcpStream::connect(&process.listen).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let mut inside = common::accept(&enclave).await;
    process.signal(Signal::SIGTERM);
    let (mut client_read, _client_write) = client.split();
    let chatter = async { while inside.write_all(&[0; 1000]).await.is_ok() {} };
    let listening = read_to_end(&mut client_read);
    let metrics = process.metrics.parse().unwrap();
    let second = async {
        while get(metrics, "/readyz").await.1 != "not ready: shutting down\n" {}
        process.signal(Signal::SIGTERM);
    };
    soon(async { tokio::join!(chatter, listening, second) }).await;
    assert_eq!(process.exit_code().await, Some(1));
}

/// Runs it to its end, which must come soon.
async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .env_remove("ARCA_LOG")
        .kill_on_drop(true);
    soon(command.output()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn config_check_prints_what_it_understood_or_what_is_wrong() {
    let folder = folder();
    let file = folder.path().join("host.toml");
    let file_name = file.to_str().unwrap();
    let example = run(&["config", "example"]).await;
    assert!(example.status.success());
    std::fs::write(&file, &example.stdout).unwrap();

    let check = run(&["--config", file_name, "config", "check"]).await;
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    let printed = text(&check.stdout);
    assert!(printed.contains("configuration is valid"), "{printed}");
    assert!(printed.contains("max_connections = 1024"), "{printed}");
    assert_eq!(
        Config::from_toml(printed, &file).unwrap(),
        Config::from_toml(text(&example.stdout), &file).unwrap()
    );

    std::fs::write(
        &file,
        text(&example.stdout).replace("listen = ", "lisen = "),
    )
    .unwrap();
    let check = run(&["config", "check", "--config", file_name]).await;
    assert_eq!(check.status.code(), Some(2));
    let said = text(&check.stderr);
    assert!(said.contains("host.toml:8: lisen: unknown field"), "{said}");
    assert!(check.stdout.is_empty());
}

#[tokio::test]
async fn exit_codes_tell_a_wrong_command_line_from_a_failed_start() {
    assert_eq!(run(&["--help"]).await.status.code(), Some(0));
    let help = run(&["--help"]).await;
    for part in ["Examples:", "Exit codes:", "config example", "--log-format"] {
        assert!(text(&help.stdout).contains(part), "{part}");
    }
    for wrong in [
        &["--no-such-flag"][..],
        &["config"],
        &[],
        &["--config", "/no/such/file"],
    ] {
        let output = run(wrong).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?}");
    }

    let folder = folder();
    let file = folder.path().join("host.toml");
    let config = config_in(folder.path());
    std::fs::write(&file, config.to_string()).unwrap();
    let output = run(&["--config", file.to_str().unwrap(), "--log", "not=a=filter"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));

    // Starts that fail: the message says which field and what to do.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut wrong = config.clone();
    wrong.listen = taken.local_addr().unwrap();
    let open_folder = folder.path().join("open");
    std::fs::create_dir(&open_folder).unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&open_folder, permissions).unwrap();
    let mut open = config.clone();
    open.transport = Transport::Unix(open_folder);
    let mut occupied = config.clone();
    occupied.transport = Transport::Unix(folder.path().join("occupied"));
    std::fs::DirBuilder::new()
        .create(sockets_of(&occupied))
        .unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(sockets_of(&occupied), permissions).unwrap();
    std::fs::write(sockets_of(&occupied).join(DIAL_SOCKET), "not a socket").unwrap();
    for (config, says) in [
        (wrong, "Address already in use"),
        (open, "Run chmod 700"),
        (occupied, "exists and is no socket"),
    ] {
        std::fs::write(&file, config.to_string()).unwrap();
        let output = run(&["--config", file.to_str().unwrap()]).await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(
            text(&output.stderr).contains(says),
            "{}",
            text(&output.stderr)
        );
    }
}
