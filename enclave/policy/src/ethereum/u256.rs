//! Amounts of wei.

use std::fmt;

/// Decimal digits are taken off in chunks.
const CHUNK: u128 = 1_000_000_000_000_000_000;
const CHUNK_DIGITS: usize = 18;

/// A number below 2^256. Shown in decimal, and exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct U256([u8; 32]);

impl U256 {
    /// Nothing.
    pub const ZERO: Self = Self([0; 32]);

    /// The number of these bytes, big-endian.
    pub const fn from_be_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, big-endian.
    pub const fn to_be_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The number of at most 32 bytes, big-endian.
    pub(crate) fn from_be_slice(slice: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        let start = bytes.len().checked_sub(slice.len())?;
        bytes.get_mut(start..)?.copy_from_slice(slice);
        Some(Self(bytes))
    }

    pub(crate) fn checked_add(self, other: Self) -> Option<Self> {
        let mut carry = 0_u16;
        let mut sum = self.0;
        for (byte, other) in sum.iter_mut().zip(other.0).rev() {
            let [high, low] = (u16::from(*byte) + u16::from(other) + carry).to_be_bytes();
            *byte = low;
            carry = u16::from(high);
        }
        (carry == 0).then_some(Self(sum))
    }

    pub(crate) fn checked_mul(self, factor: u64) -> Option<Self> {
        let mut carry = 0_u128;
        let mut product = self.0;
        for byte in product.iter_mut().rev() {
            // At most 255 * 2^64, and a carry that is smaller than 2^64.
            let sum = u128::from(*byte) * u128::from(factor) + carry;
            let [.., low] = sum.to_be_bytes();
            carry = sum >> 8;
            *byte = low;
        }
        (carry == 0).then_some(Self(product))
    }

    /// Divides by [`CHUNK`], and gives the remainder.
    fn next_chunk(&mut self) -> u128 {
        let mut rest = 0_u128;
        for byte in &mut self.0 {
            let dividend = (rest << 8) | u128::from(*byte);
            // The quotient fits, because the rest was smaller than the divisor.
            let [.., quotient] = (dividend / CHUNK).to_be_bytes();
            *byte = quotient;
            rest = dividend % CHUNK;
        }
        rest
    }
}

impl From<u64> for U256 {
    fn from(number: u64) -> Self {
        let mut bytes = [0; 32];
        if let Some(low) = bytes.last_chunk_mut() {
            *low = number.to_be_bytes();
        }
        Self(bytes)
    }
}

impl fmt::Display for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = *self;
        let mut chunks = vec![number.next_chunk()];
        while number != Self::ZERO {
            chunks.push(number.next_chunk());
        }
        let mut chunks = chunks.iter().rev();
        if let Some(first) = chunks.next() {
            write!(f, "{first}")?;
        }
        chunks.try_for_each(|chunk| write!(f, "{chunk:0CHUNK_DIGITS$}"))
    }
}

impl fmt::Debug for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: U256 = U256([0xff; 32]);

    #[test]
    fn shows_every_digit() {
        let power =
            |exponent: u32| (0..exponent).fold(U256::from(1), |n, _| n.checked_mul(10).unwrap());
        assert_eq!(U256::ZERO.to_string(), "0");
        for exponent in [0, 17, 18, 19, 36, 54, 77] {
            assert_eq!(
                power(exponent).to_string(),
                format!("1{}", "0".repeat(exponent as usize))
            );
        }
        assert_eq!(
            MAX.to_string(),
            "115792089237316195423570985008687907853269984665640564039457584007913129639935"
        );
    }

    #[test]
    fn overflow_is_no_number() {
        assert_eq!(MAX.checked_add(U256::ZERO), Some(MAX));
        assert_eq!(MAX.checked_add(U256::from(1)), None);
        assert_eq!(MAX.checked_mul(1), Some(MAX));
        assert_eq!(MAX.checked_mul(2), None);
        assert_eq!(MAX.checked_mul(u64::MAX), None);
        let half = U256([0xff; 32].map(|byte: u8| byte))
            .checked_mul(0)
            .unwrap();
        assert_eq!(half, U256::ZERO);
        assert_eq!(U256::from_be_slice(&[0; 33]), None);
    }

    proptest! {
        #[test]
        fn agrees_with_machine_arithmetic(a in any::<u64>(), b in any::<u64>(), c in any::<u128>()) {
            let big = |number: u128| U256::from_be_slice(&number.to_be_bytes()).unwrap();
            let (wide_a, wide_b) = (u128::from(a), u128::from(b));
            prop_assert_eq!(U256::from(a).checked_mul(b).unwrap(), big(wide_a * wide_b));
            prop_assert_eq!(big(c / 2).checked_add(big(wide_b)).unwrap(), big(c / 2 + wide_b));
            prop_assert_eq!(big(c).to_string(), c.to_string());
            prop_assert_eq!(U256::from(a) < U256::from(b), a < b);
        }
    }
}
