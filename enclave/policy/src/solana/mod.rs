//! Solana messages, legacy and version 0.
//!
//! The format is that of the `solana-message` crate (`legacy.rs`, `versions/v0`) with its `sanitize` rules,
//! and stricter where the runtime would refuse anyway. The parser (`wire`) is our own: it is small, sits in
//! front of signatures, and accepts exactly one encoding of each message.

mod wire;

use std::fmt;

use bitcoin::base58;
use bitcoin::hex::DisplayHex;

use crate::Rejection;
use crate::canonical::Encoder;
use wire::{RawInstruction, RawMessage, malformed_at};

/// Bytes of a message: a packet of 1232 bytes less the count and room for one signature.
pub const MAX_SOLANA_BYTES: usize = PACKET_BYTES - 1 - SIGNATURE_BYTES;

/// What one transaction, signatures included, may have (IPv6 minimum MTU less headers).
const PACKET_BYTES: usize = 1232;
const SIGNATURE_BYTES: usize = 64;
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
