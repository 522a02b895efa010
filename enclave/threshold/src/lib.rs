//! Threshold protocols without I/O: bytes in, bytes out.

#![forbid(unsafe_code)]
