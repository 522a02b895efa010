//! Where the arithmetic of a protocol runs, so that what is long or can wait does not hold up what cannot.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use tokio::sync::oneshot;

use crate::error::Error;

/// By how much the background gives way to signing (nice, 0 to 19): some tenth of a busy core is left to it, so
/// that it ends within its deadlines.
const NICENESS: i32 = 10;

/// Where a step is computed.
#[derive(Clone, Copy)]
pub enum Lane<'a> {
    /// At once, on the thread that serves calls: for what takes less than a millisecond or so.
    Here,
    /// On a thread of its own: for what takes longer and is waited for.
    Apart,
    /// One after the other, behind everything else.
    Background(&'a Background),
}

impl Lane<'_> {
    /// Computes and waits for the result.
    ///
    /// # Errors
    /// [`Error::Bug`] when it panicked.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        match self {
            Self::Here => Ok(work()),
            Self::Apart => tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| Error::Bug("a protocol step panicked")),
            Self::Background(background) => {
                let (sender, receiver) = oneshot::channel();
                let job = move || {
                    // Whoever waited may have given up.
                    let _ = sender.send(work());
                };
                background
                    .0
                    .send(Box::new(job))
                    .map_err(|_| Error::Bug("the background thread is gone"))?;
                receiver
                    .await
                    .map_err(|_| Error::Bug("a protocol step panicked"))
            }
        }
    }
}

/// A thread that gives way to all others. It ends when this is dropped.
pub struct Background(mpsc::Sender<Job>);

type Job = Box<dyn FnOnce() + Send>;

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Fault`] when the system has none to give.
    pub fn start() -> Result<Self, Error> {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("background".to_owned())
            .spawn(move || {
                // On Linux this is about the calling thread alone. Without it, it is merely less polite.
                if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                    tracing::warn!(%error, "presignatures are made at the same priority as signatures");
                }
                for job in jobs {
                    // Whoever waits sees that nothing came, and reports it.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })
            .map_err(|error| Error::Fault {
                reason: "PLATFORM_FAILED",
                message: format!("no background thread: {error}"),
            })?;
        Ok(Self(sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_background_computes_in_order_and_outlives_a_panic() {
        let background = Background::start().unwrap();
        let lane = Lane::Background(&background);
        assert_eq!(lane.run(|| 1).await.unwrap(), 1);
        let panicked = lane.run(|| -> u8 { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(Error::Bug(_))));
        let niceness = lane
            .run(|| rustix::process::getpriority_process(None))
            .await
            .unwrap();
        assert_eq!(niceness, Ok(NICENESS));
        let here = rustix::process::getpriority_process(None).unwrap();
        assert!(here < NICENESS, "the others are at {here}");
    }
}
