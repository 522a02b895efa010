//! The reader of unsigned transactions, and what it refuses.

use super::wire::{Fields, malformed_at, refused};
use super::{
    EthereumAccess, EthereumKind, EthereumTransaction, MAX_ACCESS_LIST_ADDRESSES,
    MAX_ACCESS_LIST_KEYS, MAX_BLOBS, MAX_ETHEREUM_BYTES, U256,
};
use crate::Rejection;

/// EIP-2294: so that a signature's `v`, twice the chain id and some, fits 64 bits.
const MAX_CHAIN_ID: u64 = u64::MAX / 2 - 36;
/// What every transaction costs (yellow paper, appendix G, `G_transaction`).
const MIN_GAS_LIMIT: u64 = 21_000;
/// EIP-4844, `GAS_PER_BLOB`.
const GAS_PER_BLOB: u64 = 131_072;
/// EIP-4844, `VERSIONED_HASH_VERSION_KZG`.
const BLOB_HASH_VERSION: u8 = 1;

/// Decodes an unsigned transaction that the account `from` sends.
pub(crate) fn decode(bytes: &[u8], from: [u8; 20]) -> Result<EthereumTransaction, Rejection> {
    at_most("ethereum_transaction", bytes.len(), MAX_ETHEREUM_BYTES)?;
    let parsed = match bytes.split_first() {
        None => Err(malformed_at("", "is empty")),
        Some((0xc0.., _)) => legacy(Fields::of(bytes)?),
        Some((1, rest)) => access_list(Fields::of(rest)?),
        Some((2, rest)) => dynamic_fee(Fields::of(rest)?),
        Some((3, rest)) => blob(Fields::of(rest)?),
        Some((actual @ ..0x80, _)) => Err(Rejection::TransactionType { actual: *actual }),
        Some(_) => Err(malformed_at("", "is neither a list nor of a known type")),
    }?;
    let transaction = parsed.checked(from)?;
    // The hash that is signed is one of the bytes, and people agree to the fields: they must be the same
    // transaction, whatever the reader may have overlooked.
    if transaction.unsigned_bytes() != bytes {
        return Err(malformed_at("", "is not in its only encoding"));
    }
    Ok(transaction)
}

/// What every type has, each in its own order.
struct Parsed {
    kind: EthereumKind,
    chain_id: u64,
    nonce: u64,
    call: Call,
    access_list: Vec<EthereumAccess>,
}

/// The four fields that stand together in every type.
struct Call {
    gas_limit: u64,
    to: Option<[u8; 20]>,
    value: U256,
    data: Vec<u8>,
}

fn legacy(mut fields: Fields<'_>) -> Result<Parsed, Rejection> {
    let nonce = fields.number("nonce")?;
    let gas_price = fields.quantity("gas_price")?;
    let call = call(&mut fields)?;
    if fields.is_empty() {
        return Err(Rejection::NoChainId);
    }
    let chain_id = fields.number("chain_id")?;
    for field in ["r", "s"] {
        if fields.quantity(field)? != U256::ZERO {
            return Err(malformed_at(field, "is not 0: the transaction is signed"));
        }
    }
    fields.end("")?;
    Ok(Parsed {
        kind: EthereumKind::Legacy { gas_price },
        chain_id,
        nonce,
        call,
        access_list: Vec::new(),
    })
}

fn access_list(mut fields: Fields<'_>) -> Result<Parsed, Rejection> {
    let chain_id = fields.number("chain_id")?;
    let nonce = fields.number("nonce")?;
    let gas_price = fields.quantity("gas_price")?;
    let call = call(&mut fields)?;
    let access_list = accesses(fields.list("access_list")?)?;
    fields.end("")?;
    Ok(Parsed {
        kind: EthereumKind::AccessList { gas_price },
        chain_id,
        nonce,
        call,
        access_list,
    })
}

fn dynamic_fee(mut fields: Fields<'_>) -> Result<Parsed, Rejection> {
    let parsed = dynamic_fee_fields(&mut fields)?;
    fields.end("")?;
    Ok(parsed)
}

/// Begins as a transaction with a dynamic fee does.
fn blob(mut fields: Fields<'_>) -> Result<Parsed, Rejection> {
    let mut parsed = dynamic_fee_fields(&mut fields)?;
    if let EthereumKind::DynamicFee {
        max_priority_fee_per_gas,
        max_fee_per_gas,
    } = parsed.kind
    {
        parsed.kind = EthereumKind::Blob {
            max_priority_fee_per_gas,
            max_fee_per_gas,
            max_fee_per_blob_gas: fields.quantity("max_fee_per_blob_gas")?,
            blob_hashes: blob_hashes(fields.list("blob_versioned_hashes")?)?,
        };
    }
    fields.end("")?;
    Ok(parsed)
}

fn dynamic_fee_fields(fields: &mut Fields<'_>) -> Result<Parsed, Rejection> {
    Ok(Parsed {
        chain_id: fields.number("chain_id")?,
        nonce: fields.number("nonce")?,
        kind: EthereumKind::DynamicFee {
            max_priority_fee_per_gas: fields.quantity("max_priority_fee_per_gas")?,
            max_fee_per_gas: fields.quantity("max_fee_per_gas")?,
        },
        call: call(fields)?,
        access_list: accesses(fields.list("access_list")?)?,
    })
}

fn call(fields: &mut Fields<'_>) -> Result<Call, Rejection> {
    Ok(Call {
        gas_limit: fields.number("gas_limit")?,
        to: match fields.bytes("to")? {
            [] => None,
            address => {
                Some(address.try_into().map_err(|_| {
                    malformed_at("to", "is neither empty nor an address of 20 bytes")
                })?)
            }
        },
        value: fields.quantity("value")?,
        data: fields.bytes("data")?.to_vec(),
    })
}

