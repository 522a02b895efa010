//! Sums of products of scalars, reduced once at the end instead of at each product.
//!
//! Curve libraries reduce every product; four of them for each of 416 transfers were a third of all
//! time. Constant-time: no branch, no early end, and as many limbs whatever the values.

use k256::elliptic_curve::Field as _;
use subtle::{Choice, ConditionallySelectable as _};
use zeroize::{Zeroize, Zeroizing};

use crate::ecdsa::Curve;

/// A scalar as four limbs, the lowest first.
pub(super) type Limbs = [u64; 4];

/// A sum of products below 2^576: 2^64 products of two scalars.
#[derive(Default)]
pub(super) struct Wide([u64; 9]);

/// A scalar's limbs.
pub(super) fn limbs<C: Curve>(scalar: &C::Scalar) -> Limbs {
    let bytes = C::scalar_bytes(scalar);
    let (chunks, _) = bytes.as_chunks::<8>();
    let mut limbs = [0; 4];
    for (limb, chunk) in limbs.iter_mut().rev().zip(chunks) {
        *limb = u64::from_be_bytes(*chunk);
    }
    limbs
}

impl Wide {
    /// Adds a product.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "indices follow from the loops")]
    pub(super) fn add_product(&mut self, a: &Limbs, b: &Limbs) {
        for (i, a) in a.iter().enumerate() {
            let mut carry = 0;
            for (j, b) in b.iter().enumerate() {
                // At most (2^64 - 1)^2 + 2 (2^64 - 1), which is 2^128 - 1.
                let sum = u128::from(*a)
                    .wrapping_mul(u128::from(*b))
                    .wrapping_add(u128::from(self.0[i + j]))
                    .wrapping_add(u128::from(carry));
                self.0[i + j] = low(sum);
                carry = low(sum >> 64);
            }
            for limb in &mut self.0[i + 4..] {
                let (sum, overflow) = limb.overflowing_add(carry);
                *limb = sum;
                carry = u64::from(overflow);
            }
        }
    }

    /// The sum modulo the order. `radix`: [`radix`] of the curve.
    pub(super) fn reduce<C: Curve>(&self, radix: &C::Scalar) -> C::Scalar {
        let (low, top) = self.split::<C>();
        low + C::Scalar::from(top) * radix
    }

    /// The same of at most two products, whose sum is below 2^513.
    pub(super) fn reduce_two<C: Curve>(&self, radix: &C::Scalar) -> C::Scalar {
        let (low, top) = self.split::<C>();
        let top = Choice::from((top & 1) as u8);
        low + C::Scalar::conditional_select(&C::Scalar::ZERO, radix, top)
    }

    /// All limbs but the last, reduced, and the last.
    fn split<C: Curve>(&self) -> (C::Scalar, u64) {
        let mut bytes = Zeroizing::new([0; 64]);
        let (chunks, _) = bytes.as_chunks_mut::<8>();
        let (limbs, top) = (self.0.iter(), self.0.last());
        for (chunk, limb) in chunks.iter_mut().rev().zip(limbs) {
            *chunk = limb.to_be_bytes();
        }
        (C::reduce_wide(&bytes), top.copied().unwrap_or_default())
    }
}

impl Zeroize for Wide {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for Wide {
    fn drop(&mut self) {
        self.zeroize();
    }
}

/// 2^512 modulo the order.
pub(super) fn radix<C: Curve>() -> C::Scalar {
    C::reduce_wide(&[0xff; 64]) + C::Scalar::ONE
}

/// The low half.
#[expect(clippy::cast_possible_truncation, reason = "masked")]
fn low(number: u128) -> u64 {
    (number & u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ecdsa::{P256, Secp256k1};

    fn check<C: Curve>(wide: &[([u8; 64], [u8; 64])]) {
        let mut sum = Wide::default();
        let mut expected = C::Scalar::ZERO;
        for (a, b) in wide {
            let (a, b) = (C::reduce_wide(a), C::reduce_wide(b));
            sum.add_product(&limbs::<C>(&a), &limbs::<C>(&b));
            expected += a * b;
        }
        assert_eq!(sum.reduce::<C>(&radix::<C>()), expected);
        if wide.len() <= 2 {
            assert_eq!(sum.reduce_two::<C>(&radix::<C>()), expected);
        }
    }

    fn bytes() -> impl Strategy<Value = [u8; 64]> {
        proptest::collection::vec(any::<u8>(), 64).prop_map(|bytes| bytes.try_into().unwrap())
    }

    proptest! {
        #[test]
        fn sums_of_products_are_those_of_the_curve(
            factors in proptest::collection::vec((bytes(), bytes()), 0..8),
        ) {
            check::<Secp256k1>(&factors);
            check::<P256>(&factors);
        }
    }

    #[test]
    fn the_largest_factors_carry_into_the_last_limb() {
        fn largest<C: Curve>() {
            let mut sum = Wide::default();
            let minus_one = limbs::<C>(&-C::Scalar::ONE);
            for count in 1..=1000_u64 {
                sum.add_product(&minus_one, &minus_one);
                assert_eq!(sum.reduce::<C>(&radix::<C>()), C::Scalar::from(count));
                if count <= 2 {
                    assert_eq!(sum.reduce_two::<C>(&radix::<C>()), C::Scalar::from(count));
                }
            }
            assert_ne!(sum.0[8], 0);
        }
        largest::<Secp256k1>();
        largest::<P256>();
    }
}
