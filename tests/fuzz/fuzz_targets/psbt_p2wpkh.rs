//! PSBTs of an ECDSA key: any bytes are an intent that adds up, in which no amount is taken on trust, or are
//! refused. The key is that of the seeds (`enclave/policy/tests/vectors`).

#![no_main]

use arca_policy::{
    Action, KeyFacts, Payload, PublicKey, SigningKey, decode, derive, p2wpkh_script,
};
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
const PATH: [u32; 1] = [3];

fuzz_target!(|bytes: &[u8]| {
    let key = KeyFacts {
        public_key: PublicKey::EcdsaSecp256k1 {
            key: KEY,
            chain_code: CHAIN_CODE,
        },
        allow_raw_digest: false,
    };
    match decode(&Payload::Psbt(bytes.to_vec()), &key, &PATH) {
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
            for signable in intent.signables() {
                let SigningKey::Derived { path, public_key } = &signable.key else {
                    panic!("another scheme's key")
                };
                assert_eq!(derive(&key.public_key, path).as_ref(), Ok(public_key));
                let input = &spend.inputs[signable.input as usize];
                assert_eq!(input.script_pubkey, p2wpkh_script(public_key));
            }
            for output in &spend.outputs {
                if let Some(path) = &output.change {
                    let public_key = derive(&key.public_key, path).unwrap();
                    assert_eq!(output.script_pubkey, p2wpkh_script(&public_key));
                }
            }
            assert!(intent.summary().is_ascii());
        }
        Err(rejection) => assert!(!rejection.to_string().is_empty()),
    }
});
