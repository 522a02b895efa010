//! External witnesses: the host shows them what it publishes, over real HTTP, and keeps what they sign.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arca_audit::cosignature::{CosignedCheckpoint, cosign};
use arca_audit::note::{KeyKind, KeyName, SignedNote, VerifierKey};
use arca_audit::witness::{AddCheckpoint, Witness};
use arca_host::{Config, Host, WitnessConfig};
use common::log::{TestLog, read_log};
use common::{PATIENCE, Running, config_in, folder, soon};
use ed25519_dalek::SigningKey;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const NAME: &str = "witness.example.com/w1";
const REQUESTS: &str = "arca_host_witness_requests_total";

/// A witness of the logs that it was told of, on a port of its own.
struct TestWitness {
    shared: Arc<Shared>,
    port: u16,
    serving: Option<JoinHandle<()>>,
}

struct Shared {
    witness: Mutex<Witness>,
    key: SigningKey,
    /// What it answers instead, for whoever misbehaves.
    instead: Mutex<Option<(u16, String)>>,
    /// Old size of each request, and what became of it.
    seen: Mutex<Vec<(u64, u16)>>,
}

impl TestWitness {
    async fn start(logs: &[&TestLog]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            witness: Mutex::new(Witness::new(logs.iter().map(|log| log.key()))),
            key: SigningKey::from_bytes(&[9; 32]),
            instead: Mutex::default(),
            seen: Mutex::default(),
        });
        let mut witness = Self {
            shared,
            port,
            serving: None,
        };
        witness.serve(listener);
        witness
    }

    fn serve(&mut self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        self.serving = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| Arc::clone(&shared).answer(request));
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }));
    }

    async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
    }

    async fn start_again(&mut self) {
        let listener = soon(async {
            loop {
                match TcpListener::bind(("127.0.0.1", self.port)).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        let listener = listener.await;
        self.serve(listener);
    }

    fn name(&self) -> KeyName {
        NAME.parse().unwrap()
    }

    fn key(&self) -> VerifierKey {
        VerifierKey::of_signing_key(self.name(), KeyKind::CosignatureV1, &self.shared.key)
    }

    fn configure(&self, config: &mut Config) {
        config.archive.quiet = Duration::ZERO;
        config.witnesses.push(WitnessConfig {
            url: format!("http://127.0.0.1:{}/log", self.port),
            key: self.key(),
            every: Duration::from_millis(1),
        });
    }

    fn answer_instead(&self, status: u16, body: impl Into<String>) {
        *self.shared.instead.lock().unwrap() = Some((status, body.into()));
    }

    /// Waits until the published checkpoint of a log has this witness' cosignature.
    async fn has_cosigned(&self, folder: &Path, log: &TestLog) -> SignedNote {
        let path = folder.join(format!("log/ceo/{}/checkpoint", log.number));
        let wait = async {
            loop {
                let note = std::fs::read(&path).unwrap_or_default();
                let cosigned = CosignedCheckpoint::verify(&note, &log.key(), &[self.key()]);
                if let Ok(cosigned) = cosigned
                    && cosigned.checkpoint().size == log.size()
                    && cosigned.cosignatures().len() == 1
                {
                    return SignedNote::parse(&note).unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("not cosigned; seen {:?}", self.shared.seen.lock()))
    }
}

impl Shared {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri().path(), "/log/add-checkpoint");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let old_size = AddCheckpoint::parse(&body).unwrap().old_size;
        let instead = self.instead.lock().unwrap().clone();
        let (status, body) = instead.unwrap_or_else(|| self.judge(&body));
        self.seen.lock().unwrap().push((old_size, status));
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }

    fn judge(&self, body: &[u8]) -> (u16, String) {
        let mut witness = self.witness.lock().unwrap();
        let judged = AddCheckpoint::parse(body).map_err(Into::into);
        let accepted = judged.and_then(|request| witness.judge(&request));
        match accepted.and_then(|accepted| witness.accept(accepted)) {
            Ok(checkpoint) => {
                let name = NAME.parse().unwrap();
                let line = cosign(&checkpoint, 1_700_000_000, &name, &self.key).unwrap();
                (200, format!("{line}\n"))
            }
            Err(refusal) => {
                let size = refusal
                    .size()
                    .map_or(String::new(), |size| format!("{size}\n"));
                (refusal.status(), size)
            }
        }
    }
}

async fn put(running: &Running, log: &mut TestLog, count: usize) {
    let mut storage = running.storage().await;
    soon(storage.put_blobs(log.append(count))).await.unwrap();
}

async fn answered(running: &Running, outcome: &str) {
    let labels = [("witness", NAME), ("outcome", outcome)];
    soon(async { while running.metric(REQUESTS, &labels).await < 1.0 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_witness_signs_stands_under_the_checkpoint() {
    let mut log = TestLog::new(1);
    let witness = TestWitness::start(&[&log]).await;
    let running = Running::start_with(|config| witness.configure(config)).await;
    for count in [3, 600, 1, 255] {
        put(&running, &mut log, count).await;
        let note = witness.has_cosigned(running.folder.path(), &log).await;
        assert_eq!(note.signatures().len(), 2);
    }
    let mut storage = running.storage().await;
    for path in ["1/checkpoint", "1/cosignatures"] {
        let note = read_log(&mut storage, path).await.unwrap();
        let cosigned = CosignedCheckpoint::verify(&note, &log.key(), &[witness.key()]).unwrap();
        assert_eq!(cosigned.checkpoint().size, log.size());
        assert_eq!(cosigned.cosignatures().len(), 1);
    }
    // Each proof began where the one before it ended.
    let seen = witness.shared.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(_, status)| *status == 200), "{seen:?}");
    let cosigned = "arca_host_witness_cosigned_entries";
    assert_eq!(running.metric(cosigned, &[("witness", NAME)]).await, 859.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_witness_says_where_it_is() {
    let mut log = TestLog::new(1);
    let witness = TestWitness::start(&[&log]).await;
    let folder = folder();
    let mut config = config_in(folder.path());
    witness.configure(&mut config);
    let host = soon(Host::start(config.clone())).await.unwrap();
    let mut running = Running { host, folder };
    put(&running, &mut log, 300).await;
    witness.has_cosigned(running.folder.path(), &log).await;
    soon(running.host.shutdown()).await;
    witness.shared.seen.lock().unwrap().clear();

    let host = soon(Host::start(config)).await.unwrap();
    running = Running { host, ..running };
    put(&running, &mut log, 500).await;
    witness.has_cosigned(running.folder.path(), &log).await;
    let seen = witness.shared.seen.lock().unwrap().clone();
    assert_eq!(seen[0], (0, 409));
    assert_eq!(seen[1], (300, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_is_offline_delays_nothing() {
    let mut log = TestLog::new(1);
    let mut witness = TestWitness::start(&[&log]).await;
    witness.stop().await;
    let running = Running::start_with(|config| witness.configure(config)).await;
    put(&running, &mut log, 300).await;
    let path = running.folder.path().join("log/ceo/1/checkpoint");
    soon(async {
        while std::fs::read(&path).ok() != Some(log.checkpoint().to_bytes()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    answered(&running, "offline").await;
    witness.start_again().await;
    witness.has_cosigned(running.folder.path(), &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_witnesses_one_that_refuses_does_not_hinder_the_other() {
    let mut log = TestLog::new(1);
    let good = TestWitness::start(&[&log]).await;
    // It was not told of this log.
    let stranger = TestWitness::start(&[&TestLog::new(2)]).await;
    let running = Running::start_with(|config| {
        stranger.configure(config);
        config.witnesses[0].key = other_key();
        good.configure(config);
    })
    .await;
    put(&running, &mut log, 10).await;
    good.has_cosigned(running.folder.path(), &log).await;
    let labels = [("witness", "other.example.com"), ("outcome", "refused")];
    soon(async { while running.metric(REQUESTS, &labels).await < 1.0 {} }).await;
}

fn other_key() -> VerifierKey {
    let name = "other.example.com".parse().unwrap();
    let key = SigningKey::from_bytes(&[10; 32]);
    VerifierKey::of_signing_key(name, KeyKind::CosignatureV1, &key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_a_witness_saw_is_said_and_not_asked_about_again() {
    let mut log = TestLog::new(1);
    let witness = TestWitness::start(&[&log]).await;
    // Somebody showed it another history of this log.
    let mut forked = log.clone();
    forked.append_marked(300, "forked ");
    let request = AddCheckpoint {
        old_size: 0,
        proof: Vec::new(),
        note: forked.checkpoint(),
    };
    assert_eq!(witness.shared.judge(&request.to_bytes()).0, 200);
    let running = Running::start_with(|config| witness.configure(config)).await;
    put(&running, &mut log, 300).await;
    answered(&running, "conflict").await;
    // A later checkpoint has no proof that leads there.
    put(&running, &mut log, 10).await;
    answered(&running, "refused").await;
    assert!(witness.shared.seen.lock().unwrap().contains(&(300, 422)));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_are_refused() {
    let mut log = TestLog::new(1);
    let witness = TestWitness::start(&[&log]).await;
    let running = Running::start_with(|config| witness.configure(config)).await;
    let checkpoint = TestLog::new(2);
    let other = SigningKey::from_bytes(&[11; 32]);
    let empty: arca_audit::checkpoint::Checkpoint = checkpoint.checkpoint().text().parse().unwrap();
    let of_another_key = cosign(&empty, 1, &witness.name(), &other).unwrap();
    let of_another_checkpoint = cosign(&empty, 1, &witness.name(), &witness.shared.key).unwrap();
    for (status, body) in [
        (200, "no note".to_owned()),
        (200, format!("{of_another_key}\n")),
        (200, format!("{of_another_checkpoint}\n")),
        (200, "x".repeat(100_000)),
        (409, "somewhere\n".to_owned()),
        (409, "0\n".to_owned()),
    ] {
        let labels = [("witness", NAME), ("outcome", "bad_answer")];
        let before = running.metric(REQUESTS, &labels).await;
        witness.answer_instead(status, body);
        put(&running, &mut log, 1).await;
        soon(async { while running.metric(REQUESTS, &labels).await <= before {} }).await;
    }
    witness.answer_instead(409, "1000000\n");
    answered(&running, "conflict").await;
    *witness.shared.instead.lock().unwrap() = None;
    put(&running, &mut log, 1).await;
    witness.has_cosigned(running.folder.path(), &log).await;
}
