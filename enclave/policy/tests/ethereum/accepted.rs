//! What is decoded, and into what.

use arca_policy::{
    EthereumKind, KeyFacts, Payload, PublicKey, SigningKey, decode, derive, ethereum_address,
    ethereum_checksum,
};
use bitcoin::secp256k1::{self, Message, Secp256k1, SecretKey, ecdsa};
use serde_json::{Value, json};

use super::{Item, Unsigned, bytes, group, largest_less, number, transaction, unhex, vectors};

#[test]
fn eip_155_example() {
    // EIP-155, "Example": the key, what is hashed, the hash, and the signature.
    let secret: SecretKey = "46".repeat(32).parse().unwrap();
    let key = secret.public_key(&Secp256k1::new()).serialize();
    let payload = "ec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080";
    let facts = KeyFacts {
        public_key: PublicKey::EcdsaSecp256k1 {
            key,
            chain_code: [0; 32],
        },
        allow_raw_digest: false,
    };
    let payload = Payload::EthereumTransaction(hex::decode(payload).unwrap());
    let intent = decode(&payload, &facts, &[]).unwrap();

    let [signable] = intent.signables() else {
        panic!("one signature")
    };
    let hash = "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53";
    assert_eq!(hex::encode(&signable.message), hash);
    let expected = SigningKey::Derived {
        path: Vec::new(),
        public_key: key,
    };
    assert_eq!((&signable.key, signable.input), (&expected, 0));
    let signature = concat!(
        "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276",
        "67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
    );
    verify(&signable.message, &hex::decode(signature).unwrap(), &key);
    assert_eq!(
        intent.summary(),
        "Ethereum transfer on chain 1 (legacy)\n\
         \x20 sends 1000000000000000000 wei to 0x3535353535353535353535353535353535353535\n\
         \x20 from 0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F (this key), nonce 9\n\
         \x20 fee at most 420000000000000 wei"
    );
}

#[test]
fn eip_55_checksums() {
    // EIP-55, "Test Cases".
    for text in [
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x27b1fdb04752bbc536007a920d24acb045561c26",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ] {
        let address = hex::decode(&text[2..]).unwrap().try_into().unwrap();
        assert_eq!(ethereum_checksum(&address), text);
    }
}

#[test]
fn addresses_need_a_point() {
    // x = 5 is on no point of secp256k1.
    let mut no_point = [0; 33];
    (no_point[0], no_point[32]) = (2, 5);
    assert_eq!(
        ethereum_address(&no_point).unwrap_err().reason(),
        "INVALID_KEY"
    );
}

#[test]
fn agrees_with_another_library() {
    for vector in list(&vectors()["transactions"]) {
        let name = &vector["name"];
        let payload = unhex(&vector["payload"]);
        let path: Vec<u32> = serde_json::from_value(vector["path"].clone()).unwrap();
        let intent = decode(
            &Payload::EthereumTransaction(payload.clone()),
            &group(),
            &path,
        )
        .unwrap_or_else(|rejection| panic!("{name}: {rejection}"));

        let [signable] = intent.signables() else {
            panic!("one signature")
        };
        let public_key: [u8; 33] = unhex(&vector["public_key"]).try_into().unwrap();
        assert_eq!(signable.message, unhex(&vector["hash"]), "{name}");
        assert_eq!(
            signable.key,
            SigningKey::Derived { path, public_key },
            "{name}"
        );
        verify(&signable.message, &unhex(&vector["signature"]), &public_key);

        let transaction = transaction(&intent);
        assert_eq!(&shown(transaction), &without_signing(vector), "{name}");
        assert_eq!(transaction.unsigned_bytes(), payload, "{name}");
    }
}

