//! PSBTs: any bytes are an intent that adds up, or are refused. The key is that of the seeds
//! (`enclave/policy/tests/vectors`).

#![no_main]

use arca_policy::{Action, KeyFacts, Payload, PublicKey, decode};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 32] = [
    0xdf, 0x42, 0x30, 0x6e, 0x86, 0x72, 0xb7, 0x81, 0x29, 0x87, 0x47, 0x91, 0x40, 0xdf, 0x7e, 0x71,
    0xf8, 0xaf, 0x65, 0xe5, 0x8f, 0xb1, 0x79, 0x09, 0xd9, 0x78, 0x7a, 0x33, 0x51, 0xa8, 0x93, 0x77,
];

fuzz_target!(|bytes: &[u8]| {
    let key = KeyFacts {
        public_key: PublicKey::Bip340(KEY),
        allow_raw_digest: false,
    };
    match decode(&Payload::Psbt(bytes.to_vec()), &key, &[]) {
        Ok(intent) => {
            let Action::Bitcoin(spend) = intent.action() else {
                panic!("another payload's intent")
            };
            let inputs: u128 = spend
                .inputs
                .iter()
                .map(|input| u128::from(input.amount))
                .sum();
            let outputs: u128 = spend
                .outputs
                .iter()
                .map(|output| u128::from(output.amount))
                .sum();
            assert_eq!(inputs, outputs + u128::from(spend.fee));
            let own = spend.inputs.iter().filter(|input| input.own).count();
            assert!(own > 0 && own == intent.signables().len());
            assert!(intent.summary().is_ascii());
        }
        Err(rejection) => assert!(!rejection.to_string().is_empty()),
    }
});
