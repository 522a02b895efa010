//! Ethereum transactions: any bytes are an intent or are refused, and what is accepted is in the intent down to
//! the last byte. The key is that of the seeds (`enclave/policy/tests/vectors`).

#![no_main]

use arca_policy::{Action, KeyFacts, Payload, PublicKey, decode};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 33] = [
    0x03, 0x53, 0x63, 0x8e, 0xb2, 0x06, 0x72, 0x65, 0xc6, 0x77, 0xa1, 0x2a, 0xcd, 0xb3, 0xd7, 0xbe,
    0x2d, 0xb8, 0xda, 0x99, 0x56, 0x20, 0x5b, 0x6a, 0x80, 0x71, 0xf6, 0xc4, 0x09, 0xc1, 0x6d, 0xa3,
    0xb6,
];
const CHAIN_CODE: [u8; 32] = [
    0xe3, 0x8e, 0x18, 0x4b, 0x8e, 0x5f, 0xeb, 0x66, 0xf8, 0x16, 0xbf, 0xfa, 0xb8, 0xb9, 0x76, 0xa7,
    0x02, 0x3c, 0x0a, 0x59, 0x8c, 0xa4, 0x87, 0x5d, 0xcb, 0x25, 0xea, 0xa5, 0x7f, 0x05, 0xce, 0xdb,
];

fuzz_target!(|bytes: &[u8]| {
    let key = KeyFacts {
        public_key: PublicKey::EcdsaSecp256k1 {
            key: KEY,
            chain_code: CHAIN_CODE,
        },
        allow_raw_digest: false,
    };
    match decode(&Payload::EthereumTransaction(bytes.to_vec()), &key, &[]) {
        Ok(intent) => {
            let Action::Ethereum(transaction) = intent.action() else {
                panic!("another payload's intent")
            };
            assert_eq!(transaction.unsigned_bytes(), bytes);
            let [signable] = intent.signables() else {
                panic!("one transaction, one signature")
            };
            assert_eq!(signable.message.len(), 32);
            assert!(intent.summary().is_ascii());
        }
        Err(rejection) => assert!(!rejection.to_string().is_empty()),
    }
});
