//! `arca demo`: the running example from nothing to signatures, as separate processes.

mod audited;
mod bitcoin_spend;
mod ethereum_transfer;
mod report;
mod solana_transfer;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use arca_client::local::{
    ADMINISTRATORS, Anvil, Binaries, LocalCluster, PARTIES, QUORUM, SoftToken,
};
use arca_client::{
    Client, DerivationPath, Error, Key, KeyRef, KeyState, NewKey, Payload, Scheme, SigningRequest,
};

use crate::cli::Context;
use crate::cli::exit::Interrupted;
use crate::cli::output::{class_shown, clean};
use audited::audit;
use ethereum_transfer::Account;
use report::{Item, Report};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  arca demo\n  arca demo --keep ./demo\n  arca demo --output json\n  \
                  arca demo --anvil ./anvil\n  arca demo --platform hsm\n\n\
                  Starts three hosts and three simulated enclaves from the programs beside this one (or in \
                  ARCA_BIN_DIR), over loopback TCP and Unix sockets. Nothing stays behind: no process, and no file \
                  unless --keep names a folder for configuration, logs and sealed state. Ethereum transactions go to a node \
                  of the demo's own, Foundry's anvil: without it they are left out, and all else is shown."
)]
pub(crate) struct Arguments {
    /// What the parties' keys are held by: a simulated NSM, tokens of SoftHSM (`make softhsm`), or a token at ceo and a
    /// simulated NSM at the others
    #[arg(long, value_enum, default_value_t = Platform::Simulated)]
    platform: Platform,
    /// Keep all files in this folder, which has to be empty or not exist
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The Ethereum node to start [default: what ARCA_ANVIL names, or anvil on the PATH]
    #[arg(long, value_name = "PROGRAM")]
    anvil: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Platform {
    Simulated,
    Hsm,
    Mixed,
}

/// For one key generation or signature.
const PATIENCE: Duration = Duration::from_secs(30);
/// 2 of 3.
const THRESHOLD: u32 = 2;

pub(crate) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<()> {
    context.output.set_simulated(true);
    let binaries = Binaries::find()?;
    let anvil = match &arguments.anvil {
        Some(program) => Some(Anvil::check(program)?),
        None => Anvil::find()?,
    };
    let launcher = binaries.arca.clone();
    // Held until the end: dropping it removes the folder, also after a failure or Ctrl-C.
    let temporary = match arguments.keep {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("arca-demo-").tempdir()?),
    };
    let folder = match (&arguments.keep, &temporary) {
        (Some(folder), _) => folder.clone(),
        (None, Some(temporary)) => temporary.path().join("cluster"),
        (None, None) => anyhow::bail!("there is no folder"),
    };
    let mut report = Report::new(&context.output)?;
    let mut cluster = LocalCluster::prepare(&folder, binaries)?;
    let with_tokens: &[&str] = match arguments.platform {
        Platform::Simulated => &[],
        Platform::Hsm => &PARTIES,
        Platform::Mixed => &["ceo"],
    };
    if !with_tokens.is_empty() {
        cluster = cluster.with_tokens(with_tokens, &SoftToken::softhsm()?)?;
    }
    let chain = Chain { anvil, launcher };
    let Err(error) = steps(&mut report, &mut cluster, &chain).await else {
        return report.finish(&cluster, arguments.keep.as_deref());
    };
    let logs = match &arguments.keep {
        Some(folder) => format!("logs are in {}", folder.display()),
        None => "--keep DIR keeps its logs".to_owned(),
    };
    let known = error.downcast_ref::<Error>();
    if !error.is::<Interrupted>() && !matches!(known, Some(Error::Process { .. })) {
        let complaints = complaints(&cluster);
        context.output.live(|page| {
            for line in &complaints {
                page.line(format!("  {}", clean(line)));
            }
        })?;
    }
    Err(error.context(format!("{} ({logs})", report.failed_at())))
}

/// What an Ethereum node is started with.
struct Chain {
    anvil: Option<PathBuf>,
    launcher: PathBuf,
}

