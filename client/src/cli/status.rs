//! `arca status`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use arca_attestation::TrustClass;
use arca_client::{Cluster, Connection, Error, PartyState, Protection, Standing, clock};
use serde::Serialize;

use crate::cli::output::Page;
use crate::cli::{Context, exit};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  arca status\n  arca status --output json | jq '.parties[] | select(.attested | not)'\n\n\
                        Exits with 0 when every party is attested and serves, 4 when one cannot be reached, 5 when one is not \
                        trusted, 6 when one does not serve. `state` says that with the number of changes that its sealed \
                        state has seen; `protections`, how many of those that its process asked of its kernel are in force."
)]
pub(crate) struct Arguments {
    /// Empty calls per party; the latency shown is their median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    calls: u16,
}

#[derive(Serialize)]
struct Status {
    cluster: String,
    kind: String,
    manifest_epoch: u64,
    manifest_digest: String,
    parties: Vec<PartyStatus>,
}

#[derive(Default, Serialize)]
struct PartyStatus {
    party: String,
    endpoint: String,
    reachable: bool,
    /// Its evidence led to the profile's root, is fresh, bound to this connection and to the identity in the
    /// manifest, and its measurements are the manifest's.
    attested: bool,
    trust_class: Option<TrustClass>,
    pcr0: Option<String>,
    boot_id: Option<String>,
    manifest_epoch: Option<u64>,
    evidence_valid_until: Option<String>,
    connect_ms: Option<f64>,
    latency_ms: Option<f64>,
    /// Whether it serves, how far its state has come, and what its peers say.
    state: Option<PartyState>,
    protections: Option<Vec<Protection>>,
    connected_to: Option<Vec<String>>,
    not_connected_to: Option<Vec<String>>,
    problem: Option<String>,
    #[serde(skip)]
    exit: u8,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let cluster = context.cluster()?;
    let profile = cluster.profile().clone();
    let mut parties = Vec::new();
    for (party, endpoint) in profile.parties() {
        let mut status = PartyStatus {
            party: party.clone(),
            endpoint: endpoint.clone(),
            ..PartyStatus::default()
        };
        let label = format!("asking {party}");
        let asked = ask(&cluster, &mut status, arguments.calls);
        if let Err(error) = context.output.wait(&label, asked).await {
            status.reachable |= !matches!(error, Error::Unreachable { .. });
            status.problem = Some(error.to_string());
            status.exit = exit::code(&error.into());
        }
        parties.push(status);
    }
    // Something that proves itself wrong is worse than something that is away.
    let codes = parties.iter().map(|status| status.exit);
    let code = codes.max_by_key(|code| (*code == exit::UNVERIFIED, *code));
    let code = code.unwrap_or(0);
    let manifest = profile.manifest();
    let status = Status {
        cluster: manifest.cluster().to_owned(),
        kind: profile.kind().to_string(),
        manifest_epoch: manifest.epoch(),
        manifest_digest: hex::encode(manifest.digest()),
        parties,
    };
    context.output.show(&status, |page| render(page, &status))?;
    Ok(ExitCode::from(code))
}

async fn ask(cluster: &Cluster, status: &mut PartyStatus, calls: u16) -> Result<(), Error> {
    let started = Instant::now();
    let client = cluster.party(&status.party).await?;
    status.reachable = true;
    status.attested = true;
    status.connect_ms = Some(milliseconds(started.elapsed()));
    let attested = client.attested()?;
    let evidence = attested.evidence();
    status.trust_class = Some(evidence.class());
    status.pcr0 = evidence.measurements().map(|image| hex::encode(image.pcr0));
    status.boot_id = Some(hex::encode(attested.boot_id()));
    status.manifest_epoch = Some(attested.manifest_epoch());
    status.evidence_valid_until = Some(clock::show(evidence.not_after()));
    if cluster.profile().principal().is_none() {
        return Ok(());
    }
    let mut latencies = Vec::new();
    for _ in 0..calls {
        let started = Instant::now();
        client.ping(None).await?;
        latencies.push(started.elapsed());
    }
    latencies.sort_unstable();
    status.latency_ms = latencies
        .get(latencies.len() / 2)
        .copied()
        .map(milliseconds);
    status.protections = Some(client.evidence().await?.protections);
    let state = client.state().await?;
    if state.standing != Standing::Held {
        status.exit = exit::REFUSED;
    }
    status.state = Some(state);
    let seen = client.parties().await?;
    let with = |connection: Connection| {
        let parties = seen
            .parties
            .iter()
            .filter(|party| party.connection == connection);
        parties.map(|party| party.name.clone()).collect()
    };
    status.connected_to = Some(with(Connection::Up));
    status.not_connected_to = Some(with(Connection::Down));
    Ok(())
}

fn render(page: &mut Page, status: &Status) {
    page.fields([
        ("cluster", format!("{} ({})", status.cluster, status.kind)),
        (
            "manifest",
            format!(
                "epoch {}, {}…",
                status.manifest_epoch,
                short(&status.manifest_digest)
            ),
        ),
    ]);
    page.line("");
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms"));
    let rows: Vec<Vec<String>> = status
        .parties
        .iter()
        .map(|party| {
            vec![
                party.party.clone(),
                party.endpoint.clone(),
                if party.reachable { "yes" } else { "no" }.to_owned(),
                match party.trust_class {
                    Some(class) if party.attested => class.to_string(),
                    _ => "no".to_owned(),
                },
                party
                    .pcr0
                    .as_deref()
                    .map_or_else(|| "-".to_owned(), |pcr0| format!("{}…", short(pcr0))),
                party
                    .manifest_epoch
                    .map_or_else(|| "-".to_owned(), |epoch| epoch.to_string()),
                ms(party.latency_ms),
                party.state.as_ref().map_or_else(
                    || "-".to_owned(),
                    |state| {
                        let sequence = state.current.sequence;
                        match state.standing {
                            Standing::Held => format!("serves, {sequence}"),
                            Standing::Waiting => format!("waits, {sequence}"),
                            Standing::Lost => format!("STOPPED, {sequence}"),
                        }
                    },
                ),
                party.protections.as_ref().map_or_else(
                    || "-".to_owned(),
                    |protections| {
                        let in_force = protections.iter().filter(|one| one.in_force).count();
                        format!("{in_force} of {}", protections.len())
                    },
                ),
                party
                    .connected_to
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), |peers| peers.join(", ")),
            ]
        })
        .collect();
    page.table(
        &[
            "party",
            "endpoint",
            "reachable",
            "attested",
            "pcr0",
            "epoch",
            "latency",
            "state",
            "protections",
            "connected to",
        ],
        &rows,
    );
    page.class_note(status.parties.iter().filter_map(|party| party.trust_class));
    for party in &status.parties {
        if let Some(problem) = &party.problem {
            page.check(false, &format!("{}: {problem}", party.party));
        }
        let stands = party.state.as_ref().map(|state| state.message.as_str());
        if let Some(message) = stands.filter(|message| !message.is_empty()) {
            page.check(false, &format!("{} does not serve: {message}", party.party));
        }
        for one in party.protections.iter().flatten() {
            if !one.in_force {
                let line = format!("{} runs without {}: {}", party.party, one.name, one.detail);
                page.no_check(&line);
            }
        }
        if party
            .manifest_epoch
            .is_some_and(|epoch| epoch != status.manifest_epoch)
        {
            page.check(
                false,
                &format!(
                    "{}: holds another epoch of the manifest than this profile",
                    party.party
                ),
            );
        }
    }
}

fn short(hex: &str) -> &str {
    hex.get(..12).unwrap_or(hex)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
