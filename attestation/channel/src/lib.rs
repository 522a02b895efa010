//! TLS 1.3 bound to evidence: what enclaves and clients speak before gRPC.
//!
//! [`connect`] and [`accept`] turn a byte stream that nobody trusts into a [`Channel`] whose other end is known:
//! a [`Peer::Party`] that runs measured code, a [`Peer::Principal`] of the manifest, or somebody who is neither
//! and says so in the type. Nothing is served before that. `docs/attested-channel.md` has the flights and the
//! argument.
//!
//! The clock and the random generator for nonces are arguments. TLS takes its own randomness from the operating
//! system.

#![forbid(unsafe_code)]

mod channel;
mod endpoint;
mod error;
mod flight;
mod handshake;
mod identity;
mod incoming;
mod peer;
mod tls;

pub use channel::Channel;
pub use endpoint::{Attester, AttesterError, Clock, Endpoint, Limits, Target};
pub use error::Error;
pub use handshake::{accept, connect};
pub use identity::{HardwareKey, HardwareKeyError, Identity};
pub use incoming::incoming;
pub use peer::{Attested, Peer, Principal, Visitor};

/// The application protocol (RFC 7301) of the channel.
pub const ALPN: &[u8] = b"arca/1";
