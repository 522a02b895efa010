//! Prometheus metrics, one registry per host, every series there from the start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::error::Error;
use crate::pipe::End;
use crate::reported::Reported;

const CONNECTIONS_OPEN: &str = "arca_host_connections_open";
const CONNECTIONS: &str = "arca_host_connections_total";
const CLOSED: &str = "arca_host_connections_closed_total";
const REFUSED: &str = "arca_host_connections_refused_total";
const BYTES: &str = "arca_host_bytes_total";
const DIALS: &str = "arca_host_dials_total";
const KMS_FAILURES: &str = "arca_host_kms_failures_total";
const STORAGE_OPERATIONS: &str = "arca_host_storage_operations_total";
const STORAGE_SECONDS: &str = "arca_host_storage_seconds";
const STORAGE_COMMITS: &str = "arca_host_storage_commits_total";
const STORAGE_REOPENS: &str = "arca_host_storage_reopens_total";
const STORAGE_BYTES: &str = "arca_host_storage_bytes";
const STORAGE_QUOTA: &str = "arca_host_storage_quota_bytes";
const STORAGE_FILE: &str = "arca_host_storage_file_bytes";
const LOG_ENTRIES: &str = "arca_host_log_entries";
const LOG_UNARCHIVED: &str = "arca_host_log_unarchived_entries";
const LOG_STOPPED: &str = "arca_host_log_stopped";
const ARCHIVE_FAILURES: &str = "arca_host_archive_failures_total";
const WITNESS_REQUESTS: &str = "arca_host_witness_requests_total";
const WITNESS_SIZE: &str = "arca_host_witness_cosigned_entries";
const REPORTS: &str = "arca_host_enclave_reports_total";
const REPORT_AGE: &str = "arca_host_enclave_report_age_seconds";
const START_TIME: &str = "arca_host_start_time_seconds";
const BUILD: &str = "arca_host_build_info";

/// From a read out of the cache to a disk in trouble.
const SECONDS_BUCKETS: [f64; 12] = [
    0.0001, 0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 5.0,
];

const METADATA: Metadata<'static> = Metadata::new("arca_host", Level::INFO, None);

/// Every metric of one host.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    page: PrometheusHandle,
    pub(crate) inbound: FlowMetrics,
    pub(crate) outbound: FlowMetrics,
    pub(crate) kms: FlowMetrics,
    pub(crate) storage_commits: Counter,
    pub(crate) storage_reopens: Counter,
    pub(crate) storage_bytes: Gauge,
    pub(crate) storage_file_bytes: Gauge,
    pub(crate) log_entries: Gauge,
    pub(crate) log_unarchived: Gauge,
    pub(crate) log_stopped: Gauge,
    /// What the enclave says of itself; the rest is what the host saw.
    pub(crate) reported: Reported,
    pub(crate) reports_accepted: Counter,
    pub(crate) reports_refused: Counter,
    report_age: Gauge,
    pub(crate) enclave_log: LogLimit,
    pub(crate) refusal_log: LogLimit,
}

/// Metrics of one direction in which connections are made.
#[derive(Debug)]
pub(crate) struct FlowMetrics {
    open: Gauge,
    opened: Counter,
    closed: [Counter; ENDS.len()],
    pub(crate) bytes_to_enclave: Counter,
    pub(crate) bytes_from_enclave: Counter,
}

/// One open connection in the gauge.
#[derive(Debug)]
pub(crate) struct OpenConnection<'a> {
    flow: &'a FlowMetrics,
    end: End,
}

/// Why an inbound connection never reached the enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedBecause {
    Total,
    Address,
    Rate,
    AddressRate,
    Silent,
    ClosedSilently,
    Enclave,
    System,
}

/// What became of a dial request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialOutcome {
    Connected,
    UnknownPeer,
    Unreachable,
    LimitReached,
    Malformed,
}

/// Why the enclave did not get what it needs for a request to KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KmsFailure {
    Unreachable,
    LimitReached,
    Credentials,
}

/// A call of the storage service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Put,
    Get,
    List,
    /// Reads of the audit log.
    Log,
}

