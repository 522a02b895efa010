//! `arca party`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arca_client::party_files::PartyFiles;
use arca_client::{Cluster, Connection, Error, Parties, clock};
use serde::Serialize;

use crate::cli::output::Page;
use crate::cli::{Context, enroll};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Write the configuration of a party's host and simulated enclave
    #[command(
        after_help = "Examples:\n  arca party init ceo --dir ./ceo --listen 127.0.0.1:7101 \\\n    \
                            --peer cto=127.0.0.1:7102 --peer cloud=127.0.0.1:7103 --simulated-root ./root"
    )]
    Init(Init),
    /// From running enclaves to a cluster: collect evidence, draft, sign and apply the manifest
    #[command(subcommand)]
    Enroll(enroll::Command),
    /// Fetch fresh evidence of parties and verify it
    #[command(
        after_help = "Examples:\n  arca party evidence\n  arca party evidence ceo --save ceo.cose"
    )]
    Evidence {
        /// Which party [default: all]
        party: Option<String>,
        /// Write the attestation document of the one party to a new file
        #[arg(long, value_name = "FILE", requires = "party")]
        save: Option<PathBuf>,
    },
    /// List the cluster's parties as one of them sees them
    #[command(
        after_help = "Examples:\n  arca party list\n  arca party list --party cloud --output json"
    )]
    List {
        /// Ask this party [default: the first that can be used]
        #[arg(long)]
        party: Option<String>,
    },
}

#[derive(clap::Args)]
pub(crate) struct Init {
    /// The party's name in the manifest: 1 to 32 of a-z, 0-9 and -
    #[arg(value_parser = party_name)]
    name: String,
    /// Folder for its files
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Address and port for clients and peers
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = endpoint)]
    listen: String,
    /// Another party's host and port; once for each
    #[arg(long = "peer", value_name = "NAME=HOST:PORT", value_parser = named_endpoint)]
    peers: Vec<(String, String)>,
    /// Address and port of metrics and health checks
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = endpoint)]
    metrics: Option<String>,
    /// Bytes that the host stores at most
    #[arg(long, default_value_t = 1 << 30)]
    quota_bytes: u64,
    /// Folder that `arca-enclave-simulated make-root` made, the same for all parties
    #[arg(long, value_name = "DIR")]
    simulated_root: PathBuf,
}

#[derive(Serialize)]
struct Initialised {
    party: String,
    host_config: PathBuf,
    enclave_config: PathBuf,
}

#[derive(Serialize)]
struct EvidenceList {
    evidence: Vec<Shown>,
}

/// Verified evidence of one party.
#[derive(Serialize)]
pub(crate) struct Shown {
    pub party: String,
    pub trust_class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcr0: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcr1: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcr2: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_id: Option<String>,
    /// What an HSM says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    pub time: String,
    pub valid_until: String,
    pub nonce: Option<String>,
    pub boot_id: String,
    pub manifest_epoch: u64,
    pub digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved_to: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(arguments) => init(context, arguments),
        Command::Enroll(command) => enroll::run(context, command).await,
        Command::Evidence { party, save } => evidence(context, party, save).await,
        Command::List { party } => {
            let parties = context.client(party.as_deref()).await?.parties().await?;
            context.output.show(&parties, |page| table(page, &parties))
        }
    }
}

fn init(context: &Context, arguments: Init) -> anyhow::Result<()> {
    context.output.set_simulated(true);
    let mut peers = BTreeMap::new();
    for (name, address) in arguments.peers {
        if name == arguments.name || peers.insert(name.clone(), address).is_some() {
            return Err(Error::Input {
                subject: format!("--peer {name}"),
                problem: "is this party itself, or was given twice".to_owned(),
            }
            .into());
        }
    }
    let files = PartyFiles {
        party: arguments.name,
        listen: arguments.listen,
        metrics: arguments.metrics,
        peers,
        quota_bytes: arguments.quota_bytes,
        simulated_root: arguments.simulated_root,
        presignatures: None,
    };
    let paths = files.write(&arguments.dir)?;
    let done = Initialised {
        party: files.party,
        host_config: paths.host,
        enclave_config: paths.enclave,
    };
    context.output.show(&done, |page| {
        page.fields([
            ("party", done.party.clone()),
            ("host", done.host_config.display().to_string()),
            ("enclave", done.enclave_config.display().to_string()),
        ]);
        page.line("next:");
        page.line(format!(
            "  arca-host --config {}",
            done.host_config.display()
        ));
        page.line(format!(
            "  arca-enclave-simulated --config {}",
            done.enclave_config.display()
        ));
        page.line("  arca party enroll draft --help");
    })
}

