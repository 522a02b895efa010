//! Any bytes as a key package: refused, or one that encodes to the same bytes.
#![no_main]

use arca_threshold::KeyPackage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = KeyPackage::from_bytes(bytes) {
        let again = key.to_bytes().expect("what was read encodes");
        assert_eq!(again.as_slice(), bytes);
    }
});
