//! Entry bundles: any bytes are refused, or written again as they were; a narrower form is their beginning. The same
//! bytes as a hash tile.

#![no_main]

use arca_audit::tile::{TileKind, TilePath, decode_entries, encode_entries};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let entries = decode_entries(bytes);
    if let Ok(entries) = &entries {
        assert_eq!(encode_entries(entries).as_deref(), Ok(bytes));
    }
    for width in [1, 2, 17, 255, 256] {
        let path = TilePath::new(TileKind::Entries, 0, width).expect("a path");
        if let Ok(narrow) = path.narrow(bytes) {
            assert!(bytes.starts_with(narrow));
            let narrow = path.entries(narrow).expect("a bundle of that width");
            assert_eq!(narrow.len(), usize::from(width));
            assert!(entries.as_ref().is_ok_and(|all| all.starts_with(&narrow)));
        }
        let path = TilePath::new(TileKind::Hashes { level: 0 }, 0, width).expect("a path");
        if let Ok(hashes) = path.hashes(bytes) {
            assert!(bytes.starts_with(hashes.as_flattened()));
            assert_eq!(hashes.len(), usize::from(width));
        }
    }
});
