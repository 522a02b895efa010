//! `arca bench`

mod audit;
mod cpu;
mod load;
mod threshold;

use std::time::{Duration, Instant};

use arca_client::local::{Binaries, LocalCluster};
use arca_client::{Client, Error, Key, NewKey, Scheme};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::key::{find, random_request_id};
use crate::cli::output::Page;
use cpu::Processes;
use load::{Ahead, Measured, Operation, Plan};

#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  arca bench\n  arca bench --seconds 10 --concurrency 1,16,64 --output json\n  \
                  arca bench --use-profile --bip340-key raw-btc --ed25519-key raw-sol\n\n\
                  Measures, through one attested connection to one party: (a) an empty call, (b) the same through a \
                  second party and back, (c) one signature of each scheme, from the request to the verified end; \
                  ECDSA with presignatures that are waiting, and without any; and again without the audit log, which \
                  only simulated enclaves can leave out. Signatures are over raw digests, made by two parties chosen by the coordinator. Latencies are \
                  those that this client sees; processor time is that of all hosts, enclaves and this client."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    alone: Option<Alone>,
    /// Seconds measured for each row
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Seconds before that, not measured
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up: u64,
    /// Calls under way at a time
    #[arg(long, value_delimiter = ',', default_value = "1,64", value_parser = clap::value_parser!(u16).range(1..=200))]
    concurrency: Vec<u16>,
    /// Measure the profile's cluster instead of one that is started here; processor time is then not shown
    #[arg(long)]
    use_profile: bool,
    /// With --use-profile: a BIP-340 key that may sign raw digests
    #[arg(long, value_name = "KEY", requires = "use_profile")]
    bip340_key: Option<String>,
    /// With --use-profile: an Ed25519 key that may sign raw digests
    #[arg(long, value_name = "KEY", requires = "use_profile")]
    ed25519_key: Option<String>,
    /// With --use-profile: an ECDSA key that may sign raw digests
    #[arg(long, value_name = "KEY", requires = "use_profile")]
    ecdsa_key: Option<String>,
    /// With --use-profile: connect to this party [default: the first that can be used]
    #[arg(long, requires = "use_profile")]
    party: Option<String>,
}

/// What is measured without a cluster.
#[derive(clap::Subcommand)]
enum Alone {
    /// Measure the threshold protocols alone: one thread, no network
    Threshold(threshold::Arguments),
    /// Measure the audit log alone: appends, proofs, an export of a million entries and its verification
    Audit(audit::Arguments),
}

/// Everything measured, and on what.
#[derive(Serialize)]
struct Bench {
    version: &'static str,
    optimised: bool,
    cores: usize,
    cluster: String,
    party: String,
    through: String,
    results: Vec<Measured>,
    ratios: Vec<Ratio>,
    log_cost: Vec<LogCost>,
}

/// What the audit log costs: the same signatures without it.
#[derive(Serialize)]
struct LogCost {
    scheme: Scheme,
    ahead: Ahead,
    concurrency: u16,
    per_second_without: f64,
    per_second_with: f64,
    p50_ms_without: f64,
    p50_ms_with: f64,
    /// What of the throughput without is gone with it, in percent.
    throughput_lost_percent: f64,
}

/// A signature against an empty call through a second party and back: what the protocol itself costs.
#[derive(Serialize)]
struct Ratio {
    scheme: Scheme,
    ahead: Ahead,
    concurrency: u16,
    /// Median latency of (c) over that of (b).
    latency_p50: f64,
    /// Requests per second of (b) over those of (c).
    throughput: f64,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; measure with `cargo build --release`");
    }
    match arguments.alone {
        Some(Alone::Threshold(arguments)) => return threshold::run(context, arguments).await,
        Some(Alone::Audit(arguments)) => return audit::run(context, &arguments),
        None => {}
    }
    if arguments.use_profile {
        let client = context.client(arguments.party.as_deref()).await?;
        let mut keys = Vec::new();
        let wanted = [
            &arguments.bip340_key,
            &arguments.ed25519_key,
            &arguments.ecdsa_key,
        ];
        for wanted in wanted.into_iter().flatten() {
            keys.push(find(&client, wanted).await?);
        }
        let bench = measure(context, &arguments, &client, &keys, None).await?;
        return show(context, &bench);
    }
    context.output.set_simulated(true);
    let folder = tempfile::Builder::new().prefix("arca-bench-").tempdir()?;
    let prepare = |name: &str| LocalCluster::prepare(&folder.path().join(name), Binaries::find()?);
    let mut cluster = context
        .output
        .wait(
            "starting a local cluster",
            prepare("cluster")?
                .with_presignatures(PRESIGNATURES)
                .into_running(),
        )
        .await?;
    let client = cluster.cluster()?.party("ceo").await?;
    let mut keys = Vec::new();
    for scheme in [Scheme::Bip340, Scheme::Ed25519, Scheme::EcdsaSecp256k1] {
        keys.push(create_key(&client, scheme).await?);
    }
    // Before anything is measured.
    for key in keys
        .iter()
        .filter(|key| key.scheme == Scheme::EcdsaSecp256k1)
    {
        let filling = pools_filled(&cluster, client.party(), &key.name);
        context.output.wait("making presignatures", filling).await?;
    }
    let mut bench = measure(context, &arguments, &client, &keys, Some(&cluster)).await?;
    cluster.stop().await;

    // The same without anything made ahead.
    let mut cluster = context
        .output
        .wait(
            "starting a local cluster without presignatures",
            prepare("without")?.with_presignatures(0).into_running(),
        )
        .await?;
    let client = cluster.cluster()?.party("ceo").await?;
    let key = create_key(&client, Scheme::EcdsaSecp256k1).await?;
    let operation = Operation::Sign(key, Ahead::Nothing);
    let more = rows(context, &arguments, &client, &[operation], Some(&cluster)).await?;
    cluster.stop().await;
    bench.results.extend(more);
    bench.ratios = ratios(&bench.results);

    // The same without the audit log.
    let mut cluster = context
        .output
        .wait(
            "starting a local cluster without the audit log",
            prepare("unlogged")?
                .with_presignatures(PRESIGNATURES)
                .danger_without_log()
                .into_running(),
        )
        .await?;
    let client = cluster.cluster()?.party("ceo").await?;
    let mut operations = Vec::new();
    for (scheme, ahead) in [
        (Scheme::Bip340, Ahead::NotNeeded),
        (Scheme::Ed25519, Ahead::NotNeeded),
        (Scheme::EcdsaSecp256k1, Ahead::Presignatures),
    ] {
        operations.push(Operation::Sign(create_key(&client, scheme).await?, ahead));
    }
    let without = rows(context, &arguments, &client, &operations, Some(&cluster)).await?;
    cluster.stop().await;
    bench.log_cost = log_cost(&bench.results, &without);
    show(context, &bench)
}

