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
