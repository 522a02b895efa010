//! `arca party`

mod evidence;
mod loss;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arca_client::party_files::PartyFiles;
use arca_client::{Connection, Error, Parties};
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
    Evidence(evidence::Arguments),
    /// Let a party go on whose newest state is lost: draft, sign, submit
    #[command(subcommand)]
    AcceptLoss(loss::Command),
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

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(arguments) => init(context, arguments),
        Command::Enroll(command) => enroll::run(context, command).await,
        Command::Evidence(arguments) => evidence::run(context, arguments).await,
        Command::AcceptLoss(command) => loss::run(context, command).await,
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
        danger_without_log: false,
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
    page.class_note(parties.parties.iter().map(|party| party.trust_class));
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
