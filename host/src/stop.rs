//! The signal to stop, and a set of connections that is drained when it comes.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

/// Sends the signal; dropping it sends it too.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

/// Sees the signal.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

pub(crate) fn stop_signal() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether the signal was given.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the signal.
    pub(crate) async fn stopping(&mut self) {
        // An error means that the sender is gone, which is the same to us.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}

/// Tasks of one listener: forgotten as they end, waited for or cut off in the end.
#[derive(Debug, Default)]
pub(crate) struct Connections(JoinSet<()>);

impl Connections {
    pub(crate) fn spawn(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.0.try_join_next().is_some() {}
        self.0.spawn(connection);
    }

    /// Waits until all have ended, but no longer than `limit`; what is left is cut off. Returns how many
    /// were.
    pub(crate) async fn drain(mut self, limit: Duration) -> usize {
        let ended =
            tokio::time::timeout(limit, async { while self.0.join_next().await.is_some() {} });
        match ended.await {
            Ok(()) => 0,
            Err(_) => {
                let left = self.0.len();
                self.0.shutdown().await;
                left
            }
        }
    }
}
