//! An export, fetched from the parties into a folder.
//!
//! What is there already is looked at and not fetched again, so an export that was interrupted goes on where it stopped, and
//! one that is complete is brought up to date. Nothing that arrives is believed: the auditor verifies it all. What
//! is compared here keeps an export from going on with damaged files.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use arca_audit::entry::{Entry, Event};
use arca_audit::leaf_hash;
use arca_audit::tile::{TILE_WIDTH, TileKind, TilePath};
use arca_audit::writer::TileWriter;
use arca_proto::v1;
use sha2::{Digest as _, Sha256};

use super::export::{self, Export, ExportedLog, openings_path};
use super::service::LogCheckpoint;
use crate::client::Client;
use crate::clock;
use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// What to export.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// This party's logs alone.
    pub party: Option<String>,
    /// Entries from here on, rounded down to whole bundles of 256. The first bundle always comes with them: it says
    /// whose log it is.
    pub from: u64,
    /// Entries before this one, rounded up to whole bundles. None: all.
    pub to: Option<u64>,
}

/// What an export came to.
#[derive(Clone, Debug)]
pub struct Exported {
    /// What stands in `export.json`.
    pub export: Export,
    /// Entries that were fetched now; the others were there.
    pub fetched: u64,
    /// Openings that were fetched.
    pub openings: u64,
    /// Logs that a party could not give, with what it said.
    pub withheld: Vec<String>,
}

/// Fetches an export. `progress` is told how many entries of how many are there.
///
/// # Errors
/// No connection, what a party refuses, what cannot be written, and [`Error::Unverified`] where a file that is there
/// is not what the party's log says.
pub async fn export(
    cluster: &Cluster,
    folder: &Path,
    selection: &Selection,
    mut progress: impl FnMut(u64, u64),
) -> Result<Exported> {
    let folder = Folder(folder.to_owned());
    let profile = cluster.profile();
    folder.check(profile.manifest().cluster())?;
    let names: Vec<&String> = profile
        .parties()
        .keys()
        .filter(|name| selection.party.as_ref().is_none_or(|only| only == *name))
        .collect();
    if names.is_empty() {
        return Err(Error::input("party", "is none of the profile's"));
    }
    let mut clients = Vec::new();
    for name in names {
        clients.push(cluster.party(name).await?);
    }
    let began_ms = clock::now().0;
    // Twice: what an entry below the first checkpoint of one log names of another is below the second one of that.
    let mut withheld = Vec::new();
    let mut settled = Vec::new();
    for client in &clients {
        settled.push(client.log_checkpoint(0).await?);
    }
    let mut wanted = Vec::new();
    for (client, first) in clients.iter().zip(&settled) {
        for log in logs_before(client, first.log).await? {
            match client.log_checkpoint(log).await {
                Ok(newest) => {
                    let is_current = log == first.log;
                    let settled = if is_current {
                        first.checkpoint.size
                    } else {
                        newest.checkpoint.size
                    };
                    let exported = exported(client.party(), &newest, settled, selection);
                    wanted.push((client, exported, newest));
                }
                Err(error @ Error::Reject { .. }) if log < first.current => {
                    withheld.push(format!("log {log} of {}: {error}", client.party()));
                }
                Err(error) => return Err(error),
            }
        }
    }
    let mut export = Export {
        version: Export::VERSION,
        cluster: profile.manifest().cluster().to_owned(),
        kind: profile.kind().to_string(),
        exporter: profile.principal().map_or("", |(name, _)| name).to_owned(),
        began_ms,
        complete: false,
        openings: true,
        logs: wanted.iter().map(|(_, log, _)| log.clone()).collect(),
    };
    folder.write_export(&export)?;
    let total = export
        .logs
        .iter()
        .flat_map(|log| &log.ranges)
        .map(|(from, to)| to - from)
        .sum();
    let (mut there, mut fetched, mut openings) = (0, 0, 0);
    for (client, log, newest) in &wanted {
        let target = Target {
            folder: &folder,
            log,
        };
        for range in &log.ranges {
            let base = there;
            let mut tell = |done: u64| progress(base + done, total);
            fetched += target.fetch(client, *range, &mut tell).await?;
            there += range.1 - range.0;
        }
        target.complete()?;
        folder.write(
            &format!("{}/{}/checkpoint", log.party, log.log),
            &newest.note,
        )?;
    }
    for client in &clients {
        openings += fetch_openings(&folder, client, &export).await?;
    }
    export.complete = true;
    folder.write_export(&export)?;
    Ok(Exported {
        export,
        fetched,
        openings,
        withheld,
    })
}

