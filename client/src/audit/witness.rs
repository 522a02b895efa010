//! A witness for logs ([C2SP tlog-witness](https://c2sp.org/tlog-witness)): an HTTP server that cosigns a checkpoint once
//! it has shown that it continues the last one, and once that is on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arca_audit::cosignature::cosign;
use arca_audit::note::{KeyKind, KeyName, SignedNote, VerifierKey};
use arca_audit::witness::{AddCheckpoint, MAX_REQUEST, Refusal, SIZE_CONTENT_TYPE, WitnessedLog};
use ed25519_dalek::SigningKey;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::error::{Error, Result};

/// Connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// How long a client may take to send a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// Contradicting checkpoints of one log that are kept.
const CONFLICTS: usize = 16;
/// Held by the one process that writes.
const LOCK: &str = "lock";

/// A witness with its key and what it has seen.
pub struct Witness {
    name: KeyName,
    key: SigningKey,
    folder: PathBuf,
    logs: BTreeMap<KeyName, Mutex<WitnessedLog>>,
    _lock: Flock<File>,
}

/// Why a checkpoint is not cosigned.
#[derive(Debug)]
enum Failure {
    Refused(Refusal),
    /// The disk, for one.
    Fault(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Witness {
    /// Opens the folder with what was seen of these logs, or begins it.
    ///
    /// # Errors
    /// [`Error::Config`] when the folder is used by another witness, cannot be read or written, or holds something that is
    /// not of these logs.
    ///
    /// # Security
    /// A witness whose folder is lost, or taken back to an older one, cosigns what contradicts what it cosigned: give it a new
    /// key then.
    pub fn open(
        folder: &Path,
        name: KeyName,
        key: SigningKey,
        logs: impl IntoIterator<Item = VerifierKey>,
    ) -> Result<Self> {
        let failed = |path: &Path, cause: &dyn std::fmt::Display| {
            Error::config(path.display(), cause, "name a folder of this witness' own")
        };
        fs::create_dir_all(folder).map_err(|cause| failed(folder, &cause))?;
        let path = folder.join(LOCK);
        let file = File::create(&path).map_err(|cause| failed(&path, &cause))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| failed(folder, &"is used by another witness"))?;
        let mut witnessed = BTreeMap::new();
        for log in logs {
            if log.kind() != KeyKind::Ed25519 {
                return Err(Error::input(log.name(), "is a witness' key and no log's"));
            }
            let origin = log.name().clone();
            let path = folder.join(file_name(&origin));
            let log = match fs::read(&path) {
                Ok(note) => SignedNote::parse(&note)
                    .and_then(|note| WitnessedLog::resume(log, &note))
                    .map_err(|cause| failed(&path, &format!("is not of log {origin}: {cause}")))?,
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                    WitnessedLog::new(log)
                }
                Err(cause) => return Err(failed(&path, &cause)),
            };
            if witnessed.insert(origin.clone(), Mutex::new(log)).is_some() {
                return Err(Error::input(origin, "is named twice"));
            }
        }
        Ok(Self {
            name,
            key,
            folder: folder.to_owned(),
            logs: witnessed,
            _lock: lock,
        })
    }

    /// What others verify its cosignatures with.
    pub fn verifier_key(&self) -> VerifierKey {
        VerifierKey::of_signing_key(self.name.clone(), KeyKind::CosignatureV1, &self.key)
    }

    /// Size of the last checkpoint that was accepted of each log.
    pub fn sizes(&self) -> Vec<(KeyName, u64)> {
        self.logs
            .iter()
            .map(|(origin, log)| {
                let log = log.lock().unwrap_or_else(PoisonError::into_inner);
                (origin.clone(), log.last().map_or(0, |last| last.size))
            })
            .collect()
    }

    /// Judges, stores, then cosigns. One at a time for each log, so that no two of one log pass on the same old size.
    fn add_checkpoint(&self, body: &[u8]) -> std::result::Result<String, Failure> {
        let request = AddCheckpoint::parse(body).map_err(Refusal::from)?;
        let checkpoint: arca_audit::checkpoint::Checkpoint =
            request.note.text().parse().map_err(Refusal::from)?;
        let log = self
            .logs
            .get(&checkpoint.origin)
            .ok_or(Refusal::UnknownOrigin)?;
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = match log.judge(&request) {
            Ok(accepted) => accepted,
            Err(refusal @ Refusal::Fork { .. }) => {
                self.keep_conflict(&checkpoint.origin, &request.note);
                return Err(refusal.into());
            }
            Err(refusal) => return Err(refusal.into()),
        };
        self.store(&checkpoint.origin, accepted.note())
            .map_err(|cause| Failure::Fault(cause.to_string()))?;
        let checkpoint = log.accept(accepted)?;
        let line = cosign(&checkpoint, clock::now().0 / 1000, &self.name, &self.key)
            .map_err(|cause| Failure::Fault(cause.to_string()))?;
        Ok(format!("{line}\n"))
    }

