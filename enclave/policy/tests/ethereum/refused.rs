//! What is refused, and why.

use arca_policy::{
    MAX_ACCESS_LIST_ADDRESSES, MAX_ACCESS_LIST_KEYS, MAX_BLOBS, MAX_ETHEREUM_BYTES, Rejection,
};

use super::{Item, Unsigned, bytes, decode_own, largest_less, number};

#[test]
fn a_legacy_transaction_that_every_chain_would_take() {
    let mut unsigned = Unsigned::new(0);
    unsigned.fields.truncate(6);
    assert_eq!(unsigned.decode().unwrap_err(), Rejection::NoChainId);
}

#[test]
fn transactions_that_are_signed() {
    let with = |kind, field, item| Unsigned::new(kind).with(field, item).encode();
    let mut three_more = Unsigned::new(2);
    three_more.fields.extend([number(1), number(5), number(6)]);
    check(
        "PAYLOAD_MALFORMED",
        [
            (with(0, "r", number(1)), "ethereum_transaction.r: is not 0"),
            (with(0, "s", number(1)), "ethereum_transaction.s: is not 0"),
            (three_more.encode(), "is it signed already?"),
        ],
    );
}

#[test]
fn types_that_are_not_understood() {
    let fields = &Unsigned::new(2).encode()[1..];
    for actual in [0, 4, 5, 0x19, 0x7f] {
        let rejection = decode_own(&[&[actual], fields].concat()).unwrap_err();
        assert_eq!(rejection, Rejection::TransactionType { actual });
        assert_eq!(rejection.reason(), "ETHEREUM_TRANSACTION_TYPE");
    }
    check(
        "PAYLOAD_MALFORMED",
        [
            (Vec::new(), "is empty"),
            (vec![0x80], "neither a list nor of a known type"),
            (vec![0xbf], "neither a list nor of a known type"),
        ],
    );
}

#[test]
fn values_that_make_no_sense() {
    let with = |kind, field, item| Unsigned::new(kind).with(field, item).encode();
    let mut cases = Vec::new();
    for kind in 0..4 {
        cases.extend([
            (
                with(kind, "chain_id", number(0)),
                "chain_id: is not between",
            ),
            (
                with(kind, "chain_id", number(u64::MAX / 2 - 35)),
                "chain_id: is not between",
            ),
            (with(kind, "nonce", number(u64::MAX)), "nonce: is 2^64 - 1"),
            (
                with(kind, "gas_limit", number(20_999)),
                "gas_limit: is less than",
            ),
            (with(kind, "value", largest_less(0)), "2^256 wei or more"),
        ]);
        let price = match kind {
            0 | 1 => "gas_price",
            _ => "max_fee_per_gas",
        };
        // The product alone, without any value.
        cases.push((
            Unsigned::new(kind)
                .with("value", number(0))
                .with(price, largest_less(0))
                .encode(),
            "2^256 wei or more",
        ));
    }
    for kind in 0..3 {
        let unsigned = Unsigned::new(kind)
            .with("to", bytes(&[]))
            .with("data", bytes(&[]));
        cases.push((unsigned.encode(), "to: is empty, and there is no code"));
    }
    for kind in 2..4 {
        cases.push((
            with(kind, "max_priority_fee_per_gas", number(12)),
            "max_priority_fee_per_gas: exceeds max_fee_per_gas",
        ));
    }
    // 21000 wei more than what is left.
    let edge = Unsigned::new(0)
        .with("gas_limit", number(21_000))
        .with("gas_price", number(1))
        .with("value", {
            let mut bytes = vec![0xff; 32];
            bytes[30..].copy_from_slice(&(u16::MAX - 20_999).to_be_bytes());
            Item::Bytes(bytes)
        });
    cases.push((edge.encode(), "2^256 wei or more"));
    check("FIELD_REFUSED", cases);
}

