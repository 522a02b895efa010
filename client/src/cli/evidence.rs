//! `arca evidence`

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use arca_attestation::{ClusterKind, Measurements, ReferenceValues, TrustAnchors, TrustClass};
use arca_client::appraisal::{
    Appraisal, Certificate, Document, Outcome, Question, Reference, Verdict, appraise,
};
use arca_client::{Error, clock, enroll, hsm, read_simulated_root};
use bitcoin::base64::Engine as _;
use bitcoin::base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::cli::Context;
use crate::cli::output::{Page, class_shown};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Verify a Nitro attestation document offline: every check, every field
    #[command(
        after_help = "Examples:\n  arca evidence verify attestation.cose --pcr0 HEX --pcr1 HEX --pcr2 HEX\n  \
                            arca evidence verify attestation.cose --measurements measurements.json --pcr 8=HEX\n  \
                            base64 attestation.cose | arca evidence verify - --no-reference-values\n  \
                            arca evidence verify ceo.cose --simulated-root root/root.der --measurements measurements.json \\\n    \
                            --nonce HEX --user-data HEX --public-key ceo.spki.der\n\n\
                            The document is raw CBOR (COSE_Sign1), or that in base64 or hex. It is verified under the AWS Nitro \
                            root that is part of this program; --simulated-root names another one, and then everything that is \
                            printed says so.\n\n\
                            Checks are made in the order shown, and the first that fails refuses the document: exit code 5. \
                            Without reference values (--pcr0 to --pcr2, or --measurements) a document says which code runs to \
                            nobody, and is refused with exit code 3, unless --no-reference-values asks for its authenticity \
                            alone: the end of the report then says AUTHENTIC and not VERIFIED. What is not given with --nonce, \
                            --public-key and --user-data is not compared; --live needs all three, since a document that is \
                            bound to nothing can be as fresh as one likes and come from somebody else."
    )]
    Verify(Box<Verify>),
}

#[derive(clap::Args)]
pub(crate) struct Verify {
    /// The document, or `-` for standard input
    file: PathBuf,
    /// Judge certificates at the document's own time (the default)
    #[arg(long, conflicts_with = "live")]
    archive: bool,
    /// Judge the document at this machine's time: it has to be minutes old
    #[arg(long, requires_all = ["nonce", "public_key", "user_data"])]
    live: bool,
    /// Verify under the root.der of a simulated NSM instead of the AWS Nitro root
    #[arg(long, value_name = "FILE")]
    simulated_root: Option<PathBuf>,
    /// The document is evidence of an HSM, and this (DER or PEM) a root that certifies its identity key; repeatable
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["simulated_root", "pcr0", "measurements", "no_reference_values", "further_pcrs"])]
    hsm_root: Vec<PathBuf>,
    /// The measurement of the enclave image file that is expected
    #[arg(long, value_name = "HEX", value_parser = pcr, requires_all = ["pcr1", "pcr2"])]
    pcr0: Option<Pcr>,
    /// That of kernel and bootstrap
    #[arg(long, value_name = "HEX", value_parser = pcr, requires_all = ["pcr0", "pcr2"])]
    pcr1: Option<Pcr>,
    /// That of the application
    #[arg(long, value_name = "HEX", value_parser = pcr, requires_all = ["pcr0", "pcr1"])]
    pcr2: Option<Pcr>,
    /// The value that a further PCR has to have, 3 to 31; repeatable
    #[arg(long = "pcr", value_name = "N=HEX", value_parser = further_pcr)]
    further_pcrs: Vec<(u8, Pcr)>,
    /// PCR 0, 1 and 2 from a file: the output of the image's build. Repeatable: one of them is enough
    #[arg(long, value_name = "FILE", conflicts_with = "pcr0")]
    measurements: Vec<PathBuf>,
    /// Do not compare PCR 0, 1 and 2 with anything: whatever runs there, except in debug mode
    #[arg(long, conflicts_with_all = ["pcr0", "measurements"])]
    no_reference_values: bool,
    /// The nonce that is expected
    #[arg(long, value_name = "HEX", value_parser = bytes)]
    nonce: Option<Bytes>,
    /// The public key that is expected, or a file with it (DER as it is, or PEM)
    #[arg(long, value_name = "HEX|FILE")]
    public_key: Option<String>,
    /// The user data that are expected
    #[arg(long, value_name = "HEX", value_parser = bytes)]
    user_data: Option<Bytes>,
}

