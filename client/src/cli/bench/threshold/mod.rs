//! `arca bench threshold`

mod measure;
mod parties;
mod report;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arca_threshold::ecdsa::CurveId;
use arca_threshold::{MAX_BATCH, MAX_PARTICIPANTS};

use crate::cli::Context;
use measure::{Baseline, Plan};
use parties::Signers;
use report::{KeyFigures, Report};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  arca bench threshold\n  arca bench threshold --keys 2/3 --curves secp256k1 --seconds 2\n  \
                  arca bench threshold --output json\n\n\
                  Runs threshold ECDSA (DKLs23) among parties of this process, in one thread, without network, with \
                  keys that end with it. Times are one party's on the processor: the median over runs, the mean over \
                  parties. Beside each stands how many variable-point multiplications of the same curve, measured in \
                  the same run, take as long. As many sign as the key needs."
)]
pub(crate) struct Arguments {
    /// Keys to measure: shares needed / parties
    #[arg(
        long,
        value_name = "T/N",
        value_delimiter = ',',
        default_value = "2/2,2/3,3/5,5/9"
    )]
    keys: Vec<KeySize>,
    /// Curves to measure
    #[arg(
        long,
        value_name = "CURVE",
        value_delimiter = ',',
        value_enum,
        default_value = "secp256k1,p256"
    )]
    curves: Vec<CurveName>,
    /// Seconds for each figure, three runs at least
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CurveName {
    Secp256k1,
    P256,
}

impl From<CurveName> for CurveId {
    fn from(name: CurveName) -> Self {
        match name {
            CurveName::Secp256k1 => Self::Secp256k1,
            CurveName::P256 => Self::P256,
        }
    }
}

/// Shares needed to sign, and parties.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KeySize {
    threshold: u16,
    parties: u16,
}

impl FromStr for KeySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let size = parts.and_then(|(threshold, parties)| {
            Some(Self {
                threshold: threshold.parse().ok()?,
                parties: parties.parse().ok()?,
            })
        });
        let is_served = |size: &Self| {
            (2..=size.parties).contains(&size.threshold)
                && usize::from(size.parties) <= MAX_PARTICIPANTS
        };
        size.filter(is_served)
            .ok_or_else(|| format!("T/N with 2 <= T <= N <= {MAX_PARTICIPANTS}, such as 2/3"))
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.0..=600.0).contains(s));
    seconds.ok_or_else(|| "a number of seconds from 0 to 600".to_owned())
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<()> {
    let plan = Plan {
        time: Duration::from_secs_f64(arguments.seconds),
    };
    let baseline = step(context, "curve arithmetic", move || {
        Baseline::measure(&plan)
    })
    .await?;
    let multiplication = baseline.variable_point(CurveId::Secp256k1);
    let setup = move || measure::setup(&plan, multiplication);
    let setup = step(context, "pairwise setup", setup).await?;
    let mut keys = Vec::new();
    for curve in arguments.curves.into_iter().map(CurveId::from) {
        for size in &arguments.keys {
            let multiplication = baseline.variable_point(curve);
            keys.push(measure_key(context, &plan, curve, *size, multiplication).await?);
        }
    }
    let report = Report::new(&plan, baseline, setup, keys);
    context
        .output
        .show(&report, |page| report::render(page, &report))
}

async fn measure_key(
    context: &Context,
    plan: &Plan,
    curve: CurveId,
    KeySize { threshold, parties }: KeySize,
    multiplication: Duration,
) -> anyhow::Result<KeyFigures> {
    let plan = *plan;
    let label = |what: &str| format!("{}, {threshold} of {parties}: {what}", report::name(curve));
    let generation =
        move || measure::generation(&plan, (curve, threshold, parties), multiplication);
    let (keys, generation) = step(context, &label("key generation"), generation).await?;
    let signers = move || Signers::new(keys).map(Arc::new);
    let signers = step(context, &label("pairwise setups"), signers).await?;

    let all = Arc::clone(&signers);
    let signature = move || measure::signature(&plan, &all, multiplication);
    let signature = step(context, &label("full signature"), signature).await?;
    let all = Arc::clone(&signers);
    let single = move || measure::presignature(&plan, &all, 1, multiplication);
    let (_, single) = step(context, &label("presignature"), single).await?;
    let all = Arc::clone(&signers);
    let batch = move || measure::presignature(&plan, &all, MAX_BATCH, multiplication);
    let (pools, batch) = step(context, &label("presignatures"), batch).await?;
    let online = move || measure::online(&plan, &signers, pools, multiplication);
    let [signer, combiner] = step(context, &label("online signature"), online).await?;
    Ok(KeyFigures {
        curve: report::name(curve),
        threshold,
        parties,
        presignatures_per_second_and_core: 1000.0 / batch.cpu_ms,
        figures: vec![generation, signature, single, batch, signer, combiner],
    })
}

/// Works in a thread of its own, so that an interrupt is heard.
async fn step<T: Send + 'static>(
    context: &Context,
    label: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    context
        .output
        .wait(label, tokio::task::spawn_blocking(work))
        .await?
}