    /// On disk when it returns, whole or not at all.
    fn store(&self, origin: &KeyName, note: &SignedNote) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&note.to_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.folder.join(file_name(origin)))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Two checkpoints of one size with different roots, both signed: the proof that a log forked. Kept as far as it goes;
    /// the log is refused in any case.
    fn keep_conflict(&self, origin: &KeyName, note: &SignedNote) {
        let bytes = note.to_bytes();
        let folder = self.folder.join("conflicts").join(file_name(origin));
        let keep = || -> std::io::Result<()> {
            fs::create_dir_all(&folder)?;
            if fs::read_dir(&folder)?.count() < CONFLICTS {
                fs::write(folder.join(hex::encode(Sha256::digest(&bytes))), &bytes)?;
            }
            Ok(())
        };
        let kept = keep();
        tracing::error!(%origin, ?kept, "the log has signed two checkpoints of one size with different roots");
    }

    /// Serves until `stop` is done, and then finishes what is under way.
    ///
    /// # Errors
    /// [`Error::Bug`] only.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<()> {
        let witness = Arc::new(self);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = async {
                let permit = room.clone().acquire_owned().await.map_err(Error::bug)?;
                Ok::<_, Error>((permit, listener.accept().await))
            };
            let (permit, accepted) = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted?,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                // A connection that broke off, or no more descriptors: the next one may be better.
                Err(cause) => {
                    tracing::warn!(%cause, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (witness, mut stopped) = (witness.clone(), stopped.clone());
            connections.spawn(async move {
                let _permit = permit;
                let service = service_fn(move |request| answer(witness.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                // A connection that breaks is the client's concern.
                let ended = tokio::select! {
                    ended = connection.as_mut() => Some(ended),
                    _ = stopped.wait_for(|stopped| *stopped) => None,
                };
                if ended.is_none() {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            });
        }
        let _ = stopping.send(true);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An origin may have slashes and dots.
fn file_name(origin: &KeyName) -> String {
    hex::encode(Sha256::digest(origin.as_str()))
}

async fn answer(
    witness: Arc<Witness>,
    request: Request<Incoming>,
) -> std::result::Result<Response<Full<Bytes>>, std::convert::Infallible> {
    Ok(match (request.method(), request.uri().path()) {
        (&Method::POST, "/add-checkpoint") => add_checkpoint(witness, request.into_body()).await,
        (_, "/add-checkpoint") => plain(StatusCode::METHOD_NOT_ALLOWED, "POST a checkpoint here\n"),
        (&Method::GET, "/") => plain(StatusCode::OK, format!("{}\n", witness.verifier_key())),
        _ => plain(StatusCode::NOT_FOUND, "nothing is here\n"),
    })
}

async fn add_checkpoint(witness: Arc<Witness>, body: Incoming) -> Response<Full<Bytes>> {
    let body = Limited::new(body, MAX_REQUEST).collect();
    let body = match tokio::time::timeout(PATIENCE, body).await {
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the request took too long\n"),
        Ok(Err(_)) => {
            return plain(
                StatusCode::BAD_REQUEST,
                "the request is too long, or broke off\n",
            );
        }
        Ok(Ok(body)) => body.to_bytes(),
    };
    // Signatures and the disk take their time.
    let judged = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body)).await;
    match judged {
        Ok(Ok(lines)) => plain(StatusCode::OK, lines),
        Ok(Err(Failure::Refused(refusal))) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            match refusal.size() {
                Some(size) => typed(status, SIZE_CONTENT_TYPE, format!("{size}\n")),
                None => plain(status, format!("{refusal}\n")),
            }
        }
        Ok(Err(Failure::Fault(problem))) => {
            tracing::error!(%problem, "a checkpoint could not be stored");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "it could not be stored, and is not cosigned\n",
            )
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the witness failed\n"),
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let value = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
