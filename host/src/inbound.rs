//! Inbound: TCP connections of clients and peers, forwarded to the enclave.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::admission::{Admission, Permit, Refusal};
use crate::config::Limits;
use crate::enclave::Enclave;
use crate::metrics::{Metrics, RefusedBecause};
use crate::pipe::{End, pipe};
use crate::stop::{Connections, Stop};

/// After the system refused an accept (no file descriptors left, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every inbound connection needs to know.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) enclave: Enclave,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
}

/// Accepts until told to stop, then drains.
pub(crate) async fn serve(inbound: Arc<Inbound>, listener: TcpListener, mut stop: Stop) {
    let admission = Admission::new(&inbound.limits);
    let mut connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.stopping() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => match admission.admit(from.ip(), Instant::now()) {
                Ok(permit) => {
                    let inbound = Arc::clone(&inbound);
                    let stop = stop.clone();
                    connections
                        .spawn(async move { inbound.forward(stream, from, permit, stop).await });
                }
                Err(refusal) => inbound.refuse(from.ip(), refusal.into()),
            },
            // A client that was gone again before we looked is nobody's trouble.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "cannot accept connections; is the limit on open files too low?");
                inbound.metrics.refused(RefusedBecause::System);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let cut = connections.drain(inbound.limits.drain).await;
    info!(cut, "inbound connections drained");
}

impl Inbound {
    /// One connection from its first byte to its end.
    async fn forward(
        &self,
        mut network: TcpStream,
        from: SocketAddr,
        permit: Permit,
        mut stop: Stop,
    ) {
        // The enclave learns of a connection when it has something to say, not before.
        let mut first_byte = [0; 1];
        let spoke = tokio::select! {
            spoke = timeout(self.limits.first_byte, network.peek(&mut first_byte)) => spoke,
            () = stop.stopping() => return,
        };
        match spoke {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return self.refuse(from.ip(), RefusedBecause::ClosedSilently),
            Err(_) => return self.refuse(from.ip(), RefusedBecause::Silent),
        }
        if let Err(error) = network.set_nodelay(true) {
            debug!(%from, %error, "TCP_NODELAY not set");
        }
        let mut enclave = match self.enclave.connect().await {
            Ok(enclave) => enclave,
            Err(error) => {
                self.metrics.refused(RefusedBecause::Enclave);
                if let Some(suppressed) = self.metrics.enclave_log.permit() {
                    warn!(
                        %from, %error, suppressed, socket = %self.enclave,
                        "connection closed: the enclave cannot be reached"
                    );
                }
                return;
            }
        };
        let open = self.metrics.inbound.open();
        let end = pipe(
            &mut network,
            &mut enclave,
            &self.limits,
            &self.metrics.inbound,
            stop,
        )
        .await;
        open.close(end);
        drop(permit);
        if end == End::Idle {
            info!(%from, "connection closed: idle");
        } else {
            debug!(%from, ?end, "connection ended");
        }
    }

    fn refuse(&self, from: IpAddr, because: RefusedBecause) {
        self.metrics.refused(because);
        if let Some(suppressed) = self.metrics.refusal_log.permit() {
            info!(%from, because = because.label(), suppressed, "connection refused");
        }
    }
}

impl From<Refusal> for RefusedBecause {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Total => Self::Total,
            Refusal::Address => Self::Address,
            Refusal::Rate => Self::Rate,
            Refusal::AddressRate => Self::AddressRate,
        }
    }
}