fn log_cost(with: &[Measured], without: &[Measured]) -> Vec<LogCost> {
    let same = |one: &Measured, other: &Measured| {
        (one.scheme, one.ahead, one.concurrency) == (other.scheme, other.ahead, other.concurrency)
    };
    let pairs = without.iter().filter_map(|without| {
        let with = with.iter().find(|with| same(with, without))?;
        Some((with, without, without.scheme?, without.ahead?))
    });
    pairs
        .map(|(with, without, scheme, ahead)| LogCost {
            scheme,
            ahead,
            concurrency: without.concurrency,
            per_second_without: without.per_second,
            per_second_with: with.per_second,
            p50_ms_without: without.p50_ms,
            p50_ms_with: with.p50_ms,
            throughput_lost_percent: 100.0 * (1.0 - with.per_second / without.per_second),
        })
        .collect()
}

/// What a pool holds in this benchmark: a row at concurrency 1 uses no more, so that none is made meanwhile.
const PRESIGNATURES: u32 = 4096;
/// How long the pools may take to fill.
const FILLING: Duration = Duration::from_secs(180);
/// How often to look.
const LOOK: Duration = Duration::from_millis(200);

async fn measure(
    context: &Context,
    arguments: &Arguments,
    client: &Client,
    keys: &[Key],
    cluster: Option<&LocalCluster>,
) -> anyhow::Result<Bench> {
    let seen = client.parties().await?;
    let up = seen
        .parties
        .iter()
        .find(|party| party.connection == arca_client::Connection::Up);
    let through = up
        .ok_or_else(|| Error::NoParty {
            attempts: Vec::new(),
        })?
        .name
        .clone();
    let mut operations = vec![Operation::Empty, Operation::Through(through.clone())];
    let signatures = keys.iter().map(|key| {
        let ahead = match key.scheme {
            Scheme::Bip340 | Scheme::Ed25519 => Ahead::NotNeeded,
            Scheme::EcdsaSecp256k1 | Scheme::EcdsaP256 => Ahead::Presignatures,
        };
        Operation::Sign(key.clone(), ahead)
    });
    operations.extend(signatures);
    let results = rows(context, arguments, client, &operations, cluster).await?;
    Ok(Bench {
        version: env!("CARGO_PKG_VERSION"),
        optimised: !cfg!(debug_assertions),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        cluster: seen.cluster,
        party: client.party().to_owned(),
        through,
        ratios: ratios(&results),
        results,
        log_cost: Vec::new(),
    })
}

async fn rows(
    context: &Context,
    arguments: &Arguments,
    client: &Client,
    operations: &[Operation],
    cluster: Option<&LocalCluster>,
) -> anyhow::Result<Vec<Measured>> {
    let processes = cluster.map_or_else(Processes::none, Processes::of);
    let mut results = Vec::new();
    for operation in operations {
        for &concurrency in &arguments.concurrency {
            let mut operation = operation.clone();
            if let (Operation::Sign(key, Ahead::Presignatures), Some(cluster)) =
                (&mut operation, cluster)
            {
                // Each row has full pools of its own, and nothing is made in the background meanwhile.
                *key = create_key(client, key.scheme).await?;
                let filling = pools_filled(cluster, client.party(), &key.name);
                context.output.wait("making presignatures", filling).await?;
            }
            let plan = Plan {
                concurrency,
                warm_up: Duration::from_secs(arguments.warm_up),
                measured: Duration::from_secs(arguments.seconds),
            };
            let label = format!("{} at concurrency {concurrency}", operation.name());
            let work = load::run(client, &operation, &plan, &processes);
            results.push(context.output.wait(&label, work).await?);
        }
    }
    Ok(results)
}

