//! `arca bench audit`: the log by itself, an export of a million entries and its verification, and what a certificate is
//! made of.

use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arca_audit::certificate::Certificate;
use arca_audit::reader::TileReader;
use arca_audit::writer::{TileWriter, Tiles};
use arca_audit::{leaf_hash, verify_inclusion};
use arca_client::Error;
use arca_client::audit::certificate::{CertificatePolicy, verify};
use arca_client::audit::sample::{PACE_MS, Plan, Sample};
use arca_client::audit::{Directory, ExportPolicy, verify_export};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::output::Page;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  arca bench audit\n  arca bench audit --entries 100000 --certificate payment.cert.json --output json\n\n\
                  A made-up cluster of three parties writes logs as real ones are: entries, tiles, checkpoints, cosignatures. \
                  One thread. Exports are written to a temporary folder (TMPDIR) and removed."
)]
pub(super) struct Arguments {
    /// Entries of the large export, over all three logs
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    entries: u64,
    /// Sessions of the export in which each is opened
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    opened: u64,
    /// Also say what this certificate is made of
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
}

#[derive(Serialize)]
struct Bench {
    version: &'static str,
    optimised: bool,
    log: Log,
    large: Export,
    opened: Export,
    certificates: Vec<Measured>,
}

/// Operations a second, each in memory.
#[derive(Serialize)]
struct Log {
    size: u64,
    append_per_second: f64,
    prove_per_second: f64,
    verify_per_second: f64,
}

#[derive(Serialize)]
struct Export {
    entries: u64,
    openings: u64,
    bytes: u64,
    files: u64,
    written_s: f64,
    verified_s: f64,
    entries_per_second: f64,
    /// The largest resident set of this process so far, in MiB.
    peak_mib: u64,
}

#[derive(Serialize)]
struct Measured {
    name: String,
    bytes: usize,
    parts: Vec<(String, usize)>,
    verified_ms: Option<f64>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let sample = Sample::new()?;
    let log = log(200_000)?;
    context.output.live(|page| render_log(page, &log))?;
    // Before the large one, which would hide its peak.
    let plan = Plan {
        sessions: arguments.opened,
        openings: true,
        restart_every: 1000,
        pace_ms: PACE_MS,
    };
    let opened = export(context, &sample, &plan)?;
    context
        .output
        .live(|page| render_export(page, "each session opened", &opened))?;
    let plan = Plan {
        sessions: arguments.entries / 4,
        openings: false,
        restart_every: 10_000,
        pace_ms: PACE_MS,
    };
    let large = export(context, &sample, &plan)?;
    context
        .output
        .live(|page| render_export(page, "no openings", &large))?;
    let mut certificates = vec![made(&sample)?];
    if let Some(path) = &arguments.certificate {
        certificates.push(given(path)?);
    }
    context
        .output
        .live(|page| render_certificates(page, &certificates))?;
    let bench = Bench {
        version: env!("CARGO_PKG_VERSION"),
        optimised: !cfg!(debug_assertions),
        log,
        large,
        opened,
        certificates,
    };
    // For people it has all been shown as it came.
    if context.output.is_json() {
        context.output.show(&bench, |_| ())?;
    }
    Ok(())
}

/// Appends entries of usual length, proves some from tiles in memory, verifies those.
fn log(size: u64) -> anyhow::Result<Log> {
    let entry = |index: u64| {
        let mut entry = vec![0x61; 600];
        let place = entry.iter_mut().zip(index.to_be_bytes());
        place.for_each(|(to, from)| *to = from);
        leaf_hash(&entry)
    };
    let started = Instant::now();
    let mut writer = TileWriter::new();
    let mut tiles = Tiles::new();
    for index in 0..size {
        tiles.extend(writer.append([entry(index)]));
    }
    tiles.extend(writer.partial());
    let root = writer.tree().root();
    let append_per_second = per_second(size, started);

    const PROOFS: u64 = 1000;
    let started = Instant::now();
    let proofs = (0..PROOFS)
        .map(|place| {
            let index = place * (size / PROOFS);
            let proof = TileReader::inclusion(index, size)?.make(&tiles)?;
            Ok((index, proof))
        })
        .collect::<Result<Vec<_>, arca_audit::Error>>()?;
    let prove_per_second = per_second(PROOFS, started);
    let started = Instant::now();
    for _ in 0..20 {
        for (index, proof) in &proofs {
            verify_inclusion(&root, size, *index, &entry(*index), proof)?;
        }
    }
    Ok(Log {
        size,
        append_per_second,
        prove_per_second,
        verify_per_second: per_second(20 * PROOFS, started),
    })
}

#[allow(clippy::cast_precision_loss)]
fn per_second(count: u64, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64().max(1e-9)
}

