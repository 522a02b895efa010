//! A transaction as JSON, with the field names of `eth_signTransaction`.

use arca_policy::{EthereumAccess, EthereumKind, EthereumTransaction, U256, ethereum_checksum};
use serde::Deserialize;
use serde_json::Value;

use super::malformed;
use crate::error::{Error, Result};

/// Every field that is understood. What else a document holds is refused, so that nobody believes it signed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    r#type: Option<Value>,
    chain_id: Option<Value>,
    nonce: Option<Value>,
    from: Option<Value>,
    to: Option<Value>,
    value: Option<Value>,
    gas: Option<Value>,
    gas_limit: Option<Value>,
    gas_price: Option<Value>,
    max_fee_per_gas: Option<Value>,
    max_priority_fee_per_gas: Option<Value>,
    data: Option<Value>,
    input: Option<Value>,
    access_list: Option<Vec<Access>>,
    max_fee_per_blob_gas: Option<Value>,
    blob_versioned_hashes: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Access {
    address: Value,
    storage_keys: Vec<Value>,
}

/// Reads a transaction, and the sender that it may name.
pub(super) fn parse(text: &str) -> Result<(EthereumTransaction, Option<[u8; 20]>)> {
    let fields: Fields = serde_json::from_str(text).map_err(malformed)?;
    let kind = fields.kind()?;
    let from = fields.from.as_ref();
    let from = from.map(|from| address("from", from)).transpose()?;
    let gas_limit = either("gas", &fields.gas, "gasLimit", &fields.gas_limit, u64_of)?
        .ok_or_else(|| missing("gas"))?;
    let data = either("input", &fields.input, "data", &fields.data, data_of)?.unwrap_or_default();
    let access_list = fields
        .access_list
        .unwrap_or_default()
        .into_iter()
        .map(|access| {
            let keys = access.storage_keys.iter();
            Ok(EthereumAccess {
                address: address("accessList.address", &access.address)?,
                storage_keys: keys
                    .map(|key| hash("accessList.storageKeys", key))
                    .collect::<Result<_>>()?,
            })
        });
    Ok((
        EthereumTransaction {
            kind,
            chain_id: required("chainId", &fields.chain_id, u64_of)?,
            nonce: required("nonce", &fields.nonce, u64_of)?,
            gas_limit,
            to: fields.to.as_ref().map(|to| address("to", to)).transpose()?,
            value: fields
                .value
                .as_ref()
                .map_or(Ok(U256::ZERO), |value| quantity("value", value))?,
            data,
            access_list: access_list.collect::<Result<_>>()?,
            // Neither is part of what is signed.
            from: [0; 20],
            max_fee: U256::ZERO,
        },
        from,
    ))
}

impl Fields {
    /// The type that is named, or else the oldest one that has the fields that are there.
    fn kind(&self) -> Result<EthereumKind> {
        let number = match &self.r#type {
            Some(named) => u64_of("type", named)?,
            None if self.max_fee_per_blob_gas.is_some() || self.blob_versioned_hashes.is_some() => {
                3
            }
            None if self.max_fee_per_gas.is_some() || self.max_priority_fee_per_gas.is_some() => 2,
            None => u64::from(self.access_list.is_some()),
        };
        let name = match number {
            0 => "a legacy transaction",
            1 => "an EIP-2930 transaction (type 1)",
            2 => "an EIP-1559 transaction (type 2)",
            3 => "an EIP-4844 transaction (type 3)",
            _ => {
                return Err(malformed(format!(
                    "type: is {number}; 0, 1, 2 and 3 are signed"
                )));
            }
        };
        for (field, present, fits) in [
            ("gasPrice", self.gas_price.is_some(), number < 2),
            ("accessList", self.access_list.is_some(), number > 0),
            ("maxFeePerGas", self.max_fee_per_gas.is_some(), number > 1),
            (
                "maxPriorityFeePerGas",
                self.max_priority_fee_per_gas.is_some(),
                number > 1,
            ),
            (
                "maxFeePerBlobGas",
                self.max_fee_per_blob_gas.is_some(),
                number == 3,
            ),
            (
                "blobVersionedHashes",
                self.blob_versioned_hashes.is_some(),
                number == 3,
            ),
        ] {
            if present && !fits {
                return Err(malformed(format!(
                    "{field}: {name} has no such field; leave it out, or name another type"
                )));
            }
        }
        let gas_price = || required("gasPrice", &self.gas_price, quantity);
        let priority = || {
            required(
                "maxPriorityFeePerGas",
                &self.max_priority_fee_per_gas,
                quantity,
            )
        };
        let max_fee = || required("maxFeePerGas", &self.max_fee_per_gas, quantity);
        Ok(match number {
            0 => EthereumKind::Legacy {
                gas_price: gas_price()?,
            },
            1 => EthereumKind::AccessList {
                gas_price: gas_price()?,
            },
            2 => EthereumKind::DynamicFee {
                max_priority_fee_per_gas: priority()?,
                max_fee_per_gas: max_fee()?,
            },
            _ => EthereumKind::Blob {
                max_priority_fee_per_gas: priority()?,
                max_fee_per_gas: max_fee()?,
                max_fee_per_blob_gas: required(
                    "maxFeePerBlobGas",
                    &self.max_fee_per_blob_gas,
                    quantity,
                )?,
                blob_hashes: self
                    .blob_versioned_hashes
                    .as_ref()
                    .ok_or_else(|| missing("blobVersionedHashes"))?
                    .iter()
                    .map(|one| hash("blobVersionedHashes", one))
                    .collect::<Result<_>>()?,
            },
        })
    }
}