async fn create_key(client: &Client, scheme: Scheme) -> Result<Key, Error> {
    let new = NewKey {
        request_id: random_request_id(),
        display_name: format!("bench-{}", scheme.as_str()),
        scheme,
        threshold: 2,
        parties: Vec::new(),
        allow_raw_digest: true,
    };
    client.create_key(&new, Duration::from_secs(30)).await
}

/// Waits until the party's pools for a key are full, as its host's metrics page tells.
async fn pools_filled(cluster: &LocalCluster, party: &str, key: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let page = cluster.party(party)?.metrics().await?;
        let sum = |name: &str| -> f64 {
            page.lines()
                .filter(|line| line.starts_with(name) && line.contains(key))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        let (level, wanted) = (
            sum("arca_enclave_presignatures{"),
            sum("arca_enclave_presignatures_wanted{"),
        );
        if wanted > 0.0 && level >= wanted {
            return Ok(());
        }
        anyhow::ensure!(
            started.elapsed() < FILLING,
            "{level} of {wanted} presignatures after {} s; see whether the machine has other work, and try again",
            FILLING.as_secs()
        );
        tokio::time::sleep(LOOK).await;
    }
}

fn ratios(results: &[Measured]) -> Vec<Ratio> {
    let base = |concurrency: u16| {
        results
            .iter()
            .find(|one| one.concurrency == concurrency && one.is_through())
    };
    let signatures = results
        .iter()
        .filter_map(|one| Some((one, one.scheme?, one.ahead?, base(one.concurrency)?)));
    signatures
        .map(|(signature, scheme, ahead, base)| Ratio {
            scheme,
            ahead,
            concurrency: signature.concurrency,
            latency_p50: signature.p50_ms / base.p50_ms,
            throughput: base.per_second / signature.per_second,
        })
        .collect()
}

fn show(context: &Context, bench: &Bench) -> anyhow::Result<()> {
    context.output.show(bench, |page| render(page, bench))
}

fn render(page: &mut Page, bench: &Bench) {
    page.line(format!(
        "{} cores, {} build, cluster {}, connected to {}, through {}",
        bench.cores,
        if bench.optimised { "release" } else { "debug" },
        bench.cluster,
        bench.party,
        bench.through,
    ));
    page.line("");
    let rows: Vec<Vec<String>> = bench
        .results
        .iter()
        .map(|one| {
            let cpu = one.cpu.as_ref();
            let cores = |part: Option<f64>| {
                part.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}"))
            };
            vec![
                one.operation.clone(),
                one.concurrency.to_string(),
                one.requests.to_string(),
                format!("{:.0}", one.per_second),
                format!("{:.2} ms", one.p50_ms),
                format!("{:.2} ms", one.p99_ms),
                cores(cpu.map(|cpu| cpu.client)),
                cores(cpu.map(|cpu| cpu.hosts)),
                cores(cpu.map(|cpu| cpu.enclaves)),
                cpu.map_or_else(
                    || "-".to_owned(),
                    |cpu| format!("{:.2} ms", cpu.per_request_ms),
                ),
            ]
        })
        .collect();
    page.table(
        &[
            "operation",
            "concurrency",
            "requests",
            "per second",
            "p50",
            "p99",
            "cores: client",
            "hosts",
            "enclaves",
            "cpu/request",
        ],
        &rows,
    );
    page.line("");
    let rows: Vec<Vec<String>> = bench
        .ratios
        .iter()
        .map(|ratio| {
            vec![
                format!("{}{}", ratio.scheme.as_str(), ratio.ahead),
                ratio.concurrency.to_string(),
                format!("{:.2}", ratio.latency_p50),
                format!("{:.2}", ratio.throughput),
            ]
        })
        .collect();
    page.table(
        &[
            "signature vs. empty call through a party (c/b)",
            "concurrency",
            "p50",
            "throughput",
        ],
        &rows,
    );
    if bench.log_cost.is_empty() {
        return;
    }
    page.line("");
    let rows: Vec<Vec<String>> = bench
        .log_cost
        .iter()
        .map(|cost| {
            vec![
                format!("{}{}", cost.scheme.as_str(), cost.ahead),
                cost.concurrency.to_string(),
                format!("{:.0}", cost.per_second_without),
                format!("{:.0}", cost.per_second_with),
                format!("{:.1} %", cost.throughput_lost_percent),
                format!("{:.2} ms", cost.p50_ms_without),
                format!("{:.2} ms", cost.p50_ms_with),
            ]
        })
        .collect();
    page.table(
        &[
            "what the audit log costs",
            "concurrency",
            "per second without",
            "with",
            "lost",
            "p50 without",
            "with",
        ],
        &rows,
    );
}
