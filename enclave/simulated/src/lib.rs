//! The simulated platform: a local NSM, a key-encryption key in a file, Unix sockets.

#![forbid(unsafe_code)]

pub mod nsm;
