//! `arca.v1.MetricsService`: numbers that the enclave reports about itself, on the page for as long as it
//! goes on reporting them.
//!
//! They are kept apart from the host's own metrics, which never go away: a report replaces the one before
//! it as a whole, and all of it vanishes with the enclave. A number that nobody vouches for any more would
//! hide just that from whoever watches.

mod connection;
mod report;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arca_proto::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use arca_proto::v1::{ReportMetricsRequest, ReportMetricsResponse};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::metrics::{LogLimit, Metrics};
pub(crate) use connection::EnclaveStream;
use connection::StillOpen;
use report::Report;

/// A report is shown for so long.
const STALE: Duration = Duration::from_secs(30);
/// Some five times what 1024 ordinary metrics take.
const MAX_MESSAGE: usize = 1024 * 1024;

/// The last report.
#[derive(Debug)]
pub(crate) struct Reported {
    party: String,
    since: Instant,
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    at: Instant,
    connection: StillOpen,
    text: String,
}

impl Reported {
    pub(crate) fn new(party: &str) -> Self {
        Self {
            party: party.to_owned(),
            since: Instant::now(),
            last: Mutex::new(None),
        }
    }

    /// The reported series in Prometheus' text format; nothing once they are stale.
    pub(crate) fn render(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(last) if last.at.elapsed() < STALE && last.connection.is_open() => {
                last.text.clone()
            }
            _ => String::new(),
        }
    }

    /// Since the last report, or since the start of the host if there was none.
    pub(crate) fn age(&self) -> Duration {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map_or(self.since, |last| last.at).elapsed()
    }

    fn replace(&self, report: &Report, connection: StillOpen) {
        let reported = Last {
            at: Instant::now(),
            connection,
            text: report.render(&self.party),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reported);
    }
}

/// The service. It reads one report at a time and refuses another one meanwhile: decoded, two bytes of a
/// message can become a hundred, so that many large ones at once would take more memory than the storage.
pub(crate) fn service(
    metrics: Arc<Metrics>,
) -> InterceptedService<
    MetricsServiceServer<impl MetricsService>,
    impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone,
> {
    let service = Service {
        metrics,
        refusals: LogLimit::default(),
    };
    let service = MetricsServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE);
    let turn = Arc::new(Semaphore::new(1));
    InterceptedService::new(service, move |mut request: Request<()>| {
        let turn = Arc::clone(&turn).try_acquire_owned();
        let turn = turn.map_err(|_| Status::resource_exhausted("another report is coming in"))?;
        // Held until the request is dropped, which is after it was read and answered, or given up.
        request.extensions_mut().insert(Arc::new(turn));
        Ok(request)
    })
}

#[derive(Debug)]
struct Service {
    metrics: Arc<Metrics>,
    refusals: LogLimit,
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn report_metrics(
        &self,
        request: Request<ReportMetricsRequest>,
    ) -> Result<Response<ReportMetricsResponse>, Status> {
        let connection = request.extensions().get::<StillOpen>().cloned();
        let connection =
            connection.ok_or_else(|| Status::internal("bug: the connection is not known"))?;
        match Report::try_from(request.get_ref()) {
            Ok(report) => {
                self.metrics.reported.replace(&report, connection);
                self.metrics.reports_accepted.increment(1);
                Ok(Response::new(ReportMetricsResponse {}))
            }
            Err(error) => {
                self.metrics.reports_refused.increment(1);
                if let Some(suppressed) = self.refusals.permit() {
                    warn!(%error, suppressed, "refused a report of the enclave's metrics");
                }
                Err(Status::invalid_argument(error.to_string()))
            }
        }
    }
}
