//! Any text as a derivation path: refused, or one that reads back from how it is written.
#![no_main]

use arca_threshold::ecdsa::{MAX_PATH, Path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(path) = text.parse::<Path>() {
        assert!(path.steps().len() <= MAX_PATH);
        assert!(path.steps().iter().all(|step| *step < 1 << 31));
        assert_eq!(path.to_string().parse::<Path>().as_ref(), Ok(&path));
    }
});
