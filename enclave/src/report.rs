//! Numbers for the host to show: how full the pools are, and what was signed how. Nothing is decided by them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use arca_policy::Scheme;
use arca_proto::v1::{
    Metric, ReportMetricsRequest,
    metric::{Kind, Label},
};
use tokio::time::{Instant, sleep};

use crate::{core::Core, presignatures::PoolLevel};

/// How often something new is reported.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is repeated, so that the host knows that this enclave is alive.
const REPEAT: Duration = Duration::from_secs(10);

/// How a signature was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// FROST, two rounds.
    Frost,
    /// DKLs23 with presignatures, one round.
    Presignature,
    /// DKLs23 without, three rounds.
    Full,
}

/// Signatures that this party coordinated since the start.
#[derive(Default)]
pub struct Counters(Mutex<BTreeMap<(Scheme, How), u64>>);

impl Counters {
    /// Counts signatures.
    pub fn add(&self, scheme: Scheme, how: How, signatures: usize) {
        let mut counters = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *counters.entry((scheme, how)).or_default() += signatures as u64;
    }

    fn metrics(&self) -> Vec<Metric> {
        let counters = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let metric = |(&(scheme, how), &count): (&(Scheme, How), &u64)| {
            let scheme = match scheme {
                Scheme::Bip340 => "bip340",
                Scheme::Ed25519 => "ed25519",
                Scheme::EcdsaSecp256k1 => "ecdsa-secp256k1",
                Scheme::EcdsaP256 => "ecdsa-p256",
            };
            let how = match how {
                How::Frost => "frost",
                How::Presignature => "presignature",
                How::Full => "full",
            };
            counter(
                "arca_enclave_signatures_total",
                "Signatures that this party coordinated since its enclave started.",
                count,
                &[("scheme", scheme), ("how", how)],
            )
        };
        counters.iter().map(metric).collect()
    }
}

/// Reports for as long as the enclave runs.
pub async fn keep(core: Arc<Core>) {
    let (mut last, mut at) = (Vec::new(), Instant::now());
    let mut told = false;
    loop {
        let metrics = collect(&core);
        if metrics != last || at.elapsed() >= REPEAT {
            let request = ReportMetricsRequest {
                metrics: metrics.clone(),
            };
            match core.state.storage().report(request).await {
                Ok(()) => {
                    (last, at, told) = (metrics, Instant::now(), false);
                }
                Err(error) if !told => {
                    tracing::warn!(%error, "metrics");
                    told = true;
                }
                Err(_) => {}
            }
        }
        sleep(INTERVAL).await;
    }
}

fn collect(core: &Core) -> Vec<Metric> {
    let mut metrics = core.counters.metrics();
    let mut pools = core.presignatures.levels();
    pools.sort_by(|a, b| (&a.name.key, &a.name.signers).cmp(&(&b.name.key, &b.name.signers)));
    for PoolLevel { name, level } in &pools {
        let signers = name.signers.join(",");
        let labels = [("key", name.key.as_str()), ("signers", signers.as_str())];
        metrics.push(gauge(
            "arca_enclave_presignatures",
            "Presignatures that this party can coordinate signatures with.",
            *level,
            &labels,
        ));
        metrics.push(gauge(
            "arca_enclave_presignatures_wanted",
            "Presignatures that a pool is filled up to.",
            core.presignatures.high(),
            &labels,
        ));
    }
    let mut pairs = core.pairs.levels();
    pairs.sort_by(|a, b| a.peer.cmp(&b.peer));
    for pair in &pairs {
        let labels = [("peer", pair.peer.as_str())];
        metrics.push(gauge(
            "arca_enclave_pair_setups",
            "Whether there is a pairwise setup for ECDSA with this peer.",
            usize::from(pair.ready),
            &labels,
        ));
        metrics.push(counter(
            "arca_enclave_pair_setups_discarded_total",
            "Pairwise setups thrown away.",
            pair.discarded,
            &labels,
        ));
        metrics.push(gauge(
            "arca_enclave_quarantined",
            "Whether this peer is left alone after failed consistency checks.",
            usize::from(pair.quarantined),
            &labels,
        ));
    }
    metrics
}

fn gauge(name: &str, help: &str, value: usize, labels: &[(&str, &str)]) -> Metric {
    metric(name, help, Kind::Gauge, value as f64, labels)
}

fn counter(name: &str, help: &str, value: u64, labels: &[(&str, &str)]) -> Metric {
    metric(name, help, Kind::Counter, value as f64, labels)
}

fn metric(name: &str, help: &str, kind: Kind, value: f64, labels: &[(&str, &str)]) -> Metric {
    Metric {
        name: name.to_owned(),
        help: help.to_owned(),
        kind: kind.into(),
        value,
        labels: labels
            .iter()
            .map(|(name, value)| Label {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect(),
    }
}
