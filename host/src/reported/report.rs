//! A report, checked as `arca/v1/host.proto` has it, and its place on the page.
//!
//! What is checked here is what keeps an enclave from writing anything else into the page than its own
//! series: names with its own prefix, text without line breaks, no label that Prometheus or the host sets.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use arca_proto::v1::metric::{Kind, Label};
use arca_proto::v1::{Metric, ReportMetricsRequest};

/// What all names begin with, so that none is one of the host's.
const PREFIX: &str = "arca_enclave_";
/// Most bytes of a name after that.
const MAX_NAME: usize = 64;
const MAX_METRICS: usize = 1024;
const MAX_LABELS: usize = 8;
/// Most characters of a label's value.
const MAX_VALUE: usize = 128;
/// What the name of a counter ends in.
const COUNTER_SUFFIX: &str = "_total";
/// The label that the host gives to every series.
const PARTY: &str = "party";

/// Families by name: what stands on the page under one HELP and one TYPE line.
#[derive(Debug)]
pub(super) struct Report(BTreeMap<String, Family>);

#[derive(Debug)]
struct Family {
    /// Index of the metric that set help and kind.
    at: usize,
    help: String,
    kind: Kind,
    series: BTreeMap<Labels, Sample>,
}

/// Names, ascending, with their values, none of them empty.
type Labels = Vec<(String, String)>;

#[derive(Debug)]
struct Sample {
    at: usize,
    value: f64,
}

/// Why a report is refused. Names entries by their index: what the enclave wrote is not repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("metrics has {0} entries, the most is {MAX_METRICS}")]
    Metrics(usize),
    #[error("metrics[{at}]{problem}")]
    Metric { at: usize, problem: MetricError },
}

#[derive(Debug, thiserror::Error)]
pub(super) enum MetricError {
    #[error(".name does not begin with {PREFIX}")]
    Prefix,
    #[error(".name has nothing after {PREFIX}")]
    NoName,
    #[error(".name has {0} bytes after {PREFIX}, the most is {MAX_NAME}")]
    LongName(usize),
    #[error(".name {0}")]
    Name(TextError),
    #[error(".name is that of a COUNTER and does not end in {COUNTER_SUFFIX}")]
    CounterName,
    #[error(".help {0}")]
    Help(TextError),
    #[error(".help is not that of metrics[{0}], which has the same name")]
    HelpDiffers(usize),
    #[error(".kind is {0}, neither GAUGE nor COUNTER")]
    Kind(i32),
    #[error(".kind is not that of metrics[{0}], which has the same name")]
    KindDiffers(usize),
    #[error(".value is not finite")]
    NotFinite,
    #[error(".value is negative; a COUNTER counts up from 0")]
    Negative,
    #[error(".labels has {0} entries, the most is {MAX_LABELS}")]
    Labels(usize),
    #[error(".labels[{at}]{problem}")]
    Label { at: usize, problem: LabelError },
    #[error(".labels has one name twice")]
    LabelTwice,
    #[error(" is the same series as metrics[{0}]")]
    SeriesTwice(usize),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LabelError {
    #[error(".name {0}")]
    Name(TextError),
    #[error(".name is {PARTY}, which the host sets")]
    Party,
    #[error(".name begins with two underscores, which Prometheus keeps for itself")]
    Reserved,
    #[error(".value {0}")]
    Value(TextError),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TextError {
    #[error("is empty")]
    Empty,
    #[error("is {0} characters long, the most is {MAX_VALUE}")]
    Long(usize),
    #[error("has the character U+{character:04X} at offset {at}, only {allowed} may stand in it")]
    Character {
        character: u32,
        at: usize,
        allowed: &'static str,
    },
}

impl TryFrom<&ReportMetricsRequest> for Report {
    type Error = ReportError;

    fn try_from(request: &ReportMetricsRequest) -> Result<Self, ReportError> {
        let metrics = &request.metrics;
        if metrics.len() > MAX_METRICS {
            return Err(ReportError::Metrics(metrics.len()));
        }
        let mut report = Self(BTreeMap::new());
        for (at, metric) in metrics.iter().enumerate() {
            report
                .add(at, metric)
                .map_err(|problem| ReportError::Metric { at, problem })?;
        }
        Ok(report)
    }
}

impl Report {
    fn add(&mut self, at: usize, metric: &Metric) -> Result<(), MetricError> {
        let kind = match Kind::try_from(metric.kind) {
            Ok(kind @ (Kind::Gauge | Kind::Counter)) => kind,
            Ok(Kind::Unspecified) | Err(_) => return Err(MetricError::Kind(metric.kind)),
        };
        check_name(&metric.name, kind)?;
        check_help(&metric.help).map_err(MetricError::Help)?;
        if !metric.value.is_finite() {
            return Err(MetricError::NotFinite);
        }
        if kind == Kind::Counter && metric.value < 0.0 {
            return Err(MetricError::Negative);
        }
        let labels = read_labels(&metric.labels)?;

        let family = self.0.entry(metric.name.clone()).or_insert_with(|| Family {
            at,
            help: metric.help.clone(),
            kind,
            series: BTreeMap::new(),
        });
        if family.help != metric.help {
            return Err(MetricError::HelpDiffers(family.at));
        }
        if family.kind != kind {
            return Err(MetricError::KindDiffers(family.at));
        }
        match family.series.entry(labels) {
            Entry::Occupied(earlier) => Err(MetricError::SeriesTwice(earlier.get().at)),
            Entry::Vacant(place) => {
                place.insert(Sample {
                    at,
                    value: metric.value,
                });
                Ok(())
            }
        }
    }

    /// In Prometheus' text format, version 0.0.4, every series with the label `party`.
    pub(super) fn render(&self, party: &str) -> String {
        let mut page = String::new();
        for (name, family) in &self.0 {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge | Kind::Unspecified => "gauge",
            };
            let help = escaped(&family.help, &['\\']);
            // Writing to a string does not fail.
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, sample) in &family.series {
                let _ = write!(page, "{name}{{{PARTY}=\"{}\"", in_quotes(party));
                for (label, value) in labels {
                    let _ = write!(page, ",{label}=\"{}\"", in_quotes(value));
                }
                let _ = writeln!(page, "}} {}", sample.value);
            }
            page.push('\n');
        }
        page
    }
}

