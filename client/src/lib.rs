//! Rust SDK and the arca command.

#![forbid(unsafe_code)]
