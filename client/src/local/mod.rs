//! A whole cluster on this machine, as separate processes: for the demo, for measurements and for tests.
//!
//! Everything is simulated and lives in one folder: configuration, logs, sealed state, the keys of
//! administrators and of the one principal, `treasury`. Children die with this process, whatever kills it.

mod anvil;
mod binaries;
mod cluster;
mod hsm;
mod party;
mod process;

pub use anvil::{ANVIL_VARIABLE, Anvil};
pub use binaries::Binaries;
pub use cluster::{ADMINISTRATORS, LocalCluster, PARTIES, PRINCIPAL, QUORUM};
pub use hsm::{KRYOPTIC_VARIABLE, SOFTHSM_VARIABLE, SoftToken};
pub use party::LocalParty;
pub use process::{Process, run_tied_to_parent};
