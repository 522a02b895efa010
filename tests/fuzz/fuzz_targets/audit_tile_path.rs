//! Paths of tiles: any text is refused, or written again as it was. None leads out of the log's folder.

#![no_main]

use arca_audit::tile::TilePath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(path) = text.parse::<TilePath>() else {
        return;
    };
    assert_eq!(path.to_string(), text);
    assert_eq!(
        TilePath::new(path.kind(), path.index(), path.width()),
        Ok(path)
    );
    assert!(path.full().is_full() && path <= path.full());
    assert!(text.starts_with("tile/"));
    assert!(!text.contains("..") && !text.contains("//") && !text.ends_with('/'));
    // The log that ends with its last hash or entry has it.
    let end = path.first() + u64::from(path.width());
    assert!(end < 1 << 63);
    let level = match path.kind() {
        arca_audit::tile::TileKind::Hashes { level } => u32::from(level),
        arca_audit::tile::TileKind::Entries => 0,
    };
    let size = end << (8 * level);
    assert_eq!(
        TilePath::in_log(path.kind(), path.index(), size),
        Some(path)
    );
});
