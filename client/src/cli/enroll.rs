//! `arca party enroll`: what administrators do, each on a machine of their own where they want.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_attestation::manifest::{Administrator, Administrators, Draft, Principal, Role};
use arca_attestation::{ClusterKind, Measurements, ReferenceValues, TrustAnchors, UnixMillis};
use arca_client::appraisal::Certificate;
use arca_client::enroll::{self, Candidate};
use arca_client::{
    Cluster, Error, Kind, ProfileFile, PublicKey, candidate, clock, has_simulated_parties, hsm,
    keyfile, manifest_file, read_simulated_root,
};
use p256::pkcs8::EncodePublicKey;
use serde::Serialize;
use sha2::{Digest, Sha384};

use crate::cli::Context;
use crate::cli::output::{Page, class_shown};
use crate::cli::party::{named_endpoint, write_new};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Make an administrator's key (Ed25519)
    #[command(after_help = "Examples:\n  arca party enroll administrator-key alice.pem")]
    AdministratorKey {
        /// New file for the private key
        file: PathBuf,
    },
    /// Make a principal's key (P-256)
    #[command(after_help = "Examples:\n  arca party enroll principal-key treasury.pem")]
    PrincipalKey {
        /// New file for the private key
        file: PathBuf,
    },
    /// Collect the enclaves' evidence, verify it, and write a manifest to be signed
    #[command(
        after_help = "Examples:\n  arca party enroll draft manifest.json --cluster sim-acme --simulated-root root/root.der \\\n    \
                            --measurements measurements.json \\\n    \
                            --party ceo=127.0.0.1:7101 --party cto=127.0.0.1:7102 --party cloud=127.0.0.1:7103 \\\n    \
                            --administrator alice=HEX --administrator bob=HEX --administrator carol=HEX --quorum 2 \\\n    \
                            --principal treasury=HEX:operator,initiator\n  \
                            arca party enroll draft manifest.json --cluster acme --hsm-root hsm-root/hsm-root.pem \\\n    \
                            --hsm-party ceo=ceo.acme.example:7101 --hsm-party cto=cto.acme.example:7101 \\\n    \
                            --measurements measurements.json --party cloud=cloud.acme.example:7101 \\\n    \
                            --administrator alice=HEX --quorum 1\n\n\
                            Parties are enclaves (--party), which have to run one of --measurements, or hold their keys in an \
                            HSM (--hsm-party): their identity keys have to be certified under one of --hsm-root, and their \
                            evidence does not say which code runs."
    )]
    Draft(DraftArguments),
    /// Look at a manifest and sign it as an administrator
    #[command(
        after_help = "Examples:\n  arca party enroll sign manifest.json --key alice.pem alice.signature.json"
    )]
    Sign {
        /// The manifest
        manifest: PathBuf,
        /// New file for the signature
        signature: PathBuf,
        /// The administrator's private key
        #[arg(long)]
        key: PathBuf,
    },
    /// Put a manifest and its administrators' signatures together, and verify them
    #[command(
        after_help = "Examples:\n  arca party enroll assemble manifest.json manifest.signed.json \\\n    \
                            alice.signature.json bob.signature.json"
    )]
    Assemble {
        /// The manifest
        manifest: PathBuf,
        /// New file for the signed manifest
        signed: PathBuf,
        /// Signatures
        #[arg(required = true)]
        signatures: Vec<PathBuf>,
    },
    /// Hand a signed manifest to every party
    #[command(
        after_help = "Examples:\n  arca party enroll apply manifest.signed.json --simulated-root root/root.der \\\n    \
                            --party ceo=127.0.0.1:7101 --party cto=127.0.0.1:7102 --party cloud=127.0.0.1:7103 \\\n    \
                            --write-profile profile.toml --principal-key treasury.pem\n  \
                            arca party enroll apply manifest-2.signed.json   (a later epoch, with the profile)"
    )]
    Apply(ApplyArguments),
}

