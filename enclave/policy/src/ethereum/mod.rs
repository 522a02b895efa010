//! Ethereum transactions.

mod address;

pub use address::{ethereum_address, ethereum_checksum};