#[test]
fn blobs() {
    let with = |field, item| Unsigned::new(3).with(field, item).encode();
    let hashes = |hashes: Vec<Item>| with("blob_versioned_hashes", Item::List(hashes));
    let hash = |version: u8| bytes(&[&[version], &[7; 31][..]].concat());
    check(
        "FIELD_REFUSED",
        [
            (hashes(vec![]), "blob_versioned_hashes: has none"),
            (
                hashes(vec![hash(1), hash(2)]),
                "blob_versioned_hashes[1]: is not of version 1",
            ),
            (
                hashes(vec![hash(0)]),
                "blob_versioned_hashes[0]: is not of version 1",
            ),
            (with("to", bytes(&[])), "to: is empty, and blobs"),
            // The blobs' fee counts.
            (
                with("max_fee_per_blob_gas", largest_less(0)),
                "2^256 wei or more",
            ),
        ],
    );
    decode_own(&hashes(vec![hash(1); MAX_BLOBS])).unwrap();
    check(
        "PAYLOAD_TOO_LARGE",
        [(
            hashes(vec![hash(1); MAX_BLOBS + 1]),
            "blob_versioned_hashes: 17",
        )],
    );
    check(
        "PAYLOAD_MALFORMED",
        [
            (
                hashes(vec![bytes(&[1; 31])]),
                "blob_versioned_hashes[0]: is not of the length",
            ),
            (
                with("blob_versioned_hashes", bytes(&[])),
                "blob_versioned_hashes: is no list",
            ),
        ],
    );
}

#[test]
fn what_exceeds_the_bounds() {
    let entry = |byte: u8, keys: usize| {
        let keys = Item::List(vec![bytes(&[7; 32]); keys]);
        Item::List(vec![bytes(&[byte; 20]), keys])
    };
    let with = |entries| {
        Unsigned::new(1)
            .with("access_list", Item::List(entries))
            .encode()
    };
    let half = MAX_ACCESS_LIST_KEYS / 2;
    decode_own(&with(vec![entry(1, half), entry(2, half)])).unwrap();
    decode_own(&with(vec![entry(1, 0); MAX_ACCESS_LIST_ADDRESSES])).unwrap();
    let data = |count| {
        Unsigned::new(2)
            .with("data", bytes(&vec![1; count]))
            .encode()
    };
    let around = data(100_000).len() - 100_000;
    assert_eq!(data(MAX_ETHEREUM_BYTES - around).len(), MAX_ETHEREUM_BYTES);
    decode_own(&data(MAX_ETHEREUM_BYTES - around)).unwrap();
    check(
        "PAYLOAD_TOO_LARGE",
        [
            (
                with(vec![entry(1, half), entry(2, half + 1)]),
                "access_list storage keys: 2049",
            ),
            (
                with(vec![entry(1, 0); MAX_ACCESS_LIST_ADDRESSES + 1]),
                "access_list: 257",
            ),
            (
                data(MAX_ETHEREUM_BYTES - around + 1),
                "ethereum_transaction: 131073",
            ),
        ],
    );
}

