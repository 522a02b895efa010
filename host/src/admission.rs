//! Who may open a connection: bounds on connections open at once and on how fast new ones come, in
//! total and per remote address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Limits;

/// Bookkeeping of one listener.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    books: Mutex<Books>,
}

/// Why a connection is refused before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `max_connections` are open.
    Total,
    /// `max_connections_per_address` are open from there.
    Address,
    /// `accepts_per_second` is exceeded.
    Rate,
    /// `accepts_per_second_per_address` is exceeded from there.
    AddressRate,
}

/// An admitted connection; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    source: IpAddr,
}

#[derive(Debug)]
struct Books {
    open: usize,
    rate: Rate,
    sources: HashMap<IpAddr, Source>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Source {
    open: usize,
    rate: Rate,
}

impl Admission {
    /// Fewest sources worth looking through for forgotten ones.
    const SWEEP: usize = 1024;

    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            limits: limits.clone(),
            books: Mutex::new(Books {
                open: 0,
                rate: Rate::default(),
                sources: HashMap::new(),
                sweep_at: Self::SWEEP,
            }),
        })
    }

    /// Admits a connection from an address, or says which bound refuses it.
    ///
    /// The bounds of the address come first, so that a single flooding address spends its own rate and
    /// not everybody's.
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
    ) -> Result<Permit, Refusal> {
        let limits = &self.limits;
        let source = source_of(address);
        let mut books = self.books();
        books.forget_quiet_sources(now);
        let books = &mut *books;
        let entry = books.sources.entry(source).or_insert_with(Source::new);
        if entry.open >= limits.max_connections_per_address {
            return Err(Refusal::Address);
        }
        if !entry.rate.take(limits.accepts_per_second_per_address, now) {
            return Err(Refusal::AddressRate);
        }
        if books.open >= limits.max_connections {
            return Err(Refusal::Total);
        }
        if !books.rate.take(limits.accepts_per_second, now) {
            return Err(Refusal::Rate);
        }
        entry.open += 1;
        books.open += 1;
        Ok(Permit {
            admission: Arc::clone(self),
            source,
        })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing under this lock can panic half-way.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut books = self.admission.books();
        books.open = books.open.saturating_sub(1);
        if let Some(entry) = books.sources.get_mut(&self.source) {
            entry.open = entry.open.saturating_sub(1);
        }
    }
}

impl Books {
    /// Keeps the table within twice what is in use; constant time per admission on average.
    fn forget_quiet_sources(&mut self, now: Instant) {
        if self.sources.len() >= self.sweep_at {
            self.sources
                .retain(|_, source| source.open > 0 || !source.rate.is_full(now));
            self.sweep_at = (self.sources.len() * 2).max(Admission::SWEEP);
        }
    }
}

impl Source {
    fn new() -> Self {
        Self {
            open: 0,
            rate: Rate::default(),
        }
    }
}

/// At most so many per second, with one second's worth at once (the generic cell rate algorithm of
/// ITU-T I.371: the whole state is the time at which the next one would be due).
#[derive(Debug, Default)]
struct Rate {
    due: Option<Instant>,
}

impl Rate {
    const BURST: Duration = Duration::from_secs(1);

    fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let interval = Self::BURST / per_second.max(1);
        let due = self.due.map_or(now, |due| due.max(now)) + interval;
        let admitted = due <= now + Self::BURST;
        if admitted {
            self.due = Some(due);
        }
        admitted
    }

    fn is_full(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 /64, which is what one subscriber gets.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(change: impl FnOnce(&mut Limits)) -> Arc<Admission> {
        let mut limits = Limits::default();
        change(&mut limits);
        Admission::new(&limits)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn total_bound_holds_and_a_closed_connection_makes_room() {
        let admission = admission(|limits| limits.max_connections = 2);
        let now = Instant::now();
        let first = admission.admit(address("10.0.0.1"), now).unwrap();
        let _second = admission.admit(address("10.0.0.2"), now).unwrap();
        assert_eq!(
            admission.admit(address("10.0.0.3"), now).unwrap_err(),
            Refusal::Total
        );
        drop(first);
        admission.admit(address("10.0.0.3"), now).unwrap();
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let admission = admission(|limits| limits.max_connections_per_address = 1);
        let now = Instant::now();
        let held = admission.admit(address("10.0.0.1"), now).unwrap();
        assert_eq!(
            admission.admit(address("10.0.0.1"), now).unwrap_err(),
            Refusal::Address
        );
        let _other = admission.admit(address("10.0.0.2"), now).unwrap();
        drop(held);
        admission.admit(address("10.0.0.1"), now).unwrap();
    }

    #[test]
    fn an_ipv6_subscriber_is_one_address_and_a_mapped_ipv4_is_itself() {
        let admission = admission(|limits| limits.max_connections_per_address = 1);
        let now = Instant::now();
        let _held = admission.admit(address("2001:db8:0:1::1"), now).unwrap();
        assert_eq!(
            admission
                .admit(address("2001:db8:0:1:ffff::9"), now)
                .unwrap_err(),
            Refusal::Address
        );
        let _next = admission.admit(address("2001:db8:0:2::1"), now).unwrap();
        let _mapped = admission.admit(address("::ffff:10.0.0.1"), now).unwrap();
        assert_eq!(
            admission.admit(address("10.0.0.1"), now).unwrap_err(),
            Refusal::Address
        );
    }

    #[test]
    fn rate_allows_a_second_at_once_and_refills_with_time() {
        let admission = admission(|limits| limits.accepts_per_second = 4);
        let now = Instant::now();
        for _ in 0..4 {
            admission.admit(address("10.0.0.1"), now).unwrap();
        }
        assert_eq!(
            admission.admit(address("10.0.0.1"), now).unwrap_err(),
            Refusal::Rate
        );
        let later = now + Duration::from_millis(250);
        admission.admit(address("10.0.0.1"), later).unwrap();
        assert_eq!(
            admission.admit(address("10.0.0.1"), later).unwrap_err(),
            Refusal::Rate
        );
    }

    #[test]
    fn a_flooding_address_spends_its_own_rate_only() {
        let admission = admission(|limits| {
            limits.accepts_per_second = 10;
            limits.accepts_per_second_per_address = 2;
        });
        let now = Instant::now();
        for _ in 0..1000 {
            let _ = admission.admit(address("10.0.0.66"), now);
        }
        assert_eq!(
            admission.admit(address("10.0.0.66"), now).unwrap_err(),
            Refusal::AddressRate
        );
        admission.admit(address("10.0.0.1"), now).unwrap();
    }

    #[test]
    fn a_flood_from_many_addresses_is_forgotten() {
        let admission = admission(|limits| limits.accepts_per_second = 1);
        let start = Instant::now();
        for second in 0..20_u32 {
            for host in 0..1000_u32 {
                let source = IpAddr::from((second * 1000 + host).to_be_bytes());
                let _ = admission.admit(source, start + Duration::from_secs(u64::from(second) * 5));
            }
        }
        assert!(admission.books().sources.len() < 3 * Admission::SWEEP);
    }
}
