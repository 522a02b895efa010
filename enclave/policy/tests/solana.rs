//! Solana messages: bytes made by `@solana/web3.js` (see `vectors/make.mjs`), and every refusal.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use arca_policy::{
    Action, Intent, KeyFacts, MAX_SOLANA_BYTES, Payload, PublicKey, Rejection, SigningKey,
    SolanaAccount, SolanaInstruction, SolanaMessage, SolanaVersion, decode,
};
use serde_json::Value;

const PAYER: [u8; 32] = [1; 32];
const KEY: [u8; 32] = [2; 32];
const CAROL: [u8; 32] = [3; 32];
const SYSTEM: [u8; 32] = [0; 32];
const BLOCKHASH: [u8; 32] = [9; 32];

type Change = fn(&mut Builder);

#[test]
fn agrees_with_another_library() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/payloads.json")).unwrap();
    let vectors = vectors["solana"].as_array().unwrap();
    assert_eq!(vectors.len(), 8);
    for vector in vectors {
        let bytes = hex::decode(vector["message"].as_str().unwrap()).unwrap();
        let intent = decode_for(&bytes, bytes32(&vector["key"])).unwrap();
        let expected = SolanaMessage {
            version: if vector["version"] == "v0" {
                SolanaVersion::V0
            } else {
                SolanaVersion::Legacy
            },
            signers: vector["signers"]
                .as_array()
                .unwrap()
                .iter()
                .map(bytes32)
                .collect(),
            recent_blockhash: bytes32(&vector["blockhash"]),
            instructions: vector["instructions"]
                .as_array()
                .unwrap()
                .iter()
                .map(instruction)
                .collect(),
            key: bytes32(&vector["key"]),
        };
        assert_eq!(message(&intent), &expected, "{}", vector["name"]);
        // What is signed is the message as it came.
        let [signable] = intent.signables() else {
            panic!("one signature")
        };
        assert_eq!(
            (&signable.message, &signable.key, signable.input),
            (&bytes, &SigningKey::Group, 0)
        );
    }
}

#[test]
fn summary_tells_everything() {
    let mut builder = Builder::v0();
    builder
        .instructions
        .push((2, vec![0, 4, 5], vec![0xca, 0xfe]));
    builder.lookups = vec![(vec![7; 32], vec![6], vec![8])];
    let table = "US517G5965aydkZ46HS38QLi7UQiSojurfbQfKCELFx";
    let payer = "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi";
    let key = "8qbHbw2BbbTHBW1sbeqakYXVKRQM8Ne7pLK7m6CVfeR";
    let carol = "CktRuQ2mttgRGkXJtyksdKHjUdc2C4TgDzyB98oEzy8";
    let expected = format!(
        "Solana message, version 0\n\
         \x20 transfers 5000 lamports from {key} (this key) to {carol}\n\
         \x20 calls program {carol} with data cafe\n\
         \x20   account {payer}, signs, writable\n\
         \x20   unknown account 6 of lookup table {table}, writable\n\
         \x20   unknown account 8 of lookup table {table}\n\
         \x20 signed by {payer}, pays the fee\n\
         \x20 signed by {key} (this key)"
    );
    assert_eq!(decode_own(&builder.bytes()).unwrap().summary(), expected);
}

#[test]
fn tells_who_signs_and_what_may_change() {
    let mut builder = Builder::legacy();
    builder.header = [2, 1, 1];
    builder.instructions = vec![(2, vec![0, 1, 2, 3], vec![])];
    let intent = decode_own(&builder.bytes()).unwrap();
    let SolanaInstruction::Unknown { accounts, .. } = &message(&intent).instructions[0] else {
        panic!()
    };
    let flags: Vec<_> = accounts
        .iter()
        .map(|account| (account.signer, account.writable))
        .collect();
    assert_eq!(
        flags,
        [(true, true), (true, false), (false, true), (false, false)]
    );
}