#[test]
fn summaries_tell_everything() {
    let to = ethereum_checksum(&[0xaa; 20]);
    let from = {
        let PublicKey::EcdsaSecp256k1 { key, .. } = group().public_key else {
            unreachable!()
        };
        ethereum_checksum(&ethereum_address(&key).unwrap())
    };
    // Keccak-256 of 01 02 03 04 05 and of 01, computed elsewhere (ethers 6.17).
    let hash = "7d87c5ea75f7378bb701e404c50639161af3eff66293e9f375b5f17eb50476f4";
    let hash_of_one = "5fe7f977e71dba2ea1a68e21057beebb9be2ac30c6410aa38d4f3fbe41dcffd2";
    let mut blob = [0xdd; 32];
    blob[0] = 1;
    let blob = hex::encode(blob);
    let end = format!("  from {from} (this key), nonce 7\n  fee at most 550000 wei");
    let access = "  declares access to 1 address(es) and 1 storage key(s)\n";
    let cases = [
        (
            Unsigned::new(0).with("data", bytes(&[])),
            format!("Ethereum transfer on chain 5 (legacy)\n  sends 1000 wei to {to}\n{end}"),
        ),
        (
            Unsigned::new(1),
            format!(
                "Ethereum call on chain 5 (EIP-2930)\n  calls 0x01020304 on {to} with 5 bytes (keccak256 0x{hash})\n  \
                 sends 1000 wei along\n{access}{end}"
            ),
        ),
        (
            Unsigned::new(2).with("data", bytes(&[1])),
            format!(
                "Ethereum call on chain 5 (EIP-1559)\n  calls {to} with 1 bytes (keccak256 0x{hash_of_one}), no \
                 function\n  sends 1000 wei along\n{access}{end}"
            ),
        ),
        (
            Unsigned::new(2).with("to", bytes(&[])),
            format!(
                "Ethereum contract creation on chain 5 (EIP-1559)\n  makes a contract of 5 bytes (keccak256 0x{hash})\n  \
                 sends 1000 wei to it\n{access}{end}"
            ),
        ),
        (
            Unsigned::new(3),
            format!(
                "Ethereum call on chain 5 (EIP-4844)\n  calls 0x01020304 on {to} with 5 bytes (keccak256 0x{hash})\n  \
                 sends 1000 wei along\n{access}  carries the blob 0x{blob}\n  from {from} (this key), nonce 7\n  fee at \
                 most {} wei",
                50_000 * 11 + 131_072 * 13
            ),
        ),
    ];
    for (unsigned, expected) in cases {
        assert_eq!(unsigned.decode().unwrap().summary(), expected);
    }
}

