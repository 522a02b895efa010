//! The trusted service: keys, sessions, sealing, attested gRPC.

#![forbid(unsafe_code)]

pub mod platform;
