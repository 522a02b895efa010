//! Resource names, request ids and times at the edge.

use prost_types::Timestamp;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Prefix of keys' resource names.
pub const KEYS: &str = "keys/";
/// Prefix of signing requests' resource names.
pub const SIGNING_REQUESTS: &str = "signingRequests/";
/// Prefix of operations' resource names.
pub const OPERATIONS: &str = "operations/";

/// The id in a key's resource name.
///
/// # Errors
/// [`Error::Reject`] when it is not `keys/` and 32 lower-case hex digits.
pub fn key_id(name: &str) -> Result<&str, Error> {
    id(name, KEYS)
}

/// The id in a signing request's resource name.
///
/// # Errors
/// [`Error::Reject`] likewise.
pub fn signing_request_id(name: &str) -> Result<&str, Error> {
    id(name, SIGNING_REQUESTS)
}

/// The id in an operation's resource name.
///
/// # Errors
/// [`Error::Reject`] likewise.
pub fn operation_id(name: &str) -> Result<&str, Error> {
    id(name, OPERATIONS)
}

fn id<'a>(name: &'a str, prefix: &str) -> Result<&'a str, Error> {
    name.strip_prefix(prefix)
        .filter(|id| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        .ok_or_else(|| {
            let shown: String = name.escape_default().take(80).collect();
            Error::invalid(
                "INVALID_NAME",
                format!("name: {prefix} and 32 hex digits, not \"{shown}\""),
            )
        })
}

/// Checks a caller's idempotency key.
///
/// # Errors
/// [`Error::Reject`] when it is not 1 to 64 of `[A-Za-z0-9._-]`.
pub fn check_request_id(request_id: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=64).contains(&request_id.len()) && request_id.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::invalid(
        "INVALID_REQUEST_ID",
        "request_id: 1 to 64 of A-Z a-z 0-9 . _ -",
    ))
}

/// An id of 32 hex digits that follows from `parts`, under its own domain tag.
pub fn derived_id(tag: &str, parts: &[&[u8]]) -> String {
    let digest = tagged_digest(tag, parts);
    hex::encode(
        digest
            .first_chunk::<16>()
            .expect("a SHA-256 digest has 32 bytes"),
    )
}

/// SHA-256 over a domain tag and parts, each behind its eight-byte length.
pub fn tagged_digest(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(&tag.as_bytes()).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Milliseconds since 1970 of a timestamp from the wire; `None` when absent, negative or out of range.
pub fn millis(timestamp: Option<&Timestamp>) -> Option<u64> {
    let timestamp = timestamp?;
    let seconds = u64::try_from(timestamp.seconds).ok()?;
    let nanos = u64::try_from(timestamp.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000)
}

/// A timestamp for the wire.
pub fn timestamp(millis: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or_default(),
    }
}

/// The object after which a page starts; the token is the last id of the page before.
///
/// # Errors
/// [`Error::Reject`] when it is not such a token.
pub fn page_token(token: &str, prefix: &str) -> Result<String, Error> {
    if token.is_empty() {
        return Ok(String::new());
    }
    id(token, "")
        .map(|id| format!("{prefix}{id}"))
        .map_err(|_| {
            Error::invalid(
                "INVALID_PAGE_TOKEN",
                "page_token: not one that this service gave",
            )
        })
}

/// The token of the page after `objects`; empty when this one is not full.
pub fn next_page(objects: &[String], size: u32, prefix: &str) -> String {
    match objects.last() {
        Some(last) if objects.len() >= size as usize => {
            last.strip_prefix(prefix).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        let good = format!("keys/{}", "0a".repeat(16));
        assert_eq!(key_id(&good).unwrap().len(), 32);
        for bad in [
            "",
            "keys/",
            "keys/../manifest",
            &good.to_uppercase(),
            &format!("{good}0"),
        ] {
            assert!(key_id(bad).is_err(), "{bad}");
        }
        assert!(signing_request_id(&good).is_err());
    }

    #[test]
    fn derived_ids_keep_their_parts_apart() {
        assert_ne!(
            derived_id("t", &[b"ab", b"c"]),
            derived_id("t", &[b"a", b"bc"])
        );
        assert_ne!(derived_id("t", &[b"ab"]), derived_id("u", &[b"ab"]));
    }

    #[test]
    fn times_survive_the_wire_and_bad_ones_are_refused() {
        assert_eq!(
            millis(Some(&timestamp(1_700_000_000_123))),
            Some(1_700_000_000_123)
        );
        assert_eq!(millis(None), None);
        assert_eq!(
            millis(Some(&Timestamp {
                seconds: -1,
                nanos: 0
            })),
            None
        );
        assert_eq!(
            millis(Some(&Timestamp {
                seconds: i64::MAX,
                nanos: 0
            })),
            None
        );
        assert_eq!(
            millis(Some(&Timestamp {
                seconds: 1,
                nanos: 1_000_000_000
            })),
            None
        );
    }
}