fn accesses(mut list: Fields<'_>) -> Result<Vec<EthereumAccess>, Rejection> {
    let mut accesses = Vec::new();
    let mut total = 0_usize;
    while !list.is_empty() {
        let field = format!("access_list[{}]", accesses.len());
        let mut entry = list.list(&field)?;
        let address = entry.fixed(&format!("{field}.address"))?;
        let keys_field = format!("{field}.storage_keys");
        let mut keys = entry.list(&keys_field)?;
        entry.end(&field)?;
        let mut storage_keys = Vec::new();
        while !keys.is_empty() {
            storage_keys.push(keys.fixed(&keys_field)?);
        }
        total = total.saturating_add(storage_keys.len());
        accesses.push(EthereumAccess {
            address,
            storage_keys,
        });
        at_most(
            "ethereum_transaction.access_list",
            accesses.len(),
            MAX_ACCESS_LIST_ADDRESSES,
        )?;
        at_most(
            "ethereum_transaction.access_list storage keys",
            total,
            MAX_ACCESS_LIST_KEYS,
        )?;
    }
    Ok(accesses)
}

fn blob_hashes(mut list: Fields<'_>) -> Result<Vec<[u8; 32]>, Rejection> {
    let mut hashes = Vec::new();
    while !list.is_empty() {
        let field = format!("blob_versioned_hashes[{}]", hashes.len());
        let hash: [u8; 32] = list.fixed(&field)?;
        if hash.first() != Some(&BLOB_HASH_VERSION) {
            return Err(refused(&field, "is not of version 1"));
        }
        hashes.push(hash);
        at_most(
            "ethereum_transaction.blob_versioned_hashes",
            hashes.len(),
            MAX_BLOBS,
        )?;
    }
    Ok(hashes)
}

impl Parsed {
    /// The transaction, unless a chain would refuse it or its owner cannot have meant it.
    fn checked(self, from: [u8; 20]) -> Result<EthereumTransaction, Rejection> {
        let (to, data) = (self.call.to, &self.call.data);
        if self.chain_id == 0 || self.chain_id > MAX_CHAIN_ID {
            let detail = "is not between 1 and 2^63 - 37 (EIP-2294)";
            return Err(refused("chain_id", detail));
        }
        if self.nonce == u64::MAX {
            let detail = "is 2^64 - 1, which no transaction may have (EIP-2681)";
            return Err(refused("nonce", detail));
        }
        if self.call.gas_limit < MIN_GAS_LIMIT {
            let detail = "is less than the 21000 that every transaction needs";
            return Err(refused("gas_limit", detail));
        }
        if to.is_none() && data.is_empty() {
            let detail = "is empty, and there is no code to make a contract of";
            return Err(refused("to", detail));
        }
        self.check_kind()?;
        let max_fee = self
            .max_fee()
            .ok_or_else(|| refused("", "value and highest fee together are 2^256 wei or more"))?;
        Ok(EthereumTransaction {
            kind: self.kind,
            chain_id: self.chain_id,
            nonce: self.nonce,
            gas_limit: self.call.gas_limit,
            to,
            value: self.call.value,
            data: self.call.data,
            access_list: self.access_list,
            from,
            max_fee,
        })
    }

    fn check_kind(&self) -> Result<(), Rejection> {
        match &self.kind {
            EthereumKind::DynamicFee {
                max_priority_fee_per_gas,
                max_fee_per_gas,
            }
            | EthereumKind::Blob {
                max_priority_fee_per_gas,
                max_fee_per_gas,
                ..
            } if max_priority_fee_per_gas > max_fee_per_gas => Err(refused(
                "max_priority_fee_per_gas",
                "exceeds max_fee_per_gas",
            )),
            EthereumKind::Blob { .. } if self.call.to.is_none() => {
                Err(refused("to", "is empty, and blobs cannot make a contract"))
            }
            EthereumKind::Blob { blob_hashes, .. } if blob_hashes.is_empty() => {
                Err(refused("blob_versioned_hashes", "has none"))
            }
            _ => Ok(()),
        }
    }

    /// All gas at the highest price, if it and the value can be paid in 256 bits.
    fn max_fee(&self) -> Option<U256> {
        let gas_limit = self.call.gas_limit;
        let fee = match &self.kind {
            EthereumKind::Legacy { gas_price: price }
            | EthereumKind::AccessList { gas_price: price }
            | EthereumKind::DynamicFee {
                max_fee_per_gas: price,
                ..
            } => price.checked_mul(gas_limit)?,
            EthereumKind::Blob {
                max_fee_per_gas,
                max_fee_per_blob_gas,
                blob_hashes,
                ..
            } => {
                let blobs = u64::try_from(blob_hashes.len()).ok()?;
                let blob_gas = blobs.checked_mul(GAS_PER_BLOB)?;
                let blob_fee = max_fee_per_blob_gas.checked_mul(blob_gas)?;
                max_fee_per_gas
                    .checked_mul(gas_limit)?
                    .checked_add(blob_fee)?
            }
        };
        fee.checked_add(self.call.value)?;
        Some(fee)
    }
}

fn at_most(field: &'static str, actual: usize, limit: usize) -> Result<(), Rejection> {
    if actual <= limit {
        return Ok(());
    }
    Err(Rejection::TooLarge {
        field,
        actual: actual as u64,
        limit: limit as u64,
    })
}
