//! The operator's HTTP listener: `/metrics`, `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};
use tonic::codegen::{Service, http};
use tracing::{debug, warn};

use crate::enclave::Enclave;
use crate::metrics::Metrics;
use crate::stop::Stop;
use crate::storage::Store;

/// Visitors at a time: a scraper and a few probes.
const VISITORS: usize = 32;
const REQUEST: Duration = Duration::from_secs(10);
const ENCLAVE_ANSWERS: Duration = Duration::from_secs(1);
/// A verdict is good for so long, so that frequent probes do not become load on the enclave.
const VERDICT: Duration = Duration::from_millis(500);

/// What the pages show.
#[derive(Clone, Debug)]
pub(crate) struct Pages(Arc<Subject>);

#[derive(Debug)]
struct Subject {
    metrics: Arc<Metrics>,
    store: Store,
    enclave: Enclave,
    stop: Stop,
    verdict: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Pages {
    pub(crate) fn new(metrics: Arc<Metrics>, store: Store, enclave: Enclave, stop: Stop) -> Self {
        Self(Arc::new(Subject {
            metrics,
            store,
            enclave,
            stop,
            verdict: Mutex::new(None),
        }))
    }

    /// Serves until its task is aborted: the pages answer while everything else drains.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(VISITORS));
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        continue;
                    };
                    let pages = self.clone();
                    tokio::spawn(async move {
                        pages.visit(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept on the metrics listener");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn visit(self, stream: TcpStream) {
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST);
        let connection =
            builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(self));
        if let Err(error) = connection.await {
            debug!(error, "visitor of the metrics listener");
        }
    }

    async fn answer(self, method: http::Method, path: String) -> http::Response<String> {
        use http::StatusCode as Code;
        if method != http::Method::GET && method != http::Method::HEAD {
            return page(Code::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match path.as_str() {
            "/metrics" => {
                self.0.store.measure_file();
                page(Code::OK, self.0.metrics.render())
            }
            "/healthz" => page(Code::OK, "ok\n".into()),
            "/readyz" => match self.0.ready().await {
                Ok(()) => page(Code::OK, "ready\n".into()),
                Err(why) => page(Code::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            },
            _ => page(
                Code::NOT_FOUND,
                "there are /metrics, /healthz and /readyz\n".into(),
            ),
        }
    }
}

impl Subject {
    /// Whether a client that connected now would be served.
    async fn ready(&self) -> Result<(), String> {
        if self.stop.is_stopping() {
            return Err("shutting down".into());
        }
        let mut verdict = self.verdict.lock().await;
        if let Some((at, known)) = &*verdict
            && at.elapsed() < VERDICT
        {
            return known.clone();
        }
        let found = self.look().await;
        *verdict = Some((Instant::now(), found.clone()));
        found
    }

    async fn look(&self) -> Result<(), String> {
        match timeout(ENCLAVE_ANSWERS, self.enclave.connect()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(format!("the enclave cannot be reached: {error}")),
            Err(_) => return Err("the enclave does not accept connections".into()),
        }
        self.store
            .usable()
            .await
            .map_err(|error| format!("storage: {error}"))
    }
}

impl<B> Service<http::Request<B>> for Pages {
    type Response = http::Response<String>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let pages = self.clone();
        Box::pin(async move { Ok(pages.answer(method, path).await) })
    }
}

fn page(code: http::StatusCode, body: String) -> http::Response<String> {
    let mut page = http::Response::new(body);
    *page.status_mut() = code;
    page.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    page
}
