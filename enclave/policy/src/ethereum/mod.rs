//! Ethereum transactions: legacy (EIP-155), with an access list (EIP-2930), with a dynamic fee (EIP-1559), with
//! blobs (EIP-4844).
//!
//! The payload is the unsigned transaction, byte for byte what its signing hash is computed over:
//!
//! | type | payload |
//! | --- | --- |
//! | legacy | `rlp([nonce, gas_price, gas_limit, to, value, data, chain_id, 0, 0])` |
//! | EIP-2930 | `0x01 ‖ rlp([chain_id, nonce, gas_price, gas_limit, to, value, data, access_list])` |
//! | EIP-1559 | `0x02 ‖ rlp([chain_id, nonce, max_priority_fee, max_fee, gas_limit, to, value, data, access_list])` |
//! | EIP-4844 | `0x03 ‖ rlp([… as EIP-1559 …, max_fee_per_blob_gas, blob_versioned_hashes])` |
//!
//! One transaction has one encoding here, and each of its fields is in the intent. What a contract makes of the
//! data it is called with is not understood: the intent tells the function's selector and a hash of all of it.
//!
//! A legacy transaction without a chain id would be valid on every chain, and is refused. So are transactions
//! that set an account's code (EIP-7702): they give the account away.

mod address;
mod decode;
mod u256;
mod wire;

use std::fmt;

use bitcoin::hex::DisplayHex;

use crate::canonical::Encoder;
use wire::Writer;

pub(crate) use address::keccak256;
pub use address::{ethereum_address, ethereum_checksum};
pub(crate) use decode::decode;
pub use u256::U256;

/// Bytes of a transaction: what nodes pass on (geth, `txMaxSize`).
pub const MAX_ETHEREUM_BYTES: usize = 128 * 1024;
/// Addresses of an access list.
pub const MAX_ACCESS_LIST_ADDRESSES: usize = 256;
/// Storage keys of an access list, of all addresses together.
pub const MAX_ACCESS_LIST_KEYS: usize = 2048;
/// Blobs of a transaction.
pub const MAX_BLOBS: usize = 16;

/// A transaction of the account of one of the key's keys. Amounts are wei.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EthereumTransaction {
    /// The type, and the fees that it has.
    pub kind: EthereumKind,
    /// The chain that it is valid on, and no other.
    pub chain_id: u64,
    /// How many transactions the account sent before.
    pub nonce: u64,
    /// Gas that it may use, blobs apart.
    pub gas_limit: u64,
    /// The account that receives or the contract that is called; none makes a contract.
    pub to: Option<[u8; 20]>,
    /// What is sent.
    pub value: U256,
    /// The call, or the code that makes the contract.
    pub data: Vec<u8>,
    /// What it says beforehand that it will touch. Empty for legacy transactions.
    pub access_list: Vec<EthereumAccess>,
    /// The account that sends, and pays the fee.
    pub from: [u8; 20],
    /// The most that it can cost beyond `value`: all gas at the highest price, blobs included.
    pub max_fee: U256,
}

/// The type of a transaction, with what its fee is computed from: wei for one unit of gas.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EthereumKind {
    /// Without a type byte, protected by EIP-155.
    Legacy {
        /// The price.
        gas_price: U256,
    },
    /// EIP-2930, type 1.
    AccessList {
        /// The price.
        gas_price: U256,
    },
    /// EIP-1559, type 2.
    DynamicFee {
        /// The part that the block's producer may get.
        max_priority_fee_per_gas: U256,
        /// The highest price.
        max_fee_per_gas: U256,
    },
    /// EIP-4844, type 3.
    Blob {
        /// The part that the block's producer may get.
        max_priority_fee_per_gas: U256,
        /// The highest price.
        max_fee_per_gas: U256,
        /// The highest price of blob gas, of which each blob takes 131072 units.
        max_fee_per_blob_gas: U256,
        /// Versioned hashes of the blobs.
        blob_hashes: Vec<[u8; 32]>,
    },
}

/// An entry of an access list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EthereumAccess {
    /// The contract.
    pub address: [u8; 20],
    /// Keys in its storage.
    pub storage_keys: Vec<[u8; 32]>,
}