#[derive(clap::Args)]
pub(crate) struct DraftArguments {
    /// New file for the manifest
    file: PathBuf,
    /// The cluster's id; `sim-` begins the id of a simulated cluster
    #[arg(long)]
    cluster: String,
    /// Name and address of a party that is an enclave; once for each
    #[arg(long = "party", value_name = "NAME=HOST:PORT", value_parser = named_endpoint, requires = "measurements",
          required_unless_present = "hsm_parties")]
    parties: Vec<(String, String)>,
    /// Reference values that the enclaves may have: the output of the image's build; repeatable
    #[arg(long, value_name = "FILE", requires = "parties")]
    measurements: Vec<PathBuf>,
    /// Name and address of a party whose keys are in an HSM; once for each
    #[arg(long = "hsm-party", value_name = "NAME=HOST:PORT", value_parser = named_endpoint, requires = "hsm_root")]
    hsm_parties: Vec<(String, String)>,
    /// A root (PEM or DER) that certifies the identity keys of HSMs, for the manifest; up to four
    #[arg(long, value_name = "FILE", requires = "hsm_parties")]
    hsm_root: Vec<PathBuf>,
    /// The simulated NSM's root.der; for clusters with simulated parties only
    #[arg(long, value_name = "FILE")]
    simulated_root: Option<PathBuf>,
    /// An administrator's name and Ed25519 public key; once for each
    #[arg(long = "administrator", value_name = "NAME=HEX", value_parser = administrator, required = true)]
    administrators: Vec<Administrator>,
    /// How many administrators have to sign this manifest and every later one
    #[arg(long)]
    quorum: u16,
    /// A principal's name, public key and roles (operator, initiator, auditor); repeatable
    #[arg(long = "principal", value_name = "NAME=HEX:ROLE,...", value_parser = principal)]
    principals: Vec<Principal>,
    /// Days until the manifest expires
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
    valid_days: u64,
}

#[derive(clap::Args)]
pub(crate) struct ApplyArguments {
    /// The signed manifest
    signed: PathBuf,
    /// A party's name and address; once for each. Needed for a first manifest
    #[arg(long = "party", value_name = "NAME=HOST:PORT", value_parser = named_endpoint)]
    parties: Vec<(String, String)>,
    /// The simulated NSM's root.der; for clusters with simulated parties only
    #[arg(long, value_name = "FILE")]
    simulated_root: Option<PathBuf>,
    /// Write a profile that pins this manifest's administrators
    #[arg(long, value_name = "FILE")]
    write_profile: Option<PathBuf>,
    /// The key of the principal that the profile is for
    #[arg(long, value_name = "FILE", requires = "write_profile")]
    principal_key: Option<PathBuf>,
}

#[derive(Serialize)]
struct NewKey {
    file: PathBuf,
    public_key: String,
}

#[derive(Serialize)]
struct Drafted<'a> {
    file: PathBuf,
    sha384: String,
    candidates: &'a [Candidate],
    manifest: &'a Draft,
}

#[derive(Serialize)]
struct Written {
    file: PathBuf,
    cluster: String,
    epoch: u64,
    sha384: String,
    signed_by: Vec<String>,
}

#[derive(Serialize)]
struct Applied {
    cluster: String,
    epoch: u64,
    parties: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::AdministratorKey { file } => {
            let key = keyfile::generate_administrator(&file)?;
            show_key(context, file, key.verifying_key().as_bytes())
        }
        Command::PrincipalKey { file } => {
            let key = keyfile::generate_principal(&file)?;
            show_key(
                context,
                file,
                key.public_key().to_public_key_der()?.as_bytes(),
            )
        }
        Command::Draft(arguments) => draft(context, arguments).await,
        Command::Sign {
            manifest,
            signature,
            key,
        } => {
            let (bytes, draft) = manifest_file::read_draft(&manifest)?;
            context.mark(&draft.cluster);
            let key = keyfile::read_administrator(&key)?;
            let public = key.verifying_key().to_bytes();
            let name = name_of(&draft, &public).ok_or_else(|| Error::Input {
                subject: hex::encode(public),
                problem: "is no administrator in this manifest".to_owned(),
            })?;
            manifest_file::write_signature(&signature, &manifest_file::sign(&bytes, &key))?;
            let written = written(signature, &draft, &bytes, vec![name]);
            context.output.show(&written, |page| {
                summary(page, &draft);
                show_written(page, &written);
            })
        }
        Command::Assemble {
            manifest,
            signed,
            signatures,
        } => {
            let (bytes, draft) = manifest_file::read_draft(&manifest)?;
            context.mark(&draft.cluster);
            let signatures = signatures
                .iter()
                .map(|path| manifest_file::read_signature(path))
                .collect::<Result<Vec<_>, _>>()?;
            let names = signatures
                .iter()
                .map(|one| {
                    name_of(&draft, &one.administrator)
                        .unwrap_or_else(|| hex::encode(one.administrator))
                })
                .collect();
            let assembled = manifest_file::assemble(bytes.clone(), &signatures)?;
            assembled
                .verify_first(clock::now())
                .map_err(|cause| unverified(&manifest, cause))?;
            manifest_file::write(&signed, &assembled)?;
            let written = written(signed, &draft, &bytes, names);
            context
                .output
                .show(&written, |page| show_written(page, &written))
        }
        Command::Apply(arguments) => apply(context, arguments).await,
    }
}