const ENDS: [(End, &str); 4] = [
    (End::Done, "done"),
    (End::Broken, "broken"),
    (End::Idle, "idle"),
    (End::Drained, "shutdown"),
];

const REFUSALS: [RefusedBecause; 8] = [
    RefusedBecause::Total,
    RefusedBecause::Address,
    RefusedBecause::Rate,
    RefusedBecause::AddressRate,
    RefusedBecause::Silent,
    RefusedBecause::ClosedSilently,
    RefusedBecause::Enclave,
    RefusedBecause::System,
];

impl Metrics {
    /// A registry whose every series carries the party's name.
    ///
    /// # Errors
    ///
    /// [`Error::Metrics`].
    pub(crate) fn new(party: &str, peers: &[&str], quota_bytes: u64) -> Result<Self, Error> {
        let recorder = PrometheusBuilder::new()
            .add_global_label("party", party)
            .set_buckets_for_metric(Matcher::Full(STORAGE_SECONDS.into()), &SECONDS_BUCKETS)
            .map_err(|error| Error::Metrics(error.to_string()))?
            .build_recorder();
        describe(&recorder);
        gauge(&recorder, STORAGE_QUOTA, &[]).set(quota_bytes as f64);
        gauge(&recorder, BUILD, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        if let Ok(since) = SystemTime::now().duration_since(UNIX_EPOCH) {
            gauge(&recorder, START_TIME, &[]).set(since.as_secs_f64());
        }
        let metrics = Self {
            page: recorder.handle(),
            inbound: FlowMetrics::new(&recorder, "inbound"),
            outbound: FlowMetrics::new(&recorder, "outbound"),
            kms: FlowMetrics::new(&recorder, "kms"),
            storage_commits: counter(&recorder, STORAGE_COMMITS, &[]),
            storage_reopens: counter(&recorder, STORAGE_REOPENS, &[]),
            storage_bytes: gauge(&recorder, STORAGE_BYTES, &[]),
            storage_file_bytes: gauge(&recorder, STORAGE_FILE, &[]),
            log_entries: gauge(&recorder, LOG_ENTRIES, &[]),
            log_unarchived: gauge(&recorder, LOG_UNARCHIVED, &[]),
            log_stopped: gauge(&recorder, LOG_STOPPED, &[]),
            reported: Reported::new(party),
            reports_accepted: counter(&recorder, REPORTS, &[("outcome", "ok")]),
            reports_refused: counter(&recorder, REPORTS, &[("outcome", "refused")]),
            report_age: gauge(&recorder, REPORT_AGE, &[]),
            enclave_log: LogLimit::default(),
            refusal_log: LogLimit::default(),
            recorder,
        };
        for because in REFUSALS {
            metrics.refused_counter(because).increment(0);
        }
        for peer in peers {
            for outcome in [DialOutcome::Connected, DialOutcome::Unreachable] {
                metrics.dial_counter(Some(peer), outcome).increment(0);
            }
        }
        for failure in [
            KmsFailure::Unreachable,
            KmsFailure::LimitReached,
            KmsFailure::Credentials,
        ] {
            metrics.kms_counter(failure).increment(0);
        }
        for reason in ["unavailable", "storage", "damage"] {
            metrics.archive_counter(reason).increment(0);
        }
        for operation in [
            Operation::Put,
            Operation::Get,
            Operation::List,
            Operation::Log,
        ] {
            metrics.storage_counter(operation, "ok").increment(0);
        }
        Ok(metrics)
    }

    pub(crate) fn refused(&self, because: RefusedBecause) {
        self.refused_counter(because).increment(1);
    }

    /// `peer` is a configured name, or none: what an enclave sends never becomes a label.
    pub(crate) fn dialled(&self, peer: Option<&str>, outcome: DialOutcome) {
        self.dial_counter(peer, outcome).increment(1);
    }

    pub(crate) fn kms_failed(&self, failure: KmsFailure) {
        self.kms_counter(failure).increment(1);
    }

    pub(crate) fn archive_failed(&self, reason: &'static str) {
        self.archive_counter(reason).increment(1);
    }

    /// `witness` is a configured name.
    pub(crate) fn witness_asked(&self, witness: &str, outcome: &str) {
        let labels = [("witness", witness), ("outcome", outcome)];
        counter(&self.recorder, WITNESS_REQUESTS, &labels).increment(1);
    }

    /// Entries of the newest checkpoint that a witness cosigned.
    pub(crate) fn witness_cosigned(&self, witness: &str, size: u64) {
        gauge(&self.recorder, WITNESS_SIZE, &[("witness", witness)]).set(size as f64);
    }

    pub(crate) fn stored(&self, operation: Operation, outcome: &'static str, since: Instant) {
        self.storage_counter(operation, outcome).increment(1);
        let labels = [("operation", operation.label())];
        let seconds: Histogram = self
            .recorder
            .register_histogram(&key(STORAGE_SECONDS, &labels), &METADATA);
        seconds.record(since.elapsed().as_secs_f64());
    }

    /// The page in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        self.report_age.set(self.reported.age().as_secs_f64());
        let mut page = self.page.render();
        page.push_str(&self.reported.render());
        page
    }

