//! `arca audit verify`

use std::io::{BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};

use arca_audit::note::{KeyKind, VerifierKey};
use arca_client::Error;
use arca_client::appraisal::Outcome;
use arca_client::audit::certificate::{self, CertificatePolicy, CertificateReport, Signed};
use arca_client::audit::finding::Severity;
use arca_client::audit::report::Report;
use arca_client::audit::{Directory, ExportPolicy, html, verify_export};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Context;
use crate::cli::evidence::{Bytes, bytes};
use crate::cli::output::Page;

#[derive(clap::Args)]
pub(crate) struct Verify {
    /// A certificate's file, or an export's folder
    path: PathBuf,
    /// Whom to trust [default: the profile]
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// An external witness that is trusted, as a C2SP verifier key; repeatable
    #[arg(long, value_name = "VKEY", value_parser = witness)]
    witness: Vec<VerifierKey>,
    /// How many of them have to have cosigned each checkpoint [default: all that are given]
    #[arg(long, value_name = "N", requires = "witness")]
    need_witnesses: Option<usize>,
    /// Of a certificate: the public key that has to have signed, the key's own and not one below it
    #[arg(long, value_name = "HEX", value_parser = bytes)]
    public_key: Option<Bytes>,
    /// Of an export: signatures found on a chain, each to be explained. JSON lines, `{"signature": HEX}`
    #[arg(long, value_name = "FILE")]
    chain_signatures: Option<PathBuf>,
    /// Of an export: also write the report as one page of HTML
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Of an export: stop at the first error, for scripts that need no report
    #[arg(long)]
    fail_fast: bool,
}

fn witness(text: &str) -> Result<VerifierKey, String> {
    let key: VerifierKey = text
        .parse()
        .map_err(|cause: arca_audit::Error| cause.to_string())?;
    if key.kind() == KeyKind::CosignatureV1 {
        Ok(key)
    } else {
        Err("it is a log's key and no witness'".to_owned())
    }
}

pub(crate) fn run(context: &Context, arguments: Verify) -> anyhow::Result<()> {
    let trust = super::trust(context, arguments.trust.as_ref())?;
    let needed = arguments.need_witnesses.unwrap_or(arguments.witness.len());
    if needed > arguments.witness.len() {
        return Err(Error::Input {
            subject: format!("--need-witnesses {needed}"),
            problem: format!("only {} are given", arguments.witness.len()),
        }
        .into());
    }
    let wrong = |flag: &str, what: &str| {
        Err(Error::Input {
            subject: flag.to_owned(),
            problem: format!("{} is {what}", arguments.path.display()),
        }
        .into())
    };
    if arguments.path.is_dir() {
        if arguments.public_key.is_some() {
            return wrong("--public-key", "an export");
        }
        return export(context, &arguments, &trust, needed);
    }
    if arguments.chain_signatures.is_some() || arguments.html.is_some() {
        return wrong("--chain-signatures, --html", "no export's folder");
    }
    let bytes = read(&arguments.path)?;
    let policy = CertificatePolicy {
        needed,
        witnesses: arguments.witness,
        public_key: arguments.public_key.map(|bytes| bytes.0),
    };
    let report = certificate::verify(&bytes, &trust, &policy);
    context.output.show(&report, |page| show(page, &report))?;
    match (&report.failed, report.verified) {
        (None, true) => Ok(()),
        (failed, _) => Err(Error::Unverified {
            object: arguments.path.display().to_string(),
            problem: format!("step {} failed", failed.as_deref().unwrap_or("unknown")),
        }
        .into()),
    }
}

fn unreadable(path: &Path, cause: &std::io::Error) -> Error {
    Error::Config {
        subject: path.display().to_string(),
        problem: format!("cannot be read: {cause}"),
        advice: "check the path".to_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    const MOST: u64 = 4 << 20;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST).read_to_end(&mut bytes))
        .map_err(|cause| unreadable(path, &cause))?;
    Ok(bytes)
}

/// Every step, then what was signed.
pub(crate) fn show(page: &mut Page, report: &CertificateReport) {
    page.heading("steps, in order");
    for check in &report.checks {
        let detail = check.detail.as_ref().map_or_else(String::new, |detail| {
            format!(": {}", detail.replace('\n', "; "))
        });
        let line = format!("{}{detail}", check.rule);
        match check.outcome {
            Outcome::Passed => page.check(true, &line),
            Outcome::Failed => page.check(false, &line),
            Outcome::NotAsked => page.no_check(&format!("{}: not asked{detail}", check.rule)),
            Outcome::NotReached => page.no_check(&format!("{}: not reached", check.rule)),
        }
    }
    page.line("");
    match &report.signed {
        Some(signed) => {
            page.heading("VERIFIED");
            page.fields(fields(signed));
        }
        None => page.heading(&format!(
            "NOT VERIFIED: step {} failed",
            report.failed.as_deref().unwrap_or("unknown")
        )),
    }
}

fn fields(signed: &Signed) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("cluster", signed.cluster.clone()),
        ("asked by", signed.initiator.clone()),
        ("what", signed.what.clone()),
        (
            "key",
            format!("{} at {}", signed.key, signed.derivation_path),
        ),
        ("signatures", signed.signatures.join("\n")),
    ];
    for by in &signed.parties {
        let runs = by
            .pcr0
            .as_ref()
            .map_or_else(String::new, |pcr0| format!("\nPCR 0 {pcr0}"));
        fields.push((
            "signed by",
            format!(
                "{}, class {}, {}{runs}\nentry {} of {}, cosigned by {}",
                by.party,
                by.class,
                by.time,
                by.index,
                by.size,
                by.cosigned.join(", ")
            ),
        ));
    }
    fields
}