#[test]
fn encodings_that_are_not_the_only_one() {
    let raw = |kind, field, raw: &[u8]| {
        let item = Item::Raw(raw.to_vec());
        Unsigned::new(kind).with(field, item).encode()
    };
    let good = Unsigned::new(2).encode();
    let list = Item::List(Unsigned::new(2).fields).encode();
    // A list of more than 55 bytes, whose length is one byte behind the first.
    assert_eq!((list[0], good[1]), (0xf8, 0xf8));
    let padded_length = [&[2, 0xf9, 0], &list[1..]].concat();
    let mut cases = vec![
        (padded_length, "shortest encoding"),
        ([&good[..], &[0]].concat(), "bytes follow the transaction"),
        (good[..good.len() - 1].to_vec(), "ends too early"),
        (vec![2], "ends too early"),
        (vec![2, 0x80], "is no list"),
        (
            raw(2, "data", &[0xb8, 1, 0xff]),
            "data: is not in its shortest encoding",
        ),
        (
            raw(2, "data", &[0x81, 0x7f]),
            "data: is not in its shortest encoding",
        ),
        (
            raw(2, "to", &[0xb8, 0]),
            "to: is not in its shortest encoding",
        ),
        (raw(2, "data", &[0xc0]), "data: is a list"),
        (raw(2, "access_list", &[0x80]), "access_list: is no list"),
        (
            raw(2, "access_list", &[0xc1, 0x80]),
            "access_list[0]: is no list",
        ),
        (
            raw(1, "access_list", &[0xc2, 0xc1, 0x80]),
            "access_list[0].address: is not of the length",
        ),
        (raw(2, "data", &[0xb9, 0xff, 0xff]), "data: ends too early"),
        (
            raw(2, "value", &[&[0xa1, 1], &[0; 32][..]].concat()),
            "value: is 2^256 or more",
        ),
    ];
    for kind in 0..4 {
        let field = |field: &str| format!("ethereum_transaction.{field}");
        for number in ["chain_id", "nonce", "gas_limit", "value"] {
            cases.push((raw(kind, number, &[0]), "has leading zeros"));
            cases.push((raw(kind, number, &[0x82, 0, 1]), "has leading zeros"));
            let message = decode_own(&raw(kind, number, &[0]))
                .unwrap_err()
                .to_string();
            assert!(message.starts_with(&field(number)), "{message}");
        }
        for number in ["chain_id", "nonce", "gas_limit"] {
            let wide = [&[0x89, 1], &[0; 8][..]].concat();
            cases.push((raw(kind, number, &wide), "is 2^64 or more"));
        }
        for length in [1, 19, 21] {
            let short = Unsigned::new(kind).with("to", bytes(&vec![0xaa; length]));
            cases.push((short.encode(), "to: is neither empty nor an address"));
        }
    }
    for number in ["r", "s", "gas_price"] {
        cases.push((raw(0, number, &[0]), "has leading zeros"));
    }
    for number in [
        "max_priority_fee_per_gas",
        "max_fee_per_gas",
        "max_fee_per_blob_gas",
    ] {
        cases.push((raw(3, number, &[0]), "has leading zeros"));
    }
    check("PAYLOAD_MALFORMED", cases);
}

#[test]
fn fields_that_are_missing_or_too_many() {
    for kind in 0..4 {
        let whole = Unsigned::new(kind);
        for count in 0..whole.fields.len() {
            let mut fewer = whole.clone();
            fewer.fields.truncate(count);
            match (kind, count) {
                (0, 6) => assert_eq!(fewer.decode().unwrap_err(), Rejection::NoChainId),
                _ => check("PAYLOAD_MALFORMED", [(fewer.encode(), "is missing")]),
            }
        }
        let mut more = whole.clone();
        more.fields.push(number(0));
        check("PAYLOAD_MALFORMED", [(more.encode(), "has more fields")]);
    }
    let entry = Item::List(vec![bytes(&[1; 20]), Item::List(vec![]), number(0)]);
    let list = Unsigned::new(2).with("access_list", Item::List(vec![entry]));
    check(
        "PAYLOAD_MALFORMED",
        [(list.encode(), "access_list[0]: has more fields")],
    );
}

fn check(reason: &str, cases: impl IntoIterator<Item = (Vec<u8>, &'static str)>) {
    for (payload, text) in cases {
        let rejection = decode_own(&payload).expect_err(&format!(
            "{text}: {}",
            hex::encode(&payload[..payload.len().min(200)])
        ));
        assert_eq!(rejection.reason(), reason, "{text}: {rejection}");
        let message = rejection.to_string();
        assert!(message.starts_with("ethereum_transaction"), "{message}");
        assert!(message.contains(text), "{text}: {message}");
    }
}
