//! What a transaction does, in numbers and in words.

use std::fmt;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Network, Script};

use crate::canonical::Encoder;

/// Scripts up to this many bytes are shown whole, longer ones by their hash.
const SHOWN_SCRIPT_BYTES: usize = 128;

/// A transaction that spends at least one output of the key. Amounts are satoshi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitcoinSpend {
    /// Transaction version.
    pub version: i32,
    /// The `nLockTime` field.
    pub lock_time: u32,
    /// In the transaction's order.
    pub inputs: Vec<BitcoinInput>,
    /// In the transaction's order.
    pub outputs: Vec<BitcoinOutput>,
    /// What the inputs hold beyond the outputs.
    pub fee: u64,
}

/// An output that the transaction spends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitcoinInput {
    /// Id of the transaction it stands in, as hashed (shown reversed).
    pub txid: [u8; 32],
    /// Its index there.
    pub vout: u32,
    /// The `nSequence` field.
    pub sequence: u32,
    /// Satoshi.
    pub amount: u64,
    /// The script that locks it.
    pub script_pubkey: Vec<u8>,
    /// Whether it is the key's, and so to be signed.
    pub own: bool,
}

/// An output that the transaction makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitcoinOutput {
    /// Satoshi.
    pub amount: u64,
    /// The script that locks it: the destination.
    pub script_pubkey: Vec<u8>,
    /// If it pays back to the key: the path below the group's key, empty for that key itself.
    pub change: Option<Vec<u32>>,
}

impl BitcoinSpend {
    pub(crate) fn encode(&self, encoder: Encoder) -> Encoder {
        encoder
            // The transaction's own encoding of a signed 32-bit number.
            .bytes(&self.version.to_le_bytes())
            .number(self.lock_time)
            .list(&self.inputs, |encoder, input| {
                encoder
                    .bytes(&input.txid)
                    .number(input.vout)
                    .number(input.sequence)
                    .number(input.amount)
                    .bytes(&input.script_pubkey)
                    .flag(input.own)
            })
            .list(&self.outputs, |encoder, output| {
                let encoder = encoder.number(output.amount).bytes(&output.script_pubkey);
                match output.change.as_deref() {
                    None => encoder.variant(0),
                    Some([]) => encoder.variant(1),
                    Some(path) => encoder
                        .variant(2)
                        .list(path, |encoder, step| encoder.number(*step)),
                }
            })
            .number(self.fee)
    }

    /// How many inputs are the key's, or are not, and how many satoshi they hold.
    fn inputs_where(&self, own: bool) -> (usize, u64) {
        let amounts = self
            .inputs
            .iter()
            .filter(|input| input.own == own)
            .map(|input| input.amount);
        amounts.fold((0, 0), |(count, sum), amount| {
            (count + 1, sum.saturating_add(amount))
        })
    }
}

impl fmt::Display for BitcoinSpend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, own_amount) = self.inputs_where(true);
        let (others, others_amount) = self.inputs_where(false);
        writeln!(f, "Bitcoin transaction (addresses in mainnet form)")?;
        writeln!(f, "  spends {own_amount} sat of this key in {own} input(s)")?;
        if others > 0 {
            writeln!(
                f,
                "  spends {others_amount} sat of others in {others} input(s)"
            )?;
        }
        for output in &self.outputs {
            let verb = if output.change.is_some() {
                "change"
            } else {
                "pays"
            };
            let destination = Destination(&output.script_pubkey);
            write!(f, "  {verb} {} sat to {destination}", output.amount)?;
            // Where to look for it: change at a path that nobody thinks of is change that is lost.
            match output.change.as_deref() {
                None | Some([]) => writeln!(f)?,
                Some(path) => writeln!(f, " at m{}", Steps(path))?,
            }
        }
        let lock_time = LockTime::from_consensus(self.lock_time);
        if lock_time != LockTime::ZERO && self.inputs.iter().any(|input| input.sequence != u32::MAX)
        {
            writeln!(f, "  valid only after {lock_time:#}")?;
        }
        write!(f, "  fee {} sat", self.fee)
    }
}

struct Destination<'a>(&'a [u8]);

impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let script = Script::from_bytes(self.0);
        if let Ok(address) = Address::from_script(script, Network::Bitcoin) {
            write!(f, "{address}")
        } else if self.0.len() <= SHOWN_SCRIPT_BYTES {
            write!(f, "the script {}", self.0.as_hex())
        } else {
            let hash = bitcoin::hashes::sha256::Hash::hash(self.0);
            write!(f, "a script of {} bytes with SHA-256 {hash}", self.0.len())
        }
    }
}

/// A path's steps, each behind a slash.
struct Steps<'a>(&'a [u32]);

impl fmt::Display for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "/{step}"))
    }
}