fn export(
    context: &Context,
    arguments: &Verify,
    trust: &arca_client::audit::Trust,
    needed: usize,
) -> anyhow::Result<()> {
    let chain = match &arguments.chain_signatures {
        None => None,
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|cause| unreadable(path, &cause))?;
            Some(Box::new(BufReader::new(file)) as Box<dyn std::io::BufRead>)
        }
    };
    let policy = ExportPolicy {
        witnesses: arguments.witness.clone(),
        needed,
        chain,
        fail_fast: arguments.fail_fast,
    };
    let bar = bar(context, "verifying");
    let source = Directory::new(&arguments.path);
    let report = verify_export(&source, trust, policy, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    if let Some(path) = &arguments.html {
        std::fs::write(path, html::render(&report)).map_err(|cause| Error::Config {
            subject: path.display().to_string(),
            problem: format!("cannot be written: {cause}"),
            advice: "name another file".to_owned(),
        })?;
    }
    context
        .output
        .show(&report, |page| show_report(page, &report))?;
    if let Some(path) = &arguments.html {
        context
            .output
            .live(|page| page.line(format!("report: {}", path.display())))?;
    }
    if report.passed {
        return Ok(());
    }
    let first = report.findings.first();
    Err(Error::Unverified {
        object: arguments.path.display().to_string(),
        problem: format!(
            "{} errors, the first: {}",
            report.count(Severity::Error),
            first.map_or("", |finding| finding.message.as_str())
        ),
    }
    .into())
}

/// On a terminal, what is done and how long the rest will take.
pub(crate) fn bar(context: &Context, label: &str) -> ProgressBar {
    if context.output.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0).with_message(label.to_owned());
    let template = "{msg} {bar:30} {human_pos} of {human_len} entries, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A summary: totals, logs, findings.
pub(crate) fn show_report(page: &mut Page, report: &Report) {
    let totals = &report.totals;
    let mut fields = vec![("cluster", format!("{} ({})", report.cluster, report.kind))];
    if let Some(span) = &report.span {
        fields.push(("span", format!("{} to {}", span.from, span.to)));
    }
    fields.extend([
        (
            "entries",
            format!(
                "{}, in {} logs; {} hash tiles",
                totals.entries,
                report.logs.len(),
                totals.tiles
            ),
        ),
        ("evidence", format!("{} documents verify", totals.evidence)),
        (
            "sessions",
            format!(
                "{}: {} signed, {} failed, {} ended by a restart",
                totals.sessions, totals.signed, totals.failed, totals.ended_by_restart
            ),
        ),
        (
            "signatures",
            format!(
                "{}, of which {} were opened and verify",
                totals.signatures, totals.verified
            ),
        ),
        ("cross-checks", totals.cross_checks.to_string()),
    ]);
    if let Some(chain) = &report.chain {
        fields.push((
            "chain",
            format!(
                "{} of {} signatures explained",
                chain.explained, chain.given
            ),
        ));
    }
    page.fields(fields);
    page.line("");
    let rows: Vec<Vec<String>> = report
        .logs
        .iter()
        .map(|log| {
            let cosigned: Vec<&str> = log
                .cosigned
                .iter()
                .map(|(name, _)| {
                    let parts = name
                        .strip_suffix("/witness")
                        .and_then(|name| name.rsplit('/').next());
                    parts.unwrap_or(name)
                })
                .collect();
            vec![
                log.party.clone(),
                log.log.to_string(),
                log.class.clone(),
                log.size.to_string(),
                log.instance_count.to_string(),
                log.root.get(..12).unwrap_or_default().to_owned(),
                cosigned.join(", "),
            ]
        })
        .collect();
    page.table(
        &[
            "party",
            "log",
            "class",
            "entries",
            "starts",
            "root",
            "cosigned by",
        ],
        &rows,
    );
    page.line("");
    if report.findings.is_empty() {
        page.heading("findings: none");
    } else {
        page.heading("findings, the worst first");
    }
    const SHOWN: usize = 25;
    for finding in report.findings.iter().take(SHOWN) {
        let place = match (&finding.party, finding.log, finding.index) {
            (Some(party), Some(log), Some(index)) => format!(" {party}/{log} entry {index}:"),
            (Some(party), Some(log), None) => format!(" {party}/{log}:"),
            _ => String::new(),
        };
        let line = format!("{}:{place} {}", finding.code, finding.message);
        match finding.severity {
            Severity::Error => page.check(false, &line),
            severity => page.no_check(&format!("{} {line}", severity.as_str())),
        }
        page.line(format!("       what to do: {}", finding.remedy));
    }
    let shown: u64 = report.findings.len().min(SHOWN) as u64;
    let all: u64 = report.counts.iter().map(|count| count.count).sum();
    if all > shown {
        page.line(format!(
            "  and {} more; --html and --output json show them",
            all - shown
        ));
    }
    page.line("");
    let word = if report.passed {
        "VERIFIED"
    } else {
        "NOT VERIFIED"
    };
    page.heading(&format!("{word}: {}", report.sentence()));
}
