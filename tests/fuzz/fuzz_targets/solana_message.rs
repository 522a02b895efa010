//! Solana messages: any bytes are an intent or are refused, and no two messages are the same intent. The key
//! is that of the seeds (`enclave/policy/tests/vectors`).

#![no_main]

use arca_policy::{Action, KeyFacts, Payload, PublicKey, decode};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 32] = [
    0x55, 0x6c, 0xbd, 0xbc, 0x60, 0x88, 0x08, 0x9d, 0x7b, 0xda, 0x2c, 0x63, 0xac, 0x0c, 0x48, 0xe3,
    0x9d, 0x67, 0xc9, 0x42, 0x3a, 0x9a, 0x5d, 0x07, 0xd1, 0x7c, 0xf7, 0xa2, 0xcc, 0x97, 0x34, 0x74,
];

fuzz_target!(|bytes: &[u8]| {
    let key = KeyFacts {
        public_key: PublicKey::Ed25519(KEY),
        allow_raw_digest: false,
    };
    match decode(&Payload::SolanaMessage(bytes.to_vec()), &key, &[]) {
        Ok(intent) => {
            let Action::Solana(message) = intent.action() else {
                panic!("another payload's intent")
            };
            assert!(message.signers.contains(&KEY));
            let [signable] = intent.signables() else {
                panic!("one message, one signature")
            };
            assert_eq!(signable.message, bytes);
            assert!(intent.summary().is_ascii());
        }
        Err(rejection) => assert!(!rejection.to_string().is_empty()),
    }
});