async fn draft(context: &Context, arguments: DraftArguments) -> anyhow::Result<()> {
    context.mark(&arguments.cluster);
    let simulated_root = arguments.simulated_root.as_deref();
    let anchors = anchors(
        &arguments.cluster,
        simulated_root,
        !arguments.parties.is_empty(),
    )?;
    let references = arguments
        .measurements
        .iter()
        .map(|path| enroll::read_measurements(path))
        .collect::<Result<Vec<_>, _>>()?;
    let enclave = ReferenceValues::enclave(ClusterKind::of(&arguments.cluster), references);
    let roots = arguments.hsm_root.iter().map(|path| hsm::read_root(path));
    let hsm_roots = roots.collect::<Result<Vec<_>, _>>()?;
    let hsm = ReferenceValues::Hsm(hsm_roots.clone());
    let parties = arguments.parties.iter().map(|party| (party, &enclave));
    let parties = parties.chain(arguments.hsm_parties.iter().map(|party| (party, &hsm)));
    let mut candidates = Vec::new();
    for ((name, address), reference) in parties {
        let collect = enroll::collect(name, address, &anchors, reference);
        candidates.push(
            context
                .output
                .wait(&format!("asking {name}"), collect)
                .await?,
        );
    }
    let draft = enroll::draft(
        &arguments.cluster,
        &candidates,
        hsm_roots,
        Administrators {
            quorum: arguments.quorum,
            keys: arguments.administrators,
        },
        arguments.principals,
        UnixMillis(clock::now().0.saturating_sub(60_000)),
        Duration::from_secs(arguments.valid_days.saturating_mul(24 * 60 * 60)),
    );
    let bytes = draft.to_bytes().map_err(|cause| Error::Input {
        subject: "manifest".to_owned(),
        problem: cause.to_string(),
    })?;
    write_new(&arguments.file, &bytes)?;
    let drafted = Drafted {
        sha384: hex::encode(Sha384::digest(&bytes)),
        file: arguments.file,
        candidates: &candidates,
        manifest: &draft,
    };
    context.output.show(&drafted, |page| {
        for one in &candidates {
            page.check(
                true,
                &format!(
                    "{}: evidence of class {} verified, {}identity {}…",
                    one.party,
                    class_shown(one.class),
                    image(one.measurements.as_ref()),
                    hex::encode(&one.identity).get(54..70).unwrap_or_default(),
                ),
            );
        }
        summary(page, &draft);
        page.fields([
            ("file", drafted.file.display().to_string()),
            ("sha-384", drafted.sha384.clone()),
        ]);
        page.line("next: each administrator runs `arca party enroll sign`");
    })
}