fn missing(field: &str) -> Error {
    malformed(format!("{field}: is missing"))
}

fn invalid(field: &str, problem: &str) -> Error {
    malformed(format!("{field}: {problem}"))
}

type Read<T> = fn(&str, &Value) -> Result<T>;

fn required<T>(field: &str, value: &Option<Value>, read: Read<T>) -> Result<T> {
    read(field, value.as_ref().ok_or_else(|| missing(field))?)
}

/// A field that has two names.
fn either<T: PartialEq>(
    field: &str,
    value: &Option<Value>,
    other_name: &str,
    other: &Option<Value>,
    read: Read<T>,
) -> Result<Option<T>> {
    let value = value.as_ref().map(|value| read(field, value)).transpose()?;
    let other = other
        .as_ref()
        .map(|value| read(other_name, value))
        .transpose()?;
    match (value, other) {
        (Some(value), Some(other)) if value != other => Err(invalid(
            field,
            &format!("is another than {other_name}, which means the same; leave one out"),
        )),
        (value, other) => Ok(value.or(other)),
    }
}

/// A number below 2^256: JSON's own, or a string of decimal digits or of 0x and hex digits.
fn quantity(field: &str, value: &Value) -> Result<U256> {
    let no_number = || {
        invalid(
            field,
            "is no number from 0 to 2^256 - 1, written in decimal or as 0x and hex digits",
        )
    };
    if let Some(number) = value.as_u64() {
        return Ok(U256::from(number));
    }
    let text = value.as_str().ok_or_else(no_number)?;
    let (digits, base) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    if digits.is_empty() {
        return Err(no_number());
    }
    let mut number = [0; 32];
    for digit in digits.chars() {
        let digit = digit.to_digit(base).ok_or_else(no_number)?;
        multiply_add(&mut number, base, digit).ok_or_else(no_number)?;
    }
    Ok(U256::from_be_bytes(number))
}

/// `number * base + digit`, big-endian; None when it does not fit.
fn multiply_add(number: &mut [u8; 32], base: u32, digit: u32) -> Option<()> {
    let mut carry = digit;
    for byte in number.iter_mut().rev() {
        let [high @ .., low] = (u32::from(*byte) * base + carry).to_be_bytes();
        *byte = low;
        carry = u32::from_be_bytes([0, high[0], high[1], high[2]]);
    }
    (carry == 0).then_some(())
}

fn u64_of(field: &str, value: &Value) -> Result<u64> {
    let number = quantity(field, value)?.to_be_bytes();
    match number.split_last_chunk() {
        Some((high, low)) if high.iter().all(|byte| *byte == 0) => Ok(u64::from_be_bytes(*low)),
        _ => Err(invalid(field, "is 2^64 or more")),
    }
}

fn data_of(field: &str, value: &Value) -> Result<Vec<u8>> {
    value
        .as_str()
        .and_then(|text| text.strip_prefix("0x"))
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or_else(|| invalid(field, "is not 0x and an even number of hex digits"))
}

fn hash(field: &str, value: &Value) -> Result<[u8; 32]> {
    data_of(field, value)?
        .try_into()
        .map_err(|_| invalid(field, "is not 0x and 64 hex digits"))
}

