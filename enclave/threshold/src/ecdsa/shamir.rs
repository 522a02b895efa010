//! Polynomials: evaluation and Lagrange interpolation, of scalars and in the exponent.

use std::collections::BTreeSet;

use k256::elliptic_curve::Field as _;
use k256::elliptic_curve::group::Group as _;
use zeroize::Zeroizing;

use crate::Participant;

use super::curve::Curve;

/// The index as the scalar at which polynomials are evaluated.
pub(super) fn index<C: Curve>(participant: Participant) -> C::Scalar {
    C::Scalar::from(u64::from(participant.get()))
}

/// The polynomial's value at a participant's index. Coefficients in ascending order of degree.
pub(super) fn evaluate<C: Curve>(
    coefficients: &[C::Scalar],
    at: Participant,
) -> Zeroizing<C::Scalar> {
    let at = index::<C>(at);
    let mut sum = Zeroizing::new(C::Scalar::ZERO);
    for coefficient in coefficients.iter().rev() {
        *sum = *sum * at + coefficient;
    }
    sum
}

/// The same in the exponent. Public data only: variable-time in the index.
pub(super) fn evaluate_points<C: Curve>(coefficients: &[C::Point], at: Participant) -> C::Point {
    let mut sum = C::Point::identity();
    for coefficient in coefficients.iter().rev() {
        sum = times::<C>(&sum, at.get()) + coefficient;
    }
    sum
}

/// Double and add: an index is short.
fn times<C: Curve>(point: &C::Point, factor: u16) -> C::Point {
    let mut product = C::Point::identity();
    for bit in (0..u16::BITS - factor.leading_zeros()).rev() {
        product = product.double();
        if factor >> bit & 1 == 1 {
            product += point;
        }
    }
    product
}

/// The coefficient of `of`'s share in the value at zero, among these holders.
pub(super) fn lagrange<C: Curve>(of: Participant, holders: &BTreeSet<Participant>) -> C::Scalar {
    let others = holders.iter().filter(|p| **p != of);
    let points: Vec<C::Scalar> = others.map(|p| index::<C>(*p)).collect();
    coefficient::<C>(&index::<C>(of), &points, &C::Scalar::ZERO)
}

/// The value at `at` of the polynomial of lowest degree through the points. Public data only.
pub(super) fn interpolate<C: Curve>(
    points: &[(Participant, C::Point)],
    at: &C::Scalar,
) -> C::Point {
    let xs: Vec<C::Scalar> = points.iter().map(|(p, _)| index::<C>(*p)).collect();
    let term = |(x, (_, y)): (&C::Scalar, &(Participant, C::Point))| {
        let others: Vec<C::Scalar> = xs.iter().filter(|other| *other != x).copied().collect();
        *y * coefficient::<C>(x, &others, at)
    };
    xs.iter().zip(points).map(term).sum()
}

/// The product of `(at - other) / (x - other)`. Zero when `x` is among the others, which it never is:
/// they come from sets.
fn coefficient<C: Curve>(x: &C::Scalar, others: &[C::Scalar], at: &C::Scalar) -> C::Scalar {
    let numerator: C::Scalar = others.iter().map(|other| *at - other).product();
    let denominator: C::Scalar = others.iter().map(|other| *x - other).product();
    numerator * denominator.invert().unwrap_or(C::Scalar::ZERO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{RngCore as _, SeedableRng as _};

    use super::*;
    use crate::ecdsa::{P256, Secp256k1};

    /// Any `threshold` holders of a random polynomial's values find its value at zero, in scalars and in the
    /// exponent; one fewer do not.
    fn check<C: Curve>(threshold: usize, holders: &[Participant], seed: u64) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let polynomial: Vec<C::Scalar> = (0..threshold).map(|_| C::random(&mut rng)).collect();
        let points: Vec<C::Point> = polynomial.iter().map(C::base).collect();
        let at_zero = |holders: &[Participant]| -> C::Scalar {
            let set = holders.iter().copied().collect();
            let term =
                |of: &Participant| lagrange::<C>(*of, &set) * *evaluate::<C>(&polynomial, *of);
            holders.iter().map(term).sum()
        };
        let (enough, too_few) = (&holders[..threshold], &holders[..threshold - 1]);
        assert_eq!(at_zero(enough), polynomial[0]);
        assert_eq!(at_zero(holders), polynomial[0]);
        assert_ne!(at_zero(too_few), polynomial[0]);

        let value = |of: &Participant| (*of, evaluate_points::<C>(&points, *of));
        for (of, point) in holders.iter().map(value) {
            assert_eq!(point, C::base(&evaluate::<C>(&polynomial, of)));
        }
        let basis: Vec<_> = enough.iter().map(value).collect();
        assert_eq!(interpolate::<C>(&basis, &C::Scalar::ZERO), points[0]);
        for (of, point) in holders.iter().map(value) {
            assert_eq!(interpolate::<C>(&basis, &index::<C>(of)), point);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn a_threshold_of_values_is_the_polynomial(seed: u64, n in 2_usize..=16, t in 0_usize..16) {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let threshold = 2 + t % (n - 1);
            // Any indices, in any order.
            let mut holders = Vec::new();
            while holders.len() < n {
                let wide = rng.next_u32() & 1 == 1;
                let drawn = rng.next_u32() % if wide { 1 << 16 } else { 20 };
                if let Some(drawn) = Participant::new(u16::try_from(drawn).unwrap())
                    && !holders.contains(&drawn)
                {
                    holders.push(drawn);
                }
            }
            check::<Secp256k1>(threshold, &holders, seed);
            check::<P256>(threshold, &holders, seed);
        }
    }
}
