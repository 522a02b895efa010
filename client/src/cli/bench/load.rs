//! One row: workers that call in a loop for a while, and what they saw.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arca_client::{Client, DerivationPath, Error, Key, Payload, Scheme, verify};
use hdrhistogram::Histogram;
use rand_core::{OsRng, RngCore};
use serde::Serialize;
use tokio::task::JoinSet;

use super::cpu::{Processes, Used};
use crate::cli::key::random_request_id;

/// What is measured.
#[derive(Clone)]
pub(super) enum Operation {
    /// An empty call to the party.
    Empty,
    /// An empty call through the party to another one and back.
    Through(String),
    /// A signature over a random digest, verified here.
    Sign(Key, Ahead),
}

/// What was made before the request.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ahead {
    /// The scheme has nothing to make ahead.
    NotNeeded,
    /// One round is left.
    Presignatures,
    /// Three rounds.
    Nothing,
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNeeded => "",
            Self::Presignatures => " with presignature",
            Self::Nothing => " without presignature",
        })
    }
}

impl Operation {
    pub fn name(&self) -> String {
        match self {
            Self::Empty => "(a) empty call".to_owned(),
            Self::Through(party) => format!("(b) empty call through {party}"),
            Self::Sign(key, ahead) => format!("(c) {} signature{ahead}", key.scheme.as_str()),
        }
    }

    async fn call(&self, client: &Client) -> Result<(), Error> {
        match self {
            Self::Empty => client.ping(None).await,
            Self::Through(party) => client.ping(Some(party)).await,
            Self::Sign(key, _) => sign(client, key).await,
        }
    }
}

/// How one row is measured.
pub(super) struct Plan {
    pub concurrency: u16,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// One row.
#[derive(Serialize)]
pub(super) struct Measured {
    pub operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Ahead>,
    pub concurrency: u16,
    pub requests: u64,
    pub seconds: f64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    #[serde(skip)]
    through: bool,
}

impl Measured {
    pub fn is_through(&self) -> bool {
        self.through
    }
}

/// Processor time, in cores busy on average, and for one request over all processes.
#[derive(Serialize)]
pub(super) struct Cpu {
    pub client: f64,
    pub hosts: f64,
    pub enclaves: f64,
    pub per_request_ms: f64,
}

/// One signature may take this long under load.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest latency that a histogram tells apart, in microseconds.
const LONGEST: u64 = 120_000_000;

pub(super) async fn run(
    client: &Client,
    operation: &Operation,
    plan: &Plan,
    processes: &Processes,
) -> anyhow::Result<Measured> {
    let operation = Arc::new(operation.clone());
    work(client, &operation, plan.concurrency, plan.warm_up).await?;
    let before = processes.used();
    let started = Instant::now();
    let latencies = work(client, &operation, plan.concurrency, plan.measured).await?;
    // Calls that were under way at the end of the time have been waited for, and count.
    let elapsed = started.elapsed().as_secs_f64();
    let after = processes.used();
    let ms = |quantile: f64| as_f64(latencies.value_at_quantile(quantile)) / 1000.0;
    let (scheme, ahead) = match &*operation {
        Operation::Sign(key, ahead) => (Some(key.scheme), Some(*ahead)),
        Operation::Empty | Operation::Through(_) => (None, None),
    };
    Ok(Measured {
        operation: operation.name(),
        scheme,
        ahead,
        concurrency: plan.concurrency,
        requests: latencies.len(),
        seconds: elapsed,
        per_second: as_f64(latencies.len()) / elapsed,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        max_ms: ms(1.0),
        cpu: before
            .zip(after)
            .map(|(before, after)| cpu(before, after, elapsed, latencies.len())),
        through: matches!(&*operation, Operation::Through(_)),
    })
}

async fn work(
    client: &Client,
    operation: &Arc<Operation>,
    concurrency: u16,
    duration: Duration,
) -> anyhow::Result<Histogram<u64>> {
    let mut all = Histogram::new_with_bounds(1, LONGEST, 3)?;
    let end = Instant::now() + duration;
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let (client, operation) = (client.clone(), operation.clone());
        let mut latencies = all.clone();
        workers.spawn(async move {
            while Instant::now() < end {
                let started = Instant::now();
                operation.call(&client).await?;
                let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(LONGEST);
                latencies.saturating_record(micros.max(1));
            }
            Ok::<_, Error>(latencies)
        });
    }
    while let Some(worker) = workers.join_next().await {
        all.add(worker??)?;
    }
    Ok(all)
}

async fn sign(client: &Client, key: &Key) -> Result<(), Error> {
    let mut digest = [0; 32];
    OsRng.fill_bytes(&mut digest);
    let payload = Payload::Digest(digest);
    let path = DerivationPath::root();
    let intent = verify::decode(key, &path, &payload)?;
    let signed = client
        .sign(&key.name, &random_request_id(), &payload, PATIENCE)
        .await?;
    verify::signatures(key, &path, &intent, &signed)
}

fn cpu(before: Used, after: Used, elapsed: f64, requests: u64) -> Cpu {
    let spent =
        |part: fn(&Used) -> Duration| part(&after).saturating_sub(part(&before)).as_secs_f64();
    let (client, hosts, enclaves) = (
        spent(|used| used.client),
        spent(|used| used.hosts),
        spent(|used| used.enclaves),
    );
    Cpu {
        client: client / elapsed,
        hosts: hosts / elapsed,
        enclaves: enclaves / elapsed,
        per_request_ms: (client + hosts + enclaves) * 1000.0 / as_f64(requests.max(1)),
    }
}

/// Counts and microseconds of a benchmark are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn as_f64(number: u64) -> f64 {
    number as f64
}
