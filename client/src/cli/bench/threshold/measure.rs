//! What is measured, and how often.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arca_threshold::Participant;
use arca_threshold::ecdsa::{Curve, CurveId, P256, Secp256k1};
use bitcoin::secp256k1;
use p256::elliptic_curve::ops::MulByGenerator as _;
use rand_core::OsRng;

use super::parties::{Cost, Keys, Pools, Signers, generate, now, pair_up};
use super::report::Figure;

/// How long each figure is measured.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub time: Duration,
}

/// Fewest runs behind a figure.
const RUNS: usize = 3;

impl Plan {
    /// Repeats until the time is over. The first run does not count.
    fn repeat<T>(&self, mut one: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
        one()?;
        let (start, mut all) = (Instant::now(), Vec::new());
        while all.len() < RUNS || start.elapsed() < self.time {
            all.push(one()?);
        }
        Ok(all)
    }

    /// The median time of something short.
    fn time<T>(&self, mut one: impl FnMut() -> T) -> anyhow::Result<Duration> {
        const AT_ONCE: u32 = 16;
        let times = self.repeat(|| {
            let start = now()?;
            for _ in 0..AT_ONCE {
                black_box(one());
            }
            Ok(now()?.saturating_sub(start) / AT_ONCE)
        });
        median(times?)
    }
}

/// What all the rest is compared with.
pub(super) struct Baseline {
    pub secp256k1: Multiplications,
    pub p256: Multiplications,
    /// A verification by libsecp256k1.
    pub verification: Duration,
}

/// One multiplication of a curve's generator, and one of another point, by the curve's library.
pub(super) struct Multiplications {
    pub base_point: Duration,
    pub variable_point: Duration,
}

impl Baseline {
    pub fn measure(plan: &Plan) -> anyhow::Result<Self> {
        Ok(Self {
            secp256k1: multiplications::<Secp256k1>(plan)?,
            p256: multiplications::<P256>(plan)?,
            verification: verification(plan)?,
        })
    }

    pub fn variable_point(&self, curve: CurveId) -> Duration {
        match curve {
            CurveId::Secp256k1 => self.secp256k1.variable_point,
            CurveId::P256 => self.p256.variable_point,
        }
    }
}

fn multiplications<C: Curve>(plan: &Plan) -> anyhow::Result<Multiplications> {
    let scalar = C::random(&mut OsRng);
    let point = C::base(&scalar);
    Ok(Multiplications {
        base_point: plan.time(|| C::Point::mul_by_generator(black_box(&scalar)))?,
        variable_point: plan.time(|| black_box(point) * black_box(scalar))?,
    })
}

fn verification(plan: &Plan) -> anyhow::Result<Duration> {
    let library = secp256k1::Secp256k1::new();
    let secret = secp256k1::SecretKey::from_slice(&[3; 32])?;
    let key = secp256k1::PublicKey::from_secret_key(&library, &secret);
    let message = secp256k1::Message::from_digest([7; 32]);
    let signature = library.sign_ecdsa(&message, &secret);
    plan.time(|| library.verify_ecdsa(black_box(&message), &signature, &key))
}

/// For one of a pair.
pub(super) fn setup(plan: &Plan, multiplication: Duration) -> anyhow::Result<Figure> {
    let (one, other) = Participant::new(1)
        .zip(Participant::new(2))
        .context("indices are not zero")?;
    let costs = plan.repeat(|| Ok(pair_up(one, other)?.1))?;
    figure("pairwise setup", 1, &costs, |_| true, multiplication)
}

pub(super) fn generation(
    plan: &Plan,
    (curve, threshold, parties): (CurveId, u16, u16),
    multiplication: Duration,
) -> anyhow::Result<(Keys, Figure)> {
    let mut keys = Keys::new();
    let costs = plan.repeat(|| {
        let cost;
        (keys, cost) = generate(curve, threshold, parties)?;
        Ok(cost)
    })?;
    let figure = figure("key generation", 1, &costs, |_| true, multiplication)?;
    Ok((keys, figure))
}

pub(super) fn signature(
    plan: &Plan,
    signers: &Signers,
    multiplication: Duration,
) -> anyhow::Result<Figure> {
    let costs = plan.repeat(|| signers.sign())?;
    figure("full signature", 1, &costs, |_| true, multiplication)
}

/// For each presignature of a batch. All that were made come with it.
pub(super) fn presignature(
    plan: &Plan,
    signers: &Signers,
    batch: usize,
    multiplication: Duration,
) -> anyhow::Result<(Pools, Figure)> {
    let mut pools = Pools::new();
    let costs = plan.repeat(|| {
        let (made, cost) = signers.presign(batch)?;
        for (me, presignatures) in made {
            pools.entry(me).or_default().extend(presignatures);
        }
        Ok(cost)
    })?;
    let figure = figure("presignature", batch, &costs, |_| true, multiplication)?;
    Ok((pools, figure))
}

/// For a signer that releases its share, and for the one that combines them.
pub(super) fn online(
    plan: &Plan,
    signers: &Signers,
    mut pools: Pools,
    multiplication: Duration,
) -> anyhow::Result<[Figure; 2]> {
    // None from where the presignatures are used up.
    let costs = plan.repeat(|| signers.sign_online(&mut pools))?;
    let costs: Vec<Cost> = costs.into_iter().flatten().collect();
    let combiner = signers.coordinator();
    let signer = |me: Participant| me != combiner;
    Ok([
        figure("online, signer", 1, &costs, signer, multiplication)?,
        figure(
            "online, combiner",
            1,
            &costs,
            |me| me == combiner,
            multiplication,
        )?,
    ])
}

/// The figure of the parties that are `counted`, for one of a batch.
fn figure(
    phase: &'static str,
    batch: usize,
    costs: &[Cost],
    counted: impl Fn(Participant) -> bool,
    multiplication: Duration,
) -> anyhow::Result<Figure> {
    let mean = |cost: &Cost| {
        let times = cost.time.iter().filter(|(me, _)| counted(**me));
        let (count, sum) = times.fold((0, Duration::ZERO), |(count, sum), (_, time)| {
            (count + 1, sum + *time)
        });
        sum.checked_div(count).unwrap_or_default()
    };
    let cpu = median(costs.iter().map(mean).collect())?.div_f64(batch as f64);
    let last = costs.last().context("there are runs")?;
    let sent = last.sent.iter().filter(|(me, _)| counted(**me));
    Ok(Figure {
        phase,
        batch,
        runs: costs.len(),
        cpu_ms: cpu.as_secs_f64() * 1e3,
        multiplications: cpu.div_duration_f64(multiplication),
        bytes_sent: sent.map(|(_, sent)| *sent).max().unwrap_or(0) / batch,
        rounds: last.rounds,
    })
}

fn median(mut times: Vec<Duration>) -> anyhow::Result<Duration> {
    times.sort_unstable();
    let middle = times.get(times.len() / 2);
    middle.copied().context("there are runs")
}
