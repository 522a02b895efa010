//! Attested connections to one party, with gRPC on top.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arca_channel::{Attested, Endpoint, Peer, Target};
use hyper_util::rt::TokioIo;
use rand_core::OsRng;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Uri};

use crate::error::{Error, Result};

/// From an address to a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is asked this often whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection that attests again whenever it has to be made again.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub channel: Channel,
    attested: Arc<Mutex<Option<Attested>>>,
}

impl Connection {
    /// Connects to `party` at `address` and verifies it.
    ///
    /// # Errors
    /// [`Error::Unreachable`] without a TCP connection, [`Error::Untrusted`] without a verified channel.
    pub async fn open(
        party: &str,
        address: &str,
        endpoint: Arc<Endpoint>,
        target: Target,
    ) -> Result<Self> {
        let attested = Arc::new(Mutex::new(None));
        let dial = Dial {
            party: party.to_owned(),
            address: address.to_owned(),
            endpoint,
            target,
            attested: attested.clone(),
        };
        // The name in the URI goes nowhere: the manifest's key names the party, and `dial` knows its address.
        let channel = tonic::transport::Endpoint::from_static("http://party.arca.internal")
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let dial = dial.clone();
                async move { dial.open().await.map(TokioIo::new) }
            }))
            .await
            .map_err(|cause| {
                own_error(&cause).unwrap_or_else(|| Error::Unreachable {
                    party: party.to_owned(),
                    endpoint: address.to_owned(),
                    problem: innermost(&cause),
                })
            })?;
        Ok(Self { channel, attested })
    }

    /// Whom the last handshake proved.
    pub fn attested(&self) -> Result<Attested> {
        self.attested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| Error::bug("a connection without a verified party"))
    }
}

/// Everything that a new connection to one party takes.
#[derive(Clone)]
struct Dial {
    party: String,
    address: String,
    endpoint: Arc<Endpoint>,
    target: Target,
    attested: Arc<Mutex<Option<Attested>>>,
}

impl Dial {
    async fn open(self) -> Result<arca_channel::Channel<TcpStream>> {
        let unreachable = |problem: String| Error::Unreachable {
            party: self.party.clone(),
            endpoint: self.address.clone(),
            problem,
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address))
            .await
            .map_err(|_| unreachable("no answer".to_owned()))?
            .map_err(|cause| unreachable(cause.to_string()))?;
        stream
            .set_nodelay(true)
            .map_err(|cause| unreachable(cause.to_string()))?;
        let channel =
            arca_channel::connect(stream, &self.endpoint, self.target.clone(), &mut OsRng)
                .await
                .map_err(|cause| match &cause {
                    // The host is there and its enclave is not, or somebody cuts the connection.
                    arca_channel::Error::Io(_) | arca_channel::Error::Timeout => {
                        unreachable(cause.to_string())
                    }
                    arca_channel::Error::Refused { reason, message } => Error::Reject {
                        object: format!("connection to party {}", self.party),
                        code: tonic::Code::PermissionDenied,
                        reason: reason.clone(),
                        message: message.clone(),
                    },
                    _ => Error::Untrusted {
                        party: self.party.clone(),
                        endpoint: self.address.clone(),
                        reason: cause.reason().to_owned(),
                        problem: cause.to_string(),
                    },
                })?;
        let attested = match channel.peer() {
            Peer::Party(attested) | Peer::Candidate(attested) => attested.clone(),
            Peer::Principal(_) | Peer::Visitor(_) => {
                return Err(Error::bug("a connection to somebody who is no party"));
            }
        };
        *self.attested.lock().unwrap_or_else(PoisonError::into_inner) = Some(attested);
        Ok(channel)
    }
}

/// The error of this crate that lies under what tonic and hyper made of it.
pub(crate) fn own_error(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    chain(error)
        .find_map(|error| error.downcast_ref::<Error>())
        .cloned()
}

/// Whether the connection failed, and not the request: the party did not answer it.
pub(crate) fn is_transport(status: &tonic::Status) -> bool {
    use std::error::Error as _;
    status.source().is_some()
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