/// An address; one in mixed case has to have the checksum of EIP-55.
fn address(field: &str, value: &Value) -> Result<[u8; 20]> {
    let address: [u8; 20] = data_of(field, value)?
        .try_into()
        .map_err(|_| invalid(field, "is not 0x and 40 hex digits"))?;
    let text = value.as_str().unwrap_or_default();
    let digits = text.get(2..).unwrap_or_default();
    let mixed = digits.contains(|c: char| c.is_ascii_lowercase())
        && digits.contains(|c: char| c.is_ascii_uppercase());
    if mixed && text != ethereum_checksum(&address) {
        return Err(invalid(
            field,
            "its capital letters do not fit (EIP-55), so it is mistyped; copy it again",
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: &str = "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F";

    fn with(more: &str) -> Result<EthereumTransaction> {
        let text =
            format!(r#"{{"chainId": 1, "nonce": "0", "gas": "0x5208", "to": "{TO}", {more}}}"#);
        parse(&text).map(|(transaction, _)| transaction)
    }

    fn problem(more: &str) -> String {
        with(more).unwrap_err().to_string()
    }

    #[test]
    fn numbers_are_hex_or_decimal() {
        let price = |text: &str| with(&format!(r#""gasPrice": {text}"#));
        let EthereumKind::Legacy { gas_price } = price("\"20000000000\"").unwrap().kind else {
            panic!("gasPrice alone is legacy");
        };
        assert_eq!(gas_price, U256::from(20_000_000_000));
        for same in ["20000000000", "\"0x4a817c800\"", "\"0x00004A817C800\""] {
            assert_eq!(price(same).unwrap(), price("\"20000000000\"").unwrap());
        }
        let largest =
            "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        assert_eq!(
            with(&format!(r#""gasPrice": 1, "value": "{largest}""#))
                .unwrap()
                .value,
            U256::from_be_bytes([0xff; 32])
        );
        let too_large = largest.replace("935", "936");
        for wrong in [
            format!("\"{too_large}\""),
            "\"\"".to_owned(),
            "\"0x\"".to_owned(),
            "\"1e9\"".to_owned(),
            "\"-1\"".to_owned(),
            "1.5".to_owned(),
            "[]".to_owned(),
        ] {
            let problem = price(&wrong).unwrap_err().to_string();
            assert!(
                problem.contains("gasPrice: is no number"),
                "{wrong}: {problem}"
            );
        }
        assert!(problem(r#""gasPrice": 1, "gasLimit": "0x10000000000000000""#).contains("2^64"));
    }

    #[test]
    fn the_type_follows_from_the_fields() {
        let kind = |more: &str| with(more).unwrap().kind;
        assert!(matches!(
            kind(r#""gasPrice": 1"#),
            EthereumKind::Legacy { .. }
        ));
        assert!(matches!(
            kind(r#""gasPrice": 1, "accessList": []"#),
            EthereumKind::AccessList { .. }
        ));
        let dynamic = r#""maxFeePerGas": 2, "maxPriorityFeePerGas": 1"#;
        assert!(matches!(kind(dynamic), EthereumKind::DynamicFee { .. }));
        let hash = "11".repeat(32);
        let blob =
            format!(r#"{dynamic}, "maxFeePerBlobGas": 1, "blobVersionedHashes": ["0x{hash}"]"#);
        assert!(matches!(kind(&blob), EthereumKind::Blob { .. }));
        assert!(problem(r#""gasPrice": 1, "maxFeePerGas": 1"#).contains("gasPrice: an EIP-1559"));
        assert!(problem(r#""gasPrice": 1, "type": "0x2""#).contains("gasPrice: an EIP-1559"));
        assert!(problem(r#""gasPrice": 1, "type": 4"#).contains("type: is 4"));
        assert!(problem(r#""maxFeePerGas": 1"#).contains("maxPriorityFeePerGas: is missing"));
        assert!(problem(r#""value": 1"#).contains("gasPrice: is missing"));
    }

    #[test]
    fn fields_that_are_unknown_twice_or_wrong_are_named() {
        assert!(problem(r#""gasprice": 1"#).contains("unknown field `gasprice`"));
        assert!(problem(r#""gasPrice": 1, "blobs": []"#).contains("unknown field `blobs`"));
        assert!(
            problem(r#""gasPrice": 1, "gasLimit": 1"#).contains("gas: is another than gasLimit")
        );
        assert!(with(r#""gasPrice": 1, "gasLimit": 21000"#).is_ok());
        assert!(problem(r#""gasPrice": 1, "data": "0x1""#).contains("data: is not 0x"));
        let mistyped = TO.replace("0x9d8A", "0x9D8A");
        assert!(problem(&format!(r#""gasPrice": 1, "from": "{mistyped}""#)).contains("mistyped"));
        assert!(
            with(&format!(
                r#""gasPrice": 1, "from": "{}""#,
                TO.to_lowercase()
            ))
            .is_ok()
        );
        assert!(
            with(r#""gasPrice": 1, "accessList": [{"address": "0x00", "storageKeys": []}]"#)
                .is_err()
        );
    }

    #[test]
    fn no_recipient_makes_a_contract() {
        let text =
            r#"{"chainId": 1, "nonce": 0, "gas": 1, "gasPrice": 1, "to": null, "input": "0x00"}"#;
        assert_eq!(parse(text).unwrap().0.to, None);
    }
}
