//! Relays the enclave's connections to AWS KMS. TLS begins in the enclave and ends at KMS: nothing of what
//! passes here can be read here, or changed without notice.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::config::Limits;
use crate::enclave::Listener;
use crate::metrics::{KmsFailure, Metrics};
use crate::pipe::{End, pipe};
use crate::stop::{Connections, Stop};

/// Connections at once. The enclave makes one at a time.
const CONNECTIONS: usize = 16;
/// Without a byte. The enclave has given up on a request long before.
const IDLE: Duration = Duration::from_secs(60);
/// After the system refused an accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection to KMS needs to know.
#[derive(Debug)]
pub(crate) struct Relay {
    endpoint: String,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Relay {
    pub(crate) fn new(endpoint: String, limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let limits = Limits {
            idle: limits.idle.min(IDLE),
            ..limits.clone()
        };
        Self {
            endpoint,
            limits,
            metrics,
        }
    }

    /// One connection from the enclave to its end.
    async fn relay(&self, mut enclave: UnixStream, place: OwnedSemaphorePermit, mut stop: Stop) {
        let connected = tokio::select! {
            connected = timeout(self.limits.dial, TcpStream::connect(&self.endpoint)) => connected,
            () = stop.stopping() => return,
        };
        let mut network = match connected {
            Ok(Ok(network)) => network,
            Ok(Err(error)) => return self.unreachable(&error),
            Err(elapsed) => return self.unreachable(&elapsed),
        };
        if let Err(error) = network.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY not set");
        }
        let flow = &self.metrics.kms;
        let open = flow.open();
        let end = pipe(&mut network, &mut enclave, &self.limits, flow, stop).await;
        open.close(end);
        drop(place);
        if end == End::Idle {
            info!("connection to KMS closed: idle");
        } else {
            debug!(?end, "connection to KMS ended");
        }
    }

    fn unreachable(&self, error: &(dyn std::error::Error + Sync)) {
        self.metrics.kms_failed(KmsFailure::Unreachable);
        warn!(
            endpoint = self.endpoint, %error,
            "KMS cannot be reached; check kms.endpoint, the route to it and its security group"
        );
    }
}

/// Accepts the enclave's connections until told to stop, then drains.
pub(crate) async fn serve(relay: Arc<Relay>, listener: Listener, mut stop: Stop) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.stopping() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(enclave) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let (relay, stop) = (Arc::clone(&relay), stop.clone());
                    connections.spawn(async move { relay.relay(enclave, place, stop).await });
                }
                Err(_) => {
                    relay.metrics.kms_failed(KmsFailure::LimitReached);
                    warn!(
                        limit = CONNECTIONS,
                        "connection to KMS refused: limit reached"
                    );
                }
            },
            Err(error) => {
                warn!(%error, "cannot accept connections to KMS; is the limit on open files too low?");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let cut = connections.drain(relay.limits.drain).await;
    info!(cut, "connections to KMS drained");
}
