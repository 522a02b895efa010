//! End-to-end tests, faults, vectors, fuzz targets.

#![forbid(unsafe_code)]