fn check_name(name: &str, kind: Kind) -> Result<(), MetricError> {
    let rest = name.strip_prefix(PREFIX).ok_or(MetricError::Prefix)?;
    if rest.is_empty() {
        return Err(MetricError::NoName);
    }
    let length = rest.len();
    if length > MAX_NAME {
        return Err(MetricError::LongName(length));
    }
    let allowed = |c| matches!(c, 'a'..='z' | '0'..='9' | '_');
    check_characters(name, allowed, "a-z, 0-9 and _").map_err(MetricError::Name)?;
    if kind == Kind::Counter && !name.ends_with(COUNTER_SUFFIX) {
        return Err(MetricError::CounterName);
    }
    Ok(())
}

fn check_help(help: &str) -> Result<(), TextError> {
    if help.trim().is_empty() {
        return Err(TextError::Empty);
    }
    check_characters(help, is_printable, PRINTABLE)
}

fn read_labels(labels: &[Label]) -> Result<Labels, MetricError> {
    if labels.len() > MAX_LABELS {
        return Err(MetricError::Labels(labels.len()));
    }
    let mut read = Labels::new();
    for (at, label) in labels.iter().enumerate() {
        check_label(label).map_err(|problem| MetricError::Label { at, problem })?;
        read.push((label.name.clone(), label.value.clone()));
    }
    read.sort_unstable();
    let names = || read.iter().map(|(name, _)| name);
    if names().zip(names().skip(1)).any(|(one, next)| one == next) {
        return Err(MetricError::LabelTwice);
    }
    // To Prometheus an empty label is none, so two series that differ in nothing else are one.
    read.retain(|(_, value)| !value.is_empty());
    Ok(read)
}

fn check_label(Label { name, value }: &Label) -> Result<(), LabelError> {
    if name.is_empty() {
        return Err(LabelError::Name(TextError::Empty));
    }
    check_characters(name, |c| matches!(c, 'a'..='z' | '_'), "a-z and _")
        .map_err(LabelError::Name)?;
    if name == PARTY {
        return Err(LabelError::Party);
    }
    // `__name__` would be the series' name.
    if name.starts_with("__") {
        return Err(LabelError::Reserved);
    }
    let length = value.chars().count();
    if length > MAX_VALUE {
        return Err(LabelError::Value(TextError::Long(length)));
    }
    check_characters(value, is_printable, PRINTABLE).map_err(LabelError::Value)
}

fn check_characters(
    text: &str,
    allowed: impl Fn(char) -> bool,
    which: &'static str,
) -> Result<(), TextError> {
    match text.char_indices().find(|(_, c)| !allowed(*c)) {
        Some((at, c)) => Err(TextError::Character {
            character: c.into(),
            at,
            allowed: which,
        }),
        None => Ok(()),
    }
}

const PRINTABLE: &str = "printable characters";

/// No control, line break, mark of direction, unassigned or invisible character, and none that combines
/// with its neighbour: the ones that stand for themselves in Rust's own quoting, and what quotes.
fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().eq([c])
}

fn in_quotes(value: &str) -> String {
    escaped(value, &['\\', '"'])
}

/// With a backslash before each of some characters. Line breaks, which the format escapes too, are refused.
fn escaped(text: &str, characters: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if characters.contains(&c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