#[derive(Clone)]
struct Pcr([u8; 48]);

#[derive(Clone)]
pub(crate) struct Bytes(pub Vec<u8>);

/// What is shown about one document.
#[derive(Serialize)]
struct Report {
    file: PathBuf,
    encoding: &'static str,
    size: usize,
    /// SHA-256 of the document, decoded.
    sha256: String,
    mode: &'static str,
    /// Only when the measurements were compared too.
    verified: bool,
    #[serde(flatten)]
    appraisal: Appraisal,
}

pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let Command::Verify(arguments) = command;
    let (kind, anchors) = match &arguments.simulated_root {
        Some(root) => (ClusterKind::Simulated, read_simulated_root(root)?),
        None => (ClusterKind::Production, TrustAnchors::production()),
    };
    let values = if arguments.hsm_root.is_empty() {
        context.output.set_simulated(kind == ClusterKind::Simulated);
        ReferenceValues::enclave(kind, measurements(&arguments)?)
    } else {
        let roots = arguments.hsm_root.iter().map(|root| hsm::read_root(root));
        ReferenceValues::Hsm(roots.collect::<Result<_, _>>()?)
    };
    let further_pcrs = further_pcrs(&arguments)?;
    let public_key = arguments
        .public_key
        .as_deref()
        .map(public_key)
        .transpose()?;
    let (document, encoding) = read(&arguments.file)?;
    let question = Question {
        anchors: &anchors,
        reference: if arguments.no_reference_values {
            Reference::AnyEnclave(kind)
        } else {
            Reference::Values(&values)
        },
        further_pcrs: &further_pcrs,
        nonce: arguments.nonce.as_ref().map(|bytes| bytes.0.as_slice()),
        public_key: public_key.as_deref(),
        user_data: arguments.user_data.as_ref().map(|bytes| bytes.0.as_slice()),
        now: arguments.live.then(clock::now),
    };
    let appraisal = appraise(&document, &question);
    let report = Report {
        file: arguments.file.clone(),
        encoding,
        size: document.len(),
        sha256: hex::encode(Sha256::digest(&document)),
        mode: if arguments.live { "live" } else { "archive" },
        verified: appraisal.verdict == Verdict::Verified,
        appraisal,
    };
    context.output.show(&report, |page| {
        page.fields([
            ("document", report.file.display().to_string()),
            (
                "encoding",
                format!("{}, {} bytes", report.encoding, report.size),
            ),
            ("sha-256", report.sha256.clone()),
            ("mode", report.mode.to_owned()),
        ]);
        page.line("");
        show(page, &report.appraisal);
    })?;
    refuse(&report.file.display().to_string(), &report.appraisal)
}

/// The error that a refused document ends with.
pub(crate) fn refuse(subject: &str, appraisal: &Appraisal) -> anyhow::Result<()> {
    let Some(problem) = &appraisal.problem else {
        return Ok(());
    };
    if appraisal.lacks_reference_values {
        return Err(Error::Config {
            subject: subject.to_owned(),
            problem: format!("is authentic, and {problem}"),
            advice: "give --pcr0, --pcr1 and --pcr2, or --measurements; --no-reference-values asks for its \
                     authenticity alone"
                .to_owned(),
        }
        .into());
    }
    let of_hsm = appraisal
        .document
        .as_ref()
        .is_some_and(|document| document.token.is_some());
    let hint = if of_hsm && appraisal.trust_class != TrustClass::Hsm {
        "; this is evidence of an HSM: name its root with --hsm-root"
    } else {
        ""
    };
    let check = appraisal
        .failed()
        .map_or("a check", |check| check.rule.as_str());
    Err(Error::Unverified {
        object: subject.to_owned(),
        problem: format!("{problem} (failed: {check}){hint}"),
    }
    .into())
}