#[test]
fn only_an_exact_transfer_is_one() {
    let transfer = [&[2, 0, 0, 0][..], &5000_u64.to_le_bytes()].concat();
    let mut near_misses = vec![
        ("an account more", vec![1, 2, 0], transfer.clone()),
        ("an account less", vec![1], transfer.clone()),
        ("from does not sign", vec![2, 1], transfer.clone()),
        ("data behind", vec![1, 2], [&transfer[..], &[0]].concat()),
        ("data missing", vec![1, 2], transfer[..11].to_vec()),
        ("no data", vec![1, 2], vec![]),
    ];
    // CreateAccount and TransferWithSeed, as far as the variant's number.
    near_misses.push((
        "other variants",
        vec![1, 2],
        [&[0, 0, 0, 0][..], &transfer[4..]].concat(),
    ));
    near_misses.push((
        "other variants",
        vec![1, 2],
        [&[11, 0, 0, 0][..], &transfer[4..]].concat(),
    ));
    near_misses.push((
        "other variants",
        vec![1, 2],
        [&[2, 1, 0, 0][..], &transfer[4..]].concat(),
    ));
    for (name, accounts, data) in near_misses {
        let mut builder = Builder::legacy();
        builder.instructions = vec![(3, accounts, data.clone())];
        let intent = decode_own(&builder.bytes()).unwrap();
        let instruction = &message(&intent).instructions[0];
        let shown = matches!(instruction, SolanaInstruction::Unknown { program: SYSTEM, data: shown, .. } if *shown == data);
        assert!(shown, "{name}: {instruction:?}");
    }

    let mut other_program = Builder::legacy();
    other_program.keys[3] = [8; 32];
    let intent = decode_own(&other_program.bytes()).unwrap();
    assert!(matches!(
        message(&intent).instructions[0],
        SolanaInstruction::Unknown {
            program: [8, ..],
            ..
        }
    ));
}

#[test]
fn digest_tells_intents_apart() {
    let changes: [Change; 8] = [
        |_| (),
        |builder| builder.version = Some(0x80),
        |builder| builder.header = [2, 1, 1],
        |builder| builder.blockhash = [10; 32],
        |builder| builder.keys[2] = [4; 32],
        |builder| builder.instructions[0].2[4] ^= 1,
        |builder| builder.instructions[0].1 = vec![0, 2],
        |builder| builder.instructions.push((3, vec![], vec![])),
    ];
    let mut digests: Vec<_> = changes
        .iter()
        .map(|change| {
            let mut builder = Builder::legacy();
            change(&mut builder);
            decode_own(&builder.bytes()).unwrap().digest()
        })
        .collect();
    // The same message for the other signer is another intent.
    digests.push(
        decode_for(&Builder::legacy().bytes(), PAYER)
            .unwrap()
            .digest(),
    );
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), changes.len() + 1);
}

#[test]
fn refuses_when_the_key_does_not_sign() {
    let bytes = Builder::legacy().bytes();
    // Carol's account is in the message, as the destination.
    for stranger in [CAROL, [42; 32]] {
        assert_eq!(
            decode_for(&bytes, stranger).unwrap_err(),
            Rejection::NotASigner { signers: 2 }
        );
    }
    assert!(decode_for(&bytes, PAYER).is_ok());
}

