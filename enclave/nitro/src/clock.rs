//! The enclave's clock. The NSM has none that can be asked, but it dates its documents; between them, the kernel's
//! monotonic clock counts on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arca_attestation::{
    ArchiveExpected, Expectation, Measurements, ReferenceValues, TrustAnchors, TrustClass,
    UnixMillis, verify_archive,
};
use arca_enclave::platform::PlatformError;

use crate::nsm::Nsm;

/// How often the NSM is asked.
const REFRESH: Duration = Duration::from_secs(60);
/// A step of the NSM's clock that is reported.
const REMARKABLE: u64 = 1000;

/// Counts from the NSM's last date, and never backwards.
///
/// # Security
/// The floor is memory of this boot alone. Across a restart the NSM's word stands.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<Reading>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// What the NSM said, and when.
    said: u64,
    at: Instant,
    /// The largest time that was told.
    floor: u64,
}

impl Reading {
    fn now(&mut self) -> u64 {
        let since = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.floor = self.floor.max(self.said.saturating_add(since));
        self.floor
    }
}

impl Clock {
    /// Starts at a date of the NSM, read at `at`.
    pub(crate) fn start(said: UnixMillis, at: Instant) -> Self {
        Self(Mutex::new(Reading {
            said: said.0,
            at,
            floor: said.0,
        }))
    }

    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis(self.reading().now())
    }

    /// Goes on from a later date of the NSM. One before the time that was told holds the clock still until it is
    /// caught up with.
    pub(crate) fn set(&self, said: UnixMillis, at: Instant) {
        let (before, after) = {
            let mut reading = self.reading();
            let before = reading.now();
            (reading.said, reading.at) = (said.0, at);
            (before, said.0)
        };
        let step = before.abs_diff(after);
        if step > REMARKABLE {
            let direction = if after < before { "back" } else { "forward" };
            tracing::warn!(step_ms = step, direction, "the NSM's clock was set");
        }
    }

    fn reading(&self) -> std::sync::MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What dates are read from: a document of the NSM over a fresh nonce, verified like any other.
pub(crate) struct Dates {
    pub(crate) nsm: Nsm,
    pub(crate) anchors: TrustAnchors,
    pub(crate) reference: ReferenceValues,
}

impl Dates {
    /// `None` when no NSM's evidence verifies under the anchors.
    pub(crate) fn new(nsm: Nsm, anchors: TrustAnchors, measurements: Measurements) -> Option<Self> {
        let reference = match anchors.nsm_class()? {
            TrustClass::Nitro => ReferenceValues::Nitro(vec![measurements]),
            TrustClass::Simulated => ReferenceValues::Simulated(vec![measurements]),
            TrustClass::Hsm => return None,
        };
        Some(Self {
            nsm,
            anchors,
            reference,
        })
    }

    /// The NSM's date of now, and the moment after it answered: a clock that goes on from there is late by as
    /// long as the NSM took, and never early.
    pub(crate) fn read(&self) -> Result<(UnixMillis, Instant), PlatformError> {
        let mut nonce = [0; 32];
        self.nsm.random(&mut nonce)?;
        let document = self.nsm.attest(&nonce, &[], &[])?;
        let at = Instant::now();
        let expected = ArchiveExpected {
            reference: &self.reference,
            nonce: Expectation::Equals(&nonce),
            public_key: Expectation::NotCompared,
            user_data: Expectation::NotCompared,
        };
        verify_archive(&document, &self.anchors, &expected)
            .map(|evidence| (evidence.timestamp(), at))
            .map_err(|error| PlatformError::Failed {
                operation: "reading the NSM's date",
                cause: format!("its own document does not verify: {error}"),
            })
    }
}

/// Keeps the clock in step.
pub(crate) async fn keep(clock: Arc<Clock>, dates: Dates) {
    let dates = Arc::new(dates);
    let mut ticks = tokio::time::interval(REFRESH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let reader = Arc::clone(&dates);
        let read = tokio::task::spawn_blocking(move || reader.read()).await;
        match read {
            Ok(Ok((said, at))) => clock.set(said, at),
            Ok(Err(error)) => tracing::warn!(%error, "the clock counts on by itself"),
            Err(_) => tracing::warn!("the clock counts on by itself: its reader panicked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_on_and_never_back() {
        let at = Instant::now();
        let clock = Clock::start(UnixMillis(1_000_000), at);
        let first = clock.now().0;
        assert!((1_000_000..1_005_000).contains(&first));

        clock.set(UnixMillis(2_000_000), Instant::now());
        let later = clock.now().0;
        assert!((2_000_000..2_005_000).contains(&later));

        clock.set(UnixMillis(1_500_000), Instant::now());
        let held = clock.now().0;
        assert!((later..later + 5_000).contains(&held), "{held}");
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(clock.now().0, held, "it waits for the NSM");

        // Read a while ago: what has passed since counts.
        let ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        clock.set(UnixMillis(2_000_000), ago);
        assert!((2_010_000..2_015_000).contains(&clock.now().0));
    }
}
