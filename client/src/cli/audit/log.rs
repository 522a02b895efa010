//! `arca audit checkpoint`, `list`, `tail`, `proof` and `certificate`: a party's log, as it gives it.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use arca_attestation::UnixMillis;
use arca_audit::entry::{Entry, Event};
use arca_audit::note::SignedNote;
use arca_client::audit::LogCheckpoint;
use arca_client::{Client, Error, clock};
use serde::Serialize;

use crate::cli::Context;

#[derive(clap::Args)]
pub(crate) struct CheckpointOf {
    /// This party's alone
    #[arg(long)]
    party: Option<String>,
    /// Write the signed note as it is; needs --party
    #[arg(long, requires = "party")]
    note: bool,
}

#[derive(clap::Args)]
pub(crate) struct List {
    /// Whose log
    #[arg(long)]
    party: String,
    /// Which of its logs [default: the current one]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    log: u64,
    /// The first entry
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
}

#[derive(clap::Args)]
pub(crate) struct Tail {
    /// Whose log
    #[arg(long)]
    party: String,
    /// How many of the last entries
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Go on with those that come, until interrupted
    #[arg(long)]
    follow: bool,
}

#[derive(clap::Args)]
pub(crate) struct Proof {
    /// The entry
    index: u64,
    /// Whose log
    #[arg(long)]
    party: String,
    /// Which of its logs [default: the current one]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    log: u64,
    /// Write the entry itself instead
    #[arg(long)]
    entry: bool,
}

#[derive(clap::Args)]
pub(crate) struct CertificateOf {
    /// The request, `signingRequests/...`
    request: String,
    /// A new file for the certificate
    file: PathBuf,
    /// The party that coordinated it
    #[arg(long)]
    party: String,
}

#[derive(Serialize)]
struct Checkpoints {
    checkpoints: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    party: String,
    log: u64,
    size: u64,
    root: String,
    log_key: String,
    witness_key: String,
    signatures: Vec<String>,
    note: String,
}

impl Shown {
    fn new(party: &str, checkpoint: LogCheckpoint) -> Self {
        let note = SignedNote::parse(&checkpoint.note).ok();
        let signatures = note.iter().flat_map(SignedNote::signatures);
        Self {
            party: party.to_owned(),
            log: checkpoint.log,
            size: checkpoint.checkpoint.size,
            root: hex::encode(checkpoint.checkpoint.root),
            log_key: checkpoint.log_key.to_string(),
            witness_key: checkpoint.witness_key.to_string(),
            signatures: signatures.map(|line| line.name().to_string()).collect(),
            note: String::from_utf8_lossy(&checkpoint.note).into_owned(),
        }
    }
}

pub(super) async fn checkpoint(context: &Context, arguments: CheckpointOf) -> anyhow::Result<()> {
    let cluster = context.cluster()?;
    let names: Vec<String> = match arguments.party {
        Some(party) => vec![party],
        None => cluster.profile().parties().keys().cloned().collect(),
    };
    let mut checkpoints = Vec::new();
    for name in names {
        let client = cluster.party(&name).await?;
        let checkpoint = client.log_checkpoint(0).await?;
        if arguments.note {
            std::io::stdout().lock().write_all(&checkpoint.note)?;
            return Ok(());
        }
        checkpoints.push(Shown::new(&name, checkpoint));
    }
    let shown = Checkpoints { checkpoints };
    context.output.show(&shown, |page| {
        let rows: Vec<Vec<String>> = shown
            .checkpoints
            .iter()
            .map(|one| {
                vec![
                    one.party.clone(),
                    one.log.to_string(),
                    one.size.to_string(),
                    one.root.clone(),
                    one.signatures.join(", "),
                ]
            })
            .collect();
        page.table(&["party", "log", "entries", "root", "signed by"], &rows);
        for one in &shown.checkpoints {
            page.fields([
                ("log key", one.log_key.clone()),
                ("witness key", one.witness_key.clone()),
            ]);
        }
    })
}

#[derive(Serialize)]
struct Entries {
    size: u64,
    entries: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    index: u64,
    entry: serde_json::Value,
}

fn listed(from: u64, entries: &[Vec<u8>]) -> Vec<Listed> {
    let value = |bytes: &Vec<u8>| {
        serde_json::from_slice(bytes)
            .unwrap_or_else(|_| serde_json::Value::String(hex::encode(bytes)))
    };
    (from..)
        .zip(entries)
        .map(|(index, bytes)| Listed {
            index,
            entry: value(bytes),
        })
        .collect()
}

