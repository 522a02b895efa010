//! The untrusted host: forwards bytes, stores sealed blobs, shows metrics.

#![forbid(unsafe_code)]
