//! Repeating calls over lost connections, for a limited time.

use std::time::{Duration, Instant};

use crate::connect::{is_transport, own_error};
use crate::error::{Error, Result};

/// Between two attempts at a party whose connection broke.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long somebody is willing to wait, lost connections included.
pub(crate) struct Patience {
    object: String,
    started: Instant,
    timeout: Duration,
}

/// Why no answer came.
pub(crate) enum Failure {
    Status(tonic::Status),
    Timeout(Error),
}

impl Patience {
    pub fn new(object: &str, timeout: Duration) -> Self {
        Self {
            object: object.to_owned(),
            started: Instant::now(),
            timeout,
        }
    }

    pub fn left(&self) -> Result<Duration> {
        match self.timeout.checked_sub(self.started.elapsed()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(Error::Timeout {
                object: self.object.clone(),
                waited: self.timeout,
            }),
        }
    }

    /// Calls until there is an answer. For calls that may be repeated.
    pub async fn insist<T, F>(&self, mut call: impl FnMut() -> F) -> std::result::Result<T, Failure>
    where
        F: Future<Output = std::result::Result<T, tonic::Status>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let left = self.left().map_err(Failure::Timeout)?;
            match tokio::time::timeout(left, call()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if is_transport(&status) => match own_error(&status) {
                    // Whoever answers there now is not the party. Repeating would not make it so.
                    Some(Error::Untrusted { .. }) => return Err(Failure::Status(status)),
                    _ => {
                        tokio::time::sleep(pause.min(left)).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                },
                Ok(Err(status)) => return Err(Failure::Status(status)),
                Err(_) => {}
            }
        }
    }
}
