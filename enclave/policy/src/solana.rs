//! Solana messages, legacy and version 0.
//!
//! The format is that of the `solana-message` crate (`legacy.rs`, `versions/v0`) with its `sanitize` rules,
//! and stricter where the runtime would refuse anyway. The parser is our own: it is small, sits in front of
//! signatures, and accepts exactly one encoding of each message.

use std::collections::BTreeSet;
use std::fmt;

use bitcoin::base58;
use bitcoin::hex::DisplayHex;

use crate::Rejection;
use crate::canonical::Encoder;

/// Bytes of a message: a packet of 1232 bytes less the count and room for one signature.
pub const MAX_SOLANA_BYTES: usize = PACKET_BYTES - 1 - SIGNATURE_BYTES;

/// What one transaction, signatures included, may have (IPv6 minimum MTU less headers).
const PACKET_BYTES: usize = 1232;
const SIGNATURE_BYTES: usize = 64;
/// Set in the first byte of versioned messages; the other bits are the version.
const VERSION_FLAG: u8 = 0x80;
/// Account indices are one byte.
const MAX_ACCOUNTS: usize = 256;
/// 11111111111111111111111111111111
const SYSTEM_PROGRAM: [u8; 32] = [0; 32];
/// `SystemInstruction::Transfer` in bincode: the variant's number as u32, little-endian.
const TRANSFER: [u8; 4] = [2, 0, 0, 0];

/// A message that the key is a required signer of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolanaMessage {
    /// The message format.
    pub version: SolanaVersion,
    /// Who must sign; the first pays the fee.
    pub signers: Vec<[u8; 32]>,
    /// A recent block's hash, or a durable nonce.
    pub recent_blockhash: [u8; 32],
    /// In order of execution.
    pub instructions: Vec<SolanaInstruction>,
    /// The key that this was decoded for; one of the signers.
    pub key: [u8; 32],
}

/// The message format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SolanaVersion {
    /// Without a version prefix.
    Legacy,
    /// Version 0, with address lookup tables.
    V0,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SolanaInstruction {
    /// A transfer of the system program.
    Transfer {
        /// Who pays; one of the signers.
        from: [u8; 32],
        /// Who receives.
        to: [u8; 32],
        /// Lamports.
        lamports: u64,
    },
    /// Any other: nothing is known of what it does.
    Unknown {
        /// The program that is called.
        program: [u8; 32],
        /// The accounts it is given.
        accounts: Vec<SolanaAccount>,
        /// The data it is given.
        data: Vec<u8>,
    },
}

/// An account that an instruction is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolanaAccount {
    /// The account, or the lookup table that holds it.
    pub address: [u8; 32],
    /// The index in the lookup table: which account stands there, the chain alone knows.
    pub lookup: Option<u8>,
    /// Whether it signs.
    pub signer: bool,
    /// Whether it may be changed.
    pub writable: bool,
}

/// Decodes a message for this key.
pub(crate) fn decode(bytes: &[u8], key: &[u8; 32]) -> Result<SolanaMessage, Rejection> {
    if bytes.len() > MAX_SOLANA_BYTES {
        let (actual, limit) = (bytes.len() as u64, MAX_SOLANA_BYTES as u64);
        return Err(Rejection::TooLarge {
            field: "solana_message",
            actual,
            limit,
        });
    }
    let raw = RawMessage::parse(bytes)?;
    let signatures = usize::from(raw.header.signers).saturating_mul(SIGNATURE_BYTES);
    if bytes.len().saturating_add(signatures).saturating_add(1) > PACKET_BYTES {
        return Err(Rejection::malformed(
            "solana_message",
            "leaves no room in a packet for its signatures",
        ));
    }
    let accounts = raw.accounts()?;
    let signers: Vec<_> = accounts
        .iter()
        .filter(|account| account.signer)
        .map(|account| account.address)
        .collect();
    if !signers.contains(key) {
        return Err(Rejection::NotASigner {
            signers: signers.len(),
        });
    }
    let instructions = raw.instructions.iter().enumerate();
    let instructions = instructions
        .map(|(index, raw)| instruction(index, raw, &accounts))
        .collect::<Result<_, _>>()?;
    Ok(SolanaMessage {
        version: raw.version,
        signers,
        recent_blockhash: raw.recent_blockhash,
        instructions,
        key: *key,
    })
}

fn instruction(
    index: usize,
    raw: &RawInstruction,
    accounts: &[SolanaAccount],
) -> Result<SolanaInstruction, Rejection> {
    let at = |position: u8, part: &str| {
        let account = accounts.get(usize::from(position));
        account.ok_or_else(|| {
            malformed_at(&format!("instructions[{index}].{part}"), "is out of range")
        })
    };
    let program = at(raw.program, "program_id_index")?;
    if raw.program == 0 {
        return Err(malformed_at(
            &format!("instructions[{index}].program_id_index"),
            "names the fee payer",
        ));
    }
    if program.lookup.is_some() {
        let detail = "names an account in a lookup table, where no program may be";
        return Err(malformed_at(
            &format!("instructions[{index}].program_id_index"),
            detail,
        ));
    }
    let given = raw
        .accounts
        .iter()
        .map(|position| at(*position, "accounts").cloned());
    let given = given.collect::<Result<Vec<_>, _>>()?;
    Ok(
        transfer(program, &given, &raw.data).unwrap_or_else(|| SolanaInstruction::Unknown {
            program: program.address,
            accounts: given,
            data: raw.data.clone(),
        }),
    )
}

