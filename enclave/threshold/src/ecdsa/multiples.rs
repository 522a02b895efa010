//! Multiplication of points by secret scalars where the curve libraries are slow: of the generator, and of
//! many points whose products are added up.
//!
//! Scalars are written in signed digits, so that a window of `w` bits needs the first `2^(w-1)` multiples
//! only. Constant-time: every digit costs the same additions, and a multiple is found by going through all.

use std::ops::Neg;

use k256::elliptic_curve::Group as _;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq as _};
use zeroize::{Zeroize, Zeroizing};

use super::curve::{Curve, SCALAR_BYTES};

/// Bits of a window of the generator's table.
const TABLE_WIDTH: usize = 5;
const TABLE_MULTIPLES: usize = 1 << (TABLE_WIDTH - 1);
/// Bits of a window of a sum of products.
const SUM_WIDTH: usize = 4;
const SUM_MULTIPLES: usize = 1 << (SUM_WIDTH - 1);
const SCALAR_BITS: usize = SCALAR_BYTES * 8;

/// For each window of a scalar, the generator's multiples: entry `k` of window `i` is `(k + 1) 2^(5 i) G`.
#[derive(Debug)]
pub struct GeneratorTable<C: Curve>(Vec<[C::Affine; TABLE_MULTIPLES]>);

impl<C: Curve> GeneratorTable<C> {
    /// Takes some milliseconds.
    pub(super) fn new() -> Self {
        let mut first = C::Point::generator();
        let mut windows = Vec::new();
        for _ in 0..windows_of(SCALAR_BITS, TABLE_WIDTH) {
            let multiples: [C::Point; TABLE_MULTIPLES] = multiples::<C, _>(&first);
            windows.push(multiples);
            if let Some(last) = multiples.last() {
                first = last.double();
            }
        }
        let affine = C::normalize_all(windows.as_flattened());
        Self(affine.as_chunks().0.to_vec())
    }

    /// The scalar times the generator.
    pub(super) fn multiply(&self, scalar: &C::Scalar) -> C::Point {
        let mut sum = C::Point::identity();
        let digits = digits::<C>(scalar, SCALAR_BITS, TABLE_WIDTH);
        for (multiples, digit) in self.0.iter().zip(digits.iter()) {
            sum += select(multiples, *digit);
        }
        sum
    }

    /// The same of a scalar that everybody may know. Variable-time.
    pub(super) fn multiply_public(&self, scalar: &C::Scalar) -> C::Point {
        let mut sum = C::Point::identity();
        let digits = digits::<C>(scalar, SCALAR_BITS, TABLE_WIDTH);
        for (multiples, digit) in self.0.iter().zip(digits.iter()) {
            let place = usize::from(digit.unsigned_abs()).checked_sub(1);
            if let Some(multiple) = place.and_then(|place| multiples.get(place)) {
                sum += if *digit < 0 { -*multiple } else { *multiple };
            }
        }
        sum
    }
}

/// A summand of [`sum`]: a point times a secret factor below 2^`bits`.
pub(super) struct Product<C: Curve> {
    point: C::Point,
    bits: usize,
    factor: C::Scalar,
}

impl<C: Curve> Product<C> {
    pub(super) fn new(point: C::Point, bits: usize, factor: C::Scalar) -> Self {
        Self {
            point,
            bits,
            factor,
        }
    }
}

impl<C: Curve> Zeroize for Product<C> {
    fn zeroize(&mut self) {
        self.factor.zeroize();
    }
}

/// The sum of products of points with secret scalars (Straus): the doublings are shared by all.
pub(super) fn sum<C: Curve>(products: &[Product<C>]) -> C::Point {
    let prepare = |product: &Product<C>| {
        let multiples: [C::Point; SUM_MULTIPLES] = multiples::<C, _>(&product.point);
        (
            multiples,
            digits::<C>(&product.factor, product.bits, SUM_WIDTH),
        )
    };
    let prepared: Vec<_> = products.iter().map(prepare).collect();
    let longest = products.iter().map(|product| product.bits).max();
    let mut sum = C::Point::identity();
    for window in (0..windows_of(longest.unwrap_or(0), SUM_WIDTH)).rev() {
        for _ in 0..SUM_WIDTH {
            sum = sum.double();
        }
        for (multiples, digits) in &prepared {
            if let Some(digit) = digits.get(window) {
                sum += select(multiples, *digit);
            }
        }
    }
    sum
}

/// The first multiples of a point.
fn multiples<C: Curve, const N: usize>(point: &C::Point) -> [C::Point; N] {
    let mut last = C::Point::identity();
    std::array::from_fn(|_| {
        last += point;
        last
    })
}

