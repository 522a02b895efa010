//! The offline auditor: certificates and exports of the parties' logs, verified with trust anchors and nothing else.
//!
//! [`certificate`] judges one signature's certificate, [`verify_export`] all logs of a cluster. Neither needs a network or
//! believes anything that a file says of itself. What is read and why stands in `docs/audit.md`.

pub mod certificate;
mod chain;
mod checkpoint;
mod cross;
mod describe;
pub mod export;
mod exporter;
mod files;
pub mod finding;
pub mod html;
mod instance;
mod keys;
mod ledger;
mod loss;
mod manifests;
mod openings;
mod questions;
mod record;
pub mod report;
mod request;
pub mod sample;
mod service;
mod sessions;
mod shared;
mod source;
mod spool;
mod tiles;
mod trust;
mod verify;
mod witness;

pub use exporter::{Exported, Selection, export};
pub use service::{LogCheckpoint, Page};
pub use source::{Directory, Memory, Source};
pub use trust::{Trust, TrustFile};
pub use verify::{ExportPolicy, verify as verify_export};
pub use witness::Witness;
