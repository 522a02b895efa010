//! Manifests: any bytes are refused, or are a draft that comes back from its own bytes. Without signatures
//! none is ever in force.

#![no_main]

use arca_attestation::Error;
use arca_attestation::manifest::{SignedManifest, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let unsigned = SignedManifest {
        bytes: bytes.to_vec(),
        signatures: Vec::new(),
    };
    let refusal = unsigned.verify_stored().expect_err("nobody signed it");
    match parse(bytes) {
        Ok(draft) => {
            assert!(matches!(refusal, Error::NoQuorum { .. }));
            // Written out for people it may be longer than what is read.
            match draft.to_bytes() {
                Ok(written) => assert_eq!(parse(&written).as_ref(), Ok(&draft)),
                Err(error) => assert!(matches!(error, Error::ManifestTooLarge { .. })),
            }
        }
        Err(error) => assert_eq!(error, refusal),
    }
});