/// The multiple that a digit stands for: entry `k` is that of `k + 1`.
fn select<P>(multiples: &[P], digit: i8) -> P
where
    P: ConditionallySelectable + Default + Neg<Output = P>,
{
    let wanted = digit.unsigned_abs();
    let mut chosen = P::default();
    for (number, multiple) in (1_u8..).zip(multiples) {
        chosen.conditional_assign(multiple, number.ct_eq(&wanted));
    }
    let is_negative = Choice::from(digit.to_le_bytes()[0] >> 7);
    P::conditional_select(&chosen, &chosen.neg(), is_negative)
}

/// Windows of numbers of so many bits; one more than they fill takes the last carry.
const fn windows_of(bits: usize, width: usize) -> usize {
    bits / width + 1
}

/// A number below 2^`bits` as digits from `-2^(width - 1)` to `2^(width - 1) - 1`, the lowest first.
fn digits<C: Curve>(scalar: &C::Scalar, bits: usize, width: usize) -> Zeroizing<Vec<i8>> {
    let bytes = Zeroizing::new(C::scalar_bytes(scalar));
    let byte = |place: usize| bytes.iter().rev().nth(place).copied().unwrap_or(0);
    let mut digits = Zeroizing::new(Vec::with_capacity(windows_of(bits, width)));
    let (mask, half) = ((1_u16 << width) - 1, 1_u16 << (width - 1));
    let mut carry = 0;
    for window in 0..windows_of(bits, width) {
        let (place, shift) = (window * width / 8, window * width % 8);
        let both = u16::from_le_bytes([byte(place), byte(place + 1)]);
        let digit = ((both >> shift) & mask) + carry;
        carry = (digit + half) >> width;
        // At most 2^width, less that if it is 2^(width - 1) or more: fits.
        let [low, _] = digit.wrapping_sub(carry << width).to_le_bytes();
        digits.push(i8::from_le_bytes([low]));
    }
    digits
}

#[cfg(test)]
mod tests {
    use k256::elliptic_curve::Field as _;
    use k256::elliptic_curve::ops::MulByGenerator as _;
    use proptest::prelude::*;

    use super::*;
    use crate::ecdsa::{P256, Secp256k1};

    fn wide() -> impl Strategy<Value = [u8; 64]> {
        proptest::collection::vec(any::<u8>(), 64).prop_map(|bytes| bytes.try_into().unwrap())
    }

    fn short<C: Curve>(number: u128) -> C::Scalar {
        k256::elliptic_curve::PrimeField::from_u128(number)
    }

    fn check_generator<C: Curve>(scalar: C::Scalar) {
        let expected = C::Point::mul_by_generator(&scalar);
        assert_eq!(C::base(&scalar), expected);
        assert_eq!(C::base_public(&scalar), expected);
    }

    fn check_sum<C: Curve>(parts: &[([u8; 64], [u8; 64], Option<u128>)]) {
        let mut expected = C::Point::identity();
        let mut products = Vec::new();
        for (point, factor, bounded) in parts {
            let point = C::Point::mul_by_generator(&C::reduce_wide(point));
            let (bits, factor) = match bounded {
                Some(number) => (128, short::<C>(*number)),
                None => (256, C::reduce_wide(factor)),
            };
            products.push(Product::new(point, bits, factor));
            expected += point * factor;
        }
        assert_eq!(sum::<C>(&products), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn multiples_are_those_of_the_library(scalar in wide()) {
            check_generator::<Secp256k1>(Secp256k1::reduce_wide(&scalar));
            check_generator::<P256>(P256::reduce_wide(&scalar));
        }

        #[test]
        fn sums_of_products_are_those_of_the_library(
            parts in proptest::collection::vec((wide(), wide(), any::<Option<u128>>()), 0..5),
        ) {
            check_sum::<Secp256k1>(&parts);
            check_sum::<P256>(&parts);
        }
    }

    /// Where digits carry, to the last one.
    #[test]
    fn extreme_scalars_are_multiplied() {
        fn check<C: Curve>() {
            let one = C::Scalar::ONE;
            let mut scalars = vec![C::Scalar::ZERO, one, -one, -one - one];
            let mut power = one;
            for _ in 0..255 {
                power = power.double();
                scalars.extend([power, -power, power - one]);
            }
            for scalar in scalars {
                check_generator::<C>(scalar);
                let product = Product::new(C::Point::generator(), 256, scalar);
                assert_eq!(sum::<C>(&[product]), C::base(&scalar));
            }
            for number in [0, 1, 7, 8, 9, u128::MAX, u128::MAX - 7, 1 << 127] {
                let factor = short::<C>(number);
                let product = Product::new(C::Point::generator(), 128, factor);
                assert_eq!(sum::<C>(&[product]), C::base(&factor));
            }
        }
        check::<Secp256k1>();
        check::<P256>();
    }
}