async fn apply(context: &Context, arguments: ApplyArguments) -> anyhow::Result<()> {
    let signed = manifest_file::read(&arguments.signed)?;
    let manifest = signed
        .verify_first(clock::now())
        .map_err(|cause| unverified(&arguments.signed, cause))?;
    context.mark(manifest.cluster());
    let mut applied = Vec::new();
    if manifest.epoch() == 1 {
        let anchors = anchors(
            manifest.cluster(),
            arguments.simulated_root.as_deref(),
            has_simulated_parties(&manifest),
        )?;
        for party in manifest.parties() {
            let address = arguments
                .parties
                .iter()
                .find(|(name, _)| *name == party.name);
            let (name, address) = address.ok_or_else(|| Error::Input {
                subject: format!("party {}", party.name),
                problem: "has no --party with its address".to_owned(),
            })?;
            let work = async {
                let reference = manifest.reference_values(name).ok_or_else(|| {
                    unverified(&arguments.signed, format!("it names no party {name}"))
                })?;
                let client = candidate(name, address, &anchors, &reference).await?;
                enroll::apply(&client, party, &signed, manifest.epoch()).await
            };
            context
                .output
                .wait(&format!("enrolling {name}"), work)
                .await?;
            applied.push(name.clone());
        }
    } else {
        let cluster: Cluster = context.cluster()?;
        for party in manifest.parties() {
            let work = async {
                let client = cluster.party(&party.name).await?;
                enroll::apply(&client, party, &signed, manifest.epoch()).await
            };
            context
                .output
                .wait(&format!("enrolling {}", party.name), work)
                .await?;
            applied.push(party.name.clone());
        }
    }
    if let Some(path) = &arguments.write_profile {
        let absolute = |path: &Path| std::path::absolute(path);
        ProfileFile {
            cluster: manifest.cluster().to_owned(),
            kind: match manifest.kind() {
                ClusterKind::Production => Kind::Production,
                ClusterKind::Simulated => Kind::Simulated,
            },
            manifest: absolute(&arguments.signed)?,
            simulated_root: arguments
                .simulated_root
                .as_deref()
                .map(absolute)
                .transpose()?,
            administrators: arca_client::Administrators {
                quorum: usize::from(manifest.administrators().quorum),
                keys: manifest
                    .administrators()
                    .keys
                    .iter()
                    .map(|key| PublicKey(key.public_key))
                    .collect(),
            },
            principal: arguments
                .principal_key
                .as_deref()
                .map(|key| absolute(key).map(|key| arca_client::Principal { key }))
                .transpose()?,
            parties: arguments.parties.into_iter().collect(),
        }
        .write(path)?;
    }
    let applied = Applied {
        cluster: manifest.cluster().to_owned(),
        epoch: manifest.epoch(),
        parties: applied,
        profile: arguments.write_profile,
    };
    context.output.show(&applied, |page| {
        for party in &applied.parties {
            page.check(
                true,
                &format!("{party} holds {} epoch {}", applied.cluster, applied.epoch),
            );
        }
        if let Some(profile) = &applied.profile {
            page.line(format!("next: arca --profile {} status", profile.display()));
        }
    })
}

/// Which image a candidate runs, where its evidence says so.
fn image(measurements: Option<&Measurements>) -> String {
    let pcr0 = measurements.map(|image| hex::encode(image.pcr0));
    let digits = pcr0.as_deref().and_then(|pcr0| pcr0.get(..16));
    digits
        .map(|digits| format!("pcr0 {digits}…, "))
        .unwrap_or_default()
}

/// HSM parties need no anchor: their roots stand in the manifest.
fn anchors(
    cluster: &str,
    simulated_root: Option<&Path>,
    has_enclaves: bool,
) -> Result<TrustAnchors, Error> {
    match (ClusterKind::of(cluster), simulated_root) {
        (ClusterKind::Simulated, Some(root)) => read_simulated_root(root),
        (ClusterKind::Production, None) => Ok(TrustAnchors::production()),
        (ClusterKind::Simulated, None) if !has_enclaves => Ok(TrustAnchors::hsm_only()),
        (ClusterKind::Simulated, None) => Err(Error::Input {
            subject: format!("cluster {cluster}"),
            problem: "has simulated parties: name their root with --simulated-root".to_owned(),
        }),
        (ClusterKind::Production, Some(_)) => Err(Error::Input {
            subject: format!("cluster {cluster}"),
            problem: "is production: --simulated-root is for clusters whose id begins with `sim-`"
                .to_owned(),
        }),
    }
}