/// Time, kind, and the rest as it is logged.
fn line(index: u64, bytes: &[u8]) -> Vec<String> {
    match Entry::decode(bytes) {
        Ok(entry) => {
            let event = serde_json::to_value(&entry.event).unwrap_or_default();
            let member = event.as_object().and_then(|event| event.iter().next());
            let (kind, fields) = member.map_or(("", String::new()), |(kind, fields)| {
                (kind.as_str(), fields.to_string())
            });
            vec![
                index.to_string(),
                clock::show_precisely(UnixMillis(entry.time_ms)),
                kind.to_owned(),
                shorten(&entry.event, fields),
            ]
        }
        Err(cause) => vec![
            index.to_string(),
            String::new(),
            "unreadable".to_owned(),
            cause.to_string(),
        ],
    }
}

/// The two notes of a conflict are long.
fn shorten(event: &Event, fields: String) -> String {
    const MOST: usize = 160;
    match event {
        Event::LogConflict { .. } => fields,
        _ if fields.chars().count() > MOST => {
            fields.chars().take(MOST).chain(['\u{2026}']).collect()
        }
        _ => fields,
    }
}

pub(super) async fn list(context: &Context, arguments: List) -> anyhow::Result<()> {
    let client = context.client(Some(&arguments.party)).await?;
    let page = client
        .log_entries(arguments.log, arguments.from, arguments.count)
        .await?;
    let entries = Entries {
        size: page.size,
        entries: listed(page.from, &page.entries),
    };
    context.output.show(&entries, |shown| {
        let rows: Vec<Vec<String>> = (page.from..)
            .zip(&page.entries)
            .map(|(index, bytes)| line(index, bytes))
            .collect();
        shown.table(&["entry", "time", "kind", "what"], &rows);
        shown.line(format!("{} entries in the log", page.size));
    })
}

/// How often to look for more.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn tail(context: &Context, arguments: Tail) -> anyhow::Result<()> {
    let client = context.client(Some(&arguments.party)).await?;
    let size = client.log_entries(0, 0, 1).await?.size;
    let mut next = size.saturating_sub(arguments.count.into());
    loop {
        next = show_from(context, &client, next).await?;
        if !arguments.follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Each entry a line, also in JSON.
async fn show_from(context: &Context, client: &Client, from: u64) -> anyhow::Result<u64> {
    let mut next = from;
    loop {
        let page = client.log_entries(0, next, 1000).await?;
        if page.entries.is_empty() {
            return Ok(next);
        }
        for (index, bytes) in (page.from..).zip(&page.entries) {
            if context.output.is_json() {
                let [line] = listed(index, std::slice::from_ref(bytes))
                    .try_into()
                    .map_err(|_| Error::Bug("one entry is one line".to_owned()))?;
                writeln!(
                    std::io::stdout().lock(),
                    "{}",
                    serde_json::to_string::<Listed>(&line)?
                )?;
            } else {
                let text = line(index, bytes).join("  ");
                context
                    .output
                    .live(|page| page.line(crate::cli::output::clean(&text)))?;
            }
            next = index.saturating_add(1);
        }
        if next >= page.size {
            return Ok(next);
        }
    }
}

pub(super) async fn proof(context: &Context, arguments: Proof) -> anyhow::Result<()> {
    let client = context.client(Some(&arguments.party)).await?;
    let (entry, proof) = client.log_proof(arguments.log, arguments.index).await?;
    let bytes = if arguments.entry { entry } else { proof };
    std::io::stdout().lock().write_all(&bytes)?;
    Ok(())
}

pub(super) async fn certificate(context: &Context, arguments: CertificateOf) -> anyhow::Result<()> {
    let client = context.client(Some(&arguments.party)).await?;
    let certificate = client.certificate(&arguments.request).await?;
    std::fs::File::create_new(&arguments.file)
        .and_then(|mut file| file.write_all(&certificate))
        .map_err(|cause| Error::Config {
            subject: arguments.file.display().to_string(),
            problem: format!("cannot be written: {cause}"),
            advice: "name a new file; nothing is overwritten".to_owned(),
        })?;
    let shown = serde_json::json!({ "file": arguments.file, "bytes": certificate.len() });
    context.output.show(&shown, |page| {
        page.line(format!(
            "{}: {} bytes",
            arguments.file.display(),
            certificate.len()
        ));
        page.line(format!(
            "verify it with: arca audit verify {}",
            arguments.file.display()
        ));
    })
}
