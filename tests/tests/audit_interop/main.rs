//! Our log is read, and our proofs are verified, by code that is not ours, and the other way round.
//!
//! Cloudflare's `signed_note` and `tlog_tiles`, which descend from Go's `sumdb/note` and `sumdb/tlog`, always; a
//! package from PyPI and Go's own packages where they can be had.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod cloudflare;
mod external;
mod world;
