//! What AWS KMS encrypts to an enclave. The reader stands by itself, without the platform around it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../../enclave/nitro/src/kms/envelope.rs"]
mod envelope;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = envelope::read(bytes) else {
        return;
    };
    assert!(bytes.len() <= envelope::MAX_ENVELOPE);
    assert!(!read.key_identifier.is_empty() && !read.encrypted_key.is_empty());
    assert!(!read.content.is_empty() && read.content.len() % 16 == 0);
    let parts = read.key_identifier.len() + read.encrypted_key.len() + read.content.len();
    assert!(parts < bytes.len());
    // Nothing may follow, and nothing may be missing.
    assert!(envelope::read(&[bytes, &[0]].concat()).is_err());
    assert!(envelope::read(&bytes[..bytes.len() - 1]).is_err());
});
