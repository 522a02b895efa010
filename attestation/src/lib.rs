//! Evidence, the cluster manifest and the verifier of both; pure.

#![forbid(unsafe_code)]
