//! Ethereum transactions: published vectors, transactions made by a library that is not ours, and every refusal.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod accepted;
mod any;
mod refused;

use std::sync::LazyLock;

use arca_policy::{
    Action, EthereumTransaction, Intent, KeyFacts, Payload, PublicKey, Rejection, decode,
};
use serde_json::Value;

/// One RLP item, written without the code under test.
#[derive(Debug, Clone)]
enum Item {
    Bytes(Vec<u8>),
    List(Vec<Item>),
    /// Whatever stands here in place of an item.
    Raw(Vec<u8>),
}

impl Item {
    fn encode(&self) -> Vec<u8> {
        let (short, long, payload) = match self {
            Item::Raw(raw) => return raw.clone(),
            Item::Bytes(bytes) if bytes.len() == 1 && bytes[0] < 0x80 => return bytes.clone(),
            Item::Bytes(bytes) => (0x80, 0xb7, bytes.clone()),
            Item::List(items) => (0xc0, 0xf7, items.iter().flat_map(Item::encode).collect()),
        };
        let byte = |number: usize| u8::try_from(number).unwrap();
        let header = match payload.len() {
            length @ ..56 => vec![short + byte(length)],
            length => {
                let length = trimmed(length as u64);
                [&[long + byte(length.len())], &length[..]].concat()
            }
        };
        [header, payload].concat()
    }
}

fn trimmed(number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes().into_iter();
    bytes.skip_while(|byte| *byte == 0).collect()
}

fn number(number: u64) -> Item {
    Item::Bytes(trimmed(number))
}

fn bytes(bytes: &[u8]) -> Item {
    Item::Bytes(bytes.to_vec())
}

/// A number of 256 bits, all of them set but for the lowest ones that are given.
fn largest_less(less: u8) -> Item {
    let mut bytes = vec![0xff; 32];
    bytes[31] -= less;
    Item::Bytes(bytes)
}

/// An unsigned transaction of which each field is something else than in the others.
#[derive(Debug, Clone)]
struct Unsigned {
    kind: u8,
    fields: Vec<Item>,
}

impl Unsigned {
    /// Places of the fields that all types have, in `kind`'s order.
    fn place(&self, field: &str) -> usize {
        let order: &[&str] = match self.kind {
            0 => &[
                "nonce",
                "gas_price",
                "gas_limit",
                "to",
                "value",
                "data",
                "chain_id",
                "r",
                "s",
            ],
            1 => &[
                "chain_id",
                "nonce",
                "gas_price",
                "gas_limit",
                "to",
                "value",
                "data",
                "access_list",
            ],
            _ => &[
                "chain_id",
                "nonce",
                "max_priority_fee_per_gas",
                "max_fee_per_gas",
                "gas_limit",
                "to",
                "value",
                "data",
                "access_list",
                "max_fee_per_blob_gas",
                "blob_versioned_hashes",
            ],
        };
        order.iter().position(|name| *name == field).unwrap()
    }

    fn new(kind: u8) -> Self {
        let fees = match kind {
            0 | 1 => vec![number(11)],
            _ => vec![number(3), number(11)],
        };
        let call = [
            number(50_000),
            bytes(&[0xaa; 20]),
            number(1_000),
            bytes(&[1, 2, 3, 4, 5]),
        ];
        let access = Item::List(vec![
            bytes(&[0xbb; 20]),
            Item::List(vec![bytes(&[0xcc; 32])]),
        ]);
        let mut fields = vec![number(7)];
        if kind > 0 {
            fields.insert(0, number(5));
        }
        fields.extend(fees);
        fields.extend(call);
        match kind {
            0 => fields.extend([number(5), number(0), number(0)]),
            _ => fields.push(Item::List(vec![access])),
        }
        if kind == 3 {
            let mut hash = [0xdd; 32];
            hash[0] = 1;
            fields.extend([number(13), Item::List(vec![bytes(&hash)])]);
        }
        Self { kind, fields }
    }

    fn with(mut self, field: &str, item: Item) -> Self {
        let place = self.place(field);
        self.fields[place] = item;
        self
    }

    fn encode(&self) -> Vec<u8> {
        let list = Item::List(self.fields.clone()).encode();
        match self.kind {
            0 => list,
            kind => [&[kind], &list[..]].concat(),
        }
    }

    fn decode(&self) -> Result<Intent, Rejection> {
        decode_own(&self.encode())
    }
}

fn decode_own(payload: &[u8]) -> Result<Intent, Rejection> {
    decode(
        &Payload::EthereumTransaction(payload.to_vec()),
        &group(),
        &[],
    )
}

fn transaction(intent: &Intent) -> &EthereumTransaction {
    match intent.action() {
        Action::Ethereum(transaction) => transaction,
        other => panic!("not an Ethereum transaction: {other:?}"),
    }
}

/// The key that the vectors are made for.
fn group() -> KeyFacts {
    let vectors = vectors();
    let decoded = |field: &str| unhex(&vectors[field]);
    KeyFacts {
        public_key: PublicKey::EcdsaSecp256k1 {
            key: decoded("key").try_into().unwrap(),
            chain_code: decoded("chain_code").try_into().unwrap(),
        },
        allow_raw_digest: false,
    }
}

/// See vectors/ethereum.mjs.
fn vectors() -> &'static Value {
    static VECTORS: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("../vectors/ethereum.json")).unwrap());
    &VECTORS
}

fn unhex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap().trim_start_matches("0x")).unwrap()
}