#[test]
fn digest_tells_intents_apart() {
    let mut digests = Vec::new();
    for kind in 0..4 {
        let base = Unsigned::new(kind);
        let mut variants = vec![base.clone()];
        let mut change = |field: &str, item: Item| variants.push(base.clone().with(field, item));
        for field in ["chain_id", "nonce", "gas_limit", "value"] {
            change(field, number(50_001));
        }
        change("to", bytes(&[0xab; 20]));
        change("data", bytes(&[1, 2, 3, 4, 6]));
        change("data", bytes(&[]));
        match kind {
            0 | 1 => change("gas_price", number(12)),
            _ => {
                change("max_priority_fee_per_gas", number(4));
                change("max_fee_per_gas", number(12));
            }
        }
        if kind != 3 {
            change("to", bytes(&[]));
        }
        if kind > 0 {
            let (a, b, k, l) = (
                bytes(&[0xbb; 20]),
                bytes(&[0xbc; 20]),
                bytes(&[0xcc; 32]),
                bytes(&[0xce; 32]),
            );
            let lists: [&[(&Item, &[&Item])]; 7] = [
                &[],
                &[(&b, &[&k])],
                &[(&a, &[&l])],
                &[(&a, &[])],
                &[(&a, &[&k, &l])],
                &[(&a, &[&k]), (&b, &[])],
                &[(&a, &[]), (&b, &[&k])],
            ];
            for list in lists {
                let entry = |(address, keys): &(&Item, &[&Item])| {
                    let keys = keys.iter().map(|key| (*key).clone()).collect();
                    Item::List(vec![(*address).clone(), Item::List(keys)])
                };
                change("access_list", Item::List(list.iter().map(entry).collect()));
            }
        }
        if kind == 3 {
            let hash = |byte: u8| bytes(&[&[1], &[byte; 31][..]].concat());
            change("max_fee_per_blob_gas", number(14));
            change("blob_versioned_hashes", Item::List(vec![hash(0xde)]));
            change(
                "blob_versioned_hashes",
                Item::List(vec![hash(0xdd), hash(0xde)]),
            );
            change(
                "blob_versioned_hashes",
                Item::List(vec![hash(0xde), hash(0xdd)]),
            );
        }
        digests.extend(
            variants
                .iter()
                .map(|variant| variant.decode().unwrap().digest()),
        );
    }

    // And the key: its chain code, and the path below it.
    let payload = Payload::EthereumTransaction(Unsigned::new(2).encode());
    let PublicKey::EcdsaSecp256k1 { key, .. } = group().public_key else {
        unreachable!()
    };
    let other_chain_code = KeyFacts {
        public_key: PublicKey::EcdsaSecp256k1 {
            key,
            chain_code: [9; 32],
        },
        ..group()
    };
    digests.push(decode(&payload, &other_chain_code, &[]).unwrap().digest());
    for path in [&[0][..], &[1], &[0, 0]] {
        digests.push(decode(&payload, &group(), path).unwrap().digest());
    }

    let count = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn digest_covers_every_field() {
    // The hash that is signed stands in the intent's digest, and would hide a field that is missing there. So each
    // encoding is written out: numbers and lengths are 8 bytes big-endian, amounts are 32.
    use sha2::{Digest, Sha256};

    fn counted(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u64).to_be_bytes(), bytes].concat()
    }
    fn amount(number: u64) -> Vec<u8> {
        counted(&[&[0; 24][..], &number.to_be_bytes()].concat())
    }
    let count = |number: u64| number.to_be_bytes().to_vec();
    let PublicKey::EcdsaSecp256k1 { key, chain_code } = group().public_key else {
        unreachable!()
    };
    let blob = [&[1], &[0xdd; 31][..]].concat();
    for kind in 0..4_u8 {
        let payload = Payload::EthereumTransaction(Unsigned::new(kind).encode());
        let path: &[u32] = if kind == 2 { &[0, 5] } else { &[] };
        let child = derive(&group().public_key, path).unwrap();
        let intent = decode(&payload, &group(), path).unwrap();
        let fees = match kind {
            0 | 1 => amount(11),
            2 => [amount(3), amount(11)].concat(),
            _ => [amount(3), amount(11), amount(13), count(1), counted(&blob)].concat(),
        };
        let access_list = match kind {
            0 => count(0),
            _ => [
                count(1),
                counted(&[0xbb; 20]),
                count(1),
                counted(&[0xcc; 32]),
            ]
            .concat(),
        };
        let blob_fee = if kind == 3 { 131_072 * 13 } else { 0 };
        let encoding = [
            // The key.
            counted(b"arca/v1/intent"),
            counted(b"ecdsa-secp256k1"),
            counted(&key),
            counted(&chain_code),
            // What the transaction does.
            counted(b"ethereum"),
            vec![kind],
            fees,
            count(5),
            count(7),
            count(50_000),
            count(1),
            counted(&[0xaa; 20]),
            amount(1_000),
            counted(&[1, 2, 3, 4, 5]),
            access_list,
            counted(&ethereum_address(&child).unwrap()),
            amount(50_000 * 11 + blob_fee),
            // One signature, of a derived key with its path, for input 0.
            count(1),
            counted(&intent.signables()[0].message),
            vec![2],
            count(path.len() as u64),
            path.iter().flat_map(|step| count((*step).into())).collect(),
            counted(&child),
            count(0),
        ];
        let expected: [u8; 32] = Sha256::digest(encoding.concat()).into();
        assert_eq!(intent.digest(), expected, "type {kind}");
    }
}

