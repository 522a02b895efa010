//! Any bytes as an ECDSA key package: refused, or one that encodes to the same bytes.
#![no_main]

use arca_threshold::ecdsa::KeyPackage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = KeyPackage::from_bytes(bytes) {
        assert_eq!(key.to_bytes().as_slice(), bytes);
    }
});