async fn evidence(
    context: &Context,
    party: Option<String>,
    save: Option<PathBuf>,
) -> anyhow::Result<()> {
    let cluster = context.cluster()?;
    let names: Vec<String> = match party {
        Some(party) => vec![party],
        None => cluster.profile().parties().keys().cloned().collect(),
    };
    let mut list = Vec::new();
    for name in names {
        let label = format!("asking {name}");
        list.push(
            context
                .output
                .wait(&label, fetch(&cluster, name, save.as_deref()))
                .await?,
        );
    }
    let list = EvidenceList { evidence: list };
    context.output.show(&list, |page| {
        for shown in &list.evidence {
            page.heading(&format!("{}: verified", shown.party));
            let of_the_class = [
                ("  pcr0", &shown.pcr0),
                ("  pcr1", &shown.pcr1),
                ("  pcr2", &shown.pcr2),
                ("  module", &shown.module_id),
                ("  token", &shown.token),
            ];
            let of_the_class = of_the_class
                .into_iter()
                .filter_map(|(label, value)| Some((label, value.clone()?)));
            let of_every_class = [
                (
                    "  made",
                    format!("{}, certificate until {}", shown.time, shown.valid_until),
                ),
                ("  boot id", shown.boot_id.clone()),
                ("  manifest", format!("epoch {}", shown.manifest_epoch)),
                ("  sha-256", shown.digest.clone()),
            ];
            page.fields(
                [("  trust class", shown.trust_class.clone())]
                    .into_iter()
                    .chain(of_the_class)
                    .chain(of_every_class),
            );
        }
    })
}

/// Asks for evidence over a fresh nonce. Somebody who is no principal sees only what the connection showed.
async fn fetch(cluster: &Cluster, party: String, save: Option<&Path>) -> anyhow::Result<Shown> {
    let client = cluster.party(&party).await?;
    let attested = client.attested()?;
    if cluster.profile().principal().is_none() {
        if save.is_some() {
            return Err(Error::Config {
                subject: cluster.profile().path().display().to_string(),
                problem: "names no principal, and parties hand documents to principals only"
                    .to_owned(),
                advice: "add [principal] with the path of its key, or leave --save out".to_owned(),
            }
            .into());
        }
        let epoch = attested.manifest_epoch();
        return Ok(Shown::new(
            party,
            attested.evidence(),
            attested.boot_id(),
            epoch,
        ));
    }
    let fetched = client.evidence().await?;
    if let Some(path) = save {
        write_new(path, &fetched.document)?;
    }
    Ok(Shown {
        saved_to: save.map(Path::to_owned),
        ..Shown::new(
            party,
            &fetched.evidence,
            &fetched.boot_id,
            fetched.manifest_epoch,
        )
    })
}

impl Shown {
    fn new(
        party: String,
        evidence: &arca_attestation::Evidence,
        boot_id: &[u8; 16],
        manifest_epoch: u64,
    ) -> Self {
        let image = evidence.measurements();
        Self {
            party,
            trust_class: evidence.class().to_string(),
            pcr0: image.map(|image| hex::encode(image.pcr0)),
            pcr1: image.map(|image| hex::encode(image.pcr1)),
            pcr2: image.map(|image| hex::encode(image.pcr2)),
            module_id: evidence.module_id().map(str::to_owned),
            token: evidence.token().map(ToString::to_string),
            time: clock::show(evidence.timestamp()),
            valid_until: clock::show(evidence.not_after()),
            nonce: evidence.nonce().map(hex::encode),
            boot_id: hex::encode(boot_id),
            manifest_epoch,
            digest: hex::encode(evidence.digest()),
            saved_to: None,
        }
    }
}

/// Writes what a command was asked to save; never over something.
pub(crate) fn write_new(path: &Path, contents: &[u8]) -> Result<(), Error> {
    std::fs::File::create_new(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, contents))
        .map_err(|cause| Error::Config {
            subject: path.display().to_string(),
            problem: format!("cannot be written: {cause}"),
            advice: "name a new file in a folder that exists; nothing is overwritten".to_owned(),
        })
}

fn table(page: &mut Page, parties: &Parties) {
    page.fields([
        ("cluster", parties.cluster.clone()),
        (
            "manifest",
            format!(
                "epoch {}, sha-384 {}",
                parties.manifest_epoch,
                hex::encode(parties.manifest_digest)
            ),
        ),
    ]);
    page.line("");
    let rows: Vec<Vec<String>> = parties
        .parties
        .iter()
        .map(|party| {
            vec![
                party.name.clone(),
                party.trust_class.to_string(),
                match party.connection {
                    Connection::Itself => "answers",
                    Connection::Up => "up",
                    Connection::Down => "down",
                }
                .to_owned(),
                party.verify_time.map_or_else(
                    || "-".to_owned(),
                    |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                ),
                party.boot_id.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    page.table(
        &["party", "class", "connection", "verified", "boot id"],
        &rows,
    );
}

fn party_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("is not 1 to 32 of a-z, 0-9 and -".to_owned())
    }
}

/// `host:port`.
fn endpoint(text: &str) -> Result<String, String> {
    arca_client::check_endpoint(text).map(|()| text.to_owned())
}

/// `name=host:port`.
pub(crate) fn named_endpoint(text: &str) -> Result<(String, String), String> {
    let (name, address) = text.split_once('=').ok_or("is not NAME=HOST:PORT")?;
    Ok((party_name(name)?, endpoint(address)?))
}