/// The steps. At their end every process has stopped.
async fn steps(
    report: &mut Report<'_>,
    cluster: &mut LocalCluster,
    chain: &Chain,
) -> anyhow::Result<()> {
    report.begin("Three parties prove themselves and become a cluster");
    found(report, cluster).await?;

    report.begin("Keys are generated in shares; nobody ever holds a whole one");
    let taproot = create_key(report, cluster, "treasury-btc", Scheme::Bip340).await?;
    let ed25519 = create_key(report, cluster, "payouts-sol", Scheme::Ed25519).await?;
    let ecdsa = create_key(report, cluster, "treasury-eth", Scheme::EcdsaSecp256k1).await?;
    let account = Account::of(&ecdsa)?;
    // Held until the end: dropping it kills the node, also after a failure or Ctrl-C.
    let anvil = start_anvil(report, cluster, chain, &account).await?;
    let keys = Keys {
        taproot,
        ed25519,
        ecdsa,
        account,
    };

    report.begin("One party is stopped; the other two sign");
    stop(report, cluster, "cloud").await?;
    let pair = ["ceo", "cto"];
    sign_all(report, cluster, &keys, anvil.as_ref(), "ceo", &pair).await?;

    report.begin("It comes back; another pair signs; everything restarts and signs again");
    start(report, cluster, &["cloud"], &PARTIES).await?;
    stop(report, cluster, "ceo").await?;
    let pair = ["cloud", "cto"];
    sign_all(report, cluster, &keys, anvil.as_ref(), "cto", &pair).await?;
    let started = Instant::now();
    cluster.kill_all().await;
    report.item(
        Item::new(
            "killed every party's processes (SIGKILL); what is left is sealed on the hosts' disks",
        )
        .took(started),
    )?;
    start(report, cluster, &PARTIES, &PARTIES).await?;
    same_keys(report, cluster, &keys).await?;
    let last = sign_all(report, cluster, &keys, anvil.as_ref(), "cloud", &[]).await?;

    report.begin("An auditor takes the logs away and verifies them without a network");
    audit(report, cluster, &last).await?;

    report.begin("The end");
    let started = Instant::now();
    cluster.stop().await;
    if let Some(anvil) = anvil {
        anvil.stop().await;
    }
    report.item(Item::new("stopped every process").took(started))
}

/// Starts an Ethereum node and gives the account its first coins; says so where there is no node.
async fn start_anvil(
    report: &mut Report<'_>,
    cluster: &LocalCluster,
    chain: &Chain,
    account: &Account,
) -> anyhow::Result<Option<Anvil>> {
    let Some(program) = &chain.anvil else {
        report.skip(
            "no Ethereum node: anvil is not there, so Ethereum transactions are left out; `make demo` installs it where \
             there is npm, or name it with --anvil",
        )?;
        return Ok(None);
    };
    let started = Instant::now();
    let work = Anvil::start(program, &chain.launcher, cluster.folder());
    let anvil = report.wait("starting anvil", work).await?;
    report.item(account.fund(&anvil).await?.took(started))?;
    Ok(Some(anvil))
}

/// What the processes warned of last: where a failure that shows at the client began.
fn complaints(cluster: &LocalCluster) -> Vec<String> {
    let mut complaints = Vec::new();
    for party in cluster.parties() {
        for (what, log) in party.logs() {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = log
                .lines()
                .filter(|line| line.contains("WARN") || line.contains("ERROR"))
                .collect();
            let last = lines
                .get(lines.len().saturating_sub(3)..)
                .unwrap_or_default();
            complaints.extend(
                last.iter()
                    .map(|line| format!("{what} of {}: {line}", party.name())),
            );
        }
    }
    complaints
}

struct Keys {
    taproot: Key,
    ed25519: Key,
    ecdsa: Key,
    account: Account,
}

