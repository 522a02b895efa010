//! External witnesses: each is shown the checkpoints that are published and asked to cosign them
//! ([C2SP tlog-witness](https://c2sp.org/tlog-witness)). None is waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use arca_audit::Hash;
use arca_audit::note::{NoteSignature, SignedNote};
use arca_audit::reader::TileReader;
use arca_audit::witness::{AddCheckpoint, parse_cosignatures};
use arca_audit::writer::Tiles;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use super::notes::Note;
use super::{Archive, LogError};
use crate::config::WitnessConfig;
use crate::stop::Stop;

/// For one request.
const REQUEST: Duration = Duration::from_secs(10);
const RETRY_AT_MOST: Duration = Duration::from_secs(300);
/// Far more than a witness answers.
const MAX_ANSWER: usize = 64 * 1024;
/// With the size that the witness says it has, and once more if another host of this log was quicker.
const ATTEMPTS: usize = 3;

/// Shows a witness what is published, until told to stop.
pub(crate) async fn watch(archive: Archive, config: WitnessConfig, mut stop: Stop) {
    crate::tls::install();
    let client = reqwest::Client::builder()
        .timeout(REQUEST)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("arca-host/", env!("CARGO_PKG_VERSION")))
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            let error = chain(&error);
            error!(error, "no witness can be asked over HTTP from here");
            return stop.stopping().await;
        }
    };
    let mut publications = archive.0.notes.publications();
    let mut watch = Watch {
        archive,
        client,
        sizes: BTreeMap::new(),
        done: BTreeMap::new(),
        config,
    };
    let mut failures: u32 = 0;
    loop {
        let published = publications.borrow_and_update().clone();
        let shown = tokio::select! {
            () = stop.stopping() => return,
            shown = watch.show_all(&published) => shown,
        };
        failures = if shown { 0 } else { failures.saturating_add(1) };
        let wait = watch.config.every.saturating_mul(1 << failures.min(16));
        let next = Instant::now() + wait.min(RETRY_AT_MOST.max(watch.config.every));
        tokio::select! {
            () = stop.stopping() => return,
            () = sleep_until(next) => {}
        }
        if failures == 0 {
            tokio::select! {
                () = stop.stopping() => return,
                // It lives as long as the archive, which is held here.
                _ = publications.changed() => {}
            }
        }
    }
}

/// What is known of a witness.
struct Watch {
    archive: Archive,
    client: reqwest::Client,
    config: WitnessConfig,
    /// Size of the checkpoint of each log that it cosigned last, as far as known.
    sizes: BTreeMap<u64, u64>,
    /// Checkpoints that it need not be asked about again.
    done: BTreeMap<u64, String>,
}

/// Why a checkpoint was not cosigned.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it cannot be reached: {0}")]
    Offline(String),
    #[error("it answered with status {status}: {says}")]
    Status { status: u16, says: String },
    #[error("its answer is none: {0}")]
    Answer(String),
    #[error(
        "it has cosigned another checkpoint of {size} entries: this log has forked, or the witness has. Keep the \
         archive as it is, and tell the auditors"
    )]
    Fork { size: u64 },
    #[error(
        "it has cosigned {size} entries already, more than there are here: was an older storage file brought back?"
    )]
    Ahead { size: u64 },
    #[error("the proof for it cannot be made: {0}")]
    Log(#[from] LogError),
}

impl Refused {
    fn label(&self) -> &'static str {
        match self {
            Self::Offline(_) => "offline",
            Self::Status { .. } => "refused",
            Self::Answer(_) => "bad_answer",
            Self::Fork { .. } | Self::Ahead { .. } => "conflict",
            Self::Log(_) => "no_proof",
        }
    }

    /// Whether asking again might help.
    fn may_pass(&self) -> bool {
        !matches!(self, Self::Fork { .. } | Self::Ahead { .. })
    }
}

impl Watch {
    fn name(&self) -> &str {
        self.config.key.name().as_str()
    }

