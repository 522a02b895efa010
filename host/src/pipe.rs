//! Moves bytes between a TCP connection and a stream of the enclave, both ways, until both ended.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::Counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until};

use crate::config::Limits;
use crate::metrics::FlowMetrics;
use crate::stop::Stop;

/// Bytes per direction and connection: one TLS record with its header fits.
const BUFFER: usize = 17 * 1024;

/// While the host drains, a connection that was silent for so long is closed: nothing is in flight.
const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// How a forwarded connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides said that they were done.
    Done,
    /// One side broke off.
    Broken,
    /// Nothing moved for too long.
    Idle,
    /// The host is shutting down and nothing was moving.
    Drained,
}

/// Copies both ways until both directions have ended, one broke, or nothing moved for too long.
///
/// The end of one direction is passed on (half-close) while the other goes on. Both streams are to be
/// dropped when this returns.
pub(crate) async fn pipe(
    network: &mut TcpStream,
    enclave: &mut UnixStream,
    limits: &Limits,
    metrics: &FlowMetrics,
    mut stop: Stop,
) -> End {
    let (network_read, network_write) = network.split();
    let (enclave_read, enclave_write) = enclave.split();
    let activity = Activity::new();
    let rate = limits.bytes_per_second;
    let mut to_enclave = std::pin::pin!(copy(
        network_read,
        enclave_write,
        rate,
        &activity,
        &metrics.bytes_to_enclave,
    ));
    let mut from_enclave = std::pin::pin!(copy(
        enclave_read,
        network_write,
        rate,
        &activity,
        &metrics.bytes_from_enclave,
    ));
    let (mut to_open, mut from_open) = (true, true);
    let mut draining = false;
    let mut patience = limits.idle;
    while to_open || from_open {
        let deadline = activity.last() + patience;
        tokio::select! {
            biased;
            ended = &mut to_enclave, if to_open => {
                if ended.is_err() {
                    return End::Broken;
                }
                to_open = false;
                patience = patience.min(limits.half_closed);
            }
            ended = &mut from_enclave, if from_open => {
                if ended.is_err() {
                    return End::Broken;
                }
                from_open = false;
                patience = patience.min(limits.half_closed);
            }
            () = sleep_until(deadline) => {
                if activity.last() + patience <= Instant::now() {
                    return if draining { End::Drained } else { End::Idle };
                }
            }
            () = stop.stopping(), if !draining => {
                draining = true;
                patience = patience.min(DRAIN_QUIET);
            }
        }
    }
    End::Done
}

/// Copies one direction to its end and passes the end on.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes_per_second: Option<u64>,
    activity: &Activity,
    counter: &Counter,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut pace = bytes_per_second.map(Pace::new);
    loop {
        let length = from.read(&mut buffer).await?;
        let Some(chunk) = buffer.get(..length).filter(|chunk| !chunk.is_empty()) else {
            activity.touch();
            return to.shutdown().await;
        };
        if let Some(pace) = &mut pace {
            pace.wait(chunk.len()).await;
        }
        to.write_all(chunk).await?;
        activity.touch();
        counter.increment(chunk.len() as u64);
    }
}

/// When something last moved, shared by both directions.
#[derive(Debug)]
struct Activity {
    start: Instant,
    last_millis: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last_millis: AtomicU64::new(0),
        }
    }

    fn touch(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last_millis.load(Ordering::Relaxed))
    }
}

/// Holds one direction to a rate, with one second's worth of burst.
#[derive(Debug)]
struct Pace {
    bytes_per_second: f64,
    next: Instant,
}

impl Pace {
    const BURST: Duration = Duration::from_secs(1);

    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second as f64,
            next: Instant::now(),
        }
    }

    async fn wait(&mut self, bytes: usize) {
        let now = Instant::now();
        self.next =
            self.next.max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        if self.next > now + Self::BURST {
            sleep_until(self.next - Self::BURST).await;
        }
    }
}
