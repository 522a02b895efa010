//! Threshold protocols without I/O: bytes in, bytes out.
//!
//! A protocol run is a value. [`dkg`] and [`sign`] start one and return it with the messages of its
//! first round; [`Protocol::advance`] takes it by value with a complete [`Inbox`] and returns the next
//! one with the messages of the next round, or the result. Clock, transport, storage and randomness
//! belong to the caller.
//!
//! ```
//! use arca_threshold::{DkgParams, Participant, Scheme, SessionId, Transition, dkg};
//! # use rand_core::SeedableRng;
//! # let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
//! let all: Vec<Participant> = (1..=2).filter_map(Participant::new).collect();
//! let start = |me, rng: &mut rand_chacha::ChaCha20Rng| {
//!     let params = DkgParams {
//!         scheme: Scheme::Ed25519,
//!         session: SessionId::new([7; 32]),
//!         context: [0; 32],
//!         me,
//!         participants: all.iter().copied().collect(),
//!         threshold: 2,
//!     };
//!     dkg(params, rng)
//! };
//! let (one, to_others) = start(all[0], &mut rng)?;
//! let (_two, to_one) = start(all[1], &mut rng)?;
//! let mut inbox = one.inbox();
//! for (to, message) in to_one {
//!     assert_eq!(to, all[0]);
//!     inbox.insert(all[1], message)?;
//! }
//! assert!(inbox.missing().is_empty());
//! match one.advance(inbox, &mut rng)? {
//!     Transition::Continue(one, _outbox) => assert_eq!(one.round(), 2),
//!     Transition::Done(..) => unreachable!("key generation has four rounds"),
//! }
//! # drop(to_others);
//! # Ok::<(), arca_threshold::Error>(())
//! ```

#![forbid(unsafe_code)]

mod bytes;
pub mod ecdsa;
mod error;
mod participant;
mod protocol;
mod schnorr;
mod tags;

pub use error::{AbortReason, Error, Reject};
pub use participant::{MAX_PARTICIPANTS, Participant, SessionId};
pub use protocol::{Inbox, Outbox, Protocol, Transition};
pub use schnorr::{
    Dkg, DkgParams, KeyPackage, MAX_BATCH, MAX_MESSAGE_BYTES, Nonces, Scheme, Signable, Signed,
    Signing, SigningParams, Tweak, dkg, sign, verify,
};
