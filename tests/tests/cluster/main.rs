//! The whole system as separate processes: three hosts, three enclaves, and a client in this process.
//!
//! - `signing`, `ecdsa`: what the system is for. `crashes`: killed processes lose nothing.
//! - `ethereum`: what is signed, judged by a real node.
//! - `bad_input`: every method refuses nonsense and goes on. `storage`: a host that damages, swaps, forgets or
//!   refuses sealed blobs. `network`: a host or router that alters, cuts or stalls connections.
//! - `rollback`, `instances`: a host that goes back to an older disk, or runs two enclaves on copies of one.
//! - `hsm`: parties whose keys are in a PKCS#11 token.
//! - `partial`: a host that goes back on single blobs, or takes two parties back together.
//! - `interrupted`: SIGKILL between any two of persist, log and send; writes that are held, lost, late or lied about.
//! - `memory`: what of its secrets is in an enclave's memory.
//! - `membership`: manifests. `traitor`: a party of the cluster that does not follow the protocol.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod audit;
mod bad_input;
mod common;
mod crashes;
mod disk;
mod ecdsa;
mod ethereum;
mod hsm;
mod instances;
mod interposed;
mod interrupted;
mod membership;
mod memory;
mod network;
mod partial;
mod rollback;
#[path = "../memory/scan.rs"]
mod scan;
mod signing;
mod storage;
mod traitor;
