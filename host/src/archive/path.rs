//! What may be asked for: paths of the archive, parsed once.

use std::fmt;
use std::str::FromStr;

use arca_audit::tile::TilePath;

/// A file of the archive. There is one way to write each, without anything that a file system would understand
/// otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogPath {
    /// The signed checkpoint of a log.
    Checkpoint(u64),
    /// The newest checkpoint that external witnesses cosigned.
    Cosignatures(u64),
    /// A tile of a log.
    Tile(u64, TilePath),
    /// What entries name by its SHA-256.
    File(FileName),
}

/// A SHA-256 in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileName(String);

/// It is no path of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not NUMBER/checkpoint, NUMBER/cosignatures, NUMBER/tile/LEVEL/INDEX[.p/WIDTH], \
     NUMBER/tile/entries/INDEX[.p/WIDTH] or files/SHA256"
)]
pub(crate) struct NoLogPath;

impl FileName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = NoLogPath;

    fn from_str(name: &str) -> Result<Self, NoLogPath> {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if name.len() == 64 && name.bytes().all(hex) {
            Ok(Self(name.to_owned()))
        } else {
            Err(NoLogPath)
        }
    }
}

/// The number of a log: decimal, without leading zeros.
pub(crate) fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl FromStr for LogPath {
    type Err = NoLogPath;

    fn from_str(path: &str) -> Result<Self, NoLogPath> {
        let (first, rest) = path.split_once('/').ok_or(NoLogPath)?;
        if first == "files" {
            return rest.parse().map(Self::File);
        }
        let number = number(first).ok_or(NoLogPath)?;
        match rest {
            "checkpoint" => Ok(Self::Checkpoint(number)),
            "cosignatures" => Ok(Self::Cosignatures(number)),
            tile => tile
                .parse()
                .map(|tile| Self::Tile(number, tile))
                .map_err(|_| NoLogPath),
        }
    }
}

impl fmt::Display for LogPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint(number) => write!(f, "{number}/checkpoint"),
            Self::Cosignatures(number) => write!(f, "{number}/cosignatures"),
            Self::Tile(number, tile) => write!(f, "{number}/{tile}"),
            Self::File(name) => write!(f, "files/{}", name.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_the_one_way_is_a_path() {
        let file = format!("files/{}", "0a".repeat(32));
        for path in [
            "1/checkpoint",
            "12/cosignatures",
            "1/tile/0/000",
            "1/tile/0/x001/234.p/5",
            "18446744073709551615/tile/entries/000.p/255",
            &file,
        ] {
            let parsed: LogPath = path.parse().unwrap();
            assert_eq!(parsed.to_string(), path);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let upper = format!("files/{}", "0A".repeat(32));
        let short = format!("files/{}", "0a".repeat(31));
        let long = format!("files/{}", "0a".repeat(33));
        for path in [
            "",
            "/",
            "1",
            "1/",
            "/1/checkpoint",
            "01/checkpoint",
            "+1/checkpoint",
            "-1/checkpoint",
            "18446744073709551616/checkpoint",
            "1/checkpoint/",
            "1/../2/checkpoint",
            "../1/checkpoint",
            "1/tile/../checkpoint",
            "1/tile/0/../000",
            "1/tile/0/0",
            "1/tile/0/000.p/0",
            "1/tile/0/000.p/256",
            "1/tile/0/000.p/05",
            "1/tile/0/x000/001",
            "1/tile/64/000",
            "1/tile/entries/000.p/5/",
            "1/tile/entries/000\0",
            "1/own",
            "files/",
            "files/..",
            "files/../1/checkpoint",
            &upper,
            &short,
            &long,
        ] {
            assert_eq!(path.parse::<LogPath>(), Err(NoLogPath), "{path:?}");
        }
    }
}
