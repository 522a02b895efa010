//! Accepting many connections, bounded.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand_core::CryptoRngCore;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::{Channel, Endpoint, Error, accept};

/// Finished channels that wait for the server to take them.
const FINISHED: usize = 16;
/// Rest after a failed accept, so that a listener that keeps failing does not keep a core busy.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Turns raw streams into verified channels, for `tonic`'s `serve_with_incoming`.
///
/// `next_stream` gives the next raw connection. Each handshake runs in a task of its own, under the endpoint's
/// time limit. At most `half_open` run at once: when one more connection comes, the oldest unfinished one is
/// dropped. A flood of silent connections thus costs itself its places, and whoever speaks gets through as
/// long as a handshake takes less time than `half_open` new connections.
///
/// `generator` gives one for each connection's nonce, or nothing when randomness fails; then the connection is
/// refused. `refused` hears of every connection that came to nothing. Everything ends when the stream is dropped.
pub fn incoming<S, F, R>(
    mut next_stream: impl FnMut() -> F + Send + 'static,
    endpoint: Arc<Endpoint>,
    mut generator: impl FnMut() -> Option<R> + Send + 'static,
    half_open: usize,
    refused: impl Fn(&Error) + Send + Sync + 'static,
) -> ReceiverStream<io::Result<Channel<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>> + Send,
    R: CryptoRngCore,
{
    let (sender, receiver) = mpsc::channel(FINISHED);
    let refused = Arc::new(refused);
    tokio::spawn(async move {
        let mut handshakes = JoinSet::new();
        let mut order: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let stream = tokio::select! {
                () = sender.closed() => return,
                stream = next_stream() => stream,
            };
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    refused(&Error::Io(error));
                    tokio::time::sleep(AFTER_FAILURE).await;
                    continue;
                }
            };
            while handshakes.try_join_next().is_some() {}
            order.retain(|handshake| !handshake.is_finished());
            if order.len() >= half_open.max(1)
                && let Some(oldest) = order.pop_front()
            {
                oldest.abort();
                refused(&Error::Crowded);
            }
            let Some(handshake) = generator().map(|mut rng| accept(stream, &endpoint, &mut rng))
            else {
                refused(&Error::Random);
                continue;
            };
            let (sender, refused) = (sender.clone(), refused.clone());
            order.push_back(handshakes.spawn(async move {
                match handshake.await {
                    // Fails when the server is gone, and then so is everything else.
                    Ok(channel) => drop(sender.send(Ok(channel)).await),
                    Err(error) => refused(&error),
                }
            }));
        }
    });
    ReceiverStream::new(receiver)
}