#[test]
fn refuses_malformed_messages() {
    let cases: Vec<(&str, Change)> = vec![
        ("version: is neither", |builder| {
            builder.version = Some(0x81)
        }),
        // Prefix of off-chain messages: never to be mistaken for a transaction.
        ("version: is neither", |builder| {
            builder.version = Some(0xff)
        }),
        ("header: contradicts", |builder| builder.header = [0, 0, 1]),
        ("header: contradicts", |builder| builder.header = [2, 2, 1]),
        ("header: contradicts", |builder| builder.header = [2, 3, 1]),
        ("header: contradicts", |builder| builder.header = [2, 0, 5]),
        ("header: counts more", |builder| builder.header = [4, 0, 1]),
        ("header: counts more", |builder| builder.header = [2, 0, 3]),
        ("account_keys: names an account twice", |builder| {
            builder.keys[2] = KEY
        }),
        (
            "instructions[0].program_id_index: names the fee payer",
            |builder| builder.instructions[0].0 = 0,
        ),
        (
            "instructions[0].program_id_index: is out of range",
            |builder| builder.instructions[0].0 = 4,
        ),
        ("instructions[0].accounts: is out of range", |builder| {
            builder.instructions[0].1[1] = 4
        }),
        ("instructions[1].accounts: is out of range", |builder| {
            builder.instructions.push((3, vec![255], vec![]))
        }),
        (
            "instructions[0].program_id_index: names an account in a lookup table",
            |builder| {
                *builder = Builder {
                    lookups: vec![(vec![7; 32], vec![1], vec![])],
                    ..Builder::v0()
                };
                builder.instructions[0].0 = 4;
            },
        ),
        ("address_table_lookups: a table is named", |builder| {
            *builder = Builder {
                lookups: vec![(vec![7; 32], vec![], vec![])],
                ..Builder::v0()
            };
        }),
        ("account_keys: more than 256", |builder| {
            *builder = Builder {
                lookups: vec![(vec![7; 32], vec![1; 200], vec![2; 53])],
                ..Builder::v0()
            };
        }),
        ("end: bytes follow", |builder| builder.trailing = vec![0]),
        ("leaves no room", |builder| {
            builder.instructions.push((3, vec![], vec![0; 980]))
        }),
    ];
    for (text, change) in cases {
        let mut builder = Builder::legacy();
        change(&mut builder);
        let rejection = decode_own(&builder.bytes()).unwrap_err();
        assert_eq!(rejection.reason(), "PAYLOAD_MALFORMED", "{text}");
        assert!(rejection.to_string().contains(text), "{text}: {rejection}");
    }
    let oversize = decode_own(&vec![0; MAX_SOLANA_BYTES + 1]).unwrap_err();
    assert_eq!(oversize.reason(), "PAYLOAD_TOO_LARGE");
}

#[test]
fn refuses_every_truncation() {
    for bytes in [Builder::legacy().bytes(), Builder::v0().bytes()] {
        for end in 0..bytes.len() {
            let rejection = decode_own(&bytes[..end]).unwrap_err();
            assert!(
                rejection.to_string().contains("ends too early"),
                "{end}: {rejection}"
            );
        }
    }
}

#[test]
fn takes_lengths_in_one_form_only() {
    // `solana_short_vec` test vectors: the value, its encoding, and encodings that are refused.
    let data_of = |length: &[u8], count: usize| {
        let mut builder = Builder::legacy();
        builder.instructions = vec![];
        let mut bytes = builder.bytes();
        bytes.pop();
        bytes.extend([1, 3, 0]);
        bytes.extend(length);
        bytes.extend(vec![5; count]);
        decode_own(&bytes)
    };
    for (length, count) in [
        (&[0][..], 0),
        (&[0x7f], 127),
        (&[0x80, 0x01], 128),
        (&[0xff, 0x01], 255),
        (&[0x80, 0x02], 256),
    ] {
        let intent = data_of(length, count).unwrap();
        let SolanaInstruction::Unknown { data, .. } = &message(&intent).instructions[0] else {
            panic!()
        };
        assert_eq!(data.len(), count);
    }
    let refused: [(&[u8], usize, &str); 7] = [
        (&[0x80, 0x00], 0, "shortest form"),
        (&[0x81, 0x00], 1, "shortest form"),
        (&[0xff, 0x80, 0x00], 127, "shortest form"),
        (&[0x80, 0x80, 0x00], 0, "shortest form"),
        (&[0x80, 0x80, 0x04], 0, "exceeds 65535"),
        (&[0xff, 0xff, 0x7f], 0, "exceeds 65535"),
        (&[0x80, 0x80, 0x80, 0x01], 0, "more than three bytes"),
    ];
    for (length, count, text) in refused {
        let rejection = data_of(length, count).unwrap_err();
        assert!(
            rejection.to_string().contains(text),
            "{length:02x?}: {rejection}"
        );
    }
    // 65535 is the largest that can be said; the message cannot hold as many.
    let rejection = data_of(&[0xff, 0xff, 0x03], 0).unwrap_err();
    assert!(
        rejection.to_string().contains("ends too early"),
        "{rejection}"
    );
}

