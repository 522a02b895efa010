//! `arca evidence`

use std::path::PathBuf;

use arca_attestation::{
    ArchiveExpected, ClusterKind, Error as Refusal, Expectation, Expected, Inspection,
    Measurements, ReferenceValues, TrustAnchors, TrustClass, inspect, verify_archive, verify_live,
};
use arca_client::{Error, clock, read_simulated_root};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::output::Page;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Verify a Nitro attestation document offline, and show what it says
    #[command(
        after_help = "Examples:\n  arca evidence verify attestation.cose --pcr0 HEX --pcr1 HEX --pcr2 HEX\n  \
                            arca evidence verify attestation.cose --any-measurements\n  \
                            arca evidence verify ceo.cose --simulated-root root/root.der --any-measurements --nonce HEX\n\n\
                            Without reference values a document says which code runs to nobody: it is refused unless \
                            --any-measurements says that only its authenticity is asked for. Values given with --nonce, \
                            --public-key and --user-data are compared; with --live all three are needed."
    )]
    Verify(Verify),
}

#[derive(clap::Args)]
pub(crate) struct Verify {
    /// The document: COSE_Sign1, tagged or not
    file: PathBuf,
    /// Judge certificates at the document's own time (the default)
    #[arg(long, conflicts_with = "live")]
    archive: bool,
    /// Judge the document at this machine's time: it has to be minutes old
    #[arg(long, requires_all = ["nonce", "public_key", "user_data"])]
    live: bool,
    /// Verify under the root.der of a simulated NSM instead of the AWS Nitro root
    #[arg(long, value_name = "FILE", visible_alias = "root")]
    simulated_root: Option<PathBuf>,
    /// The measurement of the enclave image file that is expected
    #[arg(long, value_name = "HEX", value_parser = pcr, requires_all = ["pcr1", "pcr2"])]
    pcr0: Option<Pcr>,
    /// That of kernel and bootstrap
    #[arg(long, value_name = "HEX", value_parser = pcr, requires_all = ["pcr0", "pcr2"])]
    pcr1: Option<Pcr>,
    /// That of the application
    #[arg(long, value_name = "HEX", value_parser = pcr, requires_all = ["pcr0", "pcr1"])]
    pcr2: Option<Pcr>,
    /// Accept whatever measurements the document has (never those of debug mode)
    #[arg(long, conflicts_with = "pcr0")]
    any_measurements: bool,
    /// The nonce that is expected
    #[arg(long, value_name = "HEX", value_parser = bytes)]
    nonce: Option<Bytes>,
    /// The public key that is expected
    #[arg(long, value_name = "HEX", value_parser = bytes)]
    public_key: Option<Bytes>,
    /// The user data that are expected
    #[arg(long, value_name = "HEX", value_parser = bytes)]
    user_data: Option<Bytes>,
}

#[derive(Clone)]
struct Pcr([u8; 48]);

#[derive(Clone)]
struct Bytes(Vec<u8>);

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    verified: bool,
    /// `nitro` or `simulated`: the root that it was verified under.
    trust_class: TrustClass,
    mode: &'static str,
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What the document claims; to be believed only when it is verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Shown>,
}

#[derive(Serialize)]
struct Check {
    check: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok,
    Failed,
    NotCompared,
    NotReached,
}

#[derive(Serialize)]
struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    time: String,
    pcrs: std::collections::BTreeMap<u8, String>,
    public_key: Option<String>,
    user_data: Option<String>,
    nonce: Option<String>,
    certificates: usize,
}

/// The checks in the verifier's order.
const CHECKS: [&str; 9] = [
    "strict CBOR, COSE_Sign1 with ES384",
    "every field within its bounds",
    "time within minutes of this machine's clock",
    "certificates from the pinned root to the leaf",
    "signature of the leaf over the payload",
    "not in debug mode",
    "measurements equal a reference value",
    "nonce",
    "public key and user data",
];

pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let Command::Verify(arguments) = command;
    let document = read(&arguments)?;
    let (kind, anchors) = match &arguments.simulated_root {
        Some(root) => (ClusterKind::Simulated, read_simulated_root(root)?),
        None => (ClusterKind::Production, TrustAnchors::production()),
    };
    context.output.set_simulated(kind == ClusterKind::Simulated);
    let inspection = inspect(&document);
    let outcome = match &inspection {
        Ok(inspection) => appraise(&arguments, &document, kind, &anchors, inspection),
        Err(refusal) => Err(refusal.clone()),
    };
    let report = Report {
        verified: outcome.is_ok(),
        trust_class: ReferenceValues::enclave(kind, Vec::new()).class(),
        mode: if arguments.live { "live" } else { "archive" },
        checks: checks(&arguments, outcome.as_ref().err()),
        problem: outcome.as_ref().err().map(ToString::to_string),
        document: inspection.ok().map(Shown::from),
        file: arguments.file.clone(),
    };
    context.output.show(&report, |page| render(page, &report))?;
    match outcome {
        Ok(()) => Ok(()),
        Err(refusal @ Refusal::NoReferenceValues) => Err(Error::Config {
            subject: arguments.file.display().to_string(),
            problem: format!("is authentic, and {refusal}"),
            advice: "give --pcr0, --pcr1 and --pcr2, or --any-measurements".to_owned(),
        }
        .into()),
        Err(refusal) => Err(Error::Unverified {
            object: arguments.file.display().to_string(),
            problem: refusal.to_string(),
        }
        .into()),
    }
}

fn appraise(
    arguments: &Verify,
    document: &[u8],
    kind: ClusterKind,
    anchors: &TrustAnchors,
    inspection: &Inspection,
) -> Result<(), Refusal> {
    let claimed = |index: u8| inspection.claimed_pcrs.get(&index).copied();
    let references: Vec<Measurements> = match (&arguments.pcr0, &arguments.pcr1, &arguments.pcr2) {
        (Some(pcr0), Some(pcr1), Some(pcr2)) => {
            vec![Measurements {
                pcr0: pcr0.0,
                pcr1: pcr1.0,
                pcr2: pcr2.0,
            }]
        }
        _ if arguments.any_measurements => match (claimed(0), claimed(1), claimed(2)) {
            (Some(pcr0), Some(pcr1), Some(pcr2)) => vec![Measurements { pcr0, pcr1, pcr2 }],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    let reference = ReferenceValues::enclave(kind, references);
    if let (true, Some(nonce), Some(public_key), Some(user_data)) = (
        arguments.live,
        &arguments.nonce,
        &arguments.public_key,
        &arguments.user_data,
    ) {
        let expected = Expected {
            reference: &reference,
            nonce: &nonce.0,
            public_key: &public_key.0,
            user_data: &user_data.0,
        };
        return verify_live(document, anchors, &expected, clock::now()).map(drop);
    }
    let expected = ArchiveExpected {
        reference: &reference,
        nonce: expectation(arguments.nonce.as_ref()),
        public_key: expectation(arguments.public_key.as_ref()),
        user_data: expectation(arguments.user_data.as_ref()),
    };
    verify_archive(document, anchors, &expected).map(drop)
}

fn expectation(bytes: Option<&Bytes>) -> Expectation<'_> {
    bytes.map_or(Expectation::NotCompared, |bytes| {
        Expectation::Equals(&bytes.0)
    })
}

/// Which of [`CHECKS`] a refusal belongs to.
fn failed_check(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::DocumentTooLarge { .. }
        | Refusal::Cbor { .. }
        | Refusal::NotCoseSign1
        | Refusal::ProtectedHeader
        | Refusal::UnprotectedHeader
        | Refusal::SignatureLength { .. } => 0,
        Refusal::MissingField { .. }
        | Refusal::FieldBounds { .. }
        | Refusal::DigestAlgorithm
        | Refusal::Timestamp
        | Refusal::PcrIndex
        | Refusal::PcrLength { .. } => 1,
        Refusal::TooOld { .. } | Refusal::FromTheFuture { .. } => 2,
        Refusal::UntrustedRoot { .. } | Refusal::Certificate { .. } => 3,
        Refusal::Signature => 4,
        Refusal::DebugMode | Refusal::MissingPcr { .. } => 5,
        Refusal::NoReferenceValues | Refusal::Measurements { .. } => 6,
        Refusal::NonceMissing
        | Refusal::NonceMismatch
        | Refusal::MissingExpectation { field: "nonce" } => 7,
        _ => 8,
    }
}