/// Recognises exactly what `system_instruction::transfer` builds. The runtime would also execute one with
/// accounts or data behind; that stays unknown here.
fn transfer(
    program: &SolanaAccount,
    accounts: &[SolanaAccount],
    data: &[u8],
) -> Option<SolanaInstruction> {
    let [from, to] = accounts else { return None };
    let lamports = data.strip_prefix(&TRANSFER)?;
    let lamports = u64::from_le_bytes(lamports.try_into().ok()?);
    let understood = program.address == SYSTEM_PROGRAM && from.signer && to.lookup.is_none();
    understood.then_some(SolanaInstruction::Transfer {
        from: from.address,
        to: to.address,
        lamports,
    })
}

/// The message's parts, before indices are followed.
struct RawMessage {
    version: SolanaVersion,
    header: Header,
    keys: Vec<[u8; 32]>,
    recent_blockhash: [u8; 32],
    instructions: Vec<RawInstruction>,
    lookups: Vec<Lookup>,
}

struct Header {
    /// The first so many keys sign,
    signers: u8,
    /// of these the last so many are read-only,
    readonly_signers: u8,
    /// and so many read-only ones end the list.
    readonly_others: u8,
}

struct RawInstruction {
    program: u8,
    accounts: Vec<u8>,
    data: Vec<u8>,
}

struct Lookup {
    table: [u8; 32],
    writable: Vec<u8>,
    readonly: Vec<u8>,
}

impl RawMessage {
    fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
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
    fn accounts(&self) -> Result<Vec<SolanaAccount>, Rejection> {
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

fn malformed_at(field: &str, detail: &'static str) -> Rejection {
    Rejection::malformed(format!("solana_message.{field}"), detail)
}

impl SolanaMessage {
    pub(crate) fn encode(&self, encoder: Encoder) -> Encoder {
        let version: &[u8] = match self.version {
            SolanaVersion::Legacy => b"legacy",
            SolanaVersion::V0 => b"v0",
        };
        encoder
            .bytes(version)
            .list(&self.signers, |encoder, signer| encoder.bytes(signer))
            .bytes(&self.recent_blockhash)
            .list(
                &self.instructions,
                |encoder, instruction| match instruction {
                    SolanaInstruction::Transfer { from, to, lamports } => encoder
                        .bytes(b"transfer")
                        .bytes(from)
                        .bytes(to)
                        .number(*lamports),
                    SolanaInstruction::Unknown {
                        program,
                        accounts,
                        data,
                    } => encoder
                        .bytes(b"unknown")
                        .bytes(program)
                        .list(accounts, encode_account)
                        .bytes(data),
                },
            )
            .bytes(&self.key)
    }
}

fn encode_account(encoder: Encoder, account: &SolanaAccount) -> Encoder {
    let lookup = account.lookup.map(|index| [index]);
    let lookup: &[u8] = lookup.as_ref().map_or(&[], |index| index);
    encoder
        .bytes(&account.address)
        .bytes(lookup)
        .flag(account.signer)
        .flag(account.writable)
}

impl fmt::Display for SolanaMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |address: &[u8; 32]| {
            let own = if *address == self.key {
                " (this key)"
            } else {
                ""
            };
            format!("{}{own}", base58::encode(address))
        };
        let version = match self.version {
            SolanaVersion::Legacy => "legacy",
            SolanaVersion::V0 => "version 0",
        };
        writeln!(f, "Solana message, {version}")?;
        for instruction in &self.instructions {
            match instruction {
                SolanaInstruction::Transfer { from, to, lamports } => {
                    writeln!(
                        f,
                        "  transfers {lamports} lamports from {} to {}",
                        name(from),
                        name(to)
                    )?;
                }
                SolanaInstruction::Unknown {
                    program,
                    accounts,
                    data,
                } => {
                    writeln!(
                        f,
                        "  calls program {} with data {}",
                        name(program),
                        data.as_hex()
                    )?;
                    for account in accounts {
                        let signer = if account.signer { ", signs" } else { "" };
                        let writable = if account.writable { ", writable" } else { "" };
                        match account.lookup {
                            None => writeln!(
                                f,
                                "    account {}{signer}{writable}",
                                name(&account.address)
                            )?,
                            Some(index) => {
                                let table = name(&account.address);
                                writeln!(
                                    f,
                                    "    unknown account {index} of lookup table {table}{writable}"
                                )?;
                            }
                        }
                    }
                }
            }
        }
        for (index, signer) in self.signers.iter().enumerate() {
            let payer = if index == 0 { ", pays the fee" } else { "" };
            let end = if index + 1 < self.signers.len() {
                "\n"
            } else {
                ""
            };
            write!(f, "  signed by {}{payer}{end}", name(signer))?;
        }
        Ok(())
    }
}