/// Payer and key sign; the key transfers 5000 lamports to Carol through the system program.
struct Builder {
    version: Option<u8>,
    header: [u8; 3],
    keys: Vec<[u8; 32]>,
    blockhash: [u8; 32],
    instructions: Vec<(u8, Vec<u8>, Vec<u8>)>,
    lookups: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>,
    trailing: Vec<u8>,
}

impl Builder {
    fn legacy() -> Self {
        let transfer = [&[2, 0, 0, 0][..], &5000_u64.to_le_bytes()].concat();
        Self {
            version: None,
            header: [2, 0, 1],
            keys: vec![PAYER, KEY, CAROL, SYSTEM],
            blockhash: BLOCKHASH,
            instructions: vec![(3, vec![1, 2], transfer)],
            lookups: vec![],
            trailing: vec![],
        }
    }

    fn v0() -> Self {
        Self {
            version: Some(0x80),
            ..Self::legacy()
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.version.into_iter().chain(self.header).collect();
        push_length(&mut bytes, self.keys.len());
        bytes.extend(self.keys.concat());
        bytes.extend(self.blockhash);
        push_length(&mut bytes, self.instructions.len());
        for (program, accounts, data) in &self.instructions {
            bytes.push(*program);
            push_list(&mut bytes, accounts);
            push_list(&mut bytes, data);
        }
        if self.version.is_some() {
            push_length(&mut bytes, self.lookups.len());
            for (table, writable, readonly) in &self.lookups {
                bytes.extend(table);
                push_list(&mut bytes, writable);
                push_list(&mut bytes, readonly);
            }
        }
        bytes.extend(&self.trailing);
        bytes
    }
}

fn push_list(bytes: &mut Vec<u8>, list: &[u8]) {
    push_length(bytes, list.len());
    bytes.extend(list);
}

fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        bytes.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    bytes.push(length as u8);
}

fn decode_own(bytes: &[u8]) -> Result<Intent, Rejection> {
    decode_for(bytes, KEY)
}

fn decode_for(bytes: &[u8], public_key: [u8; 32]) -> Result<Intent, Rejection> {
    let key = KeyFacts {
        public_key: PublicKey::Ed25519(public_key),
        allow_raw_digest: false,
    };
    decode(&Payload::SolanaMessage(bytes.to_vec()), &key, &[])
}

fn message(intent: &Intent) -> &SolanaMessage {
    match intent.action() {
        Action::Solana(message) => message,
        other => panic!("not a Solana message: {other:?}"),
    }
}

fn instruction(value: &Value) -> SolanaInstruction {
    if let Some(lamports) = value["lamports"].as_str() {
        let lamports = lamports.parse().unwrap();
        return SolanaInstruction::Transfer {
            from: bytes32(&value["from"]),
            to: bytes32(&value["to"]),
            lamports,
        };
    }
    let account = |value: &Value| SolanaAccount {
        address: bytes32(&value["address"]),
        lookup: value["lookup"].as_u64().map(|index| index as u8),
        signer: value["signer"].as_bool().unwrap(),
        writable: value["writable"].as_bool().unwrap(),
    };
    SolanaInstruction::Unknown {
        program: bytes32(&value["program"]),
        accounts: value["accounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(account)
            .collect(),
        data: hex::decode(value["data"].as_str().unwrap()).unwrap(),
    }
}

fn bytes32(value: &Value) -> [u8; 32] {
    hex::decode(value.as_str().unwrap())
        .unwrap()
        .try_into()
        .unwrap()
}
