//! Tiles ([C2SP tlog-tiles](https://c2sp.org/tlog-tiles)): a log as immutable files of up to 256 hashes or entries.
//!
//! A hash tile of level 0 has leaf hashes; one of each higher level the roots of full tiles of the level below. A
//! partial tile is the beginning of the tile that will once be full, so that a wider one answers for a narrower one.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Hash, root, text};

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// Levels of the tree that a tile spans: 2^8 = 256.
pub(crate) const TILE_HEIGHT: u32 = 8;
/// Levels of tiles: 256^8 is more than a log can have.
pub(crate) const LEVELS: u8 = 8;
/// The longest entry of a bundle, in bytes.
pub const MAX_ENTRY: usize = 65_535;

const HASH: usize = 32;

const PATH: &str = "tile path";
const TILE: &str = "hash tile";
const BUNDLE: &str = "entry bundle";

/// What is in a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of the tree: of 256^level leaves each.
    Hashes {
        /// 0 to 7.
        level: u8,
    },
    /// The entries themselves.
    Entries,
}

impl TileKind {
    /// How many of what these tiles hold a log of this size has.
    fn count(self, size: u64) -> u64 {
        let level = match self {
            Self::Hashes { level } => level,
            Self::Entries => 0,
        };
        size.checked_shr(u32::from(level) * TILE_HEIGHT)
            .unwrap_or(0)
    }
}

/// Which tile: kind, index in its row, width. Written `tile/0/x001/x234/067.p/5`; the width stands there when it is
/// not full. Ordered so that a tile's narrower forms come right before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u16,
}

impl TilePath {
    /// A tile of some log.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when the width is not 1 to 256, or no log is large enough to have it.
    pub fn new(kind: TileKind, index: u64, width: u16) -> Result<Self, Error> {
        if width == 0 || width > TILE_WIDTH {
            return Err(Error::malformed(PATH, "its width is not 1 to 256"));
        }
        let exists = match kind {
            TileKind::Hashes { level } if level >= LEVELS => false,
            _ => index
                .checked_mul(TILE_WIDTH.into())
                .and_then(|first| first.checked_add(width.into()))
                .is_some_and(|end| end <= kind.count(text::MAX_SIZE)),
        };
        if exists {
            Ok(Self { kind, index, width })
        } else {
            Err(Error::malformed(PATH, "no log is that large"))
        }
    }

    /// The tile at an index of its row as it is in a log of this size; none when the log ends before it.
    pub fn in_log(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let first = index.checked_mul(TILE_WIDTH.into())?;
        let width = kind.count(size).checked_sub(first)?;
        let width = u16::try_from(width).map_or(TILE_WIDTH, |width| width.min(TILE_WIDTH));
        Self::new(kind, index, width).ok()
    }

    /// The last tile of a row in a log of this size, full or not; none when the row is empty.
    pub fn last(kind: TileKind, size: u64) -> Option<Self> {
        let last = kind.count(size).checked_sub(1)?;
        Self::in_log(kind, last / u64::from(TILE_WIDTH), size)
    }

    /// The partial tile of a row in a log of this size, if the row has one.
    pub fn partial(kind: TileKind, size: u64) -> Option<Self> {
        Self::last(kind, size).filter(|last| !last.is_full())
    }

    /// The tiles of one row that a log of `newer` entries has and one of `older` has not, or has narrower. With
    /// `older` 0, the whole row.
    pub fn row(kind: TileKind, older: u64, newer: u64) -> impl Iterator<Item = Self> {
        let first = kind.count(older) / u64::from(TILE_WIDTH);
        let grown = kind.count(newer) > kind.count(older);
        (first..)
            .map_while(move |index| Self::in_log(kind, index, newer))
            .take_while(move |_| grown)
    }

    /// All rows of [`row`](Self::row): entries, then hashes from the leaves up.
    pub fn between(older: u64, newer: u64) -> impl Iterator<Item = Self> {
        let levels = (0..LEVELS).map(|level| TileKind::Hashes { level });
        std::iter::once(TileKind::Entries)
            .chain(levels)
            .flat_map(move |kind| Self::row(kind, older, newer))
    }

    /// What is in it.
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its index in its row.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Index of its first hash or entry in the row: of an entry, the index in the log.
    pub fn first(&self) -> u64 {
        // Checked when it was made.
        self.index.saturating_mul(TILE_WIDTH.into())
    }

    /// Whether it can no longer grow.
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// What it is when it is full.
    pub fn full(&self) -> Self {
        Self {
            width: TILE_WIDTH,
            ..*self
        }
    }