/// A log and those that it follows, ascending: each says in its first entry which one was before it.
async fn logs_before(client: &Client, newest: u64) -> Result<Vec<u64>> {
    let mut logs = vec![newest];
    let mut log = newest;
    loop {
        let first = match client.log_entries(log, 0, 1).await {
            Ok(page) => page.entries.into_iter().next(),
            // What its host does not have, the auditor will miss.
            Err(Error::Reject { .. }) if log != newest => None,
            Err(error) => return Err(error),
        };
        let before = first
            .and_then(|bytes| Entry::decode(&bytes).ok())
            .and_then(|entry| match entry.event {
                Event::InstanceStarted(started) => started.follows,
                _ => None,
            })
            .filter(|before| before.log < log);
        let Some(before) = before else {
            logs.reverse();
            return Ok(logs);
        };
        log = before.log;
        logs.push(log);
    }
}

fn exported(
    party: &str,
    newest: &LogCheckpoint,
    settled: u64,
    selection: &Selection,
) -> ExportedLog {
    let size = newest.checkpoint.size;
    let width = u64::from(TILE_WIDTH);
    let from = (selection.from / width * width).min(size / width * width);
    let to = selection.to.map_or(size, |to| {
        to.div_ceil(width).saturating_mul(width).min(size)
    });
    let mut ranges = Vec::new();
    if size > 0 {
        let first = width.min(size);
        if from > first {
            ranges.push((0, first));
            ranges.push((from, to.max(from)));
        } else {
            ranges.push((0, to.max(first)));
        }
        ranges.retain(|(from, to)| from < to);
    }
    ExportedLog {
        party: party.to_owned(),
        log: newest.log,
        size,
        settled: settled.min(size),
        ranges,
    }
}

/// The folder of an export.
struct Folder(PathBuf);

impl Folder {
    fn failed(path: &Path, cause: std::io::Error) -> Error {
        Error::config(
            path.display(),
            format!("cannot be read or written: {cause}"),
            "make room, or name another folder; the export goes on where it stopped",
        )
    }

    /// An export of another cluster is not gone on with.
    fn check(&self, cluster: &str) -> Result<()> {
        let Some(bytes) = self.read(export::FILE)? else {
            return fs::create_dir_all(&self.0).map_err(|cause| Self::failed(&self.0, cause));
        };
        let wrong = |problem: String| {
            Error::config(
                self.0.join(export::FILE).display(),
                problem,
                "name another folder",
            )
        };
        let found: Export = serde_json::from_slice(&bytes)
            .map_err(|cause| wrong(format!("is no export's: {cause}")))?;
        if found.cluster != cluster {
            return Err(wrong(format!("is of cluster {:?}", found.cluster)));
        }
        Ok(())
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let path = self.0.join(path);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Self::failed(&path, cause)),
        }
    }

    /// Whole or not at all: an interruption leaves no half file in the place of one.
    fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let path = self.0.join(path);
        let parent = path.parent().unwrap_or(&self.0);
        let write = || {
            fs::create_dir_all(parent)?;
            let mut file = tempfile::NamedTempFile::new_in(parent)?;
            file.write_all(content)?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|cause| Self::failed(&path, cause))
    }

    fn append(&self, path: &str, content: &[u8]) -> Result<()> {
        let path = self.0.join(path);
        let write = || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)?;
            file.write_all(content)
        };
        write().map_err(|cause| Self::failed(&path, cause))
    }

    fn write_export(&self, export: &Export) -> Result<()> {
        let mut content = serde_json::to_vec_pretty(export).map_err(Error::bug)?;
        content.push(b'\n');
        self.write(export::FILE, &content)
    }
}

/// One log that is fetched.
struct Target<'a> {
    folder: &'a Folder,
    log: &'a ExportedLog,
}