/// Checks, fields, verdict.
pub(crate) fn show(page: &mut Page, appraisal: &Appraisal) {
    page.heading("checks, in order");
    for check in &appraisal.checks {
        let detail = check
            .detail
            .as_ref()
            .map_or_else(String::new, |detail| format!(": {detail}"));
        match check.outcome {
            Outcome::Passed => page.check(true, &format!("{}{detail}", check.rule)),
            Outcome::Failed => page.check(false, &format!("{}{detail}", check.rule)),
            Outcome::NotAsked => page.no_check(&format!("{}: not asked{}", check.rule, detail)),
            Outcome::NotReached => page.no_check(&format!("{}: not reached", check.rule)),
        }
    }
    if let Some(document) = &appraisal.document {
        page.line("");
        page.heading(if appraisal.verdict == Verdict::Refused {
            "the document claims (NOT VERIFIED: anybody can write this)"
        } else {
            "the document says"
        });
        fields(page, document);
    }
    page.line("");
    let class = match appraisal.trust_class {
        TrustClass::Simulated => "class SIMULATED: no hardware vouches for it".to_owned(),
        class => format!("class {}", class_shown(class)),
    };
    match appraisal.verdict {
        Verdict::Verified => page.heading(&format!("VERIFIED, {class}")),
        Verdict::Authentic => page.heading(&format!(
            "AUTHENTIC, {class}; measurements NOT COMPARED: this does not say that the right code runs"
        )),
        Verdict::Refused => page.heading(&format!(
            "REFUSED: {}",
            appraisal.problem.as_deref().unwrap_or_default()
        )),
    }
}

fn fields(page: &mut Page, document: &Document) {
    let or_absent = |value: &Option<String>| match value {
        None => "absent".to_owned(),
        Some(hex) if hex.is_empty() => "empty".to_owned(),
        Some(hex) => format!("{hex} ({} bytes)", hex.len() / 2),
    };
    let token = document.token.as_ref().map(|token| {
        format!(
            "{} {}, serial {}, firmware {} (what it says of itself)",
            token.manufacturer, token.model, token.serial, token.firmware
        )
    });
    let own = [
        ("module", document.module_id.clone()),
        ("token", token),
        ("made", Some(document.time.clone())),
        ("digest", document.digest.map(str::to_owned)),
    ];
    let own = own
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    page.fields(own.chain([
        ("nonce", or_absent(&document.nonce)),
        ("public key", or_absent(&document.public_key)),
        ("user data", or_absent(&document.user_data)),
    ]));
    for (index, pcr) in &document.pcrs {
        let value = if pcr.bytes().all(|digit| digit == b'0') {
            "all zero".to_owned()
        } else {
            pcr.clone()
        };
        page.fields([("pcr       ", format!("{index:2} {value}"))]);
    }
    for certificate in &document.certificates {
        let Certificate {
            position,
            subject,
            issuer,
            serial,
            not_before,
            not_after,
            sha256,
        } = certificate;
        let or_unreadable =
            |value: &Option<String>| value.clone().unwrap_or_else(|| "unreadable".to_owned());
        page.line(format!("certificate {position}"));
        page.fields([
            ("  subject", or_unreadable(subject)),
            ("  issuer", or_unreadable(issuer)),
            ("  serial", or_unreadable(serial)),
            (
                "  valid",
                format!(
                    "{} to {}",
                    or_unreadable(not_before),
                    or_unreadable(not_after)
                ),
            ),
            ("  sha-256", sha256.clone()),
        ]);
    }
}

fn measurements(arguments: &Verify) -> Result<Vec<Measurements>, Error> {
    if let (Some(pcr0), Some(pcr1), Some(pcr2)) =
        (&arguments.pcr0, &arguments.pcr1, &arguments.pcr2)
    {
        return Ok(vec![Measurements {
            pcr0: pcr0.0,
            pcr1: pcr1.0,
            pcr2: pcr2.0,
        }]);
    }
    arguments
        .measurements
        .iter()
        .map(|path| enroll::read_measurements(path))
        .collect()
}