    /// Folds recorded durations into their buckets; without it they would pile up between two visits of
    /// a scraper.
    pub(crate) fn fold(&self) {
        self.page.run_upkeep();
    }

    fn refused_counter(&self, because: RefusedBecause) -> Counter {
        counter(&self.recorder, REFUSED, &[("reason", because.label())])
    }

    fn dial_counter(&self, peer: Option<&str>, outcome: DialOutcome) -> Counter {
        let labels = [
            ("peer", peer.unwrap_or("none")),
            ("outcome", outcome.label()),
        ];
        counter(&self.recorder, DIALS, &labels)
    }

    fn kms_counter(&self, failure: KmsFailure) -> Counter {
        counter(&self.recorder, KMS_FAILURES, &[("reason", failure.label())])
    }

    fn archive_counter(&self, reason: &'static str) -> Counter {
        counter(&self.recorder, ARCHIVE_FAILURES, &[("reason", reason)])
    }

    fn storage_counter(&self, operation: Operation, outcome: &'static str) -> Counter {
        let labels = [("operation", operation.label()), ("outcome", outcome)];
        counter(&self.recorder, STORAGE_OPERATIONS, &labels)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl FlowMetrics {
    fn new(recorder: &PrometheusRecorder, flow: &'static str) -> Self {
        let bytes =
            |direction| counter(recorder, BYTES, &[("flow", flow), ("direction", direction)]);
        Self {
            open: gauge(recorder, CONNECTIONS_OPEN, &[("flow", flow)]),
            opened: counter(recorder, CONNECTIONS, &[("flow", flow)]),
            closed: ENDS.map(|(_, end)| counter(recorder, CLOSED, &[("flow", flow), ("end", end)])),
            bytes_to_enclave: bytes("to_enclave"),
            bytes_from_enclave: bytes("from_enclave"),
        }
    }

    /// Counts a connection in; dropping the result, however that happens, counts it out.
    pub(crate) fn open(&self) -> OpenConnection<'_> {
        self.open.increment(1.0);
        self.opened.increment(1);
        OpenConnection {
            flow: self,
            // Only a shutdown that ran out of time drops a connection without saying how it ended.
            end: End::Drained,
        }
    }
}

impl OpenConnection<'_> {
    pub(crate) fn close(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.flow.open.decrement(1.0);
        for ((end, _), counter) in ENDS.iter().zip(&self.flow.closed) {
            if *end == self.end {
                counter.increment(1);
            }
        }
    }
}

impl RefusedBecause {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Total => "max_connections",
            Self::Address => "max_connections_per_address",
            Self::Rate => "accepts_per_second",
            Self::AddressRate => "accepts_per_second_per_address",
            Self::Silent => "first_byte_timeout",
            Self::ClosedSilently => "closed_silently",
            Self::Enclave => "enclave_unreachable",
            Self::System => "system",
        }
    }
}

impl DialOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::UnknownPeer => "unknown_peer",
            Self::Unreachable => "unreachable",
            Self::LimitReached => "limit_reached",
            Self::Malformed => "malformed",
        }
    }
}

impl KmsFailure {
    fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::LimitReached => "limit_reached",
            Self::Credentials => "credentials",
        }
    }
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::List => "list",
            Self::Log => "log",
        }
    }
}