async fn found(report: &mut Report<'_>, cluster: &mut LocalCluster) -> anyhow::Result<()> {
    let started = Instant::now();
    report
        .wait("starting three hosts and three enclaves", cluster.start())
        .await?;
    let processes = cluster.parties().map(|party| {
        let pid = |process: Option<&arca_client::local::Process>| {
            process
                .and_then(arca_client::local::Process::pid)
                .unwrap_or_default()
        };
        format!(
            "{} (host {}, enclave {})",
            party.name(),
            pid(party.host()),
            pid(party.enclave())
        )
    });
    let processes: Vec<String> = processes.collect();
    report.item(
        Item::new(format!("started {}", processes.join(", ")))
            .with("processes", &processes)
            .took(started),
    )?;

    let candidates = report
        .wait("collecting evidence", cluster.collect())
        .await?;
    for candidate in &candidates {
        report.item(
            Item::new(format!(
                "{}: evidence verified, class {}, {}boot {}…",
                candidate.party,
                class_shown(candidate.class),
                candidate
                    .measurements
                    .map(|image| format!("PCR0 {}…, ", short(&hex::encode(image.pcr0))))
                    .unwrap_or_default(),
                short(&hex::encode(candidate.boot_id)),
            ))
            .with("candidate", candidate),
        )?;
    }

    let started = Instant::now();
    // Alice and Carol: any two will do.
    let signers = [0, 2];
    report
        .wait("enrolling", cluster.enroll(&candidates, &signers))
        .await?;
    let names: Vec<&str> = signers
        .iter()
        .filter_map(|index| ADMINISTRATORS.get(*index).copied())
        .collect();
    report.item(
        Item::new(format!(
            "manifest of {} epoch 1 signed by {} ({QUORUM} of {} administrators), accepted by {}",
            cluster.id(),
            names.join(" and "),
            ADMINISTRATORS.len(),
            PARTIES.join(", "),
        ))
        .with("cluster", &cluster.id())
        .with("signed_by", &names)
        .took(started),
    )?;

    let started = Instant::now();
    report
        .wait(
            "waiting for the parties to attest each other",
            cluster.wait_connected(&PARTIES),
        )
        .await?;
    report.item(Item::new("all parties have attested each other, both ways").took(started))
}

async fn create_key(
    report: &mut Report<'_>,
    cluster: &LocalCluster,
    display_name: &str,
    scheme: Scheme,
) -> anyhow::Result<Key> {
    let client = cluster.cluster()?.party("ceo").await?;
    let new = NewKey {
        request_id: format!("demo-{display_name}"),
        display_name: display_name.to_owned(),
        scheme,
        threshold: THRESHOLD,
        parties: PARTIES.map(str::to_owned).to_vec(),
        allow_raw_digest: false,
    };
    let started = Instant::now();
    let key = report
        .wait("generating a key", client.create_key(&new, PATIENCE))
        .await?;
    let address = match scheme {
        Scheme::Bip340 => bitcoin_spend::address(&key)?,
        Scheme::Ed25519 => arca_client::address::solana(key.public_key.ed25519()?),
        Scheme::EcdsaSecp256k1 => {
            let account = Account::of(&key)?;
            format!("{} at {}", account.address(), account.path())
        }
        Scheme::EcdsaP256 => anyhow::bail!("the demo has no use for a P-256 key"),
    };
    report.item(
        Item::new(format!(
            "{} key {display_name:?}, {} of {}: {}",
            key.scheme.as_str(),
            key.threshold,
            key.parties.len(),
            key.parties.join(", "),
        ))
        .with("key", &key)
        .with("address", &address)
        .detail("address", &address)
        .took(started),
    )?;
    Ok(key)
}

