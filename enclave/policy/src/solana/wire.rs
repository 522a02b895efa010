//! The bytes of a message: bounds, lengths in one form, indices counted as the runtime counts them.

use std::collections::BTreeSet;

use super::{SolanaAccount, SolanaVersion};
use crate::Rejection;

/// Set in the first byte of versioned messages; the other bits are the version.
const VERSION_FLAG: u8 = 0x80;
/// Account indices are one byte.
const MAX_ACCOUNTS: usize = 256;

/// The message's parts, before indices are followed.
pub(super) struct RawMessage {
    pub(super) version: SolanaVersion,
    pub(super) header: Header,
    keys: Vec<[u8; 32]>,
    pub(super) recent_blockhash: [u8; 32],
    pub(super) instructions: Vec<RawInstruction>,
    lookups: Vec<Lookup>,
}

pub(super) struct Header {
    /// The first so many keys sign,
    pub(super) signers: u8,
    /// of these the last so many are read-only,
    readonly_signers: u8,
    /// and so many read-only ones end the list.
    readonly_others: u8,
}

pub(super) struct RawInstruction {
    pub(super) program: u8,
    pub(super) accounts: Vec<u8>,
    pub(super) data: Vec<u8>,
}

struct Lookup {
    table: [u8; 32],
    writable: Vec<u8>,
    readonly: Vec<u8>,
}

impl RawMessage {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let mut reader = Reader { rest: bytes };
        let first = reader.byte("header")?;
        let (version, signers) = match first {
            legacy if legacy & VERSION_FLAG == 0 => (SolanaVersion::Legacy, legacy),
            VERSION_FLAG => (SolanaVersion::V0, reader.byte("header")?),
            _ => return Err(malformed_at("version", "is neither legacy nor 0")),
        };
        let header = Header {
            signers,
            readonly_signers: reader.byte("header")?,
            readonly_others: reader.byte("header")?,
        };
        let keys = reader.list("account_keys", |reader| reader.array("account_keys"))?;
        let recent_blockhash = reader.array("recent_blockhash")?;
        let instructions = reader.list("instructions", |reader| {
            Ok(RawInstruction {
                program: reader.byte("instructions")?,
                accounts: reader.bytes("instructions")?,
                data: reader.bytes("instructions")?,
            })
        })?;
        let lookups = match version {
            SolanaVersion::Legacy => Vec::new(),
            SolanaVersion::V0 => reader.list("address_table_lookups", |reader| {
                Ok(Lookup {
                    table: reader.array("address_table_lookups")?,
                    writable: reader.bytes("address_table_lookups")?,
                    readonly: reader.bytes("address_table_lookups")?,
                })
            })?,
        };
        if !reader.rest.is_empty() {
            return Err(malformed_at("end", "bytes follow the message"));
        }
        Ok(Self {
            version,
            header,
            keys,
            recent_blockhash,
            instructions,
            lookups,
        })
    }

    /// All accounts in the order that indices count them: the keys, then what the tables add as writable,
    /// then what they add as read-only.
    pub(super) fn accounts(&self) -> Result<Vec<SolanaAccount>, Rejection> {
        let header = &self.header;
        let signers = usize::from(header.signers);
        let writable_others_end = self
            .keys
            .len()
            .checked_sub(usize::from(header.readonly_others));
        // The fee payer must sign and be writable.
        let writable_signers = signers
            .checked_sub(usize::from(header.readonly_signers))
            .filter(|count| *count > 0);
        let (Some(writable_signers), Some(writable_others_end)) =
            (writable_signers, writable_others_end)
        else {
            return Err(malformed_at(
                "header",
                "contradicts itself or the number of accounts",
            ));
        };
        if signers > writable_others_end {
            return Err(malformed_at(
                "header",
                "counts more accounts than there are",
            ));
        }
        if self.keys.iter().collect::<BTreeSet<_>>().len() != self.keys.len() {
            return Err(malformed_at("account_keys", "names an account twice"));
        }
        let named = self.keys.iter().enumerate().map(|(index, address)| {
            let signer = index < signers;
            let writable = if signer {
                index < writable_signers
            } else {
                index < writable_others_end
            };
            SolanaAccount {
                address: *address,
                lookup: None,
                signer,
                writable,
            }
        });
        let looked_up = |writable: bool| {
            self.lookups.iter().flat_map(move |lookup| {
                let indices = if writable {
                    &lookup.writable
                } else {
                    &lookup.readonly
                };
                indices.iter().map(move |index| SolanaAccount {
                    address: lookup.table,
                    lookup: Some(*index),
                    signer: false,
                    writable,
                })
            })
        };
        if self
            .lookups
            .iter()
            .any(|lookup| lookup.writable.is_empty() && lookup.readonly.is_empty())
        {
            return Err(malformed_at(
                "address_table_lookups",
                "a table is named and nothing taken from it",
            ));
        }
        let accounts: Vec<_> = named
            .chain(looked_up(true))
            .chain(looked_up(false))
            .collect();
        if accounts.len() > MAX_ACCOUNTS {
            return Err(malformed_at("account_keys", "more than 256 accounts"));
        }
        Ok(accounts)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self, field: &str) -> Result<u8, Rejection> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], Rejection> {
        let (array, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| malformed_at(field, "ends too early"))?;
        self.rest = rest;
        Ok(*array)
    }

    fn bytes(&mut self, field: &str) -> Result<Vec<u8>, Rejection> {
        let length = self.compact_u16(field)?;
        let bytes = self.rest.split_at_checked(usize::from(length));
        let (bytes, rest) = bytes.ok_or_else(|| malformed_at(field, "ends too early"))?;
        self.rest = rest;
        Ok(bytes.to_vec())
    }

    /// Grows with what is really there, not with what the count promises.
    fn list<T>(
        &mut self,
        field: &str,
        item: impl Fn(&mut Self) -> Result<T, Rejection>,
    ) -> Result<Vec<T>, Rejection> {
        let count = self.compact_u16(field)?;
        (0..count).map(|_| item(self)).collect()
    }

    /// Seven bits a byte, least significant first, the eighth says that more follow; at most three bytes, and
    /// the shortest form only.
    fn compact_u16(&mut self, field: &str) -> Result<u16, Rejection> {
        let mut value = 0_u32;
        for shift in [0, 7, 14] {
            let byte = self.byte(field)?;
            if byte == 0 && shift > 0 {
                return Err(malformed_at(field, "a length is not in its shortest form"));
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u16::try_from(value)
                    .map_err(|_| malformed_at(field, "a length exceeds 65535"));
            }
        }
        Err(malformed_at(field, "a length has more than three bytes"))
    }
}

pub(super) fn malformed_at(field: &str, detail: &'static str) -> Rejection {
    Rejection::malformed(format!("solana_message.{field}"), detail)
}