fn unverified(path: &Path, cause: impl ToString) -> Error {
    Error::Unverified {
        object: path.display().to_string(),
        problem: cause.to_string(),
    }
}

fn name_of(draft: &Draft, key: &[u8; 32]) -> Option<String> {
    let administrators = &draft.administrators.keys;
    administrators
        .iter()
        .find(|one| one.public_key == *key)
        .map(|one| one.name.clone())
}

fn show_key(context: &Context, file: PathBuf, public_key: &[u8]) -> anyhow::Result<()> {
    let key = NewKey {
        file,
        public_key: hex::encode(public_key),
    };
    context.output.show(&key, |page| {
        page.fields([
            ("private key", key.file.display().to_string()),
            ("public key", key.public_key.clone()),
        ]);
    })
}

fn written(file: PathBuf, draft: &Draft, bytes: &[u8], signed_by: Vec<String>) -> Written {
    Written {
        file,
        cluster: draft.cluster.clone(),
        epoch: draft.epoch,
        sha384: hex::encode(Sha384::digest(bytes)),
        signed_by,
    }
}

fn show_written(page: &mut Page, written: &Written) {
    page.fields([
        (
            "manifest",
            format!("{} epoch {}", written.cluster, written.epoch),
        ),
        ("sha-384", written.sha384.clone()),
        ("signed by", written.signed_by.join(", ")),
        ("written to", written.file.display().to_string()),
    ]);
}

/// What an administrator puts a name under.
fn summary(page: &mut Page, draft: &Draft) {
    page.fields([
        (
            "cluster",
            format!("{} ({})", draft.cluster, ClusterKind::of(&draft.cluster)),
        ),
        ("epoch", draft.epoch.to_string()),
        (
            "valid",
            format!(
                "{} to {}",
                clock::show(draft.not_before),
                clock::show(draft.not_after)
            ),
        ),
    ]);
    for party in &draft.parties {
        page.line(format!(
            "party {}, class {}, identity {}",
            party.name,
            class_shown(party.class),
            hex::encode(&party.identity)
        ));
        for one in &party.measurements {
            page.line(format!("  may run pcr0 {}", hex::encode(one.pcr0)));
        }
    }
    for (position, root) in draft.hsm_roots.iter().enumerate() {
        let root = Certificate::read(position, root);
        page.line(format!(
            "root of HSMs {}, until {}, sha-256 {}",
            root.subject.as_deref().unwrap_or("unreadable"),
            root.not_after.as_deref().unwrap_or("unreadable"),
            root.sha256
        ));
    }
    page.line(format!(
        "administrators, {} of:",
        draft.administrators.quorum
    ));
    for one in &draft.administrators.keys {
        page.line(format!("  {} {}", one.name, hex::encode(one.public_key)));
    }
    for one in &draft.principals {
        page.line(format!(
            "principal {} {:?}, identity {}",
            one.name,
            one.roles,
            hex::encode(&one.identity)
        ));
    }
    for one in &draft.revoked {
        page.line(format!("revoked {one:?}"));
    }
}

fn administrator(text: &str) -> Result<Administrator, String> {
    let (name, key) = text.split_once('=').ok_or("is not NAME=HEX")?;
    let public_key = hex::decode(key)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    Ok(Administrator {
        name: name.to_owned(),
        public_key: public_key.ok_or("the key is not 64 hex digits")?,
    })
}

fn principal(text: &str) -> Result<Principal, String> {
    let (name, rest) = text.split_once('=').ok_or("is not NAME=HEX:ROLE,...")?;
    let (key, roles) = rest.split_once(':').ok_or("is not NAME=HEX:ROLE,...")?;
    let role = |text: &str| match text {
        "operator" => Ok(Role::Operator),
        "initiator" => Ok(Role::Initiator),
        "auditor" => Ok(Role::Auditor),
        _ => Err(format!("{text:?} is no role: operator, initiator, auditor")),
    };
    Ok(Principal {
        name: name.to_owned(),
        identity: hex::decode(key).map_err(|_| "the key is not hex")?,
        roles: roles.split(',').map(role).collect::<Result<_, _>>()?,
    })
}
