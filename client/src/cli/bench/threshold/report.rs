//! The figures, for people and as JSON, and what they were meant to be.

use std::iter;
use std::time::Duration;

use arca_threshold::MAX_BATCH;
use arca_threshold::ecdsa::CurveId;
use serde::Serialize;

use super::measure::{Baseline, Multiplications, Plan};
use crate::cli::output::Page;

/// Everything measured, and on what.
#[derive(Serialize)]
pub(super) struct Report {
    version: &'static str,
    optimised: bool,
    processor: Option<String>,
    seconds: f64,
    curves: Vec<CurveFigures>,
    libsecp256k1_verification_ms: f64,
    /// One side of a pair, whatever the keys.
    setup: Figure,
    keys: Vec<KeyFigures>,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct CurveFigures {
    curve: &'static str,
    base_point_ms: f64,
    variable_point_ms: f64,
}

/// Everything measured with one key.
#[derive(Serialize)]
pub(super) struct KeyFigures {
    pub curve: &'static str,
    pub threshold: u16,
    pub parties: u16,
    /// From the time of one in a full batch.
    pub presignatures_per_second_and_core: f64,
    pub figures: Vec<Figure>,
}

/// One phase of a protocol, for one party.
#[derive(Serialize)]
pub(super) struct Figure {
    pub phase: &'static str,
    /// How many were made at once; all but the rounds is for one of them.
    pub batch: usize,
    pub runs: usize,
    /// On the processor.
    pub cpu_ms: f64,
    /// The same in variable-point multiplications of the curve; of secp256k1 for the setup.
    pub multiplications: f64,
    /// The most that one party sends.
    pub bytes_sent: usize,
    pub rounds: usize,
}

/// What a figure of secp256k1, 2 of 3, has to reach, and is hoped to.
#[derive(Serialize)]
struct Target {
    what: &'static str,
    unit: &'static str,
    measured: f64,
    target: f64,
    goal: f64,
    reached: Reached,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Reached {
    Goal,
    Target,
    Neither,
}

pub(super) fn name(curve: CurveId) -> &'static str {
    match curve {
        CurveId::Secp256k1 => "secp256k1",
        CurveId::P256 => "p256",
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Report {
    pub fn new(plan: &Plan, baseline: Baseline, setup: Figure, keys: Vec<KeyFigures>) -> Self {
        let curve = |curve, of: &Multiplications| CurveFigures {
            curve: name(curve),
            base_point_ms: ms(of.base_point),
            variable_point_ms: ms(of.variable_point),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
            processor: processor(),
            seconds: plan.time.as_secs_f64(),
            curves: vec![
                curve(CurveId::Secp256k1, &baseline.secp256k1),
                curve(CurveId::P256, &baseline.p256),
            ],
            libsecp256k1_verification_ms: ms(baseline.verification),
            targets: targets(&setup, &keys),
            setup,
            keys,
        }
    }
}

/// The processor's name, from `/proc/cpuinfo` (proc(5)).
fn processor() -> Option<String> {
    let all = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = all.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn targets(setup: &Figure, keys: &[KeyFigures]) -> Vec<Target> {
    let mut targets = vec![Target::ms("pairwise setup, each side", setup, 60.0, 25.0)];
    let is_it = |key: &&KeyFigures| (key.curve, key.threshold, key.parties) == ("secp256k1", 2, 3);
    let figures = keys
        .iter()
        .find(is_it)
        .into_iter()
        .flat_map(|key| &key.figures);
    for figure in figures {
        match (figure.phase, figure.batch) {
            ("key generation", _) => targets.push(Target::ms("key generation", figure, 3.0, 1.5)),
            ("full signature", _) => targets.push(Target::ms("full signature", figure, 1.5, 0.7)),
            ("online, combiner", _) => {
                targets.push(Target::ms("online signature, combiner", figure, 0.1, 0.06));
            }
            ("presignature", MAX_BATCH) => targets.push(Target::new(
                "sent for a presignature",
                "kB",
                figure.bytes_sent as f64 / 1e3,
                (60.0, 30.0),
            )),
            _ => {}
        }
    }
    targets
}

impl Target {
    fn ms(what: &'static str, figure: &Figure, target: f64, goal: f64) -> Self {
        Self::new(what, "ms", figure.cpu_ms, (target, goal))
    }

    fn new(
        what: &'static str,
        unit: &'static str,
        measured: f64,
        (target, goal): (f64, f64),
    ) -> Self {
        let reached = if measured <= goal {
            Reached::Goal
        } else if measured <= target {
            Reached::Target
        } else {
            Reached::Neither
        };
        Self {
            what,
            unit,
            measured,
            target,
            goal,
            reached,
        }
    }
}

pub(super) fn render(page: &mut Page, report: &Report) {
    page.line(format!(
        "{}, {} build, {} s for each figure",
        report.processor.as_deref().unwrap_or("unknown processor"),
        if report.optimised { "release" } else { "debug" },
        report.seconds,
    ));
    page.line("time of one party on the processor (in brackets: in variable-point multiplications of the curve)");
    page.line("");
    page.line(format!(
        "libsecp256k1 verifies in {}; pairwise setup, each side: {}, {} bytes, {} rounds",
        time(report.libsecp256k1_verification_ms),
        of(&report.setup),
        report.setup.bytes_sent,
        report.setup.rounds,
    ));
    for curve in &report.curves {
        let keys: Vec<_> = report
            .keys
            .iter()
            .filter(|key| key.curve == curve.curve)
            .collect();
        if !keys.is_empty() {
            page.line("");
            render_curve(page, curve, &keys);
        }
    }
    page.line("");
    let rows: Vec<_> = report.targets.iter().map(row).collect();
    page.table(
        &["secp256k1, 2 of 3", "measured", "target", "goal", "reached"],
        &rows,
    );
}

fn render_curve(page: &mut Page, curve: &CurveFigures, keys: &[&KeyFigures]) {
    page.heading(&format!(
        "{}: base-point multiplication {}, variable-point {}",
        curve.curve,
        time(curve.base_point_ms),
        time(curve.variable_point_ms),
    ));
    let sizes: Vec<String> = keys
        .iter()
        .map(|key| format!("{} of {}", key.threshold, key.parties))
        .collect();
    let head = |first| {
        iter::once(first)
            .chain(sizes.iter().map(String::as_str))
            .collect::<Vec<_>>()
    };
    let mut times = rows(keys, of);
    let rate = |key: &&KeyFigures| format!("{:.0}", key.presignatures_per_second_and_core);
    let rates = keys.iter().map(rate);
    times.push(
        iter::once("presignatures per second and core".to_owned())
            .chain(rates)
            .collect(),
    );
    page.table(&head("time"), &times);
    page.line("");
    let traffic = |figure: &Figure| format!("{}, {}", figure.bytes_sent, figure.rounds);
    page.table(&head("bytes sent, rounds"), &rows(keys, traffic));
}

/// One row for each phase, with a cell for each key.
fn rows(keys: &[&KeyFigures], cell: impl Fn(&Figure) -> String) -> Vec<Vec<String>> {
    let phases = keys
        .first()
        .map(|key| key.figures.iter())
        .into_iter()
        .flatten();
    let row = |(index, phase)| {
        let figures = keys.iter().filter_map(|key| key.figures.get(index));
        iter::once(label(phase)).chain(figures.map(&cell)).collect()
    };
    phases.enumerate().map(row).collect()
}

fn label(figure: &Figure) -> String {
    match figure.batch {
        1 => figure.phase.to_owned(),
        batch => format!("{}, {batch} at once", figure.phase),
    }
}

fn of(figure: &Figure) -> String {
    format!("{} ({:.1})", time(figure.cpu_ms), figure.multiplications)
}

/// Three digits.
fn time(ms: f64) -> String {
    match ms {
        0.0..0.1 => format!("{:.1} us", ms * 1e3),
        0.1..1.0 => format!("{:.0} us", ms * 1e3),
        1.0..10.0 => format!("{ms:.2} ms"),
        _ => format!("{ms:.1} ms"),
    }
}

fn row(target: &Target) -> Vec<String> {
    let unit = target.unit;
    vec![
        target.what.to_owned(),
        format!("{:.3} {unit}", target.measured),
        format!("{} {unit}", target.target),
        format!("{} {unit}", target.goal),
        match target.reached {
            Reached::Goal => "goal",
            Reached::Target => "target",
            Reached::Neither => "neither",
        }
        .to_owned(),
    ]
}