    /// Shows it what it has not cosigned; false when it is to be asked again.
    async fn show_all(&mut self, published: &BTreeMap<u64, Note>) -> bool {
        let mut all = true;
        for (&log, note) in published {
            let size = note.size();
            if size == 0 || self.done.get(&log).is_some_and(|text| text == note.text()) {
                continue;
            }
            let shown = self.show(log, note).await;
            let (metrics, witness) = (&self.archive.0.metrics, self.name());
            match shown {
                Ok(cosignature) => {
                    debug!(log, size, witness, "checkpoint cosigned");
                    metrics.witness_asked(witness, "cosigned");
                    metrics.witness_cosigned(witness, size);
                    let cosigned = note.clone().with(cosignature);
                    self.archive.0.notes.cosign(log, cosigned);
                    // The archiver keeps it.
                    self.archive.0.store.log_written().notify_one();
                    self.sizes.insert(log, size);
                }
                Err(refused) if refused.may_pass() => {
                    metrics.witness_asked(witness, refused.label());
                    warn!(log, size, witness, %refused, "a checkpoint is not cosigned yet");
                    all = false;
                    continue;
                }
                Err(refused) => {
                    metrics.witness_asked(witness, refused.label());
                    error!(log, size, witness, %refused, "a checkpoint is not cosigned");
                }
            }
            self.done.insert(log, note.text().to_owned());
        }
        all
    }

    async fn show(&self, number: u64, note: &Note) -> Result<NoteSignature, Refused> {
        let size = note.size();
        let mut old_size = self.sizes.get(&number).copied().unwrap_or(0);
        for _ in 0..ATTEMPTS {
            if old_size > size {
                return Err(Refused::Ahead { size: old_size });
            }
            let proof = self.archive.consistency(number, old_size, size).await?;
            let (status, body) = self.ask(note, old_size, proof).await?;
            let says = String::from_utf8_lossy(&body);
            match status {
                200 => return self.cosignature(note, &body),
                409 => {
                    let said = says.trim_end().parse::<u64>().map_err(|_| {
                        Refused::Answer("it names no size with its conflict".into())
                    })?;
                    if said == size && old_size == size {
                        return Err(Refused::Fork { size });
                    }
                    let witness = self.name();
                    info!(
                        log = number,
                        old_size, said, witness, "the witness is at another size"
                    );
                    old_size = said;
                }
                status => {
                    let printable = says.chars().filter(|c| !c.is_control());
                    let says = printable.take(200).collect();
                    return Err(Refused::Status { status, says });
                }
            }
        }
        Err(Refused::Answer("it changes its mind about the size".into()))
    }

    async fn ask(
        &self,
        note: &Note,
        old_size: u64,
        proof: Vec<Hash>,
    ) -> Result<(u16, Vec<u8>), Refused> {
        let offline = |error: reqwest::Error| Refused::Offline(chain(&error.without_url()));
        let malformed = |error: arca_audit::Error| Refused::Answer(error.to_string());
        let note = SignedNote::parse(&note.to_bytes()).map_err(malformed)?;
        let request = AddCheckpoint {
            old_size,
            proof,
            note,
        };
        let url = format!("{}/add-checkpoint", self.config.url);
        let asked = self.client.post(url).body(request.to_bytes()).send();
        let mut answer = asked.await.map_err(offline)?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(offline)? {
            body.extend_from_slice(&part);
            if body.len() > MAX_ANSWER {
                let problem = format!("it is longer than {MAX_ANSWER} bytes");
                return Err(Refused::Answer(problem));
            }
        }
        Ok((answer.status().as_u16(), body))
    }

    /// The cosignature of this witness in an answer. What others signed is not its to bring.
    fn cosignature(&self, note: &Note, body: &[u8]) -> Result<NoteSignature, Refused> {
        let malformed = |error: arca_audit::Error| Refused::Answer(error.to_string());
        let key = &self.config.key;
        let lines = parse_cosignatures(body).map_err(malformed)?;
        let own = lines.into_iter().find(|line| key.is_of(line));
        let own = own.ok_or_else(|| {
            let problem = format!("it has no signature of {} with that key", self.name());
            Refused::Answer(problem)
        })?;
        key.verify(note.text(), &own).map_err(malformed)?;
        Ok(own)
    }
}

impl Archive {
    async fn consistency(
        &self,
        number: u64,
        older: u64,
        newer: u64,
    ) -> Result<Vec<Hash>, LogError> {
        let reader = TileReader::consistency(older, newer)?;
        let mut tiles = Tiles::new();
        for path in reader.needed() {
            tiles.insert(path, self.needed_tile(number, path).await?);
        }
        Ok(reader.make(&tiles)?)
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
