//! What stands in `export.json`: what was exported, by whom, and how far.
//!
//! Nobody signs it, and nothing is believed because it stands there: it says what to look for.

use arca_audit::tile::{TILE_WIDTH, TileKind, TilePath};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The file's name.
pub const FILE: &str = "export.json";
/// The longest, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Where a bundle's openings are: named as its tile is when it is full.
pub(super) fn openings_path(party: &str, log: u64, bundle: u64) -> Result<String> {
    let tile = TilePath::new(TileKind::Entries, bundle, TILE_WIDTH).map_err(Error::bug)?;
    let tile = tile.to_string();
    let index = tile.strip_prefix("tile/entries/").unwrap_or(&tile);
    Ok(format!("{party}/openings/{log}/{index}.jsonl"))
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// [`Export::VERSION`].
    pub version: u32,
    /// The cluster's id.
    pub cluster: String,
    /// `production` or `simulated`.
    pub kind: String,
    /// The principal who exported.
    pub exporter: String,
    /// When the export began, in milliseconds since 1970 by the exporter's clock.
    pub began_ms: u64,
    /// Whether everything that was asked for is here.
    pub complete: bool,
    /// Whether openings were asked for.
    pub openings: bool,
    /// The logs, by party and number.
    pub logs: Vec<ExportedLog>,
}

impl Export {
    /// The format's version.
    pub const VERSION: u32 = 1;
}

/// One log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedLog {
    /// Whose.
    pub party: String,
    /// Which of its logs.
    pub log: u64,
    /// Entries under the checkpoint.
    pub size: u64,
    /// Entries up to here were there before the other parties' checkpoints were fetched: what they name of others' logs is here.
    pub settled: u64,
    /// Entries that are here: ranges `[from, to)`, ascending, of whole bundles but for the end.
    pub ranges: Vec<(u64, u64)>,
}

impl ExportedLog {
    /// Whether all entries are here.
    pub fn is_whole(&self) -> bool {
        self.ranges == [(0, self.size)] || self.size == 0
    }

    /// Whether an entry is here.
    pub fn has(&self, index: u64) -> bool {
        self.ranges
            .iter()
            .any(|(from, to)| (*from..*to).contains(&index))
    }

    /// Whether the ranges are such as an export can have.
    pub(super) fn is_consistent(&self) -> bool {
        let mut end = None;
        self.log > 0
            && self.settled <= self.size
            && self.ranges.iter().all(|(from, to)| {
                let after = end.is_none_or(|end| *from > end);
                end = Some(*to);
                let whole = |place: u64| place.is_multiple_of(256);
                after
                    && from < to
                    && *to <= self.size
                    && whole(*from)
                    && (whole(*to) || *to == self.size)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_ascending_and_of_whole_bundles() {
        let consistent = |ranges: &[(u64, u64)]| {
            ExportedLog {
                party: "ceo".to_owned(),
                log: 1,
                size: 1000,
                settled: 1000,
                ranges: ranges.to_vec(),
            }
            .is_consistent()
        };
        for good in [
            &[][..],
            &[(0, 1000)],
            &[(0, 256), (512, 1000)],
            &[(256, 512)],
        ] {
            assert!(consistent(good), "{good:?}");
        }
        for bad in [
            &[(0, 1001)][..],
            &[(0, 0)],
            &[(1, 256)],
            &[(0, 255)],
            &[(512, 768), (0, 256)],
            &[(0, 512), (256, 1000)],
            &[(0, 256), (256, 512)],
        ] {
            assert!(!consistent(bad), "{bad:?}");
        }
    }
}
