//! Shares of zero from the pairs' seeds (DKLs23, functionality F_Zero and its protocol: each pair has a
//! common seed to which both contributed, committed before opened).
//!
//! *Ideal functionality*: random scalars, one for each party, that add up to zero, uniform to whoever
//! does not hold all of a party's seeds. One side of a pair adds the pair's term and the other subtracts
//! it, so over all pairs everything cancels.

use zeroize::{Zeroize as _, Zeroizing};

use crate::ecdsa::Curve;
use crate::tags;

use super::{PairSetup, Side};

impl PairSetup {
    /// Adds this pair's term to this party's share of zero, for each share. `context` must be the same at
    /// both sides and never used before with this setup.
    pub fn add_zero_shares<C: Curve>(&self, context: &[u8; 32], shares: &mut [C::Scalar]) {
        for (index, share) in shares.iter_mut().enumerate() {
            let mut term = wide_hash::<C>(
                tags::ZERO_SHARE,
                &[&**self.zero_seed, &self.id, context],
                index,
            );
            match self.side {
                Side::Low => *share += term,
                Side::High => *share -= term,
            }
            term.zeroize();
        }
    }
}

/// A uniform scalar from a hash over up to three parts of 32 bytes, the curve and a number.
pub(super) fn wide_hash<C: Curve>(tag: &str, parts: &[&[u8; 32]], index: usize) -> C::Scalar {
    let mut wide = Zeroizing::new([0; 64]);
    let (halves, _) = wide.as_chunks_mut::<32>();
    let index = (index as u64).to_be_bytes();
    for (number, half) in (0_u8..).zip(halves) {
        let place = [C::ID.to_byte(), number];
        let mut all: [&[u8]; 5] = [&[], &[], &[], &place, &index];
        for (slot, part) in all.iter_mut().zip(parts.iter().take(3)) {
            *slot = *part;
        }
        *half = tags::hash(tag, &all);
    }
    C::reduce_wide(&wide)
}
