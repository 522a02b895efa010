//! What holds of any bytes.

use arca_policy::{Intent, Payload, decode};
use proptest::prelude::*;
use serde_json::Value;

use super::{Item, Unsigned, decode_own, group, transaction, unhex, vectors};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_transaction_or_refused(kind in 0..5_u8, bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let list = Item::Bytes(bytes.clone()).encode();
        let as_list = [&[list[0].wrapping_add(0x40)], list.get(1..).unwrap_or_default()].concat();
        for payload in [bytes.clone(), [&[kind], &bytes[..]].concat(), [&[kind], &as_list[..]].concat()] {
            check(&payload, decode_own(&payload).ok().as_ref())?;
        }
    }

    #[test]
    fn mutated_transactions_are_decoded_or_refused(
        vector in any::<prop::sample::Index>(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..4),
    ) {
        let mut payload = payload(vector);
        for (position, kind, byte) in mutations {
            let position = position.index(payload.len());
            match kind {
                0 => payload[position] = byte,
                1 => payload.insert(position, byte),
                _ => drop(payload.remove(position)),
            }
        }
        check(&payload, decode_own(&payload).ok().as_ref())?;
    }

    /// No two payloads are one intent, and none is signed under another's hash.
    #[test]
    fn every_bit_counts(vector in any::<prop::sample::Index>(), position in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let payload = payload(vector);
        let original = decode_own(&payload).unwrap();
        let mut mutated = payload;
        let position = position.index(mutated.len());
        mutated[position] ^= 1 << bit;
        if let Ok(intent) = decode_own(&mutated) {
            prop_assert_ne!(intent.digest(), original.digest());
            prop_assert_ne!(intent.action(), original.action());
            prop_assert_ne!(&intent.signables()[0].message, &original.signables()[0].message);
        }
    }

    /// Any fields, in any order of magnitude.
    #[test]
    fn fields_come_out_as_they_went_in(
        kind in 0..4_u8,
        (chain_id, nonce, gas_limit) in (1..u64::MAX / 2 - 36, 0..u64::MAX, 21_000..u64::MAX),
        (shift, value, data) in (0..64_u32, any::<[u8; 31]>(), prop::collection::vec(any::<u8>(), 1..300)),
    ) {
        let shifted = |number: u64, least: u64| (number >> shift).max(least);
        let unsigned = Unsigned::new(kind)
            .with("chain_id", super::number(shifted(chain_id, 1)))
            .with("nonce", super::number(shifted(nonce, 0)))
            .with("gas_limit", super::number(shifted(gas_limit, 21_000)))
            .with("value", Item::Bytes(value.iter().copied().skip_while(|byte| *byte == 0).collect()))
            .with("data", Item::Bytes(data.clone()));
        let payload = unsigned.encode();
        let intent = unsigned.decode().unwrap();
        check(&payload, Some(&intent))?;
        let transaction = transaction(&intent);
        prop_assert_eq!(transaction.chain_id, shifted(chain_id, 1));
        prop_assert_eq!(transaction.nonce, shifted(nonce, 0));
        prop_assert_eq!(transaction.gas_limit, shifted(gas_limit, 21_000));
        prop_assert_eq!(transaction.value.to_be_bytes()[1..].to_vec(), value.to_vec());
        prop_assert_eq!(&transaction.data, &data);
    }
}

/// What is accepted is exactly what the payload says, and nothing of it is lost.
fn check(payload: &[u8], intent: Option<&Intent>) -> Result<(), TestCaseError> {
    let Some(intent) = intent else { return Ok(()) };
    prop_assert_eq!(&transaction(intent).unsigned_bytes()[..], payload);
    prop_assert_eq!(intent.signables().len(), 1);
    prop_assert!(
        intent
            .summary()
            .bytes()
            .all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte))
    );
    let again = decode(
        &Payload::EthereumTransaction(payload.to_vec()),
        &group(),
        &[],
    );
    prop_assert_eq!(again.as_ref(), Ok(intent));
    Ok(())
}

fn payload(index: prop::sample::Index) -> Vec<u8> {
    let vectors = vectors();
    let transactions: &Vec<Value> = vectors["transactions"].as_array().unwrap();
    unhex(&index.get(transactions)["payload"])
}