#[test]
fn the_edges_are_inside() {
    let unsigned = |kind| Unsigned::new(kind);
    let cases = [
        unsigned(2).with("gas_limit", number(21_000)),
        unsigned(2).with("nonce", number(u64::MAX - 1)),
        unsigned(2).with("chain_id", number(u64::MAX / 2 - 36)),
        unsigned(2).with("max_priority_fee_per_gas", number(11)),
        // Value and fee are 2^256 - 1 together.
        unsigned(0)
            .with("gas_price", number(0))
            .with("value", largest_less(0)),
        unsigned(0)
            .with("gas_limit", number(21_000))
            .with("gas_price", number(1))
            .with("value", {
                let mut bytes = vec![0xff; 32];
                bytes[30..].copy_from_slice(&(u16::MAX - 21_000).to_be_bytes());
                Item::Bytes(bytes)
            }),
    ];
    for case in cases {
        case.decode().unwrap();
    }
}

/// libsecp256k1 is not what made these signatures.
fn verify(digest: &[u8], signature: &[u8], public_key: &[u8; 33]) {
    let message = Message::from_digest(digest.try_into().unwrap());
    let signature = ecdsa::Signature::from_compact(signature).unwrap();
    let public_key = secp256k1::PublicKey::from_slice(public_key).unwrap();
    Secp256k1::verification_only()
        .verify_ecdsa(&message, &signature, &public_key)
        .unwrap();
}

/// What was decoded, in the form of the vectors.
fn shown(transaction: &arca_policy::EthereumTransaction) -> Value {
    let mut shown = json!({
        "from": ethereum_checksum(&transaction.from),
        "chain_id": transaction.chain_id.to_string(),
        "nonce": transaction.nonce.to_string(),
        "gas_limit": transaction.gas_limit.to_string(),
        "gas_price": null,
        "max_priority_fee_per_gas": null,
        "max_fee_per_gas": null,
        "max_fee_per_blob_gas": null,
        "to": transaction.to.as_ref().map(ethereum_checksum),
        "value": transaction.value.to_string(),
        "data": hex::encode(&transaction.data),
        "access_list": transaction.access_list.iter().map(|access| json!({
            "address": ethereum_checksum(&access.address),
            "storageKeys": access.storage_keys.iter().map(prefixed).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "blob_hashes": [],
    });
    let mut set = |field: &str, value: Value| shown[field] = value;
    match &transaction.kind {
        EthereumKind::Legacy { gas_price } => {
            set("type", json!(0));
            set("gas_price", json!(gas_price.to_string()));
        }
        EthereumKind::AccessList { gas_price } => {
            set("type", json!(1));
            set("gas_price", json!(gas_price.to_string()));
        }
        EthereumKind::DynamicFee {
            max_priority_fee_per_gas,
            max_fee_per_gas,
        } => {
            set("type", json!(2));
            set(
                "max_priority_fee_per_gas",
                json!(max_priority_fee_per_gas.to_string()),
            );
            set("max_fee_per_gas", json!(max_fee_per_gas.to_string()));
        }
        EthereumKind::Blob {
            max_priority_fee_per_gas,
            max_fee_per_gas,
            max_fee_per_blob_gas,
            blob_hashes,
        } => {
            set("type", json!(3));
            set(
                "max_priority_fee_per_gas",
                json!(max_priority_fee_per_gas.to_string()),
            );
            set("max_fee_per_gas", json!(max_fee_per_gas.to_string()));
            set(
                "max_fee_per_blob_gas",
                json!(max_fee_per_blob_gas.to_string()),
            );
            set("blob_hashes", blob_hashes.iter().map(prefixed).collect());
        }
        other => panic!("{other:?}"),
    }
    shown
}

fn without_signing(vector: &Value) -> Value {
    let mut fields = vector.clone();
    for field in ["name", "path", "public_key", "payload", "hash", "signature"] {
        fields.as_object_mut().unwrap().remove(field);
    }
    fields
}

fn prefixed(word: &[u8; 32]) -> String {
    format!("0x{}", hex::encode(word))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}
