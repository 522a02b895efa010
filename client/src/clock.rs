//! This machine's clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use arca_attestation::UnixMillis;

/// Now. A clock before 1970 reads as 1970, where every certificate is refused.
pub fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// In RFC 3339, UTC, to the second.
pub fn show(time: UnixMillis) -> String {
    format(time, "%Y-%m-%dT%H:%M:%SZ")
}

/// In RFC 3339, UTC, to the millisecond.
pub fn show_precisely(time: UnixMillis) -> String {
    format(time, "%Y-%m-%dT%H:%M:%S.%3fZ")
}

fn format(time: UnixMillis, form: &str) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(
            || format!("{} ms", time.0),
            |time| time.strftime(form).to_string(),
        )
}
