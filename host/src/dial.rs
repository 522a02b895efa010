//! Outbound: the enclave names a peer on `dial.sock` and gets a byte stream to it.
//!
//! Request: one length byte, then the name in ASCII. Answer: one status byte; after
//! [`Status::Connected`] the bytes are the peer's, after any other the connection closes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::config::Limits;
use crate::enclave::Listener;
use crate::metrics::{DialOutcome, Metrics};
use crate::pipe::{End, pipe};
use crate::stop::{Connections, Stop};

/// The enclave writes its request in one go; a connection that has not in this time is stuck.
const REQUEST: Duration = Duration::from_secs(5);

/// After the system refused an accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The host's answer to a dial request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Connected = 0,
    UnknownPeer = 1,
    Unreachable = 2,
    LimitReached = 3,
}

/// What every outbound connection needs to know.
#[derive(Debug)]
pub(crate) struct Dialler {
    pub(crate) peers: RwLock<BTreeMap<String, String>>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
}

/// Accepts dial requests until told to stop, then drains.
pub(crate) async fn serve(dialler: Arc<Dialler>, listener: Listener, mut stop: Stop) {
    let places = Arc::new(Semaphore::new(dialler.limits.max_dials));
    let mut connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.stopping() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(enclave) => {
                let place = Arc::clone(&places).try_acquire_owned().ok();
                let dialler = Arc::clone(&dialler);
                let stop = stop.clone();
                connections.spawn(async move { dialler.serve_one(enclave, place, stop).await });
            }
            Err(error) => {
                warn!(%error, "cannot accept dial requests; is the limit on open files too low?");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let cut = connections.drain(dialler.limits.drain).await;
    info!(cut, "outbound connections drained");
}

impl Dialler {
    /// One dial request from its name to the end of the connection.
    async fn serve_one(
        &self,
        mut enclave: UnixStream,
        place: Option<OwnedSemaphorePermit>,
        mut stop: Stop,
    ) {
        let Some(place) = place else {
            // The request is read like any other, so that the answer is not lost to a reset.
            let _ = timeout(REQUEST, read_name(&mut enclave)).await;
            self.metrics.dialled(None, DialOutcome::LimitReached);
            warn!(
                max_dials = self.limits.max_dials,
                "dial refused: limit reached"
            );
            return answer(&mut enclave, Status::LimitReached).await;
        };
        let name = match timeout(REQUEST, read_name(&mut enclave)).await {
            Ok(Ok(name)) => name,
            Ok(Err(_)) | Err(_) => {
                self.metrics.dialled(None, DialOutcome::Malformed);
                debug!("dial request incomplete");
                return;
            }
        };
        let Some((name, address)) = self.look_up(&name) else {
            self.metrics.dialled(None, DialOutcome::UnknownPeer);
            warn!(
                name = %name.escape_ascii(),
                "dial refused: no such peer; add it under [peers] in the configuration"
            );
            return answer(&mut enclave, Status::UnknownPeer).await;
        };
        let connected = tokio::select! {
            connected = timeout(self.limits.dial, TcpStream::connect(&address)) => connected,
            () = stop.stopping() => return,
        };
        let mut network = match connected {
            Ok(Ok(network)) => network,
            Ok(Err(error)) => {
                return self
                    .unreachable(&mut enclave, &name, &address, &error)
                    .await;
            }
            Err(elapsed) => {
                return self
                    .unreachable(&mut enclave, &name, &address, &elapsed)
                    .await;
            }
        };
        if let Err(error) = network.set_nodelay(true) {
            debug!(peer = name, %error, "TCP_NODELAY not set");
        }
        self.metrics.dialled(Some(&name), DialOutcome::Connected);
        debug!(peer = name, address, "dialled");
        let open = self.metrics.outbound.open();
        if enclave.write_all(&[Status::Connected as u8]).await.is_err() {
            return open.close(End::Broken);
        }
        let end = pipe(
            &mut network,
            &mut enclave,
            &self.limits,
            &self.metrics.outbound,
            stop,
        )
        .await;
        open.close(end);
        drop(place);
        debug!(peer = name, ?end, "outbound connection ended");
    }

    fn look_up(&self, name: &[u8]) -> Option<(String, String)> {
        let name = std::str::from_utf8(name).ok()?;
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers
            .get_key_value(name)
            .map(|(name, address)| (name.clone(), address.clone()))
    }

    async fn unreachable(
        &self,
        enclave: &mut UnixStream,
        name: &str,
        address: &str,
        error: &(dyn std::error::Error + Sync),
    ) {
        self.metrics.dialled(Some(name), DialOutcome::Unreachable);
        warn!(peer = name, address, %error, "peer cannot be reached");
        answer(enclave, Status::Unreachable).await;
    }
}

async fn read_name(enclave: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = enclave.read_u8().await?;
    let mut name = vec![0; usize::from(length)];
    enclave.read_exact(&mut name).await?;
    Ok(name)
}

async fn answer(enclave: &mut UnixStream, status: Status) {
    // An enclave that has gone does not miss the answer.
    let _ = enclave.write_all(&[status as u8]).await;
    let _ = enclave.shutdown().await;
}
