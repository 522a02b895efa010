//! TLS 1.3 bound to evidence: what enclaves and clients speak before gRPC.

#![forbid(unsafe_code)]