/// Lets one log line through per second, so that a flood does not fill the disk with its own record.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    last: Mutex<Option<Instant>>,
    suppressed: AtomicU64,
}

impl LogLimit {
    const EVERY: Duration = Duration::from_secs(1);

    /// How many lines were held back since the last one, if another may be written now.
    pub(crate) fn permit(&self) -> Option<u64> {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.duration_since(last) < Self::EVERY) {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *last = Some(now);
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

fn describe(recorder: &PrometheusRecorder) {
    let counters = [
        (
            CONNECTIONS,
            "Connections forwarded, by flow (inbound: accepted on the network; outbound: dialled for the enclave; kms: to AWS KMS)",
        ),
        (CLOSED, "Forwarded connections that ended, by flow and end"),
        (
            REFUSED,
            "Inbound connections that never reached the enclave, by reason",
        ),
        (DIALS, "Dial requests of the enclave, by peer and outcome"),
        (
            KMS_FAILURES,
            "What the enclave needed for a request to AWS KMS and did not get, by reason",
        ),
        (
            STORAGE_OPERATIONS,
            "Calls of the storage service, by operation and outcome",
        ),
        (
            STORAGE_COMMITS,
            "Durable transactions; puts divided by this is how many share one",
        ),
        (
            STORAGE_REOPENS,
            "Times the storage file was opened again after a failure",
        ),
        (
            ARCHIVE_FAILURES,
            "Times that the audit log could not be archived, by reason",
        ),
        (
            WITNESS_REQUESTS,
            "Checkpoints of the audit log shown to external witnesses, by witness and outcome",
        ),
        (REPORTS, "Reports of the enclave's own metrics, by outcome"),
    ];
    for (name, text) in counters {
        recorder.describe_counter(name.into(), None, text.into());
    }
    recorder.describe_counter(
        BYTES.into(),
        Some(Unit::Bytes),
        "Bytes forwarded, by flow and direction".into(),
    );
    let gauges = [
        (
            CONNECTIONS_OPEN,
            None,
            "Connections being forwarded, by flow",
        ),
        (
            STORAGE_BYTES,
            Some(Unit::Bytes),
            "Bytes of names and blobs stored, which the quota bounds",
        ),
        (
            STORAGE_QUOTA,
            Some(Unit::Bytes),
            "storage.quota_bytes of the configuration",
        ),
        (
            STORAGE_FILE,
            Some(Unit::Bytes),
            "Bytes of disk that the storage file takes",
        ),
        (LOG_ENTRIES, None, "Entries of the audit log"),
        (
            LOG_UNARCHIVED,
            None,
            "Entries of the audit log that are in the storage file and not in the archive yet",
        ),
        (
            LOG_STOPPED,
            None,
            "Audit logs that are not archived until somebody looked; the host's log says why",
        ),
        (
            WITNESS_SIZE,
            None,
            "Entries of the newest checkpoint that an external witness cosigned",
        ),
        (
            REPORT_AGE,
            Some(Unit::Seconds),
            "Since the enclave's last accepted report, or the host's start if there was none",
        ),
        (
            START_TIME,
            Some(Unit::Seconds),
            "Unix time at which the host started",
        ),
        (BUILD, None, "Always 1; the version is a label"),
    ];
    for (name, unit, text) in gauges {
        recorder.describe_gauge(name.into(), unit, text.into());
    }
    recorder.describe_histogram(
        STORAGE_SECONDS.into(),
        Some(Unit::Seconds),
        "Duration of calls of the storage service, by operation".into(),
    );
}

fn counter(
    recorder: &PrometheusRecorder,
    name: &'static str,
    labels: &[(&'static str, &str)],
) -> Counter {
    recorder.register_counter(&key(name, labels), &METADATA)
}

fn gauge(
    recorder: &PrometheusRecorder,
    name: &'static str,
    labels: &[(&'static str, &str)],
) -> Gauge {
    recorder.register_gauge(&key(name, labels), &METADATA)
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(label, value)| Label::new(*label, (*value).to_owned()))
        .collect();
    Key::from_parts(name, labels)
}
