//! What the text formats of C2SP have in common: lines, decimals, base64. All strict: there is one way to write
//! each value.

use base64ct::{Base64, Encoding};

use crate::{Error, Hash};

/// The largest size of a log. The formats count in signed 64-bit integers elsewhere, and no log comes near it.
pub(crate) const MAX_SIZE: u64 = i64::MAX.cast_unsigned();

/// The line before the first newline, and what follows that newline.
pub(crate) fn line(text: &str) -> Option<(&str, &str)> {
    text.split_once('\n')
}

/// ASCII decimal without leading zeros, at most [`MAX_SIZE`].
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= MAX_SIZE)
}

/// Standard base64 with padding; refuses every second way to write the same bytes.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).ok()
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

pub(crate) fn hash(text: &str) -> Option<Hash> {
    decode(text)?.try_into().ok()
}

/// Base64 hashes, one a line, up to the empty line that ends them, and what follows it.
pub(crate) fn hashes<'a>(
    mut text: &'a str,
    most: usize,
    format: &'static str,
) -> Result<(Vec<Hash>, &'a str), Error> {
    let mut hashes = Vec::new();
    loop {
        let (first, rest) = line(text).ok_or(Error::malformed(
            format,
            "the lines of the proof do not end with an empty one",
        ))?;
        text = rest;
        if first.is_empty() {
            return Ok((hashes, text));
        }
        if hashes.len() == most {
            return Err(Error::malformed(format, "the proof has too many hashes"));
        }
        hashes.push(hash(first).ok_or(Error::malformed(
            format,
            "a line of the proof is no base64 of 32 bytes",
        ))?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_written_in_one_way() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("20852163"), Some(20_852_163));
        assert_eq!(decimal("9223372036854775807"), Some(MAX_SIZE));
        for wrong in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1_0",
            "٣",
            "9223372036854775808",
            "18446744073709551616",
        ] {
            assert_eq!(decimal(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn base64_is_written_in_one_way() {
        assert_eq!(decode("AA=="), Some(vec![0]));
        // No padding; bits behind the last byte; the other alphabet; white space.
        for wrong in ["AA", "AB==", "_w==", "AA== ", "A\nA==", "AA==AA=="] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }
}