fn export(context: &Context, sample: &Sample, plan: &Plan) -> anyhow::Result<Export> {
    let folder = tempfile::tempdir()?;
    let started = Instant::now();
    let (mut bytes, mut files) = (0, 0);
    let bar = crate::cli::audit::bar(context, "writing");
    bar.set_length(plan.sessions * 4);
    let mut sink = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        bytes += content.len() as u64;
        files += 1;
        let mut file = BufWriter::new(fs::File::create(path)?);
        std::io::Write::write_all(&mut file, content)?;
        std::io::Write::flush(&mut file)
    };
    sample.write(plan, &mut sink, |sessions| bar.set_position(sessions * 4))?;
    bar.finish_and_clear();
    let written_s = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let bar = crate::cli::audit::bar(context, "verifying");
    let source = Directory::new(folder.path());
    let report = verify_export(
        &source,
        &sample.trust()?,
        ExportPolicy::default(),
        |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        },
    )?;
    bar.finish_and_clear();
    if !report.passed {
        return Err(Error::Bug("a sound export does not verify".to_owned()).into());
    }
    let entries = report.totals.entries;
    Ok(Export {
        entries,
        openings: report.totals.verified,
        bytes,
        files,
        written_s,
        entries_per_second: per_second(entries, started),
        verified_s: started.elapsed().as_secs_f64(),
        peak_mib: peak_mib().unwrap_or(0),
    })
}

/// `VmHWM` of this process.
fn peak_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// One of the made-up cluster, verified.
fn made(sample: &Sample) -> anyhow::Result<Measured> {
    let bytes = sample.certificate(1000)?;
    let trust = sample.trust()?;
    let policy = CertificatePolicy::default();
    const TIMES: u32 = 50;
    let started = Instant::now();
    for _ in 0..TIMES {
        if !verify(&bytes, &trust, &policy).verified {
            return Err(Error::Bug("a sound certificate does not verify".to_owned()).into());
        }
    }
    let verified_ms = started.elapsed().as_secs_f64() * 1000.0 / f64::from(TIMES);
    let mut measured = parts("made up, two parties of class hsm".to_owned(), &bytes)?;
    measured.verified_ms = Some(verified_ms);
    Ok(measured)
}

fn given(path: &Path) -> anyhow::Result<Measured> {
    let bytes = fs::read(path).map_err(|cause| Error::Config {
        subject: path.display().to_string(),
        problem: format!("cannot be read: {cause}"),
        advice: "check the path".to_owned(),
    })?;
    parts(path.display().to_string(), &bytes)
}

/// Each part as it stands in the file.
fn parts(name: String, bytes: &[u8]) -> anyhow::Result<Measured> {
    let certificate = Certificate::decode(bytes).map_err(|cause| Error::Unverified {
        object: name.clone(),
        problem: cause.to_string(),
    })?;
    let mut parts = vec![
        ("request".to_owned(), length(&certificate.request)),
        ("key".to_owned(), length(&certificate.key)),
        ("signatures".to_owned(), length(&certificate.signatures)),
        ("manifest".to_owned(), length(&certificate.manifest)),
    ];
    for party in &certificate.parties {
        let of = |what: &str| format!("{}: {what}", party.party);
        parts.push((of("evidence"), length(&party.evidence)));
        parts.push((of("entry"), length(&party.entry)));
        parts.push((of("proof and checkpoint"), length(&party.proof)));
    }
    let named: usize = parts.iter().map(|(_, length)| length).sum();
    parts.push(("the rest".to_owned(), bytes.len().saturating_sub(named)));
    Ok(Measured {
        name,
        bytes: bytes.len(),
        parts,
        verified_ms: None,
    })
}

/// How long something is as JSON.
fn length(part: &impl Serialize) -> usize {
    serde_json::to_vec(part).map_or(0, |json| json.len())
}

fn render_log(page: &mut Page, log: &Log) {
    page.heading("the log, in memory, one thread");
    let rate = |rate: f64| format!("{rate:.0} per second");
    page.fields([
        (
            "append",
            format!("{} (600-byte entries)", rate(log.append_per_second)),
        ),
        (
            "prove",
            format!("{} (log of {})", rate(log.prove_per_second), log.size),
        ),
        ("verify", rate(log.verify_per_second)),
    ]);
    page.line("");
}

fn render_export(page: &mut Page, name: &str, export: &Export) {
    page.heading(&format!("export, {name}"));
    page.fields([
        ("entries", format!("{}, of three logs", export.entries)),
        ("openings", export.openings.to_string()),
        (
            "size",
            format!("{} MiB in {} files", export.bytes >> 20, export.files),
        ),
        ("written", format!("{:.1} s", export.written_s)),
        (
            "verified",
            format!(
                "{:.1} s, {:.0} entries per second",
                export.verified_s, export.entries_per_second
            ),
        ),
        ("peak memory", format!("{} MiB", export.peak_mib)),
    ]);
    page.line("");
}

fn render_certificates(page: &mut Page, certificates: &[Measured]) {
    for certificate in certificates {
        page.heading(&format!("certificate, {}", certificate.name));
        let mut rows: Vec<Vec<String>> = certificate
            .parts
            .iter()
            .map(|(name, bytes)| vec![name.clone(), bytes.to_string()])
            .collect();
        rows.push(vec!["all".to_owned(), certificate.bytes.to_string()]);
        page.table(&["part", "bytes"], &rows);
        if let Some(ms) = certificate.verified_ms {
            page.line(format!("verified in {ms:.1} ms"));
        }
        page.line("");
    }
}