    /// The beginning of `content`, of this tile or a wider form of it, that is this tile.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when the content is no such tile or too narrow.
    pub fn narrow<'a>(&self, content: &'a [u8]) -> Result<&'a [u8], Error> {
        let width = usize::from(self.width);
        match self.kind {
            TileKind::Hashes { .. } => {
                if !content.len().is_multiple_of(HASH)
                    || content.len() > usize::from(TILE_WIDTH) * HASH
                {
                    return Err(Error::malformed(TILE, "it is not 1 to 256 times 32 bytes"));
                }
                content
                    .get(..width * HASH)
                    .ok_or(Error::malformed(TILE, "it is narrower than asked"))
            }
            TileKind::Entries => {
                let entries = bundle(content)?;
                let wanted = entries
                    .get(..width)
                    .ok_or(Error::malformed(BUNDLE, "it is narrower than asked"))?;
                let length = wanted.iter().map(|entry| 2 + entry.len()).sum();
                content
                    .get(..length)
                    .ok_or(Error::malformed(BUNDLE, "it is narrower than asked"))
            }
        }
    }

    /// The hashes of this tile in `content`, of it or a wider form of it.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] as [`narrow`](Self::narrow), and of an entry bundle.
    pub fn hashes(&self, content: &[u8]) -> Result<Vec<Hash>, Error> {
        if self.kind == TileKind::Entries {
            return Err(Error::malformed(TILE, "it is an entry bundle"));
        }
        let (hashes, _) = self.narrow(content)?.as_chunks::<HASH>();
        Ok(hashes.to_vec())
    }

    /// The entries of this bundle in `content`, of it or a wider form of it.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] as [`narrow`](Self::narrow), and of a hash tile.
    pub fn entries<'a>(&self, content: &'a [u8]) -> Result<Vec<&'a [u8]>, Error> {
        if self.kind != TileKind::Entries {
            return Err(Error::malformed(BUNDLE, "it is a hash tile"));
        }
        decode_entries(self.narrow(content)?)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes { level } => write!(f, "tile/{level}/")?,
            TileKind::Entries => write!(f, "tile/entries/")?,
        }
        // Groups of three digits, lowest first, then turned around.
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for (after, group) in groups.iter().enumerate().rev() {
            match after {
                0 => write!(f, "{group:03}")?,
                _ => write!(f, "x{group:03}/")?,
            }
        }
        if self.is_full() {
            Ok(())
        } else {
            write!(f, ".p/{}", self.width)
        }
    }
}

impl FromStr for TilePath {
    type Err = Error;

    fn from_str(path: &str) -> Result<Self, Error> {
        let malformed = |reason| Error::malformed(PATH, reason);
        let (kind, rest) = path
            .strip_prefix("tile/")
            .and_then(|path| path.split_once('/'))
            .ok_or(malformed("it is not tile/, a kind and an index"))?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes {
                level: text::decimal(level)
                    .and_then(|level| u8::try_from(level).ok())
                    .ok_or(malformed("its level is no small decimal"))?,
            },
        };
        let (groups, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((groups, width)) => {
                let width = text::decimal(width)
                    .and_then(|width| u16::try_from(width).ok())
                    .ok_or(malformed("its width is no small decimal"))?;
                (groups, width)
            }
        };
        let mut index: u64 = 0;
        for group in groups.split('/') {
            // Whether the x stands where it should shows below.
            let digits = group.strip_prefix('x').unwrap_or(group);
            let wrong = digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit());
            let value = digits.parse::<u64>().ok().filter(|_| !wrong);
            index = value
                .and_then(|value| index.checked_mul(1000)?.checked_add(value))
                .ok_or(malformed("its index is not in groups of three digits"))?;
        }
        let parsed = Self::new(kind, index, width)?;
        if parsed.to_string() == path {
            Ok(parsed)
        } else {
            Err(malformed("it is not written in the one way"))
        }
    }
}

/// Entries one after the other: each its length as two bytes, big-endian, and its bytes.
///
/// # Errors
///
/// [`Error::Malformed`] when one is longer than [`MAX_ENTRY`].
pub fn encode_entries<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len())
            .map_err(|_| Error::malformed(BUNDLE, "an entry is longer than 65535 bytes"))?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(entry);
    }
    Ok(bytes)
}

/// The other way of [`encode_entries`]; any number of entries.
///
/// # Errors
///
/// [`Error::Malformed`] when the bytes end within one.
pub fn decode_entries(mut bytes: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let cut = Error::malformed(BUNDLE, "it ends within an entry");
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<2>().ok_or(cut)?;
        let (entry, rest) = rest
            .split_at_checked(u16::from_be_bytes(*length).into())
            .ok_or(cut)?;
        entries.push(entry);
        bytes = rest;
    }
    Ok(entries)
}

/// Entries of one bundle.
fn bundle(content: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let entries = decode_entries(content)?;
    if entries.len() > TILE_WIDTH.into() {
        return Err(Error::malformed(BUNDLE, "it has more than 256 entries"));
    }
    Ok(entries)
}

/// A hash tile's bytes.
pub(crate) fn encode_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.as_flattened().to_vec()
}

/// The hash of a full tile, which stands in the tile above it; none of a partial one.
pub fn tile_root(hashes: &[Hash]) -> Option<Hash> {
    (hashes.len() == usize::from(TILE_WIDTH)).then(|| root(hashes))
}
