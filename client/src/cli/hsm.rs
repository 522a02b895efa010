//! `arca hsm`: the authority that certifies the identity keys of HSM parties.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use arca_client::hsm::{Authority, Request};
use arca_client::{Error, clock};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::cli::Context;
use crate::cli::output::clean;
use crate::cli::party::write_new;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Make a root for the identity keys of HSM parties (P-384)
    #[command(
        after_help = "Examples:\n  arca hsm make-root ./hsm-root\n  arca hsm make-root ./hsm-root --name 'ACME HSM root' --years 20\n\n\
                      Writes hsm-root.key (PKCS#8, readable by nobody else) and hsm-root.pem, which goes into the manifest: \
                      `arca party enroll draft --hsm-root`. Whoever has the key can make a party out of any key pair, so that \
                      it proves nothing about hardware any more. This is for test organisations and small ones: keep the \
                      folder on a machine without a network, or better use the authority that your organisation keeps in \
                      an HSM. Certificates of openssl and others are as good: P-384, ECDSA with SHA-384, CA:TRUE with \
                      keyCertSign above, digitalSignature below."
    )]
    MakeRoot {
        /// Folder for key and certificate
        dir: PathBuf,
        /// The root's name
        #[arg(long, default_value = "Arca HSM root")]
        name: String,
        /// How long the root is valid
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=50))]
        years: u16,
    },
    /// Certify the identity key of an HSM party
    #[command(
        after_help = "Examples:\n  arca hsm certify --root ./hsm-root ceo.csr > ceo-chain.pem\n  \
                      arca hsm certify --root ./hsm-root ceo.csr ceo-chain.pem --days 365 --fingerprint HEX\n\n\
                      The request is what `arca-enclave-hsm request` makes in the token (PKCS#10). It shows that whoever made \
                      it can use the key, and not where the key is: have the people of the key ceremony read out its \
                      fingerprint, and give it with --fingerprint. The answer, certificate and root, goes into \
                      `certificates` of the party's enclave.toml. Once it expires the party's evidence is refused: certify \
                      the same request again before."
    )]
    Certify {
        /// Folder that `arca hsm make-root` wrote
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// The request, PEM or DER; `-` for standard input
        request: PathBuf,
        /// New file for the certificates [default: standard output]
        chain: Option<PathBuf>,
        /// How long the certificate is valid
        #[arg(long, default_value_t = 730, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: u16,
        /// SHA-256 that the key has to have
        #[arg(long, value_name = "HEX", value_parser = fingerprint)]
        fingerprint: Option<[u8; 32]>,
    },
}

#[derive(Serialize)]
struct Made {
    certificate: PathBuf,
    sha256: String,
    not_after: String,
}

#[derive(Serialize)]
struct Issued {
    subject: String,
    key_sha256: String,
    serial: String,
    not_after: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_to: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::MakeRoot { dir, name, years } => {
            let authority = Authority::create(&name, years.saturating_mul(365))?;
            let made = Made {
                certificate: authority.save(&dir)?,
                sha256: hex::encode(Sha256::digest(authority.certificate_der()?)),
                not_after: clock::show(authority.not_after()),
            };
            context.output.show(&made, |page| {
                page.fields([
                    ("root", made.certificate.display().to_string()),
                    ("sha-256", made.sha256.clone()),
                    ("valid until", made.not_after.clone()),
                ]);
                page.line("next: arca hsm certify --help");
            })
        }
        Command::Certify {
            root,
            request,
            chain,
            days,
            fingerprint,
        } => certify(context, &root, &request, chain, days, fingerprint),
    }
}

fn certify(
    context: &Context,
    root: &Path,
    request: &Path,
    chain: Option<PathBuf>,
    days: u16,
    fingerprint: Option<[u8; 32]>,
) -> anyhow::Result<()> {
    let authority = Authority::load(root)?;
    let request = Request::parse(&read(request)?)?;
    if let Some(expected) = fingerprint.filter(|expected| *expected != request.fingerprint()) {
        return Err(Error::Unverified {
            object: "certification request".to_owned(),
            problem: format!(
                "its key has the fingerprint {}, expected was {}",
                hex::encode(request.fingerprint()),
                hex::encode(expected)
            ),
        }
        .into());
    }
    let certified = authority.certify(&request, days)?;
    if let Some(path) = &chain {
        write_new(path, certified.chain.as_bytes())?;
    }
    let issued = Issued {
        subject: certified.subject,
        key_sha256: hex::encode(certified.key_fingerprint),
        serial: certified.serial,
        not_after: clock::show(certified.not_after),
        chain: chain.is_none().then_some(certified.chain),
        written_to: chain,
    };
    if let (Some(pem), false) = (&issued.chain, context.output.is_json()) {
        // Standard output is the certificates alone, to be redirected.
        eprintln!(
            "certified {}, key {}, until {}",
            clean(&issued.subject),
            issued.key_sha256,
            issued.not_after
        );
        std::io::stdout().lock().write_all(pem.as_bytes())?;
        return Ok(());
    }
    context.output.show(&issued, |page| {
        page.fields([
            ("subject", issued.subject.clone()),
            ("key", format!("sha-256 {}", issued.key_sha256)),
            ("serial", issued.serial.clone()),
            ("valid until", issued.not_after.clone()),
        ]);
        if let Some(path) = &issued.written_to {
            page.fields([("written to ", path.display().to_string())]);
        }
    })
}

/// Requests are some 600 bytes long.
const MAX_REQUEST: u64 = 64 * 1024;

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let outcome = if path.as_os_str() == "-" {
        let stdin = std::io::stdin().lock();
        stdin.take(MAX_REQUEST).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_REQUEST).read_to_end(&mut bytes))
    };
    outcome.map_err(|cause| Error::Config {
        subject: path.display().to_string(),
        problem: format!("cannot be read: {cause}"),
        advice: "check the path".to_owned(),
    })?;
    Ok(bytes)
}

fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(text.replace(':', ""))
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "is not 64 hex digits".to_owned())
}