fn checks(arguments: &Verify, refusal: Option<&Refusal>) -> Vec<Check> {
    let failed = refusal.map(failed_check);
    let compared = |index: usize| match index {
        2 => arguments.live,
        6 => !arguments.any_measurements,
        7 => arguments.nonce.is_some(),
        8 => arguments.public_key.is_some() || arguments.user_data.is_some(),
        _ => true,
    };
    CHECKS
        .iter()
        .enumerate()
        .map(|(index, check)| Check {
            check,
            outcome: match failed {
                Some(failed) if failed == index => Outcome::Failed,
                Some(failed) if failed < index => Outcome::NotReached,
                _ if compared(index) => Outcome::Ok,
                _ => Outcome::NotCompared,
            },
        })
        .collect()
}

impl From<Inspection> for Shown {
    fn from(inspection: Inspection) -> Self {
        Self {
            module_id: inspection.claimed_module_id,
            token: inspection.claimed_token.as_ref().map(ToString::to_string),
            time: clock::show(inspection.claimed_timestamp),
            pcrs: inspection
                .claimed_pcrs
                .iter()
                .map(|(index, pcr)| (*index, hex::encode(pcr)))
                .collect(),
            public_key: inspection.claimed_public_key.map(hex::encode),
            user_data: inspection.claimed_user_data.map(hex::encode),
            nonce: inspection.claimed_nonce.map(hex::encode),
            certificates: inspection.claimed_path.len(),
        }
    }
}

fn render(page: &mut Page, report: &Report) {
    for check in &report.checks {
        match check.outcome {
            Outcome::Ok => page.check(true, check.check),
            Outcome::Failed => page.check(false, check.check),
            Outcome::NotCompared => page.line(format!("  -    {}: not compared", check.check)),
            Outcome::NotReached => page.line(format!("  -    {}: not reached", check.check)),
        }
    }
    if let Some(document) = &report.document {
        page.line("");
        page.heading(if report.verified {
            "the document says"
        } else {
            "the document claims (not verified)"
        });
        let or_absent =
            |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        let of_the_class = [("module", &document.module_id), ("token", &document.token)]
            .into_iter()
            .filter_map(|(label, value)| Some((label, value.clone()?)));
        let of_every_class = [
            ("made", document.time.clone()),
            ("nonce", or_absent(&document.nonce)),
            ("public key", or_absent(&document.public_key)),
            ("user data", or_absent(&document.user_data)),
            ("certificates", document.certificates.to_string()),
        ];
        page.fields(of_the_class.chain(of_every_class));
        for (index, pcr) in &document.pcrs {
            // Unused registers are all zero and say nothing.
            if *index < 3 || pcr.bytes().any(|digit| digit != b'0') {
                page.fields([("pcr         ", format!("{index:2} {pcr}"))]);
            }
        }
        page.line("");
    }
    if report.verified {
        page.line(format!(
            "verified, class {}, {} mode",
            report.trust_class, report.mode
        ));
    }
}

fn read(arguments: &Verify) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let failed = |cause: std::io::Error| Error::Config {
        subject: arguments.file.display().to_string(),
        problem: format!("cannot be read: {cause}"),
        advice: "check the path".to_owned(),
    };
    let mut document = Vec::new();
    // The verifier refuses everything above 16 KiB by itself, with its own words.
    std::fs::File::open(&arguments.file)
        .map_err(failed)?
        .take(1 << 20)
        .read_to_end(&mut document)
        .map_err(failed)?;
    Ok(document)
}

fn pcr(text: &str) -> Result<Pcr, String> {
    let bytes = hex::decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(Pcr)
        .ok_or_else(|| "is not 96 hex digits".to_owned())
}

fn bytes(text: &str) -> Result<Bytes, String> {
    match hex::decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(Bytes(bytes)),
        _ => Err("is not hex, or empty".to_owned()),
    }
}