impl EthereumTransaction {
    /// The unsigned transaction as its signing hash is computed over it: for a decoded one, the payload.
    pub fn unsigned_bytes(&self) -> Vec<u8> {
        let common = |fields: Writer| {
            let fields = fields
                .number(self.gas_limit)
                .bytes(self.to.as_ref().map_or(&[], |to| to.as_slice()))
                .quantity(self.value);
            fields.bytes(&self.data)
        };
        let access_list = |fields: Writer| {
            fields.each(&self.access_list, |list, access| {
                let keys =
                    |entry: Writer| entry.each(&access.storage_keys, |keys, key| keys.bytes(key));
                list.list(keys(Writer::default().bytes(&access.address)))
            })
        };
        let typed = || Writer::default().number(self.chain_id).number(self.nonce);
        let (prefix, fields): (&[u8], _) = match &self.kind {
            EthereumKind::Legacy { gas_price } => {
                let fields = Writer::default().number(self.nonce).quantity(*gas_price);
                (
                    &[],
                    common(fields).number(self.chain_id).number(0).number(0),
                )
            }
            EthereumKind::AccessList { gas_price } => {
                (&[1], access_list(common(typed().quantity(*gas_price))))
            }
            EthereumKind::DynamicFee {
                max_priority_fee_per_gas,
                max_fee_per_gas,
            } => {
                let fields = typed()
                    .quantity(*max_priority_fee_per_gas)
                    .quantity(*max_fee_per_gas);
                (&[2], access_list(common(fields)))
            }
            EthereumKind::Blob {
                max_priority_fee_per_gas,
                max_fee_per_gas,
                max_fee_per_blob_gas,
                blob_hashes,
            } => {
                let fields = typed()
                    .quantity(*max_priority_fee_per_gas)
                    .quantity(*max_fee_per_gas);
                let fields = access_list(common(fields)).quantity(*max_fee_per_blob_gas);
                (
                    &[3],
                    fields.each(blob_hashes, |hashes, hash| hashes.bytes(hash)),
                )
            }
        };
        [prefix, &Writer::default().list(fields).finish()].concat()
    }

    pub(crate) fn encode(&self, encoder: Encoder) -> Encoder {
        let encoder = match &self.kind {
            EthereumKind::Legacy { gas_price } => {
                encoder.variant(0).bytes(&gas_price.to_be_bytes())
            }
            EthereumKind::AccessList { gas_price } => {
                encoder.variant(1).bytes(&gas_price.to_be_bytes())
            }
            EthereumKind::DynamicFee {
                max_priority_fee_per_gas,
                max_fee_per_gas,
            } => encoder
                .variant(2)
                .bytes(&max_priority_fee_per_gas.to_be_bytes())
                .bytes(&max_fee_per_gas.to_be_bytes()),
            EthereumKind::Blob {
                max_priority_fee_per_gas,
                max_fee_per_gas,
                max_fee_per_blob_gas,
                blob_hashes,
            } => encoder
                .variant(3)
                .bytes(&max_priority_fee_per_gas.to_be_bytes())
                .bytes(&max_fee_per_gas.to_be_bytes())
                .bytes(&max_fee_per_blob_gas.to_be_bytes())
                .list(blob_hashes, |encoder, hash| encoder.bytes(hash)),
        };
        encoder
            .number(self.chain_id)
            .number(self.nonce)
            .number(self.gas_limit)
            .list(self.to.as_slice(), |encoder, to| encoder.bytes(to))
            .bytes(&self.value.to_be_bytes())
            .bytes(&self.data)
            .list(&self.access_list, |encoder, access| {
                encoder
                    .bytes(&access.address)
                    .list(&access.storage_keys, |encoder, key| encoder.bytes(key))
            })
            .bytes(&self.from)
            .bytes(&self.max_fee.to_be_bytes())
    }
}

impl fmt::Display for EthereumTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            EthereumKind::Legacy { .. } => "legacy",
            EthereumKind::AccessList { .. } => "EIP-2930",
            EthereumKind::DynamicFee { .. } => "EIP-1559",
            EthereumKind::Blob { .. } => "EIP-4844",
        };
        let data = Data(&self.data);
        let value = self.value;
        let what = match &self.to {
            None => "contract creation",
            Some(_) if self.data.is_empty() => "transfer",
            Some(_) => "call",
        };
        writeln!(f, "Ethereum {what} on chain {} ({kind})", self.chain_id)?;
        match (&self.to, self.data.first_chunk::<4>()) {
            (None, _) => writeln!(f, "  makes a contract of {data}\n  sends {value} wei to it")?,
            (Some(to), _) if self.data.is_empty() => {
                writeln!(f, "  sends {value} wei to {}", ethereum_checksum(to))?;
            }
            (Some(to), Some(selector)) => {
                let (selector, to) = (selector.as_hex(), ethereum_checksum(to));
                writeln!(
                    f,
                    "  calls 0x{selector} on {to} with {data}\n  sends {value} wei along"
                )?;
            }
            (Some(to), None) => {
                let to = ethereum_checksum(to);
                writeln!(
                    f,
                    "  calls {to} with {data}, no function\n  sends {value} wei along"
                )?;
            }
        }
        if !self.access_list.is_empty() {
            let keys = self
                .access_list
                .iter()
                .map(|access| access.storage_keys.len());
            let (addresses, keys) = (self.access_list.len(), keys.sum::<usize>());
            writeln!(
                f,
                "  declares access to {addresses} address(es) and {keys} storage key(s)"
            )?;
        }
        if let EthereumKind::Blob { blob_hashes, .. } = &self.kind {
            for hash in blob_hashes {
                writeln!(f, "  carries the blob 0x{}", hash.as_hex())?;
            }
        }
        let from = ethereum_checksum(&self.from);
        writeln!(f, "  from {from} (this key), nonce {}", self.nonce)?;
        write!(f, "  fee at most {} wei", self.max_fee)
    }
}

/// A call's or a contract's bytes, which are not understood.
struct Data<'a>(&'a [u8]);

impl fmt::Display for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = keccak256(self.0);
        write!(f, "{} bytes (keccak256 0x{})", self.0.len(), hash.as_hex())
    }
}