impl Target<'_> {
    fn path(&self, tile: &TilePath) -> String {
        format!("{}/{}/{tile}", self.log.party, self.log.log)
    }

    /// Fetches what of a range is not there. Gives how many entries that were.
    async fn fetch(
        &self,
        client: &Client,
        (from, to): (u64, u64),
        progress: &mut impl FnMut(u64),
    ) -> Result<u64> {
        let from_here = self.first_missing(from, to)?;
        progress(from_here - from);
        if from_here >= to {
            return Ok(0);
        }
        let mut stream = client.export_files(self.log.log, (from_here, to)).await?;
        let object = format!("log {} of {}", self.log.log, self.log.party);
        while let Some(file) = stream
            .message()
            .await
            .map_err(|status| client.error(&object, &status))?
        {
            self.take(&file)?;
            progress(file.complete_to.clamp(from, to) - from);
        }
        let missing = self.first_missing(from_here, to)?;
        if missing < to {
            return Err(Error::unverified(
                object,
                format!("the party sent its entries only up to {missing} of {to}"),
            ));
        }
        Ok(to - from_here)
    }

    /// The first entry of a range whose bundle is not there. Partial bundles are fetched anew where the log has grown.
    fn first_missing(&self, from: u64, to: u64) -> Result<u64> {
        let mut index = from / u64::from(TILE_WIDTH);
        while let Some(bundle) = TilePath::in_log(TileKind::Entries, index, self.log.size) {
            if bundle.first() >= to {
                return Ok(to);
            }
            let content = self.folder.read(&self.path(&bundle))?;
            if content.is_none_or(|content| bundle.entries(&content).is_err()) {
                return Ok(bundle.first());
            }
            index += 1;
        }
        Ok(to)
    }

    /// Stores a file under the name that it has in the log of the exported size.
    fn take(&self, file: &v1::ExportedFile) -> Result<()> {
        let strange = || {
            Error::bug(format!(
                "{} sent a file that is none of an export's: {:?}",
                self.log.party, file.path
            ))
        };
        if let Some(name) = file.path.strip_prefix("files/") {
            if hex::encode(Sha256::digest(&file.content)) != name {
                return Err(Error::unverified(
                    format!("file {name} of {}", self.log.party),
                    "its name is not its SHA-256",
                ));
            }
            return self
                .folder
                .write(&format!("{}/files/{name}", self.log.party), &file.content);
        }
        let path = file
            .path
            .strip_prefix(&format!("{}/", self.log.log))
            .ok_or_else(strange)?;
        if path == "checkpoint" {
            // The one that says how far the export goes is there already.
            return Ok(());
        }
        let sent: TilePath = path.parse().map_err(|_| strange())?;
        // The log may have grown since: what is exported is its beginning.
        let Some(wanted) = TilePath::in_log(sent.kind(), sent.index(), self.log.size) else {
            return Ok(());
        };
        if wanted.width() > sent.width() {
            return Err(strange());
        }
        let content = wanted.narrow(&file.content).map_err(|_| strange())?;
        self.folder.write(&self.path(&wanted), content)
    }

    /// Adds the hash tiles that follow from the entries where the party did not send them, and compares those that it did.
    fn complete(&self) -> Result<()> {
        if !self.log.is_whole() {
            return Ok(());
        }
        let mut writer = TileWriter::new();
        let mut index = 0;
        while let Some(bundle) = TilePath::in_log(TileKind::Entries, index, self.log.size) {
            let damaged = || {
                Error::unverified(
                    self.path(&bundle),
                    "it is no bundle of entries; remove it, and export again",
                )
            };
            let content = self.folder.read(&self.path(&bundle))?.ok_or_else(damaged)?;
            let entries = bundle.entries(&content).map_err(|_| damaged())?;
            let leaves = entries.into_iter().map(leaf_hash);
            for (path, content) in writer.append(leaves) {
                self.compare(&path, &content)?;
            }
            index += 1;
        }
        for (path, content) in writer.partial() {
            self.compare(&path, &content)?;
        }
        Ok(())
    }

    fn compare(&self, tile: &TilePath, content: &[u8]) -> Result<()> {
        let path = self.path(tile);
        match self.folder.read(&path)? {
            None => self.folder.write(&path, content),
            Some(found) if found == content => Ok(()),
            Some(_) => Err(Error::unverified(
                path,
                "its hashes are not those of the entries below; remove this log's folder, and export again",
            )),
        }
    }
}

/// Openings come in the order of their requests, and are put where their entries are.
async fn fetch_openings(folder: &Folder, client: &Client, export: &Export) -> Result<u64> {
    const PART: &str = ".part";
    let party = client.party();
    let whole = folder.0.join(party).join("openings");
    match fs::remove_dir_all(&whole) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            return Err(Folder::failed(&whole, cause));
        }
        _ => {}
    }
    let mut page_token = String::new();
    let mut paths = std::collections::BTreeSet::new();
    let mut count = 0;
    loop {
        let page = client.openings(page_token).await?;
        for opening in page.openings {
            let exported = export
                .logs
                .iter()
                .find(|log| log.party == party && log.log == opening.log);
            if exported.is_none_or(|log| !log.has(opening.index)) {
                continue;
            }
            let path = openings_path(party, opening.log, opening.index / u64::from(TILE_WIDTH))?;
            let mut line = opening.index.to_be_bytes().to_vec();
            line.extend(opening.json.len().to_be_bytes());
            line.extend(opening.json);
            folder.append(&format!("{path}{PART}"), &line)?;
            paths.insert(path);
            count += 1;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    for path in paths {
        let part = format!("{path}{PART}");
        let content = folder.read(&part)?.unwrap_or_default();
        folder.write(&path, &in_order(&content))?;
        let part = folder.0.join(part);
        fs::remove_file(&part).map_err(|cause| Folder::failed(&part, cause))?;
    }
    Ok(count)
}

/// Lines by index; each stands behind its index and length.
fn in_order(mut parts: &[u8]) -> Vec<u8> {
    let mut lines = std::collections::BTreeMap::new();
    while let Some((head, rest)) = parts.split_first_chunk::<16>() {
        let [index, length] = *head.as_chunks::<8>().0 else {
            break;
        };
        let length = usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX);
        let Some((line, rest)) = rest.split_at_checked(length) else {
            break;
        };
        lines.insert((u64::from_be_bytes(index), lines.len()), line);
        parts = rest;
    }
    lines
        .into_values()
        .flat_map(|line| [line, b"\n"])
        .flatten()
        .copied()
        .collect()
}
