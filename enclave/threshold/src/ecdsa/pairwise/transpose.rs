//! Transposing bit matrices.

/// Transposes 128 rows of 128 bits in place: bit `c` of row `r`, counted from the lowest, becomes bit `r`
/// of row `c`. Constant-time.
///
/// Swaps the off-diagonal halves, then those of the quarters, and so on (Warren, Hacker's Delight, 7-3).
#[expect(clippy::indexing_slicing, reason = "indices follow from the loop")]
pub(super) fn transpose(rows: &mut [u128; 128]) {
    let mut width = 64;
    let mut mask = u128::from(u64::MAX);
    while width != 0 {
        for start in (0..128).step_by(2 * width) {
            for low in start..start + width {
                let high = low + width;
                let swap = ((rows[low] >> width) ^ rows[high]) & mask;
                rows[low] ^= swap << width;
                rows[high] ^= swap;
            }
        }
        width /= 2;
        mask ^= mask << width;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_bit_lands_on_the_other_side_of_the_diagonal(
            rows in proptest::collection::vec(any::<u128>(), 128),
        ) {
            let before: [u128; 128] = rows.try_into().unwrap();
            let mut after = before;
            transpose(&mut after);
            for (r, row) in before.iter().enumerate() {
                for (c, column) in after.iter().enumerate() {
                    prop_assert_eq!((row >> c) & 1, (column >> r) & 1);
                }
            }
        }
    }
}
