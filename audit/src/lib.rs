//! Merkle log of RFC 6962: tree hashes, inclusion and consistency proofs; pure.

#![forbid(unsafe_code)]