fn further_pcrs(arguments: &Verify) -> Result<BTreeMap<u8, [u8; 48]>, Error> {
    let mut further = BTreeMap::new();
    for (index, value) in &arguments.further_pcrs {
        if further.insert(*index, value.0).is_some() {
            return Err(Error::Input {
                subject: format!("--pcr {index}"),
                problem: "was given twice".to_owned(),
            });
        }
    }
    Ok(further)
}

/// Hexadecimal, or a file of DER or PEM.
fn public_key(text: &str) -> Result<Vec<u8>, Error> {
    if let Ok(Bytes(key)) = bytes(text) {
        return Ok(key);
    }
    let unusable = |problem: String| Error::Config {
        subject: format!("--public-key {text}"),
        problem,
        advice: "give the key in hex, or a file with its DER or PEM".to_owned(),
    };
    let mut key = Vec::new();
    std::fs::File::open(text)
        .and_then(|file| file.take(MAX_INPUT).read_to_end(&mut key))
        .map_err(|cause| {
            unusable(format!(
                "is neither hex nor a file that can be read: {cause}"
            ))
        })?;
    hsm::public_key_der(&key).ok_or_else(|| unusable("is no DER or PEM of a public key".to_owned()))
}

/// No document is longer, in whatever encoding.
const MAX_INPUT: u64 = 1 << 20;

/// The document, and how it was encoded. Whether it is one is the verifier's question.
fn read(file: &Path) -> Result<(Vec<u8>, &'static str), Error> {
    let failed = |cause: std::io::Error| Error::Config {
        subject: file.display().to_string(),
        problem: format!("cannot be read: {cause}"),
        advice: "check the path".to_owned(),
    };
    let mut input = Vec::new();
    if file.as_os_str() == "-" {
        let stdin = std::io::stdin().lock();
        stdin.take(MAX_INPUT).read_to_end(&mut input)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_INPUT).read_to_end(&mut input))
    }
    .map_err(failed)?;
    Ok(decode(input))
}

/// A document's first byte is no ASCII character, so that its encodings cannot be confused.
fn decode(input: Vec<u8>) -> (Vec<u8>, &'static str) {
    if input.is_ascii() {
        let text: String = input
            .iter()
            .filter(|byte| !byte.is_ascii_whitespace())
            .map(|byte| char::from(*byte))
            .collect();
        if let Ok(document) = hex::decode(&text) {
            return (document, "hex");
        }
        if let Ok(document) = STANDARD.decode(&text) {
            return (document, "base64");
        }
    }
    (input, "cbor")
}

fn pcr(text: &str) -> Result<Pcr, String> {
    let bytes = hex::decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(Pcr)
        .ok_or_else(|| "is not 96 hex digits".to_owned())
}

fn further_pcr(text: &str) -> Result<(u8, Pcr), String> {
    let (index, value) = text.split_once('=').ok_or("is not N=HEX")?;
    match index.parse() {
        Ok(index @ 3..=31) => Ok((index, pcr(value)?)),
        Ok(0..=2) => Err("PCR 0, 1 and 2 have options of their own".to_owned()),
        _ => Err("the index is not 3 to 31".to_owned()),
    }
}

pub(crate) fn bytes(text: &str) -> Result<Bytes, String> {
    match hex::decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(Bytes(bytes)),
        _ => Err("is not hex, or empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_in_each_encoding() {
        let document = vec![0xd2, 0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xff];
        assert_eq!(decode(document.clone()), (document.clone(), "cbor"));
        let hexadecimal = format!("{}\n", hex::encode_upper(&document));
        assert_eq!(decode(hexadecimal.into_bytes()), (document.clone(), "hex"));
        let mut base64 = STANDARD.encode(&document);
        base64.insert_str(4, "\r\n");
        assert_eq!(decode(base64.into_bytes()), (document, "base64"));
        assert_eq!(decode(b"nonsense!".to_vec()).1, "cbor");
    }
}
