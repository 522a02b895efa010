//! The whole system as separate processes: three hosts, three enclaves, and a client in this process.

mod common;
mod signing;