async fn sign_all(
    report: &mut Report<'_>,
    cluster: &LocalCluster,
    keys: &Keys,
    anvil: Option<&Anvil>,
    coordinator: &str,
    expected: &[&str],
) -> anyhow::Result<SigningRequest> {
    let client = cluster.cluster()?.party(coordinator).await?;
    let signer = Signer { client, expected };
    let root = DerivationPath::root();

    let key = &keys.taproot;
    let spend = bitcoin_spend::Spend::prepare(key)?;
    let (what, payload) = ("a Bitcoin transaction", Payload::Psbt(spend.psbt()));
    let (signed, took) = signer.sign(report, what, key.at(&root), payload).await?;
    report.signature(spend.finish(key, &signed)?.took_for(took), &signed)?;

    let key = &keys.ed25519;
    let transfer = solana_transfer::Transfer::prepare(key)?;
    let (what, payload) = ("a Solana transfer", transfer.payload());
    let (signed, took) = signer.sign(report, what, key.at(&root), payload).await?;
    report.signature(transfer.finish(key, &signed)?.took_for(took), &signed)?;

    let Some(anvil) = anvil else {
        return Ok(signed);
    };
    let (key, account) = (&keys.ecdsa, &keys.account);
    let transfer = ethereum_transfer::Transfer::prepare(key, account, anvil).await?;
    let (what, payload) = ("an Ethereum transfer", transfer.payload());
    let asked = key.at(account.path());
    let (signed, took) = signer.sign(report, what, asked, payload).await?;
    let mined = transfer.finish(key, account, &signed, anvil).await?;
    report.signature(mined.took_for(took), &signed)?;
    Ok(signed)
}

/// Whom to ask, and who has to sign where the step is about that.
struct Signer<'a> {
    client: Client,
    expected: &'a [&'a str],
}

impl Signer<'_> {
    /// A signature, and how long it took.
    async fn sign(
        &self,
        report: &Report<'_>,
        what: &str,
        key: KeyRef<'_>,
        payload: Payload,
    ) -> anyhow::Result<(SigningRequest, Duration)> {
        let (id, started) = (request_id(), Instant::now());
        let work = self.client.sign(key, &id, &payload, PATIENCE);
        let signed = report.wait(&format!("signing {what}"), work).await?;
        let took = started.elapsed();
        check_signers(&signed, self.expected)?;
        Ok((signed, took))
    }
}

/// That the parties signed that the step is about, where it is about certain ones.
fn check_signers(signed: &SigningRequest, expected: &[&str]) -> anyhow::Result<()> {
    let mut signers: Vec<&str> = signed.signers.iter().map(String::as_str).collect();
    signers.sort_unstable();
    anyhow::ensure!(
        expected.is_empty() || signers == expected,
        "{} was signed by {}, and only {} are up",
        signed.name,
        signers.join(", "),
        expected.join(", "),
    );
    Ok(())
}

async fn stop(
    report: &mut Report<'_>,
    cluster: &mut LocalCluster,
    name: &str,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let party = cluster.party_mut(name)?;
    report.wait("stopping", party.stop()).await;
    report.item(
        Item::new(format!("stopped {name}: host and enclave are gone"))
            .with("down", &[name])
            .took(started),
    )
}

/// Starts `names` and waits until all that are `up` have attested each other.
async fn start(
    report: &mut Report<'_>,
    cluster: &mut LocalCluster,
    names: &[&str],
    up: &[&str],
) -> anyhow::Result<()> {
    let started = Instant::now();
    let work = async {
        for name in names {
            cluster.party_mut(name)?.start_both().await?;
        }
        for name in names {
            cluster.wait_answering(name).await?;
        }
        cluster.wait_connected(up).await
    };
    report.wait("starting", work).await?;
    report.item(
        Item::new(format!(
            "started {} again: sealed state opened, attested by the others",
            names.join(", ")
        ))
        .with("started", &names)
        .took(started),
    )
}

async fn same_keys(
    report: &mut Report<'_>,
    cluster: &LocalCluster,
    keys: &Keys,
) -> anyhow::Result<()> {
    for name in PARTIES {
        let client = cluster.cluster()?.party(name).await?;
        for key in [&keys.taproot, &keys.ed25519, &keys.ecdsa] {
            let now = client.key(&key.name).await?;
            anyhow::ensure!(
                now.public_key == key.public_key && now.state == KeyState::Enabled,
                "{name} does not hold {} as it was",
                key.name
            );
        }
    }
    report.item(Item::new(
        "every party still holds its shares of the same three keys",
    ))
}

fn request_id() -> String {
    crate::cli::key::random_request_id().replace("cli-", "demo-")
}

fn short(hex: &str) -> &str {
    hex.get(..8).unwrap_or(hex)
}
